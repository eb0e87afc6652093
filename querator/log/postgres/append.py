"""Appending: one statement for the records of many partitions, and what became of each.

The statement (sql/append.sql) is autocommit, so nothing of ours holds a lock while we are not
looking, a stopped process included. Whatever its outcome, sending the same records again is safe
and, once it completes, final: a record of ours that stands at its position answers MINE.
"""

import enum
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core.ids import Duration, PartitionId
from querator.core.invariants import check
from querator.core.limits import (
    APPEND_BLOCKED_WAIT,
    APPEND_BYTES_MAX,
    APPEND_LOCK_WAIT,
    APPEND_PARTITIONS_MAX,
    APPEND_TIMEOUT,
    APPEND_TRIES_MAX,
    QUERY_TIMEOUT,
)
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.postgres import wire
from querator.log.postgres.checks import UNSAFE_DURABILITY
from querator.log.postgres.classify import Answer, Meaning, classify
from querator.log.postgres.connection import Rows
from querator.log.postgres.pool import Pool
from querator.log.postgres.statements import statement
from querator.log.records import Record
from querator.log.store import Verdict

_LOCK_NOT_AVAILABLE: Final = "55P03"
_SEALED: Final = "23514"
_NO_SUCH_TABLE: Final = "42P01"
_NOT_A_RECORDS_FAULT: Final = ("08", "25", "28", "40", "42", "53", "57", "58", "XX")
"""Classes of errors where sending each record alone would be no help."""


class _Fate(enum.IntEnum):
    """The statement's answer for one record."""

    INSERTED = 1
    FOUND = 2
    """It was there already: an earlier try of ours was committed."""
    REFUSED = 3
    """Another record stands there, or the predecessor is not the one it names."""
    BEHIND = 4
    """The partition has records at or past that position in sealed buckets: look there."""
    CONFLICT = 5
    """It fits, the position looked free, and yet somebody was faster: look again."""
    OTHER_SERVER = 6
    NOT_DURABLE = 7


_VERDICTS: Final = {
    _Fate.INSERTED: Verdict.MINE,
    _Fate.FOUND: Verdict.MINE,
    _Fate.REFUSED: Verdict.NOT_MINE,
    _Fate.OTHER_SERVER: Verdict.NOT_MINE,
}


@attrs.define
class AppendCounts:
    """What the appends of a store came to, since it was opened."""

    statements: int = 0
    records: int = 0
    """Committed."""
    unknown: int = 0
    busy: int = 0
    other_server: int = 0
    """Records refused because the server is not the one their partition was claimed on."""
    rollovers: int = 0
    """Statements that met a bucket just sealed."""


