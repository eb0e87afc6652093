"""S13: reserved in order of place, first come first served; by key, each key in its own order."""

from simulations.checkers.evidence import Evidence


def check_order(evidence: Evidence) -> list[str]:
    """The model keeps the line as a list; a reservation takes from its head."""
    faults: list[str] = []
    for history in evidence.histories.values():
        for taking in history.takings:
            if taking.first != taking.head:
                faults.append(
                    f"S13: record {taking.position} of {history.partition} reserves from item "
                    f"{taking.first}, and {taking.head} stands first"
                )
            if taking.count != taking.found:
                faults.append(
                    f"S13: record {taking.position} of {history.partition} reserves {taking.count} items, "
                    f"and {taking.found} may go"
                )
        if history.keyed:
            faults += _one_holder_a_key(history.partition, evidence)
    return faults


def _one_holder_a_key(partition: int, evidence: Evidence) -> list[str]:
    faults: list[str] = []
    history = evidence.histories[partition]
    held: dict[str, dict[int, int]] = {}
    for step in history.steps:
        key = history.items[step.item].key
        if not key:
            continue
        holders = held.setdefault(key, {})
        if step.what == "reserved":
            others = {holder for holder in holders.values() if holder != step.named}
            if others:
                faults.append(
                    f"S13: record {step.position} of {partition}: key {key} is held by {sorted(others)} and "
                    f"{step.named} at once"
                )
            holders[step.item] = step.named
        else:
            holders.pop(step.item, None)
    return faults
