"""Traffic: what came to a queue from outside, read out of its log.

Arrivals, with their times and sizes; how long each attempt at each item took and how it ended; and
consumers, as they asked. An attempt belongs to its item: whoever works on the item, and under whatever
policy, needs as long and comes to the same end. A settlement that came too late is an attempt that took
that long, where the log has inputs.

A subscription that the inputs name is a subscription again. All other consumers are *slots*: one
reservation at a time, then a pause, then the next request. When a request came is known from the inputs, or
where items had waited for it; else the slot asked as soon as it was free.
"""

from array import array
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.evolve import find_reserved
from querator.core.ids import Duration, Instant, PartitionId
from querator.core.inputs import How, Inputs, Waiter
from querator.core.invariants import violated
from querator.core.limits import RESERVATION_BYTES_MAX, RESERVATION_END_LAG
from querator.core.line import Run
from querator.core.policy import Policy
from querator.core.state import PartitionState, Reservation
from querator.replay.capture import Checkpoint
from querator.replay.whatif.measures import (
    OPEN,
    RETRY_UNLIMITED,
    TAKEN,
    Measures,
    Observer,
    Timeline,
)
from querator.replay.whatif.standing import NO_PAYLOAD, load_standing, spans

BY_BACKOFF: Final = -1
"""As a retry's delay: what the queue's backoff says."""


@attrs.define
class Arrival:
    """Items that were produced together."""

    at: Instant
    partition: int
    """Index within the queue."""
    first: int
    """Number of the first item, among all that are here."""
    count: int
    delay: Duration
    """How long they were to wait before they were ready."""
    attributes: ev.Attributes | None
    payloads: Sequence[Any]
    """As long as they were, without what was in them."""
    is_import: bool = False
    """It brings the end of each item's life along, or none."""
    reserved: list[tuple[int, int, Duration, Instant]] = attrs.Factory(list)
    """(index of the first, how many, for how long, since when): items that somebody works on already."""


@attrs.frozen
class DeleteItems:
    """An operator deleted these, among all that are here."""

    items: tuple[int, ...]


@attrs.frozen
class RedriveItems:
    """An operator brought the dead back: these; or ``None``, all, or all of one reason."""

    items: tuple[int, ...] | None
    reason: str | None = None


@attrs.frozen
class SendItemsBack:
    """An operator sent these out of the dead queue to where they came from."""

    items: tuple[int, ...]
    target: PartitionId
    author: str


Order: TypeAlias = cmd.Command | DeleteItems | RedriveItems | SendItemsBack


@attrs.define
class Ask:
    """One request of a slot, ``pause`` after it was done with the one before."""

    pause: Duration
    batch: int
    timeout: Duration
    held: bool
    bytes_max: int
    rank: int = 0
    """Among all requests, in the order in which they were served: for those of one instant."""


@attrs.define
class Slot:
    began: Instant
    """When its first request came."""
    asks: list[Ask] = attrs.Factory(list)
    session: str = ""
    stays: bool = False
    """It was at work when the recording ended, or not long before."""


@attrs.define
class Subscribed:
    began: Instant
    first: Instant
    """Of its first push."""
    last: Instant
    window: int
    window_bytes: int
    batch: int
    linger: Duration
    timeout: Duration
    held: bool
    session: str = ""
    first_room: int = 0
    """In its window, before its first push."""


