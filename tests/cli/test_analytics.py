"""``querator analytics``: from a stopped server's data directory to answers."""

import csv
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from querator.actors.node import NodeOptions, open_node
from querator.env.real import real_env
from querator.log.sqlite import SqliteLog
from tests.cli.conftest import Done, Run, children_of, start, stop, wait_until


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
        locked = cli("analytics", "refresh", "--data", str(directory), "--no-modest")
        assert locked.code == 73
        assert "--export-interval" in locked.err
        assert "`querator analytics ask`" in locked.err
    finally:
        stop(served)
    done = cli("analytics", "refresh", "--data", str(directory), "--json", "--no-modest")
    assert done.code == 0, done.err
    (document,) = done.json
    assert document["items"] == 3 + 2 + 2
    assert document["records"] > 0
    return directory


def test_refresh_again_finds_nothing_new(cli: Run, data: Path) -> None:
    (document,) = cli("analytics", "refresh", "--data", str(data), "--json").json
    assert (document["records"], document["items"]) == (0, 0)


def test_a_refresh_aside_exports_the_same(cli: Run, data: Path, tmp_path: Path) -> None:
    archive = ("--archive", str(tmp_path / "modest"))
    (document,) = run_command("analytics", "refresh", "--data", str(data), *archive, "--json").json
    assert document["items"] == 3 + 2 + 2
    question = ("analytics", "sql", "FROM events ORDER BY ALL", "--format", "json")
    assert cli(*question, *archive).json == cli(*question, "--archive", str(data / "analytics")).json


def test_the_archive_is_found_by_the_data_directory(cli: Run, data: Path, tmp_path: Path) -> None:
    where = ("--data", str(data))
    assert cli("analytics", "report", "mail", *where).out.startswith("Queue mail,")
    assert cli("analytics", "sql", "SELECT queue FROM queues", "--format", "json", *where).json
    assert cli("analytics", "export", "items", str(tmp_path / "items.csv"), *where).code == 0
    assert "is good" in cli("analytics", "verify", *where).err
    assert "became" in cli("analytics", "compact", *where).err
    assert "mail" in cli("analytics", "shell", *where, stdin=b".queues\n").out


def test_an_answer_too_wide_for_a_table_is_a_line_for_each_value(cli: Run, data: Path) -> None:
    archive = ("--archive", str(data / "analytics"))
    lines = cli("analytics", "sql", "FROM queues UNION ALL FROM queues", *archive).out.splitlines()
    first, second = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert first == second
    assert first[0].split() == ["queue", "mail"]
    assert any(line.split() == ["produced", "3"] for line in first)
    assert len(cli("analytics", "sql", "SELECT queue, produced FROM queues", *archive).out.splitlines()) == 2


def test_a_view_that_is_none_is_told_those_that_are(cli: Run, data: Path, tmp_path: Path) -> None:
    done = cli("analytics", "export", "orders", str(tmp_path / "orders.csv"), "--data", str(data))
    assert done.code == 2
    assert "there are events, items, reservations, queues, consumers" in done.err


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
    nowhere = cli("analytics", "report", "mail", "--out", "absent/report.html", *archive)
    assert (nowhere.code, nowhere.err) == (1, "error: absent/report.html: No such file or directory\n")
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
        asked: list[Done] = []

        def is_exported() -> bool:
            asked.append(cli("analytics", "ask", "throughput", "mail", "--width", "1h", "--json", *on))
            return asked[-1].code == 0 and sum(row[2] for row in asked[-1].json[0]["rows"]) == 3

        wait_until(is_exported, "what was produced was exported")
        answer = asked[-1].json[0]
        assert answer["columns"][:3] == ["queue", "bucket", "produced"]
        # What answers has only what others leave: on a busy machine it may say that it took too long.
        while (shown := cli("analytics", "ask", "item_history", "--item", "1.2", *on)).code:
            assert "no answer within" in shown.err
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


