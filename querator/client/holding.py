"""Reservations that a client holds, and their settlements.

Nothing here is an object an item: a reservation counts what is open, a settlement holds ranges of
indexes. Whoever hands items out sees to it that each index is settled once.

A reservation that was lost sends no settlement any more: what was not sent fails with
``ReservationLost``. What was sent and is unanswered when the connection breaks is asked again all the
same: it may have been carried out before the reservation was lost, and the server remembers.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import attrs

from querator.client.answers import Answer
from querator.client.errors import (
    ClientError,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
)
from querator.client.requests import Doubtful, unexpected
from querator.core import limits
from querator.core.replies import Code
from querator.protocol.messages import (
    Complete,
    Dead,
    Extend,
    Extended,
    Release,
    Reserved,
    Retry,
    ServerMessage,
    Settled,
)

_LOST: Final = frozenset((Code.RESERVATION_LOST,))
_GIVEN_BACK: Final = frozenset((Code.HALTED, Code.DENIED))
"""Whoever worked on the items is told, and is done with them: nobody else would let go of them."""

Refused: TypeAlias = list[tuple[int, str]]
"""(index within the reservation, code) of items that a settlement did not touch."""


class Sink(Protocol):
    """Who works on the items of a reservation. Its methods must neither raise nor call back."""

    def pushed(self, delivery: "Delivery") -> bool:
        """More items, in order; False: nobody takes them, they are to be released."""

    def lost(self, reservation: "Reservation") -> None:
        """``reservation.lost`` says why. Called once."""

    def refused(self, reservation: "Reservation", refused: Refused) -> None:
        """A settlement that nobody waits for did not touch these items."""

    def failed(self, error: ClientError) -> None:
        """No more will be pushed: the subscription was refused, or the client closed."""


class Reservation:
    """One reservation of this client."""

    __slots__ = (
        "count",
        "deadline",
        "in_flight",
        "is_whole",
        "lost",
        "open",
        "partition",
        "queue",
        "run_until",
        "sink",
        "token",
    )

    def __init__(self, message: Reserved, sink: Sink) -> None:
        self.token = message.token
        self.queue = message.queue
        self.partition = message.partition
        self.deadline = message.deadline
        """Server time."""
        self.run_until = message.run_until
        self.sink = sink
        self.lost = ""
        """Why it was lost; "" while we hold it."""
        self.count = 0
        """Items received so far."""
        self.is_whole = False
        """No more items of it will come."""
        self.open = 0
        """Received and not yet given a settlement."""
        self.in_flight = 0
        """Settlements sent or drafted, and unanswered."""

    @property
    def is_finished(self) -> bool:
        return self.is_whole and not self.open and not self.in_flight


@attrs.define(eq=False)
class Delivery:
    """The items of one message: a contiguous part of a reservation."""

    reservation: Reservation
    message: Reserved
    payloads: list[bytes]
    first: int
    """Index of the first item within the reservation."""
    count: int


class Settlement(Doubtful):
    """One message that settles (part of) a reservation; a Request."""

    __slots__ = ("_holdings", "draft", "message", "ranges", "reservation", "waiters")

    is_patient = True
    is_repeatable = True

    def __init__(self, holdings: "Holdings", reservation: Reservation, draft: "Draft") -> None:
        super().__init__()
        self._holdings = holdings
        self.reservation = reservation
        self.draft = draft
        self.ranges: list[tuple[int, int]] = []
        self.waiters: list[tuple[int, int, Answer[None]]] = []
        """(first index, count, answer) of those that wait."""
        self.message: Complete | Retry | Release | Dead

    @property
    def is_stale(self) -> bool:
        return bool(self.reservation.lost) and not self.is_doubtful

    @property
    def weight(self) -> int:
        return 96 + 12 * len(self.ranges)

    def add(self, first: int, count: int, answer: Answer[None] | None) -> None:
        """Consecutive ranges become one."""
        if self.ranges:
            last_first, last_count = self.ranges[-1]
            if last_first + last_count == first:
                self.ranges[-1] = (last_first, last_count + count)
            else:
                self.ranges.append((first, count))
        else:
            self.ranges.append((first, count))
        if answer is not None:
            self.waiters.append((first, count, answer))

    def add_watcher(self, answer: Answer[None]) -> None:
        """``answer`` is resolved when this is answered, whatever single items' fate."""
        self.waiters.append((0, 0, answer))

    def make_message(self, number: int) -> None:
        reservation = self.reservation
        whole = reservation.is_whole and self.ranges == [(0, reservation.count)]
        self.message = self.draft(number, reservation.token, None if whole else self.ranges)

    def answered(self, message: ServerMessage) -> None:
        self._holdings.settled(self.reservation)
        if not isinstance(message, Settled):
            self._fail(unexpected(message))
            return
        refused = message.refused
        if not refused:
            for _, _, answer in self.waiters:
                answer.resolve(None)
            return
        for first, count, answer in self.waiters:
            code = next(
                (code for index, code in refused if first <= index < first + count),
                None,
            )
            if code is None:
                answer.resolve(None)
            else:
                answer.fail(_refusal(code))
        waited = [(first, first + count) for first, count, _ in self.waiters]
        unheard = [
            (index, code) for index, code in refused if not any(first <= index < end for first, end in waited)
        ]
        if unheard:
            self.reservation.sink.refused(self.reservation, unheard)

    def rejected(self, error: Rejected) -> None:
        if error.code == Code.RESERVATION_LOST:
            self._holdings.lose(self.reservation, error.detail)
            self._settled_without(ReservationLost(error.detail), Code.RESERVATION_LOST)
        else:
            if error.code in _GIVEN_BACK and not self.reservation.lost:
                self._holdings.give_back(self)
            self._settled_without(
                self.honest(error), Code.OUTCOME_UNKNOWN if self.is_doubtful else error.code
            )

    def abandoned(self, error: ClientError) -> None:
        if self.is_stale:
            error = ReservationLost(self.reservation.lost)
        self._holdings.settled(self.reservation)
        self._fail(self.honest(error))

    def _settled_without(self, error: ClientError, code: str) -> None:
        self._holdings.settled(self.reservation)
        waited = sum(count for _, count, _ in self.waiters)
        self._fail(error)
        if waited < sum(count for _, count in self.ranges):
            self.reservation.sink.refused(self.reservation, [(first, code) for first, _ in self.ranges])

    def _fail(self, error: ClientError) -> None:
        for _, _, answer in self.waiters:
            answer.fail(error)