@attrs.define
class Traffic:
    """Of one queue."""

    partitions: int
    began: Instant
    ended: Instant
    recorded: Measures
    policies: list[tuple[Instant, Policy]] = attrs.Factory(list)
    arrivals: list[Arrival] = attrs.Factory(list)
    """In order of time."""
    items: int = 0
    took: "array[int]" = attrs.field(factory=lambda: array("q"))
    """By item: how long its first attempt took; -1: there was none."""
    outcome: bytearray = attrs.Factory(bytearray)
    """How that ended: a Verb, OPEN or SESSION_LOST."""
    later: dict[int, list[tuple[int, int]]] = attrs.Factory(dict)
    """Its further attempts."""
    delays: dict[tuple[int, int], int] = attrs.Factory(dict)
    """(item, attempt from 0) to the delay that a retry asked for, where it was not the queue's."""
    drawn_delays: dict[tuple[int, int], int] = attrs.Factory(dict)
    """The same of those that were the queue's, and partly drawn."""
    reasons: dict[tuple[int, int], str] = attrs.Factory(dict)
    """(item, attempt from 0) to why its holder set it aside."""
    redriven: dict[int, list[int]] = attrs.Factory(dict)
    """Item to the attempts (from 0) that came first after it was brought back from the dead."""
    extends: dict[tuple[int, int], list[tuple[int, int]]] = attrs.Factory(dict)
    """(item that was first in its reservation, attempt) to (after how long, by how long) it was extended."""
    slots: list[Slot] = attrs.Factory(list)
    subscriptions: list[Subscribed] = attrs.Factory(list)
    orders: list[tuple[Instant, int, Order]] = attrs.Factory(list)
    """What operators did: when, to which partition."""
    bases: dict[int, tuple[Checkpoint, int]] = attrs.Factory(dict)
    """Index of a partition to (what stood there before, the number of the first of that)."""
    left_standing: dict[str, list[tuple[Instant, int]]] = attrs.Factory(dict)
    """By session, of what it held before: (when, how much less of that it then held)."""
    named: dict[int, None] = attrs.Factory(dict)
    """Items that orders name."""
    has_inputs: bool = False
    end_lag: Duration = RESERVATION_END_LAG
    """How long past its time the node let a reservation stand."""

    @property
    def last_days(self) -> int:
        """From when on who is still here is taken to stay: the last tenth of the time."""
        return self.ended - (self.ended - self.began) // 10


@attrs.define
class _Reservations:
    """All of the queue, by column."""

    at: "array[int]" = attrs.field(factory=lambda: array("q"))
    end: "array[int]" = attrs.field(factory=lambda: array("q"))
    asked: "array[int]" = attrs.field(factory=lambda: array("q"))
    """When the request came; -1: not known."""
    batch: "array[int]" = attrs.field(factory=lambda: array("q"))
    timeout: "array[int]" = attrs.field(factory=lambda: array("q"))
    bytes_max: "array[int]" = attrs.field(factory=lambda: array("q"))
    held: bytearray = attrs.Factory(bytearray)
    session: list[str] = attrs.Factory(list)


