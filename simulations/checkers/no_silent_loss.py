"""S20: a log that lost its acknowledged end is not written on: its partition stands still until an operator
accepts the loss."""

from simulations.checkers.evidence import Evidence


def check_no_silent_loss(evidence: Evidence) -> list[str]:
    """Where the store lost records, nothing was appended after that."""
    faults: list[str] = []
    for partition, first_lost in evidence.facts.lost_for_good.items():
        history = evidence.histories.get(partition)
        last = history.records[-1][0] if history is not None and history.records else 0
        if last >= first_lost:
            faults.append(
                f"S20: partition {partition} lost its records from {first_lost} on, and goes on to {last}"
            )
    return faults
