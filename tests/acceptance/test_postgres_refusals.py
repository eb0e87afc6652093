"""A database that would not keep what is acknowledged is refused by the server, or shows that it is used."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from querator.env.real import real_env
from querator.errors import ConfigError
from querator.log.postgres import PostgresLog
from querator.log.postgres.checks import UNSAFE_DURABILITY, UNSAFE_ROLE
from tests.acceptance.test_postgres_server import querator, url
from tests.blackbox.ownership import owns
from tests.blackbox.processes import Server, until
from tests.blackbox.test_ownership import http_get
from tests.postgres import APP_ROLE, OWNER_ROLE, Cluster, prepare

CONFIG = 78


@pytest.fixture
def careless() -> Iterator[Cluster]:
    """A server that would lose acknowledged items in a crash."""
    made = Cluster.create()
    made.start({"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"})
    prepare(made)
    yield made
    made.destroy()


def serve(log: str, data: Path, *more: str) -> str:
    """What a server says that does not start for its settings' sake."""
    done = querator("serve", "--log", log, "--data", str(data), "--address", "127.0.0.1:0", *more)
    assert done.returncode == CONFIG, done.stderr
    return done.stderr.decode()


async def test_each_fault_is_refused_or_accepted_by_its_flag_and_shown(
    careless: Cluster, tmp_path: Path
) -> None:
    log = url(careless, "querator_template", OWNER_ROLE)
    refused = serve(log, tmp_path / "data")
    for word in ("fsync is off", "full_page_writes is off", "synchronous_commit is off", OWNER_ROLE):
        assert word in refused
    assert "--unsafe-durability" in refused
    assert "--unsafe-role" in refused
    still = serve(log, tmp_path / "data", "--unsafe-durability")
    assert "fsync" not in still
    assert f"role {OWNER_ROLE}" in still
    assert "the server is a standby: connect to the primary" in await refusal_of_a_standby(careless)
    server = Server(log, tmp_path, options=("--unsafe-durability", "--unsafe-role"))
    try:
        await server.start_surely()
        await until("it owns", lambda: owns(server))
        health = await server.health()
        assert health is not None
        assert health[0] == 200
        for word in ("accepted by --unsafe-durability: fsync is off", "accepted by --unsafe-role: role"):
            assert word in health[1]
        warnings = [line for line in server.lines() if line["event"] == "log.unsafe"]
        assert [line["level"] for line in warnings] == ["warning"] * 4
        _, metrics = await http_get(server, "/metrics")
        for fault in ("fsync", "full_page_writes", "synchronous_commit", "role"):
            assert f'querator_unsafe{{fault="{fault}"}} 1.0' in metrics
    finally:
        server.end()


async def refusal_of_a_standby(cluster: Cluster) -> str:
    """Nothing accepts it."""
    twin = cluster.copy()
    twin.start()
    try:
        unsafe = frozenset((UNSAFE_DURABILITY, UNSAFE_ROLE))
        return await refusal(PostgresLog(real_env(), twin.dsn("querator_template"), unsafe=unsafe))
    finally:
        twin.destroy()


async def refusal(log: PostgresLog) -> str:
    with pytest.raises(ConfigError) as caught:
        await log.open()
    return str(caught.value)


async def test_a_schema_of_another_version_is_refused_with_what_to_do(
    cluster: Cluster, database: str
) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    with cluster.admin(database) as admin:
        admin.execute(
            "create temp table last as select * from querator.migration order by number desc limit 1"
        )
        admin.execute("update last set number = 9999")
        admin.execute("insert into querator.migration select * from last")
        assert "newer than this version: use the version that upgraded it" in await refusal(log)
        admin.execute("delete from querator.migration where number > 1")
        assert "older than this version: run `querator db upgrade`" in await refusal(log)


@pytest.mark.parametrize("way", ["variables", "file"])
def test_where_the_database_is_may_come_from_elsewhere(
    cluster: Cluster, database: str, tmp_path: Path, way: str
) -> None:
    """From libpq's variables, where the URL says nothing, or from a file that holds the URL."""
    arguments: list[str] = []
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "QUERATOR_"))}
    if way == "variables":
        arguments = ["--log", "postgresql://"]
        environ |= {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(cluster.port),
            "PGDATABASE": database,
            "PGUSER": APP_ROLE,
        }
    else:
        secret = tmp_path / "log-url"
        secret.write_text(url(cluster, database, APP_ROLE) + "\n")
        environ["QUERATOR_LOG_FILE"] = str(secret)
    done = subprocess.run(
        [sys.executable, "-m", "querator", "db", "verify", *arguments],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"role {APP_ROLE}" in done.stdout


def test_a_password_is_not_told_when_nobody_answers(tmp_path: Path) -> None:
    log = "postgresql://somebody:a-secret-password@127.0.0.1:1/db"
    for command in (("serve", "--address", "127.0.0.1:0", "--data", str(tmp_path)), ("db", "verify")):
        done = querator(*command, "--log", log)
        assert done.returncode != 0
        assert b"127.0.0.1" in done.stderr
        assert b"a-secret-password" not in done.stdout + done.stderr
