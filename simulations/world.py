"""One run: a node (and its rivals) on a simulated store, clients on simulated links, a nemesis."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from querator.actors.partition import PartitionActor
from querator.app import Application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import CATALOG_PARTITION, SECOND, Duration, QueueName
from querator.core.limits import SESSION_GRACE
from querator.core.policy import Ordering
from querator.core.state_hash import state_hash
from querator.env import Env
from querator.env.virtual import MemoryNetwork, MemoryStream, virtual_env
from simulations.caller import Caller
from simulations.checkers.evidence import Facts, Sighting, Terms
from simulations.disk import SimulatedDisk
from simulations.hostile import Hostile
from simulations.machine import DRIFT, Life, Machine
from simulations.nemesis import Nemesis
from simulations.nodes import NodeRows
from simulations.observations import Observations
from simulations.options import Options
from simulations.trace import Trace
from simulations.watch import Watch
from simulations.workload import DEAD_QUEUE, Workload


class CountingNetwork(MemoryNetwork):
    """Remembers when clients called, and can hide a host from them."""

    def __init__(self, latency: Duration, facts: Facts, clients: Sequence[str]) -> None:
        super().__init__(latency)
        self._facts = facts
        self._clients = clients
        self._hidden: dict[str, str] = {}
        """Host to the kind of clients that reach it all the same."""

    def hide(self, host: str, *, but: str = "-") -> None:
        """No client reaches it any more, but those whose name begins so."""
        self._hidden[host] = but
        for client in self._clients:
            if not client.startswith(but):
                self.cut(host, client)

    def show(self, host: str) -> None:
        """It can be reached again."""
        self._hidden.pop(host, None)

    def connect(self, source: str, target: str, port: int) -> MemoryStream:
        self._facts.connects.append(trio.current_time())
        if target in self._hidden and not source.startswith(self._hidden[target]):
            raise ConnectionRefusedError(f"no way from {source} to {target}")
        return super().connect(source, target, port)


class World:
    """Everything of a run. ``run`` is the run; the checkers look at what is left of it."""

    def __init__(self, options: Options, trace: Trace) -> None:
        self.options = options
        self.trace = trace
        self.disk = SimulatedDisk()
        self.facts = Facts()
        self.hosts: list[str] = []
        """Of the clients."""
        self.network = CountingNetwork(Duration(options.latency_us), self.facts, self.hosts)
        self.seen = Observations()
        self.terms = Terms(
            grace=SESSION_GRACE,
            latency=options.latency_us / 1_000_000,
            skew=2 * options.clock_skew_us + self._drift,
        )
        self.machines = [Machine(self, host, number) for number, host in enumerate(_hosts(options.nodes))]
        places = [machine.host for machine in self.machines]
        self.workload = Workload(options, trace, self.seen, self.network, places)
        self.hostiles = [
            Hostile(options, trace, self.seen, places, number) for number in range(options.hostiles)
        ]
        self.callers = [
            Caller(options, trace, self.seen, places, number) for number in range(options.callers)
        ]
        self.is_healed = False
        self.keyed: set[int] = set()
        """Partitions that are ordered by key."""
        self.server: trio.Nursery | None = None
        """Where the store's server runs, which no crash of a node reaches."""
        self.nodes = NodeRows(self.disk)
        self.watch = Watch(self)

    # --- the nodes ---------------------------------------------------------------------------------

    @property
    def application(self) -> Application | None:
        """The node's; of several: of the one that owns, as far as anybody can tell."""
        served = self.serving()
        return served[1] if served is not None else None

    def serving(self) -> tuple[Life, Application] | None:
        """The life that owns, likewise, and its application."""
        machine = self.machines[0] if len(self.machines) == 1 else self.owner()
        if machine is None or machine.life is None or machine.application is None:
            return None
        return machine.life, machine.application

    def owner(self) -> Machine | None:
        """One that says that it owns, and that nothing keeps from it."""
        return next((machine for machine in self.machines if machine.is_able and machine.owns), None)

    @property
    def last_owner(self) -> str:
        """Whose record is the last one in the catalog; "": nobody's yet."""
        tail = (
            self.disk.partitions[CATALOG_PARTITION].tail
            if CATALOG_PARTITION in self.disk.partitions
            else None
        )
        return self.disk.writers.get((CATALOG_PARTITION, tail.position), "") if tail is not None else ""

    @property
    def _drift(self) -> int:
        """Microseconds by which two clocks that run differently can come to differ."""
        options = self.options
        if options.nodes == 1 or not options.clock_skew_us:
            return 0
        return round(2 * DRIFT * 1_000_000 * (options.safety_seconds + options.liveness_seconds))

    def running(self) -> trio.Nursery:
        """Where the store's server runs."""
        if self.server is None:
            raise RuntimeError("the store's server does not run: see World.server")
        return self.server

    def halted(self, actor: PartitionActor, fault: str) -> None:
        self.facts.halted.append(f"partition {actor.partition} halted: {fault}")

    async def administer(self, application: Application) -> None:
        """Create the queues as soon as this node owns, if nobody has."""
        while len(self.terms.queue_of) < self._partitions_expected:
            if application.node.ownership.is_deciding:
                await self.create_queues(application)
            await trio.sleep(0.1)

    @property
    def _partitions_expected(self) -> int:
        return self.options.queues * self.options.partitions + self.options.dead_queue

    async def create_queues(self, application: Application) -> None:
        """Those that are not there; and note what was agreed on."""
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
        """Whoever owns, as by SIGKILL; the next life begins."""
        (self.owner() or self.machines[0]).crash()

    def trouble(self, what: str, *, since: float | None = None, lasts: float = 0.0) -> None:
        """Something may be late, from then until so long after now."""
        now = trio.current_time()
        self.facts.troubles.append((now if since is None else since, now + lasts, what))

    # --- looking -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Write down the states of partitions that have nothing undecided, to compare with the log's."""
        for machine in self.machines:
            if machine.application is not None:
                self._look_at(machine.application)

    def _look_at(self, application: Application) -> None:
        for actor in application.node.broker.actors.values():
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

    # --- the run ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Phase one: faults. Phase two: everything heals, and everything must come to its end."""
        async with trio.open_nursery() as nursery:
            await self.start(nursery)
            with trio.move_on_after(self.options.safety_seconds):
                async with trio.open_nursery() as nemesis:
                    Nemesis(self).begin(nemesis)
                    nemesis.start_soon(trio.sleep_forever)
            self.heal(nursery)
            await self.wait_done()
            self.look()
            self.watch.end()
            nursery.cancel_scope.cancel()

    async def start(self, nursery: trio.Nursery) -> None:
        """The node is up, and clients are at work."""
        options, workload = self.options, self.workload
        self.server = nursery
        for machine in self.machines:
            nursery.start_soon(machine.serve, nursery)
        if len(self.machines) > 1:
            nursery.start_soon(self.watch.run)
        await self._wait_up()
        self._start(nursery, "producer", options.producers, workload.producer)
        self._start(nursery, "consumer", options.consumers, workload.consumer)
        self._start(nursery, "asker", options.askers, workload.asker)
        self._start(nursery, "hostile", options.hostiles, self._hostile)
        self._start(nursery, "caller", options.callers, self._call)
        self._start(nursery, "reader", options.readers, workload.reader)
        self._start(nursery, "sender", options.senders, workload.sender)

    async def _wait_up(self) -> None:
        """Until there is a node that has the queues."""
        if len(self.machines) == 1:
            await self.machines[0].up.wait()
            return
        while self.owner() is None or len(self.terms.queue_of) < self._partitions_expected:
            await trio.sleep(0.1)

    async def _hostile(self, env: Env, number: int) -> None:
        await self.hostiles[number].run(env)

    async def _call(self, env: Env, number: int) -> None:
        await self.callers[number].run(env)

    def _start(
        self, nursery: trio.Nursery, what: str, count: int, work: Callable[[Env, int], Awaitable[None]]
    ) -> None:
        for number in range(count):
            host = f"{what}-{number}"
            self.hosts.append(host)
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
        for caller in self.callers:
            caller.is_healed = True
        self.facts.healed_at = trio.current_time()
        # Zombies may still commit.
        for machine in self.machines:
            self.network.show(machine.host)
            if self.options.heal_restarts:
                machine.crash()
            machine.heal()
        self._start(nursery, "rescuer", self.options.queues, self.workload.rescuer)

    async def wait_done(self) -> None:
        """Until nothing is left to be done, or patience ends."""
        left = ""
        with trio.move_on_after(self.options.liveness_seconds) as scope:
            await self.workload.produced_all.wait()
            while not self.facts.halted:
                await self._wait_up()
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
            states = [actor.state for actor in queue.open_actors()]
            if name == DEAD_QUEUE:
                if any(state.homeward for state in states):
                    texts.append(f"{name}: some are on their way home")
                continue
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


def _hosts(nodes: int) -> list[str]:
    return ["server"] if nodes == 1 else [chr(ord("a") + number) for number in range(nodes)]
