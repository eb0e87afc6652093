"""An item travels: produced, reserved, completed. Start a server first: ``querator serve``.

python examples/hello.py [HOST:PORT]
"""

import sys

import trio

import querator
from querator.client import Rejected


async def main(address: str) -> None:
    async with querator.connect(address, client="hello") as q:
        try:
            await q.call("queues.create", {"name": "hello"})
        except Rejected as error:
            if error.code != "queue_exists":
                raise

        receipt = await q.produce("hello", "Hello, world!", kind="greeting")
        print(f"produced item {receipt.item}")

        async with q.consume("hello") as items:
            async for item in items:
                async with item:  # leaving this block completes the item
                    print(f"item {item.id}, attempt {item.attempt}: {item.text}")
                break


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "localhost:2319")
