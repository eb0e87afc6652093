"""One partition halts on a failed invariant; the others go on as if nothing had been."""

from typing import Final

import trio

from querator.core.invariants import InvariantViolation
from simulations.options import Options
from simulations.scenarios.scenario import Scenario
from simulations.world import World


def _options(seed: int) -> Options:
    return Options(
        seed=seed, partitions=3, produce_rate=30.0, safety_seconds=6.0, heal_restarts=False, consumers=2
    )


async def _story(world: World) -> None:
    async with trio.open_nursery() as nursery:
        await world.start(nursery)
        await trio.sleep(2.0)
        if world.application is None:
            raise RuntimeError("the node is up by then")
        broker = world.application.node.broker
        halted = next(iter(broker.actors.values()))
        broker._halt(halted, InvariantViolation("as if"))
        world.trace.mark("partition.halted_on_purpose")
        world.facts.halted.clear()
        world.heal(nursery)
        await world.workload.produced_all.wait()
        left = -1
        with trio.move_on_after(30.0):
            while left:
                await trio.sleep(0.25)
                others = [actor.state for actor in broker.actors.values() if actor is not halted]
                left = sum(state.ready + state.reserved + state.scheduled for state in others)
        if left:
            world.facts.unfinished = f"{left} items of partitions beside a halted one are not done"
        nursery.cancel_scope.cancel()


HALTED_NEIGHBOUR: Final = Scenario(
    name="halted_neighbour", text="one partition halts, its neighbours go on", options=_options, story=_story
)
