"""The state of one partition: the fold of its log, and the indexes that follow from it.

Three kinds of fields, kept apart here and in the snapshot: what the fold *is* (compared, hashed,
snapshotted), what is *derived* from it for speed, and what is *volatile*: true of this process only.
Only core/evolve.py and its helpers change anything but the volatile part.
"""

from bisect import bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final, Protocol, TypeAlias

import attrs

from querator.core.deadlines import Deadlines
from querator.core.dedupe import DedupeBlock, DedupeOrder, Entry
from querator.core.ids import Instant, PartitionId, ReservationNumber
from querator.core.invariants import check, violated
from querator.core.lanes import Lane
from querator.core.limits import PRODUCER_RESULTS_MAX, PRODUCER_RETENTION, PRODUCERS_MAX
from querator.core.line import Line, Run
from querator.core.milestones import Milestones
from querator.core.policy import Ordering, Policy
from querator.core.segments import (
    BEHIND,
    FILL,
    GONE,
    NOTHINGS,
    READY,
    RESERVED,
    SCHEDULED,
    SEGMENT_BITS,
    Segment,
)
from querator.core.settled import SettledMemory

OPEN: Final = 0
"""Mark of an item that its reservation still holds."""


class Holder(Protocol):
    """A window of demand, told at once when items of it are settled."""

    def free(self, count: int) -> None: ...


class Reservation:
    """Items held by somebody until a deadline. Index i is the i-th item of ``runs``."""

    __slots__ = (
        "count",
        "deadline",
        "generation",
        "holder",
        "left",
        "marks",
        "nonce",
        "number",
        "reserved_at",
        "run_until",
        "runs",
        "session",
    )

    def __init__(
        self,
        number: ReservationNumber,
        nonce: int,
        session: str,
        generation: int,
        runs: tuple[Run, ...],
        count: int,
        reserved_at: Instant,
        deadline: Instant,
        run_until: Instant,
    ) -> None:
        self.number = number
        self.nonce = nonce
        self.session = session
        self.generation = generation
        self.runs = runs
        self.count = count
        self.left = count
        self.marks: bytearray | None = None
        """A verb an item once a part was settled; absent while all are held."""
        self.reserved_at = reserved_at
        self.deadline = deadline
        self.run_until = run_until
        self.holder: Holder | None = None
        """Volatile: the window this reservation counts in."""

    def copied(self) -> "Reservation":
        """As it is now, without its holder."""
        copy = Reservation(
            self.number,
            self.nonce,
            self.session,
            self.generation,
            self.runs,
            self.count,
            self.reserved_at,
            self.deadline,
            self.run_until,
        )
        copy.left = self.left
        copy.marks = None if self.marks is None else bytearray(self.marks)
        return copy

    @property
    def ends_at(self) -> int:
        """When the fold's calendar ends it: a held one lives on its session, up to ``run_until``."""
        return self.run_until or self.deadline

    def pick(self, ranges: tuple[tuple[int, int], ...] | None) -> list[Run]:
        """The items of these index ranges, as runs; ``None``: those it still holds."""
        if ranges is None:
            if self.marks is None:
                return list(self.runs)
            ranges = self.open_ranges()
        picked: list[Run] = []
        for start, length in ranges:
            base = 0
            end = start + length
            for place, item, count in self.runs:
                low = max(start, base)
                high = min(end, base + count)
                if low < high:
                    picked.append((place + low - base, item + low - base, high - low))
                base += count
        return picked

    def open_ranges(self) -> tuple[tuple[int, int], ...]:
        """The (first index, count) ranges that are still held."""
        return ((0, self.count),) if self.marks is None else open_ranges(self.marks)


def open_ranges(marks: bytearray) -> tuple[tuple[int, int], ...]:
    """The (first index, count) ranges that have no verb yet."""
    ranges: list[tuple[int, int]] = []
    start = marks.find(OPEN)
    while start >= 0:
        end = start
        while end < len(marks) and marks[end] == OPEN:
            end += 1
        ranges.append((start, end - start))
        start = marks.find(OPEN, end)
    return tuple(ranges)


