"""A report as one page of HTML: styles, drawings and script inside, nothing fetched from anywhere.

The drawings are SVG made here; the script only shows values under the pointer, and the page is complete
without it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from importlib import resources
from math import floor, log10
from string import Template
from typing import Any, Final

import msgspec

from querator.analytics.report import Chart, Figure, Report, Series, Table
from querator.analytics.words import say, say_cell, say_width

_WIDTH: Final = 880
_HEIGHT: Final = 220
_LEFT: Final = 64
_RIGHT: Final = 12
_TOP: Final = 10
_BOTTOM: Final = 26
_STEPS: Final = (1, 2, 4, 6, 8, 10)
_ROUND_SECONDS: Final = (
    *(10, 20, 40, 60, 120, 240, 600, 1_200, 2_400),
    *(hours * 3_600 for hours in (1, 2, 4, 8, 12)),
    *(days * 86_400 for days in (1, 2, 4, 8, 20, 40, 80, 200, 400, 1_000)),
)
"""Ends of an axis of seconds whose quarters are round as well."""
_TIME_TICKS: Final = 6
_INTRO: Final = (
    "Items are <b>produced</b> into this queue and wait until a consumer has <b>reserved</b> them: while it "
    "holds them, nobody else gets them. It <b>completes</b> what it has done; what fails is tried again, and "
    "is <b>dead</b> when it was tried too often."
)


def make_page(report: Report) -> str:
    """The whole page."""
    is_short = report.until - report.since < timedelta(hours=1)
    form = "%Y-%m-%d %H:%M:%S" if is_short else "%Y-%m-%d %H:%M"
    template = Template((resources.files("querator.analytics") / "page.html").read_text())
    return template.substitute(
        title=escape(f"{report.queue}: {report.kind}"),
        heading=escape(f"Queue {report.queue}" if report.intro is None else f"{report.queue}: {report.kind}"),
        intro=_INTRO if report.intro is None else escape(report.intro),
        period=escape(
            f"{report.since:{form}} to {report.until:{form}} UTC · one point is {say_width(report.width)}"
        ),
        figures="".join(map(_figure, report.figures)),
        charts="".join(_chart(index, chart, report) for index, chart in enumerate(report.charts)),
        tables="".join(map(_table, report.tables)),
        data=_script_data(report),
    )


def _script_data(report: Report) -> str:
    data = {
        "left": _LEFT,
        "width": _WIDTH - _LEFT - _RIGHT,
        "times": [f"{bucket:%Y-%m-%d %H:%M:%S}" for bucket in report.buckets],
        "charts": [
            [[series.name, [say(value, chart.unit) for value in series.values]] for series in chart.series]
            for chart in report.charts
        ],
    }
    # "</" must not end the script that it stands in.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _figure(figure: Figure) -> str:
    return (
        f'<div class="figure"><span class="value">{escape(say(figure.value, figure.unit))}</span>'
        f'<span class="name">{escape(figure.name)}</span></div>'
    )


def nice_ceiling(value: float, unit: str) -> float:
    """The end of an axis: the next round number that is not below ``value``."""
    if unit == "items":
        value = max(value, 4.0)
    if value <= 0:
        return 1.0
    if unit == "seconds" and value > 8:
        for seconds in _ROUND_SECONDS:
            if seconds >= value:
                return float(seconds)
    size: float = 10.0 ** floor(log10(value))
    return next(step * size for step in _STEPS if step * size >= value * (1 - 1e-9))


def _chart(number: int, chart: Chart, report: Report) -> str:
    known = [value for series in chart.series for value in series.values if value is not None]
    top = nice_ceiling(max(known, default=0.0), chart.unit)
    legend = "".join(
        f'<li><i class="{_colour(index, series)}"></i>{escape(series.name)}</li>'
        for index, series in enumerate(chart.series)
    )
    lines = "".join(
        f'<path class="{_colour(index, series)}" d="{_path(series, top)}"/>'
        f'<path class="{_colour(index, series)} dots" d="{_dots(series, top)}"/>'
        for index, series in enumerate(chart.series)
    )
    empty = (
        "" if known else f'<text class="empty" x="{_WIDTH // 2}" y="{_HEIGHT // 2}">nothing happened</text>'
    )
    return (
        f'<section><h2>{escape(chart.name)}</h2><p>{escape(chart.text)}</p><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" data-chart="{number}" role="img" '
        f'aria-label="{escape(chart.name)}">{_value_axis(top, chart.unit)}{_time_axis(report.buckets)}'
        f"{lines}{empty}"
        f'<line class="pointer" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/></svg><output></output></section>'
    )


def _x(index: float, count: int) -> float:
    room = _WIDTH - _LEFT - _RIGHT
    return _LEFT + (room * index / (count - 1) if count > 1 else room / 2)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _colour(index: int, series: Series) -> str:
    """Its class; what is dead is red everywhere."""
    return "c3" if series.name == "dead" else f"c{index}"


def _dots(series: Series, top: float) -> str:
    """The values that have no neighbour."""
    values = [None, *series.values, None]
    return "".join(
        f"M{_x(index, len(series.values)):.1f} {_y(value, top):.1f}h0"
        for index, value in enumerate(series.values)
        if value is not None and values[index] is None and values[index + 2] is None
    )


def _path(series: Series, top: float) -> str:
    """A line, with gaps where there is no value."""
    count = len(series.values)
    parts: list[str] = []
    is_down = False
    for index, value in enumerate(series.values):
        if value is None:
            is_down = False
            continue
        parts.append(f"{'L' if is_down else 'M'}{_x(index, count):.1f} {_y(value, top):.1f}")
        is_down = True
    return "".join(parts)


def _value_axis(top: float, unit: str) -> str:
    parts = []
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        label = escape(say(round(value, 9), unit))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return "".join(parts)


def _time_axis(buckets: Sequence[datetime]) -> str:
    if not buckets:
        return ""
    count = len(buckets)
    is_long = (buckets[-1] - buckets[0]).days >= 2
    pattern = (
        "%m-%d %H:%M" if is_long else "%H:%M:%S" if (buckets[-1] - buckets[0]).seconds < 600 else "%H:%M"
    )
    chosen = sorted({round(step * (count - 1) / (_TIME_TICKS - 1)) for step in range(_TIME_TICKS)})
    parts = []
    for index in chosen:
        anchor = (
            "start" if index == 0 and count > 1 else "end" if index == count - 1 and count > 1 else "middle"
        )
        parts.append(
            f'<text x="{_x(index, count):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">'
            f"{buckets[index].strftime(pattern)}</text>"
        )
    return "".join(parts)


def _table(table: Table) -> str:
    if not table.rows:
        body = '<p class="none">none in this time</p>'
    else:
        head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
        largest = max((row[table.bar] or 0 for row in table.rows), default=0) if table.bar >= 0 else 0
        rows = "".join(_table_row(row, table.bar, largest) for row in table.rows)
        body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>{escape(table.name)}</h2><p>{escape(table.text)}</p>{body}</section>"


def _table_row(row: Sequence[Any], bar: int, largest: float) -> str:
    cells = []
    for index, value in enumerate(row):
        text = escape(say_cell(value))
        if index == bar and largest:
            share = 100 * (value or 0) / largest
            text = f'<span class="bar" style="--share:{share:.1f}%">{text}</span>'
        cells.append(f"<td>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"
