"""Columns: how many values of one kind become few bytes, and back.

A column knows neither its length nor its name: whoever reads it was told both. Its first byte says
how it is packed; an empty column is no byte at all. Everything is little endian.

    integers   all zero | one value | consecutive values | an array of the narrowest fitting
               unsigned type (else 64 bits signed) | the same above a base
    texts      all empty | one text | lengths in characters and one UTF-8 string | a dictionary
    bytes      all empty | lengths and one string
    ranges     all ``None`` | how many each, their firsts, their counts
    attributes all ``None`` | by attribute: shape (absent, constant, full, with holes) and values

Packing is the hot path of every commit: no Python loop over values where a builtin can walk them.
Reading trusts nothing: whatever is wrong raises CorruptRecord, and no length is believed before the
bytes that it promises are there or it is below ``RECORD_VALUES_MAX``.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, repeat
from operator import attrgetter, sub
from struct import Struct
from typing import Any, Final, Protocol

from querator.core.events import Attributes
from querator.core.invariants import check
from querator.core.limits import RECORD_VALUES_MAX
from querator.errors import CorruptRecord

_ZERO, ONE_8, ONE_16, ONE_32, ONE_64, _CONSECUTIVE = range(6)
_ARRAY_8, _ARRAY_16, _ARRAY_32, _ARRAY_64, _BASE_8, _BASE_16, _BASE_32 = range(6, 13)
_EMPTY, ONE_TEXT, _PLAIN, _DICTIONARY = range(4)
_NONE, _SOME = range(2)
_ABSENT, _SAME, _FULL, _HOLES = range(4)

_ZERO_BYTE: Final = bytes((_ZERO,))
_ONE_BYTE: Final = (_ZERO_BYTE, *(bytes((ONE_8, value)) for value in range(1, 256)))
_TAG: Final = tuple(bytes((code,)) for code in range(16))
_PACK_16: Final = Struct("<BH").pack
_PACK_32: Final = Struct("<BI").pack
_PACK_64: Final = Struct("<Bq").pack
_PACK_LENGTH: Final = Struct("<I").pack
_U8, _U16, _U32, _I64 = Struct("<B"), Struct("<H"), Struct("<I"), Struct("<q")
_ONE_STRUCTS: Final = {ONE_8: _U8, ONE_16: _U16, ONE_32: _U32, ONE_64: _I64}
_TYPECODES: Final = {
    _ARRAY_8: "B",
    _ARRAY_16: "H",
    _ARRAY_32: "I",
    _ARRAY_64: "q",
    _BASE_8: "B",
    _BASE_16: "H",
    _BASE_32: "I",
}
_WIDTHS: Final = {typecode: array(typecode).itemsize for typecode in "BHIq"}
_IS_BIG_ENDIAN: Final = sys.byteorder == "big"


class Reader:
    """Bytes that are read from front to back. Owned by one decoding."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def byte(self) -> int:
        try:
            value = self.data[self.position]
        except IndexError:
            raise CorruptRecord("the data ends in the middle of a column") from None
        self.position += 1
        return value

    def bytes(self, count: int) -> bytes:
        start = self.position
        end = start + count
        if end > len(self.data):
            raise CorruptRecord("the data ends in the middle of a column")
        self.position = end
        return self.data[start:end]

    def number(self, layout: Struct) -> int:
        value: int = layout.unpack(self.bytes(layout.size))[0]
        return value

    def length(self) -> int:
        return self.number(_U32)


class Column(Protocol):
    """How the values of one field are packed."""

    def put(self, out: list[bytes], values: Sequence[Any]) -> None:
        """Append the packed values; nothing for none."""

    def one(self, value: Any) -> bytes:  # of whatever type the column is
        """What ``put`` makes of a single value, without a list and a search for repeats: small records
        consist of such columns."""

    def take(self, reader: Reader, count: int) -> Sequence[Any]:
        """Read ``count`` values.

        Raises:
            CorruptRecord: that is not such a column.
        """


# --- Integers -----------------------------------------------------------------------------------


