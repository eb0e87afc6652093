"""The server on PostgreSQL as an operator meets it: it refuses, says what to do, and that works."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg import sql

from benchmarks.processes import start_server
from tests.acceptance.calls import PATIENCE
from tests.ports import free_port
from tests.postgres import APP_ROLE, OWNER_ROLE, Cluster


def querator(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "querator", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=PATIENCE)


def url(cluster: Cluster, database: str, role: str) -> str:
    return f"postgresql://{role}@127.0.0.1:{cluster.port}/{database}"


@pytest.fixture
def database(cluster: Cluster) -> str:
    name = cluster.new_database()
    with cluster.admin() as admin:
        owner = sql.SQL("alter database {} owner to {}")
        admin.execute(owner.format(sql.Identifier(name), sql.Identifier(OWNER_ROLE)))
    return name


def test_from_an_empty_database_to_items_that_outlive_a_kill(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    """Each step is what the one before advised."""
    as_app, as_owner = (url(cluster, database, role) for role in (APP_ROLE, OWNER_ROLE))
    data, port = tmp_path / "data", free_port()
    serve = ("serve", "--log", as_app, "--data", str(data), "--address", f"127.0.0.1:{port}")
    refused = querator(*serve)
    assert refused.returncode == 78, refused.stderr
    assert b"querator db install" in refused.stderr
    unready = querator("db", "verify", "--log", as_app, "--json")
    assert unready.returncode == 78
    installed = querator("db", "install", "--log", as_owner, "--role", APP_ROLE, "--json")
    assert installed.returncode == 0, installed.stderr
    assert json.loads(installed.stdout)["applied"]
    assert querator("db", "install", "--log", as_owner, "--role", APP_ROLE).returncode == 0
    verified = querator("db", "verify", "--log", as_app, "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["faults"] == []
    too_powerful = querator("db", "verify", "--log", as_owner, "--json")
    assert too_powerful.returncode == 78
    assert "role" in too_powerful.stdout.decode()

    server = start_server(data, port, "--log", as_app)
    try:
        server.call("queues", "create", "mail")
        produced = querator("produce", "mail", "--address", server.address, given=b"one\ntwo\nthree\n")
        assert produced.returncode == 0, produced.stderr
        first = querator("consume", "mail", "--max", "1", "--address", server.address)
        assert first.stdout == b"one\n", first.stderr
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server = start_server(data, port, "--log", as_app)
        rest = querator("consume", "mail", "--max", "2", "--address", server.address)
        assert rest.stdout == b"two\nthree\n", rest.stderr
    finally:
        server.stop()
    checked = querator("log", "verify", "--log", as_app, "--data", str(data), "--json")
    assert checked.returncode == 0, checked.stderr
    (queue,) = [entry for entry in json.loads(checked.stdout)["partitions"] if entry["partition"]]
    assert (queue["produced"], queue["completed"]) == (3, 3)


def test_the_script_of_the_schema_is_the_same_every_time() -> None:
    """So that it can be kept beside other migrations, and compared."""
    first, second = querator("db", "sql"), querator("db", "sql")
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert b"create" in first.stdout


def test_without_a_database_it_says_which_setting_is_missing() -> None:
    refused = querator("db", "install")
    assert refused.returncode == 2
    assert b"--log postgresql://" in refused.stderr
