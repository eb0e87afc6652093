"""The connections that read records. Everything here runs in the readers' thread, call after call."""

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from querator.core.ids import PartitionId, Position
from querator.core.limits import SQLITE_FILES_MAX
from querator.log.records import Record
from querator.log.rules import size_of
from querator.log.sqlite.buckets import (
    READ_PAYLOAD,
    BucketFile,
    record_of,
)
from querator.log.sqlite.files import open_to_read, translate


class Reader:
    """Reads from the buckets that each call is given; keeps their files open."""

    def __init__(self) -> None:
        self._connections: OrderedDict[Path, sqlite3.Connection] = OrderedDict()

    def read(
        self,
        buckets: Sequence[BucketFile],
        partition: PartitionId,
        start: Position,
        records_max: int,
        bytes_max: int,
        statement: str,
    ) -> list[Record]:
        """A page of records, from ``buckets`` in order: those that hold ``start`` and what follows.

        ``statement`` is READ or READ_WITHOUT_PAYLOADS.

        Raises:
            StoreCorrupt: a file is damaged.
            LogUnavailable: not now.
        """
        records: list[Record] = []
        size = 0
        for bucket in buckets:
            # A bucket that is followed by none of the partition's records is read past quickly.
            try:
                rows = self._connection(bucket.path).execute(
                    statement,
                    (partition, start + len(records), records_max - len(records)),
                )
                for row in rows:
                    record = record_of(row)
                    size += size_of(record)
                    records.append(record)
                    if size >= bytes_max:
                        break
                # An unfinished statement would keep the write-ahead log from being moved.
                rows.close()
            except sqlite3.Error as error:
                raise translate(error, bucket.path) from error
            if size >= bytes_max or len(records) >= records_max:
                break
        return records

    def read_payloads(
        self, wanted: Sequence[tuple[BucketFile, Position]], partition: PartitionId
    ) -> dict[Position, bytes]:
        """The payload blocks at these positions, as far as there are records.

        Raises:
            StoreCorrupt, LogUnavailable: see ``read``.
        """
        found = {}
        for bucket, position in wanted:
            try:
                row = self._connection(bucket.path).execute(READ_PAYLOAD, (partition, position)).fetchone()
            except sqlite3.Error as error:
                raise translate(error, bucket.path) from error
            if row is not None:
                found[position] = row[0]
        return found

    def forget(self, path: Path) -> None:
        """The file is about to be removed."""
        connection = self._connections.pop(path, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def sizes(self, buckets: Sequence[BucketFile]) -> list[int]:
        """Bytes on the disk of each bucket, its write-ahead log included."""
        return [
            sum(path.stat().st_size for path in (bucket.path, Path(f"{bucket.path}-wal")) if path.exists())
            for bucket in buckets
        ]

    def _connection(self, path: Path) -> sqlite3.Connection:
        connection = self._connections.pop(path, None)
        if connection is None:
            if len(self._connections) >= SQLITE_FILES_MAX:
                self._connections.popitem(last=False)[1].close()
            connection = open_to_read(path)
        self._connections[path] = connection
        return connection
