"""The one port: HTTP, WebSocket, ``/health`` and ``/metrics`` on the same listeners.

A connection begins as HTTP. ``GET /v1/stream`` with an Upgrade turns it into a session; everything but
health and metrics goes to the injected handler. Connections over a bound (doorway.py) are turned away with
503, but told the health if that is what they ask for; so is, by a descriptor kept for it, whoever comes when
there is none left. Stopping is in order: no new connections, ``going_away``, wait for the clients to finish,
close.
"""

import contextlib
import errno
import ssl
from collections.abc import Callable, Container, Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.api.doorway import TOO_MANY, Doorway, Visit
from querator.api.exchange import HttpHandler, HttpRequest, HttpResponse
from querator.api.hangups import Hangups
from querator.api.health import Probe, health_response
from querator.api.http_connection import Dates, HttpConnection
from querator.api.metrics import MetricsPage, door_metrics
from querator.api.patience import Patience
from querator.api.registry import SessionRegistry
from querator.api.upgrade import STREAM_PATH, negotiate, refusal
from querator.api.websocket import serve_websocket
from querator.core import limits
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant
from querator.env import Spare, seconds
from querator.errors import QueratorError
from querator.protocol.closing import CloseCode

_ACCEPT_PAUSE: Final = Duration(100 * MILLISECOND)
"""How long accepting rests when file descriptors or memory ran out."""
_NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PROBE_TIMEOUT: Final = Duration(5 * SECOND)
_HEALTH: Final = "/health"
_METRICS: Final = "/metrics"


async def _healthy() -> str:
    return ""


@attrs.frozen(kw_only=True)
class ServerOptions:
    """What an operator may choose."""

    version: str = "dev-build"
    tls: ssl.SSLContext | None = None
    origins: Sequence[str] = ()
    """Web origins whose pages may connect, besides the server's own; "*": any."""
    connections_max: int = limits.CONNECTIONS_MAX
    connections_per_address_max: int = limits.CONNECTIONS_PER_ADDRESS_MAX
    """Of one address; those of this machine itself are not counted."""
    strangers_max: int = limits.STRANGERS_MAX
    """Connections that have shown no good key, where one is needed."""
    drain_timeout: Duration = limits.DRAIN_TIMEOUT
    waiting_paths: Container[str] = frozenset(("/v1/queue.lease",))
    """Requests that may wait for long: a client that hangs up meanwhile ends them."""


