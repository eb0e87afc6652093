"""Records themselves in the archive, so that the log may drop them: all but their payloads.

What is exported for questions cannot be folded again; what is kept here can, so that the past can still be
replayed, and asked for as it was. It is read back and compared before the manifest names it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from querator import telemetry
from querator.analytics import warehouse
from querator.analytics.directory import Archive, Progress, Report, day_name, silent
from querator.analytics.manifest import (
    MANIFEST,
    RECORDS,
    ArchiveError,
    Kept,
    Manifest,
    Part,
    check_parts,
    read_manifest,
)
from querator.core import limits
from querator.core.ids import CATALOG_PARTITION, DAY, Instant, PartitionId, Position
from querator.env import Env
from querator.errors import CorruptRecord, HistoryDropped, LogUnavailable, StoreCorrupt
from querator.log.codec import GENESIS, check_chain, check_record, tail_of
from querator.log.records import Record, Tail
from querator.log.store import LogStore

_SLICE_RECORDS: Final = 32
"""Records checked between two checkpoints of the event loop: less than a millisecond."""


class RecordKeeper:
    """Keeps what was exported of some stores, in the same archive. One task uses it at a time.

    The catalog is not kept: it is small, restores from its snapshot, and has secrets.
    """

    def __init__(self, env: Env, stores: Sequence[LogStore], directory: Path) -> None:
        self._env = env
        self._stores = stores
        self._archive = Archive(env, directory)
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._done = 0
        self._total = 0
        self._kept: dict[int, Kept] = {}

    async def keep(self, report: Report = silent) -> int:
        """Keep all records that are exported and were not kept, of stores that are there; how many.

        Raises:
            ArchiveError: the archive is damaged, or being written.
            LogError: a store cannot be read for good, or a record is corrupt; it is named.
        """
        async with self._archive.locked():
            manifest = await self._archive.manifest()
            await self._archive.sweep(manifest)
            self._begin(manifest)
            self._done = 0
            self._total = sum(mark.position for mark in manifest.marks) - sum(
                kept.position for kept in manifest.kept
            )
            for store in self._stores:
                try:
                    manifest = await self._keep_store(store, manifest, report)
                except LogUnavailable as error:
                    telemetry.emit("analytics.store.away", store=store.name, error=str(error))
            if self._rows:
                await self._step(manifest)
            return self._done

    async def _keep_store(self, store: LogStore, manifest: Manifest, report: Report) -> Manifest:
        for partition in sorted(await store.partitions()):
            mark = manifest.mark_of(partition)
            while partition != CATALOG_PARTITION and mark is not None:
                count = await self._gather(store, partition, Position(mark.position))
                if not count:
                    break
                self._done += count
                report(Progress("records kept", self._done, self._total))
                if self._bytes >= limits.KEEP_STEP_BYTES:
                    manifest = await self._step(manifest)
        return manifest

    def _begin(self, manifest: Manifest) -> None:
        self._rows = []
        self._bytes = 0
        self._kept = {kept.partition: kept for kept in manifest.kept}

    async def _gather(self, store: LogStore, partition: PartitionId, last: Position) -> int:
        """A page of records; none when all up to ``last`` are kept."""
        kept = self._kept.get(partition)
        start = Position(1 if kept is None else kept.position + 1)
        if start > last:
            return 0
        try:
            page = await store.read(
                partition,
                start,
                records_max=min(limits.EXPORT_PAGE_RECORDS, last - start + 1),
                bytes_max=limits.READ_BYTES_MAX,
                payloads=False,
            )
        except HistoryDropped as error:
            raise ArchiveError(
                f"record {start} of partition {partition} is neither in the log nor kept in "
                f"{self._archive.directory}"
            ) from error
        previous = None if kept is None else Tail(Position(kept.position), bytes.fromhex(kept.hash), 0)
        for index, record in enumerate(page):
            if index % _SLICE_RECORDS == 0:
                await trio.lowlevel.checkpoint()
            check_chain(record, previous)
            check_record(record)
            previous = tail_of(record)
            self._rows.append(_row(record))
            self._bytes += len(record.events) + len(record.inputs)
        if previous is not None:
            self._kept[partition] = Kept(partition, previous.position, previous.hash.hex())
        return len(page)

    async def _step(self, manifest: Manifest) -> Manifest:
        generation = manifest.generation + 1
        day = day_name(self._env.clock.now() // DAY)
        rows = self._rows
        connection = await self._archive.open_database(limits.SERVER_EXPORT_MEMORY, 1)
        try:
            part = await self._archive.put_part(
                f"{RECORDS}/day={day}/part-{generation:08}.parquet",
                day,
                len(rows),
                0,
                lambda path: warehouse.write_records(connection, rows, path),
                is_compacted=False,
            )
            await self._env.threads.run(self._verify, connection, part)
        except warehouse.DuckDBError as error:
            raise ArchiveError(f"{self._archive.directory} cannot be written: {error}") from error
        finally:
            connection.close()
        made = attrs.evolve(
            manifest,
            generation=generation,
            record_parts=[*manifest.record_parts, part],
            kept=[self._kept[partition] for partition in sorted(self._kept)],
        )
        await self._archive.commit(made)
        self._begin(made)
        return made

    def _verify(self, connection: warehouse.Connection, part: Part) -> None:
        """Read back what was just written (in a thread)."""
        check_parts(self._archive.directory, [part])
        path = self._archive.directory / part.file
        found = connection.execute(
            f"FROM read_parquet({warehouse.file_list([path])}, hive_partitioning = false)"
            " ORDER BY partition, position"
        ).fetchall()
        if found != self._rows:
            raise ArchiveError(f"{path} does not read back as it was written")


def _row(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name, _ in warehouse.RECORD_COLUMNS)


class KeptRecords:
    """Implements PastRecords over an archive, as it is at each moment."""

    def __init__(self, env: Env, directory: Path) -> None:
        self._env = env
        self._directory = directory
        self._one = trio.Lock()
        self._connection: warehouse.Connection | None = None
        self._stamp: tuple[int, int] = (0, 0)
        self._manifest = Manifest()

    def close(self) -> None:
        """Let the files go. No reading may be under way."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int
    ) -> list[Record]:
        """See PastRecords."""
        async with self._one:
            try:
                return await self._env.threads.run(self._read, partition, start, records_max, bytes_max)
            except (ArchiveError, CorruptRecord, warehouse.DuckDBError) as error:
                raise StoreCorrupt(f"what was kept of the log cannot be read: {error}") from error

    def _read(
        self, partition: PartitionId, start: Position, records_max: int, bytes_max: int
    ) -> list[Record]:
        try:
            self._open_current()
        except FileNotFoundError:
            return []
        kept = self._manifest.kept_of(partition)
        connection = self._connection
        if connection is None or kept is None or start > kept.position:
            return []
        cursor = connection.cursor()
        try:
            cursor.execute(
                "FROM records WHERE partition = $1 AND position >= $2 AND position < $3 ORDER BY position",
                [partition, start, min(start + records_max, kept.position + 1)],
            )
            records: list[Record] = []
            size = 0
            while size < bytes_max and (row := cursor.fetchone()) is not None:
                records.append(_record(row))
                check_record(records[-1])
                size += len(records[-1].events)
        finally:
            cursor.close()
        if not records or records[0].position != start:
            raise ArchiveError(
                f"record {start} of partition {partition} should be in {self._directory / RECORDS}"
            )
        if start == 1 and records[0].previous_hash != GENESIS:
            raise ArchiveError(f"{self._directory / RECORDS} begins in the middle of partition {partition}")
        return records

    def _open_current(self) -> None:
        found = (self._directory / MANIFEST).stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        self.close()
        self._manifest = read_manifest(self._directory)
        parts = self._manifest.record_parts
        check_parts(self._directory, parts, digests=False)
        if parts:
            connection = warehouse.open_database(memory_limit=limits.SERVER_EXPORT_MEMORY, threads=1)
            files = warehouse.file_list([self._directory / part.file for part in parts])
            connection.execute(
                f"CREATE VIEW records AS FROM read_parquet({files}, hive_partitioning = false)"
            )
            self._connection = connection
        self._stamp = stamp


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip((name for name, _ in warehouse.RECORD_COLUMNS), row, strict=True))
    values["partition"] = PartitionId(values["partition"])
    values["position"] = Position(values["position"])
    values["written_at"] = Instant(values["written_at"])
    return Record(payload=None, **values)
