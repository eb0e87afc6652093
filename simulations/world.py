"""One run: a node (and its rivals) on a simulated store, clients on simulated links, a nemesis."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from querator.actors.claim import claim
from querator.actors.node import NodeOptions
from querator.actors.partition import PartitionActor
from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import SECOND, Duration, QueueName
from querator.core.limits import BUCKET_BYTES, RECONNECT_DELAY_MAX, SESSION_GRACE
from querator.core.policy import Ordering
from querator.core.snapshot import state_hash
from querator.env import Env, seconds
from querator.env.virtual import MemoryFiles, MemoryNetwork, MemoryStream, virtual_env
from querator.errors import LogError
from querator.log.store import LogStore
from querator.log.witness import Witness, WitnessedLog
from simulations.checkers.evidence import Facts, Sighting, Terms
from simulations.disk import DrawnFaults, SimulatedDisk, SimulatedLog
from simulations.gate import Gate
from simulations.hostile import Hostile
from simulations.node import MortalClock, MortalNet, MortalStream
from simulations.observations import Observations
from simulations.options import Options
from simulations.trace import Trace
from simulations.workload import ADDRESS, HOST, PORT, Workload

DEAD_QUEUE: Final = "dead"
_WITNESS_FILE: Final = Path("data/witness.json")


_RECONNECT: Final = seconds(RECONNECT_DELAY_MAX) + 3.0
"""Seconds after which a client whose connection broke has another one, and its subscriptions."""


_START_AGAIN: Final = 0.1
"""Seconds until a node that could not start is started again."""


class CountingNetwork(MemoryNetwork):
    """Remembers when clients called."""

    def __init__(self, latency: Duration, facts: Facts) -> None:
        super().__init__(latency)
        self._facts = facts

    def connect(self, source: str, target: str, port: int) -> MemoryStream:
        self._facts.connects.append(trio.current_time())
        return super().connect(source, target, port)


@attrs.define(eq=False)
class Life:
    """One life of the node, from start to crash."""

    name: str
    gate: Gate
    faults: DrawnFaults
    net: MortalNet
    began_at: float
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)


class World:
    """Everything of a run. ``run`` is the run; the checkers look at what is left of it."""

    def __init__(self, options: Options, trace: Trace) -> None:
        self.options = options
        self.trace = trace
        self.disk = SimulatedDisk()
        self.facts = Facts()
        self.network = CountingNetwork(Duration(options.latency_us), self.facts)
        self.seen = Observations()
        self.terms = Terms(
            grace=SESSION_GRACE,
            latency=options.latency_us / 1_000_000,
            skew=2 * options.clock_skew_us,
        )
        self.workload = Workload(options, trace, self.seen, self.network)
        self.hostiles = [
            Hostile(options, trace, self.seen, ADDRESS, number) for number in range(options.hostiles)
        ]
        self.dice = Random(f"{options.seed}/nemesis")
        self.application: Application | None = None
        self.is_healed = False
        self.keyed: set[int] = set()
        """Partitions that are ordered by key."""
        self.server: trio.Nursery | None = None
        """Where the store's server runs, which no crash of a node reaches."""
        self._hosts: list[str] = []
        self._files = MemoryFiles(holder=HOST)
        self._lives = 0
        self._life: Life | None = None
        self._crashed_at: float | None = None
        self._up = trio.Event()
        self._down = trio.Event()

    # --- the node ----------------------------------------------------------------------------------

    async def serve(self, nursery: trio.Nursery) -> None:
        """Live, crash, live again. What is left of a life unwinds beside the next one."""
        while True:
            self._down = trio.Event()
            life = self._begin_life()
            nursery.start_soon(self._live, life)
            await self._down.wait()
            self.trace.mark("node.crashed")
            self.application = None
            if self._up.is_set():
                # Else somebody waits for it, be it for the next life.
                self._up = trio.Event()
            await trio.sleep(self.dice.choice((0.0, 0.01, 0.3)) if not self.is_healed else 0.0)

    def _begin_life(self) -> Life:
        options = self.options
        self._lives += 1
        name = f"n{self._lives}"
        gate = Gate()
        faults = DrawnFaults(options, Random(f"{options.seed}/disk/{name}"), self.trace, self.facts)
        faults.is_healed = self.is_healed
        split = Random(f"{options.seed}/split/{name}") if options.split and not self.is_healed else None
        net = MortalNet(self.network, HOST, gate, split)
        self._life = Life(name, gate, faults, net, trio.current_time())
        return self._life

    async def _live(self, life: Life) -> None:
        options = self.options
        skew = options.clock_skew_us
        offset = Duration(self.dice.randint(-skew, skew) if skew and not self.is_healed else 0)
        env = attrs.evolve(
            virtual_env(
                seed_of(options.seed, self._lives),
                HOST,
                files=self._files,
                clock=MortalClock(life.gate, offset),
            ),
            net=life.net,
        )
        app_options = AppOptions(
            host=HOST,
            port=PORT,
            node=NodeOptions(
                name=life.name,
                payload_memory=options.payload_memory,
                bucket_bytes=options.bucket_bytes or BUCKET_BYTES,
                # No draw, so that a seed is the same run with its inputs and without.
                record_inputs=options.seed % 2 == 0,
            ),
            secret=b"shared by all lives of this node",
        )
        with life.scope:
            try:
                store = self._store(life, env)
                async with (
                    trio.open_nursery() as nursery,
                    open_application({"memory": store}, env, app_options) as application,
                ):
                    if isinstance(store, WitnessedLog):
                        nursery.start_soon(store.witness.run)
                    application.node.broker.halted = self._halted
                    await self._create_queues(application)
                    self.application = application
                    self._note_up(life, offset)
                    await trio.sleep_forever()
            except* LogError as group:
                self.trace.note(life.name, "down", type(group.exceptions[0]).__name__)
                await trio.sleep(_START_AGAIN)
                self.kill(life)

    def _store(self, life: Life, env: Env) -> LogStore:
        store = SimulatedLog(
            env,
            self.disk,
            self._server(),
            gate=life.gate,
            faults=life.faults,
            trace=self.trace,
            facts=self.facts,
            who=life.name,
        )
        return WitnessedLog(store, Witness(env, _WITNESS_FILE)) if self.options.witness else store

    def _server(self) -> trio.Nursery:
        if self.server is None:
            raise RuntimeError("the store's server does not run: see World.running")
        return self.server

    def _note_up(self, life: Life, offset: Duration) -> None:
        now = trio.current_time()
        self.trace.note(life.name, "up", f"clock {offset:+} us")
        self.facts.opened.append((life.began_at, now))
        if self._crashed_at is not None:
            self.trouble("crash", since=self._crashed_at, lasts=1.0)
            self._crashed_at = None
        self._up.set()

    def _halted(self, actor: PartitionActor, fault: str) -> None:
        self.facts.halted.append(f"partition {actor.partition} halted: {fault}")

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
            for part in queue.partitions:
                self.terms.queue_of[part.id] = queue.name
                if queue.name != DEAD_QUEUE:
                    self.terms.attempts_max[part.id] = options.attempts_max
                    if options.keyed:
                        self.keyed.add(part.id)

    def crash(self) -> None:
        """As SIGKILL, and the next life begins."""
        if self._life is not None and not self._life.gate.is_severed:
            self.kill(self._life)

    def kill(self, life: Life) -> None:
        """First nothing gets out any more, then the tasks end."""
        life.gate.sever()
        life.gate.resume()
        life.net.sever(self._hosts)
        life.scope.cancel()
        if life is self._life:
            self._files.lose_power()
            if self._crashed_at is None:
                self._crashed_at = trio.current_time()
            self._down.set()

    def trouble(self, what: str, *, since: float | None = None, lasts: float = 0.0) -> None:
        """Something may be late, from then until so long after now."""
        now = trio.current_time()
        self.facts.troubles.append((now if since is None else since, now + lasts, what))

    # --- looking -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Write down the states of partitions that have nothing undecided, to compare with the log's."""
        if self.application is None:
            return
        for actor in self.application.node.broker.actors.values():
            state = actor.state
            if not actor.is_open or actor.has_pending or state.position != actor.tail + 1:
                continue
            counts = (
                state.ready,
                state.scheduled,
                state.reserved,
                len(state.dead),
                state.completed,
                state.produced,
            )
            # The state as it is stands for the record to come; what it folds from ends at the tail.
            state.position = actor.tail
            seen = Sighting(actor.partition, actor.tail, actor.tail_hash, counts, state_hash(state))
            state.position = actor.tail + 1
            self.facts.sightings.append(seen)
            self.trace.marks["state.seen"] += 1

    # --- the nemesis -----------------------------------------------------------------------------

    async def _strike(self, rate: float, what: str, deed: Callable[[Random], Awaitable[None]]) -> None:
        if rate:
            dice = Random(f"{self.options.seed}/{what}")
            while True:
                await trio.sleep(dice.expovariate(rate))
                await deed(dice)

    async def _crash(self, dice: Random) -> None:
        del dice
        self.crash()

    async def _cut(self, dice: Random) -> None:
        if self.network.cut(HOST, dice.choice(self._hosts)):
            self.trace.mark("link.cut")
            self.trouble("cut", lasts=_RECONNECT)

    async def _hold(self, dice: Random) -> None:
        links = self._life.net.links if self._life is not None else []
        if not links:
            return
        link = dice.choice(links)
        link.link.pause()
        self.trace.mark("link.held")
        lasts, breaks = dice.choice((0.1, 1.0, 12.0)), dice.random() < 0.3
        self.trouble("hold", lasts=lasts + _RECONNECT)
        self._server().start_soon(self._release, link, lasts, breaks)

    async def _release(self, link: MortalStream, lasts: float, breaks: bool) -> None:
        await trio.sleep(lasts)
        if breaks:
            link.inner.cut()
        link.link.resume()

    async def _pause(self, dice: Random) -> None:
        life = self._life
        if life is None or life.gate.is_severed:
            return
        self.trace.mark("node.paused")
        since = trio.current_time()
        life.gate.pause()
        lasts = dice.choice((0.05, 1.0, 4.0, 12.0))
        if dice.random() < 0.5:
            await trio.sleep(lasts / 2)
            await self._take_over(dice)
            lasts /= 2
        await trio.sleep(lasts)
        life.gate.resume()
        self.trouble("pause", since=since, lasts=_RECONNECT)

    async def _restart(self, dice: Random) -> None:
        disk = self.disk
        self.trace.mark("server.killed")
        disk.is_down = True
        disk.abort_all()
        lasts = dice.choice((0.01, 0.5, 2.0))
        self.trouble("restart", lasts=lasts + 3.0)
        await trio.sleep(lasts)
        disk.is_down = False

    async def _snapshot(self, dice: Random) -> None:
        if self.application is not None:
            node = self.application.node
            actors = list(node.broker.actors.values())
            if actors:
                self.trace.mark("snapshot.asked")
                await node.snapshots.take(dice.choice(actors))

    async def _turn_over(self, dice: Random) -> None:
        """History is closed by size every ten seconds; here an operator does it in between, and drops it."""
        if self.application is None:
            return
        buckets = self.application.node.buckets
        try:
            if dice.random() < 0.5:
                await buckets.roll("memory")
            else:
                await buckets.prune("memory", buckets_kept=1)
        except LogError:
            self.trace.mark("bucket.unavailable")

    async def _take_over(self, dice: Random) -> None:
        """A rival claims a partition while the owner lives: the owner must notice, and never lie."""
        env = virtual_env(seed_of(self.options.seed, dice.randrange(1 << 30)), "rival")
        store = SimulatedLog(env, self.disk, self._server())
        asked = trio.current_time()
        try:
            partitions = [partition for partition in await store.partitions() if partition]
            if not partitions:
                return
            chosen = dice.choice(partitions)
            await claim(store, env, chosen, node="rival")
        except LogError:
            return
        self.facts.claims.append((chosen, asked, trio.current_time(), "a rival"))
        self.trace.mark("partition.stolen")
        self.trouble("takeover", since=asked, lasts=3.0)

    async def _look_now_and_then(self, dice: Random) -> None:
        del dice
        self.look()

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Phase one: faults. Phase two: everything heals, and everything must come to its end."""
        async with trio.open_nursery() as nursery:
            await self.start(nursery)
            with trio.move_on_after(self.options.safety_seconds):
                async with trio.open_nursery() as nemesis:
                    self._begin_to_strike(nemesis)
                    nemesis.start_soon(trio.sleep_forever)
            self.heal(nursery)
            await self.wait_done()
            self.look()
            nursery.cancel_scope.cancel()

    async def start(self, nursery: trio.Nursery) -> None:
        """The node is up, and clients are at work."""
        options, workload = self.options, self.workload
        self.server = nursery
        nursery.start_soon(self.serve, nursery)
        await self._up.wait()
        self._start(nursery, "producer", options.producers, workload.producer)
        self._start(nursery, "consumer", options.consumers, workload.consumer)
        self._start(nursery, "asker", options.askers, workload.asker)
        self._start(nursery, "hostile", options.hostiles, self._hostile)

    def _begin_to_strike(self, nemesis: trio.Nursery) -> None:
        options = self.options
        for what, rate, deed in (
            ("crash", options.crash_rate, self._crash),
            ("cut", options.cut_rate, self._cut),
            ("hold", options.hold_rate, self._hold),
            ("pause", options.pause_rate, self._pause),
            ("restart", options.restart_rate, self._restart),
            ("takeover", options.takeover_rate, self._take_over),
            ("snapshot", options.snapshots_rate, self._snapshot),
            ("buckets", 1.0 if options.bucket_bytes else 0.0, self._turn_over),
            ("look", 0.4, self._look_now_and_then),
        ):
            nemesis.start_soon(partial(self._strike, rate, what, deed))

    async def _hostile(self, env: Env, number: int) -> None:
        await self.hostiles[number].run(env)

    def _start(
        self, nursery: trio.Nursery, what: str, count: int, work: Callable[[Env, int], Awaitable[None]]
    ) -> None:
        for number in range(count):
            host = f"{what}-{number}"
            self._hosts.append(host)
            self.seen.clients += 1
            env = virtual_env(self.options.seed, host, network=self.network)
            nursery.start_soon(work, env, number, name=host)

    def heal(self, nursery: trio.Nursery) -> None:
        """From here on nothing is done to the system, and honest consumers see to an end."""
        self.trace.note("world", "healed")
        self.is_healed = True
        self.workload.is_healed = True
        self.disk.is_down = False
        for hostile in self.hostiles:
            hostile.is_healed = True
        self.facts.healed_at = trio.current_time()
        # Zombies may still commit.
        if self.options.heal_restarts:
            self.crash()
        elif self._life is not None:
            self._life.faults.is_healed = True
            self._life.gate.resume()
        self._start(nursery, "rescuer", self.options.queues, self.workload.rescuer)

    async def wait_done(self) -> None:
        """Until nothing is left to be done, or patience ends."""
        left = ""
        with trio.move_on_after(self.options.liveness_seconds) as scope:
            await self.workload.produced_all.wait()
            while not self.facts.halted:
                await self._up.wait()
                left = self._left()
                if not left:
                    return
                await trio.sleep(0.25)
        if scope.cancelled_caught:
            self.facts.unfinished = f"not everything came to its end: {left or 'the node is not up'}"
            self.facts.not_open = self._not_open()

    def _left(self) -> str:
        """What has not come to its end yet, for a person."""
        if self.application is None:
            return "the node is not up"
        texts = [text] if (text := self._not_open()) else []
        broker = self.application.node.broker
        for name, queue in broker.queues.items():
            if name == DEAD_QUEUE:
                continue
            states = [actor.state for actor in queue.open_actors()]
            counts = (
                sum(state.ready for state in states),
                sum(state.reserved for state in states),
                sum(state.scheduled for state in states),
                sum(len(state.leaving) for state in states),
            )
            if any(counts):
                texts.append("{}: {} ready, {} reserved, {} scheduled, {} moving".format(name, *counts))
        expected = self.options.queues + self.options.dead_queue
        if len(broker.queues) != expected:
            texts.append(f"{len(broker.queues)} of {expected} queues are there")
        return "; ".join(texts)

    def _not_open(self) -> str:
        if self.application is None:
            return ""
        texts: list[str] = []
        for name, queue in self.application.node.broker.queues.items():
            closed = len(queue.partitions) - len([actor for actor in queue.open_actors() if actor.is_open])
            if closed:
                texts.append(f"{closed} partitions of {name} are not open {list(queue.faults.values())}")
        return "; ".join(texts)


def seed_of(*numbers: int) -> int:
    """A seed from numbers, the same in every process."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 12_345) % (1 << 61)
    return value
