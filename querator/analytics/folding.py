"""One step of an export: records become rows, rows Parquet files, and ledgers checkpoints.

Whoever exports gives a ``Folder`` pages of partitions, one partition after the other, and has it write
what it gathered; the manifest is theirs. A folder may live in another process (parallel.py).
"""

from collections.abc import Iterator
from typing import Final, Protocol

import attrs
import trio

from querator.analytics import warehouse
from querator.analytics.directory import Archive, day_name
from querator.analytics.ledger import CheckpointUnreadable, Ledger
from querator.analytics.manifest import EVENTS, FOLDS, PAYLOADS, ArchiveError, Mark, Part, digest
from querator.analytics.rows import Gathered, RowBuffer
from querator.core import limits
from querator.core.ids import Duration, PartitionId
from querator.core.invariants import check
from querator.env import Env
from querator.log.codec import PayloadBlock, decode_columns, payload_runs
from querator.log.records import Record

_DAY: Final = 86_400_000_000


@attrs.frozen
class Made:
    """What a step wrote, for the manifest."""

    parts: list[Part] = attrs.field(factory=list)
    payload_parts: list[Part] = attrs.field(factory=list)
    marks: list[Mark] = attrs.field(factory=list)
    """Of the partitions that have something in it."""
    records: int = 0
    rows: int = 0
    items: int = 0


class Folder(Protocol):
    """Owned by one task of an export."""

    async def reset(self) -> None:
        """A refresh begins: forget a step that did not finish."""

    async def begin(self, partition: PartitionId, mark: Mark | None) -> None:
        """The records that follow are this partition's, from behind its mark on.

        Raises:
            ArchiveError: its checkpoint is missing or damaged.
        """

    async def take(self, page: list[Record]) -> bool:
        """Fold these records; whether it is time for a step.

        Raises:
            CorruptRecord: one of them is not what should be there.
        """

    async def step(self, generation: int) -> Made:
        """Write what was gathered; nothing was, if nothing came of it.

        Raises:
            ArchiveError: it cannot be written.
        """


@attrs.define
class _Dirty:
    """A partition that has rows in the step being made."""

    ledger: Ledger
    rows: int
    last_at: int


