"""Snapshots and their chunks, in a file of their own. Everything here runs in one thread, call after call."""

import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from querator.core.ids import PartitionId, Position
from querator.errors import StoreCorrupt
from querator.log.records import ChunkId, Snapshot
from querator.log.rules import SNAPSHOTS_KEPT, chunk_checksum, damaged_chunk, row_checksum
from querator.log.sqlite.files import open_file, translate

T = TypeVar("T")

_SCHEMA: Final = """
    CREATE TABLE snapshot (
        partition INTEGER NOT NULL,
        position INTEGER NOT NULL,
        version INTEGER NOT NULL,
        hash BLOB NOT NULL,
        checksum BLOB NOT NULL,
        row_checksum BLOB NOT NULL,
        chunks BLOB NOT NULL,
        head BLOB NOT NULL,
        PRIMARY KEY (partition, position)
    );
    CREATE TABLE chunk (
        partition INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        position INTEGER NOT NULL,
        checksum BLOB NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (partition, segment, position)
    );
    CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL)
"""
_OLDEST: Final = "oldest_bucket"


@attrs.frozen
class Found:
    """The snapshots of a partition that are whole, newest first, and the positions of the others."""

    snapshots: list[Snapshot]
    damaged: list[int]


class SnapshotFile:
    """The snapshot half of the store, and the number of the oldest bucket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or make the file.

        Raises:
            StoreDamaged: it cannot be read; the log itself does not need it unless buckets were dropped.
            StoreCorrupt: it is not ours.
            LogUnavailable: not now.
        """
        self._connection = open_file(self.path, _SCHEMA)
        # Nobody waits for these commits, so SQLite may move its write-ahead log in the midst of them.
        self._connection.execute("PRAGMA wal_autocheckpoint = 1000")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def oldest_bucket(self) -> int:
        """Buckets below this number were dropped; 1 when none was."""
        row = self._run(
            lambda connection: connection.execute(
                "SELECT value FROM setting WHERE name = ?", (_OLDEST,)
            ).fetchone()
        )
        return row[0] if row is not None else 1

    def set_oldest_bucket(self, number: int) -> None:
        """Durable on return."""
        self._change(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO setting VALUES (?, ?)", (_OLDEST, number)
            )
        )

    def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        rows = [
            (partition, chunk.segment, chunk.position, chunk_checksum(data), data)
            for chunk, data in chunks.items()
        ]
        self._change(
            lambda connection: connection.executemany("INSERT OR REPLACE INTO chunk VALUES (?,?,?,?,?)", rows)
        )

    def put_snapshot(self, snapshot: Snapshot) -> None:
        self._change(lambda connection: _put_snapshot(connection, snapshot))

    def snapshots(self, partition: PartitionId) -> Found:
        rows = self._run(
            lambda connection: connection.execute(
                "SELECT position, version, hash, checksum, row_checksum, chunks, head"
                " FROM snapshot WHERE partition = ? ORDER BY position DESC",
                (partition,),
            ).fetchall()
        )
        found = Found([], [])
        for position, version, digest, checksum, sealed, chunks, head in rows:
            try:
                names = _unpack(chunks)
            except struct.error:
                found.damaged.append(position)
                continue
            snapshot = Snapshot(partition, Position(position), digest, version, head, names, checksum)
            if row_checksum(snapshot) == sealed:
                found.snapshots.append(snapshot)
            else:
                found.damaged.append(position)
        return found

    def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        found: dict[ChunkId, bytes] = {}

        def read(connection: sqlite3.Connection) -> None:
            for chunk in chunks:
                row = connection.execute(
                    "SELECT checksum, data FROM chunk WHERE partition = ? AND segment = ? AND position = ?",
                    (partition, chunk.segment, chunk.position),
                ).fetchone()
                if row is None or chunk_checksum(row[1]) != row[0]:
                    raise damaged_chunk(partition, chunk)
                found[chunk] = row[1]

        self._run(read)
        return found

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One reading, or reopening a file whose connection was given up."""
        if self._connection is None:
            self.open()
        connection = self._connection
        if connection is None:
            raise StoreCorrupt(f"{self.path} is closed")
        try:
            return work(connection)
        except sqlite3.Error as error:
            self.close()
            raise translate(error, self.path) from error

    def _change(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        """One transaction. Writing it again is harmless: an unknown outcome is a failure like others."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

        self._run(change)


def _put_snapshot(connection: sqlite3.Connection, snapshot: Snapshot) -> None:
    partition = snapshot.partition
    there = {
        ChunkId(segment, Position(position)): None
        for segment, position in connection.execute(
            "SELECT segment, position FROM chunk WHERE partition = ?", (partition,)
        )
    }
    if any(chunk not in there for chunk in snapshot.chunks):
        raise StoreCorrupt(f"a snapshot of partition {partition} needs chunks that are not there")
    connection.execute(
        "INSERT OR REPLACE INTO snapshot VALUES (?,?,?,?,?,?,?,?)",
        (
            partition,
            snapshot.position,
            snapshot.version,
            snapshot.hash,
            snapshot.checksum,
            row_checksum(snapshot),
            _pack(snapshot.chunks),
            snapshot.head,
        ),
    )
    kept = connection.execute(
        "SELECT position, chunks FROM snapshot WHERE partition = ? ORDER BY position DESC LIMIT ?",
        (partition, SNAPSHOTS_KEPT),
    ).fetchall()
    connection.execute("DELETE FROM snapshot WHERE partition = ? AND position < ?", (partition, kept[-1][0]))
    for _, chunks in kept:
        try:
            names = _unpack(chunks)
        except struct.error:
            # Damaged; it is left out when it is read, and needs no chunks.
            continue
        for chunk in names:
            there.pop(chunk, None)
    connection.executemany(
        "DELETE FROM chunk WHERE partition = ? AND segment = ? AND position = ?",
        [(partition, chunk.segment, chunk.position) for chunk in there],
    )


def _pack(chunks: Sequence[ChunkId]) -> bytes:
    numbers = [number for chunk in chunks for number in (chunk.segment, chunk.position)]
    return struct.pack(f"<{len(numbers)}q", *numbers)


def _unpack(data: bytes) -> tuple[ChunkId, ...]:
    """Raises struct.error: these are no names of chunks."""
    return tuple(
        ChunkId(segment, Position(position)) for segment, position in struct.iter_unpack("<qq", data)
    )
