"""Seeds of the simulator: no violation, the same run again from the same seed, and the ledger of all that."""

import os
import subprocess
import sys

import pytest

from simulations import ledger
from simulations.campaign import campaign
from simulations.case import Case
from simulations.marks import missing
from simulations.seeds import read_lessons

_SEEDS = 20
_PRINT_DIGESTS = """
import attrs
from simulations.case import Case
for seed in range(1, {} + 1):
    case = Case.draw(seed, "dense" if seed % 2 else "swarm")
    # One of several nodes is followed by another one in ten seconds.
    case = case.evolve(attrs.evolve(case.options, safety_seconds=2.0 if case.options.nodes == 1 else 12.0))
    outcome = case.run()
    print(outcome.digest, outcome.code)
"""


@pytest.mark.parametrize(("seed", "profile"), [(1, "swarm"), (2, "swarm"), (4, "swarm"), (8, "dense")])
def test_a_seed_runs_without_violation(seed: int, profile: str) -> None:
    """Faults strike, then everything heals and comes to its end."""
    outcome = Case.draw(seed, profile).run()
    assert outcome.faults == ()
    assert outcome.acknowledged


def test_seeds_that_once_failed_fail_no_more() -> None:
    """Those of simulations/seeds.txt."""
    assert [lesson.text for lesson in read_lessons() if lesson.case.run().faults] == []


@pytest.mark.timeout(300)
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


def test_the_ledger_is_what_the_command_makes_of_the_records() -> None:
    """``python -m simulations --ledger``, after a campaign was recorded or a seed was added."""
    assert ledger.PAGE.read_text() == ledger.render()


@pytest.mark.long
@pytest.mark.timeout(4_800)
def test_an_hour_of_the_dense_profile_shows_no_violation_and_every_fault() -> None:
    """On all cores."""
    tally = campaign("dense", minutes=60.0, start=100_000)
    assert tally.failed == []
    assert missing(tally.marks) == []
