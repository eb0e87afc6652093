"""``SqliteLog``: the log store's contract over the parts of this package."""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import trio

from querator import telemetry
from querator.core.ids import PartitionId, Position
from querator.env import Env, FileLock, FileLocked, Worker
from querator.errors import HistoryDropped, LogUnavailable, StoreCorrupt, StoreDamaged, StoreLocked
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.rules import check_droppable
from querator.log.sqlite.buckets import (
    READ,
    READ_WITHOUT_PAYLOADS,
    BucketFile,
    bucket_name,
    bucket_number,
    check_continuity,
    read_buckets,
)
from querator.log.sqlite.reader import Reader
from querator.log.sqlite.snapshots import SnapshotFile
from querator.log.sqlite.writer import Writer
from querator.log.store import Bucket, Verdict

LOCK_NAME = "querator.lock"
_MAKING = "making.db"


class SqliteLog:
    """A log in the SQLite files of ``directory``; see ``LogStore`` for the contract.

    ``factory`` makes the appending connection; tests give one that fails.
    """

    away: Final = ""
    """A directory is there or is not."""

    def __init__(
        self,
        env: Env,
        directory: Path,
        *,
        name: str = "sqlite",
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.name = name
        self.lanes = 1
        self.directory = directory
        self._env = env
        self._lock: FileLock | None = None
        self._buckets: list[BucketFile] = []
        """Oldest first; the last is open."""
        self._writer = Writer(factory)
        self._reader = Reader()
        self._snapshots = SnapshotFile(directory / "snapshots.db")
        self._workers: list[Worker] = []
        self._rolling: trio.Event | None = None
        self._checkpoint_failure = ""
        self.remarks: list[str] = []
        """What an operator should know of it."""

    # --- Life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            await self._env.files.make_directory(self.directory)
            self._lock = self._env.files.lock(self.directory / LOCK_NAME)
        except FileLocked as error:
            holder = error.holder or "another process"
            raise StoreLocked(
                f"the data directory {self.directory} is in use by {holder}: stop it, or use another one"
            ) from error
        except OSError as error:
            raise LogUnavailable(f"the data directory {self.directory} cannot be used: {error}") from error
        try:
            self._workers = [
                self._env.threads.worker(f"log {name}") for name in ("writer", "reader", "snapshots")
            ]
            await self._open_buckets(await self._open_snapshots())
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._close()
            raise

    async def _open_snapshots(self) -> int:
        """The oldest bucket, by the file of snapshots, or by what is there where that is damaged."""
        thread = self._snapshot_thread
        try:
            await thread.run(self._snapshots.open)
            return await thread.run(self._snapshots.oldest_bucket)
        except StoreDamaged as error:
            numbers = map(bucket_number, await self._env.files.list(self.directory))
            first = min((number for number in numbers if number is not None), default=1)
            if first > 1:
                raise StoreDamaged(
                    f"{error}. It cannot be made anew, since the log begins with {bucket_name(first)}, and "
                    "what was before is in snapshots alone: put snapshots.db back from a copy that is "
                    "younger than that bucket"
                ) from error
            await self._set_snapshots_aside(error)
            return 1

    async def _set_snapshots_aside(self, error: StoreDamaged) -> None:
        """They can be made anew from the log: the damaged file is kept under another name, for whoever wants
        to look into it, and an empty one begins.

        Raises:
            LogUnavailable: that is not possible now.
        """
        thread, path = self._snapshot_thread, self._snapshots.path
        await thread.run(self._snapshots.close)
        there = await self._env.files.list(self.directory)
        name = next(name for number in count(1) if (name := f"{path.name}.damaged-{number}") not in there)
        try:
            for suffix in ("-wal", "-shm", ""):
                if path.name + suffix in there:
                    target = path.with_name(name + suffix)
                    await self._env.files.rename(path.with_name(path.name + suffix), target)
        except OSError as failure:
            raise LogUnavailable(f"{path} is damaged and cannot be set aside: {failure}") from error
        await thread.run(self._snapshots.open)
        remark = f"snapshots.db was damaged: it is now {name}, and snapshots are made anew from the log"
        self.remarks = [*self.remarks, remark]
        telemetry.emit("snapshots.damaged", store=self.name, set_aside=name, error=str(error))

    async def _open_buckets(self, oldest: int) -> None:
        paths: dict[int, Path] = {}
        for file in await self._env.files.list(self.directory):
            number = bucket_number(file)
            if file.startswith(_MAKING) or (number is not None and number < oldest):
                # A crash came before the bucket was complete, or before it was removed.
                await self._remove(self.directory / file)
            elif number is not None:
                paths[number] = self.directory / file
        if not paths:
            if oldest > 1:
                raise StoreCorrupt(f"{self.directory} has lost its log: put it back from a copy")
            paths = {1: self.directory / bucket_name(1)}
        self._buckets = await self._write_thread.run(read_buckets, paths)
        check_continuity(self._buckets, oldest)
        await self._write_thread.run(self._writer.start, self._buckets)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._close()

    async def _close(self) -> None:
        if self._workers:
            await self._read_thread.run(self._reader.close)
            await self._write_thread.run(self._writer.close)
            await self._snapshot_thread.run(self._snapshots.close)
            for worker in self._workers:
                await worker.aclose()
            self._workers = []
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def _write_thread(self) -> Worker:
        return self._worker(0)

    @property
    def _read_thread(self) -> Worker:
        return self._worker(1)

    @property
    def _snapshot_thread(self) -> Worker:
        return self._worker(2)

    def _worker(self, index: int) -> Worker:
        if not self._workers:
            raise LogUnavailable(f"the store in {self.directory} is not open")
        return self._workers[index]

    # --- The log ---------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        while self._rolling is not None:
            await self._rolling.wait()
        verdicts = await self._write_thread.run(self._writer.append, records)
        if self._writer.checkpoint_failure != self._checkpoint_failure:
            self._checkpoint_failure = self._writer.checkpoint_failure
            telemetry.emit("log.checkpoint.failed", store=self.name, error=self._checkpoint_failure)
        return verdicts

    async def partitions(self) -> list[PartitionId]:
        return sorted(await self._tails())

    async def tail(self, partition: PartitionId) -> Tail | None:
        return (await self._tails()).get(partition)

    async def _tails(self) -> Mapping[PartitionId, Tail]:
        if self._writer.is_sound:
            await trio.lowlevel.checkpoint()
        else:
            await self._write_thread.run(self._writer.recover)
        return self._writer.tails

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
        index = self._bucket_of(partition, start)
        statement = READ if payloads else READ_WITHOUT_PAYLOADS
        return await self._read_thread.run(
            self._reader.read, self._buckets[index:], partition, start, records_max, bytes_max, statement
        )

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        wanted = [(self._buckets[self._bucket_of(partition, position)], position) for position in positions]
        return await self._read_thread.run(self._reader.read_payloads, wanted, partition)

    def _bucket_of(self, partition: PartitionId, position: int) -> int:
        """Index of the bucket that has, or will have, the record."""
        for index in range(len(self._buckets) - 1, -1, -1):
            if self._buckets[index].begins_behind(partition) < position:
                return index
        raise HistoryDropped(f"record {position} of partition {partition} was dropped with its bucket")

    # --- Snapshots -------------------------------------------------------------------------------

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self._snapshot_thread.run(self._snapshots.put_chunks, partition, chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._snapshot_thread.run(self._snapshots.put_snapshot, snapshot)

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        try:
            found = await self._snapshot_thread.run(self._snapshots.snapshots, partition)
        except StoreDamaged as error:
            # Found only now: a page that nobody had looked at. While the log has everything, no matter.
            if self._buckets[0].number > 1:
                raise
            await self._set_snapshots_aside(error)
            return []
        for position in found.damaged:
            telemetry.emit("snapshot.damaged", store=self.name, partition=partition, position=position)
        return found.snapshots

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        return await self._snapshot_thread.run(self._snapshots.read_chunks, partition, chunks)

    # --- Buckets ---------------------------------------------------------------------------------

    async def buckets(self) -> list[Bucket]:
        buckets = list(self._buckets)
        sizes = await self._read_thread.run(self._reader.sizes, buckets)
        return [
            Bucket(bucket.number, size, bucket is not buckets[-1])
            for bucket, size in zip(buckets, sizes, strict=True)
        ]

    async def roll(self) -> int:
        while self._rolling is not None:
            await self._rolling.wait()
        # Appends wait outside: the tails that the new bucket begins behind must be the last ones.
        self._rolling = trio.Event()
        try:
            with trio.CancelScope(shield=True):
                await self._roll()
        finally:
            self._rolling.set()
            self._rolling = None
        return self._buckets[-1].number

    async def _roll(self) -> None:
        making = self.directory / _MAKING
        await self._remove(making)
        number = self._buckets[-1].number + 1
        tails = await self._write_thread.run(self._writer.prepare_bucket, making)
        path = self.directory / bucket_name(number)
        try:
            await self._env.files.rename(making, path)
        except OSError as error:
            raise LogUnavailable(f"the next bucket of {self.directory} cannot be made: {error}") from error
        self._buckets = [*self._buckets, BucketFile(number, path, tails)]
        await self._write_thread.run(self._writer.switch, self._buckets)

    async def drop(self, bucket: int) -> None:
        check_droppable(bucket, [file.number for file in self._buckets], self._buckets[-1].number)
        with trio.CancelScope(shield=True):
            # First it is written down: a crash on the way leaves a file that the next start removes.
            await self._snapshot_thread.run(self._snapshots.set_oldest_bucket, bucket + 1)
            dropped, *self._buckets = self._buckets
            await self._write_thread.run(self._writer.forget, self._buckets)
            await self._read_thread.run(self._reader.forget, dropped.path)
            await self._remove(dropped.path)

    async def _remove(self, path: Path) -> None:
        for suffix in ("-wal", "-shm", ""):
            try:
                await self._env.files.remove(path.with_name(path.name + suffix))
            except OSError as error:
                raise LogUnavailable(f"{path}{suffix} cannot be removed: {error}") from error
