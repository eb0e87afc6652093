"""PostgreSQL's binary format of the few types the log uses, both ways."""

import struct
from collections.abc import Sequence
from itertools import repeat

_INT4 = struct.Struct(">i")
_INT8 = struct.Struct(">q")
_INT4_ELEMENT = struct.Struct(">ii")
_INT8_ELEMENT = struct.Struct(">iq")
"""An element of an array: its size, itself."""
_HEADER = struct.Struct(">iiIii")
"""Dimensions, has nulls, element type, elements, lower bound."""

_OID_BYTEA = 17
_OID_INT8 = 20
_OID_INT4 = 23
_OID_TEXT = 25
_NO_ELEMENTS = 12
"""Bytes of an empty array: it has no dimension."""


def encode_int4(value: int) -> bytes:
    return _INT4.pack(value)


def encode_int8(value: int) -> bytes:
    return _INT8.pack(value)


def encode_bool(value: bool) -> bytes:  # noqa: FBT001 - it is the value itself
    return b"\x01" if value else b"\x00"


def encode_int8s(values: Sequence[int]) -> bytes:
    return _header(_OID_INT8, len(values)) + b"".join(map(_INT8_ELEMENT.pack, repeat(8), values))


def encode_int4s(values: Sequence[int]) -> bytes:
    return _header(_OID_INT4, len(values)) + b"".join(map(_INT4_ELEMENT.pack, repeat(4), values))


def encode_byteas(values: Sequence[bytes]) -> bytes:
    return _elements(_OID_BYTEA, values)


def encode_texts(values: Sequence[str]) -> bytes:
    return _elements(_OID_TEXT, [value.encode() for value in values])


def _elements(oid: int, values: Sequence[bytes]) -> bytes:
    parts = [_header(oid, len(values))]
    for value in values:
        parts.append(_INT4.pack(len(value)))
        parts.append(value)
    return b"".join(parts)


def _header(oid: int, count: int) -> bytes:
    if count == 0:
        return struct.pack(">iiI", 0, 0, oid)
    return _HEADER.pack(1, 0, oid, count, 1)


def decode_int(value: bytes) -> int:
    """An integer of any width."""
    return int.from_bytes(value, "big", signed=True)


def decode_bool(value: bytes) -> bool:
    return value == b"\x01"


def decode_int8s(value: bytes) -> list[int]:
    """A one-dimensional array without nulls."""
    if len(value) == _NO_ELEMENTS:
        return []
    count = _HEADER.unpack_from(value)[3]
    return list(struct.unpack_from(">" + "4xq" * count, value, _HEADER.size))
