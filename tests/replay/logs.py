"""A node's log in memory, with a bit of everything in it."""

import trio

from querator.actors.node import Node
from querator.core.commands import Verb
from querator.core.ids import Instant, PartitionId
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from tests.actors.conftest import Client, World, settle_down


async def busy_log(*, record_inputs: bool = False) -> tuple[MemoryLog, Instant]:
    """Produced, reserved, completed, retried, ended, with two snapshots; and a moment in the middle."""
    world = World()
    async with world.node(record_inputs=record_inputs) as node:
        number = await world.create(node)
        middle = await _work(node, number)
    return MemoryLog(virtual_env(1), world.disk), middle


async def _work(node: Node, number: PartitionId) -> Instant:
    client = Client(node, "s1")
    client.produce(b"a", b"bb", b"ccc")
    await settle_down()
    client.reserve(2, request=50)
    await settle_down()
    await node.snapshots.take(node.broker.actors[number])
    middle = node.env.clock.now()
    await trio.sleep(1)
    (reserved,) = client.reservations
    client.settle(reserved, ranges=((0, 1),), request=2)
    client.settle(reserved, Verb.RETRY, ranges=((1, 1),), request=3)
    client.produce(b"dddd", request=4)
    await settle_down()
    client.reserve(1, request=51)
    await trio.sleep(120)
    client.produce(b"e", request=5)
    await settle_down()
    return middle
