"""The database fails over to a standby. One that lacks the end of the log must not be written on."""

from typing import Final

import trio

from simulations.options import Options
from simulations.scenarios.scenario import Scenario
from simulations.world import World


def _options(seed: int) -> Options:
    return Options(seed=seed, witness=True, partitions=2, produce_rate=30.0, safety_seconds=4.0)


async def _lose(world: World) -> None:
    """Acknowledged records are gone: the node's partitions stand still, however often it starts."""
    async with trio.open_nursery() as nursery:
        await world.start(nursery)
        await trio.sleep(2.0)
        world.facts.lost_for_good = world.disk.fail_over(lost=3)
        world.trace.mark("server.failed_over")
        await trio.sleep(2.0)
        world.crash()
        await trio.sleep(5.0)
        nursery.cancel_scope.cancel()


async def _keep(world: World) -> None:
    """Nothing is lost: the node, which remembers how far the log had come, goes on."""
    async with trio.open_nursery() as nursery:
        await world.start(nursery)
        await trio.sleep(2.0)
        world.disk.fail_over(lost=0)
        world.trace.mark("server.failed_over")
        world.trouble("failover", lasts=5.0)
        await trio.sleep(2.0)
        world.heal(nursery)
        await world.wait_done()
        world.look()
        nursery.cancel_scope.cancel()


FAILOVER: Final = Scenario(
    name="failover",
    text="a standby that lacks the last records takes over",
    options=_options,
    story=_lose,
    only=("no_silent_loss", "dense", "fence", "owners", "schedule"),
)
SWITCHOVER: Final = Scenario(
    name="switchover", text="a standby that has everything takes over", options=_options, story=_keep
)
