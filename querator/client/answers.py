"""A place for one answer. The protocol half fills it; the shell parks a task on it."""

from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Answer(Generic[T]):
    """Filled once, by ``resolve`` or ``fail``; what comes later is ignored.

    ``when_done`` is called once, right after it is filled, by whoever fills it: it must not raise and
    must not call back into the protocol.
    """

    __slots__ = ("_value", "done", "error", "when_done")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self._value: T | None = None
        self.when_done: Callable[[], None] | None = None

    def resolve(self, value: T) -> None:
        if self.done:
            return
        self.done = True
        self._value = value
        if self.when_done is not None:
            self.when_done()

    def fail(self, error: Exception) -> None:
        if self.done:
            return
        self.done = True
        self.error = error
        if self.when_done is not None:
            self.when_done()

    def result(self) -> T:
        """The value of a filled answer, or its error raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self._value)
