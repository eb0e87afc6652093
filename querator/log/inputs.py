"""The inputs section of a record as bytes: columns, as the events have them.

    version u8 (1) · three integers in a column: how many waiters, late settlements, payloads that moved
    · of each that are there: a column of integers a field, in the order of core/inputs.py

A section of a version that is not known here counts as none: it is not needed to fold the record.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import error as struct_error
from typing import Any, Final

from querator.core.ids import Duration, Instant, ReservationNumber
from querator.core.inputs import NO_INPUTS, Gathering, How, Inputs, LateSettlement, PayloadsMoved, Waiter
from querator.core.limits import RECORD_VALUES_MAX
from querator.errors import CorruptRecord
from querator.log.columns import Reader, put_integers, take_integers

VERSION: Final = 1

_SHORT: Final = 64
"""Bytes of a section that is worth remembering."""
_WAITER_FIELDS: Final = 10
_LATE_FIELDS: Final = 3
_MOVED_FIELDS: Final = 3


def encode_inputs(gathered: Gathering) -> bytes:
    """The section; nothing at all where nothing was gathered."""
    waiters, late, moved = gathered.waiters, gathered.late, gathered.moved
    if not waiters and not late and not moved:
        return b""
    out = [bytes((VERSION,))]
    put_integers(out, (len(waiters), len(late), len(moved)))
    for rows in (waiters, late, moved):
        for column in zip(*rows, strict=True):
            put_integers(out, column)
    return b"".join(out)


def decode_inputs(data: bytes) -> Inputs:
    """What the section says; nothing for none, and for one of a version that is not known.

    Raises:
        CorruptRecord: that is no inputs section.
    """
    if not data or data[0] != VERSION:
        return NO_INPUTS
    return _decode_short(data) if len(data) <= _SHORT else _decode(data)


def _decode(data: bytes) -> Inputs:
    reader = Reader(data, 1)
    counts = take_integers(reader, 3)
    if min(counts) < 0 or max(counts) > RECORD_VALUES_MAX:
        raise CorruptRecord(f"inputs of {max(counts)} values")
    try:
        waiters = _rows(reader, counts[0], _WAITER_FIELDS)
        late = _rows(reader, counts[1], _LATE_FIELDS)
        moved = _rows(reader, counts[2], _MOVED_FIELDS)
        found = Inputs(
            tuple(
                Waiter(
                    How(how),
                    call,
                    number,
                    batch,
                    size,
                    room,
                    Duration(timeout),
                    Duration(waited),
                    Duration(linger),
                    Duration(left),
                )
                for how, call, number, batch, size, room, timeout, waited, linger, left in waiters
            ),
            tuple(LateSettlement(ReservationNumber(number), verb, Instant(at)) for number, verb, at in late),
            tuple(PayloadsMoved(index, segment, bool(here)) for index, segment, here in moved),
        )
    except (ValueError, struct_error, OverflowError) as error:
        raise CorruptRecord(f"inputs that cannot be read: {error}") from error
    if reader.position != len(data):
        raise CorruptRecord("the inputs go on after their end")
    return found


_decode_short: Final = lru_cache(maxsize=4_096)(_decode)
"""Records with one reservation say the same again and again."""


def _rows(reader: Reader, count: int, fields: int) -> Sequence[tuple[Any, ...]]:
    if not count:
        return ()
    return list(zip(*(take_integers(reader, count) for _ in range(fields)), strict=True))
