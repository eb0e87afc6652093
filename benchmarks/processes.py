"""Processes of a benchmark: a server on a fresh log, and workers; what they cost and take."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from querator.client import connect
from tests.ports import free_port

QUEUE = "bench"
_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS_MAX = 60.0
_START_SECONDS_MAX = 60.0
"""For a server to answer; one or two on an idle machine."""


def cpu_seconds(pid: int) -> float:
    """User and system CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@attrs.define
class Server:
    """A running ``querator serve``."""

    process: subprocess.Popen[bytes]
    address: str
    data: Path

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def resident(self) -> int:
        return resident_bytes(self.process.pid)

    def call(self, *arguments: str) -> Any:
        """Run a CLI command against it; its JSON."""
        command = [sys.executable, "-m", "querator", *arguments, "--address", self.address, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(data: Path, port: int, *more: str) -> Server:
    """Start a server and wait until it answers."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "querator",
            "serve",
            "--data",
            str(data),
            "--address",
            f"127.0.0.1:{port}",
            *more,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if "QUERATOR_BENCH_VERBOSE" not in os.environ else None,
    )
    try:
        _wait_ready(process, port)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(process, f"127.0.0.1:{port}", data)


def _wait_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as probe:
                probe.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in probe.recv(4096)[:20]:
                    return
        except OSError:
            pass
        if process.poll() is not None:
            raise RuntimeError(f"the server exited with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server did not answer within {_START_SECONDS_MAX:g} s")
        time.sleep(0.02)


async def _create_queue(address: str) -> None:
    """An empty queue, also in a database where an earlier round left one."""
    async with connect(address, client="bench") as client:
        there = await client.call("queues.list", {"pivot": QUEUE, "limit": 1})
        if any(queue["name"] == QUEUE for queue in there["queues"]):
            await client.call("queues.delete", {"name": QUEUE})
        await client.call("queues.create", {"name": QUEUE})


@contextmanager
def server(*more: str) -> Iterator[Server]:
    """A server on a data directory of its own, with an empty queue ``bench``."""
    with tempfile.TemporaryDirectory(prefix="querator-bench-") as directory:
        running = start_server(Path(directory) / "data", free_port(), *more)
        try:
            trio.run(_create_queue, running.address)
            yield running
        finally:
            running.stop()


def queue_names(queues: int) -> list[str]:
    """Of a benchmark with so many queues."""
    return [QUEUE] if queues == 1 else [f"{QUEUE}-{number}" for number in range(queues)]


def start_worker(side: str, module: str = "benchmarks.worker", **options: object) -> subprocess.Popen[str]:
    """Start a worker with these options (``True``: a flag)."""
    command = [sys.executable, "-m", module, side]
    for name, value in options.items():
        if value is True:
            command.append(f"--{name}")
        elif value is not False:
            command += [f"--{name}", str(value)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON line of a worker that ended."""
    output, _ = worker.communicate(timeout=120)
    if worker.returncode:
        raise RuntimeError(f"a worker exited with {worker.returncode}")
    parsed: dict[str, Any] = json.loads(output.splitlines()[-1])
    return parsed
