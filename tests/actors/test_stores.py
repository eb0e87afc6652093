"""Several log stores in a node: partitions live where they were put, and one store's trouble is its own."""

from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.node import Node, NodeOptions, open_node
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import QueueName
from querator.core.replies import Code, Produced, Rejected
from querator.env.virtual import virtual_env
from querator.errors import ConfigError, LogUnavailable
from querator.log.late import LateLog
from querator.log.memory import Faults, MemoryDisk, MemoryLog
from querator.log.store import LogStore
from tests.actors.conftest import Client, Q, settle_down


@attrs.define
class Cable(Faults):
    """May be cut: nothing is appended then."""

    is_cut: bool = False

    async def before(self, records: object) -> None:
        del records
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
        town.cables["b"].is_cut = True
        held = produce_to(node, "b")
        await trio.sleep(1)
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
