"""S5: who was told that a settlement is done held the reservation, and the log says the same."""

from simulations.checkers.evidence import Evidence


def check_settling(evidence: Evidence) -> list[str]:
    """Every positive answer has its event; nobody is believed who shows a token that nobody was given."""
    faults = [f"S5: believed, though forged: {text}" for text in evidence.seen.forged_believed]
    for settled in evidence.seen.settlements:
        history = evidence.histories.get(settled.partition)
        events = (
            history.settled_at.get((settled.reservation, settled.verb), []) if history is not None else []
        )
        if not events and settled.verb == "retry" and history is not None:
            events = history.settled_at.get((settled.reservation, "dead"), [])
        if not events:
            faults.append(
                f"S5: {settled.verb} of {settled.partition}.{settled.reservation} was answered with yes at "
                f"{settled.returned:.6f}, and the log knows nothing of it"
            )
        elif settled.items > sum(items for _, _, items in events):
            faults.append(
                f"S3: {settled.verb} of {settled.items} items of {settled.partition}.{settled.reservation} "
                f"was answered with yes, the log says {sum(items for _, _, items in events)}"
            )
    faults += [f"S19: {text}" for text in evidence.seen.windows]
    return faults
