"""What a session holds, and what becomes of it when the session is lost, resumes, or says goodbye."""

import pytest
import trio
from trio.testing import MockClock

from querator.actors.node import Node
from querator.actors.ports import ReservationLost
from querator.core.commands import Verb
from querator.core.ids import SECOND, PartitionId, SessionId
from querator.core.limits import HOLD_TIMEOUT
from querator.core.replies import Code, Done, Rejected, Reserved, Settled
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from tests.actors.conftest import Client, World, settle_down


async def test_a_held_reservation_outlives_its_deadline_while_the_session_lives(
    autojump_clock: MockClock, world: World
) -> None:
    """The keep-alive is the session itself; it writes nothing."""
    async with world.node() as node:
        partition = await world.create(node, reservation_timeout=10 * SECOND)
        consumer = Client(node, "s")
        consumer.subscribe()
        Client(node).produce(b"x")
        await settle_down()
        position = node.broker.actors[partition].tail
        await trio.sleep(600)
        assert node.broker.actors[partition].tail == position
        consumer.settle(consumer.reservations[0])
        await settle_down()
        assert consumer.answer(2) == Settled(1)


async def test_what_was_not_taken_over_ends_at_its_deadline_and_not_before(
    autojump_clock: MockClock, world: World
) -> None:
    """However well the session answers: the next one gets it, and the session is told."""
    async with world.node() as node:
        partition = await world.create(node, reservation_timeout=10 * SECOND)
        broker = node.broker
        deaf = Client(node, "s")
        broker.begin_turn()
        broker.session_opened(deaf)
        broker.end_turn()
        deaf.subscribe(window=1)
        Client(node).produce(b"x")
        await settle_down()
        pushed = deaf.reservations[0]
        for seconds, lost in (
            (5, []),
            (6, [ReservationLost(partition, pushed.reservation, pushed.nonce, "deadline")]),
        ):
            await trio.sleep(seconds)
            broker.begin_turn()
            broker.unconfirmed(partition, pushed.reservation, pushed.nonce)
            broker.end_turn()
            await settle_down()
            assert [told for _, told in deaf.told if isinstance(told, ReservationLost)] == lost
        assert [reserved.attempts for reserved in deaf.reservations] == [1, [2]]


async def test_a_lost_session_has_one_grace_then_its_items_go_to_others(
    autojump_clock: MockClock, world: World
) -> None:
    """The attempt counts, and the stale holder is refused everything."""
    async with world.node() as node:
        await world.create(node)
        first, second = Client(node, "a"), Client(node, "b")
        first.subscribe()
        Client(node).produce(b"x")
        await settle_down()
        stale = first.reservations[0]
        node.broker.session_lost(first.session, first.generation)
        second.subscribe()
        await trio.sleep(4.9)
        assert second.reservations == []
        await trio.sleep(0.3)
        assert second.reservations[0].attempts == [2]
        for request, verb in enumerate(
            (Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD, Verb.EXTEND), 200
        ):
            second.settle(stale, verb, request=request)
        await settle_down()
        for request in range(200, 205):
            refused = second.answer(request)
            assert isinstance(refused, Rejected)
            assert refused.code is Code.RESERVATION_LOST


async def test_what_never_reached_the_client_costs_no_attempt(
    autojump_clock: MockClock, world: World
) -> None:
    """Released as undelivered."""
    async with world.node() as node:
        await world.create(node)
        first, second = Client(node, "a"), Client(node, "b")
        first.subscribe()
        Client(node).produce(b"x")
        await settle_down()
        node.broker.session_lost(first.session, first.generation, [first.reservations[0].reservation])
        second.subscribe()
        await trio.sleep(6)
        assert second.reservations[0].attempts == 1


