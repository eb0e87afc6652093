"""Columns of integers in as few bytes as they need, for snapshots."""

import sys
from array import array
from collections.abc import Iterable
from typing import Final

_WIDTHS: Final = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"))


def pack(numbers: Iterable[int]) -> bytes:
    """Integers in as few bytes as they need: all the same, or an array as narrow as they allow."""
    wide = numbers if isinstance(numbers, array) else array("q", numbers)
    if not wide:
        return b""
    low, high = min(wide), max(wide)
    if low == high:
        return b"c" + len(wide).to_bytes(4, "little") + low.to_bytes(8, "little", signed=True)
    span = high - low
    for bound, code in _WIDTHS:
        if span < bound:
            narrow = array(code, [number - low for number in wide] if low else wide)
            return code.encode() + low.to_bytes(8, "little", signed=True) + raw(narrow)
    return b"q" + bytes(8) + raw(array("q", wide))


def pack_fast(numbers: "array[int]") -> bytes:
    """64-bit integers as they are: a copy, for columns that can be long where there is no time for more."""
    return b"q" + bytes(8) + raw(numbers) if numbers else b""


def unpack(data: bytes) -> "array[int]":
    if not data:
        return array("q")
    code = data[:1].decode()
    if code == "c":
        return array("q", (int.from_bytes(data[5:13], "little", signed=True),)) * int.from_bytes(
            data[1:5], "little"
        )
    low = int.from_bytes(data[1:9], "little", signed=True)
    narrow = cook(code, data[9:])
    return array("q", [number + low for number in narrow] if low else narrow)


def raw(numbers: "array[int]") -> bytes:
    """Little-endian, whatever this machine is."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def cook(code: str, data: bytes) -> "array[int]":
    numbers: array[int] = array(code, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
