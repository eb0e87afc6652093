"""``querator analytics``: from a stopped server's data directory to answers."""

import csv
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Run, start, stop


def run_command(*arguments: str, stdin: bytes = b"") -> Done:
    """In a process of its own: a fixture of the module cannot have the ``cli`` of a test."""
    command = [sys.executable, "-m", "querator", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a server that did something and was stopped."""
    directory = tmp_path_factory.mktemp("served") / "data"
    served = start("--data", str(directory))
    try:
        cli = run_command
        cli("queues", "create", "mail", "--address", served.address)
        cli("produce", "mail", "--address", served.address, stdin=b"a\nb\nc\n")
        cli("consume", "mail", "--max", "2", "--address", served.address)
        locked = cli("analytics", "refresh", "--data", str(directory))
        assert locked.code == 73
    finally:
        stop(served)
    done = cli("analytics", "refresh", "--data", str(directory), "--json")
    assert done.code == 0, done.err
    (document,) = done.json
    assert document["items"] == 3 + 2 + 2
    assert document["records"] > 0
    return directory


def test_refresh_again_finds_nothing_new(cli: Run, data: Path) -> None:
    (document,) = cli("analytics", "refresh", "--data", str(data), "--json").json
    assert (document["records"], document["items"]) == (0, 0)


def test_questions(cli: Run, data: Path) -> None:
    archive = ("--archive", str(data / "analytics"))
    (queue,) = cli("analytics", "sql", "FROM queues", "--format", "json", *archive).json
    assert (queue["queue"], queue["produced"], queue["completed"], queue["ready"]) == ("mail", 3, 2, 1)
    done = cli(
        "analytics", "sql", "SELECT item, outcome FROM items ORDER BY item", "--format", "csv", *archive
    )
    assert list(csv.reader(io.StringIO(done.out))) == [
        ["item", "outcome"], ["1", "completed"], ["2", "completed"], ["3", ""],
    ]  # fmt: skip
    done = cli("analytics", "sql", "-", *archive, stdin=b"SELECT count(*) AS n FROM items")
    assert done.out.split() == ["n", "3"]


def test_refusals_have_codes(cli: Run, data: Path) -> None:
    archive = ("--archive", str(data / "analytics"))
    assert cli("analytics", "sql", "COPY items TO '/tmp/x.csv'", *archive).code == 77
    assert cli("analytics", "sql", "FROM read_text('/etc/passwd')", *archive).code == 77
    assert cli("analytics", "sql", "FROM nothing", *archive).code == 1
    assert cli("analytics", "report", "nope", *archive).code == 65
    assert cli("analytics", "report", "mail", "--since", "soon", *archive).code == 2
    assert cli("analytics", "export", "no-view", "x.csv", *archive).code == 2
    absent = cli("analytics", "sql", "FROM queues", "--archive", str(data / "absent"))
    assert absent.code == 65
    assert "run `querator analytics refresh` first" in absent.err


def test_report(cli: Run, data: Path, tmp_path: Path) -> None:
    archive = ("--archive", str(data / "analytics"))
    done = cli("analytics", "report", "mail", "--since", "1d", *archive)
    assert done.code == 0, done.err
    assert done.out.startswith("Queue mail, ")
    assert "Dead letters by reason" in done.out
    page = tmp_path / "report.html"
    assert cli("analytics", "report", "mail", "--out", str(page), *archive).code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_export_compact_verify(cli: Run, data: Path, tmp_path: Path) -> None:
    archive = ("--archive", str(data / "analytics"))
    out = tmp_path / "items.json"
    assert cli("analytics", "export", "items", str(out), "--queue", "mail", *archive).code == 0
    assert len(out.read_text().splitlines()) == 3
    assert cli("analytics", "compact", "--everything", *archive).code == 0
    verified = cli("analytics", "verify", *archive)
    assert verified.code == 0
    assert "is good" in verified.err


def test_shell(cli: Run, data: Path) -> None:
    lines = (
        b".help\n.queues\n.schema queues\n.tables\n.format csv\nSELECT count(*)\nFROM items;\n"
        b"FROM nothing;\n.quit\nSELECT 1;\n"
    )
    done = cli("analytics", "shell", "--archive", str(data / "analytics"), stdin=lines)
    assert done.code == 0, done.err
    for part in (
        ".schema X",
        "mail\n",
        "first_event_at",
        "item_history(in_partition, of_item)",
        "count_star()\n3\n",
    ):
        assert part in done.out
    assert "nothing does not exist" in done.out
    assert not done.out.endswith("1\n1\n")


def test_a_server_exports_its_log_and_answers_questions(cli: Run, tmp_path: Path) -> None:
    served = start("--data", str(tmp_path / "data"), "--export-interval", "1")
    on = ("--address", served.address)
    try:
        cli("queues", "create", "mail", "--export-payloads", *on)
        cli("produce", "mail", *on, stdin=b"a\nb\nc\n")
        for _ in range(100):
            done = cli("analytics", "ask", "throughput", "mail", "--width", "1h", "--json", *on)
            if done.code == 0 and sum(row[2] for row in done.json[0]["rows"]) == 3:
                break
            time.sleep(0.1)
        answer = done.json[0]
        assert answer["columns"][:3] == ["queue", "bucket", "produced"]
        shown = cli("analytics", "ask", "item_history", "--item", "1.2", *on)
        assert "produced" in shown.out
        # Position, number within it, and when, as people write it.
        assert re.match(r" *\d+ +\d+ +20\d\d-\d\d-\d\d", shown.out.splitlines()[1])
        assert "as of " in shown.err
        refused = cli("analytics", "ask", "drop", "mail", *on)
        assert (refused.code, "there is no question 'drop'" in refused.err) == (3, True)
    finally:
        stop(served)
    payloads = cli("analytics", "sql", "SELECT decode(payload) AS p FROM payloads ORDER BY item", "--format",
                   "csv", "--archive", str(tmp_path / "data" / "analytics"))  # fmt: skip
    assert payloads.out.split() == ["p", "a", "b", "c"]
