"""WebSocket framing (RFC 6455) of the server's side, without a socket: bytes in, messages out.

Our own because the batch is the point: one read's worth of bytes yields all the messages in it at
once, with no task, channel or event object for each (an order of magnitude for clients that send a
WebSocket message per request, PERFORMANCE.md D1), and because control frames, fragments and close
codes are then ours to bound. No extensions are negotiated, so reserved bits are faults.
"""

import codecs
import struct
from typing import Final, TypeAlias

import attrs

from querator.core import limits
from querator.protocol.closing import CloseCode

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

_SHORT_MAX: Final = 125
_SIZE_16: Final = struct.Struct(">BBH").pack
_SIZE_64: Final = struct.Struct(">BBQ").pack
_TRANSLATED_BYTES_MIN: Final = 8_192
"""From here on, four passes of ``bytes.translate`` unmask faster than one long integer."""
_TABLES: Final = tuple(bytes(byte ^ mask for byte in range(256)) for mask in range(256))
_PEER_CLOSE_CODES: Final = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


class FrameError(Exception):
    """The peer broke the framing; close with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@attrs.frozen
class Ping:
    payload: bytes


@attrs.frozen
class Pong:
    payload: bytes


@attrs.frozen
class Close:
    """The peer closes. Code 1005: it gave none."""

    code: int
    reason: str


Arrival: TypeAlias = "str | bytes | Ping | Pong | Close"


class FrameReader:
    """Takes a client's bytes, gives its messages and control frames.

    Holds at most one message of ``message_bytes_max`` and one read's bytes.
    """

    def __init__(self, message_bytes_max: int = limits.MESSAGE_BYTES_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._chunks: list[bytes] = []
        """Bytes not yet taken apart: the start of a frame, in the pieces that it came in."""
        self._waiting = 0
        self._needed = 2
        """Bytes that ``_chunks`` must have before looking again makes sense."""
        self._parts: list[bytes] = []
        """Payloads of a fragmented message so far."""
        self._parts_bytes = 0
        self._parts_opcode = 0
        self._is_closed = False
        self.fault: FrameError | None = None
        """The peer broke the protocol: nothing more can be understood."""

    def feed(self, data: bytes) -> list[Arrival]:
        """What has become complete with ``data``. Nothing follows a Close.

        Raises:
            FrameError: the peer broke the protocol or a bound. What had become complete before is
                returned first; then ``fault`` is set, and the next call raises it.
        """
        if self.fault is not None:
            raise self.fault
        if self._is_closed:
            return []
        self._waiting += len(data)
        if self._waiting < self._needed:
            # A big message arrives in many pieces: join them once, not at every piece.
            self._chunks.append(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks.clear()
        arrivals: list[Arrival] = []
        try:
            start = self._take(data, arrivals)
        except FrameError as error:
            self.fault = error
            if not arrivals:
                raise
            return arrivals
        self._waiting = len(data) - start
        if self._waiting and not self._is_closed:
            self._chunks.append(data[start:] if start else data)
        return arrivals

    def _take(self, data: bytes, arrivals: list[Arrival]) -> int:
        """Take whole frames off ``data``; returns where the first incomplete one starts."""
        start = 0
        size = len(data)
        while size - start >= 2:
            first, second = data[start], data[start + 1]
            length = second & 0x7F
            at = start + 2
            self._check_head(first, second)
            if length == 126:
                if size - at < 2:
                    self._needed = 4
                    return start
                length = (data[at] << 8) | data[at + 1]
                at += 2
            elif length == 127:
                if size - at < 8:
                    self._needed = 10
                    return start
                length = int.from_bytes(data[at : at + 8], "big")
                at += 8
            if length > self._message_bytes_max - self._parts_bytes and first & 0x0F < _CLOSE:
                raise FrameError(CloseCode.TOO_BIG, f"a message is at most {self._message_bytes_max} bytes")
            end = at + 4 + length
            if size < end:
                self._needed = end - start
                return start
            payload = _unmask(data[at + 4 : end], data[at : at + 4])
            start = end
            self._needed = 2
            self._arrive(first, payload, arrivals)
            if self._is_closed:
                break
        else:
            self._needed = 2
        return start

    def _check_head(self, first: int, second: int) -> None:
        if first & 0x70:
            raise FrameError(1002, "reserved bits are set")
        if not second & 0x80:
            raise FrameError(1002, "a client's frame must be masked")
        opcode = first & 0x0F
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise FrameError(1002, "unknown opcode")
            if not first & 0x80 or second & 0x7F > _SHORT_MAX:
                raise FrameError(1002, "a control frame is whole and at most 125 bytes")
        elif opcode > _BINARY:
            raise FrameError(1002, "unknown opcode")
        elif (opcode == _CONTINUATION) is not bool(self._parts):
            raise FrameError(1002, "a fragment is out of place")

    def _arrive(self, first: int, payload: bytes, arrivals: list[Arrival]) -> None:
        opcode = first & 0x0F
        if opcode >= _CLOSE:
            arrivals.append(self._control(opcode, payload))
            return
        if first & 0x80 and opcode:
            arrivals.append(_message(opcode, payload))
            return
        if opcode:
            self._parts_opcode = opcode
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if len(self._parts) > limits.FRAGMENTS_MAX:
            raise FrameError(CloseCode.TOO_BIG, f"a message has at most {limits.FRAGMENTS_MAX} fragments")
        if first & 0x80:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            arrivals.append(_message(self._parts_opcode, whole))

    def _control(self, opcode: int, payload: bytes) -> Arrival:
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        self._is_closed = True
        if not payload:
            return Close(1005, "")
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (code in _PEER_CLOSE_CODES or 3000 <= code < 5000):
            raise FrameError(1002, "a close frame's code is invalid")
        return Close(code, _text(payload[2:]))


def encode_message(data: bytes, *, is_text: bool) -> bytes:
    """A server's frame of one message; text is given as its UTF-8."""
    return _head(0x80 | (_TEXT if is_text else _BINARY), len(data)) + data


def encode_ping(payload: bytes = b"") -> bytes:
    return _head(0x80 | _PING, len(payload)) + payload


def encode_pong(payload: bytes) -> bytes:
    return _head(0x80 | _PONG, len(payload)) + payload


def encode_close(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut to what fits. Code 1005 stands for none."""
    if code == 1005:
        return _head(0x80 | _CLOSE, 0)
    text = reason.encode()[: _SHORT_MAX - 2].decode(errors="ignore").encode()
    return _head(0x80 | _CLOSE, 2 + len(text)) + code.to_bytes(2, "big") + text


def _head(first: int, length: int) -> bytes:
    if length <= _SHORT_MAX:
        return bytes((first, length))
    if length < 65_536:
        return _SIZE_16(first, 126, length)
    return _SIZE_64(first, 127, length)


def _message(opcode: int, payload: bytes) -> str | bytes:
    return _text(payload) if opcode == _TEXT else payload


def _text(payload: bytes) -> str:
    try:
        return codecs.decode(payload, "utf-8")
    except UnicodeDecodeError:
        raise FrameError(CloseCode.NOT_UTF8, "text is not valid UTF-8") from None


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    if size < _TRANSLATED_BYTES_MIN:
        pattern = (mask * ((size + 3) >> 2))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")).to_bytes(
            size, "little"
        )
    plain = bytearray(size)
    for lane in range(4):
        plain[lane::4] = payload[lane::4].translate(_TABLES[mask[lane]])
    return bytes(plain)
