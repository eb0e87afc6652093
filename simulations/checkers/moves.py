"""S15 for the dead: a dead item arrives once in its dead queue, and moves are numbered without a gap."""

from collections import Counter

from simulations.checkers.evidence import Evidence


def check_moves(evidence: Evidence) -> list[str]:
    """By payloads, which are unique, and by the numbers of the moves."""
    faults: list[str] = []
    arrived: Counter[bytes] = Counter()
    for history in evidence.histories.values():
        arrived.update(item.payload for item in history.items.values() if item.is_received)
        last: dict[int, int] = {}
        for position, source, last_move, count in history.received:
            if last_move - count != last.get(source, 0):
                faults.append(
                    f"S15: record {position} of {history.partition} takes moves {last_move - count + 1} to "
                    f"{last_move} from {source}, the last was {last.get(source, 0)}"
                )
            last[source] = last_move
    return faults + [
        f"S15: dead item {payload!r} moved {count} times" for payload, count in arrived.items() if count > 1
    ]
