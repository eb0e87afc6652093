"""How a queue spreads its work over partitions, and how payloads leave memory and come back."""

from operator import itemgetter

import pytest
import trio
from trio.testing import MockClock

from querator.core.catalog.commands import DeleteQueue
from querator.core.commands import PlaceSettlement, SettlePlaces, Verb
from querator.core.ids import Place, QueueName
from querator.core.limits import SEGMENTS_READ_AHEAD
from querator.core.replies import Code, Produced, Rejected, Reserved
from tests.actors.conftest import Client, World, settle_down


async def test_batches_go_to_the_emptiest_partition_and_reservations_to_the_fullest(
    autojump_clock: MockClock, world: World
) -> None:
    """Five batches of ten over two partitions are 30 and 20; reservations of 5, 10, 20 take 15 and 20."""
    async with world.node() as node:
        await world.create(node, partitions=2)
        client = Client(node)
        for request in range(5):
            client.produce(*[b"x"] * 10, request=request)
        await settle_down()
        ready = [actor.state.ready for actor in node.broker.queues[QueueName("q")].open_actors()]
        assert ready == [30, 20]
        for request, items in enumerate((5, 10, 20), 10):
            client.reserve(items, request=request)
        await settle_down()
        reserved = [actor.state.reserved for actor in node.broker.queues[QueueName("q")].open_actors()]
        assert reserved == [15, 20]


async def test_items_of_one_key_go_to_one_partition_and_mixed_requests_are_refused(
    autojump_clock: MockClock, world: World
) -> None:
    """Clients split by partition first; nothing of a refused request is written."""
    from querator.core.events import Attributes

    async with world.node() as node:
        await world.create(node, partitions=8)
        client = Client(node)
        partitions = []
        for request in range(3):
            client.produce(b"x", request=request, attributes=Attributes(key="customer-7"))
            await settle_down()
            answer = client.answer(request)
            assert isinstance(answer, Produced)
            partitions.append(answer.partition)
        assert len(dict.fromkeys(partitions)) == 1
        keys: list[str | None] = [f"key-{number}" for number in range(20)]
        client.produce(*[b"x"] * 20, request=9, attributes=Attributes(key=keys))
        refused = client.answer(9)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.MIXED_PARTITIONS
        assert sum(actor.state.produced for actor in node.broker.actors.values()) == 3


async def test_parked_requests_share_what_arrives_one_each_in_turn(
    autojump_clock: MockClock, world: World
) -> None:
    """23 items for three that wait for 20, 6 and 1 are 16, 6 and 1."""
    async with world.node() as node:
        await world.create(node)
        client = Client(node)
        for request, items in enumerate((20, 6, 1), 10):
            client.reserve(items, request=request, wait=60_000_000)
        client.produce(*[b"x"] * 23)
        await settle_down()
        counts = {request: reply.count for request, reply in client.told if reply in client.reservations}
        assert counts == {10: 16, 11: 6, 12: 1}


async def test_payloads_past_the_budget_are_read_back_in_order(
    autojump_clock: MockClock, world: World
) -> None:
    """What waits far behind leaves memory; the consumer sees every payload, in order."""
    async with world.node(payload_memory=100_000) as node:
        partition = await world.create(node)
        client = Client(node)
        total = 20_480
        for start in range(0, total, 512):
            client.produce(*[b"%07d" % number for number in range(start, start + 512)], request=start)
        await trio.sleep(5)
        assert node.payloads.spilled > 5
        state = node.broker.actors[partition].state
        assert state.payload_bytes < 150_000
        gone = [number for number, segment in state.segments.items() if segment.payloads is None]
        # The line's first segment and those right behind it stay; as many are read together.
        assert min(gone) > SEGMENTS_READ_AHEAD
        assert node.payloads._ahead(state) == gone[:SEGMENTS_READ_AHEAD]
        consumer = Client(node, "s")
        consumer.subscribe(window=total, batch=1000)
        await trio.sleep(5)
        got = [payload for reserved in consumer.reservations for payload in reserved.payloads]
        assert got == [b"%07d" % number for number in range(total)]


