"""S4: an item has at most one holder, and leaves by the one that holds it."""

from simulations.checkers.evidence import Evidence

_LEAVES = ("completed", "retried", "released", "ended", "died")


def check_one_holder(evidence: Evidence) -> list[str]:
    """Each item's steps, one after the other; and who was told that a reservation is theirs."""
    faults: list[str] = []
    for history in evidence.histories.values():
        where = history.partition
        faults += [f"{fault} (partition {where})" for fault in history.unknown]
        holder: dict[int, int] = {}
        for step in history.steps:
            held_by = holder.get(step.item, 0)
            if step.what == "reserved":
                if held_by or step.before != "ready":
                    faults.append(
                        f"S4: record {step.position} of {where} reserves item {step.item}, "
                        f"which is {step.before} (reservation {held_by})"
                    )
                holder[step.item] = step.named
            elif step.what in _LEAVES:
                if held_by != step.named:
                    faults.append(
                        f"S4: record {step.position} of {where}: item {step.item} {step.what} by reservation "
                        f"{step.named}, held by {held_by}"
                    )
                holder.pop(step.item, None)
    return faults + _told(evidence)


def _told(evidence: Evidence) -> list[str]:
    """A reservation goes to one client, and is in the log as it was told."""
    faults: list[str] = []
    told: dict[tuple[int, int, int], str] = {}
    for push in evidence.seen.pushes:
        token = (push.partition, push.reservation, push.nonce)
        first = told.setdefault(token, push.client)
        if first != push.client:
            faults.append(f"S4: reservation {token} was given to {first} and to {push.client}")
        history = evidence.histories.get(push.partition)
        holding = history.holdings.get(push.reservation) if history is not None else None
        if holding is None or holding.nonce != push.nonce:
            faults.append(f"S4: reservation {token} was given to {push.client} and is not in the log")
            continue
        members = [item.number for item in holding.items]
        if any(number not in members for number in push.items):
            faults.append(f"S4: {push.client} was given {push.items} as {token}, which is {members}")
    return faults
