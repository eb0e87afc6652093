"""What a live server does for its archive: every so often, slowly, and never the server's undoing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

import trio

from querator import telemetry
from querator.analytics.compact import compact
from querator.analytics.export import Exporter
from querator.analytics.keeping import RecordKeeper
from querator.analytics.manifest import ArchiveError
from querator.analytics.parallel import RemoteFolder, remote_folders
from querator.analytics.pruning import age_limit, buckets_to_keep, is_kept, read_starts, starts_of
from querator.core import limits
from querator.core.ids import Duration, PartitionId, Position
from querator.core.replies import Code, Rejected
from querator.env import Env
from querator.errors import LogError, LogUnavailable
from querator.log.store import LogStore


class IsExported(Protocol):
    def __call__(self, partition: PartitionId, position: Position, /) -> bool: ...


class Buckets(Protocol):
    """Who drops buckets (implemented by actors/buckets.py)."""

    def learn_starts(self, name: str, number: int, starts: Mapping[PartitionId, Position]) -> None: ...

    async def prune(
        self, name: str, *, buckets_kept: int, is_exported: IsExported | None = None
    ) -> list[int]: ...


class Follower:
    """The archive of a live server. Any number of tasks may ask it to do something: one at a time does.

    While it runs, a process of low priority does the work, and the server only reads its log for it; where
    there are no processes, the server itself does, with a share of a core, one thread and little memory.
    """

    def __init__(
        self, env: Env, stores: Mapping[str, LogStore], directory: Path, *, buckets: Buckets | None = None
    ) -> None:
        self._env = env
        self._stores = stores
        self._directory = directory
        self._buckets = buckets
        self._one = trio.Lock()
        self._own = Exporter(
            env,
            list(stores.values()),
            directory,
            pace=limits.EXPORT_PACE,
            memory_limit=limits.SERVER_EXPORT_MEMORY,
            threads=1,
        )
        self._exporter = self._own
        self._remote: RemoteFolder | None = None
        self._looked_at: int | None = None
        self._keeper = RecordKeeper(env, list(stores.values()), directory)

    async def run(self, *, every: Duration, retention: Duration = Duration(0)) -> NoReturn:
        """Export and compact, then rest for ``every``; for ever, until it is cancelled.

        With ``retention``, what is older is dropped from the log as well. What goes wrong with the archive
        or the log is told (``analytics.export.failed``) and tried again after the rest: exporting stops,
        the queue does not.
        """
        while True:
            try:
                async with self._out_of_process():
                    while True:
                        async with self._one:
                            await self._export()
                        if retention:
                            await self._look_for_what_is_old(retention)
                        await self._env.clock.sleep(every)
            except (ArchiveError, LogError, OSError) as error:
                telemetry.emit("analytics.export.failed", error=str(error))
            await self._env.clock.sleep(every)

    async def _look_for_what_is_old(self, retention: Duration) -> None:
        """Now and then: history grows old slowly, and a look takes a thread some tens of milliseconds."""
        now = self._env.clock.monotonic()
        if self._looked_at is None or now - self._looked_at >= limits.RETENTION_INTERVAL:
            self._looked_at = now
            await self._prune(retention, 1)

    @asynccontextmanager
    async def _out_of_process(self) -> AsyncIterator[None]:
        """With a process to work for us, if there are any."""
        if not self._env.processes.cores:
            yield
            return
        async with remote_folders(self._env, self._own.archive, 1, is_servers=True) as (remote,):
            self._remote = remote
            self._exporter = Exporter(self._env, list(self._stores.values()), self._directory, folder=remote)
            try:
                yield
            finally:
                self._remote = None
                self._exporter = self._own

    async def _export(self) -> None:
        done = await self._exporter.refresh()
        for name, error in done.away.items():
            telemetry.emit("analytics.store.away", store=name, error=error)
        if done.rows:
            telemetry.emit(
                "analytics.exported",
                records=done.records,
                rows=done.rows,
                items=done.items,
                bytes=done.bytes,
            )
        if self._remote is not None:
            await self._remote.compact()
        else:
            await compact(self._env, self._directory, memory_limit=limits.SERVER_EXPORT_MEMORY, threads=1)

    async def prune(self, *, older_than: Duration, buckets_kept: int) -> dict[str, list[int]] | Rejected:
        """See PrunePort."""
        try:
            return await self._prune(older_than, buckets_kept)
        except (ArchiveError, LogError, OSError) as error:
            return Rejected(Code.UNAVAILABLE, f"nothing more is dropped: {error}")

    async def _prune(self, older_than: Duration, buckets_kept: int) -> dict[str, list[int]]:
        """Export, keep, and drop what retention allows; the buckets that went, by store."""
        gone: dict[str, list[int]] = {}
        away = 0
        async with self._one:
            for name, store in self._stores.items():
                try:
                    if len(await store.buckets()) > max(buckets_kept, 1):
                        gone[name] = await self._prune_store(name, store, older_than, buckets_kept)
                except LogUnavailable as error:
                    away += 1
                    if away == len(self._stores):
                        raise
                    telemetry.emit("analytics.store.away", store=name, error=str(error))
        return gone

    async def _prune_store(
        self, name: str, store: LogStore, older_than: Duration, buckets_kept: int
    ) -> list[int]:
        if self._buckets is None:
            return []
        # Looked at before the export: what is sealed now is in it.
        buckets = await store.buckets()
        await self._export()
        partitions = await store.partitions()
        starts = [
            start
            for start in await self._env.threads.run(read_starts, self._directory)
            if start.partition in partitions
        ]
        before = age_limit(self._env.clock.now(), older_than)
        wanted = buckets_to_keep(buckets, starts, before=before, at_least=max(buckets_kept, 1))
        if wanted >= len(buckets):
            return []
        records = await self._keeper.keep()
        if records:
            telemetry.emit("analytics.kept", records=records)
        for number, of_bucket in starts_of(starts, partitions).items():
            self._buckets.learn_starts(name, number, of_bucket)
        manifest = await self._exporter.archive.manifest()
        await self._exporter.archive.check(manifest.record_parts)
        return await self._buckets.prune(name, buckets_kept=wanted, is_exported=partial(is_kept, manifest))
