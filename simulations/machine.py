"""A host, and the lives of the node on it: each is the whole production wiring, from start to death."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from querator.actors.node import NodeOptions, open_stores
from querator.app import Application, AppOptions, read_nonce, run_application
from querator.core.ids import Duration
from querator.core.limits import BUCKET_BYTES, DRAIN_TIMEOUT
from querator.env import Env, seconds
from querator.env.virtual import MemoryFiles, virtual_env
from querator.errors import LogError
from querator.log.lease import NodeLease, Place
from querator.log.store import LogStore
from querator.log.witness import Witness, WitnessedLog
from simulations.cable import Cable
from simulations.disk import DrawnFaults, SimulatedLog
from simulations.gate import Gate
from simulations.node import MortalClock, MortalNet
from simulations.nodes import SimulatedNodes
from simulations.workload import PORT

if TYPE_CHECKING:
    from simulations.world import World

_DATA: Final = Path("data")
_START_AGAIN: Final = 0.1
"""Seconds until a node that could not start is started again."""
_STOP_MAX: Final = seconds(DRAIN_TIMEOUT) + 15.0
"""Seconds after which an operator kills a node that does not stop."""
DRIFT: Final = 0.002
"""How much faster or slower than the store's server the clock of a node with skew runs."""


@attrs.define(eq=False)
class Life:
    """One life of a node, from start to crash."""

    name: str
    gate: Gate
    faults: DrawnFaults
    net: MortalNet
    began_at: float
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    stopping: trio.Event = attrs.Factory(trio.Event)
    """Set by SIGTERM."""
    stopped_at: float | None = None
    """When it had ended in order, by itself."""
    could_hand_over: bool = False
    """It reached the store when it ended."""
    errands: dict[trio.CancelScope, None] = attrs.Factory(dict)

    @contextmanager
    def errand(self) -> Iterator[None]:
        """What somebody asked the node to do: it ends with the life."""
        with trio.CancelScope() as scope:
            self.errands[scope] = None
            try:
                yield
            finally:
                del self.errands[scope]


