"""Crash at every await: a scenario of N steps is run N times, and at step k its node dies.

A step is what trio does between two checkpoints of a task; so every await in the program, and in the clients,
is a moment at which the node is killed once. Pairs kill its next life as well.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

import attrs

from simulations.case import Case

SEED: Final = 1


def baseline(name: str) -> tuple[Case, int]:
    """The scenario without a crash, and its steps."""
    case = Case.draw(SEED, "", scenario=name)
    return case, case.run().steps


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
