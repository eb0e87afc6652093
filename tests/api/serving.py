"""A server on a network in memory, and clients of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from querator.api.access import Access
from querator.api.calls import Operation
from querator.api.exchange import HttpRequest, HttpResponse
from querator.api.health import Probe
from querator.api.registry import SessionRegistry, Settings
from querator.api.server import Server, ServerOptions
from querator.env.virtual import virtual_env
from querator.protocol import messages as wire
from querator.protocol.codec import JSON, Codec
from tests.api.fakes import FakeBroker
from tests.api.pure import SECRET

PORT = 2319
LARGE = 4_000_000
"""Bytes of the answer to ``/large``."""


class EchoHandler:
    """Says what it was asked; waits, breaks and counts when told to."""

    def __init__(self) -> None:
        self.limit = 1_000
        self.handled: list[HttpRequest] = []
        self.cancelled = 0
        self.found = trio.Event()
        """Ends the wait of leases."""

    def body_limit(self, path: str) -> int:
        del path
        return self.limit

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.handled.append(request)
        if request.path == "/broken":
            raise RuntimeError("a bug")
        if request.path == "/split":
            return HttpResponse(200, [("X", "a\r\nEvil: b")])
        if request.path == "/v1/queue.lease":
            try:
                await self.found.wait()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        if request.path == "/large":
            return HttpResponse(200, [], bytes(LARGE))
        if request.path == "/slow":
            await trio.sleep(2)
        request.has_good_key = request.headers.get("authorization") == "Bearer good"
        size = "too large" if request.is_too_large else str(len(request.body))
        return HttpResponse(
            200, [("Content-Type", "text/plain")], f"{request.method} {request.path} {size}".encode()
        )


class Running:
    """A server that runs, its broker, and ways to reach it."""

    def __init__(self, server: Server, broker: FakeBroker, http: EchoHandler) -> None:
        self.server = server
        self.broker = broker
        self.http = http
        self.env = server.registry.env

    async def stream(self) -> trio.abc.Stream:
        """A raw connection."""
        return await self.env.net.connect("node", PORT)

    async def exchange(self, data: bytes) -> bytes:
        """Send these bytes on a new connection; all that comes until the server closes."""
        async with await self.stream() as stream:
            await stream.send_all(data)
            return await read_all(stream)

    @asynccontextmanager
    async def client(self, codec: Codec = JSON, *, hello: bool = True) -> AsyncIterator["Client"]:
        """A WebSocket, by trio-websocket, past hello unless told otherwise."""
        stream = await self.stream()
        async with trio.open_nursery() as nursery:
            socket = await wrap(nursery, stream, codec.subprotocol)
            await socket._open_handshake.wait()
            client = Client(socket, codec, stream)
            if hello:
                await client.send(wire.Hello(client="test"))
                (welcome,) = await client.receive()
                assert isinstance(welcome, wire.Welcome)
                client.welcome = welcome
            yield client
            nursery.cancel_scope.cancel()


async def wrap(nursery: trio.Nursery, stream: trio.abc.Stream, subprotocol: str) -> WebSocketConnection:
    """trio-websocket's client on any stream (its annotation asks for a socket's, it takes all)."""
    return await wrap_client_stream(
        nursery,
        cast("trio.SocketStream", stream),
        "node",
        "/v1/stream",
        subprotocols=[subprotocol],
        max_message_size=2**26,
    )


async def _healthy() -> str:
    return ""


class Client:
    def __init__(self, socket: WebSocketConnection, codec: Codec, stream: trio.abc.Stream) -> None:
        self.socket = socket
        self.codec = codec
        self.stream = stream
        self.welcome: wire.Welcome | None = None

    async def send(self, *messages: wire.ClientMessage) -> None:
        await self.socket.send_message(self.codec.encode(messages))

    async def receive(self) -> list[wire.ServerMessage]:
        return self.codec.decode_server(await self.socket.get_message())

    async def wait_closed(self) -> tuple[int, list[wire.ServerMessage]]:
        """(close code, what came before)."""
        heard: list[wire.ServerMessage] = []
        while True:
            try:
                heard += await self.receive()
            except ConnectionClosed as closed:
                assert closed.reason is not None
                return closed.reason.code, heard


async def read_all(stream: trio.abc.Stream) -> bytes:
    """Until the other side ends."""
    data = b""
    while chunk := await stream.receive_some(65_536):
        data += chunk
    return data


@asynccontextmanager
async def running(
    *queues: str,
    options: ServerOptions | None = None,
    access: Access | None = None,
    operations: dict[str, Operation] | None = None,
    probe: Probe | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Running]:
    """A server, cancelled at the end."""
    env = virtual_env(1)
    broker = FakeBroker(env.clock, *queues)
    registry = SessionRegistry(
        env, broker, settings or Settings(secret=SECRET), access=access, operations=operations
    )
    http = EchoHandler()
    server = Server(registry, http, options or ServerOptions(), probe=probe or _healthy)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, "node", PORT)
        yield Running(server, broker, http)
        nursery.cancel_scope.cancel()
