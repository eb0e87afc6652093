"""S12, S14: nothing happens before its time, and the log's time does not run back."""

from simulations.checkers.evidence import Evidence
from simulations.checkers.history import Step


def check_timing(evidence: Evidence) -> list[str]:
    """By the log's own clock. At its deadline a holder can still complete: past means strictly past."""
    faults: list[str] = []
    for history in evidence.histories.values():
        latest = 0
        for position, at in history.turns:
            if at < latest and position not in {claimed for claimed, _, _ in history.claims}:
                faults.append(
                    f"S14: record {position} of {history.partition}: time runs back by {latest - at}"
                )
            latest = max(latest, at)
        for step in history.steps:
            fault = _fault(step)
            if fault:
                faults.append(f"{fault} (record {step.position} of {history.partition}, item {step.item})")
    return faults + _promises(evidence)


def _fault(step: Step) -> str:
    if step.what == "ended" or (step.what == "died" and step.why == "ended"):
        if step.why == "session_lost":
            return "" if step.run_until else "S12: ended with its session, and was not held by it"
        if step.why == "ended" and step.run_until:
            # Its last attempt; whether the session or the time ended it, the event does not say.
            return ""
        end = step.run_until or step.deadline
        if step.at <= end:
            return f"S12: ended {end - step.at} us before its time"
    if step.what == "due" and step.at <= step.due:
        return f"S14: due {step.due - step.at} us before its time"
    if step.what == "expired" and step.at <= step.expires_at:
        return f"S12: expired {step.expires_at - step.at} us before its time"
    if step.what == "reserved" and step.due and step.at < step.due:
        return "S14: reserved before its time"
    return ""


def _promises(evidence: Evidence) -> list[str]:
    """What a client was told as its deadline is what the log says, or less."""
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
