"""A broker in this process: production wiring on a log in memory, memory links, trio's virtual clock."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from querator.actors.node import NodeOptions
from querator.app import Application, AppOptions, open_application
from querator.client import Client, connect
from querator.client.durations import DurationLike, parse_duration
from querator.client.errors import Rejected
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import MILLISECOND, Duration, Instant, QueueName
from querator.core.invariants import InvariantViolation
from querator.core.replies import Rejected as Refusal
from querator.env.scheduling import seeded_scheduler
from querator.env.trio_clock import TrioClock
from querator.env.virtual import MemoryFiles, MemoryNetwork, SeededRng, virtual_env
from querator.log.memory import Faults, MemoryDisk, MemoryLog
from querator.log.records import Record
from querator.testing.mortal import Fate, MortalNet

T = TypeVar("T")

HOST: Final = "server"
PORT: Final = 2319
_SECRET: Final = b"shared by all lives of this broker"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Severable(Faults):
    """A process that is gone writes nothing any more."""

    def __init__(self) -> None:
        self.is_severed = False

    async def before(self, records: "list[Record] | Any") -> None:
        await self._pass()

    async def after(self, records: "list[Record] | Any") -> None:
        await self._pass()

    async def _pass(self) -> None:
        if self.is_severed:
            await trio.sleep_forever()


class Broker:
    """See ``broker``. Everything is a function of ``seed`` and of what the test does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.disk = MemoryDisk()
        """What survives a crash."""
        self.crashes = 0
        """Of the server."""
        self.handler_crashes = 0
        """Of what ``crashing`` runs."""
        self._clock = TrioClock()
        self._network = MemoryNetwork()
        self._files = MemoryFiles(holder=HOST)
        self._clients: list[str] = []
        self._application: Application | None = None
        self._life = trio.CancelScope()
        self._faults = _Severable()
        self._is_up = trio.Event()
        self._is_down = trio.Event()

    # --- what tests use ---------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The virtual time, UTC; it begins with 2026."""
        return _EPOCH + timedelta(microseconds=self._clock.now())

    @property
    def application(self) -> Application:
        """The server as it is now; a crash makes another one."""
        if self._application is None:
            raise InvariantViolation("the broker is not up")
        return self._application

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        """A client, as of ``querator.connect``, over a link in memory; the same options."""
        env = virtual_env(self.seed, self._next_host(), network=self._network)
        return connect(f"ws://{HOST}:{PORT}", env=env, **options)

    async def create_queue(self, name: str, **settings: Any) -> None:
        """Create a queue. Durations as everywhere in the client: ``reservation_timeout="30s"``.

        Raises:
            Rejected: there is one of that name, or a setting makes no sense.
        """
        for setting, value in settings.items():
            if setting in _DURATIONS:
                settings[setting] = parse_duration(value)
        changed = await self.application.node.catalog.change(CreateQueue(name=QueueName(name), **settings))
        if isinstance(changed, Refusal):
            raise Rejected(changed.code, changed.detail, changed.field)
        await self.settle()

    async def advance(self, duration: DurationLike) -> None:
        """Let so much time pass; all that is due meanwhile happens, in order.

        And a millisecond more: a client knows the server's clock only so well, and what it delays by an
        hour shall be due when an hour was let pass.
        """
        await self._clock.sleep(Duration(parse_duration(duration) + MILLISECOND))
        await self.settle()

    async def advance_to(self, moment: datetime) -> None:
        """Let time pass until then; no time where that is past."""
        await self._clock.sleep_until(Instant((moment - _EPOCH) // timedelta(microseconds=1)))
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything that can happen now has happened; no time passes."""
        await wait_all_tasks_blocked()

    async def crash(self) -> None:
        """The server dies as by SIGKILL, and a new one starts from its disk.

        What was not committed is lost, links break, clients connect again by themselves and resume.
        """
        life, is_down = self._life, self._is_down
        self._faults.is_severed = True
        for host in self._clients:
            self._network.cut(HOST, host)
        self.crashes += 1
        self._is_up = trio.Event()
        life.cancel()
        await is_down.wait()
        await self._is_up.wait()

    async def crashing(
        self,
        handler: Callable[[Client], Awaitable[T]],
        *,
        crashes: int = 3,
        awaits: int = 40,
        **options: Any,
    ) -> T:
        """Run ``handler(q)`` as a process that dies so many times, and starts again; what it returns at last.

        Each life but the last ends at one of its first ``awaits`` awaits, drawn by the seed, as by SIGKILL:
        what it did up to there is done, and nothing that it or its client would do on the way out reaches the
        server. (``finally`` blocks do run, for all is one process.) A life that comes to its end before
        is the last. ``options`` are those of ``connect``.
        """
        dice = SeededRng(f"{self.seed}/crashing/{len(self._clients)}")
        for _ in range(crashes):
            host = self._next_host()
            net = MortalNet(self._network.net(host))
            env = attrs.evolve(virtual_env(self.seed, host, network=self._network), net=net)
            fate = Fate(
                trio.lowlevel.current_task(),
                1 + dice.randbelow(awaits),
                self._killer(host, net),
                is_sudden=dice.randbelow(2) == 0,
            )
            trio.lowlevel.add_instrument(fate)
            try:
                with fate.scope:
                    async with connect(f"ws://{HOST}:{PORT}", env=env, **options) as q:
                        return await handler(q)
            finally:
                trio.lowlevel.remove_instrument(fate)
            self.handler_crashes += 1
        async with self.connect(**options) as q:
            return await handler(q)

    def _killer(self, host: str, net: MortalNet) -> Callable[[], None]:
        def kill() -> None:
            net.is_dead = True
            self._network.cut(HOST, host)

        return kill

    def _next_host(self) -> str:
        host = f"client-{len(self._clients) + 1}"
        self._clients.append(host)
        return host

    # --- its lives --------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Live, crash, live again, until cancelled."""
        while True:
            with trio.CancelScope() as self._life:
                await self._live()
            self._application = None
            self._is_down.set()
            self._is_down = trio.Event()

    async def wait_up(self) -> None:
        await self._is_up.wait()

    async def _live(self) -> None:
        self._faults = _Severable()
        env = virtual_env(
            self.seed + self.crashes, HOST, network=self._network, files=self._files, clock=self._clock
        )
        store = MemoryLog(env, self.disk, faults=self._faults)
        options = AppOptions(host=HOST, port=PORT, node=NodeOptions(name="testing"), secret=_SECRET)
        async with open_application({"memory": store}, env, options) as application:
            self._application = application
            self._is_up.set()
            await trio.sleep_forever()


_DURATIONS: Final = (
    "reservation_timeout",
    "expire_timeout",
    "max_runtime",
    "dead_retention",
    "session_grace",
    "dedupe_window",
)


@asynccontextmanager
async def broker(seed: int = 0) -> AsyncIterator[Broker]:
    """A broker for the block: ``async with querator.testing.broker() as broker``.

    Needs trio's virtual clock, as the pytest fixture ``querator_broker``, pytest-trio's
    ``autojump_clock`` and ``querator.testing.run`` have it: time passes when everybody waits, at once.
    One at a time: the order of tasks is a function of ``seed`` as well.

    Raises:
        RuntimeError: the clock is a real one.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        raise RuntimeError(  # noqa: TRY004 - it is no argument that is of the wrong type
            "querator.testing.broker needs a virtual clock: use the fixture querator_broker, pytest-trio's "
            "autojump_clock, or querator.testing.run(main)"
        )
    found = Broker(seed)
    error: BaseException | None = None
    threshold = clock.autojump_threshold
    clock.autojump_threshold = 0
    try:
        with seeded_scheduler(seed):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.serve, name="broker")
                # The body's own exception is kept out of the nursery, which would wrap it in a group.
                try:
                    await found.wait_up()
                    yield found
                except trio.Cancelled:
                    raise
                except BaseException as caught:  # noqa: BLE001 - raised again below
                    error = caught
                nursery.cancel_scope.cancel()
    finally:
        clock.autojump_threshold = threshold
    if error is not None:
        raise error


def run(main: Callable[[Broker], Awaitable[T]], *, seed: int = 0) -> T:
    """Run ``main(broker)`` under trio with a virtual clock; its result. For tests without pytest-trio."""

    async def within() -> T:
        async with broker(seed) as found:
            return await main(found)

    return trio.run(within, clock=MockClock(autojump_threshold=0))
