"""Why a call is not carried out: a code of the HTTP API and the exact words (CONTRACT.md 1.4 and 3).

Within a call a refusal is raised, since the first failing check wins wherever it stands; it never
leaves the door.
"""

from typing import Final, NoReturn

from querator.core.replies import Code, Rejected

OK: Final = 200
BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
REQUEST_FAILED: Final = 453
RETRY_REQUEST: Final = 454
CONTENT_ERROR: Final = 455
INTERNAL_ERROR: Final = 500
NOT_IMPLEMENTED: Final = 501

CODE_TEXTS: Final = {
    OK: "OK",
    BAD_REQUEST: "Bad Request",
    UNAUTHORIZED: "Unauthorized",
    FORBIDDEN: "Forbidden",
    REQUEST_FAILED: "Request Failed",
    RETRY_REQUEST: "Retry Request",
    CONTENT_ERROR: "Client Content Error",
    INTERNAL_ERROR: "Internal Service Error",
    NOT_IMPLEMENTED: "Not Implemented",
}


class Refused(Exception):
    """The call ends here, with this code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def refuse(text: str, code: int = BAD_REQUEST) -> NoReturn:
    """Raises:
    Refused: always.
    """
    raise Refused(code, text)


SERVICE_STOPPING: Final = "service is shutting down"
QUEUE_STOPPING: Final = "queue is shutting down"
OVERLOADED: Final = "queue is overloaded; try again later"
NOTHING_READY: Final = "request timeout; no items are in the queue, try again"
DUPLICATE_CLIENT: Final = (
    "duplicate client id; a client cannot make multiple leased requests to the same queue"
)
TRY_AGAIN: Final = "internal error, try your request again"
ACCESS_DENIED: Final = "access denied"


def moved(partition: int) -> str:
    """The partition, by its queue-local index, may be another node's."""
    return f"partition not found; partition '{partition}' may have moved, retry again"


def refusal_of(rejected: Rejected, queue: str, partition: int = 0) -> Refused:
    """What the engine's rejection is on this door. ``partition`` is the queue-local index."""
    match rejected.code:
        case Code.UNKNOWN_QUEUE:
            return Refused(BAD_REQUEST, f"queue does not exist; no such queue named '{queue}'")
        case Code.SHUTTING_DOWN:
            service = rejected.detail == SERVICE_STOPPING
            return Refused(REQUEST_FAILED, SERVICE_STOPPING if service else QUEUE_STOPPING)
        case Code.OVERLOADED:
            return Refused(RETRY_REQUEST, OVERLOADED)
        case Code.NOTHING_READY | Code.PAUSED:
            return Refused(RETRY_REQUEST, NOTHING_READY)
        case Code.UNAVAILABLE | Code.HALTED:
            text = f"partition not available; partition '{partition}' is failing, retry again"
            return Refused(RETRY_REQUEST, text)
        case Code.NOT_OWNER:
            return Refused(RETRY_REQUEST, moved(partition))
        case Code.OUTCOME_UNKNOWN:
            return Refused(RETRY_REQUEST, TRY_AGAIN)
        case Code.UNAUTHENTICATED:
            return Refused(UNAUTHORIZED, rejected.detail)
        case Code.DENIED:
            return Refused(FORBIDDEN, ACCESS_DENIED)
        case Code.INTERNAL:
            return Refused(INTERNAL_ERROR, "Internal Error")
        case _ if rejected.field == "client":
            return Refused(BAD_REQUEST, DUPLICATE_CLIENT)
        case _:
            return Refused(BAD_REQUEST, f"{rejected.field or 'request'} is invalid; {rejected.detail}")
