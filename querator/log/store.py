"""The log store: what a partition's owner needs of a store, and exactly what it may rely on."""

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from querator.core.ids import PartitionId, Position
from querator.log.records import ChunkId, Record, Snapshot, Tail


class Verdict(enum.Enum):
    """What became of one record of an append."""

    MINE = "mine"
    """It is committed (now, or by an earlier try whose outcome was unknown)."""
    NOT_MINE = "not_mine"
    """Another writer's record holds that position, or the predecessor does not match: step down."""
    BUSY = "busy"
    """Nothing is known to be written; the same bytes may be tried again."""


@attrs.frozen
class Bucket:
    """A stretch of history that is dropped whole."""

    number: int
    bytes_used: int
    sealed: bool


class LogStore(Protocol):
    """An append-only log of many partitions.

    * The key (partition, position) is unique: it is the fence. A record is in at most one form.
    * ``append`` is atomic per record, and all its records are committed together; one partition's
      trouble never fails its neighbours: hence a verdict for each record.
    * A record is accepted only behind a predecessor with ``previous_hash`` (position 1: none).
    * When ``append`` raises AppendOutcomeUnknown, each record may or may not be there, or may yet
      appear: send *the same records* again; the answer is then final.
    * Sending a committed record again answers MINE, a different one at its position NOT_MINE.
    * An append is never cancelled half-way: implementations shield it and bound it themselves.
    """

    name: str
    lanes: int
    """Appends, of disjoint partitions, that it can run side by side; 1: they would only queue up."""

    @property
    def away(self) -> str:
        """Why it can't be used, as far as is known without asking; "": nothing is known against it."""

    @property
    def remarks(self) -> Sequence[str]:
        """What an operator should know of it though it can be used."""

    async def open(self) -> None:
        """Open or create the store.

        Raises:
            StoreLocked: another process has it.
            StoreCorrupt: it cannot be read; the text says what to do.
            LogUnavailable: not now.
        """

    async def aclose(self) -> None: ...

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        """Commit the records durably, at most one a partition; a verdict for each, in order.

        Raises:
            LogUnavailable: nothing was written (a full disk, say); the same records may be tried again.
            AppendOutcomeUnknown: see above.
        """

    async def partitions(self) -> list[PartitionId]: ...

    async def tail(self, partition: PartitionId) -> Tail | None: ...

    def server_identity(self, partition: PartitionId) -> str:
        """Which server the partition's tail was last read from; "" where there is but one, for ever."""

    def remembered(self, partition: PartitionId) -> Position:
        """How far this node knows the partition to have come, from a witness; 0: it knows nothing."""

    def accept_loss(self, partition: PartitionId) -> None:
        """An operator takes the partition's log as it is: what a witness remembers counts no more, and is
        forgotten once a record of ours is in."""

    async def read(
        self,
        partition: PartitionId,
        start: Position,
        *,
        records_max: int,
        bytes_max: int,
        payloads: bool,
    ) -> list[Record]:
        """Records from ``start`` on, dense and in order, at least one if there is one; fewer than
        asked when a bound is met. Without ``payloads`` the payload blocks are not read.

        Raises:
            HistoryDropped: ``start`` lies in a bucket that is gone.
        """

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        """The payload blocks of single records."""

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        """Store pieces of a snapshot to come; unreferenced ones are removed by ``put_snapshot``."""

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store a snapshot whose chunks are all there; older ones and their own chunks may go, but the
        previous snapshot is kept as well."""

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        """Newest first. What is damaged is left out (and reported through telemetry)."""

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        """Raises StoreCorrupt when one is missing or fails its checksum."""

    async def buckets(self) -> list[Bucket]: ...

    async def roll(self) -> int:
        """Open the next bucket for the records to come; its number. Announced in the log by the callers."""

    async def drop(self, bucket: int) -> None:
        """Drop a sealed bucket, whole. The caller has made sure that nothing live is in it."""
