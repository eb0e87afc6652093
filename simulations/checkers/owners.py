"""S8: a claim's nonce names one owner for ever, incarnations never go back, and under a claim only the node
that made it commits."""

from simulations.checkers.evidence import Evidence
from simulations.checkers.history import History


def check_owners(evidence: Evidence) -> list[str]:
    """Tokens are made of the nonce: one that came again would be believed by the wrong owner."""
    faults: list[str] = []
    for history in evidence.histories.values():
        claimed: dict[int, int] = {}
        latest = 0
        for (position, nonce, _), incarnation in zip(history.claims, history.incarnations, strict=True):
            where = f"record {position} of {history.partition}"
            if nonce in claimed:
                faults.append(f"S8: {where} claims with the nonce of record {claimed[nonce]}")
            if incarnation < latest:
                faults.append(f"S8: {where} claims incarnation {incarnation}, after {latest}")
            claimed[nonce], latest = position, incarnation
        faults += _strangers(evidence, history)
    return faults


def _strangers(evidence: Evidence, history: History) -> list[str]:
    """By whose statement each record was committed, which is no matter of what the record says of itself."""
    claimants = dict(zip((position for position, _, _ in history.claims), history.claimants, strict=True))
    owner = ""
    faults: list[str] = []
    for position, _, _ in history.records:
        owner = claimants.get(position, owner)
        writer = evidence.facts.writers.get((history.partition, position), owner)
        if writer != owner:
            faults.append(
                f"S8: record {position} of {history.partition} was committed by {writer}, under the claim "
                f"of {owner}"
            )
    return faults
