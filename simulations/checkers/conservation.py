"""S9: items are conserved: what was produced is in exactly one state, after every record, and the owner
counts as the model does."""

import attrs

from querator.core.state import PartitionState
from simulations.checkers.evidence import Evidence


def check_conservation(evidence: Evidence, owned: dict[int, PartitionState]) -> list[str]:
    """``owned``: the states that the living owner had at the end, with nothing undecided."""
    faults: list[str] = []
    for history in evidence.histories.values():
        for position, counts, produced in history.counts:
            if sum(attrs.astuple(counts)) != produced:
                faults.append(f"S9: after record {position} of {history.partition}: {counts} of {produced}")
                break
        state = owned.get(history.partition)
        if state is None or not history.records or state.position != history.records[-1][0] + 1:
            continue
        model = history.live
        ours = (model.ready, model.scheduled, model.reserved, model.dead, model.completed, len(history.items))
        theirs = (
            state.ready,
            state.scheduled,
            state.reserved,
            len(state.dead),
            state.completed,
            state.produced,
        )
        if ours != theirs:
            faults.append(
                f"S9: the owner of {history.partition} counts (ready, scheduled, reserved, dead, completed, "
                f"produced) {theirs}, the log says {ours}"
            )
    return faults
