"""A real server in a process of its own, and commands run in this one."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from querator.cli import main
from tests.ports import free_port

PATIENCE = 100
"""Seconds for what takes one or two on an idle machine."""


@attrs.define
class Done:
    """A command that has run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """Its output, a document a line."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@attrs.define
class Served:
    process: subprocess.Popen[bytes]
    address: str


def start(*options: str) -> Served:
    """A server that answers."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "querator", "serve", "--address", address, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout as out:
        ready = out.readline()
    assert msgspec.json.decode(ready)["address"] == address
    return Served(process, address)


def stop(served: Served) -> None:
    served.process.terminate()
    try:
        served.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        served.process.kill()
        raise


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    served = start("--log", "memory")
    yield served
    stop(served)


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those that a test makes."""
    for name in list(os.environ):
        if name.startswith("QUERATOR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command here: ``cli("queues", "list")``, with ``stdin=`` bytes."""

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        source = tmp_path / "stdin"
        source.write_bytes(stdin)
        with source.open("rb") as file:
            monkeypatch.setattr(sys, "stdin", file)
            capfdbinary.readouterr()
            code = main(arguments)
        captured = capfdbinary.readouterr()
        return Done(code, captured.out.decode(errors="surrogateescape"), captured.err.decode())

    return run


@pytest.fixture
def on(cli: Run, server: Served) -> Run:
    """The same, on the server."""

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        return cli(*arguments, "--address", server.address, stdin=stdin)

    return run


@pytest.fixture
def queue(on: Run, request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    name: str = request.node.name.replace("[", "-").replace("]", "").replace(" ", "-")
    made = on("queues", "create", name)
    assert made.code == 0, made.err
    return name


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """For what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it took too long until {what}"
        with contextlib.suppress(InterruptedError):
            time.sleep(0.02)


def children_of(process: int) -> list[int]:
    """The living processes that one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == process and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found
