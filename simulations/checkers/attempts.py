"""S17: attempts are counted, across restarts too, and an item at its last one dies."""

from simulations.checkers.evidence import Evidence


def check_attempts(evidence: Evidence) -> list[str]:
    """By the steps, and by the attempt numbers that clients were shown."""
    faults: list[str] = []
    shown: dict[tuple[int, int, int], int] = {}
    for history in evidence.histories.values():
        where = history.partition
        limit = evidence.terms.attempts_max.get(where, 0)
        for step in history.steps:
            most = 0 if history.items[step.item].payload in evidence.seen.beyond_limit else limit
            if step.what == "reserved":
                shown[where, step.named, step.item] = step.attempts + 1
                if most and step.attempts >= most:
                    faults.append(f"S17: item {where}.{step.item} is at attempt {step.attempts + 1}")
            if step.what in ("retried", "ended") and most and step.attempts + 1 >= most:
                faults.append(f"S17: item {where}.{step.item} goes on after attempt {step.attempts + 1}")
            if step.what == "died" and step.why != "dead" and step.attempts + 1 < most:
                faults.append(f"S17: item {where}.{step.item} is dead after attempt {step.attempts + 1}")
    for push in evidence.seen.pushes:
        for number, attempt in zip(push.items, push.attempts, strict=True):
            expected = shown.get((push.partition, push.reservation, number), attempt)
            if attempt != expected:
                faults.append(
                    f"S17: {push.client} was shown attempt {attempt} of {push.partition}.{number}, "
                    f"it is attempt {expected}"
                )
    return faults
