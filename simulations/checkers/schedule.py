"""S14: nothing is early, and the log's time does not run back."""

from simulations.checkers.evidence import Evidence


def check_schedule(evidence: Evidence) -> list[str]:
    """By the owner's clock; a claim may come from a clock that is behind the last owner's."""
    faults: list[str] = []
    for history in evidence.histories.values():
        latest = 0
        claimed = dict.fromkeys(position for position, _, _ in history.claims)
        for position, at in history.turns:
            if at < latest and position not in claimed:
                faults.append(
                    f"S14: record {position} of {history.partition}: time runs back by {latest - at}"
                )
            latest = max(latest, at)
        for step in history.steps:
            early = step.due - step.at
            if (step.what == "due" and early >= 0) or (step.what == "reserved" and step.due and early > 0):
                faults.append(
                    f"S14: item {history.partition}.{step.item} is {step.what} {early} us before its time "
                    f"(record {step.position})"
                )
    return faults
