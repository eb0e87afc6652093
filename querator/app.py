"""The composition root: the only module that puts concrete stores, a node and its doors together."""

import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from querator import __version__, telemetry
from querator.actors.node import Node, NodeOptions, open_stores, run_node
from querator.actors.ports import AnalyticsPort
from querator.actors.pulse import Pulse
from querator.api.calls import operations
from querator.api.catalog_access import CatalogAccess
from querator.api.engine_metrics import engine_metrics, pulse_metrics, unsafe_metrics
from querator.api.http.door import Door, HttpSettings
from querator.api.http.handler import HttpApi
from querator.api.registry import SessionRegistry, Settings
from querator.api.server import Server, ServerOptions
from querator.config import Config, parse_address, redact
from querator.core.ids import CATALOG_PARTITION, MILLISECOND, SECOND, Duration, QueueName
from querator.core.limits import CONNECTIONS_MAX, PING_INTERVAL
from querator.core.stores import StoreSetting, parse_stores
from querator.env import Env, FileLock, FileLocked
from querator.env.real import reload_server_tls, server_tls
from querator.errors import ConfigError, LogUnavailable, StoreLocked
from querator.log.late import LateLog
from querator.log.line import Line
from querator.log.memory import MemoryLog
from querator.log.postgres import PostgresLog
from querator.log.postgres.checks import UNSAFE_DURABILITY, UNSAFE_ROLE
from querator.log.sqlite import SqliteLog
from querator.log.sqlite.store import LOCK_NAME
from querator.log.store import LogStore
from querator.log.witness import Witness, WitnessedLog

if TYPE_CHECKING:
    from querator.analytics.following import Follower

SECRET_BYTES: Final = 32
WITNESS_FILE: Final = "witness.json"
CLOCK_DIFFERENCE_MAX: Final = Duration(5 * SECOND)
"""Between a server's clock and its database's, before that is worth a word."""
SESSION_KEY: Final = "session"
"""Name of the secret that all nodes on a database share."""
ARCHIVE: Final = "analytics"
"""What is exported, in the data directory, unless told otherwise."""
_YOUNG: Final = Duration(500 * MILLISECOND)
_MIDDLE_EVERY: Final = 20


@attrs.frozen(kw_only=True)
class AppOptions:
    """What is built. ``stores`` are asked for by name; the first one has the catalog."""

    host: str = "localhost"
    port: int = 2319
    node: NodeOptions = NodeOptions()
    server: ServerOptions = ServerOptions()
    http: HttpSettings = HttpSettings()
    ping_interval: Duration = PING_INTERVAL
    secret: bytes = attrs.field(default=b"", repr=False)
    """Signs resume tokens; empty: drawn anew, so sessions end with the process."""
    unsafe: tuple[str, ...] = ()
    """Faults of the log's server that an operator accepted, for the health document ..."""
    unsafe_codes: tuple[str, ...] = ()
    """... and for the metrics."""
    analytics: Path | None = None
    """Where the exported history is that questions are asked of; ``None``: none is kept."""
    requests_per_queue_max: int = 0
    """Calls of the HTTP door that may wait on one queue; 0: only the engine's own bounds."""


class Application:
    """A node with its doors open."""

    def __init__(self, node: Node, server: Server, door: Door, archive: "Follower | None" = None) -> None:
        self.node = node
        self.server = server
        self.door = door
        self.archive = archive

    @property
    def address(self) -> str:
        """HOST:PORT of the first listener."""
        host, port = self.server.addresses[0]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self) -> None:
        """When no call is under way any more."""
        if self.door.analytics is not None:
            self.door.analytics.close()
        if self.node.history.past is not None:
            self.node.history.past.close()

    async def stop(self, to: str = "") -> None:
        """In order: what waits is answered, sessions are told, the doors close. The log comes last,
        when ``open_application`` is left."""
        self.door.is_stopping = True
        self.node.refuse_waiting()
        await self.server.drain(to)


