"""Frames to messages and back, for the two subprotocols.

A frame is one WebSocket message: text with a JSON array, or binary with a MessagePack array, of
messages (messages.py). Types are strict: ``"5"`` is not 5, 5.0 is not 5, unknown fields are
refused.

A *client's* frame is read generously in one respect only: when single messages of it are at fault,
the others stand, and each faulty one is returned in its place as a ``Fault`` with its ``id`` where
that could be read, so that the client learns which request was not understood. A frame that is no
array at all, or has too many messages, raises.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import msgspec

from querator.core import limits
from querator.errors import ProtocolError
from querator.protocol.messages import NUMBER_MAX, ClientMessage, ServerMessage

Frame: TypeAlias = str | bytes
"""One WebSocket message: ``str`` is sent as text, ``bytes`` as binary."""

T = TypeVar("T")

JSON_SUBPROTOCOL: Final = "querator.v1.json"
MSGPACK_SUBPROTOCOL: Final = "querator.v1.msgpack"

_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


@attrs.frozen
class Fault:
    """A message that could not be read, standing where the message stood."""

    detail: str
    path: str
    id: int | None


class _Identified(msgspec.Struct):
    """Reads the ``id`` of a message that is otherwise not understood."""

    id: int


@attrs.frozen
class Encoded:
    """Messages that are encoded already, and how many: frames join them without encoding again."""

    count: int
    data: bytes
    """A whole frame's bytes: the array of these messages."""


class Codec:
    """One subprotocol. Stateless but for its buffers: share one per process and task."""

    subprotocol: str
    is_text: bool

    _encode: Callable[[Any], bytes]
    _decode_client: Callable[[Any], list[ClientMessage]]
    _decode_server: Callable[[Any], list[ServerMessage]]
    _decode_raw: Callable[[Any], list[msgspec.Raw]]
    _decode_one: Callable[[Any], ClientMessage]
    _decode_id: Callable[[Any], _Identified]

    # -- encoding --------------------------------------------------------------------------------

    def encode(self, messages: Sequence[ClientMessage | ServerMessage]) -> Frame:
        """The frame of these messages."""
        raise NotImplementedError

    def encode_batch(self, messages: Sequence[ClientMessage | ServerMessage]) -> Encoded:
        """These messages, encoded, to be joined with others into a frame later."""
        return Encoded(len(messages), self._encode(messages))

    def join(self, batches: Sequence[Encoded]) -> Frame:
        """One frame of all these batches, in order."""
        data = self.join_data(batches)
        return data.decode() if self.is_text else data

    def join_data(self, batches: Sequence[Encoded]) -> bytes:
        """The bytes of that frame."""
        raise NotImplementedError

    def encode_value(self, value: object) -> msgspec.Raw:
        """A value for ``params`` of a call or ``value`` of a result."""
        return msgspec.Raw(self._encode(value))

    # -- decoding --------------------------------------------------------------------------------

    def decode_client(self, frame: Frame) -> "list[ClientMessage | Fault]":
        """The messages a client sent in one frame; what cannot be read is a ``Fault`` in its place.

        Raises:
            ProtocolError: the frame as a whole cannot be read.
        """
        self._check_kind(frame)
        try:
            messages: list[Any] = self._decode_client(frame)
        except _FAULTS as error:
            messages = self._decode_singly(frame, error)
        if len(messages) > limits.FRAME_COMMANDS_MAX:
            raise ProtocolError(f"more than {limits.FRAME_COMMANDS_MAX} messages in one frame")
        return messages

    def decode_server(self, frame: Frame) -> list[ServerMessage]:
        """The messages a server sent in one frame.

        Raises:
            ProtocolError: it cannot be read.
        """
        self._check_kind(frame)
        try:
            return self._decode_server(frame)
        except _FAULTS as error:
            raise _protocol_error(error) from error

    def decode_value(self, raw: msgspec.Raw | bytes, kind: type[T]) -> T:
        """``params`` or ``value`` as a ``kind`` (an attrs class, say); absent is an empty object.

        Raises:
            ProtocolError: it is something else; the path is relative to the value.
        """
        raise NotImplementedError

    def _check_kind(self, frame: Frame) -> None:
        if isinstance(frame, str) is not self.is_text:
            wanted = "text" if self.is_text else "binary"
            raise ProtocolError(f"{self.subprotocol} speaks in {wanted} messages")

    def _decode_singly(self, frame: Frame, first: BaseException) -> list[Any]:
        """Message by message, with faults in their places; a frame that is broken as a whole raises."""
        if self._count_max(frame) > 16 * limits.FRAME_COMMANDS_MAX:
            # Not worth a list of so many scraps; honest frames hold far fewer.
            raise _protocol_error(first) from first
        try:
            scraps = self._decode_raw(frame)
        except _FAULTS:
            raise _protocol_error(first) from first
        if len(scraps) > limits.FRAME_COMMANDS_MAX:
            raise ProtocolError(f"more than {limits.FRAME_COMMANDS_MAX} messages in one frame")
        return [self._decode_scrap(scrap, index) for index, scrap in enumerate(scraps)]

    def _decode_scrap(self, scrap: msgspec.Raw, index: int) -> "ClientMessage | Fault":
        try:
            return self._decode_one(scrap)
        except _FAULTS as error:
            fault = _protocol_error(error)
        return Fault(
            fault.detail,
            fault.path.replace("$", f"$[{index}]", 1),
            self._read_id(scrap),
        )

    def _read_id(self, scrap: msgspec.Raw) -> int | None:
        try:
            number = self._decode_id(scrap).id
        except _FAULTS:
            return None
        return number if 0 <= number <= NUMBER_MAX else None

    def _count_max(self, frame: Frame) -> int:
        """No fewer than the array's elements, found without building them."""
        raise NotImplementedError


