"""KSUIDs: text and number are one-to-one and sort alike."""

from hypothesis import given
from hypothesis import strategies as st

from querator.core.ids import Instant
from querator.core.ksuid import NUMBER_MAX, decode_ksuid, encode_ksuid, make_ksuid

NUMBERS = st.integers(0, NUMBER_MAX)


@given(NUMBERS)
def test_decoding_undoes_encoding(number: int) -> None:
    text = encode_ksuid(number)
    assert len(text) == 27
    assert decode_ksuid(text) == number


@given(NUMBERS, NUMBERS)
def test_texts_sort_as_their_numbers(first: int, second: int) -> None:
    assert (encode_ksuid(first) < encode_ksuid(second)) == (first < second)


def test_the_bounds_are_those_of_160_bits() -> None:
    assert encode_ksuid(0) == "0" * 27
    assert encode_ksuid(NUMBER_MAX) == "aWgEPTl1tmebfsQzFP4bxwgy80V"
    assert decode_ksuid("aWgEPTl1tmebfsQzFP4bxwgy80W") is None
    assert decode_ksuid("z" * 27) is None
    assert decode_ksuid("0" * 26) is None
    assert decode_ksuid("0" * 26 + "-") is None


def test_later_ids_are_greater() -> None:
    early = make_ksuid(Instant(1_800_000_000_000_000), b"\xff" * 16)
    late = make_ksuid(Instant(1_800_000_001_000_000), b"\x00" * 16)
    assert early < late
