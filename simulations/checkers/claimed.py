"""L2, L5: a partition without an owner is claimed, and no claim is kept waiting."""

from typing import Final

from simulations.checkers.evidence import Calm, Evidence

START_MAX: Final = 2.0
"""Seconds from a node's start until all its partitions are open, when nothing is amiss."""
CLAIM_MAX: Final = 15.0
"""Seconds that a claim may take whatever happens: behind a zombie's insert, on a slow store, with rivals."""


def check_claimed(evidence: Evidence) -> list[str]:
    """By what nodes and rivals did, not by the log, which has the claims that came to an end."""
    calm = Calm(evidence.facts)
    faults = [
        f"L2: a node that started at {started:.3f} had its partitions open at {done:.3f} only"
        for started, done in evidence.facts.opened
        if done - started > START_MAX and calm.holds(started, done)
    ]
    return faults + [
        f"L5: {who} waited {done - asked:.1f} s for its claim of partition {partition}"
        for partition, asked, done, who in evidence.facts.claims
        if done - asked > CLAIM_MAX
    ]
