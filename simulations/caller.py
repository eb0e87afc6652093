"""A client of the HTTP calls, as the Go client is one: one connection, one request at a time, no sessions.

It knows an item by the id that its lease told, and goes on using ids that are not good any more.
"""

import base64
import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import attrs
import trio

from querator.env import Env
from simulations.observations import Closing, Lease, Observations, Production
from simulations.options import Options
from simulations.trace import Trace
from simulations.workload import PORT

_ANSWER_MAX: Final = 15.0
"""Seconds it waits for an answer; its calls ask for less."""
_READ_BYTES: Final = 65_536
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class NoAnswer(Exception):
    """The connection broke, or nothing came: what was asked may have been done."""


@attrs.define
class _Held:
    """An item that was leased."""

    queue: str
    partition: int
    """Index within the queue."""
    id: str
    payload: bytes
    leased_at: float


class Caller:
    """Produces, leases, and closes what it leased, in time or not, until the world is healed."""

    def __init__(
        self, options: Options, trace: Trace, seen: Observations, hosts: Sequence[str], number: int
    ) -> None:
        self._options = options
        self._trace = trace
        self._seen = seen
        self._hosts = hosts
        self._number = number
        self._dice = Random(f"{options.seed}/caller/{number}")
        self._produced = 0
        self._held: list[_Held] = []
        self.is_healed = False

    async def run(self, env: Env) -> None:
        """Call until the world is healed."""
        tries = self._number
        while not self.is_healed:
            host = self._hosts[tries % len(self._hosts)]
            tries += 1
            try:
                async with await env.net.connect(host, PORT) as stream:
                    connection = _Connection(stream, host)
                    while not self.is_healed:
                        await self._step(connection)
            except (NoAnswer, *_GONE):
                self._trace.mark("http.cut")
            await trio.sleep(self._dice.uniform(0.1, 1.0))

    async def _step(self, connection: "_Connection") -> None:
        dice = self._dice
        await trio.sleep(dice.expovariate(8))
        chance = dice.random()
        if self._held and chance < 0.5:
            await self._close(connection, self._held[-dice.choice((1, 1, 1, len(self._held)))])
        elif chance < 0.75:
            await self._produce(connection, f"q{dice.randrange(self._options.queues)}")
        else:
            await self._lease(connection, f"q{dice.randrange(self._options.queues)}")

    async def _produce(self, connection: "_Connection", queue: str) -> None:
        seen, called = self._seen, trio.current_time()
        payloads = []
        for _ in range(self._dice.randint(1, 3)):
            self._produced += 1
            payloads.append(b"h%d-%d" % (self._number, self._produced))
        seen.attempted.update(dict.fromkeys(payloads, queue))
        items = [{"utf8": payload.decode()} for payload in payloads]
        try:
            status, answer = await connection.ask(
                "x/queue.produce", queue_name=queue, request_timeout="3s", items=items
            )
        except NoAnswer:
            seen.unsure.update(dict.fromkeys(payloads))
            raise
        self._trace.mark(f"http.produce.{status}")
        if status != 200:
            # What 454 says of a produce is that it may be tried again, not that it was not done.
            seen.unsure.update(dict.fromkeys(payloads))
            return
        places = [identity.split(".") for identity in answer["ids"]]
        seen.productions.append(
            Production(
                int(places[0][0]),
                tuple(int(number) for _, number in places),
                tuple(payloads),
                0,
                called,
                trio.current_time(),
            )
        )

    async def _lease(self, connection: "_Connection", queue: str) -> None:
        dice, called = self._dice, trio.current_time()
        status, answer = await connection.ask(
            "queue.lease",
            queue_name=queue,
            batch_size=dice.choice((1, 3)),
            client_id=f"caller-{self._number}",
            request_timeout=dice.choice(("100ms", "1s", "3s")),
        )
        self._trace.mark(f"http.lease.{status}")
        if status != 200:
            return
        now = trio.current_time()
        for item in answer["items"]:
            payload = base64.b64decode(item["bytes"])
            self._held.append(_Held(queue, answer.get("partition", 0), item["id"], payload, now))
            self._seen.leases.append(
                Lease(f"caller-{self._number}", item["id"], payload, item["attempts"], called, now)
            )

    async def _close(self, connection: "_Connection", held: _Held) -> None:
        """Of one that is held, or was: mostly in time, and now and then a second time."""
        dice, called = self._dice, trio.current_time()
        verb = dice.choices(("complete", "retry", "dead", "release"), (70, 15, 5, 10))[0]
        fields: dict[str, Any] = {"queue_name": held.queue, "partition": held.partition}
        if verb == "complete":
            fields |= {"ids": [held.id], "request_timeout": "3s"}
        elif verb == "release":
            fields["ids"] = [held.id]
        else:
            fields["items"] = [{"id": held.id, "dead": verb == "dead"}]
            self._seen.beyond_limit[held.payload] = None
        path = {"complete": "queue.complete", "release": "x/queue.release"}.get(verb, "queue.retry")
        if dice.random() < 0.9:
            self._held.remove(held)
        status, _ = await connection.ask(path, **fields)
        self._trace.mark(f"http.{verb}.{status}")
        if status == 200:
            self._seen.closings.append(Closing(verb, held.id, held.payload, called, trio.current_time()))


class _Connection:
    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._buffer = b""

    async def ask(self, path: str, **fields: object) -> tuple[int, Any]:
        """(status, the document); what is no answer of the contract's is an error of the program.

        Raises:
            NoAnswer: see there.
        """
        body = json.dumps(fields).encode()
        head = (
            f"POST /v1/{path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with trio.move_on_after(_ANSWER_MAX):
            try:
                # As the Go client and many others do: the head, then the body.
                await self._stream.send_all(head.encode())
                await self._stream.send_all(body)
                return await self._answer(path)
            except _GONE:
                pass
        raise NoAnswer

    async def _answer(self, path: str) -> tuple[int, Any]:
        while b"\r\n\r\n" not in self._buffer:
            await self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            await self._read()
        document, self._buffer = self._buffer[:length], self._buffer[length:]
        if headers.get("content-type") != "application/json":
            raise RuntimeError(f"{path} was answered {first}: {document!r}")
        return int(first.split(" ")[1]), json.loads(document)

    async def _read(self) -> None:
        data = await self._stream.receive_some(_READ_BYTES)
        if not data:
            raise NoAnswer
        self._buffer += data