class Machine:
    """Its files, its clock's error and its cable outlive the lives."""

    def __init__(self, world: "World", host: str, number: int) -> None:
        self.host = host
        self.address = f"{host}:{PORT}"
        self.application: Application | None = None
        self.life: Life | None = None
        self.up = trio.Event()
        """There is an application; replaced with every crash."""
        self.cable = Cable()
        self._world = world
        self._number = number
        self._is_alone = world.options.nodes == 1
        self._dice = Random(f"{world.options.seed}/nemesis" + (f"/{number}" if number else ""))
        self._files = MemoryFiles(holder=host)
        self._lives = 0
        self._crashed_at: float | None = None
        self._down = trio.Event()

    @property
    def is_able(self) -> bool:
        """Nothing is done to it now that would keep it from owning."""
        life = self.life
        return (
            life is not None
            and self.application is not None
            and not (life.gate.is_severed or life.gate.is_paused or self.cable.is_cut)
        )

    @property
    def owns(self) -> bool:
        """By its own account, whatever that is worth."""
        return self.application is not None and self.application.node.ownership.is_deciding

    @property
    def is_open(self) -> bool:
        """It has opened every partition of every queue."""
        return self.application is not None and all(
            len(queue.open_actors()) == len(queue.partitions)
            for queue in self.application.node.broker.queues.values()
        )

    async def serve(self, nursery: trio.Nursery) -> None:
        """Live, crash, live again. What is left of a life unwinds beside the next one."""
        world = self._world
        while True:
            self._down = trio.Event()
            life = self._begin_life()
            nursery.start_soon(self._live, life)
            await self._down.wait()
            world.trace.mark("node.crashed" if life.stopped_at is None else "node.stopped")
            self.application = None
            if self.up.is_set():
                # Else somebody waits for it, be it for the next life.
                self.up = trio.Event()
            pauses = (0.0, 0.01, 0.3) if self._is_alone else (0.0, 0.3, 3.0, 12.0)
            if life.stopped_at is not None:
                # An operator has something to do meanwhile.
                pauses = (1.0, 5.0, 12.0)
            await trio.sleep(self._dice.choice(pauses) if not world.is_healed else 0.0)

    def _begin_life(self) -> Life:
        world, options = self._world, self._world.options
        self._lives += 1
        name = f"n{self._lives}" if self._is_alone else f"{self.host}{self._lives}"
        gate = Gate()
        faults = DrawnFaults(options, Random(f"{options.seed}/disk/{name}"), world.trace, world.facts)
        faults.is_healed = world.is_healed
        split = Random(f"{options.seed}/split/{name}") if options.split and not world.is_healed else None
        net = MortalNet(world.network, self.host, gate, split)
        self.life = Life(name, gate, faults, net, trio.current_time())
        return self.life

    async def _live(self, life: Life) -> None:
        world, options = self._world, self._world.options
        skew = options.clock_skew_us
        offset = Duration(self._dice.randint(-skew, skew) if skew and not world.is_healed else 0)
        rate = 1.0 if self._is_alone or not skew else 1.0 + self._dice.uniform(-DRIFT, DRIFT)
        env = attrs.evolve(
            virtual_env(
                seed_of(options.seed, self._lives),
                self.host,
                files=self._files,
                clock=MortalClock(life.gate, offset, rate),
            ),
            net=life.net,
        )
        app_options = AppOptions(
            host=self.host,
            port=PORT,
            node=NodeOptions(
                name=life.name,
                payload_memory=options.payload_memory,
                bucket_bytes=options.bucket_bytes or BUCKET_BYTES,
                # No draw, so that a seed is the same run with its inputs and without.
                record_inputs=options.seed % 2 == 0,
            ),
            secret=b"shared by all nodes of this world",
        )
        with life.scope:
            try:
                store = self._store(life, env)
                async with trio.open_nursery() as nursery:
                    async with (
                        open_stores({"memory": store}),
                        run_application(
                            {"memory": store}, env, app_options, await self._line(life, env)
                        ) as application,
                    ):
                        if isinstance(store, WitnessedLog):
                            nursery.start_soon(store.witness.run)
                        application.node.broker.halted = world.halted
                        if self._is_alone:
                            await world.create_queues(application)
                        else:
                            nursery.start_soon(world.administer, application)
                        # What was shielded from the end of a life that is over comes to nothing here.
                        await life.gate.passage()
                        self.application = application
                        self._note_up(life, offset)
                        await life.stopping.wait()
                        nursery.start_soon(self._insist, life)
                    nursery.cancel_scope.cancel()
            except* LogError as group:
                world.trace.note(life.name, "down", type(group.exceptions[0]).__name__)
                await trio.sleep(_START_AGAIN)
                self.kill(life)
        if not life.gate.is_severed:
            world.trace.note(life.name, "stopped")
            life.stopped_at = trio.current_time()
            life.could_hand_over = not self.cable.is_cut
            self.kill(life)

    async def _insist(self, life: Life) -> None:
        await trio.sleep(_STOP_MAX)
        self._world.trace.mark("node.stubborn")
        self.kill(life)

    def _note_up(self, life: Life, offset: Duration) -> None:
        world, now = self._world, trio.current_time()
        world.trace.note(life.name, "up", f"clock {offset:+} us")
        if self._is_alone:
            world.facts.opened.append((life.began_at, now))
        if self._crashed_at is not None:
            # Of several another one takes over, and the watch sees until when nobody does.
            lasts = 1.0 if self._is_alone else self._crashed_at + 1.0 - now
            world.trouble("crash", since=self._crashed_at, lasts=lasts)
            self._crashed_at = None
        self.up.set()

    def crash(self) -> None:
        """As SIGKILL, and the next life begins."""
        if self.life is not None and not self.life.gate.is_severed:
            self.kill(self.life)

    def kill(self, life: Life) -> None:
        """First nothing gets out any more, then the tasks end."""
        life.gate.sever()
        life.gate.resume()
        life.net.sever(self._world.hosts)
        life.scope.cancel()
        for scope in life.errands:
            scope.cancel()
        if life is self.life:
            self._files.lose_power()
            if self._crashed_at is None:
                self._crashed_at = trio.current_time()
            self._down.set()

    def stop(self) -> bool:
        """As SIGTERM: it drains, hands over and ends, and the next life begins. Whether it was told so."""
        if self.application is None or self.life is None or self.life.stopping.is_set():
            return False
        self.life.stopping.set()
        return True

    def heal(self) -> None:
        """Whatever was done to it is over."""
        self.cable.mend()
        if self.life is not None:
            self.life.faults.is_healed = True
            self.life.gate.resume()

    def _store(self, life: Life, env: Env) -> LogStore:
        world = self._world
        store = SimulatedLog(
            env,
            world.disk,
            world.running(),
            gate=life.gate,
            cable=self.cable,
            faults=life.faults,
            trace=world.trace,
            facts=world.facts,
            who=life.name,
        )
        return WitnessedLog(store, Witness(env, _DATA / "witness.json")) if world.options.witness else store

    async def _line(self, life: Life, env: Env) -> NodeLease | None:
        """One of several stands in line; the only one need not."""
        if self._is_alone:
            return None
        world = self._world
        await env.files.make_directory(_DATA)
        place = Place(self.address, await read_nonce(_DATA, env), self.address)
        table = SimulatedNodes(
            world.nodes, world.disk, world.running(), gate=life.gate, cable=self.cable, faults=life.faults
        )
        return NodeLease(table, env, place)


def seed_of(*numbers: int) -> int:
    """A seed from numbers, the same in every process."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number + 12_345) % (1 << 61)
    return value
