"""The log writer: one append for all partitions of a store that have work.

While one append runs, decisions gather in the actors' pending records; when it returns, whatever
gathered is the next append: at once, unless many partitions have little to write (``pace.py``). A
failed append keeps its bytes: the very same records are sent again, with back-off, until the store says
whose they are or the hold ends (DESIGN: decision 7).

A partition has at most one record in flight. Appends of disjoint partitions may run side by side, in as
many *lanes* as the store has, but only where that helps: one append for all is cheapest. The others get
under way when

* the running one has taken longer than ``APPEND_PATIENCE``: it may hang, and it delays nobody else;
* more waits than one append may hold;
* a partition is *suspect*: its last append was refused, late, or found it busy. It flies apart from those
  that are not, and one lane is always left to these. Suspects share what lanes there are, so whoever is
  not to blame is soon in a lane without the one that is, and clear again.
"""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.actors.pace import Pace
from querator.actors.partition import Condition, Parcel, PartitionActor, deliver
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant
from querator.core.invariants import InvariantViolation
from querator.core.limits import APPEND_BYTES_MAX, APPEND_PARTITIONS_MAX, APPEND_PATIENCE, HOLD_TIMEOUT
from querator.env import Env, seconds
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.records import Record
from querator.log.rules import size_of
from querator.log.store import LogStore, Verdict

