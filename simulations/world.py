"""One run: a node (and its rivals) on a simulated disk, clients on simulated links, a nemesis."""

from random import Random

import trio

from querator.actors.node import NodeOptions
from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import SECOND, Duration, QueueName
from querator.core.policy import Ordering
from querator.env.trio_clock import TrioClock
from querator.env.virtual import MemoryFiles, MemoryNetwork, virtual_env
from querator.errors import LogError
from querator.log.memory import MemoryDisk, MemoryLog
from simulations.disk import SimulatedFaults
from simulations.observations import Observations
from simulations.options import Options
from simulations.trace import Trace
from simulations.workload import Workload

HOST = "server"
PORT = 2319


class World:
    """Everything of a run. ``run`` is the run; the checkers look at what is left of it."""

    def __init__(self, options: Options, trace: Trace) -> None:
        self.options = options
        self.trace = trace
        self.disk = MemoryDisk()
        self.files = MemoryFiles(holder=HOST)
        self.network = MemoryNetwork(Duration(options.latency_us))
        self.seen = Observations()
        self.workload = Workload(options, trace, self.seen, f"ws://{HOST}:{PORT}")
        self.dice = Random(f"{options.seed}/nemesis")
        self.application: Application | None = None
        self.is_healed = False
        self.is_stuck = ""
        self._lives = 0
        self._faults: SimulatedFaults | None = None
        self._life: trio.CancelScope | None = None
        self._up = trio.Event()

    # --- the server ------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Live, crash, live again."""
        while True:
            self._lives += 1
            name = f"n{self._lives}"
            faults = SimulatedFaults(
                self.options, Random(f"{self.options.seed}/disk/{self._lives}"), self.trace, name
            )
            faults.is_healed = self.is_healed
            offset = Duration(0 if self.is_healed else self.dice.randint(-50_000, 50_000))
            env = virtual_env(
                hash_free(self.options.seed, self._lives),
                HOST,
                network=self.network,
                files=self.files,
                clock=TrioClock(offset=offset),
            )
            store = MemoryLog(env, self.disk, faults=faults)
            app_options = AppOptions(
                host=HOST,
                port=PORT,
                node=NodeOptions(name=name, payload_memory=self.options.payload_memory),
                secret=b"shared by all lives of this node",
            )
            with trio.CancelScope() as life:
                self._life, self._faults = life, faults
                try:
                    async with open_application({"memory": store}, env, app_options) as application:
                        self.application = application
                        self.trace.note(name, "up")
                        await self._create_queues(application)
                        self._up.set()
                        await trio.sleep_forever()
                except* LogError as group:
                    self.trace.note(name, "down", type(group.exceptions[0]).__name__)
            self.application = None
            self._up = trio.Event()
            self.trace.mark("node.crashed")
            await trio.sleep(self.dice.choice((0.0, 0.05, 0.5)) if not self.is_healed else 0.0)

    async def _create_queues(self, application: Application) -> None:
        options = self.options
        for number in range(options.queues):
            name = QueueName(f"q{number}")
            if name not in application.node.catalog.catalog.queues:
                await application.node.catalog.change(
                    CreateQueue(
                        name=name,
                        partitions=options.partitions,
                        reservation_timeout=Duration(int(options.reservation_timeout * SECOND)),
                        expire_timeout=Duration(8 * SECOND if options.expire else 0),
                        attempts_max=options.attempts_max,
                        ordering=Ordering.KEY if options.keyed else Ordering.FIFO,
                    )
                )

    def crash(self) -> None:
        """As SIGKILL: first nothing gets out any more, then the tasks end."""
        if self._faults is not None and self._life is not None:
            self._faults.is_severed = True
            for host in self._client_hosts():
                self.network.cut(HOST, host)
            self._life.cancel()

    def _client_hosts(self) -> list[str]:
        producers = [f"producer-{number}" for number in range(self.options.producers)]
        return producers + [f"consumer-{number}" for number in range(self.options.consumers)]

    # --- the nemesis -----------------------------------------------------------------------------

    async def _strike(self, rate: float, what: str) -> None:
        if not rate:
            return
        dice = Random(f"{self.options.seed}/{what}")
        while True:
            await trio.sleep(dice.expovariate(rate))
            if what == "crash":
                self.crash()
            elif what == "cut":
                host = dice.choice(self._client_hosts())
                if self.network.cut(HOST, host):
                    self.trace.mark("link.cut")
            elif what == "takeover":
                await self._take_over(dice)
            elif self.application is not None:
                node = self.application.node
                actors = list(node.broker.actors.values())
                if actors:
                    self.trace.mark("snapshot.asked")
                    await node.snapshots.take(dice.choice(actors))

    async def _take_over(self, dice: Random) -> None:
        """A rival claims a partition while the owner lives: the owner must notice, and never lie."""
        from querator.actors.claim import claim

        env = virtual_env(hash_free(self.options.seed, dice.randrange(1 << 30)), "rival")
        store = MemoryLog(env, self.disk)
        partitions = [partition for partition in await store.partitions() if partition]
        if partitions:
            await claim(store, env, dice.choice(partitions), node="rival")
            self.trace.mark("partition.stolen")

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Phase one: faults. Phase two: everything heals, and everything must come to its end."""
        options = self.options
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve)
            await self._up.wait()
            for number in range(options.producers):
                nursery.start_soon(self.workload.producer, self._client_env(f"producer-{number}"), number)
            for number in range(options.consumers):
                nursery.start_soon(self.workload.consumer, self._client_env(f"consumer-{number}"), number)
            with trio.move_on_after(options.safety_seconds):
                async with trio.open_nursery() as nemesis:
                    nemesis.start_soon(self._strike, options.crash_rate, "crash")
                    nemesis.start_soon(self._strike, options.cut_rate, "cut")
                    nemesis.start_soon(self._strike, options.takeover_rate, "takeover")
                    nemesis.start_soon(self._strike, options.snapshots_rate, "snapshot")
                    nemesis.start_soon(trio.sleep_forever)
            self._heal()
            await self._wait_done()
            nursery.cancel_scope.cancel()

    def _client_env(self, host: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - an Env
        return virtual_env(self.options.seed, host, network=self.network)

    def _heal(self) -> None:
        self.trace.note("world", "healed")
        self.is_healed = True
        self.workload.is_healed = True
        if self._faults is not None:
            self._faults.is_healed = True
        self.crash()

    async def _wait_done(self) -> None:
        with trio.move_on_after(self.options.liveness_seconds) as scope:
            await self.workload.produced_all.wait()
            while True:
                await self._up.wait()
                application = self.application
                if application is not None:
                    states = [actor.state for actor in application.node.broker.actors.values()]
                    open_count = sum(
                        len(queue.open_actors()) for queue in application.node.broker.queues.values()
                    )
                    left = sum(state.ready + state.reserved + state.scheduled for state in states)
                    if not left and open_count == self.options.queues * self.options.partitions:
                        return
                await trio.sleep(0.5)
        if scope.cancelled_caught:
            self.is_stuck = "not everything came to its end after the faults were over"


def hash_free(*numbers: int) -> int:
    """A seed from numbers, the same in every process."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 12_345) % (1 << 61)
    return value
