"""The test of the tests: the simulator finds every bug that is planted in the program."""

from itertools import chain

import attrs
import pytest

from simulations.case import Case
from simulations.search import all_plants, find_plants, focused
from simulations.seeds import Finding, read_findings

FINDINGS = {finding.plant: finding for finding in read_findings()}
_TRIES = 60


def test_every_planted_bug_was_found_and_at_least_fifteen_are() -> None:
    """``python -m simulations --search`` writes them down."""
    assert sorted(FINDINGS) == all_plants()
    assert len(FINDINGS) >= 15


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", all_plants())
def test_the_run_that_found_a_planted_bug_finds_it_again(plant: str) -> None:
    """Or, where the program or the workload changed since, one of the first seeds does; rare ones with
    options that bring them out."""
    finding = FINDINGS[plant]
    tried = chain([finding.case], focused(plant, _TRIES))
    assert any(case.run().code for case in tried)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("plant", "checker"),
    [
        ("claims_share_a_nonce", "owners"),
        ("due_a_second_early", "schedule"),
        ("no_grace_after_a_restart", "deadlines"),
        ("one_attempt_too_many", "attempts"),
        ("retired_id_is_believed", "leases"),
        ("stale_owner_answers", "witness"),
        ("token_is_not_compared", "settling"),
        ("window_is_freed_twice", "bounds"),
    ],
)
def test_a_planted_bug_survives_without_its_checker(plant: str, checker: str) -> None:
    """So that checker is what finds it."""
    case = FINDINGS[plant].case
    assert case.run().code
    assert not attrs.evolve(case, without=(checker,)).run().code


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_every_planted_bug_is_found_within_two_hundred_seeds() -> None:
    """From the first seed on, both profiles in turn."""
    findings, survivors = find_plants(all_plants())
    assert survivors == []
    assert [found.plant for found in findings] == all_plants()
    assert isinstance(findings[0], Finding)


def test_nothing_is_planted_in_a_run_without_a_plant() -> None:
    """Every patch is undone when its run is over."""
    finding = FINDINGS["token_is_not_compared"]
    assert finding.case.run().code
    assert not Case(options=finding.case.options).run().code