def put_integers(out: list[bytes], values: Sequence[int]) -> None:
    """Append a column of signed 64-bit integers (booleans are integers as well)."""
    count = len(values)
    if not count:
        return
    first = values[0]
    last = values[-1]
    if first == last:
        if count == 1 or values.count(first) == count:
            out.append(one_integer(first))
            return
    elif last - first == count - 1 and tuple(values) == tuple(range(first, last + 1)):
        out.append(_PACK_64(_CONSECUTIVE, first))
        return
    low = min(values)
    high = max(values)
    if low >= 0 and high < 256:
        out += (_TAG[_ARRAY_8], bytes(values))
        return
    if low >= 0 and high < 65_536:
        code = _ARRAY_16
    else:
        span = high - low
        if span < 4_294_967_296 and (span < 65_536 or high >= 4_294_967_296 or low < 0):
            code = _BASE_8 if span < 256 else _BASE_16 if span < 65_536 else _BASE_32
            out.append(_PACK_64(code, low))
            out.append(_array_bytes(_TYPECODES[code], map(sub, values, repeat(low))))
            return
        code = _ARRAY_32 if low >= 0 and high < 4_294_967_296 else _ARRAY_64
    out += (_TAG[code], _array_bytes(_TYPECODES[code], values))


def one_integer(value: int) -> bytes:
    """A column of integers that are all this one."""
    if 0 <= value < 256:
        return _ONE_BYTE[value]
    if 0 < value < 65_536:
        return _PACK_16(ONE_16, value)
    if 0 < value < 4_294_967_296:
        return _PACK_32(ONE_32, value)
    return _PACK_64(ONE_64, value)


def take_integers(reader: Reader, count: int) -> Sequence[int]:
    """A column of integers: a list, a range or an array."""
    if not count:
        return ()
    if not 0 < count <= RECORD_VALUES_MAX:
        check_count(count)
    # One value is what most columns of a small record are: no call for it.
    data = reader.data
    start = reader.position + 1
    if start > len(data):
        raise CorruptRecord("the data ends in the middle of a column")
    code = data[start - 1]
    if code == _ZERO:
        reader.position = start
        return [0] * count
    if code <= ONE_64:
        layout = _ONE_STRUCTS[code]
        end = start + layout.size
        if end > len(data):
            raise CorruptRecord("the data ends in the middle of a column")
        reader.position = end
        return [layout.unpack_from(data, start)[0]] * count
    typecode = _TYPECODES.get(code)
    base = 0
    if typecode is None and code != _CONSECUTIVE:
        raise CorruptRecord(f"there is no column of integers of type {code}")
    if typecode is None or code >= _BASE_8:
        if start + 8 > len(data):
            raise CorruptRecord("the data ends in the middle of a column")
        base = _I64.unpack_from(data, start)[0]
        start += 8
        if typecode is None:
            reader.position = start
            return range(base, base + count)
    end = start + count * _WIDTHS[typecode]
    if end > len(data):
        raise CorruptRecord("the data ends in the middle of a column")
    reader.position = end
    values = array(typecode, data[start:end])
    if _IS_BIG_ENDIAN:
        values.byteswap()
    if code >= _BASE_8:
        return [base + value for value in values]
    return values


def take_constant(reader: Reader, count: int) -> int | None:
    """The value of integers that are all the same, and past them; else ``None``, with nothing read."""
    if not count:
        return None
    code = reader.byte()
    if code == _ZERO:
        return 0
    if code in _ONE_STRUCTS:
        return reader.number(_ONE_STRUCTS[code])
    reader.position -= 1
    return None


def _array_bytes(typecode: str, values: Iterable[int]) -> bytes:
    packed = array(typecode, values)
    if _IS_BIG_ENDIAN:
        packed.byteswap()
    return packed.tobytes()


def check_count(count: int) -> None:
    """Refuse a number of values that no record has.

    Raises:
        CorruptRecord: so many values cannot be.
    """
    if not 0 <= count <= RECORD_VALUES_MAX:
        raise CorruptRecord(f"a column of {count} values")


def _total(counts: Sequence[int]) -> int:
    if counts and min(counts) < 0:
        raise CorruptRecord("a negative count")
    total = sum(counts)
    check_count(total)
    return total


class Integers:
    """Integers of 64 bits."""

    def put(self, out: list[bytes], values: Sequence[int]) -> None:
        put_integers(out, values)

    one = staticmethod(one_integer)

    def take(self, reader: Reader, count: int) -> Sequence[int]:
        return take_integers(reader, count)


class Booleans:
    def put(self, out: list[bytes], values: Sequence[bool]) -> None:
        put_integers(out, values)

    one = staticmethod(one_integer)

    def take(self, reader: Reader, count: int) -> Sequence[bool]:
        return list(map(bool, take_integers(reader, count)))


# --- Texts and bytes ----------------------------------------------------------------------------


