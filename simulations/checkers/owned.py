"""L2: of several nodes one owns, soon after the one before is gone, and at once where it handed over; none
that knows less speaks for it."""

from typing import Final

from querator.core.replies import Code
from simulations.checkers.evidence import Evidence

UNOWNED_MAX: Final = 10.0
"""Seconds: a lease, the stand-by's next look at the line, and the claims."""
HAND_OVER_MAX: Final = 3.0
"""Seconds from an owner's end to the next one: nobody has to wait for a lease."""
STORE_TROUBLES: Final = ("commit", "restart", "takeover")
"""What keeps every node from owning; what befalls one of them the watch knows better."""


def check_owned(evidence: Evidence) -> list[str]:
    """Where one node at least could have owned all the time, and nothing was amiss with the store."""
    facts = evidence.facts
    troubles = [trouble for trouble in facts.troubles if trouble[2].startswith(STORE_TROUBLES)]
    faults = [
        f"L2: nobody owned from {since:.1f} to {until:.1f}, and one could have"
        for since, until in facts.unowned
        if _longest_calm(troubles, since, until) > UNOWNED_MAX
    ]
    faults += [
        f"L2: {payload!r} was refused, as if its queue were not there"
        for payload, code in evidence.seen.refused.items()
        if code == Code.UNKNOWN_QUEUE
    ]
    return faults + [
        f"L2: the owner had stopped at {stopped:.3f}, the next one owned at {owned:.3f} only"
        for stopped, owned in facts.handed_over
        if _longest_calm(troubles, stopped, owned) > HAND_OVER_MAX
    ]


def _longest_calm(troubles: list[tuple[float, float, str]], since: float, until: float) -> float:
    longest = 0.0
    for begun, ended, _ in sorted(troubles):
        if ended > since:
            longest = max(longest, min(begun, until) - since)
            since = ended
    return max(longest, until - since)
