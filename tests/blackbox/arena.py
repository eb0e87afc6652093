"""Where a run takes place: real processes and sockets, and everything between them under control.

::

    clients ──► door (proxy) ──► server ──► link (proxy) ──► PostgreSQL      or  server with SQLite files

Where several servers stand by for each other, each has a door and a link of its own.
"""

import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
import trio

from querator.client import ClientError, connect
from querator.env.real import real_env
from querator.log.postgres import PostgresLog
from querator.log.sqlite import SqliteLog
from querator.log.store import LogStore
from tests.blackbox.processes import ClientProcess, Server, until
from tests.blackbox.proxy import Proxy
from tests.blackbox.record import Tail
from tests.postgres import APP_ROLE, Cluster

QUEUE = "work"
SETTINGS = {"name": QUEUE, "partitions": 2, "reservation_timeout": 2_000_000, "session_grace": 1_000_000}
"""Of the queue; short, so that whoever was killed holds up nothing for long."""
STILL = 0.5
"""Seconds without an acknowledgement, after which none is under way."""
FLOW_ITEMS = 20
"""Items acknowledged, and completed, before the flow counts as flowing."""


@attrs.frozen(eq=False)
class Place:
    """A server with the proxy before it and the one behind it."""

    server: Server
    door: Proxy
    link: Proxy

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.door.port}"


