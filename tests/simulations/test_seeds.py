"""A few seeds of the simulator: no violation, and the same run again from the same seed."""

import pytest

from simulations.options import Options
from simulations.run import run_seed


@pytest.mark.parametrize("seed", [1, 2, 4, 8])
def test_a_seed_runs_without_violation(seed: int) -> None:
    """Faults strike, then everything heals and comes to its end."""
    outcome = run_seed(Options.draw(seed))
    assert outcome.faults == []
    assert outcome.acknowledged


def test_a_seed_is_the_same_run_again() -> None:
    """To the last step of every task."""
    first, second = (run_seed(Options.draw(1)) for _ in range(2))
    assert first.digest == second.digest
