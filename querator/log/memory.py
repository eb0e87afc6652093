"""A log in memory: a small, real implementation of the contract, for tests and simulations.

``MemoryDisk`` is what survives; ``MemoryLog`` is one process's handle on it, and several may share a
disk, as servers share a database. Every append passes its ``Faults``, where a test or a simulation
holds it, fails it, or hides its outcome.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core.ids import PartitionId, Position
from querator.core.invariants import check
from querator.core.limits import APPEND_LANES
from querator.env import Env
from querator.errors import HistoryDropped, StoreCorrupt
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.rules import (
    SNAPSHOTS_KEPT,
    Standing,
    check_droppable,
    chunk_checksum,
    damaged_chunk,
    row_checksum,
    size_of,
    standing,
)
from querator.log.store import Bucket, Verdict


class Faults:
    """What may happen to an append of a MemoryLog. This one lets everything pass.

    A subclass may wait in either place, and raise: ``before`` LogUnavailable or
    AppendOutcomeUnknown (nothing is written then), ``after`` AppendOutcomeUnknown (everything is).
    """

    async def before(self, records: Sequence[Record]) -> None:
        """Nothing is written yet."""

    async def after(self, records: Sequence[Record]) -> None:
        """The outcome is on the disk and nobody has been told."""


class Gate(Faults):
    """Faults by hand: appends wait while it is closed, and fail as told."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self._open.set()
        self._arrived = trio.Event()
        self._before: list[Exception] = []
        self._after: list[Exception] = []
        self.waiting = 0
        """Appends that wait at the gate."""

    def close(self) -> None:
        """From now on appends wait, with nothing written."""
        if self._open.is_set():
            self._open = trio.Event()
            self._arrived = trio.Event()

    def open(self) -> None:
        """Let those pass that wait, and all to come."""
        self._open.set()

    async def wait_arrived(self) -> None:
        """Wait until an append waits at the closed gate."""
        await self._arrived.wait()

    def fail(self, error: Exception) -> None:
        """The next append raises this, with nothing written."""
        self._before.append(error)

    def hide(self, error: Exception) -> None:
        """The next append is written and raises this."""
        self._after.append(error)

    async def before(self, records: Sequence[Record]) -> None:
        if not self._open.is_set():
            self.waiting += 1
            self._arrived.set()
            try:
                await self._open.wait()
            finally:
                self.waiting -= 1
        if self._before:
            raise self._before.pop(0)

    async def after(self, records: Sequence[Record]) -> None:
        if self._after:
            raise self._after.pop(0)


@attrs.define
class _Stored:
    record: Record
    bucket: int


@attrs.define
class _Partition:
    records: list[_Stored] = attrs.Factory(list)
    """Those that are left."""
    first: int = 1
    """Position of the first of them."""
    tail: Tail | None = None
    chunks: dict[ChunkId, tuple[bytes, bytes]] = attrs.Factory(dict)
    """Bytes and their checksum."""
    snapshots: list[tuple[Snapshot, bytes]] = attrs.Factory(list)
    """Oldest first, each with its checksum."""


class MemoryDisk:
    """What a crash leaves. Its methods are instantaneous; a handle adds the waiting."""

    def __init__(self) -> None:
        self.partitions: dict[PartitionId, _Partition] = {}
        self.bucket = 1
        self.buckets: dict[int, int] = {1: 0}
        """Bytes by bucket."""

    def append(self, records: Sequence[Record]) -> list[Verdict]:
        check(
            len({record.partition: 0 for record in records}) == len(records),
            "an append has one record a partition",
        )
        return [self._append(record) for record in records]

    def _append(self, record: Record) -> Verdict:
        partition = self.partitions.setdefault(record.partition, _Partition())
        where = standing(record, partition.tail)
        if where is not Standing.NEXT:
            there = self.find(record.partition, record.position) if where is Standing.TAKEN else None
            return Verdict.MINE if there is not None and there.hash == record.hash else Verdict.NOT_MINE
        stored = attrs.evolve(record, payload=record.payload or b"")
        partition.records.append(_Stored(stored, self.bucket))
        partition.tail = Tail(record.position, record.hash, record.nonce)
        self.buckets[self.bucket] += size_of(stored)
        return Verdict.MINE

    def find(self, partition: PartitionId, position: int) -> Record | None:
        """The record itself, not a copy; ``None`` where there is none, or none any more."""
        there = self.partitions.get(partition)
        if there is None or not 0 <= position - there.first < len(there.records):
            return None
        return there.records[position - there.first].record


