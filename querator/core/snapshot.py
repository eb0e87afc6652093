"""Snapshots: a partition's state as bytes, in pieces, and back.

A snapshot is a *head* (everything of the fold that is neither in segments nor a dedupe key) and a
*chunk* for each segment and each block of dedupe keys. What did not change since the previous snapshot
keeps its old chunk, so what a snapshot costs grows with what changed, not with what waits. A Capture
makes one while the state goes on changing: the head at once, each chunk when its turn comes or just
before it changes. What is long in the head itself, a schedule, dead items, counted attempts, is set aside
as it is and becomes chunks of its own.

Payloads are in no snapshot: they are in the log, where ``Segment.origin_of`` says. Derived indexes
are rebuilt by ``load``.
"""

import sys
from array import array
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Sized
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from querator.core.dedupe import DedupeBlock
from querator.core.ids import Instant, PartitionId, ReservationNumber
from querator.core.invariants import check
from querator.core.lanes import Lane
from querator.core.line import Run
from querator.core.place_ids import partition_of
from querator.core.policy import decode_policy, encode_policy
from querator.core.segments import BEHIND, GONE, READY, RESERVED, SCHEDULED, Segment
from querator.core.settled import SettledMemory
from querator.core.state import Outbound, PartitionState, Producer, Reservation

VERSION: Final = 1
HASH_BYTES: Final = 32

ChunkRef: TypeAlias = "tuple[int, int]"
"""(segment number, position of the snapshot that stored it): log/records.ChunkId in plain numbers. A block
of dedupe keys has the number -1 - its own."""

_RUN: Final = 3
_SCHEDULED: Final = 4
"""Numbers of a scheduled run."""
_OLD_BLOCKS: Final = 1 << 62
"""Blocks of dedupe keys out of older heads, which do not say what records they came with, count from here."""
_AGED: Final = (READY, RESERVED, BEHIND)
_WIDTHS: Final = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"))


class SnapshotUnreadable(Exception):
    """These bytes are no snapshot of a version that is known here: ignore it and fold the log."""


# --- numbers ----------------------------------------------------------------------------------------


def _pack(numbers: Iterable[int]) -> bytes:
    """Integers in as few bytes as they need: all the same, or an array as narrow as they allow."""
    wide = numbers if isinstance(numbers, array) else array("q", numbers)
    if not wide:
        return b""
    low, high = min(wide), max(wide)
    if low == high:
        return b"c" + len(wide).to_bytes(4, "little") + low.to_bytes(8, "little", signed=True)
    span = high - low
    for bound, code in _WIDTHS:
        if span < bound:
            narrow = array(code, [number - low for number in wide] if low else wide)
            return code.encode() + low.to_bytes(8, "little", signed=True) + _raw(narrow)
    return b"q" + bytes(8) + _raw(array("q", wide))


def _unpack(data: bytes) -> "array[int]":
    if not data:
        return array("q")
    code = data[:1].decode()
    if code == "c":
        return array("q", (int.from_bytes(data[5:13], "little", signed=True),)) * int.from_bytes(
            data[1:5], "little"
        )
    low = int.from_bytes(data[1:9], "little", signed=True)
    narrow = _cook(code, data[9:])
    return array("q", [number + low for number in narrow] if low else narrow)


def _raw(numbers: "array[int]") -> bytes:
    """Little-endian, whatever this machine is."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _cook(code: str, data: bytes) -> "array[int]":
    numbers: array[int] = array(code, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


# --- segments ---------------------------------------------------------------------------------------


@attrs.define
class _Chunk:
    """A segment's columns. Lists of length 1 stand for columns of one value."""

    version: int
    number: int
    revision: int
    count: int
    states: bytes
    produced: bytes
    expires: bytes
    columns: dict[str, list[Any]]
    shift_offsets: bytes
    shifts: bytes
    origin_offsets: bytes
    origin_positions: bytes
    carried: dict[int, int]
    home_offsets: bytes = b""
    homes: bytes | None = None
    """``None``: of a version that did not know where its items came from."""


