"""The nemesis: what is done to the nodes, their links and their store while faults strike."""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from querator.actors.claim import claim
from querator.env.virtual import virtual_env
from querator.errors import LogError
from simulations.disk import SimulatedLog
from simulations.machine import Machine, seed_of
from simulations.node import MortalStream
from simulations.patience import RECONNECT

if TYPE_CHECKING:
    from simulations.world import World


class Nemesis:
    """Strikes a world at the rates of its options; each kind of fault from a stream of its own."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._options = world.options

    def begin(self, nursery: trio.Nursery) -> None:
        """From now on, until the nursery is cancelled."""
        options = self._options
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
            ("drain", options.drain_rate, self._drain),
            ("isolate", options.isolate_rate, self._isolate),
            ("hide", options.hide_rate, self._hide),
            ("blackout", options.blackout_rate, self._black_out),
        ):
            nursery.start_soon(partial(self._strike, rate, what, deed))

    async def _strike(self, rate: float, what: str, deed: Callable[[Random], Awaitable[None]]) -> None:
        if rate:
            dice = Random(f"{self._options.seed}/{what}")
            while True:
                await trio.sleep(dice.expovariate(rate))
                await deed(dice)

    def _victim(self, dice: Random) -> Machine:
        """Mostly whoever owns."""
        world = self._world
        if len(world.machines) == 1:
            return world.machines[0]
        owner, any_one = world.owner(), dice.choice(world.machines)
        return owner if owner is not None and dice.random() < 0.7 else any_one

    # --- nodes ----------------------------------------------------------------------------------

    async def _crash(self, dice: Random) -> None:
        self._victim(dice).crash()

    async def _black_out(self, dice: Random) -> None:
        del dice
        self._world.trace.mark("node.all_crashed")
        for machine in self._world.machines:
            machine.crash()

    async def _pause(self, dice: Random) -> None:
        world = self._world
        machine = self._victim(dice)
        life = machine.life
        if life is None or life.gate.is_severed:
            return
        world.trace.mark("node.paused")
        since = trio.current_time()
        owned = life if machine.owns else None
        life.gate.pause()
        lasts = dice.choice((0.05, 1.0, 4.0, 12.0))
        if dice.random() < 0.5:
            await trio.sleep(lasts / 2)
            await self._take_over(dice)
            lasts /= 2
        await trio.sleep(lasts)
        if owned is machine.life is not None and world.last_owner not in ("", life.name):
            world.trace.mark("owner.stale_resumed")
        life.gate.resume()
        world.trouble("pause", since=since, lasts=RECONNECT)

    async def _drain(self, dice: Random) -> None:
        """As by SIGTERM, in the middle of it all."""
        if self._victim(dice).stop():
            self._world.trace.mark("node.drained")

    # --- links ----------------------------------------------------------------------------------

    async def _cut(self, dice: Random) -> None:
        world = self._world
        client = dice.choice(world.hosts)
        if sum(world.network.cut(machine.host, client) for machine in world.machines):
            world.trace.mark("link.cut")
            world.trouble("cut", lasts=RECONNECT)

    async def _hold(self, dice: Random) -> None:
        world = self._world
        life = self._victim(dice).life
        links = life.net.links if life is not None else []
        if not links:
            return
        link = dice.choice(links)
        link.link.pause()
        world.trace.mark("link.held")
        lasts, breaks = dice.choice((0.1, 1.0, 12.0)), dice.random() < 0.3
        world.trouble("hold", lasts=lasts + RECONNECT)
        world.running().start_soon(self._release, link, lasts, breaks)

    async def _release(self, link: MortalStream, lasts: float, breaks: bool) -> None:
        await trio.sleep(lasts)
        if breaks:
            link.inner.cut()
        link.link.resume()

    async def _isolate(self, dice: Random) -> None:
        """A node does not reach the store, and its clients reach it all the time."""
        world = self._world
        machine = self._victim(dice)
        since = trio.current_time()
        world.trace.mark("node.isolated")
        machine.cable.cut(silent=dice.random() < 0.5)
        await trio.sleep(dice.choice((0.5, 4.0, 9.0, 20.0)))
        machine.cable.mend()
        world.trouble("isolated", since=since, lasts=RECONNECT)

    async def _hide(self, dice: Random) -> None:
        """A node reaches the store, and no client reaches it."""
        world = self._world
        machine = self._victim(dice)
        since = trio.current_time()
        world.trace.mark("node.hidden")
        world.network.hide(machine.host)
        await trio.sleep(dice.choice((0.5, 4.0, 9.0)))
        world.network.show(machine.host)
        world.trouble("hidden", since=since, lasts=RECONNECT)

    # --- the store ------------------------------------------------------------------------------

    async def _restart(self, dice: Random) -> None:
        world, disk = self._world, self._world.disk
        world.trace.mark("server.killed")
        disk.is_down = True
        disk.abort_all()
        lasts = dice.choice((0.01, 0.5, 2.0))
        world.trouble("restart", lasts=lasts + 3.0)
        await trio.sleep(lasts)
        disk.is_down = False

    async def _take_over(self, dice: Random) -> None:
        """A rival claims a partition while the owner lives: the owner must notice, and never lie."""
        world = self._world
        env = virtual_env(seed_of(self._options.seed, dice.randrange(1 << 30)), "rival")
        store = SimulatedLog(env, world.disk, world.running(), who="rival")
        asked = trio.current_time()
        try:
            partitions = [partition for partition in await store.partitions() if partition]
            if not partitions:
                return
            chosen = dice.choice(partitions)
            await claim(store, env, chosen, node="rival")
        except LogError:
            return
        world.facts.claims.append((chosen, asked, trio.current_time(), "a rival"))
        world.trace.mark("partition.stolen")
        world.trouble("takeover", since=asked, lasts=3.0)

    # --- operators ------------------------------------------------------------------------------

    async def _snapshot(self, dice: Random) -> None:
        served = self._world.serving()
        if served is None:
            return
        life, application = served
        actors = list(application.node.broker.actors.values())
        if actors:
            self._world.trace.mark("snapshot.asked")
            with life.errand():
                await application.node.snapshots.take(dice.choice(actors))

    async def _turn_over(self, dice: Random) -> None:
        """History is closed by size every ten seconds; here an operator does it in between, and drops it."""
        served = self._world.serving()
        if served is None:
            return
        life, application = served
        buckets = application.node.buckets
        try:
            with life.errand():
                if dice.random() < 0.5:
                    await buckets.roll("memory")
                else:
                    await buckets.prune("memory", buckets_kept=1)
        except LogError:
            self._world.trace.mark("bucket.unavailable")

    async def _look_now_and_then(self, dice: Random) -> None:
        del dice
        self._world.look()
