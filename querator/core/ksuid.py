"""KSUID-shaped identifiers: 160 bits as 27 characters of base62 whose text order is their number's order.

The upper 32 bits stand for seconds since ``EPOCH``. Nothing here draws anything: who wants an id
brings the moment and the entropy.
"""

from typing import Final

from querator.core.ids import SECOND, Instant

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TEXT_LENGTH: Final = 27
BITS: Final = 160
NUMBER_MAX: Final = (1 << BITS) - 1
EPOCH: Final = 1_400_000_000
"""Seconds between 1970 and the first KSUID."""
ENTROPY_BYTES: Final = 16

_PAIRS: Final = tuple(a + b for a in ALPHABET for b in ALPHABET)
_QUADS_BASE: Final = 62**4
_DIGITS: Final = {character: digit for digit, character in enumerate(ALPHABET)}


def base62(number: int, length: int) -> str:
    """``number`` in base62, left-padded with ``0`` to ``length``."""
    parts: list[str] = []
    for _ in range((length + 3) // 4):
        number, low = divmod(number, _QUADS_BASE)
        high_pair, low_pair = divmod(low, 3844)
        parts.append(_PAIRS[high_pair] + _PAIRS[low_pair])
    text = "".join(reversed(parts))
    return text[len(text) - length :]


def parse_base62(text: str) -> int | None:
    """The number that ``text`` stands for; ``None``: another character is in it."""
    number = 0
    for character in text:
        digit = _DIGITS.get(character)
        if digit is None:
            return None
        number = number * 62 + digit
    return number


def encode_ksuid(number: int) -> str:
    """The 27 characters of a 160-bit number."""
    return base62(number, TEXT_LENGTH)


def decode_ksuid(text: str) -> int | None:
    """The 160-bit number of ``text``; ``None``: it is no KSUID."""
    if len(text) != TEXT_LENGTH:
        return None
    number = parse_base62(text)
    return None if number is None or number > NUMBER_MAX else number


def make_ksuid(at: Instant, entropy: bytes) -> str:
    """The id of something made at ``at``, told apart by 16 bytes of entropy."""
    seconds = min(max(at // SECOND - EPOCH, 0), 0xFFFF_FFFF)
    return encode_ksuid(seconds << 128 | int.from_bytes(entropy[:ENTROPY_BYTES], "big"))
