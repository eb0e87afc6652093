"""Moments as the HTTP API writes them: RFC 3339 text in JSON, microseconds inside."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
STAMP_MIN: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z."""
STAMP_MAX: Final = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z."""

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_MICROSECOND: Final = timedelta(microseconds=1)


class Stamp(int):
    """Microseconds since 1970 UTC; a class of its own so that the codecs know a moment from a number."""

    __slots__ = ()


ZERO_TIME: Final = Stamp(STAMP_MIN)
"""What clients of the API take for "no such moment"."""


def parse_stamp(text: str) -> Stamp:
    """The moment of an RFC 3339 text; what is finer than microseconds is cut off.

    Raises:
        ValueError: it is no such text, or outside the years 1 to 9999.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid timestamp {text!r}")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    stamp = (moment - EPOCH) // _MICROSECOND
    if fraction is not None:
        stamp += int(fraction[:6].ljust(6, "0"))
    if sign is not None:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(f"invalid timestamp {text!r}")
        offset = (int(hours) * 60 + int(minutes)) * 60_000_000
        stamp += -offset if sign == "+" else offset
    return check_stamp(stamp)


def check_stamp(micros: int) -> Stamp:
    """``micros`` as a stamp.

    Raises:
        ValueError: outside the years 1 to 9999.
    """
    if not STAMP_MIN <= micros <= STAMP_MAX:
        raise ValueError("timestamp out of range")
    return Stamp(micros)


def print_stamp(stamp: int) -> str:
    """RFC 3339 in UTC with 0, 3 or 6 digits of fraction."""
    seconds, micros = divmod(stamp, 1_000_000)
    moment = EPOCH + timedelta(seconds=seconds)
    text = (
        f"{moment.year:04}-{moment.month:02}-{moment.day:02}"
        f"T{moment.hour:02}:{moment.minute:02}:{moment.second:02}"
    )
    if not micros:
        return text + "Z"
    if micros % 1_000:
        return f"{text}.{micros:06}Z"
    return f"{text}.{micros // 1_000:03}Z"
