"""Recorded traffic once more, under settings of your choice: production decisions, a virtual clock.

Items are produced, requests parked and subscriptions opened as they were; ``match`` gives out what is
ready, ``run_due`` ends what is over. Whoever gets an item works on it as long as was recorded of that
attempt, and settles it as was recorded; what was not recorded, such as a sixth attempt where there were
five, is drawn by the seed from attempts that were.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.decide import decide, decide_produce, decide_settle, to_ranges
from querator.core.demand import Demand, Parked, Subscription
from querator.core.due import end_reservation, next_due_at, run_due
from querator.core.ids import (
    Duration,
    Instant,
    ItemNumber,
    PartitionId,
    Place,
    ReservationNumber,
    SessionId,
)
from querator.core.limits import RESERVATION_BYTES_MAX
from querator.core.line import Run
from querator.core.match import match, match_parked
from querator.core.placement import index_of
from querator.core.policy import Policy, encode_policy
from querator.core.segments import BEHIND, GONE, READY, RESERVED, SCHEDULED
from querator.core.state import OPEN as NOT_SETTLED
from querator.core.state import PartitionState, Reservation
from querator.env.virtual import SeededRng
from querator.replay.capture import Checkpoint
from querator.replay.whatif.measures import (
    OPEN,
    RETRY_UNLIMITED,
    SESSION_LOST,
    TAKEN,
    Measures,
    Observer,
    Timeline,
)
from querator.replay.whatif.standing import NO_PAYLOAD, Standing, load_standing, spans, standing
from querator.replay.whatif.traffic import (
    BY_BACKOFF,
    Arrival,
    Ask,
    DeleteItems,
    Order,
    RedriveItems,
    SendItemsBack,
    Slot,
    Subscribed,
    Traffic,
)

NEVER: Final = Instant(1 << 62)
_PAGE: Final = 4_096
"""Turns between two reports of progress."""


@attrs.frozen(kw_only=True)
class Settings:
    """What is different this time. Nothing: the same again."""

    policy: dict[str, Any] = attrs.Factory(dict)
    """Fields of the policy, by name."""
    partitions: int = 0
    """0: as many as there were."""
    consumers: int = 0
    """0: those that there were, as they came; else so many that ask again as soon as they are done."""
    speed: float = 1.0
    """2: work takes half as long."""
    seed: int = 1

    @property
    def is_unchanged(self) -> bool:
        return not (self.policy or self.partitions or self.consumers or self.speed != 1.0)


@attrs.define(eq=False)
class _Worker:
    """A slot at work: which of its requests comes next."""

    asks: list[Ask]
    session: SessionId
    next: int = 0
    goes_on: bool = False
    """It asks again as it did last when it has come to the end of what was recorded."""


_Attempt: TypeAlias = tuple[int, int, int, str]
"""How long it takes, how it ends, a retry's delay, why the item is set aside."""

_NOBODY: Final = _Worker([], SessionId(""))
"""Holds what an import brought reserved."""


class _Partition(Observer):
    """One partition of the simulation."""

    def __init__(self, state: PartitionState, measures: Measures, end_lag: Duration) -> None:
        super().__init__(state, measures)
        self._end_lag = end_lag
        self.alarm = NEVER
        """Nothing is due before."""
        self.standing_below = 0
        """Reservations with lower numbers were there when the recording began."""

    def touch(self, now: int) -> None:
        """Time of what is decided from here on. It never goes back."""
        if self.state.now < now:
            self.apply(ev.TurnStarted(Instant(now)))

    def apply(self, event: ev.Event) -> None:
        kind = type(event)
        at = 0
        if kind is ev.ItemsReserved:
            at = (event.run_until or event.deadline) + self._end_lag  # type: ignore[union-attr]
        elif kind is ev.ItemsProduced:
            at = event.due_at or event.expires_at  # type: ignore[union-attr]
            if event.attributes is not None:  # type: ignore[union-attr]
                at = self.state.now
        elif kind is ev.ItemsRetried:
            at = event.due_at or self.state.now  # type: ignore[union-attr]
        elif kind is ev.ItemsDied or kind is ev.ItemsExpired:
            at = self.state.now + self.state.policy.dead_retention
        elif kind in _MAKE_DUE:
            at = self.state.now
        if at and at < self.alarm:
            self.alarm = Instant(at)
        Observer.apply(self, event)
        state = self.state
        if state.leaving:
            self._move_on()
        # What was behind another item of its key may be ready now, and past its time, or scheduled.
        if state.expiries and state.expiries[0][0] < self.alarm:
            self.alarm = Instant(state.expiries[0][0])
        if state.schedule and state.schedule[0][0] < self.alarm:
            self.alarm = Instant(state.schedule[0][0])

    def _move_on(self) -> None:
        """A dead queue takes what is for it, at once."""
        state = self.state
        for target, channel in state.outbound.items():
            last = channel.first_move + len(channel.items) - 1
            made, _ = decide(state, cmd.ConfirmMoves(PartitionId(target), last), Instant(state.now))
            for event in made:
                Observer.apply(self, event)


