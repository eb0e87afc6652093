"""Benchmarks measure something: their clients are served, and what they count is what was done."""

import time

import pytest

from benchmarks.http import ITEMS_MIN, REQUESTS_MIN, ROWS, Row, is_met, summarise
from benchmarks.http_worker import CALLS, QUEUE, read_options, run
from benchmarks.processes import server
from tests.acceptance.calls import call

REQUESTS = 240
CLIENTS = 8


@pytest.mark.parametrize("row", [ROWS[0], ROWS[1], ROWS[4]], ids=lambda row: row.name)
def test_http_clients_count_what_they_did(row: Row) -> None:
    options = ["--clients", str(CLIENTS), "--batch", str(row.batch), "--requests", str(REQUESTS)]
    options += ["--protobuf"] if row.protobuf else []
    with server("--log", "memory") as running:
        stop = time.monotonic() + 100
        place = ["--address", running.address, "--start", "0", "--stop", str(stop)]
        counted = run(read_options([row.side, *place, *options]))
        (stats,) = call(running, "queue.stats", queue_name=QUEUE)["logicalQueues"]
    assert REQUESTS <= counted["requests"] == len(counted["latencies"]) < REQUESTS + CLIENTS
    produced = counted["items"] // row.batch
    assert counted["items"] == produced * row.batch
    if row.side == "produce":
        assert produced == counted["requests"]
        assert stats["partitions"][0]["total"] >= counted["items"]
    else:
        assert abs(produced - counted["requests"] / len(CALLS)) <= CLIENTS


def test_a_row_is_judged_by_its_median() -> None:
    def one(rate: float) -> dict[str, object]:
        return {
            "requests_s": rate,
            "items_s": rate * 1_000,
            "server_us": 1.0,
            "client_us": 1.0,
            "latency_ms": (1.0, 2.0),
        }

    cycle, _, _, batch, _ = ROWS
    least = REQUESTS_MIN["memory"]
    summary = summarise(cycle, [one(least * 9), one(least), one(1)])
    assert (summary["requests_min"], summary["requests_s"], summary["requests_max"]) == (1, least, least * 9)
    assert is_met(cycle, summary, "memory")
    assert not is_met(cycle, summarise(cycle, [one(least - 1)]), "memory")
    assert is_met(cycle, summarise(cycle, [one(least - 1)]), "postgres")
    assert is_met(batch, summarise(batch, [one(ITEMS_MIN / 1_000)]), "memory")
    assert not is_met(batch, summarise(batch, [one(ITEMS_MIN / 1_000 - 1)]), "memory")