@attrs.define
class Producer:
    """The remembered results of one idempotent producer."""

    results: "dict[int, tuple[int, int, tuple[tuple[int, int], ...]]]" = attrs.Factory(dict)
    """Sequence to (first item, count of new items, duplicates)."""
    last_at: int = 0
    forgotten: int = 0
    """The highest sequence whose result is no longer remembered."""


@attrs.define
class Outbound:
    """Items on their way to another partition, numbered from ``first_move``: dead here, or sent back."""

    first_move: int = 1
    items: deque[int] = attrs.Factory(deque)


ScheduledRun: TypeAlias = "tuple[int, int, int, int]"
"""(due at, first place, first item, count)."""


Death: TypeAlias = "tuple[str, int, int]"
"""(reason, when, its place in the order of deaths, which successive items of a segment may share)."""


class Capture(Protocol):
    """A snapshot being made: it must see before it changes a segment (with what is kept of its items
    elsewhere: attempts, places, deaths, source ids), a block of dedupe keys, a reservation, a lane (also one
    that is not there yet), a producer that is remembered, and what leaves an outbound channel."""

    def before_write(self, segment: Segment) -> None: ...

    def before_dedupe(self, block: DedupeBlock) -> None: ...

    def before_reservation(self, reservation: Reservation) -> None: ...

    def before_lane(self, key: str) -> None: ...

    def before_producer(self, name: str) -> None: ...

    def before_moved(self, target: int, count: int) -> None: ...