@attrs.define(eq=False)
class Arena:
    """A run. ``cluster`` ``None``: SQLite. ``server``, ``door`` and ``link`` are of the first place."""

    folder: Path
    seed: int
    nursery: trio.Nursery
    cluster: Cluster | None
    database: str
    places: list[Place]
    client_options: dict[str, object]
    dice: random.Random
    clients: list[ClientProcess] = attrs.field(factory=list)
    left: list[ClientProcess] = attrs.field(factory=list)
    """Clients that were killed."""
    tail: Tail = attrs.field(init=False)
    started: float = attrs.field(factory=time.monotonic)
    epoch: float = attrs.field(factory=lambda: time.time() - time.monotonic())
    """What to add to CLOCK_MONOTONIC for the time of day."""
    story: list[tuple[float, str]] = attrs.field(factory=list)
    """(moment, what the harness did)."""

    def __attrs_post_init__(self) -> None:
        self.tail = Tail(self.history)

    @property
    def history(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def server(self) -> Server:
        return self.places[0].server

    @property
    def door(self) -> Proxy:
        return self.places[0].door

    @property
    def link(self) -> Proxy:
        return self.places[0].link

    @property
    def servers(self) -> list[Server]:
        return [place.server for place in self.places]

    def place_of(self, server: Server) -> Place:
        """Where it stands."""
        (place,) = [place for place in self.places if place.server is server]
        return place

    @property
    def addresses(self) -> str:
        """What clients are told: all servers."""
        return ",".join(place.address for place in self.places)

    @property
    def postgres(self) -> Cluster:
        assert self.cluster is not None, "this run has no PostgreSQL"
        return self.cluster

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.story.append((time.monotonic(), text))

    # --- clients ----------------------------------------------------------------------------------

    def add_client(self) -> ClientProcess:
        """Another process of clients."""
        name = f"k{len(self.clients) + len(self.left)}"
        options = {"seed": f"{self.seed}", **self.client_options}
        client = ClientProcess.start(name, self.addresses, self.folder, self.history, **options)
        self.clients.append(client)
        return client

    def kill_client(self, client: ClientProcess) -> None:
        """SIGKILL: its connections end, its calls stay without an outcome."""
        client.signal(signal.SIGKILL)
        client.end()
        self.clients.remove(client)
        self.left.append(client)

    async def more(self, acknowledged: int = FLOW_ITEMS, completed: int = FLOW_ITEMS) -> None:
        """Wait until so many items more have been acknowledged, and completed."""
        self.tail.look()
        wanted = self.tail.acknowledged + acknowledged, self.tail.completed + completed

        def are_there() -> bool:
            self.tail.look()
            return self.tail.acknowledged >= wanted[0] and self.tail.completed >= wanted[1]

        await until(f"{acknowledged} items acknowledged and {completed} completed", are_there)

    async def wait_still(self) -> int:
        """Wait until nothing is acknowledged any more, not even what was under way; how much it was."""
        acknowledged = -1
        while self.tail.acknowledged != acknowledged:
            acknowledged = self.tail.acknowledged
            await trio.sleep(STILL)
            self.tail.look()
        return acknowledged

    # --- the queue --------------------------------------------------------------------------------

    async def create_queue(self) -> None:
        async with connect(self.addresses, client="harness") as client:
            await client.call("queues.create", SETTINGS)

    async def count_left(self) -> int:
        """Items that are neither completed nor dead; -1: nobody says."""
        left = -1
        with trio.move_on_after(5):
            try:
                async with connect(self.addresses, client="harness") as client:
                    report = await client.stats(QUEUE)
                left = sum(part["ready"] + part["reserved"] + part["scheduled"] for part in report.partitions)
            except* ClientError as group:
                self.tell(f"no counts: {group.exceptions[0]}")
        return left

    async def drain(self) -> None:
        """All is well again, nothing new is produced, and what is there is completed."""
        self.tell("healed; no more is produced")
        for place in self.places:
            place.link.clear()
            place.door.clear()
        for client in self.clients:
            client.signal(signal.SIGCONT)
            client.tell("quiet")
            client.tell("heal")
        quiet = 0
        completed = -1

        async def is_drained() -> bool:
            nonlocal quiet, completed
            self.tail.look()
            is_produced = not self.tail.producing(client.name for client in self.clients)
            if is_produced and await self.count_left() == 0 and completed == self.tail.completed:
                quiet += 1
            else:
                quiet, completed = 0, self.tail.completed
                await trio.sleep(0.1)
            return quiet >= 2

        await until("everything is completed", is_drained)

    async def close(self) -> None:
        """Everybody leaves in order."""
        self.tell("everything is completed")
        for client in self.clients:
            await client.leave()
        self.tell("clients have left")
        for server in self.servers:
            if server.is_running:
                await server.stop()
        self.tell("servers have stopped")

    # --- the log ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open_log(self) -> AsyncIterator[LogStore]:
        """Straight to the store, past all proxies; SQLite: only while no server runs."""
        env = real_env()
        log: LogStore
        if self.cluster is not None:
            log = PostgresLog(env, self.cluster.dsn(self.database))
        else:
            log = SqliteLog(env, self.server.data)
        await log.open()
        try:
            yield log
        finally:
            await log.aclose()

    def verify_arguments(self) -> list[str]:
        """Of ``querator log verify``."""
        data = ["--data", str(self.server.data)]
        if self.cluster is None:
            return data
        return [*data, "--log", address_of(self.cluster.port, self.database)]


def address_of(port: int, database: str) -> str:
    return f"postgresql://{APP_ROLE}@127.0.0.1:{port}/{database}"


async def _make_place(nursery: trio.Nursery, server: Server, seed: int, target: int, database: str) -> Place:
    """With proxies at work, and the server not yet started."""
    link = Proxy(target, seed=seed)
    await nursery.start(link.run)
    door = Proxy(server.port, seed=seed + 1)
    await nursery.start(door.run)
    place = Place(server, door, link)
    if database:
        server.log = address_of(link.port, database)
        server.options += ("--advertise", place.address)
    return place


@contextlib.asynccontextmanager
async def open_arena(
    folder: Path,
    *,
    seed: int,
    cluster: Cluster | None = None,
    servers: int = 1,
    processes: int = 1,
    options: tuple[str, ...] = (),
    clients: Mapping[str, object] | None = None,
) -> AsyncIterator[Arena]:
    """``servers`` with a queue, and ``processes`` of clients at work on it. Nothing of it is left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    database = "" if cluster is None else cluster.new_database("querator_template")
    target = 0 if cluster is None else cluster.port
    async with trio.open_nursery() as nursery:
        places = [
            await _make_place(
                nursery, Server("sqlite", folder, f"server-{number}", options=options), seed, target, database
            )
            for number in range(servers)
        ]
        dice = random.Random(seed)
        arena = Arena(folder, seed, nursery, cluster, database, places, dict(clients or {}), dice)
        try:
            for server in arena.servers:
                await server.start_surely()
            await arena.create_queue()
            for _ in range(processes):
                arena.add_client()
            yield arena
        finally:
            for client in arena.clients:
                client.end()
            for server in arena.servers:
                server.end()
            nursery.cancel_scope.cancel()
