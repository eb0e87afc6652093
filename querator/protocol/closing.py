"""Close codes of the WebSocket, and what a client does about each (docs/PROTOCOL.md)."""

import enum


class CloseCode(enum.IntEnum):
    """Why a connection was closed. Codes from 4400 on are Querator's own."""

    NORMAL = 1000
    """Goodbye: what the session still held was released."""
    GOING_AWAY = 1001
    """The server stops: connect again (elsewhere) and resume."""
    WRONG_DATA = 1003
    """A text message on a binary subprotocol, or the other way round."""
    NOT_UTF8 = 1007
    POLICY = 1008
    """Too many control frames."""
    TOO_BIG = 1009
    """A message over the limit."""
    INTERNAL = 1011
    """A fault of the server: connect again and resume."""
    TOO_SLOW = 1013
    """The client read too slowly, or the server is full: connect again, after a pause, and resume."""
    BAD_FRAME = 4400
    """The frame could not be read at all, or came before ``hello``; an ``error`` said why."""
    UNAUTHENTICATED = 4401
    HELLO_TIMEOUT = 4408
    """No ``hello`` in time."""
    FENCED = 4409
    """A newer connection resumed this session: do not resume, it lives there."""
    PING_TIMEOUT = 4410
    """No pong in time: connect again and resume."""
