"""Partitions that want a background service, each once, in the order in which they asked."""

import trio

from querator.actors.partition import PartitionActor


class Wanted:
    """Filled from turns by ``add``, emptied by the service's one task with ``take``."""

    def __init__(self) -> None:
        self._actors: dict[int, PartitionActor] = {}
        self._signal = trio.Event()

    def add(self, actor: PartitionActor) -> None:
        """Ask. Who has asked already keeps its turn; a partition's new actor takes that of a closed one."""
        there = self._actors.get(actor.partition)
        if there is None or not there.is_alive:
            self._actors[actor.partition] = actor
        self._signal.set()

    async def take(self) -> PartitionActor:
        """The next one; waits until there is one."""
        while not self._actors:
            self._signal = trio.Event()
            await self._signal.wait()
        return self._actors.pop(next(iter(self._actors)))
