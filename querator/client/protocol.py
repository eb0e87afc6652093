"""The protocol half of the client: no clock, no socket, no task.

::

                 opened()              welcome
    DISCONNECTED ────────► GREETING ────────────► OPEN
          ▲                   │                     │
          └───────────────────┴── disconnected() ───┘          close(error) from anywhere: CLOSED

A shell makes a connection, calls ``opened()``, sends what ``take_frame()`` returns for as long as that is
not empty, gives every received message to ``receive()``, and calls ``disconnected()`` when the
connection is gone. Calls of the application fill the gaps: they draft requests and return an
``Answer``. ``on_work`` is called when there is something to send.

What survives a reconnect: outstanding produces, settlements, reads and subscriptions are sent again;
reservations are compared with what ``welcome`` lists; what cannot be repeated fails with
``OutcomeUnknown``. What waits for time (asking again after ``overloaded``, giving up on strays) is asked
of the shell: see ``parked`` and ``strays``.
"""

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from querator.client.answers import Answer
from querator.client.asking import (
    PartitionsRequest,
    ReserveRequest,
    StrayRelease,
    SubscribeRequest,
    Subscription,
    UnsubscribeRequest,
    Watcher,
    WatchRequest,
)
from querator.client.errors import (
    ClientError,
    Disconnected,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
)
from querator.client.holding import (
    Draft,
    Extension,
    GiveBack,
    Holdings,
    Reservation,
    Settlement,
    Sink,
    release,
)
from querator.client.producing import AWAY, Batch, Columns, Receipt, Stream
from querator.client.requests import ASK_AGAIN, PlainRequest, Request
from querator.core import limits
from querator.core.ids import Duration
from querator.core.replies import Code
from querator.protocol.messages import (
    Call,
    ClientMessage,
    Confirm,
    Error,
    Extend,
    GoingAway,
    Hello,
    Lost,
    Reserve,
    Reserved,
    Result,
    ServerMessage,
    Stats,
    StatsReport,
    Step,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unwatch,
    Unwatched,
    Watch,
    Watching,
    WatchItem,
    Welcome,
)
from querator.protocol.messages import (
    Rejected as RejectedMessage,
)

FRAME_MESSAGES_MAX: Final = limits.FRAME_COMMANDS_MAX // 2
"""Far from the server's bound, and a frame of single items is long enough by then."""