class _Reader(Observer):
    """Reads one partition's events."""

    def __init__(self, traffic: Traffic, index: int, state: PartitionState, found: _Reservations) -> None:
        super().__init__(state, traffic.recorded)
        self._traffic = traffic
        self._index = index
        self._found = found
        self._rows: dict[int, int] = {}
        """Open reservations' rows."""
        self._by_itself_ended: dict[int, tuple[int, int, list[tuple[int, int]]]] = {}
        """Reservations that ended by themselves: (when they were made, row, [(item, attempt)])."""
        self._waiters: Sequence[Waiter] = ()
        self._next_waiter = 0
        self._subscribed: dict[tuple[str, int], Subscribed] = {}
        self._first_attempts: dict[int, int] = {}
        """Of open reservations whose first item was settled before the others: which attempt that was."""
        self._touched: list[int] = []
        """Reservations from which items are being taken away."""
        self._first_new = 0
        self._standing_below = state.next_reservation

    def take(self, events: Sequence[ev.Event], sizes: Sequence[int] | None, inputs: Inputs) -> None:
        """One record."""
        self._waiters = inputs.waiters
        self._next_waiter = 0
        self._first_new = self.state.next_item
        if inputs.waiters or inputs.late:
            self._traffic.has_inputs = True
        offset = 0
        for event in events:
            kind = type(event)
            if kind is ev.ItemsProduced:
                self._arrived(event, None if sizes is None else sizes[offset : offset + event.count])  # type: ignore[union-attr,arg-type]
                offset += event.count  # type: ignore[union-attr]
            elif kind in _OUTSIDE:
                self._outside(event)
            self.apply(event)
            if self._touched:
                self._drop_touched()
            if kind is ev.PolicyApplied and self._index == 0:
                self._traffic.policies.append((Instant(self.state.now), self.state.policy))
        for late in inputs.late:
            self._late(late.reservation, late.verb, late.at)

    def _arrived(self, event: ev.ItemsProduced, sizes: Sequence[int] | None) -> None:
        if not event.count:
            return
        traffic = self._traffic
        now = Instant(self.state.now)
        first = traffic.items
        traffic.items = first + event.count
        self.numbers.extend(event.first_item, range(first, first + event.count))
        traffic.took.extend([-1] * event.count)
        traffic.outcome.extend(bytes(event.count))
        event.payloads = [_blank(size) for size in sizes] if sizes is not None else [NO_PAYLOAD] * event.count
        delay = Duration(event.due_at - now if event.due_at else 0)
        traffic.arrivals.append(
            Arrival(
                now,
                self._index,
                first,
                event.count,
                delay,
                event.attributes,
                event.payloads,
                _is_import(event.attributes),
            )
        )

    def _outside(self, event: ev.Event) -> None:
        state = self.state
        order: Order
        match event:
            case ev.PartitionPaused(author):
                order = cmd.Pause(author)
            case ev.PartitionResumed(author):
                order = cmd.Resume(author)
            case ev.ItemsCleared(ready, scheduled, reserved, dead, author):
                order = cmd.Clear(ready, scheduled, reserved, dead, author)
                if reserved:
                    for reservation in state.reservations.values():
                        self._take_away(reservation, reservation.pick(None))
            case ev.ItemsDeleted(runs, _):
                for item in _each(runs):
                    found = find_reserved(state, state.place_of(item))
                    if found is not None:
                        self._take_away(found[0], [(0, item, 1)])
                order = DeleteItems(self._name(_each(runs)))
            case ev.ItemsRedriven(runs, _):
                order = self._redrive(_each(runs))
            case ev.ItemsSentBack(runs, target, author):
                order = SendItemsBack(self._name(_each(runs)), target, author)
            case ev.ReservationExtended(number, deadline, _):
                self._extend(state.reservations[number], deadline)
                return
            case _:
                violated(f"nobody knows how to do {type(event).__name__} again")
        self._traffic.orders.append((Instant(state.now), self._index, order))

    def _name(self, items: Sequence[int]) -> tuple[int, ...]:
        """The items of an order, among all of the queue."""
        found = tuple(self._which(item) for item in items)
        self._traffic.named.update(dict.fromkeys(found))
        return found

    def _which(self, item: int) -> int:
        numbers, index = self.numbers.at(item)
        return numbers[index]

    def _redrive(self, items: list[int]) -> RedriveItems:
        """All that were dead, or all of one reason, in the order of their deaths; or some."""
        state = self.state
        named = self._name(items)
        for which in named:
            self._traffic.redriven.setdefault(which, []).append(self._attempts_of(which))
        here = [item for item in state.dead if item not in state.leaving]
        if here == items:
            return RedriveItems(None)
        reasons = dict.fromkeys(state.dead[item][0] for item in items)
        if len(reasons) == 1:
            (reason,) = reasons
            if [item for item in here if state.dead[item][0] == reason] == items:
                return RedriveItems(None, reason)
        return RedriveItems(named)

    def _take_away(self, reservation: Reservation, runs: Sequence[Run]) -> None:
        """Items that somebody works on are cleared or deleted."""
        took = self.state.now - reservation.reserved_at
        for _, item, count in runs:
            self._let_go(reservation, count, self.state.now)
            for number in range(item, item + count):
                self._note(self._which(number), took, TAKEN)
        self._touched.append(reservation.number)

    def _let_go(self, reservation: Reservation, count: int, at: int) -> None:
        if reservation.number < self._standing_below:
            self._traffic.left_standing.setdefault(reservation.session, []).append((Instant(at), count))

    def _drop_touched(self) -> None:
        for number in self._touched:
            if number not in self.state.reservations:
                self._close_row(number)
        self._touched.clear()

    def _extend(self, reservation: Reservation, deadline: int) -> None:
        state = self.state
        which = self._which(reservation.runs[0][1])
        attempt = self._first_attempts.get(reservation.number, self._attempts_of(which))
        by = deadline - state.now
        if by == state.policy.reservation_timeout:
            by = 0
        self._traffic.extends.setdefault((which, attempt), []).append(
            (state.now - reservation.reserved_at, by)
        )

    def _attempts_of(self, which: int) -> int:
        """Attempts at the item that have ended."""
        if self._traffic.took[which] < 0:
            return 0
        return 1 + len(self._traffic.later.get(which, ()))

    def _note(self, which: int, took: int, outcome: int) -> int:
        """An attempt at the item ended so; which one it was, from 0."""
        traffic = self._traffic
        if traffic.took[which] < 0:
            traffic.took[which] = took
            traffic.outcome[which] = outcome
            return 0
        attempts = traffic.later.setdefault(which, [])
        attempts.append((took, outcome))
        return len(attempts)

    def _close_row(self, number: int) -> None:
        """A reservation holds nothing any more: its holder can ask again."""
        self._first_attempts.pop(number, None)
        row = self._rows.pop(number, -1)
        if row >= 0:
            self._found.end[row] = self.state.now

    # --- reservations -----------------------------------------------------------------------------------

    def reserved(self, reservation: Reservation) -> None:
        state = self.state
        now = state.now
        waiter = None
        if self._waiters:
            waiter = self._waiters[self._next_waiter]
            self._next_waiter += 1
        if waiter is not None and waiter.how is How.PUSHED:
            self._pushed(reservation, waiter)
            return
        if self._is_imported(reservation, waiter):
            arrival = self._traffic.arrivals[-1]
            index = self._which(reservation.runs[0][1]) - arrival.first
            lasts = Duration(reservation.deadline - now)
            arrival.reserved.append((index, reservation.count, lasts, now))
            return
        found = self._found
        self._rows[reservation.number] = len(found.at)
        found.at.append(now)
        found.end.append(0)
        found.session.append(reservation.session)
        held = bool(reservation.run_until)
        found.held.append(held)
        if waiter is None:
            ready, index = self._ready_at.at(reservation.runs[0][1])
            found.asked.append(now if ready[index] < now else -1)
            found.batch.append(reservation.count)
            found.bytes_max.append(RESERVATION_BYTES_MAX)
            timeout = reservation.deadline - now
            found.timeout.append(0 if timeout == state.policy.reservation_timeout else timeout)
        else:
            found.asked.append(now - waiter.waited)
            found.batch.append(waiter.batch or reservation.count)
            found.bytes_max.append(waiter.bytes_max or RESERVATION_BYTES_MAX)
            found.timeout.append(waiter.timeout)

    def _is_imported(self, reservation: Reservation, waiter: Waiter | None) -> bool:
        """An import brought it along."""
        if waiter is not None:
            return waiter.how is How.NOBODY
        is_fresh = not reservation.session and reservation.runs[0][1] >= self._first_new
        return is_fresh and self._traffic.arrivals[-1].is_import

    def _pushed(self, reservation: Reservation, waiter: Waiter) -> None:
        now = Instant(self.state.now)
        key = (reservation.session, waiter.number)
        known = self._subscribed.get(key)
        if known is None:
            # One that lingered was there when it began to.
            lingered = waiter.linger - waiter.linger_for if waiter.linger_for else 0
            known = self._subscribed[key] = Subscribed(
                Instant(now - lingered),
                now,
                now,
                waiter.room,
                waiter.bytes_max,
                waiter.batch,
                waiter.linger,
                waiter.timeout,
                bool(reservation.run_until),
                reservation.session,
                waiter.room,
            )
        known.last = now
        known.window = max(known.window, waiter.room)
        known.window_bytes = max(known.window_bytes, waiter.bytes_max)

    def subscriptions(self) -> dict[tuple[str, int], Subscribed]:
        """By (session, number): one that draws from several partitions is in each of their logs."""
        return self._subscribed

    def settling(self, reservation: Reservation, runs: Sequence[Run], count: int, outcome: int) -> None:
        state = self.state
        traffic = self._traffic
        number = reservation.number
        took = state.now - reservation.reserved_at
        self._let_go(reservation, count, state.now)
        delay = drawn = BY_BACKOFF
        if outcome == Verb.RETRY and self._due_at >= 0:
            delay, drawn = self._asked_delay(reservation, runs)
            if any(self._is_worn(item + at) for _, item, size in runs for at in range(size)):
                outcome = RETRY_UNLIMITED
                delay = self._due_at - state.now if self._due_at else 0
        ended: list[tuple[int, int]] | None = None
        if outcome == Verb.ENDED:
            if state.now <= reservation.ends_at + RESERVATION_END_LAG:
                traffic.end_lag = Duration(0)
            row = self._rows.get(number, -1)
            _, _, ended = self._by_itself_ended.setdefault(number, (reservation.reserved_at, row, []))
        is_part = reservation.left != count
        for _, item, size in runs:
            numbers, index = self.numbers.at(item)
            for at in range(index, index + size):
                which = numbers[at]
                if traffic.took[which] < 0:
                    traffic.took[which] = took
                    traffic.outcome[which] = outcome
                    attempt = 0
                else:
                    attempt = self._note(which, took, outcome)
                if delay != BY_BACKOFF:
                    traffic.delays[which, attempt] = delay
                elif drawn != BY_BACKOFF:
                    traffic.drawn_delays[which, attempt] = drawn
                if outcome == Verb.DEAD:
                    traffic.reasons[which, attempt] = self._reason
                if ended is not None:
                    ended.append((which, attempt))
                if is_part and item + at - index == reservation.runs[0][1]:
                    self._first_attempts[number] = attempt
        if not is_part:
            self._close_row(number)

    def _is_worn(self, item: int) -> bool:
        """It is at its last attempt."""
        state = self.state
        most = state.attempts_max_of(item)
        return bool(most) and state.attempts.get(item, 0) + 1 >= most

    def _asked_delay(self, reservation: Reservation, runs: Sequence[Run]) -> tuple[int, int]:
        """(what a retry asked for; BY_BACKOFF where that is what the queue's backoff would say, what that
        said where it drew)."""
        state = self.state
        delay = self._due_at - state.now if self._due_at else 0
        backoff = state.policy.backoff
        if delay != backoff.delay(state.attempts.get(runs[0][1], 0) + 1, reservation.number):
            return delay, BY_BACKOFF
        # It draws by the reservation's number, which need not be the same another time.
        return BY_BACKOFF, delay if backoff.base and backoff.jitter else BY_BACKOFF

    def _late(self, number: int, verb: int, at: int) -> None:
        """It had ended, and its holder worked on: so long the work takes."""
        found = self._by_itself_ended.pop(number, None)
        if found is None or verb == Verb.EXTEND:
            return
        made, row, attempts = found
        traffic = self._traffic
        took = at - made
        for which, attempt in attempts:
            if attempt:
                traffic.later[which][attempt - 1] = (took, verb)
            else:
                traffic.took[which] = took
                traffic.outcome[which] = verb
        if row >= 0:
            self._found.end[row] = at

    def close(self) -> None:
        """Behind the last record: what is held is held on."""
        state = self.state
        for number, row in self._rows.items():
            self._found.end[row] = -1
            del number
        for reservation in state.reservations.values():
            took = state.now - reservation.reserved_at
            self._let_go(reservation, reservation.left, state.now + 1)
            for _, item, size in reservation.pick(None):
                for number in range(item, item + size):
                    self._note(self._which(number), took, OPEN)


