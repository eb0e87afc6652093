"""The partition actor: decides at once, commits in groups, and only then answers.

::

    doors ── plain calls ──► decide, evolve ──► pending record ──seal──► in flight ──commit──► answers leave
                              (memory is ahead)   (grows while one append runs)

There is no mailbox and no task: sessions call in synchronously, inside the broker's turn; the log writer
calls ``seal`` when the store is free and ``committed`` when the record is in. At most one append of
a partition is in flight. What goes out is parked with the record it was decided in, answers that
wrote nothing included, and is dropped if that record is never committed.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from querator.actors.ports import Delivery, Requester, ReservationLost, TraceStep
from querator.actors.steps import look, step
from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.capture import Capture
from querator.core.decide import decide, settle_part
from querator.core.demand import Demand, Parked, Subscription
from querator.core.due import end_reservation, expire_first, next_due_at, run_due
from querator.core.evolve import evolve
from querator.core.ids import (
    MILLISECOND,
    SECOND,
    Duration,
    Instant,
    ItemNumber,
    PartitionId,
    Position,
    ReservationNumber,
    SessionId,
)
from querator.core.inputs import Gathering
from querator.core.limits import PENDING_BYTES_MAX, PENDING_COMMANDS_MAX, WATCHED_ITEMS_MAX
from querator.core.match import match, match_parked
from querator.core.replies import Code, Rejected
from querator.core.reserve import reserve, show
from querator.core.state import PartitionState
from querator.log.codec import seal
from querator.log.inputs import encode_inputs
from querator.log.records import Record

DELIVERY_DELAY_MAX: Final = Duration(250 * MILLISECOND)
"""A commit that took longer postpones the deadlines of the reservations in it by as much."""
STALL: Final = Duration(1 * SECOND)
"""While an append takes longer than this, nothing ends by its deadline: the world is slow."""
_READS: Final = (rep.PartitionStats, rep.ItemView, rep.ItemPage)
_EVENT_BYTES: Final = 48
"""What an event takes in a record, roughly; only bounds depend on it."""


class Condition(enum.Enum):
    """What the actor is able to do."""

    OPEN = "open"
    HOLDING = "holding"
    """The store refuses appends for now: the bytes are kept and tried again; nothing new is taken."""
    HALTED = "halted"
    """An invariant failed, or data was lost: stopped with evidence until an operator acts."""
    CLOSED = "closed"
    """Thrown away: fenced, given up, or shut down."""


Parcel: TypeAlias = "tuple[Requester, Delivery]"
Waiting: TypeAlias = "Parked[Requester] | Subscription[Requester]"


@attrs.define
class Batch:
    """A record in the making, and what leaves when it is in."""

    events: list[ev.Event] = attrs.Factory(list)
    parcels: list[Parcel] = attrs.Factory(list)
    bytes_estimate: int = 0
    commands: int = 0
    opened_at: Instant = Instant(0)
    at: Instant = Instant(0)
    """Of the last TurnStarted in it."""
    inputs: Gathering | None = None
    """Where they are recorded: what the record's inputs section will say."""

    def gather(self) -> Gathering:
        if self.inputs is None:
            self.inputs = Gathering()
        return self.inputs


@attrs.define(eq=False)
class CaptureRequest:
    """A snapshot that is wanted, and how far it is. Both events are set, too, when the actor closes."""

    previous: Sequence[tuple[int, int]]
    """(segment, position) of the chunks that the last snapshot is made of."""
    previous_position: int
    capture: Capture | None = None
    hash: bytes = b""
    """Of the record it follows; empty until that is committed."""
    begun: trio.Event = attrs.Factory(trio.Event)
    committed: trio.Event = attrs.Factory(trio.Event)


@attrs.define
class ReserveNow:
    """A reserve request without the waiting."""

    items_max: int
    timeout: Duration
    held: bool
    bytes_max: int


