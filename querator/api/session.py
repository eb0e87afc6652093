"""One connection's side of a session, without a socket: frames in, encoded messages out.

::

    WAITING ──hello──► OPEN ──drain──► DRAINING
       │                 │                │
       └────── close(code, reason) ───────┴──► CLOSED

A frame is one turn of the broker: its commands are handed over in order, by plain calls; what can be
answered at once is answered with the turn, the rest arrives through ``deliver`` when it is committed.
Nothing here waits, and nothing runs per item.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec

from querator.actors.ports import Delivery, QueueStats, ReservationLost, TraceStep
from querator.api import access, frames, validation
from querator.api.outbox import Outbox
from querator.api.registry import OWN_REQUEST, ReservationKey, SessionRegistry, SessionState
from querator.api.translation import (
    Origin,
    Pushed,
    produced_message,
    reserved_message,
    settled_message,
    split_reserved,
    stats_message,
)
from querator.core import limits, replies
from querator.core.catalog import ANONYMOUS, Principal
from querator.core.commands import Verb
from querator.core.ids import NEVER, Duration, Instant, ItemNumber, PartitionId, QueueName, SessionId
from querator.core.replies import Code, Rejected
from querator.errors import ProtocolError
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.codec import Codec, Encoded, Fault, Frame
from querator.protocol.tokens import encode_token

_STOPPING: Final = Rejected(Code.SHUTTING_DOWN, "the server stops: connect again, elsewhere or later")

_PERMITTED_MAX: Final = 1_024
"""Answers of the access check that a session keeps, until its next ping."""


@attrs.define
class _Watch:
    queue: QueueName
    interval: Duration
    due_at: Instant
    is_asked: bool = False
    """A report is under way."""


class Session:
    """A connected client; a ``Requester`` to the broker. Owned by its connection's task."""

    def __init__(
        self,
        registry: SessionRegistry,
        codec: Codec,
        *,
        number: int = 0,
        authorization: str = "",
        start_call: Callable[[wire.Call], None] | None = None,
    ) -> None:
        self.registry = registry
        self.codec = codec
        self.number = number
        """Spreads the pings of many sessions over time."""
        self.outbox = Outbox()
        self.session = SessionId("")
        self.generation = 0
        self.is_open = True
        self.state: SessionState | None = None
        self.principal: Principal = ANONYMOUS
        self.is_welcome = False
        self.is_draining = False
        self.is_heard = True
        """Bytes came since the last ping."""
        self.calls_now = 0
        self._silent = 0
        self._authorization = authorization
        self._start_call = start_call
        self._broker = registry.broker
        self._now = Instant(0)
        self._in_turn = False
        self._answers: list[wire.ServerMessage] = []
        """Of the turn that is under way."""
        self._answered_push = 0
        self._subscribing: dict[int, None] = {}
        self._subscriptions: dict[int, Origin] = {}
        self._ended: deque[int] = deque()
        """Subscriptions that ended, whose pushes may be under way; they stay in ``_origins`` a while."""
        self._origins: dict[int, Origin] = {}
        self._earlier: dict[int, Origin] = {}
        """Subscriptions and reserves of the connection before, whose reservations may still be under way."""
        self._pushes: dict[ReservationKey, Pushed] = {}
        self._unsubscribing: dict[int, None] = {}
        self._reserves: dict[int, Origin] = {}
        self._watches: dict[int, _Watch] = {}
        self._watched_items: dict[int, PartitionId] = {}
        self._permitted: dict[tuple[str, QueueName | PartitionId], bool] = {}
        self._permitted_by = 0
        """The version of what decided about access."""

    # -- from the client -------------------------------------------------------------------------

    def receive(self, messages: Sequence[Frame]) -> None:
        """Take WebSocket messages, as they came in together."""
        self._now = self._broker.begin_turn()
        self._in_turn = True
        try:
            self._check_access(self._now)
            for message in messages:
                if self.outbox.farewell is not None:
                    break
                self._receive_frame(message)
        finally:
            self._in_turn = False
            self._broker.end_turn()
            self._flush()

    def _receive_frame(self, frame: Frame) -> None:
        counters = self.registry.counters
        counters.frames_received += 1
        if isinstance(frame, str) is not self.codec.is_text:
            self.close(
                CloseCode.WRONG_DATA, f"{self.codec.subprotocol} does not speak in this kind of message"
            )
            return
        try:
            messages = self.codec.decode_client(frame)
        except ProtocolError as error:
            counters.faults += 1
            self._answers.append(wire.Error(Code.INVALID, error.detail, error.path))
            self.close(CloseCode.BAD_FRAME, "the frame cannot be read")
            return
        counters.messages_received += len(messages)
        for message in messages:
            if not self.is_welcome:
                self._receive_first(message)
                if not self.is_welcome:
                    return
            else:
                _HANDLERS[type(message)](self, message)

    def _receive_first(self, message: wire.ClientMessage | Fault) -> None:
        if isinstance(message, Fault):
            self._fault(message)
        elif not isinstance(message, wire.Hello):
            self._answers.append(wire.Error(Code.INVALID, "the first message is hello", "$[0]"))
        elif not 0 < len(message.client.encode()) <= limits.CLIENT_NAME_BYTES_MAX:
            detail = f"a client's name has 1 to {limits.CLIENT_NAME_BYTES_MAX} bytes"
            self._answers.append(wire.Error(Code.INVALID, detail, "$[0].client"))
        else:
            self._greet(message)
            return
        self.close(CloseCode.BAD_FRAME, "the first message is hello")

    def _greet(self, hello: wire.Hello) -> None:
        barred = self.registry.barred()
        if barred is not None:
            # Before anything is asked of a catalog that is not here.
            self._answers.append(wire.GoingAway(self._now, self.registry.owner_address()))
            self.close(CloseCode.GOING_AWAY, f"{barred.code.value}: {barred.detail}")
            return
        known = self.registry.access.authenticate(hello.auth or self._authorization, self._now)
        if isinstance(known, Rejected):
            self._answers.append(wire.Error(known.code, known.detail, "$[0].auth"))
            self.close(CloseCode.UNAUTHENTICATED, known.detail)
            return
        if self.registry.is_draining:
            self.close(CloseCode.GOING_AWAY, "the server stops")
            return
        self.is_welcome = True
        self._answers += self.registry.enter(self, hello, known)
        if self.state is not None:
            self._answered_push = self.state.push_last

    def attach(self, state: SessionState, principal: Principal) -> None:
        """This connection has the session now."""
        self.state = state
        self._pushes = state.pushes
        self._earlier = {**state.origins, **state.reserves}
        state.origins, state.reserves = self._origins, self._reserves
        self.session = state.session
        self.generation = state.generation
        self.principal = principal

    def _fault(self, fault: Fault) -> None:
        self.registry.counters.faults += 1
        self._answers.append(wire.Error(Code.INVALID, fault.detail, fault.path, fault.id))

    def _hello(self, message: wire.Hello) -> None:
        del message
        self._answers.append(wire.Error(Code.INVALID, "hello was said already"))
        self.close(CloseCode.BAD_FRAME, "hello was said already")

    def _produce(self, message: wire.Produce) -> None:
        if self._is_refused(message.id, message.queue, access.PRODUCE):
            return
        command = validation.read_produce(message)
        if isinstance(command, Rejected):
            self._reject(message.id, command)
            return
        partition = None if message.partition is None else PartitionId(message.partition)
        self._broker.produce(self, message.id, QueueName(message.queue), command, partition)

    def _subscribe(self, message: wire.Subscribe) -> None:
        if self._is_refused(message.id, message.queue, access.RESERVE) or self._is_taken(message.id):
            return
        wanted = validation.read_subscribe(message)
        if isinstance(wanted, Rejected):
            self._reject(message.id, wanted)
            return
        if len(self._subscriptions) >= limits.SUBSCRIPTIONS_PER_SESSION_MAX:
            self._reject(message.id, _full("subscriptions", limits.SUBSCRIPTIONS_PER_SESSION_MAX))
            return
        queue = QueueName(message.queue)
        origin = Origin(queue, message.texts, message.id, None)
        self._subscriptions[message.id] = self._origins[message.id] = origin
        self._subscribing[message.id] = None
        self.registry.counters.subscriptions_now += 1
        self._broker.subscribe(self, message.id, queue, wanted)

    def _unsubscribe(self, message: wire.Unsubscribe) -> None:
        if self._is_taken(message.id):
            return
        if message.subscription not in self._subscriptions:
            detail = f"there is no subscription {message.subscription}"
            self._reject(message.id, Rejected(Code.UNKNOWN_SUBSCRIPTION, detail, "subscription"))
            return
        self._end_subscription(message.subscription)
        self._unsubscribing[message.id] = None
        self._broker.unsubscribe(self, message.id, message.subscription)

    def _reserve(self, message: wire.Reserve) -> None:
        if self._is_refused(message.id, message.queue, access.RESERVE) or self._is_taken(message.id):
            return
        request = validation.read_reserve(message, self._now)
        if isinstance(request, Rejected):
            self._reject(message.id, request)
            return
        if len(self._reserves) >= limits.RESERVES_PER_SESSION_MAX:
            self._reject(message.id, _full("reserves", limits.RESERVES_PER_SESSION_MAX))
            return
        queue = QueueName(message.queue)
        self._reserves[message.id] = Origin(queue, message.texts, None, message.id)
        self._broker.reserve(self, message.id, queue, request)

    def _complete(self, message: wire.Complete) -> None:
        self._settle(message.id, validation.read_complete(message), access.COMPLETE)

    def _retry(self, message: wire.Retry) -> None:
        self._settle(message.id, validation.read_retry(message, self._now), access.RETRY)

    def _release(self, message: wire.Release) -> None:
        self._settle(message.id, validation.read_release(message), access.RETRY)

    def _dead(self, message: wire.Dead) -> None:
        self._settle(message.id, validation.read_dead(message), access.RETRY)

    def _extend(self, message: wire.Extend) -> None:
        self._settle(message.id, validation.read_extend(message), access.RESERVE)

    def _settle(self, request: int, settlement: validation.Settlement | Rejected, permission: str) -> None:
        if isinstance(settlement, Rejected):
            self._reject(request, settlement)
            return
        partition, command = settlement
        permitted = self._permitted.get((permission, partition))
        if permitted is None:
            permitted = self._is_permitted(permission, partition, self.registry.access.is_allowed_in)
        # What it may not settle any more, it may give back: a goodbye does so as well.
        is_own = command.verb is Verb.RELEASE and self._broker.holds(
            self.session, partition, command.reservation, command.nonce
        )
        if not permitted and not is_own:
            self._reject(request, Rejected(Code.DENIED, "access denied", "token"))
            return
        # Who settles has taken over: no need for a separate confirm.
        self._pushes.pop((partition, command.reservation), None)
        self._broker.settle(self, request, partition, command)

    def _confirm(self, message: wire.Confirm) -> None:
        if self.state is not None:
            self.state.confirm(message.push)

    def _stats(self, message: wire.Stats) -> None:
        if not self._is_refused(message.id, message.queue, access.STATS, may_drain=True):
            self._broker.stats(self, message.id, QueueName(message.queue))

    def _watch(self, message: wire.Watch) -> None:
        if self._is_refused(message.id, message.queue, access.STATS) or self._is_taken(message.id):
            return
        interval = validation.read_watch(message)
        if isinstance(interval, Rejected):
            self._reject(message.id, interval)
            return
        if len(self._watches) + len(self._watched_items) >= limits.WATCHES_PER_SESSION_MAX:
            self._reject(message.id, _full("watches", limits.WATCHES_PER_SESSION_MAX))
            return
        queue = QueueName(message.queue)
        if self._broker.partitions(queue) is None:
            self._reject(
                message.id, Rejected(Code.UNKNOWN_QUEUE, f"there is no queue named '{queue}'", "queue")
            )
            return
        self._watches[message.id] = _Watch(queue, interval, self._now, is_asked=True)
        self.registry.watching[self] = None
        self._answers.append(wire.Watching(message.id))
        self._broker.stats(self, message.id, queue)

    def _watch_item(self, message: wire.WatchItem) -> None:
        if self.is_draining:
            self._reject(message.id, _STOPPING)
        elif not self._is_taken(message.id):
            partition = PartitionId(message.partition)
            if not self._is_permitted(access.LIST, partition, self.registry.access.is_allowed_in):
                self._reject(message.id, Rejected(Code.DENIED, "access denied", "partition"))
            elif len(self._watches) + len(self._watched_items) >= limits.WATCHES_PER_SESSION_MAX:
                self._reject(message.id, _full("watches", limits.WATCHES_PER_SESSION_MAX))
            else:
                self._watched_items[message.id] = partition
                self._broker.watch_item(self, message.id, partition, ItemNumber(message.item))

    def _unwatch(self, message: wire.Unwatch) -> None:
        partition = self._watched_items.pop(message.watch, None)
        if partition is not None:
            self._broker.unwatch_item(self, message.watch, partition)
            self._answers.append(wire.Unwatched(message.id))
            return
        if self._watches.pop(message.watch, None) is None:
            self._reject(message.id, Rejected(Code.INVALID, f"there is no watch {message.watch}", "watch"))
            return
        if not self._watches:
            self.registry.watching.pop(self, None)
        self._answers.append(wire.Unwatched(message.id))

    def _call(self, message: wire.Call) -> None:
        if self.calls_now >= limits.CALLS_PER_SESSION_MAX:
            refusal = Rejected(
                Code.OVERLOADED, f"at most {limits.CALLS_PER_SESSION_MAX} calls at a time; try again"
            )
            self._reject(message.id, refusal)
        elif len(bytes(message.params)) > limits.CALL_PARAMS_BYTES_MAX:
            self._reject(
                message.id, validation.invalid("params", f"at most {limits.CALL_PARAMS_BYTES_MAX} bytes")
            )
        elif self._start_call is None:
            self._reject(message.id, Rejected(Code.INVALID, "no calls are taken here", "method"))
        else:
            self.calls_now += 1
            self._start_call(message)

    def _is_refused(self, request: int, queue: str, permission: str, *, may_drain: bool = False) -> bool:
        """Refuse a request for a queue that cannot be, must not be asked or is asked too late."""
        fault = validation.check_queue(queue)
        if fault is None and self.is_draining and not may_drain:
            fault = _STOPPING
        if fault is None and not self._is_permitted(
            permission, QueueName(queue), self.registry.access.is_allowed
        ):
            fault = Rejected(Code.DENIED, "access denied", "queue")
        if fault is None:
            return False
        self._reject(request, fault)
        return True

    def _is_permitted(self, permission: str, target: Any, ask: Callable[[Principal, str, Any], bool]) -> bool:
        answer = self._permitted.get((permission, target))
        if answer is None:
            if len(self._permitted) >= _PERMITTED_MAX:
                self._permitted.clear()
            answer = self._permitted[permission, target] = ask(self.principal, permission, target)
        return answer

    def _is_taken(self, request: int) -> bool:
        """Refuse an id that still names something else that lives."""
        if any(
            request in living
            for living in (self._subscriptions, self._reserves, self._watches, self._watched_items)
        ):
            self._reject(
                request, validation.invalid("id", f"{request} names an earlier request that is not over")
            )
            return True
        return False

    def _reject(self, request: int, refusal: Rejected) -> None:
        self._answers.append(wire.Rejected(request, refusal.code, refusal.detail, refusal.field))

    # -- from the broker -------------------------------------------------------------------------

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Committed answers and pushes; they leave in one WebSocket message."""
        if not self.is_open:
            return
        translators = _TRANSLATORS
        for request, reply in deliveries:
            translators[type(reply)](self, request, reply)
        if not self._in_turn:
            self._flush()

    def _produced(self, request: int, reply: replies.Produced) -> None:
        self._answers.append(produced_message(request, reply))

    def _settled(self, request: int, reply: replies.Settled) -> None:
        if request >= 0:
            self._answers.append(settled_message(request, reply))

    def _extended(self, request: int, reply: replies.Extended) -> None:
        self._answers.append(wire.Extended(request, reply.deadline, reply.run_until))

    def _reserved(self, request: int, reply: replies.Reserved) -> None:
        origin = (
            self._origins.get(request)
            or self._reserves.pop(request, None)
            or self._earlier.get(request)
            or Origin(QueueName(""), texts=False, subscription=None, request=None)
        )
        state = self.state
        if state is None:
            return
        if len(state.pushes) >= limits.PUSHES_UNCONFIRMED_MAX:
            self.close(CloseCode.POLICY, "too many pushes are not confirmed")
        state.push_last = push = state.push_last + 1
        state.pushes[reply.partition, reply.reservation] = Pushed(push, reply, origin)
        self._answers.append(reserved_message(reply, origin, push))
        self._answered_push = push

    def _rejected(self, request: int, reply: Rejected) -> None:
        if request < 0:
            return
        if self._reserves.pop(request, None) is not None:
            if reply.code is Code.NOTHING_READY:
                self._answers.append(wire.Empty(request))
                return
        elif request in self._subscriptions:
            self._subscribing.pop(request, None)
            self._end_subscription(request)
        elif self._watches.pop(request, None) is not None and not self._watches:
            self.registry.watching.pop(self, None)
        elif self._watched_items.pop(request, None) is None:
            self._unsubscribing.pop(request, None)
        self._reject(request, reply)

    def _done(self, request: int, reply: replies.Done) -> None:
        del reply
        if request in self._subscribing:
            del self._subscribing[request]
            self._answers.append(wire.Subscribed(request))
        elif request in self._unsubscribing:
            del self._unsubscribing[request]
            self._answers.append(wire.Unsubscribed(request))
        elif request in self._watched_items:
            self._answers.append(wire.Watching(request))

    def _stepped(self, request: int, reply: TraceStep) -> None:
        if request in self._watched_items:
            self._answers.append(
                wire.Step(request, reply.position, reply.at, reply.what, reply.text, reply.details)
            )

    def _counted(self, request: int, reply: QueueStats) -> None:
        if request < 0:
            return
        watch = self._watches.get(request)
        if watch is not None:
            watch.is_asked = False
        self._answers.append(stats_message(request, reply))

    def _lost(self, request: int, reply: ReservationLost) -> None:
        del request
        self._pushes.pop((reply.partition, reply.reservation), None)
        self._answers.append(
            wire.Lost(encode_token(reply.partition, reply.nonce, reply.reservation), reply.why)
        )

    def _end_subscription(self, subscription: int) -> None:
        del self._subscriptions[subscription]
        self.registry.counters.subscriptions_now -= 1
        self._ended.append(subscription)
        if len(self._ended) > limits.SUBSCRIPTIONS_PER_SESSION_MAX:
            oldest = self._ended.popleft()
            if oldest not in self._subscriptions:
                self._origins.pop(oldest, None)

    # -- from the shell --------------------------------------------------------------------------

    def answer_call(self, request: int, outcome: msgspec.Raw | Rejected) -> None:
        """A call is over: its value, or Rejected."""
        self.calls_now -= 1
        if isinstance(outcome, Rejected):
            self._reject(request, outcome)
        else:
            self._answers.append(wire.Result(request, outcome))
        self._flush()

    def ping(self, now: Instant, silent_max: int) -> None:
        """Ask for a sign of life; after ``silent_max`` asked in vain, or when the key is gone, close."""
        if self.is_heard:
            self.is_heard = False
            self._silent = 0
        else:
            self._silent += 1
            if self._silent >= silent_max:
                self.close(CloseCode.PING_TIMEOUT, "no sign of life")
                return
        if not self._is_recognised(now):
            return
        self._end_unconfirmed(now)
        self.outbox.put_control(frames.encode_ping())

    def _check_access(self, now: Instant) -> None:
        """Before it acts: is the client still who it was?"""
        expires_at = self.principal.expires_at
        if self._permitted_by != self.registry.access.version or (expires_at != NEVER and expires_at <= now):
            self._is_recognised(now)

    def _is_recognised(self, now: Instant) -> bool:
        """Whether its key is good; else the connection is closed."""
        self._permitted.clear()
        self._permitted_by = self.registry.access.version
        if not self.is_welcome or self.registry.access.is_current(self.principal, now):
            return True
        self.close(CloseCode.UNAUTHENTICATED, "the key was revoked or has expired")
        return False

    def access_changed(self, now: Instant) -> None:
        """Let go of what might not begin any more (within a turn)."""
        if self.outbox.farewell is not None or not self._is_recognised(now):
            return
        denied = Rejected(Code.DENIED, "access denied", "queue")
        for number, origin in list(self._subscriptions.items()):
            if not self._is_permitted(access.RESERVE, origin.queue, self.registry.access.is_allowed):
                self._broker.unsubscribe(self, OWN_REQUEST, number)
                self._rejected(number, denied)
        for number, origin in list(self._reserves.items()):
            if not self._is_permitted(access.RESERVE, origin.queue, self.registry.access.is_allowed):
                self._broker.withdraw(self, number, denied)
        for number, watch in list(self._watches.items()):
            if not self._is_permitted(access.STATS, watch.queue, self.registry.access.is_allowed):
                self._rejected(number, denied)
        for number, partition in list(self._watched_items.items()):
            if not self._is_permitted(access.LIST, partition, self.registry.access.is_allowed_in):
                self._broker.unwatch_item(self, number, partition)
                self._rejected(number, denied)
        self._flush()

    def _end_unconfirmed(self, now: Instant) -> None:
        """A client that answers pings, but lets pushes lie past their deadlines, has lost them."""
        overdue = [(key, pushed) for key, pushed in self._pushes.items() if pushed.reply.deadline < now]
        if overdue:
            self._broker.begin_turn()
            try:
                for (partition, reservation), pushed in overdue:
                    self._broker.unconfirmed(partition, reservation, pushed.reply.nonce)
            finally:
                self._broker.end_turn()

    def report(self, now: Instant) -> None:
        """Ask for what watches are due (within a turn)."""
        for number, watch in list(self._watches.items()):
            if not watch.is_asked and watch.due_at + watch.interval <= now:
                watch.due_at = now
                watch.is_asked = True
                self._broker.stats(self, number, watch.queue)

    def drain(self, deadline: Instant, to: str) -> None:
        """The server stops: no more pushes; what is held may be settled until ``deadline``."""
        self.is_draining = True
        for subscription in list(self._subscriptions):
            self._end_subscription(subscription)
            self._broker.unsubscribe(self, OWN_REQUEST, subscription)
        self._answers.append(wire.GoingAway(deadline, to))
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close the connection, behind what was answered so far."""
        self._flush()
        self.outbox.close(code, reason)

    def disconnected(self, *, is_goodbye: bool) -> None:
        """The connection is gone; nothing reaches the client any more."""
        self.is_open = False
        for number, partition in self._watched_items.items():
            self._broker.unwatch_item(self, number, partition)
        self.registry.counters.subscriptions_now -= len(self._subscriptions)
        if self.outbox.is_cut_off:
            self.registry.counters.sessions_cut_off += 1
        if self.state is not None:
            self.registry.leave(self, is_goodbye=is_goodbye)

    def _flush(self) -> None:
        """Encode what was answered; apart where together it is too large for one WebSocket message."""
        answers = self._answers
        if not answers:
            return
        self._answers = []
        push, self._answered_push = self._answered_push, 0
        self.registry.counters.messages_sent += len(answers)
        batch = self.codec.encode_batch(answers)
        if len(batch.data) <= limits.MESSAGE_BYTES_MAX:
            self.outbox.put(batch, push)
            return
        for message in answers:
            self._put_singly(message)

    def _put_singly(self, message: wire.ServerMessage) -> None:
        batch: Encoded = self.codec.encode_batch([message])
        push = 0
        if isinstance(message, wire.Reserved):
            push = message.push
            if len(batch.data) > limits.MESSAGE_BYTES_MAX:
                halves = split_reserved(message)
                if halves is not None:
                    for half in halves:
                        self._put_singly(half)
                    return
        elif len(batch.data) > limits.MESSAGE_BYTES_MAX and isinstance(message, wire.Result):
            detail = f"the answer is over {limits.MESSAGE_BYTES_MAX} bytes: ask for less"
            batch = self.codec.encode_batch([wire.Rejected(message.id, Code.LIMIT_EXCEEDED, detail)])
        self.outbox.put(batch, push)


