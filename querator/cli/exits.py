"""Exit codes, public: scripts match on them (docs/CLI.md)."""

import enum

from querator.client.errors import (
    ClientClosed,
    ClientError,
    Disconnected,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
)
from querator.errors import QueratorError


class Exit(enum.IntEnum):
    """What a command's exit code says."""

    OK = 0
    FAILED = 1
    """Something else; the text says what."""
    USAGE = 2
    """The command line cannot be understood."""
    REJECTED = 3
    """The server understood and refused; nothing was changed."""
    OUTCOME_UNKNOWN = 4
    """The connection broke before the answer: it may or may not have taken effect."""
    LOST = 5
    """A reservation was lost before it was settled."""
    DATA = 65
    """Data is damaged, or what was read is not what it should be."""
    UNAVAILABLE = 69
    """No server answers."""
    LOCKED = 73
    """Another process uses the data directory."""
    PAUSED = 75
    """The queue is paused: nothing is given before somebody resumes it."""
    CONFIG = 78
    """A setting is wrong."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class UsageError(QueratorError):
    """The command line is well formed and makes no sense; the text says what to write instead."""

    exit_code = int(Exit.USAGE)


class CommandFailed(QueratorError):
    """A command ends with this code; "" as text: it has said why already."""

    def __init__(self, text: str, code: Exit) -> None:
        super().__init__(text)
        self.code = code


def exit_code_of(error: Exception) -> int:
    """The code for an error that ended a command."""
    if isinstance(error, CommandFailed):
        return error.code
    for kind, code in (
        (Rejected, Exit.REJECTED),
        (OutcomeUnknown, Exit.OUTCOME_UNKNOWN),
        (ReservationLost, Exit.LOST),
        (Disconnected, Exit.UNAVAILABLE),
        (ClientClosed, Exit.OUTCOME_UNKNOWN),
        (ClientError, Exit.FAILED),
    ):
        if isinstance(error, kind):
            return code
    return error.exit_code if isinstance(error, QueratorError) else Exit.FAILED
