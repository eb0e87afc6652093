"""White space in names, as Unicode defines it and other languages' clients know it.

Python's ``str.isspace`` counts four control characters (U+001C to U+001F) more: a name with one of them would
be refused here alone.
"""

from typing import Final

_ONLY_PYTHONS: Final = "\x1c\x1d\x1e\x1f"


def is_white_space(character: str) -> bool:
    return character.isspace() and character not in _ONLY_PYTHONS


def is_blank(text: str) -> bool:
    """Empty, or white space only."""
    return not text or (text.isspace() and all(map(is_white_space, text)))


def has_white_space(text: str) -> bool:
    return any(map(is_white_space, text))