def put_texts(out: list[bytes], values: Sequence[str]) -> None:
    """Append a column of texts."""
    count = len(values)
    if not count:
        return
    first = values[0]
    if first == values[-1] and (count == 1 or values.count(first) == count):
        out.append(one_text(first))
        return
    distinct = dict.fromkeys(values)
    if len(distinct) * 2 > count:
        out.append(_TAG[_PLAIN])
        _put_plain(out, values)
        return
    out += (_TAG[_DICTIONARY], _PACK_LENGTH(len(distinct)))
    _put_plain(out, list(distinct))
    index = dict(zip(distinct, range(len(distinct)), strict=True))
    if len(distinct) <= 256:
        out += (_TAG[_ARRAY_8], bytes(map(index.__getitem__, values)))
    else:
        put_integers(out, list(map(index.__getitem__, values)))


def one_text(value: str) -> bytes:
    """A column of texts that are all this one."""
    if value == "":
        return _TAG[_EMPTY]
    encoded = value.encode()
    return _PACK_32(ONE_TEXT, len(encoded)) + encoded


def _put_plain(out: list[bytes], values: Sequence[str]) -> None:
    put_integers(out, list(map(len, values)))
    encoded = "".join(values).encode()
    out += (_PACK_LENGTH(len(encoded)), encoded)


def take_texts(reader: Reader, count: int) -> list[str]:
    """A column of texts."""
    if not count:
        return []
    check_count(count)
    code = reader.byte()
    if code == _EMPTY:
        return [""] * count
    if code == ONE_TEXT:
        return [_take_text(reader)] * count
    if code == _PLAIN:
        return _take_plain(reader, count)
    if code != _DICTIONARY:
        raise CorruptRecord(f"there is no column of texts of type {code}")
    size = reader.length()
    if not 0 < size <= count:
        raise CorruptRecord(f"a dictionary of {size} texts for {count}")
    texts = _take_plain(reader, size)
    indexes = take_integers(reader, count)
    if not _is_unsigned(indexes) and min(indexes) < 0:
        raise CorruptRecord("a text beyond the dictionary")
    try:
        return list(map(texts.__getitem__, indexes))
    except IndexError:
        raise CorruptRecord("a text beyond the dictionary") from None


def _take_plain(reader: Reader, count: int) -> list[str]:
    lengths = take_integers(reader, count)
    total = sum(lengths)
    if not 0 <= total <= RECORD_VALUES_MAX or not _is_unsigned(lengths):
        total = _total(lengths)
    text = _take_text(reader)
    if len(text) != total:
        raise CorruptRecord("texts that are not as long as they should be")
    length = lengths[0]
    if length and length * count == total and lengths[-1] == length and min(lengths) == length:
        return [text[start : start + length] for start in range(0, total, length)]
    return split_text(text, lengths)


def _is_unsigned(values: Sequence[int]) -> bool:
    """Whether no such column has a negative number."""
    return type(values) is array and values.typecode != "q"


def _take_text(reader: Reader) -> str:
    data = reader.data
    start = reader.position + _U32.size
    if start > len(data):
        raise CorruptRecord("the data ends in the middle of a column")
    end = start + _U32.unpack_from(data, start - _U32.size)[0]
    if end > len(data):
        raise CorruptRecord("the data ends in the middle of a column")
    reader.position = end
    try:
        return data[start:end].decode()
    except UnicodeDecodeError:
        raise CorruptRecord("a text that is not UTF-8") from None


def split_text(text: str, lengths: Sequence[int]) -> list[str]:
    texts: list[str] = []
    add = texts.append
    end = 0
    for length in lengths:
        start = end
        end += length
        add(text[start:end])
    return texts


class Texts:
    """Strings; dictionary-packed where they repeat."""

    def put(self, out: list[bytes], values: Sequence[str]) -> None:
        put_texts(out, values)

    one = staticmethod(one_text)

    def take(self, reader: Reader, count: int) -> Sequence[str]:
        return take_texts(reader, count)


class Blobs:
    """Byte strings."""

    def put(self, out: list[bytes], values: Sequence[bytes]) -> None:
        if not values:
            return
        joined = b"".join(values)
        if not joined:
            out.append(_TAG[_EMPTY])
            return
        out.append(_TAG[_PLAIN])
        put_integers(out, list(map(len, values)))
        out.append(joined)

    def one(self, value: bytes) -> bytes:
        return _TAG[_EMPTY] if value == b"" else _TAG[_PLAIN] + one_integer(len(value)) + value

    def take(self, reader: Reader, count: int) -> Sequence[bytes]:
        if not count:
            return []
        check_count(count)
        code = reader.byte()
        if code == _EMPTY:
            return [b""] * count
        if code != _PLAIN:
            raise CorruptRecord(f"there is no column of bytes of type {code}")
        lengths = take_integers(reader, count)
        joined = reader.bytes(_total(lengths))
        ends = list(accumulate(lengths))
        return [joined[start:end] for start, end in zip(chain((0,), ends), ends, strict=False)]