class PartitionActor:
    """Owns the state of one partition. All methods but the constructor's are synchronous."""

    def __init__(
        self,
        state: PartitionState,
        *,
        tail: Position,
        tail_hash: bytes,
        queue: str,
        index: int,
        demand: Demand[Requester],
        store_name: str,
        session_of: Callable[[SessionId], Requester | None],
        record_inputs: bool = False,
    ) -> None:
        self.state = state
        self.partition = PartitionId(state.partition)
        self.queue = queue
        self.index = index
        """Within the queue."""
        self.demand = demand
        self.store_name = store_name
        self.condition = Condition.OPEN
        self.fault = ""
        self.nonce = state.nonce
        self.tail = tail
        """Position of the last committed record."""
        self.tail_hash = tail_hash
        self._session_of = session_of
        self._record_inputs = record_inputs
        self._given: list[int] = []
        """Items of the reservations of the present round of matching."""
        self.restored_below = state.next_reservation
        """Reservations of a lower number were made before this actor was: no window counts them, until a
        subscription of their session adopts them."""
        self.watched: dict[int, list[tuple[Requester, int]]] = {}
        """Items, and who is told what becomes of them."""
        self.unsent: list[Parcel] = []
        """Set at the close: reservations nobody was told of, and losses that were not announced, of records
        whose outcome is unknown."""
        self._pending = Batch()
        self._in_flight: Batch | None = None
        self._record: Record | None = None
        self._sent_at = Instant(0)
        self.now = Instant(0)
        self.log_bytes = 0
        """Bytes of records committed since the last snapshot."""
        self.log_records = 0
        self.events_committed = 0
        self.reserved_counted = 0
        """What the broker has counted of this partition's reserved items."""
        self.is_untimed = False
        """There was no moment to call ``run_due`` when it was last asked for, whatever is due."""
        self._capture: CaptureRequest | None = None
        self._postponed: dict[ReservationNumber, None] = {}
        """Reservations whose answer waits for the commit of a later deadline."""
        state.position = tail + 1

    # --- the turn -------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        return bool(self._pending.events)

    @property
    def pending_bytes(self) -> int:
        """What the pending record takes, roughly."""
        return self._pending.bytes_estimate

    @property
    def is_open(self) -> bool:
        return self.condition is Condition.OPEN

    @property
    def is_alive(self) -> bool:
        """Its state is kept and goes on, be it with a store that refuses for now: what happens once, the end
        of a session, must reach it all the same, and waits in its pending record."""
        return self.condition in (Condition.OPEN, Condition.HOLDING)

    @property
    def ready(self) -> int:
        return self.state.line.count

    def refusal(self) -> Rejected | None:
        """Why no new write is taken right now."""
        if self.condition is Condition.OPEN:
            pending = self._pending
            if pending.bytes_estimate < PENDING_BYTES_MAX and pending.commands < PENDING_COMMANDS_MAX:
                return None
            return Rejected(Code.OVERLOADED, "the partition's pending record is full; try again")
        if self.condition is Condition.HALTED:
            return Rejected(Code.HALTED, f"partition {self.partition} is halted: {self.fault}")
        return Rejected(Code.UNAVAILABLE, f"partition {self.partition} can't write now: {self.fault}")

    def apply(self, event: ev.Event) -> None:
        """Evolve by the event and put it into the pending record."""
        pending = self._pending
        if pending.at != self.now or not pending.events:
            turn = ev.TurnStarted(self.now)
            evolve(self.state, turn)
            if not pending.events:
                pending.opened_at = self.now
            pending.events.append(turn)
            pending.at = self.now
        if self.watched:
            self._evolve_watched(pending, event)
        else:
            evolve(self.state, event)
        pending.events.append(event)
        size = _EVENT_BYTES
        if type(event) is ev.ItemsProduced and event.payloads is not None:
            size += sum(map(len, event.payloads)) + 4 * event.count
        elif type(event) is ev.PayloadsCarried and event.payloads is not None:
            size += sum(map(len, event.payloads)) + 4 * len(event.payloads)
        pending.bytes_estimate += size

    def _evolve_watched(self, pending: Batch, event: ev.Event) -> None:
        """Evolve, and tell those who watch items that the event is about."""
        state = self.state
        extended = None
        if type(event) is ev.ReservationExtended:
            extended = state.reservations.get(event.reservation)
        before = {item: look(state, item, extended) for item in self.watched}
        evolve(state, event)
        for item, watchers in self.watched.items():
            after = look(state, item, extended)
            if after != before[item]:
                told = step(state.position, self.now, event, before[item], after)
                pending.parcels += [(requester, (request, told)) for requester, request in watchers]

    def watch(self, requester: Requester, request: int, item: ItemNumber) -> None:
        """Answer ``Done``, then tell of each event that touches the item, until ``unwatch``."""
        refusal = self._refuse_watch(item)
        if refusal is None:
            self.watched.setdefault(item, []).append((requester, request))
        self.park(requester, (request, refusal or rep.Done()))

    def _refuse_watch(self, item: ItemNumber) -> Rejected | None:
        if not 0 < item < self.state.next_item:
            return Rejected(Code.UNKNOWN_ITEM, f"there was never an item {self.partition}.{item}", "item")
        if self.condition is not Condition.OPEN:
            return Rejected(Code.UNAVAILABLE, self.fault or "the partition is being opened; try again")
        for watched, watchers in list(self.watched.items()):
            if not any(requester.is_open for requester, _ in watchers):
                del self.watched[watched]
        if item not in self.watched and len(self.watched) >= WATCHED_ITEMS_MAX:
            full = f"{WATCHED_ITEMS_MAX} items of this partition are watched, its limit"
            return Rejected(Code.LIMIT_EXCEEDED, full)
        return None

    def unwatch(self, requester: Requester, request: int) -> None:
        """No more of what this request asked for."""
        for item, watchers in list(self.watched.items()):
            if (requester, request) in watchers:
                watchers.remove((requester, request))
                if not watchers:
                    del self.watched[item]

    def park(self, requester: Requester, delivery: Delivery) -> None:
        """Let it leave when everything decided so far is committed."""
        if self._pending.events:
            self._pending.parcels.append((requester, delivery))
        elif self._in_flight is not None:
            self._in_flight.parcels.append((requester, delivery))
        else:
            requester.deliver([delivery])

    def submit(self, requester: Requester, request: int, command: cmd.Command) -> None:
        """Decide a command; its answer is parked."""
        if self.condition is not Condition.OPEN or self._pending.bytes_estimate >= PENDING_BYTES_MAX:
            refusal = self.refusal()
            if refusal is not None:
                requester.deliver([(request, refusal)])
                return
        pending = self._pending
        if pending.commands >= PENDING_COMMANDS_MAX:
            requester.deliver(
                [(request, Rejected(Code.OVERLOADED, "too many commands wait for their commit"))]
            )
            return
        pending.commands += 1
        events, reply = decide(self.state, command, self.now)
        for event in events:
            self.apply(event)
        self.park(requester, (request, reply))
        if self._record_inputs:
            self._note_command(command, events, reply)

    def impose(self, requester: Requester, request: int, command: cmd.Command) -> None:
        """Decide what the catalog says, also while nothing new is taken: it waits in the pending record, and
        the next owner would do the same. Its answer is parked."""
        if not self.is_alive:
            requester.deliver([(request, Rejected(Code.UNAVAILABLE, self.fault or "it was thrown away"))])
            return
        events, reply = decide(self.state, command, self.now)
        for event in events:
            self.apply(event)
        self.park(requester, (request, reply))

    def _note_command(self, command: cmd.Command, events: Sequence[ev.Event], reply: rep.Reply) -> None:
        if type(command) is cmd.Import:
            for event in events:
                if type(event) is ev.ItemsReserved:
                    self._pending.gather().nobody()
        elif (
            type(command) is cmd.Settle
            and type(reply) is Rejected
            and reply.code is Code.RESERVATION_LOST
            and command.reservation < self.state.next_reservation
        ):
            self._pending.gather().late.append((command.reservation, command.verb, self.now))

    def note_payloads(self, segment: int, *, is_here: bool) -> None:
        """The payloads of a segment came into memory, or left it."""
        if self._record_inputs:
            pending = self._pending
            pending.gather().moved.append((len(pending.events), segment, is_here))

    def reserve(self, requester: Requester, request: int, asked: ReserveNow) -> bool:
        """Reserve for one requester at once; False when nothing may go."""
        state = self.state
        if not expire_first(state, self.now, self.apply):
            return False
        event = reserve(
            state,
            asked.items_max,
            self.now,
            session=requester.session,
            generation=requester.generation,
            timeout=asked.timeout,
            held=asked.held,
            bytes_max=asked.bytes_max,
        )
        if event is None:
            return False
        self.apply(event)
        shown = show(state, state.reservations[state.next_reservation - 1])
        self.park(requester, (request, shown))
        if self._record_inputs:
            self._pending.gather().asked(asked.items_max, asked.bytes_max, asked.timeout)
        return True

    def match(self) -> None:
        """Give what is ready to those that want it."""
        if self.condition is Condition.OPEN and self._pending.bytes_estimate < PENDING_BYTES_MAX:
            hand_over = self._begin_match() if self._record_inputs else self._hand_over
            is_whole = match(self.state, self.demand, self.now, self.apply, hand_over, _identity)
            if self._record_inputs:
                self._end_match(is_whole=is_whole)

    def match_parked(self, lot: Sequence[Parked[Requester]]) -> None:
        """Serve the parked requests that were assigned to this partition."""
        if self.condition is Condition.OPEN and self._pending.bytes_estimate < PENDING_BYTES_MAX:
            hand_over = self._begin_match() if self._record_inputs else self._hand_over
            is_whole = match_parked(self.state, self.demand, lot, self.now, self.apply, hand_over, _identity)
            if self._record_inputs:
                self._end_match(is_whole=is_whole)

    def _hand_over(self, waiter: Waiting, shown: rep.Reserved) -> None:
        self.park(waiter.asker, (waiter.request, shown))

    def _begin_match(self) -> Callable[[Waiting, rep.Reserved], None]:
        self._pending.gather().begin_call()
        self._given.clear()
        return self._hand_over_noted

    def _hand_over_noted(self, waiter: Waiting, shown: rep.Reserved) -> None:
        gathering = self._pending.gather()
        if type(waiter) is Parked:
            gathering.parked(waiter, self.now)
        elif type(waiter) is Subscription:
            gathering.pushed(waiter, self.now)
        self._given.append(shown.count)
        self.park(waiter.asker, (waiter.request, shown))

    def _end_match(self, *, is_whole: bool) -> None:
        if not is_whole and self._given:
            self._pending.gather().end_call(self._given)

    def run_due(self, end_lag: Duration) -> None:
        """Make happen what only time makes happen."""
        if self.condition is not Condition.OPEN or self._is_stalled:
            return
        run_due(self.state, self.now, self._apply_ended, end_lag)

    def _apply_ended(self, event: ev.Event) -> None:
        """Apply, and tell the holder of a reservation that ended by itself."""
        if type(event) is ev.ReservationEnded or (type(event) is ev.ItemsDied and event.verb == "ended"):
            reservation = self.state.reservations[event.reservation]
            session = SessionId(reservation.session)
            nonce = reservation.nonce
            self.apply(event)
            if session and event.reservation not in self.state.reservations:
                holder = self._session_of(session)
                if holder is not None:
                    why = event.why if type(event) is ev.ReservationEnded else "deadline"
                    self.park(holder, (0, ReservationLost(self.partition, event.reservation, nonce, why)))
            return
        self.apply(event)

    def end_session(self, session: SessionId, undelivered: Sequence[ReservationNumber]) -> None:
        """The session did not come back: what it held ends; what never reached it costs no attempt."""
        for number in list(self.state.by_session.get(session, ())):
            reservation = self.state.reservations[number]
            if ReservationNumber(number) in undelivered:
                self.apply(ev.ItemsReleased(ReservationNumber(number), None, "undelivered"))
            elif reservation.run_until:
                end_reservation(self.state, reservation, "session_lost", self.apply)

    def end_unconfirmed(self, number: ReservationNumber, nonce: int) -> None:
        """The keep-alive is for what was taken over: this reservation was not, and ends at its deadline."""
        reservation = self.state.reservations.get(number)
        if self.condition is not Condition.OPEN or reservation is None or reservation.nonce != nonce:
            return
        if reservation.deadline < self.now:
            end_reservation(self.state, reservation, "deadline", self._apply_ended)

    def end_given_up(self, session: SessionId, generation: int) -> None:
        """The client's present connection, of this generation, was never told that it holds them."""
        for number in list(self.state.by_session.get(session, ())):
            reservation = self.state.reservations[number]
            if reservation.generation < generation and reservation.run_until:
                end_reservation(self.state, reservation, "given_up", self._apply_ended)

    def release_forgotten(self) -> None:
        """The log lost its end, and perhaps what ended these reservations: their holders may know nothing of
        them any more, and would keep them by being alive. They go back without blame, and the holders are
        told."""
        for session in list(self.state.by_session):
            holder = self._session_of(SessionId(session))
            for number in list(self.state.by_session[session]):
                reservation = self.state.reservations[number]
                self.apply(ev.ItemsReleased(ReservationNumber(number), None, "loss_accepted"))
                if holder is not None:
                    lost = ReservationLost(
                        self.partition, ReservationNumber(number), reservation.nonce, "loss_accepted"
                    )
                    self.park(holder, (0, lost))

    def release_session(self, session: SessionId, why: str) -> None:
        """The client said goodbye: everything it still holds goes back without blame."""
        for number in list(self.state.by_session.get(session, ())):
            self.apply(ev.ItemsReleased(ReservationNumber(number), None, why))

    def resume_session(self, session: SessionId, generation: int) -> None:
        if session in self.state.by_session:
            self.apply(ev.SessionResumed(session, generation))

    @property
    def _is_stalled(self) -> bool:
        return self._in_flight is not None and self.now - self._sent_at > STALL

    def next_due_at(self, end_lag: Duration) -> int | None:
        """When to call ``run_due``. While that would do nothing there is no such moment: the broker asks
        again after the commit, and an alarm for what is past already would ring without end."""
        self.is_untimed = self.condition is not Condition.OPEN or self._is_stalled
        return None if self.is_untimed else next_due_at(self.state, end_lag)

    # --- snapshots --------------------------------------------------------------------------------

    def request_capture(self, request: "CaptureRequest") -> None:
        """Begin a snapshot at the next moment at which the state is the fold up to a sealed record."""
        if not self.is_alive:
            # Thrown away, with decisions that never got into the log: its state is nothing's fold.
            request.begun.set()
            request.committed.set()
            return
        self._capture = request
        if not self._pending.events and self._in_flight is None:
            # Nothing is ahead of the log: the state is the fold up to the tail.
            self.state.position = self.tail
            self._begin_capture(request)
            self.state.position = self.tail + 1
            request.hash = self.tail_hash
            request.committed.set()

    def _begin_capture(self, request: "CaptureRequest") -> None:
        if request.capture is None:
            request.capture = Capture(self.state, request.previous, request.previous_position)
            request.begun.set()

    def end_capture(self) -> None:
        """The snapshot is stored, or given up."""
        if self._capture is not None and self._capture.capture is not None:
            self._capture.capture.abandon()
        self._capture = None

    # --- the commit ------------------------------------------------------------------------------

    def seal(self, now: Instant) -> Record:
        """Close the pending record and send it; the next decisions go into the one after it."""
        pending = self._pending
        record = seal(
            self.partition,
            Position(self.state.position),
            self.tail_hash,
            self.nonce,
            now,
            pending.events,
            encode_inputs(pending.inputs) if pending.inputs is not None else b"",
        )
        self._record = record
        self._in_flight = pending
        self._sent_at = now
        self._pending = Batch()
        if self._capture is not None:
            self._begin_capture(self._capture)
        self.state.position += 1
        return record

    def committed(self, now: Instant) -> list[Parcel]:
        """The record in flight is in the log: what waited for it, which the caller delivers."""
        record, batch = self._record, self._in_flight
        if record is None or batch is None:
            return []
        self._record = None
        self._in_flight = None
        self.tail = record.position
        self.tail_hash = record.hash
        self.log_bytes += len(record.events) + (len(record.payload) if record.payload else 0)
        self.log_records += 1
        self.events_committed += len(batch.events)
        if self.condition is Condition.HOLDING:
            self.condition = Condition.OPEN
            self.fault = ""
        request = self._capture
        if (
            request is not None
            and request.capture is not None
            and request.capture.position == record.position
        ):
            request.hash = record.hash
            request.committed.set()
        parcels = batch.parcels
        if self._postponed or now - self._sent_at > DELIVERY_DELAY_MAX:
            parcels = self._postpone(parcels, Duration(now - self._sent_at))
        return self._redirect(parcels)

    def _postpone(self, parcels: list[Parcel], delay: Duration) -> list[Parcel]:
        """A deadline counts from when the reservation leaves, not from a commit that stalled. Those that
        leave now; the others follow when their new deadline is in the log, however long that takes: a
        deadline that nobody would keep after a crash is not one to promise."""
        postponed, self._postponed = self._postponed, {}
        if delay <= DELIVERY_DELAY_MAX:
            return parcels
        leaving: list[Parcel] = []
        kept: list[Parcel] = []
        for parcel in parcels:
            reply = parcel[1][1]
            if type(reply) is not rep.Reserved or reply.reservation in postponed:
                leaving.append(parcel)
                continue
            reservation = self.state.reservations.get(reply.reservation)
            if reservation is None:
                leaving.append(parcel)
                continue
            deadline = Instant(reservation.deadline + delay)
            run_until = Instant(reservation.run_until + delay if reservation.run_until else 0)
            self.apply(ev.ReservationExtended(reply.reservation, deadline, run_until))
            reply.deadline = deadline
            reply.run_until = run_until
            self._postponed[reply.reservation] = None
            kept.append(parcel)
        self._pending.parcels[:0] = kept
        return leaving

    def _redirect(self, parcels: list[Parcel]) -> list[Parcel]:
        """Reservations whose connection is gone go to the session's newer one; without a session they are
        released, and no attempt counts."""
        if all(requester.is_open for requester, _ in parcels):
            return parcels
        redirected: list[Parcel] = []
        for parcel in parcels:
            requester, (_, reply) = parcel
            if requester.is_open or type(reply) is not rep.Reserved:
                redirected.append(parcel)
            elif not requester.session:
                self._release(reply.reservation)
            else:
                live = self._session_of(requester.session)
                redirected.append((live or requester, parcel[1]))
        return redirected

    def _release(self, number: ReservationNumber) -> None:
        reservation = self.state.reservations.get(number)
        if reservation is not None and self.condition is Condition.OPEN:
            command = cmd.Settle(cmd.Verb.RELEASE, number, reservation.nonce, reason="undelivered")
            for event in settle_part(self.state, reservation, None, command, self.now):
                self.apply(event)

    def append_failed(self, reason: str) -> None:
        """The append did not happen, or may not have: the same bytes are sent again; nothing new is taken."""
        if self.condition is Condition.OPEN:
            self.condition = Condition.HOLDING
        self.fault = reason
        self._refuse_reads()

    def _refuse_reads(self) -> None:
        """Who only asked need not wait for a store that is in trouble: nothing hangs on the outcome."""
        refusal = self.refusal()
        if refusal is None:
            return
        refused: list[Parcel] = []
        for batch in (self._in_flight, self._pending):
            if batch is None:
                continue
            reads = [parcel for parcel in batch.parcels if isinstance(parcel[1][1], _READS)]
            if reads:
                batch.parcels = [parcel for parcel in batch.parcels if not isinstance(parcel[1][1], _READS)]
                refused += [(requester, (request, refusal)) for requester, (request, _) in reads]
        if refused:
            deliver(refused)

    def close(self, code: Code, detail: str) -> None:
        """Throw this actor away: nobody hears of what was not committed, but that it is unknown."""
        if self.condition is Condition.CLOSED:
            return
        if self.condition is not Condition.HALTED:
            self.condition = Condition.CLOSED
        self.fault = detail
        subscribed = {(id(one.asker), one.request) for one in self.demand.subscriptions.values()}
        answers: list[Parcel] = []
        for batch in (self._in_flight, self._pending):
            if batch is None:
                continue
            for requester, (request, reply) in batch.parcels:
                is_push = type(reply) in (ReservationLost, TraceStep) or (
                    type(reply) is rep.Reserved and (id(requester), request) in subscribed
                )
                if type(reply) is rep.Reserved or type(reply) is ReservationLost:
                    self.unsent.append((requester, (request, reply)))
                if not is_push:
                    answers.append((requester, (request, Rejected(code, detail))))
        anew = Rejected(Code.UNAVAILABLE, "the partition is opened anew: watch again")
        for watchers in self.watched.values():
            answers += [(requester, (request, anew)) for requester, request in watchers]
        self.watched.clear()
        self._in_flight = None
        self._record = None
        self._pending = Batch()
        if self._capture is not None:
            self._capture.begun.set()
            self._capture.committed.set()
        deliver(answers)

    def free_windows(self) -> None:
        """What is reserved here counts in nobody's window any more."""
        for reservation in self.state.reservations.values():
            holder, reservation.holder = reservation.holder, None
            if holder is not None:
                holder.free(reservation.left)

    def adopt(self, session: SessionId, subscription: Subscription[Requester]) -> None:
        """Count what the session holds from before this actor in the subscription's window. By items alone:
        their payloads may be in the log only."""
        for number in self.state.by_session.get(session, ()):
            reservation = self.state.reservations[number]
            if number < self.restored_below and reservation.holder is None:
                reservation.holder = subscription
                subscription.fill(reservation.left, 0)

    def make_up(self, unsent: Sequence[Parcel]) -> None:
        """Say or undo what the actor before this one could not: reservations that are in the log, but that
        nobody was told of, are released as undelivered; losses are announced."""
        losses: list[Parcel] = []
        for requester, (request, reply) in unsent:
            if type(reply) is rep.Reserved:
                reservation = self.state.reservations.get(reply.reservation)
                if reservation is not None and reservation.nonce == reply.nonce:
                    self._release(reply.reservation)
            elif type(reply) is ReservationLost and reply.reservation not in self.state.reservations:
                losses.append((requester, (request, reply)))
        deliver(self._redirect(losses))

    def halt(self, detail: str) -> None:
        """A failed invariant: stop, keep the evidence, and let nobody restart this by itself."""
        self.condition = Condition.HALTED
        self.close(Code.OUTCOME_UNKNOWN, detail)
        self.condition = Condition.HALTED


def deliver(parcels: list[Parcel]) -> None:
    """Hand each requester all that is for it, in order, in one call."""
    if len(parcels) == 1:
        requester, delivery = parcels[0]
        requester.deliver([delivery])
        return
    by_requester: dict[int, tuple[Requester, list[Delivery]]] = {}
    for requester, delivery in parcels:
        entry = by_requester.get(id(requester))
        if entry is None:
            by_requester[id(requester)] = (requester, [delivery])
        else:
            entry[1].append(delivery)
    for requester, deliveries in by_requester.values():
        requester.deliver(deliveries)


def _identity(requester: Requester) -> tuple[SessionId, int]:
    return requester.session, requester.generation
