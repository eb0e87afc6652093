"""S8: a claim's nonce names one owner for ever, and incarnations never go back."""

from simulations.checkers.evidence import Evidence


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
    return faults
