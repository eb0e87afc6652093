"""S1: nothing acknowledged is lost: it is in the log, as the item that its producer was told of."""

from simulations.checkers.evidence import Evidence


def check_no_loss(evidence: Evidence) -> list[str]:
    """By payloads: each is unique in a run."""
    faults: list[str] = []
    for production in evidence.seen.productions:
        for payload, number in zip(production.payloads, production.numbers, strict=True):
            item = evidence.item(production.partition, number)
            if item is None or item.payload != payload:
                faults.append(
                    f"S1: {payload!r} was acknowledged as {production.partition}.{number}, "
                    f"which is {item.payload if item is not None else 'nothing'!r} in the log"
                )
    arrived = {
        item.payload: None
        for history in evidence.histories.values()
        for item in history.items.values()
        if item.is_received
    }
    for history in evidence.histories.values():
        faults += [
            f"S1: dead item {payload!r} left {history.partition} and arrived nowhere"
            for payload in history.moved_payloads
            if payload not in arrived
        ]
    return faults
