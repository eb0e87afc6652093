"""The life of one item, step by step: what an event did to it, in words."""

from typing import Any, Final, TypeAlias

import attrs

from querator.actors.ports import TraceStep
from querator.core import events as ev
from querator.core.ids import Instant, Position
from querator.core.segments import GONE, RESERVED, STATE_NAMES
from querator.core.state import PartitionState, Reservation

Look: TypeAlias = "tuple[int, int, int, int, bool]"
"""(state, place, attempts, deadline of its reservation, whether it is on its way to another partition)."""

_WORDS: Final[dict[type, str]] = {
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
    ev.ItemsSentBack: "sent_back",
    ev.ItemsCameBack: "came_back",
    ev.MovesGivenUp: "stayed",
    ev.ItemsPruned: "pruned",
}


def look(state: PartitionState, item: int, reservation: Reservation | None = None) -> Look:
    """The item as it is. ``reservation``: whose deadline counts, if the item is in it."""
    kind = state.state_of(item)
    if kind == GONE:
        return GONE, 0, 0, 0, False
    deadline = 0
    if kind == RESERVED and reservation is not None and holds(reservation, item):
        deadline = reservation.deadline
    return kind, state.place_of(item), state.attempt_of(item), deadline, item in state.leaving


def arrives(state: PartitionState, item: int, event: ev.Event) -> bool:
    """The event, just folded, says of the item that it came from another partition."""
    return (
        isinstance(event, ev.ItemsReceived | ev.ItemsCameBack)
        and state.next_item - event.count <= item < state.next_item
    )


def holds(reservation: Reservation, item: int) -> bool:
    """The item went to this reservation (and may be settled by now)."""
    return any(first <= item < first + count for _, first, count in reservation.runs)


def step(position: int, at: Instant, event: ev.Event, before: Look, after: Look) -> TraceStep:
    """What the event at ``position`` made of the item."""
    details: dict[str, Any] = {
        field.name: getattr(event, field.name)
        for field in attrs.fields(type(event))
        if field.name not in ("payloads", "attributes", "document")
    }
    details["state"] = STATE_NAMES[after[0]]
    details["attempts"] = after[2]
    word = _WORDS.get(type(event), type(event).__name__)
    return TraceStep(Position(position), at, word, _words(word, event, before, after), details)


def _words(word: str, event: ev.Event, before: Look, after: Look) -> str:
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
        case ev.ItemsReceived():
            return f"came from partition {event.source}, where it was dead"
        case ev.ItemsSentBack():
            return f"sent back to partition {event.target}, where it came from"
        case ev.ItemsCameBack():
            return f"came back from partition {event.source}, with no attempts counted"
        case ev.MovesGivenUp():
            return f"stays here, dead: the queue of partition {event.target} was deleted"
        case ev.ItemsMoved():
            return f"moved to partition {event.target}"
        case ev.ItemsCompleted() if before[0] != RESERVED:
            return "stepped up: the item of its key before it is done"
        case _:
            return word
