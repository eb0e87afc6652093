"""The contract behind pgbouncer in transaction mode: each statement may be another session's."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from querator.env.real import real_env
from querator.log.line import Role
from querator.log.postgres import PostgresLog
from querator.log.store import LogStore
from tests.log.log_contract import LogContract, LogHarness
from tests.log.test_postgres_log import PostgresHarness
from tests.ports import free_port
from tests.postgres import APP_ROLE, START_SECONDS_MAX, Cluster, fresh_database, run_as, shared_cluster

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="NO PGBOUNCER: the contract behind a pooler is not tested"
)


class Pooler:
    """pgbouncer in front of a cluster."""

    def __init__(self, cluster: Cluster, program: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="querator-pool-"))
        self.port = free_port()
        users = self.root / "users"
        users.write_text(f'"{APP_ROLE}" ""\n')
        settings = self.root / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={cluster.root} port={cluster.port}\n"
            "[pgbouncer]\n"
            "pool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
            "default_pool_size = 3\nserver_idle_timeout = 1\n"
        )
        options = run_as(self.root)
        self.process = subprocess.Popen([program, "-q", str(settings)], stderr=subprocess.DEVNULL, **options)

    def dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} dbname={database} user={APP_ROLE}"

    def wait_ready(self, database: str) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                psycopg.connect(self.dsn(database)).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS_MAX)
        shutil.rmtree(self.root)


class PooledHarness(PostgresHarness):
    def __init__(self, cluster: Cluster, database: str, pooler: Pooler) -> None:
        super().__init__(cluster, database)
        self.pooler = pooler

    async def open(self) -> LogStore:
        store = PostgresLog(real_env(), self.pooler.dsn(self.database))
        await store.open()
        return store


@pytest.fixture(scope="module")
def pooler() -> Iterator[Pooler]:
    made = Pooler(shared_cluster(), str(PROGRAM))
    made.wait_ready("postgres")
    yield made
    made.stop()


async def test_nodes_share_a_line_a_secret_and_a_clock_behind_pgbouncer(pooler: Pooler) -> None:
    """None of it is kept in a session."""
    with fresh_database(shared_cluster()) as database:
        logs = [PostgresLog(real_env(), pooler.dsn(database)) for _ in range(2)]
        for log in logs:
            await log.open()
        one, two = (log.line(name=f"n{index}", address="", nonce=index) for index, log in enumerate(logs))
        assert (await one.renew()).role is Role.OWNER
        assert (await two.renew()).role is Role.STANDBY
        assert await logs[0].shared_secret("s", b"first") == b"first"
        assert await logs[1].shared_secret("s", b"second") == b"first"
        await one.leave()
        assert (await two.renew()).role is Role.OWNER
        await two.leave()
        for log in logs:
            await log.aclose()


class TestPostgresLogBehindPgbouncer(LogContract):
    @pytest.fixture
    def harness(self, pooler: Pooler) -> Iterator[LogHarness]:
        cluster = shared_cluster()
        with fresh_database(cluster) as database:
            yield PooledHarness(cluster, database, pooler)
