"""The broker: everything of a node that is between the doors and the log, one turn at a time.

A turn is what a door does between ``begin_turn`` and ``end_turn``: decide, evolve, park. Turns are
synchronous, so they never interleave. At a turn's end what became ready is matched with demand, and the
log writers learn who has something to write.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Final

import attrs

from querator import telemetry
from querator.actors.alarms import Alarms
from querator.actors.partition import Parcel, PartitionActor, ReserveNow
from querator.actors.ports import (
    Delivery,
    HeldReservation,
    QueueStats,
    Requester,
    ReserveRequest,
    SubscriptionRequest,
)
from querator.actors.queue import HeldCall, QueueRuntime
from querator.actors.writer import LogWriter
from querator.core.commands import Command, Produce, ReadStats, Settle, SettlePlaces
from querator.core.demand import Parked, Subscription
from querator.core.ids import (
    SECOND,
    Duration,
    Instant,
    ItemNumber,
    PartitionId,
    QueueName,
    ReservationNumber,
    SessionId,
)
from querator.core.limits import (
    IN_FLIGHT_ITEMS_MAX,
    RESERVATION_END_LAG,
    SESSION_GRACE,
    STATS_WAIT,
    WINDOW_BYTES_MAX,
)
from querator.core.replies import Code, Done, PartitionStats, Rejected
from querator.env import Env

_OF_PARTITION: Final = 0
_OF_QUEUE: Final = 1
_OF_SESSION: Final = 2
_OF_STATS: Final = 3
_KINDS: Final = 4
"""An alarm's key is number * 4 + kind."""

PAYLOAD_WAIT: Final = Duration(5 * SECOND)
"""How long a request that would not wait waits for payloads to be read from the log."""

LOST: Final = Rejected(Code.RESERVATION_LOST, "the reservation ended or was never yours", "token")


@attrs.define(eq=False)
class SessionEntry:
    """A session as the broker knows it: across reconnects, until its grace is over."""

    number: int
    requester: Requester
    subscriptions: dict[int, tuple[QueueRuntime, Subscription[Requester]]] = attrs.Factory(dict)
    broken: dict[int, Subscription[Requester]] = attrs.Factory(dict)
    """Subscriptions of a lost connection: what they have in flight counts in the window of a new
    one of the same id."""
    undelivered: tuple[ReservationNumber, ...] = ()
    is_lost: bool = False