def build(node: Node, options: AppOptions) -> Application:
    """Put the doors in front of a running node; nothing listens yet."""
    env = node.env
    access = CatalogAccess(node.catalog, auth=options.node.auth)
    analytics: AnalyticsPort | None = None
    archive: Follower | None = None
    if options.analytics is not None:
        # They load DuckDB, a quarter of a second that only those pay who ask for it, before they serve.
        from querator.analytics import following, keeping, live, questions  # noqa: PLC0415

        if env.processes.cores:
            analytics = questions.RemoteQuestions(env, options.analytics)
        else:
            analytics = live.LiveAnalytics(env, options.analytics)
        archive = following.Follower(env, node.stores, options.analytics, buckets=node.buckets)
        node.history.past = keeping.KeptRecords(env, options.analytics)
    bound = options.requests_per_queue_max

    def is_full(queue: QueueName, waiting: int) -> bool:
        del queue
        return bool(bound) and waiting >= bound

    door = Door(
        broker=node.broker,
        catalog_port=node.catalog,
        access=access,
        clock=env.clock,
        settings=attrs.evolve(options.http, stores=tuple(node.stores)),
        history=node.history,
        analytics=analytics,
        is_full=is_full,
        is_standing_by=lambda: not node.ownership.is_owner,
    )
    registry = SessionRegistry(
        env,
        node.broker,
        Settings(
            secret=options.secret or env.rng.token_bytes(SECRET_BYTES),
            grace=options.node.grace,
            ping_interval=options.ping_interval,
        ),
        access=access,
        operations=operations(node.broker, node.catalog, node.history, node.supervisor, analytics, archive),
    )
    registry.barred = node.ownership.may_greet
    registry.owner_address = lambda: node.ownership.owner_address
    node.ownership.stepped_down = registry.send_away
    for changed in (door.access_changed, registry.access_changed):
        node.catalog.when_access_changes(changed)
    api = HttpApi(door)
    server = Server(
        registry,
        api,
        options.server,
        probe=node.probe,
        notes=lambda: [*options.unsafe, *_standing(node), *node.notes()],
    )
    server.metrics.add(unsafe_metrics(options.unsafe_codes))
    server.metrics.add(api.timings.families)
    server.metrics.add(engine_metrics(node))
    return Application(node, server, door, archive)


def _standing(node: Node) -> list[str]:
    """For the health document: a node that stands by is well, and has nothing to say."""
    if node.ownership.is_deciding:
        return []
    return [f"stands by; {node.ownership.not_owner().detail}"]


@asynccontextmanager
async def open_application(
    stores: dict[str, LogStore], env: Env, options: AppOptions
) -> AsyncIterator[Application]:
    """``run_application`` on stores that are opened for it.

    Raises:
        LogError: a store can't be opened.
        OSError: the address can't be had.
    """
    async with open_stores(stores), run_application(stores, env, options) as application:
        yield application


@asynccontextmanager
async def run_application(
    stores: dict[str, LogStore], env: Env, options: AppOptions, line: Line | None = None
) -> AsyncIterator[Application]:
    """A node on these open stores, listening; stopped in order at the end. With a ``line`` it may be one of
    several, and stand by.

    Raises:
        LogError: the catalog can't be claimed.
        OSError: the address can't be had.
    """
    async with run_node(stores, env, options.node, line) as node:
        application = build(node, options)
        async with trio.open_nursery() as nursery:
            await nursery.start(application.server.run, options.host, options.port)
            if application.door.analytics is not None:
                nursery.start_soon(application.door.analytics.run, name="questions")
            try:
                yield application
            finally:
                with trio.CancelScope(shield=True):
                    await application.stop(await node.ownership.find_successor())
                nursery.cancel_scope.cancel()
        application.close()


def make_stores(
    log: str, data: Path, env: Env, *, unsafe: frozenset[str] = frozenset()
) -> dict[str, LogStore]:
    """The log stores that a setting names (core/stores.py), by name; the first has the catalog.

    What is durable has a witness beside it, in ``data``. What a PostgreSQL URL leaves out comes from libpq's
    variables (PGHOST, PGPASSFILE, ...). ``unsafe``: flags of faults to put up with.

    Raises:
        ConfigError: it names none.
    """
    try:
        settings = parse_stores(log)
    except ValueError as error:
        raise ConfigError(f"log: '{redact(log)}' is no log store: {error}") from error
    return {
        setting.name: _make_store(setting, data, env, unsafe, is_first=setting is settings[0])
        for setting in settings
    }


def _make_store(
    setting: StoreSetting, data: Path, env: Env, unsafe: frozenset[str], *, is_first: bool
) -> LogStore:
    store: LogStore
    if setting.is_postgres:
        store = PostgresLog(env, setting.log, name=setting.name, unsafe=unsafe)
    elif setting.log == "sqlite":
        store = SqliteLog(env, data if is_first else data / setting.name)
    else:
        store = MemoryLog(env)
    store.name = setting.name
    if not is_first:
        # A server starts without it; what it needs at once is the catalog.
        store = LateLog(store, env=env)
    if setting.log == "memory":
        return store
    return WitnessedLog(
        store, Witness(env, data / (WITNESS_FILE if is_first else f"witness-{setting.name}.json"))
    )


