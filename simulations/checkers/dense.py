"""S7: a partition's log is dense. That its hashes chain is seen to where it is folded again (replay.py)."""

from simulations.checkers.evidence import Evidence


def check_dense(evidence: Evidence) -> list[str]:
    """Positions count up from the first that is kept."""
    faults: list[str] = []
    for history in evidence.histories.values():
        for index, (position, _, _) in enumerate(history.records):
            if position != history.records[0][0] + index:
                faults.append(f"S7: record {position} of {history.partition} stands at place {index + 1}")
                break
    return faults
