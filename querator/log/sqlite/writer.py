"""The connection that appends. Everything here runs in the writer's thread, call after call."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from querator.core.ids import PartitionId
from querator.core.invariants import check
from querator.core.limits import SQLITE_WAL_BYTES
from querator.errors import AppendOutcomeUnknown, LogError, LogUnavailable, StoreCorrupt
from querator.log.records import Record, Tail
from querator.log.rules import Standing, size_of, standing
from querator.log.sqlite.buckets import (
    INSERT,
    READ_HASH,
    ROW_OF,
    SCHEMA,
    BucketFile,
    read_tails,
    write_base,
)
from querator.log.sqlite.files import checkpoint, is_full, open_file, open_to_read, translate
from querator.log.store import Verdict

_COMMIT_BYTES: Final = 16_384
"""What a commit adds to the write-ahead log beside the records, about: the pages around them."""


class Writer:
    """Appends to the open bucket, and knows every partition's tail.

    The tails are those of committed records. They are right as long as ``is_sound``: no commit ended in
    an error since the file was opened.
    """

    def __init__(self, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self._factory = factory
        self._connection: sqlite3.Connection | None = None
        self._buckets: list[BucketFile] = []
        self._wal_bytes = 0
        self.tails: dict[PartitionId, Tail] = {}
        self.is_sound = True
        self.checkpoint_failure = ""
        """Why the last checkpoint failed; "" when it did not."""

    @property
    def _path(self) -> Path:
        return self._buckets[-1].path

    def start(self, buckets: Sequence[BucketFile]) -> None:
        """``open``, also on a full disk: the write-ahead log has been flushed before room is missing."""
        self.open(buckets, on_full_disk=True)

    def open(self, buckets: Sequence[BucketFile], *, on_full_disk: bool = False) -> None:
        """Open the last of the buckets to append to it. ``on_full_disk``: also when there is no room
        to move the write-ahead log into the file.

        Raises:
            StoreCorrupt: it cannot be read.
            LogUnavailable: it cannot be opened now.
        """
        self._buckets = list(buckets)
        self._connection = open_file(self._path, SCHEMA, factory=self._factory)
        try:
            # What a crash left in the write-ahead log is on the disk only if its fsync had come back:
            # make sure, before anybody acts on it.
            self._settle(self._connection, on_full_disk=on_full_disk)
            self.tails = read_tails(self._connection)
        except sqlite3.Error as error:
            self._discard()
            raise translate(error, self._path) from error
        self.is_sound = True

    def _settle(self, connection: sqlite3.Connection, *, on_full_disk: bool) -> None:
        try:
            checkpoint(connection, "TRUNCATE")
            self._wal_bytes = 0
        except sqlite3.Error as error:
            if not (on_full_disk and is_full(error)):
                raise

    def close(self) -> None:
        """Leave files without a write-ahead log, if possible; nothing depends on it."""
        if self._connection is not None and self.is_sound:
            try:
                checkpoint(self._connection, "TRUNCATE")
            except sqlite3.Error as error:
                self.checkpoint_failure = str(error)
        self._discard()

    def _discard(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def recover(self) -> None:
        """After a commit that ended in an error: make what is there certain, and durable.

        Raises:
            StoreCorrupt: the file cannot be read any more.
            LogUnavailable: not yet.
        """
        if self._connection is None:
            self.open(self._buckets)

    def append(self, records: Sequence[Record]) -> list[Verdict]:
        """See ``LogStore.append``.

        A damaged file is unavailable to whoever appends: reading it says what to do about it.
        """
        try:
            self.recover()
        except (LogUnavailable, StoreCorrupt) as error:
            if self.is_sound:
                raise LogUnavailable(str(error)) from error
            raise AppendOutcomeUnknown(f"an earlier append's outcome is not known yet: {error}") from error
        try:
            return self._append(records)
        except StoreCorrupt as error:
            raise LogUnavailable(str(error)) from error

    def _append(self, records: Sequence[Record]) -> list[Verdict]:
        check(
            len({record.partition: 0 for record in records}) == len(records),
            "an append has one record a partition",
        )
        verdicts = []
        fresh = []
        for record in records:
            where = standing(record, self.tails.get(record.partition))
            if where is Standing.NEXT:
                fresh.append(record)
            is_mine = where is Standing.NEXT or (where is Standing.TAKEN and self._has(record))
            verdicts.append(Verdict.MINE if is_mine else Verdict.NOT_MINE)
        if fresh:
            self._commit(fresh)
            for record in fresh:
                self.tails[record.partition] = Tail(record.position, record.hash, record.nonce)
            self._wal_bytes += _COMMIT_BYTES + sum(map(size_of, fresh))
            if self._wal_bytes > SQLITE_WAL_BYTES:
                self._checkpoint()
        return verdicts

    def _commit(self, records: Sequence[Record]) -> None:
        connection = self._connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, map(ROW_OF, records))
        except sqlite3.Error as error:
            self._roll_back(error)
        except Exception:
            # A record that is no row: a bug, which must not leave a transaction open.
            connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if is_full(error):
                self._roll_back(error)
            raise self._unknown(error) from error

    def _roll_back(self, error: sqlite3.Error) -> NoReturn:
        """Nothing was committed; make certain that nothing is, then say what was wrong.

        The file is opened anew to see: the write-ahead log may hold frames that this connection never
        accepted and that a recovery would.
        """
        try:
            connection = self._connected()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            before = {partition: tail.position for partition, tail in self.tails.items()}
            self._discard()
            self.open(self._buckets, on_full_disk=is_full(error))
        except (sqlite3.Error, LogError) as failure:
            raise self._unknown(failure) from error
        after = {partition: tail.position for partition, tail in self.tails.items()}
        if after != before:
            raise self._unknown(error) from error
        raise translate(error, self._path) from error

    def _unknown(self, error: Exception) -> AppendOutcomeUnknown:
        self.is_sound = False
        self._discard()
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        return AppendOutcomeUnknown(f"{self._path}: {error} ({name})")

    def _has(self, record: Record) -> bool:
        """Whether exactly this record is at its position."""
        key = (record.partition, record.position)
        for bucket in reversed(self._buckets):
            if bucket.begins_behind(record.partition) < record.position:
                break
        else:
            return False
        try:
            if bucket is self._buckets[-1]:
                row = self._connected().execute(READ_HASH, key).fetchone()
            else:
                connection = open_to_read(bucket.path)
                try:
                    row = connection.execute(READ_HASH, key).fetchone()
                finally:
                    connection.close()
        except sqlite3.Error as error:
            raise translate(error, bucket.path) from error
        return row is not None and row[0] == record.hash

    def _checkpoint(self) -> None:
        """Between two commits. Its failure fails nobody: the records are on the disk already."""
        self._wal_bytes = 0
        try:
            checkpoint(self._connected(), "PASSIVE")
            self.checkpoint_failure = ""
        except sqlite3.Error as error:
            self.checkpoint_failure = str(error)

    def prepare_bucket(self, path: Path) -> dict[PartitionId, Tail]:
        """Make the file of the next bucket, complete; the tails that it begins behind.

        Raises:
            LogUnavailable: it could not be made; nothing has changed.
        """
        self.recover()
        tails = dict(self.tails)
        connection = open_file(path, SCHEMA)
        try:
            write_base(connection, tails)
            checkpoint(connection, "TRUNCATE")
        except sqlite3.Error as error:
            raise translate(error, path) from error
        finally:
            connection.close()
        return tails

    def switch(self, buckets: Sequence[BucketFile]) -> None:
        """Go on in a new bucket, the last of these.

        Raises:
            StoreCorrupt, LogUnavailable: see ``open``.
        """
        self.close()
        self.is_sound = True
        self.open(buckets)

    def forget(self, buckets: Sequence[BucketFile]) -> None:
        """Older buckets were dropped."""
        self._buckets = list(buckets)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LogUnavailable("the store is closed")
        return self._connection
