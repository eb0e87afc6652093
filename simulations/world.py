"""One run: a node (and its rivals) on a simulated disk, clients on simulated links, a nemesis."""

from collections.abc import Awaitable, Callable
from random import Random

import attrs
import trio

from querator.actors.claim import claim
from querator.actors.node import NodeOptions
from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import SECOND, Duration, QueueName
from querator.core.policy import Ordering
from querator.core.state import PartitionState
from querator.env import Env
from querator.env.trio_clock import TrioClock
from querator.env.virtual import MemoryFiles, MemoryNetwork, virtual_env
from querator.errors import LogError
from querator.log.memory import MemoryLog
from simulations.checkers.progress import Progress
from simulations.disk import SimulatedDisk, SimulatedFaults
from simulations.hostile import Hostile
from simulations.node import MortalLog, MortalNet
from simulations.observations import Observations
from simulations.options import Options
from simulations.trace import Trace
from simulations.workload import ADDRESS, HOST, PORT, Workload

DEAD_QUEUE = "dead"


@attrs.define
class Life:
    """One life of the node, from start to crash."""

    name: str
    faults: SimulatedFaults
    net: MortalNet
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)


class World:
    """Everything of a run. ``run`` is the run; the checkers look at what is left of it."""

    def __init__(self, options: Options, trace: Trace) -> None:
        self.options = options
        self.trace = trace
        self.disk = SimulatedDisk()
        self.network = MemoryNetwork(Duration(options.latency_us))
        self.seen = Observations()
        self.workload = Workload(options, trace, self.seen, self.network)
        self.hostiles = [
            Hostile(options, trace, self.seen, ADDRESS, number) for number in range(options.hostiles)
        ]
        self.dice = Random(f"{options.seed}/nemesis")
        self.application: Application | None = None
        self.is_healed = False
        self.is_stuck = ""
        self.keyed: set[int] = set()
        """Partitions that are ordered by key."""
        self.halted: list[str] = []
        self._hosts: list[str] = []
        self._lives = 0
        self._life: Life | None = None
        self._up = trio.Event()
        self._down = trio.Event()

    # --- the server ------------------------------------------------------------------------------

    async def serve(self, nursery: trio.Nursery) -> None:
        """Live, crash, live again. What is left of a life unwinds beside the next one."""
        while True:
            self._down = trio.Event()
            life = self._begin_life(nursery)
            nursery.start_soon(self._live, life)
            await self._down.wait()
            self.trace.mark("node.crashed")
            self.application = None
            self._up = trio.Event()
            await trio.sleep(self.dice.choice((0.0, 0.01, 0.3)) if not self.is_healed else 0.0)

    def _begin_life(self, nursery: trio.Nursery) -> Life:
        self._lives += 1
        name = f"n{self._lives}"
        faults = SimulatedFaults(
            self.options, Random(f"{self.options.seed}/disk/{name}"), self.trace, name, self.disk, nursery
        )
        faults.is_healed = self.is_healed
        self._life = Life(name, faults, MortalNet(self.network, HOST))
        return self._life

    async def _live(self, life: Life) -> None:
        options = self.options
        skew = options.clock_skew_us
        offset = Duration(self.dice.randint(-skew, skew) if skew and not self.is_healed else 0)
        env = attrs.evolve(
            virtual_env(
                seed_of(options.seed, self._lives),
                HOST,
                files=MemoryFiles(holder=HOST),
                clock=TrioClock(offset=offset),
            ),
            net=life.net,
        )
        store = MortalLog(env, self.disk, life.faults)
        app_options = AppOptions(
            host=HOST,
            port=PORT,
            node=NodeOptions(name=life.name, payload_memory=options.payload_memory),
            secret=b"shared by all lives of this node",
        )
        with life.scope:
            try:
                async with open_application({"memory": store}, env, app_options) as application:
                    application.node.broker.halted = self._halted
                    await self._create_queues(application)
                    self.application = application
                    self.trace.note(life.name, "up", f"clock {offset:+} us")
                    self._up.set()
                    await trio.sleep_forever()
            except* LogError as group:
                self.trace.note(life.name, "down", type(group.exceptions[0]).__name__)
                self.kill(life)

    def _halted(self, actor: object, fault: str) -> None:
        self.halted.append(f"partition {getattr(actor, 'partition', 0)} halted: {fault}")

    async def _create_queues(self, application: Application) -> None:
        options = self.options
        catalog = application.node.catalog
        if options.dead_queue and QueueName(DEAD_QUEUE) not in catalog.catalog.queues:
            await catalog.change(CreateQueue(name=QueueName(DEAD_QUEUE), partitions=1))
        for number in range(options.queues):
            name = QueueName(f"q{number}")
            if name not in catalog.catalog.queues:
                await catalog.change(
                    CreateQueue(
                        name=name,
                        partitions=options.partitions,
                        reservation_timeout=Duration(int(options.reservation_timeout * SECOND)),
                        expire_timeout=Duration(4 * SECOND if options.expire else 0),
                        attempts_max=options.attempts_max,
                        dead_queue=DEAD_QUEUE if options.dead_queue else "",
                        ordering=Ordering.KEY if options.keyed else Ordering.FIFO,
                    )
                )
        for queue in catalog.catalog.queues.values():
            if queue.name != DEAD_QUEUE and options.keyed:
                self.keyed.update(part.id for part in queue.partitions)

    def crash(self) -> None:
        """As SIGKILL, and the next life begins."""
        if self._life is not None and not self._life.faults.is_severed:
            self.kill(self._life)

    def kill(self, life: Life) -> None:
        """First nothing gets out any more, then the tasks end."""
        life.faults.is_severed = True
        life.net.sever(self._hosts)
        life.scope.cancel()
        if life is self._life:
            self._down.set()

    def owned(self) -> dict[int, PartitionState]:
        """The states that the living node has."""
        if self.application is None:
            return {}
        actors = self.application.node.broker.actors
        return {actor.partition: actor.state for actor in actors.values() if actor.is_open}

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
                if self.network.cut(HOST, dice.choice(self._hosts)):
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
        env = virtual_env(seed_of(self.options.seed, dice.randrange(1 << 30)), "rival")
        store = MemoryLog(env, self.disk)
        partitions = [partition for partition in await store.partitions() if partition]
        if partitions:
            try:
                await claim(store, env, dice.choice(partitions), node="rival")
            except LogError:
                return
            self.trace.mark("partition.stolen")

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Phase one: faults. Phase two: everything heals, and everything must come to its end."""
        options, workload = self.options, self.workload
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, nursery)
            await self._up.wait()
            self._start(nursery, "producer", options.producers, workload.producer)
            self._start(nursery, "consumer", options.consumers, workload.consumer)
            self._start(nursery, "asker", options.askers, workload.asker)
            self._start(nursery, "hostile", options.hostiles, self._hostile)
            with trio.move_on_after(options.safety_seconds):
                async with trio.open_nursery() as nemesis:
                    nemesis.start_soon(self._strike, options.crash_rate, "crash")
                    nemesis.start_soon(self._strike, options.cut_rate, "cut")
                    nemesis.start_soon(self._strike, options.takeover_rate, "takeover")
                    nemesis.start_soon(self._strike, options.snapshots_rate, "snapshot")
                    nemesis.start_soon(trio.sleep_forever)
            self._heal()
            self._start(nursery, "rescuer", options.queues, workload.rescuer)
            await self._wait_done()
            nursery.cancel_scope.cancel()

    async def _hostile(self, env: Env, number: int) -> None:
        await self.hostiles[number].run(env)

    def _start(
        self, nursery: trio.Nursery, what: str, count: int, work: Callable[[Env, int], Awaitable[None]]
    ) -> None:
        for number in range(count):
            host = f"{what}-{number}"
            self._hosts.append(host)
            env = virtual_env(self.options.seed, host, network=self.network)
            nursery.start_soon(work, env, number, name=host)

    def _heal(self) -> None:
        self.trace.note("world", "healed")
        self.is_healed = True
        self.workload.is_healed = True
        for hostile in self.hostiles:
            hostile.is_healed = True
        # Zombies of the last life may still commit; the crash makes the node as good as new.
        self.crash()

    async def _wait_done(self) -> None:
        progress = Progress(self.workload.idle)
        with trio.move_on_after(self.options.liveness_seconds) as scope:
            await self.workload.produced_all.wait()
            while True:
                await self._up.wait()
                application = self.application
                if application is not None:
                    left = progress.look(application, self.options)
                    if progress.fault or self.halted:
                        break
                    if not left:
                        return
                await trio.sleep(0.25)
        self.is_stuck = progress.fault or (progress.left if scope.cancelled_caught else "")


def seed_of(*numbers: int) -> int:
    """A seed from numbers, the same in every process."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 12_345) % (1 << 61)
    return value
