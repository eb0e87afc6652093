"""The HTTP door: single items produced, leased and completed one call each, and produces of a thousand.

Server and clients are separate processes; each row is the median of several rounds, with the CPU
microseconds that a request costs each side.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import attrs

from benchmarks import postgres
from benchmarks.lifecycle import WARM_UP, percentiles
from benchmarks.processes import result, server, start_worker

WORKER = "benchmarks.http_worker"


@attrs.frozen
class Row:
    """One line of the table."""

    name: str
    side: str
    clients: int = 16
    batch: int = 1
    protobuf: bool = False


ROWS: Sequence[Row] = (
    Row("produce, lease, complete: JSON", "cycle"),
    Row("produce, lease, complete: protobuf", "cycle", protobuf=True),
    Row("produce alone: JSON", "produce"),
    Row("produce of 1,000: JSON", "produce", 4, 1_000),
    Row("produce of 1,000: protobuf", "produce", 4, 1_000, protobuf=True),
)

REQUESTS_MIN = {"memory": 6_000, "postgres": 3_000}
"""Requests a second of the cycles, by log; on two cores that do nothing else."""
ITEMS_MIN = 100_000
"""Items a second of the large produces."""


def add_options(parser: argparse.ArgumentParser) -> None:
    postgres.add_option(parser)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", action="append", help="only rows whose name has this in it; may be repeated")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")


def run(options: argparse.Namespace) -> int:
    rows = [row for row in ROWS if not options.row or any(part in row.name for part in options.row)]
    summaries: list[dict[str, Any]] = []
    if not options.json:
        print(f"{'row':36} {'requests/s':>10} {'min..max':>17} {'items/s':>9} {'server':>9} {'clients':>9}")
    with postgres.serving_on(options.log) as serve:
        for row in rows:
            summary = summarise(row, [measure(row, options.seconds, *serve()) for _ in range(options.rounds)])
            summary["is_met"] = is_met(row, summary, options.log)
            summaries.append(summary)
            if not options.json:
                print(line(summary), flush=True)
    if options.json:
        print(json.dumps(summaries, indent=2))
    return int(options.check and not all(summary["is_met"] for summary in summaries))


def measure(row: Row, seconds: float, *serve: str) -> dict[str, Any]:
    """One round of one row on a fresh server."""
    with server(*serve) as running:
        start = time.monotonic() + WARM_UP
        worker = start_worker(
            row.side,
            WORKER,
            address=running.address,
            clients=row.clients,
            batch=row.batch,
            protobuf=row.protobuf,
            start=start,
            stop=start + seconds,
        )
        time.sleep(max(0.0, start - time.monotonic()))
        before = running.cpu()
        time.sleep(seconds)
        spent = running.cpu() - before
        counted = result(worker)
    requests = max(1, counted["requests"])
    return {
        "requests_s": counted["requests"] / counted["seconds"],
        "items_s": counted["items"] / counted["seconds"],
        "server_us": spent / requests * 1e6,
        "client_us": counted["cpu"] / requests * 1e6,
        "latency_ms": percentiles(counted["latencies"]),
    }


def summarise(row: Row, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds, and the range of the rates."""
    rates = [one["requests_s"] for one in rounds]
    known = [one["latency_ms"] for one in rounds if one["latency_ms"] is not None]
    return {
        "row": row.name,
        "requests_min": min(rates),
        "requests_max": max(rates),
        **{
            name: statistics.median(one[name] for one in rounds)
            for name in ("requests_s", "items_s", "server_us", "client_us")
        },
        "p50_ms": statistics.median(latency[0] for latency in known),
        "p99_ms": statistics.median(latency[1] for latency in known),
    }


def is_met(row: Row, summary: dict[str, Any], log: str) -> bool:
    """Whether the row's target is reached, if it has one on this log."""
    if row.batch > 1:
        return bool(summary["items_s"] >= ITEMS_MIN)
    least = next((least for name, least in REQUESTS_MIN.items() if log.startswith(name)), 0)
    return bool(summary["requests_s"] >= least)


def line(summary: dict[str, Any]) -> str:
    spread = f"{summary['requests_min']:,.0f}..{summary['requests_max']:,.0f}"
    return (
        f"{summary['row']:36} {summary['requests_s']:>10,.0f} {spread:>17} {summary['items_s']:>9,.0f} "
        f"{summary['server_us']:>6.0f} µs {summary['client_us']:>6.0f} µs"
        f"  {summary['p50_ms']:.2f}/{summary['p99_ms']:.2f} ms{'' if summary['is_met'] else '  MISSED'}"
    )
