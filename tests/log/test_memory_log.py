"""The memory log keeps the contract."""

import attrs
import pytest
import trio

from querator.core.ids import PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.env.virtual import virtual_env
from querator.errors import AppendOutcomeUnknown, LogError, LogUnavailable
from querator.log.memory import Gate, MemoryDisk, MemoryLog
from querator.log.records import ChunkId
from querator.log.store import LogStore
from tests.log.log_contract import Fault, LogContract, LogHarness, append_chain, read_all
from tests.log.records import make_chain


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


async def test_a_closed_gate_holds_appends_until_it_opens() -> None:
    gate = Gate()
    store = MemoryLog(virtual_env(1), faults=gate)
    gate.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_chain, store, make_chain(1, 2))
        await gate.wait_arrived()
        gate.close()
        assert gate.waiting == 1
        assert await store.tail(PartitionId(1)) is None
        gate.open()
    tail = await store.tail(PartitionId(1))
    assert tail is not None
    assert tail.position == 2
    assert gate.waiting == 0


async def test_an_append_that_is_given_up_at_the_gate_is_not_written() -> None:
    gate = Gate()
    store = MemoryLog(virtual_env(1), faults=gate)
    gate.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_chain, store, make_chain(1, 1))
        await gate.wait_arrived()
        nursery.cancel_scope.cancel()
    gate.open()
    assert await store.partitions() == []


async def test_without_faults_an_append_passes() -> None:
    store = MemoryLog(virtual_env(1))
    await append_chain(store, make_chain(1, 3))
    assert len(await read_all(store, PartitionId(1))) == 3


async def test_one_append_has_one_record_a_partition() -> None:
    with pytest.raises(InvariantViolation):
        await MemoryLog(virtual_env(1)).append(make_chain(1, 2))


async def test_there_is_no_other_bucket_to_drop() -> None:
    with pytest.raises(LogError, match="no bucket 7"):
        await MemoryLog(virtual_env(1)).drop(7)


class TestMemoryLog(LogContract):
    @pytest.fixture
    def harness(self) -> LogHarness:
        return MemoryHarness()
