"""Many partitions with little to do each: what they cost together, and that one in trouble is alone in it.

Every partition gets so many items a second, at moments of its own; a consumer completes each. Counted are
the CPU of the server process and the commits of its log. On PostgreSQL a second round follows, in
which a rival's open transaction holds the next position of one partition.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import trio

from benchmarks import postgres
from benchmarks.held import http_get
from benchmarks.lifecycle import WARM_UP, percentiles
from benchmarks.processes import QUEUE, Server, queue_names, result, server, start_worker
from querator.client import connect
from querator.core.ids import PartitionId
from tests.postgres import hold_next_position

_CORE_TARGET = 0.5
_COMMITS_TARGET = 2.0
_HELD_UP_TARGET = 1_000.0
"""Milliseconds at most, on however busy a machine: who is held up waits for as long as the block lasts."""
_FLOW_TARGET = 0.95
"""Of the items that were delivered before."""


def measure(log: str, partitions: int, queues: int, rate: float, seconds: float) -> dict[str, Any]:
    """The figures, and those beside a blocked partition where there can be one."""
    with postgres.serving_on(log) as serve:
        arguments = serve()
        with server(*arguments) as running:
            blocked = trio.run(_create, running.address, queues, partitions // queues)
            figures = {
                "partitions": partitions,
                "queues": queues,
                "items_a_second": partitions * rate,
                **_round(running, partitions, queues, rate, seconds),
            }
            if len(arguments) > 1 and arguments[1].startswith("postgres"):
                with _held_up(arguments[1], blocked):
                    beside = _round(running, partitions, queues, rate, seconds)
                figures["beside_a_blocked_partition"] = beside
    return figures


def targets(figures: dict[str, Any]) -> dict[str, bool]:
    """What is to hold."""
    verdicts = {
        "under half a core": figures["server_cores"] < _CORE_TARGET,
        "at most two commits an item": figures["commits_an_item"] <= _COMMITS_TARGET,
    }
    beside = figures.get("beside_a_blocked_partition")
    if beside is not None:
        others = (figures["partitions"] - 1) / figures["partitions"]
        verdicts["one blocked partition holds up no other"] = (
            beside["delivered_ms_max"] < _HELD_UP_TARGET
            and beside["items"] > _FLOW_TARGET * others * figures["items"]
        )
    return verdicts


async def _create(address: str, queues: int, partitions: int) -> PartitionId:
    """Make the queues, ``partitions`` each; one of their partitions."""
    async with connect(address, client="bench") as client:
        await client.call("queues.delete", {"name": QUEUE})
        for name in queue_names(queues):
            made = await client.call("queues.create", {"name": name, "partitions": partitions})
        return PartitionId(made["partitions"][0])


@contextmanager
def _held_up(dsn: str, partition: PartitionId) -> Iterator[None]:
    with psycopg.connect(dsn) as rival:
        hold_next_position(rival, partition)
        yield
        rival.rollback()


def _appends(running: Server) -> float:
    page = http_get(running.address, "/metrics")
    found = re.findall(r"^querator_log_appends_total\{.*\} (\S+)$", page, re.MULTILINE)
    return sum(map(float, found))


def _round(running: Server, partitions: int, queues: int, rate: float, seconds: float) -> dict[str, Any]:
    start = time.monotonic() + WARM_UP + 1.0
    common: dict[str, object] = {
        "address": running.address,
        "queues": queues,
        "partitions": partitions // queues,
        "rate": rate * partitions,
        "start": start,
        "stop": start + seconds,
    }
    consumer = start_worker("take", **common)
    producer = start_worker("spread", **common)
    time.sleep(max(0.0, start - time.monotonic()))
    commits = _appends(running)
    began, spent = time.monotonic(), running.cpu()
    time.sleep(max(0.0, start + seconds - time.monotonic()))
    elapsed, spent, commits = (
        time.monotonic() - began,
        running.cpu() - spent,
        _appends(running) - commits,
    )
    consumed = result(consumer)
    result(producer)
    items = max(1, consumed["items"])
    p50, p99 = percentiles(consumed["latencies"]) or (0.0, 0.0)
    return {
        "items": consumed["items"],
        "server_cores": spent / elapsed,
        "server_us_an_item": spent / items * 1e6,
        "commits_an_item": commits / items,
        "delivered_ms_p50": p50,
        "delivered_ms_p99": p99,
        "delivered_ms_max": max(consumed["latencies"], default=0) / 1000,
    }
