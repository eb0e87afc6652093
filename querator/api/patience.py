"""How long a client may take: one task looks at all connections each second.

A cancel scope with a deadline for every read and write would cost more than the rest of a small request;
here each connection has one scope, and two assignments say what it waits for and how long.
"""

import enum
from typing import Final

import attrs
import trio

from querator.core.ids import SECOND, Duration
from querator.env import Clock

BEAT: Final = SECOND
_NEVER: Final = 2**63


class Phase(enum.Enum):
    """What a connection waits for."""

    IDLE = "idle"
    """The first byte of a request."""
    HEAD = "head"
    BODY = "body"
    HANDLER = "handler"
    WRITE = "write"
    """The client to take what we write."""


@attrs.define(eq=False)
class Wait:
    """Of one connection. Its scope is cancelled when ``due`` comes."""

    phase: Phase = Phase.HANDLER
    due: int = _NEVER
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class Patience:
    """All waits of a server. ``run`` is its task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beat = 0
        self._waits: dict[Wait, None] = {}

    def begin(self, wait: Wait) -> None:
        """Look at it each beat, until ``end``."""
        self._waits[wait] = None

    def end(self, wait: Wait) -> None:
        del self._waits[wait]

    def set(self, wait: Wait, phase: Phase, timeout: Duration = Duration(0)) -> None:
        """From now on it waits for ``phase``: for ``timeout`` and at most a beat longer; 0: for ever."""
        wait.phase = phase
        wait.due = self._beat + 1 + timeout // BEAT if timeout else _NEVER

    def extend(self, wait: Wait, begun_with: int, timeout: Duration) -> None:
        """Let it wait for ``timeout`` beyond ``begun_with``, which was its ``due``."""
        wait.due = begun_with + timeout // BEAT

    def end_idle(self) -> None:
        """End the connections that are between two requests."""
        for wait in self._waits:
            if wait.phase is Phase.IDLE:
                wait.scope.cancel()

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            await self._clock.sleep(BEAT)
            self._beat += 1
            for wait in self._waits:
                if wait.due <= self._beat:
                    wait.scope.cancel()
