"""Histories of a queue drawn by a seed and made by the production node: all that can happen to items."""

from random import Random
from typing import Any, Final

import attrs
import trio

from querator.actors.node import Node
from querator.core import commands as cmd
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant, PartitionId, Place, QueueName
from querator.core.policy import Backoff, Ordering
from querator.core.replies import Reserved
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from tests.actors.conftest import Client, Q, World, settle_down

MORGUE: Final = QueueName("morgue")
ITEMS: Final = 120
LENGTH: Final = 40.0
"""Seconds."""


@attrs.frozen
class Shape:
    """What a history is of; drawn by its seed."""

    partitions: int
    workers: int
    batch: int
    has_dead_queue: bool
    expires: bool
    is_keyed: bool
    jitter: float


def shape_of(seed: int) -> Shape:
    dice = Random(seed)
    return Shape(
        partitions=dice.choice((1, 1, 2, 3)),
        workers=dice.randint(1, 5),
        batch=dice.choice((1, 1, 3, 6)),
        has_dead_queue=dice.random() < 0.4,
        expires=dice.random() < 0.4,
        is_keyed=dice.random() < 0.2,
        jitter=dice.choice((0.0, 0.5)),
    )


async def history(seed: int) -> MemoryLog:
    """Needs a clock that jumps."""
    shape = shape_of(seed)
    dice = Random(seed + 1)
    world = World()
    async with world.node(record_inputs=True) as node, trio.open_nursery() as nursery:
        if shape.has_dead_queue:
            await world.create(node, MORGUE)
        await world.create(
            node,
            partitions=shape.partitions,
            reservation_timeout=Duration(2 * SECOND),
            attempts_max=3,
            backoff=Backoff(Duration(300 * MILLISECOND), jitter=shape.jitter),
            dead_queue=str(MORGUE) if shape.has_dead_queue else "",
            dead_retention=Duration(15 * SECOND),
            expire_timeout=Duration(6 * SECOND if shape.expires else 0),
            ordering=Ordering.KEY if shape.is_keyed else Ordering.FIFO,
        )
        for number in range(shape.workers):
            client = Client(node, f"w{number}")
            nursery.start_soon(_consume, client, Random(dice.random()), shape.batch, Q)
        if shape.has_dead_queue:
            nursery.start_soon(_consume, Client(node, "m"), Random(dice.random()), 2, MORGUE)
            nursery.start_soon(_send_home, Client(node, "op"), Random(f"home/{seed}"))
        nursery.start_soon(_produce, Client(node), Random(dice.random()), shape)
        partitions = [partition.id for partition in node.catalog.catalog.queues[Q].partitions]
        nursery.start_soon(_operate, Client(node, "op"), Random(dice.random()), partitions)
        await trio.sleep(LENGTH)
        nursery.cancel_scope.cancel()
    return MemoryLog(virtual_env(1), world.disk)


async def _produce(client: Client, dice: Random, shape: Shape) -> None:
    request = 0
    while request < ITEMS:
        request += 1
        now = client.node.env.clock.now()
        count = dice.choice((1, 1, 1, 4))
        more: dict[str, Any] = {}
        if dice.random() < 0.2:
            more["due_at"] = Instant(now + dice.randrange(5 * SECOND))
        if shape.is_keyed:
            more["attributes"] = Attributes(key=[f"k{dice.randrange(4)}"] * count)
        elif dice.random() < 0.1:
            more["attributes"] = Attributes(attempts_max=[1] * count)
        client.produce(*[b"x" * dice.randrange(20) for _ in range(count)], request=request, **more)
        client.told.clear()
        await trio.sleep(dice.expovariate(5.0))


async def _consume(client: Client, dice: Random, batch: int, queue: QueueName) -> None:
    request = 1_000
    while True:
        request += 1
        await trio.sleep(dice.uniform(0.001, 0.02))
        client.reserve(batch, request=request, wait=3_600 * SECOND, queue=queue)
        while not client.reservations:
            await trio.sleep(dice.uniform(0.01, 0.02))
        (reserved,) = client.reservations
        client.told.clear()
        kind = dice.random()
        if kind < 0.06:
            # It forgets what it has, and is back when that has ended.
            await trio.sleep(dice.uniform(2.5, 3.0))
        elif kind < 0.12:
            # It takes too long.
            await trio.sleep(dice.uniform(2.3, 2.6))
            client.settle(reserved, request=request)
        else:
            await _work(client, reserved, dice, request)
        await settle_down()
        client.told.clear()


async def _work(client: Client, reserved: Reserved, dice: Random, request: int) -> None:
    await trio.sleep(dice.uniform(0.01, 0.6))
    if dice.random() < 0.1:
        client.settle(reserved, Verb.EXTEND, request=request, timeout=Duration(dice.choice((0, 3 * SECOND))))
        await trio.sleep(dice.uniform(0.1, 2.0))
    indexes = list(range(reserved.count))
    if dice.random() < 0.5:
        dice.shuffle(indexes)
        parts = [((index, 1),) for index in indexes]
    else:
        parts = [((0, reserved.count),)]
    for ranges in parts:
        verb = dice.choices((Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD), (70, 18, 6, 6))[0]
        more: dict[str, Any] = {}
        if verb is Verb.RETRY and dice.random() < 0.3:
            more["due_at"] = Instant(client.node.env.clock.now() + dice.randrange(2 * SECOND))
        if verb is Verb.DEAD:
            more["reason"] = dice.choice(("broken", "unknown"))
        client.settle(reserved, verb, request=request, ranges=ranges, **more)
        await trio.sleep(dice.uniform(0.001, 0.05))


async def _operate(client: Client, dice: Random, partitions: list[PartitionId]) -> None:
    while True:
        await trio.sleep(dice.uniform(0.5, 4.0))
        partition = dice.choice(partitions)
        what = _order(client.node, partition, dice)
        _command(client, partition, what)
        if isinstance(what, cmd.Pause):
            await trio.sleep(dice.uniform(0.1, 1.0))
            _command(client, partition, cmd.Resume("op"))
        client.told.clear()


async def _send_home(client: Client, dice: Random) -> None:
    """Now and then what is in the dead queue goes back to where it came from."""
    (morgue,) = client.node.catalog.catalog.queues[MORGUE].partitions
    while True:
        await trio.sleep(dice.uniform(1.0, 6.0))
        _command(client, morgue.id, cmd.SendBack(items_max=dice.choice((1, 3, 50)), author="op"))
        client.told.clear()


def _order(node: Node, partition: PartitionId, dice: Random) -> cmd.Command:
    state = node.broker.actors[partition].state
    kind = dice.randrange(8)
    dead = [item for item in state.dead if item not in state.leaving]
    if kind == 0:
        return cmd.Pause("op")
    if kind == 1:
        one, two, three, four = (dice.random() < 0.5 for _ in range(4))
        return cmd.Clear(one, two, three, four, author="op")
    if kind in (2, 3):
        last = int(state.next_place)
        places = [Place(dice.randrange(max(1, last - 30), last)) for _ in range(6)] if last > 1 else []
        return cmd.Delete(places, "op")
    if kind == 4 and dead:
        return cmd.Redrive(dice.sample(dead, dice.randint(1, len(dead))), author="op")  # type: ignore[arg-type]
    if kind == 5:
        return cmd.Redrive(None, dice.choice(("broken", "attempts_exhausted", "expired")), author="op")
    return cmd.Redrive(None, author="op")


def _command(client: Client, partition: PartitionId, what: cmd.Command) -> None:
    broker = client.node.broker
    broker.begin_turn()
    broker.command(client, 5, partition, what)
    broker.end_turn()
