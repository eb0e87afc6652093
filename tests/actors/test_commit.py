"""Nothing leaves before its position is on disk; what fails keeps its bytes; what is unknown is found out."""

import trio
from trio.testing import MockClock

from querator.actors.claim import claim
from querator.actors.partition import Condition
from querator.actors.verification import verify_partition
from querator.core.commands import Verb
from querator.core.ids import SECOND, Duration, QueueName
from querator.core.limits import HOLD_TIMEOUT
from querator.core.replies import Code, Produced, Rejected, Settled
from querator.env import seconds
from querator.env.virtual import virtual_env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.memory import MemoryLog
from tests.actors.conftest import Client, World, settle_down


async def test_no_answer_leaves_before_its_position_is_committed(
    autojump_clock: MockClock, world: World
) -> None:
    """Neither answers, nor pushes, nor reads, nor refusals that were decided on uncommitted state."""
    async with world.node() as node:
        await world.create(node)
        client, consumer = Client(node), Client(node, "s")
        consumer.subscribe()
        client.produce(b"first")
        await settle_down()
        first = consumer.reservations[0]
        consumer.told.clear()
        client.told.clear()
        world.gate.close()
        client.produce(b"second", request=1)
        consumer.settle(first, request=2)
        consumer.settle(first, Verb.RETRY, request=3)
        client.stats(request=4)
        await world.gate.wait_arrived()
        await settle_down()
        assert client.told == []
        assert consumer.told == []
        world.gate.open()
        await settle_down()
        assert isinstance(client.answer(1), Produced)
        assert consumer.answer(2) == Settled(1)
        refused = consumer.answer(3)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.RESERVATION_LOST
        assert len(consumer.reservations) == 1


async def test_an_append_of_unknown_outcome_is_sent_again_and_counts_once(
    autojump_clock: MockClock, world: World
) -> None:
    """Whether it had been written or not."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        world.gate.hide(AppendOutcomeUnknown("written, but nobody heard"))
        client.produce(b"a", request=1)
        await trio.sleep(1)
        world.gate.fail(AppendOutcomeUnknown("not written"))
        client.produce(b"b", request=2)
        await trio.sleep(1)
        assert isinstance(client.answer(1), Produced)
        assert isinstance(client.answer(2), Produced)
        client.stats()
        await settle_down()
        assert node.broker.actors[partition].state.ready == 2
    found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)
    assert found.is_good, found
    assert found.produced == 2


async def test_while_the_store_refuses_new_writes_are_unavailable_and_nothing_is_undone(
    autojump_clock: MockClock, world: World
) -> None:
    """A full disk, say: the bytes wait, and go in when there is room."""
    async with world.node() as node:
        await world.create(node)
        client = Client(node)
        for _ in range(5):
            world.gate.fail(LogUnavailable("the disk is full"))
        client.produce(b"kept", request=1)
        await trio.sleep(0.05)
        client.produce(b"refused", request=2)
        refused = client.answer(2)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.UNAVAILABLE
        assert "disk is full" in refused.detail
        await trio.sleep(5)
        assert isinstance(client.answer(1), Produced)
        client.produce(b"taken", request=3)
        await settle_down()
        assert isinstance(client.answer(3), Produced)


async def test_who_only_asks_waits_for_no_store_in_trouble(autojump_clock: MockClock, world: World) -> None:
    """Nothing hangs on whether a read's position is ever committed, so it is refused; a write is not."""
    async with world.node() as node:
        await world.create(node)
        client = Client(node)
        for _ in range(5):
            world.gate.fail(LogUnavailable("the disk is full"))
        client.produce(b"kept", request=1)
        client.stats(request=2)
        await trio.sleep(0.01)
        refused = client.answer(2)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.UNAVAILABLE
        assert [request for request, _ in client.told] == [2]
        await trio.sleep(5)
        assert isinstance(client.answer(1), Produced)
        client.stats(request=3)
        assert not isinstance(client.answer(3), Rejected)


async def test_when_the_hold_ends_the_outcome_is_unknown_and_the_partition_is_rebuilt(
    autojump_clock: MockClock, world: World
) -> None:
    """The requester is told so, and never that it succeeded or failed."""
    async with world.node() as node:
        partition = await world.create(node)
        before = node.broker.actors[partition]
        client = Client(node)
        for _ in range(60):
            world.gate.fail(AppendOutcomeUnknown("nobody answers"))
        client.produce(b"lost?", request=1)
        await trio.sleep(seconds(HOLD_TIMEOUT) + 2)
        unknown = client.answer(1)
        assert isinstance(unknown, Rejected)
        assert unknown.code is Code.OUTCOME_UNKNOWN
        await trio.sleep(60)
        after = node.broker.actors[partition]
        assert after is not before
        client.produce(b"next", request=2)
        await settle_down()
        assert isinstance(client.answer(2), Produced)


