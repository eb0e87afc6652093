"""S4, S5, S17 over HTTP: a lease tells what is in the log, and an id settles what it was told for, once."""

from simulations.checkers.evidence import Evidence
from simulations.checkers.history import Step

_STEPS = {
    "complete": ("completed",),
    "retry": ("retried", "died"),
    "dead": ("died",),
    "release": ("released",),
}
"""What an accepted call leaves in the log. A retry at the last attempt is a death where there is a limit."""


def check_leases(evidence: Evidence) -> list[str]:
    """By payloads, and by the time between a call and its answer: each step is one answer's."""
    faults: list[str] = []
    steps = _steps(evidence)
    leased: dict[str, dict[tuple[int, int], None]] = {}
    """Id to the (partition, reservation) that it may have been told for."""
    for lease in evidence.seen.leases:
        made = [
            (where, step)
            for where, step, at in steps.get(lease.payload, [])
            if step.what == "reserved" and lease.called <= at <= lease.returned
        ]
        if not any(step.attempts + 1 == lease.attempts for _, step in made):
            faults.append(
                f"S4: {lease.client} was told at {lease.returned:.6f} of attempt {lease.attempts} at "
                f"{lease.payload!r}; the log has {[step.attempts + 1 for _, step in made]}"
            )
        leased[lease.id] = {
            (where, step.named): None for where, step in made if step.attempts + 1 == lease.attempts
        }
    told: dict[tuple[int, int, int, bytes], str] = {}
    for closing in evidence.seen.closings:
        found = [
            (where, step)
            for where, step, at in steps.get(closing.payload, [])
            if (where, step.named) in leased.get(closing.id, {})
            and step.what in _STEPS[closing.verb]
            and closing.called <= at <= closing.returned
        ]
        if not found:
            faults.append(
                f"S5: {closing.verb} of {closing.payload!r}, which {closing.id} was told for, was answered "
                f"with yes at {closing.returned:.6f}, and the log knows nothing of it"
            )
            continue
        where, step = found[0]
        key = (where, step.position, step.index, closing.payload)
        if key in told:
            faults.append(f"S5: {closing.verb} of {closing.payload!r} was answered with yes twice")
        told[key] = closing.id
    return faults


def _steps(evidence: Evidence) -> dict[bytes, list[tuple[int, Step, float]]]:
    """Payload to the (partition, step, when it was committed) of its item."""
    wanted = dict.fromkeys(lease.payload for lease in evidence.seen.leases)
    found: dict[bytes, list[tuple[int, Step, float]]] = {}
    if wanted:
        for history in evidence.histories.values():
            for step in history.steps:
                payload = history.items[step.item].payload
                at = evidence.committed(history.partition, step.position)
                if payload in wanted and at is not None:
                    found.setdefault(payload, []).append((history.partition, step, at))
    return found
