"""The promise, end to end: real processes, real files, SIGKILL, and every line comes out exactly once.

Lines go through ``querator produce`` into a queue, two ``querator consume`` take them out, and the
server is killed again and again meanwhile. ``QUERATOR_KILL_LINES`` and ``QUERATOR_KILLS`` make it
longer (``make test-kill``: a million lines).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import Server, start_server
from tests.ports import free_port

LINES = int(os.environ.get("QUERATOR_KILL_LINES", "30000"))
KILLS = int(os.environ.get("QUERATOR_KILLS", "10"))
DEADLINE = 300 + LINES / 2_000
"""Seconds for all of it; far more than it takes."""


def _start(command: list[str], address: str, **more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "querator", *command, "--address", address], **more)  # type: ignore[call-overload,no-any-return]


def _waiting(server: Server) -> int:
    """Items that are not completed yet; -1: the server does not say."""
    done = subprocess.run(
        [sys.executable, "-m", "querator", "stats", "lines", "--json", "--address", server.address],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return -1
    report = json.loads(done.stdout.splitlines()[-1])
    return sum(
        part["ready"] + part["reserved"] + part["scheduled"] + part["dead"] for part in report["partitions"]
    )


@pytest.mark.timeout(int(DEADLINE) + 120)
def test_every_line_comes_out_once_though_the_server_is_killed(tmp_path: Path) -> None:
    """Nothing acknowledged is lost, nothing is completed twice, and the log says so."""
    dice = random.Random(1)
    source = tmp_path / "lines.txt"
    source.write_text(
        "".join(f"line {number:09d} of a text that is long enough to look real\n" for number in range(LINES))
    )
    port = free_port()
    data = tmp_path / "data"
    server = start_server(data, port)
    server.call("queues", "create", "lines")
    outputs = [tmp_path / f"out-{number}.txt" for number in range(2)]
    deadline = time.monotonic() + DEADLINE
    kills = 0
    with source.open("rb") as lines, outputs[0].open("wb") as first, outputs[1].open("wb") as second:
        producer = _start(["produce", "lines"], server.address, stdin=lines, stderr=subprocess.PIPE)
        consumers = [
            _start(["consume", "lines", "--follow"], server.address, stdout=out) for out in (first, second)
        ]
        try:
            while time.monotonic() < deadline:
                if kills < KILLS:
                    time.sleep(dice.uniform(0.2, 0.8))
                    server.process.send_signal(signal.SIGKILL)
                    server.process.wait()
                    server = start_server(data, port)
                    kills += 1
                elif producer.poll() is not None and _waiting(server) == 0:
                    break
                else:
                    time.sleep(0.2)
            assert producer.wait(60) == 0, producer.stderr.read().decode() if producer.stderr else ""
            assert _waiting(server) == 0
        finally:
            for consumer in consumers:
                consumer.send_signal(signal.SIGINT)
            for consumer in consumers:
                consumer.wait(60)
            producer.kill()
            producer.wait()
            if producer.stderr:
                producer.stderr.close()
            server.stop()
    got = [line for out in outputs for line in out.read_text().splitlines()]
    assert dict.fromkeys(got).keys() == dict.fromkeys(source.read_text().splitlines()).keys()
    verified = subprocess.run(
        [sys.executable, "-m", "querator", "log", "verify", "--data", str(data), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    partitions = json.loads(verified.stdout)["partitions"]
    assert sum(part["produced"] for part in partitions) == LINES
    assert sum(part["completed"] for part in partitions) == LINES
    assert kills == KILLS
    print(f"{LINES} lines, {kills} kills, {len(got) - LINES} lines printed again after a kill")
