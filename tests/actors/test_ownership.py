"""Who decides, of several nodes on one log: the first in line, and nobody else ever; the others stand by."""

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.claim import claim
from querator.actors.node import Node, NodeOptions, open_stores, run_node
from querator.core import events as ev
from querator.core.catalog.commands import CreateQueue, UpdateQueue
from querator.core.ids import CATALOG_PARTITION, PartitionId
from querator.core.limits import CLAIM_TRIES_MAX, NODE_LEASE, NODE_RENEWAL, SESSION_GRACE
from querator.core.replies import Code, Produced, Rejected
from querator.env import Env, seconds
from querator.env.virtual import virtual_env
from querator.errors import LogUnavailable
from querator.log.codec import decode_events
from querator.log.line import Role, Standing
from querator.log.memory import Gate, MemoryDisk, MemoryLog
from querator.log.store import LogStore
from tests.actors.conftest import Client, Q, settle_down

A_LEASE = seconds(NODE_LEASE)
A_RENEWAL = seconds(NODE_RENEWAL) + 0.1
"""And a little more."""


@attrs.define
class Street:
    """Where nodes queue up; what a database would keep."""

    places: dict[str, float] = attrs.Factory(dict)
    """Names, first in line first, and until when they are believed alive."""

    def alive(self) -> list[str]:
        self.places = {name: until for name, until in self.places.items() if until > trio.current_time()}
        return list(self.places)


@attrs.define
class MemoryLine:
    """A node's place in a street, by trio's clock."""

    street: Street
    name: str
    is_cut_off: bool = False
    renewals: int = 0
    _seen: Standing = Standing(Role.STANDBY)
    _until: float = 0

    def standing(self) -> Standing:
        if self._seen.role is Role.OWNER and trio.current_time() >= self._until:
            return Standing(Role.STANDBY)
        return self._seen

    async def renew(self) -> Standing:
        await trio.lowlevel.checkpoint()
        if self.is_cut_off:
            raise LogUnavailable("cut off")
        self.renewals += 1
        self.street.alive()
        self._until = self.street.places[self.name] = trio.current_time() + A_LEASE
        first, *others = self.street.alive()
        role = Role.OWNER if first == self.name else Role.STANDBY
        self._seen = Standing(role, first, f"{first}:1", f"{others[0]}:1" if others else "")
        return self._seen

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_cut_off:
            raise LogUnavailable("cut off")
        self.street.places.pop(self.name, None)


@attrs.define
class Town:
    """Nodes that share a disk and a street; each may leave before the others."""

    nursery: trio.Nursery
    disk: MemoryDisk = attrs.Factory(MemoryDisk)
    street: Street = attrs.Factory(Street)
    lines: dict[str, MemoryLine] = attrs.Factory(dict)
    gates: dict[str, Gate] = attrs.Factory(dict)
    _stops: dict[str, trio.Event] = attrs.Factory(dict)

    async def start(self, name: str) -> Node:
        node: Node = await self.nursery.start(self._live, name)
        return node

    async def stop(self, name: str) -> None:
        """As an operator does: in order, the line left at the end."""
        self._stops[name].set()
        await settle_down()

    async def _live(self, name: str, *, task_status: trio.TaskStatus[Node]) -> None:
        env: Env = virtual_env(len(self.lines) + 1)
        line = self.lines[name] = MemoryLine(self.street, name)
        gate = self.gates[name] = Gate()
        stop = self._stops[name] = trio.Event()
        stores: dict[str, LogStore] = {"memory": MemoryLog(env, self.disk, faults=gate)}
        async with open_stores(stores), run_node(stores, env, NodeOptions(name=name), line) as node:
            task_status.started(node)
            await stop.wait()

    def claimants(self, partition: PartitionId) -> list[str]:
        """Who claimed the partition, in order."""
        names = []
        for stored in self.disk.partitions[partition].records:
            names += [
                event.node for event in decode_events(stored.record.events) if type(event) is ev.Claimed
            ]
        return names


@pytest.fixture
def town(nursery: trio.Nursery) -> Town:
    return Town(nursery)


async def intrude(town: Town, partition: PartitionId) -> None:
    """Somebody who has no place in line claims all the same."""
    env = virtual_env(99)
    await claim(MemoryLog(env, town.disk), env, partition, node="nobody")


def partition_of(node: Node) -> PartitionId:
    return node.catalog.catalog.queues[Q].partitions[0].id


def produce(node: Node, payload: bytes = b"x") -> Client:
    client = Client(node)
    client.produce(payload)
    return client


async def served(node: Node, payload: bytes = b"x") -> object:
    client = produce(node, payload)
    await settle_down()
    return client.answer(1)


