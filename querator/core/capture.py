"""Taking a snapshot while the state goes on changing.

A Capture is the state as it was at its construction. What it does then is short, whatever the state holds:
the head, and a list of what is to be encoded. All else is encoded in steps. What is about to change before
its turn has come says so (``state.capture``), and is encoded or copied as it was.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol

from querator.core.dedupe import DedupeBlock
from querator.core.invariants import check
from querator.core.lanes import Lane
from querator.core.packing import pack, raw
from querator.core.segments import Segment
from querator.core.snapshot import (
    FIRST,
    LANES_MARK,
    LEAVING_MARK,
    PART_ENTRIES,
    PRODUCERS_MARK,
    PRODUCERS_PER_CHUNK,
    QUEUED_MARK,
    RESERVATIONS_MARK,
    RESERVATIONS_PER_CHUNK,
    SETTLED_MARK,
    SETTLED_PER_CHUNK,
    ChunkRef,
    LaneEntry,
    encode_dedupe,
    encode_head,
    encode_part,
    encode_segment,
    pack_reservations,
    producer_entry,
)
from querator.core.state import PartitionState, Producer, Reservation


class Capture:
    """A snapshot of the state as it is at construction, made in steps.

    Construct it at the moment a record is sealed, when the state is the fold up to that record. It
    hooks itself into ``state.capture`` until it is done or ``abandon``ed; one at a time. Chunks gather
    in ``fresh`` for the caller to store (and take out); once it is done, ``chunks`` lists all that the
    snapshot is made of, the unchanged ones of the previous snapshot among them. The snapshot is valid once
    the record at ``position`` is committed.
    """

    __slots__ = (
        "_chunks",
        "_lanes",
        "_leaving",
        "_part",
        "_parts",
        "_pending",
        "_pending_dedupe",
        "_producers",
        "_reservations",
        "_state",
        "fresh",
        "head",
        "position",
    )

    def __init__(
        self, state: PartitionState, previous: Iterable[ChunkRef] = (), previous_position: int = 0
    ) -> None:
        check(state.capture is None, "a snapshot of this partition is being made")
        self.position = state.position
        """Of the record that the snapshot follows."""
        self._state = state
        self.head = encode_head(state, is_apart=True)
        self.fresh: dict[ChunkRef, bytes] = {}
        """Encoded and not yet taken by the caller."""
        self._chunks: list[ChunkRef] = []
        self._pending: dict[int, Segment] = {}
        stored: Mapping[int, int] = dict(previous)
        for number, segment in state.segments.items():
            at = stored.get(number)
            if at is None or segment.revision > previous_position:
                at = self.position
                self._pending[number] = segment
            self._chunks.append((number, at))
        self._pending_dedupe: dict[int, DedupeBlock] = {}
        for block in state.dedupe_order.blocks:
            at = stored.get(-1 - block.number)
            if at is None or block.revision > previous_position:
                at = self.position
                self._pending_dedupe[block.number] = block
            self._chunks.append((-1 - block.number, at))
        self._reservations = _Reservations(state)
        self._lanes = _Lanes(state)
        self._producers = _Producers(state)
        self._leaving = _Leaving(state)
        parts: tuple[_Part, ...] = (
            self._reservations,
            self._lanes,
            self._producers,
            self._leaving,
            _Settled(state),
        )
        self._parts = deque(part for part in parts if part.is_wanted)
        self._part: Iterator[bytes] | None = None
        if not self.is_done:
            state.capture = self

    @property
    def is_done(self) -> bool:
        return not (self._pending or self._pending_dedupe or self._parts)

    @property
    def chunks(self) -> tuple[ChunkRef, ...]:
        """All that the snapshot is made of, once it is done."""
        check(self.is_done, "asked what a snapshot is made of before it was made")
        return tuple(self._chunks)

    # --- what is about to change --------------------------------------------------------------------

    def before_write(self, segment: Segment) -> None:
        """Encode it as it is."""
        if self._pending.pop(segment.number, None) is not None:
            self._encode(segment)

    def before_dedupe(self, block: DedupeBlock) -> None:
        """Keys are about to join or to leave the block: encode it as it is."""
        if self._pending_dedupe.pop(block.number, None) is not None:
            self._encode_dedupe(block)

    def before_reservation(self, reservation: Reservation) -> None:
        self._reservations.keep(reservation)

    def before_lane(self, key: str) -> None:
        self._lanes.keep(key)

    def before_producer(self, name: str) -> None:
        self._producers.keep(name)

    def before_moved(self, target: int, count: int) -> None:
        """So many items are about to leave the head of the channel."""
        self._leaving.keep(target, count)

    # --- encoding -----------------------------------------------------------------------------------

    def step(self, budget_segments: int) -> bool:
        """Encode up to so many segments, or one chunk of another kind; True when all are."""
        pending, blocks = self._pending, self._pending_dedupe
        if budget_segments > 0 and not pending:
            if blocks:
                self._encode_dedupe(blocks.pop(next(iter(blocks))))
            elif self._parts:
                self._step_part()
        while pending and budget_segments > 0:
            budget_segments -= 1
            number = next(iter(pending))
            self._encode(pending.pop(number))
        if self.is_done:
            self.abandon()
        return self.is_done

    def abandon(self) -> None:
        """Stop watching the state; what was not encoded will not be."""
        if self._state.capture is self:
            self._state.capture = None

    def _step_part(self) -> None:
        part = self._parts[0]
        if self._part is None:
            self._part = part.encoded()
        chunk = next(self._part, None)
        if chunk is None:
            self._parts.popleft()
            self._part = None
        elif chunk:
            reference = (FIRST[part.mark] + part.count, self.position)
            part.count += 1
            self._chunks.append(reference)
            self.fresh[reference] = chunk

    def _encode(self, segment: Segment) -> None:
        self.fresh[segment.number, self.position] = encode_segment(segment, self._state)

    def _encode_dedupe(self, block: DedupeBlock) -> None:
        self.fresh[-1 - block.number, self.position] = encode_dedupe(block, self._state.dedupe)


class _Part(Protocol):
    """What becomes chunks of its own. ``encoded`` yields one a step, or nothing where that prepared."""

    mark: bytes
    count: int
    """Chunks so far."""

    @property
    def is_wanted(self) -> bool: ...

    def encoded(self) -> Iterator[bytes]: ...


class _Reservations:
    """They are numbered as they come, so one number tells which were there, and one how far it got."""

    mark = RESERVATIONS_MARK

    def __init__(self, state: PartitionState) -> None:
        self.count = 0
        self._live = state.reservations
        self._first = 0
        """Those below are encoded."""
        self._end = state.next_reservation
        self._kept: dict[int, Reservation] = {}

    @property
    def is_wanted(self) -> bool:
        return bool(self._live)

    def keep(self, reservation: Reservation) -> None:
        number = reservation.number
        if self._first <= number < self._end and number not in self._kept:
            self._kept[number] = reservation.copied()

    def encoded(self) -> Iterator[bytes]:
        numbers = list(self._live)
        yield b""
        if self._kept:
            numbers += self._kept
            numbers.sort()
            yield b""
        for start in range(0, len(numbers), RESERVATIONS_PER_CHUNK):
            chosen: dict[int, Reservation] = {}
            for number in numbers[start : start + RESERVATIONS_PER_CHUNK]:
                if self._first <= number < self._end:
                    found = self._kept.pop(number, None) or self._live.get(number)
                    if found is not None:
                        chosen[number] = found
                        self._first = number + 1
            if chosen:
                yield encode_part(self.mark, pack_reservations(list(chosen.values())))
        self._first = self._end


class _Lanes:
    mark = LANES_MARK

    def __init__(self, state: PartitionState) -> None:
        self.count = 0
        self._live = state.lanes
        self._kept: dict[str, LaneEntry | None] = {}
        """As they were; ``None``: not there then, or encoded."""
        self._is_done = not state.lanes

    @property
    def is_wanted(self) -> bool:
        return bool(self._live)

    def keep(self, key: str) -> None:
        if self._is_done or key in self._kept:
            return
        lane = self._live.get(key)
        self._kept[key] = None if lane is None else _copied(key, lane)

    def encoded(self) -> Iterator[bytes]:
        keys = list(self._live)
        keys += [key for key in self._kept if key not in self._live]
        yield b""
        entries: list[LaneEntry] = []
        size = 0
        for key in keys:
            # What changes after it was encoded is kept once more, for nothing: not where it is long.
            entry = self._kept.pop(key) if key in self._kept else _copied(key, self._live[key])
            if entry is None:
                continue
            waiting = entry[-1]
            size += 1 + len(waiting)
            if len(waiting) > PART_ENTRIES:
                self._kept[key] = None
                entries.append((*entry[:-1], []))
                yield encode_part(self.mark, entries)
                for start in range(0, len(waiting), PART_ENTRIES):
                    yield encode_part(QUEUED_MARK, (key, pack(waiting[start : start + PART_ENTRIES])))
                entries, size = [], 0
            else:
                entries.append(entry)
            if size >= PART_ENTRIES:
                yield encode_part(self.mark, entries)
                entries, size = [], 0
        self._is_done = True
        self._kept.clear()
        if entries:
            yield encode_part(self.mark, entries)


def _copied(key: str, lane: Lane) -> LaneEntry:
    ranks = None if lane.ranks is None else dict(lane.ranks)
    return key, lane.head, lane.held, ranks, list(lane.front), list(lane.waiting)


class _Producers:
    """Least recently used first, as they were: few enough for a list of their names."""

    mark = PRODUCERS_MARK

    def __init__(self, state: PartitionState) -> None:
        self.count = 0
        self._live = state.producers
        self._left: dict[str, None] = dict.fromkeys(state.producers)
        """Those not encoded."""
        self._kept: dict[str, Producer] = {}

    @property
    def is_wanted(self) -> bool:
        return bool(self._left)

    def keep(self, name: str) -> None:
        if name in self._left and name not in self._kept:
            producer = self._live[name]
            self._kept[name] = Producer(dict(producer.results), producer.last_at, producer.forgotten)

    def encoded(self) -> Iterator[bytes]:
        while self._left:
            names = list(islice(self._left, PRODUCERS_PER_CHUNK))
            entries = [
                producer_entry(name, self._kept.pop(name) if name in self._kept else self._live[name])
                for name in names
            ]
            for name in names:
                del self._left[name]
            yield encode_part(self.mark, entries)


class _Leaving:
    """Channels grow at one end and shrink at the other: what left them since is kept."""

    mark = LEAVING_MARK

    def __init__(self, state: PartitionState) -> None:
        self.count = 0
        self._live = state.outbound
        self._home = state.homeward
        self._left = {
            target: len(channel.items) for target, channel in state.outbound.items() if channel.items
        }
        """Items of each channel then; those not copied."""
        self._kept: dict[int, list[int]] = {}

    @property
    def is_wanted(self) -> bool:
        return bool(self._left)

    def keep(self, target: int, count: int) -> None:
        if target in self._left:
            kept = self._kept.setdefault(target, [])
            kept += self._copied(target, min(count, self._left[target] - len(kept)))

    def _copied(self, target: int, count: int) -> Iterator[int]:
        """Items that go home are negative: whether they do is settled as long as they are on their way."""
        home = self._home
        return (-item if item in home else item for item in islice(self._live[target].items, count))

    def encoded(self) -> Iterator[bytes]:
        for target in list(self._left):
            items = self._kept.pop(target, [])
            items += self._copied(target, self._left.pop(target) - len(items))
            yield b""
            for start in range(0, len(items), PART_ENTRIES):
                yield encode_part(self.mark, (target, pack(items[start : start + PART_ENTRIES])))


class _Settled:
    """Three bytes each and not so many: copied. Of the mixed ones it is enough to know how many they were."""

    mark = SETTLED_MARK

    def __init__(self, state: PartitionState) -> None:
        self.count = 0
        settled = state.settled
        self._blocks = [
            (number, bytes(verbs), counts[:], mixed, len(mixed))
            for number, (verbs, counts) in settled.blocks.items()
            for mixed in (settled.mixed.get(number, _NONE_MIXED),)
        ]

    @property
    def is_wanted(self) -> bool:
        return bool(self._blocks)

    def encoded(self) -> Iterator[bytes]:
        for start in range(0, len(self._blocks), SETTLED_PER_CHUNK):
            blocks = self._blocks[start : start + SETTLED_PER_CHUNK]
            yield encode_part(
                self.mark,
                [
                    (number, verbs, raw(counts), dict(islice(mixed.items(), length)))
                    for number, verbs, counts, mixed, length in blocks
                ],
            )


_NONE_MIXED: Final[dict[int, bytes]] = {}