_OUTSIDE: Final = frozenset(
    {
        ev.PartitionPaused,
        ev.PartitionResumed,
        ev.ItemsCleared,
        ev.ReservationExtended,
        ev.ItemsDeleted,
        ev.ItemsRedriven,
        ev.ItemsSentBack,
    }
)

_BLANKS: Final[dict[int, Any]] = {}


def _blank(size: int) -> Any:
    found = _BLANKS.get(size)
    if found is None:
        found = _BLANKS[size] = range(size)
    return found


def _each(runs: ev.Runs) -> list[int]:
    return [item for first, count in runs for item in range(first, first + count)]


def _is_import(attributes: ev.Attributes | None) -> bool:
    return attributes is not None and not (attributes.attempts is None and attributes.produced_at is None)


class TrafficReader:
    """Reads the traffic of a queue, partition by partition."""

    def __init__(self, partitions: Sequence[int], began: Instant, ended: Instant) -> None:
        """``began``, ``ended``: of what is to be read."""
        self._indexes = {partition: index for index, partition in enumerate(partitions)}
        self.traffic = Traffic(len(partitions), began, ended, Measures(Timeline(began, ended)))
        self._found = _Reservations()
        self._readers: dict[int, _Reader] = {}

    def begin(self, base: Checkpoint) -> None:
        """What is read of a partition begins with this.

        Raises:
            SnapshotUnreadable: that is no good.
        """
        traffic = self.traffic
        index = self._indexes[base.partition]
        state = load_standing(base)
        first = traffic.items
        traffic.bases[index] = (base, first)
        found = list(spans(state, first))
        self._reader(state.partition, state).begin_with(found)
        count = sum(len(waits) for _, _, waits in found)
        traffic.items += count
        traffic.took.extend([-1] * count)
        traffic.outcome.extend(bytes(count))
        if index == 0:
            traffic.policies.append((traffic.began, state.policy))

    def take(
        self,
        partition: int,
        events: Sequence[ev.Event],
        sizes: Sequence[int] | None,
        inputs: Inputs,
        position: int,
    ) -> None:
        """One record."""
        reader = self._reader(partition, None)
        reader.state.position = position
        reader.take(events, sizes, inputs)

    def _reader(self, partition: int, state: PartitionState | None) -> _Reader:
        reader = self._readers.get(partition)
        if reader is None:
            made = state if state is not None else PartitionState(partition)  # type: ignore[arg-type]
            reader = self._readers[partition] = _Reader(
                self.traffic, self._indexes[partition], made, self._found
            )
        return reader

    def finish(self) -> Traffic:
        """All of it, in order of time."""
        traffic = self.traffic
        subscribed: dict[tuple[str, int], Subscribed] = {}
        for reader in self._readers.values():
            reader.close()
            reader.finish()
            for key, found in reader.subscriptions().items():
                known = subscribed.setdefault(key, found)
                if found.first < known.first:
                    known.first, known.first_room = found.first, found.first_room
                known.began = min(known.began, found.began)
                known.last = max(known.last, found.last)
                known.window = max(known.window, found.window)
                known.window_bytes = max(known.window_bytes, found.window_bytes)
        traffic.subscriptions = sorted(subscribed.values(), key=_began)
        self._count_what_stood()
        traffic.arrivals.sort(key=_at)
        traffic.policies.sort(key=_first)
        traffic.orders.sort(key=_first)
        traffic.slots = _slots(self._found, traffic.last_days)
        return traffic

    def _count_what_stood(self) -> None:
        """Nothing tells how large a window is but the room in it, and what it had before took some of that:
        all that it had when it was first pushed something in this recording."""
        traffic = self.traffic
        for one in traffic.subscriptions:
            # What its session had was in its first subscription, as far as anybody can tell.
            for at, count in traffic.left_standing.pop(one.session, ()):
                if at > one.first:
                    one.first_room += count
            one.window = max(one.window, one.first_room)