class _JsonCodec(Codec):
    subprotocol = JSON_SUBPROTOCOL
    is_text = True

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode_client = msgspec.json.Decoder(list[ClientMessage]).decode
        self._decode_server = msgspec.json.Decoder(list[ServerMessage]).decode
        self._decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
        self._decode_one = msgspec.json.Decoder(ClientMessage).decode
        self._decode_id = msgspec.json.Decoder(_Identified).decode

    def encode(self, messages: Sequence[ClientMessage | ServerMessage]) -> Frame:
        return self._encode(messages).decode()

    def join_data(self, batches: Sequence[Encoded]) -> bytes:
        if len(batches) == 1:
            return batches[0].data
        return b"[" + b",".join([batch.data[1:-1] for batch in batches if batch.count]) + b"]"

    def decode_value(self, raw: msgspec.Raw | bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(bytes(raw) or b"{}", type=kind)
        except _FAULTS as error:
            raise _protocol_error(error) from error

    def _count_max(self, frame: Frame) -> int:
        return frame.count(",") + 1 if isinstance(frame, str) else frame.count(b",") + 1


class _MsgpackCodec(Codec):
    subprotocol = MSGPACK_SUBPROTOCOL
    is_text = False

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_client = msgspec.msgpack.Decoder(list[ClientMessage]).decode
        self._decode_server = msgspec.msgpack.Decoder(list[ServerMessage]).decode
        self._decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
        self._decode_one = msgspec.msgpack.Decoder(ClientMessage).decode
        self._decode_id = msgspec.msgpack.Decoder(_Identified).decode

    def encode(self, messages: Sequence[ClientMessage | ServerMessage]) -> Frame:
        return self._encode(messages)

    def join_data(self, batches: Sequence[Encoded]) -> bytes:
        if len(batches) == 1:
            return batches[0].data
        count = sum(batch.count for batch in batches)
        return _array_header(count) + b"".join(
            [batch.data[_header_bytes(batch.count) :] for batch in batches]
        )

    def decode_value(self, raw: msgspec.Raw | bytes, kind: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(bytes(raw) or b"\x80", type=kind)
        except _FAULTS as error:
            raise _protocol_error(error) from error

    def _count_max(self, frame: Frame) -> int:
        head = bytes(frame[:5]) if isinstance(frame, bytes) else b""
        if head[:1] == b"\xdc":
            return int.from_bytes(head[1:3], "big")
        if head[:1] == b"\xdd":
            return int.from_bytes(head[1:5], "big")
        return 15


def _header_bytes(count: int) -> int:
    return 1 if count < 16 else 3 if count < 65_536 else 5


def _array_header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _protocol_error(error: BaseException) -> ProtocolError:
    """The text of msgspec is "<detail> - at `<path>`"; ours carries the two apart."""
    if isinstance(error, RecursionError):
        return ProtocolError("nested too deeply")
    if isinstance(error, UnicodeError):
        return ProtocolError("a string is not valid UTF-8")
    text = str(error)
    detail, mark, path = text.rpartition(" - at `")
    return ProtocolError(detail, path.rstrip("`")) if mark else ProtocolError(text)


JSON: Final[Codec] = _JsonCodec()
MSGPACK: Final[Codec] = _MsgpackCodec()
CODECS: Final[dict[str, Codec]] = {MSGPACK_SUBPROTOCOL: MSGPACK, JSON_SUBPROTOCOL: JSON}
"""By subprotocol, the preferred one first."""
