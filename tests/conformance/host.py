"""The host: starts, stops, holds and times logical servers, on orders from the control port.

Orders are form-encoded POSTs: ``/new``, ``/stop``, ``/clock``, ``/pause``, ``/bootstrap``.
"""

import traceback
from collections.abc import Mapping
from typing import Final

import attrs
import trio

from querator.actors.node import Node, NodeOptions
from querator.api.http.door import HttpSettings
from querator.api.server import ServerOptions
from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import Bootstrap
from querator.core.ids import SECOND, Duration, Instant, QueueName
from querator.core.limits import RESERVATION_END_LAG
from querator.env import Env
from tests.conformance.frozen import FrozenClock
from tests.conformance.storage import Storage

REQUESTS_PER_QUEUE_MAX: Final = 100
"""Calls that a held queue keeps, unless the suite says otherwise."""
DRAIN_SECONDS: Final = 2
"""What a client that never ends its request may hold up a stop, unless the suite says otherwise: suites
allow 5 s."""
QUIET_SECONDS_MAX: Final = 30.0
_LOOK_SECONDS: Final = 0.001
_QUIET_LOOKS: Final = 3
"""Looks in a row that must find nothing to do: tasks hand work to each other between two looks."""


class Unordered(Exception):
    """The order makes no sense; its text is the answer."""


@attrs.define(eq=False)
class LogicalServer:
    """One server of the host."""

    id: str
    clock: FrozenClock | None
    auth: bool
    stop: trio.Event = attrs.Factory(trio.Event)
    stopped: trio.Event = attrs.Factory(trio.Event)
    application: Application | None = None

    @property
    def running(self) -> Application:
        if self.application is None:
            raise Unordered(f"server {self.id} does not run")
        return self.application

    async def run(
        self, storage: Storage, token: str, env: Env, options: AppOptions, task_status: trio.TaskStatus[None]
    ) -> None:
        """From its start to its stop. What goes wrong is printed and ends this server only."""
        try:
            store = storage.make(token, env)
            async with open_application({store.name: store}, env, options) as application:
                self.application = application
                _limit_held(application, options.requests_per_queue_max)
                task_status.started()
                await self.stop.wait()
        except Exception:
            if self.application is None:
                raise
            traceback.print_exc()
        finally:
            self.application = None
            self.stopped.set()


def _limit_held(application: Application, bound: int) -> None:
    """Only a queue that is held has a backlog: everything else is answered as fast as the log commits."""
    queues = application.node.broker.queues

    def is_full(name: QueueName, waiting: int) -> bool:
        queue = queues.get(name)
        return queue is not None and queue.held is not None and waiting >= bound

    application.door.is_full = is_full


class Host:
    """Carries out what comes from the control port."""

    def __init__(self, env: Env, storage: Storage, nursery: trio.Nursery) -> None:
        self._env = env
        self._storage = storage
        self._nursery = nursery
        self._servers: dict[str, LogicalServer] = {}
        self._made = 0

    async def warm_up(self) -> None:
        """Make a server and let it go, so that the first one asked for is as quick as any."""
        await self._stop(await self._new({}))

    async def order(self, path: str, fields: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """(status, document) of an answer."""
        orders = {
            "/new": self._new,
            "/stop": self._stop,
            "/clock": self._clock,
            "/pause": self._pause,
            "/bootstrap": self._bootstrap,
        }
        order = orders.get(path)
        if order is None:
            return 404, {"error": f"no such order: {path}"}
        try:
            return 200, await order(fields)
        except (Unordered, ValueError, KeyError) as error:
            return 400, {"error": str(error)}

    async def _new(self, fields: Mapping[str, str]) -> dict[str, str]:
        self._made += 1
        auth = fields.get("auth") == "1"
        clock = None
        env = self._env
        if fields.get("now"):
            clock = FrozenClock(Instant(int(fields["now"]) // 1_000), env.clock)
            env = attrs.evolve(env, clock=clock)
        server = LogicalServer(str(self._made), clock, auth)
        options = AppOptions(
            host="127.0.0.1",
            port=0,
            node=NodeOptions(
                name=f"conformance-{server.id}",
                auth=auth,
                # On a clock that stands, what is past is past.
                end_lag=RESERVATION_END_LAG if clock is None else Duration(0),
            ),
            server=ServerOptions(
                drain_timeout=Duration(int(float(fields.get("drain") or DRAIN_SECONDS) * SECOND))
            ),
            http=HttpSettings(
                produce_items_max=_number(fields, "max_produce_batch_size", 1_000),
                lease_items_max=_number(fields, "max_lease_batch_size", 1_000),
                complete_items_max=_number(fields, "max_complete_batch_size", 1_000),
            ),
            requests_per_queue_max=_number(fields, "max_requests_per_queue", REQUESTS_PER_QUEUE_MAX),
        )
        await self._nursery.start(server.run, self._storage, fields.get("storage", ""), env, options)
        self._servers[server.id] = server
        return {"id": server.id, "addr": server.running.address}

    def _server(self, fields: Mapping[str, str]) -> LogicalServer:
        server = self._servers.get(fields.get("id", ""))
        if server is None:
            raise Unordered(f"there is no server {fields.get('id')!r}")
        return server

    async def _stop(self, fields: Mapping[str, str]) -> dict[str, str]:
        server = self._server(fields)
        server.stop.set()
        await server.stopped.wait()
        del self._servers[server.id]
        return {}

    async def _clock(self, fields: Mapping[str, str]) -> dict[str, str]:
        server = self._server(fields)
        if server.clock is None:
            raise Unordered(f"the clock of server {server.id} is not frozen")
        node = server.running.node
        await _quiet(node)
        server.clock.advance(Instant(int(fields["now"]) // 1_000))
        await _quiet(node)
        return {}

    async def _pause(self, fields: Mapping[str, str]) -> dict[str, str]:
        broker = self._server(fields).running.node.broker
        name = QueueName(fields["queue"])
        if name not in broker.queues:
            raise Unordered(f"there is no queue {name!r}")
        if fields.get("pause", "1") == "1":
            broker.hold(name)
        else:
            broker.unhold(name)
        return {}

    async def _bootstrap(self, fields: Mapping[str, str]) -> dict[str, str]:
        server = self._server(fields)
        await server.running.node.catalog.change(Bootstrap(server.auth))
        return {}


async def _quiet(node: Node) -> None:
    """Wait until all that is due has happened and is committed."""
    with trio.move_on_after(QUIET_SECONDS_MAX):
        looks = 0
        while looks < _QUIET_LOOKS:
            looks = looks + 1 if _is_quiet(node) else 0
            await trio.sleep(_LOOK_SECONDS)


def _is_quiet(node: Node) -> bool:
    broker = node.broker
    alarm = broker.alarms.next_at
    if alarm is not None and alarm <= node.env.clock.now():
        return False
    if not all(writer.is_idle for writer in broker.writers.values()):
        return False
    moving = (
        channel
        for actor in broker.actors.values()
        if actor.is_open
        for channel in actor.state.outbound.values()
    )
    return not any(channel.items for channel in moving)


def _number(fields: Mapping[str, str], name: str, default: int) -> int:
    return int(fields[name]) if fields.get(name) else default
