"""Go's durations, read and printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.api.http.durations import InvalidDuration, format_duration, parse_duration, to_micros

NANOSECONDS = st.integers(-(2**63), 2**63 - 1)


@given(NANOSECONDS)
def test_what_is_printed_is_read_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("-1m", -60_000_000_000),
        ("1us2µs3μs", 6_000),
        ("1m1h", 3_660_000_000_000),
        ("0.3333333333333333333h", 1_200_000_000_000 - 1),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
    ],
)
def test_reading(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("foo", 'time: invalid duration "foo"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("1", 'time: missing unit in duration "1"'),
        ("1.5", 'time: missing unit in duration "1.5"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        ("1M", 'time: unknown unit "M" in duration "1M"'),
        ("1m foo", 'time: unknown unit "m foo" in duration "1m foo"'),
        (".s", 'time: invalid duration ".s"'),
        ("--1s", 'time: invalid duration "--1s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("9223372036854775809x", 'time: invalid duration "9223372036854775809x"'),
        ("9223372036854775808x", 'time: unknown unit "x" in duration "9223372036854775808x"'),
        ("9223372036854775808ns1", 'time: missing unit in duration "9223372036854775808ns1"'),
        ("9" * 5_000 + "s", f'time: invalid duration "{"9" * 5_000}s"'),
        ('"\\', 'time: invalid duration "\\"\\\\"'),
        ("\n\x7fé", 'time: invalid duration "\\x0a\x7f\\xc3\\xa9"'),
    ],
)
def test_what_is_no_duration(text: str, fault: str) -> None:
    with pytest.raises(InvalidDuration) as refused:
        parse_duration(text)
    assert str(refused.value) == fault


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000, "1.5ms"),
        (15_000_000_000, "15s"),
        (59_999_403_821, "59.999403821s"),
        (60_000_000_000, "1m0s"),
        (90_000_000_000, "1m30s"),
        (600_000_000_000, "10m0s"),
        (3_600_000_000_000, "1h0m0s"),
        (86_400_000_000_000, "24h0m0s"),
        (-60_000_000_000, "-1m0s"),
        (-1_500_000, "-1.5ms"),
        (-(2**63), "-2562047h47m16.854775808s"),
    ],
)
def test_printing(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("nanoseconds", "micros"), [(0, 0), (1, 1), (999, 1), (1_999, 1), (2_000, 2), (-1, -1)]
)
def test_a_positive_duration_never_becomes_nothing(nanoseconds: int, micros: int) -> None:
    assert to_micros(nanoseconds) == micros
