"""The archive's directory: read and written through Env, each file durable before the manifest names it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import attrs

from querator.analytics import warehouse
from querator.analytics.manifest import (
    EVENTS,
    FOLDS,
    LOCK,
    MANIFEST,
    PAYLOADS,
    RECORDS,
    TEMPORARY,
    ArchiveError,
    Manifest,
    Part,
    check_parts,
    decode_manifest,
    digest,
    encode_manifest,
)
from querator.env import Env, FileLocked


@attrs.frozen
class Progress:
    """Where a long command is; ``total`` 0: not known."""

    what: str
    done: int
    total: int


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    del progress


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

    async def remove(self, name: str) -> None:
        """Remove a file that no manifest names any more."""
        await self._env.files.remove(self.directory / name)

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


def day_name(day: int) -> str:
    """YYYY-MM-DD of a day since 1970-01-01."""
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
