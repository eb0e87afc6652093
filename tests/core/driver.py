"""A partition driven like its actor drives it, without an actor: decide, evolve, match, what is due.

Keeps the whole log, so that tests can fold it again.
"""

from collections.abc import Callable, Sequence

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.decide import decide
from querator.core.demand import Demand, Parked, Subscription
from querator.core.due import end_reservation, expire_first, next_due_at, run_due
from querator.core.evolve import evolve, fold
from querator.core.ids import Duration, Instant, ItemNumber, PartitionId, Place, ReservationNumber, SessionId
from querator.core.limits import RESERVATION_BYTES_MAX
from querator.core.match import match
from querator.core.policy import Policy
from querator.core.replies import Reserved
from querator.core.reserve import reserve, show
from querator.core.state import PartitionState

START = 1_700_000_000_000_000
PARTITION = PartitionId(7)


@attrs.frozen
class Client:
    """Somebody who asks: a name, and the session it has."""

    name: str
    session: SessionId
    generation: int = 1


@attrs.define
class Stretch:
    """Events of one record (or of a part of it), as they were decided."""

    position: int
    events: list[ev.Event]


class Driver:
    """One partition, its demand, a clock and a log."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.state = PartitionState(PARTITION)
        self.demand: Demand[Client] = Demand()
        self.now = START
        self.log: list[Stretch] = []
        self.handed: list[tuple[Client, Reserved]] = []
        """What was handed to waiters, in order."""
        self._at = 0
        self.state.position = 1
        self.listeners: list[Callable[[int, ev.Event], None]] = []
        self.apply(ev.Claimed("node", 41, 1, 0, "server"))
        self.do(cmd.ApplyPolicy(policy if policy is not None else Policy(version=1)))

    # --- as the actor does --------------------------------------------------------------------------

    def apply(self, event: ev.Event) -> None:
        if self._at != self.now:
            self._at = self.now
            self._write(ev.TurnStarted(Instant(self.now)))
        self._write(event)

    def _write(self, event: ev.Event) -> None:
        if not self.log or self.log[-1].position != self.state.position:
            self.log.append(Stretch(self.state.position, []))
        evolve(self.state, event)
        self.log[-1].events.append(event)
        for listener in self.listeners:
            listener(self.state.position, event)

    def seal(self) -> None:
        """The next event is of the next record."""
        self.state.position += 1
        self._at = 0

    def decide(self, command: cmd.Command) -> rep.Reply:
        """Without matching what became ready."""
        events, reply = decide(self.state, command, Instant(self.now))
        for event in events:
            self.apply(event)
        return reply

    def do(self, command: cmd.Command) -> rep.Reply:
        reply = self.decide(command)
        self.match()
        return reply

    def match(self) -> None:
        match(self.state, self.demand, Instant(self.now), self.apply, self._hand_over, _identity)

    def _hand_over(self, waiter: Parked[Client] | Subscription[Client], shown: Reserved) -> None:
        self.handed.append((waiter.asker, shown))

    def pass_time(self, by: int) -> None:
        """Let time pass, and happen what is due then."""
        self.now += by
        self.run_due()

    def run_due(self) -> None:
        run_due(self.state, Instant(self.now), self.apply)
        self.match()
        for parked in self.demand.overdue(Instant(self.now)):
            self.demand.unpark(parked)
        self.match()

    # --- short words for tests ------------------------------------------------------------------------

    def produce(self, *payloads: bytes, **columns: object) -> rep.Produced:
        """Items with these payloads; columns are those of Attributes, or Produce's own fields."""
        own = {name: columns.pop(name) for name in ("due_at", "producer", "sequence") if name in columns}
        attributes = ev.Attributes(**columns) if columns else None  # type: ignore[arg-type]
        reply = self.do(cmd.Produce(payloads, attributes=attributes, **own))  # type: ignore[arg-type]
        assert isinstance(reply, rep.Produced), reply
        return reply

    def reserve(
        self,
        items_max: int = 1,
        session: str = "s",
        *,
        timeout: int = 0,
        held: bool = False,
        bytes_max: int = RESERVATION_BYTES_MAX,
    ) -> Reserved | None:
        if not expire_first(self.state, Instant(self.now), self.apply):
            return None
        event = reserve(
            self.state,
            items_max,
            Instant(self.now),
            session=SessionId(session),
            generation=1,
            timeout=Duration(timeout),
            held=held,
            bytes_max=bytes_max,
        )
        if event is None:
            return None
        self.apply(event)
        return show(self.state, self.state.reservations[self.state.next_reservation - 1])

    def take(
        self,
        items_max: int = 1,
        session: str = "s",
        *,
        timeout: int = 0,
        held: bool = False,
        bytes_max: int = RESERVATION_BYTES_MAX,
    ) -> Reserved:
        """Reserve, and get something."""
        shown = self.reserve(items_max, session, timeout=timeout, held=held, bytes_max=bytes_max)
        assert shown is not None, "nothing was ready"
        return shown

    def settle(
        self, verb: cmd.Verb, shown: Reserved, ranges: ev.Ranges | None = None, **rest: object
    ) -> rep.Reply:
        return self.do(cmd.Settle(verb, shown.reservation, shown.nonce, ranges, **rest))  # type: ignore[arg-type]

    def park(
        self, name: str, items_max: int, wait: int = 10_000_000, *, bytes_max: int = RESERVATION_BYTES_MAX
    ) -> Parked[Client]:
        parked = Parked(
            Client(name, SessionId(name)),
            1,
            items_max,
            Instant(self.now + wait),
            Duration(0),
            "",
            held=False,
            bytes_max=bytes_max,
        )
        self.demand.park(parked)
        self.match()
        return parked

    def subscribe(
        self,
        name: str,
        *,
        window: int = 100,
        window_bytes: int = 1 << 30,
        batch: int = 10,
        linger: int = 0,
        timeout: int = 0,
        held: bool = True,
    ) -> Subscription[Client]:
        subscription = Subscription(
            Client(name, SessionId(name)),
            1,
            window=window,
            window_bytes=window_bytes,
            batch=batch,
            linger=Duration(linger),
            timeout=Duration(timeout),
            held=held,
        )
        self.demand.subscribe(subscription)
        self.match()
        return subscription

    def lose_session(self, session: str) -> None:
        for number in list(self.state.by_session.get(session, ())):
            reservation = self.state.reservations[number]
            if reservation.run_until:
                end_reservation(self.state, reservation, "session_lost", self.apply)
        self.match()

    def next_due_at(self) -> int | None:
        return next_due_at(self.state)

    def refold(self, *, payloads: bool = True) -> PartitionState:
        """The log folded from nothing."""
        state = PartitionState(PARTITION)
        for stretch in self.log:
            fold(state, stretch.position, stretch.events if payloads else map(bare, stretch.events))
        return state

    def waiting_items(self) -> list[int]:
        """The numbers of the items in line, in order."""
        return [number for _, item, count in self.state.line.runs() for number in range(item, item + count)]


def bare(event: ev.Event) -> ev.Event:
    """The event as it is read from a log without payload blocks."""
    if isinstance(event, ev.ItemsProduced | ev.PayloadsCarried):
        return attrs.evolve(event, payloads=None)
    return event


def numbers_of(shown: Reserved) -> list[int]:
    return [number for _, item, count in shown.runs for number in range(item, item + count)]


def places(*numbers: int) -> list[Place]:
    return [Place(number) for number in numbers]


def items(*numbers: int) -> list[ItemNumber]:
    return [ItemNumber(number) for number in numbers]


def token(shown: Reserved) -> tuple[ReservationNumber, int]:
    return shown.reservation, shown.nonce


def expired_in(events: Sequence[ev.Event]) -> list[int]:
    """The items that expired, in the order of the events."""
    return [
        number
        for event in events
        if isinstance(event, ev.ItemsExpired)
        for item, count in event.runs
        for number in range(item, item + count)
    ]


def _identity(client: Client) -> tuple[SessionId, int]:
    return client.session, client.generation
