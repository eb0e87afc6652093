"""Deciding again: from what a record says of its inputs, by the production core, what must be its events.

Decided again are what was produced, every reservation (from the waiters that the inputs section names, by
``match``), completions, and all that time alone makes happen (by ``run_due``). The other events are
somebody's word, such as a retry's time or an operator's order: they are taken as they are, and fitted.

Payloads are here only as how long each is: more does not decide anything.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from querator.actors.refold import evolve_in_turn
from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.decide import ATTEMPTS_REASON, decide_produce, decide_settle, split_worn
from querator.core.demand import Demand, Parked, Subscription
from querator.core.due import end_reservation, run_due
from querator.core.ids import Duration, Instant, PartitionId, SessionId
from querator.core.inputs import How, Inputs, Waiter
from querator.core.limits import RESERVATION_END_LAG
from querator.core.match import match_unexpired
from querator.core.reserve import reserve
from querator.core.segments import GONE, SEGMENT_BITS
from querator.core.state import PartitionState

OnEvent: TypeAlias = Callable[[ev.Event], None]
Asker: TypeAlias = "tuple[SessionId, int]"
Blank: TypeAlias = Any
"""Stands for a payload: something of its length that takes no room."""

NEVER: Final = Instant(1 << 62)
BYTES_UNBOUNDED: Final = 1 << 62
_EMPTY: Final[Blank] = range(0)


class Differs(Exception):  # a finding, not an operating error
    """What was decided again is not what was recorded."""

    def __init__(self, index: int, recorded: ev.Event | None, replayed: ev.Event | None) -> None:
        self.index = index
        """Of the event, in its record."""
        self.recorded = recorded
        self.replayed = replayed
        self.field = ""
        self.expected: object = recorded
        self.got: object = replayed
        if recorded is not None and type(recorded) is type(replayed):
            for field in attrs.fields(type(recorded)):
                before, after = getattr(recorded, field.name), getattr(replayed, field.name)
                if before != after:
                    self.field, self.expected, self.got = field.name, before, after
                    break
        super().__init__(str(self))

    def __str__(self) -> str:
        if self.recorded is None:
            return f"event {self.index}: the record ends here, and the replay decides {self.replayed}"
        if self.replayed is None:
            return f"event {self.index}: the replay decides nothing, and recorded was {self.recorded}"
        kind = type(self.recorded).__name__
        if not self.field:
            return f"event {self.index}: the replay decides {self.replayed}, and recorded was {self.recorded}"
        return f"event {self.index}, {kind}.{self.field}: recorded {self.expected!r}, replayed {self.got!r}"


@attrs.define
class Decided:
    """How much of what was recorded was decided again."""

    assignments: int = 0
    """Reservations in the log."""
    from_waiters: int = 0
    """Of them, decided again from all that was recorded of who waited; the others from what the event
    itself says of its holder."""
    events: int = 0
    """Events of every kind that were decided again, and not only folded."""


class Redecider:
    """Folds the records of one partition by deciding them again. Owns what volatile state that takes."""

    def __init__(self) -> None:
        self.decided = Decided()
        self._demand: Demand[Asker] = Demand()
        self._blanks: dict[int, Blank] = {}
        self._away: dict[int, list[Blank]] = {}
        """Payloads of segments that are in the log only."""
        self._unknown: dict[int, None] = {}
        """Segments with items whose payloads nobody knows the length of: from before the replay's beginning,
        or of records of which only the rest was kept."""
        self._claimed: list[int] = []
        """Segments as they were at the last claim: none of their payloads was in memory, if the claimant
        records inputs; a record that has some tells."""
        # Of the record at hand:
        self._state = PartitionState(PartitionId(0))
        self._events: Sequence[ev.Event] = ()
        self._on_event: OnEvent | None = None
        self._index = 0
        self._first_new = 0
        self._waiters: Sequence[Waiter] = ()
        self._next_waiter = 0
        self._has_sizes = False
        self.replayed: list[ev.Event] = []
        """What was decided, or taken as it was, of the record at hand."""

    def begin(self, state: PartitionState) -> None:
        """The replay begins with this state, of whose payloads nothing is known."""
        for segment in state.segments.values():
            segment.payloads = [None if kind == GONE else _EMPTY for kind in segment.states]
            self._unknown[segment.number] = None

    def fold(
        self,
        state: PartitionState,
        events: Sequence[ev.Event],
        inputs: Inputs,
        sizes: Sequence[int] | None,
        on_event: OnEvent | None,
    ) -> list[ev.Event]:
        """Fold a record's events, each as it is decided again; what they are then. ``sizes``: of the
        record's payloads.

        Raises:
            Differs: something else was recorded.
            InvariantViolation, KeyError, IndexError, ValueError, TypeError: an event does not fit.
        """
        self._state = state
        self._events = events
        self._on_event = on_event
        self._index = 0
        self._first_new = state.next_item
        self._waiters = inputs.waiters
        self._next_waiter = 0
        self._has_sizes = sizes is not None
        self.replayed = []
        self._attach(events, sizes)
        if self._claimed and (inputs.waiters or inputs.moved):
            for number in self._claimed:
                self._move(number, is_here=False)
            self._claimed = []
        moved = inputs.moved
        next_moved = 0
        total = len(events)
        while self._index < total:
            while next_moved < len(moved) and moved[next_moved].index <= self._index:
                self._move(moved[next_moved].segment, is_here=moved[next_moved].is_here)
                next_moved += 1
            event = events[self._index]
            decide = _DECIDE.get(type(event))
            if decide is None:
                self._take(event)
            else:
                decide(self, event)
        for late in moved[next_moved:]:
            self._move(late.segment, is_here=late.is_here)
        return self.replayed

    # --- taking ---------------------------------------------------------------------------------------

    def _take(self, event: ev.Event) -> None:
        """It is what was recorded next: fold it."""
        evolve_in_turn(self._state, event, self._first_new)
        self._index += 1
        self.replayed.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _expect(self, event: ev.Event) -> None:
        """The core decided this: it must be what was recorded next."""
        index = self._index
        recorded = self._events[index] if index < len(self._events) else None
        if recorded != event:
            raise Differs(index, recorded, event)
        self.decided.events += 1
        self._take(event)

    def _expect_all(self, events: Sequence[ev.Event]) -> None:
        if not events:
            raise Differs(self._index, self._events[self._index], None)
        for event in events:
            self._expect(event)

    # --- payloads -------------------------------------------------------------------------------------

    def _attach(self, events: Sequence[ev.Event], sizes: Sequence[int] | None) -> None:
        offset = 0
        blanks = self._blanks
        for event in events:
            if type(event) is ev.ItemsProduced:
                if sizes is None:
                    event.payloads = [_EMPTY] * event.count
                    last = event.first_item + event.count - 1
                    for segment in range(event.first_item >> SEGMENT_BITS, (last >> SEGMENT_BITS) + 1):
                        self._unknown[segment] = None
                    continue
                mine = sizes[offset : offset + event.count]
                offset += event.count
                payloads: list[Blank] = []
                for size in mine:
                    blank = blanks.get(size)
                    if blank is None:
                        blank = blanks[size] = range(size)
                    payloads.append(blank)
                event.payloads = payloads

    def _move(self, number: int, *, is_here: bool) -> None:
        segment = self._state.segments.get(number)
        if segment is None:
            self._away.pop(number, None)
            return
        if is_here:
            found = self._away.pop(number, None)
            if found is not None and segment.payloads is None:
                found += [_EMPTY] * (len(segment.states) - len(found))
                segment.payloads = [
                    None if kind == GONE else payload
                    for kind, payload in zip(segment.states, found, strict=True)
                ]
        elif segment.payloads is not None:
            self._away[number] = segment.payloads
            segment.payloads = None

    # --- what is decided again ------------------------------------------------------------------------

    def _claim(self, event: ev.Claimed) -> None:
        self._take(event)
        self._claimed = list(self._state.segments)

    def _produce(self, event: ev.ItemsProduced) -> None:
        state = self._state
        if event.part or event.duplicates or state.part_first or _has_past(event.attributes):
            # An import, or a request of which the log does not keep every part.
            self._take(event)
            return
        command = cmd.Produce(
            event.payloads or (), event.due_at, event.attributes, event.producer, event.sequence
        )
        made, _ = decide_produce(state, command, state.now)
        if event.attributes is not None and not event.expires_at and len(made) == 1:
            # An import brings the end of each item's life along, or none.
            made = (attrs.evolve(made[0], expires_at=Instant(0)),)  # type: ignore[arg-type]
        self._expect_all(made)

    def _complete(self, event: ev.ItemsCompleted) -> None:
        state = self._state
        reservation = state.reservations[event.reservation]
        command = cmd.Settle(Verb.COMPLETE, event.reservation, reservation.nonce, event.ranges)
        made, _ = decide_settle(state, command, state.now)
        if event.ranges is not None and list(made) == [ev.ItemsCompleted(event.reservation, None)]:
            # A request that names items by place and settles them in several ways writes out the last ones.
            self._take(event)
            return
        self._expect_all(made)

    def _die(self, event: ev.ItemsDied) -> None:
        if event.verb == "ended":
            self._end(event)
            return
        if event.reason == ATTEMPTS_REASON and event.verb == "retried":
            state = self._state
            worn, _ = split_worn(state, state.reservations[event.reservation], event.ranges)
            got = ev.ItemsDied(event.reservation, tuple(worn), event.reason, event.verb)
            if got.ranges != event.ranges:
                raise Differs(self._index, event, got)
        self._take(event)

    def _end(self, event: ev.ItemsDied | ev.ReservationEnded) -> None:
        """A reservation ended by itself: by its time, with all others of that moment, or with its session."""
        state = self._state
        reservation = state.reservations[event.reservation]
        why = ""
        for following in self._events[self._index : self._index + 2]:
            if type(following) is ev.ReservationEnded and following.reservation == event.reservation:
                why = following.why
        is_past = reservation.ends_at < state.now
        is_held = bool(reservation.run_until)
        # A held one that its client never confirmed ends by its deadline, and out of turn.
        if (
            why in ("session_lost", "given_up")
            or (why == "deadline" and is_held)
            or (not why and not is_past)
        ):
            end_reservation(state, reservation, why or "session_lost", self._expect)
        else:
            self._due(event)

    def _due(self, event: ev.Event) -> None:
        """All that time alone makes happen now."""
        before = self._index
        try:
            run_due(self._state, self._state.now, self._expect, self._end_lag(event))
        except Differs as differs:
            # Which of two segments is looked at first follows from when they were filled, not from the fold;
            # and before something is given items expire alone, whatever else is due.
            if type(differs.recorded) is not ev.ItemsExpired:
                raise
            self._expire(differs.recorded)
        if self._index == before:
            raise Differs(self._index, event, None)

    def _end_lag(self, event: ev.Event) -> Duration:
        """That of a node; none where the event shows that its node had none."""
        if isinstance(event, ev.ItemsDied | ev.ReservationEnded):
            reservation = self._state.reservations[event.reservation]
            if reservation.ends_at + RESERVATION_END_LAG >= self._state.now:
                return Duration(0)
        return RESERVATION_END_LAG

    def _expire(self, event: ev.ItemsExpired) -> None:
        state = self._state
        for first, count in event.runs:
            for item in range(first, first + count):
                segment = state.segments[item >> SEGMENT_BITS]
                at = 0 if segment.expires is None else segment.expires[item - segment.first]
                if not at or at >= state.now:
                    raise Differs(self._index, event, None)
        self._take(event)

    # --- reservations -----------------------------------------------------------------------------------

    def _reserve(self, event: ev.ItemsReserved) -> None:
        self.decided.assignments += 1
        waiter = None
        if self._waiters:
            if self._next_waiter >= len(self._waiters):
                raise Differs(self._index, event, None)
            waiter = self._waiters[self._next_waiter]
        if waiter is None:
            self._reserve_alone(event)
            return
        if waiter.call:
            self._serve_round(waiter.call)
            return
        self._next_waiter += 1
        if waiter.how is How.NOBODY:
            self._take(event)
        elif not self._has_sizes or self._meets_unknown(event.count):
            self._reserve_alone(event)
        else:
            self._again(event, waiter.batch, waiter.timeout, waiter.bytes_max)
            self.decided.from_waiters += 1

    def _reserve_alone(self, event: ev.ItemsReserved) -> None:
        """By what the event itself says: the first in line, how many, for how long."""
        state = self._state
        if not event.session and event.first_item >= self._first_new:
            # It may be what an import brought.
            self._take(event)
            return
        left = event.count + 1
        for _, item, count in list(state.line.runs()) if self._away else ():
            self._move(item >> SEGMENT_BITS, is_here=True)
            left -= count
            if left <= 0:
                break
        self._again(event, event.count, Duration(event.deadline - state.now), BYTES_UNBOUNDED)

    def _again(self, event: ev.ItemsReserved, items_max: int, timeout: Duration, bytes_max: int) -> None:
        state = self._state
        made = reserve(
            state,
            items_max,
            state.now,
            session=event.session,
            generation=event.generation,
            timeout=timeout,
            held=bool(event.run_until),
            bytes_max=bytes_max,
        )
        if made is None:
            raise Differs(self._index, event, None)
        self._expect(made)

    def _meets_unknown(self, count: int) -> bool:
        """Whether the first items, or the one behind them, are from before the replay's beginning."""
        if not self._unknown:
            return False
        state = self._state
        left = count + 1
        for _, item, length in state.line.runs():
            if item >> SEGMENT_BITS in self._unknown:
                return True
            left -= length
            if left <= 0:
                break
        return False

    def _serve_round(self, call: int) -> None:
        """One round of matching, with the waiters that were served in it."""
        start = self._next_waiter
        end = start
        while end < len(self._waiters) and self._waiters[end].call == call:
            end += 1
        waiters = self._waiters[start:end]
        recorded = self._events[self._index : self._index + end - start]
        for index, event in enumerate(recorded):
            if type(event) is not ev.ItemsReserved:
                raise Differs(self._index + index, event, None)
        self._next_waiter = end
        reserved: list[ev.ItemsReserved] = recorded  # type: ignore[assignment]  # looked at just now
        if not self._has_sizes or self._meets_unknown(sum(event.count for event in reserved)):
            self.decided.assignments += len(reserved) - 1
            for event in reserved:
                self._reserve_alone(event)
            return
        state = self._state
        demand = self._demand
        subscriptions: dict[int, Subscription[Asker]] = {}
        for waiter, event in zip(waiters, reserved, strict=True):
            asker = (event.session, event.generation)
            held = bool(event.run_until)
            if waiter.how is How.PARKED:
                demand.park(
                    Parked(
                        asker,
                        0,
                        waiter.batch,
                        NEVER,
                        waiter.timeout,
                        "",
                        held=held,
                        bytes_max=waiter.bytes_max,
                    )
                )
            elif waiter.number not in subscriptions:
                subscription = Subscription(
                    asker,
                    0,
                    window=waiter.room,
                    window_bytes=waiter.bytes_max,
                    batch=waiter.batch,
                    linger=waiter.linger,
                    timeout=waiter.timeout,
                    held=held,
                )
                if waiter.linger_for:
                    subscription.linger_at = state.now + waiter.linger_for
                subscriptions[waiter.number] = subscription
                demand.subscribe(subscription)
        before = self._index
        number = state.next_reservation
        match_unexpired(state, demand, state.now, self._expect, _tell_nobody, _itself)
        for parked in list(demand.parked.values()):
            demand.unpark(parked)
        for subscription in subscriptions.values():
            demand.unsubscribe(subscription)
        for made in range(number, state.next_reservation):
            state.reservations[made].holder = None
        if self._index - before != len(reserved):
            raise Differs(self._index, self._events[self._index], None)
        self.decided.assignments += len(reserved) - 1
        self.decided.from_waiters += len(reserved)


def _has_past(attributes: ev.Attributes | None) -> bool:
    """Such as an import brings."""
    return attributes is not None and not (
        attributes.source_id is None
        and attributes.attempts is None
        and attributes.produced_at is None
        and attributes.expires_at is None
    )


def _tell_nobody(waiter: Parked[Asker] | Subscription[Asker], shown: rep.Reserved) -> None:
    del waiter, shown


def _itself(asker: Asker) -> Asker:
    return asker


_DECIDE: Final[dict[type, Callable[[Redecider, Any], None]]] = {
    ev.Claimed: Redecider._claim,  # noqa: SLF001
    ev.ItemsProduced: Redecider._produce,  # noqa: SLF001
    ev.ItemsReserved: Redecider._reserve,  # noqa: SLF001
    ev.ItemsCompleted: Redecider._complete,  # noqa: SLF001
    ev.ItemsDied: Redecider._die,  # noqa: SLF001
    ev.ReservationEnded: Redecider._end,  # noqa: SLF001
    ev.ItemsDue: Redecider._due,  # noqa: SLF001
    ev.ItemsExpired: Redecider._due,  # noqa: SLF001
    ev.ItemsPruned: Redecider._due,  # noqa: SLF001
}
