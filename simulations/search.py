"""The test of the tests: each planted bug must be found, by some seed among the first."""

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from simulations.campaign import Workers
from simulations.case import Case
from simulations.plants import PLANTS
from simulations.seeds import Finding

SEEDS_MAX: Final = 200
SCENARIO_OF: Final = {"witness_looks_away": "failover"}
"""Bugs that only a story shows: no seed's nemesis takes acknowledged records from the store."""


def candidates(plant: str, seeds: int) -> Iterator[Case]:
    """The first seeds with the bug in the program; the two profiles in turn."""
    for seed in range(1, seeds + 1):
        case = Case.draw(
            seed, "swarm" if seed % 2 else "dense", plant=plant, scenario=SCENARIO_OF.get(plant, "")
        )
        # With the options written out: what a seed draws changes with every new knob.
        yield case.evolve(attrs.evolve(case.options, liveness_seconds=60.0))


def find_plants(
    names: list[str], seeds: int = SEEDS_MAX, on_found: Callable[[Finding], None] | None = None
) -> tuple[list[Finding], list[str]]:
    """A finding for each bug, and those that no seed showed."""
    findings: list[Finding] = []
    survivors: list[str] = []
    with Workers() as workers:
        for name in names:
            for number, (case, outcome) in enumerate(workers.run(candidates(name, seeds)), 1):
                if outcome.code:
                    found = Finding(name, case, outcome.promise, number)
                    findings.append(found)
                    if on_found is not None:
                        on_found(found)
                    break
            else:
                survivors.append(name)
    return findings, survivors


def all_plants() -> list[str]:
    """Their names."""
    return sorted(PLANTS)
