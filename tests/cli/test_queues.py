"""Queues, their settings, and their counters."""

import pytest

from tests.cli.conftest import Run


def test_a_queue_from_beginning_to_end(on: Run) -> None:
    made = on("queues", "create", "life", "--json", "--attempts-max", "5", "--reservation-timeout", "90s")
    assert made.code == 0
    assert made.json[0]["attempts_max"] == 5
    assert made.json[0]["reservation_timeout"] == 90_000_000
    assert "life" in on("queues", "list").out
    assert [queue["name"] for queue in on("queues", "list", "--json").json].count("life") == 1
    changed = on(
        *("queues", "update", "life", "--backoff-base", "2s", "--backoff-limit", "1m", "--json"),
        *("--dead-queue", "", "--reference", "mine"),
    )
    assert changed.json[0]["backoff"] | {"jitter": 0} == {
        "base": 2_000_000,
        "factor": 2.0,
        "limit": 60_000_000,
        "jitter": 0,
    }
    info = on("queues", "info", "life").out
    assert "1m30s" in info
    assert "2s, each 2 times longer, at most 1m" in info
    assert on("queues", "pause", "life", "--json").json[0]["paused"] is True
    assert on("queues", "resume", "life", "--json").json[0]["paused"] is False
    gone = on("queues", "delete", "life", "--yes", "--json")
    assert gone.json == [{"deleted": "life"}]
    assert on("queues", "info", "life").code == 3


def test_the_limit_of_attempts_is_said_in_either_order_of_words(on: Run) -> None:
    assert on("queues", "create", "either", "--json", "--max-attempts", "3").json[0]["attempts_max"] == 3
    assert on("queues", "update", "either", "--json", "--attempts-max", "4").json[0]["attempts_max"] == 4


def test_creating_twice_is_refused_unless_that_is_fine(on: Run, queue: str) -> None:
    again = on("queues", "create", queue)
    assert again.code == 3
    assert "queue_exists" in again.err
    assert on("queues", "create", queue, "--exist-ok").code == 0


def test_clear_says_how_many(on: Run, queue: str) -> None:
    on("produce", queue, stdin=b"a\nb\nc\n")
    assert on("queues", "clear", queue, "--ready", "--yes", "--json").json == [{"cleared": 3}]


def test_stats(on: Run, queue: str) -> None:
    on("produce", queue, stdin=b"a\nb\nc\n")
    on("consume", queue, "--max", "1")
    (report,) = on("stats", queue, "--json").json
    assert report["queue"] == queue
    (partition,) = report["partitions"]
    assert (partition["ready"], partition["produced"], partition["completed"]) == (2, 3, 1)
    lines = on("stats", queue).out.splitlines()
    assert lines[0].split()[:3] == ["PARTITION", "READY", "RESERVED"]
    assert lines[1].split()[1] == "2"


def test_several_partitions_have_a_sum(on: Run) -> None:
    on("queues", "create", "wide", "--partitions", "3")
    on("produce", "wide", "--batch", "1", stdin=b"a\nb\nc\nd\n")
    assert on("stats", "wide").out.splitlines()[4].split()[:2] == ["all", "4"]


@pytest.mark.parametrize("command", ["stats", "consume", "produce", "dead list"])
def test_an_unknown_queue_is_named(on: Run, command: str) -> None:
    done = on(*command.split(), "nowhere", stdin=b"x\n")
    assert done.code == 3
    assert "nowhere" in done.err
    assert "unknown_queue" in done.err


def test_output_to_a_pipe_has_no_colours(on: Run, queue: str) -> None:
    for arguments in (("queues", "list"), ("queues", "info", queue), ("queues", "info", "nowhere")):
        done = on(*arguments)
        assert "\x1b" not in done.out + done.err


def test_config_show_names_origins(cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("QUERATOR_ADDRESS", "localhost:99")
    monkeypatch.setenv("QUERATOR_API_KEY", "secret")
    (shown,) = cli("config", "show", "--origin", "--json").json
    assert shown["address"] == {"value": "localhost:99", "origin": "QUERATOR_ADDRESS"}
    assert shown["data"]["origin"] == "default"
    text = cli("config", "show", "--origin")
    assert "QUERATOR_ADDRESS" in text.out
    assert "secret" not in text.out
