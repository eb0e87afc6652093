"""A log store in front of another one, which does everything: for those who do one thing otherwise."""

from collections.abc import Mapping, Sequence

import attrs

from querator.core.ids import PartitionId, Position
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.store import Bucket, LogStore, Verdict


@attrs.define
class DelegatingLog:
    """Implements LogStore by ``store``, which whoever makes this one hands over."""

    store: LogStore
    name: str = attrs.field(init=False)
    lanes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.store.name
        self.lanes = self.store.lanes

    @property
    def away(self) -> str:
        return self.store.away

    @property
    def remarks(self) -> Sequence[str]:
        return self.store.remarks

    async def open(self) -> None:
        await self.store.open()

    async def aclose(self) -> None:
        await self.store.aclose()

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        return await self.store.append(records)

    async def partitions(self) -> list[PartitionId]:
        return await self.store.partitions()

    async def tail(self, partition: PartitionId) -> Tail | None:
        return await self.store.tail(partition)

    def server_identity(self, partition: PartitionId) -> str:
        return self.store.server_identity(partition)

    def remembered(self, partition: PartitionId) -> Position:
        return self.store.remembered(partition)

    def accept_loss(self, partition: PartitionId) -> None:
        self.store.accept_loss(partition)

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        return await self.store.read(
            partition, start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
        )

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        return await self.store.read_payloads(partition, positions)

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self.store.put_chunks(partition, chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self.store.put_snapshot(snapshot)

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        return await self.store.snapshots(partition)

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        return await self.store.read_chunks(partition, chunks)

    async def buckets(self) -> list[Bucket]:
        return await self.store.buckets()

    async def roll(self) -> int:
        return await self.store.roll()

    async def drop(self, bucket: int) -> None:
        await self.store.drop(bucket)
