"""S16: linearizable per partition, with the log as the witness order.

Every operation that was answered took effect at one place of the log, between its call and its answer:
an answer never leaves before its record is committed, and where one operation was answered before another
was called, the first stands earlier in the log. Readings, too: what was answered before is in them, whoever
owned then, and whoever answers now. O(n log n).
"""

from bisect import bisect_left

import attrs

from simulations.checkers.evidence import Evidence


@attrs.frozen
class Operation:
    """``place`` is (position, index of the event)."""

    called: float
    returned: float
    place: tuple[int, int]
    what: str
    waits_for: int | None = None
    """The record that had to be committed before the answer, if that is not the one of its place."""


def check_witness(evidence: Evidence) -> list[str]:
    """Collect each partition's operations, and compare the two orders."""
    faults: list[str] = []
    for partition, operations in _operations(evidence).items():
        for operation in operations:
            record = operation.place[0] if operation.waits_for is None else operation.waits_for
            committed = evidence.committed(partition, record)
            if committed is not None and operation.returned < committed:
                faults.append(
                    f"S16: {operation.what} was answered at {operation.returned:.6f}, "
                    f"committed at {committed:.6f} (record {record} of {partition})"
                )
        faults += [f"S16: partition {partition}: {fault}" for fault in out_of_order(operations)]
    return faults


def out_of_order(operations: list[Operation]) -> list[str]:
    """Pairs where the one answered first stands later in the log; at most one a later operation."""
    by_return = sorted(operations, key=lambda operation: operation.returned)
    returns = [operation.returned for operation in by_return]
    latest: list[Operation] = []
    for operation in by_return:
        latest.append(operation if not latest or operation.place > latest[-1].place else latest[-1])
    faults: list[str] = []
    for operation in operations:
        before = bisect_left(returns, operation.called) - 1
        if before >= 0 and latest[before].place > operation.place:
            first = latest[before]
            faults.append(
                f"{first.what} was answered at {first.returned:.6f}, before {operation.what} was called at "
                f"{operation.called:.6f}, and stands later in the log: {first.place} > {operation.place}"
            )
    return faults


def _operations(evidence: Evidence) -> dict[int, list[Operation]]:
    found: dict[int, list[Operation]] = {partition: [] for partition in evidence.histories}
    for production in evidence.seen.productions:
        history = evidence.histories.get(production.partition)
        place = history.produced_at.get(production.numbers[-1]) if history is not None else None
        if place is not None:
            # A duplicate took effect with the first: it may stand before its call.
            called = production.called if not production.duplicates else float("-inf")
            found[production.partition].append(
                Operation(called, production.returned, place, f"produce {production.numbers}")
            )
    for push in evidence.seen.pushes:
        history = evidence.histories.get(push.partition)
        holding = history.holdings.get(push.reservation) if history is not None else None
        if holding is not None:
            found[push.partition].append(
                Operation(push.asked, push.received, (holding.position, 0), f"reservation {push.reservation}")
            )
    for reading in evidence.seen.readings:
        if reading.partition in found:
            found[reading.partition].append(
                Operation(
                    reading.called,
                    reading.returned,
                    # Before everything in the record to come, behind all that was committed.
                    (reading.position, -1),
                    f"{reading.client}'s reading",
                    waits_for=reading.position - 1,
                )
            )
    for settled in evidence.seen.settlements:
        history = evidence.histories.get(settled.partition)
        events = (
            history.settled_at.get((settled.reservation, settled.verb), []) if history is not None else []
        )
        # Several events of one verb: which of them was this answer's is not told. And where a hostile client
        # was quicker, its event is what the repeat was answered by.
        is_stolen = (settled.partition, settled.reservation) in evidence.seen.stolen
        if len(events) == 1 and settled.is_own and not is_stolen:
            found[settled.partition].append(
                Operation(
                    settled.called,
                    settled.returned,
                    (events[0][0], events[0][1]),
                    f"{settled.verb} of {settled.reservation}",
                )
            )
    return found
