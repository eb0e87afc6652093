"""Opening SQLite files that are Querator's, and the meaning of SQLite's errors."""

import sqlite3
from pathlib import Path
from typing import Final

from querator.errors import LogUnavailable, StoreCorrupt, StoreDamaged

APPLICATION_ID: Final = 0x51756572
"""In the header of every file of ours: ``Quer``."""
SCHEMA_VERSION: Final = 1
_FULL: Final = 2

_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_REMEDY: Final = "restore it from a copy (`querator log verify` says how far this one can be read)"


def open_file(
    path: Path, schema: str, *, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """Open a file of ours for reading and writing, or make it with ``schema`` when it is missing or empty.

    The connection belongs to the calling thread. It commits by itself outside BEGIN, and never checkpoints.

    Raises:
        StoreCorrupt: it is no file of ours, or of a later version.
        StoreDamaged: it is damaged.
        LogUnavailable: it cannot be opened now.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, factory=factory, timeout=5.0)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    try:
        _prepare(connection, path, schema)
    except sqlite3.Error as error:
        connection.close()
        raise translate(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, schema: str) -> None:
    version = _number(connection, "user_version")
    if _number(connection, "application_id") != APPLICATION_ID:
        if version or _number(connection, "schema_version"):
            raise StoreCorrupt(f"{path} is not Querator's: move it elsewhere, or use another data directory")
    elif version > SCHEMA_VERSION:
        raise StoreCorrupt(f"{path} was written by a later version of Querator: use that version")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreCorrupt(f"{path} cannot have a write-ahead log here: use a local file system")
    connection.execute("PRAGMA synchronous = FULL")
    if _number(connection, "synchronous") != _FULL:
        raise StoreCorrupt(f"{path} cannot be written durably by this build of SQLite: use another")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if version == 0:
        connection.executescript(
            f"BEGIN;{schema};PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
        )


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file that another connection of this process has checked, for reading.

    Raises:
        StoreCorrupt: it is damaged.
        LogUnavailable: it cannot be opened now.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    return connection


def checkpoint(connection: sqlite3.Connection, mode: str) -> None:
    """Move the write-ahead log into the file; ``TRUNCATE`` moves all of it or fails.

    Raises:
        sqlite3.Error: it failed; nothing is lost by that.
    """
    busy, _, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    if busy and mode == "TRUNCATE":
        raise sqlite3.OperationalError("a reader keeps the write-ahead log from being emptied")


def translate(error: sqlite3.Error, path: Path) -> StoreCorrupt | LogUnavailable:
    """What a SQLite error, of a statement that certainly wrote nothing, means to a caller of the store."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if primary_code(error) in _CORRUPT:
        return StoreDamaged(f"{path} is damaged ({name}: {error}): {_REMEDY}")
    if is_full(error):
        return LogUnavailable(f"the disk of {path.parent} is full: make room, it goes on by itself")
    return LogUnavailable(f"{path}: {error} ({name})")


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's code without its extension."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_full(error: sqlite3.Error) -> bool:
    return primary_code(error) == sqlite3.SQLITE_FULL


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
