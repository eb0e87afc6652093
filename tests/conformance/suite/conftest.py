"""The host as a process, on each kind of log in turn, and logical servers of it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.suite.go_client import PATIENCE, Control, Server
from tests.postgres import shared_cluster

LOGS = os.environ.get("QUERATOR_SUITE_LOGS", "memory sqlite postgres").split()
HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a log that is not in memory, only what is marked; unless long tests are asked for."""
    if config.getoption("--long"):
        return
    left_out = [item for item in items if HERE in item.path.parents and not _is_for_ci(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_for_ci(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    log = call.params.get("control", LOGS[0]) if call is not None else LOGS[0]
    return log == LOGS[0] or item.get_closest_marker("every_log") is not None


@pytest.fixture(scope="session", params=LOGS)
def control(request: pytest.FixtureRequest) -> Iterator[Control]:
    """The host as a process, on each kind of log in turn."""
    log: str = request.param
    if log == "postgres":
        cluster = shared_cluster()
        log = f"postgres://postgres@127.0.0.1:{cluster.port}/{cluster.new_database()}"
    command = [sys.executable, "-m", "tests.conformance", "--control", "127.0.0.1:0", "--log", log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("control "), line
        made = Control(line.split()[1])
        yield made
        made.close()
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.fixture(autouse=True)
def stopped(control: Control) -> Iterator[None]:
    """What a test started ends with it."""
    yield
    for server in [*control.servers]:
        server.stop()


@pytest.fixture
def server(control: Control) -> Server:
    """Without auth, on a clock that stands still."""
    return control.new(now=time.time_ns())


@pytest.fixture
def running(control: Control) -> Server:
    """Without auth, on a clock that runs."""
    return control.new()


@pytest.fixture
def guarded(control: Control) -> Server:
    """With auth, on a clock that stands still."""
    return control.new(auth=1, now=time.time_ns())
