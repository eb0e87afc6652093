"""Requests that wait for long: a client that hangs up meanwhile ends its own.

Most are answered within a moment, and a task that watches the connection would cost as much as the
rest of such a request. So the watch begins a moment late: one task looks after all of them.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core.ids import MILLISECOND, Duration
from querator.env import Clock

MOMENT: Final = Duration(5 * MILLISECOND)
"""A request is watched when it has waited for one to two of these."""


@attrs.define(eq=False)
class Waiting:
    """A request that may wait for long. ``scope`` is cancelled when the client hangs up."""

    hung_up: Callable[[], Awaitable[None]]
    """Reads the connection; returns when the client is gone."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    watch: trio.CancelScope | None = None
    has_let_go: trio.Event | None = None
    """Set once nobody reads the connection for it any more."""


class Hangups:
    """All such requests of a server. ``run`` is its task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._young: dict[Waiting, None] = {}
        self._old: dict[Waiting, None] = {}
        self._is_needed = trio.Event()

    def begin(self, waiting: Waiting) -> None:
        """Watch it, if it still waits in a moment."""
        self._young[waiting] = None
        self._is_needed.set()

    async def end(self, waiting: Waiting) -> None:
        """It waits no more; returns when the connection is the caller's again."""
        self._young.pop(waiting, None)
        self._old.pop(waiting, None)
        if waiting.watch is not None and waiting.has_let_go is not None:
            waiting.watch.cancel()
            with trio.CancelScope(shield=True):
                await waiting.has_let_go.wait()

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            while True:
                if not self._young and not self._old:
                    self._is_needed = trio.Event()
                    await self._is_needed.wait()
                await self._clock.sleep(MOMENT)
                for waiting in self._old:
                    waiting.watch = trio.CancelScope()
                    waiting.has_let_go = trio.Event()
                    nursery.start_soon(_watch, waiting, waiting.watch, waiting.has_let_go)
                self._old, self._young = self._young, {}


async def _watch(waiting: Waiting, watch: trio.CancelScope, has_let_go: trio.Event) -> None:
    try:
        with watch:
            await waiting.hung_up()
            waiting.scope.cancel()
    except Exception as error:  # noqa: BLE001 - the boundary that keeps one connection's bug from the others
        telemetry.emit("api.connection.failed", error=repr(error))
        waiting.scope.cancel()
    finally:
        has_let_go.set()
