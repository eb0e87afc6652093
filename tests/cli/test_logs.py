"""``log show`` and ``log verify``: a server's log, once it has stopped."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start, stop


@pytest.fixture
def data(tmp_path: Path, cli: Run) -> Iterator[Path]:
    """The directory of a server that did something and was stopped."""
    directory = tmp_path / "data"
    served = start("--data", str(directory))
    try:
        cli("queues", "create", "q", "--address", served.address)
        cli("produce", "q", "--address", served.address, stdin=b"a\nb\nc\n")
        cli("consume", "q", "--max", "1", "--address", served.address)
        locked = cli("log", "verify", "--data", str(directory))
        assert locked.code == 73
        assert "in use" in locked.err
    finally:
        stop(served)
    return directory  # type: ignore[return-value] # a fixture without an end of its own


def test_a_good_log(cli: Run, data: Path) -> None:
    done = cli("log", "verify", "--data", str(data))
    assert done.code == 0, done.err
    assert "the log is good" in done.err
    (verdict,) = cli("log", "verify", "--data", str(data), "--json").json
    assert verdict["ok"]
    catalog, partition = verdict["partitions"]
    assert catalog["partition"] == 0
    counts = {name: partition[name] for name in ("produced", "completed", "ready", "reserved", "dead")}
    assert counts == {"produced": 3, "completed": 1, "ready": 2, "reserved": 0, "dead": 0}
    assert partition["snapshots"] == 1


def test_a_flipped_bit_is_found_and_the_record_named(cli: Run, data: Path) -> None:
    (file,) = sorted(data.glob("*.db"), key=lambda path: "snapshots" in path.name)[:1]
    with sqlite3.connect(file) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        table = next(name for name in tables if "record" in name)
        changed = connection.execute(
            f"UPDATE {table} SET events = CAST(events || x'00' AS BLOB) WHERE partition = 1 AND position = 2"  # noqa: S608
        )
        assert changed.rowcount == 1
    connection.close()
    done = cli("log", "verify", "--data", str(data), "--json")
    assert done.code == 65
    partition = done.json[0]["partitions"][1]
    assert not partition["ok"]
    assert partition["bad"] == 2
    text = cli("log", "verify", "--data", str(data))
    assert text.code == 65
    assert "BAD" in text.out
    assert "record 2 of partition 1" in text.out


def test_show_tells_every_event(cli: Run, data: Path) -> None:
    done = cli("log", "show", "--data", str(data), "--partition", "1")
    assert done.code == 0
    for word in ("record 1 of partition 1", "claimed by", "produced", "reserved", "completed"):
        assert word in done.out
    lines = cli("log", "show", "--data", str(data), "--partition", "1", "--json").json
    assert [line["event"] for line in lines if line["position"] == 2] == ["ItemsProduced"]
    limited = cli(
        "log", "show", "--data", str(data), "--partition", "1", "--from", "2", "--limit", "1", "--json"
    )
    assert {line["position"] for line in limited.json} == {2}


def test_an_unknown_partition_is_named(cli: Run, data: Path) -> None:
    done = cli("log", "show", "--data", str(data), "--partition", "7")
    assert done.code == 2
    assert "0, 1" in done.err
