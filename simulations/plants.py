"""Planted bugs: what the simulator must find, or its checkers are for nothing.

Each is a plausible mistake, put into the production code from outside, by replacing a function for the
length of a run; nothing in ``querator/`` knows of it. ``python -m simulations --plant NAME`` searches for a
seed that shows it. Those that did are in ``planted.txt``, and are run again with every change.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias

import attrs
import trio

from querator.actors import claim as claiming
from querator.actors import partition as partitions
from querator.actors.alarms import Alarms
from querator.actors.broker import Broker
from querator.actors.buckets import BucketService
from querator.actors.moves import Mover
from querator.actors.ownership import Ownership
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.supervisor import Supervisor, ask
from querator.actors.writer import LogWriter
from querator.app import Application
from querator.client.connection import Connector
from querator.core import commands as cmd
from querator.core import decide as deciding
from querator.core import due as dues
from querator.core import events as ev
from querator.core import evolve as evolving
from querator.core import lanes, match
from querator.core import replies as rep
from querator.core import reserve as reserving
from querator.core.demand import Subscription
from querator.core.ids import SECOND, Duration, Instant, ItemNumber, PartitionId
from querator.core.segments import SEGMENT_BITS
from querator.core.state import PartitionState
from querator.env.virtual import SeededRng
from querator.errors import AppendOutcomeUnknown
from querator.log.lease import NodeLease
from querator.log.line import Role, Standing
from querator.log.records import Record, Tail
from querator.log.store import LogStore, Verdict
from querator.log.witness import Witness
from simulations.nodes import NodeRows

Patch: TypeAlias = Callable[[object, str, Any], None]
"""Replace an attribute (of a module, a class) or an entry of a dict, for now."""

PLANTS: Final[dict[str, Callable[[Patch], None]]] = {}


def plant(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Its name is the bug's, its docstring says what goes wrong."""
    PLANTS[function.__name__] = function
    return function


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is in the program for the block; ``""``: none is."""
    with ExitStack() as undo:

        def patch(owner: Any, attribute: str, replacement: Any) -> None:
            if isinstance(owner, dict):
                found = next(key for key in owner if getattr(key, "__name__", key) == attribute)
                undo.callback(owner.__setitem__, found, owner[found])
                owner[found] = replacement
            else:
                undo.callback(setattr, owner, attribute, getattr(owner, attribute))
                setattr(owner, attribute, replacement)

        if name:
            PLANTS[name](patch)
        yield


# --- what leaves when -----------------------------------------------------------------------------


@plant
def acknowledge_before_commit(patch: Patch) -> None:
    """Answers leave when they are decided."""
    patch(PartitionActor, "park", lambda _, requester, delivery: requester.deliver([delivery]))


@plant
def what_wrote_nothing_leaves_early(patch: Patch) -> None:
    """Answers without an event of their own do not wait for what they were decided upon."""
    original = PartitionActor.submit

    def submit(self: PartitionActor, requester: Any, request: int, command: cmd.Command) -> None:
        if self.is_open:
            events, reply = deciding.decide(self.state, command, self.now)
            if not events:
                requester.deliver([(request, reply)])
                return
        original(self, requester, request, command)

    patch(PartitionActor, "submit", submit)


# --- the append -----------------------------------------------------------------------------------


@attrs.define
class _Deceived:
    """A store as a mistaken log writer understands it."""

    store: LogStore
    deceive: Callable[[LogStore, Sequence[Record], LogWriter], Any]
    writer: LogWriter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        found: list[Verdict] = await self.deceive(self.store, records, self.writer)
        return found


def _deceive(patch: Patch, deceive: Callable[[LogStore, Sequence[Record], LogWriter], Any]) -> None:
    original = LogWriter.run

    async def run(self: LogWriter) -> None:
        self._store = _Deceived(self._store, deceive, self)
        await original(self)

    patch(LogWriter, "run", run)


@plant
def naive_tail_read_again(patch: Patch) -> None:
    """After an unknown outcome the tail is read; what is not there is held never to come."""

    async def append(store: LogStore, records: Sequence[Record], writer: LogWriter) -> list[Verdict]:
        try:
            return await store.append(records)
        except AppendOutcomeUnknown:
            verdicts: list[Verdict] = []
            for record in records:
                tail = await store.tail(record.partition)
                is_there = tail is not None and tail.hash == record.hash
                if not is_there:
                    writer._outstanding[record.partition].actor.close(rep.Code.HALTED, "not written")
                verdicts.append(Verdict.MINE if is_there else Verdict.NOT_MINE)
            return verdicts

    _deceive(patch, append)


@plant
def unknown_is_taken_for_committed(patch: Patch) -> None:
    """An outcome that nobody knows counts as success."""

    async def append(store: LogStore, records: Sequence[Record], writer: LogWriter) -> list[Verdict]:
        del writer
        try:
            return await store.append(records)
        except AppendOutcomeUnknown:
            return [Verdict.MINE] * len(records)

    _deceive(patch, append)


@plant
def fenced_owner_goes_on(patch: Patch) -> None:
    """A record that was refused counts as committed."""

    async def append(store: LogStore, records: Sequence[Record], writer: LogWriter) -> list[Verdict]:
        del writer
        verdicts = await store.append(records)
        return [Verdict.MINE if verdict is Verdict.NOT_MINE else verdict for verdict in verdicts]

    _deceive(patch, append)


@plant
def append_is_retried_without_a_pause(patch: Patch) -> None:
    """A store that refuses is asked again at once."""
    from querator.actors import writer

    patch(writer, "_BACKOFF_MIN", Duration(100))
    patch(writer, "_BACKOFF_MAX", Duration(100))


# --- claims ---------------------------------------------------------------------------------------


@plant
def claim_without_the_final_tail(patch: Patch) -> None:
    """When a claim meets another record, it moves behind it without reading it."""
    original = claiming.StateReader.read_to

    async def read_to(self: claiming.StateReader, store: LogStore, tail: Tail | None) -> None:
        if not self.position or tail is None:
            await original(self, store, tail)
        else:
            self.position, self.hash = tail.position, tail.hash
            self.state.position = tail.position

    patch(claiming.StateReader, "read_to", read_to)


@plant
def claims_share_a_nonce(patch: Patch) -> None:
    """The writer's nonce is the same for every claim."""
    patch(SeededRng, "nonce", lambda _: 4_711)


