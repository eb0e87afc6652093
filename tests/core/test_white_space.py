"""White space is what Unicode says it is."""

import pytest

from querator.core.white_space import has_white_space, is_blank, is_white_space

UNICODE = {
    *range(0x9, 0xE),
    0x20,
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
}
"""The property White_Space of the Unicode character database."""


def test_each_character_is_or_is_not() -> None:
    assert {code for code in range(0x110000) if is_white_space(chr(code))} == UNICODE


@pytest.mark.parametrize(
    ("text", "blank", "has"),
    [
        ("", True, False),
        (" \t\u3000", True, True),
        (" a", False, True),
        ("\x1c", False, False),
        (" \x1f", False, True),
    ],
)
def test_texts(text: str, blank: bool, has: bool) -> None:
    assert (is_blank(text), has_white_space(text)) == (blank, has)
