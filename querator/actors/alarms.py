"""Alarms: one sleeping task for everything on this node that waits for a time."""

from collections.abc import Callable

import trio

from querator.core.deadlines import Deadlines
from querator.core.ids import Instant
from querator.core.limits import ALARMS_DUE_MAX
from querator.env import Env


class Alarms:
    """Keyed moments; ``run`` calls ``on_due`` with the keys that came up."""

    def __init__(self, env: Env, on_due: Callable[[list[int]], None]) -> None:
        self._env = env
        self._on_due = on_due
        self._moments = Deadlines()
        self._armed: int | None = None
        self._sleep: trio.CancelScope | None = None

    def set(self, key: int, at: int | None) -> None:
        """Wake at ``at``; ``None``: not at all."""
        if at is None:
            self._moments.discard(key)
            return
        if self._moments.get(key) == at:
            return
        self._moments.add(key, at)
        if self._sleep is not None and (self._armed is None or at < self._armed):
            self._sleep.cancel()

    @property
    def next_at(self) -> int | None:
        """When the next one rings."""
        return self._moments.next_at()

    def fire(self, now: Instant) -> bool:
        """Handle what is due; whether there was anything."""
        due = self._moments.due(now, ALARMS_DUE_MAX)
        for key in due:
            self._moments.discard(key)
        if due:
            self._on_due(due)
        return bool(due)

    async def run(self) -> None:
        """Sleep, fire; for ever."""
        clock = self._env.clock
        while True:
            while self.fire(clock.now()):
                await trio.lowlevel.checkpoint()
            self._armed = self._moments.next_at()
            with trio.CancelScope() as self._sleep:
                if self._armed is None:
                    await trio.sleep_forever()
                await clock.sleep_until(Instant(self._armed))
            self._sleep = None