async def test_the_first_decides_and_the_second_says_who_does(autojump_clock: MockClock, town: Town) -> None:
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    assert isinstance(await served(one), Produced)
    assert await served(two) == Rejected(Code.NOT_OWNER, "the owner is one:1")
    assert two.ownership.owner_address == "one:1"
    await trio.sleep(A_RENEWAL)
    assert one.ownership.successor_address == "two:1"
    refusal = await two.catalog.change(CreateQueue(name=Q))
    assert isinstance(refusal, Rejected)
    assert town.claimants(CATALOG_PARTITION) == ["one"]


async def test_who_leaves_knows_of_the_one_that_has_just_come(autojump_clock: MockClock, town: Town) -> None:
    """Clients are sent there."""
    one = await town.start("one")
    await town.start("two")
    assert one.ownership.successor_address == ""
    assert await one.ownership.find_successor() == "two:1"
    assert one.ownership.is_deciding
    town.lines["one"].is_cut_off = True
    assert await one.ownership.find_successor() == "two:1"


async def test_a_node_that_leaves_is_followed_within_a_renewal(autojump_clock: MockClock, town: Town) -> None:
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    assert isinstance(await served(one), Produced)
    await town.stop("one")
    await trio.sleep(A_RENEWAL)
    assert two.ownership.is_owner
    assert isinstance(await served(two), Produced)
    assert town.claimants(partition_of(two)) == ["one", "two"]


async def test_an_owner_that_nobody_replaced_goes_on_without_a_claim(
    autojump_clock: MockClock, town: Town
) -> None:
    """It was cut off from the line, past its time, and nobody else was there."""
    one = await town.start("one")
    await one.catalog.change(CreateQueue(name=Q))
    town.lines["one"].is_cut_off = True
    await trio.sleep(A_LEASE)
    refusal = await served(one)
    assert isinstance(refusal, Rejected)
    assert refusal.code is Code.UNAVAILABLE
    town.lines["one"].is_cut_off = False
    await trio.sleep(A_RENEWAL)
    assert isinstance(await served(one), Produced)
    assert one.ownership.take_overs == 1
    assert town.claimants(CATALOG_PARTITION) == ["one"]


async def test_an_owner_that_was_replaced_finds_out_and_writes_nothing(
    autojump_clock: MockClock, town: Town
) -> None:
    """Cut off from the line but not from the log, its clock bars it, then the other's claim."""
    told: list[str] = []
    one = await town.start("one")
    two = await town.start("two")
    one.ownership.stepped_down = told.append
    await one.catalog.change(CreateQueue(name=Q))
    partition = partition_of(one)
    asker = Client(one)
    asker.reserve(wait=3_600_000_000)
    await trio.sleep(A_RENEWAL)
    town.lines["one"].is_cut_off = True
    await trio.sleep(A_LEASE + A_RENEWAL)
    assert two.ownership.is_owner
    assert isinstance(await served(two), Produced)
    assert isinstance(await served(one), Rejected)
    assert told == ["two:1"], "clients need not wait until the old owner knows"
    assert one.ownership.owner_address == "two:1"
    records = len(town.disk.partitions[partition].records)
    town.lines["one"].is_cut_off = False
    await trio.sleep(A_RENEWAL)
    assert not one.ownership.is_owner
    assert told == ["two:1", "two:1"]
    parked = asker.answer(50)
    assert isinstance(parked, Rejected)
    assert parked.code in (Code.NOT_OWNER, Code.OUTCOME_UNKNOWN)
    assert await served(one) == Rejected(Code.NOT_OWNER, "the owner is two:1")
    assert not one.catalog.catalog.queues
    assert len(town.disk.partitions[partition].records) == records
    assert town.claimants(partition) == ["one", "two"]


async def test_an_append_under_way_when_another_took_over_is_refused(
    autojump_clock: MockClock, town: Town
) -> None:
    """The producer is told that the outcome is unknown, never that it is in; it is not."""
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    partition = partition_of(one)
    town.gates["one"].close()
    late = produce(one, b"late")
    town.lines["one"].is_cut_off = True
    await trio.sleep(A_LEASE + A_RENEWAL)
    assert two.ownership.is_owner
    town.gates["one"].open()
    await settle_down()
    answer = late.answer(1)
    assert isinstance(answer, Rejected)
    assert answer.code is Code.OUTCOME_UNKNOWN
    consumer = Client(two)
    consumer.reserve()
    await settle_down()
    assert consumer.reservations == []
    await trio.sleep(A_RENEWAL)
    assert one.ownership.is_owner, "it still cannot ask who is first"
    assert town.claimants(partition)[-1] == "two"


