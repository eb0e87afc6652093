"""Small records, read fast: few events, each of another kind, of plain values.

Most records of a queue whose clients go item by item are such: a turn, what was completed, what was given
out. Reading one by columns costs three times as much. And it is exact: events that are read here are
written as these very bytes and no others, so that who wants to compare need not write them again.

What is not small, not exact, or not a record at all is left to ``decode_events``, which says what is wrong.
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct, error
from typing import Any, Final, TypeAlias

from querator.core.events import Event
from querator.log.columns import (
    ONE_8,
    ONE_16,
    ONE_32,
    ONE_64,
    ONE_TEXT,
    AttributeBatches,
    Blobs,
    Booleans,
    Integers,
    OptionalPairTuples,
    PairTuples,
    Texts,
)
from querator.log.kinds import SCHEMAS, VERSION, Kind

EVENTS_MAX: Final = 8
"""Of a small record."""
_PLANS: Final = 4_096
"""Sequences of kinds that are remembered."""

_PREFIX: Final = Struct("<BI")
_COUNTS: Final = {_PREFIX.pack(VERSION, count): count for count in range(1, EVENTS_MAX + 1)}
_KINDS: Final = SCHEMAS[VERSION]
_TAKE_LENGTH: Final = Struct("<I").unpack_from
_INTEGERS: Final = {
    ONE_8: (Struct("<B").unpack_from, 1, 1),
    ONE_16: (Struct("<H").unpack_from, 2, 1 << 8),
    ONE_32: (Struct("<I").unpack_from, 4, 1 << 16),
    ONE_64: (Struct("<q").unpack_from, 8, 1 << 32),
}
"""How to read a number that takes one value, how many bytes it has, and what is written in fewer."""

_INTEGER, _TEXT, _OTHER, _ELSEWHERE = range(4)
"""A field that is packed as an integer, as a text, in another way, or is not in the columns."""
_NOTHING: Final[dict[type, Any]] = {
    Integers: 0,
    Booleans: False,
    Texts: "",
    Blobs: b"",
    PairTuples: (),
    OptionalPairTuples: None,
    AttributeBatches: None,
}
"""The one value of a column that is nothing but a zero byte."""

_Form: TypeAlias = tuple[int, Any]
"""How a field is packed, and its value where that is nothing."""
_Step: TypeAlias = tuple[Callable[..., Event], tuple[_Form, ...]]
_Plan: TypeAlias = tuple[tuple[_Step, ...], tuple[int, ...] | None]
"""Kinds in the order of the bytes; and which of them are the events, if that is another order."""


def decode_small(data: bytes) -> list[Event] | None:
    """The events of a small record, without payloads; ``None``: it has to be read by columns."""
    count = _COUNTS.get(data[:5])
    if count is None:
        return None
    position = 5 + count
    plan = _plan(data[5:position])
    if plan is None:
        return None
    steps, order = plan
    events: list[Event] = []
    try:
        for make, forms in steps:
            values: list[Any] = []
            for form, nothing in forms:
                if form == _ELSEWHERE:
                    values.append(nothing)
                    continue
                code = data[position]
                position += 1
                if not code:
                    values.append(nothing)
                elif form == _INTEGER and code <= ONE_64:
                    take, width, least = _INTEGERS[code]
                    value = take(data, position)[0]
                    position += width
                    if least > value >= 0:
                        return None
                    values.append(value)
                elif form == _TEXT and code == ONE_TEXT:
                    length = _TAKE_LENGTH(data, position)[0]
                    start = position + 4
                    position = start + length
                    if not length or position > len(data):
                        return None
                    values.append(data[start:position].decode())
                else:
                    return None
            events.append(make(*values))
    except (IndexError, error, UnicodeDecodeError):
        return None
    if position != len(data):
        return None
    return events if order is None else [events[index] for index in order]


@lru_cache(maxsize=_PLANS)
def _plan(numbers: bytes) -> _Plan | None:
    """How to read these kinds; ``None`` where one is there twice, or is not known."""
    kinds = sorted(numbers)
    if len(dict.fromkeys(kinds)) < len(kinds) or any(number not in _KINDS for number in kinds):
        return None
    steps = tuple((_KINDS[number].event, _forms(_KINDS[number])) for number in kinds)
    order = tuple(kinds.index(number) for number in numbers)
    return steps, None if order == tuple(range(len(order))) else order


def _forms(kind: Kind) -> tuple[_Form, ...]:
    """The fields of a kind in the order of its constructor, which is that of its columns."""
    columns = dict(zip(kind.names, kind.columns, strict=True))
    forms: list[_Form] = []
    for name in kind.arguments:
        packed = type(columns[name]) if name in columns else None
        if packed is None:
            forms.append((_ELSEWHERE, None))
        else:
            form = _INTEGER if packed is Integers else _TEXT if packed is Texts else _OTHER
            forms.append((form, _NOTHING[packed]))
    return tuple(forms)
