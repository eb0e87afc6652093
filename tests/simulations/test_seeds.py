"""A few seeds of the simulator: no violation, and the same run again from the same seed."""

import os
import subprocess
import sys

import pytest

from simulations.options import Options
from simulations.run import run_seed

_SEEDS = 20
_PRINT_DIGESTS = """
import attrs
from simulations.options import Options
from simulations.run import run_seed
for seed in range(1, {} + 1):
    outcome = run_seed(attrs.evolve(Options.draw(seed), safety_seconds=3.0))
    print("digest:", outcome.digest, outcome.code)
"""


@pytest.mark.parametrize("seed", [1, 2, 4, 8])
def test_a_seed_runs_without_violation(seed: int) -> None:
    """Faults strike, then everything heals and comes to its end."""
    outcome = run_seed(Options.draw(seed))
    assert outcome.faults == []
    assert outcome.acknowledged


def test_every_fault_at_once_leads_to_no_violation() -> None:
    """The dense profile switches nothing off."""
    outcome = run_seed(Options.draw(1, "dense"))
    assert outcome.faults == []
    assert outcome.marks["node.crashed"]


def test_twenty_seeds_are_the_same_runs_in_two_processes() -> None:
    """To the last step of every task, whatever the processes' hash seeds."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PRINT_DIGESTS.format(_SEEDS)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "4711")
    ]
    first, second = (process.communicate()[0].splitlines() for process in processes)
    assert len(first) == len(dict.fromkeys(first)) == _SEEDS
    assert first == second
