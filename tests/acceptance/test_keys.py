"""Keys on a real server with its data on disk: what is stored of them, and what a restart changes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import start_server
from tests.acceptance.calls import PATIENCE, ask, call, with_a_key
from tests.ports import free_port


def test_a_closed_door_stays_closed_and_no_key_is_on_the_disk(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    server = start_server(data, port, "--auth")
    try:
        key = with_a_key(server)
        for number in (signal.SIGTERM, signal.SIGKILL):
            server.process.send_signal(number)
            server.process.wait(PATIENCE)
            server = start_server(data, port, "--auth")
            assert ask(server, "POST", "/v1/users.list", b"{}")[0] == 403
            assert len(call(server, "users.list", key=key)["items"]) == 2
    finally:
        server.stop()
    secret = key.split("-")[2]
    public = secret[:8]
    stored = [path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()]
    assert any(public.encode() in content for content in stored), "its prefix is what finds it"
    assert not any(secret[8:].encode() in content for content in stored)


ELSEWHERE = "192.0.2.1:2319"
"""For documentation only (RFC 5737): nobody can listen there, so that nothing is opened by these tests."""


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 78, "--insecure"),
        (["--auth"], 1, "warning: clients of 192.0.2.1:2319 send their API keys without TLS"),
        (["--insecure"], 1, "cannot serve"),
    ],
    ids=["open", "auth", "insecure"],
)
def test_a_server_does_not_open_itself_to_the_network(
    options: list[str], code: int, says: str, tmp_path: Path
) -> None:
    """Not without being told; then it tries."""
    serve = [sys.executable, "-m", "querator", "serve", "--log", "memory", "--data", str(tmp_path)]
    tried = subprocess.run(
        [*serve, "--address", ELSEWHERE, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert tried.returncode == code, tried.stderr
    assert tried.stdout == ""
    assert says in tried.stderr
    assert ("without TLS" in tried.stderr) is (options == ["--auth"])
    assert ("cannot serve" in tried.stderr) is (code == 1)
