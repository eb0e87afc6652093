"""Nothing acknowledged is lost, nothing appears from nowhere, nothing is produced twice, stale holders
are not believed."""

from simulations.checkers.history import History
from simulations.observations import Observations


def check_delivery(histories: list[History], seen: Observations) -> list[str]:
    """S1, S2, S5, S15 of what clients saw."""
    faults = [fault for history in histories for fault in history.faults]
    by_payload: dict[bytes, list[tuple[int, int]]] = {}
    for history in histories:
        for item in history.items.values():
            by_payload.setdefault(item.payload, []).append((history.partition, item.number))
    for payload, item_id in seen.acknowledged.items():
        places = by_payload.get(payload, [])
        if item_id not in places:
            faults.append(f"S1: {payload!r} was acknowledged as {item_id} and is not in the log")
        if len(places) > 1:
            faults.append(f"S15: {payload!r} was produced {len(places)} times: {places}")
    for payload in by_payload:
        if payload not in seen.attempted:
            faults.append(f"S2: {payload!r} is in the log and nobody produced it")
        if payload in seen.refused and seen.refused[payload] not in ("outcome_unknown", "unavailable"):
            faults.append(f"S2: {payload!r} was refused ({seen.refused[payload]}) and is in the log")
    for payload in seen.delivered:
        if payload not in by_payload:
            faults.append(f"{payload!r} was delivered and is not in the log")
    faults += [f"S5: {fault}" for fault in seen.stale_accepted]
    return faults
