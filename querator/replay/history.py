"""Past states: of a log that no server has open, or of a capture; each from the nearest snapshot before."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol, cast

import attrs
import msgspec

from querator.core import events as ev
from querator.core.capture import Capture
from querator.core.catalog import decode
from querator.core.catalog.documents import QueueChanged, QueueCreated
from querator.core.catalog.snapshot import decode_catalog
from querator.core.ids import CATALOG_PARTITION, Instant, PartitionId, Position
from querator.core.invariants import InvariantViolation, check
from querator.core.snapshot import SnapshotUnreadable
from querator.core.state import PartitionState
from querator.errors import CorruptRecord, HistoryDropped, StoreCorrupt
from querator.log.codec import decode_columns, name_of
from querator.log.records import Record, Tail
from querator.log.restore import first_position, read_all
from querator.log.store import LogStore
from querator.replay.capture import (
    Captured,
    CapturedRecord,
    CaptureHead,
    Checkpoint,
)
from querator.replay.fold import PartitionReplay


class History(Protocol):
    """What past states are made of."""

    async def queues(self) -> dict[str, list[int]]:
        """Name to partitions; deleted queues are among them."""

    async def checkpoints(self, partition: PartitionId) -> list[Checkpoint]:
        """Readable ones, newest first."""

    def records(self, partition: PartitionId, start: Position) -> AsyncGenerator[Record, None]:
        """From ``start`` on. Raises HistoryDropped: they are not here."""


@attrs.frozen(kw_only=True)
class Moment:
    """Behind a record of a partition, or a time: what had happened by then, all of that instant."""

    position: Position | None = None
    at: Instant | None = None

    def has_seen(self, position: int, now: int) -> bool:
        """Whether a state of that position and time is of this moment, or before."""
        if self.position is not None:
            return position <= self.position
        return self.at is None or now <= self.at


class StoreHistory:
    """Of a store that was opened by the caller."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    async def queues(self) -> dict[str, list[int]]:
        return await read_queues(self._store)

    async def checkpoints(self, partition: PartitionId) -> list[Checkpoint]:
        return await read_checkpoints(self._store, partition)

    def records(self, partition: PartitionId, start: Position) -> AsyncGenerator[Record, None]:
        return _read(self._store, partition, start)


class CaptureHistory:
    """Of a capture, which is kept in memory without its payloads."""

    def __init__(self, things: Iterable[Captured]) -> None:
        self._queues: dict[str, list[int]] = {}
        self._checkpoints: dict[int, list[Checkpoint]] = {}
        self._records: dict[int, list[Record]] = {}
        self.ended = Instant(0)
        """When its last record was written."""
        for thing in things:
            if isinstance(thing, CaptureHead):
                self._queues = thing.queues
            elif isinstance(thing, Checkpoint):
                self._checkpoints.setdefault(thing.partition, []).insert(0, thing)
            elif isinstance(thing, CapturedRecord):
                thing.record.payload = None
                self._records.setdefault(thing.record.partition, []).append(thing.record)
                self.ended = max(self.ended, thing.record.written_at)

    async def queues(self) -> dict[str, list[int]]:
        return self._queues

    async def checkpoints(self, partition: PartitionId) -> list[Checkpoint]:
        return self._checkpoints.get(partition, [])

    async def records(self, partition: PartitionId, start: Position) -> AsyncGenerator[Record, None]:
        found = self._records.get(partition, [])
        if not found:
            if self._checkpoints.get(partition):
                return
            raise HistoryDropped(f"partition {partition} is not in this capture")
        first = found[0].position
        if start < first:
            raise HistoryDropped(f"the capture of partition {partition} begins with record {first}")
        for record in found[start - first :]:
            yield record


async def state_at(history: History, partition: PartitionId, moment: Moment) -> PartitionState:
    """The partition's state at this moment; the present one when it is still to come.

    Raises:
        HistoryDropped: too little is left to know it.
        CorruptRecord: the log is damaged before it.
    """
    replay = PartitionReplay(partition)
    for checkpoint in await history.checkpoints(partition):
        state = checkpoint.state()
        if moment.has_seen(checkpoint.position, state.now):
            replay.begin(checkpoint)
            break
    start = Position(1 if replay.tail is None else replay.tail.position + 1)
    async with aclosing(history.records(partition, start)) as records:
        async for record in records:
            if moment.position is not None and record.position > moment.position:
                break
            try:
                if moment.at is None:
                    replay.take(record)
                elif not replay.take_until(record, moment.at):
                    break
            except InvariantViolation as error:
                raise CorruptRecord(f"{name_of(record)}: {error}") from error
            if replay.divergence is not None:
                raise CorruptRecord(replay.divergence.fault)
    return replay.state


async def positions_between(
    store: LogStore, partition: PartitionId, start: Moment | None, end: Moment | None
) -> tuple[int, int] | None:
    """(first, last) position of a stretch, as ``walk`` takes them: ``start`` and ``end`` are in it.

    A record is of when it was written. Where the log begins only after ``start``, the stretch begins with the
    log; ``None``: the log begins only after ``end``.
    """
    tail = await store.tail(partition)
    if tail is None:
        return None
    kept = await first_position(store, partition, tail)
    first: int = kept
    last: int = tail.position
    if start is not None:
        first = start.position or await _first_written(store, partition, kept, tail, (start.at or 0) - 1)
    if end is not None:
        last = end.position or await _first_written(store, partition, kept, tail, end.at or 0) - 1
    if last < kept:
        return None
    return (0 if first <= kept else first), last