class Broker:
    """Implements BrokerPort. Queues and actors are put in by the supervisor."""

    def __init__(
        self, env: Env, *, grace: Duration = SESSION_GRACE, end_lag: Duration = RESERVATION_END_LAG
    ) -> None:
        self._env = env
        self._grace = grace
        self._end_lag = end_lag
        self.now = env.clock.now()
        self.queues: dict[QueueName, QueueRuntime] = {}
        self.actors: dict[PartitionId, PartitionActor] = {}
        self.writers: dict[str, LogWriter] = {}
        self.sessions: dict[SessionId, SessionEntry] = {}
        self._session_of_number: dict[int, SessionId] = {}
        self._queue_of_number: dict[int, QueueRuntime] = {}
        self._numbers = count(1)
        self.alarms = Alarms(env, self._alarmed)
        self._touched: dict[PartitionId, PartitionActor] = {}
        self._to_match: dict[int, QueueRuntime] = {}
        self._unsent: dict[PartitionId, list[Parcel]] = {}
        """Of partitions that closed here: for the actor that opens them next."""
        self.retiring: dict[PartitionId, PartitionActor] = {}
        """Of queues that are gone: they end when what was decided is in the log, or is given up."""
        self.is_closing = False
        self.in_flight = 0
        """Reserved items of all partitions here, as of the last turn."""
        self._was_full = False
        self.starved: Callable[[PartitionActor], None] = _ignore
        """Told when a line waits for payloads."""
        self.leaving: Callable[[PartitionActor], None] = _ignore
        """Told when a partition has dead items for another one."""
        self.halted: Callable[[PartitionActor, str], None] = _ignore_fault
        self.recalls: Callable[[PartitionActor, Requester, int, Settle], bool] = _recalls_nothing
        """Asked who will answer for a reservation that memory has forgotten; False: memory."""
        self.may_decide: Callable[[], Rejected | None] = _always
        """Asked at the beginning of each turn: why nothing may be decided or answered in it."""
        self._barred: Rejected | None = None
        self._gatherings: dict[int, _StatsGathering] = {}

    # --- turns ----------------------------------------------------------------------------------

    def begin_turn(self) -> Instant:
        self.now = self._env.clock.now()
        self._barred = self.may_decide()
        return self.now

    def end_turn(self) -> None:
        if self._to_match:
            queues, self._to_match = self._to_match, {}
            for queue in queues.values():
                self._match(queue)
        if self._touched:
            touched, self._touched = self._touched, {}
            for actor in touched.values():
                self._finish(actor)
            if self._was_full and self.in_flight < IN_FLIGHT_ITEMS_MAX:
                # Whoever was passed over while the node was full is looked at again.
                self._was_full = False
                for queue in self.queues.values():
                    if queue.demand.wants:
                        self.to_match(queue)
                self.end_turn()

    def _match(self, queue: QueueRuntime) -> None:
        demand = queue.demand
        demand.woken = False
        if self.in_flight >= IN_FLIGHT_ITEMS_MAX:
            self._was_full = True
        elif queue.held is None and demand.wants:
            if demand.parked and len(queue.actors) > 1:
                self._match_parked(queue)
            for actor in queue.actors:
                if actor is not None and actor.state.line.count and demand.wants:
                    # ``_guard`` in place, as in ``_submit``.
                    try:
                        self.touch(actor).match()
                    except Exception as error:  # noqa: BLE001  # as in _guard
                        self._halt(actor, error)
        wait_ends = demand.next_at()
        # A wait is over when its end is past; an alarm at the end itself would ring in vain.
        self.alarms.set(queue.number * _KINDS + _OF_QUEUE, None if wait_ends is None else wait_ends + 1)

    def _match_parked(self, queue: QueueRuntime) -> None:
        """Parked requests go each to the fullest partition, as requests that come one by one do."""
        actors = [actor for actor in queue.open_actors() if actor.ready and not actor.state.paused]
        if len(actors) < 2:
            return
        lots = queue.demand.spread([actor.ready for actor in actors])
        for actor, lot in zip(actors, lots, strict=True):
            with self._guard(actor):
                self.touch(actor).match_parked(lot)

    def _finish(self, actor: PartitionActor) -> None:
        if actor.has_pending:
            self.writers[actor.store_name].wake(actor)
        state = actor.state
        self.in_flight += state.reserved - actor.reserved_counted
        actor.reserved_counted = state.reserved
        if state.starved is not None and actor.is_open:
            self.starved(actor)
        if state.leaving:
            self.leaving(actor)
        self.alarms.set(actor.partition * _KINDS + _OF_PARTITION, actor.next_due_at(self._end_lag))

    @contextmanager
    def _guard(self, actor: PartitionActor) -> Iterator[None]:
        """A bug in one partition's decisions halts that partition, not the node."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the boundary that contains a partition's failure
            self._halt(actor, error)

    def _halt(self, actor: PartitionActor, error: Exception) -> None:
        telemetry.emit("partition.halted", partition=actor.partition, error=repr(error))
        actor.halt(f"{type(error).__name__}: {error}")
        actor.free_windows()
        self.halted(actor, repr(error))

    def touch(self, actor: PartitionActor) -> PartitionActor:
        """The actor takes part in this turn. Its time never goes back, whatever the clock says."""
        actor.now = max(self.now, actor.state.now)
        self._touched[actor.partition] = actor
        return actor

    def to_match(self, queue: QueueRuntime) -> None:
        self._to_match[queue.number] = queue

    def committed(self, actor: PartitionActor) -> None:
        """A record of the actor was committed: more may be decided (a stalled turn, moves, releases)."""
        if self.retiring.get(actor.partition) is actor:
            if not actor.has_pending:
                self.end_retiring(actor)
            return
        if actor.is_untimed:
            # While the append failed or stalled, nothing was to end, so no alarm was set.
            self.alarms.set(actor.partition * _KINDS + _OF_PARTITION, actor.next_due_at(self._end_lag))
        queue = self.queues.get(QueueName(actor.queue))
        if (
            actor.state.starved is not None
            or actor.state.leaving
            or (queue is not None and queue.demand.wants and actor.ready)
        ):
            self.begin_turn()
            self.touch(actor)
            if queue is not None:
                self.to_match(queue)
            self.end_turn()

    # --- what the doors ask ------------------------------------------------------------------------

    def _queue(self, requester: Requester, request: int, name: QueueName) -> QueueRuntime | None:
        queue = self.queues.get(name)
        if queue is None or self.is_closing or queue.is_closing or self._barred is not None:
            if self._barred is not None:
                refusal = self._barred
            elif self.is_closing:
                refusal = Rejected(Code.SHUTTING_DOWN, "service is shutting down")
            elif queue is not None:
                refusal = Rejected(Code.SHUTTING_DOWN, "queue is shutting down", "queue")
            else:
                refusal = Rejected(Code.UNKNOWN_QUEUE, f"there is no queue named '{name}'", "queue")
            requester.deliver([(request, refusal)])
            return None
        return queue

    def produce(
        self,
        requester: Requester,
        request: int,
        queue: QueueName,
        command: Produce,
        partition: PartitionId | None,
    ) -> None:
        runtime = self._queue(requester, request, queue)
        if runtime is None:
            return
        if runtime.held is not None:
            let_in = partial(self._produce, runtime, requester, request, command, partition)
            runtime.held.append(HeldCall(0, requester, request, let_in))
            return
        self._produce(runtime, requester, request, command, partition)

    def _produce(
        self,
        queue: QueueRuntime,
        requester: Requester,
        request: int,
        command: Produce,
        partition: PartitionId | None,
    ) -> None:
        if partition is None:
            found = queue.route(command.attributes)
            if isinstance(found, Rejected):
                requester.deliver([(request, found)])
                return
            actor = found
        else:
            pinned = self.actors.get(partition)
            if pinned is None or pinned.queue != queue.name:
                requester.deliver([(request, self._absent(partition, queue))])
                return
            actor = pinned
        self._submit(actor, requester, request, command)
        if queue.demand.wants:
            self.to_match(queue)

    def _absent(self, partition: PartitionId, queue: QueueRuntime | None) -> Rejected:
        if queue is not None and partition not in queue.partitions:
            return Rejected(
                Code.INVALID, f"partition {partition} is not one of queue '{queue.name}'", "partition"
            )
        for runtime in self.queues.values():
            if partition in runtime.partitions:
                fault = runtime.faults.get(runtime.partitions.index(partition))
                if fault is not None:
                    return Rejected(Code.HALTED, f"partition {partition} is halted: {fault}")
        return Rejected(Code.UNAVAILABLE, f"partition {partition} is not available; try again")

    def settle(self, requester: Requester, request: int, partition: PartitionId, command: Settle) -> None:
        actor = self.actors.get(partition)
        if self._barred is not None:
            requester.deliver([(request, self._barred)])
            return
        if actor is None:
            known = any(partition in queue.partitions for queue in self.queues.values())
            requester.deliver([(request, self._absent(partition, None) if known else LOST)])
            return
        queue = self.queues[QueueName(actor.queue)]
        if command.reservation < actor.state.settled.floor and self.recalls(
            actor, requester, request, command
        ):
            return
        if queue.held is not None:
            let_in = partial(self._command, actor, requester, request, command)
            queue.held.append(HeldCall(1, requester, request, let_in))
            return
        self._command(actor, requester, request, command)

    def command(self, requester: Requester, request: int, partition: PartitionId, command: Command) -> None:
        actor = self.actors.get(partition)
        if actor is None or self._barred is not None:
            requester.deliver([(request, self._barred or self._absent(partition, None))])
            return
        if type(command) is SettlePlaces:
            queue = self.queues.get(QueueName(actor.queue))
            if queue is not None and queue.held is not None:
                let_in = partial(self._command, actor, requester, request, command)
                queue.held.append(HeldCall(1, requester, request, let_in))
                return
        self._command(actor, requester, request, command)

    def impose(self, requester: Requester, request: int, partition: PartitionId, command: Command) -> None:
        """What the catalog says: also while the partition's store takes no appends."""
        actor = self.actors.get(partition)
        if actor is None or self._barred is not None:
            requester.deliver([(request, self._barred or self._absent(partition, None))])
            return
        with self._guard(actor):
            self.touch(actor).impose(requester, request, command)
        self._rematch(actor)

    def _submit(self, actor: PartitionActor, requester: Requester, request: int, command: Command) -> None:
        # ``_guard`` in place: this is the way of every command, and a context manager costs a microsecond.
        try:
            self.touch(actor).submit(requester, request, command)
        except Exception as error:  # noqa: BLE001  # as in _guard
            self._halt(actor, error)

    def _command(self, actor: PartitionActor, requester: Requester, request: int, command: Command) -> None:
        self._submit(actor, requester, request, command)
        queue = self.queues.get(QueueName(actor.queue))
        if queue is not None and queue.demand.wants:
            self.to_match(queue)

    def reserve(self, requester: Requester, request: int, queue: QueueName, reserve: ReserveRequest) -> None:
        runtime = self._queue(requester, request, queue)
        if runtime is None:
            return
        demand = runtime.demand
        if reserve.client and reserve.client in demand.clients:
            requester.deliver(
                [(request, Rejected(Code.INVALID, "another request of this client waits here", "client"))]
            )
            return
        is_full = self.in_flight >= IN_FLIGHT_ITEMS_MAX
        if is_full and reserve.deadline <= self.now:
            full = f"{IN_FLIGHT_ITEMS_MAX} items are reserved on this node, its limit; settle some"
            requester.deliver([(request, Rejected(Code.LIMIT_EXCEEDED, full))])
            return
        if runtime.held is None and not demand.parked and not is_full:
            actor = runtime.fullest()
            if actor is not None:
                asked = ReserveNow(
                    reserve.items_max, reserve.reservation_timeout, reserve.held, reserve.bytes_max
                )
                served = False
                with self._guard(actor):
                    served = self.touch(actor).reserve(requester, request, asked)
                if served:
                    return
        deadline = reserve.deadline
        if deadline <= self.now and any(
            actor.ready and actor.state.starved is not None for actor in runtime.open_actors()
        ):
            # Something is ready, but its payload must be read first: that is not "nothing".
            deadline = Instant(self.now + PAYLOAD_WAIT)
        if deadline <= self.now:
            refusal = runtime.emptiest()
            if not isinstance(refusal, Rejected):
                refusal = Rejected(Code.NOTHING_READY, "nothing is ready")
            requester.deliver([(request, refusal)])
            return
        if demand.is_full:
            requester.deliver(
                [(request, Rejected(Code.OVERLOADED, "too many wait on this queue; try again"))]
            )
            return
        demand.park(
            Parked(
                requester,
                request,
                reserve.items_max,
                deadline,
                reserve.reservation_timeout,
                reserve.client,
                held=reserve.held,
                bytes_max=reserve.bytes_max,
                since=self.now,
            )
        )
        self.to_match(runtime)

    def withdraw(self, requester: Requester, request: int, refusal: Rejected) -> None:
        for queue in self.queues.values():
            for parked in list(queue.demand.parked.values()):
                if parked.asker is requester and parked.request == request:
                    queue.demand.unpark(parked)
                    requester.deliver([(request, refusal)])

    def subscribe(
        self, requester: Requester, subscription: int, queue: QueueName, wanted: SubscriptionRequest
    ) -> None:
        runtime = self._queue(requester, subscription, queue)
        if runtime is None:
            return
        entry = self._enter(requester)
        if subscription in entry.subscriptions:
            requester.deliver(
                [(subscription, Rejected(Code.INVALID, "this id names a subscription already", "id"))]
            )
            return
        if runtime.demand.is_full:
            requester.deliver(
                [(subscription, Rejected(Code.OVERLOADED, "too many wait on this queue; try again"))]
            )
            return
        made: Subscription[Requester] = Subscription(
            requester,
            subscription,
            window=wanted.window,
            window_bytes=wanted.window_bytes or WINDOW_BYTES_MAX,
            batch=wanted.batch,
            linger=wanted.linger,
            timeout=wanted.reservation_timeout,
            held=wanted.held,
        )
        broken = entry.broken.pop(subscription, None)
        if broken is not None:
            made.inherit(broken)
        for actor in runtime.open_actors():
            actor.adopt(requester.session, made)
        entry.subscriptions[subscription] = (runtime, made)
        requester.deliver([(subscription, Done())])
        runtime.demand.subscribe(made)
        self.to_match(runtime)

    def unsubscribe(self, requester: Requester, request: int, subscription: int) -> None:
        entry = self.sessions.get(requester.session)
        found = entry.subscriptions.pop(subscription, None) if entry is not None else None
        if found is None:
            refusal = Rejected(
                Code.UNKNOWN_SUBSCRIPTION, f"there is no subscription {subscription}", "subscription"
            )
            requester.deliver([(request, refusal)])
            return
        found[0].demand.unsubscribe(found[1])
        requester.deliver([(request, Done())])

    def watch_item(
        self, requester: Requester, request: int, partition: PartitionId, item: ItemNumber
    ) -> None:
        actor = self.actors.get(partition)
        if actor is None:
            unknown = Rejected(Code.UNKNOWN_ITEM, f"there is no partition {partition}", "partition")
            known = any(partition in queue.partitions for queue in self.queues.values())
            requester.deliver([(request, self._absent(partition, None) if known else unknown)])
            return
        actor.watch(requester, request, item)

    def unwatch_item(self, requester: Requester, request: int, partition: PartitionId) -> None:
        actor = self.actors.get(partition)
        if actor is not None:
            actor.unwatch(requester, request)

    def partitions(self, queue: QueueName) -> list[PartitionId] | None:
        runtime = self.queues.get(queue)
        return None if runtime is None else list(runtime.partitions)

    def demand_counts(self, queue: QueueName) -> tuple[int, int]:
        """(subscriptions, parked requests) of the queue on this node."""
        runtime = self.queues.get(queue)
        if runtime is None:
            return 0, 0
        return len(runtime.demand.subscriptions), len(runtime.demand.parked)

    def stats(self, requester: Requester, request: int, queue: QueueName) -> None:
        runtime = self._queue(requester, request, queue)
        if runtime is None:
            return
        gathering = _StatsGathering(self, requester, request, runtime)
        for partition in runtime.partitions:
            self.command(gathering, 0, partition, ReadStats())
        if gathering.is_open and len(runtime.partitions) > 1:
            number = gathering.number = next(self._numbers)
            self._gatherings[number] = gathering
            self.alarms.set(number * _KINDS + _OF_STATS, self.now + STATS_WAIT)

    def end_gathering(self, gathering: "_StatsGathering") -> None:
        if self._gatherings.pop(gathering.number, None) is not None:
            self.alarms.set(gathering.number * _KINDS + _OF_STATS, None)

    # --- sessions ---------------------------------------------------------------------------------

    def _enter(self, requester: Requester) -> SessionEntry:
        entry = self.sessions.get(requester.session)
        if entry is None:
            number = next(self._numbers)
            entry = SessionEntry(number, requester)
            self.sessions[requester.session] = entry
            self._session_of_number[number] = requester.session
        return entry

    def session_of(self, session: SessionId) -> Requester | None:
        """The live connection of a session, if it has one."""
        entry = self.sessions.get(session)
        return None if entry is None or entry.is_lost else entry.requester

    def session_opened(self, requester: Requester) -> None:
        """A session may be told of what it loses from here on."""
        self._enter(requester)

    def session_resumed(self, requester: Requester) -> list[HeldReservation]:
        entry = self._enter(requester)
        entry.requester = requester
        entry.is_lost = False
        entry.undelivered = ()
        self.alarms.set(entry.number * _KINDS + _OF_SESSION, None)
        held: list[HeldReservation] = []
        for actor in self.actors.values():
            numbers = actor.state.by_session.get(requester.session)
            if not numbers:
                continue
            with self._guard(actor):
                self.touch(actor).resume_session(requester.session, requester.generation)
            for number in numbers:
                reservation = actor.state.reservations[number]
                held.append(
                    HeldReservation(
                        QueueName(actor.queue),
                        actor.partition,
                        ReservationNumber(number),
                        reservation.nonce,
                        list(reservation.open_ranges()),
                        Instant(reservation.deadline),
                    )
                )
        return held

    def session_lost(
        self, session: SessionId, generation: int, undelivered: Sequence[ReservationNumber] = ()
    ) -> None:
        entry = self.sessions.get(session)
        if entry is None or entry.requester.generation != generation or entry.is_lost:
            return
        entry.is_lost = True
        entry.undelivered = tuple(undelivered)
        self._drop_parked(entry.requester)
        for number, (runtime, subscription) in entry.subscriptions.items():
            runtime.demand.unsubscribe(subscription)
            if subscription.in_flight:
                entry.broken[number] = subscription
        entry.subscriptions.clear()
        self.alarms.set(entry.number * _KINDS + _OF_SESSION, self._env.clock.now() + self._grace)

    def holds(
        self, session: SessionId, partition: PartitionId, reservation: ReservationNumber, nonce: int
    ) -> bool:
        actor = self.actors.get(partition)
        found = None if actor is None else actor.state.reservations.get(reservation)
        return found is not None and (found.session, found.nonce) == (session, nonce)

    def unconfirmed(self, partition: PartitionId, reservation: ReservationNumber, nonce: int) -> None:
        actor = self.actors.get(partition)
        if actor is not None:
            with self._guard(actor):
                self.touch(actor).end_unconfirmed(reservation, nonce)
            self._rematch(actor)

    def session_closed(self, requester: Requester) -> None:
        self._drop_parked(requester)
        entry = self.sessions.get(requester.session) if requester.session else None
        if entry is None or entry.requester is not requester:
            return
        self._forget_session(requester.session, entry)
        for actor in list(self.actors.values()):
            if requester.session in actor.state.by_session and actor.is_alive:
                with self._guard(actor):
                    self.touch(actor).release_session(requester.session, "client")
                self._rematch(actor)

    def _drop_parked(self, requester: Requester) -> None:
        for queue in self.queues.values():
            for parked in [parked for parked in queue.demand.parked.values() if parked.asker is requester]:
                queue.demand.unpark(parked)

    def _forget_session(self, session: SessionId, entry: SessionEntry) -> None:
        self.alarms.set(entry.number * _KINDS + _OF_SESSION, None)
        self.sessions.pop(session, None)
        self._session_of_number.pop(entry.number, None)
        for runtime, subscription in entry.subscriptions.values():
            runtime.demand.unsubscribe(subscription)

    def _end_session(self, session: SessionId) -> None:
        """The grace is over."""
        entry = self.sessions.get(session)
        if entry is None or not entry.is_lost:
            return
        self._forget_session(session, entry)
        for actor in list(self.actors.values()):
            if session in actor.state.by_session and actor.is_alive:
                with self._guard(actor):
                    self.touch(actor).end_session(session, entry.undelivered)
                self._rematch(actor)

    def _rematch(self, actor: PartitionActor) -> None:
        queue = self.queues.get(QueueName(actor.queue))
        if queue is not None:
            self.to_match(queue)

    # --- time ---------------------------------------------------------------------------------------

    def _alarmed(self, keys: list[int]) -> None:
        self.begin_turn()
        for key in keys:
            number, kind = divmod(key, _KINDS)
            if kind == _OF_PARTITION:
                actor = self.actors.get(PartitionId(number))
                if actor is not None:
                    with self._guard(actor):
                        self.touch(actor).run_due(self._end_lag)
                    self._rematch(actor)
        # What became ready at this moment goes to those who wait before their waits end.
        self.end_turn()
        self.begin_turn()
        for key in keys:
            number, kind = divmod(key, _KINDS)
            if kind == _OF_QUEUE:
                queue = self._queue_of_number.get(number)
                if queue is not None:
                    self._overdue(queue)
            elif kind == _OF_SESSION:
                session = self._session_of_number.get(number)
                if session is not None:
                    self._end_session(session)
            elif kind == _OF_STATS:
                gathering = self._gatherings.get(number)
                if gathering is not None:
                    gathering.wait_no_more()
        self.end_turn()

    def _overdue(self, queue: QueueRuntime) -> None:
        # Also while an operator holds the queue: a request's time is its own.
        for parked in queue.demand.overdue(self.now):
            queue.demand.unpark(parked)
            parked.asker.deliver(
                [(parked.request, Rejected(Code.NOTHING_READY, "nothing became ready in time"))]
            )
        self.to_match(queue)

    # --- what the supervisor does ---------------------------------------------------------------------

    def add_queue(self, name: QueueName, partitions: tuple[PartitionId, ...]) -> QueueRuntime:
        queue = QueueRuntime(name, next(self._numbers), partitions)
        self.queues[name] = queue
        self._queue_of_number[queue.number] = queue
        return queue

    def remove_queue(self, name: QueueName, code: Code, detail: str) -> None:
        """The queue is gone: those who wait on it are told."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return
        queue.is_closing = True
        del self._queue_of_number[queue.number]
        self._to_match.pop(queue.number, None)
        self.alarms.set(queue.number * _KINDS + _OF_QUEUE, None)
        self.refuse_waiting(queue, code, detail)
        for entry in self.sessions.values():
            for number in [number for number, (held, _) in entry.subscriptions.items() if held is queue]:
                del entry.subscriptions[number]
                if not entry.is_lost:
                    entry.requester.deliver([(number, Rejected(code, detail, "queue"))])
        for actor in queue.open_actors():
            self._retire(actor)
        for partition in queue.partitions:
            self._unsent.pop(partition, None)

    def _retire(self, actor: PartitionActor) -> None:
        """Its queue is gone. Those who wait for the commit of what they asked are still told of it."""
        writer = self.writers[actor.store_name]
        if actor.is_alive and (actor.has_pending or writer.is_outstanding(actor)):
            self.retiring[actor.partition] = actor
        else:
            actor.close(Code.OUTCOME_UNKNOWN, "the queue was deleted")
        self.remove_actor(actor)

    def end_retiring(self, actor: PartitionActor) -> None:
        """Nothing more of it gets into the log."""
        if self.retiring.pop(actor.partition, None) is actor:
            actor.close(Code.OUTCOME_UNKNOWN, "the queue was deleted")
            self.writers[actor.store_name].forget(actor)

    def refuse_waiting(self, queue: QueueRuntime, code: Code, detail: str) -> None:
        """Answer all that is parked or held there."""
        for parked in list(queue.demand.parked.values()):
            queue.demand.unpark(parked)
            parked.asker.deliver([(parked.request, Rejected(code, detail))])
        if queue.held is not None:
            kept, queue.held = queue.held, []
            for call in kept:
                call.requester.deliver([(call.request, Rejected(code, detail))])

    def add_actor(self, queue: QueueRuntime, actor: PartitionActor) -> None:
        """The partition is open here. Held reservations of sessions that are not here get one grace; those of
        a session that resumed while the partition was not open end: its client saw that they were not in
        the welcome, and gave them up."""
        queue.actors[actor.index] = actor
        self.actors[actor.partition] = actor
        self.begin_turn()
        for session in list(actor.state.by_session):
            there = self.sessions.get(SessionId(session))
            if there is not None:
                self.touch(actor).end_given_up(there.requester.session, there.requester.generation)
            else:
                entry = self._enter(_Absent(SessionId(session)))
                entry.is_lost = True
                self.alarms.set(entry.number * _KINDS + _OF_SESSION, self.now + self._grace)
        self.touch(actor).make_up(self._unsent.pop(actor.partition, ()))
        for entry in self.sessions.values():
            for runtime, subscription in entry.subscriptions.values():
                if runtime is queue:
                    actor.adopt(entry.requester.session, subscription)
        self.to_match(queue)
        self.end_turn()

    def release_forgotten(self, actor: PartitionActor) -> None:
        """An operator accepted that the partition's log lost its end."""
        self.begin_turn()
        with self._guard(actor):
            self.touch(actor).release_forgotten()
        self._rematch(actor)
        self.end_turn()

    def remove_actor(self, actor: PartitionActor) -> None:
        if self.actors.pop(actor.partition, None) is actor:
            self.in_flight -= actor.reserved_counted
            actor.reserved_counted = 0
        actor.free_windows()
        if actor.unsent:
            self._unsent[actor.partition] = actor.unsent
        self._touched.pop(actor.partition, None)
        self.alarms.set(actor.partition * _KINDS + _OF_PARTITION, None)
        if actor.partition not in self.retiring:
            self.writers[actor.store_name].forget(actor)
        queue = self.queues.get(QueueName(actor.queue))
        if queue is None:
            self._unsent.pop(actor.partition, None)
            return
        if queue.actors[actor.index] is actor:
            queue.actors[actor.index] = None
        self.to_match(queue)

    def hold(self, name: QueueName) -> None:
        """Keep what comes in for the queue until ``unhold``; reads and operators' calls go on."""
        queue = self.queues[name]
        if queue.held is None:
            queue.held = []

    def unhold(self, name: QueueName) -> None:
        """Let in what was kept: produces first, then settlements; then serve all that is parked."""
        queue = self.queues[name]
        kept, queue.held = queue.held or [], None
        self.begin_turn()
        for call in sorted(kept, key=attrgetter("order")):
            call.let_in()
        self.to_match(queue)
        self.end_turn()


