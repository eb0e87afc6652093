"""What stands between a request and its answer, across reconnects."""

from typing import Final, Generic, Protocol, TypeVar

from querator.client.answers import Answer
from querator.client.errors import ClientError, OutcomeUnknown, Rejected
from querator.core.replies import Code
from querator.protocol.messages import ClientMessage, ServerMessage

T = TypeVar("T")

ASK_AGAIN: Final = frozenset((Code.OVERLOADED, Code.UNAVAILABLE, Code.SHUTTING_DOWN, Code.NOT_OWNER))
"""Rejections of the moment: nothing was changed, and asking again a little later may succeed."""

ELSEWHERE: Final = frozenset((Code.SHUTTING_DOWN, Code.NOT_OWNER))
"""Those of them after which another node may serve."""


class Request(Protocol):
    """One request of ours. The protocol half calls exactly one of the three endings, once."""

    @property
    def message(self) -> ClientMessage:
        """Ready to send, with its id; sent again as it is."""

    @property
    def is_repeatable(self) -> bool:
        """Sending it twice has the effect of once, so that it is sent again after a reconnect."""

    @property
    def is_patient(self) -> bool:
        """A rejection of the moment is not passed on; the request is sent again later."""

    @property
    def is_stale(self) -> bool:
        """It is not to be sent any more (a settlement of what was lost meanwhile): it is abandoned."""

    @property
    def weight(self) -> int:
        """About how many bytes it takes in a frame."""

    def doubt(self) -> None:
        """It was sent, and its answer is lost, or was that nobody knows: it may have taken effect, and a
        refusal that comes in the end says nothing of that."""

    def answered(self, message: ServerMessage) -> None: ...

    def rejected(self, error: Rejected) -> None: ...

    def abandoned(self, error: ClientError) -> None:
        """There will be no answer."""


class Harmless:
    """A request that leaves nothing behind which its caller would have to know of."""

    __slots__ = ()

    def doubt(self) -> None:
        """It makes no difference."""


class Doubtful:
    """A request whose caller must know whether it took effect."""

    __slots__ = ("is_doubtful",)

    def __init__(self) -> None:
        self.is_doubtful = False

    def doubt(self) -> None:
        self.is_doubtful = True

    def honest(self, error: ClientError) -> ClientError:
        """What may be said to the caller, when ``error`` is what was heard last."""
        if not self.is_doubtful or isinstance(error, OutcomeUnknown):
            return error
        return OutcomeUnknown(f"sent, and not known whether it took effect; heard last: {error}")


class PlainRequest(Doubtful, Generic[T]):
    """A request whose answer goes straight to the caller."""

    __slots__ = ("answer", "is_repeatable", "message", "wanted")

    is_patient = False
    is_stale = False
    weight = 256

    def __init__(
        self,
        message: ClientMessage,
        wanted: type[T],
        answer: Answer[T],
        *,
        is_repeatable: bool = False,
    ) -> None:
        super().__init__()
        self.message = message
        self.wanted = wanted
        self.answer = answer
        self.is_repeatable = is_repeatable

    def answered(self, message: ServerMessage) -> None:
        if isinstance(message, self.wanted):
            self.answer.resolve(message)
        else:
            self.answer.fail(unexpected(message))

    def rejected(self, error: Rejected) -> None:
        if error.code == Code.OUTCOME_UNKNOWN:
            self.answer.fail(OutcomeUnknown(error.detail))
        else:
            self.answer.fail(error)

    def abandoned(self, error: ClientError) -> None:
        # What is repeatable only reads: nothing to be in doubt of.
        self.answer.fail(error if self.is_repeatable else self.honest(error))


def unexpected(message: ServerMessage) -> ClientError:
    """The error for an answer of the wrong kind."""
    return ClientError(f"the server gave an answer of another kind: {type(message).__name__}")
