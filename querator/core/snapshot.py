"""Snapshots: a partition's state as bytes, in pieces.

A snapshot is a *head*, which is small, and *chunks*: one for each segment, with what else is known of its
items (their attempts, places, due times and deaths), one for each block of dedupe keys, and as many as it
takes for reservations, lanes, producers, settled reservations and what leaves for other partitions. A
segment or block that did not change since the previous snapshot keeps its old chunk, so what a snapshot
costs grows with what changed, not with what waits. core/capture.py makes one while the state goes on
changing; core/loading.py reads it.

A *whole* head has everything in it that is in no segment: for states that stand still, and what versions
before this one wrote (their long columns in chunks of their own).

Payloads are in no snapshot: they are in the log, where ``Segment.origin_of`` says. Derived indexes, the line
and the schedule among them, are rebuilt when it is loaded.
"""

from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from querator.core.dedupe import DedupeBlock
from querator.core.lanes import Lane
from querator.core.packing import pack, pack_fast, raw, unpack
from querator.core.place_ids import partition_of
from querator.core.policy import encode_policy
from querator.core.segments import DEAD, GONE, SCHEDULED, Segment
from querator.core.settled import SettledMemory
from querator.core.state import Death, PartitionState, Producer, Reservation

VERSION: Final = 2
"""Of heads that are written; 1 is read too."""
HEAD_VERSIONS: Final = (1, 2)
CHUNK_VERSION: Final = 1

ChunkRef: TypeAlias = "tuple[int, int]"
"""(number, position of the snapshot that stored it): log/records.ChunkId in plain numbers. A segment's number
is its own, a block of dedupe keys has -1 - its own, and other kinds count up from those of ``FIRST``."""


class SnapshotUnreadable(Exception):
    """These bytes are no snapshot of a version that is known here: ignore it and fold the log."""


# --- segments ---------------------------------------------------------------------------------------


@attrs.define
class Beside:
    """What the state keeps of a segment's items elsewhere. Pairs are flat: offset, value."""

    attempts: bytes
    places: bytes
    """Of items that entered the queue again."""
    due: bytes
    """As ``Segment.due``."""
    deaths: list[tuple[int, int, str, int, int]]
    """(first offset, count, reason, when, place in the order of deaths)."""
    sources: bytes
    """Offsets of the items that their source ids name."""


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
    beside: Beside | None = None


def encode_segment(segment: Segment, state: PartitionState | None = None) -> bytes:
    """The segment without its payloads; with what ``state`` knows of its items besides, if it is given."""
    states = segment.states
    count = len(states)
    chunk = _Chunk(
        CHUNK_VERSION,
        segment.number,
        segment.revision,
        count,
        bytes(states[:1]) if states.count(states[:1]) == count else bytes(states),
        pack(segment.produced),
        b"" if segment.expires is None else pack(segment.expires),
        {name: _narrow(column) for name, column in (segment.columns or {}).items()},
        pack(segment.shift_offsets),
        pack(segment.shifts),
        pack(segment.origin_offsets),
        pack(segment.origin_positions),
        segment.carried or {},
        pack(segment.home_offsets),
        pack(segment.homes),
        None if state is None else _beside(segment, state),
    )
    return _ENCODER.encode(chunk)


def _narrow(column: list[object]) -> list[object]:
    return column[:1] if column.count(column[0]) == len(column) else column


def _beside(segment: Segment, state: PartitionState) -> Beside | None:
    columns = segment.columns
    sources = None if columns is None else columns.get("source_id")
    count_of = segment.states.count
    if not (state.attempts or state.moved or sources or count_of(DEAD) or count_of(SCHEDULED)):
        return None
    return Beside(
        _pick(state.attempts, segment),
        _pick(state.moved, segment),
        b"" if segment.due is None or not count_of(SCHEDULED) else pack(segment.due),
        _deaths(state.dead, segment) if count_of(DEAD) else [],
        pack(
            offset
            for offset, source in enumerate(sources or ())
            if isinstance(source, str) and state.sources.get(source) == segment.first + offset
        ),
    )


