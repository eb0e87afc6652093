"""Each bound of the actors: full is said at once, loses nothing, and ends when there is room."""

import itertools

import pytest
import trio
from trio.testing import MockClock

from querator.actors import broker as broker_module
from querator.actors import claim as claim_module
from querator.actors import moves as moves_module
from querator.actors import partition as partition_module
from querator.actors import snapshots as snapshots_module
from querator.actors import writer as writer_module
from querator.actors.claim import ClaimLost, claim
from querator.core import limits
from querator.core.commands import Verb
from querator.core.ids import Instant, PartitionId, QueueName
from querator.core.replies import Code, Produced, Rejected
from querator.env import seconds
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from querator.log.store import Verdict
from tests.actors.conftest import Client, World, settle_down


def code_of(client: Client, request: int) -> Code:
    answer = client.answer(request)
    assert isinstance(answer, Rejected), answer
    return answer.code


async def test_a_full_pending_record_is_overloaded_and_takes_again_after_the_commit(
    autojump_clock: MockClock, world: World
) -> None:
    """Up to PENDING_BYTES_MAX; what was taken before is committed, what was refused is nowhere."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        world.gate.close()
        client.produce(b"in flight", request=0)
        await world.gate.wait_arrived()
        chunk = b"x" * limits.PAYLOAD_BYTES_MAX
        fitting = -(-limits.PENDING_BYTES_MAX // limits.PAYLOAD_BYTES_MAX)
        for request in range(1, fitting + 1):
            client.produce(chunk, request=request)
        assert client.told == []
        client.produce(b"one too many", request=1_000)
        assert code_of(client, 1_000) is Code.OVERLOADED
        world.gate.open()
        await settle_down()
        assert all(isinstance(client.answer(request), Produced) for request in range(fitting + 1))
        client.produce(b"again", request=2_000)
        await settle_down()
        assert isinstance(client.answer(2_000), Produced)
        assert node.broker.actors[partition].state.produced == fitting + 2


async def test_too_many_commands_that_wait_are_overloaded(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PENDING_COMMANDS_MAX, also for commands that write nothing."""
    monkeypatch.setattr(partition_module, "PENDING_COMMANDS_MAX", 5)
    async with world.node() as node:
        await world.create(node)
        client = Client(node)
        world.gate.close()
        client.produce(b"in flight", request=0)
        await world.gate.wait_arrived()
        for request in range(1, 7):
            client.produce(b"x", request=request)
        assert code_of(client, 6) is Code.OVERLOADED
        world.gate.open()
        await settle_down()
        assert all(isinstance(client.answer(request), Produced) for request in range(6))


