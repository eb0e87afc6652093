"""Life cycles: produced, pushed, completed, each acknowledged after its commit is on disk.

The rows of the performance table. Server, producers and consumers are separate processes; each row is
the median of several rounds, with the CPU seconds of each side.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

from benchmarks.processes import Server, result, server, start_worker

WARM_UP = 1.5
"""Seconds between the start of the workers and the window that is measured."""
WARM_UP_BESIDE = 3.0
"""The same for processes that run beside."""


@attrs.frozen
class Row:
    """One line of the table. ``window`` is per connection, in items."""

    name: str
    batch: int
    clients: int
    window: int
    single: bool = False
    rate: float = 0.0


ROWS: Sequence[Row] = (
    Row("batch 1, client coalesces, 8+8", 1, 8, 256),
    Row("batch 1, client coalesces, 1+1", 1, 1, 1_024),
    Row("batch 10, 8+8", 10, 8, 1_280),
    Row("batch 10, 1+1", 10, 1, 4_096),
    Row("batch 100, 8+8", 100, 8, 3_200),
    Row("batch 100, 1+1", 100, 1, 6_400),
    Row("batch 1,000, 8+8", 1_000, 8, 8_000),
    Row("batch 1,000, 1+1", 1_000, 1, 16_000),
    Row("per-item calls, 8+8", 1, 8, 64, single=True),
    Row("500 items/s, 1+1", 1, 1, 64, rate=500.0),
)


Beside: TypeAlias = "Callable[[Server, float], subprocess.Popen[str]]"
"""Starts a process that runs until a moment of the monotonic clock, and then prints a line of JSON."""


def measure(row: Row, seconds: float, *serve: str, beside: Sequence[Beside] = ()) -> dict[str, Any]:
    """One round of one row on a fresh server, and whatever runs beside it."""
    with server(*serve) as running:
        # What runs beside is there, and has imported what it needs, before anything is measured.
        start = time.monotonic() + WARM_UP + (WARM_UP_BESIDE if beside else 0.0)
        others = [other(running, start + seconds) for other in beside]
        time.sleep(WARM_UP_BESIDE if beside else 0.0)
        common: dict[str, object] = {
            "address": running.address,
            "clients": row.clients,
            "batch": row.batch,
            "window": row.window,
            "rate": row.rate,
            "single": row.single,
            "start": start,
            "stop": start + seconds,
        }
        consumer = start_worker("consume", **common)
        producer = start_worker("produce", **common)
        time.sleep(max(0.0, start - time.monotonic()))
        before = running.cpu()
        time.sleep(seconds)
        spent = running.cpu() - before
        consumed = result(consumer)
        produced = result(producer)
        return _round(running, spent, consumed, produced) | {"beside": [result(other) for other in others]}


def _round(
    running: Server, spent: float, consumed: dict[str, Any], produced: dict[str, Any]
) -> dict[str, Any]:
    del running
    items = max(1, consumed["items"])
    return {
        "rate": consumed["items"] / consumed["seconds"],
        "produced": produced["items"] / produced["seconds"],
        "server_us": spent / items * 1e6,
        "client_us": (consumed["cpu"] + produced["cpu"]) / items * 1e6,
        "ack": percentiles(produced["latencies"]),
        "delivered": percentiles(consumed["latencies"]),
    }


def percentiles(latencies: list[int]) -> tuple[float, float] | None:
    """(p50, p99) in milliseconds."""
    if not latencies:
        return None
    ordered = sorted(latencies)
    return ordered[len(ordered) // 2] / 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1000


def median_round(row: Row, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds of a row, and the range of its rates."""
    rates = [one["rate"] for one in rounds]
    summary: dict[str, Any] = {
        "row": row.name,
        "rate": statistics.median(rates),
        "rate_min": min(rates),
        "rate_max": max(rates),
        "server_us": statistics.median(one["server_us"] for one in rounds),
        "client_us": statistics.median(one["client_us"] for one in rounds),
    }
    for name in ("ack", "delivered"):
        known = [one[name] for one in rounds if one[name] is not None]
        if known:
            summary[name] = [
                statistics.median(value[0] for value in known),
                statistics.median(v[1] for v in known),
            ]
    return summary
