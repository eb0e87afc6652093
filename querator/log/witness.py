"""The witness: a small file, apart from the store, that remembers how far each partition's log had come.

A store can lose its end without noticing: a bit flipped in SQLite's write-ahead log drops what comes
after it, a PostgreSQL standby may be promoted behind its primary. The witness is written a little after
the log, so what it says was there once; a log that ends before it, or goes through another record at
that position, has lost acknowledged data.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from querator import telemetry
from querator.core.ids import PartitionId, Position
from querator.core.limits import WITNESS_INTERVAL
from querator.env import Env
from querator.errors import DataLossSuspected, HistoryDropped, StoreCorrupt
from querator.log.delegating import DelegatingLog
from querator.log.records import Record, Tail
from querator.log.store import LogStore, Verdict

_VERSION: Final = 1


class _Document(msgspec.Struct):
    """The file: JSON. ``checksum`` is over the tails."""

    version: int
    tails: list[tuple[int, int, str]]
    """(partition, position, hash in hexadecimal), by partition."""
    checksum: str


class Witness:
    """How far the partitions of one store had come, as far as this node saw."""

    def __init__(self, env: Env, path: Path) -> None:
        self._env = env
        self._path = path
        self._tails: dict[PartitionId, tuple[Position, bytes]] = {}
        self._accepted: dict[PartitionId, None] = {}
        self._changed = trio.Event()
        self._is_written = True

    async def load(self) -> None:
        """Read the file, if there is one, and see to it that there can be.

        Raises:
            StoreCorrupt: it is not a witness; without it a loss might not be noticed.
        """
        try:
            await self._env.files.make_directory(self._path.parent)
            content = await self._env.files.read(self._path)
        except FileNotFoundError:
            return
        try:
            document = msgspec.json.decode(content, type=_Document)
            self._tails = {
                PartitionId(partition): (Position(position), bytes.fromhex(digest))
                for partition, position, digest in document.tails
            }
            is_good = document.version == _VERSION and document.checksum == _checksum(document.tails)
        except ValueError:
            is_good = False
        if not is_good:
            raise StoreCorrupt(
                f"the witness file {self._path} cannot be read: if you are sure that the log is whole, "
                "remove the file; it is made anew"
            )

    def position(self, partition: PartitionId) -> Position:
        """How far the partition had come; 0 when it was never seen."""
        return self._tails.get(partition, (Position(0), b""))[0]

    def note(self, partition: PartitionId, position: Position, digest: bytes) -> None:
        """The record is committed. The file follows when it does."""
        seen = self._tails.get(partition)
        if seen is None or position >= seen[0] or partition in self._accepted:
            self._accepted.pop(partition, None)
            self._tails[partition] = (position, digest)
            if self._is_written:
                self._is_written = False
                self._changed.set()

    def accept(self, partition: PartitionId) -> None:
        """An operator accepts that something was lost: what is remembered counts no more.

        It is forgotten with the next ``note``: before the acceptance is in the log, a start finds out anew.
        """
        self._accepted[partition] = None

    def compare(self, partition: PartitionId, tail: Tail | None) -> None:
        """Compare a log's tail with what was seen of it.

        Raises:
            DataLossSuspected: the log ends before it, or in another record.
        """
        if partition in self._accepted:
            return
        position, digest = self._tails.get(partition, (Position(0), b""))
        at = tail.position if tail is not None else 0
        if at < position:
            raise DataLossSuspected(
                f"the log of partition {partition} ends at {at}, but {position} had been acknowledged"
            )
        if tail is not None and at == position and tail.hash != digest:
            raise _other_record(partition, position)

    async def check(self, store: LogStore, partition: PartitionId, tail: Tail | None) -> None:
        """``compare``, and look that the log goes through the record that was seen.

        Raises:
            DataLossSuspected: it does not.
            LogUnavailable, StoreCorrupt: from the store.
        """
        self.compare(partition, tail)
        position, digest = self._tails.get(partition, (Position(0), b""))
        if partition in self._accepted:
            return
        if tail is None or not 0 < position < tail.position:
            return
        try:
            page = await store.read(partition, position, records_max=1, bytes_max=1, payloads=False)
        except HistoryDropped:
            # Everything up to there is behind a snapshot, and was exported.
            return
        if not page or page[0].hash != digest:
            raise _other_record(partition, position)

    async def run(self) -> None:
        """Write the file while it is behind, at most every WITNESS_INTERVAL; for ever."""
        while True:
            await self._changed.wait()
            await self._env.clock.sleep(WITNESS_INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Write the file now if it is behind. A failure is reported, and tried again with the next note."""
        if self._is_written:
            return
        self._changed = trio.Event()
        self._is_written = True
        tails = [(partition, *self._tails[partition]) for partition in sorted(self._tails)]
        rows = [(int(partition), int(position), digest.hex()) for partition, position, digest in tails]
        content = msgspec.json.encode(_Document(_VERSION, rows, _checksum(rows)))
        try:
            await self._env.files.write(self._path, content)
        except OSError as error:
            self._is_written = False
            self._changed.set()
            telemetry.emit("witness.failed", path=str(self._path), error=str(error))


def _other_record(partition: PartitionId, position: int) -> DataLossSuspected:
    return DataLossSuspected(
        f"record {position} of partition {partition} is not the one that had been acknowledged"
    )


def _checksum(rows: Sequence[tuple[int, int, str]]) -> str:
    return hashlib.blake2b(msgspec.json.encode(rows), digest_size=8).hexdigest()


@attrs.define
class WitnessedLog(DelegatingLog):
    """A log store whose tails are compared with a witness, which is told of what was committed.

    ``tail`` is where a claim begins: it raises DataLossSuspected. Everything else is the store's.
    Whoever opens it runs ``witness.run`` in the background, and flushes it in the end.
    """

    witness: Witness

    async def open(self) -> None:
        await self.store.open()
        await self.witness.load()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self.witness.flush()
            await self.store.aclose()

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        verdicts = await self.store.append(records)
        for record, verdict in zip(records, verdicts, strict=True):
            if verdict is Verdict.MINE:
                self.witness.note(record.partition, record.position, record.hash)
        return verdicts

    async def tail(self, partition: PartitionId) -> Tail | None:
        tail = await self.store.tail(partition)
        await self.witness.check(self.store, partition, tail)
        return tail

    def remembered(self, partition: PartitionId) -> Position:
        return self.witness.position(partition)

    def accept_loss(self, partition: PartitionId) -> None:
        self.witness.accept(partition)
