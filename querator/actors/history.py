"""An item's life, read back from the log: every event that touched it, in order."""

from collections.abc import Sequence
from typing import Any

import attrs

from querator.actors.broker import Broker
from querator.actors.ports import TraceStep
from querator.core import events as ev
from querator.core.evolve import evolve
from querator.core.ids import Instant, ItemNumber, PartitionId, Position
from querator.core.limits import READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.core.replies import Code, Rejected
from querator.core.segments import GONE, RESERVED, STATE_NAMES
from querator.core.state import PartitionState
from querator.errors import HistoryDropped, LogError
from querator.log.codec import decode_events
from querator.log.store import LogStore

_WORDS: dict[type, str] = {
    ev.ItemsProduced: "produced",
    ev.ItemsReserved: "reserved",
    ev.ItemsCompleted: "completed",
    ev.ItemsRetried: "retried",
    ev.ItemsReleased: "released",
    ev.ReservationEnded: "ended",
    ev.ReservationExtended: "extended",
    ev.ItemsDied: "dead",
    ev.ItemsDue: "due",
    ev.ItemsExpired: "expired",
    ev.ItemsCleared: "cleared",
    ev.ItemsDeleted: "deleted",
    ev.ItemsRedriven: "redriven",
    ev.ItemsMoved: "moved",
    ev.ItemsReceived: "received",
    ev.ItemsPruned: "pruned",
}


class History:
    """Implements HistoryPort over the stores of this node's partitions."""

    def __init__(self, broker: Broker, stores: dict[str, LogStore]) -> None:
        self._broker = broker
        self._stores = stores

    async def trace(
        self, partition: PartitionId, item: ItemNumber, *, steps_max: int
    ) -> Sequence[TraceStep] | Rejected:
        """All events of one item, oldest first, from the beginning of the log."""
        actor = self._broker.actors.get(partition)
        if actor is None:
            return Rejected(Code.UNAVAILABLE, f"partition {partition} is not available here", "item")
        if not 0 < item < actor.state.next_item:
            return Rejected(Code.UNKNOWN_ITEM, f"there was never an item {partition}.{item}", "item")
        try:
            return await trace(self._stores[actor.store_name], partition, item, actor.tail, steps_max)
        except HistoryDropped:
            return Rejected(Code.UNKNOWN_ITEM, "that part of the history was dropped", "item")
        except LogError as error:
            return Rejected(Code.UNAVAILABLE, str(error), "item")


async def trace(
    store: LogStore, partition: PartitionId, item: ItemNumber, last: Position, steps_max: int
) -> list[TraceStep]:
    """Fold the log up to ``last`` and note each event after which the item is not as it was before."""
    state = PartitionState(partition)
    steps: list[TraceStep] = []
    position = Position(1)
    while position <= last:
        page = await store.read(
            partition, position, records_max=RESTORE_PAGE_RECORDS, bytes_max=READ_BYTES_MAX, payloads=False
        )
        if not page:
            break
        for record in page:
            state.position = record.position
            for event in decode_events(record.events):
                before = _look(state, item)
                evolve(state, event)
                after = _look(state, item)
                if before != after:
                    steps.append(_step(record.position, state.now, event, before, after))
            position = Position(record.position + 1)
        if state.next_item > item and state.state_of(item) == GONE:
            break
    return steps[-steps_max:]


def _look(state: PartitionState, item: int) -> tuple[int, int, int, int]:
    """(state, place, attempts, deadline of its reservation)."""
    kind = state.state_of(item)
    if kind == GONE:
        return GONE, 0, 0, 0
    deadline = 0
    if kind == RESERVED:
        for reservation in state.reservations.values():
            if any(first <= item < first + count for _, first, count in reservation.runs):
                deadline = reservation.deadline
    return kind, state.place_of(item), state.attempt_of(item), deadline


def _step(
    position: int,
    at: Instant,
    event: ev.Event,
    before: tuple[int, int, int, int],
    after: tuple[int, int, int, int],
) -> TraceStep:
    details: dict[str, Any] = {
        field.name: getattr(event, field.name)
        for field in attrs.fields(type(event))
        if field.name not in ("payloads", "attributes", "document")
    }
    details["state"] = STATE_NAMES[after[0]]
    details["attempts"] = after[2]
    word = _WORDS.get(type(event), type(event).__name__)
    return TraceStep(Position(position), at, word, _words(word, event, before, after), details)


def _words(
    word: str, event: ev.Event, before: tuple[int, int, int, int], after: tuple[int, int, int, int]
) -> str:
    match event:
        case ev.ItemsReserved():
            whom = f"by session {event.session}" if event.session else "without session"
            return f"reserved {whom}, attempt {after[2]}"
        case ev.ReservationEnded():
            return f"reservation ended ({event.why}), back in line"
        case ev.ItemsRetried():
            return "attempt failed, to be tried again" + (" later" if event.due_at else " at once")
        case ev.ItemsReleased():
            return f"released ({event.why}), the attempt does not count"
        case ev.ItemsDied():
            return f"dead: {event.reason}"
        case ev.ItemsCompleted() if before[0] != RESERVED:
            return "stepped up: the item of its key before it is done"
        case _:
            return word