class Appender:
    """Commits records over the connections of ``pool``.

    ``open_bucket`` may lag: the statement that notices corrects it. Several ``append`` may run at once
    over disjoint partitions.
    """

    def __init__(self, pool: Pool, *, unsafe: frozenset[str]) -> None:
        self.counts = AppendCounts()
        self.open_bucket = 0
        self.identity_sql = ""
        self.identity = ""
        """Of the server that was opened: for partitions whose tail was never read."""
        self.identities: dict[PartitionId, str] = {}
        """Of the server each partition's tail was last read from."""
        self._pool = pool
        self._unsafe_durability = UNSAFE_DURABILITY in unsafe
        self._blocked: dict[PartitionId, None] = {}
        """Partitions whose last answer was BUSY. They are sent alone, so that they hold up no others."""

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        """See ``LogStore.append``. Never cancelled half-way; ends by itself."""
        check(
            len(dict.fromkeys(record.partition for record in records)) == len(records),
            "an append has at most one record of a partition",
        )
        verdicts: list[Verdict | None] = [None] * len(records)
        failures: list[LogUnavailable | AppendOutcomeUnknown] = []

        async def send(indexes: list[int]) -> None:
            try:
                found = await self._settle([records[index] for index in indexes])
            except (LogUnavailable, AppendOutcomeUnknown) as failure:
                failures.append(failure)
                return
            for index, verdict in zip(indexes, found, strict=True):
                verdicts[index] = verdict

        flushes = self._flushes(records)
        with trio.CancelScope(shield=True):
            if len(flushes) == 1:
                await send(flushes[0])
            else:
                async with trio.open_nursery() as nursery:
                    for flush in flushes:
                        nursery.start_soon(send, flush)
        self._raise_if_nothing_is_known(verdicts, failures)
        answers = [Verdict.BUSY if verdict is None else verdict for verdict in verdicts]
        for record, verdict in zip(records, answers, strict=True):
            self._remember(record.partition, verdict)
        return answers

    def _flushes(self, records: Sequence[Record]) -> list[list[int]]:
        """Indexes of the records of each statement: as few statements as the bounds allow."""
        flushes: list[list[int]] = []
        together: list[int] = []
        size = 0
        for index, record in enumerate(records):
            if record.partition in self._blocked:
                flushes.append([index])
                continue
            record_size = len(record.events) + len(record.payload or b"") + len(record.inputs)
            is_full = len(together) >= APPEND_PARTITIONS_MAX or size + record_size > APPEND_BYTES_MAX
            if together and is_full:
                flushes.append(together)
                together, size = [], 0
            together.append(index)
            size += record_size
        return [*flushes, together] if together else flushes

    @staticmethod
    def _raise_if_nothing_is_known(
        verdicts: list[Verdict | None], failures: list[LogUnavailable | AppendOutcomeUnknown]
    ) -> None:
        """A part that failed is BUSY when the rest has verdicts; BUSY promises no more than "try again"."""
        if any(verdict is not None for verdict in verdicts):
            return
        for failure in failures:
            if isinstance(failure, AppendOutcomeUnknown):
                raise failure
        for failure in failures:
            raise failure

    def _remember(self, partition: PartitionId, verdict: Verdict) -> None:
        if verdict is Verdict.BUSY:
            self.counts.busy += 1
            self._blocked[partition] = None
        else:
            self._blocked.pop(partition, None)

    async def _settle(self, records: list[Record]) -> list[Verdict]:
        """Send until each record has a verdict.

        Raises:
            LogUnavailable: nothing was written.
            AppendOutcomeUnknown: it may have been.
        """
        verdicts: dict[PartitionId, Verdict] = {}
        pending = records
        for _ in range(APPEND_TRIES_MAX):
            used = self.open_bucket
            rows = await self._send(pending, used)
            meaning = classify(rows.answer)
            if meaning is Meaning.UNKNOWN:
                self.counts.unknown += 1
                raise AppendOutcomeUnknown(_describe(rows.answer))
            if meaning is Meaning.NOT_WRITTEN:
                if rows.answer.sqlstate in (_SEALED, _NO_SUCH_TABLE):
                    self.counts.rollovers += 1
                    await self._find_open_bucket(rows.answer, used)
                    continue
                for record, verdict in zip(pending, await self._isolate(pending, rows.answer), strict=True):
                    verdicts[record.partition] = verdict
                pending = []
            else:
                pending = await self._read_fates(pending, rows, used, verdicts)
            if not pending:
                break
        return [verdicts.get(record.partition, Verdict.BUSY) for record in records]

    async def _send(self, records: list[Record], bucket: int) -> Rows:
        self.counts.statements += 1
        parameters = [
            wire.encode_int8s([record.partition for record in records]),
            wire.encode_int8s([record.position for record in records]),
            wire.encode_int8s([record.nonce for record in records]),
            wire.encode_int8s([record.written_at for record in records]),
            wire.encode_int8s([record.item_min for record in records]),
            wire.encode_int8s([record.item_max for record in records]),
            wire.encode_int4s([record.version for record in records]),
            wire.encode_byteas([record.previous_hash for record in records]),
            wire.encode_byteas([record.hash for record in records]),
            wire.encode_byteas([record.payload_checksum for record in records]),
            wire.encode_byteas([record.inputs for record in records]),
            wire.encode_byteas([record.events for record in records]),
            wire.encode_byteas([record.payload or b"" for record in records]),
            str(self._lock_wait(records) // 1_000).encode(),
            wire.encode_bool(self._unsafe_durability),
            wire.encode_texts([self.identities.get(record.partition, self.identity) for record in records]),
        ]
        async with self._pool.borrow() as connection:
            return await connection.run(
                statement("append", bucket=bucket, identity=self.identity_sql),
                parameters,
                within=APPEND_TIMEOUT,
                prepare=True,
            )

    def _lock_wait(self, records: list[Record]) -> Duration:
        is_known_to_block = len(records) == 1 and records[0].partition in self._blocked
        return APPEND_BLOCKED_WAIT if is_known_to_block else APPEND_LOCK_WAIT

    async def _isolate(self, records: list[Record], answer: Answer) -> list[Verdict]:
        """Nothing was written. When one record may be the reason, try each alone."""
        sqlstate = answer.sqlstate or ""
        if sqlstate != _LOCK_NOT_AVAILABLE and sqlstate.startswith(_NOT_A_RECORDS_FAULT):
            raise LogUnavailable(_describe(answer))
        if len(records) == 1:
            if sqlstate == _LOCK_NOT_AVAILABLE:
                return [Verdict.BUSY]
            raise LogUnavailable(_describe(answer))
        verdicts = [Verdict.BUSY] * len(records)

        async def send(index: int) -> None:
            try:
                verdicts[index] = (await self._settle([records[index]]))[0]
            except (LogUnavailable, AppendOutcomeUnknown):
                # BUSY: the same bytes may be tried again, which is the remedy for both.
                return

        async with trio.open_nursery() as nursery:
            for index in range(len(records)):
                nursery.start_soon(send, index)
        return verdicts

    async def _read_fates(
        self, records: list[Record], rows: Rows, used: int, verdicts: dict[PartitionId, Verdict]
    ) -> list[Record]:
        """Take the verdicts that are final; the records to send again."""
        check(len(rows.values) == len(records), "the append statement answers for each record")
        again = []
        sealed = False
        for record, (fate_column, bucket_column) in zip(records, rows.values, strict=True):
            check(fate_column is not None and bucket_column is not None, "a fate for each record")
            fate = _Fate(wire.decode_int(fate_column or b""))
            bucket = wire.decode_int(bucket_column or b"")
            if fate is _Fate.NOT_DURABLE:
                raise LogUnavailable("synchronous_commit is off: a crash would lose what is acknowledged")
            if fate is _Fate.INSERTED:
                self.counts.records += 1
            elif bucket != used and fate not in (_Fate.FOUND, _Fate.OTHER_SERVER):
                # Looked at through a bucket that is sealed: there may be more to see in the open one.
                sealed = True
                again.append(record)
                continue
            if fate is _Fate.OTHER_SERVER:
                self.counts.other_server += 1
                telemetry.emit("log.server_changed", partition=record.partition)
            if fate is _Fate.CONFLICT:
                again.append(record)
            elif fate is _Fate.BEHIND:
                verdicts[record.partition] = await self._look_behind(record)
            else:
                verdicts[record.partition] = _VERDICTS[fate]
        if sealed:
            self.counts.rollovers += 1
            self.open_bucket = max(self.open_bucket, *(wire.decode_int(row[1] or b"") for row in rows.values))
        return again

    async def _look_behind(self, record: Record) -> Verdict:
        """Whose record stands at a position of a sealed bucket; BUSY when it cannot be read now."""
        async with self._pool.borrow() as connection:
            position = [wire.encode_int8(record.partition), wire.encode_int8(record.position)]
            located = await connection.run(statement("locate"), position, within=QUERY_TIMEOUT)
            if not located.answer.completed:
                return Verdict.BUSY
            bucket, dropped, _ = located.values[0]
            if wire.decode_bool(dropped or b""):
                # Long settled, and not by the one who still asks.
                return Verdict.NOT_MINE
            table = statement("find_record", bucket=wire.decode_int(bucket or b""))
            found = await connection.run(table, position, within=QUERY_TIMEOUT)
        if not found.answer.completed:
            return Verdict.BUSY
        ours = [(wire.encode_int8(record.nonce), record.hash)]
        return Verdict.MINE if found.values == ours else Verdict.NOT_MINE

    async def _find_open_bucket(self, answer: Answer, used: int) -> None:
        async with self._pool.borrow() as connection:
            rows = await connection.run(statement("open_bucket_number"), within=QUERY_TIMEOUT)
        if not rows.answer.completed:
            raise LogUnavailable(_describe(rows.answer))
        found = wire.decode_int(rows.values[0][0] or b"")
        if found == used:
            # Not a rollover: the open bucket itself refuses, or is gone.
            raise LogUnavailable(_describe(answer))
        self.open_bucket = max(self.open_bucket, found)


def _describe(answer: Answer) -> str:
    parts = [answer.message, *answer.notices]
    if answer.sqlstate is not None:
        parts.append(f"{answer.severity} {answer.sqlstate}")
    return "PostgreSQL: " + ", ".join(part for part in parts if part)
