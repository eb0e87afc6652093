"""S19: what was asked for bounds what is given: nobody holds more than its window."""

from simulations.checkers.evidence import Evidence


def check_bounds(evidence: Evidence) -> list[str]:
    """The clients compare each push with their windows."""
    return [f"S19: {text}" for text in evidence.seen.windows]