# --- Ranges and runs ----------------------------------------------------------------------------

Pairs = tuple[tuple[int, int], ...]


def _put_pairs(out: list[bytes], values: Iterable[Pairs]) -> None:
    flat = list(chain.from_iterable(values))
    check(len(flat) <= RECORD_VALUES_MAX, "a column has more values than can be read back")
    if flat:
        firsts, counts = zip(*flat, strict=True)
        put_integers(out, firsts)
        put_integers(out, counts)


def _one_pairs(value: Pairs) -> bytes:
    """The firsts and counts of one tuple."""
    if len(value) == 1:
        first, count = value[0]
        return one_integer(first) + one_integer(count)
    out: list[bytes] = []
    _put_pairs(out, (value,))
    return b"".join(out)


def _take_pairs(reader: Reader, sizes: Sequence[int]) -> list[Pairs]:
    total = _total(sizes)
    pairs = tuple(zip(take_integers(reader, total), take_integers(reader, total), strict=True))
    ends = list(accumulate(sizes))
    return [pairs[start:end] for start, end in zip(chain((0,), ends), ends, strict=False)]


class PairTuples:
    """Tuples of (first, count)."""

    def put(self, out: list[bytes], values: Sequence[Pairs]) -> None:
        if not any(values):
            out.append(_ZERO_BYTE)
            return
        put_integers(out, list(map(len, values)))
        _put_pairs(out, values)

    def one(self, value: Pairs) -> bytes:
        return one_integer(len(value)) + _one_pairs(value) if value else _ZERO_BYTE

    def take(self, reader: Reader, count: int) -> Sequence[Pairs]:
        return _take_pairs(reader, take_integers(reader, count))


class OptionalPairTuples:
    """Tuples of (first, count), or ``None``, which is what most of them are."""

    def put(self, out: list[bytes], values: Sequence[Pairs | None]) -> None:
        if not values:
            return
        if values.count(None) == len(values):
            out.append(_TAG[_NONE])
            return
        out.append(_TAG[_SOME])
        put_integers(out, [0 if value is None else 1 + len(value) for value in values])
        _put_pairs(out, (value or () for value in values))

    def one(self, value: Pairs | None) -> bytes:
        if value is None:
            return _TAG[_NONE]
        return _TAG[_SOME] + one_integer(1 + len(value)) + _one_pairs(value)

    def take(self, reader: Reader, count: int) -> Sequence[Pairs | None]:
        if not count:
            return []
        check_count(count)
        code = reader.byte()
        if code == _NONE:
            return [None] * count
        if code != _SOME:
            raise CorruptRecord(f"there is no column of ranges of type {code}")
        sizes = take_integers(reader, count)
        found: list[Pairs | None] = list(_take_pairs(reader, [max(size - 1, 0) for size in sizes]))
        if min(sizes) < 0:
            raise CorruptRecord("a negative count")
        if min(sizes) == 0:
            return [pairs if size else None for pairs, size in zip(found, sizes, strict=True)]
        return found


# --- Attributes ---------------------------------------------------------------------------------


class HeaderMaps:
    """String maps."""

    def put(self, out: list[bytes], values: Sequence[dict[str, str]]) -> None:
        put_integers(out, list(map(len, values)))
        put_texts(out, list(chain.from_iterable(values)))
        put_texts(out, list(chain.from_iterable(value.values() for value in values)))

    def one(self, value: dict[str, str]) -> bytes:
        out: list[bytes] = []
        self.put(out, (value,))
        return b"".join(out)

    def take(self, reader: Reader, count: int) -> Sequence[dict[str, str]]:
        sizes = take_integers(reader, count)
        total = _total(sizes)
        pairs = list(zip(take_texts(reader, total), take_texts(reader, total), strict=True))
        ends = list(accumulate(sizes))
        found = [dict(pairs[start:end]) for start, end in zip(chain((0,), ends), ends, strict=False)]
        if any(map(int.__ne__, map(len, found), sizes)):
            raise CorruptRecord("a header that is there twice")
        return found


_ONE_SAME: Final = _TAG[_SOME] + one_integer(1) + one_integer(0)
"""Of attributes of one batch, none of them a column: they are there; of no length."""
_SAME_ONCE: Final = one_integer(_SAME) + _PACK_LENGTH(1)
"""Before the one value of an attribute that all items share."""

INTEGERS: Final = Integers()
BOOLEANS: Final = Booleans()
TEXTS: Final = Texts()
BLOBS: Final = Blobs()
PAIRS: Final = PairTuples()
OPTIONAL_PAIRS: Final = OptionalPairTuples()
HEADERS: Final = HeaderMaps()