def _pick(numbers: Mapping[int, int], segment: Segment) -> bytes:
    if not numbers:
        return b""
    found: list[int] = []
    first = segment.first
    for item in range(first, first + len(segment.states)):
        value = numbers.get(item)
        if value is not None:
            found += (item - first, value)
    return pack(found)


def _deaths(dead: Mapping[int, Death], segment: Segment) -> list[tuple[int, int, str, int, int]]:
    runs: list[tuple[int, int, str, int, int]] = []
    first, states = segment.first, segment.states
    offset = states.find(DEAD)
    while offset >= 0:
        death = dead[first + offset]
        end = offset + 1
        while end < len(states) and states[end] == DEAD and dead[first + end] == death:
            end += 1
        runs.append((offset, end - offset, *death))
        offset = states.find(DEAD, end)
    return runs


def decode_segment(data: bytes, sources: Container[int] = ()) -> tuple[Segment, Beside | None]:
    """A segment whose payloads are in the log, and what else is known of its items. ``sources``: the
    partitions whose dead items came here, for chunks of an older version: in their ``source_id`` such items
    say from which.

    Raises:
        SnapshotUnreadable: these bytes are no chunk of a known version.
    """
    chunk: _Chunk = decode(data, _CHUNKS, "chunk")
    count = chunk.count
    segment = Segment(chunk.number)
    segment.states = bytearray(chunk.states if len(chunk.states) == count else chunk.states * count)
    segment.live = count - segment.states.count(GONE)
    segment.produced = unpack(chunk.produced)
    segment.expires = unpack(chunk.expires) if chunk.expires else None
    if chunk.columns:
        segment.columns = {
            name: column if len(column) == count else column * count for name, column in chunk.columns.items()
        }
    segment.shift_offsets = array("H", unpack(chunk.shift_offsets))
    segment.shifts = unpack(chunk.shifts)
    segment.origin_offsets = array("H", unpack(chunk.origin_offsets))
    segment.origin_positions = unpack(chunk.origin_positions)
    segment.carried = chunk.carried or None
    if chunk.homes is None:
        _find_homes(segment, sources)
    else:
        segment.home_offsets = array("H", unpack(chunk.home_offsets))
        segment.homes = unpack(chunk.homes)
    segment.payloads = None
    segment.revision = chunk.revision
    if len(segment.states) != count or len(segment.produced) != count:
        raise SnapshotUnreadable(f"segment {chunk.number}: columns of unequal length")
    return segment, chunk.beside


def _find_homes(segment: Segment, sources: Container[int]) -> None:
    """What an older version did not note. An item that is gone took its ``source_id`` along, and its home."""
    for offset, source_id in enumerate((segment.columns or {}).get("source_id", ())):
        home = partition_of(source_id) if isinstance(source_id, str) else None
        if home is not None and home in sources:
            segment.set_home(offset, 1, home)


# --- dedupe keys ------------------------------------------------------------------------------------

DEDUPE_MARK: Final = b"\xc1"
"""Begins the chunk of a block of dedupe keys; nothing in MessagePack begins so."""


@attrs.define
class DedupeChunk:
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
    chunk = DedupeChunk(
        CHUNK_VERSION,
        block.number,
        block.revision,
        block.forgotten,
        block.keys,
        pack([at for at, _ in block.entries]),
        pack([len(names) for _, names in block.entries]),
        keys,
        pack([dedupe[key] for key in keys]),
    )
    return DEDUPE_MARK + _ENCODER.encode(chunk)


def decode_dedupe(data: bytes) -> DedupeChunk:
    """Raises SnapshotUnreadable."""
    chunk: DedupeChunk = decode(data[1:], _DEDUPE_CHUNKS, "chunk of dedupe keys")
    return chunk


# --- other chunks -------------------------------------------------------------------------------------

