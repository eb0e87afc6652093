"""A log that lost its end is noticed."""

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from querator.core.ids import PartitionId, Position
from querator.core.limits import WITNESS_INTERVAL
from querator.env import Env
from querator.env.virtual import virtual_env
from querator.errors import DataLossSuspected, StoreCorrupt
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.store import LogStore, Verdict
from querator.log.witness import Witness, WitnessedLog
from tests.log.log_contract import Fault, LogContract, LogHarness
from tests.log.records import make_chain, make_record
from tests.log.test_memory_log import MemoryHarness

ONE = PartitionId(1)
PATH = Path("/witness.json")


class WitnessedHarness(MemoryHarness):
    def __init__(self) -> None:
        super().__init__()
        self.env = virtual_env(1)

    async def open(self) -> LogStore:
        store = await super().open()
        log = WitnessedLog(store, Witness(self.env, PATH))
        await log.witness.load()
        return log

    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        assert isinstance(store, WitnessedLog)
        await super().fail_next_append(store.store, fault)


class TestWitnessedLog(LogContract):
    """With a witness a store is still a store."""

    @pytest.fixture
    def harness(self) -> LogHarness:
        return WitnessedHarness()


async def open_log(env: Env, disk: MemoryDisk) -> WitnessedLog:
    log = WitnessedLog(MemoryLog(env, disk), Witness(env, PATH))
    await log.open()
    return log


async def written(env: Env) -> MemoryDisk:
    """A log of five records, closed in good order."""
    disk = MemoryDisk()
    log = await open_log(env, disk)
    for record in make_chain(1, 5):
        assert await log.append([record]) == [Verdict.MINE]
    await log.aclose()
    return disk


def cut(disk: MemoryDisk, count: int) -> MemoryDisk:
    """The disk as it was after ``count`` records."""
    other = MemoryDisk()
    other.append([stored.record for stored in disk.partitions[ONE].records[:1]] if count else [])
    for stored in disk.partitions[ONE].records[1:count]:
        other.append([stored.record])
    return other


async def test_a_whole_log_is_fine() -> None:
    env = virtual_env(1)
    log = await open_log(env, await written(env))
    tail = await log.tail(ONE)
    assert tail is not None
    assert tail.position == 5
    assert log.witness.position(ONE) == 5


async def test_a_log_may_be_ahead_of_its_witness() -> None:
    env = virtual_env(1)
    disk = await written(env)
    disk.append(make_chain(1, 1, after=disk.partitions[ONE].tail))
    assert (await (await open_log(env, disk)).tail(ONE)) is not None


@pytest.mark.parametrize("left", [4, 0])
async def test_a_log_that_ends_before_its_witness_is_suspected(left: int) -> None:
    env = virtual_env(1)
    log = await open_log(env, cut(await written(env), left))
    with pytest.raises(DataLossSuspected, match=f"ends at {left}, but 5"):
        await log.tail(ONE)


async def test_another_record_at_the_witness_is_suspected() -> None:
    env = virtual_env(1)
    disk = cut(await written(env), 4)
    tail = disk.partitions[ONE].tail
    assert tail is not None
    disk.append([make_record(1, 5, tail.hash, nonce=99)])
    log = await open_log(env, disk)
    with pytest.raises(DataLossSuspected, match="record 5"):
        await log.tail(ONE)
    disk.append(make_chain(1, 1, after=disk.partitions[ONE].tail))
    with pytest.raises(DataLossSuspected, match="record 5"):
        await log.tail(ONE)


async def test_a_loss_that_an_operator_accepts_is_forgotten_with_the_next_record() -> None:
    env = virtual_env(1)
    log = await open_log(env, cut(await written(env), 4))
    log.accept_loss(ONE)
    tail = await log.tail(ONE)
    assert tail is not None
    await log.aclose()
    log = await open_log(env, log.store.disk)  # type: ignore[attr-defined] # a MemoryLog
    with pytest.raises(DataLossSuspected):
        # Nobody wrote that it was accepted.
        await log.tail(ONE)
    log.accept_loss(ONE)
    assert await log.append(make_chain(1, 1, after=tail)) == [Verdict.MINE]
    await log.aclose()
    log = await open_log(env, log.store.disk)  # type: ignore[attr-defined] # a MemoryLog
    assert log.witness.position(ONE) == tail.position + 1
    assert await log.tail(ONE) is not None


async def test_a_witness_whose_record_was_dropped_is_no_loss() -> None:
    env = virtual_env(1)
    disk = await written(env)
    store = MemoryLog(env, disk)
    await store.roll()
    disk.append(make_chain(1, 1, after=disk.partitions[ONE].tail))
    await store.drop(1)
    assert await (await open_log(env, disk)).tail(ONE) is not None


async def test_what_is_not_mine_is_not_noted() -> None:
    env = virtual_env(1)
    log = await open_log(env, MemoryDisk())
    assert await log.append([make_record(position=2), make_record(partition=2)]) == [
        Verdict.NOT_MINE,
        Verdict.MINE,
    ]
    assert (log.witness.position(ONE), log.witness.position(PartitionId(2))) == (0, 1)


async def test_an_older_record_does_not_bring_the_witness_back() -> None:
    env = virtual_env(1)
    log = await open_log(env, MemoryDisk())
    chain = make_chain(1, 3)
    for record in (*chain, chain[0]):
        await log.append([record])
    assert log.witness.position(ONE) == 3


async def test_the_file_is_written_lazily(autojump_clock: trio.testing.MockClock) -> None:
    env = virtual_env(1)
    log = await open_log(env, MemoryDisk())
    chain = make_chain(1, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.witness.run)
        await wait_all_tasks_blocked()
        for record in chain[:10]:
            await log.append([record])
        assert not await env.files.exists(PATH)
        await env.clock.sleep(WITNESS_INTERVAL)
        await wait_all_tasks_blocked()
        assert await seen(env) == 10
        for record in chain[10:]:
            await log.append([record])
        await wait_all_tasks_blocked()
        assert await seen(env) == 10
        await env.clock.sleep(WITNESS_INTERVAL)
        await wait_all_tasks_blocked()
        assert await seen(env) == 20
        nursery.cancel_scope.cancel()


async def seen(env: Env) -> Position:
    witness = Witness(env, PATH)
    await witness.load()
    return witness.position(ONE)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"version":1,"tails":[[1,5,"zz"]],"checksum":""}', b"\xff"]
)
async def test_an_unreadable_witness_is_refused(content: bytes) -> None:
    env = virtual_env(1)
    await env.files.write(PATH, content)
    with pytest.raises(StoreCorrupt, match="remove the file"):
        await Witness(env, PATH).load()


async def test_a_changed_witness_is_refused() -> None:
    env = virtual_env(1)
    await written(env)
    content = await env.files.read(PATH)
    await env.files.write(PATH, content.replace(b"[1,5,", b"[1,4,"))
    with pytest.raises(StoreCorrupt):
        await Witness(env, PATH).load()


async def test_a_witness_that_cannot_be_written_is_tried_again() -> None:
    env = virtual_env(1)
    witness = Witness(env, Path("/no/such/directory/witness.json"))
    witness.note(ONE, Position(1), bytes(32))
    await witness.flush()
    await env.files.make_directory(Path("/no/such/directory"))
    await witness.flush()
    assert await env.files.exists(Path("/no/such/directory/witness.json"))