class AttributeBatches:
    """``Attributes`` of produced batches, or ``None``: attribute by attribute.

    An attribute that no batch has is one byte, one with the same value for all items of all batches
    a few. ``names`` gives the attributes in the order in which they are packed, which is that of the
    fields of ``Attributes``.
    """

    def __init__(self, names: tuple[tuple[str, Column], ...]) -> None:
        self.names = names
        self._values = attrgetter(*(name for name, _ in names))
        self._codecs = tuple(codec for _, codec in names)

    def put(self, out: list[bytes], values: Sequence[Attributes | None]) -> None:
        if not values:
            return
        if values.count(None) == len(values):
            out.append(_TAG[_NONE])
            return
        present = [value for value in values if value is not None]
        out.append(_TAG[_SOME])
        put_integers(out, [value is not None for value in values])
        columns = [[getattr(value, name) for value in present] for name, _ in self.names]
        lengths = [0] * len(present)
        shapes = []
        for column in columns:
            shape = []
            for index, value in enumerate(column):
                if type(value) is list:
                    check(lengths[index] in (0, len(value)), "columns of attributes of different lengths")
                    lengths[index] = len(value)
                    shape.append(_HOLES if None in value else _FULL)
                else:
                    shape.append(_ABSENT if value is None else _SAME)
            shapes.append(shape)
        put_integers(out, lengths)
        for (_, codec), column, shape in zip(self.names, columns, shapes, strict=True):
            put_integers(out, shape)
            if any(shape):
                self._put_values(out, codec, column, shape)

    def one(self, value: Attributes | None) -> bytes:
        if value is None:
            return _TAG[_NONE]
        values = self._values(value)
        if list in map(type, values):
            out: list[bytes] = []
            self.put(out, (value,))
            return b"".join(out)
        packed = [_ONE_SAME]
        for entry, codec in zip(values, self._codecs, strict=True):
            packed += (_ZERO_BYTE,) if entry is None else (_SAME_ONCE, codec.one(entry))
        return b"".join(packed)

    @staticmethod
    def _put_values(out: list[bytes], codec: Column, column: list[Any], shape: list[int]) -> None:
        holes: list[bool] = []
        flat: list[Any] = []
        for value, form in zip(column, shape, strict=True):
            if form == _SAME:
                flat.append(value)
            elif form == _FULL:
                flat += value
            elif form == _HOLES:
                holes += [entry is not None for entry in value]
                flat += [entry for entry in value if entry is not None]
        check(len(flat) + len(holes) <= RECORD_VALUES_MAX, "a column has more values than can be read back")
        put_integers(out, holes)
        out.append(_PACK_LENGTH(len(flat)))
        codec.put(out, flat)

    def take(self, reader: Reader, count: int) -> Sequence[Attributes | None]:
        if not count:
            return []
        check_count(count)
        code = reader.byte()
        if code == _NONE:
            return [None] * count
        if code != _SOME:
            raise CorruptRecord(f"there is no column of attributes of type {code}")
        is_present = take_integers(reader, count)
        size = sum(map(bool, is_present))
        lengths = take_integers(reader, size)
        _total(lengths)
        columns = [self.take_values(reader, codec, lengths) for _, codec in self.names]
        found = map(Attributes, *columns)
        return [next(found) if there else None for there in is_present]

    @staticmethod
    def take_values(reader: Reader, codec: Column, lengths: Sequence[int]) -> list[Any]:
        shape = take_integers(reader, len(lengths))
        if not any(shape):
            return [None] * len(lengths)
        if min(shape) < _ABSENT or max(shape) > _HOLES:
            raise CorruptRecord("an attribute of an unknown shape")
        hole_count = sum(length for length, form in zip(lengths, shape, strict=True) if form == _HOLES)
        holes = iter(take_integers(reader, hole_count))
        size = reader.length()
        check_count(size)
        flat = iter(codec.take(reader, size))
        column: list[Any] = []
        try:
            for length, form in zip(lengths, shape, strict=True):
                if form == _ABSENT:
                    column.append(None)
                elif form == _SAME:
                    column.append(next(flat))
                elif form == _FULL:
                    column.append([next(flat) for _ in range(length)])
                else:
                    column.append([next(flat) if next(holes) else None for _ in range(length)])
        except (StopIteration, RuntimeError):
            raise CorruptRecord("fewer attributes than items that have them") from None
        if next(flat, _END) is not _END:
            raise CorruptRecord("more attributes than items that have them")
        return column


_END: Final = object()
