"""Reserving: how many of the line's first items go together, and what their holder is shown."""

from collections.abc import Sequence
from typing import Any

from querator.core import events as ev
from querator.core import replies as rep
from querator.core.ids import NEVER, Duration, Instant, SessionId
from querator.core.lanes import peek_next
from querator.core.limits import REQUEST_ITEMS_MAX, RESERVATION_BYTES_MAX
from querator.core.segments import SEGMENT_BITS, Segment
from querator.core.state import PartitionState, Reservation


def plan(
    state: PartitionState, items_max: int, now: Instant, bytes_max: int = RESERVATION_BYTES_MAX
) -> tuple[int, Duration]:
    """(how many of the first items may go in one reservation, their timeout).

    One reservation has one deadline, so it ends before an item with a timeout of its own. It ends,
    too, before payloads that are not in memory: ``state.starved`` then names their segment.
    """
    head = state.line.peek()
    policy = state.policy
    timeout = policy.reservation_timeout
    if head is None or state.paused or policy.deleted:
        return 0, timeout
    if state.is_keyed:
        return _plan_lanes(state, items_max, now, bytes_max)
    segment = state.segments[head[1] >> SEGMENT_BITS]
    if segment.payloads is None:
        state.starved = segment.number
        return 0, timeout
    if head[2] >= items_max and (segment.columns is None or "reservation_timeout" not in segment.columns):
        start = head[1] - segment.first
        if items_max == 1 or _size(segment.payloads[start : start + items_max]) <= bytes_max:
            return items_max, timeout
    return _plan_runs(state, items_max, bytes_max)


def _size(payloads: Sequence[bytes | None]) -> int:
    return sum(map(len, payloads))  # type: ignore[arg-type]  # items in line have their payloads


def _own_timeout(segment: Segment, offset: int) -> int:
    own = segment.value("reservation_timeout", offset)
    return own if isinstance(own, int) else 0


def _plan_runs(state: PartitionState, items_max: int, bytes_max: int) -> tuple[int, Duration]:
    planned = 0
    size = 0
    timeout = -1
    for _, item, count in state.line.runs():
        segment = state.segments[item >> SEGMENT_BITS]
        payloads = segment.payloads
        if payloads is None:
            if not planned:
                state.starved = segment.number
            break
        start = item - segment.first
        end = start + min(count, items_max - planned)
        has_timeouts = segment.columns is not None and "reservation_timeout" in segment.columns
        for offset in range(start, end):
            own = _own_timeout(segment, offset) if has_timeouts else 0
            if timeout < 0:
                timeout = own
            payload = payloads[offset]
            size += len(payload) if payload is not None else 0
            if own != timeout or (size > bytes_max and planned):
                return planned, Duration(timeout or state.policy.reservation_timeout)
            planned += 1
        if planned == items_max:
            break
    return planned, Duration(timeout if timeout > 0 else state.policy.reservation_timeout)


def _plan_lanes(state: PartitionState, items_max: int, now: Instant, bytes_max: int) -> tuple[int, Duration]:
    planned = 0
    size = 0
    timeout = -1
    for _, first, count in state.line.runs():
        for head in range(first, first + count):
            key = state.key_of(head)
            item, successor = head, 0
            while item:
                segment = state.segments[item >> SEGMENT_BITS]
                offset = item - segment.first
                if segment.payloads is None:
                    if not planned:
                        state.starved = segment.number
                    return planned, Duration(timeout if timeout > 0 else state.policy.reservation_timeout)
                own = _own_timeout(segment, offset)
                if timeout < 0:
                    timeout = own
                payload = segment.payloads[offset]
                size += len(payload) if payload is not None else 0
                if own != timeout or (size > bytes_max and planned):
                    return planned, Duration(timeout or state.policy.reservation_timeout)
                planned += 1
                if planned == items_max:
                    return planned, Duration(timeout or state.policy.reservation_timeout)
                item = peek_next(state, key, successor, now) if key is not None else 0
                successor += 1
    return planned, Duration(timeout if timeout > 0 else state.policy.reservation_timeout)


def reserve(
    state: PartitionState,
    items_max: int,
    now: Instant,
    *,
    session: SessionId,
    generation: int,
    timeout: Duration,
    held: bool,
    bytes_max: int = RESERVATION_BYTES_MAX,
) -> ev.ItemsReserved | None:
    """The event that gives the first items to this holder; ``None``: nothing may go now.

    ``timeout`` 0: the items' own, else the queue's. ``bytes_max`` is of payloads; one item always goes.
    """
    head = state.line.peek()
    if head is None:
        return None
    if items_max > REQUEST_ITEMS_MAX:
        items_max = REQUEST_ITEMS_MAX
    count, default = plan(state, items_max, now, bytes_max)
    if not count:
        return None
    # Instants and numbers by their plain type: here the call of a NewType costs as much as the sum.
    first: Any = head[1]
    deadline: Any = now + (timeout or default)
    run_until: Any = NEVER
    if held:
        run_until = now + state.policy.max_runtime
        if run_until < deadline:
            run_until = deadline
    return ev.ItemsReserved(count, first, session, generation, deadline, run_until)


def show(
    state: PartitionState, reservation: Reservation, ranges: Sequence[tuple[int, int]] | None = None
) -> rep.Reserved:
    """What the holder is given: the items of the reservation (or of these ranges of it)."""
    # Its runs are of places and item numbers, as the answer's.
    runs: Any = reservation.runs if ranges is None else reservation.pick(tuple(ranges))
    segments = state.segments
    attributes: list[rep.SegmentAttributes] | None = None
    payloads: list[bytes]
    if len(runs) == 1:
        _, item, total = runs[0]
        segment = segments[item >> SEGMENT_BITS]
        start = item - segment.first
        payloads = _payloads(segment, start, total)
        if segment.columns is not None:
            attributes = [_columns(segment, start, total)]
    else:
        payloads = []
        total = sum(run[2] for run in runs)
        for _, item, count in runs:
            segment = segments[item >> SEGMENT_BITS]
            start = item - segment.first
            payloads += _payloads(segment, start, count)
            if segment.columns is not None and attributes is None:
                attributes = []
        if attributes is not None:
            for _, item, count in runs:
                segment = segments[item >> SEGMENT_BITS]
                attributes.append(_columns(segment, item - segment.first, count))
    attempts: int | list[int] = 1
    if state.attempts:
        done = state.attempts
        attempts = [
            done.get(number, 0) + 1 for _, item, count in runs for number in range(item, item + count)
        ]
        if attempts.count(1) == len(attempts):
            attempts = 1
    return rep.Reserved(
        state.partition,
        reservation.number,
        reservation.nonce,
        total,
        list(runs),
        payloads,
        attempts,
        reservation.deadline,
        reservation.run_until,
        attributes,
    )


def _payloads(segment: Segment, start: int, count: int) -> list[bytes]:
    if segment.payloads is None:
        return [b""] * count
    return segment.payloads[start : start + count]  # type: ignore[return-value]  # live items have theirs


def _columns(segment: Segment, start: int, count: int) -> rep.SegmentAttributes:
    if segment.columns is None:
        return {}
    return {name: column[start : start + count] for name, column in segment.columns.items()}
