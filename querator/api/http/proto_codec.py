"""Protobuf, by the official runtime, to and from the message classes.

Converters are built once per message from its schema; they only move fields.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.timestamp_pb2 import Timestamp

from querator.api.http.json_codec import DecodeError
from querator.api.http.messages import Message, Reply
from querator.api.http.proto import duh_pb2, querator_pb2
from querator.api.http.schema import FieldSchema, schema_of
from querator.api.http.stamps import Stamp, check_stamp

_Message = TypeVar("_Message", bound=Message)
_Reader = Callable[[Any], Any]
_Writer = Callable[[Any], Any]

_readers: Final[dict[type[Message], _Reader]] = {}
_writers: Final[dict[type[Message], _Writer]] = {}


def encode_protobuf(message: Message) -> bytes:
    """The message on the wire; equal messages are equal bytes."""
    encoded: bytes = _writer(type(message))(message).SerializeToString(deterministic=True)
    return encoded


def decode_protobuf(body: bytes, kind: type[_Message]) -> _Message:
    """The message that ``body`` is; fields that nobody knows are passed over.

    Raises:
        DecodeError: it is none, or a timestamp is out of range.
    """
    try:
        wire = _wire_kind(kind).FromString(body)
        message: _Message = _reader(kind)(wire)
    except (ProtobufError, ValueError) as error:
        raise DecodeError("proto: cannot parse invalid wire-format data") from error
    return message


def _wire_kind(kind: type[Message]) -> Any:
    """The generated class of a message."""
    return getattr(duh_pb2 if kind is Reply else querator_pb2, kind.__name__)


def _reader(kind: type[Message]) -> _Reader:
    reader = _readers.get(kind)
    if reader is None:
        reader = _readers[kind] = _make_reader(kind)
    return reader


def _make_reader(kind: type[Message]) -> _Reader:
    """Plain fields are fetched in one call, the others put among them, in the order of the class."""
    fields = {field.name: field for field in schema_of(kind)}
    plain = [name for name in kind.__struct_fields__ if _is_plain(fields[name])]
    others = [
        (index, _read_field(fields[name]))
        for index, name in enumerate(kind.__struct_fields__)
        if not _is_plain(fields[name])
    ]
    fetch = attrgetter(*plain) if plain else None
    is_one = len(plain) == 1

    def read(wire: Any) -> Message:
        values: list[Any] = []
        if fetch is not None:
            fetched = fetch(wire)
            values = [fetched] if is_one else list(fetched)
        for index, take in others:
            values.insert(index, take(wire))
        return kind(*values)

    return read


def _is_plain(field: FieldSchema) -> bool:
    return field.kind not in ("message", "timestamp", "map") and not field.is_repeated


def _read_field(field: FieldSchema) -> _Reader:
    name = field.name
    if field.kind == "timestamp":
        return lambda wire: _read_stamp(getattr(wire, name)) if wire.HasField(name) else None
    if field.message is not None:
        reader = _reader(field.message)
        return lambda wire: [reader(entry) for entry in getattr(wire, name)]
    if field.kind == "map":
        return lambda wire: dict(getattr(wire, name))
    return lambda wire: list(getattr(wire, name))


def _read_stamp(wire: Any) -> Stamp:
    return check_stamp(wire.seconds * 1_000_000 + wire.nanos // 1_000)


def _writer(kind: type[Message]) -> _Writer:
    writer = _writers.get(kind)
    if writer is None:
        writer = _writers[kind] = _make_writer(kind)
    return writer


def _make_writer(kind: type[Message]) -> _Writer:
    wire = _wire_kind(kind)
    fields = tuple((field.name, _write_field(field)) for field in schema_of(kind))

    def write(message: Any) -> Any:
        values = {}
        for name, convert in fields:
            value = getattr(message, name)
            if value:
                values[name] = value if convert is None else convert(value)
            elif convert is _write_stamp and value is not None:
                values[name] = _write_stamp(value)
        return wire(**values)

    return write


def _write_field(field: FieldSchema) -> _Writer | None:
    if field.kind == "timestamp":
        return _write_stamp
    if field.message is not None:
        writer = _writer(field.message)
        return lambda entries: [writer(entry) for entry in entries]
    return None


def _write_stamp(stamp: int) -> Any:
    seconds, micros = divmod(stamp, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)