Draft: TypeAlias = Callable[[int, str, "list[tuple[int, int]] | None"], "Complete | Retry | Release | Dead"]
"""Makes the message of a settlement: (id, token, ranges)."""


class GiveBack(Settlement):
    """Releases what a halted partition did not let us settle, as soon as it goes on, or what we may not
    settle any more: nobody here works on it now, and our being alive would keep it."""

    __slots__ = ()

    def rejected(self, error: Rejected) -> None:
        self._holdings.settled(self.reservation)


class Extension(Doubtful):
    """An explicit extend; a Request."""

    __slots__ = ("_holdings", "answer", "message", "reservation")

    is_patient = True
    weight = 96

    def __init__(
        self,
        holdings: "Holdings",
        reservation: Reservation,
        message: Extend,
        answer: Answer[int],
    ) -> None:
        super().__init__()
        self._holdings = holdings
        self.reservation = reservation
        self.message = message
        self.answer = answer

    @property
    def is_repeatable(self) -> bool:
        return not self.reservation.lost

    @property
    def is_stale(self) -> bool:
        return bool(self.reservation.lost)

    def answered(self, message: ServerMessage) -> None:
        self._holdings.settled(self.reservation)
        if isinstance(message, Extended):
            self.reservation.deadline = message.deadline
            self.reservation.run_until = message.run_until
            self.answer.resolve(message.deadline)
        else:
            self.answer.fail(unexpected(message))

    def rejected(self, error: Rejected) -> None:
        if error.code == Code.RESERVATION_LOST:
            self._holdings.lose(self.reservation, error.detail)
        self._holdings.settled(self.reservation)
        if error.code == Code.RESERVATION_LOST:
            self.answer.fail(ReservationLost(error.detail))
        elif error.code == Code.OUTCOME_UNKNOWN:
            self.answer.fail(OutcomeUnknown(error.detail))
        else:
            self.answer.fail(self.honest(error))

    def abandoned(self, error: ClientError) -> None:
        # Whatever it moved, there is no deadline any more.
        lost = ReservationLost(self.reservation.lost) if self.reservation.lost else None
        self._holdings.settled(self.reservation)
        self.answer.fail(lost or self.honest(error))


