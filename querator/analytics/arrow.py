"""Columns of this process as an Arrow stream, so that DuckDB reads them where they are.

The Arrow C data interface over ctypes: no copy, no row objects, and no dependency that a hundred lines
replace. Three kinds of columns are enough here: 64-bit integers, and integers and texts by dictionary
(indexes into values, of which many rows may share one).

An ``ArrowTable`` owns its buffers: keep it alive while a query may read it.
"""

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias

import attrs

from querator.core.invariants import check


@attrs.frozen
class TextColumn:
    """``indexes`` (array "i" or "B") into ``texts``."""

    indexes: "array[int]"
    texts: Sequence[str]


@attrs.frozen
class NumberColumn:
    """``indexes`` (array "i" or "B") into ``numbers`` (array "q")."""

    indexes: "array[int]"
    numbers: "array[int]"


ArrowColumn: TypeAlias = "array[int] | TextColumn | NumberColumn"
"""An array of type "q", or values by dictionary."""
_INDEX_FORMATS: Final = {"i": b"i", "B": b"C"}


class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


class _Stream(ctypes.Structure):
    pass


_RELEASE_SCHEMA: Final[Any] = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))
_RELEASE_ARRAY: Final[Any] = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))
_RELEASE_STREAM: Final[Any] = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Stream))
_GET_SCHEMA: Final[Any] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Schema))
_GET_NEXT: Final[Any] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))
_LAST_ERROR: Final[Any] = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Stream))

_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", _RELEASE_SCHEMA),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.POINTER(_Array)),
    ("release", _RELEASE_ARRAY),
    ("private_data", ctypes.c_void_p),
]
_Stream._fields_ = [
    ("get_schema", _GET_SCHEMA),
    ("get_next", _GET_NEXT),
    ("get_last_error", _LAST_ERROR),
    ("release", _RELEASE_STREAM),
    ("private_data", ctypes.c_void_p),
]

_NEW_CAPSULE: Final = ctypes.pythonapi.PyCapsule_New
_NEW_CAPSULE.restype = ctypes.py_object
_NEW_CAPSULE.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@_RELEASE_SCHEMA  # type: ignore[untyped-decorator]
def _release_schema(pointer: Any) -> None:
    pointer.contents.release = _RELEASE_SCHEMA()


@_RELEASE_ARRAY  # type: ignore[untyped-decorator]
def _release_array(pointer: Any) -> None:
    pointer.contents.release = _RELEASE_ARRAY()


@_RELEASE_STREAM  # type: ignore[untyped-decorator]
def _release_stream(pointer: Any) -> None:
    pointer.contents.release = _RELEASE_STREAM()


@_LAST_ERROR  # type: ignore[untyped-decorator]
def _last_error(pointer: Any) -> None:
    del pointer


class ArrowTable:
    """Named columns of one length, readable any number of times (``__arrow_c_stream__``)."""

    def __init__(self, columns: Mapping[str, ArrowColumn]) -> None:
        lengths = {
            len(column if isinstance(column, array) else column.indexes) for column in columns.values()
        }
        check(len(lengths) == 1, "columns of different lengths")
        self.length = lengths.pop()
        self._columns = dict(columns)
        self._packed = {
            name: _packed(column.texts) for name, column in columns.items() if isinstance(column, TextColumn)
        }
        self._kept: list[object] = []
        """Everything that DuckDB has a pointer to."""

    def forget_readers(self) -> None:
        """No query reads it any more. What was made for one refers back to the table: without this only a
        collection of cycles would ever free the two."""
        self._kept.clear()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        del requested_schema
        is_over = False

        @_GET_SCHEMA  # type: ignore[untyped-decorator]
        def get_schema(stream: Any, out: Any) -> int:
            del stream
            self._fill_schema(out.contents)
            return 0

        @_GET_NEXT  # type: ignore[untyped-decorator]
        def get_next(stream: Any, out: Any) -> int:
            del stream
            nonlocal is_over
            if is_over or not self.length:
                out.contents.release = _RELEASE_ARRAY()
                return 0
            is_over = True
            self._fill_array(out.contents)
            return 0

        stream = _Stream(get_schema, get_next, _last_error, _release_stream, None)
        self._kept += (stream, get_schema, get_next)
        return _NEW_CAPSULE(ctypes.addressof(stream), b"arrow_array_stream", None)

    def _fill_schema(self, out: _Schema) -> None:
        children = []
        for name, column in self._columns.items():
            child = _Schema(name=name.encode(), release=_release_schema)
            if isinstance(column, array):
                child.format = b"l"
            else:
                child.format = _INDEX_FORMATS[column.indexes.typecode]
                value_format = b"u" if isinstance(column, TextColumn) else b"l"
                values = _Schema(format=value_format, name=b"", release=_release_schema)
                self._kept.append(values)
                child.dictionary = ctypes.pointer(values)
            children.append(child)
        pointers = (ctypes.POINTER(_Schema) * len(children))(*map(ctypes.pointer, children))
        self._kept += (children, pointers)
        out.format = b"+s"
        out.name = b""
        out.metadata = None
        out.flags = 0
        out.n_children = len(children)
        out.children = pointers
        out.dictionary = None
        out.release = _release_schema
        out.private_data = None

    def _fill_array(self, out: _Array) -> None:
        children = []
        for name, column in self._columns.items():
            if isinstance(column, array):
                child = self._array(self.length, column)
            else:
                child = self._array(self.length, column.indexes)
                values = (
                    self._array(len(column.texts), *self._packed[name])
                    if isinstance(column, TextColumn)
                    else self._array(len(column.numbers), column.numbers)
                )
                child.dictionary = ctypes.pointer(values)
            children.append(child)
        pointers = (ctypes.POINTER(_Array) * len(children))(*map(ctypes.pointer, children))
        buffers = (ctypes.c_void_p * 1)(None)
        self._kept += (children, pointers, buffers)
        out.length = self.length
        out.null_count = 0
        out.offset = 0
        out.n_buffers = 1
        out.buffers = buffers
        out.n_children = len(children)
        out.children = pointers
        out.dictionary = None
        out.release = _release_array
        out.private_data = None

    def _array(self, length: int, *data: Any) -> _Array:
        """An array without nulls over these buffers."""
        addresses = [None, *(_address(buffer) for buffer in data)]
        buffers = (ctypes.c_void_p * len(addresses))(*addresses)
        made = _Array(
            length=length,
            n_buffers=len(addresses),
            buffers=buffers,
            release=_release_array,
        )
        self._kept += (made, buffers, data)
        return made


def _packed(texts: Sequence[str]) -> tuple["array[int]", "array[int]"]:
    """Where each text begins, and the last one ends, and all of them as UTF-8."""
    count = len(texts)
    length = len(texts[0].encode()) if texts else 0
    if count and texts.count(texts[0]) == count:
        offsets = (
            array("i", range(0, length * count + 1, length)) if length else array("i", bytes(4 * count + 4))
        )
        return offsets, array("b", texts[0].encode() * count or bytes(1))
    joined = "".join(texts)
    content = joined.encode()
    lengths = map(len, texts) if len(content) == len(joined) else (len(text.encode()) for text in texts)
    return array("i", accumulate(lengths, initial=0)), array("b", content or bytes(1))


def _address(buffer: Any) -> int:
    if isinstance(buffer, array):
        return buffer.buffer_info()[0]
    return ctypes.addressof(buffer)
