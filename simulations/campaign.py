"""Many runs, on all cores, and what they came to together."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count

import attrs

from simulations.case import Case
from simulations.outcome import Exit, Outcome


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


def _run(case: Case) -> Outcome:
    try:
        return case.run()
    except Exception as error:  # noqa: BLE001  # one run's death is its outcome, not the campaign's
        return Outcome(case.options.seed, Exit.CRASH, (f"crash: {error!r}",), "", 0.0, 0, {}, 0, 0)


def run_cases(
    cases: Iterable[Case], *, minutes: float | None = None, workers: int = 0
) -> Iterator[tuple[Case, Outcome]]:
    """Run them, as many at once as there are cores; each as it ends. After ``minutes`` none is begun."""
    end = time.monotonic() + minutes * 60 if minutes is not None else float("inf")
    queue = iter(cases)
    workers = workers or os.cpu_count() or 1
    running: dict[Future[Outcome], Case] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            while True:
                while len(running) < workers + 1 and time.monotonic() < end:
                    case = next(queue, None)
                    if case is None:
                        break
                    running[pool.submit(_run, case)] = case
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda future: running[future].options.seed):
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


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
    on_run: Callable[[Case, Outcome], None] | None = None,
) -> Tally:
    """Run seed after seed; stop at the first that fails, unless told to ``keep_going``."""
    tally = Tally()
    numbers = range(start, start + seeds) if seeds is not None else count(start)
    cases = (Case.draw(seed, profile, plant=plant, scenario=scenario, without=without) for seed in numbers)
    for case, outcome in run_cases(cases, minutes=minutes):
        tally.add(case, outcome)
        if on_run is not None:
            on_run(case, outcome)
        if outcome.code and not keep_going:
            break
    return tally