@plant
def claim_waits_for_ever(patch: Patch) -> None:
    """A claim that could not be written at once is tried again far too late."""
    patch(claiming, "_BACKOFF_MIN", Duration(600 * SECOND))
    patch(claiming, "_BACKOFF_MAX", Duration(600 * SECOND))


@plant
def lost_partition_stays_lost(patch: Patch) -> None:
    """An owner that was fenced does not claim again."""

    def lost(self: Supervisor, actor: PartitionActor, reason: str) -> None:
        actor.close(rep.Code.OUTCOME_UNKNOWN, reason)
        self._broker.remove_actor(actor)

    patch(Supervisor, "lost", lost)


@plant
def witness_looks_away(patch: Patch) -> None:
    """A log that lost its end is claimed and written on."""

    async def check(self: Witness, store: LogStore, partition: int, tail: Tail | None) -> None:
        del self, store, partition, tail

    patch(Witness, "check", check)
    patch(Witness, "position", lambda _self, _partition: 1 << 40)


# --- snapshots ------------------------------------------------------------------------------------


def _forget(patch: Patch, forget: Callable[[PartitionState], None]) -> None:
    original = claiming.load_slowly

    async def load_slowly(*arguments: Any) -> PartitionState:
        state = await original(*arguments)
        forget(state)
        return state

    patch(claiming, "load_slowly", load_slowly)


@plant
def snapshot_without_dedupe_keys(patch: Patch) -> None:
    """A state that came out of a snapshot knows no dedupe keys."""

    def forget(state: PartitionState) -> None:
        state.dedupe.clear()
        state.dedupe_order.clear()

    _forget(patch, forget)


@plant
def snapshot_without_producers(patch: Patch) -> None:
    """A state that came out of a snapshot does not remember what producers were answered."""
    _forget(patch, lambda state: state.producers.clear())