class PartitionState:
    """See the module's text. Constructed empty; everything else comes from events."""

    __slots__ = (
        "age_sum",
        "attempts",
        "behind",
        "bucket",
        "by_session",
        "capture",
        "claimed_at",
        "completed",
        "dead",
        "deadline_sum",
        "deaths",
        "dedupe",
        "dedupe_floor",
        "dedupe_order",
        "dedupe_stale",
        "ended",
        "ends",
        "expiries",
        "homeward",
        "inbound",
        "incarnation",
        "is_keyed",
        "lanes",
        "leaving",
        "line",
        "moved",
        "next_item",
        "next_place",
        "milestones",
        "next_reservation",
        "nonce",
        "now",
        "outbound",
        "part_first",
        "partition",
        "paused",
        "payload_bytes",
        "place_index",
        "policy",
        "position",
        "produced",
        "producers",
        "removed",
        "reservations",
        "reserved",
        "retried",
        "scheduled",
        "schedule",
        "segments",
        "server_identity",
        "settled",
        "sources",
        "starved",
    )

    def __init__(self, partition: PartitionId) -> None:
        # --- the fold ---
        self.partition = partition
        self.position = 0
        """Of the record being decided or folded."""
        self.nonce = 0
        self.incarnation = 0
        self.server_identity = ""
        self.claimed_at = 0
        """Position of the last claim, and on which server that was."""
        self.bucket = 0
        self.now = Instant(0)
        self.policy = Policy(version=0)
        self.paused = False
        self.next_item = 1
        self.next_place = 1
        self.next_reservation = 1
        self.milestones = Milestones()
        self.part_first = 0
        """First item of a produce request of which not all parts have been folded; else 0."""
        self.segments: dict[int, Segment] = {}
        self.line = Line()
        self.reservations: dict[int, Reservation] = {}
        self.schedule: list[ScheduledRun] = []
        """A heap; entries whose items have left stay and are recognised by their place."""
        self.lanes: dict[str, Lane] = {}
        self.attempts: dict[int, int] = {}
        """Finished attempts, of items that have any."""
        self.moved: dict[int, int] = {}
        """The place of items that entered the queue again."""
        self.dead: dict[int, Death] = {}
        """In order of death."""
        self.outbound: dict[int, Outbound] = {}
        self.homeward: dict[int, None] = {}
        """Of the items on their way to another partition, those that go back to where they came from."""
        self.inbound: dict[int, int] = {}
        """Source partition to its last move taken."""
        self.producers: OrderedDict[str, Producer] = OrderedDict()
        self.dedupe: dict[str, int] = {}
        """Key to item. Those that name an item below ``dedupe_floor`` are forgotten, though they are here:
        keys are remembered in the order of their items, so that one number says it of all."""
        self.dedupe_floor = 0
        self.dedupe_stale: deque[deque[Entry]] = deque()
        """Forgotten, and not yet taken out: a burst of keys is taken out in steps."""
        self.dedupe_order = DedupeOrder()
        self.sources: dict[str, int] = {}
        self.settled = SettledMemory()
        self.scheduled = 0
        self.reserved = 0
        self.behind = 0
        self.produced = 0
        self.completed = 0
        self.removed = 0
        self.retried = 0
        self.ended = 0
        # --- derived ---
        self.is_keyed = False
        """The policy orders by key."""
        self.ends = Deadlines()
        self.by_session: dict[str, dict[int, None]] = {}
        self.expiries: list[tuple[int, int]] = []
        self.place_index: PlaceIndex | None = None
        self.leaving: dict[int, None] = {}
        """The items of all outbound channels."""
        self.deaths = 0
        """The highest place in the order of deaths that was given."""
        self.age_sum = 0
        """Sum of produced_at over ready and reserved items."""
        self.deadline_sum = 0
        """Sum of deadlines over reserved items."""
        # --- volatile ---
        self.payload_bytes = 0
        self.starved: int | None = None
        """The segment whose payloads the line waits for."""
        self.capture: Capture | None = None

    # --- reading --------------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Ready items: in line, and behind another of their key."""
        return self.line.count + self.behind

    def state_of(self, item: int) -> int:
        segment = self.segments.get(item >> SEGMENT_BITS)
        if segment is None or item >= self.next_item or item < 1:
            return GONE
        return segment.states[item - segment.first]

    def place_of(self, item: int) -> int:
        """The present place of an item that is not gone."""
        place = self.moved.get(item)
        if place is None:
            segment = self.segments[item >> SEGMENT_BITS]
            place = segment.place_of(item - segment.first)
        return place

    def key_of(self, item: int) -> str | None:
        segment = self.segments[item >> SEGMENT_BITS]
        value = segment.value("key", item - segment.first)
        return value if isinstance(value, str) else None

    def home_of(self, item: int) -> int:
        """The partition that an item which is not gone was dead in before it moved here; 0: none."""
        segment = self.segments[item >> SEGMENT_BITS]
        return segment.home_of(item - segment.first) if segment.homes else 0

    def attempt_of(self, item: int) -> int:
        """Attempts of the item, the running one included."""
        done = self.attempts.get(item, 0)
        return done + 1 if self.state_of(item) == RESERVED else done

    def attempts_max_of(self, item: int) -> int:
        """The item's own limit, else the queue's; 0: none."""
        segment = self.segments[item >> SEGMENT_BITS]
        own = segment.value("attempts_max", item - segment.first)
        return own if isinstance(own, int) else self.policy.attempts_max

    def next_due(self) -> int | None:
        """When the earliest scheduled item is due."""
        schedule = self.schedule
        while schedule:
            due, place, item, count = schedule[0]
            for offset in range(count):
                if (
                    self.state_of(item + offset) == SCHEDULED
                    and self.place_of(item + offset) == place + offset
                ):
                    return due
            heappop(schedule)
        return None

    def use_policy(self, policy: Policy) -> None:
        """From here on decide by this policy."""
        self.policy = policy
        self.is_keyed = policy.ordering is Ordering.KEY

    # --- the pieces that evolve is made of --------------------------------------------------------

    def write(self, item: int) -> Segment:
        """The segment of ``item``, which is about to change."""
        segment = self.segments[item >> SEGMENT_BITS]
        if self.capture is not None:
            self.capture.before_write(segment)
        segment.revision = self.position
        return segment

    def to_line(self, item: int, count: int) -> None:
        """Items of one segment go to the tail of the line with new places."""
        place = self.next_place
        self.next_place = place + count
        segment = self.write(item)
        moved = self.moved
        for offset in range(count):
            moved[item + offset] = place + offset
        start = item - segment.first
        segment.states[start : start + count] = FILL[READY][count]
        self.line.append(place, item, count)
        self.note_expiry(segment, start, count)

    def renew_place(self, item: int) -> None:
        """An item that goes back behind another one of its key, and not to the line, is known by its place to
        whoever had it: that is good no more."""
        self.write(item)
        self.moved[item] = self.next_place
        self.next_place += 1

    def to_schedule(self, item: int, count: int, due: int) -> None:
        """Items of one segment wait for ``due``, with new places."""
        place = self.next_place
        self.next_place = place + count
        segment = self.write(item)
        moved = self.moved
        for offset in range(count):
            moved[item + offset] = place + offset
        start = item - segment.first
        segment.states[start : start + count] = FILL[SCHEDULED][count]
        segment.set_due(start, count, due)
        heappush(self.schedule, (due, place, item, count))
        self.scheduled += count

    def note_expiry(self, segment: Segment, start: int, count: int) -> None:
        """Items are waiting (again): the calendar of expiries must stand for them."""
        expires = segment.expires
        if expires is None:
            return
        earliest = 0
        for at in expires[start : start + count]:
            if at and (not earliest or at < earliest):
                earliest = at
        if earliest and (not segment.expiry_queued or earliest < segment.expiry_queued):
            segment.expiry_queued = earliest
            heappush(self.expiries, (earliest, segment.number))

    def age_of(self, segment: Segment, start: int, count: int) -> int:
        produced = segment.produced
        return produced[start] if count == 1 else sum(produced[start : start + count])

    def finish(self, item: int, count: int) -> None:
        """Items of one segment, already out of line, reservation and schedule, are gone for good."""
        segment = self.write(item)
        start = item - segment.first
        payloads = segment.payloads
        if count == 1:
            segment.states[start] = GONE
            if payloads is not None:
                payloads[start] = None
        else:
            segment.states[start : start + count] = FILL[GONE][count]
            if payloads is not None:
                payloads[start : start + count] = NOTHINGS[count]
        live = segment.live
        freed = segment.payload_bytes if live == count else segment.payload_bytes * count // live
        segment.payload_bytes -= freed
        self.payload_bytes -= freed
        segment.live = live - count
        if self.attempts or self.moved:
            attempts, moved = self.attempts, self.moved
            for number in range(item, item + count):
                attempts.pop(number, None)
                moved.pop(number, None)
        columns = segment.columns
        if columns is not None:
            for source in columns["source_id"][start : start + count] if "source_id" in columns else ():
                if isinstance(source, str) and item <= self.sources.get(source, 0) < item + count:
                    del self.sources[source]
            for column in columns.values():
                column[start : start + count] = NOTHINGS[count]
        if live == count and segment.is_full:
            del self.segments[segment.number]

    def drop_reservation(self, reservation: Reservation) -> None:
        """It holds nothing any more: forget it, but for what repeats need."""
        number = reservation.number
        del self.reservations[number]
        self.ends.discard(number)
        session = reservation.session
        if session:
            held = self.by_session[session]
            del held[number]
            if not held:
                del self.by_session[session]
        if self.place_index is not None:
            self.place_index.remove(reservation)

    def take_back(self, number: int, ranges: tuple[tuple[int, int], ...] | None, mark: int) -> Sequence[Run]:
        """Take items out of a reservation; their runs, each within one segment."""
        reservation = self.reservations.get(number)
        if reservation is None:
            violated("settled a reservation that is not there")
        if self.capture is not None:
            self.capture.before_reservation(reservation)
        marks = reservation.marks
        runs: Sequence[Run]
        if ranges is None and marks is None:
            runs = reservation.runs
            taken = reservation.count
            self.settled.remember(number, mark, taken)
        else:
            runs = reservation.pick(ranges)
            taken = self._mark(reservation, ranges, mark)
        self.reserved -= taken
        self.deadline_sum -= reservation.deadline * taken
        if reservation.holder is not None:
            reservation.holder.free(taken)
        reservation.left -= taken
        if not reservation.left:
            self.drop_reservation(reservation)
        return runs

    def _mark(self, reservation: Reservation, ranges: tuple[tuple[int, int], ...] | None, mark: int) -> int:
        """Note how part of a reservation is settled; how many items that is."""
        marks = reservation.marks
        if marks is None:
            marks = reservation.marks = bytearray(reservation.count)
        taken = 0
        for start, count in reservation.open_ranges() if ranges is None else ranges:
            check(not any(marks[start : start + count]), "settled an item twice")
            marks[start : start + count] = bytes((mark,)) * count
            taken += count
        if taken == reservation.left:
            self.settled.remember_mixed(reservation.number, marks)
        return taken

    def note_death(self, item: int, count: int, reason: str) -> None:
        """Items of one segment, which was written to, are dead."""
        self.deaths += 1
        death = (reason, int(self.now), self.deaths)
        for number in range(item, item + count):
            self.dead[number] = death

    def leave_waiting(self, item: int, count: int) -> None:
        """Items of one segment, all in one waiting state and run, leave line, lane or schedule."""
        segment = self.segments[item >> SEGMENT_BITS]
        start = item - segment.first
        state = segment.states[start]
        if state == READY:
            self.line.remove(self.place_of(item), count)
            self.age_sum -= self.age_of(segment, start, count)
        elif state == BEHIND:
            self.behind -= count
            self.age_sum -= self.age_of(segment, start, count)
        elif state == SCHEDULED:
            self.scheduled -= count

    def known_keys(self) -> dict[str, int]:
        """The dedupe keys that are not forgotten, and their items."""
        floor = self.dedupe_floor
        return {key: item for key, item in self.dedupe.items() if item >= floor}

    def remember_producer(
        self, name: str, sequence: int, first: int, count: int, duplicates: tuple[tuple[int, int], ...]
    ) -> None:
        producers, capture = self.producers, self.capture
        if capture is not None:
            capture.before_producer(name)
        producer = producers.get(name)
        if producer is None:
            producer = producers[name] = Producer()
        else:
            producers.move_to_end(name)
        producer.last_at = self.now
        results = producer.results
        results[sequence] = (first, count, duplicates)
        if len(results) > PRODUCER_RESULTS_MAX:
            oldest = min(results)
            del results[oldest]
            producer.forgotten = max(producer.forgotten, oldest)
        while True:
            oldest_name = next(iter(producers))
            if (
                len(producers) <= PRODUCERS_MAX
                and producers[oldest_name].last_at >= self.now - PRODUCER_RETENTION
            ):
                break
            if capture is not None:
                capture.before_producer(oldest_name)
            del producers[oldest_name]


