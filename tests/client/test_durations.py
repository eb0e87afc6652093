"""Durations and instants as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.client.durations import (
    DURATION_MAX,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        ("30s", 30_000_000),
        ("500ms", 500_000),
        ("5m", 300_000_000),
        ("1h30m", 5_400_000_000),
        ("1h 30m", 5_400_000_000),
        ("2d", 172_800_000_000),
        ("1.5s", 1_500_000),
        ("10us", 10),
        ("0", 0),
        ("90", 90_000_000),
        (2.5, 2_500_000),
        (3, 3_000_000),
        (timedelta(minutes=1), 60_000_000),
    ],
)
def test_durations(value: object, microseconds: int) -> None:
    assert parse_duration(value) == microseconds  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "5 parsecs",
        "-1s",
        "1h-30m",
        "s",
        -1,
        float("nan"),
        float("inf"),
        True,
        timedelta(-1),
        "99999w",
    ],
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(value)  # type: ignore[arg-type]


@given(st.integers(0, DURATION_MAX))
def test_a_formatted_duration_is_close_and_readable_again(microseconds: int) -> None:
    again = parse_duration(format_duration(microseconds))
    assert (
        abs(again - microseconds)
        <= max(3_600_000_000, microseconds // 24) * (microseconds >= 60_000_000) + 1_000
    )


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0s"),
        (5, "5us"),
        (2_730, "2.73ms"),
        (1_000_000, "1s"),
        (90_000_000, "1m30s"),
        (86_400_000_000, "1d"),
    ],
)
def test_formatted(microseconds: int, text: str) -> None:
    assert format_duration(microseconds) == text


def test_instants() -> None:
    expected = 1_798_704_000_000_000
    assert parse_instant("2026-12-31T08:00:00Z") == expected
    assert parse_instant("2026-12-31T09:00:00+01:00") == expected
    assert parse_instant(datetime(2026, 12, 31, 8, tzinfo=UTC)) == expected
    assert parse_instant(datetime(2026, 12, 31, 10, tzinfo=timezone(timedelta(hours=2)))) == expected
    assert parse_instant(1_798_704_000) == expected
    assert format_instant(expected) == "2026-12-31T08:00:00Z"
    assert format_instant(0) == "-"


@pytest.mark.parametrize(
    "value", ["tomorrow", "2026-12-31T08:00:00", "1969-01-01T00:00:00Z", -5, True, float("nan")]
)
def test_what_is_no_instant(value: object) -> None:
    with pytest.raises(ValueError, match=r"instant|time zone"):
        parse_instant(value)  # type: ignore[arg-type]