@plant
def snapshot_without_attempts(patch: Patch) -> None:
    """A state that came out of a snapshot counts attempts from the beginning."""
    _forget(patch, lambda state: state.attempts.clear())


# --- settling -------------------------------------------------------------------------------------


@plant
def token_is_not_compared(patch: Patch) -> None:
    """Whoever names a reservation is believed to hold it."""
    original = deciding.decide_settle

    def decide_settle(state: PartitionState, command: cmd.Settle, now: Instant) -> Any:
        reservation = state.reservations.get(command.reservation)
        if reservation is not None:
            command = attrs.evolve(command, nonce=reservation.nonce)
        return original(state, command, now)

    patch(deciding._DECIDE, "Settle", decide_settle)


@plant
def retired_id_is_believed(patch: Patch) -> None:
    """Over HTTP, the id of an item's first lease is good for its later ones."""
    original = evolving.find_reserved

    def find_reserved(state: PartitionState, place: int) -> Any:
        found = original(state, place)
        if found is None:
            for reservation in state.reservations.values():
                index = 0
                for _, item, count in reservation.runs:
                    segment = state.segments[item >> SEGMENT_BITS]
                    for offset in range(count):
                        is_held = reservation.marks is None or not reservation.marks[index]
                        if is_held and segment.place_of(item + offset - segment.first) == place:
                            return reservation, index
                        index += 1
        return found

    patch(deciding, "find_reserved", find_reserved)


@plant
def extension_stays_in_memory(patch: Patch) -> None:
    """An extension is promised, and not logged."""

    def extend(state: PartitionState, reservation: Any, command: cmd.Settle, now: Instant) -> Any:
        timeout = command.timeout or state.policy.reservation_timeout
        return (), rep.Extended(Instant(now + timeout), Instant(reservation.run_until))

    patch(deciding, "_extend", extend)


@plant
def one_attempt_too_many(patch: Patch) -> None:
    """The last attempt is followed by another one."""

    def split_worn(state: PartitionState, reservation: Any, part: Any) -> Any:
        most = state.policy.attempts_max
        object.__setattr__(state.policy, "attempts_max", most + 1 if most else 0)
        try:
            return original(state, reservation, part)
        finally:
            object.__setattr__(state.policy, "attempts_max", most)

    original = deciding.split_worn
    patch(deciding, "split_worn", split_worn)
    patch(dues, "split_worn", split_worn)


@plant
def retry_wakes_nobody(patch: Patch) -> None:
    """Requests that are parked are not woken when an item is given back for another try."""
    original = Broker._command

    def command(self: Broker, actor: PartitionActor, requester: Any, request: int, asked: Any) -> None:
        if isinstance(asked, cmd.Settle) and asked.verb is cmd.Verb.RETRY:
            self._submit(actor, requester, request, asked)
        else:
            original(self, actor, requester, request, asked)

    def committed(self: Broker, actor: PartitionActor) -> None:
        if actor.has_pending:
            self.writers[actor.store_name].wake(actor)
        self.alarms.set(actor.partition * 4, actor.next_due_at(self._end_lag))

    patch(Broker, "_command", command)
    patch(Broker, "committed", committed)


# --- windows --------------------------------------------------------------------------------------


@plant
def window_is_freed_twice(patch: Patch) -> None:
    """A settled item gives room for two."""
    original = Subscription.free
    patch(Subscription, "free", lambda self, count: original(self, 2 * count))


@plant
def window_is_filled_twice(patch: Patch) -> None:
    """An item takes the room of two, for ever."""
    original = Subscription.fill
    patch(Subscription, "fill", lambda self, count, size: original(self, 2 * count, size))


# --- time -----------------------------------------------------------------------------------------


@plant
def ends_one_tick_early(patch: Patch) -> None:
    """At its deadline a reservation is over."""
    original_run, original_next = dues.run_due, dues.next_due_at

    def run_due(state: PartitionState, now: Instant, apply: Any, *_: Any) -> None:
        original_run(state, Instant(now + 1), apply)

    def next_due_at(state: PartitionState, *_: Any) -> int | None:
        at = original_next(state)
        return None if at is None else at - 1

    patch(partitions, "run_due", run_due)
    patch(partitions, "next_due_at", next_due_at)


