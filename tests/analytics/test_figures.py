"""Every figure equals the same figure computed by a plain fold over the log, on random histories."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from querator.analytics import connect
from querator.analytics.compact import compact
from querator.analytics.export import Exporter
from querator.analytics.report import make_report
from querator.analytics.warehouse import Connection
from querator.core.ids import HOUR, MINUTE
from querator.env.real import real_env
from tests.analytics.histories import ItemEvent, PartitionHistory, plain_fold, random_history
from tests.analytics.test_export import make_store

QUEUES = {"mail": [4, 5], "jobs": [6], "idle": [9]}
WIDTH = 10 * MINUTE
STATES = ("scheduled", "ready", "reserved", "dead")


class World:
    """An archive of random histories, and the item events of each queue by the plain fold."""

    def __init__(self, connection: Connection, histories: list[PartitionHistory]) -> None:
        self.connection = connection
        self.histories = histories
        self.steps: dict[str, list[ItemEvent]] = defaultdict(list)
        for history in histories:
            queue = next(name for name, numbers in QUEUES.items() if history.state.partition in numbers)
            self.steps[queue] += plain_fold(history.records)
        for steps in self.steps.values():
            steps.sort(key=lambda step: (step.at, step.partition, step.position))

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(sql, list(values))
        names = [entry[0] for entry in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


async def build(directory: Path, seed: int) -> list[PartitionHistory]:
    rng = random.Random(seed)
    histories = [
        random_history(rng, 4, 220, dead_target=9 if seed % 2 else None),
        random_history(rng, 5, 220),
        random_history(rng, 6, 220, keyed=True),
    ]
    store = await make_store(*histories, queues=QUEUES)
    await Exporter(real_env(), [store], directory).refresh()
    if seed % 2:
        await compact(real_env(), directory)
    return histories


@contextmanager
def opened(directory: Path, histories: list[PartitionHistory]) -> Iterator[World]:
    connection = connect(directory, threads=1)
    try:
        yield World(connection, histories)
    finally:
        connection.close()


@pytest.fixture(scope="module", params=range(4))
def world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[World]:
    """One archive of each seed for all tests: they only read."""
    directory = tmp_path_factory.mktemp(f"archive-{request.param}")
    with opened(directory, trio.run(build, directory, request.param)) as made:
        yield made


def us(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)


def bucket(at: int, width: int = WIDTH) -> int:
    # DuckDB's buckets count from 2000-01-03, a Monday.
    origin = 946_857_600_000_000
    return (at - origin) // width * width + origin


def rank(values: list[int], percent: int) -> float:
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1] / 1e6


def test_throughput(world: World) -> None:
    for queue, steps in world.steps.items():
        expected: dict[int, Counter[str]] = defaultdict(Counter)
        for step in steps:
            expected[bucket(step.at)][step.event] += 1
        rows = world.rows("FROM throughput($1, INTERVAL 10 MINUTE)", queue)
        assert [us(row["bucket"]) for row in rows] == sorted(expected)
        for row in rows:
            counts = expected[us(row["bucket"])]
            for name in ("produced", "reserved", "completed", "retried", "released", "ended", "redriven"):
                assert row[name] == counts[name]
            assert row["died"] == counts["dead"]


@pytest.mark.parametrize("macro", ["waiting", "processing"])
def test_waiting_and_processing(world: World, macro: str) -> None:
    event, begun = ("reserved", "ready_at") if macro == "waiting" else ("completed", "reserved_at")
    for queue, steps in world.steps.items():
        for width in (0, 6 * HOUR):
            expected: dict[int, list[int]] = defaultdict(list)
            for step in steps:
                if step.event == event:
                    expected[bucket(step.at, width) if width else 0].append(step.at - getattr(step, begun))
            rows = world.rows(
                f"FROM {macro}($1, width := $2)", queue, timedelta(microseconds=width) if width else None
            )
            assert [us(row["bucket"]) if row["bucket"] else 0 for row in rows] == sorted(expected)
            for row in rows:
                values = expected[us(row["bucket"]) if row["bucket"] else 0]
                assert row["items"] == len(values)
                assert row["mean"] == pytest.approx(sum(values) / len(values) / 1e6)
                assert (row["p50"], row["p95"], row["p99"]) == tuple(rank(values, p) for p in (50, 95, 99))
                assert row["longest"] == max(values) / 1e6


def test_backlog_ends_as_the_states_do(world: World) -> None:
    for queue, steps in world.steps.items():
        rows = world.rows("FROM backlog($1, INTERVAL 10 MINUTE)", queue)
        now: dict[str, int] = Counter()
        index = 0
        for row in rows:
            end = us(row["bucket"]) + WIDTH
            while index < len(steps) and steps[index].at < end:
                now[steps[index].before] -= 1
                now[steps[index].after] += 1
                index += 1
            assert [row[state] for state in STATES] == [now[state] for state in STATES]
        assert index == len(steps)
        states = [h.state for h in world.histories if h.state.partition in QUEUES[queue]]
        last = rows[-1]
        assert last["ready"] + last["scheduled"] == sum(state.ready + state.scheduled for state in states)
        assert last["reserved"] == sum(state.reserved for state in states)
        assert last["dead"] == sum(len(state.dead) for state in states)
        middle = rows[len(rows) // 2]["bucket"]
        later = world.rows("FROM backlog($1, INTERVAL 10 MINUTE, since := $2)", queue, middle)
        assert later == rows[len(rows) // 2 :]


def test_retries_and_deaths(world: World) -> None:
    for queue, steps in world.steps.items():
        ended = Counter(step.event for step in steps if step.reservation)
        (row,) = world.rows("FROM retries($1)", queue)
        assert [row[name] for name in ("completed", "retried", "ended", "released", "died")] == [
            ended[name] for name in ("completed", "retried", "ended", "released", "dead")
        ]
        failed = ended["retried"] + ended["ended"] + ended["dead"]
        assert row["failed_share"] == pytest.approx(failed / (failed + ended["completed"]))
        reasons = Counter(step.reason for step in steps if step.event == "dead")
        assert {row["reason"]: row["items"] for row in world.rows("FROM deaths($1)", queue)} == reasons


def test_kinds(world: World) -> None:
    for queue, steps in world.steps.items():
        held: dict[str, list[int]] = defaultdict(list)
        failed: Counter[str] = Counter()
        for step in steps:
            if step.event == "completed":
                held[step.item_kind].append(step.at - step.reserved_at)
            elif step.event in ("retried", "ended", "dead") and step.reservation:
                failed[step.item_kind] += 1
        rows = world.rows("FROM kinds($1)", queue)
        assert {row["kind"] for row in rows} == held.keys() | failed.keys()
        for row in rows:
            values = held[row["kind"]]
            assert (row["completed"], row["failed"]) == (len(values), failed[row["kind"]])
            if values:
                assert row["mean"] == pytest.approx(sum(values) / len(values) / 1e6)
                assert (row["p50"], row["p95"]) == (rank(values, 50), rank(values, 95))
                assert row["longest"] == max(values) / 1e6
        slowness = [row["p95"] if row["p95"] is not None else -1 for row in rows]
        assert slowness == sorted(slowness, reverse=True)


def test_consumers(world: World) -> None:
    for queue, steps in world.steps.items():
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        numbers: dict[str, set[tuple[int, int]]] = defaultdict(set)
        held: dict[str, list[int]] = defaultdict(list)
        for step in steps:
            if not step.reservation:
                continue
            counts[step.session][step.event] += 1
            if step.event == "reserved":
                numbers[step.session].add((step.partition, step.reservation))
            if step.event == "completed":
                held[step.session].append(step.at - step.reserved_at)
        rows = world.rows("SELECT * FROM consumers WHERE queue = $1", queue)
        assert {row["session"] or "" for row in rows} == counts.keys()
        for row in rows:
            session = row["session"] or ""
            for name in ("reserved", "completed", "retried", "released", "ended", "dead"):
                assert row[name] == counts[session][name]
            assert row["reservations"] == len(numbers[session])
            gone = sum(count for name, count in counts[session].items() if name != "reserved")
            assert row["held"] == counts[session]["reserved"] - gone
            values = held[session]
            if values:
                assert row["mean_processing"] == pytest.approx(sum(values) / len(values) / 1e6)


def test_contention(world: World) -> None:
    for queue, steps in world.steps.items():
        now = 0
        expected: dict[int, dict[str, Any]] = {}
        moments: dict[int, list[ItemEvent]] = defaultdict(list)
        for step in steps:
            if step.reservation:
                moments[step.at].append(step)
        for at in sorted(moments):
            fresh = {"peak": now, "sessions": set(), "numbers": set(), "again": 0}
            entry = expected.setdefault(bucket(at), fresh)
            for step in moments[at]:
                now += (step.after == "reserved") - (step.before == "reserved")
                entry["sessions"] |= {step.session} - {""}
                if step.event == "reserved":
                    entry["numbers"].add((step.partition, step.reservation))
                    entry["again"] += step.attempt > 1
            entry["peak"] = max(entry["peak"], now)
        for row in world.rows("FROM contention($1, INTERVAL 10 MINUTE)", queue):
            entry = expected.pop(us(row["bucket"]), {})
            if not entry:
                # Only an extension, which is no change.
                continue
            assert row["in_flight_peak"] == entry["peak"]
            assert row["consumers"] == len(entry["sessions"])
            assert row["reservations"] == len(entry["numbers"])
            assert row["reserved_again"] == entry["again"]
        assert not expected


def test_slo(world: World) -> None:
    for queue, steps in world.steps.items():
        (row,) = world.rows(
            "FROM slo($1, waiting_target := INTERVAL 1 SECOND, processing_target := INTERVAL 8 SECOND)", queue
        )
        waited = [step.at - step.ready_at for step in steps if step.event == "reserved"]
        held = [step.at - step.reserved_at for step in steps if step.event == "completed"]
        assert row["reserved"] == len(waited)
        assert row["reserved_in_time"] == sum(value <= 1_000_000 for value in waited)
        assert row["completed_in_time"] == sum(value <= 8_000_000 for value in held)
        assert row["waiting_kept"] == pytest.approx(row["reserved_in_time"] / len(waited))


def test_items(world: World) -> None:
    expected: dict[tuple[int, int], list[ItemEvent]] = defaultdict(list)
    for steps in world.steps.values():
        for step in steps:
            expected[step.partition, step.item].append(step)
    rows = world.rows("FROM items")
    assert {(row["partition"], row["item"]) for row in rows} == expected.keys()
    assert len(rows) == len(expected)
    for row in rows:
        life = sorted(expected[row["partition"], row["item"]], key=lambda step: step.position)
        events = Counter(step.event for step in life)
        assert us(row["produced_at"]) == life[0].at
        assert us(row["last_event_at"]) == life[-1].at
        assert row["state"] == (life[-1].after or None)
        assert row["outcome"] == (None if life[-1].after else life[-1].event)
        assert (us(row["finished_at"]) if row["finished_at"] else None) == (
            None if life[-1].after else life[-1].at
        )
        assert row["reservations"] == events["reserved"]
        assert row["attempts"] == events["reserved"] - events["released"]
        assert (row["died"], row["redriven"]) == (events["dead"], events["redriven"])
        first = next((step for step in life if step.event == "reserved"), None)
        assert (us(row["first_reserved_at"]) if row["first_reserved_at"] else None) == (first and first.at)
        if first is not None and row["due_at"] is None:
            assert row["waiting"] == timedelta(microseconds=first.at - life[0].at)
        if life[-1].event == "completed":
            assert row["processing"] == timedelta(microseconds=life[-1].at - life[-1].reserved_at)


def test_reservations(world: World) -> None:
    expected: dict[tuple[int, int, int], list[ItemEvent]] = defaultdict(list)
    for steps in world.steps.values():
        for step in steps:
            if step.reservation:
                expected[step.partition, step.reservation, step.item].append(step)
    rows = world.rows("FROM reservations")
    assert {(row["partition"], row["reservation"], row["item"]) for row in rows} == expected.keys()
    for row in rows:
        begun, *ended = expected[row["partition"], row["reservation"], row["item"]]
        assert us(row["reserved_at"]) == begun.at
        assert (row["session"] or "") == begun.session
        assert row["attempt"] == begun.attempt
        assert us(row["ready_at"]) == begun.ready_at
        if ended:
            assert (row["ended_by"], us(row["ended_at"])) == (ended[0].event, ended[0].at)
            assert (row["reason"] or "") == ended[0].reason
        else:
            assert row["ended_by"] is None


def test_item_history_and_events(world: World) -> None:
    for steps in world.steps.values():
        for step in steps[:: max(1, len(steps) // 25)]:
            life = [s for s in steps if (s.partition, s.item) == (step.partition, step.item)]
            rows = world.rows(
                "SELECT * FROM item_history($1, $2) WHERE event <> 'extended'", step.partition, step.item
            )
            assert [(row["position"], row["event"], us(row["happened_at"])) for row in rows] == [
                (s.position, s.event, s.at) for s in sorted(life, key=lambda s: s.position)
            ]
    (row,) = world.rows("SELECT count(*) AS n FROM events WHERE item IS NOT NULL AND event <> 'extended'")
    assert row["n"] == sum(map(len, world.steps.values()))


def test_queues(world: World) -> None:
    rows = {row["queue"]: row for row in world.rows("FROM queues")}
    assert rows.keys() == QUEUES.keys()
    assert rows["idle"]["produced"] == 0
    for queue, steps in world.steps.items():
        row, events = rows[queue], Counter(step.event for step in steps)
        assert row["partitions"] == len(QUEUES[queue])
        for name in ("produced", "completed", "retried", "ended"):
            assert row[name] == events[name]
        assert row["died"] == events["dead"]
        states: Counter[str] = Counter()
        for step in steps:
            states[step.before] -= 1
            states[step.after] += 1
        assert [row[state] for state in STATES] == [states[state] for state in STATES]


def backlog_of(steps: list[ItemEvent], ends: list[int]) -> dict[str, list[int]]:
    """Items by state at each of these moments, ascending, before what happens then."""
    counts = dict.fromkeys(STATES, 0)
    found: dict[str, list[int]] = {name: [] for name in STATES}
    left = iter([*steps, None])
    step = next(left)
    for end in ends:
        while step is not None and step.at < end:
            for state, change in ((step.before, -1), (step.after, 1)):
                if state:
                    counts[state] += change
            step = next(left)
        for name in STATES:
            found[name].append(counts[name])
    return found


def test_report_shows_these_figures(world: World) -> None:
    for queue, steps in world.steps.items():
        report = make_report(world.connection, queue)
        events = Counter(step.event for step in steps)
        figures = {figure.name: figure.value for figure in report.figures}
        assert figures["produced"] == events["produced"]
        assert figures["completed"] == events["completed"]
        waited = [step.at - step.ready_at for step in steps if step.event == "reserved"]
        held = [step.at - step.reserved_at for step in steps if step.event == "completed"]
        assert figures["waiting, 95 %"] == rank(waited, 95)
        assert figures["processing, 95 %"] == rank(held, 95)
        states = [h.state for h in world.histories if h.state.partition in QUEUES[queue]]
        assert figures["waiting at the end"] == sum(state.ready + state.scheduled for state in states)
        assert figures["dead at the end"] == sum(len(state.dead) for state in states)
        width = round(report.width.total_seconds() * 1e6)
        assert len(report.buckets) <= 242
        charts = {
            chart.name: {series.name: series.values for series in chart.series} for chart in report.charts
        }
        counts = Counter((step.event, bucket(step.at, width)) for step in steps)
        for chart, names in (
            ("Throughput", ("produced", "reserved", "completed")),
            ("Failures", ("retried", "ended", "dead")),
        ):
            assert charts[chart] == {name: [counts[name, us(at)] for at in report.buckets] for name in names}
        for name, event, begun in (
            ("Waiting time", "reserved", "ready_at"),
            ("Processing time", "completed", "reserved_at"),
        ):
            for at, half, many in zip(
                report.buckets, charts[name]["half"], charts[name]["99 %"], strict=True
            ):
                values = [
                    step.at - getattr(step, begun)
                    for step in steps
                    if step.event == event and bucket(step.at, width) == us(at)
                ]
                assert (half, many) == ((rank(values, 50), rank(values, 99)) if values else (None, None))
        tables = {table.name: table.rows for table in report.tables}
        reasons = Counter(step.reason for step in steps if step.event == "dead")
        assert {row[0]: row[1] for row in tables["Dead letters by reason"]} == reasons
        failures = Counter(
            (step.event, step.reason or "-")
            for step in steps
            if step.reservation and step.event in ("retried", "ended", "released", "dead")
        )
        assert {(row[0], row[1]): row[2] for row in tables["Retries by reason"]} == failures
        assert charts["Backlog"] == backlog_of(steps, [us(at) + width for at in report.buckets])
        kinds: dict[str, list[int]] = defaultdict(list)
        for step in steps:
            if step.event == "completed":
                kinds[step.item_kind or "-"].append(step.at - step.reserved_at)
        shown = {row[0]: (row[1], row[3], row[4]) for row in tables["Slowest kinds"] if row[1]}
        assert shown == {kind: (len(held), rank(held, 50), rank(held, 95)) for kind, held in kinds.items()}
        consumers = Counter(step.session for step in steps if step.event == "completed")
        assert {row[0]: row[2] for row in tables["Consumers"] if row[2]} == {
            name or "(no session)": count for name, count in consumers.items()
        }
