"""Run one seed and judge it."""

import gc
import hashlib
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from querator.env.scheduling import Fingerprint, seeded_scheduler
from simulations.checkers.attempts import check_attempts
from simulations.checkers.conservation import check_conservation
from simulations.checkers.delivery import check_delivery
from simulations.checkers.evidence import Evidence
from simulations.checkers.exclusive import check_exclusive
from simulations.checkers.fencing import check_fencing
from simulations.checkers.history import read_histories
from simulations.checkers.idempotence import check_idempotence
from simulations.checkers.log import check_log
from simulations.checkers.moves import check_moves
from simulations.checkers.order import check_order
from simulations.checkers.settling import check_settling
from simulations.checkers.timing import check_timing
from simulations.checkers.witness import check_witness
from simulations.disk import SimulatedDisk
from simulations.options import Options
from simulations.trace import Trace
from simulations.world import World

CORRECTNESS = 129
LIVENESS = 128
CRASH = 127

CHECKERS: dict[str, Callable[[Evidence], list[str]]] = {
    "delivery": check_delivery,
    "idempotence": check_idempotence,
    "exclusive": check_exclusive,
    "settling": check_settling,
    "fencing": check_fencing,
    "order": check_order,
    "timing": check_timing,
    "attempts": check_attempts,
    "moves": check_moves,
    "witness": check_witness,
}


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
    return run_world(World(options, trace := Trace(verbose=verbose)), trace)


def run_world(
    world: World,
    trace: Trace,
    *,
    story: Callable[[World], Awaitable[None]] | None = None,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> Outcome:
    """Run a world, by its nemesis or by a story, and judge what is left of it."""
    options = world.options
    fingerprint = Fingerprint()
    clock = trio.testing.MockClock(autojump_threshold=0)
    faults: list[str] = []
    code = 0
    ended_at = 0.0

    async def main() -> None:
        nonlocal ended_at
        await (world.run() if story is None else story(world))
        ended_at = trio.current_time()
        faults.extend(await judge(world))

    gc.collect()
    gc.disable()
    try:
        with seeded_scheduler(options.seed):
            trio.run(main, clock=clock, instruments=[fingerprint, *instruments])
    except BaseExceptionGroup as group:
        faults.append(f"crash: {_first(group)!r}")
        code = CRASH
        if trace.is_verbose:
            raise
    finally:
        gc.enable()
    if faults and not code:
        code = CORRECTNESS
    if world.is_stuck:
        faults.append(f"liveness: {world.is_stuck}")
        code = code or LIVENESS
    fingerprint.note(trace.hexdigest(), log_digest(world.disk))
    return Outcome(
        options.seed,
        code,
        faults,
        fingerprint.hexdigest(),
        ended_at,
        fingerprint.steps,
        dict(trace.marks),
        world.seen.acknowledged,
        world.seen.delivered,
    )


async def judge(world: World) -> list[str]:
    """All checkers over what is left of a run."""
    faults = [f"S9: {halted}" for halted in world.halted]
    faults += await check_log(world.disk)
    histories = {history.partition: history for history in await read_histories(world.disk, world.keyed)}
    evidence = Evidence(world.options, world.seen, histories, world.disk.committed_at)
    for check in CHECKERS.values():
        faults += check(evidence)
    faults += check_conservation(evidence, world.owned())
    return faults


def log_digest(disk: SimulatedDisk) -> str:
    """Over the last hash of every partition: equal logs have equal ones."""
    digest = hashlib.blake2b(digest_size=8)
    for partition, there in sorted(disk.partitions.items()):
        if there.tail is not None:
            digest.update(b"%d:%d:" % (partition, there.tail.position) + there.tail.hash)
    return digest.hexdigest()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