class Server:
    """Accepts and serves. Build it, start ``run``, and stop it by ``drain``."""

    def __init__(
        self,
        registry: SessionRegistry,
        http: HttpHandler,
        options: ServerOptions = ServerOptions(),
        *,
        probe: Probe = _healthy,
        notes: Callable[[], Sequence[str]] = tuple,
        metrics: MetricsPage | None = None,
    ) -> None:
        self.registry = registry
        self.options = options
        self.metrics = metrics if metrics is not None else MetricsPage()
        self.metrics.add(door_metrics(registry))
        self.addresses: list[tuple[str, int]] = []
        """Where it listens, once it does."""
        self._env = registry.env
        self._counters = registry.counters
        self._handler = _Router(self, http)
        self._probe = probe
        self._notes = notes
        self._dates = Dates(registry.env.clock.now)
        self._patience = Patience(registry.env.clock)
        self._hangups = Hangups(registry.env.clock)
        self._number = 0
        self._doorway = Doorway(
            registry.access,
            registry.counters,
            self.options.connections_max,
            self.options.connections_per_address_max,
            self.options.strangers_max,
        )
        self._turned_away: dict[trio.CancelScope, None] = {}
        """Connections that are being told so, the oldest first."""
        self._spare: Spare | None = None
        """While it listens."""
        self._is_draining = False
        self._accepting = trio.CancelScope()
        self._connections = trio.CancelScope()
        self._is_empty = trio.Event()
        self._has_stopped = trio.Event()

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and serve until ``drain`` is through, or cancelled. Started once it listens.

        Raises:
            OSError: the address cannot be had.
        """
        listeners = await self._env.net.listen(host, port, tls=self.options.tls)
        self.addresses = [self._env.net.address(listener) for listener in listeners]
        self._spare = self._env.net.spare()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.registry.run, name="sessions")
                nursery.start_soon(self._patience.run, name="patience")
                nursery.start_soon(self._hangups.run, name="hangups")
                with self._connections:
                    async with trio.open_nursery() as connections:
                        task_status.started()
                        with self._accepting:
                            async with trio.open_nursery() as accepting:
                                for listener in listeners:
                                    accepting.start_soon(self._accept, listener, connections)
                        for listener in listeners:
                            await trio.aclose_forcefully(listener)
                nursery.cancel_scope.cancel()
        finally:
            self._has_stopped.set()
            self._spare.give_up()
            with trio.CancelScope(shield=True):
                for listener in listeners:
                    await trio.aclose_forcefully(listener)

    async def drain(self, to: str = "") -> None:
        """Stop in order; returns when every connection is closed, after ``drain_timeout`` at the latest
        (and a moment for the leave-taking). ``to``: where clients should go."""
        if self._is_draining:
            await self._has_stopped.wait()
            return
        self._is_draining = True
        self._accepting.cancel()
        self.registry.drain(Instant(self._env.clock.now() + self.options.drain_timeout), to)
        self._patience.end_idle()
        if self._counters.connections_now:
            with trio.move_on_after(seconds(self.options.drain_timeout)):
                await self._is_empty.wait()
            for session in self.registry.sessions:
                session.close(CloseCode.GOING_AWAY, "the server stops")
            with trio.move_on_after(seconds(limits.CLOSE_TIMEOUT)):
                await self._is_empty.wait()
        self._connections.cancel()
        await self._has_stopped.wait()

    async def serve_stream(self, stream: trio.abc.Stream, remote: str = "") -> None:
        """One connection, from its first byte to its closing. Lets no error of the connection out."""
        visit = self._doorway.enter(remote)
        self._number += 1
        try:
            await self._serve(stream, self._number, visit)
        except Exception as error:  # noqa: BLE001 - the boundary that keeps one connection's bug from the others
            telemetry.emit("api.connection.failed", remote=remote, error=repr(error))
        finally:
            visit.leave()
            if not self._counters.connections_now and self._is_draining:
                self._is_empty.set()
            with trio.move_on_after(seconds(limits.CLOSE_TIMEOUT)):
                await _close(stream)

    async def _serve(self, stream: trio.abc.Stream, number: int, visit: Visit) -> None:
        connection = HttpConnection(
            stream,
            self._handler,
            self._dates,
            self._counters,
            self._patience,
            self._hangups,
            remote=visit.remote,
            introduce=visit.introduce,
            waiting_paths=self.options.waiting_paths,
            is_draining=lambda: self._is_draining,
            upgrade_path=STREAM_PATH,
        )
        wanted = await connection.run()
        if wanted is None:
            return
        granted = negotiate(wanted.head.headers, self.options.origins)
        if self._is_draining:
            granted = refusal(503, "the server stops", [("Retry-After", "1")])
        if isinstance(granted, HttpResponse):
            await connection.refuse(granted)
            return
        await serve_websocket(
            stream,
            granted,
            self.registry,
            number=number,
            leftover=wanted.leftover,
            introduce=visit.introduce,
        )

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream], connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                telemetry.emit("api.accept.no_room", error=repr(error))
                await self._accept_by_the_spare(listener)
                continue
            remote = self._env.net.peer(stream)
            why = self._doorway.refusal(remote)
            if why:
                if len(self._turned_away) >= limits.TURNED_AWAY_MAX:
                    # Whoever asks for the health has sent that by now; who has said nothing goes first.
                    next(iter(self._turned_away)).cancel()
                connections.start_soon(self._turn_away, stream, why)
            else:
                connections.start_soon(self.serve_stream, stream, remote)

    async def _accept_by_the_spare(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        """No descriptor is left for whoever waits there but the one that is kept for the health."""
        if self._spare is None or not self._spare.give_up():
            await self._env.clock.sleep(_ACCEPT_PAUSE)
            return
        try:
            with trio.move_on_after(seconds(_ACCEPT_PAUSE)):
                stream = await listener.accept()
                with trio.move_on_after(2 * seconds(limits.TURN_AWAY_TIMEOUT), shield=True):
                    await self._turn_away(stream, TOO_MANY)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # Somebody else in this process was quicker.
            await self._env.clock.sleep(_ACCEPT_PAUSE)
        finally:
            self._spare.get_back()

    async def _turn_away(self, stream: trio.abc.Stream, why: str) -> None:
        """Tell the health to whoever asks for it, and all others to come back later."""
        self._counters.connections_refused += 1
        handler = _Turnstile(self, refusal(503, why, [("Retry-After", "1")]))
        connection = HttpConnection(
            stream, handler, self._dates, self._counters, self._patience, self._hangups
        )
        scope = trio.CancelScope()
        self._turned_away[scope] = None
        try:
            with scope:
                await connection.answer_once(limits.TURN_AWAY_TIMEOUT)
        finally:
            del self._turned_away[scope]
            await trio.aclose_forcefully(stream)

    async def health(self) -> HttpResponse:
        """The health document, as of now."""
        fault = "the server stops"
        if not self._is_draining:
            fault = "the probe did not return in time"
            with trio.move_on_after(seconds(_PROBE_TIMEOUT)):
                fault = await self._look()
        return health_response(fault, self._env.clock.now(), self.options.version, self._notes())

    async def _look(self) -> str:
        try:
            return await self._probe()
        except QueratorError as error:
            telemetry.emit("api.probe.failed", error=repr(error))
            return "storage check failed"


class _Router:
    """``/health`` and ``/metrics`` here, everything else to the handler behind."""

    def __init__(self, server: Server, http: HttpHandler) -> None:
        self._server = server
        self._http = http
        self.body_limit = http.body_limit

    async def handle(self, request: HttpRequest) -> HttpResponse:
        if request.method == "GET":
            if request.path == _HEALTH:
                return await self._server.health()
            if request.path == _METRICS:
                return await self._server.metrics.response()
        return await self._http.handle(request)


class _Turnstile:
    """``/health``, and the same refusal for all else."""

    def __init__(self, server: Server, refusal: HttpResponse) -> None:
        self._server = server
        self.refusal = refusal

    def body_limit(self, path: str) -> int:
        del path
        return 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        if request.method == "GET" and request.path == _HEALTH:
            return await self._server.health()
        return self.refusal


async def _close(stream: trio.abc.Stream) -> None:
    # If the peer was gone first, there is nothing left to close.
    with contextlib.suppress(trio.BrokenResourceError, ssl.SSLError):
        await stream.aclose()
