"""One WebSocket connection to a server, as frames in and out. The only module that knows trio-websocket."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import Final, cast

import attrs
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from querator.client.address import Address
from querator.core import limits
from querator.env import Env, seconds
from querator.protocol.codec import Codec, Frame

RECEIVE_BUFFER_BYTES: Final = 262_144
"""Read at once: small reads cost more than the framing (a full frame of pushes is about this large)."""
MESSAGE_QUEUE_SIZE: Final = 16
"""trio-websocket answers no ping while its queue is full, so leave it some room."""


@attrs.define
class LinkLost(Exception):
    """The connection could not be made, or has ended. ``code``: the close code, or the HTTP status."""

    reason: str
    code: int = 0

    def __str__(self) -> str:
        return self.reason


class Link:
    """An open connection. One task sends, one receives."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket

    async def send(self, frame: Frame) -> None:
        """Raises LinkLost. Cancelling tears the connection."""
        try:
            await self._socket.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise _lost(error) from error
        except LocalProtocolError as error:
            # The peer's close arrived between trio-websocket's look at the state and ours.
            raise LinkLost("the connection is closing") from error

    async def receive(self) -> Frame:
        """Raises LinkLost."""
        try:
            return await self._socket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise _lost(error) from error

    async def ping(self) -> None:
        """Wait for a pong. Raises LinkLost."""
        try:
            await self._socket.ping()
        except trio_websocket.ConnectionClosed as error:
            raise _lost(error) from error

    async def say_goodbye(self) -> None:
        """Close in order; the server releases what we hold. Gives up after GOODBYE_TIMEOUT."""
        with trio.move_on_after(seconds(limits.GOODBYE_TIMEOUT), shield=True):
            await self._socket.aclose()


class _Overseer:
    """Stands in for a nursery, to learn that trio-websocket's reader has ended.

    When a server goes away during the handshake, trio-websocket ends its reader and leaves whoever
    waits for the handshake waiting.
    """

    def __init__(self, nursery: trio.Nursery, handshake: trio.CancelScope) -> None:
        self._nursery = nursery
        self._handshake = handshake
        self.rejection: trio_websocket.ConnectionRejected | None = None

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._oversee, reader)

    async def _oversee(self, reader: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader()
        except trio_websocket.ConnectionRejected as error:
            self.rejection = error
        self._handshake.cancel()


@asynccontextmanager
async def open_link(env: Env, address: Address, codec: Codec, tls: SSLContext | None) -> AsyncIterator[Link]:
    """Connect and shake hands.

    Raises:
        LinkLost: nobody answers, or not as a Querator server would.
    """
    try:
        stream = await env.net.connect(address.host, address.port, tls=tls)
    except OSError as error:
        raise LinkLost(_reason(error)) from error
    if isinstance(stream, trio.SSLStream):
        await _encrypt(stream)
    refusal: LinkLost | None = None
    async with stream, trio.open_nursery() as nursery:
        socket = await _shake_hands(nursery, stream, address, codec)
        # Raised within the nursery it would come out as a group.
        if isinstance(socket, LinkLost):
            refusal = socket
        else:
            yield Link(socket)
        nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal


async def _encrypt(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Raises LinkLost, with what TLS had against the server; the stream is closed then."""
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__
        if isinstance(cause, SSLCertVerificationError):
            raise LinkLost(f"its certificate is not trusted: {cause.verify_message}") from error
        if isinstance(cause, SSLError):
            raise LinkLost(f"no TLS: {cause.reason or cause}") from error
        raise LinkLost("the connection broke during the TLS handshake") from error
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        raise


async def _shake_hands(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: Address, codec: Codec
) -> trio_websocket.WebSocketConnection | LinkLost:
    with trio.CancelScope() as handshake:
        overseer = _Overseer(nursery, handshake)
        socket = await trio_websocket.wrap_client_stream(
            cast("trio.Nursery", overseer),
            cast("trio.SocketStream", stream),
            address.authority,
            address.path,
            subprotocols=[codec.subprotocol],
            message_queue_size=MESSAGE_QUEUE_SIZE,
            max_message_size=limits.OUTBOX_BYTES_MAX,
            receive_buffer_size=RECEIVE_BUFFER_BYTES,
        )
        if socket.subprotocol != codec.subprotocol:
            return LinkLost(f"the server does not speak {codec.subprotocol}", 404)
        return socket
    rejection = overseer.rejection
    if rejection is None:
        return LinkLost("the connection broke during the handshake")
    return LinkLost(f"refused with HTTP status {rejection.status_code}", rejection.status_code)


def _lost(error: trio_websocket.ConnectionClosed) -> LinkLost:
    reason = error.reason
    if reason is None or reason.code == 1006:
        return LinkLost("the connection broke", 1006)
    return LinkLost(reason.reason or f"closed with code {reason.code}", reason.code)


def _reason(error: OSError) -> str:
    """One line; trio reports a failed connect as "all attempts ... failed", with the causes inside."""
    causes = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else (error,)
    texts = dict.fromkeys(_text(cause) for cause in causes if isinstance(cause, OSError))
    return "; ".join(texts) or str(error)


def _text(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
