"""Random histories of partitions, decided by the core, and their plain fold: one dictionary an item."""

import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.catalog import Document, Queue, QueuePartition, encode
from querator.core.catalog.documents import QueueCreated
from querator.core.decide import decide
from querator.core.due import end_reservation, next_due_at, run_due
from querator.core.evolve import evolve
from querator.core.ids import (
    DAY,
    SECOND,
    Duration,
    Instant,
    PartitionId,
    Place,
    Position,
    QueueName,
    ReservationNumber,
    SessionId,
)
from querator.core.policy import Backoff, Ordering, Policy, encode_policy
from querator.core.reserve import reserve
from querator.core.segments import DEAD, GONE, RESERVED, SCHEDULED
from querator.core.state import PartitionState
from querator.log.codec import GENESIS, decode_events, seal
from querator.log.records import Record
from querator.log.store import LogStore

START = 1_750_032_000_000_000
"""2025-06-16 00:00 UTC."""
KINDS = ("mail", "invoice", "")
SESSIONS = ("ann", "bob", "eve")
OTHER = 20
"""The first of the partitions whose dead items come here."""
_NONE: Final[Mapping[str, bool]] = {}


class PartitionHistory:
    """One partition that is driven by commands; ``records`` is its log."""

    def __init__(self, partition: int, policy: Policy, *, now: int = START) -> None:
        self.state = PartitionState(PartitionId(partition))
        self.now = now
        self.records: list[Record] = []
        self.events: list[ev.Event] = []
        self.apply(ev.Claimed("node-a", 41, 1, 0, "server"))
        self.apply(ev.PolicyApplied(policy.version, encode_policy(policy), "root"))
        self.seal()

    def apply(self, event: ev.Event) -> None:
        if not self.events or self._turn_at != self.now:
            self._turn_at = self.now
            self._add(ev.TurnStarted(Instant(self.now)))
        self._add(event)

    _turn_at = 0

    def _add(self, event: ev.Event) -> None:
        self.state.position = len(self.records) + 1
        evolve(self.state, event)
        self.events.append(event)

    def do(self, command: cmd.Command) -> rep.Reply:
        events, reply = decide(self.state, command, Instant(self.now))
        for event in events:
            self.apply(event)
        return reply

    def reserve(self, items_max: int, session: str, *, held: bool = False, timeout: int = 0) -> int:
        """The reservation's number; 0: nothing was ready."""
        event = reserve(
            self.state,
            items_max,
            Instant(self.now),
            session=SessionId(session),
            generation=1,
            timeout=Duration(timeout),
            held=held,
        )
        if event is None:
            return 0
        self.apply(event)
        return self.state.next_reservation - 1

    def settle(self, verb: cmd.Verb, number: int, ranges: ev.Ranges | None = None, **rest: Any) -> rep.Reply:
        nonce = self.state.reservations[number].nonce
        return self.do(cmd.Settle(verb, ReservationNumber(number), nonce, ranges, **rest))

    def pass_time(self, by: int) -> None:
        self.now += by
        due = next_due_at(self.state)
        while due is not None and due <= self.now:
            before = len(self.events)
            run_due(self.state, Instant(self.now), self.apply)
            if len(self.events) == before:
                break
            due = next_due_at(self.state)

    def seal(self) -> None:
        """What happened since the last one is a record."""
        if not self.events:
            return
        previous = self.records[-1].hash if self.records else GENESIS
        self.records.append(
            seal(
                self.state.partition,
                Position(len(self.records) + 1),
                previous,
                41,
                Instant(self.now),
                self.events,
            )
        )
        self.events = []


def random_policy(rng: random.Random, *, keyed: bool, dead_target: int | None = None) -> Policy:
    return Policy(
        version=1,
        reservation_timeout=Duration(rng.choice((5, 60)) * SECOND),
        expire_timeout=Duration(rng.choice((0, 0, 600)) * SECOND),
        attempts_max=rng.choice((0, 2, 3)),
        backoff=Backoff(base=Duration(rng.choice((0, 2)) * SECOND)),
        ordering=Ordering.KEY if keyed else Ordering.FIFO,
        dead_target=None if dead_target is None else PartitionId(dead_target),
        dead_retention=Duration(rng.choice((1, 14)) * DAY),
    )