def encode_segment(segment: Segment) -> bytes:
    """The segment without its payloads."""
    states = segment.states
    count = len(states)
    chunk = _Chunk(
        VERSION,
        segment.number,
        segment.revision,
        count,
        bytes(states[:1]) if states.count(states[:1]) == count else bytes(states),
        _pack(segment.produced),
        b"" if segment.expires is None else _pack(segment.expires),
        {name: _narrow(column) for name, column in (segment.columns or {}).items()},
        _pack(segment.shift_offsets),
        _pack(segment.shifts),
        _pack(segment.origin_offsets),
        _pack(segment.origin_positions),
        segment.carried or {},
        _pack(segment.home_offsets),
        _pack(segment.homes),
    )
    return _ENCODER.encode(chunk)


def _narrow(column: list[object]) -> list[object]:
    return column[:1] if column.count(column[0]) == len(column) else column


def decode_segment(data: bytes, sources: Container[int] = ()) -> Segment:
    """A segment whose payloads are in the log. ``sources``: the partitions whose dead items came here, for
    chunks of an older version: in their ``source_id`` such items say from which.

    Raises:
        SnapshotUnreadable: these bytes are no chunk of a known version.
    """
    chunk = _decode(data, _CHUNKS, "chunk")
    count = chunk.count
    segment = Segment(chunk.number)
    segment.states = bytearray(chunk.states if len(chunk.states) == count else chunk.states * count)
    segment.live = count - segment.states.count(GONE)
    segment.produced = _unpack(chunk.produced)
    segment.expires = _unpack(chunk.expires) if chunk.expires else None
    if chunk.columns:
        segment.columns = {
            name: column if len(column) == count else column * count for name, column in chunk.columns.items()
        }
    segment.shift_offsets = array("H", _unpack(chunk.shift_offsets))
    segment.shifts = _unpack(chunk.shifts)
    segment.origin_offsets = array("H", _unpack(chunk.origin_offsets))
    segment.origin_positions = _unpack(chunk.origin_positions)
    segment.carried = chunk.carried or None
    if chunk.homes is None:
        _find_homes(segment, sources)
    else:
        segment.home_offsets = array("H", _unpack(chunk.home_offsets))
        segment.homes = _unpack(chunk.homes)
    segment.payloads = None
    segment.revision = chunk.revision
    if len(segment.states) != count or len(segment.produced) != count:
        raise SnapshotUnreadable(f"segment {chunk.number}: columns of unequal length")
    return segment


def _find_homes(segment: Segment, sources: Container[int]) -> None:
    """What an older version did not note. An item that is gone took its ``source_id`` along, and its home."""
    for offset, source_id in enumerate((segment.columns or {}).get("source_id", ())):
        home = partition_of(source_id) if isinstance(source_id, str) else None
        if home is not None and home in sources:
            segment.set_home(offset, 1, home)


# --- dedupe keys ------------------------------------------------------------------------------------

_DEDUPE_MARK: Final = b"\xc1"
"""Begins the chunk of a block of dedupe keys; nothing in MessagePack begins so."""


@attrs.define
class _DedupeChunk:
    """The entries of a block that were not forgotten yet, flat."""

    version: int
    number: int
    revision: int
    forgotten: int
    total: int
    ats: bytes
    counts: bytes
    """Of the keys of each entry."""
    keys: list[str]
    items: bytes
    """The item that each key names."""


def encode_dedupe(block: DedupeBlock, dedupe: Mapping[str, int]) -> bytes:
    """The block, with what its keys name."""
    keys = [key for _, names in block.entries for key in names]
    chunk = _DedupeChunk(
        VERSION,
        block.number,
        block.revision,
        block.forgotten,
        block.keys,
        _pack([at for at, _ in block.entries]),
        _pack([len(names) for _, names in block.entries]),
        keys,
        _pack([dedupe[key] for key in keys]),
    )
    return _DEDUPE_MARK + _ENCODER.encode(chunk)


def _load_dedupe(state: PartitionState, data: bytes, forgotten: int) -> None:
    """``forgotten``: entries of the block that were, at the snapshot; its chunk may be of an older one."""
    chunk: _DedupeChunk = _decode(data[1:], _DEDUPE_CHUNKS, "chunk of dedupe keys")
    block = DedupeBlock(chunk.number)
    block.forgotten = max(forgotten, chunk.forgotten)
    block.keys = chunk.total
    block.left = 0
    block.revision = chunk.revision
    items = _unpack(chunk.items)
    start = 0
    for index, (at, count) in enumerate(zip(_unpack(chunk.ats), _unpack(chunk.counts), strict=True)):
        names = chunk.keys[start : start + count]
        if index >= block.forgotten - chunk.forgotten:
            block.entries.append((at, tuple(names)))
            block.left += count
            state.dedupe.update(zip(names, items[start : start + count], strict=True))
        start += count
    if start != len(chunk.keys) or start != len(items) or not block.entries:
        raise SnapshotUnreadable(f"dedupe keys {chunk.number}: columns of unequal length")
    state.dedupe_order.blocks.append(block)


