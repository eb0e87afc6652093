"""Schemathesis on a real server: requests made from docs/openapi.json, answers held against it.

``schemathesis.toml`` has the settings; whoever runs the tool from this directory gets the same.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import Server, start_server
from querator.api.http.endpoints import ENDPOINTS
from tests.acceptance.calls import ask, call, with_a_key
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
NOT_SURE = {
    "apikeys.delete",
    "namespaces.update",
    "queue.complete",
    "queue.retry",
    "queues.create",
    "rolebindings.create",
    "rolebindings.delete",
    "roles.create",
    "roles.delete",
    "roles.update",
    "users.delete",
    "x/analytics",
    "x/items.trace",
    "x/queue.extend",
    "x/queue.release",
}
"""These need an id, a name or a history that a few words and examples can't guess on a log in memory."""

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server with the queues that the examples speak of, and something in one of them."""
    running: list[Server] = []

    def start(*options: str) -> Server:
        server = start_server(tmp_path / "data", free_port(), "--log", "memory", *options)
        running.append(server)
        for name in ("mail", "spare", "dead"):
            settings: dict[str, Any] = {
                "lease_timeout": "1m",
                "expire_timeout": "24h",
                "requested_partitions": 2,
            }
            call(server, "queues.create", queue_name=name, **settings)
        call(server, "queue.produce", queue_name="mail", request_timeout="5s", items=[{"utf8": "x"}] * 100)
        return server

    yield start
    for server in running:
        server.stop()


def schemathesis(server: Server, directory: Path, *options: str) -> dict[str, Any]:
    """Its report. Nothing that it keeps between runs is kept."""
    shutil.copy(ROOT / "schemathesis.toml", directory)
    report = directory / "report.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        str(ROOT / "docs" / "openapi.json"),
        f"--url=http://{server.address}",
        "--no-color",
        "--report=json",
        f"--report-json-path={report}",
        *options,
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def check_report(report: dict[str, Any], cases: int) -> None:
    assert report["exit_code"] == 0
    assert report["operations"]["tested"] == len(ENDPOINTS)
    assert (report["failures"], report["errors"]) == ([], [])
    assert report["test_cases"]["generated"] >= cases


def accepted(report: dict[str, Any]) -> set[str]:
    """Calls of which a request at least was not only valid but done."""
    return {
        name.removeprefix("POST /v1/")
        for name, phases in report["valid_rates"].items()
        if any(phase["accepted"] for phase in phases.values())
    }


def check_every_call_was_served(server: Server) -> None:
    assert ask(server, "GET", "/health")[0] == 200
    assert server.process.poll() is None


SHORT = ("--generation-deterministic", "--max-examples=5")
LONG = ("--max-examples=100",)


@pytest.mark.timeout(300)  # a tool in a process of its own; some ten seconds where nobody else works
@pytest.mark.parametrize("auth", [False, True], ids=["auth off", "auth on"])
def test_no_request_finds_a_fault(serve: Serve, tmp_path: Path, auth: bool) -> None:
    """What follows from earlier answers (the stateful phase) is tried without keys only: it is the same."""
    options, server = list(SHORT), serve("--auth") if auth else serve()
    if auth:
        phases = "--phases=examples,coverage,fuzzing"
        options += [phases, f"--header=Authorization: Bearer {with_a_key(server)}"]
    report = schemathesis(server, tmp_path, *options)
    check_report(report, cases=700)
    calls = {endpoint.path.removeprefix("/v1/") for endpoint in ENDPOINTS}
    assert calls - accepted(report) <= NOT_SURE
    check_every_call_was_served(server)


def test_a_closed_door_is_as_documented(serve: Serve, tmp_path: Path) -> None:
    server = serve("--auth")
    with_a_key(server)
    report = schemathesis(server, tmp_path, *SHORT, "--phases=examples")
    check_report(report, cases=len(ENDPOINTS))
    assert accepted(report) == set()


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("auth", [False, True], ids=["auth off", "auth on"])
def test_no_request_of_many_finds_a_fault(serve: Serve, tmp_path: Path, auth: bool) -> None:
    options, server = list(LONG), serve("--auth") if auth else serve()
    if auth:
        options.append(f"--header=Authorization: Bearer {with_a_key(server)}")
    check_report(schemathesis(server, tmp_path, *options), cases=4_000)
    check_every_call_was_served(server)
