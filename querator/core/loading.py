"""Reading a snapshot: its head, then its chunks one after the other, then what they have in common.

No step is in proportion to all there is: who loads a large partition lets others run in between. What is
derived is built on the way; the line and the order of deaths, to which each segment gives its share, at the
end, in pieces that are sorted one at a time.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappush
from itertools import islice
from typing import Any, Final

import msgspec

from querator.core.dedupe import DedupeBlock
from querator.core.ids import Instant, PartitionId, ReservationNumber
from querator.core.lanes import Lane
from querator.core.line import Run
from querator.core.packing import cook, unpack
from querator.core.policy import decode_policy
from querator.core.segments import BEHIND, READY, RESERVED, SCHEDULED, SEGMENT_BITS, Segment
from querator.core.snapshot import (
    ATTEMPTS_MARK,
    COUNTERS,
    DEAD_MARK,
    DEDUPE_MARK,
    LANES_MARK,
    LEAVING_MARK,
    MARK_BYTES,
    PART_ENTRIES,
    PLACES_MARK,
    PRODUCERS_MARK,
    QUEUED_MARK,
    RESERVATIONS_MARK,
    SCHEDULE_MARK,
    SETTLED_MARK,
    Beside,
    Head,
    LaneEntry,
    ProducerEntry,
    Reservations,
    SettledEntry,
    SnapshotUnreadable,
    decode_dedupe,
    decode_head,
    decode_segment,
)
from querator.core.state import Outbound, PartitionState, Producer, Reservation

_RUN: Final = 3
_SCHEDULED: Final = 4
"""Numbers of a scheduled run."""
_OLD_BLOCKS: Final = 1 << 62
"""Blocks of dedupe keys out of older heads, which do not say what records they came with, count from here."""
_AGED: Final = (READY, RESERVED, BEHIND)
_SHELF_BITS: Final = 12
"""What is sorted at the end is put on shelves first, of so many places, or deaths, each."""

_DEATHS: Final = msgspec.msgpack.Decoder(tuple[list[int], list[tuple[str, int]]])
_RESERVATIONS: Final = msgspec.msgpack.Decoder(Reservations)
_LANES: Final = msgspec.msgpack.Decoder(list[LaneEntry])
_PRODUCERS: Final = msgspec.msgpack.Decoder(list[ProducerEntry])
_SETTLED: Final = msgspec.msgpack.Decoder(list[SettledEntry])
_QUEUED: Final = msgspec.msgpack.Decoder(tuple[str, bytes])
_LEAVING: Final = msgspec.msgpack.Decoder(tuple[int, bytes])


def load(partition: PartitionId, head: bytes, chunks: Iterable[bytes]) -> PartitionState:
    """The state that a snapshot holds, with its derived indexes; no payload is in memory. All at once.

    Raises:
        SnapshotUnreadable: of an unknown version, damaged, or another partition's.
    """
    loading = Loading(partition, head)
    for chunk in chunks:
        loading.add(chunk)
    while not loading.step():
        pass
    return loading.state


class Loading:
    """A snapshot being read: construct it with the head, ``add`` each chunk, then ``step`` until that says
    True. Then ``state`` is whole. Any of them may raise SnapshotUnreadable."""

    def __init__(self, partition: PartitionId, head: bytes) -> None:
        stored = decode_head(head)
        if stored.partition != partition:
            raise SnapshotUnreadable(f"a snapshot of partition {stored.partition}, not {partition}")
        self.state = PartitionState(partition)
        self._is_apart = stored.is_apart
        self._forgotten = stored.dedupe_forgotten
        self._line: dict[int, list[Run]] = {}
        """Shelves of runs, by place."""
        self._dead: dict[int, list[tuple[int, int, int, str, int]]] = {}
        """Shelves of (place in the order of deaths, first item, count, reason, when)."""
        self._finishing = self._finish()
        _load_head(self.state, stored)
        if not stored.is_apart:
            _load_whole(self.state, stored)

    def add(self, data: bytes) -> None:
        state = self.state
        load = _LOADERS.get(data[:MARK_BYTES])
        if load is not None:
            load(state, data[MARK_BYTES:])
        elif data.startswith(SCHEDULE_MARK):
            _load_schedule(state, data[len(SCHEDULE_MARK) :])
        elif data[:1] == DEDUPE_MARK:
            _load_dedupe(state, data, self._forgotten)
            self._forgotten = 0
        else:
            segment, beside = decode_segment(data, state.inbound)
            _load_segment(state, segment)
            if beside is not None:
                self._load_beside(segment, beside)
            if self._is_apart:
                self._load_line(segment)

    def step(self) -> bool:
        """True: that was the last."""
        return next(self._finishing, True)

    # --- what is known of a segment's items -----------------------------------------------------------

    def _load_beside(self, segment: Segment, beside: Beside) -> None:
        state, first = self.state, segment.first
        for numbers, packed in ((state.attempts, beside.attempts), (state.moved, beside.places)):
            flat = unpack(packed)
            numbers.update(zip([first + offset for offset in flat[0::2]], flat[1::2], strict=True))
        if beside.due:
            segment.due = unpack(beside.due)
        for offset, count, reason, at, order in beside.deaths:
            shelf = self._dead.setdefault(order >> _SHELF_BITS, [])
            shelf.append((order, first + offset, count, reason, at))
        if beside.sources:
            columns = segment.columns or {}
            for offset in unpack(beside.sources):
                state.sources[str(columns["source_id"][offset])] = first + offset

    def _load_line(self, segment: Segment) -> None:
        """Ready items go to the shelves of their places, and scheduled ones into the schedule."""
        state, states = self.state, segment.states
        for kind in (READY, SCHEDULED):
            offset = states.find(kind)
            while offset >= 0:
                end = _run_end(state, segment, offset, kind)
                item = segment.first + offset
                place = state.place_of(item)
                if kind == READY:
                    shelf = self._line.setdefault(place >> _SHELF_BITS, [])
                    shelf.append((place, item, end - offset))
                elif segment.due is None or len(segment.due) < end:
                    raise SnapshotUnreadable(f"segment {segment.number}: scheduled items without a due time")
                else:
                    heappush(state.schedule, (segment.due[offset], place, item, end - offset))
                offset = states.find(kind, end)

    # --- the end --------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[bool]:
        """Steps; False each."""
        state = self.state
        state.settled.restored()
        if not self._is_apart:
            yield from _note_beside(state)
        done = 0
        for number in sorted(self._line):
            shelf = self._line.pop(number)
            shelf.sort()
            for run in shelf:
                state.line.append(*run)
            done += len(shelf)
            if done >= PART_ENTRIES:
                yield False
                done = 0
        for number in sorted(self._dead):
            deaths = self._dead.pop(number)
            deaths.sort()
            for order, item, count, reason, at in deaths:
                death = (reason, at, order)
                state.deaths = order
                for offset in range(count):
                    state.dead[item + offset] = death
                done += count
                if done >= PART_ENTRIES:
                    yield False
                    done = 0


def _run_end(state: PartitionState, segment: Segment, offset: int, kind: int) -> int:
    """Where the run ends that begins at ``offset``: items of one kind at successive places, due together."""
    states, first, due, moved = segment.states, segment.first, segment.due, state.moved
    place = state.place_of(first + offset)
    end = offset + 1
    length = len(states)
    if not moved and kind == READY:
        # Fresh items: they are apart only where a shift begins.
        while end < length and states[end] == kind and end not in segment.shift_offsets:
            end += 1
        return end
    while (
        end < length
        and states[end] == kind
        and state.place_of(first + end) == place + end - offset
        and (kind == READY or (due is not None and end < len(due) and due[end] == due[offset]))
    ):
        end += 1
    return end


# --- the head ---------------------------------------------------------------------------------------


def _load_head(state: PartitionState, stored: Head) -> None:
    """What is in every head."""
    state.position = stored.position
    state.nonce = stored.nonce
    state.incarnation = stored.incarnation
    state.server_identity = stored.server_identity
    state.claimed_at = stored.claimed_at
    state.bucket = stored.bucket
    state.now = Instant(stored.now)
    state.use_policy(decode_policy(stored.policy))
    state.paused = stored.paused
    state.next_item = stored.next_item
    state.next_place = stored.next_place
    state.next_reservation = stored.next_reservation
    state.part_first = stored.part_first
    for name in COUNTERS:
        setattr(state, name, stored.counters[name])
    for target, first_move, items in stored.outbound:
        state.outbound[target] = Outbound(first_move, deque(items))
        state.leaving.update(dict.fromkeys(items))
    state.homeward = dict.fromkeys(stored.homeward)
    state.inbound = stored.inbound
    for number, position, at in zip(*map(unpack, stored.milestones), strict=True):
        state.milestones.note(number, position, at)


def _load_whole(state: PartitionState, stored: Head) -> None:
    """What is in a whole head besides."""
    for place, item, count in _in_runs(unpack(stored.line)):
        state.line.append(place, item, count)
    _load_schedule(state, stored.schedule)
    _put_lanes(state, stored.lanes)
    state.attempts = dict(zip(*map(unpack, stored.attempts), strict=True))
    state.moved = dict(zip(*map(unpack, stored.moved), strict=True))
    _put_deaths(state, unpack(stored.dead_items), stored.dead)
    _put_producers(state, stored.producers)
    state.dedupe = stored.dedupe
    for index, (at, names) in enumerate(stored.dedupe_order):
        state.dedupe_order.open_block(_OLD_BLOCKS + index).add(at, names, _OLD_BLOCKS + index)
    state.sources = stored.sources
    for number, verbs, counts in stored.settled:
        state.settled.blocks[number] = (bytearray(verbs), cook("H", counts))
    for reservation, marks in stored.settled_mixed.items():
        state.settled.remember_mixed(reservation, bytearray(marks))
    _load_reservations(state, stored.reservations)


def _note_beside(state: PartitionState) -> Iterator[bool]:
    """The columns that a whole head has for all segments together: each segment must be stored anew."""
    for segment in state.segments.values():
        segment.revision = state.position + 1
    entries = iter(state.schedule)
    while part := list(islice(entries, PART_ENTRIES)):
        for due, place, item, count in part:
            for offset in range(count):
                number = item + offset
                if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                    segment = state.segments[number >> SEGMENT_BITS]
                    segment.set_due(number - segment.first, 1, due)
        yield False


# --- chunks -----------------------------------------------------------------------------------------


def _read(data: bytes, decoder: Any, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotUnreadable(f"not a snapshot's chunk of {what}: {error}") from error


def _load_schedule(state: PartitionState, packed: bytes) -> None:
    numbers = unpack(packed)
    if len(numbers) % _SCHEDULED:
        raise SnapshotUnreadable("a schedule of incomplete entries")
    state.schedule.extend(zip(numbers[0::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True))


def _load_deaths(state: PartitionState, data: bytes) -> None:
    _put_deaths(state, *_read(data, _DEATHS, "dead items"))


def _put_deaths(state: PartitionState, items: Iterable[int], deaths: Iterable[tuple[str, int]]) -> None:
    for item, (reason, at) in zip(items, deaths, strict=True):
        state.deaths += 1
        state.dead[item] = (reason, at, state.deaths)


def _load_attempts(state: PartitionState, data: bytes) -> None:
    _load_pairs(state.attempts, data)


def _load_places(state: PartitionState, data: bytes) -> None:
    _load_pairs(state.moved, data)


def _load_pairs(into: dict[int, int], packed: bytes) -> None:
    numbers = unpack(packed)
    if len(numbers) % 2:
        raise SnapshotUnreadable("a chunk of incomplete pairs")
    into.update(zip(numbers[0::2], numbers[1::2], strict=True))


def _load_lanes(state: PartitionState, data: bytes) -> None:
    _put_lanes(state, _read(data, _LANES, "lanes"))


def _put_lanes(state: PartitionState, entries: Iterable[LaneEntry]) -> None:
    for key, head, held, ranks, front, waiting in entries:
        state.lanes[key] = Lane(head, held, ranks, front, deque(waiting))


def _load_queued(state: PartitionState, data: bytes) -> None:
    key, packed = _read(data, _QUEUED, "the items of a lane")
    if key not in state.lanes:
        raise SnapshotUnreadable("items of a lane that is not there")
    state.lanes[key].waiting.extend(unpack(packed))


def _load_producers(state: PartitionState, data: bytes) -> None:
    _put_producers(state, _read(data, _PRODUCERS, "producers"))


def _put_producers(state: PartitionState, entries: Iterable[ProducerEntry]) -> None:
    for name, last_at, forgotten, results in entries:
        state.producers[name] = Producer(results, last_at, forgotten)


def _load_settled(state: PartitionState, data: bytes) -> None:
    for number, verbs, counts, mixed in _read(data, _SETTLED, "settled reservations"):
        state.settled.blocks[number] = (bytearray(verbs), cook("H", counts))
        if mixed:
            state.settled.mixed[number] = mixed


def _load_leaving(state: PartitionState, data: bytes) -> None:
    target, packed = _read(data, _LEAVING, "leaving items")
    if target not in state.outbound:
        raise SnapshotUnreadable("items that leave by a channel that is not there")
    numbers = unpack(packed)
    items = list(map(abs, numbers))
    state.outbound[target].items.extend(items)
    state.leaving.update(dict.fromkeys(items))
    state.homeward.update((-number, None) for number in numbers if number < 0)


def _load_reserved(state: PartitionState, data: bytes) -> None:
    _load_reservations(state, _read(data, _RESERVATIONS, "reservations"))


_LOADERS: Final = {
    RESERVATIONS_MARK: _load_reserved,
    LANES_MARK: _load_lanes,
    QUEUED_MARK: _load_queued,
    PRODUCERS_MARK: _load_producers,
    SETTLED_MARK: _load_settled,
    LEAVING_MARK: _load_leaving,
    DEAD_MARK: _load_deaths,
    ATTEMPTS_MARK: _load_attempts,
    PLACES_MARK: _load_places,
}


def _load_dedupe(state: PartitionState, data: bytes, forgotten: int) -> None:
    """``forgotten``: entries of the block that were, at the snapshot; its chunk may be of an older one."""
    chunk = decode_dedupe(data)
    block = DedupeBlock(chunk.number)
    block.forgotten = max(forgotten, chunk.forgotten)
    block.keys = chunk.total
    block.left = 0
    block.revision = chunk.revision
    items = unpack(chunk.items)
    start = 0
    for index, (at, count) in enumerate(zip(unpack(chunk.ats), unpack(chunk.counts), strict=True)):
        names = chunk.keys[start : start + count]
        if index >= block.forgotten - chunk.forgotten:
            block.entries.append((at, tuple(names)))
            block.left += count
            state.dedupe.update(zip(names, items[start : start + count], strict=True))
        start += count
    if start != len(chunk.keys) or start != len(items) or not block.entries:
        raise SnapshotUnreadable(f"dedupe keys {chunk.number}: columns of unequal length")
    state.dedupe_order.blocks.append(block)


def _in_runs(numbers: "array[int]") -> Iterable[Run]:
    return zip(numbers[0::_RUN], numbers[1::_RUN], numbers[2::_RUN], strict=True)


def _load_reservations(state: PartitionState, stored: Reservations) -> None:
    runs = list(_in_runs(unpack(stored.runs)))
    start = 0
    columns = (
        stored.numbers,
        stored.nonces,
        stored.session_indexes,
        stored.generations,
        stored.counts,
        stored.reserved_at,
        stored.deadlines,
        stored.run_until,
        stored.run_counts,
    )
    for number, nonce, session_index, generation, count, reserved_at, deadline, run_until, run_count in zip(
        *map(unpack, columns), strict=True
    ):
        session = stored.sessions[session_index]
        own = tuple(runs[start : start + run_count])
        start += run_count
        reservation = Reservation(
            ReservationNumber(number),
            nonce,
            session,
            generation,
            own,
            count,
            Instant(reserved_at),
            Instant(deadline),
            Instant(run_until),
        )
        marks = stored.marks.get(number)
        if marks is not None:
            reservation.marks = bytearray(marks)
            reservation.left = marks.count(0)
        state.reservations[number] = reservation
        state.ends.add(number, reservation.ends_at)
        state.deadline_sum += deadline * reservation.left
        if session:
            state.by_session.setdefault(session, {})[number] = None


def _load_segment(state: PartitionState, segment: Segment) -> None:
    state.segments[segment.number] = segment
    states = segment.states
    if sum(map(states.count, _AGED)) == len(states):
        state.age_sum += sum(segment.produced)
    else:
        state.age_sum += sum(at for at, kind in zip(segment.produced, states, strict=True) if kind in _AGED)
    if segment.expires is not None:
        for offset, kind in enumerate(states):
            if kind in (READY, BEHIND):
                state.note_expiry(segment, offset, 1)
