"""A watch over several nodes: who owns, since when nobody does, and who could."""

from typing import TYPE_CHECKING, Final

import trio

from simulations.machine import Life, Machine
from simulations.patience import RECONNECT

if TYPE_CHECKING:
    from simulations.world import World

_BEAT: Final = 0.1
"""Seconds between two looks."""


class Watch:
    """Writes down what it sees as facts. It knows more than any node does."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._owner: Life | None = None
        """The last one."""
        self._host = ""
        """Where it lived."""
        self._without_since: float | None = None
        """Since when nobody owns."""
        self._able_since: dict[str, float] = {}
        """By host."""
        self._unowned: dict[float, float] = {}
        """From when to when nobody owned although a node could have."""

    async def run(self) -> None:
        """For ever."""
        while True:
            self._look()
            await trio.sleep(_BEAT)

    def end(self) -> None:
        """What is under way when the run ends counts, too."""
        if self._without_since is not None:
            self._world.facts.unowned += self._unowned.items()

    def _look(self) -> None:
        world, now = self._world, trio.current_time()
        for machine in world.machines:
            if not machine.is_able:
                self._able_since.pop(machine.host, None)
            else:
                self._able_since.setdefault(machine.host, now)
        owner = world.owner()
        if owner is not None and self._without_since is not None and not owner.is_open:
            owner = None
        if owner is None:
            self._nobody(now)
        else:
            self._somebody(owner, now)

    def _nobody(self, now: float) -> None:
        if self._without_since is None:
            self._without_since = now
        if self._able_since:
            since = max(self._without_since, min(self._able_since.values()))
            self._unowned[since] = now

    def _somebody(self, owner: Machine, now: float) -> None:
        world = self._world
        if self._without_since is not None:
            world.facts.unowned += self._unowned.items()
            self._unowned = {}
            world.trouble("nobody owns", since=self._without_since - _BEAT, lasts=RECONNECT)
            self._without_since = None
        before, self._owner = self._owner, owner.life
        if before is not None and before is not owner.life and owner.host != self._host:
            world.trace.mark("owner.took_over")
            if before.stopped_at is not None:
                world.trace.mark("owner.handed_over")
                if before.could_hand_over and self._able_since.get(owner.host, now) <= before.stopped_at:
                    world.facts.handed_over.append((before.stopped_at, now))
        self._host = owner.host
