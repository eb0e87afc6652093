"""Each item's history, read from the events alone, by a model that shares no code with the core's fold.

The model is as plain as can be: an object an item, a dict as the line, a list a lane, a list as the
schedule. It refuses nothing; it writes down every step of every item as a ``Step``, and the checkers,
one promise a file, look at the steps.

From the production code it takes the words only: the events' names and fields, and the codec.
"""

import json
from bisect import insort
from collections import Counter
from collections.abc import Container
from typing import Final

import attrs

from querator.core import events as ev
from querator.core.ids import PartitionId, Position
from querator.log.codec import decode_events, payloads_of
from querator.log.records import Record
from querator.log.store import LogStore

_INCARNATION_BITS: Final = 40
"""Each incarnation of a partition numbers from a start of its own."""


@attrs.define(eq=False)
class Item:
    """What the model knows of an item now."""

    number: int
    payload: bytes
    key: str
    expires_at: int
    due: int = 0
    state: str = "new"
    """new | scheduled | ready | reserved | dead | completed | moved | pruned"""
    home: int = 0
    """The partition that it was dead in before."""
    attempts: int = 0
    """Finished ones that counted."""
    reservation: int = 0
    order: int = 0
    """When it entered the line or the schedule, counted."""
    is_received: bool = False
    """It came from another partition: as its dead item, or sent back."""


@attrs.define(eq=False)
class Holding:
    """A reservation as the log tells it."""

    number: int
    nonce: int
    session: str
    deadline: int
    run_until: int
    items: list[Item]
    left: dict[int, Item]
    """Index to item, of those not settled."""
    position: int
    at: int
    ended: str = ""
    """How its last item left it."""


@attrs.frozen
class Step:
    """One item's step: from ``before`` to ``after``."""

    position: int
    index: int
    """Of the event within the record."""
    at: int
    """The log's time, microseconds."""
    what: str
    """produced | reserved | completed | retried | released | ended | died | due | expired | sent_back |
    moved | pruned"""
    item: int
    before: str
    after: str
    reservation: int = 0
    """Which held it, or holds it now."""
    named: int = 0
    """The reservation that the event names."""
    attempts: int = 0
    """Finished attempts before this step."""
    deadline: int = 0
    run_until: int = 0
    due: int = 0
    expires_at: int = 0
    why: str = ""
    reserved_at: int = 0


@attrs.frozen
class Taking:
    """A reservation as it was made."""

    position: int
    index: int
    first: int
    """The first item, as the event says."""
    head: int
    """The item that stood first in the model's line; 0: the line was empty."""
    count: int
    found: int
    """How many items the model had for it."""


@attrs.define
class Counts:
    """Items by state, as the model has them."""

    ready: int = 0
    scheduled: int = 0
    reserved: int = 0
    dead: int = 0
    completed: int = 0
    gone: int = 0


