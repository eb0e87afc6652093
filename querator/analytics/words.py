"""Figures in words: short, with their unit."""

from datetime import datetime, timedelta
from typing import Any, Final

_SUFFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_DAY: Final = 86_400
_HOUR: Final = 3_600
_MINUTE: Final = 60


def say_count(value: float) -> str:
    """12 · 1,234 · 56.8k · 1.2M."""
    if abs(value) < 10_000:
        return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
    for size, suffix in _SUFFIXES:
        if abs(value) >= size:
            return f"{value / size:,.1f}{suffix}"
    return f"{value:,.0f}"


def say_seconds(value: float) -> str:
    """350 µs · 12 ms · 1.5 s · 3.2 min · 4.0 h · 2.1 d."""
    if value < 0:
        return f"-{say_seconds(-value)}"
    if value == 0:
        return "0 s"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if value >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def say(value: float | None, unit: str) -> str:
    """A figure of a report."""
    if value is None:
        return "-"
    if unit == "seconds":
        return say_seconds(value)
    if unit == "share":
        return f"{value * 100:.3g} %"
    return say_count(value)


def say_cell(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)


def say_width(width: timedelta) -> str:
    """A stretch of time: 1 minute · 6 hours · 47 ms."""
    seconds = int(width.total_seconds())
    if timedelta(seconds=seconds) != width:
        return say_seconds(width.total_seconds())
    for size, unit in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds % size == 0 and seconds:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
