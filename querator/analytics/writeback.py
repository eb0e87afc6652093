"""What was swept (sweep.py) becomes part of the core's state, in bulk."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, compress, repeat
from operator import add, mul, ne, sub
from typing import Any

from querator.analytics.everyday import Everyday
from querator.analytics.sweep import OFFSET, Sweep
from querator.core.ids import Instant, ItemNumber
from querator.core.limits import SEGMENT_ITEMS
from querator.core.segments import FILL, GONE, READY, SEGMENT_BITS, Segment
from querator.core.state import OPEN, PartitionState


def write_back(sweep: Sweep, state: PartitionState, past: dict[int, Any], everyday: Everyday) -> None:
    """The state, the items that are not as they were produced, and the open reservations follow ``sweep``,
    which is of no use any more."""
    if not sweep.events:
        return
    state.position = sweep.position
    state.now = Instant(sweep.now)
    for note in sweep.milestones:
        state.milestones.note(*note)
    _write_line(sweep, state)
    _write_returned(sweep, state, past)
    _write_segments(sweep, state, everyday)
    _write_reservations(sweep, state, past, everyday)


def _write_line(sweep: Sweep, state: PartitionState) -> None:
    tables = sweep.tables
    line = state.line
    own = sweep.queue is sweep.behind
    from_line = sweep.from_line if own else len(sweep.queue)
    left = sum(tables.sizes[piece] for piece in sweep.queue[: min(sweep.head, from_line)])
    used = sweep.used
    if sweep.head < from_line:
        left += used
        used = 0
    while left:
        left -= line.take(left)[2]
    for piece in sweep.behind[max(sweep.head, from_line) if own else 0 :]:
        line.append(tables.places[piece] + used, tables.items[piece] + used, tables.sizes[piece] - used)
        used = 0
    state.next_place = sweep.next_place


def _write_returned(sweep: Sweep, state: PartitionState, past: dict[int, Any]) -> None:
    """Items that came back are not as they were produced, until they are gone."""
    tables = sweep.tables
    attempts, moved = state.attempts, state.moved
    for piece in sweep.returned:
        first, place = tables.items[piece], tables.places[piece]
        known = (tables.ready[piece], tables.first_reserved[piece], 0)
        done = tables.attempts[piece] - 1
        for offset in range(tables.sizes[piece]):
            past[first + offset] = known
            moved[first + offset] = place + offset
            if done:
                attempts[first + offset] = done
    state.retried += sweep.retried
    state.ended += sweep.ended
    if not past:
        return
    items, sizes = _finished(sweep)
    if sum(sizes) == len(items):
        gone = list(filter(past.__contains__, items))
    else:
        gone = [
            item
            for first, size in zip(items, sizes, strict=True)
            if not past.keys().isdisjoint(range(first, first + size))
            for item in range(first, first + size)
            if item in past
        ]
    for item in gone:
        del past[item]
        attempts.pop(item, None)
        moved.pop(item, None)


def _write_segments(sweep: Sweep, state: PartitionState, everyday: Everyday) -> None:
    tables = sweep.tables
    first: int = state.next_item
    fresh = _Fresh(sweep, first)
    states = fresh.states
    items, sizes = _finished(sweep)
    state.completed += sum(sizes)
    state.age_sum -= sum(map(mul, map(tables.produced.__getitem__, sweep.finished), sizes))
    for item, size in _joined(items, sizes):
        older = max(0, min(size, first - item))
        if older:
            everyday.finish(item, older)
        states[max(0, item - first) : max(0, item - first + size)] = FILL[GONE][size - older]
    fresh.write(state)


def _write_reservations(
    sweep: Sweep, state: PartitionState, past: dict[int, Any], everyday: Everyday
) -> None:
    """Those that were closed go, those that are open stay."""
    for number in sweep.lifted:
        del everyday.held[number]
    tables = sweep.tables
    for index in compress(range(len(sweep.open)), sweep.open):
        pieces = [sweep.piece(piece) for piece in sweep.taken[index]]
        place = sweep.places[index]
        everyday.held[sweep.first_number + index] = (
            sweep.runs(sweep.taken[index]),
            pieces,
            not past or all(past.keys().isdisjoint(range(item, item + size)) for item, size, *_ in pieces),
            sum(size for _, size, *_ in pieces),
            state.nonce,
            tables.sessions[place],
            sweep.generations[index],
            sweep.deadlines[index],
            sweep.run_untils[index],
            tables.reserved[place],
        )
    for torn in sweep.torn.values():
        reservation = torn.reservation
        reservation.marks = torn.marks
        reservation.left = torn.marks.count(OPEN)
        everyday.give_torn(reservation)
    next_number: Any = sweep.first_number + len(sweep.taken)
    state.next_reservation = next_number


def _finished(sweep: Sweep) -> tuple[list[int], list[int]]:
    """First item and how many, of the pieces that are gone for good."""
    items, sizes = sweep.tables.items, sweep.tables.sizes
    return list(map(items.__getitem__, sweep.finished)), list(map(sizes.__getitem__, sweep.finished))


class _Fresh:
    """The items that were produced, as columns of items, on their way into segments."""

    def __init__(self, sweep: Sweep, first: int) -> None:
        def of_batches(column: Sequence[Any]) -> list[Any]:
            return list(chain.from_iterable(column[start : start + size] for start, size in sweep.produced))

        tables = sweep.tables
        firsts, counts = of_batches(tables.items), of_batches(tables.sizes)
        produced, kinds = of_batches(tables.produced), of_batches(tables.kinds)
        self._first = first
        self._count = sum(counts)
        self._age = sum(map(mul, produced, counts))
        if self._count != len(counts):
            produced = list(chain.from_iterable(map(repeat, produced, counts)))
            kinds = list(chain.from_iterable(map(repeat, kinds, counts)))
        self._produced = produced
        self._kinds = kinds
        shifts = list(map(sub, of_batches(tables.places), firsts))
        changed = [True, *map(ne, shifts[1:], shifts)]
        self._shifts = list(compress(firsts, changed)), list(compress(shifts, changed))
        starts = accumulate((count for _, count in sweep.batches[:-1]), initial=0)
        self._origins = [firsts[start] for start in starts if firsts], [at for at, _ in sweep.batches]
        self.states = bytearray(bytes((READY,)) * self._count)

    def write(self, state: PartitionState) -> None:
        """Into the state, but for segments that are over already."""
        state.produced += self._count
        state.next_item = ItemNumber(self._first + self._count)
        state.age_sum += self._age
        start = 0
        while start < self._count:
            item = self._first + start
            size = min(self._count - start, SEGMENT_ITEMS - (item & OFFSET))
            self._write_segment(state, start, size)
            start += size

    def _write_segment(self, state: PartitionState, start: int, size: int) -> None:
        item = self._first + start
        number = item >> SEGMENT_BITS
        states = self.states[start : start + size]
        live = size - states.count(GONE)
        segment = state.segments.get(number)
        if segment is None:
            if not live and not (item + size) & OFFSET:
                return
            segment = state.segments[number] = Segment(number)
            segment.payloads = None
        offset = len(segment.states)
        segment.states += states
        segment.produced.extend(self._produced[start : start + size])
        segment.live += live
        # Where nothing changed since the batch before, nothing is noted.
        for at, shift in _within(self._shifts, item, size):
            if not segment.shifts or segment.shifts[-1] != shift:
                segment.shift_offsets.append(at - segment.first)
                segment.shifts.append(shift)
        for at, position in _within(self._origins, item, size):
            if not segment.origin_positions or segment.origin_positions[-1] != position:
                segment.origin_offsets.append(at - segment.first)
                segment.origin_positions.append(position)
        kinds = self._kinds[start : start + size]
        if any(kinds):
            values = [kind or None if alive else None for kind, alive in zip(kinds, states, strict=True)]
            segment.set_column("kind", offset, values)
        segment.pad_columns()
        if not segment.live and segment.is_full:
            del state.segments[number]


_Changes = tuple[list[int], list[int]]
"""Items in order, and what holds from each of them on."""


def _within(changes: _Changes, item: int, size: int) -> Iterable[tuple[int, int]]:
    """What holds at ``item``, and what changes among so many from there."""
    items, values = changes
    start = bisect_right(items, item) - 1
    end = bisect_left(items, item + size)
    return zip((item, *items[start + 1 : end]), values[start:end], strict=True)


def _joined(items: list[int], sizes: list[int]) -> Iterable[tuple[int, int]]:
    """Runs, each within a segment, in order, neighbours joined as far as the segment goes."""
    ends = list(map(add, items, sizes))
    items, ends = sorted(items), sorted(ends)  # runs that do not overlap: in order of their ends as well
    starts = [True, *map(ne, items[1:], ends)]
    starts = [starts_here or not item & OFFSET for item, starts_here in zip(items, starts, strict=False)]
    lasts = [*starts[1:], True]
    return zip(compress(items, starts), map(sub, compress(ends, lasts), compress(items, starts)), strict=True)
