"""A log that may have lost its end: the partition halts, until an operator takes it as it is."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.acceptance import NothingSuspected, accept_loss
from querator.actors.node import Node, NodeOptions, open_node
from querator.actors.ports import AcceptedLoss, ReservationLost
from querator.actors.verification import verify_partition
from querator.core import events as ev
from querator.core.catalog.commands import CreateQueue, DeleteQueue
from querator.core.evolve import INCARNATION_BITS
from querator.core.ids import CATALOG_PARTITION, PartitionId, Position
from querator.core.replies import Code, Produced, Rejected, Reserved, Settled
from querator.env.virtual import MemoryFiles, virtual_env
from querator.errors import DataLossSuspected
from querator.log.codec import decode_events
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.witness import Witness, WitnessedLog
from tests.actors.conftest import Client, Q, settle_down


class House:
    """A node's directory, which remembers, and a disk that may forget."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.files = MemoryFiles()

    def node(self) -> AbstractAsyncContextManager[Node]:
        self.env = virtual_env(1, files=self.files)
        self.store = WitnessedLog(MemoryLog(self.env, self.disk), Witness(self.env, Path("/data/witness")))
        return open_node({"memory": self.store}, self.env, NodeOptions())

    def events(self, partition: PartitionId) -> list[ev.Event]:
        return [
            event
            for stored in self.disk.partitions[partition].records
            for event in decode_events(stored.record.events)
        ]

    def forget(self, partition: PartitionId, records: int) -> None:
        """The last records are gone, as after a failover to a server that lagged behind."""
        old = self.disk.partitions.pop(partition)
        for stored in old.records[:-records]:
            self.disk.append([stored.record])
        new = self.disk.partitions[partition]
        new.snapshots, new.chunks = old.snapshots, old.chunks


async def lose_an_item(house: House) -> tuple[PartitionId, int]:
    """Two items are acknowledged, the log forgets the second; partition, and the lost item's number."""
    async with house.node() as node:
        await node.catalog.change(CreateQueue(name=Q))
        client = Client(node)
        for request in (1, 2):
            client.produce(b"item", request=request)
            await settle_down()
        second = client.answer(2)
        assert isinstance(second, Produced)
        partition = second.partition
        item = second.first_item
    house.forget(partition, 1)
    return partition, item


async def test_a_partition_goes_on_when_an_operator_says_so(autojump_clock: MockClock) -> None:
    """With what its log has, under numbers that the lost end cannot have given; the log says who said so."""
    house = House()
    partition, _ = await lose_an_item(house)
    async with house.node() as node:
        client = Client(node)
        client.produce(b"refused", request=3)
        await settle_down()
        refused = client.answer(3)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.HALTED
        assert "acknowledged" in await node.probe()
        # Of three records the last is gone.
        assert await node.supervisor.accept_loss(partition, "ops") == AcceptedLoss(Position(2), Position(3))
        assert await node.probe() == ""
        client.produce(b"new", request=4)
        await settle_down()
        new = client.answer(4)
        assert isinstance(new, Produced)
        assert new.first_item >= 1 << INCARNATION_BITS
        client.reserve(items=10)
        await settle_down()
        (reserved,) = client.reservations
        assert list(reserved.payloads) == [b"item", b"new"]
        client.settle(reserved)
        await settle_down()
        assert isinstance(client.answer(2), Settled)
    accepted = [event for event in house.events(partition) if type(event) is ev.LossAccepted]
    assert accepted == [ev.LossAccepted("ops", 3)]
    found = await verify_partition(MemoryLog(virtual_env(1), house.disk), partition)
    assert found.is_good, found
    async with house.node() as node:
        assert await node.probe() == ""


async def test_what_a_session_may_have_forgotten_is_given_back_when_a_loss_is_accepted(
    autojump_clock: MockClock,
) -> None:
    """It settled the item, the log lost that: its being alive would keep for ever what it does not hold."""
    house = House()
    async with house.node() as node:
        await node.catalog.change(CreateQueue(name=Q))
        partition = node.catalog.catalog.queues[Q].partitions[0].id
        consumer = Client(node, "s")
        consumer.subscribe(window=1)
        Client(node).produce(b"item")
        await settle_down()
        (reserved,) = consumer.reservations
        consumer.settle(reserved, request=2)
        await settle_down()
        assert isinstance(consumer.answer(2), Settled)
        house.forget(partition, 1)
        consumer.told.clear()
        Client(node).produce(b"into the gap")
        await trio.sleep(10)
        assert isinstance(await node.supervisor.accept_loss(partition, "ops"), AcceptedLoss)
        await settle_down()
        lost, again = [reply for _, reply in consumer.told]
        assert lost == ReservationLost(partition, reserved.reservation, reserved.nonce, "loss_accepted")
        assert isinstance(again, Reserved)
        assert (list(again.payloads), again.attempts) == ([b"item"], 1)


async def test_only_a_suspected_loss_can_be_accepted(autojump_clock: MockClock) -> None:
    house = House()
    async with house.node() as node:
        await node.catalog.change(CreateQueue(name=Q))
        partition = node.catalog.catalog.queues[Q].partitions[0].id
        for asked, why in ((partition, "no loss is suspected"), (PartitionId(77), "is of no queue")):
            refusal = await node.supervisor.accept_loss(asked, "ops")
            assert isinstance(refusal, Rejected)
            assert why in refusal.detail
    records = len(house.disk.partitions[partition].records)
    async with house.node():
        pass
    with pytest.raises(NothingSuspected):
        await accept_loss(house.store, house.env, partition, author="ops")
    assert len(house.disk.partitions[partition].records) == records + 1


async def test_a_server_whose_catalog_lost_its_end_starts_when_that_is_accepted(
    autojump_clock: MockClock,
) -> None:
    """While no server runs; and numbers of partitions that the lost end had given are not served as new."""
    house = House()
    async with house.node() as node:
        await node.catalog.change(CreateQueue(name=Q))
        Client(node).produce(b"of the lost queue")
        await settle_down()
    house.forget(CATALOG_PARTITION, 1)
    with pytest.RaisesGroup(DataLossSuspected):
        async with house.node():
            raise AssertionError("it started")
    await house.store.open()
    await accept_loss(house.store, house.env, CATALOG_PARTITION, author="ops")
    await house.store.aclose()
    async with house.node() as node:
        assert not node.catalog.catalog.queues
        await node.catalog.change(CreateQueue(name=Q))
        client = Client(node)
        client.produce(b"x")
        await settle_down()
        halted = client.answer(1)
        assert isinstance(halted, Rejected)
        assert halted.code is Code.HALTED
        assert "of an earlier queue" in halted.detail
        await node.catalog.change(DeleteQueue(Q))
        await node.catalog.change(CreateQueue(name=Q))
        client.produce(b"x", request=2)
        await settle_down()
        assert isinstance(client.answer(2), Produced)


async def test_what_cannot_be_read_is_not_accepted(autojump_clock: MockClock) -> None:
    house = House()
    partition, _ = await lose_an_item(house)
    async with house.node() as node:
        stored = house.disk.partitions[partition].records[0]
        stored.record = attrs.evolve(stored.record, previous_hash=b"\1" * 32)
        refusal = await node.supervisor.accept_loss(partition, "ops")
        assert isinstance(refusal, Rejected)
        assert refusal.code in (Code.HALTED, Code.UNAVAILABLE)
        assert await node.probe() != ""
