"""An item's trace: read from the log a little at a time, with the others' turns in between."""

import trio
from trio.testing import MockClock

from querator.actors.history import trace
from querator.core.commands import Verb
from querator.core.ids import SECOND, Duration, ItemNumber
from querator.core.limits import TRACE_SLICE_EVENTS
from tests.actors.conftest import Client, World, settle_down


async def test_tracing_lets_others_have_their_turn(autojump_clock: MockClock, world: World) -> None:
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        for number in range(20 * TRACE_SLICE_EVENTS):
            client.produce(b"%d" % number, request=number)
        await settle_down()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        last = node.broker.actors[partition].tail
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            steps = await trace(node.stores["memory"], partition, ItemNumber(3), last, 10)
            nursery.cancel_scope.cancel()
        assert [step.what for step in steps] == ["produced"]
        assert turns >= 20


async def test_the_deadline_is_that_of_who_had_it_last(autojump_clock: MockClock, world: World) -> None:
    """A reservation that is settled in parts still knows all that it had."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node, "s")
        client.produce(b"a", b"b")
        client.reserve(2, request=51)
        await settle_down()
        first = client.reservations[0]
        client.settle(first, Verb.RELEASE, ranges=((0, 1),), reason="client")
        await trio.sleep(5)
        client.reserve(1, request=52)
        await settle_down()
        second = client.reservations[1]
        client.settle(second, Verb.EXTEND, timeout=Duration(600 * SECOND))
        await settle_down()
        last = node.broker.actors[partition].tail
        steps = await trace(node.stores["memory"], partition, ItemNumber(1), last, 10)
        assert [step.what for step in steps] == ["produced", "reserved", "released", "reserved", "extended"]