@pytest.mark.parametrize("opens_in_time", [True, False])
async def test_sessions_come_back_when_the_partitions_are_open_or_have_had_their_time(
    autojump_clock: MockClock, town: Town, *, opens_in_time: bool
) -> None:
    """Who resumed in between would be told that it holds nothing."""
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    town.gates["two"].close()
    await town.stop("one")
    await trio.sleep(A_RENEWAL)
    # The catalog's claim goes through; the partition's is held up.
    town.gates["two"].open()
    town.gates["two"].close()
    await settle_down()
    assert two.ownership.may_decide() is None
    refusal = two.ownership.may_greet()
    assert refusal is not None
    assert refusal.code is Code.UNAVAILABLE
    if opens_in_time:
        town.gates["two"].open()
        await settle_down()
        assert partition_of(two) in two.broker.actors
    else:
        await trio.sleep(seconds(SESSION_GRACE))
        assert partition_of(two) not in two.broker.actors
    assert two.ownership.may_greet() is None
    town.gates["two"].open()


async def test_a_lost_catalog_is_claimed_again_by_who_is_first(autojump_clock: MockClock, town: Town) -> None:
    """A change collided with a record of somebody who should not have written."""
    one = await town.start("one")
    await one.catalog.change(CreateQueue(name=Q))
    twin = await town.start("one")
    # The same place in line: an operator's mistake that the log must stand.
    assert twin.ownership.is_owner
    assert isinstance(await one.catalog.change(UpdateQueue(name=Q, attempts_max=3)), Rejected)
    await settle_down()
    await town.stop("one")
    await trio.sleep(A_RENEWAL)
    collided = await served(one)
    assert isinstance(collided, Rejected)
    assert collided.code is Code.OUTCOME_UNKNOWN
    await trio.sleep(1)
    assert isinstance(await served(one), Produced)
    assert not isinstance(await one.catalog.change(UpdateQueue(name=Q, attempts_max=3)), Rejected)


async def test_who_lost_the_catalog_and_the_place_stands_by_in_peace(
    autojump_clock: MockClock, town: Town
) -> None:
    """It renews at its pace; nothing spins."""
    one = await town.start("one")
    await one.catalog.change(CreateQueue(name=Q))
    await trio.sleep(A_RENEWAL / 2)
    two = await town.start("two")
    await trio.sleep(A_RENEWAL * 0.6)
    town.street.places.pop("one")
    await trio.sleep(A_RENEWAL / 2)
    assert two.ownership.is_owner
    assert one.ownership.is_owner
    await one.catalog.change(UpdateQueue(name=Q, attempts_max=3))
    await settle_down()
    assert not one.ownership.is_owner
    renewals = town.lines["one"].renewals
    await trio.sleep(10 * A_RENEWAL)
    assert town.lines["one"].renewals - renewals <= 11
    assert town.claimants(CATALOG_PARTITION) == ["one", "two"]


async def test_nodes_that_start_together_end_as_one_owner(autojump_clock: MockClock, town: Town) -> None:
    nodes: list[Node] = []

    async def start(name: str) -> None:
        nodes.append(await town.start(name))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(start, f"node-{number}")
    await trio.sleep(A_RENEWAL)
    assert [node.ownership.is_owner for node in nodes].count(True) == 1


async def test_a_standby_drops_no_history(autojump_clock: MockClock, town: Town) -> None:
    """Its catalog is empty, which is no proof that the partitions' queues were deleted."""
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    await served(one)
    await one.buckets.roll("memory")
    assert await two.buckets.prune("memory", buckets_kept=1) == []
    assert await one.buckets.prune("memory", buckets_kept=1) == [1]


async def test_a_take_over_that_fails_is_tried_again(autojump_clock: MockClock, town: Town) -> None:
    """Claims by others and a catalog that can't be written are no reason to give up, or to be silent."""
    one = await town.start("one")
    two = await town.start("two")
    await one.catalog.change(CreateQueue(name=Q))
    await town.stop("one")
    town.gates["two"].close()
    await trio.sleep(A_RENEWAL)
    # The claim is on its way; others take what it was meant for.
    for _ in range(CLAIM_TRIES_MAX):
        await intrude(town, CATALOG_PARTITION)
        town.gates["two"].open()
        town.gates["two"].close()
        await trio.sleep(1)
    assert not two.ownership.is_owner
    assert "claimed by others" in two.ownership.fault
    assert "claimed by others" in await two.probe()
    town.gates["two"].open()
    await trio.sleep(10)
    assert two.ownership.is_owner
    assert await two.probe() == ""
    assert isinstance(await served(two), Produced)
