"""The memory log keeps the contract."""

import attrs
import pytest

from querator.core.ids import PartitionId, Position
from querator.env.virtual import virtual_env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.memory import Gate, MemoryDisk, MemoryLog
from querator.log.records import ChunkId
from querator.log.store import LogStore
from tests.log.log_contract import Fault, LogContract, LogHarness


class MemoryHarness(LogHarness):
    is_shared = True

    def __init__(self) -> None:
        self.disk = MemoryDisk()

    async def open(self) -> LogStore:
        store = MemoryLog(virtual_env(1), self.disk, faults=Gate())
        await store.open()
        return store

    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        assert isinstance(store, MemoryLog)
        assert isinstance(store.faults, Gate)
        if fault is Fault.UNAVAILABLE:
            store.faults.fail(LogUnavailable("away"))
        elif fault is Fault.UNKNOWN_LOST:
            store.faults.fail(AppendOutcomeUnknown("lost"))
        else:
            store.faults.hide(AppendOutcomeUnknown("written"))

    async def damage_snapshot(self, store: LogStore, partition: PartitionId, position: Position) -> None:
        stored = self.disk.partitions[partition].snapshots
        for index, (snapshot, checksum) in enumerate(stored):
            if snapshot.position == position:
                stored[index] = (attrs.evolve(snapshot, head=b"\0" + snapshot.head[1:]), checksum)

    async def damage_chunk(self, store: LogStore, partition: PartitionId, chunk: ChunkId) -> None:
        data, checksum = self.disk.partitions[partition].chunks[chunk]
        self.disk.partitions[partition].chunks[chunk] = (b"\0" + data[1:], checksum)


class TestMemoryLog(LogContract):
    @pytest.fixture
    def harness(self) -> LogHarness:
        return MemoryHarness()
