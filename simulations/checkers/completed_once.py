"""S3: an item is completed at most once, and as often as somebody was told so."""

from simulations.checkers.evidence import Evidence


def check_completed_once(evidence: Evidence) -> list[str]:
    """By the steps, and by the counts in the answers."""
    faults: list[str] = []
    for history in evidence.histories.values():
        completed: dict[int, None] = {}
        for step in history.steps:
            if step.what == "completed":
                if step.item in completed:
                    faults.append(f"S3: item {history.partition}.{step.item} was completed twice")
                completed[step.item] = None
    for settled in evidence.seen.settlements:
        there = sum(items for _, _, items in evidence.settled_at(settled))
        if there and settled.items > there:
            faults.append(
                f"S3: {settled.verb} of {settled.items} items of {settled.partition}.{settled.reservation} "
                f"was answered with yes, the log says {there}"
            )
    return faults
