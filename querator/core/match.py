"""Matching: what became ready meets who wants it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from querator.core import events as ev
from querator.core import replies as rep
from querator.core.demand import Demand, Parked, Subscription
from querator.core.due import expire_first
from querator.core.ids import Instant, SessionId
from querator.core.limits import RESERVATION_BYTES_MAX
from querator.core.policy import Ordering
from querator.core.reserve import reserve, show
from querator.core.state import PartitionState, Reservation

Asker = TypeVar("Asker")
Apply: TypeAlias = Callable[[ev.Event], None]
HandOver: TypeAlias = Callable[[Parked[Asker] | Subscription[Asker], rep.Reserved], None]
"""Is called while the waiter is what it was before it was served: its window, its linger."""


def match(
    state: PartitionState,
    demand: Demand[Asker],
    now: Instant,
    apply: Apply,
    hand_over: HandOver[Asker],
    identity: Callable[[Asker], tuple[SessionId, int]],
) -> bool:
    """Reserve ready items for parked requests and subscriptions, while there are both. What is past its time
    to live is given to nobody.

    ``apply`` evolves and records an event; ``hand_over`` sends the reservation once it is committed;
    ``identity`` is the asker's session and generation. Stops early when payloads must be read first
    (``state.starved``). False: not every parked request got the share that it was to have.
    """
    if not state.line.count or not demand.wants or state.paused or not expire_first(state, now, apply):
        return True
    return match_unexpired(state, demand, now, apply, hand_over, identity)


def match_unexpired(
    state: PartitionState,
    demand: Demand[Asker],
    now: Instant,
    apply: Apply,
    hand_over: HandOver[Asker],
    identity: Callable[[Asker], tuple[SessionId, int]],
) -> bool:
    """The same where the caller knows that nothing that waits is past its time."""
    while state.line.count and demand.parked and not state.paused:
        if not serve_parked(state, demand, demand.shares(_available(state)), now, apply, hand_over, identity):
            return False
    if not state.line.count or not demand.waiting or state.paused:
        return True
    for subscription, share in demand.candidates(_available(state), now):
        event = _reserve_for(subscription, RESERVATION_BYTES_MAX, state, share, now, identity)
        if event is None:
            return True
        apply(event)
        reservation = _newest(state)
        shown = show(state, reservation)
        reservation.holder = subscription
        hand_over(subscription, shown)
        payloads = shown.payloads
        subscription.fill(event.count, len(payloads[0]) if event.count == 1 else sum(map(len, payloads)))
        demand.served(subscription)
    return True


def _reserve_for(
    waiter: Parked[Asker] | Subscription[Asker],
    bytes_max: int,
    state: PartitionState,
    share: int,
    now: Instant,
    identity: Callable[[Asker], tuple[SessionId, int]],
) -> ev.ItemsReserved | None:
    session, generation = identity(waiter.asker)
    return reserve(
        state,
        share,
        now,
        session=session,
        generation=generation,
        timeout=waiter.timeout,
        held=waiter.held,
        bytes_max=bytes_max,
    )


def _available(state: PartitionState) -> int:
    return state.ready if state.policy.ordering is Ordering.KEY else state.line.count


def _newest(state: PartitionState) -> Reservation:
    return state.reservations[state.next_reservation - 1]


def serve_parked(
    state: PartitionState,
    demand: Demand[Asker],
    shares: Sequence[tuple[Parked[Asker], int]],
    now: Instant,
    apply: Apply,
    hand_over: HandOver[Asker],
    identity: Callable[[Asker], tuple[SessionId, int]],
) -> bool:
    """Give these parked requests their shares; False when the line could not give (all of) them."""
    for parked, share in shares:
        event = _reserve_for(parked, parked.bytes_max, state, share, now, identity)
        if event is None:
            return False
        apply(event)
        demand.unpark(parked)
        hand_over(parked, show(state, _newest(state)))
    return bool(shares)


def match_parked(
    state: PartitionState,
    demand: Demand[Asker],
    lot: Sequence[Parked[Asker]],
    now: Instant,
    apply: Apply,
    hand_over: HandOver[Asker],
    identity: Callable[[Asker], tuple[SessionId, int]],
) -> bool:
    """Serve those parked requests that were assigned to this partition of several; False as of ``match``."""
    if not state.line.count or not lot or state.paused or not expire_first(state, now, apply):
        return True
    shares = demand.shares(_available(state), lot)
    return serve_parked(state, demand, shares, now, apply, hand_over, identity)
