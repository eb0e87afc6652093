"""Many runs, on all cores, and what they came to together."""

import gc
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from typing import Final, NoReturn, Self

import attrs

from simulations.case import Case
from simulations.outcome import Exit, Outcome

_CPU_SECONDS_MAX: Final = 60.0
"""Of one run; a long one takes five."""


@attrs.define
class Tally:
    """The sum of some runs."""

    seeds: int = 0
    virtual_seconds: float = 0.0
    steps: int = 0
    acknowledged: int = 0
    delivered: int = 0
    marks: Counter[str] = attrs.Factory(Counter)
    failed: list[tuple[Case, Outcome]] = attrs.Factory(list)

    def add(self, case: Case, outcome: Outcome) -> None:
        """One run more."""
        self.seeds += 1
        self.virtual_seconds += outcome.virtual_seconds
        self.steps += outcome.steps
        self.acknowledged += outcome.acknowledged
        self.delivered += outcome.delivered
        self.marks.update(outcome.marks)
        if outcome.code:
            self.failed.append((case, outcome))

    @property
    def crashes(self) -> int:
        """Lives of nodes that ended as by SIGKILL."""
        return self.marks["node.crashed"]

    @property
    def unknown(self) -> int:
        """Appends whose outcome the node could not know."""
        return sum(self.marks[f"commit.{name}"] for name in ("unknown_lost", "unknown_late", "unknown_kept"))

    @property
    def code(self) -> Exit:
        """The worst."""
        return max((outcome.code for _, outcome in self.failed), default=Exit.GOOD)


class _TooLongError(Exception):
    """A run that does not end."""


def _give_up(*_: object) -> NoReturn:
    raise _TooLongError


def _begin() -> None:
    # The program itself is no garbage: each run collects before it begins, and half of its time goes there.
    gc.collect()
    gc.freeze()


def _run(case: Case) -> Outcome:
    # Virtual time does not help against a loop that never waits.
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS_MAX)
    try:
        return case.run()
    except Exception as error:  # noqa: BLE001  # one run's death is its outcome, not the campaign's
        return Outcome(case.options.seed, Exit.CRASH, (f"crash: {error!r}",), "", 0.0, 0, {}, 0, 0)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class Workers:
    """Processes that run cases, as many as there are cores."""

    def __init__(self) -> None:
        self._count = os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, cases: Iterable[Case], *, minutes: float | None = None) -> Iterator[tuple[Case, Outcome]]:
        """Each case and what became of it, as it ends. After ``minutes`` none is begun."""
        end = time.monotonic() + minutes * 60 if minutes is not None else float("inf")
        queue = iter(cases)
        running: dict[Future[Outcome], Case] = {}
        try:
            while True:
                while len(running) < self._count + 1 and time.monotonic() < end:
                    case = next(queue, None)
                    if case is None:
                        break
                    running[self._pool.submit(_run, case)] = case
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda future: running[future].options.seed):
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()


def campaign(
    profile: str,
    *,
    start: int = 1,
    seeds: int | None = None,
    minutes: float | None = None,
    plant: str = "",
    scenario: str = "",
    without: tuple[str, ...] = (),
    keep_going: bool = False,
) -> Tally:
    """Run seed after seed; stop at the first that fails, unless told to ``keep_going``."""
    tally = Tally()
    numbers = range(start, start + seeds) if seeds is not None else count(start)
    cases = (Case.draw(seed, profile, plant=plant, scenario=scenario, without=without) for seed in numbers)
    with Workers() as workers:
        for case, outcome in workers.run(cases, minutes=minutes):
            tally.add(case, outcome)
            if outcome.code and not keep_going:
                break
    return tally
