"""What an autocommit statement's answer says about its commit: the one place that decides it.

A SQLSTATE is no proof of a rollback (an fsync failure is 58030 with severity PANIC, and the row may be
there after recovery), and a success is no proof of durability (a cancelled wait for synchronous
replication succeeds with a warning). The severity and the silence are.
"""

import enum

import attrs


class Meaning(enum.Enum):
    COMMITTED = "committed"
    """As durable as the server is configured to make it."""
    NOT_WRITTEN = "not written"
    """Rolled back for certain; the same bytes may be tried again."""
    UNKNOWN = "unknown"
    """Committed, not committed, or yet to be committed: send the same bytes again and look."""


@attrs.frozen
class Answer:
    """What was seen of one autocommit statement, in the server's untranslated words."""

    completed: bool
    """Its results and the server's readiness for the next statement came."""
    severity: str | None = None
    """The worst of the errors that came; ``None`` where none came or the server did not say."""
    sqlstate: str | None = None
    message: str = ""
    notices: tuple[str, ...] = ()
    """Anything that came beside the results, a warning about replication above all."""
    deadline_passed: bool = False
    """We stopped waiting; the connection must be closed and not be used again."""


def classify(answer: Answer) -> Meaning:
    """Say what became of the statement's transaction. Only severity ERROR means: not written."""
    if answer.deadline_passed or answer.notices:
        return Meaning.UNKNOWN
    if answer.severity == "ERROR":
        return Meaning.NOT_WRITTEN
    if answer.completed and answer.severity is None and answer.sqlstate is None:
        return Meaning.COMMITTED
    return Meaning.UNKNOWN