_BACKOFF_MIN: Final = Duration(20 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(1 * SECOND)
_BUSY_BACKOFF_MAX: Final = Duration(100 * MILLISECOND)
_BUSY: Final = "the partition is busy in its store"


@attrs.define(eq=False)
class _Sent:
    """A sealed record, until the store has said whose it is."""

    actor: PartitionActor
    record: Record
    tries: int = 0
    """That failed."""
    failing_since: Instant = Instant(0)
    not_before: Instant = Instant(0)
    is_abandoned: bool = False
    """The actor was closed meanwhile: nobody waits for the verdict."""
    successor: PartitionActor | None = None
    """Has a record for the same partition, which waits until this one has landed."""

    @property
    def is_moot(self) -> bool:
        return self.is_abandoned or self.actor.condition in (Condition.CLOSED, Condition.HALTED)


@attrs.define(eq=False)
class _Flight:
    """The records of one append."""

    started_at: Instant
    is_apart: bool
    sent: list[_Sent] = attrs.Factory(list)
    size: int = 0

    def has_room(self, size: int, records_max: int) -> bool:
        """Whether a record of that size still fits; the first always does."""
        return not self.sent or (len(self.sent) < records_max and self.size + size <= APPEND_BYTES_MAX)

    def add(self, sent: _Sent) -> None:
        self.sent.append(sent)
        self.size += size_of(sent.record)


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
        """After the actor was told and what waited was delivered, still inside the same turn."""
        self._on_lost = on_lost
        """The partition is somebody else's now, or its outcome could not be found out in time."""
        self._lanes = store.lanes
        self._waiting: dict[int, PartitionActor] = {}
        """Those that may share an append with everybody."""
        self._waiting_apart: dict[int, PartitionActor] = {}
        self._suspects: dict[int, None] = {}
        self._outstanding: dict[int, _Sent] = {}
        """In flight, or to be sent again: one a partition."""
        self._again: list[_Sent] = []
        """Of these, those that wait for their next try."""
        self._common: _Flight | None = None
        """The append that gathers everybody, while it is on time: the next of its kind waits for it."""
        self._pace = Pace()
        self._is_pausing = False
        """A lane sleeps until the next common append may begin."""
        self._refusals = 0
        """Common flights that failed, in a row."""
        self._refused_until = Instant(0)
        self._flying = 0
        self._resting: list[trio.Event] = []
        """Of the lanes that have nothing to do."""
        self._is_roused = False
        """One of them was told to look, and has not yet."""
        self._departed = trio.Event()
        self._is_settling = False
        self.appends = 0
        self.records = 0

    @property
    def is_refused(self) -> bool:
        """The store took none of the last append for all."""
        return self._refusals > 0

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._waiting_apart and not self._outstanding

    def is_outstanding(self, actor: PartitionActor) -> bool:
        """A record of it is in flight, or is to be sent again."""
        sent = self._outstanding.get(actor.partition)
        return sent is not None and sent.actor is actor

    def wake(self, actor: PartitionActor) -> None:
        """The actor has a pending record."""
        partition = actor.partition
        before = self._outstanding.get(partition)
        if before is not None:
            # Its next record is sealed when this one is in.
            if before.actor is not actor:
                before.successor = actor
            return
        if partition in self._suspects:
            self._waiting_apart[partition] = actor
        else:
            self._waiting[partition] = actor
            if self._common is not None or self._is_pausing:
                return
        self._rouse()

    def forget(self, actor: PartitionActor) -> None:
        """The actor was closed."""
        partition = actor.partition
        for waiting in (self._waiting, self._waiting_apart):
            if waiting.get(partition) is actor:
                del waiting[partition]
        self._suspects.pop(partition, None)
        sent = self._outstanding.get(partition)
        if sent is not None and sent.actor is actor:
            sent.is_abandoned = True

    # --- lanes ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Append for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._lanes):
                nursery.start_soon(self._lane, name="log lane")
            if self._lanes > 1:
                nursery.start_soon(self._watch, name="log watch")

    async def _lane(self) -> None:
        while True:
            flight = self._next_flight()
            if flight is None:
                await self._rest()
                continue
            if self._waiting or self._waiting_apart or self._again:
                # Another lane sees to what is left, if only to its time.
                self._rouse()
            await self._fly(flight)

    def _rouse(self) -> None:
        """Let a resting lane look what there is to do, unless one is about to: roused before, or just
        landed."""
        if self._resting and not self._is_settling and not self._is_roused:
            self._is_roused = True
            self._resting.pop().set()

    async def _rest(self) -> None:
        """Until there may be something to do."""
        roused = trio.Event()
        self._resting.append(roused)
        times = []
        if self._again and self._has_room(is_apart=True):
            times.append(min(sent.not_before for sent in self._again))
        if self._waiting and self._common is None:
            times.append(self._not_before)
            self._is_pausing = True
        if times:
            with trio.move_on_after(max(0.0, seconds(Duration(min(times) - self._env.clock.now())))):
                await roused.wait()
            self._is_pausing = False
        else:
            await roused.wait()
        if roused.is_set():
            self._is_roused = False
        else:
            self._resting.remove(roused)

    async def _watch(self) -> None:
        """See to it that a common flight that is late holds up no other."""
        while True:
            flight = self._common
            if flight is None:
                self._departed = trio.Event()
                await self._departed.wait()
                continue
            await self._env.clock.sleep(APPEND_PATIENCE)
            if self._common is flight:
                self._common = None
                self._rouse()

    @property
    def _not_before(self) -> Instant:
        """When the next append for all may begin."""
        return max(self._refused_until, self._pace.next_at)

    def _has_room(self, *, is_apart: bool) -> bool:
        """Whether another flight may start: those apart leave a lane to the common one."""
        return self._flying + (1 if is_apart and self._lanes > 1 else 0) < self._lanes

    def _next_flight(self) -> _Flight | None:
        """What is to be sent now, sealed and outstanding."""
        now = self._env.clock.now()
        flight = None
        if self._lanes == 1:
            flight = _Flight(now, is_apart=False)
            self._add_again(flight, now, APPEND_PARTITIONS_MAX)
            if now >= self._not_before:
                self._seal(flight, self._waiting, APPEND_PARTITIONS_MAX)
        elif self._waiting and self._common is None and now >= self._not_before:
            flight = _Flight(now, is_apart=False)
            self._seal(flight, self._waiting, APPEND_PARTITIONS_MAX)
            if flight.sent and not self._waiting:
                self._common = flight
                self._departed.set()
        if (flight is None or not flight.sent) and self._has_room(is_apart=True):
            flight = self._next_apart(now)
        if flight is None or not flight.sent:
            return None
        return flight

    def _next_apart(self, now: Instant) -> _Flight:
        """A lane's share of the suspects."""
        flight = _Flight(now, is_apart=True)
        free = max(1, self._lanes - 1 - self._flying)
        due = sum(1 for sent in self._again if sent.not_before <= now)
        share = min(APPEND_PARTITIONS_MAX, -(-(due + len(self._waiting_apart)) // free))
        self._add_again(flight, now, share)
        self._seal(flight, self._waiting_apart, share)
        return flight

    def _add_again(self, flight: _Flight, now: Instant, records_max: int) -> None:
        later = []
        for sent in self._again:
            if sent.not_before <= now and flight.has_room(size_of(sent.record), records_max):
                flight.add(sent)
            else:
                later.append(sent)
        self._again = later

    def _seal(self, flight: _Flight, waiting: dict[int, PartitionActor], records_max: int) -> None:
        taken = []
        for partition, actor in waiting.items():
            if not flight.has_room(actor.pending_bytes, records_max):
                break
            taken.append(partition)
            if not actor.has_pending or not actor.is_open:
                continue
            try:
                record = actor.seal(flight.started_at)
            except InvariantViolation as error:
                actor.halt(str(error))
                continue
            sent = _Sent(actor, record)
            self._outstanding[partition] = sent
            flight.add(sent)
        for partition in taken:
            del waiting[partition]

    # --- verdicts -------------------------------------------------------------------------------

    async def _fly(self, flight: _Flight) -> None:
        self._flying += 1
        if not flight.is_apart:
            self._pace.began((sent.actor.partition for sent in flight.sent), flight.started_at)
        try:
            verdicts = await self._store.append([sent.record for sent in flight.sent])
        except (LogUnavailable, AppendOutcomeUnknown) as error:
            self._landed(flight)
            self._refused(flight, str(error))
        else:
            self._landed(flight)
            self._is_settling = True
            self._settle(flight, verdicts)
            self._is_settling = False

    def _landed(self, flight: _Flight) -> None:
        self._flying -= 1
        if self._common is flight:
            self._common = None

    def _refused(self, flight: _Flight, reason: str) -> None:
        """Nothing was written, or nobody knows: keep the bytes."""
        telemetry.emit("log.append.failed", store=self._store.name, error=reason)
        now = self._env.clock.now()
        if not flight.is_apart:
            self._refusals += 1
            self._refused_until = Instant(now + _backoff(self._refusals, _BACKOFF_MAX))
        for sent in flight.sent:
            if not sent.is_moot:
                sent.actor.append_failed(reason)
            self._keep(sent, now, reason, _BACKOFF_MAX)

    def _settle(self, flight: _Flight, verdicts: list[Verdict]) -> None:
        self.appends += 1
        self.records += len(flight.sent)
        self._refusals, self._refused_until = 0, Instant(0)
        now = self._env.clock.now()
        is_late = now - flight.started_at > APPEND_PATIENCE
        committed: list[PartitionActor] = []
        leaving: list[Parcel] = []
        for sent, verdict in zip(flight.sent, verdicts, strict=True):
            if verdict is Verdict.BUSY:
                if sent.tries and not sent.is_moot:
                    sent.actor.append_failed(_BUSY)
                self._keep(sent, now, _BUSY, _BUSY_BACKOFF_MAX)
                continue
            self._suspect(sent, is_late=is_late)
            self._finish(sent)
            if sent.is_moot:
                continue
            actor = sent.actor
            if verdict is Verdict.MINE:
                leaving += actor.committed(now)
                committed.append(actor)
                if actor.has_pending:
                    self.wake(actor)
            else:
                self._on_lost(actor, "another node owns the partition now")
        # Whoever asked several partitions hears of all of them at once; and before anything is decided anew.
        deliver(leaving)
        for actor in committed:
            self._on_committed(actor)

    def _suspect(self, sent: _Sent, *, is_late: bool) -> None:
        if self._lanes > 1 and is_late and not sent.is_moot:
            self._suspects[sent.actor.partition] = None
        elif self._suspects:
            self._suspects.pop(sent.actor.partition, None)

    def _keep(self, sent: _Sent, now: Instant, reason: str, backoff_max: Duration) -> None:
        """Send it again in a while, unless nobody waits for it or the hold is over."""
        if sent.is_moot:
            self._finish(sent)
            return
        if not sent.tries:
            sent.failing_since = now
        if now - sent.failing_since > HOLD_TIMEOUT:
            self._finish(sent)
            self._on_lost(sent.actor, reason)
            return
        sent.tries += 1
        sent.not_before = Instant(now + _backoff(sent.tries, backoff_max))
        self._again.append(sent)
        self._suspect(sent, is_late=True)

    def _finish(self, sent: _Sent) -> None:
        """It is not outstanding any more."""
        del self._outstanding[sent.actor.partition]
        if sent.successor is not None:
            self.wake(sent.successor)


def _backoff(tries: int, longest: Duration) -> Duration:
    return Duration(min(_BACKOFF_MIN << min(tries - 1, 10), longest))
