"""The report as a page and as text; looked at by a browser where there is one."""

import re
import shutil
import struct
import subprocess
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import trio

from querator.analytics import connect
from querator.analytics.manifest import ArchiveError
from querator.analytics.page import make_page, nice_ceiling
from querator.analytics.report import BUCKETS_MAX, Report, Table, choose_width, make_report
from querator.analytics.terminal import BLOCKS, print_report, sparkline
from querator.analytics.words import say, say_seconds, say_width
from tests.analytics.test_figures import build

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    directory = tmp_path_factory.mktemp("archive")
    trio.run(build, directory, 1)
    connection = connect(directory)
    try:
        return make_report(connection, "mail")
    finally:
        connection.close()


class _Page(HTMLParser):
    """What a page refers to, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_page_is_self_contained(report: Report) -> None:
    text = make_page(report)
    page = _Page(text)
    assert page.links == ["data:,"]
    assert page.tags.count("svg") == len(report.charts) == 5
    assert page.tags.count("table") == len(report.tables) == 4
    assert not re.search(r"https?://", text)
    assert "nan" not in re.sub(r'<script type="application/json".*?</script>', "", text).lower().replace(
        "nano", ""
    )
    assert "$" not in text


def test_names_of_others_are_text(report: Report) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    table = Table("Consumers", "", ["consumer"], [[evil]])
    import attrs

    text = make_page(attrs.evolve(report, queue=evil, tables=[table]))
    assert "<img" not in text
    assert "&lt;img" in text


def test_terminal_shows_the_same(report: Report) -> None:
    text = print_report(report)
    assert max(map(len, text.splitlines())) <= 110
    for chart in report.charts:
        assert chart.name in text
    for figure in report.figures:
        assert f"{figure.name:20} {say(figure.value, figure.unit):>10}" in text


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([0, 0], 10, BLOCKS[0] * 2),
        ([None, 1, 8], 10, f" {BLOCKS[1]}{BLOCKS[7]}"),
        ([1, 9, 2, 3], 2, f"{BLOCKS[7]}{BLOCKS[2]}"),
    ],
)
def test_sparklines(values: list[float | None], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_stretches_are_few_and_round() -> None:
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - as DuckDB gives them
    for span in (1, 59, 3_600, 86_400, 86_400 * 30, 86_400 * 900):
        width = choose_width(start, start + timedelta(seconds=span))
        assert span / width.total_seconds() <= BUCKETS_MAX
    assert say_width(timedelta(hours=6)) == "6 hours"


def test_words() -> None:
    assert [say_seconds(value) for value in (0, 0.000_2, 0.012, 1.5, 240, 7_200, 200_000)] == [
        "0 s", "200 µs", "12 ms", "1.5 s", "4 min", "2 h", "2.31 d",
    ]  # fmt: skip
    assert [say(1_234, "items"), say(56_789, "items"), say(0.125, "share"), say(None, "items")] == [
        "1,234", "56.8k", "12.5 %", "-",
    ]  # fmt: skip


def test_axes_end_at_round_numbers() -> None:
    assert [nice_ceiling(value, "items") for value in (0, 3, 7, 198, 999)] == [4, 4, 8, 200, 1000]
    assert [nice_ceiling(value, "seconds") for value in (0.0021, 50, 95_567)] == [0.004, 60, 172_800]


def test_report_on_nothing_says_what_there_is(tmp_path: Path) -> None:
    trio.run(build, tmp_path, 0)
    connection = connect(tmp_path)
    with pytest.raises(ArchiveError, match="queue 'nope' has no history; there is one of: 'jobs', 'mail'"):
        make_report(connection, "nope")
    with pytest.raises(ArchiveError, match="has no history from 2030"):
        make_report(connection, "mail", datetime(2030, 1, 1))  # noqa: DTZ001
    connection.close()


def test_page_is_drawn_by_a_browser(report: Report, tmp_path: Path) -> None:
    if not CHROMIUM:
        pytest.skip("NO BROWSER: chromium is not installed, so nobody looked at the report's page")
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(make_page(report))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,2600", f"--screenshot={picture}",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1000, 2600)
    # A page that was not drawn compresses to next to nothing.
    assert picture.stat().st_size > 60_000
    assert "Content Security Policy" not in done.stderr
    assert done.stdout.count("<svg") == 5
