"""S6: a claim stands right behind what its claimant had read, and every record up to the next claim is the
claimant's."""

from simulations.checkers.evidence import Evidence


def check_fence(evidence: Evidence) -> list[str]:
    """That a log is dense and its owners change does not show this: the claim says how far it had read."""
    faults: list[str] = []
    for history in evidence.histories.values():
        claims = {position: (nonce, read) for position, nonce, read in history.claims}
        owner = 0
        for position, nonce, _ in history.records:
            where = f"record {position} of {history.partition}"
            if position in claims:
                owner, read = claims[position]
                if read != position - 1:
                    faults.append(f"S6: {where} claims, and its claimant had read to {read}")
            if nonce != owner:
                faults.append(f"S6: {where} is of {nonce}, the owner is {owner}")
    return faults
