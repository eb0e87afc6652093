"""The simulated store: a MemoryLog whose appends are slow, refused, or of unknown outcome, by chance.

A node that crashed must not write any more: its store is *severed*, and every later call on it sleeps
for ever, like a process that is gone.
"""

from collections.abc import Sequence
from random import Random

import trio

from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.memory import Faults
from querator.log.records import Record
from simulations.options import Options
from simulations.trace import Trace


class SimulatedFaults(Faults):
    """Drawn for each append from one stream of the run."""

    def __init__(self, options: Options, dice: Random, trace: Trace, node: str) -> None:
        self._options = options
        self._dice = dice
        self._trace = trace
        self._node = node
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
        self._trace.note(self._node, "append", f"{len(records)} records")

    async def after(self, records: Sequence[Record]) -> None:
        await self._gate()
        if not self.is_healed and self._dice.random() < self._options.unknown_kept:
            self._trace.mark("commit.unknown_kept")
            raise AppendOutcomeUnknown("simulated: the connection broke after the commit")
        await self._gate()
