"""The test of the tests: each planted bug must be found, by some seed among the first."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from simulations.campaign import Workers
from simulations.case import Case
from simulations.plants import PLANTS
from simulations.seeds import Finding

SEEDS_MAX: Final = 200
SCENARIO_OF: Final = {"stale_owner_answers": "owner_cut_off", "witness_looks_away": "failover"}
"""Bugs that only a story shows: no seed's nemesis takes acknowledged records from the store, or leaves an
owner with readers alone (one that has something to write finds out by that)."""


_STORE_FAULTS: Final = (
    "restart_rate",
    "takeover_rate",
    "unavailable",
    "unknown_lost",
    "unknown_kept",
    "unknown_late",
    "slow_commit",
)
FOCUS: Final[dict[str, dict[str, Any]]] = {
    "drained_node_keeps_its_place": dict.fromkeys(_STORE_FAULTS, 0.0)
    | {"nodes": 2, "safety_seconds": 35.0, "drain_rate": 0.2, "crash_rate": 0.0, "blackout_rate": 0.0},
    "move_is_taken_twice": {
        "nodes": 1,
        "queues": 2,
        "partitions": 2,
        "consumers": 3,
        "produce_rate": 10.0,
        "attempts_max": 1,
        "dead_queue": True,
        "fail": 0.5,
        "takeover_rate": 3.0,
        "unknown_kept": 0.2,
        "crash_rate": 0.5,
    },
    "sent_to_one_home": {
        "nodes": 1,
        "queues": 2,
        "partitions": 2,
        "consumers": 3,
        "callers": 0,
        "senders": 1,
        "keyed": False,
        "produce_rate": 30.0,
        "attempts_max": 1,
        "dead_queue": True,
        "fail": 0.5,
        "set_aside": 0.2,
    },
    "snapshot_is_not_read_back": {
        "nodes": 1,
        "consumers": 2,
        "produce_rate": 10.0,
        "bucket_bytes": 1_000,
        "rotten_snapshot": 1.0,
        "snapshots_rate": 3.0,
        "crash_rate": 2.0,
    },
}
"""What brings out bugs that few seeds show: a search does without, the tests have not the time."""


def focused(plant: str, seeds: int) -> Iterator[Case]:
    """Candidates that are likely to show the bug, where that takes more than any run."""
    more = FOCUS.get(plant, {})
    for case in candidates(plant, seeds):
        yield case.evolve(attrs.evolve(case.options, **more))


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
