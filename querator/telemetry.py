"""The only way the code is observed: named events with fields, to whoever listens.

Names are ``area.thing.happened``, so that tests can wait for one and operators can search for one.
Nothing is formatted here, and with no listener an event costs a function call. Payloads and keys
are never fields. ``querator.journal`` writes the events down for operators.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import attrs
import trio

Listener: TypeAlias = Callable[[str, dict[str, object]], None]
"""Told (name, fields) at once, in the emitting task: it must not wait and must not raise."""

_listeners: list[Listener] = []


def emit(name: str, **fields: object) -> None:
    """Something worth knowing happened."""
    for listener in _listeners:
        listener(name, fields)


def listen(listener: Listener) -> Callable[[], None]:
    """Tell ``listener`` of every event from now on; call the result to stop that."""
    _listeners.append(listener)

    def stop() -> None:
        _listeners.remove(listener)

    return stop


class Stopwatch(Protocol):
    """What a span needs of a clock."""

    def monotonic(self) -> int: ...


@contextmanager
def span(clock: Stopwatch, name: str, **fields: object) -> Iterator[None]:
    """Emit ``name`` when the block ends, with ``microseconds``, and ``error`` when it raised."""
    started = clock.monotonic()
    try:
        yield
    except BaseException as error:
        emit(name, **fields, microseconds=clock.monotonic() - started, error=repr(error))
        raise
    emit(name, **fields, microseconds=clock.monotonic() - started)


@attrs.frozen
class Mark:
    """An event that was captured."""

    name: str
    fields: dict[str, object]


class Capture:
    """What was emitted since the capture began, in order. For tests: wait for a fact, not for time."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._lot = trio.lowlevel.ParkingLot()

    def find(self, name: str, **fields: object) -> Mark | None:
        """The first event of this name with (at least) these fields."""
        for mark in self.marks:
            if mark.name == name and fields.items() <= mark.fields.items():
                return mark
        return None

    def count(self, name: str) -> int:
        return sum(mark.name == name for mark in self.marks)

    async def wait(self, name: str, **fields: object) -> Mark:
        """The same, waiting for it if need be; at once when it has happened already."""
        await trio.lowlevel.checkpoint()
        while (mark := self.find(name, **fields)) is None:
            await self._lot.park()
        return mark

    def _take(self, name: str, fields: dict[str, object]) -> None:
        self.marks.append(Mark(name, fields))
        self._lot.unpark_all()


@contextmanager
def capture() -> Iterator[Capture]:
    """Capture every event of the block. Events must come from the event loop's thread."""
    captured = Capture()
    stop = listen(captured._take)  # noqa: SLF001 - the other half of this function
    try:
        yield captured
    finally:
        stop()
