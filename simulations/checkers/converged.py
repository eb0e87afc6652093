"""L6, L7: when all faults are over everything comes to its end, and what stands still is alone in that."""

from simulations.checkers.evidence import Evidence


def check_converged(evidence: Evidence) -> list[str]:
    """The run waited for it as long as its options say."""
    faults: list[str] = []
    if evidence.facts.not_open:
        faults.append(f"L7: {evidence.facts.not_open}")
    if evidence.facts.unfinished:
        faults.append(f"L6: {evidence.facts.unfinished}")
    return faults
