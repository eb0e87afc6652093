"""Export: the log of a store becomes Parquet files, incrementally, exactly once per position.

One step is: fold records into rows, write the rows by day, write the ledgers' checkpoints, then the
manifest. Killed anywhere, the old manifest stands: what it does not name is swept away by the next
run, which goes on from its checkpoints. A record is in exactly one manifest's step or in the next.

Every file is written whole through ``Files.write`` (durable, atomic) before a manifest names it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from querator.analytics import warehouse
from querator.analytics.arrow import ArrowTable
from querator.analytics.ledger import CheckpointUnreadable, Ledger
from querator.analytics.manifest import (
    EVENTS,
    FOLDS,
    LOCK,
    MANIFEST,
    PAYLOADS,
    RECORDS,
    TEMPORARY,
    ArchiveError,
    ExportedQueue,
    Manifest,
    Mark,
    Part,
    check_parts,
    decode_manifest,
    digest,
    encode_manifest,
)
from querator.analytics.queues import fold_queues, merge_queues
from querator.analytics.rows import RowBuffer
from querator.core import limits
from querator.core.ids import CATALOG_PARTITION, Duration, PartitionId, Position
from querator.env import Env, FileLocked
from querator.errors import HistoryDropped
from querator.log.codec import PayloadBlock, decode_columns, payload_runs
from querator.log.records import Record
from querator.log.store import LogStore

_DAY: Final = 86_400_000_000


@attrs.frozen
class Exported:
    """What a refresh did."""

    records: int = 0
    rows: int = 0
    items: int = 0
    """Item events."""
    bytes: int = 0


@attrs.frozen
class Progress:
    """Where a long command is; ``total`` 0: not known."""

    what: str
    done: int
    total: int


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    del progress


@attrs.define
class _Dirty:
    """A partition that has rows in the step being made."""

    ledger: Ledger
    rows: int
    last_at: int


class Archive:
    """A directory of exported files, for one process that writes it at a time. See the manifest's text."""

    def __init__(self, env: Env, directory: Path) -> None:
        self._env = env
        self.directory = directory

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the archive's lock.

        Raises:
            ArchiveError: another process has it.
        """
        await self._env.files.make_directory(self.directory)
        try:
            lock = self._env.files.lock(self.directory / LOCK)
        except FileLocked as error:
            holder = error.holder or "another process"
            raise ArchiveError(f"{self.directory} is being written by {holder}") from error
        try:
            yield
        finally:
            lock.release()

    async def manifest(self) -> Manifest:
        """The present manifest; an empty one where there is none."""
        path = self.directory / MANIFEST
        try:
            return decode_manifest(await self._env.files.read(path), path)
        except FileNotFoundError:
            return Manifest()

    async def commit(self, manifest: Manifest) -> None:
        """From here on the archive is what ``manifest`` says."""
        await self._env.files.write(self.directory / MANIFEST, encode_manifest(manifest))

    async def sweep(self, manifest: Manifest) -> None:
        """Remove what no manifest names: left by a step that did not finish, or superseded before."""
        named = frozenset(manifest.files())
        files = self._env.files
        for kind in (EVENTS, PAYLOADS, RECORDS):
            for day in await self._names(kind):
                for name in await self._names(f"{kind}/{day}"):
                    if f"{kind}/{day}/{name}" not in named:
                        await files.remove(self.directory / kind / day / name)
        for name in await self._names(FOLDS):
            if f"{FOLDS}/{name}" not in named:
                await files.remove(self.directory / FOLDS / name)

    async def _names(self, where: str) -> list[str]:
        path = self.directory / where
        return await self._env.files.list(path) if await self._env.files.exists(path) else []

    async def put(self, name: str, content: bytes) -> None:
        """Write a file of the archive, durably."""
        path = self.directory / name
        await self._env.files.make_directory(path.parent)
        await self._env.files.write(path, content)

    async def check(self, parts: list[Part]) -> None:
        """Compare files with what was written, in a thread.

        Raises:
            ArchiveError: one is missing or damaged; it is named.
        """
        await self._env.threads.run(check_parts, self.directory, parts)

    async def open_database(self, memory_limit: str, threads: int) -> warehouse.Connection:
        """A database to sort and pack with; it takes some milliseconds to make, so in a thread."""
        return await self._env.threads.run(
            partial(
                warehouse.open_database,
                memory_limit=memory_limit,
                threads=threads,
                temporary=self.directory / TEMPORARY,
            )
        )

    async def put_part(
        self, name: str, day: str, rows: int, items: int, write: Callable[[Path], None], *, is_compacted: bool
    ) -> Part:
        """Let ``write`` make a Parquet file, in a thread, and keep it durably under ``name``."""
        path = self.directory / name
        await self._env.files.make_directory(path.parent)
        draft = path.with_name(f"{path.name}.draft")
        await self._env.threads.run(write, draft)
        content = await self._env.files.read(draft)
        await self._env.files.write(path, content)
        await self._env.files.remove(draft)
        name_of_content = await self._env.threads.run(digest, content)
        return Part(name, day, rows, items, len(content), name_of_content, is_compacted)


class Exporter:
    """Follows the logs of some stores into an archive. One task uses it.

    ``pace`` (above 0, to 1) is the share of one core it may use for folding, for a task of a live server: it
    rests longer when the event loop is late, for then others have work; and it keeps the ledgers between
    refreshes, so that each begins where the last one ended. Offline it is 1.

    ``payloads``: of all queues; without it, of those whose settings ask for it.
    """

    def __init__(
        self,
        env: Env,
        stores: Sequence[LogStore],
        directory: Path,
        *,
        payloads: bool = False,
        pace: float = 1.0,
        memory_limit: str = "512MB",
        threads: int = 0,
    ) -> None:
        self._env = env
        self._stores = stores
        self.archive = Archive(env, directory)
        self._payloads = payloads
        self._pace = pace
        self._memory_limit = memory_limit
        self._threads = threads
        self._buffer = RowBuffer()
        self._payload_rows: list[tuple[int, int, int, int, bytes]] = []
        """(day, partition, item, position, payload)."""
        self._payload_bytes = 0
        self._dirty: dict[int, _Dirty] = {}
        self._ledgers: dict[int, Ledger] = {}
        """As they are at the marks of the manifest that was written last."""
        self._records = 0
        self._late = 0
        """How late the event loop was when we rested last, microseconds."""

    async def refresh(self, report: Report = silent) -> Exported:
        """Export what the stores have and the archive has not.

        Raises:
            ArchiveError: the archive is another log's, damaged, or being written.
            LogError: a store cannot be read, or a record is corrupt; it is named.
        """
        async with self.archive.locked():
            manifest = await self.archive.manifest()
            await self.archive.sweep(manifest)
            if self._dirty:
                # They belong to a step that did not finish.
                self._ledgers.clear()
            self._reset()
            connection = await self.archive.open_database(self._memory_limit, self._threads)
            try:
                return await self._follow(connection, manifest, report)
            except warehouse.DuckDBError as error:
                raise ArchiveError(f"{self.archive.directory} cannot be written: {error}") from error
            finally:
                connection.close()

    def _reset(self) -> None:
        self._buffer.clear()
        self._payload_rows = []
        self._payload_bytes = 0
        self._dirty = {}
        self._records = 0

    async def _follow(self, connection: warehouse.Connection, manifest: Manifest, report: Report) -> Exported:
        work: list[tuple[LogStore, PartitionId, Position]] = []
        done = Exported()
        catalog_position = manifest.catalog_position
        for store in self._stores:
            for partition in sorted(await store.partitions()):
                if partition == CATALOG_PARTITION:
                    manifest = await self._follow_catalog(store, manifest)
                    continue
                tail = await store.tail(partition)
                mark = manifest.mark_of(partition)
                if tail is None and mark is None:
                    continue
                if mark is not None and (tail is None or tail.position < mark.position):
                    raise ArchiveError(
                        f"partition {partition} of store {store.name!r} ends before position "
                        f"{mark.position}, which is in {self.archive.directory}: another log's archive, "
                        "or data was lost"
                    )
                if tail is not None and (mark is None or tail.position > mark.position):
                    work.append((store, partition, tail.position))
        total = sum(
            last - (mark.position if (mark := manifest.mark_of(partition)) is not None else 0)
            for _, partition, last in work
        )
        wanted = frozenset(
            partition
            for queue in manifest.queues
            if queue.settings.get("export_payloads")
            for partition in queue.partitions
        )
        for store, partition, last in work:
            with_payloads = self._payloads or partition in wanted
            ledger = await self._ledger(partition, manifest.mark_of(partition))
            while ledger.position < last:
                page = await self._read(store, ledger, last, payloads=with_payloads)
                await self._fold(ledger, page)
                report(Progress("records exported", done.records + self._records, total))
                if (
                    self._buffer.rows >= limits.EXPORT_STEP_ROWS
                    or self._payload_bytes >= limits.EXPORT_STEP_PAYLOAD_BYTES
                ):
                    manifest, done = await self._step(connection, manifest, done)
        if self._dirty or manifest.catalog_position != catalog_position:
            manifest, done = await self._step(connection, manifest, done)
        report(Progress("records exported", done.records, total))
        return done

    async def _follow_catalog(self, store: LogStore, manifest: Manifest) -> Manifest:
        """Queues and their partitions, from the catalog's documents."""
        queues: list[ExportedQueue] = manifest.queues
        position = manifest.catalog_position
        while True:
            try:
                page = await store.read(
                    CATALOG_PARTITION,
                    Position(position + 1),
                    records_max=limits.RESTORE_PAGE_RECORDS,
                    bytes_max=limits.READ_BYTES_MAX,
                    payloads=False,
                )
            except HistoryDropped:
                # The catalog restores from its snapshot, and so do we: queues deleted before it are lost.
                snapshots = await store.snapshots(CATALOG_PARTITION)
                if not snapshots or snapshots[0].position <= position:
                    raise
                queues = merge_queues(queues, snapshots[0])
                position = snapshots[0].position
                continue
            if not page:
                break
            for record in page:
                queues = fold_queues(queues, record)
                position = record.position
        return attrs.evolve(manifest, queues=queues, catalog_position=position)

    async def _ledger(self, partition: PartitionId, mark: Mark | None) -> Ledger:
        """The ledger where the partition's export stands."""
        if mark is None:
            return Ledger(partition)
        kept = self._ledgers.get(partition)
        if kept is not None and kept.tail is not None and kept.tail.hash.hex() == mark.hash:
            return kept
        path = self.archive.directory / mark.fold
        try:
            content = await self._env.files.read(path)
            if digest(content) != mark.digest:
                raise CheckpointUnreadable("its content is not what was written")
            ledger = await self._env.threads.run(Ledger.restore, partition, content)
        except FileNotFoundError:
            raise ArchiveError(f"{path} is missing: export anew into another directory") from None
        except CheckpointUnreadable as error:
            raise ArchiveError(f"{path} is damaged ({error}): export anew into another directory") from error
        if ledger.position != mark.position:
            raise ArchiveError(
                f"{path} stands at position {ledger.position}, the manifest at {mark.position}"
            )
        return ledger

    async def _read(self, store: LogStore, ledger: Ledger, last: Position, *, payloads: bool) -> list[Record]:
        start = Position(ledger.position + 1)
        try:
            page = await store.read(
                ledger.partition,
                start,
                records_max=min(limits.EXPORT_PAGE_RECORDS, last - start + 1),
                bytes_max=limits.READ_BYTES_MAX,
                payloads=payloads,
            )
        except HistoryDropped as error:
            raise ArchiveError(
                f"the log of partition {ledger.partition} does not reach back to position {start}, where "
                f"{self.archive.directory} ends: that history was dropped before it was exported"
            ) from error
        if not page:
            raise ArchiveError(
                f"partition {ledger.partition} has no record {start}, though it goes on to {last}"
            )
        return page

    async def _fold(self, ledger: Ledger, page: list[Record]) -> None:
        """Fold a page, in slices between which everybody else has their turn."""
        clock = self._env.clock
        sliced = clock.monotonic()
        for record in page:
            dirty = self._dirty.get(ledger.partition)
            if dirty is None:
                dirty = self._dirty[ledger.partition] = _Dirty(ledger, 0, 0)
            for _ in ledger.folding(record):
                worked = clock.monotonic() - sliced
                if worked > limits.EXPORT_SLICE:
                    await self._rest(worked)
                    sliced = clock.monotonic()
            rows = ledger.rows
            self._buffer.extend(rows)
            dirty.rows += len(rows)
            if rows:
                dirty.last_at = rows[-1][3]
            self._records += 1
            if record.payload:
                self._take_payloads(record, rows[-1][3] if rows else record.written_at)
        await trio.lowlevel.checkpoint()

    async def _rest(self, worked: int) -> None:
        """Leave the event loop to others, after so many microseconds of work."""
        clock = self._env.clock
        if self._pace >= 1:
            await clock.sleep(Duration(0))
            return
        wanted = int(worked * (1 / self._pace - 1)) + limits.EXPORT_LATE_FACTOR * self._late
        rest = Duration(min(wanted, limits.EXPORT_REST_MAX))
        asleep = clock.monotonic()
        await clock.sleep(rest)
        self._late = max(0, clock.monotonic() - asleep - rest)

    def _take_payloads(self, record: Record, at: int) -> None:
        content = record.payload or b""
        block = PayloadBlock(content)
        day = at // _DAY
        index = 0
        for first, count in payload_runs(decode_columns(record.events)):
            for offset, payload in enumerate(block.range(index, count)):
                self._payload_rows.append((day, record.partition, first + offset, record.position, payload))
            index += count
        self._payload_bytes += len(content)

    async def _step(
        self, connection: warehouse.Connection, manifest: Manifest, done: Exported
    ) -> tuple[Manifest, Exported]:
        """Make what was gathered part of the archive."""
        generation = manifest.generation + 1
        parts: list[Part] = []
        table = await self._env.threads.run(self._buffer.table)
        for day in self._buffer.days():
            parts.append(await self._write_day(connection, table, day, generation))
        payload_parts: list[Part] = []
        for day in sorted(dict.fromkeys(row[0] for row in self._payload_rows)):
            payload_parts.append(await self._write_payload_day(connection, day, generation))
        marks = {mark.partition: mark for mark in manifest.marks}
        replaced: list[str] = []
        for partition, dirty in sorted(self._dirty.items()):
            old = marks.get(partition)
            if old is not None:
                replaced.append(old.fold)
            marks[partition] = await self._write_fold(dirty, old, generation)
        made = attrs.evolve(
            manifest,
            generation=generation,
            written_at=self._env.clock.now(),
            parts=[*manifest.parts, *parts],
            payload_parts=[*manifest.payload_parts, *payload_parts],
            marks=[marks[partition] for partition in sorted(marks)],
            superseded=[],
        )
        await self.archive.commit(made)
        if self._pace < 1:
            self._ledgers |= {partition: dirty.ledger for partition, dirty in self._dirty.items()}
        for name in (*replaced, *manifest.superseded):
            await self._env.files.remove(self.archive.directory / name)
        done = Exported(
            done.records + self._records,
            done.rows + self._buffer.rows,
            done.items + self._buffer.items,
            done.bytes + sum(part.bytes for part in (*parts, *payload_parts)),
        )
        self._reset()
        return made, done

    async def _write_day(
        self, connection: warehouse.Connection, table: ArrowTable, day: int, generation: int
    ) -> Part:
        counted: list[tuple[int, int]] = []
        name = f"{EVENTS}/day={day_name(day)}/part-{generation:08}.parquet"
        part = await self.archive.put_part(
            name,
            day_name(day),
            0,
            0,
            lambda path: counted.append(warehouse.write_rows(connection, table, day, path)),
            is_compacted=False,
        )
        return attrs.evolve(part, rows=counted[0][0], items=counted[0][1])

    async def _write_payload_day(self, connection: warehouse.Connection, day: int, generation: int) -> Part:
        rows = [row[1:] for row in self._payload_rows if row[0] == day]
        return await self.archive.put_part(
            f"{PAYLOADS}/day={day_name(day)}/part-{generation:08}.parquet",
            day_name(day),
            len(rows),
            len(rows),
            lambda path: warehouse.write_payloads(connection, rows, path),
            is_compacted=False,
        )

    async def _write_fold(self, dirty: _Dirty, old: Mark | None, generation: int) -> Mark:
        ledger = dirty.ledger
        content, name_of_content = await self._env.threads.run(_checkpoint, ledger)
        name = f"{FOLDS}/partition-{ledger.partition}-{generation:08}.fold"
        await self.archive.put(name, content)
        tail = ledger.tail
        return Mark(
            ledger.partition,
            ledger.position,
            "" if tail is None else tail.hash.hex(),
            dirty.rows + (0 if old is None else old.rows),
            name,
            name_of_content,
            dirty.last_at or (0 if old is None else old.last_at),
        )


def _checkpoint(ledger: Ledger) -> tuple[bytes, str]:
    """The ledger as bytes, and their digest."""
    content = ledger.checkpoint()
    return content, digest(content)


def day_name(day: int) -> str:
    """YYYY-MM-DD of a day since 1970-01-01."""
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