class LocalFolder:
    """Folds here. ``pace`` as of Exporter; ``suffix`` tells its files from those of others; ``keeps`` the
    ledgers between refreshes, so that each begins where the last one ended."""

    def __init__(
        self,
        env: Env,
        archive: Archive,
        *,
        pace: float = 1.0,
        memory_limit: str = limits.ANALYTICS_MEMORY,
        threads: int = 0,
        suffix: str = "",
        keeps: bool = False,
    ) -> None:
        self._env = env
        self._archive = archive
        self._pace = pace
        self._memory_limit = memory_limit
        self._threads = threads
        self._suffix = suffix
        self._keeps = keeps
        self._ledger: Ledger | None = None
        self._buffer = RowBuffer()
        self._payload_rows: list[tuple[int, int, int, int, bytes]] = []
        """(day, partition, item, position, payload)."""
        self._payload_bytes = 0
        self._dirty: dict[int, _Dirty] = {}
        self._marks: dict[int, Mark] = {}
        """Of the partitions that were begun, behind the last step."""
        self._ledgers: dict[int, Ledger] = {}
        """As they are at the marks of the manifest that was written last."""
        self._records = 0
        self._late = 0
        """How late the event loop was when we rested last, microseconds."""

    async def reset(self) -> None:
        """See Folder."""
        if self._dirty:
            self._ledgers.clear()
        self._marks = {}
        self._clear()

    def _clear(self) -> None:
        self._buffer.clear()
        self._payload_rows = []
        self._payload_bytes = 0
        self._dirty = {}
        self._records = 0

    async def begin(self, partition: PartitionId, mark: Mark | None) -> None:
        """See Folder."""
        if mark is not None:
            self._marks[partition] = mark
        self._ledger = await self._restore(partition, mark)

    async def _restore(self, partition: PartitionId, mark: Mark | None) -> Ledger:
        """The ledger where the partition's export stands."""
        if mark is None:
            return Ledger(partition)
        kept = self._ledgers.get(partition)
        if kept is not None and kept.tail is not None and kept.tail.hash.hex() == mark.hash:
            return kept
        path = self._archive.directory / mark.fold
        try:
            content = await self._env.files.read(path)
            if digest(content) != mark.digest:
                raise CheckpointUnreadable("its content is not what was written")
            ledger = await self._env.threads.run(Ledger.restore, partition, content)
        except FileNotFoundError:
            raise ArchiveError(f"{path} is missing: export anew into another directory") from None
        except CheckpointUnreadable as error:
            raise ArchiveError(f"{path} is damaged ({error}): export anew into another directory") from error
        if ledger.position != mark.position:
            raise ArchiveError(
                f"{path} stands at position {ledger.position}, the manifest at {mark.position}"
            )
        return ledger

    async def take(self, page: list[Record]) -> bool:
        """See Folder. In slices, between which everybody else has their turn."""
        ledger = self._ledger
        check(ledger is not None, "records before a partition was begun")
        if ledger is None:
            return False
        if page:
            dirty = self._dirty.get(ledger.partition)
            if dirty is None:
                dirty = self._dirty[ledger.partition] = _Dirty(ledger, 0, 0)
            clock = self._env.clock
            sliced = clock.monotonic()
            for _ in self._fold(dirty, page):
                worked = clock.monotonic() - sliced
                if worked > limits.EXPORT_SLICE:
                    await self._rest(worked)
                    sliced = clock.monotonic()
        await trio.lowlevel.checkpoint()
        return (
            self._buffer.rows >= limits.EXPORT_STEP_ROWS
            or self._payload_bytes >= limits.EXPORT_STEP_PAYLOAD_BYTES
        )

    def _fold(self, dirty: _Dirty, page: list[Record]) -> Iterator[None]:
        """In steps, as of ``Ledger.folding``."""
        ledger, buffer = dirty.ledger, self._buffer
        before = buffer.rows
        buffer.pop_last_at()
        if not any(record.payload for record in page):
            yield from ledger.folding_page(page, buffer)
        else:
            for record in page:
                yield from ledger.folding(record)
                rows = ledger.short_rows
                buffer.extend(rows)
                if record.payload:
                    self._take_payloads(record, rows[-1][3] if rows else record.written_at)
        dirty.rows += buffer.rows - before
        dirty.last_at = buffer.pop_last_at() or dirty.last_at
        self._records += len(page)

    async def _rest(self, worked: int) -> None:
        """Leave the event loop to others, after so many microseconds of work."""
        clock = self._env.clock
        if self._pace >= 1:
            await clock.sleep(Duration(0))
            return
        wanted = int(worked * (1 / self._pace - 1)) + limits.EXPORT_LATE_FACTOR * self._late
        rest = Duration(min(wanted, limits.EXPORT_REST_MAX))
        asleep = clock.monotonic()
        await clock.sleep(rest)
        self._late = max(0, clock.monotonic() - asleep - rest)

    def _take_payloads(self, record: Record, at: int) -> None:
        content = record.payload or b""
        block = PayloadBlock(content)
        day = at // _DAY
        index = 0
        for first, count in payload_runs(decode_columns(record.events)):
            for offset, payload in enumerate(block.range(index, count)):
                self._payload_rows.append((day, record.partition, first + offset, record.position, payload))
            index += count
        self._payload_bytes += len(content)

    async def step(self, generation: int) -> Made:
        """See Folder."""
        if not self._dirty:
            return Made()
        connection = await self._archive.open_database(self._memory_limit, self._threads)
        try:
            made = await self._write(connection, generation)
        except warehouse.DuckDBError as error:
            raise ArchiveError(f"{self._archive.directory} cannot be written: {error}") from error
        finally:
            connection.close()
        if self._keeps:
            self._ledgers |= {partition: dirty.ledger for partition, dirty in self._dirty.items()}
        self._marks |= {mark.partition: mark for mark in made.marks}
        self._clear()
        return made

    async def _write(self, connection: warehouse.Connection, generation: int) -> Made:
        parts: list[Part] = []
        rows = await self._env.threads.run(self._buffer.gathered)
        for day in rows.days:
            parts.append(await self._write_day(connection, rows, day, generation))
        payload_parts: list[Part] = []
        for day in sorted(dict.fromkeys(row[0] for row in self._payload_rows)):
            payload_parts.append(await self._write_payload_day(connection, day, generation))
        marks = [
            await self._write_fold(dirty, self._marks.get(partition), generation)
            for partition, dirty in sorted(self._dirty.items())
        ]
        items = sum(part.items for part in parts)
        return Made(parts, payload_parts, marks, self._records, self._buffer.rows, items)

    async def _write_day(
        self, connection: warehouse.Connection, rows: Gathered, day: int, generation: int
    ) -> Part:
        counted: list[tuple[int, int]] = []
        name = f"{EVENTS}/day={day_name(day)}/part-{generation:08}{self._suffix}.parquet"
        part = await self._archive.put_part(
            name,
            day_name(day),
            0,
            0,
            lambda path: counted.append(warehouse.write_rows(connection, rows, day, path)),
            is_compacted=False,
        )
        return attrs.evolve(part, rows=counted[0][0], items=counted[0][1])

    async def _write_payload_day(self, connection: warehouse.Connection, day: int, generation: int) -> Part:
        rows = [row[1:] for row in self._payload_rows if row[0] == day]
        return await self._archive.put_part(
            f"{PAYLOADS}/day={day_name(day)}/part-{generation:08}{self._suffix}.parquet",
            day_name(day),
            len(rows),
            len(rows),
            lambda path: warehouse.write_payloads(connection, rows, path),
            is_compacted=False,
        )

    async def _write_fold(self, dirty: _Dirty, old: Mark | None, generation: int) -> Mark:
        ledger = dirty.ledger
        content, name_of_content = await self._env.threads.run(_checkpoint, ledger)
        name = f"{FOLDS}/partition-{ledger.partition}-{generation:08}{self._suffix}.fold"
        await self._archive.put(name, content)
        tail = ledger.tail
        return Mark(
            ledger.partition,
            ledger.position,
            "" if tail is None else tail.hash.hex(),
            dirty.rows + (0 if old is None else old.rows),
            name,
            name_of_content,
            dirty.last_at or (0 if old is None else old.last_at),
        )


def _checkpoint(ledger: Ledger) -> tuple[bytes, str]:
    """The ledger as bytes, and their digest."""
    content = ledger.checkpoint()
    return content, digest(content)
