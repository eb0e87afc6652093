"""What a client's call can raise. The class says what the caller can do next."""

from querator.errors import QueratorError


class ClientError(QueratorError):
    """A call to a Querator server did not succeed."""


class Rejected(ClientError):
    """The server understood the request and changed nothing.

    ``code`` is one of the words of docs/PROTOCOL.md, ``field`` the part of the request at fault ("" if
    none).
    """

    def __init__(self, code: str, detail: str, field: str = "") -> None:
        super().__init__(f"{detail} ({code}{f', field {field!r}' if field else ''})")
        self.code = code
        self.detail = detail
        self.field = field


class ReservationLost(ClientError):
    """The reservation ended without our doing: somebody else may hold the item now.

    Stop working on it. The settlement that met this error changed nothing.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"the reservation was lost: {why}")
        self.why = why


class OutcomeUnknown(ClientError):
    """It may or may not have taken effect.

    The connection broke between request and answer, and what was heard afterwards does not tell: a refusal
    of the second sending says nothing of the first.
    """


class Disconnected(ClientError):
    """There is no connection and none could be made in time."""


class ClientClosed(ClientError):
    """The client was closed before the request was answered."""
