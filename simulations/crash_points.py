"""Crash at every await: a scenario of N steps is run N times, and at step k its node dies.

A step is what trio does between two checkpoints of a task; so every await in the program, and in the clients,
is a moment at which the node is killed once. Pairs kill its next life as well.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

import attrs

from simulations.campaign import Tally, Workers
from simulations.case import Case
from simulations.scenarios import CENTRAL, SCENARIOS

SEED: Final = 1
CORE_SCENARIOS: Final = tuple(name for name, scenario in SCENARIOS.items() if scenario.story is None)


@attrs.define
class Visited:
    """What was run of the crash points."""

    steps: dict[str, int] = attrs.Factory(dict)
    """By scenario: how many awaits it has."""
    tally: Tally = attrs.Factory(Tally)


def visit(
    names: Sequence[str],
    *,
    every: int = 1,
    pairs: int = 0,
    keep_going: bool = False,
    on_scenario: Callable[[str, int, int], None] | None = None,
) -> Visited:
    """Crash these scenarios at every await (or each so many), and the central ones at so many pairs."""
    visited = Visited()
    with Workers() as workers:
        for number, name in enumerate(names):
            case, steps = baseline(name)
            cases = list(single_crashes(case, steps, every, first=1 + number % every))
            if name in CENTRAL:
                cases += paired_crashes(case, steps, pairs)
            visited.steps[name] = steps
            if on_scenario is not None:
                on_scenario(name, steps, len(cases))
            for crashed, outcome in workers.run(cases):
                visited.tally.add(crashed, outcome)
                if outcome.code and not keep_going:
                    return visited
    return visited


def baseline(name: str) -> tuple[Case, int]:
    """The scenario without a crash, and its steps."""
    case = Case.draw(SEED, "", scenario=name)
    return case, case.run().lived


def single_crashes(case: Case, steps: int, every: int = 1, first: int = 1) -> Iterator[Case]:
    """One for each step, or for each of some."""
    for step in range(first, steps + 1, every):
        yield case.evolve(attrs.evolve(case.options, crash_steps=(step,)))


def paired_crashes(case: Case, steps: int, pairs: int, seed: int = SEED) -> Iterator[Case]:
    """Two crashes, drawn; the second in what the first has led to."""
    dice = Random(f"pairs/{seed}")
    for _ in range(pairs):
        first = dice.randint(1, steps)
        yield case.evolve(attrs.evolve(case.options, crash_steps=(first, first + dice.randint(1, steps))))