class PlaceIndex:
    """Place to reservation, for the door that names items by place. Built when first asked for."""

    __slots__ = ("_runs", "_stale")

    def __init__(self, reservations: dict[int, Reservation]) -> None:
        self._runs: list[tuple[int, int, int, int]] = []
        """(first place, count, reservation, index of the first item), ascending."""
        self._stale = 0
        for reservation in reservations.values():
            self.add(reservation)

    def add(self, reservation: Reservation) -> None:
        index = 0
        runs = self._runs
        for place, _, count in reservation.runs:
            entry = (place, count, reservation.number, index)
            if runs and entry < runs[-1]:
                insort(runs, entry)
            else:
                runs.append(entry)
            index += count

    def remove(self, reservation: Reservation) -> None:
        """Its entries go stale; they are swept when they are the larger part."""
        self._stale += len(reservation.runs)

    def find(self, place: int, reservations: dict[int, Reservation]) -> tuple[Reservation, int] | None:
        """(reservation, index) of the item that stood at ``place`` when it was reserved."""
        if self._stale > 1_024 and self._stale * 2 > len(self._runs):
            self._runs = [entry for entry in self._runs if entry[2] in reservations]
            self._stale = 0
        at = bisect_right(self._runs, place, key=_first) - 1
        # Reservations that ended leave stale entries, and places are never reused: so the entry
        # that covers this place is the right one, if it is there at all.
        if at < 0:
            return None
        first, count, number, index = self._runs[at]
        if place >= first + count:
            return None
        reservation = reservations.get(number)
        if reservation is None:
            return None
        return reservation, index + place - first


def _first(entry: tuple[int, int, int, int]) -> int:
    return entry[0]