_MAKE_DUE: Final = frozenset({ev.ReservationEnded, ev.ItemsReleased, ev.PolicyApplied})
"""After these an item's time to live, or another retention, may come next."""

_ASK, _SETTLE, _END, _EXTEND, _OPEN_UP, _LEAVE, _ORDER, _POLICY = range(8)


class Simulation:
    """One run. ``run`` may be called once."""

    def __init__(
        self, traffic: Traffic, settings: Settings, progress: Callable[[int], None] | None = None
    ) -> None:
        self._traffic = traffic
        self._settings = settings
        self._progress = progress
        self._measures = Measures(Timeline(traffic.began, traffic.ended))
        count = settings.partitions or traffic.partitions
        self._is_spread = count != traffic.partitions
        self._begins_anew = self._is_spread or _is_ordered_otherwise(traffic, settings)
        """What stood there before arrives once more, instead of being there."""
        bases = {} if self._begins_anew else traffic.bases
        self.partitions = [self._partition(index, bases.get(index)) for index in range(count)]
        self._part = self.partitions[0]
        """The one that is being matched."""
        self._demand: Demand[_Worker] = Demand()
        self._subscriptions: list[Subscription[_Worker]] = []
        self._lingers = any(one.linger for one in traffic.subscriptions)
        self._heap: list[tuple[int, int, int, int, Any]] = []
        """(when, rank among what is then, sequence, what, about what)."""
        self._sequence = 0
        self._tries = array("H", bytes(2 * traffic.items))
        self._homes: dict[int, tuple[_Partition, int]] = {}
        """Where the items are that orders name: (partition, item there)."""
        self._draws_delays = "backoff" in settings.policy
        self._dice = SeededRng(settings.seed)
        self._pools: tuple[list[tuple[int, int]], list[tuple[int, int]]] | None = None
        self.now = traffic.began

    def run(self) -> Measures:
        """Let it happen, up to the moment at which the recording ended."""
        traffic = self._traffic
        self._prepare()
        arrivals = traffic.arrivals
        heap = self._heap
        parts = self.partitions
        ended = traffic.ended
        following = 0
        turns = 0
        while True:
            now = heap[0][0] if heap else NEVER
            if following < len(arrivals) and arrivals[following].at < now:
                now = arrivals[following].at
            for part in parts:
                if part.alarm + 1 < now:
                    now = part.alarm + 1
            if self._lingers:
                linger = self._demand.next_at()
                if linger is not None and linger + 1 < now:
                    now = linger + 1
            if now > ended:
                break
            if now < self.now:
                now = self.now
            self.now = Instant(now)
            self._run_due()
            while following < len(arrivals) and arrivals[following].at <= now:
                self._arrive(arrivals[following])
                following += 1
            while heap and heap[0][0] <= now:
                _, _, _, what, about = heappop(heap)
                _HAPPEN[what](self, about)
            if self._lingers:
                self._demand.overdue(self.now)
            # What is past its time only now, such as what was behind another item, may still be given out.
            self._match()
            turns += 1
            if not turns % _PAGE and self._progress is not None:
                self._progress(following)
        for part in parts:
            part.finish()
        return self._measures

    def _run_due(self) -> None:
        """What time alone makes happen by now."""
        now = self.now
        for part in self.partitions:
            if part.alarm < now:
                part.alarm = NEVER
                part.touch(now)
                run_due(part.state, now, part.apply, self._traffic.end_lag)
                due = next_due_at(part.state, self._traffic.end_lag)
                if due is not None:
                    part.alarm = Instant(due - 1)

    def _at(self, when: int, what: int, about: Any, rank: int = 0) -> None:
        self._sequence += 1
        heappush(self._heap, (when, rank, self._sequence, what, about))

    def _partition(self, index: int, base: tuple[Checkpoint, int] | None) -> _Partition:
        if base is None:
            state = PartitionState(PartitionId(index + 1))
            return _Partition(state, self._measures, self._traffic.end_lag)
        checkpoint, first = base
        part = _Partition(load_standing(checkpoint), self._measures, self._traffic.end_lag)
        part.begin_with(spans(part.state, first))
        return part

    def _prepare(self) -> None:
        traffic = self._traffic
        settings = self._settings
        for index, part in enumerate(self.partitions):
            part.touch(self.now)
            if self._begins_anew or index not in traffic.bases:
                part.apply(ev.Claimed("simulation", 1, 1, 0, ""))
        for number, (at, policy) in enumerate(traffic.policies):
            if number == 0:
                self._apply_policy(policy)
            else:
                self._at(at, _POLICY, policy)
        if self._begins_anew:
            self._arrive_again()
        else:
            self._go_on()
        for at, index, order in traffic.orders:
            self._at(at, _ORDER, (index, order))
        if settings.consumers:
            self._engage(settings.consumers)
            return
        is_changed = not settings.is_unchanged
        for slot in traffic.slots:
            worker = self._worker(slot, goes_on=is_changed and slot.stays)
            self._at(slot.began, _ASK, worker, slot.asks[0].rank)
        for subscribed in traffic.subscriptions:
            self._at(subscribed.began, _OPEN_UP, subscribed)

    def _worker(self, slot: Slot, *, goes_on: bool) -> _Worker:
        return _Worker(slot.asks, SessionId(slot.session), goes_on=goes_on)

    def _engage(self, consumers: int) -> None:
        """So many consumers instead of those that there were: subscriptions, if there were any, else slots
        that ask again as soon as they are done."""
        traffic = self._traffic
        names = [f"consumer-{number + 1}" for number in range(consumers)]
        if len(traffic.subscriptions) > len(traffic.slots):
            batch, window, window_bytes, linger, timeout, held = _usual(
                [
                    (one.batch, one.window, one.window_bytes, one.linger, one.timeout, one.held)
                    for one in traffic.subscriptions
                ]
            )
            for name in names:
                subscribed = Subscribed(
                    self.now, self.now, Instant(0), window, window_bytes, batch, linger, timeout, held, name
                )
                self._at(self.now, _OPEN_UP, subscribed)
            return
        asks = [
            (ask.batch, ask.timeout, ask.held, ask.bytes_max) for slot in traffic.slots for ask in slot.asks
        ]
        batch, timeout, held, bytes_max = _usual(asks or [(1, Duration(0), False, RESERVATION_BYTES_MAX)])
        for name in names:
            ask = Ask(Duration(0), batch, timeout, held, bytes_max)
            self._at(self.now, _ASK, _Worker([ask], SessionId(name), goes_on=True))

    # --- what stood there before ------------------------------------------------------------------------

    def _go_on(self) -> None:
        """It is there, and who works on it goes on with that."""
        traffic = self._traffic
        for index, (_, first) in traffic.bases.items():
            part = self.partitions[index]
            state = part.state
            due = next_due_at(state, traffic.end_lag)
            if due is not None:
                part.alarm = Instant(min(part.alarm, due - 1))
            part.standing_below = state.next_reservation
            if traffic.named:
                for item, which, waits in spans(state, first):
                    for offset in range(len(waits)):
                        if which + offset in traffic.named:
                            self._homes[which + offset] = (part, item + offset)
            for number, reservation in state.reservations.items():
                held = reservation.open_ranges()
                indexes = [at for start, count in held for at in range(start, start + count)]
                self._work(part, number, reservation.pick(held), indexes, since=reservation.reserved_at)

    def _arrive_again(self) -> None:
        """It is routed anew: first what is worked on, then what waited longest. What was dead stays away."""
        arrivals: list[tuple[bool, int, Arrival]] = []
        for index, (base, first) in self._traffic.bases.items():
            state = load_standing(base)
            for one in sorted(standing(state, first), key=_place):
                arrival = Arrival(
                    self.now,
                    index,
                    one.which,
                    1,
                    Duration(one.due_at - self.now if one.due_at else 0),
                    one.attributes,
                    [NO_PAYLOAD],
                    is_import=True,
                )
                if one.reserved_at:
                    lasts = Duration(one.reserved_until - self.now)
                    arrival.reserved.append((0, 1, lasts, one.reserved_at))
                arrivals.append((not one.reserved_at, one.since, arrival))
        arrivals.sort(key=_order_of_arrival)
        for _, since, arrival in arrivals:
            self._arrive(arrival, since)

    # --- what happens -----------------------------------------------------------------------------------

    def _apply_policy(self, policy: Policy) -> None:
        changed = attrs.evolve(policy, **self._settings.policy)
        for part in self.partitions:
            part.touch(self.now)
            part.apply(ev.PolicyApplied(changed.version, encode_policy(changed), ""))

    def _arrive(self, arrival: Arrival, since: int = 0) -> None:
        """``since``: it was produced before the recording, and has been waiting since then."""
        part = self._route(arrival) if self._is_spread else self.partitions[arrival.partition]
        part.touch(self.now)
        due = Instant(arrival.at + arrival.delay if arrival.delay else 0)
        command = cmd.Produce(arrival.payloads, due, arrival.attributes)
        made, answer = decide_produce(part.state, command, self.now)
        base = part.state.next_item
        for event in made:
            if arrival.is_import and type(event) is ev.ItemsProduced:
                event.expires_at = Instant(0)
            part.apply(event)
        which: Sequence[int] = range(arrival.first, arrival.first + arrival.count)
        if isinstance(answer, rep.Produced) and answer.duplicates:
            known = dict.fromkeys(answer.duplicates)
            which = [number for index, number in enumerate(which) if index not in known]
        part.numbers.extend(base, which)
        if self._traffic.named:
            for item, number in enumerate(which, base):
                if number in self._traffic.named:
                    self._homes[number] = (part, item)
        if since:
            part.waits_since(base, since)
            self._measures.produced -= arrival.count
        for index, count, lasts, reserved_at in arrival.reserved:
            self._reserve_imported(part, base + index, count, lasts, reserved_at)

    def _reserve_imported(
        self, part: _Partition, first: int, count: int, lasts: Duration, since: Instant
    ) -> None:
        """Items that somebody holds whom this queue does not know, since then. One behind another of its key
        waits for its turn."""
        if part.state.state_of(first) == BEHIND:
            return
        deadline = Instant(self.now + lasts)
        part.apply(ev.ItemsReserved(count, ItemNumber(first), _NOBODY.session, 0, deadline, Instant(0)))
        number = part.state.next_reservation - 1
        self._work(part, number, part.state.reservations[number].runs, None, since=since)

    def _route(self, arrival: Arrival) -> _Partition:
        parts = self.partitions
        attributes = arrival.attributes
        if attributes is not None:
            for column in (attributes.key, attributes.dedupe_key):
                value = column[0] if isinstance(column, list) else column
                if value is not None:
                    return parts[index_of(value, len(parts))]
        return min(parts, key=_ready)

    def _ask(self, worker: _Worker) -> None:
        ask = worker.asks[min(worker.next, len(worker.asks) - 1)]
        worker.next += 1
        is_first = not self._demand.parked
        self._demand.park(
            Parked(
                worker,
                0,
                ask.batch,
                NEVER,
                ask.timeout,
                "",
                held=ask.held,
                bytes_max=ask.bytes_max,
            )
        )
        if is_first:
            # Nobody else waits: whoever asks is answered at once, and shares with none who ask then.
            self._match()

    def _open_up(self, one: Subscribed) -> None:
        subscription: Subscription[_Worker] = Subscription(
            _Worker([], SessionId(one.session)),
            0,
            window=one.window,
            window_bytes=one.window_bytes,
            batch=one.batch,
            linger=one.linger,
            timeout=one.timeout,
            held=one.held,
        )
        self._adopt(one.session, subscription)
        self._demand.subscribe(subscription)
        if one.last and (self._settings.is_unchanged or one.last < self._traffic.last_days):
            # Behind its last push it may have been gone; if it was not, there was nothing for it.
            self._at(one.last + 1, _LEAVE, subscription)

    def _adopt(self, session: str, subscription: Subscription[_Worker]) -> None:
        """What its session held before counts in the window of its first subscription."""
        for part in self.partitions:
            for number in part.state.by_session.get(session, ()):
                reservation = part.state.reservations[number]
                if number < part.standing_below and reservation.holder is None:
                    reservation.holder = subscription
                    subscription.fill(reservation.left, 0)

    def _leave(self, subscription: Subscription[_Worker]) -> None:
        self._demand.unsubscribe(subscription)

    def _order(self, about: tuple[int, Order]) -> None:
        index, order = about
        parts = self.partitions if self._is_spread else [self.partitions[index]]
        for part in parts:
            part.touch(self.now)
            if isinstance(order, SendItemsBack):
                self._send_back(part, order)
                continue
            made, _ = decide(part.state, self._command(part, order), self.now)
            for event in made:
                part.apply(event)
                if type(event) is ev.ItemsRedriven:
                    for first, count in event.runs:
                        self._revive(part.numbers.values(first, count))

    def _send_back(self, part: _Partition, order: SendItemsBack) -> None:
        """Where they came from is not looked at: here it is a log that is not played."""
        state = part.state
        here = [
            item
            for item in sorted(self._at_home(part, order.items))
            if state.state_of(item) not in (GONE, RESERVED) and item not in state.leaving
        ]
        if here:
            part.apply(ev.ItemsSentBack(tuple(to_ranges(here)), order.target, order.author))

    def _revive(self, items: Sequence[int]) -> None:
        """Brought back from the dead, an item goes on with the attempts that it had after that."""
        for which in items:
            for attempt in self._traffic.redriven.get(which, ()):
                if attempt >= self._tries[which]:
                    self._tries[which] = attempt
                    break

    def _command(self, part: _Partition, order: cmd.Command | DeleteItems | RedriveItems) -> cmd.Command:
        """An order in the numbers of this partition, as far as it can be obeyed here."""
        state = part.state
        if isinstance(order, DeleteItems):
            here = self._at_home(part, order.items)
            kinds = (READY, BEHIND, SCHEDULED, RESERVED)
            places = [Place(state.place_of(item)) for item in here if state.state_of(item) in kinds]
            return cmd.Delete(places)
        if isinstance(order, RedriveItems):
            if order.items is None:
                return cmd.Redrive(None, order.reason, items_max=state.next_item)
            here = self._at_home(part, order.items)
            dead = [ItemNumber(item) for item in here if item in state.dead and item not in state.leaving]
            return cmd.Redrive(dead)
        return order

    def _at_home(self, part: _Partition, items: Sequence[int]) -> list[int]:
        """Which of the traffic's items are in this partition, in its numbers."""
        homes = [self._homes[which] for which in items if which in self._homes]
        return [item for its_part, item in homes if its_part is part]

    # --- giving out ---------------------------------------------------------------------------------------

    def _match(self) -> None:
        demand = self._demand
        if not demand.wants:
            return
        parts = self.partitions
        now = self.now
        if demand.parked and len(parts) > 1:
            ready = [part for part in parts if part.state.line.count and not part.state.paused]
            if len(ready) > 1:
                lots = demand.spread([part.state.line.count for part in ready])
                for part, lot in zip(ready, lots, strict=True):
                    part.touch(now)
                    self._part = part
                    match_parked(part.state, demand, lot, now, part.apply, self._hand_over, _identity)
        for part in parts:
            if part.state.line.count and demand.wants:
                part.touch(now)
                self._part = part
                match(part.state, demand, now, part.apply, self._hand_over, _identity)

    def _hand_over(self, waiter: Parked[_Worker] | Subscription[_Worker], shown: rep.Reserved) -> None:
        """Somebody works from here on: when is it settled, and how?"""
        worker = waiter.asker
        longest = self._work(self._part, shown.reservation, shown.runs, None, since=self.now)
        if worker.asks and (worker.next < len(worker.asks) or worker.goes_on):
            following = worker.asks[min(worker.next, len(worker.asks) - 1)]
            pause = following.pause if worker.next < len(worker.asks) else 0
            self._at(self.now + longest + pause, _ASK, worker, following.rank)

    def _work(
        self, part: _Partition, number: int, runs: Sequence[Run], indexes: Sequence[int] | None, *, since: int
    ) -> int:
        """Somebody works on these items of a reservation (``None``: on all of it) since then: when is each
        settled, and how? How long the last of them takes."""
        if indexes is None and len(runs) == 1 and runs[0][2] == 1:
            attempt = self._attempt(part.numbers.value(runs[0][1]))
            self._settle_at(part, number, 1, None, attempt, since)
            longest = attempt[0]
        else:
            groups: dict[_Attempt, list[int]] = {}
            tries: dict[_Attempt, int] = {}
            at = 0
            for _, item, count in runs:
                for its_number, which in enumerate(part.numbers.values(item, count), item):
                    attempt = self._attempt(which)
                    if attempt not in groups:
                        groups[attempt] = []
                        tries[attempt] = _tries(part.state, its_number)
                    groups[attempt].append(at if indexes is None else indexes[at])
                    at += 1
            longest = 0
            # One request lets those die that failed too often, then retries what failed least often first.
            ordered = sorted(groups, key=lambda attempt: tries[attempt] if attempt[1] == Verb.RETRY else 0)
            for attempt in ordered:
                group = groups[attempt]
                ranges = None if len(groups) == 1 and indexes is None else tuple(to_ranges(group))
                self._settle_at(part, number, len(group), ranges, attempt, since)
                longest = max(longest, attempt[0])
        if self._traffic.extends and runs:
            self._extend_later(part, number, part.numbers.value(runs[0][1]), since)
        return longest

    def _attempt(self, which: int) -> _Attempt:
        """The next attempt at an item."""
        traffic = self._traffic
        attempt = self._tries[which]
        self._tries[which] = attempt + 1
        later = traffic.later.get(which) if attempt else None
        if attempt == 0:
            took, outcome = traffic.took[which], traffic.outcome[which]
        elif later is not None and attempt <= len(later):
            took, outcome = later[attempt - 1]
        else:
            took, outcome = -1, OPEN
        if took < 0:
            took, outcome = self._draw(is_first=attempt == 0)
        elif outcome in (OPEN, TAKEN):
            if self._settings.is_unchanged:
                return took if outcome == TAKEN else traffic.ended - self.now + 1, OPEN, BY_BACKOFF, ""
            drawn, outcome = self._draw(is_first=attempt == 0)
            took = max(took, drawn)
        delay = BY_BACKOFF
        if outcome in (Verb.RETRY, RETRY_UNLIMITED):
            delay = traffic.delays.get((which, attempt), BY_BACKOFF)
            if delay == BY_BACKOFF and not self._draws_delays:
                delay = traffic.drawn_delays.get((which, attempt), BY_BACKOFF)
        reason = traffic.reasons.get((which, attempt), "") if outcome == Verb.DEAD else ""
        if self._settings.speed != 1.0:
            took = int(took / self._settings.speed)
        return took, outcome, delay, reason

    def _draw(self, *, is_first: bool) -> tuple[int, int]:
        """An attempt like those that were recorded; of first ones, or of further ones."""
        if self._pools is None:
            traffic = self._traffic
            firsts = [
                (took, outcome)
                for took, outcome in zip(traffic.took, traffic.outcome, strict=True)
                if took >= 0 and outcome not in (OPEN, TAKEN)
            ]
            further = [
                one for attempts in traffic.later.values() for one in attempts if one[1] not in (OPEN, TAKEN)
            ]
            self._pools = (firsts or [(0, Verb.COMPLETE)], further or firsts or [(0, Verb.COMPLETE)])
        pool = self._pools[0 if is_first else 1]
        return pool[self._dice.randbelow(len(pool))]

    def _settle_at(
        self,
        part: _Partition,
        number: int,
        count: int,
        ranges: ev.Ranges | None,
        attempt: _Attempt,
        since: int,
    ) -> None:
        took, outcome, _, _ = attempt
        at = since + took
        if outcome == SESSION_LOST:
            self._at(at, _END, (part, number))
        elif outcome not in (OPEN, Verb.ENDED):
            self._at(at, _SETTLE, (part, number, count, ranges, attempt))

    def _extend_later(self, part: _Partition, number: int, which: int, since: int) -> None:
        speed = self._settings.speed
        for after, by in self._traffic.extends.get((which, self._tries[which] - 1), ()):
            self._at(since + int(after / speed), _EXTEND, (part, number, by))

    def _settle(self, about: tuple[_Partition, int, int, ev.Ranges | None, _Attempt]) -> None:
        part, number, count, ranges, (_, outcome, delay, reason) = about
        state = part.state
        reservation = state.reservations.get(number)
        if reservation is None:
            self._measures.late += count
            return
        part.touch(self.now)
        due = cmd.BY_BACKOFF if delay == BY_BACKOFF else Instant(self.now + delay if delay else 0)
        if outcome == RETRY_UNLIMITED:
            self._retry_by_place(part, reservation, ranges, Instant(self.now + max(delay, 0)))
            return
        command = cmd.Settle(Verb(outcome), ReservationNumber(number), reservation.nonce, ranges, due, reason)
        made, answer = decide_settle(state, command, self.now)
        if isinstance(answer, rep.Settled):
            self._measures.late += len(answer.refused)
        for event in made:
            part.apply(event)

    def _retry_by_place(
        self, part: _Partition, reservation: Reservation, ranges: ev.Ranges | None, due: Instant
    ) -> None:
        marks = reservation.marks
        asked = ranges if ranges is not None else ((0, reservation.count),)
        indexes = [index for first, count in asked for index in range(first, first + count)]
        held = tuple((index, 1) for index in indexes if marks is None or marks[index] == NOT_SETTLED)
        self._measures.late += len(indexes) - len(held)
        if held:
            settlements = [
                cmd.PlaceSettlement(Place(place), Verb.RETRY, due) for place, _, _ in reservation.pick(held)
            ]
            made, _ = decide(part.state, cmd.SettlePlaces(settlements), self.now)
            for event in made:
                part.apply(event)

    def _end(self, about: tuple[_Partition, int]) -> None:
        part, number = about
        reservation = part.state.reservations.get(number)
        if reservation is not None:
            part.touch(self.now)
            end_reservation(part.state, reservation, "session_lost", part.apply)

    def _extend(self, about: tuple[_Partition, int, int]) -> None:
        part, number, by = about
        reservation = part.state.reservations.get(number)
        if reservation is not None:
            part.touch(self.now)
            command = cmd.Settle(
                Verb.EXTEND, ReservationNumber(number), reservation.nonce, timeout=Duration(max(by, 0))
            )
            made, _ = decide_settle(part.state, command, self.now)
            for event in made:
                part.apply(event)


