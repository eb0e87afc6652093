"""What time alone makes happen: reservations end, items expire, schedules come due, the dead are pruned.

A moment is past only when it is strictly before ``now``: at its deadline a holder can still complete, and
for a lag after it, since the holder learnt of it later than it was decided.
Bounded per turn; what is left over is due at once in the next.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, TypeAlias

from querator.core import events as ev
from querator.core.decide import ATTEMPTS_REASON, split_worn, to_ranges
from querator.core.ids import Duration, Instant, ReservationNumber
from querator.core.limits import TURN_DUE_ITEMS_MAX
from querator.core.segments import BEHIND, READY, SCHEDULED
from querator.core.state import PartitionState, Reservation

Apply: TypeAlias = Callable[[ev.Event], None]
"""Evolves the state by the event and puts it into the pending record."""

_NO_LAG: Final = Duration(0)
_LEAVING_PASSED_MAX: Final = 1_000
"""Dead items on their way elsewhere that the search for the oldest other one passes."""


def next_due_at(state: PartitionState, end_lag: Duration = _NO_LAG) -> int | None:
    """The next moment at which something is past; ``None``: nothing is waiting for time."""
    # Most partitions wait for ends alone, if for anything: what is empty is not asked.
    earliest = state.ends.next_at()
    if earliest is not None:
        earliest += end_lag
    for at in (
        state.expiries[0][0] if state.expiries else None,
        state.next_due() if state.schedule else None,
        _next_prune(state) if state.dead else None,
    ):
        if at is not None and (earliest is None or at < earliest):
            earliest = at
    return None if earliest is None else earliest + 1


def run_due(state: PartitionState, now: Instant, apply: Apply, end_lag: Duration = _NO_LAG) -> None:
    """Make happen what is past, in this order: reservations, schedules, item expiry, retention. An item
    that becomes ready after its time to live is never given to anybody: see ``expire_first``."""
    budget = TURN_DUE_ITEMS_MAX
    for number in state.ends.due(now - 1 - end_lag, budget):
        reservation = state.reservations[number]
        why = "max_runtime" if reservation.run_until else "deadline"
        budget -= reservation.left
        end_reservation(state, reservation, why, apply)
        if budget <= 0:
            return
    budget -= _promote(state, now, budget, apply)
    if budget <= 0:
        return
    budget -= _expire_items(state, now, budget, apply)
    if budget > 0:
        _prune(state, now, budget, apply)


def end_reservation(state: PartitionState, reservation: Reservation, why: str, apply: Apply) -> None:
    """It ends by itself: items at their last attempt die, the others go back."""
    number = ReservationNumber(reservation.number)
    worn, rest = split_worn(state, reservation, None)
    if worn:
        apply(ev.ItemsDied(number, tuple(worn), ATTEMPTS_REASON, "ended"))
    if rest is None or rest:
        apply(ev.ReservationEnded(number, None, why))


def expire_first(state: PartitionState, now: Instant, apply: Apply) -> bool:
    """Before anything is given: what became ready in this turn, or waited for it, and is past its time to
    live leaves. False: it is more than a turn may take, and nothing may be given before the next."""
    expiries = state.expiries
    if not expiries or expiries[0][0] >= now:
        return True
    _expire_items(state, now, TURN_DUE_ITEMS_MAX, apply)
    return not expiries or expiries[0][0] >= now


def _expire_items(state: PartitionState, now: Instant, budget: int, apply: Apply) -> int:
    spent = 0
    while state.expiries and state.expiries[0][0] < now and spent < budget:
        at, number = heappop(state.expiries)
        segment = state.segments.get(number)
        if segment is None or segment.expires is None or segment.expiry_queued != at:
            continue
        segment.expiry_queued = 0
        runs: list[int] = []
        later = 0
        for offset, expires in enumerate(segment.expires):
            if not expires or segment.states[offset] not in (READY, BEHIND):
                continue
            if expires < now:
                runs.append(segment.first + offset)
            elif not later or expires < later:
                later = expires
        if later:
            segment.expiry_queued = later
            heappush(state.expiries, (later, number))
        if runs:
            spent += len(runs)
            apply(ev.ItemsExpired(tuple(to_ranges(runs))))
    return spent


def _promote(state: PartitionState, now: Instant, budget: int, apply: Apply) -> int:
    """Scheduled items whose time came, as one event: a count of the earliest."""
    due = state.next_due()
    if due is None or due >= now:
        return 0
    # Only the part of the heap that is past is walked: a child is never earlier than its parent.
    schedule = state.schedule
    count = 0
    stack = [0]
    while stack:
        index = stack.pop()
        if index >= len(schedule) or schedule[index][0] >= now or count >= budget * 2:
            continue
        _, place, item, size = schedule[index]
        for offset in range(size):
            number = item + offset
            if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                count += 1
        stack += (2 * index + 1, 2 * index + 2)
    count = min(count, budget)
    if count:
        apply(ev.ItemsDue(count))
    return count


def _next_prune(state: PartitionState) -> int | None:
    """When the oldest dead item that stays here has been kept long enough."""
    for passed, (item, (_, died_at, _)) in enumerate(state.dead.items()):
        if item not in state.leaving:
            return died_at + state.policy.dead_retention
        if passed >= _LEAVING_PASSED_MAX:
            break
    return None


def _prune(state: PartitionState, now: Instant, budget: int, apply: Apply) -> None:
    at = _next_prune(state)
    if at is None or at >= now:
        return
    horizon = now - state.policy.dead_retention
    chosen: list[int] = []
    for item, (_, died_at, _) in state.dead.items():
        if died_at >= horizon or len(chosen) >= budget:
            break
        if item not in state.leaving:
            chosen.append(item)
    if chosen:
        apply(ev.ItemsPruned(tuple(to_ranges(sorted(chosen)))))
