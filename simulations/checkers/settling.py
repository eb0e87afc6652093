"""S5: who was told that a settlement is done held the reservation, and the log says the same."""

from simulations.checkers.evidence import Evidence


def check_settling(evidence: Evidence) -> list[str]:
    """Every positive answer has its event; nobody is believed who shows a token that nobody was given."""
    faults = [f"S5: believed, though forged: {text}" for text in evidence.seen.forged_believed]
    for settled in evidence.seen.settlements:
        if not evidence.settled_at(settled):
            faults.append(
                f"S5: {settled.verb} of {settled.partition}.{settled.reservation} was answered with yes at "
                f"{settled.returned:.6f}, and the log knows nothing of it"
            )
    return faults
