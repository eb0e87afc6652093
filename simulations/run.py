"""Run one seed and judge it."""

import gc

import attrs
import trio
import trio.testing

from querator.env.scheduling import Fingerprint, seeded_scheduler
from simulations.checkers.delivery import check_delivery
from simulations.checkers.history import read_histories
from simulations.checkers.log import check_log
from simulations.options import Options
from simulations.trace import Trace
from simulations.world import World

CORRECTNESS = 129
LIVENESS = 128
CRASH = 127


@attrs.define
class Outcome:
    """What became of a seed. ``code`` 0: all is well."""

    seed: int
    code: int
    faults: list[str]
    digest: str
    virtual_seconds: float
    steps: int
    marks: dict[str, int]
    acknowledged: int
    delivered: int


def run_seed(options: Options, *, verbose: bool = False) -> Outcome:
    """Deterministic: the same options give the same digest in any process."""
    trace = Trace(verbose=verbose)
    fingerprint = Fingerprint()
    clock = trio.testing.MockClock(autojump_threshold=0)
    world: World | None = None
    faults: list[str] = []
    code = 0
    ended_at = 0.0

    async def main() -> None:
        nonlocal world, ended_at
        world = World(options, trace)
        await world.run()
        ended_at = trio.current_time()
        faults.extend(await check_log(world.disk))
        faults.extend(check_delivery(await read_histories(world.disk), world.seen))

    gc.collect()
    gc.disable()
    try:
        with seeded_scheduler(options.seed):
            trio.run(main, clock=clock, instruments=[fingerprint])
    except BaseExceptionGroup as group:
        faults.append(f"crash: {_first(group)!r}")
        code = CRASH
        if verbose:
            raise
    finally:
        gc.enable()
    if faults and not code:
        code = CORRECTNESS
    if world is not None and world.is_stuck and not code:
        faults.append(f"liveness: {world.is_stuck}")
        code = LIVENESS
    fingerprint.note(trace.hexdigest())
    return Outcome(
        options.seed,
        code,
        faults,
        fingerprint.hexdigest(),
        ended_at,
        fingerprint.steps,
        dict(trace.marks),
        len(world.seen.acknowledged) if world is not None else 0,
        len(world.seen.delivered) if world is not None else 0,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