async def test_after_a_restart_everything_is_there_with_its_payload(
    autojump_clock: MockClock, world: World
) -> None:
    """From a snapshot and the records after it."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        for start in range(0, 3_000, 100):
            client.produce(*[b"%d" % number for number in range(start, start + 100)], request=start)
        await settle_down()
        await node.snapshots.take(node.broker.actors[partition])
        client.produce(b"tail", request=9_999)
        await settle_down()
        assert node.snapshots.taken >= 1
    async with world.node() as node:
        consumer = Client(node, "s")
        consumer.subscribe(window=5_000, batch=1000)
        await trio.sleep(5)
        got = [payload for reserved in consumer.reservations for payload in reserved.payloads]
        assert got == [*(b"%d" % number for number in range(3_000)), b"tail"]


async def test_parked_requests_go_each_to_the_fullest_partition(
    autojump_clock: MockClock, world: World
) -> None:
    """Held while 30 and 20 items came: 5, 10 and 20 then take 15 of the first and all of the second."""
    async with world.node() as node:
        await world.create(node, partitions=2)
        name = QueueName("q")
        client = Client(node)
        node.broker.hold(name)
        for request in range(5):
            client.produce(*[b"x"] * 10, request=request)
        for request, items in enumerate((5, 10, 20), 10):
            client.reserve(items, request=request, wait=60_000_000)
        node.broker.unhold(name)
        await settle_down()
        counts = {request: reply.count for request, reply in client.told if isinstance(reply, Reserved)}
        assert counts == {10: 5, 11: 10, 12: 20}
        reserved = [actor.state.reserved for actor in node.broker.queues[name].open_actors()]
        assert reserved == [15, 20]


async def test_a_wait_ends_in_its_time_though_the_queue_is_held(
    autojump_clock: MockClock, world: World
) -> None:
    """An operator who holds a queue holds nobody's request longer than it asked for."""
    async with world.node() as node:
        await world.create(node)
        node.broker.hold(QueueName("q"))
        client = Client(node)
        client.reserve(request=1, wait=2_000_000)
        await trio.sleep(1.9)
        assert client.told == []
        await trio.sleep(0.2)
        refused = client.answer(1)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.NOTHING_READY


@pytest.mark.parametrize("how", ["delete", "stop"])
async def test_what_a_held_queue_keeps_is_refused_when_it_closes(
    how: str, autojump_clock: MockClock, world: World
) -> None:
    """Nobody waits for an unholding that never comes, and what was refused is not done."""
    async with world.node() as node:
        await world.create(node)
        name = QueueName("q")
        (actor,) = node.broker.queues[name].open_actors()
        client = Client(node)
        node.broker.hold(name)
        client.produce(b"x", request=1)
        client.reserve(request=2, wait=60_000_000)
        node.broker.begin_turn()
        node.broker.command(
            client, 3, actor.partition, SettlePlaces([PlaceSettlement(Place(1), Verb.COMPLETE)])
        )
        node.broker.end_turn()
        await settle_down()
        assert client.told == []
        if how == "stop":
            await node.stop()
        else:
            await node.catalog.change(DeleteQueue(name))
        await settle_down()
        codes = [
            reply.code for _, reply in sorted(client.told, key=itemgetter(0)) if isinstance(reply, Rejected)
        ]
        assert codes == [Code.SHUTTING_DOWN] * 3
        assert actor.state.produced == 0


@pytest.mark.parametrize(("lag", "ends_after"), [(0, 1.0), (50_000, 1.05), (200_000, 1.2)])
async def test_a_reservation_ends_a_lag_past_its_deadline(
    lag: int, ends_after: float, autojump_clock: MockClock, world: World
) -> None:
    """So long a node lets a holder settle what it learnt of late; the items go to who waits only then."""
    async with world.node(end_lag=lag) as node:
        await world.create(node, reservation_timeout=1_000_000)
        client = Client(node)
        client.produce(b"x")
        client.reserve(request=2)
        client.reserve(request=3, wait=60_000_000)
        await trio.sleep(ends_after - 0.01)
        assert len(client.reservations) == 1
        await trio.sleep(0.02)
        assert [reserved.attempts for reserved in client.reservations] == [1, [2]]
