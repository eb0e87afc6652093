"""L3, L4: what is held by nobody any more comes back, and what is due becomes ready, in time."""

from typing import Final

from simulations.checkers.evidence import Calm, Evidence
from simulations.checkers.history import History, Step

LATE_MAX: Final = 250_000
"""Microseconds."""


def check_punctual(evidence: Evidence) -> list[str]:
    """By the owner's clock, where nothing troubled the system between the moment and the step."""
    calm = Calm(evidence.facts)
    faults: list[str] = []
    for history in evidence.histories.values():
        claims = history.claimed_at
        index = 0
        since: dict[int, int] = {}
        for step in history.steps:
            # Only what waits can expire, or come due: what was held until then does so when it is back.
            waiting_since = since.get(step.item, 0)
            since[step.item] = step.at
            while index < len(claims) and claims[index][0] <= step.position:
                index += 1
            expected, what = _expected(step)
            if not what:
                continue
            # A new owner has to come to it first.
            late = step.at - max(
                expected,
                claims[index - 1][1] if index else 0,
                waiting_since if step.before != "reserved" else 0,
            )
            # A log's time never goes back: behind an owner whose clock was ahead it stands still for a while.
            if late > LATE_MAX + evidence.terms.skew and _is_calm(
                evidence, calm, history, step, late / 1_000_000
            ):
                faults.append(
                    f"{what} {late} us late (item {history.partition}.{step.item}, record {step.position})"
                )
    return faults


def _expected(step: Step) -> tuple[int, str]:
    """When it should have happened, and what it is; nothing is promised of the others."""
    if step.what == "due":
        return step.due, "L4: due"
    if step.what == "expired":
        return step.expires_at, "L4: expired"
    if step.what == "ended" and step.why == "deadline" and not step.run_until:
        return step.deadline, "L3: given back"
    if step.what == "ended" and step.why == "max_runtime":
        return step.run_until, "L3: given back"
    return 0, ""


def _is_calm(evidence: Evidence, calm: Calm, history: History, step: Step, late: float) -> bool:
    at = evidence.committed(history.partition, step.position)
    return at is not None and calm.holds(at - late - 1.0, at)