async def _first_written(
    store: LogStore, partition: PartitionId, kept: Position, tail: Tail, after: int
) -> Position:
    """The first record that was written after this moment; one past the last where none was."""
    low, high = int(kept), tail.position + 1
    while low < high:
        middle = Position((low + high) // 2)
        (record,) = await store.read(partition, middle, records_max=1, bytes_max=1, payloads=False)
        if record.written_at > after:
            high = middle
        else:
            low = middle + 1
    return Position(low)


async def walk(
    store: LogStore, partition: PartitionId, start: int = 0, end: int = 0, *, payloads: bool = True
) -> AsyncGenerator[Checkpoint | CapturedRecord, None]:
    """A partition's records from ``start`` to ``end`` (0: all that are left), for a capture or a replay.

    Before them a base checkpoint, where they are not the log's beginning; each snapshot of the
    store behind its record.

    Raises:
        HistoryDropped: too little is left to know the state before ``start``.
        CorruptRecord: the log is damaged before ``start``.
    """
    tail = await store.tail(partition)
    if tail is None:
        return
    first = await first_position(store, partition, tail)
    checkpoints = await read_checkpoints(store, partition)
    begin = max(start, first)
    if begin > 1 and partition != CATALOG_PARTITION:
        base = await _base(store, partition, begin, is_chosen=start >= first, checkpoints=checkpoints)
        begin = base.position + 1
        yield base
    comparable = {found.position: found for found in checkpoints if found.position >= begin}
    async with aclosing(_read(store, partition, Position(begin), payloads=payloads)) as records:
        async for record in records:
            if (end and record.position > end) or record.position > tail.position:
                return
            yield CapturedRecord(record)
            found = comparable.get(record.position)
            if found is not None:
                yield found


def _read(
    store: LogStore, partition: PartitionId, start: Position, *, payloads: bool = False
) -> AsyncGenerator[Record, None]:
    """``read_all``, as what it is: a generator that must be closed."""
    return cast("AsyncGenerator[Record, None]", read_all(store, partition, start, payloads=payloads))


async def _base(
    store: LogStore, partition: PartitionId, begin: int, *, is_chosen: bool, checkpoints: list[Checkpoint]
) -> Checkpoint:
    if not is_chosen:
        # The beginning was dropped: begin with the oldest snapshot that the kept records follow.
        kept = [found for found in checkpoints if found.position >= begin - 1]
        if not kept:
            raise HistoryDropped(f"partition {partition} has neither its beginning nor a snapshot")
        return attrs.evolve(kept[-1], is_base=True)
    replay = PartitionReplay(partition)
    for found in checkpoints:
        if found.position == begin - 1:
            return attrs.evolve(found, is_base=True)
        if found.position < begin:
            replay.begin(found)
            break
    position = Position(1 if replay.tail is None else replay.tail.position + 1)
    async with aclosing(_read(store, partition, position)) as records:
        async for record in records:
            if record.position >= begin:
                break
            replay.take(record)
    if replay.divergence is not None:
        raise CorruptRecord(replay.divergence.fault)
    if replay.tail is None or replay.tail.position != begin - 1:
        raise HistoryDropped(f"partition {partition} has no record {begin - 1} to begin behind")
    return checkpoint_of(replay)


def checkpoint_of(replay: PartitionReplay) -> Checkpoint:
    """The state that a replay has come to, as something to begin with."""
    tail = replay.tail
    check(tail is not None, "a checkpoint of a replay that has not begun")
    if tail is None:
        raise InvariantViolation("a checkpoint of a replay that has not begun")
    capture = Capture(replay.state)
    while not capture.step(1_024):
        pass
    chunks = tuple(capture.fresh[chunk] for chunk in capture.chunks)
    return Checkpoint(replay.partition, tail.position, tail.hash, tail.nonce, True, capture.head, chunks)


async def read_checkpoints(store: LogStore, partition: PartitionId) -> list[Checkpoint]:
    """The snapshots that a server would use, newest first; those it would ignore are left out."""
    found: list[Checkpoint] = []
    if partition == CATALOG_PARTITION:
        return found
    for snapshot in await store.snapshots(partition):
        try:
            chunks = await store.read_chunks(partition, snapshot.chunks)
            checkpoint = Checkpoint(
                partition,
                snapshot.position,
                snapshot.hash,
                0,
                False,
                snapshot.head,
                tuple(chunks[chunk] for chunk in snapshot.chunks),
            )
            checkpoint.state()
        except (StoreCorrupt, SnapshotUnreadable):
            continue
        found.append(checkpoint)
    return found


@attrs.define
class _CatalogHead:
    """The part of a catalog's snapshot that has the queues."""

    catalog: bytes


async def read_queues(store: LogStore) -> dict[str, list[int]]:
    """The queues that the catalog knows or knew, and their partitions.

    Raises:
        CorruptRecord: the catalog cannot be read.
    """
    queues: dict[str, list[int]] = {}
    tail = await store.tail(CATALOG_PARTITION)
    if tail is None:
        return queues
    start = await first_position(store, CATALOG_PARTITION, tail)
    if start > 1:
        for snapshot in await store.snapshots(CATALOG_PARTITION):
            head = msgspec.msgpack.decode(snapshot.head, type=_CatalogHead)
            for name, queue in decode_catalog(head.catalog).queues.items():
                queues[str(name)] = [partition.id for partition in queue.partitions]
            start = Position(max(start, snapshot.position + 1))
            break
    async for record in _read(store, CATALOG_PARTITION, start):
        for document in decode_columns(record.events).of(ev.CatalogChanged).get("document", ()):
            try:
                change = decode(document).change
            except msgspec.ValidationError as error:
                raise CorruptRecord(
                    f"{name_of(record)} has a document that cannot be read: {error}"
                ) from error
            if isinstance(change, QueueCreated | QueueChanged):
                queues[str(change.queue.name)] = [partition.id for partition in change.queue.partitions]
    return queues
