"""What export and questions cost a server that is at work: its latencies at half of its peak rate.

Two ways to export are measured: by the server itself, as its task of low priority (any log), and by
`querator analytics refresh` beside it (PostgreSQL). With both, one question after the other is asked of the
server, and of the archive by commands at the same machine (beside.py).

Rounds without and with take turns, each on a fresh log and a disk at rest, so that what a busy machine does
is done to both; growth is the median of the pairs'.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from benchmarks import postgres
from benchmarks.lifecycle import ROWS, Beside, Row, measure
from benchmarks.processes import Server, start_worker

GROWTH_MAX = 0.20
"""Of the 99th percentile."""
MODULE = "benchmarks.beside"
BY = {"server": "the server", "process": "a process of its own"}


def ask(running: Server, stop: float) -> Any:
    return start_worker("ask", MODULE, address=running.address, stop=stop)


def query(running: Server, stop: float) -> Any:
    return start_worker("query", MODULE, archive=running.data / "analytics", stop=stop)


def refresh(log: str) -> Beside:
    """Export this database into the server's own archive."""

    def start(running: Server, stop: float) -> Any:
        return start_worker("refresh", MODULE, log=log, archive=running.data / "analytics", stop=stop)

    return start


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 when a percentile grew by more than it may."""
    (row,) = [row for row in ROWS if row.name == options.row]
    is_met = True
    with postgres.serving_on(options.log) as serve:
        peak = options.rate or measure(row, options.seconds, *serve())["rate"]
        half = attrs.evolve(row, rate=peak * options.share)
        print(f"# {row.name}: {peak:,.0f} items/s at its peak; latencies in ms at {options.share:g} of that")
        for by in options.by or BY:
            if by == "server" or "postgres" in options.log:
                is_met &= _compare(half, options, serve, by)
    return 0 if is_met else 1


def _compare(row: Row, options: argparse.Namespace, serve: Callable[[], tuple[str, ...]], by: str) -> bool:
    without: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    print(f"## exported by {BY[by]}")
    for _ in range(options.rounds):
        without.append(_round(row, options, serve()))
        told = serve()
        if by == "server":
            made = _round(row, options, (*told, "--export-interval", "1"), ask, query)
        else:
            made = _round(row, options, told, ask, query, refresh(told[1]))
        beside.append(made)
    is_met = True
    for name in ("ack", "delivered"):
        before, after = _median(without, name), _median(beside, name)
        growths = [with_[name][1] / one[name][1] - 1 for one, with_ in zip(without, beside, strict=True)]
        growth = statistics.median(growths)
        verdict = "holds" if growth < GROWTH_MAX else "FAILS"
        is_met &= growth < GROWTH_MAX
        print(
            f"{name:10} p50 {before[0]:7.2f} -> {after[0]:7.2f}   p99 {before[1]:7.2f} -> {after[1]:7.2f}"
            f"   {growth:+.0%} ({min(growths):+.0%} to {max(growths):+.0%})  {verdict}"
        )
    rates = [statistics.median(one["rate"] for one in rounds) for rounds in (without, beside)]
    idle = sum(1 for one in beside if not _has_worked(one["beside"]))
    print(f"items/s    {rates[0]:,.0f} -> {rates[1]:,.0f}   beside: {beside[-1]['beside']}", flush=True)
    if 2 * idle > len(beside):
        print("FAILS: in most rounds nothing was answered beside: others take what the processors have left")
        is_met = False
    return is_met


def _has_worked(sides: Sequence[dict[str, Any]]) -> bool:
    """Whether what ran beside came to something: else a round with it is one without."""
    return any(one.get("answered") for one in sides)


def _round(row: Row, options: argparse.Namespace, serve: Sequence[str], *beside: Beside) -> dict[str, Any]:
    # What the round before left to be written would be felt by this one.
    os.sync()
    made = measure(row, options.seconds, *serve, beside=beside)
    print(
        f"  {'with   ' if beside else 'without'}",
        *(f"{name} p99 {made[name][1]:7.2f}" for name in ("ack", "delivered")),
        flush=True,
    )
    return made


def _median(rounds: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    return statistics.median(one[name][0] for one in rounds), statistics.median(
        one[name][1] for one in rounds
    )
