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
from typing import Any, Final

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.ids import Duration, Instant
from querator.core.inputs import How, Inputs, Waiter
from querator.core.limits import RESERVATION_BYTES_MAX, RESERVATION_END_LAG
from querator.core.line import Run
from querator.core.policy import Policy
from querator.core.state import PartitionState, Reservation
from querator.errors import QueratorError
from querator.replay.whatif.measures import OPEN, Measures, Numbered, Observer, Timeline

BY_BACKOFF: Final = -1
"""As a retry's delay: what the queue's backoff says."""


class CannotSimulate(QueratorError):
    """What was recorded cannot be done again; the text says what, and when."""

    exit_code = 65


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
    last: Instant
    """Of its last push."""
    window: int
    window_bytes: int
    batch: int
    linger: Duration
    timeout: Duration
    held: bool
    session: str = ""


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
    extends: dict[tuple[int, int], list[tuple[int, int]]] = attrs.Factory(dict)
    """(item that was first in its reservation, attempt) to (after how long, by how long) it was extended."""
    slots: list[Slot] = attrs.Factory(list)
    subscriptions: list[Subscribed] = attrs.Factory(list)
    orders: list[tuple[Instant, int, cmd.Command]] = attrs.Factory(list)
    """What operators did: when, to which partition."""
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
        self._numbers = Numbered()
        """Of the items, among all of the queue."""
        self._rows: dict[int, int] = {}
        """Open reservations' rows."""
        self._by_itself_ended: dict[int, tuple[int, int, list[tuple[int, int]]]] = {}
        """Reservations that ended by themselves: (when they were made, row, [(item, attempt)])."""
        self._waiters: Sequence[Waiter] = ()
        self._next_waiter = 0
        self._subscribed: dict[tuple[str, int], Subscribed] = {}
        self._extended: dict[int, list[tuple[int, int]]] = {}

    def take(self, events: Sequence[ev.Event], sizes: Sequence[int] | None, inputs: Inputs) -> None:
        """One record."""
        self._waiters = inputs.waiters
        self._next_waiter = 0
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
        self._numbers.extend(event.first_item, range(first, first + event.count))
        traffic.took.extend([-1] * event.count)
        traffic.outcome.extend(bytes(event.count))
        event.payloads = [_blank(size) for size in sizes] if sizes is not None else [_NONE] * event.count
        delay = Duration(event.due_at - now if event.due_at else 0)
        traffic.arrivals.append(
            Arrival(now, self._index, first, event.count, delay, event.attributes, event.payloads)
        )

    def _outside(self, event: ev.Event) -> None:
        command: cmd.Command
        match event:
            case ev.PartitionPaused(author):
                command = cmd.Pause(author)
            case ev.PartitionResumed(author):
                command = cmd.Resume(author)
            case ev.ItemsCleared(ready, scheduled, reserved, dead, author):
                command = cmd.Clear(ready, scheduled, reserved, dead, author)
            case ev.ReservationExtended(reservation, deadline, _):
                made = self.state.reservations[reservation].reserved_at
                now = self.state.now
                self._extended.setdefault(reservation, []).append((now - made, deadline - now))
                return
            case _:
                raise CannotSimulate(
                    f"items were {_OUTSIDE[type(event)]} at {self.state.now} microseconds, which can't be "
                    "done again under another policy: simulate the time before or after"
                )
        self._traffic.orders.append((Instant(self.state.now), self._index, command))

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
                waiter.room,
                waiter.bytes_max,
                waiter.batch,
                waiter.linger,
                waiter.timeout,
                bool(reservation.run_until),
                reservation.session,
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
        delay = BY_BACKOFF
        if outcome == Verb.RETRY and self._due_at >= 0:
            delay = self._asked_delay(reservation, runs)
        ended: list[tuple[int, int]] | None = None
        if outcome == Verb.ENDED:
            if state.now <= reservation.ends_at + RESERVATION_END_LAG:
                traffic.end_lag = Duration(0)
            row = self._rows.get(number, -1)
            _, _, ended = self._by_itself_ended.setdefault(number, (reservation.reserved_at, row, []))
        is_first_extended = number in self._extended
        for _, item, size in runs:
            numbers, index = self._numbers.at(item)
            for at in range(index, index + size):
                which = numbers[at]
                attempt = 0
                if traffic.took[which] < 0:
                    traffic.took[which] = took
                    traffic.outcome[which] = outcome
                else:
                    attempts = traffic.later.setdefault(which, [])
                    attempts.append((took, outcome))
                    attempt = len(attempts)
                if delay != BY_BACKOFF:
                    traffic.delays[which, attempt] = delay
                if ended is not None:
                    ended.append((which, attempt))
                if is_first_extended:
                    traffic.extends[which, attempt] = self._extended.pop(number)
                    is_first_extended = False
        if reservation.left == count:
            row = self._rows.pop(number, -1)
            if row >= 0:
                self._found.end[row] = state.now

    def _asked_delay(self, reservation: Reservation, runs: Sequence[Run]) -> int:
        """What a retry asked for; BY_BACKOFF where that is what the queue's backoff would say."""
        state = self.state
        delay = self._due_at - state.now if self._due_at else 0
        expected = state.policy.backoff.delay(state.attempts.get(runs[0][1], 0) + 1, reservation.number)
        return BY_BACKOFF if delay == expected else delay

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
            for _, item, size in reservation.pick(None):
                numbers, index = self._numbers.at(item)
                for at in range(index, index + size):
                    which = numbers[at]
                    if self._traffic.took[which] < 0:
                        self._traffic.took[which] = took
                        self._traffic.outcome[which] = OPEN
                    else:
                        self._traffic.later.setdefault(which, []).append((took, OPEN))