class State(enum.Enum):
    DISCONNECTED = "disconnected"
    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class Protocol:
    """One client's side of ``/v1/stream``, across its connections.

    ``producer`` must be unique among all producers that are or were alive within a day; it names this
    client's produce sequences. ``draw`` is a number that spreads clients over partitions.
    """

    def __init__(self, *, client: str, producer: str, auth: str = "", draw: int = 0) -> None:
        self.state = State.DISCONNECTED
        self.failure: ClientError | None = None
        """Why it is CLOSED."""
        self.welcome: Welcome | None = None
        """The latest."""
        self.going_away: GoingAway | None = None
        """The server drains, or has gone: the shell connects to where this says, and forgets it."""
        self.on_work: Callable[[], None] = _nothing
        self.on_welcome: Callable[[], None] = _nothing
        self.refusals = 0
        """How often in a row the server asked us to come back later; for the shell's back-off."""
        self.unmatched = 0
        """Answers to requests that we do not have: for tests and the curious."""
        self._client = client
        self._producer = producer
        self._auth = auth
        self._draw = draw
        self._resume = ""
        self._number = 0
        self._urgent: deque[ClientMessage] = deque()
        """Unanswered, or answered requests that are in ``_requests`` already; before all else."""
        self._queued: deque[Request] = deque()
        """Requests to send, or to send again, in order."""
        self._requests: dict[int, Request] = {}
        """Sent and unanswered, by id, in the order they were first sent."""
        self._parked: list[Request] = []
        self._streams: dict[str, Stream] = {}
        self._streams_begun = 0
        self._active: dict[str, Stream] = {}
        """Those with something to send or unanswered."""
        self._subscriptions: dict[int, Subscription] = {}
        self._watchers: dict[int, Watcher] = {}
        self._holdings = Holdings()
        self._strays: dict[str, None] = {}
        self._stray_releases: dict[str, list[StrayRelease]] = {}
        """Of each token, those that are not answered."""
        self._push_seen = 0
        self._push_confirmed = 0
        self._receivers: dict[type[ServerMessage], Callable[..., None]] = {
            Reserved: self._receive_reserved,
            Welcome: self._receive_welcome,
            Lost: self._receive_lost,
            GoingAway: self._receive_going_away,
            Error: self._receive_error,
            StatsReport: self._receive_stats,
            Step: self._receive_step,
        }

    # -- the shell's side ------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """For good; ``failure`` says why."""
        return self.state is State.CLOSED

    @property
    def is_open(self) -> bool:
        """Connected and welcomed."""
        return self.state is State.OPEN

    @property
    def has_work(self) -> bool:
        """``take_frame`` would return something."""
        if self.state is State.GREETING:
            return bool(self._urgent)
        return self.state is State.OPEN and (
            bool(self._urgent or self._queued)
            or self._push_seen != self._push_confirmed
            or self._holdings.has_drafts
            or any(stream.has_work or stream.needs_partitions for stream in self._active.values())
        )

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be sent or answered (subscriptions aside)."""
        if self._requests or self._parked or self._queued or self._holdings.has_drafts:
            return False
        return all(stream.is_quiet for stream in self._active.values())

    @property
    def parked(self) -> int:
        """Requests that wait for ``unpark``, after a pause."""
        return len(self._parked)

    @property
    def strays(self) -> int:
        """Reservations the server says we hold and we do not know, and that have not been pushed again."""
        return len(self._strays)

    @property
    def held(self) -> int:
        """Reservations that we hold or are settling."""
        return len(self._holdings)

    def unanswered_settlements(self) -> list[Settlement]:
        """Drafted, sent or waiting to be sent again; but what is given back, nobody waits for."""
        requests = [*self._requests.values(), *self._parked, *self._queued]
        settlements = [one for one in requests if isinstance(one, Settlement)] + self._holdings.drafts
        return [one for one in settlements if not isinstance(one, GiveBack)]

    def opened(self) -> None:
        """A new connection stands; ``hello`` is what goes out first."""
        if self.state is State.CLOSED:
            return
        self.state = State.GREETING
        self._urgent.clear()
        self._urgent.append(
            Hello(
                client=self._client,
                resume=self._resume,
                auth=self._auth,
                confirmed=self._push_seen if self._resume else 0,
            )
        )
        self.on_work()

    @property
    def may_leave(self) -> bool:
        """The server goes away, and nothing is left to say to it: elsewhere is better than waiting."""
        return (
            self.going_away is not None
            and not self._requests
            and not len(self._holdings)
            and not self._holdings.has_drafts
        )

    def disconnected(self) -> None:
        """The connection is gone. Repeatable requests stay; the others fail."""
        if self.state is State.CLOSED:
            return
        self.state = State.DISCONNECTED
        self._urgent.clear()
        self._strays.clear()
        for request in self._requests.values():
            request.doubt()
        sent = [*self._requests.values(), *self._parked]
        # It was refused, and nothing came of it: no other node can give anything twice.
        refused = dict.fromkeys(request for request in self._parked if isinstance(request, ReserveRequest))
        self._requests = {}
        self._parked = []
        again: list[Request] = []
        for request in sent:
            if request.is_repeatable or request in refused:
                again.append(request)
            else:
                request.abandoned(OutcomeUnknown("the connection broke before the answer came"))
        self._queued.extendleft(reversed(again))

    def forget_session(self) -> None:
        """Do not resume it (a newer connection has it): what it held is lost at the next welcome."""
        self._resume = ""
        self._push_seen = self._push_confirmed = 0

    def close(self, error: ClientError) -> None:
        """The end: everything that waits fails with ``error``."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.failure = error
        for request in self._requests.values():
            request.doubt()
        waiting = [*self._requests.values(), *self._parked, *self._queued]
        self._requests = {}
        self._parked = []
        self._queued.clear()
        self._urgent.clear()
        for request in waiting:
            request.abandoned(error)
        self._holdings.abandon(error)
        for stream in self._streams.values():
            stream.fail_held(error)
            for batch in stream.drain():
                batch.fail(error)
        for subscription in self._subscriptions.values():
            subscription.answer.fail(error)
            subscription.sink.failed(error)
        for watcher in self._watchers.values():
            watcher.answer.fail(error)
            watcher.failed(error)

    def unpark(self) -> None:
        """Send again what was refused for the moment."""
        parked, self._parked = self._parked, []
        self._queued.extendleft(reversed(parked))
        if parked:
            self.on_work()

    def release_strays(self) -> None:
        """Give back what we are said to hold and were not pushed again."""
        for token in self._strays:
            self._release_unknown(token, None)
        if self._strays:
            self.on_work()
        self._strays.clear()

    def take_frame(self) -> list[ClientMessage]:
        """The messages of the next frame; empty: nothing to send now."""
        if self.state is State.GREETING:
            frame = list(self._urgent)
            self._urgent.clear()
            return frame
        if self.state is not State.OPEN:
            return []
        frame = list(self._urgent)
        self._urgent.clear()
        if self._push_seen != self._push_confirmed:
            frame.append(Confirm(push=self._push_seen))
            self._push_confirmed = self._push_seen
        room = self._take_queued(frame, limits.CLIENT_FRAME_BYTES)
        if room > 0 and self._holdings.has_drafts:
            room = self._take_settlements(frame, room)
        if room > 0:
            self._take_produces(frame, room)
        return frame

    def receive(self, message: ServerMessage) -> None:
        """Take in one message of the server."""
        receiver = self._receivers.get(type(message))
        if receiver is not None:
            receiver(message)
            return
        number = cast("int", message.id)  # type: ignore[union-attr] # all the others have an id
        request = self._requests.pop(number, None)
        if request is None:
            self._receive_unmatched(message)
        elif isinstance(message, RejectedMessage):
            self._receive_rejected(request, message)
        else:
            self.refusals = 0
            request.answered(message)

    # -- the application's side ------------------------------------------------------------------

    def produce(
        self,
        queue: str,
        payloads: Sequence[bytes],
        columns: Columns,
        answer: Answer[Receipt],
    ) -> None:
        """Hand over the items of one call, to be committed together, in order."""
        if self._refuse(answer):
            return
        stream = self._streams.get(queue)
        if stream is None:
            stream = self._begin_stream(queue)
        self._active[queue] = stream
        stream.add(payloads, sum(map(len, payloads)), columns, answer)
        self.on_work()

    def _begin_stream(self, queue: str) -> Stream:
        if len(self._streams) >= limits.PRODUCE_STREAMS_MAX:
            for name, stream in self._streams.items():
                if stream.is_quiet:
                    del self._streams[name]
                    break
        number = self._streams_begun
        self._streams_begun += 1
        # A name is never used again: its sequence numbers are not to be repeated.
        stream = Stream(queue, f"{self._producer}.{number}" if number else self._producer, self._draw)
        self._streams[queue] = stream
        return stream

    def subscribe(self, message: Subscribe, sink: Sink, answer: Answer[Subscribed]) -> int:
        """Have reservations pushed to ``sink``; returns the subscription's id (the message's is set)."""
        message.id = self._give_id()
        if not self._refuse(answer):
            subscription = Subscription(message, sink, answer)
            self._subscriptions[message.id] = subscription
            if self.state is State.OPEN:
                self._send_urgently(SubscribeRequest(self._forget_subscription, subscription))
            self.on_work()
        return message.id

    def unsubscribe(self, number: int, answer: Answer[None]) -> None:
        """No more pushes; what still arrives is released. Resolved when the server has stopped."""
        subscription = self._subscriptions.get(number)
        if subscription is None or self.state is not State.OPEN:
            # Subscriptions do not outlive their connection.
            self._subscriptions.pop(number, None)
            answer.resolve(None)
            return
        subscription.is_closing = True
        self._queued.append(
            UnsubscribeRequest(self._forget_subscription, Unsubscribe(self._give_id(), number), answer)
        )
        self.on_work()

    def reserve(self, message: Reserve, sink: Sink, answer: Answer[None]) -> None:
        """Ask once; items come to ``sink``, then ``answer`` is resolved (also when there was nothing)."""
        if self._refuse(answer):
            return
        message.id = self._give_id()
        self._queued.append(ReserveRequest(message, sink, answer))
        self.on_work()

    def complete(
        self,
        reservation: Reservation,
        first: int,
        count: int,
        answer: Answer[None] | None = None,
    ) -> None:
        """Complete ``count`` items from index ``first``; ``answer`` ``None``: the sink hears of refusals."""
        if self.state is State.CLOSED and answer is not None and self._refuse(answer):
            return
        self._holdings.complete(reservation, first, count, answer)
        self.on_work()

    def settle(
        self,
        reservation: Reservation,
        first: int,
        count: int,
        draft: Draft,
        answer: Answer[None] | None = None,
    ) -> None:
        """Settle ``count`` items from index ``first`` with the message that ``draft`` makes."""
        if self.state is State.CLOSED and answer is not None and self._refuse(answer):
            return
        self._holdings.settle(reservation, first, count, draft, answer)
        self.on_work()

    def release_rest(self, sink: Sink) -> None:
        """Give back all that ``sink`` was given and has not settled."""
        self._holdings.release_rest(sink)
        self.on_work()

    def extend(self, reservation: Reservation, timeout: Duration, answer: Answer[int]) -> None:
        """Move the deadline to ``timeout`` from now (0: the queue's); resolved with the new one."""
        if self._refuse(answer):
            return
        if reservation.lost:
            answer.fail(ReservationLost(reservation.lost))
            return
        reservation.in_flight += 1
        message = Extend(id=self._give_id(), token=reservation.token, timeout=timeout)
        self._queued.append(Extension(self._holdings, reservation, message, answer))
        self.on_work()

    def stats(self, queue: str, answer: Answer[StatsReport]) -> None:
        """A queue's counters."""
        self._ask(Stats(id=0, queue=queue), StatsReport, answer, is_repeatable=True)

    def watch(
        self,
        message: Watch | WatchItem,
        report: Callable[[Any], None],
        failed: Callable[[ClientError], None],
        answer: Answer[Watching],
    ) -> int:
        """Have a queue's counters (StatsReport) or an item's events (Step) reported; returns the watch's id.
        ``failed``: no more will come."""
        message.id = self._give_id()
        if not self._refuse(answer):
            watcher = Watcher(message, report, failed, answer)
            self._watchers[message.id] = watcher
            if self.state is State.OPEN:
                self._send_urgently(WatchRequest(self._forget_watcher, watcher))
            self.on_work()
        return message.id

    def unwatch(self, number: int, answer: Answer[Unwatched]) -> None:
        if self._watchers.pop(number, None) is None or self.state is not State.OPEN:
            answer.resolve(Unwatched(id=0))
            return
        self._ask(Unwatch(id=0, watch=number), Unwatched, answer)

    def call(
        self,
        method: str,
        params: msgspec.Raw,
        answer: Answer[Result],
        *,
        is_repeatable: bool,
    ) -> None:
        """An operator's call; ``is_repeatable``: it only reads."""
        self._ask(
            Call(id=0, method=method, params=params),
            Result,
            answer,
            is_repeatable=is_repeatable,
        )

    # -- sending ---------------------------------------------------------------------------------

    def _take_queued(self, frame: list[ClientMessage], room: int) -> int:
        while self._queued and room > 0 and len(frame) < FRAME_MESSAGES_MAX:
            request = self._queued.popleft()
            if request.is_stale:
                request.abandoned(OutcomeUnknown("the connection broke before the answer came"))
                continue
            self._requests[request.message.id] = request  # type: ignore[union-attr] # requests have one
            frame.append(request.message)
            room -= request.weight
        return room

    def _take_settlements(self, frame: list[ClientMessage], room: int) -> int:
        for settlement in self._holdings.take(FRAME_MESSAGES_MAX - len(frame), self._give_id):
            self._requests[settlement.message.id] = settlement
            frame.append(settlement.message)
            room -= settlement.weight
        return room

    def _take_produces(self, frame: list[ClientMessage], room: int) -> None:
        for stream in list(self._active.values()):
            if stream.is_quiet:
                del self._active[stream.queue]
                continue
            if stream.needs_partitions:
                stream.is_asked = True
                request = PartitionsRequest(stream, Stats(id=self._give_id(), queue=stream.queue))
                self._requests[request.message.id] = request
                frame.append(request.message)
            while room > 0 and len(frame) < FRAME_MESSAGES_MAX:
                batch = stream.take(self._give_id)
                if batch is None:
                    break
                self._requests[batch.message.id] = batch
                frame.append(batch.message)
                room -= batch.weight

    def _ask(
        self,
        message: Stats | Call | Unwatch,
        wanted: type[ServerMessage],
        answer: Answer,  # type: ignore[type-arg] # of what ``wanted`` says
        *,
        is_repeatable: bool = False,
    ) -> None:
        if self._refuse(answer):
            return
        message.id = self._give_id()
        self._queued.append(PlainRequest(message, wanted, answer, is_repeatable=is_repeatable))
        self.on_work()

    def _send_urgently(self, request: Request) -> None:
        self._requests[request.message.id] = request  # type: ignore[union-attr] # requests have one
        self._urgent.append(request.message)

    def _refuse(self, answer: Answer) -> bool:  # type: ignore[type-arg] # any
        if self.state is not State.CLOSED:
            return False
        answer.fail(self.failure or Disconnected("the client is closed"))
        return True

    def _give_id(self) -> int:
        self._number += 1
        return self._number

    # -- receiving -------------------------------------------------------------------------------

    def _receive_welcome(self, message: Welcome) -> None:
        if self.state is not State.GREETING:
            return
        self.state = State.OPEN
        if self.welcome is None or self.welcome.session != message.session:
            self._push_seen = 0
        self._push_confirmed = self._push_seen
        self.welcome = message
        self._resume = message.resume
        self.refusals = 0
        held = {held.token: held.deadline for held in message.held}
        for token, strays in self._stray_releases.items():
            for stray in strays:
                stray.is_stale = token not in held
        self._strays = dict.fromkeys(self._holdings.reconcile(held))
        for subscription in list(self._subscriptions.values()):
            if not subscription.is_closing:
                self._send_urgently(SubscribeRequest(self._forget_subscription, subscription))
        for stream in self._streams.values():
            stream.is_outdated = stream.partitions is not None
        for watcher in self._watchers.values():
            self._send_urgently(WatchRequest(self._forget_watcher, watcher))
        self.on_welcome()
        self.on_work()

    def _receive_reserved(self, message: Reserved) -> None:
        if message.push:
            self._push_seen = message.push
        known = self._holdings.find(message.token)
        is_lost = known is not None and bool(known.lost)
        if self._strays and not is_lost:
            self._strays.pop(message.token, None)
        sink: Sink | None = None
        request: Request | None = None
        if message.subscription is not None:
            subscription = self._subscriptions.get(message.subscription)
            if subscription is not None and not subscription.is_closing:
                sink = subscription.sink
        elif message.id is not None:
            request = self._requests.get(message.id)
            if isinstance(request, ReserveRequest):
                sink = request.sink
        if known is not None:
            sink = known.sink
        given_back = self._stray_releases.get(message.token, ())
        # Of what was lost here it does not matter whether it is pushed again: nobody works on it.
        is_given_back = is_lost or any(release.message.ranges is None for release in given_back)
        if sink is None:
            if not is_given_back:
                self._release_message(message)
            return
        # What came too late was given back already: whoever got it now would work for nothing.
        delivery = None if is_given_back else self._holdings.receive(message, sink)
        if delivery is not None and not sink.pushed(delivery):
            self._holdings.settle(delivery.reservation, delivery.first, delivery.count, release, None)
        if message.last and isinstance(request, ReserveRequest) and message.id is not None:
            del self._requests[message.id]
            request.answer.resolve(None)
        if message.push:
            self.on_work()

    def _receive_lost(self, message: Lost) -> None:
        self._strays.pop(message.token, None)
        for stray in self._stray_releases.get(message.token, ()):
            stray.is_stale = True
        reservation = self._holdings.find(message.token)
        if reservation is not None:
            self._holdings.lose(reservation, message.why)

    def _receive_going_away(self, message: GoingAway) -> None:
        self.going_away = message

    def _receive_stats(self, message: StatsReport) -> None:
        watcher = self._watchers.get(message.id)
        if watcher is not None:
            watcher.report(message)
            return
        request = self._requests.pop(message.id, None)
        if request is None:
            self.unmatched += 1
        else:
            self.refusals = 0
            request.answered(message)
            self.on_work()

    def _receive_step(self, message: Step) -> None:
        watcher = self._watchers.get(message.id)
        if watcher is not None:
            watcher.report(message)

    def _receive_error(self, message: Error) -> None:
        request = None if message.id is None else self._requests.pop(message.id, None)
        error = Rejected(message.code, message.detail, message.path)
        if request is not None:
            request.rejected(error)
        elif message.id is None:
            # The server did not understand a frame of ours: sending it again would not help.
            self.close(error)

    def _receive_rejected(self, request: Request, message: RejectedMessage) -> None:
        if message.code in AWAY and isinstance(request, Batch) and request.stream.avoid(request):
            self.on_work()
            return
        is_of_the_moment = request.is_patient and (
            message.code in ASK_AGAIN
            or (message.code == Code.OUTCOME_UNKNOWN and request.is_repeatable)
            or (message.code == Code.HALTED and isinstance(request, (GiveBack, StrayRelease)))
        )
        if is_of_the_moment or (isinstance(request, ReserveRequest) and request.goes_on(message.code)):
            if message.code == Code.OUTCOME_UNKNOWN:
                request.doubt()
            self._parked.append(request)
            self.refusals += 1
            self.on_work()
            return
        request.rejected(Rejected(message.code, message.detail, message.field))
        self.on_work()

    def _receive_unmatched(self, message: ServerMessage) -> None:
        if self.state is State.GREETING and isinstance(message, RejectedMessage):
            if message.code in ASK_AGAIN:
                return
            self.close(Rejected(message.code, message.detail, message.field))
            return
        if isinstance(message, RejectedMessage):
            # What was granted has ended: ask again, or tell who waits for more.
            subscription = self._subscriptions.get(message.id)
            watcher = self._watchers.get(message.id)
            if subscription is not None:
                if not subscription.is_closing:
                    request = SubscribeRequest(self._forget_subscription, subscription)
                    self._receive_rejected(request, message)
                return
            if watcher is not None:
                self._receive_rejected(WatchRequest(self._forget_watcher, watcher), message)
                return
        self.unmatched += 1

    def _release_message(self, message: Reserved) -> None:
        count = len(message.payloads or message.texts or ())
        whole = message.first == 0 and message.last
        self._release_unknown(message.token, None if whole else [(message.first, count)])
        self.on_work()

    def _release_unknown(self, token: str, ranges: list[tuple[int, int]] | None) -> None:
        request = StrayRelease(release(self._give_id(), token, ranges), self._forget_stray)
        self._stray_releases.setdefault(token, []).append(request)
        self._queued.append(request)

    def _forget_stray(self, request: StrayRelease) -> None:
        strays = self._stray_releases[request.message.token]
        strays.remove(request)
        if not strays:
            del self._stray_releases[request.message.token]

    def _forget_subscription(self, number: int) -> None:
        """It has ended: what is still pushed for it is released."""
        self._subscriptions.pop(number, None)

    def _forget_watcher(self, number: int) -> None:
        self._watchers.pop(number, None)


def _nothing() -> None:
    """Nobody listens."""
