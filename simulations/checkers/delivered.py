"""L1: what is ready is delivered while somebody wants it and has room."""

from typing import Final

from simulations.checkers.evidence import Calm, Evidence
from simulations.checkers.history import History

PATIENCE: Final = 1.0
"""Seconds beside the time that messages are under way."""


def check_delivered(evidence: Evidence) -> list[str]:
    """Items that stood in line while a client was hungry all the time and nothing was amiss."""
    patience = PATIENCE + 4 * evidence.terms.latency
    hungry: dict[str, list[tuple[float, float, str]]] = {}
    for hunger in evidence.seen.hungers:
        if hunger.until - hunger.since > patience:
            hungry.setdefault(hunger.queue, []).append((hunger.since, hunger.until, hunger.client))
    if not hungry or not evidence.committed_at:
        return []
    calm = Calm(evidence.facts)
    faults: list[str] = []
    for history in evidence.histories.values():
        wanted = hungry.get(evidence.terms.queue_of.get(history.partition, ""), [])
        if not wanted or history.keyed:
            # By key, an item that is ready may stand behind its lane's head.
            continue
        for item, start, end in _waits(history, evidence):
            for since, until, client in wanted:
                first, last = max(start, since), min(end, until)
                if last - first > patience and calm.holds(first - patience, last):
                    faults.append(
                        f"L1: item {history.partition}.{item} lay ready from {first:.3f} to {last:.3f}, and "
                        f"{client} had nothing to do"
                    )
                    break
    return faults


def _waits(history: History, evidence: Evidence) -> list[tuple[int, float, float]]:
    """(item, from, to) of every stay in the line, by the time of the commits."""
    waits: list[tuple[int, float, float]] = []
    since: dict[int, float] = {}
    for step in history.steps:
        at = evidence.committed(history.partition, step.position)
        if at is None:
            continue
        start = since.pop(step.item, None)
        if start is not None:
            waits.append((step.item, start, at))
        if step.after == "ready":
            since[step.item] = at
    waits += [(item, start, float("inf")) for item, start in since.items()]
    return waits
