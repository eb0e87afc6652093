"""What export and questions cost a server that is at work: its latencies at half of its peak rate.

Two ways to export are measured: by the server itself, as its task of low priority (any log), and by a
process of its own beside it (PostgreSQL). Rounds without and with take turns, so that a machine that grows
busy does it to both.
"""

import argparse
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


def ask(running: Server, stop: float) -> Any:
    return start_worker("ask", MODULE, address=running.address, stop=stop)


def follow(log: str) -> Beside:
    """Export this database into the server's own archive."""

    def start(running: Server, stop: float) -> Any:
        return start_worker("export", MODULE, log=log, archive=running.data / "analytics", stop=stop)

    return start


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 when a percentile grew by more than it may."""
    (row,) = [row for row in ROWS if row.name == options.row]
    is_met = True
    with postgres.serving_on(options.log) as serve:
        peak = measure(row, options.seconds, *serve())["rate"]
        half = attrs.evolve(row, rate=peak * options.share)
        print(f"# {row.name}: {peak:,.0f} items/s at its peak; latencies in ms at {options.share:g} of that")
        is_met &= _compare("exported by the server", half, options, serve, by_server=True)
        if "postgres" in options.log:
            is_met &= _compare("exported by a process of its own", half, options, serve, by_server=False)
    return 0 if is_met else 1


def _compare(
    title: str,
    row: Row,
    options: argparse.Namespace,
    serve: Callable[[], tuple[str, ...]],
    *,
    by_server: bool,
) -> bool:
    without: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        without.append(measure(row, options.seconds, *serve()))
        told = serve()
        if by_server:
            made = measure(row, options.seconds, *told, "--export-interval", "1", beside=[ask])
        else:
            made = measure(row, options.seconds, *told, beside=[ask, follow(told[1])])
        beside.append(made)
    print(f"## {title}")
    is_met = True
    for name in ("ack", "delivered"):
        before, after = _median(without, name), _median(beside, name)
        growth = after[1] / before[1] - 1
        verdict = "holds" if growth < GROWTH_MAX else "FAILS"
        is_met &= growth < GROWTH_MAX
        print(
            f"{name:10} p50 {before[0]:7.2f} -> {after[0]:7.2f}   p99 {before[1]:7.2f} -> {after[1]:7.2f}"
            f"   {growth:+.0%}  {verdict}"
        )
    rates = [statistics.median(one["rate"] for one in rounds) for rounds in (without, beside)]
    print(f"items/s    {rates[0]:,.0f} -> {rates[1]:,.0f}   beside: {beside[-1]['beside']}", flush=True)
    return is_met


def _median(rounds: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    known = [one[name] for one in rounds if one[name] is not None]
    return statistics.median(p50 for p50, _ in known), statistics.median(p99 for _, p99 in known)
