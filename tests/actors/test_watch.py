"""Following one item: each event that touches it, once it is in the log, and nothing of others."""

import trio
from trio.testing import MockClock

from querator.actors.ports import TraceStep
from querator.core.commands import Verb
from querator.core.ids import SECOND, ItemNumber, PartitionId
from querator.core.limits import HOLD_TIMEOUT, WATCHED_ITEMS_MAX
from querator.core.replies import Code, Done, Rejected
from querator.errors import AppendOutcomeUnknown
from tests.actors.conftest import Client, World, settle_down


def _watch(client: Client, partition: PartitionId, item: int, request: int) -> None:
    broker = client.node.broker
    broker.begin_turn()
    broker.watch_item(client, request, partition, ItemNumber(item))
    broker.end_turn()


def _told(client: Client, request: int) -> list[object]:
    """The answer, then the words of each step."""
    return [
        reply.what if isinstance(reply, TraceStep) else reply
        for number, reply in client.told
        if number == request
    ]


async def test_an_items_life_is_told_as_it_happens_and_as_trace_has_it(
    autojump_clock: MockClock, world: World
) -> None:
    async with world.node() as node:
        partition = await world.create(node, reservation_timeout=10 * SECOND)
        watcher, client = Client(node), Client(node, "s")
        client.produce(b"other", b"x")
        await settle_down()
        _watch(watcher, partition, 2, 7)
        client.reserve(2, request=50)
        await settle_down()
        (first,) = client.reservations
        client.settle(first, Verb.EXTEND, timeout=60 * SECOND)
        client.settle(first, Verb.RETRY, ranges=((1, 1),))
        client.reserve(request=51)
        await trio.sleep(20)
        client.reserve(request=52)
        await settle_down()
        client.settle(client.reservations[-1])
        client.settle(first)
        await settle_down()
        words = ["reserved", "extended", "retried", "reserved", "ended", "reserved", "completed"]
        assert _told(watcher, 7) == [Done(), *words]
        steps = await node.history.trace(partition, ItemNumber(2), steps_max=100)
        assert not isinstance(steps, Rejected)
        assert [reply for _, reply in watcher.told if isinstance(reply, TraceStep)] == steps[1:]


async def test_a_step_is_told_when_it_is_in_the_log(autojump_clock: MockClock, world: World) -> None:
    async with world.node() as node:
        partition = await world.create(node)
        watcher, client = Client(node), Client(node)
        client.produce(b"x")
        await settle_down()
        _watch(watcher, partition, 1, 7)
        world.gate.close()
        client.reserve()
        await settle_down()
        assert _told(watcher, 7) == [Done()]
        world.gate.open()
        await settle_down()
        assert _told(watcher, 7) == [Done(), "reserved"]


async def test_what_cannot_be_watched_is_refused(autojump_clock: MockClock, world: World) -> None:
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        client.produce(*[b"x"] * (WATCHED_ITEMS_MAX + 1))
        await settle_down()
        for item in range(1, WATCHED_ITEMS_MAX + 1):
            _watch(client, partition, item, item)
        _watch(client, partition, 1, 1_000)
        refused = (
            (partition, WATCHED_ITEMS_MAX + 1, Code.LIMIT_EXCEEDED),
            (partition, WATCHED_ITEMS_MAX + 2, Code.UNKNOWN_ITEM),
            (partition, 0, Code.UNKNOWN_ITEM),
            (PartitionId(99), 1, Code.UNKNOWN_ITEM),
        )
        for request, (where, item, code) in enumerate(refused, 2_000):
            _watch(client, where, item, request)
            answer = client.answer(request)
            assert isinstance(answer, Rejected)
            assert answer.code is code
        assert client.answer(WATCHED_ITEMS_MAX) == client.answer(1_000) == Done()
        client.is_open = False
        other = Client(node)
        _watch(other, partition, WATCHED_ITEMS_MAX + 1, 1)
        assert other.answer(1) == Done()


async def test_who_unwatches_is_told_no_more(autojump_clock: MockClock, world: World) -> None:
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        client.produce(b"x")
        await settle_down()
        _watch(client, partition, 1, 7)
        _watch(client, partition, 1, 8)
        node.broker.unwatch_item(client, 7, partition)
        client.reserve(request=50)
        await settle_down()
        assert (_told(client, 7), _told(client, 8)) == ([Done()], [Done(), "reserved"])


async def test_a_watch_ends_when_the_partition_is_opened_anew(
    autojump_clock: MockClock, world: World
) -> None:
    """With one word: what happened in between is in the trace."""
    async with world.node() as node:
        partition = await world.create(node)
        watcher, client = Client(node), Client(node)
        client.produce(b"x")
        await settle_down()
        _watch(watcher, partition, 1, 7)
        for _ in range(60):
            world.gate.fail(AppendOutcomeUnknown("nobody answers"))
        client.reserve()
        await trio.sleep(HOLD_TIMEOUT / SECOND + 62)
        done, ended = _told(watcher, 7)
        assert done == Done()
        assert isinstance(ended, Rejected)
        assert ended.code is Code.UNAVAILABLE
