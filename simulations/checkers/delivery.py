"""S1, S2: nothing acknowledged is lost, nothing appears from nowhere; what is delivered was produced."""

from simulations.checkers.evidence import Evidence


def check_delivery(evidence: Evidence) -> list[str]:
    """Look at payloads: each is unique in a run."""
    seen = evidence.seen
    faults: list[str] = []
    for production in seen.productions:
        for payload, number in zip(production.payloads, production.numbers, strict=True):
            item = evidence.item(production.partition, number)
            if item is None or item.payload != payload:
                faults.append(
                    f"S1: {payload!r} was acknowledged as {production.partition}.{number}, "
                    f"which is {item.payload if item is not None else 'nothing'!r} in the log"
                )
    for payload in evidence.originals:
        if payload not in seen.attempted:
            faults.append(f"S2: {payload!r} is in the log and nobody produced it")
        elif payload in seen.refused and seen.refused[payload] != "outcome_unknown":
            faults.append(f"S2: {payload!r} was refused ({seen.refused[payload]}) and is in the log")
    for push in seen.pushes:
        for payload, number in zip(push.payloads, push.items, strict=True):
            item = evidence.item(push.partition, number)
            if item is None or item.payload != payload:
                faults.append(
                    f"S2: {push.client} received {payload!r} as {push.partition}.{number}, "
                    f"which is {item.payload if item is not None else 'nothing'!r} in the log"
                )
    return faults
