"""Durations and instants as people give them: ``"30s"``, ``"1h30m"``, 2.5 (seconds), ``timedelta``."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from querator.core.ids import (
    DAY,
    HOUR,
    MICROSECOND,
    MILLISECOND,
    MINUTE,
    SECOND,
    Duration,
    Instant,
)

DurationLike: TypeAlias = str | int | float | timedelta
"""Text with units, a number of seconds, or a timedelta."""
InstantLike: TypeAlias = str | int | float | datetime
"""ISO 8601 text, seconds since 1970 UTC, or an aware datetime."""

_UNITS: Final = {
    "us": MICROSECOND,
    "µs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
    "d": DAY,
    "w": Duration(7 * DAY),
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d|w)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
DURATION_MAX: Final = Duration(100 * 365 * DAY)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(value: DurationLike) -> Duration:
    """Microseconds.

    Raises:
        ValueError: negative, longer than a hundred years, or not a duration; the text says how to write one.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration")  # noqa: TRY004 - one error for all that is none
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
    elif isinstance(value, str):
        microseconds = _parse_text(value)
    elif value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is not itself
        raise ValueError(f"{value!r} is not a duration")
    else:
        microseconds = round(value * SECOND)
    if microseconds < 0:
        raise ValueError(f"a duration cannot be negative: {value!r}")
    if microseconds > DURATION_MAX:
        raise ValueError(f"a duration cannot be longer than a hundred years: {value!r}")
    return Duration(microseconds)


def _parse_text(text: str) -> int:
    compact = text.strip().lower().replace(" ", "")
    if _NUMBER.fullmatch(compact):
        return round(float(compact) * SECOND)
    total = 0.0
    end = 0
    for part in _PART.finditer(compact):
        if part.start() != end:
            break
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not compact or end != len(compact):
        raise ValueError(
            f"{text!r} is not a duration: write 500ms, 30s, 5m, 1h30m, 2d or a number of seconds"
        )
    return round(total)


def parse_instant(value: InstantLike) -> Instant:
    """Microseconds since 1970 UTC.

    Raises:
        ValueError: not an instant, before 1970, or a datetime without a time zone.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not an instant")  # noqa: TRY004 - one error for all that is none
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(
                f"{value!r} is not an instant: write ISO 8601 with a time zone, as 2026-12-31T08:00:00Z"
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(
                f"{value.isoformat()!r} has no time zone: append Z for UTC, or an offset as +02:00"
            )
        instant = (value - _EPOCH) // timedelta(microseconds=1)
    else:
        try:
            instant = round(value * SECOND)
        except (ValueError, OverflowError):
            raise ValueError(f"{value!r} is not an instant") from None
    if instant <= 0:
        raise ValueError(f"an instant cannot be before 1970: {value!r}")
    return Instant(instant)


def format_duration(duration: Duration | int) -> str:
    """Short, in the two largest units that matter: ``1h30m``, ``45s``, ``250ms``."""
    if duration < 0:
        return "-" + format_duration(-duration)
    if duration == 0:
        return "0s"
    if duration < MILLISECOND:
        return f"{duration}us"
    if duration < SECOND:
        return f"{_trimmed(duration / MILLISECOND)}ms"
    if duration < MINUTE:
        return f"{_trimmed(duration / SECOND)}s"
    for big, small, big_name, small_name in (
        (DAY, HOUR, "d", "h"),
        (HOUR, MINUTE, "h", "m"),
        (MINUTE, SECOND, "m", "s"),
    ):
        if duration >= big:
            rest = duration % big // small
            return f"{duration // big}{big_name}" + (f"{rest}{small_name}" if rest else "")
    return f"{duration}us"


def _trimmed(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def format_instant(instant: Instant | int) -> str:
    """ISO 8601 in UTC, with microseconds where there are any; "-" for none (0)."""
    if not instant:
        return "-"
    moment = _EPOCH + timedelta(microseconds=instant)
    return moment.isoformat().replace("+00:00", "Z")