@attrs.define(eq=False)
class History:
    """What one partition's log says, item by item."""

    partition: int
    keyed: bool
    items: dict[int, Item] = attrs.Factory(dict)
    holdings: dict[int, Holding] = attrs.Factory(dict)
    steps: list[Step] = attrs.Factory(list)
    takings: list[Taking] = attrs.Factory(list)
    counts: list[tuple[int, Counts, int]] = attrs.Factory(list)
    """(position, items by state, items ever produced) after every record."""
    claims: list[tuple[int, int, int]] = attrs.Factory(list)
    """(position, nonce, tail that the claimant had read)."""
    incarnations: list[int] = attrs.Factory(list)
    """Of the claims."""
    claimed_at: list[tuple[int, int]] = attrs.Factory(list)
    """(position, time) of the claims."""
    claimants: list[str] = attrs.Factory(list)
    """Names of the nodes that claimed."""
    records: list[tuple[int, int, int]] = attrs.Factory(list)
    """(position, nonce of the record, time of its first turn)."""
    turns: list[tuple[int, int]] = attrs.Factory(list)
    """(position, time) of every turn."""
    settled_at: dict[tuple[int, str], list[tuple[int, int, int]]] = attrs.Factory(dict)
    """(reservation, verb) to the (position, index, items) of the events that say so."""
    produced_at: dict[int, tuple[int, int]] = attrs.Factory(dict)
    """Item to (position, index)."""
    received: list[tuple[int, int, int, int]] = attrs.Factory(list)
    """(position, source, last move, count)."""
    moved: list[tuple[int, int, int, int]] = attrs.Factory(list)
    """(position, target, last move, count)."""
    moved_payloads: list[bytes] = attrs.Factory(list)
    sent: dict[tuple[int, int], bytes] = attrs.Factory(dict)
    """(target, number of the move) to the payload that moved so."""
    taken: dict[tuple[int, int], bytes] = attrs.Factory(dict)
    """(source, number of the move) to the payload that arrived so."""
    given_up: list[tuple[int, int]] = attrs.Factory(list)
    """(position, target) of moves that will never arrive."""
    is_deleted: bool = False
    """The queue is gone."""
    kinds: Counter[str] = attrs.Factory(Counter)
    """How often each kind of event is in the log."""
    unknown: list[str] = attrs.Factory(list)
    """Events that the model has no rule for, and steps that made no sense to it."""

    live: Counts = attrs.Factory(Counts)
    now: int = 0
    nonce: int = 0
    line: dict[int, Item] = attrs.Factory(dict)
    schedule: list[tuple[int, int, int]] = attrs.Factory(list)
    """(due, order, item), sorted."""
    lanes: dict[str, list[Item]] = attrs.Factory(dict)
    """Key to its items that are not settled, in order; those on a later schedule are not in it yet."""
    heads: dict[str, int] = attrs.Factory(dict)
    """Key to the item that stands for it, in line or on the schedule."""
    _counter: int = 0
    _reservations: int = 0
    _place: tuple[int, int] = (0, 0)

    # --- reading ------------------------------------------------------------------------------

    def take(self, record: Record, events: list[ev.Event]) -> None:
        first_turn = 0
        for index, event in enumerate(events):
            self._place = (record.position, index)
            if isinstance(event, ev.TurnStarted):
                self.turns.append((record.position, event.at))
                self.now = max(self.now, event.at)
                first_turn = first_turn or event.at
            else:
                self.kinds[type(event).__name__] += 1
                self._apply(event, record)
        self.records.append((record.position, record.nonce, first_turn))
        self.counts.append((record.position, attrs.evolve(self.live), len(self.items)))

    def _apply(  # noqa: C901, PLR0912  # one branch an event, that is what it is
        self, event: ev.Event, record: Record
    ) -> None:
        match event:
            case ev.Claimed():
                self.claims.append((record.position, event.nonce, event.read_tail))
                if self.incarnations and event.incarnation > self.incarnations[-1]:
                    # Numbers that clients may have seen in the lost end of another server's log: none again.
                    self._reservations = (event.incarnation - 1 << _INCARNATION_BITS) - 1
                self.incarnations.append(event.incarnation)
                # By the claimant's own clock, which may be behind the last owner's.
                self.claimed_at.append((record.position, self.turns[-1][1]))
                self.claimants.append(event.node)
                self.nonce = event.nonce
            case ev.ItemsProduced():
                self._produced(event, record)
            case ev.ItemsReceived() | ev.ItemsCameBack():
                self.received.append((record.position, event.source, event.last_move, event.count))
                last = max(self.items)
                for number in range(last - event.count + 1, last + 1):
                    item = self.items[number]
                    item.is_received = True
                    self.taken[event.source, event.last_move - last + number] = item.payload
                    if isinstance(event, ev.ItemsReceived):
                        item.home = event.source
            case ev.ItemsSentBack():
                for first, count in event.runs:
                    for number in range(first, first + count):
                        self._sent_back(self.items[number], event.target)
            case ev.ItemsReserved():
                self._reserved(event)
            case ev.ItemsCompleted():
                self._settle(event.reservation, event.ranges, "completed", "completed", "complete")
            case ev.ItemsRetried():
                self._settle(event.reservation, event.ranges, "retried", "", "retry", due=event.due_at)
            case ev.ItemsReleased():
                self._settle(event.reservation, event.ranges, "released", "", "release", why=event.why)
            case ev.ReservationEnded():
                self._settle(event.reservation, event.ranges, "ended", "", "ended", why=event.why)
            case ev.ItemsDied():
                verb = {"dead": "dead", "retried": "retry", "ended": "ended"}[event.verb]
                self._settle(event.reservation, event.ranges, "died", "dead", verb, why=event.verb)
            case ev.ReservationExtended():
                holding = self.holdings[event.reservation]
                holding.deadline, holding.run_until = event.deadline, event.run_until
                self._remember(event.reservation, "extend", len(holding.left))
            case ev.ItemsDue():
                self._due(event.count)
            case ev.ItemsExpired():
                for first, count in event.runs:
                    for number in range(first, first + count):
                        self._expired(self.items[number])
            case ev.ItemsMoved():
                self.moved.append((record.position, event.target, event.last_move, _size(event.runs)))
                move = event.last_move - _size(event.runs)
                for first, count in event.runs:
                    for number in range(first, first + count):
                        item = self.items[number]
                        move += 1
                        self.sent[event.target, move] = item.payload
                        self.moved_payloads.append(item.payload)
                        if item.state != "dead":
                            self.unknown.append(
                                f"S15: item {self.partition}.{number} moved, and it is {item.state}"
                            )
                        self._step("moved", item, "moved")
            case ev.MovesGivenUp():
                # They stay dead, as they were.
                self.given_up.append((record.position, event.target))
            case ev.PolicyApplied():
                self.is_deleted = bool(json.loads(event.document).get("deleted"))
            case ev.PayloadsCarried():
                self._carried(event, record)
            case ev.SessionResumed() | ev.BucketOpened() | ev.ClockStepped():
                pass
            case ev.LossAccepted():
                # The numbers of what may be lost are not given again: the claim before began new ones.
                pass
            case _:
                self.unknown.append(f"record {record.position}: no rule for {type(event).__name__}")

    # --- single steps -----------------------------------------------------------------------------

    def _step(
        self, what: str, item: Item, after: str, *, named: int = 0, why: str = "", due: int = 0
    ) -> None:
        holding = self.holdings.get(named or item.reservation)
        position, index = self._place
        self.steps.append(
            Step(
                position,
                index,
                self.now,
                what,
                item.number,
                item.state,
                after,
                item.reservation,
                named,
                item.attempts,
                holding.deadline if holding is not None else 0,
                holding.run_until if holding is not None else 0,
                due or item.due,
                item.expires_at,
                why,
                holding.at if holding is not None else 0,
            )
        )
        self._tally(item.state, -1)
        self._tally(after, 1)
        item.state = after

    def _tally(self, state: str, by: int) -> None:
        if state == "new":
            return
        name = state if state in ("ready", "scheduled", "reserved", "dead", "completed") else "gone"
        setattr(self.live, name, getattr(self.live, name) + by)

    def _number(self) -> int:
        self._counter += 1
        return self._counter

    def _enter_line(self, item: Item) -> None:
        item.order = self._number()
        item.due = 0
        self.line[item.number] = item

    def _enter_schedule(self, item: Item, due: int) -> None:
        item.order = self._number()
        item.due = due
        insort(self.schedule, (due, item.order, item.number))

    def _lane(self, item: Item) -> list[Item] | None:
        return self.lanes.setdefault(item.key, []) if self.keyed and item.key else None

    # --- events -----------------------------------------------------------------------------------

    def _produced(self, event: ev.ItemsProduced, record: Record) -> None:
        numbers = range(event.first_item, event.first_item + event.count)
        payloads = payloads_of(record, list(numbers)) if event.count else {}
        attributes = event.attributes
        for offset, number in enumerate(numbers):
            key = _entry(attributes.key if attributes is not None else None, offset)
            if number in self.items:
                self.unknown.append(f"S2: item {number} was produced twice")
            item = Item(number, bytes(payloads[number]), str(key or ""), event.expires_at)
            self.items[number] = item
            self.produced_at[number] = self._place
            if event.due_at:
                self._step("produced", item, "scheduled", due=event.due_at)
                self._enter_schedule(item, event.due_at)
            else:
                self._step("produced", item, "ready")
                self._arrive(item)

    def _carried(self, event: ev.PayloadsCarried, record: Record) -> None:
        """The same payloads again, in a record that will be kept longer."""
        numbers = [number for first, count in event.runs for number in range(first, first + count)]
        for number, payload in payloads_of(record, numbers).items():
            if bytes(payload) != self.items[number].payload:
                self.unknown.append(f"S2: record {record.position} carries {payload!r} as item {number}")

    def _arrive(self, item: Item) -> None:
        lane = self._lane(item)
        if lane is None:
            self._enter_line(item)
            return
        lane.append(item)
        self._advance(item.key)

    def _advance(self, key: str) -> None:
        """When nothing of the lane is held or stands in line, its first item steps up."""
        lane = self.lanes[key]
        if key in self.heads or any(item.state == "reserved" for item in lane):
            return
        if not lane:
            return
        head = lane[0]
        self.heads[key] = head.number
        if head.due > self.now:
            self._tally(head.state, -1)
            head.state = "scheduled"
            self._tally("scheduled", 1)
            self._enter_schedule(head, head.due)
        else:
            self._enter_line(head)

    def _reserved(self, event: ev.ItemsReserved) -> None:
        self._reservations += 1
        number = self._reservations
        head = next(iter(self.line), 0)
        taken: list[Item] = []
        while len(taken) < event.count and self.line:
            first = self.line.pop(event.first_item, None) if not taken else None
            if first is None:
                first = self.line.pop(next(iter(self.line)))
            taken.append(first)
            lane = self._lane(first)
            if lane is None:
                continue
            self.heads.pop(first.key, None)
            for item in lane[lane.index(first) + 1 :]:
                if len(taken) >= event.count or item.due > self.now:
                    break
                taken.append(item)
        self.takings.append(
            Taking(self._place[0], self._place[1], event.first_item, head, event.count, len(taken))
        )
        self.holdings[number] = Holding(
            number,
            self.nonce,
            event.session,
            event.deadline,
            event.run_until,
            taken,
            dict(enumerate(taken)),
            self._place[0],
            self.now,
        )
        for item in taken:
            self._step("reserved", item, "reserved", named=number)
            item.reservation = number

    def _remember(self, reservation: int, verb: str, items: int) -> None:
        self.settled_at.setdefault((reservation, verb), []).append((*self._place, items))

    def _settle(
        self,
        reservation: int,
        ranges: ev.Ranges | None,
        what: str,
        after: str,
        verb: str,
        *,
        due: int = 0,
        why: str = "",
    ) -> None:
        holding = self.holdings.get(reservation)
        if holding is None:
            self.unknown.append(f"S4: {what} of reservation {reservation}, which never was")
            return
        if ranges is None:
            indexes = sorted(holding.left)
        else:
            indexes = [index for first, count in ranges for index in range(first, first + count)]
        if not indexes:
            self.unknown.append(f"S4: {what} of reservation {reservation}, which has ended")
        self._remember(reservation, verb, len(indexes))
        lane_before = ""
        for index in indexes:
            item = holding.left.pop(index, None)
            if item is None:
                self.unknown.append(f"S3: {what} of item {index} of reservation {reservation}, twice")
                continue
            key = item.key if self._lane(item) is not None else ""
            if lane_before and key != lane_before:
                # Items without a key that come behind it enter the line behind it.
                self._advance(lane_before)
            lane_before = key
            self._leave(item, what, after, reservation, due, why)
        if not holding.left:
            holding.ended = what
        if lane_before:
            self._advance(lane_before)

    def _leave(self, item: Item, what: str, after: str, reservation: int, due: int, why: str) -> None:
        lane = self._lane(item)
        goes_on = not after
        state = after or ("scheduled" if due and lane is None else "ready")
        self._step(what, item, state, named=reservation, why=why, due=due)
        item.reservation = 0
        if what != "released":
            item.attempts += 1
        if lane is not None:
            if goes_on:
                item.due = due
            else:
                lane.remove(item)
        elif state == "scheduled":
            self._enter_schedule(item, due)
        elif state == "ready":
            self._enter_line(item)

    def _due(self, count: int) -> None:
        for _ in range(count):
            if not self.schedule:
                self.unknown.append("S14: items became due, and none was scheduled")
                return
            due, _, number = self.schedule.pop(0)
            item = self.items[number]
            self._step("due", item, "ready", due=due)
            if self.heads.get(item.key) == number and self._lane(item) is not None:
                self._enter_line(item)
            else:
                item.due = 0
                self._arrive(item)

    def _sent_back(self, item: Item, target: int) -> None:
        where = f"item {self.partition}.{item.number}"
        if item.home != target:
            self.unknown.append(f"S15: {where} came from {item.home} and was sent back to {target}")
        if item.state not in ("ready", "scheduled", "dead"):
            self.unknown.append(f"S15: {where} was sent back, and it is {item.state}")
        self._withdraw("sent_back", item)

    def _expired(self, item: Item) -> None:
        self._withdraw("expired", item)

    def _withdraw(self, what: str, item: Item) -> None:
        """It waits no more: it is dead."""
        self._step(what, item, "dead")
        self.line.pop(item.number, None)
        self.schedule = [entry for entry in self.schedule if entry[2] != item.number]
        lane = self._lane(item)
        if lane is not None and item in lane:
            lane.remove(item)
            if self.heads.get(item.key) == item.number:
                del self.heads[item.key]
            self._advance(item.key)


def _entry(column: object, offset: int) -> object:
    return column[offset] if isinstance(column, list) else column


def _size(runs: ev.Runs) -> int:
    return sum(count for _, count in runs)


async def read_histories(store: LogStore, keyed: Container[int]) -> dict[int, History]:
    """The histories of all partitions but the catalog; ``keyed`` are those ordered by key."""
    return {
        partition: await read_history(store, partition, keyed=partition in keyed)
        for partition in await store.partitions()
        if partition
    }


async def read_history(store: LogStore, partition: PartitionId, *, keyed: bool) -> History:
    """The history of a partition that is kept from its beginning."""
    history = History(partition, keyed)
    position = 1
    while True:
        page = await store.read(
            partition, Position(position), records_max=500, bytes_max=1 << 30, payloads=True
        )
        if not page:
            return history
        for record in page:
            history.take(record, decode_events(record.events))
            position = record.position + 1
