"""Several log stores in a node: partitions live where they were put, and one store's trouble is its own."""

from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.node import Node, NodeOptions, open_node
from querator.actors.ports import QueueStats
from querator.core import events as ev
from querator.core.catalog.commands import CreateQueue, DeleteQueue, UpdateQueue
from querator.core.ids import PartitionId, QueueName
from querator.core.limits import HOLD_TIMEOUT
from querator.core.policy import decode_policy
from querator.core.replies import Code, Produced, Rejected
from querator.env import seconds
from querator.env.virtual import virtual_env
from querator.errors import ConfigError, LogUnavailable
from querator.log.codec import decode_events
from querator.log.late import LateLog
from querator.log.memory import Faults, MemoryDisk, MemoryLog
from querator.log.store import LogStore
from tests.actors.conftest import Client, Q, settle_down


@attrs.define
class Cable(Faults):
    """May be cut: nothing is appended then; or stuck: appends wait."""

    is_cut: bool = False
    is_stuck: bool = False

    async def before(self, records: object) -> None:
        del records
        while self.is_stuck:
            await trio.sleep(0.1)
        if self.is_cut:
            raise LogUnavailable("the cable is cut")


class Missing(MemoryLog):
    """Not to be opened before a test says so."""

    refusal: LogUnavailable | ConfigError | None = LogUnavailable("nobody answers")

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal


@attrs.define
class Town:
    """Disks and cables, by store."""

    disks: dict[str, MemoryDisk] = attrs.Factory(lambda: {"a": MemoryDisk(), "b": MemoryDisk()})
    cables: dict[str, Cable] = attrs.Factory(lambda: {"a": Cable(), "b": Cable()})

    def node(self, **affinities: int) -> AbstractAsyncContextManager[Node]:
        env = virtual_env(1)
        stores: dict[str, LogStore] = {
            name: MemoryLog(env, disk, name=name, faults=self.cables[name])
            for name, disk in self.disks.items()
        }
        return open_node(stores, env, NodeOptions(affinities=affinities))


async def create(node: Node, name: str, partitions: int) -> list[str]:
    """A queue; the stores of its partitions."""
    await node.catalog.change(CreateQueue(name=QueueName(name), partitions=partitions))
    return [part.store for part in node.catalog.catalog.queues[QueueName(name)].partitions]


def produce_to(node: Node, store: str) -> Client:
    """To the partition of the queue that lives there."""
    client = Client(node)
    (partition,) = [part.id for part in node.catalog.catalog.queues[Q].partitions if part.store == store]
    node.broker.begin_turn()
    client.produce_to(partition, b"x", request=1)
    node.broker.end_turn()
    return client


async def served(node: Node, store: str) -> object:
    client = produce_to(node, store)
    await settle_down()
    return client.answer(1)


def conditions(node: Node) -> dict[str, str]:
    """By store, of the queue's partitions."""
    places = [node.supervisor.whereabouts(part.id) for part in node.catalog.catalog.queues[Q].partitions]
    return {place.store: place.condition for place in places}


async def test_partitions_of_new_queues_are_shared_by_affinity(autojump_clock: MockClock) -> None:
    """And what one queue got the next one makes up for; they stay where they are."""
    town = Town()
    async with town.node(a=3, b=1) as node:
        assert await create(node, "one", 4) == ["a", "a", "a", "b"]
        assert await create(node, "two", 1) == ["a"]
    async with town.node(a=0, b=1) as node:
        assert await create(node, "three", 2) == ["b", "b"]
        one = node.catalog.catalog.queues[QueueName("one")]
        assert [part.store for part in one.partitions] == ["a", "a", "a", "b"]
        assert all(node.broker.actors[part.id].is_open for part in one.partitions)
    assert len(town.disks["a"].partitions) == 1 + 4
    assert len(town.disks["b"].partitions) == 1 + 2


async def test_a_store_that_is_away_takes_its_partitions_along_and_no_others(
    autojump_clock: MockClock,
) -> None:
    """First what is under way is held, then its partitions are unavailable; when it is back, so are they."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        assert await create(node, Q, 2) == ["a", "b"]
        assert conditions(node) == {"a": "open", "b": "open"}
        assert node.notes() == []
        held = await hold_append(town, node)
        assert held.told == []
        assert conditions(node) == {"a": "open", "b": "holding"}
        assert isinstance(await served(node, "a"), Produced)
        refused = await served(node, "b")
        assert isinstance(refused, Rejected)
        assert refused.code is Code.UNAVAILABLE
        await trio.sleep(120)
        assert isinstance(held.answer(1), Rejected)
        assert conditions(node) == {"a": "open", "b": "unavailable"}
        assert isinstance(await served(node, "a"), Produced)
        assert await node.probe() == ""
        town.cables["b"].is_cut = False
        await trio.sleep(30)
        assert conditions(node) == {"a": "open", "b": "open"}
        assert isinstance(await served(node, "b"), Produced)
        assert node.notes() == []


def log_of(town: Town, node: Node, store: str) -> list[ev.Event]:
    """All events of the queue's partition there, as of now."""
    (partition,) = [part.id for part in node.catalog.catalog.queues[Q].partitions if part.store == store]
    return events_in(town, store, partition)


