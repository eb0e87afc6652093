"""S15 for what moves to a dead queue, and back: it arrives once, as the move that its source calls it by, and
moves are numbered without a gap."""

from simulations.checkers.evidence import Evidence


def check_moves(evidence: Evidence) -> list[str]:
    """By payloads, which are unique, and by the numbers of the moves."""
    faults: list[str] = []
    for history in evidence.histories.values():
        last: dict[int, int] = {}
        for position, source, last_move, count in history.received:
            if last_move - count != last.get(source, 0):
                faults.append(
                    f"S15: record {position} of {history.partition} takes moves {last_move - count + 1} to "
                    f"{last_move} from {source}, the last was {last.get(source, 0)}"
                )
            last[source] = last_move
        for position, target in history.given_up:
            if target in evidence.histories and not evidence.histories[target].is_deleted:
                faults.append(
                    f"S15: record {position} of {history.partition} gives up what is on its way to {target}, "
                    "whose queue is there"
                )
        for (target, move), payload in history.sent.items():
            there = evidence.histories.get(target)
            arrived = there.taken.get((history.partition, move)) if there is not None else None
            if arrived != payload:
                faults.append(
                    f"S15: move {move} from {history.partition} to {target} was {payload!r}, there arrived "
                    f"{arrived!r}"
                )
    return faults