def test_a_log_that_was_pruned_is_asked_as_if_it_were_whole(cli: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def ask(*arguments: str) -> list[Any]:
        done = cli(*arguments, "--data", str(data), "--json")
        assert done.code == 0, done.err
        return done.json

    def everything() -> list[Any]:
        return [
            ask("at", "4", "mail"),
            ask("diff", "3", "6", "mail"),
            ask("replay"),
            [line for line in ask("log", "show", "--partition", "1") if line["position"] < 8],
        ]

    served = start("--data", str(data))
    on = ("--address", served.address)
    try:
        cli("queues", "create", "mail", *on)
        for _ in range(3):
            cli("produce", "mail", *on, stdin=b"a\nb\n")
            cli("consume", "mail", "--max", "2", *on)
        nothing = cli("log", "prune", "--older-than", "0s", *on)
        assert (nothing.code, "only the bucket that is being written" in nothing.err) == (0, True)
        traced = cli("item", "trace", "1.1", "--json", *on).json[0]["steps"]
    finally:
        stop(served)
    before = everything()
    trio.run(roll, data)
    served = start("--data", str(data))
    on = ("--address", served.address)
    try:
        done = cli("log", "prune", "--older-than", "0s", "--json", *on)
        assert done.json == [{"dropped": {"sqlite": [1]}}], done.err
        assert cli("item", "trace", "1.1", "--json", *on).json[0]["steps"] == traced
        refused = cli("log", "prune", "--older-than", "0s", "--keep", "0", *on)
        assert refused.code == 3
    finally:
        stop(served)
    at, diff, replay, shown = everything()
    assert [at, diff, shown] == [before[0], before[1], before[3]]
    (whole,) = replay[0]["partitions"]
    assert (replay[0]["ok"], whole["first"]) == (True, 1)
    assert cli("log", "verify", "--data", str(data)).code == 0
    capture = str(tmp_path / "taken.capture")
    assert cli("log", "export", capture, "--data", str(data)).code == 0
    assert cli("replay", capture).code == 0
    sizes = str(tmp_path / "sizes.capture")
    taken = cli("log", "export", sizes, "--data", str(data), "--payloads", "sizes")
    assert "neither they nor their sizes" in " ".join(taken.err.split())
    assert cli("replay", sizes).code == 0
    (played,) = cli("simulate", sizes, "--json").json
    assert (played["ok"], played["recorded"]["completed"]) == (True, 6)
    # Whoever exports anew gets all of it.
    again = cli("analytics", "refresh", "--data", str(data), "--archive", str(tmp_path / "anew"))
    assert again.code == 0, again.err
    question = ("analytics", "sql", "SELECT queue, produced FROM queues", "--format", "json")
    assert cli(*question, "--archive", str(tmp_path / "anew")).json == [{"queue": "mail", "produced": 6}]


async def roll(data: Path) -> None:
    """Open a bucket, as a server does that has filled one."""
    store = SqliteLog(real_env(), data)
    async with open_node({"sqlite": store}, real_env(), NodeOptions(name="n")) as node:
        await node.buckets.roll("sqlite")


def modest_children_of(process: int) -> list[int]:
    """When each has made itself unimportant, which is the first thing that it does."""

    def are_modest() -> bool:
        try:
            found = {os.getpriority(os.PRIO_PROCESS, child) for child in children_of(process)}
        except ProcessLookupError:
            return False
        return found == {19}

    wait_until(are_modest, "its children leave all to others")
    return children_of(process)


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_a_server_that_is_killed_takes_its_children_with_it_and_goes_on_exporting(
    cli: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    options = ("--data", str(data), "--export-interval", "1")
    children: list[int] = []
    for life in range(2):
        served = start(*options)
        on = ("--address", served.address)
        cli("queues", "create", "mail", "--exist-ok", *on)
        for number in range(4):
            cli("produce", "mail", *on, stdin=b"a\nb\nc\n")
            if number == 2:
                # Somewhere in an export, or between two.
                time.sleep(0.4 * life)
                cli("analytics", "ask", "throughput", "mail", *on)
        children += modest_children_of(served.process.pid)
        served.process.kill()
        served.process.wait()
    assert len(children) >= 2
    wait_until(lambda: not any(is_there(child) for child in children), "no child outlives its server")
    archive = ("--archive", str(data / "analytics"))
    assert cli("analytics", "refresh", "--data", str(data)).code == 0
    assert cli("analytics", "verify", *archive).code == 0
    counted = cli("analytics", "sql", "SELECT produced FROM queues", "--format", "json", *archive)
    assert counted.json == [{"produced": 2 * 4 * 3}]