_OUTSIDE: Final[dict[type, str]] = {
    ev.PartitionPaused: "held back",
    ev.PartitionResumed: "let go",
    ev.ItemsCleared: "cleared",
    ev.ReservationExtended: "extended",
    ev.ItemsDeleted: "deleted",
    ev.ItemsRedriven: "brought back from the dead",
}

_NONE: Final[Any] = range(0)
_BLANKS: Final[dict[int, Any]] = {}


def _blank(size: int) -> Any:
    found = _BLANKS.get(size)
    if found is None:
        found = _BLANKS[size] = range(size)
    return found


class TrafficReader:
    """Reads the traffic of a queue, partition by partition."""

    def __init__(self, partitions: Sequence[int], began: Instant, ended: Instant) -> None:
        """``began``, ``ended``: of what is to be read."""
        self._indexes = {partition: index for index, partition in enumerate(partitions)}
        self.traffic = Traffic(len(partitions), began, ended, Measures(Timeline(began, ended)))
        self._found = _Reservations()
        self._readers: dict[int, _Reader] = {}

    def begin(self, state: PartitionState) -> None:
        """What is read of this partition begins with this state, which must be empty.

        Raises:
            CannotSimulate: it is not.
        """
        if state.ready or state.scheduled or state.reserved:
            raise CannotSimulate(
                f"partition {state.partition} has items from before: simulate from a moment at which it is "
                "empty, or from the log's beginning"
            )
        self._reader(state.partition, state)
        if self._indexes[state.partition] == 0:
            self.traffic.policies.append((self.traffic.began, state.policy))

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
                known.began = min(known.began, found.began)
                known.last = max(known.last, found.last)
                known.window = max(known.window, found.window)
                known.window_bytes = max(known.window_bytes, found.window_bytes)
        traffic.subscriptions = sorted(subscribed.values(), key=_began)
        traffic.arrivals.sort(key=_at)
        traffic.policies.sort(key=_first)
        traffic.orders.sort(key=_first)
        traffic.slots = _slots(self._found, traffic.last_days)
        return traffic


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