@plant
def due_a_second_early(patch: Patch) -> None:
    """Scheduled items become ready with the first turn of the last second before their time."""
    original = dues._promote

    def promote(state: PartitionState, now: Instant, budget: int, apply: Any) -> int:
        return original(state, Instant(now + SECOND), budget, apply)

    patch(dues, "_promote", promote)


@plant
def alarm_does_not_wake(patch: Patch) -> None:
    """A moment that comes before the one that is slept for is slept through."""

    def set_(self: Alarms, key: int, at: int | None) -> None:
        if at is None:
            self._moments.discard(key)
        elif self._moments.get(key) != at:
            self._moments.add(key, at)
            if self._sleep is not None and self._armed is None:
                self._sleep.cancel()

    patch(Alarms, "set", set_)


@plant
def stalled_append_rings_without_end(patch: Patch) -> None:
    """The alarm for what may not end while an append stalls is set for a moment that is past."""
    patch(PartitionActor, "_is_stalled", property(lambda _: False))

    def run_due(self: PartitionActor, end_lag: Duration) -> None:
        stalls = self._in_flight is not None and self.now - self._sent_at > partitions.STALL
        if self.is_open and not stalls:
            dues.run_due(self.state, self.now, self._apply_ended, end_lag)

    patch(PartitionActor, "run_due", run_due)


@plant
def no_grace_after_a_restart(patch: Patch) -> None:
    """What sessions held that are not here ends when its partition is opened."""
    original = Broker.add_actor

    def add_actor(self: Broker, queue: Any, actor: PartitionActor) -> None:
        grace, self._grace = self._grace, Duration(1)
        try:
            original(self, queue, actor)
        finally:
            self._grace = grace

    patch(Broker, "add_actor", add_actor)


# --- order ----------------------------------------------------------------------------------------


@plant
def last_come_first_served(patch: Patch) -> None:
    """Reservations take from the end of the line, when it has several runs."""
    original = reserving.reserve

    def reserve(state: PartitionState, *arguments: Any, **more: Any) -> ev.ItemsReserved | None:
        event = original(state, *arguments, **more)
        runs = list(state.line.runs())
        if event is None or state.is_keyed or len(runs) < 2:
            return event
        _, item, count = runs[-1]
        return attrs.evolve(event, first_item=ItemNumber(item), count=min(count, event.count))

    patch(partitions, "reserve", reserve)
    patch(match, "reserve", reserve)


@plant
def two_holders_of_a_key(patch: Patch) -> None:
    """A lane goes on while its head is held."""
    original = lanes.hold_head

    def hold_head(state: PartitionState, key: str) -> None:
        original(state, key)
        lane = state.lanes[key]
        if lane.waiting and not lane.front:
            lane.held = 0
            lanes.advance(state, key, lane)
            lane.held = 1

    patch(lanes, "hold_head", hold_head)


# --- moves, sessions, history ---------------------------------------------------------------------


@plant
def move_is_taken_twice(patch: Patch) -> None:
    """Dead items that arrived already are taken again when their source repeats itself."""
    original = deciding._receive

    def receive(state: PartitionState, command: cmd.Receive, now: Instant) -> Any:
        last = state.inbound.pop(command.source, 0)
        state.inbound[command.source] = command.first_move - 1
        try:
            return original(state, command, now)
        finally:
            state.inbound[command.source] = min(last, command.first_move - 1)

    patch(deciding._DECIDE, "Receive", receive)


@plant
def sent_to_one_home(patch: Patch) -> None:
    """What is sent back together goes to the home of the first."""
    original = deciding._send_back

    def send_back(state: PartitionState, command: cmd.SendBack, now: Instant) -> Any:
        made: Any
        made, reply = original(state, command, now)
        return [attrs.evolve(event, target=made[0].target) for event in made], reply

    patch(deciding._DECIDE, "SendBack", send_back)


