"""Messages between a process and a child of its own: length u32, then msgpack, a name and a body."""

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec
import trio

_LENGTH: Final = Struct("<I")
_READ_BYTES: Final = 1 << 20
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_MESSAGES: Final = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])

Bodies: TypeAlias = "Mapping[str, msgspec.msgpack.Decoder[Any]]"
"""Name of a message to what reads its body."""


class PeerGone(Exception):
    """The process at the other end is not there any more."""


class Frames:
    """Messages over a stream of bytes. Both ends are of the same program: nothing is checked."""

    def __init__(self, stream: trio.abc.Stream, bodies: Bodies) -> None:
        self._stream = stream
        self._bodies = bodies
        self._buffer = bytearray()

    async def send(self, name: str, body: object) -> None:
        """Raises PeerGone."""
        data = _ENCODE((name, msgspec.Raw(_ENCODE(body))))
        try:
            await self._stream.send_all(_LENGTH.pack(len(data)) + data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise PeerGone from None

    async def receive(self) -> tuple[str, Any]:
        """The next one. Raises PeerGone: there is none, for ever."""
        await self._fill(_LENGTH.size)
        (size,) = _LENGTH.unpack_from(self._buffer)
        await self._fill(_LENGTH.size + size)
        data = bytes(self._buffer[_LENGTH.size : _LENGTH.size + size])
        del self._buffer[: _LENGTH.size + size]
        name, body = _MESSAGES.decode(data)
        return name, self._bodies[name].decode(body)

    async def ask(self, name: str, body: object) -> tuple[str, Any]:
        """Send, and the next message that comes. Raises PeerGone."""
        await self.send(name, body)
        return await self.receive()

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise PeerGone
            self._buffer += data
