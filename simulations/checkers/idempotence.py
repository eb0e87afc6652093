"""S15: one produce call is one production, however often it is sent; a dedupe key is one item."""

from simulations.checkers.evidence import Evidence


def check_idempotence(evidence: Evidence) -> list[str]:
    """Payloads are unique in a run, and a payload has one dedupe key or none."""
    return [
        f"S15: {payload!r} was produced {len(places)} times: {places}"
        for payload, places in evidence.originals.items()
        if len(places) > 1
    ]
