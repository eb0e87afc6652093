"""One PostgreSQL for all logical servers: each sees its own stretch of partition ids as a log of its own."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from querator.core.ids import PartitionId, Position
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.store import Bucket, LogStore, Verdict

STRETCH: Final = 1_000_000
"""Partition ids of one logical server."""


class SharedLog:
    """Implements LogStore: partition ``p`` of a server is ``base + p`` of the store beneath."""

    away: Final = ""
    remarks: Final = ()

    def __init__(self, beneath: LogStore, base: int) -> None:
        self.name = beneath.name
        self.lanes = beneath.lanes
        self._beneath = beneath
        self._base = base

    def _down(self, partition: PartitionId) -> PartitionId:
        return PartitionId(self._base + partition)

    async def open(self) -> None:
        """The store beneath is the host's and open."""

    async def aclose(self) -> None:
        """It stays open for the others."""

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        return await self._beneath.append(
            [attrs.evolve(record, partition=self._down(record.partition)) for record in records]
        )

    async def partitions(self) -> list[PartitionId]:
        return [
            PartitionId(partition - self._base)
            for partition in await self._beneath.partitions()
            if self._base <= partition < self._base + STRETCH
        ]

    async def tail(self, partition: PartitionId) -> Tail | None:
        return await self._beneath.tail(self._down(partition))

    async def read(
        self,
        partition: PartitionId,
        start: Position,
        *,
        records_max: int,
        bytes_max: int,
        payloads: bool,
    ) -> list[Record]:
        records = await self._beneath.read(
            self._down(partition), start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
        )
        return [attrs.evolve(record, partition=partition) for record in records]

    def server_identity(self, partition: PartitionId) -> str:
        return self._beneath.server_identity(self._down(partition))

    def remembered(self, partition: PartitionId) -> Position:
        return self._beneath.remembered(self._down(partition))

    def accept_loss(self, partition: PartitionId) -> None:
        self._beneath.accept_loss(self._down(partition))

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        return await self._beneath.read_payloads(self._down(partition), positions)

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self._beneath.put_chunks(self._down(partition), chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._beneath.put_snapshot(attrs.evolve(snapshot, partition=self._down(snapshot.partition)))

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        return [
            attrs.evolve(snapshot, partition=partition)
            for snapshot in await self._beneath.snapshots(self._down(partition))
        ]

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        return await self._beneath.read_chunks(self._down(partition), chunks)

    async def buckets(self) -> list[Bucket]:
        return await self._beneath.buckets()

    async def roll(self) -> int:
        return await self._beneath.roll()

    async def drop(self, bucket: int) -> None:
        await self._beneath.drop(bucket)
