"""The simulated store: a MemoryLog whose appends are slow, refused, late, or of unknown outcome, by chance.

A node that crashed must not write any more: its store is *severed*, and every later call on it sleeps
for ever, like a process that is gone. What it had sent before may still arrive (``unknown_late``): a
database goes on with a statement whose client is dead.
"""

from collections.abc import Sequence
from random import Random

import trio

from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.memory import Faults, MemoryDisk
from querator.log.records import Record
from querator.log.store import Verdict
from simulations.options import Options
from simulations.trace import Trace


class SimulatedDisk(MemoryDisk):
    """Remembers when each record came in: nobody may have heard of it before."""

    def __init__(self) -> None:
        super().__init__()
        self.committed_at: dict[tuple[int, int], float] = {}
        """(partition, position) to virtual seconds."""

    def append(self, records: Sequence[Record]) -> list[Verdict]:
        verdicts = super().append(records)
        for record, verdict in zip(records, verdicts, strict=True):
            if verdict is Verdict.MINE:
                self.committed_at.setdefault((record.partition, record.position), trio.current_time())
        return verdicts


class SimulatedFaults(Faults):
    """Drawn for each append from one stream of the node's life."""

    def __init__(
        self, options: Options, dice: Random, trace: Trace, node: str, disk: MemoryDisk, zombies: trio.Nursery
    ) -> None:
        self._options = options
        self._dice = dice
        self._trace = trace
        self._node = node
        self._disk = disk
        self._zombies = zombies
        self.is_severed = False
        self.is_healed = False

    async def _gate(self) -> None:
        if self.is_severed:
            await trio.sleep_forever()

    async def before(self, records: Sequence[Record]) -> None:
        await self._gate()
        options, dice = self._options, self._dice
        if not self.is_healed:
            await trio.sleep(dice.expovariate(2_000))
            if dice.random() < options.slow_commit:
                self._trace.mark("commit.slow")
                await trio.sleep(dice.choice((0.3, 2.0)))
            await self._gate()
            if dice.random() < options.unavailable:
                self._trace.mark("commit.unavailable")
                raise LogUnavailable("simulated: no space left")
            if dice.random() < options.unknown_lost:
                self._trace.mark("commit.unknown_lost")
                raise AppendOutcomeUnknown("simulated: the connection broke before the commit")
            if dice.random() < options.unknown_late:
                self._trace.mark("commit.unknown_late")
                self._zombies.start_soon(self._commit_late, list(records), dice.choice((0.001, 0.05, 1.0)))
                raise AppendOutcomeUnknown("simulated: the connection broke, the server goes on")
        self._trace.note(self._node, "append", _names(records))

    async def _commit_late(self, records: list[Record], delay: float) -> None:
        await trio.sleep(delay)
        verdicts = self._disk.append(records)
        self._trace.note(self._node, "append.late", f"{_names(records)} {[v.name for v in verdicts]}")

    async def after(self, records: Sequence[Record]) -> None:
        await self._gate()
        if not self.is_healed and self._dice.random() < self._options.unknown_kept:
            self._trace.mark("commit.unknown_kept")
            raise AppendOutcomeUnknown("simulated: the connection broke after the commit")


def _names(records: Sequence[Record]) -> str:
    return " ".join(f"{record.partition}:{record.position}" for record in records)