def events_in(town: Town, store: str, partition: PartitionId) -> list[ev.Event]:
    records = town.disks[store].partitions[partition].records
    return [event for stored in records for event in decode_events(stored.record.events)]


async def hold_append(town: Town, node: Node) -> Client:
    """Store "b" is cut off, and somebody waits for what was produced to its partition."""
    town.cables["b"].is_cut = True
    held = produce_to(node, "b")
    await trio.sleep(1)
    return held


async def test_a_change_reaches_a_partition_that_holds_an_append_when_the_hold_ends(
    autojump_clock: MockClock,
) -> None:
    """And keeps nobody waiting meanwhile."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        held = await hold_append(town, node)
        assert conditions(node) == {"a": "open", "b": "holding"}
        began = trio.current_time()
        await node.catalog.change(UpdateQueue(name=Q, attempts_max=7))
        await node.catalog.change(UpdateQueue(name=Q, paused=True))
        assert trio.current_time() == began
        assert type(log_of(town, node, "a")[-1]) is ev.PartitionPaused
        assert held.told == []
        town.cables["b"].is_cut = False
        await trio.sleep(10)
        assert isinstance(held.answer(1), Produced)
        assert conditions(node) == {"a": "open", "b": "open"}
        assert node.supervisor.restarts == 0
        policies = [event for event in log_of(town, node, "b") if type(event) is ev.PolicyApplied]
        assert decode_policy(policies[-1].document).attempts_max == 7
        assert type(log_of(town, node, "b")[-1]) is ev.PartitionPaused


async def test_a_queue_is_deleted_while_a_partition_holds_an_append(autojump_clock: MockClock) -> None:
    """At once; who waits there is answered when the hold ends, and the log says that the queue is gone."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        (partition,) = [part.id for part in node.catalog.catalog.queues[Q].partitions if part.store == "b"]
        held = await hold_append(town, node)
        began = trio.current_time()
        await node.catalog.change(DeleteQueue(Q))
        assert trio.current_time() == began
        assert held.told == []
        assert await create(node, Q, 2) == ["a", "a"]
        assert conditions(node) == {"a": "open"}
        town.cables["b"].is_cut = False
        await trio.sleep(10)
        assert isinstance(held.answer(1), Produced)
        last = events_in(town, "b", partition)[-1]
        assert isinstance(last, ev.PolicyApplied)
        assert decode_policy(last.document).deleted
        assert node.broker.retiring == {}
        assert all(writer.is_idle for writer in node.broker.writers.values())


async def test_of_a_deleted_queue_nothing_is_known_when_its_partition_never_gets_to_its_log(
    autojump_clock: MockClock,
) -> None:
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        held = await hold_append(town, node)
        await node.catalog.change(DeleteQueue(Q))
        await create(node, Q, 1)
        await trio.sleep(2 * seconds(HOLD_TIMEOUT))
        refused = held.answer(1)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.OUTCOME_UNKNOWN
        assert node.broker.retiring == {}
        assert node.supervisor.restarts == 0
        assert conditions(node) == {"a": "open"}


async def test_a_queue_is_deleted_while_an_append_of_it_hangs(autojump_clock: MockClock) -> None:
    """Nobody waits longer than a few seconds for its partition, nor for ever for an answer."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        town.cables["b"].is_stuck = True
        held = produce_to(node, "b")
        await settle_down()
        began = trio.current_time()
        await node.catalog.change(DeleteQueue(Q))
        assert trio.current_time() - began < 10
        assert held.told == []
        town.cables["b"].is_stuck = False
        await trio.sleep(10)
        assert isinstance(held.answer(1), Produced)
        assert node.broker.retiring == {}


async def test_a_change_reaches_a_partition_that_is_being_opened(autojump_clock: MockClock) -> None:
    """Its policy is that of the moment at which it is open, not of the one at which the claim began."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
    town.cables["b"].is_stuck = True
    async with town.node(a=1, b=1) as node:
        assert conditions(node) == {"a": "open", "b": "unavailable"}
        await trio.sleep(1)
        await node.catalog.change(UpdateQueue(name=Q, attempts_max=7, paused=True))
        town.cables["b"].is_stuck = False
        await trio.sleep(10)
        assert conditions(node) == {"a": "open", "b": "open"}
        for actor in node.broker.actors.values():
            assert (actor.state.policy.attempts_max, actor.state.paused) == (7, True)


