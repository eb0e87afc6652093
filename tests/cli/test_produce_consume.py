"""Lines in, lines out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from querator.cli.exits import Exit
from querator.core import limits
from tests.cli.conftest import PATIENCE, Run, Served, start, stop, wait_until


def test_lines_come_out_as_they_went_in(on: Run, queue: str) -> None:
    text = "first\n\n  spaces \nwith\ttab\nünïcode\r\nlast without end"
    done = on("produce", queue, stdin=text.encode())
    assert done.code == 0
    assert done.out == ""
    assert "produced 6 items" in done.err
    assert on("consume", queue).out == text + "\n"


def test_bytes_that_are_no_text_survive(on: Run, queue: str) -> None:
    raw = bytes(range(11, 256))
    on("produce", queue, stdin=raw)
    assert on("consume", queue).out.encode(errors="surrogateescape") == raw + b"\n"
    on("produce", queue, stdin=raw)
    assert "base64" in on("consume", queue, "--json").json[0]["payload"]


def test_many_lines_in_order_from_files_and_standard_input(on: Run, queue: str, tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(25_000)]
    (tmp_path / "one").write_text("\n".join(lines[:10_000]) + "\n")
    (tmp_path / "two").write_text("\n".join(lines[20_000:]))
    middle = ("\n".join(lines[10_000:20_000]) + "\n").encode()
    done = on("produce", queue, "one", "-", "two", "--json", stdin=middle)
    assert sum(receipt["count"] for receipt in done.json) == 25_000
    assert done.json[0] == {
        "partition": done.json[0]["partition"],
        "first": 1,
        "count": done.json[0]["count"],
    }
    assert on("consume", queue).out.splitlines() == lines


def test_max_takes_no_more(on: Run, queue: str) -> None:
    on("produce", queue, stdin=b"a\nb\nc\nd\n")
    for follow in ((), ("--follow",)):
        assert len(on("consume", queue, "--max", "2", *follow).out.splitlines()) == 2
    assert on("consume", queue).out == ""


@pytest.mark.parametrize("options", [("--max", "1"), (), ("--exec", "cat")])
def test_a_paused_queue_is_told_of(on: Run, queue: str, options: tuple[str, ...]) -> None:
    on("produce", queue, stdin=b"a\n")
    on("queues", "pause", queue)
    done = on("consume", queue, *options)
    assert (done.code, done.out) == (Exit.PAUSED, "")
    assert f"{queue} is paused" in done.err
    if "--exec" not in options:
        done = on("consume", queue, "--json", *options)
        assert (done.code, done.json) == (Exit.PAUSED, [{"queue": queue, "paused": True}])
    on("queues", "resume", queue)
    done = on("consume", queue, *options)
    assert (done.code, done.out.strip()) == (0, "a")


def test_a_follower_of_a_paused_queue_says_so_and_waits(on: Run, server: Served, queue: str) -> None:
    on("produce", queue, stdin=b"a\n")
    on("queues", "pause", queue)
    command = ("consume", queue, "--follow", "--max", "1", "--address", server.address)
    following = subprocess.Popen(
        [sys.executable, "-m", "querator", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert following.stderr is not None
    with following:
        assert b"is paused: waiting" in following.stderr.readline()
        on("queues", "resume", queue)
        out, _ = following.communicate(timeout=PATIENCE)
    assert (following.returncode, out) == (0, b"a\n")


def test_json_lines_carry_attributes(on: Run, queue: str) -> None:
    source = b"""
    {"payload": "text", "key": "a", "kind": "k", "reference": "r", "headers": {"h": "1"}}
    {"payload": {"a": [1, 2]}, "key": "b", "encoding": "json"}
    {"payload": "again", "dedupe_key": "d"}
    {"payload": "again", "dedupe_key": "d"}
    {"payload": "later", "delay": "1h"}
    {"payload": null, "at": "2020-01-01T00:00:00Z", "attempts_max": 3, "reservation_timeout": "5s"}
    """
    done = on("produce", queue, "--jsonl", stdin=source)
    assert done.code == 0, done.err
    assert "1 of them were there already" in done.err
    items = on("consume", queue, "--json").json
    assert items[0] == {
        "id": items[0]["id"],
        "payload": "text",
        "attempt": 1,
        "key": "a",
        "kind": "k",
        "reference": "r",
        "headers": {"h": "1"},
    }
    assert [item["payload"] for item in items] == ["text", '{"a":[1,2]}', "again", "null"]
    (report,) = on("stats", queue, "--json").json
    assert report["partitions"][0]["scheduled"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", ["not JSON"]),
        (b"\xff", ["not JSON"]),
        (b"[]", ["payload"]),
        (b'{"key": "a"}', ["payload"]),
        (b'{"payload": 1, "bogus": 2}', ["bogus", "dedupe_key"]),
        (b'{"payload": 1, "key": 2}', ["key", "2 is not a string"]),
        (b'{"payload": 1, "headers": {"a": 1}}', ["headers"]),
        (b'{"payload": 1, "attempts_max": "5"}', ["attempts_max", "'5' is not a number"]),
        (b'{"payload": 1, "delay": "soon"}', ["delay", "soon"]),
        (b'{"payload": 1, "delay": "1s", "at": 5}', ["delay or at"]),
    ],
)
def test_a_bad_json_line_is_named_and_what_came_before_is_in(
    on: Run, server: Served, line: bytes, words: list[str]
) -> None:
    on("queues", "create", "bad-lines", "--exist-ok")
    done = on(
        "produce", "bad-lines", "--jsonl", "--batch", "1", stdin=b'{"payload": "good"}\n' + line + b"\n"
    )
    assert done.code == 65
    assert "line 2: " in done.err
    for word in words:
        assert word in done.err
    assert on("consume", "bad-lines").out == "good\n"


def test_a_line_that_is_too_long_is_named(on: Run, queue: str) -> None:
    done = on("produce", queue, stdin=b"short\n" + b"x" * (limits.PAYLOAD_BYTES_MAX + 1) + b"\nmore\n")
    assert done.code == 65
    assert "line 2: longer than the 262144 bytes" in done.err


def test_files_become_items(on: Run, queue: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo\n")
    (tmp_path / "b").write_bytes(b"")
    assert on("produce", queue, "a", "b", "--files").code == 0
    items = on("consume", queue, "--json").json
    assert [(item["payload"], item["reference"]) for item in items] == [("one\ntwo\n", "a"), ("", "b")]
    assert on("produce", queue, "--files", stdin=b"a\nb\n").code == 0
    missing = on("produce", queue, "--files", stdin=b"a\nc\n")
    assert missing.code == 1
    assert "c: cannot be read" in missing.err


def test_the_exit_code_of_a_command_decides(on: Run, queue: str) -> None:
    on("queues", "update", queue, "--backoff-base", "1h")
    on("produce", queue, stdin=b"0\n65\n69\n75\n1\n")
    script = 'read code; echo "$QUERATOR_ITEM $code" ; echo "says $code" >&2; exit $code'
    done = on("consume", queue, "--exec", script, "--max", "5")
    assert done.code == 0
    assert [line.split()[1] for line in done.out.splitlines()] == ["0", "65", "69", "75", "1"]
    assert "1 completed, 2 to be retried, 1 released, 1 dead" in done.err
    (dead,) = on("dead", "list", queue, "--json").json
    assert (dead["payload"], dead["reason"]) == ("65", "says 65")
    assert on("consume", queue, "--json").json[0] | {"id": ""} == {"id": "", "payload": "69", "attempt": 1}


@pytest.mark.parametrize("follow", [False, True])
def test_commands_run_side_by_side(on: Run, queue: str, follow: bool, tmp_path: Path) -> None:
    """Each waits for the other two, so that they end only if all three run at a time."""
    on("produce", queue, stdin=b"1\n2\n3\n")
    script = (
        f"read n; touch {tmp_path}/$n; "
        f"while [ ! -e {tmp_path}/1 -o ! -e {tmp_path}/2 -o ! -e {tmp_path}/3 ]; do sleep 0.01; done"
    )
    options = ("--follow",) if follow else ()
    assert on("consume", queue, "--exec", script, "--jobs", "3", "--max", "3", *options).code == 0
    assert on("stats", queue, "--json").json[0]["partitions"][0]["completed"] == 3


def test_what_several_jobs_are_told_is_said_once(on: Run) -> None:
    done = on("consume", "no-such-queue", "--exec", "true", "--jobs", "3")
    assert done.code == 3
    assert done.err.count("there is no queue named 'no-such-queue'") == 1
    assert "Traceback" not in done.err


def test_dead_items_are_listed_and_come_back(on: Run, queue: str) -> None:
    on("produce", queue, stdin=b"a\nb\nc\n")
    on("consume", queue, "--exec", "exit 65")
    listed = on("dead", "list", queue).out.splitlines()
    assert listed[0].split() == ["ITEM", "PRODUCED", "ATTEMPTS", "REASON", "PAYLOAD"]
    assert len(listed) == 4
    items = on("dead", "list", queue, "--json", "--limit", "2").json
    assert len(items) == 2
    assert on("dead", "redrive", queue, items[1]["id"], "--json").json == [{"redriven": 1}]
    assert on("consume", queue).out == "b\n"
    assert on("dead", "redrive", queue, "--json").json == [{"redriven": 2}]
    assert on("consume", queue).out == "a\nc\n"
    assert on("dead", "list", queue).err == f"nothing is dead in {queue}\n"
    assert on("queues", "create", "taker").code == 0
    assert on("queues", "update", queue, "--dead-queue", "taker").code == 0
    assert on("dead", "list", queue).err == f"nothing is dead in {queue}: what dies there goes on to taker\n"


def test_what_a_dead_queue_took_is_sent_home(on: Run, queue: str) -> None:
    morgue = f"{queue}-morgue"
    on("queues", "create", morgue)
    on("queues", "update", queue, "--dead-queue", morgue)
    on("produce", morgue, stdin=b"own\n")
    on("produce", queue, stdin=b"a\nb\nc\n")
    on("consume", queue, "--exec", "exit 65")

    def arrived() -> int:
        return sum(row["idle"] for row in on("dead", "homes", morgue, "--json").json)

    wait_until(lambda: arrived() == 3, "the dead to arrive in the dead queue")
    (home,) = on("dead", "homes", morgue, "--json").json
    assert (home["home_queue"], home["reserved"]) == (queue, 0)
    assert on("dead", "homes", morgue).out.split()[-4:] == [queue, str(home["home"]), "3", "0"]
    assert on("dead", "homes", queue).err == f"nothing in {queue} came from another queue\n"
    assert on("dead", "redrive", morgue).err.splitlines() == [
        f"redrove 0 items of {morgue}",
        f"3 items wait there that were dead in {queue}: --home sends them back",
    ]
    assert on("dead", "redrive", morgue, "--home", "--from", "nowhere").code == Exit.REJECTED
    done = on("dead", "redrive", morgue, "--home", "--from", queue, "--limit", "2", "--json")
    assert done.json == [{"redriven": 2, "reserved": 0, "stranded": 0}]
    wait_until(
        lambda: on("stats", queue, "--json").json[0]["partitions"][0]["ready"] == 2, "two to come home"
    )
    assert on("consume", queue, "--max", "2").out == "a\nb\n"
    assert on("dead", "redrive", morgue, "--home").err == f"sent 1 items of {morgue} home\n"
    wait_until(
        lambda: on("stats", queue, "--json").json[0]["partitions"][0]["ready"] == 1, "the last to come home"
    )
    assert on("consume", queue).out == "c\n"
    assert on("dead", "redrive", morgue, "1.999", "--home").code == Exit.REJECTED
    assert on("consume", morgue).out == "own\n"


def test_an_items_history(on: Run, queue: str) -> None:
    on("produce", queue, stdin=b"a\n")
    (item,) = on("consume", queue, "--json").json
    done = on("item", "trace", item["id"])
    words = [line.strip().split("  ")[-1].strip() for line in done.out.splitlines()]
    assert words[0] == f"ITEM {item['id']}"
    assert words[1] == "produced"
    assert words[2].startswith("reserved by session ")
    assert words[3] == "completed"
    (history,) = on("item", "trace", f"{queue}:{item['id']}", "--json").json
    assert [step["what"] for step in history["steps"]] == ["produced", "reserved", "completed"]
    assert on("item", "trace", "999.1").code == 3


def test_an_item_is_followed_until_it_is_done_with(on: Run, server: Served, queue: str) -> None:
    (receipt,) = on("produce", queue, "--json", stdin=b"a\n").json
    item = f"{receipt['partition']}.{receipt['first']}"
    following = subprocess.Popen(
        [sys.executable, "-m", "querator", "item", "trace", item, "--follow", "--address", server.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    with following.stdout as out:
        assert "ITEM" in out.readline()
        assert "produced" in out.readline()
        on("consume", queue)
        rest = out.read()
    assert following.wait(PATIENCE) == 0
    assert ["reserved" in rest, "completed" in rest] == [True, True]
    assert on("item", "trace", item, "--follow").out.count("\n") == 4


def test_one_item_as_it_stands(on: Run, queue: str) -> None:
    (receipt,) = on("produce", queue, "--json", "--key", "k", stdin=b"hello\n").json
    shown = on("item", "show", f"{receipt['partition']}.{receipt['first']}")
    assert shown.code == 0, shown.err
    assert "hello" in shown.out
    assert "ready" in shown.out


def test_produce_and_consume_outlive_the_server(tmp_path: Path, cli: Run) -> None:
    """Killed without warning in the middle, started again: every line comes out, none is completed twice."""
    data = str(tmp_path / "data")
    served = start("--data", data)
    address = served.address
    try:
        assert cli("queues", "create", "q", "--address", address).code == 0
        # A pipe that stays open: the commands are alive while the server is not.
        command = [sys.executable, "-m", "querator"]
        producer = subprocess.Popen(
            [*command, "produce", "q", "--address", address], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        consumed = tmp_path / "out"
        with consumed.open("wb") as out:
            consumer = subprocess.Popen(
                [*command, "consume", "q", "--follow", "--address", address],
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
        assert producer.stdin is not None
        producer.stdin.write(b"before\n")
        producer.stdin.flush()
        wait_until(lambda: consumed.read_bytes() == b"before\n", "the first line came out")
        served.process.kill()
        served.process.wait()
        producer.stdin.write(b"meanwhile\n")
        producer.stdin.close()
        served = start_again(address, data)
        wait_until(lambda: consumed.read_bytes() == b"before\nmeanwhile\n", "the second line came out")
        assert producer.wait(PATIENCE) == 0
        consumer.send_signal(signal.SIGINT)
        assert consumer.wait(PATIENCE) == 130
    finally:
        stop(served)
    (verdict,) = cli("log", "verify", "--data", data, "--json").json
    assert verdict["ok"]
    assert (verdict["partitions"][1]["produced"], verdict["partitions"][1]["completed"]) == (2, 2)


def start_again(address: str, data: str) -> Served:
    process = subprocess.Popen(
        [sys.executable, "-m", "querator", "serve", "--address", address, "--data", data],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Served(process, address)


def test_ctrl_c_gives_back_what_was_not_done(on: Run, queue: str, server: Served, tmp_path: Path) -> None:
    on("produce", queue, stdin=b"a\nb\n")
    begun = tmp_path / "begun"
    consumer = subprocess.Popen(
        [
            *(sys.executable, "-m", "querator", "consume", queue, "--follow", "--address", server.address),
            *("--exec", f"touch {begun}; sleep 1000"),
        ],
        stderr=subprocess.DEVNULL,
    )
    wait_until(begun.exists, "the command ran")
    consumer.send_signal(signal.SIGINT)
    assert consumer.wait(PATIENCE) == 130
    assert on("consume", queue, "--json").json[0]["attempt"] == 1


def test_a_reader_that_has_enough_ends_it_quietly(on: Run, queue: str, server: Served) -> None:
    on("produce", queue, stdin=b"x\n" * 20_000)
    read, write = os.pipe()
    consumer = subprocess.Popen(
        [sys.executable, "-m", "querator", "consume", queue, "--address", server.address],
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert os.read(read, 2) == b"x\n"
    os.close(read)
    _, complaints = consumer.communicate(timeout=PATIENCE)
    assert (consumer.returncode, complaints) == (0, b"")
