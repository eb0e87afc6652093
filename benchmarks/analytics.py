"""What analytics costs: export, disk, questions, memory. Prints the figures; asserts nothing.

The log is made here, by the core, in memory or (`--log postgres`) in a database: partitions whose items are
produced, reserved and completed in batches, by forty sessions, of five kinds, over three days, with some
attempts that fail.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from benchmarks import live, postgres
from benchmarks.processes import resident_bytes
from benchmarks.resident import Resident
from querator.analytics import connect
from querator.analytics.compact import compact
from querator.analytics.export import Exporter
from querator.core import events as ev
from querator.core.evolve import evolve
from querator.core.ids import (
    DAY,
    Instant,
    ItemNumber,
    PartitionId,
    Position,
    ReservationNumber,
    SessionId,
)
from querator.core.state import PartitionState
from querator.env.real import real_env
from querator.log.codec import GENESIS, seal
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.postgres import PostgresLog
from querator.log.records import Record
from querator.log.store import LogStore, Verdict
from tests.postgres import prepare

START = 1_750_032_000_000_000
KINDS = ("mail", "invoice", "thumbnail", "export", "webhook")
SESSIONS = tuple(SessionId(f"consumer-{number:02}") for number in range(40))
PARTITIONS = 8
RECORD_EVENTS = 64
EVENTS_OF_ITEM = 3
"""Produced, reserved, completed."""


def make_partition(partition: int, items: int, batch: int, rng: random.Random) -> list[Record]:
    """The log of one partition through which so many items go, ``batch`` at a time."""
    state = PartitionState(PartitionId(partition))
    records: list[Record] = []
    events: list[ev.Event] = []
    hash_ = GENESIS
    rounds = items // batch
    step = 3 * DAY // max(rounds, 1)
    held: list[tuple[int, int]] = []

    def apply(event: ev.Event) -> None:
        if type(event) is ev.ItemsProduced:
            evolve(
                state,
                ev.ItemsProduced(event.first_item, event.count, event.due_at, event.expires_at, None, "", 0),
            )
        else:
            evolve(state, event)
        events.append(event)

    for number in range(rounds + 4):
        now = Instant(START + number * step + rng.randrange(step // 2))
        apply(ev.TurnStarted(now))
        if number < rounds:
            kind = ev.Attributes(kind=rng.choice(KINDS))
            apply(
                ev.ItemsProduced(
                    ItemNumber(state.next_item), batch, Instant(0), Instant(0), kind, "", 0, [b""] * batch
                )
            )
        head = state.line.peek()
        if head is not None:
            count = min(batch, state.line.count)
            deadline = Instant(now + 60_000_000)
            apply(ev.ItemsReserved(count, ItemNumber(head[1]), rng.choice(SESSIONS), 1, deadline, Instant(0)))
            held.append((state.next_reservation - 1, count))
        while len(held) > 3 or (held and number >= rounds):
            reservation, count = held.pop(0)
            named = ReservationNumber(reservation)
            if rng.random() < 0.05:
                apply(ev.ItemsRetried(named, ((0, 1),), Instant(0)))
                if count > 1:
                    apply(ev.ItemsCompleted(named, None))
            else:
                apply(ev.ItemsCompleted(named, None))
        if len(events) >= RECORD_EVENTS or number == rounds + 3:
            position = Position(len(records) + 1)
            state.position = position
            records.append(seal(state.partition, position, hash_, 1, now, events))
            hash_ = records[-1].hash
            events.clear()
    return records


async def fill(store: LogStore, events: int, batch: int) -> None:
    """Append so many events of items, in batches."""
    await store.open()
    for partition in range(1, PARTITIONS + 1):
        # Where it is read from is compared with each append.
        await store.tail(PartitionId(partition))
        rng = random.Random(partition)
        for record in make_partition(partition, events // EVENTS_OF_ITEM // PARTITIONS, batch, rng):
            (verdict,) = await store.append([record])
            if verdict is not Verdict.MINE:
                raise RuntimeError(f"the log that is made here refused a record: {verdict}")


@asynccontextmanager
async def made_log(log: str, events: int, batch: int) -> AsyncIterator[LogStore]:
    """In memory, or in a PostgreSQL that is gone afterwards."""
    if log == postgres.THROW_AWAY:
        with postgres.throw_away() as cluster:
            database = cluster.new_database(prepare(cluster))
            store: LogStore = PostgresLog(real_env(), postgres.uri(cluster, database))
            await fill(store, events, batch)
            try:
                yield store
            finally:
                await store.aclose()
        return
    store = MemoryLog(real_env(), MemoryDisk())
    await fill(store, events, batch)
    yield store


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


QUESTIONS = (
    "FROM throughput('partition 1', INTERVAL 1 MINUTE)",
    "FROM throughput(NULL, INTERVAL 1 MINUTE)",
    "FROM waiting(NULL)",
    "FROM waiting(NULL, INTERVAL 1 HOUR)",
    "FROM processing(NULL)",
    "FROM processing(NULL, INTERVAL 1 HOUR)",
    "FROM backlog(NULL, INTERVAL 1 MINUTE)",
    "FROM retries(NULL, INTERVAL 1 HOUR)",
    "FROM deaths(NULL)",
    "FROM kinds(NULL)",
    "FROM consumers",
    "FROM contention(NULL, INTERVAL 1 HOUR)",
    "FROM slo(NULL, width := INTERVAL 1 HOUR)",
    "FROM queues",
    "SELECT count(*), avg(waiting), avg(processing) FROM items",
    "SELECT ended_by, count(*), avg(processing) FROM reservations GROUP BY ALL",
    "FROM item_history(3, 20000)",
)


RESIDENT_MAX = 1 << 30
"""Bytes, of all processes together."""


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    return sum(os.times()[:4])


async def measure(options: argparse.Namespace, batch: int, directory: Path) -> None:
    """Print the figures of one size of batches."""
    print(f"# {options.events:,} events of items, {batch} items a batch, {PARTITIONS} partitions")
    started = time.perf_counter()
    async with made_log(options.log, options.events, batch) as store:
        print(f"log made in {time.perf_counter() - started:.1f} s")
        await measure_of(store, directory)


async def measure_of(store: LogStore, directory: Path) -> None:
    """The figures of one log."""
    before = resident_bytes(os.getpid()) >> 20
    shutil.rmtree(directory, ignore_errors=True)
    started = time.perf_counter()
    env = real_env()
    spent = _cpu_seconds()
    with Resident() as exporting:
        exported = await Exporter(env, [store], directory, workers=env.processes.cores).refresh()
    took = time.perf_counter() - started
    spent = _cpu_seconds() - spent
    print(
        f"export      {exported.items / took:14,.0f} events/s   {exported.items:,} events"
        f" in {exported.rows:,} rows, {took:.1f} s; {spent / exported.items * 1e6:.2f} µs of CPU each"
    )
    started = time.perf_counter()
    with Resident() as compacting:
        await compact(real_env(), directory)
    took = time.perf_counter() - started
    size = sum(path.stat().st_size for path in directory.glob("events/**/*.parquet"))
    print(f"compact     {took:14.2f} s")
    print(f"disk        {size / exported.items:14.3f} bytes/event   {size:,} bytes")
    with Resident() as asking:
        ask(directory)
    found = {"exporting": exporting, "compacting": compacting, "asking": asking}
    for what, resident in found.items():
        print(f"resident    {resident.most >> 20:14,} MiB   {what}, {resident.processes} processes")
    most = max(resident.most for resident in found.values())
    verdict = "holds" if most < RESIDENT_MAX else "FAILS"
    print(
        f"resident    {most >> 20:14,} MiB   at most at one moment, of all processes together, {before:,} of"
        f" them with the log in memory: {verdict} (less than {RESIDENT_MAX >> 20:,})"
    )


def ask(directory: Path) -> None:
    """Each question once."""
    took, connection = _timed(lambda: connect(directory))
    print(f"connect     {took * 1e3:14.0f} ms")
    for question in QUESTIONS:
        took, rows = _timed(lambda: connection.execute(question).fetchall())  # noqa: B023 - called at once
        print(f"question    {took * 1e3:14.0f} ms   {len(rows):7,} rows   {question}")
    connection.close()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=10_000_000, help="events of items")
    parser.add_argument("--batch", type=int, action="append", help="items a batch; may be repeated (100, 10)")
    parser.add_argument(
        "--live",
        action="store_true",
        help="instead: what export and questions cost a server at half its peak",
    )
    parser.add_argument(
        "--row", default="batch 100, 8+8", help="of --live: the row of lifecycle (batch 100, 8+8)"
    )
    parser.add_argument("--share", type=float, default=0.5, help="of --live: of the peak rate")
    parser.add_argument("--seconds", type=float, default=5.0, help="of --live: of each round")
    parser.add_argument("--rounds", type=int, default=9, help="of --live: without and with, each")
    parser.add_argument("--rate", type=float, default=0.0, help="of --live: items/s at peak; 0: is measured")
    parser.add_argument(
        "--by", choices=("server", "process"), action="append", help="of --live: who exports (both)"
    )
    postgres.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Measure each size of batches, or a server at work."""
    if options.live:
        return live.run(options)
    with tempfile.TemporaryDirectory() as name:
        for batch in options.batch or (100, 10):
            trio.run(measure, options, batch, Path(name) / "analytics")
    return 0