async def test_a_session_that_resumes_within_the_grace_keeps_everything(
    autojump_clock: MockClock, world: World
) -> None:
    """The newer connection is told what it holds."""
    async with world.node() as node:
        await world.create(node)
        old = Client(node, "a")
        old.subscribe()
        Client(node).produce(b"x", b"y")
        await settle_down()
        reserved = old.reservations[0]
        old.is_open = False
        node.broker.session_lost(old.session, old.generation)
        await trio.sleep(3)
        new = Client(node, "a")
        new.generation = 2
        node.broker.begin_turn()
        held = node.broker.session_resumed(new)
        node.broker.end_turn()
        assert [(entry.reservation, entry.remaining) for entry in held] == [(reserved.reservation, [(0, 2)])]
        await trio.sleep(60)
        new.settle(reserved)
        await settle_down()
        assert new.answer(2) == Settled(2)


async def test_after_a_restart_held_reservations_get_one_grace(
    autojump_clock: MockClock, world: World
) -> None:
    """A new owner treats them as just lost: resumed in time they go on, else they end."""
    async with world.node() as node:
        await world.create(node)
        consumer = Client(node, "s")
        consumer.subscribe()
        Client(node).produce(b"x")
        await settle_down()
    async with world.node() as node:
        other = Client(node, "other")
        other.subscribe()
        await trio.sleep(4.5)
        assert other.reservations == []
        await trio.sleep(1)
        assert other.reservations[0].attempts == [2]
        other.settle(consumer.reservations[0], request=7)
        await settle_down()
        refused = other.answer(7)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.RESERVATION_LOST


async def test_goodbye_gives_back_at_once_without_blame(autojump_clock: MockClock, world: World) -> None:
    """A client that leaves in order costs nobody an attempt."""
    async with world.node() as node:
        await world.create(node)
        first, second = Client(node, "a"), Client(node, "b")
        first.subscribe()
        Client(node).produce(b"x")
        await settle_down()
        second.subscribe()
        node.broker.begin_turn()
        node.broker.session_closed(first)
        node.broker.end_turn()
        await settle_down()
        assert second.reservations[0].attempts == 1


async def test_a_reservation_that_ends_by_its_deadline_is_announced_as_lost(
    autojump_clock: MockClock, world: World
) -> None:
    """And not before: at the deadline its holder can still complete."""
    async with world.node() as node:
        await world.create(node, reservation_timeout=10 * SECOND)
        consumer = Client(node, "s")
        consumer.subscribe(held=False, window=1)
        Client(node).produce(b"x")
        await settle_down()
        await trio.sleep(10)
        assert not [told for _, told in consumer.told if isinstance(told, ReservationLost)]
        await trio.sleep(0.1)
        lost = [told for _, told in consumer.told if isinstance(told, ReservationLost)]
        assert [(entry.reservation, entry.why) for entry in lost] == [(1, "deadline")]


async def test_what_a_session_holds_over_a_restart_counts_in_its_window(
    autojump_clock: MockClock, world: World
) -> None:
    """A client that resumes has as many items in hand as before, not a window's worth more."""
    async with world.node() as node:
        await world.create(node)
        consumer = Client(node, "s")
        consumer.subscribe(window=2)
        Client(node).produce(b"a", b"b", b"c")
        await settle_down()
        first = consumer.reservations[0]
        assert first.payloads == [b"a", b"b"]
    async with world.node() as node:
        again = Client(node, "s")
        again.generation = 2
        node.broker.begin_turn()
        assert len(node.broker.session_resumed(again)) == 1
        node.broker.end_turn()
        again.subscribe(window=2)
        await trio.sleep(1)
        assert again.reservations == []
        again.settle(first, ranges=((0, 1),))
        await trio.sleep(1)
        assert [reserved.payloads for reserved in again.reservations] == [[b"c"]]


async def _give_up(world: World, node: Node, partition: PartitionId) -> None:
    """The store answers nothing until the partition is thrown away; then it is opened again."""
    before = node.broker.actors[partition]
    for _ in range(60):
        world.gate.fail(AppendOutcomeUnknown("nobody answers"))
    await trio.sleep(HOLD_TIMEOUT / SECOND + 62)
    assert node.broker.actors[partition] is not before


