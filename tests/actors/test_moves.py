"""Dead letters: two logged steps, recognised by number, whatever crashes in between."""

import trio
from trio.testing import MockClock

from querator.actors.claim import claim
from querator.actors.verification import verify_partition
from querator.core.commands import Receive, Verb
from querator.core.events import Attributes
from querator.core.ids import QueueName
from querator.core.place_ids import encode_place
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from tests.actors.conftest import Client, World, settle_down

DEAD = QueueName("dead")


async def _set_aside(world: World, count: int) -> tuple[int, int]:
    """Items set aside by a consumer while the dead queue's moves are held up; (source, target)."""
    async with world.node() as node:
        target = await world.create(node, DEAD)
        source = await world.create(node, dead_queue="dead")
        consumer = Client(node, "s")
        consumer.subscribe(batch=100)
        Client(node).produce(*[b"%d" % number for number in range(count)])
        await settle_down()
        consumer.settle(consumer.reservations[0], Verb.DEAD, reason="bad address")
        await trio.sleep(1)
        return source, target


async def test_a_dead_item_arrives_in_the_dead_queue_with_its_origin(
    autojump_clock: MockClock, world: World
) -> None:
    """Fresh there: attempts start again; its last id in the source queue says where it came from."""
    source, _ = await _set_aside(world, 3)
    async with world.node() as node:
        reader = Client(node, "r")
        node.broker.begin_turn()
        from querator.actors.ports import ReserveRequest
        from querator.core.ids import Duration, Instant

        node.broker.reserve(reader, 5, DEAD, ReserveRequest(10, Instant(0), Duration(0), held=False))
        node.broker.end_turn()
        await settle_down()
        (reserved,) = reader.reservations
        assert reserved.payloads == [b"0", b"1", b"2"]
        assert reserved.attempts == 1
        assert reserved.attributes is not None
        first = reserved.attributes[0]["source_id"][0]
        assert first == encode_place(source, 1)  # type: ignore[arg-type]
        stats = Client(node)
        stats.stats()
        await settle_down()
        (partition,) = stats.answer(9).partitions  # type: ignore[attr-defined]
        assert (partition.dead, partition.removed) == (0, 3)


async def test_a_move_that_was_taken_is_not_taken_again(autojump_clock: MockClock, world: World) -> None:
    """A repeat after a crash between the two steps is recognised by its move number."""
    source, target = await _set_aside(world, 2)
    async with world.node() as node:
        again = Client(node)
        node.broker.begin_turn()
        attributes = Attributes(source_id=["x", "y", "z"])
        command = Receive(source, 1, [b"0", b"1", b"2"], attributes)  # type: ignore[arg-type]
        node.broker.command(again, 1, target, command)  # type: ignore[arg-type]
        node.broker.end_turn()
        await settle_down()
        assert again.answer(1).count == 1  # type: ignore[attr-defined]
        assert node.broker.actors[target].state.ready == 3  # type: ignore[index]
    for partition in (source, target):
        found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)  # type: ignore[arg-type]
        assert found.is_good, found


async def test_a_death_that_never_gets_into_the_log_moves_nothing(
    autojump_clock: MockClock, world: World
) -> None:
    """The item lives on where it was: in its dead queue as well it would be there twice, and the number of
    the move would be the next dead item's too."""
    async with world.node() as node:
        target = await world.create(node, DEAD)
        source = await world.create(node, dead_queue="dead")
        consumer = Client(node, "s")
        consumer.subscribe(batch=100)
        Client(node).produce(b"a", b"b")
        await settle_down()
        world.gate.close()
        consumer.settle(consumer.reservations[0], Verb.DEAD, reason="bad address")
        await world.gate.wait_arrived()
        await settle_down()
        rival = virtual_env(2)
        await claim(MemoryLog(rival, world.disk), rival, source, node="rival")
        world.gate.open()
        await trio.sleep(1)
        assert node.broker.actors[target].state.produced == 0
        assert node.broker.actors[source].state.reserved == 2