@attrs.define(eq=False)
class _StatsGathering:
    """Collects the counters of a queue's partitions, each as of its committed position. A partition that
    does not answer is not waited for long, if another one has: a producer wants to know where to go."""

    broker: Broker
    requester: Requester
    request: int
    queue: QueueRuntime
    session: SessionId = SessionId("")
    generation: int = 0
    is_open: bool = True
    answers: list[PartitionStats | Rejected] = attrs.Factory(list)
    number: int = 0
    is_late: bool = False

    def deliver(self, deliveries: list[Delivery]) -> None:
        if not self.is_open:
            return
        for _, reply in deliveries:
            if isinstance(reply, Rejected | PartitionStats):
                self.answers.append(reply)
        if len(self.answers) >= len(self.queue.partitions) or (self.is_late and self._has_counters):
            self._finish()

    def wait_no_more(self) -> None:
        """What has answered is enough; if nothing has, the next that does."""
        self.is_late = True
        if self._has_counters:
            self._finish()

    @property
    def _has_counters(self) -> bool:
        return any(isinstance(answer, PartitionStats) for answer in self.answers)

    def _finish(self) -> None:
        self.is_open = False
        self.broker.end_gathering(self)
        subscriptions, parked = self.broker.demand_counts(self.queue.name)
        stats = [answer for answer in self.answers if isinstance(answer, PartitionStats)]
        stats.sort(key=_by_partition)
        faults = [answer for answer in self.answers if isinstance(answer, Rejected)]
        if faults and not stats:
            self.requester.deliver([(self.request, faults[0])])
            return
        self.requester.deliver(
            [(self.request, QueueStats(self.queue.name, list(stats), subscriptions, parked))]
        )


def _by_partition(stats: PartitionStats) -> int:
    return stats.partition


@attrs.define(eq=False)
class _Absent:
    """Stands for a session of an earlier owner that has not come back (yet)."""

    session: SessionId
    generation: int = -1
    is_open: bool = False

    def deliver(self, deliveries: object) -> None:
        """Nobody is there."""


def _always() -> Rejected | None:
    return None


def _ignore(actor: PartitionActor) -> None:
    del actor


def _ignore_fault(actor: PartitionActor, detail: str) -> None:
    del actor, detail


def _recalls_nothing(actor: PartitionActor, requester: Requester, request: int, command: Settle) -> bool:
    del actor, requester, request, command
    return False