PART_ENTRIES: Final = 4_096
"""Entries of one chunk: to encode and to load it takes some milliseconds."""
RESERVATIONS_PER_CHUNK: Final = 1_024
PRODUCERS_PER_CHUNK: Final = 64
"""Each has up to PRODUCER_RESULTS_MAX results."""
SETTLED_PER_CHUNK: Final = 16
"""Blocks of settled reservations."""


def _mark(letter: bytes) -> bytes:
    return DEDUPE_MARK * 2 + letter + bytes([CHUNK_VERSION])


RESERVATIONS_MARK: Final = _mark(b"r")
LANES_MARK: Final = _mark(b"l")
QUEUED_MARK: Final = _mark(b"q")
PRODUCERS_MARK: Final = _mark(b"p")
SETTLED_MARK: Final = _mark(b"s")
LEAVING_MARK: Final = _mark(b"o")
MARK_BYTES: Final = len(RESERVATIONS_MARK)
# What versions before this one wrote, where a column of the head was long:
SCHEDULE_MARK: Final = DEDUPE_MARK * 2 + bytes([1])
DEAD_MARK: Final = _mark(b"d")
ATTEMPTS_MARK: Final = _mark(b"a")
PLACES_MARK: Final = _mark(b"m")

FIRST: Final = {
    RESERVATIONS_MARK: -(12 << 59),
    LANES_MARK: -(11 << 59),
    PRODUCERS_MARK: -(10 << 59),
    SETTLED_MARK: -(9 << 59),
    LEAVING_MARK: -(13 << 59),
}
"""The number of the first chunk of a kind. From -(16 << 59) on others were used."""

LaneEntry: TypeAlias = tuple[str, int, int, dict[int, int] | None, list[tuple[int, int]], list[int]]
"""(key, head, held, ranks, front, waiting)."""
ProducerEntry: TypeAlias = tuple[str, int, int, dict[int, tuple[int, int, tuple[tuple[int, int], ...]]]]
"""(name, last at, forgotten, results)."""
SettledEntry: TypeAlias = tuple[int, bytes, bytes, dict[int, bytes]]
"""(block, verbs, counts, verbs of those that were mixed)."""


def lane_entry(key: str, lane: Lane, waiting: Iterable[int]) -> LaneEntry:
    return key, lane.head, lane.held, lane.ranks, lane.front, list(waiting)


def producer_entry(name: str, producer: Producer) -> ProducerEntry:
    return name, producer.last_at, producer.forgotten, producer.results


def encode_part(mark: bytes, content: object) -> bytes:
    return mark + _ENCODER.encode(content)


# --- the head ---------------------------------------------------------------------------------------


@attrs.define
class Reservations:
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
class Head:
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
    reservations: Reservations
    schedule: bytes
    """The heap's entries (due at, place, item, count), flat, in the heap's order."""
    lanes: list[LaneEntry]
    attempts: tuple[bytes, bytes]
    moved: tuple[bytes, bytes]
    dead_items: bytes
    dead: list[tuple[str, int]]
    outbound: list[tuple[int, int, list[int]]]
    inbound: dict[int, int]
    producers: list[ProducerEntry]
    """Least recently used first."""
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
    is_apart: bool = False
    """What can be long is in chunks, and not here."""


COUNTERS: Final = ("scheduled", "reserved", "behind", "produced", "completed", "removed", "retried", "ended")

_ENCODER: Final = msgspec.msgpack.Encoder()
_CHUNKS: Final = msgspec.msgpack.Decoder(_Chunk)
_DEDUPE_CHUNKS: Final = msgspec.msgpack.Decoder(DedupeChunk)
_HEADS: Final = msgspec.msgpack.Decoder(Head)


def decode(data: bytes, decoder: Any, what: str, versions: Sequence[int] = (CHUNK_VERSION,)) -> Any:
    """Raises SnapshotUnreadable."""
    try:
        decoded = decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise SnapshotUnreadable(f"not a snapshot's {what}: {error}") from error
    if decoded.version not in versions:
        raise SnapshotUnreadable(f"a snapshot's {what} of version {decoded.version}")
    return decoded