@plant
def move_is_given_up_when_nobody_answers(patch: Patch) -> None:
    """A target that does not answer for sure is taken for one that is gone, and nobody asks what it took."""
    original = Mover._move

    async def move(self: Mover, actor: PartitionActor, target: PartitionId) -> bool:
        again = await original(self, actor, target)
        if again and actor.is_open:
            await ask(self._broker, actor.partition, cmd.GiveUpMoves(target))
        return again

    patch(Mover, "_move", move)


@plant
def snapshot_forgets_homes(patch: Patch) -> None:
    """A state that came out of a snapshot takes all of its items for its own."""

    def forget(state: PartitionState) -> None:
        for segment in state.segments.values():
            del segment.home_offsets[:], segment.homes[:]

    _forget(patch, forget)


@plant
def resume_is_lost(patch: Patch) -> None:
    """A session that resumes is told of nothing that it holds."""
    original = Broker.session_resumed

    def session_resumed(self: Broker, requester: Any) -> list[Any]:
        original(self, requester)
        return []

    patch(Broker, "session_resumed", session_resumed)


@plant
def payloads_are_mixed_up(patch: Patch) -> None:
    """Payloads that come back from the log are given to each other's items."""
    original = PayloadService._fill

    async def fill(self: PayloadService, actor: PartitionActor, number: int, store: LogStore) -> None:
        await original(self, actor, number, store)
        segment = actor.state.segments.get(number)
        if segment is not None and segment.payloads is not None and len(segment.payloads) > 1:
            segment.payloads[0], segment.payloads[-1] = segment.payloads[-1], segment.payloads[0]

    patch(PayloadService, "_fill", fill)


@plant
def bucket_goes_with_what_lives_in_it(patch: Patch) -> None:
    """History is dropped without a look at what is still needed of it."""

    async def hindrance(*_: Any) -> str:
        return ""

    patch(BucketService, "_hindrance", hindrance)


@plant
def snapshot_is_not_read_back(patch: Patch) -> None:
    """A bucket is dropped on the word that a snapshot was stored."""

    async def unreadable(*_: Any) -> str:
        return ""

    patch(BucketService, "_unreadable", unreadable)


@plant
def clients_storm(patch: Patch) -> None:
    """A client that lost its connection calls again at once."""
    patch(Connector, "_delay", lambda _self, _failures: Duration(1_000))


# --- several nodes --------------------------------------------------------------------------------


@plant
def standby_does_not_wait(patch: Patch) -> None:
    """Who joins the line owns at once, and claims without reading what the other one writes meanwhile."""
    original = NodeLease.renew

    async def renew(self: NodeLease) -> Standing:
        await original(self)
        self._standing = attrs.evolve(self._standing, role=Role.OWNER)
        return self.standing()

    patch(NodeLease, "renew", renew)
    claim_without_the_final_tail(patch)


@plant
def stale_owner_answers(patch: Patch) -> None:
    """An owner goes on answering until it hears that it is none."""

    def may_decide(self: Ownership) -> rep.Rejected | None:
        return None if self.is_owner else self.not_owner()

    patch(Ownership, "may_decide", may_decide)


@plant
def first_in_line_owns(patch: Patch) -> None:
    """Order in the line is enough to own, although others may not have seen it."""
    patch(NodeRows, "_may_own", lambda _self, _place: True)


@plant
def drain_acknowledges_what_is_not_written(patch: Patch) -> None:
    """A node that is told to stop answers all that waits for the log, and writes it no more."""
    original = Application.stop

    async def stop(self: Application, to: str = "") -> None:
        for actor in list(self.node.broker.actors.values()):
            for batch in (actor._in_flight, actor._pending):
                for requester, delivery in batch.parcels if batch is not None else ():
                    requester.deliver([delivery])
            actor.close(rep.Code.OUTCOME_UNKNOWN, "the server stops")
        await original(self, to)

    patch(Application, "stop", stop)


@plant
def drained_node_keeps_its_place(patch: Patch) -> None:
    """A node that stopped in order is waited for as if it had been killed."""

    async def leave(self: NodeLease) -> None:
        self._standing = Standing(Role.STANDBY)
        await trio.lowlevel.checkpoint()

    patch(NodeLease, "leave", leave)