def random_history(
    rng: random.Random, partition: int, steps: int, *, keyed: bool = False, dead_target: int | None = None
) -> PartitionHistory:
    """A history in which everything happens now and then."""
    history = PartitionHistory(partition, random_policy(rng, keyed=keyed, dead_target=dead_target))
    sequence = 0
    for _ in range(steps):
        state = history.state
        live = list(state.reservations)
        action = rng.choices(
            ("produce", "reserve", "settle", "time", "rare", "seal"), (22, 26, 30, 12, 3, 20)
        )[0]
        if action == "produce":
            sequence += 1
            history.do(_produce(rng, history.now, sequence, keyed=keyed))
        elif action == "reserve":
            history.reserve(rng.randint(1, 12), rng.choice((*SESSIONS, "")), held=rng.random() < 0.3)
        elif action == "settle" and live:
            _settle(rng, history, rng.choice(live))
        elif action == "time":
            history.pass_time(rng.choice((1_000, 300_000, SECOND, 7 * SECOND, 70 * SECOND, 900 * SECOND)))
            if rng.random() < 0.1:
                history.pass_time(DAY // 2)
        elif action == "rare":
            _rare(rng, history)
        elif action == "seal":
            history.seal()
    history.seal()
    return history


def _produce(rng: random.Random, now: int, sequence: int, *, keyed: bool) -> cmd.Produce:
    count = rng.randint(1, 20)
    attributes = None
    if keyed or rng.random() < 0.5:
        kind: Any = rng.choice((rng.choice(KINDS) or None, [rng.choice(KINDS) or None for _ in range(count)]))
        key: Any = None
        if keyed:
            key = [rng.choice(("a", "b", "c", None)) for _ in range(count)]
        attributes = ev.Attributes(kind=kind, key=key)
        if rng.random() < 0.2:
            attributes.attempts_max = rng.randint(1, 3)
    due: Any = Instant(0)
    if rng.random() < 0.2:
        due = Instant(now + rng.choice((SECOND, 30 * SECOND)))
    elif rng.random() < 0.1:
        due = [Instant(rng.choice((0, now + rng.randint(1, 5) * SECOND))) for _ in range(count)]
    return cmd.Produce([b"x"] * count, due, attributes, rng.choice(("", "shop")), sequence)


def _settle(rng: random.Random, history: PartitionHistory, number: int) -> None:
    reservation = history.state.reservations[number]
    verb = rng.choices(
        (cmd.Verb.COMPLETE, cmd.Verb.RETRY, cmd.Verb.RELEASE, cmd.Verb.DEAD, cmd.Verb.EXTEND, None),
        (55, 18, 7, 6, 7, 7),
    )[0]
    ranges = None
    if rng.random() < 0.3 and reservation.count > 1:
        start = rng.randrange(reservation.count)
        ranges = ((start, rng.randint(1, reservation.count - start)),)
    if verb is None:
        end_reservation(history.state, reservation, "session_lost", history.apply)
    elif verb is cmd.Verb.RETRY:
        due = rng.choice((Instant(0), cmd.BY_BACKOFF, Instant(history.now + 20 * SECOND)))
        history.settle(verb, number, ranges, due_at=due)
    elif verb is cmd.Verb.RELEASE:
        history.settle(verb, number, ranges, reason=rng.choice(("client", "undelivered")))
    elif verb is cmd.Verb.DEAD:
        history.settle(verb, number, ranges, reason=rng.choice(("bad address", "too large")))
    elif verb is cmd.Verb.EXTEND:
        history.settle(verb, number, None, timeout=Duration(30 * SECOND))
    else:
        history.settle(verb, number, ranges)


def _rare(rng: random.Random, history: PartitionHistory) -> None:
    state = history.state
    choice = rng.choice(
        (
            "redrive",
            "redrive",
            "delete",
            "clear",
            "pause",
            "moved",
            "claimed",
            "received",
            "sent_back",
            "gone",
        )
    )
    if choice == "redrive":
        history.do(cmd.Redrive(items_max=5, author="root"))
    elif choice == "delete":
        live = [item for item in range(1, state.next_item) if state.state_of(item) != GONE]
        places = [Place(state.place_of(item)) for item in live]
        if places:
            history.do(cmd.Delete(rng.sample(places, min(3, len(places))), "root"))
    elif choice == "clear" and rng.random() < 0.4:
        ready, scheduled, reserved, dead = (rng.random() < 0.4 for _ in range(4))
        if ready or scheduled or reserved or dead:
            history.do(
                cmd.Clear(ready=ready, scheduled=scheduled, reserved=reserved, dead=dead, author="root")
            )
    elif choice == "pause":
        history.do(cmd.Pause("root"))
        history.do(cmd.Resume("root"))
    elif choice == "moved":
        for target, channel in state.outbound.items():
            if channel.items:
                last = channel.first_move + rng.randrange(len(channel.items))
                history.do(cmd.ConfirmMoves(PartitionId(target), last))
    elif choice == "received":
        count = rng.randint(1, 6)
        key = [rng.choice(("a", "b", None)) for _ in range(count)] if state.is_keyed else None
        source = PartitionId(rng.choice((OTHER, OTHER + 1)))
        history.do(
            cmd.Receive(
                source,
                state.inbound.get(source, 0) + 1,
                [b"moved"] * count,
                ev.Attributes(kind="letter", key=key),
                come_back=rng.random() < 0.2,
            )
        )
    elif choice == "sent_back":
        history.do(cmd.SendBack(items_max=rng.choice((2, 50)), author="root"))
    elif choice == "gone":
        history.do(cmd.GiveUpMoves(PartitionId(rng.choice((OTHER, OTHER + 1)))))
    elif choice == "claimed":
        history.apply(ev.Claimed("node-b", 41, 1, len(history.records), "server"))


async def store_records(store: LogStore, records: list[Record]) -> None:
    for record in records:
        await store.append([record])


def catalog_records(
    queues: dict[str, list[int]], *, at: int = START, export_payloads: Mapping[str, bool] = _NONE
) -> list[Record]:
    """The catalog's log: these queues with their partitions."""
    events: list[ev.Event] = [ev.TurnStarted(Instant(at)), ev.Claimed("node-a", 41, 1, 0, "server")]
    for name, partitions in queues.items():
        queue = Queue(
            name=QueueName(name),
            partitions=tuple(QueuePartition(PartitionId(number)) for number in partitions),
            created_at=Instant(at),
            updated_at=Instant(at),
            export_payloads=export_payloads.get(name, False),
        )
        events.append(ev.CatalogChanged(encode(Document(Instant(at), "root", QueueCreated(queue)))))
    return [seal(PartitionId(0), Position(1), GENESIS, 41, Instant(at), events)]


# --- the plain fold ---------------------------------------------------------------------------------


@attrs.define
class ItemEvent:
    """One item, one event."""

    partition: int
    position: int
    item: int
    at: int
    event: str
    before: str
    after: str
    reservation: int = 0
    session: str = ""
    attempt: int = 0
    produced_at: int = 0
    ready_at: int = 0
    reserved_at: int = 0
    first_reserved_at: int = 0
    reason: str = ""
    item_kind: str = ""


@attrs.define
class _Item:
    produced_at: int
    ready_at: int
    kind: str
    state: str = ""
    attempts: int = 0
    reservation: int = 0
    session: str = ""
    reserved_at: int = 0
    first_reserved_at: int = 0


_WORDS: dict[type, str] = {
    ev.ItemsProduced: "produced",
    ev.ItemsReserved: "reserved",
    ev.ItemsCompleted: "completed",
    ev.ItemsRetried: "retried",
    ev.ItemsReleased: "released",
    ev.ReservationEnded: "ended",
    ev.ItemsDied: "dead",
    ev.ItemsExpired: "dead",
    ev.ItemsDue: "due",
    ev.ItemsCleared: "cleared",
    ev.ItemsDeleted: "deleted",
    ev.ItemsRedriven: "redriven",
    ev.ItemsMoved: "moved",
    ev.ItemsReceived: "received",
    ev.ItemsCameBack: "came_back",
    ev.ItemsSentBack: "sent_back",
    ev.MovesGivenUp: "stayed",
    ev.ItemsPruned: "pruned",
}
_STATES = {GONE: "", DEAD: "dead", RESERVED: "reserved", SCHEDULED: "scheduled"}


def plain_fold(records: list[Record]) -> list[ItemEvent]:
    """Every item event of a partition, by looking at every item around every event."""
    state = PartitionState(records[0].partition)
    items: dict[int, _Item] = {}
    found: list[ItemEvent] = []
    for record in records:
        state.position = record.position
        for event in decode_events(record.events):
            word = _WORDS.get(type(event), "")
            told = _told(state, event)
            evolve(state, event)
            now = state.now
            if isinstance(event, ev.ItemsProduced):
                for offset in range(event.count):
                    items[event.first_item + offset] = _Item(
                        now, event.due_at or now, _value(event.attributes and event.attributes.kind, offset)
                    )
            holders = _holders(state)
            for number, item in items.items():
                after = _STATES.get(state.state_of(number), "ready")
                holder = holders.get(number, 0)
                is_new = isinstance(event, ev.ItemsProduced) and number >= event.first_item
                is_taken = word == "reserved" and holder not in (0, item.reservation)
                if number not in told and not is_new and not is_taken:
                    # An item of a lane that stepped up, ready or scheduled, is as it was told to be.
                    continue
                step = ItemEvent(record.partition, record.position, number, now, word, item.state, after)
                _note(step, item, event, holder, state, now)
                found.append(step)
    return found


def _note(
    step: ItemEvent, item: _Item, event: ev.Event, holder: int, state: PartitionState, now: int
) -> None:
    if step.event == "reserved":
        item.reservation = holder
        item.session = state.reservations[holder].session
        item.reserved_at = now
        item.first_reserved_at = item.first_reserved_at or now
        item.attempts += 1
    step.produced_at, step.ready_at, step.item_kind = item.produced_at, item.ready_at, item.kind
    step.attempt, step.first_reserved_at = item.attempts, item.first_reserved_at
    if item.reservation:
        step.reservation, step.session, step.reserved_at = item.reservation, item.session, item.reserved_at
    if isinstance(event, ev.ItemsRetried):
        # With its lane busy the item stands behind: it waits for its time all the same.
        step.after = "scheduled" if event.due_at else "ready"
        item.ready_at = event.due_at or now
    elif isinstance(event, ev.ItemsReleased):
        item.attempts -= 1
        step.reason, item.ready_at = event.why, now
    elif isinstance(event, ev.ReservationEnded):
        step.reason, item.ready_at = event.why, now
    elif isinstance(event, ev.ItemsDied):
        step.reason = event.reason
    elif isinstance(event, ev.ItemsExpired):
        step.reason = "expired"
    elif isinstance(event, ev.ItemsRedriven):
        item.attempts, item.ready_at = 0, now
    if step.event == "dead" and step.reservation:
        item.reservation, item.ready_at = 0, now
    if step.event not in ("reserved", "produced"):
        item.reservation = 0
    item.state = step.after


def _told(state: PartitionState, event: ev.Event) -> dict[int, None]:
    """The items that the event is about, as far as they are known before it."""
    match event:
        case (
            ev.ItemsCompleted(number, ranges)
            | ev.ItemsRetried(number, ranges)
            | ev.ItemsReleased(number, ranges)
            | ev.ReservationEnded(number, ranges)
            | ev.ItemsDied(number, ranges)
        ):
            runs = [(item, count) for _, item, count in state.reservations[number].pick(ranges)]
        case (
            ev.ItemsExpired(runs)
            | ev.ItemsDeleted(runs)
            | ev.ItemsRedriven(runs)
            | ev.ItemsMoved(runs)
            | ev.ItemsSentBack(runs)
            | ev.MovesGivenUp(runs)
            | ev.ItemsPruned(runs)
        ):
            runs = list(runs)
        case ev.ItemsReceived(_, _, count) | ev.ItemsCameBack(_, _, count):
            runs = [(state.next_item - count, count)]
        case ev.ItemsDue(count):
            waiting = sorted(
                (due, place + offset, item + offset)
                for due, place, item, size in state.schedule
                for offset in range(size)
                if state.state_of(item + offset) == SCHEDULED
                and state.place_of(item + offset) == place + offset
            )
            runs = [(item, 1) for _, _, item in waiting[:count]]
        case ev.ItemsCleared(ready, scheduled, reserved, dead):
            wanted = {"ready": ready, "scheduled": scheduled, "reserved": reserved, "dead": dead}
            runs = [
                (item, 1)
                for item in range(1, state.next_item)
                if wanted.get(_STATES.get(state.state_of(item), "ready"))
                and not (state.state_of(item) == DEAD and item in state.leaving)
            ]
        case _:
            runs = []
    return {item: None for first, count in runs for item in range(first, first + count)}


def _holders(state: PartitionState) -> dict[int, int]:
    return {
        item: number
        for number, reservation in state.reservations.items()
        for _, first, count in reservation.pick(None)
        for item in range(first, first + count)
    }


def _value(column: Any, offset: int) -> str:
    return (column[offset] if isinstance(column, list) else column) or ""
