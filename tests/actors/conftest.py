"""Nodes on a memory log under virtual time, with a gate in front of every append."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio.testing

from querator.actors.node import Node, NodeOptions, open_node
from querator.actors.ports import Delivery, ReserveRequest, SubscriptionRequest
from querator.core.catalog.commands import CreateQueue
from querator.core.commands import Produce, Settle, Verb
from querator.core.ids import SECOND, Duration, Instant, PartitionId, QueueName, SessionId
from querator.core.replies import Produced, Reserved
from querator.env.virtual import virtual_env
from querator.log.memory import Gate, MemoryDisk, MemoryLog

Q = QueueName("q")


class Client:
    """A requester that keeps what it is told."""

    def __init__(self, node: Node, session: str = "") -> None:
        self.node = node
        self.session = SessionId(session)
        self.generation = 1
        self.is_open = True
        self.told: list[Delivery] = []

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.told += deliveries

    @property
    def reservations(self) -> list[Reserved]:
        return [reply for _, reply in self.told if isinstance(reply, Reserved)]

    def answer(self, request: int) -> object:
        """The one answer to a request."""
        answers = [reply for number, reply in self.told if number == request]
        assert len(answers) == 1, answers
        return answers[0]

    def produce(self, *payloads: bytes, request: int = 1, queue: QueueName = Q, **more: object) -> None:
        broker = self.node.broker
        broker.begin_turn()
        broker.produce(self, request, queue, Produce(list(payloads), **more), None)  # type: ignore[arg-type]
        broker.end_turn()

    def produce_to(self, partition: PartitionId, payload: bytes, *, request: int) -> None:
        """Inside a turn of the caller's, to one partition."""
        self.node.broker.produce(self, request, Q, Produce([payload]), partition)

    def subscribe(self, number: int = 100, *, window: int = 100, batch: int = 10, held: bool = True) -> None:
        broker = self.node.broker
        broker.begin_turn()
        wanted = SubscriptionRequest(window, 0, batch, Duration(0), Duration(0), held)
        broker.subscribe(self, number, Q, wanted)
        broker.end_turn()

    def reserve(
        self, items: int = 1, *, request: int = 50, wait: int = 0, held: bool = False, queue: QueueName = Q
    ) -> None:
        broker = self.node.broker
        now = broker.begin_turn()
        deadline = Instant(now + wait if wait else 0)
        broker.reserve(self, request, queue, ReserveRequest(items, deadline, Duration(0), held))
        broker.end_turn()

    def settle(
        self, reserved: Reserved, verb: Verb = Verb.COMPLETE, *, request: int = 2, **more: object
    ) -> None:
        self.node.broker.begin_turn()
        self.settle_in_turn(reserved, verb, request=request, **more)
        self.node.broker.end_turn()

    def settle_in_turn(
        self, reserved: Reserved, verb: Verb = Verb.COMPLETE, *, request: int = 2, **more: object
    ) -> None:
        """Inside a turn of the caller's."""
        command = Settle(verb, reserved.reservation, reserved.nonce, **more)  # type: ignore[arg-type]
        self.node.broker.settle(self, request, reserved.partition, command)

    def stats(self, request: int = 9, queue: QueueName = Q) -> None:
        broker = self.node.broker
        broker.begin_turn()
        broker.stats(self, request, queue)
        broker.end_turn()


@attrs.define
class World:
    """A disk and a gate that outlive the nodes on them."""

    disk: MemoryDisk = attrs.Factory(MemoryDisk)
    gate: Gate = attrs.Factory(Gate)

    @asynccontextmanager
    async def node(self, **options: object) -> AsyncIterator[Node]:
        env = virtual_env(1)
        store = MemoryLog(env, self.disk, faults=self.gate)
        async with open_node({"memory": store}, env, NodeOptions(**options)) as node:  # type: ignore[arg-type]
            yield node

    async def create(self, node: Node, name: QueueName = Q, **settings: object) -> PartitionId:
        """A queue; its first partition."""
        changed = await node.catalog.change(CreateQueue(name=name, **settings))  # type: ignore[arg-type]
        assert not hasattr(changed, "code"), changed
        return node.catalog.catalog.queues[name].partitions[0].id


@pytest.fixture
def world() -> World:
    return World()


async def settle_down() -> None:
    """Let everything that can run, run."""
    await trio.testing.wait_all_tasks_blocked()


__all__ = ["SECOND", "Client", "Produced", "World", "settle_down"]