def decode_head(data: bytes) -> Head:
    """Raises SnapshotUnreadable."""
    head: Head = decode(data, _HEADS, "head", HEAD_VERSIONS)
    return head


def encode_head(state: PartitionState, *, is_apart: bool = False) -> bytes:
    """Everything of the fold that is neither in segments nor a dedupe key; ``is_apart``: but for what can be
    long."""
    if is_apart:
        return _ENCODER.encode(attrs.evolve(_small_head(state), is_apart=True))
    return _ENCODER.encode(
        attrs.evolve(
            _small_head(state),
            line=pack(chain.from_iterable(state.line.runs())),
            reservations=pack_reservations(list(state.reservations.values())),
            schedule=pack(chain.from_iterable(state.schedule)),
            lanes=[lane_entry(key, lane, lane.waiting) for key, lane in state.lanes.items()],
            attempts=(pack(state.attempts.keys()), pack(state.attempts.values())),
            moved=(pack(state.moved.keys()), pack(state.moved.values())),
            dead_items=pack(state.dead.keys()),
            dead=[(reason, at) for reason, at, _ in state.dead.values()],
            outbound=[
                (target, channel.first_move, list(channel.items))
                for target, channel in state.outbound.items()
            ],
            producers=[producer_entry(*entry) for entry in state.producers.items()],
            sources=state.sources,
            settled=[
                (number, bytes(verbs), raw(counts))
                for number, (verbs, counts) in state.settled.blocks.items()
            ],
            settled_mixed=_flat(state.settled),
            homeward=list(state.homeward),
        )
    )


def _flat(settled: SettledMemory) -> dict[int, bytes]:
    return {number: marks for mixed in settled.mixed.values() for number, marks in mixed.items()}


def _small_head(state: PartitionState) -> Head:
    milestones = state.milestones
    return Head(
        version=VERSION,
        partition=state.partition,
        position=state.position,
        nonce=state.nonce,
        incarnation=state.incarnation,
        server_identity=state.server_identity,
        claimed_at=state.claimed_at,
        bucket=state.bucket,
        now=state.now,
        policy=encode_policy(state.policy),
        paused=state.paused,
        next_item=state.next_item,
        next_place=state.next_place,
        next_reservation=state.next_reservation,
        part_first=state.part_first,
        counters={name: getattr(state, name) for name in COUNTERS},
        line=b"",
        reservations=pack_reservations([]),
        schedule=b"",
        lanes=[],
        attempts=(b"", b""),
        moved=(b"", b""),
        dead_items=b"",
        dead=[],
        outbound=[(target, channel.first_move, []) for target, channel in state.outbound.items()],
        inbound=state.inbound,
        producers=[],
        dedupe_order=[],
        dedupe={},
        sources={},
        settled=[],
        settled_mixed={},
        milestones=(
            pack_fast(milestones.numbers),
            pack_fast(milestones.positions),
            pack_fast(milestones.ats),
        ),
        dedupe_forgotten=state.dedupe_order.blocks[0].forgotten if state.dedupe_order else 0,
    )


def pack_reservations(reservations: Sequence[Reservation]) -> Reservations:
    sessions: dict[str, int] = {}
    session_indexes = [sessions.setdefault(r.session, len(sessions)) for r in reservations]
    return Reservations(
        pack([r.number for r in reservations]),
        pack([r.nonce for r in reservations]),
        list(sessions),
        pack(session_indexes),
        pack([r.generation for r in reservations]),
        pack([r.count for r in reservations]),
        pack([r.reserved_at for r in reservations]),
        pack([r.deadline for r in reservations]),
        pack([r.run_until for r in reservations]),
        pack([len(r.runs) for r in reservations]),
        pack(chain.from_iterable(chain.from_iterable([r.runs for r in reservations]))),
        {r.number: bytes(r.marks) for r in reservations if r.marks is not None},
    )