def _refusal(code: str) -> ClientError:
    if code in _LOST:
        return ReservationLost("it ended before this settlement")
    return Rejected(code, "the item was not settled")


def complete(number: int, token: str, ranges: list[tuple[int, int]] | None) -> Complete:
    """The draft of a complete."""
    return Complete(id=number, token=token, ranges=ranges)


def release(number: int, token: str, ranges: list[tuple[int, int]] | None) -> Release:
    """The draft of a release."""
    return Release(id=number, token=token, ranges=ranges)


def _release_all(number: int, token: str, ranges: list[tuple[int, int]] | None) -> Release:
    del ranges
    return Release(id=number, token=token)


class Holdings:
    """All reservations of this client, by token, and the settlements that have not been sent."""

    def __init__(self) -> None:
        self._reservations: dict[str, Reservation] = {}
        self._completions: dict[str, Settlement] = {}
        """Open to further ranges, in order of their first; at most one a token."""
        self._ready: list[Settlement] = []
        self._rest: list[Settlement] = []
        """Releases of all that is left: after everything else, or they would take too much."""

    def __len__(self) -> int:
        return len(self._reservations)

    @property
    def has_drafts(self) -> bool:
        return bool(self._completions or self._ready or self._rest)

    @property
    def drafts(self) -> list["Settlement"]:
        return [*self._ready, *self._completions.values(), *self._rest]

    def find(self, token: str) -> Reservation | None:
        return self._reservations.get(token)

    def receive(self, message: Reserved, sink: Sink) -> Delivery | None:
        """Enter a message's items; ``None`` when we have them already (a push that came again)."""
        payloads = message.payloads if isinstance(message.payloads, list) else []
        if isinstance(message.texts, list):
            payloads = [text.encode() for text in message.texts]
        count = len(payloads)
        reservation = self._reservations.get(message.token)
        if reservation is None:
            reservation = self._reservations[message.token] = Reservation(message, sink)
            reservation.count = message.first
        elif message.first < reservation.count:
            return None
        reservation.count = message.first + count
        reservation.is_whole = message.last
        reservation.open += count
        return Delivery(reservation, message, payloads, message.first, count)

    def complete(
        self,
        reservation: Reservation,
        first: int,
        count: int,
        answer: Answer[None] | None,
    ) -> None:
        """Draft the completion of ``count`` items from ``first``, joined to what is drafted already."""
        if reservation.lost:
            if answer is not None:
                answer.fail(ReservationLost(reservation.lost))
            return
        draft = self._completions.get(reservation.token)
        if draft is None:
            draft = self._completions[reservation.token] = Settlement(self, reservation, complete)
            reservation.in_flight += 1
        elif len(draft.ranges) >= limits.BATCH_ITEMS_MAX:
            self._ready.append(draft)
            draft = self._completions[reservation.token] = Settlement(self, reservation, complete)
            reservation.in_flight += 1
        draft.add(first, count, answer)
        reservation.open -= count

    def settle(
        self,
        reservation: Reservation,
        first: int,
        count: int,
        draft: Draft,
        answer: Answer[None] | None,
    ) -> None:
        """Draft another settlement of ``count`` items from ``first``."""
        if reservation.lost:
            if answer is not None:
                answer.fail(ReservationLost(reservation.lost))
            return
        settlement = Settlement(self, reservation, draft)
        settlement.add(first, count, answer)
        reservation.in_flight += 1
        reservation.open -= count
        self._ready.append(settlement)

    def give_back(self, settlement: Settlement) -> None:
        """Draft the release of what this one was to settle."""
        reservation = settlement.reservation
        draft = settlement.draft if settlement.draft is _release_all else release
        back = GiveBack(self, reservation, draft)
        back.ranges = list(settlement.ranges)
        reservation.in_flight += 1
        self._ready.append(back)

    def release_rest(self, sink: Sink) -> None:
        """Draft the release of all that ``sink`` was given and has not settled."""
        for reservation in self._reservations.values():
            if reservation.sink is sink and reservation.open and not reservation.lost:
                settlement = Settlement(self, reservation, _release_all)
                reservation.in_flight += 1
                reservation.open = 0
                self._rest.append(settlement)

    def take(self, count_max: int, give_id: Callable[[], int]) -> list[Settlement]:
        """Up to ``count_max`` drafts, oldest first, with their messages made."""
        taken = self._ready[:count_max]
        del self._ready[:count_max]
        while self._completions and len(taken) < count_max:
            taken.append(self._completions.pop(next(iter(self._completions))))
        if self._rest and not (self._ready or self._completions):
            room = count_max - len(taken)
            taken.extend(self._rest[:room])
            del self._rest[:room]
        for settlement in taken:
            settlement.make_message(give_id())
        return taken

    def settled(self, reservation: Reservation) -> None:
        """A settlement of it has ended, one way or the other."""
        reservation.in_flight -= 1
        self._forget_if_finished(reservation)

    def lose(self, reservation: Reservation, why: str) -> None:
        """We hold it no more: tell its sink, fail what was drafted and not sent."""
        if reservation.lost:
            return
        reservation.lost = why or "unknown"
        drafts = [draft for draft in self.drafts if draft.reservation is reservation]
        if drafts:
            self._ready = [draft for draft in self._ready if draft.reservation is not reservation]
            self._rest = [draft for draft in self._rest if draft.reservation is not reservation]
            self._completions.pop(reservation.token, None)
        reservation.open = 0
        reservation.is_whole = True
        reservation.sink.lost(reservation)
        for draft in drafts:
            draft.abandoned(ReservationLost(reservation.lost))
        self._forget_if_finished(reservation)

    def reconcile(self, held: dict[str, int]) -> list[str]:
        """After a welcome: ``held`` is token to deadline. Returns tokens that nobody here works on: those we
        do not know, and those we gave up at an earlier welcome that did not list them.

        What the server does not list is lost, unless all we had of it is settled by what we have sent:
        then the answer to that will tell.
        """
        for reservation in list(self._reservations.values()):
            deadline = held.get(reservation.token)
            if deadline is not None:
                reservation.deadline = deadline
            elif reservation.open or self._has_draft(reservation):
                self.lose(
                    reservation,
                    "the session did not hold it any more after reconnecting",
                )
            else:
                reservation.is_whole = True
                self._forget_if_finished(reservation)
        known = self._reservations
        return [token for token in held if token not in known or known[token].lost]

    def abandon(self, error: ClientError) -> None:
        """Nothing will be sent any more."""
        drafts = self.drafts
        self._ready = []
        self._rest = []
        self._completions = {}
        for draft in drafts:
            draft.abandoned(error)

    def _has_draft(self, reservation: Reservation) -> bool:
        return any(draft.reservation is reservation for draft in self.drafts)

    def _forget_if_finished(self, reservation: Reservation) -> None:
        if reservation.is_finished:
            self._reservations.pop(reservation.token, None)
