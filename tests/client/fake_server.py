"""The model server behind real WebSocket frames, over memory links: for tests of the shell."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

from querator.core import limits
from querator.env import Env
from querator.env.virtual import MemoryNetwork, virtual_env
from querator.protocol import messages as wire
from querator.protocol.codec import CODECS, Codec, Fault
from tests.client.model_server import ModelConnection, ModelServer

PORT = 2319
ADDRESS = f"server:{PORT}"


class Mutable(trio.abc.Stream):
    """A stream whose outgoing bytes can be made to vanish, as on a link that is half gone."""

    def __init__(self, stream: trio.abc.Stream, server: "FakeServer") -> None:
        self._stream = stream
        self._server = server

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._server.is_mute:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class FakeServer:
    """Serves a model on the memory network. A test may hold its answers, cut its links, stop it."""

    def __init__(self, model: ModelServer, network: MemoryNetwork) -> None:
        self.model = model
        self.network = network
        self.host = "server"
        self.frames: list[list[wire.ClientMessage]] = []
        """What arrived, frame by frame, over all connections."""
        self.connections: list[ModelConnection] = []
        self.codecs: list[Codec] = []
        self.is_holding = False
        """Answers are kept back; the model has taken the requests all the same."""
        self.is_mute = False
        """Nothing that it sends arrives any more, pongs included."""
        self.garbage: bytes | str | None = None
        """Sent instead of the next answer."""
        self._scope = trio.CancelScope()
        self._sockets: dict[trio_websocket.WebSocketConnection, ModelConnection] = {}

    def env(self, host: str = "client") -> Env:
        return virtual_env(7, host, network=self.network)

    @property
    def messages(self) -> list[wire.ClientMessage]:
        return [message for frame in self.frames for message in frame]

    def sent(self, kind: type[Any]) -> list[Any]:
        """What the client sent of one kind."""
        return [message for message in self.messages if isinstance(message, kind)]

    def cut(self) -> None:
        """Break all connections, without a word."""
        self.network.cut("client", self.host)

    def stop(self) -> None:
        """Go away for good."""
        self._scope.cancel()
        self.cut()

    async def push(self) -> None:
        """Send what the model has for its connections: after a test has changed it."""
        for socket, connection in list(self._sockets.items()):
            connection.push()
            await self._answer(socket, connection)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        net = virtual_env(8, self.host, network=self.network).net
        listeners = await net.listen("", PORT)
        task_status.started()
        with self._scope:
            async with trio.open_nursery() as nursery:
                await trio.serve_listeners(self._serve, list(listeners), handler_nursery=nursery)
        for listener in listeners:
            await listener.aclose()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(
                    nursery, Mutable(stream, self), max_message_size=limits.MESSAGE_BYTES_MAX
                )
                codec = CODECS[request.proposed_subprotocols[0]]
                self.codecs.append(codec)
                socket = await request.accept(subprotocol=codec.subprotocol)
                connection = self.model.connect()
                self.connections.append(connection)
                self._sockets[socket] = connection
                try:
                    await self._talk(socket, connection, codec)
                finally:
                    del self._sockets[socket]
                    nursery.cancel_scope.cancel()
        except* (trio_websocket.ConnectionClosed, trio.BrokenResourceError):
            pass

    async def _talk(
        self, socket: trio_websocket.WebSocketConnection, connection: ModelConnection, codec: Codec
    ) -> None:
        while connection.farewell is None:
            frame = await socket.get_message()
            messages = codec.decode_client(frame)
            self.frames.append(messages)
            others: list[wire.ClientMessage] = []
            for message in messages:
                assert not isinstance(message, Fault), message
                if isinstance(message, wire.Call):
                    self._call(connection, codec, message)
                else:
                    others.append(message)
            connection.receive(others)
            await self._answer(socket, connection)
        await socket.aclose(connection.farewell, "farewell")

    def _call(self, connection: ModelConnection, codec: Codec, message: wire.Call) -> None:
        self.model.calls.append((message.method, codec.decode_value(message.params, dict)))
        result = self.model.results.get(message.method)
        if isinstance(result, wire.Rejected):
            connection.outbox.append(wire.Rejected(message.id, result.code, result.detail, result.field))
        elif result is not None:
            connection.outbox.append(wire.Result(message.id, codec.encode_value(result)))

    async def _answer(self, socket: trio_websocket.WebSocketConnection, connection: ModelConnection) -> None:
        if self.is_holding and connection.session is not None and len(connection.received) > 1:
            return
        codec = CODECS[socket.subprotocol]
        answers = connection.take()
        if self.garbage is not None and connection.session is not None and answers:
            await socket.send_message(self.garbage)
        elif answers:
            await socket.send_message(codec.encode(answers))


@asynccontextmanager
async def fake_server(model: ModelServer | None = None) -> AsyncIterator[FakeServer]:
    """A running server."""
    server = FakeServer(model or ModelServer(), MemoryNetwork())
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        try:
            yield server
        except Exception as caught:  # noqa: BLE001 - any
            # Out of the nursery it would come in a group.
            error = caught
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
