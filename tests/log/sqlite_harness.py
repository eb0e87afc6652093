"""SQLite files that fail when they are told to."""

import sqlite3
from pathlib import Path
from typing import Any, ClassVar

from querator.core.ids import PartitionId, Position
from querator.env.real import real_env
from querator.log.records import ChunkId
from querator.log.sqlite import SqliteLog
from querator.log.store import LogStore
from tests.log.log_contract import Fault, LogHarness


def io_error(
    text: str = "disk I/O error", code: int = sqlite3.SQLITE_IOERR_FSYNC
) -> sqlite3.OperationalError:
    """As SQLite raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


class FailingConnection(sqlite3.Connection):
    """A connection whose next COMMIT ends as ``plan`` says. All of a directory share the plan."""

    plan: ClassVar[dict[str, list[Fault]]] = {}

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self._faults = self.plan.setdefault(str(Path(path).parent), [])

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not self._faults or sql not in ("BEGIN IMMEDIATE", "COMMIT"):
            return super().execute(sql, parameters)
        fault = self._faults[0]
        if sql == "BEGIN IMMEDIATE":
            cursor = super().execute(sql, parameters)
            if fault is Fault.UNAVAILABLE:
                # SQLite's own error: the file must not grow, and has to.
                self._faults.pop(0)
                pages = super().execute("PRAGMA page_count").fetchone()[0]
                super().execute(f"PRAGMA max_page_count = {pages}")
                super().execute("CREATE TABLE filler AS SELECT zeroblob(1000000)")
            return cursor
        self._faults.pop(0)
        super().execute("COMMIT" if fault is Fault.UNKNOWN_WRITTEN else "ROLLBACK")
        raise io_error()


class SqliteHarness(LogHarness):
    is_shared = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def open(self) -> LogStore:
        store = SqliteLog(real_env(), self.directory, factory=FailingConnection)
        await store.open()
        return store

    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        FailingConnection.plan[str(self.directory)].append(fault)

    async def damage_snapshot(self, store: LogStore, partition: PartitionId, position: Position) -> None:
        self._damage(
            "UPDATE snapshot SET head = x'00' WHERE partition = ? AND position = ?", partition, position
        )

    async def damage_chunk(self, store: LogStore, partition: PartitionId, chunk: ChunkId) -> None:
        self._damage(
            "UPDATE chunk SET data = x'00' WHERE partition = ? AND segment = ? AND position = ?",
            partition,
            chunk.segment,
            chunk.position,
        )

    def _damage(self, sql: str, *key: int) -> None:
        with sqlite3.connect(self.directory / "snapshots.db") as connection:
            assert connection.execute(sql, key).rowcount == 1
        connection.close()
