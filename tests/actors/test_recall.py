"""A repeat of a settlement that memory has long forgotten is answered from the log, as the first was."""

import pytest
import trio
from trio.testing import MockClock

from querator.actors.node import Node
from querator.core import limits
from querator.core.commands import Verb
from querator.core.ids import SECOND, ReservationNumber
from querator.core.milestones import STRIDE, Milestones
from querator.core.replies import Code, Rejected, Reserved, Settled
from tests.actors.conftest import Client, World, settle_down

MEMORY = 2 * STRIDE
"""Reservations that are remembered in these tests."""


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("querator.core.settled._BLOCKS_MAX", MEMORY // STRIDE)


async def _go_on(client: Client, reservations: int = 3 * STRIDE + 10) -> None:
    """Let so many reservations come and go, in records of some hundred."""
    broker = client.node.broker
    for start in range(0, reservations, 200):
        count = min(200, reservations - start)
        client.produce(*[b"x"] * count)
        client.told.clear()
        for number in range(count):
            client.reserve(request=1_000 + number)
        await settle_down()
        broker.begin_turn()
        for reserved in client.reservations:
            client.settle_in_turn(reserved)
        broker.end_turn()
        await settle_down()
    client.told.clear()


async def _begin(world: World, node: Node) -> tuple[Client, list[Reserved]]:
    """Three reservations of two items each: completed; retried; one completed and one released."""
    await world.create(node, attempts_max=0)
    client = Client(node, "s")
    await _go_on(client, 7)
    client.produce(*[b"x"] * 6)
    for request in (1, 2, 3):
        client.reserve(2, request=request)
    await settle_down()
    first, second, third = client.reservations
    client.settle(first)
    client.settle(second, Verb.RETRY, due_at=node.broker.now + 3_600 * SECOND)
    client.settle(third, ranges=((0, 1),))
    client.settle(third, Verb.DEAD, ranges=((1, 1),))
    await settle_down()
    return client, [first, second, third]


def _lost(answer: object) -> bool:
    return isinstance(answer, Rejected) and answer.code is Code.RESERVATION_LOST


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_late_repeat_is_answered_as_the_first_was(
    autojump_clock: MockClock, world: World, *, is_restarted: bool
) -> None:
    async with world.node() as node:
        client, settled = await _begin(world, node)
        await _go_on(client)
        if not is_restarted:
            await _ask(client, settled)
    if is_restarted:
        async with world.node() as node:
            await _ask(Client(node, "s"), settled)


async def _ask(client: Client, settled: list[Reserved]) -> None:
    first, second, third = settled
    (actor,) = (actor for actor in client.node.broker.actors.values())
    assert third.reservation < actor.state.settled.floor
    client.settle(first, request=1)
    client.settle(first, Verb.RETRY, request=2)
    client.settle(second, Verb.RETRY, request=3)
    client.settle(third, ranges=((0, 1),), request=4)
    client.settle(third, Verb.DEAD, ranges=((0, 2),), request=5)
    client.settle(first, Verb.EXTEND, request=6)
    first.nonce += 1
    client.settle(first, request=7)
    third.reservation = ReservationNumber(third.reservation + 100_000)
    client.settle(third, request=8)
    await trio.sleep(1)
    assert client.answer(1) == Settled(2, (), repeated=True)
    assert _lost(client.answer(2))
    assert client.answer(3) == Settled(2, (), repeated=True)
    assert client.answer(4) == Settled(1, (), repeated=True)
    assert client.answer(5) == Settled(1, ((0, Code.RESERVATION_LOST),), repeated=True)
    assert [_lost(client.answer(request)) for request in (6, 7, 8)] == [True] * 3


async def test_only_so_many_wait_to_be_looked_for(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("querator.actors.recall.RECALLS_MAX", 2)
    async with world.node() as node:
        client, (first, *_) = await _begin(world, node)
        await _go_on(client)
        for request in range(4):
            client.settle(first, request=request)
        await trio.sleep(1)
        answers = [client.answer(request) for request in range(4)]
        assert answers[:2] == [Settled(2, (), repeated=True)] * 2
        refused = answers[2]
        assert isinstance(refused, Rejected)
        assert refused.code is Code.OVERLOADED


async def test_what_lies_further_than_the_bound_is_refused(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, not believed: nothing is lost by that but an answer."""
    monkeypatch.setattr("querator.actors.recall.RECALL_RECORDS_MAX", 3)
    async with world.node() as node:
        client, (first, *_) = await _begin(world, node)
        await _go_on(client)
        client.settle(first, request=1)
        await trio.sleep(1)
        assert _lost(client.answer(1))


def test_the_oldest_milestones_go_first() -> None:
    milestones = Milestones()
    for block in range(limits.MILESTONES_MAX + 2):
        milestones.note(block * STRIDE + 1, block + 1, block)
    assert len(milestones.numbers) == limits.MILESTONES_MAX
    assert milestones.around(2 * STRIDE) is None
    around = milestones.around(2 * STRIDE + 1)
    assert around is not None
    first, after = around
    assert (first.number, first.position, first.at) == (2 * STRIDE + 1, 3, 2)
    assert after is not None
    assert after.number == 3 * STRIDE + 1
    last = milestones.around(10**12)
    assert last is not None
    assert last[1] is None
