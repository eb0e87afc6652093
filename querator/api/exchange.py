"""One HTTP request and its response: the values between the server, which moves bytes, and the handler."""

from collections.abc import Mapping
from typing import Protocol

import attrs


@attrs.define
class HttpRequest:
    """A whole request. Owned by the handler while it answers."""

    method: str
    path: str
    """The target up to ``?``, as sent: not decoded, not normalised."""
    headers: Mapping[str, str]
    """Names in lower case, values as Latin-1 without surrounding blanks; repeated ones joined by ``", "``."""
    body: bytes
    query: str = ""
    """What followed ``?``, as sent."""
    remote: str = ""
    """The peer's host."""
    is_too_large: bool = False
    """The body was over ``body_limit`` and is not here; the connection closes behind the response."""
    has_good_key: bool = False
    """Said by the handler: the request carried the key of somebody we know."""


@attrs.define
class HttpResponse:
    """``Content-Length``, ``Date`` and ``Connection`` are the server's business, all else the handler's."""

    status: int
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: bytes = b""


class HttpHandler(Protocol):
    """Answers what is not a WebSocket, ``/health`` or ``/metrics``."""

    def body_limit(self, path: str) -> int:
        """Bytes that the body of a request to ``path`` may have."""

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer. What it raises becomes a 500 and a line in the server's log; cancelling it is allowed
        when the client hangs up or the server stops."""
