"""L8: nobody storms: what failed is tried again at a bounded pace, by nodes and by clients."""

from bisect import bisect_right
from typing import Final

from simulations.checkers.evidence import Evidence

WINDOW: Final = 1.0
"""Seconds."""
FAILURES_MAX: Final = 200
"""Of appends: more is somebody who does not wait."""
CONNECTS_MAX: Final = 40
"""Per client and window, by clients whose connection breaks at once each time."""


def check_storms(evidence: Evidence) -> list[str]:
    """The most of each in any window."""
    faults: list[str] = []
    for what, moments, most in (
        ("failed appends", evidence.facts.failures, FAILURES_MAX),
        ("calls of clients", evidence.facts.connects, CONNECTS_MAX * max(1, evidence.seen.clients)),
    ):
        for index, moment in enumerate(moments):
            there = bisect_right(moments, moment + WINDOW) - index
            if there > most:
                faults.append(f"L8: {there} {what} within a second of {moment:.3f}")
                break
    return faults
