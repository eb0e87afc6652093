"""S2: nothing comes from nowhere: what is in the log was asked for, and what is delivered is in the log."""

from simulations.checkers.evidence import Evidence


def check_no_phantom(evidence: Evidence) -> list[str]:
    """By payloads: each is unique in a run. A definite refusal is a promise too."""
    seen = evidence.seen
    faults: list[str] = []
    for payload in evidence.originals:
        if payload not in seen.attempted:
            faults.append(f"S2: {payload!r} is in the log and nobody produced it")
        elif payload in seen.refused and payload not in seen.unsure:
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