def _slots(found: _Reservations, last_days: int) -> list[Slot]:
    """Reservations put in rows of which no two overlap, each session's in as few as can be. Who works after
    ``last_days`` stays."""
    slots: list[Slot] = []
    free: dict[str, list[tuple[int, int]]] = {}
    """By session: (since when, slot)."""
    asked, at = found.asked, found.at
    order = sorted(range(len(at)), key=lambda row: (at[row], row))
    for rank, row in enumerate(order, 1):
        session = found.session[row]
        came = asked[row]
        waiting = free.setdefault(session, [])
        limit = came if came >= 0 else at[row]
        if waiting and waiting[0][0] <= limit:
            since, number = heappop(waiting)
            pause = came - since if came >= 0 else 0
        else:
            number = len(slots)
            slots.append(Slot(Instant(limit), session=session))
            pause = 0
        slots[number].asks.append(
            Ask(
                Duration(pause),
                found.batch[row],
                Duration(found.timeout[row]),
                bool(found.held[row]),
                found.bytes_max[row],
                rank,
            )
        )
        slots[number].stays = found.end[row] < 0 or found.end[row] >= last_days
        if found.end[row] >= 0:
            heappush(waiting, (found.end[row], number))
    return slots


def _began(found: Subscribed) -> int:
    return found.began


def _at(found: Arrival) -> int:
    return found.at


def _first(found: tuple[Any, ...]) -> Any:
    return found[0]
