"""A recorded day of a queue, replayed bit for bit, and played again under another policy."""

import argparse
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final

import trio
from trio.testing import MockClock

from querator.actors.node import Node, NodeOptions, open_node
from querator.actors.ports import Delivery, SubscriptionRequest
from querator.core.catalog.commands import CreateQueue
from querator.core.commands import Produce, Settle, Verb
from querator.core.ids import SECOND, Duration, QueueName, SessionId
from querator.core.policy import Backoff
from querator.core.replies import Reserved
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryDisk, MemoryLog
from querator.replay.capture import CapturedRecord, CaptureHead, CaptureWriter, Payloads, read_capture
from querator.replay.fold import Replay
from querator.replay.history import read_queues, walk
from querator.replay.whatif.loading import load, read_traffic
from querator.replay.whatif.simulation import Settings, Simulation
from querator.replay.whatif.verdict import compare

QUEUE: Final = QueueName("work")
CONSUMERS: Final = 8
FAIL: Final = 0.02
VANISH: Final = 0.005
"""Shares of batches whose work fails, or is never settled."""
REPLAY_SECONDS: Final = 60
SIMULATE_SECONDS: Final = 120


class _Consumer:
    """Takes what is pushed, works on it for a while, settles it."""

    def __init__(self, node: Node, number: int, nursery: trio.Nursery, dice: Random) -> None:
        self._node = node
        self._nursery = nursery
        self._dice = dice
        self.session = SessionId(f"consumer-{number}")
        self.generation = 1
        self.is_open = True

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, reply in deliveries:
            if isinstance(reply, Reserved):
                self._nursery.start_soon(self._work, reply)

    def subscribe(self, window: int, batch: int) -> None:
        broker = self._node.broker
        broker.begin_turn()
        broker.session_opened(self)
        broker.subscribe(
            self, 1, QUEUE, SubscriptionRequest(window, 0, batch, Duration(0), Duration(0), False)
        )
        broker.end_turn()

    async def _work(self, reserved: Reserved) -> None:
        dice = self._dice
        kind = dice.random()
        if kind < VANISH:
            return
        await trio.sleep(dice.lognormvariate(-3.5, 0.8))
        verb = Verb.RETRY if kind < VANISH + FAIL else Verb.COMPLETE
        broker = self._node.broker
        broker.begin_turn()
        broker.settle(self, 2, reserved.partition, Settle(verb, reserved.reservation, reserved.nonce))
        broker.end_turn()


async def record(items: int, batch: int, partitions: int) -> MemoryDisk:
    disk = MemoryDisk()
    env = virtual_env(1)
    dice = Random(1)
    options = NodeOptions(record_inputs=True)
    async with (
        open_node({"memory": MemoryLog(env, disk)}, env, options) as node,
        trio.open_nursery() as nursery,
    ):
        await node.catalog.change(
            CreateQueue(
                name=QUEUE,
                reservation_timeout=Duration(10 * SECOND),
                attempts_max=5,
                backoff=Backoff(Duration(1 * SECOND)),
                partitions=partitions,
            )
        )
        consumers = [_Consumer(node, number, nursery, dice) for number in range(CONSUMERS)]
        for consumer in consumers:
            consumer.subscribe(batch * 4, batch)
        payloads = [b"x" * 100] * batch
        for produced in range(0, items, batch):
            broker = node.broker
            broker.begin_turn()
            broker.produce(consumers[0], 3, QUEUE, Produce(payloads), None)
            broker.end_turn()
            if produced % (16 * batch) == 0:
                await trio.sleep(dice.expovariate(1 / 0.04))
        # Until nobody works any more, nor waits to be tried again.
        while any(
            actor.state.reserved or actor.state.scheduled or actor.state.ready
            for actor in node.broker.actors.values()
        ):
            await trio.sleep(1)
    return disk


def make_capture(file: Path, items: int, batch: int, partitions: int = 1) -> None:
    """A capture of so many items that came, were worked on, failed and were lost."""

    async def main() -> None:
        disk = await record(items, batch, partitions)
        store = MemoryLog(virtual_env(1), disk)
        with file.open("wb") as out:
            writer = CaptureWriter(out, CaptureHead(Payloads.SIZES, await read_queues(store)))
            for partition in await store.partitions():
                if partition:
                    async for thing in walk(store, partition):
                        if isinstance(thing, CapturedRecord):
                            writer.record(thing.record)
                        else:
                            writer.checkpoint(thing)
            writer.finish()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def figures(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, bool]]:
    """(figures, which targets are met): of a replay, and of a what-if with all that it reads and checks."""
    with tempfile.TemporaryDirectory() as directory:
        file = options.capture or Path(directory) / "recorded.capture"
        if not file.exists():
            make_capture(file, options.items, options.batch, options.partitions)
        found = {"items": options.items, "batch": options.batch, **_replay(file), **_what_if(file)}
    return found, {
        "replayed bit for bit": found["is_bit_for_bit"] and found["from_waiters"] == found["assignments"],
        f"in under {REPLAY_SECONDS} s": found["replay_seconds"] < REPLAY_SECONDS,
        "played unchanged, it is what was recorded": found["reproduces"],
        f"what-if in under {SIMULATE_SECONDS} s": found["what_if_seconds"] < SIMULATE_SECONDS,
    }


def _replay(file: Path) -> dict[str, Any]:
    began = time.perf_counter()
    replay = Replay()
    with file.open("rb") as content:
        for thing in read_capture(content):
            replay.take(thing)
    replay.finish()
    decided = [found.decided for found in replay.partitions.values()]
    return {
        "replay_seconds": time.perf_counter() - began,
        "records": sum(found.records for found in replay.partitions.values()),
        "assignments": sum(one.assignments for one in decided),
        "from_waiters": sum(one.from_waiters for one in decided),
        "is_bit_for_bit": replay.divergence is None,
    }


def _what_if(file: Path) -> dict[str, Any]:
    began = time.perf_counter()
    with file.open("rb") as content:
        recording = load(read_capture(content), QUEUE)
    traffic = read_traffic(recording)
    read = time.perf_counter()
    differences = compare(traffic.recorded, Simulation(traffic, Settings()).run())
    unchanged = time.perf_counter()
    changed = Settings(policy={"reservation_timeout": Duration(SECOND // 10)}, partitions=4)
    Simulation(traffic, changed).run()
    ended = time.perf_counter()
    return {
        "what_if_seconds": ended - began,
        "of_it": {"reading": read - began, "unchanged": unchanged - read, "changed": ended - unchanged},
        "reproduces": not differences,
    }


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--items", type=int, default=1_000_000)
    command.add_argument("--batch", type=int, default=10)
    command.add_argument("--partitions", type=int, default=1)
    command.add_argument("--capture", type=Path, help="keep the recording here, and use it if it is there")