def late_of(store: LogStore) -> LateLog | None:
    """The part of a store that waits for it, where it need not be there at the start."""
    inner = store.store if isinstance(store, WitnessedLog) else store
    return inner if isinstance(inner, LateLog) else None


async def check_catalog(stores: dict[str, LogStore]) -> None:
    """The first store has the catalog: refuse to begin a new one where another store has one.

    Raises:
        ConfigError: one has, and the first has not.
        LogError: the first can't be read.
    """
    first, *others = stores.values()
    if not others or await first.tail(CATALOG_PARTITION) is not None:
        return
    for store in others:
        try:
            tail = await store.tail(CATALOG_PARTITION)
        except LogUnavailable:
            continue
        if tail is not None:
            raise ConfigError(f"log: the catalog is in store '{store.name}': name that one first")


async def read_secret(data: Path, env: Env) -> bytes:
    """The node's secret, drawn at its first start; kept beside the log so that sessions can resume.

    Raises:
        ConfigError: what is there is too short to be one, so that resume tokens could be guessed.
    """
    path = data / "session-secret"
    try:
        secret = await env.files.read(path)
        if len(secret) < SECRET_BYTES:
            raise ConfigError(
                f"{path} is no secret of {SECRET_BYTES} bytes: remove it, and a new one is drawn; "
                "sessions of before can't be resumed then"
            )
        return secret
    except FileNotFoundError:
        secret = env.rng.token_bytes(SECRET_BYTES)
        await env.files.make_directory(data)
        await env.files.write(path, secret)
        return secret


async def tend_garbage(env: Env) -> None:
    """Collect young garbage now and then; the old generation never, it would stop the world.

    What stays is plain columns that die by reference counts (PERFORMANCE.md D4); cycles are made
    by exceptions and tasks only, and those die young.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        beat = 0
        while True:
            await env.clock.sleep(_YOUNG)
            beat += 1
            gc.collect(1 if beat % _MIDDLE_EVERY == 0 else 0)
    finally:
        gc.enable()


def make_tls(config: Config) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the configured certificate; ``None``: none is configured."""
    if config.tls_certificate is None:
        return None
    try:
        return server_tls(*_certificate(config))
    except OSError as error:
        raise _bad_certificate(config, error) from error


def reload_tls(config: Config, application: Application) -> None:
    """Use the present content of the configured files for new connections.

    Raises:
        ConfigError: they can't be used; the certificate stays what it was.
    """
    context = application.server.options.tls
    if context is None:
        return
    try:
        reload_server_tls(context, *_certificate(config))
    except OSError as error:
        raise _bad_certificate(config, error) from error


def _certificate(config: Config) -> tuple[Path, Path]:
    certificate, key = config.tls_certificate, config.tls_key
    if certificate is None or key is None:
        raise ConfigError("tls_key: is not set, but TLS needs both a certificate and its key")
    return certificate, key


def _bad_certificate(config: Config, error: OSError) -> ConfigError:
    return ConfigError(
        f"tls_certificate: {config.tls_certificate} with the key {config.tls_key} can't be used: {error}"
    )


