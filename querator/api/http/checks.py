"""The checks that several calls share, with their exact texts (CONTRACT.md 3). Each raises ``Refused``."""

import functools
from typing import Final

from querator.api.http.durations import (
    MILLISECOND,
    MINUTE,
    InvalidDuration,
    format_duration,
    parse_duration,
)
from querator.api.http.refusals import refuse
from querator.core import limits
from querator.core.catalog.access import KEY_TAG_LENGTH_MAX, is_key_tag
from querator.core.white_space import has_white_space, is_blank

REQUEST_TIMEOUT_MAX: Final = 15 * MINUTE
REQUEST_TIMEOUT_MIN: Final = 10 * MILLISECOND
TIMEOUT_TEXT_BYTES_MAX: Final = 15
LIST_LIMIT_DEFAULT: Final = 1_000
LIST_LIMIT_MAX: Final = 100_000
"""More entries than this are not made up in one answer, whatever was asked for; the next page has them."""


_parse_short: Final = functools.lru_cache(maxsize=256)(parse_duration)
"""Clients say the same timeout over and over."""


def size(text: str) -> int:
    """In bytes of UTF-8; the texts say characters."""
    return len(text) if text.isascii() else len(text.encode())


# --- request timeouts -------------------------------------------------------------------------


def request_timeout(text: str) -> int:
    """Nanoseconds; 0 where none was given."""
    if not text:
        return 0
    try:
        return _parse_short(text) if len(text) <= TIMEOUT_TEXT_BYTES_MAX else parse_duration(text)
    except InvalidDuration as error:
        refuse(f"request timeout is invalid; {error} - expected format: 900ms, 5m or 15m")


def timeout_is_given(timeout: int) -> None:
    if not timeout:
        refuse("request timeout is required; '5m' is recommended, 15m is the maximum")


def timeout_too_long(timeout: int) -> None:
    refuse(
        f"request timeout is invalid; maximum timeout is '15m' but '{format_duration(timeout)}' was requested"
    )


def timeout_not_too_short(timeout: int) -> None:
    if timeout <= REQUEST_TIMEOUT_MIN:
        asked = format_duration(timeout)
        refuse(f"request timeout is invalid; minimum timeout is '10ms' but '{asked}' was requested")


# --- names --------------------------------------------------------------------------------------


def queue_name(name: str) -> None:
    """The strict check, for what makes or changes a queue (N)."""
    if size(name) > limits.QUEUE_NAME_BYTES_MAX:
        refuse(f"queue name is invalid; cannot be greater than '{limits.QUEUE_NAME_BYTES_MAX}' characters")
    if is_blank(name):
        refuse("queue name is invalid; queue name cannot be empty")
    if has_white_space(name):
        refuse(f"queue name is invalid; '{name}' cannot contain whitespace")
    if "~" in name:
        refuse(f"queue name is invalid; '{name}' cannot contain '~' character")


def namespace_name(name: str) -> None:
    """NS, and step 6 of queues.create."""
    bound = limits.NAMESPACE_NAME_BYTES_MAX
    if size(name) > bound:
        refuse(f"namespace name is invalid; cannot be greater than '{bound}' characters")
    if is_blank(name):
        refuse("namespace name is invalid; cannot be empty")
    if has_white_space(name):
        refuse(f"namespace name is invalid; '{name}' cannot contain whitespace")
    for character in "~:":
        if character in name:
            refuse(f"namespace name is invalid; '{name}' cannot contain '{character}' character")


def namespace_not_reserved(name: str) -> None:
    if name.startswith("_"):
        refuse(f"namespace name is reserved; '{name}' names starting with '_' are reserved")


def key_tag(tag: str, field: str) -> None:
    if len(tag) > KEY_TAG_LENGTH_MAX:
        refuse(f"{field} is invalid; cannot be greater than {KEY_TAG_LENGTH_MAX} characters")
    if not is_key_tag(tag):
        refuse(f"{field} is invalid; must be lowercase alphanumeric only")


def not_longer(text: str, bound: int, field: str) -> None:
    if size(text) > bound:
        refuse(f"{field} is invalid; cannot be greater than '{bound}' characters")


def list_limit(limit: int) -> int:
    """How many entries a page has: 0 asks for the default, less for none."""
    return LIST_LIMIT_DEFAULT if limit == 0 else min(max(limit, 0), LIST_LIMIT_MAX)
