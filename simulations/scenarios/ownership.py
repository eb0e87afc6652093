"""Several nodes on one store: the one that owns is killed, told to stop, paused for long, or cut off."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from querator.core.limits import NODE_LEASE, NODE_RENEWAL
from querator.env import seconds
from simulations.checkers.owned import UNOWNED_MAX
from simulations.machine import Machine
from simulations.options import Options
from simulations.patience import RECONNECT
from simulations.scenarios.scenario import Scenario
from simulations.world import World

_PAST_ITS_LEASE: Final = seconds(NODE_LEASE) + 2 * seconds(NODE_RENEWAL)


def _scenario(
    name: str, text: str, strike: Callable[[World, Machine], Awaitable[None]], **more: Any
) -> Scenario:
    settings: dict[str, Any] = {
        "nodes": 2,
        "safety_seconds": 25.0,
        "heal_restarts": False,
        "latency_us": 200,
        "partitions": 2,
        "consumers": 2,
        "askers": 1,
        "readers": 2,
        "produce_rate": 20.0,
        "clock_skew_us": 50_000,
        "witness": True,
    }

    def options(seed: int) -> Options:
        return Options(seed=seed, **(settings | more))

    async def story(world: World) -> None:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            # By then everybody knows who stands by.
            await trio.sleep(1.5 * seconds(NODE_RENEWAL))
            owner = world.owner()
            if owner is None:
                raise RuntimeError("some node owns by then")
            await strike(world, owner)
            world.heal(nursery)
            await world.wait_done()
            world.look()
            world.watch.end()
            nursery.cancel_scope.cancel()

    return Scenario(name=name, text=text, options=options, story=story)


async def _followed(world: World, old: Machine) -> None:
    """Until another node owns, or should long have."""
    with trio.move_on_after(2 * UNOWNED_MAX):
        while (owner := world.owner()) is None or owner is old:
            await trio.sleep(0.1)


async def _kill(world: World, owner: Machine) -> None:
    owner.crash()
    await trio.sleep(_PAST_ITS_LEASE)


async def _kill_all(world: World, owner: Machine) -> None:
    del owner
    for machine in world.machines:
        machine.crash()
    await trio.sleep(_PAST_ITS_LEASE)


async def _drain(world: World, owner: Machine) -> None:
    world.trace.mark("node.drained")
    owner.stop()
    await _followed(world, owner)
    await trio.sleep(1.0)


async def _pause(world: World, owner: Machine) -> None:
    """With whatever it has under way; it wakes up when others have written for a while."""
    life = owner.life
    if life is None:
        raise RuntimeError("an owner lives")
    since = trio.current_time()
    world.trace.mark("node.paused")
    life.gate.pause()
    await _followed(world, owner)
    await trio.sleep(3.0)
    life.gate.resume()
    world.trace.mark("owner.stale_resumed")
    world.trouble("pause", since=since, lasts=RECONNECT)
    await trio.sleep(2.0)


async def _cut_off(world: World, owner: Machine) -> None:
    """It reaches the store no more, and of its clients only those that read; the others go to the next one.
    What they write there must not be missing from what it tells."""
    since = trio.current_time()
    world.trace.mark("node.isolated")
    world.network.hide(owner.host, but="reader")
    owner.cable.cut(silent=True)
    await _followed(world, owner)
    await trio.sleep(8.0)
    owner.cable.mend()
    world.network.show(owner.host)
    world.trouble("isolated", since=since, lasts=RECONNECT)


async def _hide(world: World, owner: Machine) -> None:
    """It goes on owning: who can't reach it waits."""
    since = trio.current_time()
    world.trace.mark("node.hidden")
    world.network.hide(owner.host)
    await trio.sleep(_PAST_ITS_LEASE)
    world.network.show(owner.host)
    world.trouble("hidden", since=since, lasts=RECONNECT)


OWNERSHIP: Final = (
    _scenario("owner_killed", "the owner is killed, and starts again", _kill),
    _scenario("owner_drained", "the owner is told to stop in the middle of its work", _drain),
    _scenario("owner_paused", "the owner is stopped past its lease, and wakes up", _pause),
    _scenario(
        "owner_cut_off",
        "the owner loses the store and all clients that write",
        _cut_off,
        consumers=0,
        askers=0,
    ),
    _scenario("owner_hidden", "no client reaches the owner, which reaches the store", _hide),
    _scenario("all_killed", "all of three nodes are killed at once", _kill_all, nodes=3),
)
