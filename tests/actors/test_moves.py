"""Dead letters: two logged steps, recognised by number, whatever crashes in between."""

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from querator.actors import moves
from querator.actors.claim import claim
from querator.actors.node import Node
from querator.actors.verification import verify_partition
from querator.core.catalog.commands import DeleteQueue
from querator.core.commands import Command, ReadHomes, Receive, Redrive, SendBack, Verb
from querator.core.events import Attributes, ItemsMoved
from querator.core.ids import ItemNumber, PartitionId, QueueName
from querator.core.place_ids import encode_place
from querator.core.replies import Done, Homes, Reply
from querator.env.virtual import virtual_env
from querator.log.codec import decode_events
from querator.log.memory import Faults, MemoryLog
from querator.log.records import Record
from tests.actors.conftest import Client, Q, World, settle_down

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


# --- and back ----------------------------------------------------------------------------------------


def tell(node: Node, partition: PartitionId, command: Command) -> Client:
    client = Client(node)
    node.broker.begin_turn()
    node.broker.command(client, 1, partition, command)
    node.broker.end_turn()
    return client


async def ask(node: Node, partition: PartitionId, command: Command) -> Reply:
    client = tell(node, partition, command)
    await settle_down()
    return client.answer(1)  # type: ignore[return-value]


async def sound(world: World, *partitions: PartitionId) -> None:
    for partition in partitions:
        found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)
        assert found.is_good, found


async def test_what_a_dead_queue_took_goes_home_to_the_tail_as_new(
    autojump_clock: MockClock, world: World
) -> None:
    """With no attempts counted, and its last id in the dead queue as where it came from."""
    source, target = await _set_aside(world, 3)
    async with world.node() as node:
        Client(node).produce(b"later")
        await trio.sleep(1)
        assert await ask(node, target, ReadHomes()) == Homes({source: 3}, {})
        assert await ask(node, target, SendBack([ItemNumber(3), ItemNumber(1)])) == Done(2)
        await trio.sleep(1)
        reader = Client(node, "r")
        reader.reserve(10)
        await settle_down()
        (reserved,) = reader.reservations
        assert reserved.payloads == [b"later", b"2", b"0"]
        assert reserved.attempts == 1
        assert reserved.attributes is not None
        origins = reserved.attributes[0]["source_id"]
        assert origins == [None, encode_place(target, 3), encode_place(target, 1)]  # type: ignore[arg-type]
        reader.settle(reserved, Verb.DEAD, reason="still bad")
        await trio.sleep(1)
        # Again, and among them one that was never dead before.
        assert await ask(node, target, ReadHomes()) == Homes({source: 4}, {})
        steps = await node.history.trace(source, ItemNumber(5), steps_max=10)
        assert [step.what for step in steps] == ["produced", "came_back", "reserved", "dead", "moved"]  # type: ignore[union-attr]
        steps = await node.history.trace(target, ItemNumber(1), steps_max=10)
        assert [step.what for step in steps] == ["produced", "received", "sent_back", "moved"]  # type: ignore[union-attr]
    await sound(world, source, target)


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> int:
    """Items of one move: many moves are under way."""
    few = 40
    monkeypatch.setattr(moves, "MOVE_ITEMS_MAX", few)
    return few


