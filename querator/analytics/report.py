"""A report on one queue: all figures of a stretch of time, as values. Pages and terminals show them.

Every figure is a row of a documented macro, so that whoever doubts one can ask for it by SQL.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from querator.analytics.manifest import ArchiveError
from querator.analytics.warehouse import Connection

BUCKETS_MAX: Final = 240
"""More points than this are not seen on a page."""
_WIDTHS: Final = (1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800)
"""Seconds of a stretch, to choose from."""
TABLE_ROWS_MAX: Final = 20
"""Kinds, reasons and consumers shown."""


@attrs.frozen
class Series:
    """A line: a value a stretch, ``None`` where there is nothing to measure."""

    name: str
    values: list[float | None]


@attrs.frozen
class Chart:
    """Lines over the same stretches of time."""

    name: str
    unit: str
    """items | seconds."""
    text: str
    """What it shows, for somebody who has never seen it."""
    series: list[Series]


@attrs.frozen
class Table:
    name: str
    text: str
    columns: list[str]
    rows: list[list[Any]]
    bar: int = -1
    """The column whose size is drawn as a bar; -1: none."""


@attrs.frozen
class Figure:
    """One number that says something."""

    name: str
    value: float | None
    unit: str
    """items | seconds | share."""


@attrs.frozen
class Report:
    queue: str
    since: datetime
    until: datetime
    """The end, exclusive. Both UTC."""
    width: timedelta
    buckets: list[datetime]
    figures: list[Figure]
    charts: list[Chart]
    tables: list[Table]
    kind: str = "queue report"
    intro: str | None = None
    """What it is about; ``None``: what a queue is."""


def choose_width(since: datetime, until: datetime) -> timedelta:
    """The narrowest round stretch that makes at most BUCKETS_MAX of them."""
    span = max((until - since).total_seconds(), 1.0)
    for seconds in _WIDTHS:
        if span / seconds <= BUCKETS_MAX:
            return timedelta(seconds=seconds)
    return timedelta(seconds=_WIDTHS[-1])


def queue_names(connection: Connection) -> list[str]:
    """Queues that have a history, in order of name."""
    rows = connection.execute("SELECT DISTINCT queue FROM querator.runs ORDER BY queue").fetchall()
    return [row[0] for row in rows]


def make_report(
    connection: Connection, queue: str, since: datetime | None = None, until: datetime | None = None
) -> Report:
    """All figures of ``queue`` from ``since`` (default: its beginning) to before ``until`` (its end).

    Times are UTC, with or without a time zone.

    Raises:
        ArchiveError: the queue has no history there.
    """
    first, last = _span(connection, queue)
    start = max(_naive(since), first) if since is not None else first
    end = _naive(until) if until is not None else last + timedelta(microseconds=1)
    if end <= start:
        raise ArchiveError(
            f"queue '{queue}' has no history from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC; "
            f"its history goes from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
        )
    width = choose_width(start, end)
    asked = _Asked(connection, queue, start, end, width)
    backlog = asked.rows("backlog", "width")
    buckets = [row["bucket"] for row in backlog]
    return Report(
        queue,
        start,
        end,
        width,
        buckets,
        _figures(asked, backlog),
        _charts(asked, buckets, backlog),
        _tables(asked),
    )


def _span(connection: Connection, queue: str) -> tuple[datetime, datetime]:
    row = connection.execute(
        "SELECT min(happened_at), max(happened_at) FROM querator.runs WHERE queue = $1", [queue]
    ).fetchone()
    if row is None or row[0] is None:
        known = ", ".join(f"'{name}'" for name in queue_names(connection)[:TABLE_ROWS_MAX])
        raise ArchiveError(f"queue '{queue}' has no history; there is one of: {known or 'no queue'}")
    return row[0], row[1]


def _naive(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


class _Asked:
    """The macros, asked for one queue and stretch of time."""

    def __init__(
        self, connection: Connection, queue: str, since: datetime, until: datetime, width: timedelta
    ) -> None:
        self._connection = connection
        self._values = {"queue": queue, "since": since, "until": until, "width": width}

    def rows(self, macro: str, *arguments: str) -> list[dict[str, Any]]:
        """Its rows, by name of column."""
        given = "".join(f", {name} := ${name}" for name in (*arguments, "since", "until"))
        values = {name: self._values[name] for name in ("queue", *arguments, "since", "until")}
        cursor = self._connection.execute(f"FROM querator.{macro}($queue{given})", values)
        names = [entry[0] for entry in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, macro: str) -> dict[str, Any]:
        """Of a macro that has one row for the whole time; an empty one when nothing happened."""
        rows = self.rows(macro)
        return rows[0] if rows else {}


def _figures(asked: _Asked, backlog: list[dict[str, Any]]) -> list[Figure]:
    waiting, processing, retries = asked.row("waiting"), asked.row("processing"), asked.row("retries")
    totals = asked.rows("throughput", "width")
    now = backlog[-1] if backlog else {"ready": 0, "scheduled": 0, "reserved": 0, "dead": 0}
    return [
        Figure("produced", sum(row["produced"] for row in totals), "items"),
        Figure("completed", sum(row["completed"] for row in totals), "items"),
        Figure("failed attempts", retries.get("failed_share"), "share"),
        Figure("waiting, 95 %", waiting.get("p95"), "seconds"),
        Figure("processing, 95 %", processing.get("p95"), "seconds"),
        Figure("waiting at the end", now["ready"] + now["scheduled"], "items"),
        Figure("dead at the end", now["dead"], "items"),
    ]


def _aligned(
    rows: list[dict[str, Any]],
    buckets: list[datetime],
    columns: Sequence[tuple[str, str]],
    missing: float | None,
) -> list[Series]:
    by_bucket = {row["bucket"]: row for row in rows}
    return [
        Series(
            name,
            [by_bucket[bucket][column] if bucket in by_bucket else missing for bucket in buckets],
        )
        for column, name in columns
    ]


_QUANTILES: Final = (("p50", "half"), ("p95", "95 %"), ("p99", "99 %"))


def _charts(asked: _Asked, buckets: list[datetime], backlog: list[dict[str, Any]]) -> list[Chart]:
    throughput = asked.rows("throughput", "width")
    return [
        Chart(
            "Throughput",
            "items",
            "Items that came in (produced), were handed to a consumer (reserved) and were done (completed).",
            _aligned(
                throughput,
                buckets,
                (("produced", "produced"), ("reserved", "reserved"), ("completed", "completed")),
                0,
            ),
        ),
        Chart(
            "Backlog",
            "items",
            "Items at the end of each stretch: ready to be taken, scheduled for later, in the hands of a "
            "consumer, and set aside as dead. A ready line that keeps rising means too few consumers.",
            _aligned(
                backlog,
                buckets,
                tuple((name, name) for name in ("ready", "scheduled", "reserved", "dead")),
                0,
            ),
        ),
        Chart(
            "Waiting time",
            "seconds",
            "How long items were ready before a consumer got them. Half of them waited no longer than the "
            "lowest line, 95 and 99 in a hundred no longer than the others.",
            _aligned(asked.rows("waiting", "width"), buckets, _QUANTILES, None),
        ),
        Chart(
            "Processing time",
            "seconds",
            "How long consumers held the items that they completed, from reserved to completed.",
            _aligned(asked.rows("processing", "width"), buckets, _QUANTILES, None),
        ),
        Chart(
            "Failures",
            "items",
            "Attempts that did not complete: failed and to be tried again (retried), lost because the "
            "deadline passed or the consumer vanished (ended), and items that became dead.",
            _aligned(throughput, buckets, (("retried", "retried"), ("ended", "ended"), ("died", "dead")), 0),
        ),
    ]


def _tables(asked: _Asked) -> list[Table]:
    return [
        Table(
            "Dead letters by reason",
            "Items that will not be tried again unless somebody redrives them.",
            ["reason", "items", "last"],
            [[row["reason"] or "-", row["items"], row["last_at"]] for row in asked.rows("deaths")][
                :TABLE_ROWS_MAX
            ],
            1,
        ),
        Table(
            "Retries by reason",
            "Attempts that did not complete: how each ended, and why. A released one does not count as an "
            "attempt; one that ended was lost to its deadline or with its consumer.",
            ["how", "reason", "items", "last"],
            [
                [row["ended_by"], row["reason"] or "-", row["items"], row["last_at"]]
                for row in asked.rows("failures")
            ][:TABLE_ROWS_MAX],
            2,
        ),
        Table(
            "Slowest kinds",
            "Kinds of items by the processing time that 95 in a hundred of them do not exceed, in seconds.",
            ["kind", "completed", "failed", "half", "95 %", "longest"],
            [
                [row["kind"] or "-", row["completed"], row["failed"], row["p50"], row["p95"], row["longest"]]
                for row in asked.rows("kinds")
            ][:TABLE_ROWS_MAX],
            4,
        ),
        Table(
            "Consumers",
            "Sessions that took items, by how many they completed; mean processing time in seconds.",
            ["consumer", "reserved", "completed", "retried", "ended", "dead", "held", "mean"],
            [
                [
                    row["session"] or "(no session)",
                    row["reserved"],
                    row["completed"],
                    row["retried"],
                    row["ended"],
                    row["dead"],
                    row["held"],
                    row["mean_processing"],
                ]
                for row in asked.rows("consumers_compared")
            ][:TABLE_ROWS_MAX],
            2,
        ),
    ]