# --- what is long in the head -----------------------------------------------------------------------

SCHEDULE_ENTRIES: Final = 4_096
"""A schedule, dead items, attempts or new places of more are not in the head; a chunk has as many."""
_SCHEDULE_MARK: Final = _DEDUPE_MARK * 2 + bytes([VERSION])
_SCHEDULE_FIRST: Final = -(1 << 63)
"""Number of the first chunk of a schedule."""
_DEAD_MARK: Final = _DEDUPE_MARK * 2 + b"d" + bytes([VERSION])
_DEAD_FIRST: Final = -(15 << 59)
_ATTEMPTS_MARK: Final = _DEDUPE_MARK * 2 + b"a" + bytes([VERSION])
_ATTEMPTS_FIRST: Final = -(14 << 59)
_MOVED_MARK: Final = _DEDUPE_MARK * 2 + b"m" + bytes([VERSION])
_MOVED_FIRST: Final = -(13 << 59)


def _load_schedule(state: PartitionState, packed: bytes) -> None:
    numbers = _unpack(packed)
    if len(numbers) % _SCHEDULED:
        raise SnapshotUnreadable("a schedule of incomplete entries")
    state.schedule.extend(zip(numbers[0::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True))


def _encode_schedule(entries: Sequence[tuple[int, int, int, int]]) -> bytes:
    return _SCHEDULE_MARK + _pack(chain.from_iterable(entries))


def _encode_dead(entries: Sequence[tuple[int, tuple[str, int]]]) -> bytes:
    return _DEAD_MARK + _ENCODER.encode(([item for item, _ in entries], [death for _, death in entries]))


def _load_dead(state: PartitionState, packed: bytes) -> None:
    try:
        items, deaths = _DEATHS.decode(packed)
    except msgspec.DecodeError as error:
        raise SnapshotUnreadable(f"not a chunk of dead items: {error}") from error
    state.dead.update(zip(items, deaths, strict=True))


def _encode_attempts(entries: Sequence[tuple[int, int]]) -> bytes:
    return _ATTEMPTS_MARK + _pack(chain.from_iterable(entries))


def _encode_moved(entries: Sequence[tuple[int, int]]) -> bytes:
    return _MOVED_MARK + _pack(chain.from_iterable(entries))


def _load_pairs(into: dict[int, int], packed: bytes) -> None:
    numbers = _unpack(packed)
    if len(numbers) % 2:
        raise SnapshotUnreadable("a chunk of incomplete pairs")
    into.update(zip(numbers[0::2], numbers[1::2], strict=True))


# --- the head ---------------------------------------------------------------------------------------


@attrs.define
class _Reservations:
    numbers: bytes
    nonces: bytes
    sessions: list[str]
    session_indexes: bytes
    generations: bytes
    counts: bytes
    reserved_at: bytes
    deadlines: bytes
    run_until: bytes
    run_counts: bytes
    runs: bytes
    """(place, item, count) of all runs, flat."""
    marks: dict[int, bytes]


@attrs.define
class _Head:
    version: int
    partition: int
    position: int
    nonce: int
    incarnation: int
    server_identity: str
    claimed_at: int
    bucket: int
    now: int
    policy: bytes
    paused: bool
    next_item: int
    next_place: int
    next_reservation: int
    part_first: int
    counters: dict[str, int]
    line: bytes
    reservations: _Reservations
    schedule: bytes
    """The heap's entries (due at, place, item, count), flat, in the heap's order, where they are few."""
    lanes: list[tuple[str, int, int, dict[int, int] | None, list[tuple[int, int]], list[int]]]
    """(key, head, held, ranks, front, waiting)."""
    attempts: tuple[bytes, bytes]
    moved: tuple[bytes, bytes]
    dead_items: bytes
    dead: list[tuple[str, int]]
    outbound: list[tuple[int, int, list[int]]]
    inbound: dict[int, int]
    producers: list[tuple[str, int, int, dict[int, tuple[int, int, tuple[tuple[int, int], ...]]]]]
    """(name, last at, forgotten, results), least recently used first."""
    dedupe_order: list[tuple[int, tuple[str, ...]]]
    dedupe: dict[str, int]
    """These two are empty: the keys are in chunks of their own. Older heads have them here."""
    sources: dict[str, int]
    settled: list[tuple[int, bytes, bytes]]
    settled_mixed: dict[int, bytes]
    milestones: tuple[bytes, bytes, bytes] = (b"", b"", b"")
    """(numbers, positions, times)."""
    dedupe_forgotten: int = 0
    """Entries of the first block of dedupe keys that were forgotten."""
    homeward: list[int] = attrs.Factory(list)


_COUNTERS: Final = ("scheduled", "reserved", "behind", "produced", "completed", "removed", "retried", "ended")

_NONE: Final[dict[int, int]] = {}
_NO_DEATHS: Final[dict[int, tuple[str, int]]] = {}

_ENCODER: Final = msgspec.msgpack.Encoder()
_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")
_CHUNKS: Final = msgspec.msgpack.Decoder(_Chunk)
_DEDUPE_CHUNKS: Final = msgspec.msgpack.Decoder(_DedupeChunk)
_DEATHS: Final = msgspec.msgpack.Decoder(tuple[list[int], list[tuple[str, int]]])
_HEADS: Final = msgspec.msgpack.Decoder(_Head)


def _decode(data: bytes, decoder: Any, what: str) -> Any:
    try:
        decoded = decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotUnreadable(f"not a snapshot's {what}: {error}") from error
    if decoded.version != VERSION:
        raise SnapshotUnreadable(f"a snapshot's {what} of version {decoded.version}")
    return decoded


def _is_long(entries: Sized) -> bool:
    return len(entries) > SCHEDULE_ENTRIES


def encode_head(state: PartitionState, *, is_whole: bool = True) -> bytes:
    """Everything of the fold that is neither in segments nor a dedupe key; unless ``is_whole``, but for what
    is long."""
    schedule = () if not is_whole and _is_long(state.schedule) else state.schedule
    attempts = _NONE if not is_whole and _is_long(state.attempts) else state.attempts
    moved = _NONE if not is_whole and _is_long(state.moved) else state.moved
    dead = _NO_DEATHS if not is_whole and _is_long(state.dead) else state.dead
    return _ENCODER.encode(
        _Head(
            VERSION,
            state.partition,
            state.position,
            state.nonce,
            state.incarnation,
            state.server_identity,
            state.claimed_at,
            state.bucket,
            state.now,
            encode_policy(state.policy),
            state.paused,
            state.next_item,
            state.next_place,
            state.next_reservation,
            state.part_first,
            {name: getattr(state, name) for name in _COUNTERS},
            _pack(chain.from_iterable(state.line.runs())),
            _pack_reservations(list(state.reservations.values())),
            _pack(chain.from_iterable(schedule)),
            [
                (key, lane.head, lane.held, lane.ranks, lane.front, list(lane.waiting))
                for key, lane in state.lanes.items()
            ],
            (_pack(attempts.keys()), _pack(attempts.values())),
            (_pack(moved.keys()), _pack(moved.values())),
            _pack(dead.keys()),
            list(dead.values()),
            [(target, channel.first_move, list(channel.items)) for target, channel in state.outbound.items()],
            state.inbound,
            [
                (name, producer.last_at, producer.forgotten, producer.results)
                for name, producer in state.producers.items()
            ],
            [],
            {},
            state.sources,
            [
                (number, bytes(verbs), _raw(counts))
                for number, (verbs, counts) in state.settled.blocks.items()
            ],
            state.settled.mixed,
            (
                _pack(state.milestones.numbers),
                _pack(state.milestones.positions),
                _pack(state.milestones.ats),
            ),
            state.dedupe_order.blocks[0].forgotten if state.dedupe_order else 0,
            list(state.homeward),
        )
    )


def _pack_reservations(reservations: list[Reservation]) -> _Reservations:
    sessions: dict[str, int] = {}
    session_indexes = [sessions.setdefault(r.session, len(sessions)) for r in reservations]
    return _Reservations(
        _pack([r.number for r in reservations]),
        _pack([r.nonce for r in reservations]),
        list(sessions),
        _pack(session_indexes),
        _pack([r.generation for r in reservations]),
        _pack([r.count for r in reservations]),
        _pack([r.reserved_at for r in reservations]),
        _pack([r.deadline for r in reservations]),
        _pack([r.run_until for r in reservations]),
        _pack([len(r.runs) for r in reservations]),
        _pack(chain.from_iterable(chain.from_iterable([r.runs for r in reservations]))),
        {r.number: bytes(r.marks) for r in reservations if r.marks is not None},
    )


def load(partition: PartitionId, head: bytes, chunks: Iterable[bytes]) -> PartitionState:
    """The state that a snapshot holds, with its derived indexes; no payload is in memory.

    Raises:
        SnapshotUnreadable: of an unknown version, damaged, or another partition's.
    """
    stored: _Head = _decode(head, _HEADS, "head")
    if stored.partition != partition:
        raise SnapshotUnreadable(f"a snapshot of partition {stored.partition}, not {partition}")
    state = PartitionState(partition)
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
    for name in _COUNTERS:
        setattr(state, name, stored.counters[name])
    for place, item, count in _in_runs(_unpack(stored.line)):
        state.line.append(place, item, count)
    _load_schedule(state, stored.schedule)
    for key, lane_head, held, ranks, front, waiting in stored.lanes:
        state.lanes[key] = Lane(lane_head, held, ranks, front, deque(waiting))
    state.attempts = dict(zip(*map(_unpack, stored.attempts), strict=True))
    state.moved = dict(zip(*map(_unpack, stored.moved), strict=True))
    state.dead = dict(zip(_unpack(stored.dead_items), stored.dead, strict=True))
    for target, first_move, items in stored.outbound:
        state.outbound[target] = Outbound(first_move, deque(items))
        state.leaving.update(dict.fromkeys(items))
    state.homeward = dict.fromkeys(stored.homeward)
    state.inbound = stored.inbound
    for name, last_at, forgotten, results in stored.producers:
        state.producers[name] = Producer(results, last_at, forgotten)
    state.dedupe = stored.dedupe
    for index, (at, names) in enumerate(stored.dedupe_order):
        state.dedupe_order.open_block(_OLD_BLOCKS + index).add(at, names, _OLD_BLOCKS + index)
    state.sources = stored.sources
    for number, verbs, counts in stored.settled:
        state.settled.blocks[number] = (bytearray(verbs), _cook("H", counts))
    state.settled.restored()
    state.settled.mixed = stored.settled_mixed
    for number, position, at in zip(*map(_unpack, stored.milestones), strict=True):
        state.milestones.note(number, position, at)
    _load_reservations(state, stored.reservations)
    forgotten = stored.dedupe_forgotten
    for data in chunks:
        if data.startswith(_SCHEDULE_MARK):
            _load_schedule(state, data[len(_SCHEDULE_MARK) :])
        elif data.startswith(_DEAD_MARK):
            _load_dead(state, data[len(_DEAD_MARK) :])
        elif data.startswith(_ATTEMPTS_MARK):
            _load_pairs(state.attempts, data[len(_ATTEMPTS_MARK) :])
        elif data.startswith(_MOVED_MARK):
            _load_pairs(state.moved, data[len(_MOVED_MARK) :])
        elif data[:1] == _DEDUPE_MARK:
            _load_dedupe(state, data, forgotten)
            forgotten = 0
        else:
            _load_segment(state, decode_segment(data, state.inbound))
    return state


def _in_runs(numbers: "array[int]") -> Iterable[Run]:
    return zip(numbers[0::_RUN], numbers[1::_RUN], numbers[2::_RUN], strict=True)


def _load_reservations(state: PartitionState, stored: _Reservations) -> None:
    runs = list(_in_runs(_unpack(stored.runs)))
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
        *map(_unpack, columns), strict=True
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


# --- comparing --------------------------------------------------------------------------------------


def state_hash(state: PartitionState) -> bytes:
    """32 bytes that are equal when two states are: however they came about, and wherever their payloads are.

    The position is not part of it: an owner's state stands between two records.
    """
    digest = blake2b(digest_size=HASH_BYTES)
    for part in _canonical_head(state):
        digest.update(_CANONICAL.encode(part))
    for number in sorted(state.segments):
        digest.update(_CANONICAL.encode(_canonical_segment(state.segments[number])))
    return digest.digest()


def _canonical_head(state: PartitionState) -> Iterable[object]:
    yield [state.partition, state.nonce, state.incarnation, state.bucket, state.now, state.paused]
    yield [state.server_identity, state.claimed_at]
    yield encode_policy(state.policy)
    yield [state.next_item, state.next_place, state.next_reservation, state.part_first]
    yield [getattr(state, name) for name in _COUNTERS]
    yield state.line.canonical()
    yield [
        [
            r.number,
            r.nonce,
            r.session,
            r.generation,
            _merge(r.runs),
            r.reserved_at,
            r.deadline,
            r.run_until,
            bytes(r.marks or bytes(r.count)),
        ]
        for _, r in sorted(state.reservations.items())
    ]
    yield _canonical_schedule(state)
    yield sorted(_canonical_lane(key, lane) for key, lane in state.lanes.items())
    yield sorted(state.attempts.items())
    yield sorted(state.moved.items())
    yield list(state.dead.items())
    yield sorted(
        (target, channel.first_move, list(channel.items)) for target, channel in state.outbound.items()
    )
    yield sorted(state.homeward)
    yield sorted(state.inbound.items())
    yield [
        [name, producer.last_at, producer.forgotten, sorted(producer.results.items())]
        for name, producer in state.producers.items()
    ]
    yield list(state.dedupe_order)
    yield sorted(state.known_keys().items())
    yield sorted(state.sources.items())
    yield _canonical_settled(state.settled)


def _canonical_lane(key: str, lane: Lane) -> list[object]:
    # Ranks mean something while one of the items that have them is held.
    ranks = sorted((lane.ranks or {}).items()) if lane.held else []
    return [key, lane.head, lane.held, ranks, lane.front, list(lane.waiting)]


def _canonical_settled(settled: SettledMemory) -> object:
    blocks = sorted(
        (number, bytes(verbs), _raw(counts)) for number, (verbs, counts) in settled.blocks.items()
    )
    return [blocks, sorted(settled.mixed.items())]


def _merge(runs: Sequence[Run]) -> list[Run]:
    merged: list[Run] = []
    for place, item, count in runs:
        if merged:
            last_place, last_item, length = merged[-1]
            if last_place + length == place and last_item + length == item:
                merged[-1] = (last_place, last_item, length + count)
                continue
        merged.append((place, item, count))
    return merged


def _canonical_schedule(state: PartitionState) -> list[tuple[int, list[Run]]]:
    """What is scheduled, by due time; entries whose items have left don't count."""
    by_due: dict[int, list[Run]] = {}
    for due, place, item, count in sorted(state.schedule):
        for offset in range(count):
            number = item + offset
            if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                by_due.setdefault(due, []).append((place + offset, number, 1))
    return [(due, _merge(runs)) for due, runs in by_due.items()]


def _canonical_segment(segment: Segment) -> list[object]:
    expires = segment.expires
    return [
        segment.number,
        bytes(segment.states),
        _raw(segment.produced),
        None if expires is None or not any(expires) else _raw(expires),
        {
            name: column
            for name, column in (segment.columns or {}).items()
            if column.count(None) < len(column)
        },
        list(zip(segment.shift_offsets, segment.shifts, strict=True)),
        list(zip(segment.origin_offsets, segment.origin_positions, strict=True)),
        sorted((segment.carried or {}).items()),
        _canonical_homes(segment),
    ]


def _canonical_homes(segment: Segment) -> list[tuple[int, int, int]]:
    """(home, first offset, count) of live items: an older snapshot knows of no others."""
    found: list[tuple[int, int, int]] = []
    for home, start, end in segment.stretches():
        for offset in range(start, end):
            if segment.states[offset] == GONE:
                continue
            if found and found[-1][0] == home and sum(found[-1][1:]) == offset:
                found[-1] = (home, found[-1][1], found[-1][2] + 1)
            else:
                found.append((home, offset, 1))
    return found


# --- making one while the state changes ---------------------------------------------------------------


@attrs.define
class _Long:
    """A copy that is encoded in chunks, from ``number`` on."""

    number: int
    entries: Iterator[Any]
    left: int
    encode: Callable[[Sequence[Any]], bytes]


class Capture:
    """A snapshot of the state as it is at construction, made in steps.

    Construct it at the moment a record is sealed, when the state is the fold up to that record. It
    hooks itself into ``state.capture`` until it is done or ``abandon``ed; one at a time. Chunks gather
    in ``fresh`` for the caller to store (and take out); ``chunks`` lists all that the snapshot is made
    of, the unchanged ones of the previous snapshot among them. The snapshot is valid once the record
    at ``position`` is committed.
    """

    __slots__ = (
        "_pending",
        "_pending_dedupe",
        "_set_aside",
        "_state",
        "chunks",
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
        self._set_aside: deque[_Long] = deque()
        chunks: list[ChunkRef] = []
        self._set_long_aside(chunks)
        self.head = encode_head(state, is_whole=False)
        self.fresh: dict[ChunkRef, bytes] = {}
        """Encoded and not yet taken by the caller."""
        self._pending: dict[int, Segment] = {}
        stored: Mapping[int, int] = dict(previous)
        for number, segment in state.segments.items():
            at = stored.get(number)
            if at is None or segment.revision > previous_position:
                at = self.position
                self._pending[number] = segment
            chunks.append((number, at))
        self._pending_dedupe: dict[int, DedupeBlock] = {}
        for block in state.dedupe_order.blocks:
            at = stored.get(-1 - block.number)
            if at is None or block.revision > previous_position:
                at = self.position
                self._pending_dedupe[block.number] = block
            chunks.append((-1 - block.number, at))
        self.chunks: tuple[ChunkRef, ...] = tuple(chunks)
        if not self.is_done:
            state.capture = self

    @property
    def is_done(self) -> bool:
        return not (self._pending or self._pending_dedupe or self._set_aside)

    def _set_long_aside(self, chunks: list[ChunkRef]) -> None:
        """Copies: to copy a million entries takes some ten milliseconds, to encode them ten times that."""
        state = self._state
        if _is_long(state.schedule):
            entries = list(state.schedule)
            self._set_aside.append(_Long(_SCHEDULE_FIRST, iter(entries), len(entries), _encode_schedule))
        long: Mapping[int, Any]
        for long, number, encode in (
            (state.dead, _DEAD_FIRST, _encode_dead),
            (state.attempts, _ATTEMPTS_FIRST, _encode_attempts),
            (state.moved, _MOVED_FIRST, _encode_moved),
        ):
            if _is_long(long):
                self._set_aside.append(_Long(number, iter(long.copy().items()), len(long), encode))
        for aside in self._set_aside:
            count = -(-aside.left // SCHEDULE_ENTRIES)
            chunks += [(number, self.position) for number in range(aside.number, aside.number + count)]

    def before_write(self, segment: Segment) -> None:
        """The segment is about to change: encode it as it is."""
        if self._pending.pop(segment.number, None) is not None:
            self._encode(segment)

    def before_dedupe(self, block: DedupeBlock) -> None:
        """Keys are about to join or to leave the block: encode it as it is."""
        if self._pending_dedupe.pop(block.number, None) is not None:
            self._encode_dedupe(block)

    def step(self, budget_segments: int) -> bool:
        """Encode up to so many segments, or one chunk of another kind; True when all are."""
        pending, blocks = self._pending, self._pending_dedupe
        if blocks and not pending and budget_segments > 0:
            self._encode_dedupe(blocks.pop(next(iter(blocks))))
        elif self._set_aside and not pending and budget_segments > 0:
            long = self._set_aside[0]
            self.fresh[long.number, self.position] = long.encode(list(islice(long.entries, SCHEDULE_ENTRIES)))
            long.number += 1
            long.left -= SCHEDULE_ENTRIES
            if long.left <= 0:
                self._set_aside.popleft()
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

    def _encode(self, segment: Segment) -> None:
        self.fresh[segment.number, self.position] = encode_segment(segment)

    def _encode_dedupe(self, block: DedupeBlock) -> None:
        self.fresh[-1 - block.number, self.position] = encode_dedupe(block, self._state.dedupe)
