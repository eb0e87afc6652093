"""S6, S7, S8: the log is dense, a claim stands right behind what its claimant had read, and every record up
to the next claim is the claimant's."""

from simulations.checkers.evidence import Evidence


def check_fencing(evidence: Evidence) -> list[str]:
    """By positions and nonces; that the hashes chain is the verification's to see (checkers/log.py)."""
    faults: list[str] = []
    for history in evidence.histories.values():
        claims = {position: (nonce, read) for position, nonce, read in history.claims}
        owner = 0
        nonces: dict[int, int] = {}
        for index, (position, nonce, _) in enumerate(history.records):
            where = f"record {position} of {history.partition}"
            if position != index + 1:
                faults.append(f"S7: {where} stands at {index + 1}")
                break
            if position in claims:
                owner, read = claims[position]
                if read != position - 1:
                    faults.append(f"S6: {where} claims, and its claimant had read to {read}")
                if owner in nonces:
                    faults.append(f"S8: {where} claims with the nonce of record {nonces[owner]}")
                nonces[owner] = position
            if nonce != owner:
                faults.append(f"S6: {where} is of {nonce}, the owner is {owner}")
    return faults
