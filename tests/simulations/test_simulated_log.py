"""The simulated store keeps the contract of every store, and is like PostgreSQL where it matters."""

from collections.abc import AsyncIterator

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.core.ids import PartitionId, Position
from querator.env.virtual import virtual_env
from querator.errors import AppendOutcomeUnknown
from querator.log.records import ChunkId
from querator.log.store import LogStore, Verdict
from simulations.disk import LOCK_WAIT, Faults, SimulatedDisk, SimulatedLog
from tests.log.log_contract import Fault, LogContract, LogHarness
from tests.log.records import make_chain, make_record

_FATES = {
    Fault.UNAVAILABLE: "unavailable",
    Fault.UNKNOWN_LOST: "unknown_lost",
    Fault.UNKNOWN_WRITTEN: "unknown_kept",
}
ONE = PartitionId(1)


class ToldFaults(Faults):
    """Fates by hand."""

    def __init__(self) -> None:
        self.next: list[str] = []
        self.late = (0.0, 0.0)
        self.commit_seconds = 0.0

    def commit(self) -> float:
        return self.commit_seconds

    def fate(self) -> str:
        return self.next.pop(0) if self.next else ""

    def lateness(self) -> tuple[float, float]:
        return self.late


class SimulatedHarness(LogHarness):
    is_shared = True

    def __init__(self, server: trio.Nursery) -> None:
        self.disk = SimulatedDisk()
        self.server = server

    async def open(self) -> LogStore:
        store = SimulatedLog(virtual_env(1), self.disk, self.server, faults=ToldFaults())
        await store.open()
        return store

    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        assert isinstance(store, SimulatedLog)
        assert isinstance(store.fate, ToldFaults)
        store.fate.next.append(_FATES[fault])

    async def damage_snapshot(self, store: LogStore, partition: PartitionId, position: Position) -> None:
        stored = self.disk.partitions[partition].snapshots
        for index, (snapshot, checksum) in enumerate(stored):
            if snapshot.position == position:
                stored[index] = (attrs.evolve(snapshot, head=b"\0" + snapshot.head[1:]), checksum)

    async def damage_chunk(self, store: LogStore, partition: PartitionId, chunk: ChunkId) -> None:
        data, checksum = self.disk.partitions[partition].chunks[chunk]
        self.disk.partitions[partition].chunks[chunk] = (b"\0" + data[1:], checksum)


class TestSimulatedLog(LogContract):
    @pytest.fixture
    async def harness(self) -> AsyncIterator[LogHarness]:
        async with trio.open_nursery() as server:
            yield SimulatedHarness(server)


async def _connect(server: trio.Nursery, disk: SimulatedDisk) -> tuple[SimulatedLog, ToldFaults]:
    faults = ToldFaults()
    return SimulatedLog(virtual_env(1), disk, server, faults=faults), faults


async def test_a_zombie_commits_although_a_look_saw_nothing(autojump_clock: MockClock) -> None:
    """The connection is lost, the tail shows nothing, and the record comes: only sending it again tells."""
    async with trio.open_nursery() as server:
        disk = SimulatedDisk()
        store, faults = await _connect(server, disk)
        faults.next, faults.late = ["unknown_late"], (0.0, 0.2)
        record = make_record()
        with pytest.raises(AppendOutcomeUnknown):
            await store.append([record])
        await trio.sleep(0.1)
        assert await store.tail(ONE) is None
        sent_again_at = trio.current_time()
        assert await store.append([record]) == [Verdict.MINE]
        assert trio.current_time() - sent_again_at == pytest.approx(0.1, abs=0.01)
        assert len(disk.partitions[ONE].records) == 1


async def test_an_insert_waits_for_the_key_and_then_not_for_ever(autojump_clock: MockClock) -> None:
    """Behind a statement that does not come to its end the answer is BUSY, and the end decides."""
    async with trio.open_nursery() as server:
        disk = SimulatedDisk()
        store, faults = await _connect(server, disk)
        rival, _ = await _connect(server, disk)
        faults.commit_seconds = 10 * LOCK_WAIT
        mine, other = make_record(nonce=1), make_record(nonce=2)
        verdicts: list[Verdict] = []

        async def append() -> None:
            verdicts.extend(await store.append([mine]))

        server.start_soon(append)
        await trio.sleep(0.01)
        assert await rival.append([other]) == [Verdict.BUSY]
        await trio.sleep(10 * LOCK_WAIT)
        assert verdicts == [Verdict.MINE]
        assert await rival.append([other]) == [Verdict.NOT_MINE]


async def test_a_neighbour_of_a_busy_partition_is_not_held_up(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as server:
        disk = SimulatedDisk()
        store, faults = await _connect(server, disk)
        rival, _ = await _connect(server, disk)
        faults.commit_seconds = 10 * LOCK_WAIT
        server.start_soon(store.append, [make_record(partition=2, nonce=1)])
        await trio.sleep(0.01)
        records = [make_record(partition=2, nonce=2), make_record(partition=1, nonce=2)]
        assert await rival.append(records) == [Verdict.BUSY, Verdict.MINE]


async def test_what_a_killed_server_had_not_committed_is_never_there(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as server:
        disk = SimulatedDisk()
        store, faults = await _connect(server, disk)
        faults.commit_seconds = 1.0
        failed: list[Exception] = []

        async def append() -> None:
            try:
                await store.append([make_record()])
            except AppendOutcomeUnknown as error:
                failed.append(error)

        server.start_soon(append)
        await trio.sleep(0.5)
        disk.abort_all()
        await trio.sleep(5.0)
        assert len(failed) == 1
        assert await store.tail(ONE) is None


async def test_another_server_refuses_who_claimed_on_the_old_one(autojump_clock: MockClock) -> None:
    """A failover, and the old owner goes on: nothing of it is written until it looks again."""
    async with trio.open_nursery() as server:
        disk = SimulatedDisk()
        store, _ = await _connect(server, disk)
        first, second, third, fourth = make_chain(1, 4)
        await store.tail(ONE)
        for record in (first, second, third):
            assert await store.append([record]) == [Verdict.MINE]
        assert disk.fail_over(lost=1) == {1: 3}
        assert await store.append([fourth]) == [Verdict.NOT_MINE]
        tail = await store.tail(ONE)
        assert tail is not None
        assert tail.position == 2
        assert await store.append([third]) == [Verdict.MINE]