async def test_a_fenced_partition_answers_nothing_and_claims_anew(
    autojump_clock: MockClock, world: World
) -> None:
    """Another owner's claim is in the log: the old one can only collide, and it never said otherwise."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        async with world.node() as other:
            assert partition in other.broker.actors
            client.produce(b"stale", request=1)
            await settle_down()
            answer = client.answer(1)
            assert isinstance(answer, Rejected)
            assert answer.code is Code.OUTCOME_UNKNOWN
    found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)
    assert found.is_good, found
    assert found.produced == 0


async def test_a_failed_invariant_halts_one_partition_and_leaves_the_others_alone(
    autojump_clock: MockClock, world: World
) -> None:
    """The halted one is not restarted by itself, and says why."""
    async with world.node() as node:
        partition = await world.create(node)
        await world.create(node, QueueName("other"))
        client = Client(node)
        node.broker.actors[partition].state.next_item = 77
        node.broker.actors[partition].state.line.append(1, 5, 1)
        client.reserve(request=1)
        await settle_down()
        actor = node.broker.actors[partition]
        assert actor.condition is Condition.HALTED
        client.produce(b"x", request=2)
        halted = client.answer(2)
        assert isinstance(halted, Rejected)
        assert halted.code is Code.HALTED
        client.produce(b"x", request=3, queue=QueueName("other"))
        await trio.sleep(10)
        assert isinstance(client.answer(3), Produced)
        assert node.broker.actors[partition] is actor


async def test_a_deadline_that_passes_while_an_append_stalls_is_kept_after_the_commit(
    autojump_clock: MockClock, world: World
) -> None:
    """And nobody asks in the meantime whether it has passed: virtual time would stand still."""
    async with world.node() as node:
        await world.create(node, reservation_timeout=Duration(2 * SECOND), partitions=1)
        client, other = Client(node), Client(node, "s")
        client.produce(b"a")
        await settle_down()
        client.reserve()
        await settle_down()
        assert len(client.reservations) == 1
        world.gate.close()
        client.produce(b"b", request=3)
        other.subscribe(window=1)
        await trio.sleep(10)
        assert other.reservations == []
        world.gate.open()
        await settle_down()
        (first,) = other.reservations
        other.settle(first)
        await settle_down()
        assert [reply.count for reply in other.reservations] == [1, 1]


async def test_a_deadline_that_passes_while_the_store_refuses_is_kept_after_the_commit(
    autojump_clock: MockClock, world: World
) -> None:
    """Without anybody's asking: nothing else happens on the partition."""
    async with world.node() as node:
        partition = await world.create(node, reservation_timeout=Duration(1 * SECOND), partitions=1)
        client = Client(node)
        client.produce(b"a")
        await settle_down()
        client.reserve()
        await settle_down()
        for _ in range(8):
            world.gate.fail(LogUnavailable("away"))
        client.produce(b"b", request=3)
        await trio.sleep(8)
        state = node.broker.actors[partition].state
        assert (state.ready, state.reserved) == (2, 0)


async def test_a_deadline_that_a_stalled_commit_postponed_is_told_when_it_is_in_the_log(
    autojump_clock: MockClock, world: World
) -> None:
    """After a crash the log knows no later one; what else was in the record leaves at once."""
    async with world.node() as node:
        partition = await world.create(node, reservation_timeout=Duration(5 * SECOND), partitions=1)
        producer, consumer = Client(node), Client(node, "s")
        consumer.subscribe()
        await settle_down()
        world.gate.close()
        producer.produce(b"a")
        await world.gate.wait_arrived()
        await trio.sleep(2)
        world.gate.open()
        world.gate.close()
        await settle_down()
        assert isinstance(producer.answer(1), Produced)
        assert consumer.reservations == []
        assert world.gate.waiting == 1
        world.gate.open()
        await settle_down()
        (told,) = consumer.reservations
        kept = node.broker.actors[partition].state.reservations[told.reservation]
        assert told.deadline == kept.deadline == node.env.clock.now() + 5 * SECOND


async def test_a_reservation_whose_later_deadline_is_not_committed_never_leaves(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.node() as node:
        partition = await world.create(node)
        consumer = Client(node, "s")
        consumer.subscribe(held=False)
        world.gate.close()
        Client(node).produce(b"x")
        await world.gate.wait_arrived()
        await trio.sleep(5)
        world.gate.open()
        world.gate.close()
        await world.gate.wait_arrived()
        rival = virtual_env(2)
        await claim(MemoryLog(rival, world.disk), rival, partition, node="rival")
        world.gate.open()
        await settle_down()
        assert consumer.reservations == []


async def test_a_partition_that_is_lost_while_the_node_ends_is_not_opened_again(
    autojump_clock: MockClock, world: World
) -> None:
    """The tasks of a node end in any order: the last word of a log writer comes when nobody supervises."""
    async with world.node() as node:
        partition = await world.create(node)
        actor = node.broker.actors[partition]
    node.broker.queues[actor.queue].is_closing = False  # as when it was cut off, and did not stop in order
    node.supervisor.lost(actor, "fenced")
    assert partition not in node.broker.actors