def _full(what: str, most: int) -> Rejected:
    return Rejected(Code.LIMIT_EXCEEDED, f"a session has at most {most} {what}", "id")


_HANDLERS: Final[dict[type, Callable[[Session, Any], None]]] = {
    Fault: Session._fault,
    wire.Hello: Session._hello,
    wire.Produce: Session._produce,
    wire.Subscribe: Session._subscribe,
    wire.Unsubscribe: Session._unsubscribe,
    wire.Reserve: Session._reserve,
    wire.Complete: Session._complete,
    wire.Retry: Session._retry,
    wire.Release: Session._release,
    wire.Dead: Session._dead,
    wire.Extend: Session._extend,
    wire.Confirm: Session._confirm,
    wire.Stats: Session._stats,
    wire.Watch: Session._watch,
    wire.WatchItem: Session._watch_item,
    wire.Unwatch: Session._unwatch,
    wire.Call: Session._call,
}

_TRANSLATORS: Final[dict[type, Callable[[Session, int, Any], None]]] = {
    replies.Produced: Session._produced,
    replies.Reserved: Session._reserved,
    replies.Settled: Session._settled,
    replies.Extended: Session._extended,
    replies.Done: Session._done,
    Rejected: Session._rejected,
    QueueStats: Session._counted,
    ReservationLost: Session._lost,
    TraceStep: Session._stepped,
}
