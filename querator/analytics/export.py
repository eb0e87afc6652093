"""Export: the log of a store becomes Parquet files, incrementally, exactly once per position.

One step is: fold records into rows, write the rows by day, write the ledgers' checkpoints, then the
manifest. Killed anywhere, the old manifest stands: what it does not name is swept away by the next
run, which goes on from its checkpoints. A record is in exactly one manifest's step or in the next.

Every file is written whole through ``Files.write`` (durable, atomic) before a manifest names it.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from querator.analytics.directory import Archive, Progress, Report, silent
from querator.analytics.folding import Folder, LocalFolder, Made
from querator.analytics.manifest import ArchiveError, ExportedQueue, Manifest, Mark
from querator.analytics.parallel import remote_folders
from querator.analytics.queues import fold_queues, merge_queues
from querator.core import limits
from querator.core.ids import CATALOG_PARTITION, PartitionId, Position
from querator.env import Env
from querator.errors import HistoryDropped, LogUnavailable, QueratorError
from querator.log.records import Record
from querator.log.store import LogStore


@attrs.frozen
class Exported:
    """What a refresh did."""

    records: int = 0
    rows: int = 0
    items: int = 0
    """Item events."""
    bytes: int = 0
    away: dict[str, str] = attrs.field(factory=dict)
    """Stores that could not be read, or not to their end, and why: what they have is exported next time."""


@attrs.frozen
class _Task:
    """A partition that has more than the archive."""

    store: LogStore
    partition: PartitionId
    mark: Mark | None
    last: Position
    payloads: bool

    @property
    def first(self) -> Position:
        return Position(1 if self.mark is None else self.mark.position + 1)


class Exporter:
    """Follows the logs of some stores into an archive. One task uses it.

    ``pace`` (above 0, to 1) is the share of one core it may use for folding, for a task of a live server: it
    rests longer when the event loop is late, for then others have work. Offline it is 1.

    ``payloads``: of all queues; without it, of those whose settings ask for it. ``workers``: processes
    that fold partitions beside one another when there is much to do; 0: all is done here, or by
    ``folder``, which is the caller's.
    """

    def __init__(
        self,
        env: Env,
        stores: Sequence[LogStore],
        directory: Path,
        *,
        payloads: bool = False,
        pace: float = 1.0,
        memory_limit: str = limits.ANALYTICS_MEMORY,
        threads: int = 0,
        workers: int = 0,
        folder: Folder | None = None,
    ) -> None:
        self._env = env
        self._stores = stores
        self.archive = Archive(env, directory)
        self._payloads = payloads
        self._workers = workers
        self._folder: Folder = folder or LocalFolder(
            env, self.archive, pace=pace, memory_limit=memory_limit, threads=threads, keeps=pace < 1
        )

    async def refresh(self, report: Report = silent) -> Exported:
        """Export what the stores have and the archive has not. A store that is away keeps up no other.

        Raises:
            ArchiveError: the archive is another log's, damaged, or being written.
            LogUnavailable: all stores are away.
            LogError: a store cannot be read for good, or a record is corrupt; it is named.
        """
        async with self.archive.locked():
            manifest = await self.archive.manifest()
            await self.archive.sweep(manifest)
            await self._folder.reset()
            before = manifest.catalog_position
            away: dict[str, str] = {}
            manifest, work = await self._look(manifest, away)
            run = _Run(self._env, self.archive, manifest, work, away, report)
            async with self._folders(run) as folders:
                await run.fold(folders)
            if not run.is_committed and manifest.catalog_position != before:
                await run.commit(Made(), run.next_generation())
            report(Progress("records exported", run.done.records, run.total))
            return run.done

    @asynccontextmanager
    async def _folders(self, run: "_Run") -> AsyncIterator[Sequence[Folder]]:
        count = min(self._workers, len(run.work))
        if count < 2 or run.total < limits.EXPORT_PARALLEL_RECORDS:
            yield [self._folder]
            return
        async with remote_folders(self._env, self.archive, count) as folders:
            yield folders

    async def _look(self, manifest: Manifest, away: dict[str, str]) -> tuple[Manifest, list[_Task]]:
        """The manifest with the catalog's queues of now, and what is to be exported of stores that are there.

        Raises LogUnavailable: none is.
        """
        found: list[tuple[LogStore, PartitionId, Position]] = []
        for store in self._stores:
            try:
                manifest = await self._look_into(store, manifest, found)
            except LogUnavailable as error:
                away[store.name] = str(error)
                if len(away) == len(self._stores):
                    raise
        wanted = frozenset(
            partition
            for queue in manifest.queues
            if queue.settings.get("export_payloads")
            for partition in queue.partitions
        )
        return manifest, [
            _Task(store, partition, manifest.mark_of(partition), last, self._payloads or partition in wanted)
            for store, partition, last in found
        ]

    async def _look_into(
        self, store: LogStore, manifest: Manifest, found: list[tuple[LogStore, PartitionId, Position]]
    ) -> Manifest:
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
                found.append((store, partition, tail.position))
        return manifest

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


class _Run:
    """One refresh: tasks that folders take on, and the manifest that grows with each step."""

    def __init__(
        self,
        env: Env,
        archive: Archive,
        manifest: Manifest,
        work: Sequence[_Task],
        away: dict[str, str],
        report: Report,
    ) -> None:
        self._env = env
        self._archive = archive
        self._manifest = manifest
        self._generation = manifest.generation
        self._committing = trio.Lock()
        self._left = deque(work)
        self._read_so_far = 0
        self._report = report
        self.work = work
        self.total = sum(task.last - task.first + 1 for task in work)
        self.done = Exported(away=away)
        self.is_committed = False

    def next_generation(self) -> int:
        """Names the files of a step."""
        self._generation += 1
        return self._generation

    async def fold(self, folders: Sequence[Folder]) -> None:
        """Until nothing is left. What goes wrong with one folder ends the others."""
        if len(folders) == 1:
            await self._work(folders[0])
            return
        failures: list[QueratorError] = []

        async def work(folder: Folder) -> None:
            try:
                await self._work(folder)
            except QueratorError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for folder in folders:
                nursery.start_soon(work, folder)
        if failures:
            raise failures[0]

    async def _work(self, folder: Folder) -> None:
        while self._left:
            task = self._left.popleft()
            if task.store.name in self.done.away:
                continue
            await folder.begin(task.partition, task.mark)
            position = task.first
            while position <= task.last:
                try:
                    page = await self._read(task, position)
                except LogUnavailable as error:
                    # What was read is exported: the partition goes on from there.
                    self.done.away[task.store.name] = str(error)
                    break
                position = Position(position + len(page))
                is_full = await folder.take(page)
                self._read_so_far += len(page)
                self._report(Progress("records exported", self._read_so_far, self.total))
                if is_full:
                    await self._step(folder)
        await self._step(folder)

    async def _step(self, folder: Folder) -> None:
        generation = self.next_generation()
        made = await folder.step(generation)
        if made.marks:
            await self.commit(made, generation)

    async def _read(self, task: _Task, start: Position) -> list[Record]:
        partition = task.partition
        try:
            page = await task.store.read(
                partition,
                start,
                records_max=min(limits.EXPORT_PAGE_RECORDS, task.last - start + 1),
                bytes_max=limits.READ_BYTES_MAX,
                payloads=task.payloads,
            )
        except HistoryDropped as error:
            raise ArchiveError(
                f"the log of partition {partition} does not reach back to position {start}, where "
                f"{self._archive.directory} ends: that history was dropped before it was exported"
            ) from error
        if not page:
            raise ArchiveError(
                f"partition {partition} has no record {start}, though it goes on to {task.last}"
            )
        return page

    async def commit(self, made: Made, generation: int) -> None:
        """Make what was written part of the archive."""
        async with self._committing:
            manifest = self._manifest
            marks = {mark.partition: mark for mark in manifest.marks}
            replaced = [marks[mark.partition].fold for mark in made.marks if mark.partition in marks]
            marks |= {mark.partition: mark for mark in made.marks}
            self._manifest = attrs.evolve(
                manifest,
                generation=max(manifest.generation, generation),
                written_at=self._env.clock.now(),
                parts=[*manifest.parts, *made.parts],
                payload_parts=[*manifest.payload_parts, *made.payload_parts],
                marks=[marks[partition] for partition in sorted(marks)],
                superseded=[],
            )
            await self._archive.commit(self._manifest)
            self.is_committed = True
            for name in (*replaced, *manifest.superseded):
                await self._archive.remove(name)
        size = sum(part.bytes for part in (*made.parts, *made.payload_parts))
        done = self.done
        self.done = attrs.evolve(
            done,
            records=done.records + made.records,
            rows=done.rows + made.rows,
            items=done.items + made.items,
            bytes=done.bytes + size,
        )
