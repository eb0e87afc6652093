"""Benchmarks measure something: their clients are served, and what they count is what was done."""

import pytest

from benchmarks.http import ROWS, Row, is_met, measure, summarise


@pytest.mark.parametrize("row", [ROWS[1], ROWS[3]], ids=lambda row: row.name)
def test_http(row: Row) -> None:
    measured = measure(row, 0.3, "--log", "memory")
    assert measured["requests_s"] > 0
    assert measured["items_s"] > 0
    if row.side == "produce":
        assert measured["items_s"] == pytest.approx(measured["requests_s"] * row.batch)
    summary = summarise(row, [measured, measured])
    assert summary["requests_min"] == summary["requests_max"] == summary["requests_s"]
    assert not is_met(row, {"requests_s": 1, "items_s": 1}, "memory")
    assert is_met(row, {"requests_s": 10_000, "items_s": 1_000_000}, "memory")
