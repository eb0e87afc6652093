"""``querator stats QUEUE [--watch]``."""

from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.live import Live
from rich.table import Table

from querator.cli.options import Target, read_duration
from querator.cli.output import console, format_duration, print_json
from querator.core.ids import SECOND, Duration
from querator.protocol.messages import StatsReport

COLUMNS: Final = ("ready", "reserved", "scheduled", "dead", "produced", "completed")
"""What fits on a narrow terminal; --json has the rest."""


async def stats(
    queue: str,
    *,
    target: Target | None = None,
    watch: Annotated[bool, Parameter(negative="", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[str, Parameter(help="How often, with --watch.")] = "1s",
) -> None:
    """A queue's counters, by partition."""
    target = target or Target()
    every = read_duration(interval, "--interval")
    async with target.connect("stats", patience=Duration(60 * SECOND) if watch else None) as q:
        if not watch:
            _print(await q.stats(queue), target)
            return
        async with q.watch(queue, interval=every / SECOND) as reports:
            out = console()
            if target.json or not out.is_terminal:
                async for report in reports:
                    _print(report, target)
            with Live(console=out, auto_refresh=False) as live:
                before: StatsReport | None = None
                async for report in reports:
                    live.update(_table(report, before, every), refresh=True)
                    before = report


def _print(report: StatsReport, target: Target) -> None:
    if target.json:
        document = msgspec.to_builtins(report)
        del document["id"], document["type"]
        document.setdefault("subscriptions", 0)
        document.setdefault("parked", 0)
        print_json(document)
    else:
        console().print(_table(report, None, 1))


def _table(report: StatsReport, before: StatsReport | None, every: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PARTITION")
    for name in (*COLUMNS, "age"):
        table.add_column(name.upper(), justify="right")
    rows: list[dict[str, Any]] = list(report.partitions)
    for row in rows:
        table.add_row(str(row["partition"]), *(str(row.get(name, 0)) for name in COLUMNS), _age(row))
    if len(rows) > 1:
        table.add_row("all", *(str(_total(report, name)) for name in COLUMNS), "")
    caption = f"{report.queue}: {report.subscriptions} subscriptions, {report.parked} waiting reserves"
    if any(row.get("paused") for row in rows):
        caption += ", paused"
    if before is not None:
        caption += "".join(
            f", {(_total(report, name) - _total(before, name)) * SECOND / every:,.0f} {name}/s"
            for name in ("produced", "completed")
        )
    table.caption = caption
    table.caption_justify = "left"
    return table


def _total(report: StatsReport, name: str) -> int:
    return sum(row.get(name, 0) for row in report.partitions)


def _age(row: dict[str, Any]) -> str:
    """How long its items have waited on average."""
    return format_duration(row["average_age"]) if row.get("average_age") else "-"