async def test_a_new_queue_goes_where_it_can_be_opened(autojump_clock: MockClock) -> None:
    town = Town()
    async with town.node(a=1, b=100) as node:
        await create(node, Q, 2)
        town.cables["b"].is_cut = True
        for part in node.catalog.catalog.queues[Q].partitions:
            assert part.store == "b"
        Client(node).produce(b"x")
        await trio.sleep(1)
        assert node.notes() == ["store 'b' is away: it takes no appends"]
        assert await create(node, "new", 2) == ["a", "a"]


async def test_the_catalogs_store_being_away_is_the_nodes_trouble(autojump_clock: MockClock) -> None:
    """Other stores' queues go on."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        town.cables["a"].is_cut = True
        produce_to(node, "a")
        await trio.sleep(1)
        assert await node.probe() == "the cable is cut"
        assert isinstance(await served(node, "b"), Produced)
        refused = await node.catalog.change(CreateQueue(name=QueueName("new")))
        assert isinstance(refused, Rejected)


async def test_a_store_that_is_not_there_at_the_start_is_opened_when_it_comes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
    env = virtual_env(2)
    missing = Missing(env, town.disks["b"], name="b")
    late = LateLog(missing, env=env)
    nursery.start_soon(late.run)
    stores: dict[str, LogStore] = {"a": MemoryLog(env, town.disks["a"], name="a"), "b": late}
    async with open_node(stores, env, NodeOptions(affinities={"a": 1, "b": 1})) as node:
        assert conditions(node) == {"a": "open", "b": "unavailable"}
        assert isinstance(await served(node, "a"), Produced)
        (place,) = [
            node.supervisor.whereabouts(part.id)
            for part in node.catalog.catalog.queues[Q].partitions
            if part.store == "b"
        ]
        assert "nobody answers" in place.fault
        assert node.notes() == ["store 'b' is away: nobody answers"]
        missing.refusal = ConfigError("its schema is of tomorrow")
        await trio.sleep(20)
        assert node.notes() == ["store 'b' is away: its schema is of tomorrow"]
        missing.refusal = None
        await trio.sleep(20)
        assert conditions(node) == {"a": "open", "b": "open"}
        assert isinstance(await served(node, "b"), Produced)
    nursery.cancel_scope.cancel()


async def test_a_late_store_that_is_unfit_at_the_start_is_refused_at_once(autojump_clock: MockClock) -> None:
    """An operator is there then, who can mend it."""
    env = virtual_env(1)
    missing = Missing(env, name="b")
    missing.refusal = ConfigError("fsync is off")
    with pytest.raises(ConfigError, match="fsync"):
        await LateLog(missing, env=env).open()


async def test_a_partition_whose_store_is_not_configured_says_so(autojump_clock: MockClock) -> None:
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
    del town.disks["b"]
    async with town.node(a=1) as node:
        assert isinstance(await served(node, "a"), Produced)
        faults = [
            node.supervisor.whereabouts(part.id).fault for part in node.catalog.catalog.queues[Q].partitions
        ]
        assert faults == ["", "store 'b' is not configured"]


async def test_what_a_store_remarks_is_told_with_its_name(autojump_clock: MockClock) -> None:
    town = Town()
    async with town.node(a=1, b=1) as node:
        node.stores["b"].remarks = ["its roof leaks"]  # type: ignore[misc]
        assert node.notes() == ["store 'b': its roof leaks"]


async def test_counters_wait_shortly_for_a_partition_that_hangs(autojump_clock: MockClock) -> None:
    """STATS_WAIT; when none answers, the first that does is enough."""
    town = Town()
    async with town.node(a=1, b=1) as node:
        await create(node, Q, 2)
        town.cables["b"].is_stuck = True
        produce_to(node, "b")
        await settle_down()
        client, began = Client(node), trio.current_time()

        async def counted(request: int) -> QueueStats:
            node.broker.begin_turn()
            node.broker.stats(client, request, Q)
            node.broker.end_turn()
            while all(number != request for number, _ in client.told):
                await trio.sleep(0.01)
            answer = client.answer(request)
            assert isinstance(answer, QueueStats)
            return answer

        assert len((await counted(1)).partitions) == 1
        assert 0.5 <= trio.current_time() - began < 0.6
        town.cables["a"].is_stuck = True
        produce_to(node, "a")
        await settle_down()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counted, 2)
            await trio.sleep(3)
            assert all(number != 2 for number, _ in client.told)
            town.cables["a"].is_stuck = False
        town.cables["b"].is_stuck = False
        assert len((await counted(3)).partitions) == 2
        assert not node.broker._gatherings