class CrashAt(Faults):
    """The n-th append, and each after it, waits for ever: before it is written, or after."""

    def __init__(self, number: int, *, is_written: bool) -> None:
        self._left = number
        self._is_written = is_written
        self.reached = trio.Event()

    async def before(self, records: Sequence[Record]) -> None:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._is_written):
            await self._hang()

    async def after(self, records: Sequence[Record]) -> None:
        if self._left == 0:
            await self._hang()

    async def _hang(self) -> None:
        self.reached.set()
        await trio.sleep_forever()


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("number", range(1, 9))
async def test_a_crash_at_any_append_of_both_ways_loses_nothing_and_doubles_nothing(
    autojump_clock: MockClock, world: World, few_at_once: int, number: int, is_written: bool
) -> None:
    """Items die and go to the dead queue while others come home from it, between the same two partitions."""
    source, target = await _set_aside(world, 100)
    async with world.node() as node:
        Client(node).produce(*[b"new %d" % index for index in range(5)])
        consumer = Client(node, "s")
        consumer.subscribe(batch=100)
        await trio.sleep(1)
        crash = CrashAt(number, is_written=is_written)
        node.stores["memory"].faults = crash  # type: ignore[attr-defined]
        tell(node, target, SendBack())
        consumer.settle(consumer.reservations[0], Verb.DEAD)
        with trio.move_on_after(5):
            await crash.reached.wait()
    async with world.node() as node:
        await trio.sleep(20)
        # What was asked when the crash came was done, or never was.
        await ask(node, target, SendBack())
        await trio.sleep(5)
        taker = Client(node, "t")
        for queue, request in ((Q, 1), (DEAD, 2)):
            taker.reserve(1_000, queue=queue, request=request)
        await settle_down()
        there = {reserved.partition: sorted(reserved.payloads) for reserved in taker.reservations}
        everything = sorted(payload for payloads in there.values() for payload in payloads)
        made = [b"%d" % index for index in range(100)] + [b"new %d" % index for index in range(5)]
        assert everything == sorted(made)
        assert dict.fromkeys(made[:100]).keys() <= dict.fromkeys(there[source]).keys()
        for partition in (source, target):
            assert not node.broker.actors[partition].state.leaving
    await sound(world, source, target)


async def test_what_is_sent_back_to_a_queue_that_is_gone_stays_dead_in_the_dead_queue(
    autojump_clock: MockClock, world: World
) -> None:
    source, target = await _set_aside(world, 3)
    async with world.node() as node:
        await node.catalog.change(DeleteQueue(Q))
        assert await ask(node, target, SendBack()) == Done(3)
        await trio.sleep(1)
        state = node.broker.actors[target].state
        assert not state.leaving
        assert [reason for reason, _, _ in state.dead.values()] == ["sent_back"] * 3
    await sound(world, source, target)


class HoldsMoved(Faults):
    """What was taken is never confirmed."""

    async def before(self, records: Sequence[Record]) -> None:
        if any(isinstance(event, ItemsMoved) for record in records for event in decode_events(record.events)):
            await trio.sleep_forever()


async def test_what_came_home_before_that_was_deleted_is_not_kept_as_well(
    autojump_clock: MockClock, world: World, few_at_once: int
) -> None:
    """A crash kept from the dead queue what its home had taken, and there somebody may have done it."""
    source, target = await _set_aside(world, 100)
    async with world.node() as node:
        node.stores["memory"].faults = HoldsMoved()  # type: ignore[attr-defined]
        tell(node, target, SendBack())
        await trio.sleep(1)
        assert node.broker.actors[source].state.ready == few_at_once
        await node.catalog.change(DeleteQueue(Q))
        await trio.sleep(1)
    async with world.node() as node:
        await trio.sleep(1)
        state = node.broker.actors[target].state
        assert (state.removed, len(state.dead), len(state.leaving)) == (
            few_at_once,
            100 - few_at_once,
            0,
        )
    await sound(world, source, target)


async def test_the_dead_of_a_queue_whose_dead_queue_is_deleted_stay_and_can_be_redriven(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "MOVE_ITEMS_MAX", 1)
    async with world.node() as node:
        await world.create(node, DEAD)
        source = await world.create(node, dead_queue="dead")
        node.stores["memory"].faults = HoldsMoved()  # type: ignore[attr-defined]
        consumer = Client(node, "s")
        consumer.subscribe()
        Client(node).produce(b"a", b"b")
        await settle_down()
        consumer.settle(consumer.reservations[0], Verb.DEAD)
        await settle_down()
        await node.catalog.change(DeleteQueue(DEAD))
    async with world.node() as node:
        await trio.sleep(1)
        state = node.broker.actors[source].state
        assert (state.removed, len(state.leaving)) == (1, 0)
        assert await ask(node, source, Redrive()) == Done(1)
    await sound(world, source)