async def test_a_full_node_reserves_nothing_more_until_something_is_settled(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IN_FLIGHT_ITEMS_MAX counts all queues, and whoever was passed over has its turn."""
    monkeypatch.setattr(broker_module, "IN_FLIGHT_ITEMS_MAX", 10)
    async with world.node() as node:
        await world.create(node)
        await world.create(node, QueueName("other"))
        producer, greedy, late = Client(node), Client(node, "greedy"), Client(node, "late")
        producer.produce(*[b"x"] * 10)
        producer.produce(b"y", request=2, queue=QueueName("other"))
        greedy.subscribe(batch=10)
        await settle_down()
        assert node.broker.in_flight == 10
        late.reserve(request=1, queue=QueueName("other"))
        assert code_of(late, 1) is Code.LIMIT_EXCEEDED
        late.reserve(request=2, wait=60_000_000, queue=QueueName("other"))
        await settle_down()
        assert late.reservations == []
        greedy.settle(greedy.reservations[0])
        await settle_down()
        assert late.reservations[0].payloads == [b"y"]
        assert node.broker.in_flight == 1


async def test_many_dead_items_move_in_bounded_moves(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MOVE_ITEMS_MAX at a time, all of them, in order."""
    monkeypatch.setattr(moves_module, "MOVE_ITEMS_MAX", 3)
    async with world.node() as node:
        target = await world.create(node, QueueName("dead"))
        await world.create(node, dead_queue="dead")
        consumer = Client(node, "s")
        consumer.subscribe(batch=10)
        Client(node).produce(*[b"%d" % number for number in range(10)])
        await settle_down()
        consumer.settle(consumer.reservations[0], Verb.DEAD, reason="bad")
        await trio.sleep(1)
        assert node.mover.moved == 10
        segment = node.broker.actors[target].state.segments[0]
        assert segment.payloads == [b"%d" % number for number in range(10)]


async def test_a_snapshot_is_taken_after_so_many_records(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNAPSHOT_RECORDS."""
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_RECORDS", 5)
    async with world.node() as node:
        await world.create(node)
        client = Client(node)
        for request in range(4):
            client.produce(b"x", request=request)
            await settle_down()
        assert node.snapshots.taken == 0
        client.produce(b"x", request=5)
        await trio.sleep(1)
        assert node.snapshots.taken == 1


async def test_a_snapshot_is_taken_after_so_many_bytes(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNAPSHOT_BYTES, of records and their payloads since the last one."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        client.produce(b"x" * 1_000, request=0)
        await settle_down()
        actor = node.broker.actors[partition]
        assert node.snapshots.taken == 0
        assert actor.log_bytes > 1_000
        monkeypatch.setattr(snapshots_module, "SNAPSHOT_BYTES", actor.log_bytes + 1_000)
        client.produce(b"y", request=1)
        await trio.sleep(1)
        assert node.snapshots.taken == 0
        client.produce(b"z" * 1_000, request=2)
        await trio.sleep(1)
        assert node.snapshots.taken == 1
        assert actor.log_bytes < 1_000


async def test_the_clock_is_compared_with_the_databases_so_often(
    autojump_clock: MockClock, world: World
) -> None:
    """CLOCK_REFERENCE_INTERVAL, as exactly as the node's housekeeping is."""
    async with world.node() as node:
        asked: list[float] = []

        async def time() -> Instant:
            await trio.lowlevel.checkpoint()
            asked.append(trio.current_time())
            return node.env.clock.now()

        node.time_reference = time
        await trio.sleep(10 * seconds(limits.CLOCK_REFERENCE_INTERVAL))
        pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert len(pauses) >= 7
        assert min(pauses) >= seconds(limits.CLOCK_REFERENCE_INTERVAL)
        assert max(pauses) < 1.3 * seconds(limits.CLOCK_REFERENCE_INTERVAL)


async def test_one_append_takes_so_many_partitions(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APPEND_PARTITIONS_MAX; the others are in the next one."""
    monkeypatch.setattr(writer_module, "APPEND_PARTITIONS_MAX", 2)
    async with world.node() as node:
        await world.create(node, partitions=5)
        writer = node.broker.writers["memory"]
        before = writer.appends
        client = Client(node)
        node.broker.begin_turn()
        for request, partition in enumerate(node.broker.queues[QueueName("q")].partitions):
            client.produce_to(partition, b"x", request=request)
        node.broker.end_turn()
        await settle_down()
        assert writer.appends - before == 3
        assert all(isinstance(client.answer(request), Produced) for request in range(5))


async def test_a_claim_that_always_meets_another_one_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After CLAIM_TRIES_MAX."""
    monkeypatch.setattr(claim_module, "CLAIM_TRIES_MAX", 3)
    env = virtual_env(1)
    tries = 0

    class Contended(MemoryLog):
        async def append(self, records: object) -> list[Verdict]:
            del records
            nonlocal tries
            tries += 1
            await trio.lowlevel.checkpoint()
            return [Verdict.NOT_MINE]

    with pytest.raises(ClaimLost):
        await claim(Contended(env), env, PartitionId(1), node="a")
    assert tries == 3


async def test_what_a_node_is_given_unless_told_otherwise(autojump_clock: MockClock, world: World) -> None:
    """PAYLOAD_MEMORY_BYTES and BUCKET_BYTES; what happens at them is in test_queue.py and test_buckets.py."""
    async with world.node() as node:
        assert node.payloads._budget == limits.PAYLOAD_MEMORY_BYTES
        assert node.buckets._bucket_bytes == limits.BUCKET_BYTES
