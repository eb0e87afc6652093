"""The node is killed at the awaits of small scenarios, one by one; everything is as promised afterwards."""

import pytest

from simulations.case import Case
from simulations.crash_points import CORE_SCENARIOS, visit
from simulations.scenarios import CENTRAL, SCENARIOS


@pytest.mark.timeout(300)
def test_a_crash_at_each_fortieth_await_breaks_no_promise() -> None:
    """Of each core scenario, every fortieth; and some pairs of the central ones. --long visits all."""
    visited = visit(CORE_SCENARIOS, every=40, pairs=2)
    assert visited.tally.failed == []
    assert len(visited.steps) >= 12
    # In the first steps there is no node yet, in the last ones the world is taken down.
    assert visited.tally.crashes >= 0.85 * visited.tally.seeds
    assert len(CENTRAL) == 5


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.story is not None])
def test_a_story_ends_well(name: str) -> None:
    """A failover that loses something, one that loses nothing, a partition that halts beside others; what may
    happen to the one of several nodes that owns."""
    assert Case.draw(1, "", scenario=name).run().faults == ()


@pytest.mark.parametrize("name", ["owner_drained", "owner_paused", "owner_cut_off"])
def test_the_owner_of_a_story_is_followed(name: str) -> None:
    """Else it would show nothing."""
    assert Case.draw(2, "", scenario=name).run().marks["owner.took_over"]


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_crash_at_every_await_breaks_no_promise() -> None:
    """All of them, and three hundred pairs of each central scenario."""
    visited = visit(CORE_SCENARIOS, pairs=300)
    assert visited.tally.failed == []
    assert visited.tally.seeds >= sum(visited.steps.values())
