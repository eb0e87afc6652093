"""Workers side by side, with retries: what fails is tried again later, what cannot work is set aside.

    python examples/workers.py [HOST:PORT]

Ten orders, three workers. One order fails twice before it works, one never will. The queue says how
often something is tried and how long to wait in between; a worker says only what happened.
"""

import sys

import trio

import querator
from querator.client import Consumer, Item, Rejected

QUEUE = "orders"
WORKERS = 3
ORDERS = 10


class PaymentServiceAway(Exception):
    """Somebody else's trouble: worth another try."""


async def handle(item: Item) -> None:
    """Work on one order."""
    if item.text == "order 3" and item.attempt < 3:
        raise PaymentServiceAway
    if item.text == "order 7":
        await item.dead("no such customer")  # this verb settles it: leaving the block changes nothing


async def work(name: str, items: Consumer, done: trio.MemorySendChannel[str]) -> None:
    async for item in items:
        # A failed attempt is retried by the queue's backoff, and does not end the worker (reraise=False).
        async with item:
            print(f"{name}: {item.text}, attempt {item.attempt}")
            await handle(item)
            await done.send(item.text)


async def main(address: str) -> None:
    async with querator.connect(address, client="workers") as q:
        settings = {
            "name": QUEUE,
            "attempts_max": 5,
            "backoff": {"base": 200_000, "factor": 2.0},  # microseconds: 0.2 s, 0.4 s, 0.8 s ...
        }
        try:
            await q.call("queues.create", settings)
        except Rejected as error:
            if error.code != "queue_exists":
                raise
        for number in range(ORDERS):
            q.produce_nowait(QUEUE, [f"order {number}".encode()])
        await q.flush()

        done, finished = trio.open_memory_channel[str](ORDERS)
        async with trio.open_nursery() as nursery:
            for number in range(WORKERS):
                nursery.start_soon(run_worker, q, f"worker {number}", done)
            for _ in range(ORDERS):
                await finished.receive()
            nursery.cancel_scope.cancel()

        dead = await q.call("dead.list", {"name": QUEUE})
        for item in dead["items"]:
            print(f"dead: {item['payload'].decode()} ({item['reason']})")


async def run_worker(q: querator.client.Client, name: str, done: trio.MemorySendChannel[str]) -> None:
    # A window of one: each worker holds only what it works on.
    async with q.consume(QUEUE, window=1, batch=1, reraise=False) as items:
        await work(name, items, done)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "localhost:2319")
