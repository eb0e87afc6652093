"""A process of clients: producers and consumers over WebSocket, who write down all they do and see.

``python -m tests.blackbox.client ADDRESS --name c1 --history FILE`` works until told on standard input:
``quiet`` (stop producing), ``heal`` (consumers only complete, at once), and the end of it (leave).
"""

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from querator.client import (
    AlreadySettled,
    Client,
    ClientError,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
    connect,
)
from querator.client.batches import Batch
from querator.protocol.tokens import decode_token
from tests.blackbox.record import Recorder

PAUSE = 0.05
"""Seconds before a client that failed comes back."""


class Clients:
    """All clients of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._record = Recorder(options.history, options.name)
        self._produces = True
        self._is_healed = False

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._options.producers):
                nursery.start_soon(self._again, self._produce, f"{self._options.name}.p{number}")
            for number in range(self._options.consumers):
                nursery.start_soon(self._again, self._consume, f"{self._options.name}.c{number}")
            await self._obey()
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as orders:
            text = b""
            async for data in orders:
                text += data
                self._produces = self._produces and b"quiet" not in text
                self._is_healed = self._is_healed or b"heal" in text

    async def _again(self, work: Callable[[str, random.Random], Awaitable[None]], name: str) -> None:
        """Whoever is thrown out comes back, as another client."""
        dice = random.Random(f"{self._options.seed}/{name}")
        life = 0
        while True:
            life += 1
            try:
                await work(f"{name}.{life}", dice)
            except* ClientError as group:
                self._record.note("failed", client=name, why=repr(group.exceptions[0]))
            await trio.sleep(PAUSE)

    def _connect(self, name: str) -> contextlib.AbstractAsyncContextManager[Client]:
        def notify(text: str) -> None:
            self._record.note("connection", client=name, text=text)

        return connect(self._options.address, client=name, connect_timeout=None, notify=notify)

    # --- producing --------------------------------------------------------------------------------

    async def _produce(self, name: str, dice: random.Random) -> None:
        options, counter = self._options, 0
        async with self._connect(name) as client, trio.open_nursery() as calls:
            while self._produces:
                await trio.sleep(dice.expovariate(options.rate / options.producers))
                payloads = []
                for _ in range(dice.randint(1, options.batch)):
                    counter += 1
                    payloads.append(f"{name}-{counter}".ljust(options.payload, "."))
                if len(calls.child_tasks) < options.unanswered:
                    calls.start_soon(self._produce_once, client, payloads)
        while not self._produces:
            await trio.sleep(PAUSE)

    async def _produce_once(self, client: Client, payloads: list[str]) -> None:
        queue = self._options.queue
        call = self._record.call("produce", queue=queue, items=payloads)
        try:
            receipt = await client.produce_batch(queue, [payload.encode() for payload in payloads])
        except Rejected as error:
            self._record.end(call, "unknown" if error.code == "outcome_unknown" else "fail", why=error.code)
        except ClientError as error:
            self._record.end(call, "unknown", why=repr(error))
        else:
            numbers = receipt.numbers or range(receipt.first, receipt.first + receipt.count)
            self._record.end(
                call,
                "ok",
                partition=receipt.partition,
                numbers=list(numbers),
                duplicates=len(receipt.duplicates or ()),
            )

    # --- consuming --------------------------------------------------------------------------------

    async def _consume(self, name: str, dice: random.Random) -> None:
        window = 1_000 if self._is_healed else dice.choice((5, 40, 200))
        async with (
            self._connect(name) as client,
            client.consume(
                self._options.queue, window=window, batch=dice.choice((1, 5, 20)), held=dice.random() < 0.7
            ) as items,
            trio.open_nursery() as working,
        ):
            asked = time.monotonic()
            async for batch in items.batches():
                self._received(name, batch, asked)
                working.start_soon(self._work, dice, batch)

    def _received(self, name: str, batch: Batch, asked: float) -> None:
        attempts = batch.column("attempts")
        self._record.note(
            "push",
            client=name,
            reservation=_reservation(batch),
            items=list(batch.items),
            payloads=[payload.decode() for payload in batch.payloads],
            attempts=attempts if isinstance(attempts, list) else [attempts or 1] * len(batch),
            deadline=batch.deadline,
            asked=asked,
        )

    async def _work(self, dice: random.Random, batch: Batch) -> None:
        if self._is_healed:
            await self._settle(dice, "complete", batch, 0, len(batch))
            return
        await trio.sleep(dice.choice((0.0, 0.002, 0.02, 0.1)))
        half = dice.randrange(len(batch)) if dice.random() < 0.3 else 0
        for first, count in ((0, half), (half, len(batch) - half)):
            if count:
                verb = dice.choices(("complete", "retry", "release"), (0.9, 0.06, 0.04))[0]
                await self._settle(dice, verb, batch, first, count)

    async def _settle(self, dice: random.Random, verb: str, batch: Batch, first: int, count: int) -> None:
        numbers = list(batch.items)[first : first + count]
        call = self._record.call(verb, reservation=_reservation(batch), items=numbers)
        delay = dice.choice((0, 0.1))

        def retry(first: int, count: int) -> Awaitable[None]:
            return batch.retry(first, count, delay=delay)

        settle: dict[str, Callable[[int, int], Awaitable[None]]] = {
            "complete": batch.complete,
            "retry": retry,
            "release": batch.release,
        }
        try:
            await settle[verb](first, count)
        except (ReservationLost, AlreadySettled) as error:
            self._record.end(call, "fail", why=repr(error))
        except OutcomeUnknown as error:
            self._record.end(call, "unknown", why=repr(error))
        except Rejected as error:
            self._record.end(call, "unknown" if error.code == "outcome_unknown" else "fail", why=error.code)
        except ClientError as error:
            self._record.end(call, "unknown", why=repr(error))
        else:
            self._record.end(call, "ok")


def _reservation(batch: Batch) -> list[int]:
    partition, nonce, reservation = decode_token(batch.token) or (batch.partition, 0, 0)
    return [partition, nonce, reservation]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--name", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--queue", default="work")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--producers", type=int, default=2)
    parser.add_argument("--consumers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100.0, help="produce calls a second, all producers")
    parser.add_argument("--batch", type=int, default=5, help="items of a call, at most")
    parser.add_argument("--payload", type=int, default=0, help="bytes of a payload, at least")
    parser.add_argument("--unanswered", type=int, default=50, help="calls of a producer under way, at most")
    trio.run(Clients(parser.parse_args()).run)


if __name__ == "__main__":
    main()
