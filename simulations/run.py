"""Run a world and judge what is left of it."""

import gc
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio
import trio.testing

from querator import telemetry
from querator.env.scheduling import Fingerprint, seeded_scheduler
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from simulations.checkers import CHECKERS, REPLAY
from simulations.checkers.evidence import Evidence
from simulations.checkers.history import read_histories
from simulations.checkers.replay import check_replay
from simulations.disk import SimulatedDisk
from simulations.options import Options
from simulations.outcome import Exit, Outcome
from simulations.trace import Trace
from simulations.world import World

Story: TypeAlias = Callable[[World], Awaitable[None]]
"""What happens in a run, instead of what the options' nemesis does."""

_STEPS_AT_ONCE: Final = 100_000
"""Steps at one moment of virtual time, after which that moment is held to be without end."""


def run_seed(options: Options) -> Outcome:
    """Deterministic: the same options give the same digest in any process."""
    return run_world(World(options, trace := Trace()), trace)


class _Watch(trio.abc.Instrument):
    """Crashes the node at chosen steps, and ends a run in which virtual time stands still."""

    def __init__(self, world: World, scope: trio.CancelScope) -> None:
        self._world = world
        self._scope = scope
        self._crashes = list(world.options.crash_steps)
        self._steps = 0
        self._moment = -1.0
        self._since = 0
        self.lived = 0
        """Steps until the world ended."""
        self.stood_still = ""

    def end(self) -> None:
        """What comes now is about the run, and none of it."""
        self.lived = self._steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if self._crashes and self._steps >= self._crashes[0]:
            self._crashes.pop(0)
            self._world.crash()
        if not self._steps % 4_096:
            moment = trio.current_time()
            if moment > self._moment:
                self._moment, self._since = moment, self._steps
            elif self._steps - self._since > _STEPS_AT_ONCE and not self.stood_still:
                self.stood_still = f"crash: virtual time stands still at {moment:.6f}, in task {task.name}"
                self._scope.cancel()


def run_world(
    world: World, trace: Trace, *, story: Story | None = None, without: Sequence[str] = ()
) -> Outcome:
    """Run a world, by its nemesis or by a story, and judge it; ``without`` names checkers to leave out."""
    options = world.options
    fingerprint = Fingerprint()
    clock = trio.testing.MockClock(autojump_threshold=0)
    scope = trio.CancelScope()
    watch = _Watch(world, scope)
    faults: list[str] = []
    ended_at = 0.0

    async def main() -> None:
        nonlocal ended_at
        with scope:
            await (world.run() if story is None else story(world))
        ended_at = trio.current_time()
        watch.end()
        if not watch.stood_still:
            faults.extend(await judge(world, without))

    code = Exit.GOOD
    stop_listening = telemetry.listen(trace.heard)
    gc.collect()
    gc.disable()
    try:
        with seeded_scheduler(options.seed):
            trio.run(main, clock=clock, instruments=[fingerprint, watch])
    except BaseExceptionGroup as group:
        faults.append(f"crash: {_first(group)!r}")
        code = Exit.CRASH
        if trace.is_verbose:
            raise
    finally:
        gc.enable()
        stop_listening()
    if watch.stood_still:
        faults.append(watch.stood_still)
        code = Exit.CRASH
    if faults and not code:
        code = Exit.LIVENESS if all(fault.startswith("L") for fault in faults) else Exit.CORRECTNESS
    fingerprint.note(trace.hexdigest(), log_digest(world.disk))
    return Outcome(
        options.seed,
        code,
        tuple(faults),
        fingerprint.hexdigest(),
        ended_at,
        fingerprint.steps,
        dict(trace.marks),
        world.seen.acknowledged,
        world.seen.delivered,
        watch.lived,
    )


async def judge(world: World, without: Sequence[str] = ()) -> list[str]:
    """All checkers over what is left of a run."""
    archive = MemoryLog(virtual_env(0), world.disk.archive)
    histories = await read_histories(archive, world.keyed)
    for history in histories.values():
        world.trace.marks.update(f"item.{step.what}" for step in history.steps)
        world.trace.marks.update({f"log.{name}": number for name, number in history.kinds.items()})
    world.facts.writers = world.disk.writers
    evidence = Evidence(
        world.terms,
        world.seen,
        histories,
        world.disk.committed_at,
        world.facts,
    )
    faults: list[str] = []
    for name, check in CHECKERS.items():
        if name not in without:
            faults += check(evidence)
    if REPLAY not in without:
        store = MemoryLog(virtual_env(0), world.disk)
        faults += await check_replay(store, archive, world.facts.sightings)
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
