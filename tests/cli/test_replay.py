"""``log export``, ``replay``, ``at`` and ``diff``: a server's past, once it has stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from querator.cli.main import run
from tests.cli.conftest import Run, start, stop

LATER = "2100-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a server that did something and was stopped."""
    directory = tmp_path_factory.mktemp("past") / "data"
    lines = directory.parent / "lines"
    lines.write_bytes(b"a\nb\nc\n")
    served = start("--data", str(directory))
    try:
        for command in (
            ("queues", "create", "q"),
            ("queues", "create", "wide", "--partitions", "2"),
            ("produce", "q", str(lines)),
            ("consume", "q", "--max", "1"),
        ):
            assert run([*command, "--address", served.address]) == 0
    finally:
        stop(served)
    return directory  # type: ignore[return-value] # a fixture without an end of its own


def test_a_log_is_replayed(cli: Run, data: Path) -> None:
    done = cli("replay", "--data", str(data))
    assert done.code == 0, done.err
    assert "bit for bit" in done.err
    (verdict,) = cli("replay", "--data", str(data), "--partition", "1", "--json").json
    (partition,) = verdict["partitions"]
    assert verdict["ok"]
    assert (partition["produced"], partition["completed"], partition["ready"]) == (3, 1, 2)
    assert partition["snapshots"] == 1


def test_a_capture_is_replayed_elsewhere(cli: Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "captured"
    done = cli("log", "export", str(file), "--data", str(data), "--payloads", "sizes", "--json")
    assert done.code == 0, done.err
    assert done.json[0]["items"] == 3
    (verdict,) = cli("replay", str(file), "--json").json
    assert verdict["ok"]
    assert [partition["partition"] for partition in verdict["partitions"]] == [1, 2, 3]
    steps = cli("replay", str(file), "--partition", "1", "--step")
    for word in ("1.2 ", "claimed by", "produced 3 items", "reserved", "completed"):
        assert word in steps.out
    events = cli("replay", str(file), "--partition", "1", "--step", "--json").json
    assert events[0]["event"] == "Claimed"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    damaged = cli("replay", str(file))
    assert damaged.code == 65
    assert "damaged at byte" in damaged.err or "cannot be read" in damaged.err


def test_an_export_overwrites_nothing(cli: Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "captured"
    file.write_bytes(b"mine")
    done = cli("log", "export", str(file), "--data", str(data))
    assert done.code == 2
    assert "is there already" in done.err
    assert file.read_bytes() == b"mine"
    assert list(tmp_path.glob("*.partial")) == []


def test_a_queue_at_a_moment(cli: Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "captured"
    assert cli("log", "export", str(file), "--data", str(data)).code == 0
    events = cli("replay", str(file), "--partition", "1", "--step", "--json").json
    produced = next(event for event in events if event.get("event") == "ItemsProduced")
    for source in (("--data", str(data)), ("--capture", str(file))):
        (then,) = cli("at", str(produced["position"]), "q", *source, "--json").json
        assert then["partitions"][0]["produced"] == 3
        assert then["partitions"][0]["completed"] == 0
        assert [item["item"] for item in then["partitions"][0]["items"]] == ["1.1", "1.2", "1.3"]
        (never,) = cli("at", "2000-01-01T00:00:00Z", "q", *source, "--json").json
        assert never["partitions"][0]["produced"] == 0
        (change,) = cli("diff", str(produced["position"]), LATER, "q", *source, "--json").json
        assert change["counts"]["completed"] == {"first": 0, "second": 1, "change": 1}
    text = cli("at", LATER, "q", "--data", str(data))
    assert text.code == 0, text.err
    assert "1.3" in text.out
    assert "+1" in cli("diff", str(produced["position"]), LATER, "q", "--data", str(data)).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["at", "noon", "q"], ["noon", "2026-11-24T08:00", "24h", "position"]),
        (["at", "1", "nowhere"], ["nowhere", "q, wide"]),
        (["at", "1", "wide"], ["--partition", "2, 3"]),
        (["at", "1", "q", "--partition", "2"], ["--partition", "1"]),
        (["replay", "--partition", "9"], ["9"]),
        (["log", "export", "x", "--from", "5", "--to", "2", "--partition", "1"], ["--to"]),
        (["log", "export", "x", "--from", "5"], ["--from", "--partition (1, 2, 3)"]),
        (["log", "export", "x", "--to", "5", "--queue", "wide"], ["--to", "--partition (2, 3)"]),
        (["log", "export", "x", "--from", "-1"], ["--from"]),
        (["log", "export", "x", "--from", "yesterday"], ["--from", "yesterday", "24h"]),
        (["log", "export", "x", "--from", "1h", "--to", "5"], ["two times or two positions"]),
        (["log", "export", "x", "--from", "1h", "--to", "2h"], ["--to", "before"]),
        (["log", "export", "x", "--queue", "nowhere"], ["nowhere", "q, wide"]),
        (["log", "export", "x", "--queue", "q", "--partition", "1"], ["not both"]),
    ],
)
def test_what_makes_no_sense_is_said(cli: Run, data: Path, arguments: list[str], words: list[str]) -> None:
    done = cli(*arguments, "--data", str(data))
    assert done.code == 2, done.err
    for word in words:
        assert word in done.err


def test_a_stretch_of_time_of_one_queue_is_taken_along(cli: Run, data: Path, tmp_path: Path) -> None:
    for option, records in ((("--from", "1h"), 4), (("--to", "1h"), 0), (("--from", LATER), 0)):
        file = str(tmp_path / f"{option[0]}-{option[1]}.capture")
        done = cli("log", "export", file, "--data", str(data), "--queue", "q", *option, "--json")
        assert (done.code, done.json[0]["records"] >= records) == (0, True), done.err
        assert bool(done.json[0]["records"]) is bool(records)
        (verdict,) = cli("replay", file, "--json").json
        assert verdict["ok"]
        assert [partition["partition"] for partition in verdict["partitions"]] == [1] * (option[0] != "--to")


def test_a_capture_that_is_not_there_or_not_asked_for_so_late_is_said(
    cli: Run, data: Path, tmp_path: Path
) -> None:
    for command in (("replay",), ("simulate",), ("at", "1", "q", "--capture")):
        refused = cli(*command, str(tmp_path / "nowhere"))
        assert refused.code == 2
        assert "No such file" in refused.err
    capture = str(tmp_path / "taken.capture")
    assert cli("log", "export", capture, "--data", str(data)).code == 0
    for moment in (LATER, "999999"):
        done = cli("at", moment, "q", "--capture", capture)
        assert (done.code, "the capture ends" in done.err) == (0, True)
    within = cli("at", "1", "q", "--capture", capture)
    assert (within.code, within.err) == (0, "")
    page = tmp_path / "no" / "where.html"
    refused = cli("simulate", capture, "--queue", "q", "--html", str(page))
    assert (refused.code, "there is no directory" in refused.err) == (2, True)
