"""The requests that are more than a question and an answer: subscriptions, watches, reserve.

Subscriptions and watches do not outlive their connection: each connection has a request of its own for
them, made after its ``welcome``.
"""

from collections.abc import Callable
from typing import Any

from querator.client.answers import Answer
from querator.client.errors import ClientError, OutcomeUnknown, Rejected
from querator.client.holding import Sink
from querator.client.producing import Stream
from querator.client.requests import ELSEWHERE, Doubtful, Harmless, unexpected
from querator.core.limits import RESERVE_REFUSALS_MAX
from querator.core.replies import Code
from querator.protocol.messages import (
    Empty,
    Release,
    Reserve,
    ServerMessage,
    Stats,
    StatsReport,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Watch,
    Watching,
    WatchItem,
)


class Subscription:
    """A standing wish for reservations of one queue; sent again after each welcome."""

    __slots__ = ("answer", "is_closing", "message", "sink")

    def __init__(self, message: Subscribe, sink: Sink, answer: Answer[Subscribed]) -> None:
        self.message = message
        self.sink = sink
        self.answer = answer
        self.is_closing = False


class Watcher:
    """A queue's counters, beat by beat, or an item's steps; sent again after each welcome."""

    __slots__ = ("answer", "failed", "message", "report")

    def __init__(
        self,
        message: Watch | WatchItem,
        report: Callable[[Any], None],
        failed: Callable[[ClientError], None],
        answer: Answer[Watching],
    ) -> None:
        self.message = message
        self.report = report
        self.failed = failed
        self.answer = answer


class SubscribeRequest(Harmless):
    """Of one connection: the next one has its own. A refused subscription is gone."""

    __slots__ = ("_forget", "_subscription", "message")

    is_repeatable = False
    is_patient = True
    weight = 128

    def __init__(self, forget: Callable[[int], None], subscription: Subscription) -> None:
        self._forget = forget
        self._subscription = subscription
        self.message = subscription.message

    @property
    def is_stale(self) -> bool:
        return self._subscription.is_closing

    def answered(self, message: ServerMessage) -> None:
        if isinstance(message, Subscribed):
            self._subscription.answer.resolve(message)
        else:
            self._fail(unexpected(message))

    def rejected(self, error: Rejected) -> None:
        self._fail(error)

    def abandoned(self, error: ClientError) -> None:
        """Asked again after the next welcome."""

    def _fail(self, error: ClientError) -> None:
        self._forget(self.message.id)
        self._subscription.answer.fail(error)
        self._subscription.sink.failed(error)


class UnsubscribeRequest(Harmless):
    """Succeeds always: a subscription ends with its connection at the latest."""

    __slots__ = ("_answer", "_forget", "message")

    is_repeatable = False
    is_patient = False
    is_stale = False
    weight = 64

    def __init__(self, forget: Callable[[int], None], message: Unsubscribe, answer: Answer[None]) -> None:
        self._forget = forget
        self.message = message
        self._answer = answer

    def answered(self, message: ServerMessage) -> None:
        if isinstance(message, Unsubscribed):
            self._end()
        else:
            self._answer.fail(unexpected(message))

    def rejected(self, error: Rejected) -> None:
        self._end()

    def abandoned(self, error: ClientError) -> None:
        self._end()

    def _end(self) -> None:
        self._forget(self.message.subscription)
        self._answer.resolve(None)


class WatchRequest(Harmless):
    """Of one connection, like a subscription."""

    __slots__ = ("_forget", "_watcher", "message")

    is_repeatable = False
    is_patient = True
    is_stale = False
    weight = 64

    def __init__(self, forget: Callable[[int], None], watcher: Watcher) -> None:
        self._forget = forget
        self._watcher = watcher
        self.message = watcher.message

    def answered(self, message: ServerMessage) -> None:
        if isinstance(message, Watching):
            self._watcher.answer.resolve(message)
        else:
            self.rejected(Rejected(Code.INTERNAL, str(unexpected(message))))

    def rejected(self, error: Rejected) -> None:
        self._forget(self.message.id)
        self._watcher.answer.fail(error)
        self._watcher.failed(error)

    def abandoned(self, error: ClientError) -> None:
        """Asked again after the next welcome."""


class ReserveRequest(Doubtful):
    """Asks once. The reservation's messages are taken in by the protocol, which then resolves it. A node that
    stops, or stands by, is not asked in vain: the question goes on to where it sends us."""

    __slots__ = ("_refusals", "answer", "message", "sink")

    is_repeatable = False
    is_patient = False
    is_stale = False
    weight = 128

    def __init__(self, message: Reserve, sink: Sink, answer: Answer[None]) -> None:
        super().__init__()
        self.message = message
        self.sink = sink
        self.answer = answer
        self._refusals = 0

    def goes_on(self, code: str) -> bool:
        """Whether it is asked again after this refusal, which says that nothing was reserved."""
        self._refusals += code in ELSEWHERE
        return code in ELSEWHERE and self._refusals <= RESERVE_REFUSALS_MAX

    def answered(self, message: ServerMessage) -> None:
        if isinstance(message, Empty):
            self.answer.resolve(None)
        else:
            self.answer.fail(unexpected(message))

    def rejected(self, error: Rejected) -> None:
        if error.code == Code.NOTHING_READY:
            self.answer.resolve(None)
        elif error.code == Code.OUTCOME_UNKNOWN:
            self.answer.fail(OutcomeUnknown(error.detail))
        else:
            self.answer.fail(error)

    def abandoned(self, error: ClientError) -> None:
        self.answer.fail(self.honest(error))


class PartitionsRequest(Harmless):
    """Asks which partitions a queue has, for its produce stream."""

    __slots__ = ("_stream", "message")

    is_repeatable = True
    is_patient = True
    is_stale = False
    weight = 128

    def __init__(self, stream: Stream, message: Stats) -> None:
        self._stream = stream
        self.message = message

    def answered(self, message: ServerMessage) -> None:
        if not isinstance(message, StatsReport):
            self._stream.fail_held(unexpected(message))
            return
        partitions = [counters.get("partition", -1) for counters in message.partitions]
        if not partitions or -1 in partitions:
            self._stream.fail_held(ClientError(f"the server told no partitions of {message.queue!r}"))
            return
        self._stream.learn_partitions(partitions)

    def rejected(self, error: Rejected) -> None:
        self._stream.fail_held(error)

    def abandoned(self, error: ClientError) -> None:
        self._stream.fail_held(error)


class StrayRelease(Harmless):
    """Gives back what nobody here works on, whatever becomes of that."""

    __slots__ = ("_forget", "is_stale", "message")

    is_repeatable = True
    is_patient = True
    weight = 96

    def __init__(self, message: Release, forget: "Callable[[StrayRelease], None]") -> None:
        self.message = message
        self._forget = forget
        self.is_stale = False

    def answered(self, message: ServerMessage) -> None:
        self._forget(self)

    def rejected(self, error: Rejected) -> None:
        self._forget(self)

    def abandoned(self, error: ClientError) -> None:
        self._forget(self)