async def serve(
    config: Config,
    env: Env,
    on_ready: Callable[[Application], None],
    stop: trio.Event,
    *,
    connections_max: int = CONNECTIONS_MAX,
) -> None:
    """Run a server until ``stop`` is set, then end in order.

    Raises:
        ConfigError: a setting can't be used.
        LogError: the log can't be opened.
        OSError: the address can't be had.
    """
    host, port = parse_address(config.address)
    log = str(config.log)
    is_durable = any(setting.log != "memory" for setting in parse_stores(log))
    stores = make_stores(log, config.data, env, unsafe=unsafe_flags(config))
    options = AppOptions(
        host=host,
        port=port,
        node=NodeOptions(
            name=config.advertise or config.address,
            auth=config.auth,
            payload_memory=config.payload_memory,
            record_inputs=config.record_inputs,
            affinities=affinities_of(log),
        ),
        server=ServerOptions(
            version=__version__,
            tls=make_tls(config),
            origins=config.allowed_origins,
            connections_max=connections_max,
            connections_per_address_max=config.connections_per_address,
        ),
        ping_interval=Duration(config.ping_interval * SECOND),
        analytics=config.data / ARCHIVE if is_durable else None,
    )
    shared = postgres_of(next(iter(stores.values())))
    if shared is not None:
        await env.files.make_directory(config.data)
    elif is_durable:
        options = attrs.evolve(options, secret=await read_secret(config.data, env))
    async with trio.open_nursery() as nursery:
        with locked(config.data, env, is_needed=shared is not None):
            async with open_stores(stores):
                await check_catalog(stores)
                line = None
                if shared is not None:
                    options = await share(shared, options, env)
                    line = shared.line(
                        name=options.node.name,
                        address=options.node.name,
                        nonce=await read_nonce(config.data, env),
                    )
                async with run_application(stores, env, options, line) as application:
                    if shared is not None:
                        application.node.time_reference = shared.time
                    nursery.start_soon(tend_garbage, env)
                    pulse = Pulse(env)
                    application.server.metrics.add(pulse_metrics(pulse))
                    nursery.start_soon(pulse.run)
                    for store in stores.values():
                        late = late_of(store)
                        if late is not None:
                            nursery.start_soon(late.run)
                        if isinstance(store, WitnessedLog):
                            nursery.start_soon(store.witness.run)
                    if application.archive is not None and config.export_interval:
                        nursery.start_soon(
                            partial(
                                application.archive.run,
                                every=Duration(config.export_interval * SECOND),
                                retention=Duration(config.log_retention * SECOND),
                            ),
                            name="export",
                        )
                    on_ready(application)
                    await stop.wait()
        nursery.cancel_scope.cancel()


def affinities_of(log: str) -> dict[str, int]:
    """By store, in order; empty where there is one without a name of its own: partitions need not say it."""
    settings = parse_stores(log)
    if len(settings) == 1 and "=" not in log.partition("://")[0]:
        return {}
    return {setting.name: setting.affinity for setting in settings}


def unsafe_flags(config: Config) -> frozenset[str]:
    """The flags of faults that the operator puts up with."""
    given = ((UNSAFE_DURABILITY, config.unsafe_durability), (UNSAFE_ROLE, config.unsafe_role))
    return frozenset(flag for flag, is_given in given if is_given)


def postgres_of(store: LogStore) -> PostgresLog | None:
    """The PostgreSQL log that a store is, if it is one."""
    inner = store.store if isinstance(store, WitnessedLog) else store
    return inner if isinstance(inner, PostgresLog) else None


async def share(store: PostgresLog, options: AppOptions, env: Env) -> AppOptions:
    """What all nodes on a database have in common: its clock, and the secret that signs resume tokens, so
    that a session goes on at whichever node takes over."""
    if store.facts is not None:
        by = env.clock.now() - store.facts.time
        if abs(by) > CLOCK_DIFFERENCE_MAX:
            # Its own is not used; but what else runs on this machine may stamp what it produces.
            telemetry.emit("clock.differs", by=by)
        env.clock.align(store.facts.time)
    faults = store.accepted_faults
    for fault in faults:
        telemetry.emit("log.unsafe", fault=fault.code, reason=fault.reason, flag=fault.flag)
    return attrs.evolve(
        options,
        secret=await store.shared_secret(SESSION_KEY, env.rng.token_bytes(SECRET_BYTES)),
        unsafe=tuple(f"accepted by --{fault.flag}: {fault.reason}" for fault in faults),
        unsafe_codes=tuple(fault.code for fault in faults),
    )


async def read_nonce(data: Path, env: Env) -> int:
    """What tells this node from another one of its name: drawn at the first start, kept in its directory.

    Only one process has the directory at a time, so a process that finds the nonce there comes after one
    that is gone, and may have its place in the line at once.
    """
    path = data / "node"
    try:
        return int(await env.files.read(path))
    except FileNotFoundError:
        nonce = env.rng.nonce()
        await env.files.write(path, str(nonce).encode())
        return nonce


@contextmanager
def locked(data: Path, env: Env, *, is_needed: bool) -> Iterator[None]:
    """Have the directory for this process alone (an SQLite log sees to that itself).

    Raises:
        StoreLocked: another process has it.
    """
    lock: FileLock | None = None
    if is_needed:
        try:
            lock = env.files.lock(data / LOCK_NAME)
        except FileLocked as error:
            holder = error.holder or "another process"
            raise StoreLocked(
                f"the data directory {data} is in use by {holder}: each node needs one of its own (--data)"
            ) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
