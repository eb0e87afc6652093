"""Where logical servers keep their logs: a new one each, or the one that a token names."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from querator.env import Env
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.postgres import PostgresLog
from querator.log.postgres.checks import UNSAFE_DURABILITY, UNSAFE_ROLE
from querator.log.postgres.migrate import install
from querator.log.store import LogStore
from tests.conformance.shared_log import STRETCH, SharedLog

IN_MEMORY: Final = Path("/dev/shm")


class Storage:
    """Makes the log of a logical server; two made with one token, one after the other, share it."""

    def __init__(self) -> None:
        self._made = 0
        self._number_of: dict[str, int] = {}

    def _number(self, token: str) -> int:
        known = self._number_of.get(token) if token else None
        if known is not None:
            return known
        self._made += 1
        if token:
            self._number_of[token] = self._made
        return self._made

    def make(self, token: str, env: Env) -> LogStore:
        raise NotImplementedError


class MemoryStorage(Storage):
    def __init__(self) -> None:
        super().__init__()
        self._disks: dict[int, MemoryDisk] = {}

    def make(self, token: str, env: Env) -> LogStore:
        if not token:
            return MemoryLog(env)
        return MemoryLog(env, self._disks.setdefault(self._number(token), MemoryDisk()))


class SqliteStorage(Storage):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def make(self, token: str, env: Env) -> LogStore:
        from querator.log.sqlite import SqliteLog

        return SqliteLog(env, self._folder / str(self._number(token)))


class PostgresStorage(Storage):
    def __init__(self, log: PostgresLog, base: int) -> None:
        super().__init__()
        self._log = log
        self._base = base

    def make(self, token: str, env: Env) -> LogStore:
        return SharedLog(self._log, self._base + self._number(token) * STRETCH)


@asynccontextmanager
async def open_storage(log: str, env: Env) -> AsyncIterator[Storage]:
    """By the setting: ``memory``, ``sqlite`` or a PostgreSQL database, which gets our schema."""
    if log == "memory":
        yield MemoryStorage()
    elif log == "sqlite":
        with tempfile.TemporaryDirectory(prefix="querator-conformance-", dir=_quick_folder()) as folder:
            yield SqliteStorage(Path(folder))
    else:
        await trio.to_thread.run_sync(install, log)
        # A suite's throw-away server may be anything; what it loses is nobody's.
        store = PostgresLog(env, log, unsafe=frozenset((UNSAFE_DURABILITY, UNSAFE_ROLE)))
        await store.open()
        try:
            yield PostgresStorage(store, _free_base(await store.partitions()))
        finally:
            with trio.CancelScope(shield=True):
                await store.aclose()


def _quick_folder() -> str | None:
    """Of memory, where there is such: servers that are thrown away need no disk, and are there at once."""
    return str(IN_MEMORY) if IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) else None


def _free_base(partitions: Sequence[int]) -> int:
    return (max(partitions, default=0) // STRETCH + 1) * STRETCH
