"""S12: nothing ends before its time: not a reservation, not an item, and nobody is promised more than the
log says."""

from simulations.checkers.evidence import Evidence
from simulations.checkers.history import Step


def check_deadlines(evidence: Evidence) -> list[str]:
    """By the log's own clock. At its deadline a holder can still complete: past means strictly past."""
    faults: list[str] = []
    started = _starts(evidence)
    for history in evidence.histories.values():
        claims = history.claimed_at
        index = 0
        for step in history.steps:
            while index < len(claims) and claims[index][0] <= step.position:
                index += 1
            node_started_at = started[history.claimants[index - 1]] if index else 0
            fault = _ended(step, node_started_at, evidence.terms.grace) or _expired(step)
            if fault:
                faults.append(f"{fault} (record {step.position} of {history.partition}, item {step.item})")
    return faults + _promises(evidence)


def _starts(evidence: Evidence) -> dict[str, int]:
    """Each node's first claim: it has known sessions since then, at the earliest."""
    started: dict[str, int] = {}
    for history in evidence.histories.values():
        for (_, at), node in zip(history.claimed_at, history.claimants, strict=True):
            started[node] = min(at, started.get(node, at))
    return started


def _ended(step: Step, node_started_at: int, grace: int) -> str:
    if step.what != "ended" and not (step.what == "died" and step.why == "ended"):
        return ""
    if step.why == "session_lost":
        if not step.run_until:
            return "S12: ended with its session, and was not held by it"
        # The session was lost with the node that it was made on: the next one gives it a grace.
        early = node_started_at + grace - step.at
        if step.reserved_at < node_started_at and early > 0:
            return f"S12: ended {early} us before its session's grace was over"
        return ""
    if step.why == "given_up":
        # Its client knows better than any clock: it was told that it does not hold this.
        return "" if step.run_until else "S12: given up with its session, and was not held by it"
    if step.why == "ended" and step.run_until:
        # Its last attempt; whether the session or the time ended it, the event does not say.
        return ""
    end = step.run_until if step.why == "max_runtime" else step.deadline
    return f"S12: ended {end - step.at} us before its time" if step.at <= end else ""


def _expired(step: Step) -> str:
    if step.what == "expired" and step.at <= step.expires_at:
        return f"S12: expired {step.expires_at - step.at} us before its time"
    return ""


def _promises(evidence: Evidence) -> list[str]:
    faults: list[str] = []
    for push in evidence.seen.pushes:
        history = evidence.histories.get(push.partition)
        holding = history.holdings.get(push.reservation) if history is not None else None
        if holding is not None and push.deadline > holding.deadline:
            faults.append(
                f"S12: {push.client} was promised {push.deadline} for {push.partition}.{push.reservation}, "
                f"the log says {holding.deadline}"
            )
    return faults
