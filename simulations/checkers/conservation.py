"""S9: items are conserved: what was produced is in exactly one state, after every record, and the owner
counts as the model does."""

import attrs

from simulations.checkers.evidence import Evidence


def check_conservation(evidence: Evidence) -> list[str]:
    """A partition that halted has seen a sum that was not right, or worse."""
    faults = [f"S9: {halted}" for halted in evidence.facts.halted]
    for history in evidence.histories.values():
        for position, counts, produced in history.counts:
            if sum(attrs.astuple(counts)) != produced:
                faults.append(f"S9: after record {position} of {history.partition}: {counts} of {produced}")
                break
    for seen in evidence.facts.sightings:
        partition = evidence.histories.get(seen.partition)
        if partition is None or seen.position > len(partition.counts):
            continue
        _, model, produced = partition.counts[seen.position - 1]
        ours = (model.ready, model.scheduled, model.reserved, model.dead, model.completed, produced)
        if ours != seen.counts:
            faults.append(
                f"S9: the owner of {seen.partition} counted (ready, scheduled, reserved, dead, completed, "
                f"produced) {seen.counts} at {seen.position}, the log says {ours}"
            )
    return faults
