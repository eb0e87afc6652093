"""One side of a benchmark in a process of its own: several connections that produce, or that consume.

Prints one JSON line: items counted between two moments of the shared monotonic clock, CPU seconds of this
process in between, and latencies where asked for. ``spread`` and ``take`` do so over many
partitions. The sides ``hold`` (take items and keep them) and ``wait`` (``batch`` subscriptions a
connection to an empty queue) print nothing and stay until they are ended.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from typing import Any

import trio

from benchmarks.processes import QUEUE, queue_names
from querator.client import Client, connect
from querator.core.placement import index_of

PAYLOAD = b"x" * 100


class Window:
    """Counts what happens between ``start`` and ``stop``."""

    def __init__(self, start: float, stop: float) -> None:
        self.start = start
        self.stop = stop
        self.items = 0
        self.cpu = 0.0
        self.latencies: list[float] = []

    async def watch(self, scope: trio.CancelScope) -> None:
        await trio.sleep(max(0.0, self.start - time.monotonic()))
        before = time.process_time()
        self.items = 0
        self.latencies.clear()
        began = time.monotonic()
        await trio.sleep(max(0.0, self.stop - time.monotonic()))
        self.cpu = time.process_time() - before
        counted, elapsed = self.items, time.monotonic() - began
        print(
            json.dumps(
                {
                    "items": counted,
                    "seconds": elapsed,
                    "cpu": self.cpu,
                    "latencies": [round(value * 1e6) for value in self.latencies],
                }
            ),
            flush=True,
        )
        scope.cancel()


async def produce_flood(client: Client, window: Window, batch: int, outstanding: int) -> None:
    """Keep ``outstanding`` items on their way, in batches, through the batch call."""
    payloads = [PAYLOAD] * batch
    while True:
        client.produce_nowait(QUEUE, payloads)
        window.items += batch
        if client.outstanding >= outstanding:
            await client.flush(outstanding // 2)


async def produce_singly(client: Client, window: Window, tasks: int) -> None:
    """``tasks`` callers that each await one item after the other: the per-item call."""

    async def one() -> None:
        while True:
            await client.produce(QUEUE, PAYLOAD)
            window.items += 1

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(one)


async def produce_paced(client: Client, window: Window, rate: float) -> None:
    """One item at a time at ``rate``; its payload says when it left."""
    due = time.monotonic()
    while True:
        due += 1 / rate
        await trio.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        await client.produce(QUEUE, repr(began).encode().ljust(100))
        window.latencies.append(time.monotonic() - began)
        window.items += 1


async def produce_batches_paced(client: Client, window: Window, rate: float, batch: int) -> None:
    """Batches at ``rate`` items a second, however many are on their way; payloads say when theirs was due."""
    due = time.monotonic()

    async def one(due: float) -> None:
        await client.produce_batch(QUEUE, [repr(due).encode().ljust(100)] * batch)
        window.latencies.append(time.monotonic() - due)
        window.items += batch

    async with trio.open_nursery() as nursery:
        while True:
            due += batch / rate
            await trio.sleep(max(0.0, due - time.monotonic()))
            nursery.start_soon(one, due)


async def produce_spread(
    client: Client, window: Window, rate: float, queues: Sequence[str], partitions: int
) -> None:
    """One item after the other at ``rate``, to each partition of each queue in turn; a payload says when it
    left."""
    keys = {index_of(f"{number}", partitions): f"{number}" for number in range(64 * partitions)}
    targets = [(queue, keys[index]) for index in range(partitions) for queue in queues]
    due = time.monotonic()
    for queue, key in cycle(targets):
        due += 1 / rate
        await trio.sleep(max(0.0, due - time.monotonic()))
        client.produce_nowait(queue, [repr(time.monotonic()).encode().ljust(100)], key=key)
        window.items += 1


async def consume_all(client: Client, window: Window, queues: Sequence[str]) -> None:
    """Whatever comes in any queue, an item a reservation."""
    async with trio.open_nursery() as nursery:
        for queue in queues:
            nursery.start_soon(partial(consume_flood, client, window, 1, 1_000, queue=queue, paced=True))


async def consume_flood(
    client: Client, window: Window, batch: int, size: int, *, paced: bool, queue: str = QUEUE
) -> None:
    async with client.consume(queue, window=size, batch=batch) as items:
        async for got in items.batches():
            if paced:
                now = time.monotonic()
                window.latencies += [now - float(payload) for payload in dict.fromkeys(got.payloads)]
            got.complete_nowait()
            window.items += got.count


async def consume_singly(client: Client, window: Window, batch: int, size: int) -> None:
    async with client.consume(QUEUE, window=size, batch=batch) as items:
        async for item in items:
            async with item:
                window.items += 1


async def hold_for_ever(client: Client, batch: int, size: int) -> None:
    """Take items up to the window, and settle none."""
    async with client.consume(QUEUE, window=size, batch=batch) as items:
        async for _ in items.batches():
            pass


async def wait_in_vain(client: Client, subscriptions: int) -> None:
    """So many subscriptions to an empty queue."""
    async with AsyncExitStack() as stack:
        for _ in range(subscriptions):
            await stack.enter_async_context(client.consume(QUEUE, window=16))
        await trio.sleep_forever()


async def stay(options: argparse.Namespace) -> None:
    """Sides that measure nothing: they are there until the process is ended."""

    async def one(number: int, task_status: trio.TaskStatus[None]) -> None:
        async with connect(options.address, client=f"bench-{options.side}-{number}") as client:
            task_status.started()
            if options.side == "wait":
                await wait_in_vain(client, options.batch)
            else:
                await hold_for_ever(client, options.batch, options.window)

    async with trio.open_nursery() as nursery:
        for number in range(options.clients):
            await nursery.start(one, number)


async def run(options: argparse.Namespace) -> None:
    if options.side in ("wait", "hold"):
        await stay(options)
        return
    window = Window(options.start, options.stop)
    async with trio.open_nursery() as nursery:
        clients: list[Client] = []

        async def hold(number: int, task_status: trio.TaskStatus[Client]) -> None:
            async with connect(options.address, client=f"bench-{options.side}-{number}") as client:
                task_status.started(client)
                await trio.sleep_forever()

        for number in range(options.clients):
            clients.append(await nursery.start(hold, number))
        gc.collect()
        gc.freeze()
        for client in clients:
            nursery.start_soon(_side, options, client, window)
        await window.watch(nursery.cancel_scope)


async def _side(options: argparse.Namespace, client: Client, window: Window) -> None:
    batch: int = options.batch
    if options.side == "spread":
        await produce_spread(client, window, options.rate, queue_names(options.queues), options.partitions)
    elif options.side == "take":
        await consume_all(client, window, queue_names(options.queues))
    elif options.side == "produce":
        if options.rate and batch > 1:
            await produce_batches_paced(client, window, options.rate / options.clients, batch)
        elif options.rate:
            await produce_paced(client, window, options.rate / options.clients)
        elif options.single:
            await produce_singly(client, window, options.window)
        else:
            await produce_flood(client, window, batch, options.window)
    elif options.single:
        await consume_singly(client, window, batch, options.window)
    else:
        await consume_flood(client, window, batch, options.window, paced=bool(options.rate))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("produce", "consume", "spread", "take", "hold", "wait"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--window", type=int, default=256, help="items on their way, per connection")
    parser.add_argument("--rate", type=float, default=0.0, help="items a second; 0: as fast as it goes")
    parser.add_argument("--queues", type=int, default=1, help="of the sides spread and take")
    parser.add_argument("--partitions", type=int, default=1, help="of each of these queues")
    parser.add_argument("--single", action="store_true", help="the per-item calls")
    parser.add_argument("--start", type=float, default=0.0)
    parser.add_argument("--stop", type=float, default=0.0)
    options: Any = parser.parse_args(arguments)
    trio.run(run, options)


if __name__ == "__main__":
    main(sys.argv[1:])
