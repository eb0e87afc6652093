"""Appending: one statement for the records of many partitions, and what became of each.

The statement (sql/append.sql) is autocommit, so nothing of ours holds a lock while we are not
looking, a stopped process included. Whatever its outcome, sending the same records again is safe
and, once it completes, final: a record of ours that stands at its position answers MINE.
"""

import enum
from collections import deque
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
    APPEND_CANCEL_WAIT,
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
from querator.log.rules import size_of
from querator.log.store import Verdict

_LOCK_NOT_AVAILABLE: Final = "55P03"
_SEALED: Final = "23514"
_NO_SUCH_TABLE: Final = "42P01"
_NOT_A_RECORDS_FAULT: Final = ("08", "25", "28", "40", "42", "53", "57", "58", "XX")
"""Classes of errors where parting the records would be no help."""
_SPLIT_WAYS: Final = 4
"""Into so many parts a statement is parted that one record of many spoilt: each part costs a commit."""


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


@attrs.frozen
class _Part:
    """Records that go into one statement."""

    records: list[Record]
    lock_wait: Duration


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
        """Partitions whose last answer was BUSY. Each has a statement of its own, after the others'."""

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        """See ``LogStore.append``. Never cancelled half-way; ends by itself."""
        check(
            len(dict.fromkeys(record.partition for record in records)) == len(records),
            "an append has at most one record of a partition",
        )
        with trio.CancelScope(shield=True):
            verdicts = await self._settle(self._parts(records))
        answers = [verdicts.get(record.partition, Verdict.BUSY) for record in records]
        if self._blocked or Verdict.BUSY in answers:
            for record, verdict in zip(records, answers, strict=True):
                self._remember(record.partition, verdict)
        return answers

    def _parts(self, records: Sequence[Record]) -> list[_Part]:
        """What goes into each statement: as few as the bounds allow; the blocked apart, and last."""
        parts: list[_Part] = []
        blocked: list[_Part] = []
        together: list[Record] = []
        size = 0
        for record in records:
            if record.partition in self._blocked:
                blocked.append(_Part([record], APPEND_BLOCKED_WAIT))
                continue
            is_full = len(together) >= APPEND_PARTITIONS_MAX or size + size_of(record) > APPEND_BYTES_MAX
            if together and is_full:
                parts.append(_Part(together, APPEND_LOCK_WAIT))
                together, size = [], 0
            together.append(record)
            size += size_of(record)
        if together:
            parts.append(_Part(together, APPEND_LOCK_WAIT))
        return parts + blocked

    def _remember(self, partition: PartitionId, verdict: Verdict) -> None:
        if verdict is Verdict.BUSY:
            self.counts.busy += 1
            self._blocked[partition] = None
        else:
            self._blocked.pop(partition, None)

    async def _settle(self, parts: list[_Part]) -> dict[PartitionId, Verdict]:
        """Send one part after the other. Those without a verdict in the end may be sent again: BUSY.

        Raises:
            LogUnavailable: nothing was written.
            AppendOutcomeUnknown: it may have been.
        """
        verdicts: dict[PartitionId, Verdict] = {}
        todo = deque(parts)
        for _ in range(len(parts) + APPEND_TRIES_MAX):
            if not todo:
                break
            try:
                todo.extend(await self._try(todo.popleft(), verdicts))
            except (LogUnavailable, AppendOutcomeUnknown):
                # What a part has been told is worth more than that another part failed.
                if not verdicts:
                    raise
                break
        return verdicts

    async def _try(self, part: _Part, verdicts: dict[PartitionId, Verdict]) -> list[_Part]:
        """Send one part; the parts that are left of it."""
        used = self.open_bucket
        rows = await self._send(part, used)
        meaning = classify(rows.answer)
        if meaning is Meaning.UNKNOWN:
            self.counts.unknown += 1
            raise AppendOutcomeUnknown(_describe(rows.answer))
        if meaning is Meaning.COMMITTED:
            again = await self._read_fates(part.records, rows, used, verdicts)
            return [_Part(again, part.lock_wait)] if again else []
        if rows.answer.sqlstate in (_SEALED, _NO_SUCH_TABLE):
            self.counts.rollovers += 1
            await self._find_open_bucket(rows.answer, used)
            return [part]
        return self._split(part, rows.answer)

    @staticmethod
    def _split(part: _Part, answer: Answer) -> list[_Part]:
        """Nothing was written. When one record may be the reason, part it from the others.

        Raises:
            LogUnavailable: that would be no help.
        """
        sqlstate = answer.sqlstate or ""
        is_blocked = sqlstate == _LOCK_NOT_AVAILABLE
        if not is_blocked and sqlstate.startswith(_NOT_A_RECORDS_FAULT):
            raise LogUnavailable(_describe(answer))
        records = part.records
        if len(records) == 1:
            if is_blocked:
                return []
            raise LogUnavailable(_describe(answer))
        size = -(-len(records) // _SPLIT_WAYS)
        return [
            _Part(records[start : start + size], APPEND_BLOCKED_WAIT)
            for start in range(0, len(records), size)
        ]

    async def _send(self, part: _Part, bucket: int) -> Rows:
        self.counts.statements += 1
        records = part.records
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
            str(part.lock_wait // 1_000).encode(),
            wire.encode_bool(self._unsafe_durability),
            wire.encode_texts([self.identities.get(record.partition, self.identity) for record in records]),
        ]
        async with self._pool.borrow() as connection:
            return await connection.run(
                statement("append", bucket=bucket, identity=self.identity_sql),
                parameters,
                within=APPEND_TIMEOUT,
                prepare=True,
                # Alone it holds up nobody, so it has all the time there is.
                cancel_after=APPEND_CANCEL_WAIT if len(records) > 1 else None,
            )

    async def _read_fates(
        self, records: list[Record], rows: Rows, used: int, verdicts: dict[PartitionId, Verdict]
    ) -> list[Record]:
        """Take the verdicts that are final; the records to send again."""
        check(len(rows.values) == len(records), "the append statement answers for each record")
        first = rows.values[0]
        if wire.decode_int(first[0] or b"") == _Fate.INSERTED and rows.values.count(first) == len(records):
            # All of them went in, as nearly always.
            self.counts.records += len(records)
            verdicts.update(dict.fromkeys((record.partition for record in records), Verdict.MINE))
            return []
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