def _is_ordered_otherwise(traffic: Traffic, settings: Settings) -> bool:
    ordering = settings.policy.get("ordering")
    return bool(traffic.bases) and ordering not in (None, traffic.policies[0][1].ordering)


def _tries(state: PartitionState, item: int) -> int:
    """Attempts that ended; -1 where the running one is the last."""
    done = state.attempts.get(item, 0)
    most = state.attempts_max_of(item)
    return -1 if most and done + 1 >= most else done


def _usual(found: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The one that there is most of, the largest of equals."""
    counts = Counter(found)
    return max(sorted(counts), key=counts.__getitem__)


def _place(one: Standing) -> int:
    return one.place


def _order_of_arrival(entry: tuple[bool, int, Arrival]) -> tuple[bool, int]:
    return entry[:2]


def _ready(part: _Partition) -> int:
    return part.state.ready


def _identity(worker: _Worker) -> tuple[SessionId, int]:
    return worker.session, 0


_HAPPEN: Final[dict[int, Callable[[Simulation, Any], None]]] = {
    _ASK: Simulation._ask,  # noqa: SLF001
    _SETTLE: Simulation._settle,  # noqa: SLF001
    _END: Simulation._end,  # noqa: SLF001
    _EXTEND: Simulation._extend,  # noqa: SLF001
    _OPEN_UP: Simulation._open_up,  # noqa: SLF001
    _LEAVE: Simulation._leave,  # noqa: SLF001
    _ORDER: Simulation._order,  # noqa: SLF001
    _POLICY: Simulation._apply_policy,  # noqa: SLF001
}