class MemoryLog:
    """See the module's text and the contract, ``LogStore``."""

    away: Final = ""
    remarks: Final = ()
    """Found out when it is asked."""

    def __init__(
        self, env: Env, disk: MemoryDisk | None = None, *, name: str = "memory", faults: Faults | None = None
    ) -> None:
        self.name = name
        self.lanes = APPEND_LANES
        self.disk = disk if disk is not None else MemoryDisk()
        self.faults = faults if faults is not None else Faults()
        self._env = env

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    # --- The log ---------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        # Nothing is half written whenever this is cancelled: the disk's part is instantaneous.
        await self.faults.before(records)
        await trio.lowlevel.checkpoint()
        verdicts = self.disk.append(records)
        await self.faults.after(records)
        return verdicts

    async def partitions(self) -> list[PartitionId]:
        await trio.lowlevel.checkpoint()
        return sorted(
            partition for partition, there in self.disk.partitions.items() if there.tail is not None
        )

    async def tail(self, partition: PartitionId) -> Tail | None:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.get(partition)
        return there.tail if there is not None else None

    def server_identity(self, partition: PartitionId) -> str:
        del partition
        return ""

    def remembered(self, partition: PartitionId) -> Position:
        del partition
        return Position(0)

    def accept_loss(self, partition: PartitionId) -> None:
        """There is no witness here."""

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.get(partition)
        if there is None:
            return []
        self._check_kept(there, partition, start)
        found: list[Record] = []
        size = 0
        for stored in there.records[start - there.first : start - there.first + records_max]:
            if found and size >= bytes_max:
                break
            record = attrs.evolve(stored.record)
            if not payloads:
                record.payload = None
            size += size_of(record)
            found.append(record)
        return found

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.get(partition, _Partition())
        found = {}
        for position in positions:
            self._check_kept(there, partition, position)
            record = self.disk.find(partition, position)
            if record is not None:
                found[position] = record.payload or b""
        return found

    @staticmethod
    def _check_kept(there: _Partition, partition: PartitionId, position: int) -> None:
        if position < there.first:
            raise HistoryDropped(f"record {position} of partition {partition} was dropped with its bucket")

    # --- Snapshots -------------------------------------------------------------------------------

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.setdefault(partition, _Partition())
        there.chunks.update({chunk: (data, chunk_checksum(data)) for chunk, data in chunks.items()})

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.setdefault(snapshot.partition, _Partition())
        missing = [chunk for chunk in snapshot.chunks if chunk not in there.chunks]
        if missing:
            raise StoreCorrupt(
                f"a snapshot of partition {snapshot.partition} needs chunks that are not there"
            )
        others = [stored for stored in there.snapshots if stored[0].position != snapshot.position]
        others.append((attrs.evolve(snapshot), row_checksum(snapshot)))
        others.sort(key=lambda stored: stored[0].position)
        there.snapshots = others[-SNAPSHOTS_KEPT:]
        needed = {chunk: None for kept, _ in there.snapshots for chunk in kept.chunks}
        there.chunks = {chunk: there.chunks[chunk] for chunk in there.chunks if chunk in needed}

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.get(partition, _Partition())
        found = []
        for snapshot, checksum in reversed(there.snapshots):
            if row_checksum(snapshot) == checksum:
                found.append(snapshot)
            else:
                telemetry.emit("snapshot.damaged", store=self.name, partition=partition)
        return found

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        await trio.lowlevel.checkpoint()
        there = self.disk.partitions.get(partition, _Partition())
        found = {}
        for chunk in chunks:
            data, checksum = there.chunks.get(chunk, (b"", b""))
            if chunk_checksum(data) != checksum:
                raise damaged_chunk(partition, chunk)
            found[chunk] = data
        return found

    # --- Buckets ---------------------------------------------------------------------------------

    async def buckets(self) -> list[Bucket]:
        await trio.lowlevel.checkpoint()
        return [
            Bucket(number, size, number != self.disk.bucket)
            for number, size in sorted(self.disk.buckets.items())
        ]

    async def roll(self) -> int:
        await trio.lowlevel.checkpoint()
        self.disk.bucket += 1
        self.disk.buckets[self.disk.bucket] = 0
        return self.disk.bucket

    async def drop(self, bucket: int) -> None:
        await trio.lowlevel.checkpoint()
        check_droppable(bucket, sorted(self.disk.buckets), self.disk.bucket)
        del self.disk.buckets[bucket]
        for there in self.disk.partitions.values():
            gone = len(list(takewhile(lambda stored: stored.bucket == bucket, there.records)))
            del there.records[:gone]
            there.first += gone
