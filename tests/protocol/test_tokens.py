"""Reservation tokens and resume tokens: one spelling each, everything else refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.core.ids import PartitionId, ReservationNumber, SessionId
from querator.protocol import tokens

SECRET = b"s" * 32

partitions = st.integers(0, tokens.PARTITION_MAX).map(PartitionId)
nonces = st.integers(0, tokens.NONCE_MAX)
reservations = st.integers(1, tokens.NONCE_MAX).map(ReservationNumber)


@given(partitions, nonces, reservations)
def test_a_token_says_what_went_in(
    partition: PartitionId, nonce: int, reservation: ReservationNumber
) -> None:
    token = tokens.encode_token(partition, nonce, reservation)
    assert len(token) == tokens.TOKEN_CHARS
    assert tokens.decode_token(token) == (partition, nonce, reservation)


@given(st.text(max_size=40) | st.text(alphabet="ABCDwxyz0189+/=", min_size=28, max_size=28))
def test_any_text_is_a_token_with_one_spelling_or_none(text: str) -> None:
    decoded = tokens.decode_token(text)
    assert decoded is None or tokens.encode_token(*decoded) == text


@pytest.mark.parametrize(
    "text", ["", "x", "A" * 28, "=" * 28, "AQAAAAcAAAAASZYC0gAAAAAAAAA=", "é" * 28, "A" * 10_000]
)
def test_malformed_tokens_are_none(text: str) -> None:
    assert tokens.decode_token(text) is None


def test_a_token_of_another_version_is_none() -> None:
    token = tokens.encode_token(PartitionId(7), 1, ReservationNumber(1))
    assert tokens.decode_token("Ag" + token[2:]) is None


def test_a_resume_token_says_what_went_in() -> None:
    token = tokens.encode_resume_token(SECRET, SessionId("abc"), 3, "alice")
    assert tokens.decode_resume_token(SECRET, token, "alice") == tokens.Resumption(SessionId("abc"), 3)


def test_a_resume_token_of_another_secret_principal_session_or_generation_is_none() -> None:
    token = tokens.encode_resume_token(SECRET, SessionId("abc"), 3, "alice")
    assert tokens.decode_resume_token(b"t" * 32, token, "alice") is None
    assert tokens.decode_resume_token(SECRET, token, "bob") is None
    assert tokens.decode_resume_token(SECRET, token.replace("abc", "abd"), "alice") is None
    assert tokens.decode_resume_token(SECRET, token.replace(".3.", ".4."), "alice") is None


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b", "a.1", "a.1.", "a.01.x", "a.-1.x", "a.²." + "0" * 64, "a." + "9" * 300]
)
def test_malformed_resume_tokens_are_none(text: str) -> None:
    assert tokens.decode_resume_token(SECRET, text, "") is None


@given(st.text(max_size=300))
def test_no_text_breaks_the_resume_token(text: str) -> None:
    assert tokens.decode_resume_token(SECRET, text, "alice") is None
