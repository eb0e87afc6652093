"""One bucket: a file of records, which knows the tails that stood before its first record."""

import sqlite3
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import attrs

from querator.core.ids import Instant, PartitionId, Position
from querator.errors import StoreCorrupt
from querator.log.records import Record, Tail
from querator.log.sqlite.files import open_file, translate

# ``payload`` is the last column: SQLite does not touch the pages of what is not asked for.
SCHEMA: Final = """
    CREATE TABLE base (
        partition INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        nonce INTEGER NOT NULL
    );
    CREATE TABLE record (
        partition INTEGER NOT NULL,
        position INTEGER NOT NULL,
        nonce INTEGER NOT NULL,
        written_at INTEGER NOT NULL,
        item_min INTEGER NOT NULL,
        item_max INTEGER NOT NULL,
        version INTEGER NOT NULL,
        previous_hash BLOB NOT NULL,
        hash BLOB NOT NULL,
        payload_checksum BLOB NOT NULL,
        inputs BLOB NOT NULL,
        events BLOB NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (partition, position)
    )
"""
INSERT: Final = "INSERT INTO record VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
ROW_OF: Final = attrgetter(
    "partition",
    "position",
    "nonce",
    "written_at",
    "item_min",
    "item_max",
    "version",
    "previous_hash",
    "hash",
    "payload_checksum",
    "inputs",
    "events",
    "payload",
)
"""A record as the row that ``INSERT`` writes."""

_COLUMNS: Final = (
    "partition, position, nonce, written_at, item_min, item_max, version, previous_hash, hash,"
    " payload_checksum, inputs, events"
)
_FROM: Final = "FROM record WHERE partition = ? AND position >= ? ORDER BY position LIMIT ?"
READ: Final = f"SELECT {_COLUMNS}, payload {_FROM}"
READ_WITHOUT_PAYLOADS: Final = f"SELECT {_COLUMNS}, NULL {_FROM}"
READ_PAYLOAD: Final = "SELECT payload FROM record WHERE partition = ? AND position = ?"
READ_HASH: Final = "SELECT hash FROM record WHERE partition = ? AND position = ?"
_TAILS: Final = """
    SELECT record.partition, record.position, hash, nonce
    FROM record
    JOIN (SELECT partition, max(position) AS position FROM record GROUP BY partition) AS last
        ON record.partition = last.partition AND record.position = last.position
"""


@attrs.frozen
class BucketFile:
    """A bucket as the store knows it."""

    number: int
    path: Path
    base: Mapping[PartitionId, Tail]
    """The tails before its first record: what an earlier bucket holds, or held."""

    def begins_behind(self, partition: PartitionId) -> int:
        """Position of the last record of the partition that is not in this bucket or a later one."""
        tail = self.base.get(partition)
        return tail.position if tail is not None else 0


def bucket_name(number: int) -> str:
    return f"log-{number:06}.db"


def bucket_number(name: str) -> int | None:
    """The number of the bucket in a file of this name; ``None``: no bucket."""
    digits = name.removeprefix("log-").removesuffix(".db")
    return int(digits) if digits.isdecimal() and name == bucket_name(int(digits)) else None


def read_base(connection: sqlite3.Connection) -> dict[PartitionId, Tail]:
    return _tails(connection.execute("SELECT partition, position, hash, nonce FROM base"))


def read_buckets(paths: Mapping[int, Path]) -> list[BucketFile]:
    """Check the files of buckets and read their bases; oldest first.

    Raises:
        StoreCorrupt: one cannot be read.
        LogUnavailable: not now.
    """
    found = []
    for number, path in sorted(paths.items()):
        connection = open_file(path, SCHEMA)
        try:
            found.append(BucketFile(number, path, read_base(connection)))
        except sqlite3.Error as error:
            raise translate(error, path) from error
        finally:
            connection.close()
    return found


def read_tails(connection: sqlite3.Connection) -> dict[PartitionId, Tail]:
    """The tails of all partitions that this bucket or an earlier one has records of."""
    return {**read_base(connection), **_tails(connection.execute(_TAILS))}


def write_base(connection: sqlite3.Connection, tails: Mapping[PartitionId, Tail]) -> None:
    """Fill a new bucket's base; one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO base VALUES (?,?,?,?)",
        [(partition, tail.position, tail.hash, tail.nonce) for partition, tail in sorted(tails.items())],
    )
    connection.execute("COMMIT")


def record_of(row: tuple[Any, ...]) -> Record:
    partition, position, nonce, written_at, item_min, item_max, version, *blobs = row
    previous_hash, digest, payload_checksum, inputs, events, payload = blobs
    return Record(
        PartitionId(partition),
        Position(position),
        previous_hash,
        nonce,
        Instant(written_at),
        item_min,
        item_max,
        version,
        events,
        payload,
        payload_checksum,
        inputs,
        digest,
    )


def check_continuity(buckets: list[BucketFile], oldest: int) -> None:
    """That no bucket is missing.

    Raises:
        StoreCorrupt: one is; the text says which.
    """
    for expected, bucket in enumerate(buckets, start=oldest):
        if bucket.number != expected:
            raise StoreCorrupt(
                f"{bucket.path.with_name(bucket_name(expected))} is missing: put it back from a copy"
            )


def _tails(rows: Iterable[tuple[int, int, bytes, int]]) -> dict[PartitionId, Tail]:
    return {
        PartitionId(partition): Tail(Position(position), digest, nonce)
        for partition, position, digest, nonce in rows
    }
