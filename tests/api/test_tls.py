"""The same port over TLS, on real sockets."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trustme

from querator import telemetry
from querator.api.registry import SessionRegistry, Settings
from querator.api.server import Server, ServerOptions
from querator.env.real import real_env
from querator.protocol import messages as wire
from querator.protocol.codec import JSON
from tests.api.fakes import FakeBroker
from tests.api.pure import SECRET
from tests.api.serving import Client, EchoHandler, read_all, wrap

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def secured() -> AsyncIterator[Callable[..., Awaitable[trio.abc.Stream]]]:
    """A server with a certificate of an authority that only its client knows; yields a way to connect."""
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    env = real_env()
    registry = SessionRegistry(env, FakeBroker(env.clock), Settings(secret=SECRET))
    server = Server(registry, EchoHandler(), ServerOptions(tls=theirs))

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, "127.0.0.1", 0)
        ((_, port),) = server.addresses

        async def connect(*, secure: bool = True) -> trio.abc.Stream:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if not secure:
                return stream
            return trio.SSLStream(stream, ours, server_hostname="localhost", https_compatible=True)

        yield connect
        nursery.cancel_scope.cancel()


async def test_http_is_spoken_over_tls() -> None:
    async with secured() as connect, await connect() as stream:
        await stream.send_all(HEALTH)
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_stream_is_spoken_over_tls() -> None:
    async with secured() as connect, trio.open_nursery() as nursery:
        stream = await connect()
        nursery.start_soon(_close_at_the_end, stream)
        socket = await wrap(nursery, stream, JSON.subprotocol)
        await socket._open_handshake.wait()
        client = Client(socket, JSON, stream)
        await client.send(wire.Hello(client="test"))
        (welcome,) = await client.receive()
        assert isinstance(welcome, wire.Welcome)
        await client.send(wire.Produce(id=1, queue="mail", texts=["x" * 200_000]))
        assert await client.receive() == [wire.Produced(id=1, partition=1, first=1, count=1)]
        nursery.cancel_scope.cancel()


async def _close_at_the_end(stream: trio.abc.Stream) -> None:
    try:
        await trio.sleep_forever()
    finally:
        await trio.aclose_forcefully(stream)


async def test_plain_text_on_a_tls_port_costs_nobody_anything() -> None:
    told: list[str] = []
    stop = telemetry.listen(lambda name, _: told.append(name))
    async with secured() as connect:
        async with await connect(secure=False) as plain:
            await plain.send_all(HEALTH)
            await read_all(plain)
        async with await connect() as stream:
            await stream.send_all(HEALTH)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200 OK\r\n")
    stop()
    assert told == []
