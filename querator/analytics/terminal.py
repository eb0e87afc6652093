"""A report in a terminal: a line of blocks for each line of a chart, tables in columns of text."""

from collections.abc import Sequence
from typing import Final

from querator.analytics.report import Chart, Report, Table
from querator.analytics.words import say, say_cell, say_width

BLOCKS: Final = "▁▂▃▄▅▆▇█"
_INDENT: Final = "  "


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The values as blocks, at most ``width`` of them (each the largest of those it stands for)."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    tops = [max((value for value in group if value is not None), default=None) for group in groups]
    highest = max((value for value in tops if value is not None), default=0.0)
    return "".join(_block(value, highest) for value in tops)


def _block(value: float | None, highest: float) -> str:
    if value is None:
        return " "
    if highest <= 0:
        return BLOCKS[0]
    return BLOCKS[min(len(BLOCKS) - 1, int(max(value, 0.0) / highest * len(BLOCKS)))]


def print_report(report: Report, width: int = 100) -> str:
    """The report as text, in lines of ``width`` characters at most (narrow tables excepted)."""
    lines = [
        f"Queue {report.queue}, {report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} UTC",
        f"(a block of a line is {say_width(report.width)} or more)",
        "",
    ]
    lines += [f"{_INDENT}{figure.name:20} {say(figure.value, figure.unit):>10}" for figure in report.figures]
    for chart in report.charts:
        lines += ["", chart.name, *_chart_lines(chart, width)]
    for table in report.tables:
        lines += ["", table.name, *_table_lines(table)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _chart_lines(chart: Chart, width: int) -> list[str]:
    name_width = max(len(series.name) for series in chart.series)
    room = max(10, width - name_width - 30)
    lines = []
    for series in chart.series:
        known = [value for value in series.values if value is not None]
        top = f"at most {say(max(known), chart.unit)}" if known else "nothing"
        drawn = sparkline(series.values, room)
        lines.append(f"{_INDENT}{series.name:{name_width}}  {drawn}  {top}")
    return lines


def _table_lines(table: Table) -> list[str]:
    if not table.rows:
        return [f"{_INDENT}none"]
    cells = [table.columns, *([say_cell(value) for value in row] for row in table.rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(table.columns))]
    lines = []
    for row in cells:
        parts = [
            f"{cell:{size}}" if index == 0 else f"{cell:>{size}}"
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_INDENT + "  ".join(parts))
    return lines
