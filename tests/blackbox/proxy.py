"""A TCP proxy that does to a connection what networks do: delay, cut, swallow, stop, deliver in crumbs.

It runs in the harness's event loop, in front of a server or between a server and its database. What it
does to all its connections is its ``weather``; a connection that lost bytes is broken for good, and is
cut when the weather clears.
"""

import contextlib
import random
import socket
import struct

import attrs
import trio

RECEIVE_BYTES = 65_536
CRUMBS = 300
"""Bytes of one piece of data that are delivered one by one; the rest follows in larger pieces."""


@attrs.frozen(kw_only=True)
class Weather:
    """``swallows_up``, ``swallows_down``: bytes to, or from, the target vanish while the connection stays."""

    delay: float = 0.0
    """Seconds at most, for each piece of data."""
    crumbs: bool = False
    swallows_up: bool = False
    swallows_down: bool = False
    stands_still: bool = False
    """Nothing moves, and nothing is lost."""
    refuses: bool = False
    """New connections are cut at once."""


@attrs.define(eq=False)
class _Connection:
    near: trio.SocketStream
    far: trio.SocketStream
    is_holed: bool = False

    def reset(self) -> None:
        """End both sides with a reset: no goodbye, nothing that was under way arrives."""
        for stream in (self.near, self.far):
            with contextlib.suppress(OSError):
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()


class Proxy:
    """``run`` in a nursery; ``port`` is known once it has started. ``target``, a port, may change."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target = target
        self.port = 0
        self.weather = Weather()
        self.cuts = 0
        self.held_up = 0
        """Pieces of data to the target that wait for it to move again."""
        self._dice = random.Random(seed)
        self._connections: dict[_Connection, None] = {}
        self._moves = trio.Event()
        self._moves.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve for ever."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._serve, listeners, handler_nursery=nursery)

    @property
    def holes(self) -> int:
        """Connections that have lost bytes."""
        return sum(connection.is_holed for connection in self._connections)

    def change(self, weather: Weather) -> None:
        """From now on it is like this."""
        self.weather = weather
        if weather.stands_still:
            self._moves = trio.Event()
        else:
            self._moves.set()

    def clear(self) -> None:
        """Fine again. Connections that lost bytes are cut: neither side could make sense of the rest."""
        self.change(Weather())
        for connection in [one for one in self._connections if one.is_holed]:
            connection.reset()

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        there = list(self._connections)
        for connection in there:
            connection.reset()
        self.cuts += len(there)
        return len(there)

    async def _serve(self, near: trio.SocketStream) -> None:
        if self.weather.refuses:
            near.socket.close()
            return
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            near.socket.close()
            return
        connection = _Connection(near, far)
        self._connections[connection] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, connection, near, far, True)
                nursery.start_soon(self._carry, connection, far, near, False)
        finally:
            del self._connections[connection]
            near.socket.close()
            far.socket.close()

    async def _carry(
        self, connection: _Connection, source: trio.SocketStream, sink: trio.SocketStream, is_up: bool
    ) -> None:
        try:
            while data := await source.receive_some(RECEIVE_BYTES):
                if not self._moves.is_set():
                    self.held_up += is_up
                    await self._moves.wait()
                    self.held_up -= is_up
                weather = self.weather
                if weather.swallows_up if is_up else weather.swallows_down:
                    connection.is_holed = True
                if connection.is_holed:
                    # What follows a hole would be taken for something else.
                    continue
                if weather.delay:
                    await trio.sleep(self._dice.uniform(0, weather.delay))
                for piece in self._pieces(data) if weather.crumbs else (data,):
                    await sink.send_all(piece)
            await sink.send_eof()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            connection.reset()

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces = [data[at : at + 1] for at in range(min(len(data), CRUMBS))]
        at = CRUMBS
        while at < len(data):
            size = self._dice.randint(1, 4_096)
            pieces.append(data[at : at + size])
            at += size
        return pieces
