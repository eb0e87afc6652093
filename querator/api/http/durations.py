"""Go's durations: their grammar, their printing, and the texts of their errors. Integer nanoseconds."""

from typing import Final

NANOSECOND: Final = 1
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

_UNITS: Final = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5, the micro sign
    "μs": MICROSECOND,  # U+03BC, the Greek letter
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_MAX: Final = (1 << 63) - 1
_DIGITS: Final = "0123456789"


class InvalidDuration(ValueError):
    """Its text is what a Go client would read."""


def parse_duration(text: str) -> int:
    """Nanoseconds.

    Raises:
        InvalidDuration: the text is none of the grammar, or does not fit 63 bits.
    """
    rest = text
    negative = False
    if rest[:1] in ("-", "+"):
        negative = rest[0] == "-"
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise InvalidDuration(f"time: invalid duration {quote(text)}")
    total = 0
    while rest:
        whole, rest = _split(rest, _DIGITS)
        # 20 digits are more than 63 bits hold, and keep int() cheap.
        number = int(whole.lstrip("0")[:20] or "0")
        if number > _MAX + 1:
            raise InvalidDuration(f"time: invalid duration {quote(text)}")
        fraction = ""
        if rest.startswith("."):
            fraction, rest = _split(rest[1:], _DIGITS)
        if not whole and not fraction:
            raise InvalidDuration(f"time: invalid duration {quote(text)}")
        unit, rest = _split_unit(rest)
        if not unit:
            raise InvalidDuration(f"time: missing unit in duration {quote(text)}")
        scale = _UNITS.get(unit)
        if scale is None:
            raise InvalidDuration(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        total += number * scale
        if fraction:
            total += int(fraction[:20]) * scale // 10 ** min(len(fraction), 20)
        if total > _MAX + 1:
            raise InvalidDuration(f"time: invalid duration {quote(text)}")
    if total > _MAX and not negative:
        raise InvalidDuration(f"time: invalid duration {quote(text)}")
    return -total if negative else total


def _split(text: str, characters: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in characters:
        end += 1
    return text[:end], text[end:]


def _split_unit(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] != "." and text[end] not in _DIGITS:
        end += 1
    return text[:end], text[end:]


def quote(text: str) -> str:
    """In double quotes, as Go's time package does it: what is not printable ASCII byte by byte, in hex."""
    parts = ['"']
    for character in text:
        if character in '"\\':
            parts.append("\\" + character)
        elif " " <= character < "\x80":
            parts.append(character)
        else:
            parts.extend(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    parts.append('"')
    return "".join(parts)


def format_duration(nanoseconds: int) -> str:
    """As Go prints it: ``0s``, ``1.5ms``, ``1m30s``, ``24h0m0s``."""
    if not nanoseconds:
        return "0s"
    sign, magnitude = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if magnitude < SECOND:
        for unit, scale in (("ms", MILLISECOND), ("µs", MICROSECOND)):
            if magnitude >= scale:
                return sign + _decimal(magnitude, scale) + unit
        return f"{sign}{magnitude}ns"
    minutes, below = divmod(magnitude, MINUTE)
    text = _decimal(below, SECOND) + "s"
    if not minutes:
        return sign + text
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(number: int, scale: int) -> str:
    whole, rest = divmod(number, scale)
    if not rest:
        return str(whole)
    width = len(str(scale)) - 1
    return f"{whole}.{rest:0{width}}".rstrip("0")


def format_micros(microseconds: int) -> str:
    """A duration of our own unit, as Go prints it."""
    return format_duration(microseconds * MICROSECOND)


def to_micros(nanoseconds: int) -> int:
    """Microseconds; a positive duration never becomes nothing."""
    return max(1, nanoseconds // MICROSECOND) if nanoseconds > 0 else nanoseconds // MICROSECOND