async def test_what_a_session_holds_in_a_partition_that_was_rebuilt_still_counts_in_its_window(
    autojump_clock: MockClock, world: World
) -> None:
    """Neither twice, or its window would stay full for ever, nor not at all."""
    async with world.node() as node:
        partition = await world.create(node)
        consumer = Client(node, "s")
        consumer.subscribe(window=2)
        Client(node).produce(b"a", b"b", b"c")
        await settle_down()
        first = consumer.reservations[0]
        Client(node).produce(b"unknown")
        await _give_up(world, node, partition)
        assert len(consumer.reservations) == 1
        consumer.settle(first, ranges=((0, 1),))
        await trio.sleep(1)
        assert [reserved.payloads for reserved in consumer.reservations[1:]] == [[b"c"]]
        consumer.settle(first, request=3)
        Client(node).produce(b"d")
        await trio.sleep(1)
        assert len(consumer.reservations) == 3


async def test_what_a_client_gave_up_because_its_partition_was_not_open_when_it_came_back_goes_to_others(
    autojump_clock: MockClock, world: World
) -> None:
    """Its session lives, and would keep the reservation alive for hours."""
    async with world.node() as node:
        partition = await world.create(node)
        old = Client(node, "s")
        old.subscribe()
        Client(node).produce(b"x")
        await settle_down()
        node.supervisor.lost(node.broker.actors[partition], "for the sake of the test")
        node.broker.session_lost(old.session, old.generation)
        new = Client(node, "s")
        new.generation = 2
        node.broker.begin_turn()
        assert node.broker.session_resumed(new) == []
        node.broker.end_turn()
        other = Client(node)
        other.subscribe()
        await trio.sleep(1)
        assert node.broker.actors[partition].is_open
        assert [reserved.payloads for reserved in other.reservations] == [[b"x"]]


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_push_that_a_rebuilt_partition_could_not_make_is_made_anew(
    autojump_clock: MockClock, world: World, *, is_written: bool
) -> None:
    """Whether its record got into the log or not: the session never heard of it, so it costs no attempt, and
    the subscription lives on."""
    async with world.node() as node:
        partition = await world.create(node)
        consumer = Client(node, "s")
        Client(node).produce(b"x")
        await settle_down()
        fault = world.gate.hide if is_written else world.gate.fail
        fault(AppendOutcomeUnknown("the answer was lost"))
        consumer.subscribe()
        await settle_down()
        await _give_up(world, node, partition)
        assert [type(reply) for _, reply in consumer.told] == [Done, Reserved]
        pushed = consumer.reservations[0]
        assert pushed.attempts == 1
        assert pushed.reservation == (2 if is_written else 1)
        consumer.settle(pushed)
        await settle_down()
        assert consumer.answer(2) == Settled(1)


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_session_that_ends_while_the_store_refuses_gives_back_what_it_held(
    autojump_clock: MockClock, world: World, says_goodbye: bool
) -> None:
    """By its goodbye or by its grace: it happens once, and nobody would ask again before max_runtime."""
    async with world.node() as node:
        await world.create(node)
        client, holder, other = Client(node), Client(node, "s"), Client(node, "t")
        holder.subscribe()
        client.produce(b"a")
        await settle_down()
        assert len(holder.reservations) == 1
        for _ in range(14):
            world.gate.fail(LogUnavailable("away"))
        client.produce(b"b", request=3)
        await trio.sleep(1)
        if says_goodbye:
            node.broker.begin_turn()
            node.broker.session_closed(holder)
            node.broker.end_turn()
        else:
            holder.is_open = False
            node.broker.session_lost(SessionId("s"), 1)
        await trio.sleep(8)
        await trio.sleep(20)
        other.subscribe()
        await settle_down()
        assert sorted(payload for got in other.reservations for payload in got.payloads) == [b"a", b"b"]
