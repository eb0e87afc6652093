"""The log writer: one append for all partitions of a store that have work; group commit without a timer.

While one append runs, decisions gather in the actors' pending records; when it returns, whatever
gathered is the next append. A failed append keeps its bytes: the very same records are sent again,
with back-off, until the store says whose they are or the hold ends (DESIGN: decision 7).
"""

from collections.abc import Callable
from typing import Final

import trio

from querator import telemetry
from querator.actors.partition import PartitionActor
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant
from querator.core.invariants import InvariantViolation
from querator.core.limits import APPEND_BYTES_MAX, APPEND_PARTITIONS_MAX, HOLD_TIMEOUT
from querator.env import Env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.records import Record
from querator.log.store import LogStore, Verdict

_BACKOFF_MIN: Final = Duration(20 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(1 * SECOND)


class LogWriter:
    """Appends for one store. ``run`` is one task; ``wake`` is called from turns."""

    def __init__(
        self,
        store: LogStore,
        env: Env,
        *,
        on_committed: Callable[[PartitionActor], None],
        on_lost: Callable[[PartitionActor, str], None],
    ) -> None:
        self._store = store
        self._env = env
        self._on_committed = on_committed
        """After the actor was told, still inside the same turn."""
        self._on_lost = on_lost
        """The partition is somebody else's now, or its outcome could not be found out in time."""
        self._waiting: dict[int, PartitionActor] = {}
        self._outstanding: dict[int, tuple[PartitionActor, Record]] = {}
        self._signal = trio.Event()
        self.appends = 0
        self.records = 0

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._outstanding

    def wake(self, actor: PartitionActor) -> None:
        """The actor has a pending record."""
        self._waiting[actor.partition] = actor
        self._signal.set()

    async def run(self) -> None:
        """Append for ever."""
        backoff = Duration(0)
        failing_since: Instant | None = None
        while True:
            if not self._waiting and not self._outstanding:
                self._signal = trio.Event()
                await self._signal.wait()
            self._gather()
            if not self._outstanding:
                continue
            sent = list(self._outstanding.values())
            try:
                verdicts = await self._store.append([record for _, record in sent])
            except (LogUnavailable, AppendOutcomeUnknown) as error:
                now = self._env.clock.now()
                failing_since = failing_since if failing_since is not None else now
                telemetry.emit("log.append.failed", store=self._store.name, error=str(error))
                for actor, _ in sent:
                    actor.append_failed(str(error))
                if now - failing_since > HOLD_TIMEOUT:
                    self._give_up(sent, str(error))
                    failing_since = None
                backoff = Duration(min(max(backoff * 2, _BACKOFF_MIN), _BACKOFF_MAX))
                await self._env.clock.sleep(backoff)
                continue
            failing_since, backoff = None, Duration(0)
            self.appends += 1
            self.records += len(sent)
            busy = self._settle(sent, verdicts)
            if busy:
                await self._env.clock.sleep(_BACKOFF_MIN)

    def _gather(self) -> None:
        """Seal what waits, up to the bounds of one append; partitions in flight wait for the next."""
        now = self._env.clock.now()
        size = 0
        for partition in list(self._waiting):
            if len(self._outstanding) >= APPEND_PARTITIONS_MAX or size > APPEND_BYTES_MAX:
                break
            if partition in self._outstanding:
                continue
            actor = self._waiting.pop(partition)
            if not actor.has_pending or not actor.is_open:
                continue
            try:
                record = actor.seal(now)
            except InvariantViolation as error:
                actor.halt(str(error))
                continue
            size += len(record.events) + (len(record.payload) if record.payload is not None else 0)
            self._outstanding[partition] = (actor, record)

    def _settle(self, sent: list[tuple[PartitionActor, Record]], verdicts: list[Verdict]) -> bool:
        now = self._env.clock.now()
        busy = False
        for (actor, _), verdict in zip(sent, verdicts, strict=True):
            if verdict is Verdict.BUSY:
                actor.append_failed("the partition is busy in its store")
                busy = True
                continue
            del self._outstanding[actor.partition]
            if verdict is Verdict.MINE:
                actor.committed(now)
                self._on_committed(actor)
            else:
                self._on_lost(actor, "another node owns the partition now")
        return busy

    def _give_up(self, sent: list[tuple[PartitionActor, Record]], reason: str) -> None:
        for actor, _ in sent:
            del self._outstanding[actor.partition]
            self._on_lost(actor, reason)

    def forget(self, actor: PartitionActor) -> None:
        """The actor was closed."""
        self._waiting.pop(actor.partition, None)
