"""What stood in a partition when the recording began: items that wait, are worked on, or are dead.

A partition that is played as it was begins with that very state, and its items keep their numbers. Where
items are routed anew (other partitions, another ordering), they arrive once more, as an import would bring
them. How long their payloads are is not known: they count as empty.
"""

from collections.abc import Iterator
from typing import Any, Final

import attrs

from querator.core.events import Attributes
from querator.core.evolve import ATTRIBUTE_NAMES
from querator.core.ids import Instant
from querator.core.segments import BEHIND, GONE, READY, RESERVED, SCHEDULED, Segment
from querator.core.state import PartitionState
from querator.replay.capture import Checkpoint

NO_PAYLOAD: Final[Any] = range(0)
_COLUMNS: Final = tuple(name for name in ATTRIBUTE_NAMES if name != "source_id")


@attrs.frozen
class Standing:
    """An item that was not dead when the recording began."""

    which: int
    """Its number among all of the queue."""
    since: int
    """When it began to wait, as far as is known."""
    place: int
    due_at: Instant
    """0: it does not wait for its time."""
    attributes: Attributes
    reserved_at: Instant
    """0: nobody works on it."""
    reserved_until: Instant


def load_standing(base: Checkpoint) -> PartitionState:
    """The state at the beginning, one's own to go on from.

    Raises:
        SnapshotUnreadable: it is no good.
    """
    state = base.state()
    for segment in state.segments.values():
        segment.payloads = [None if kind == GONE else NO_PAYLOAD for kind in segment.states]
    return state


def spans(state: PartitionState, first: int) -> Iterator[tuple[int, int, list[int]]]:
    """(an item, its number among all of the queue, since when it and those that follow it wait), of all that
    is there; numbered from ``first`` on.

    An item waits since it was produced, or is due. When one that was tried before came back is not known: it
    waits from the beginning.
    """
    due = _due(state)
    moved = state.moved
    for segment in _segments(state):
        waits = [
            due.get(item, state.now if item in moved else produced)
            for item, produced in enumerate(segment.produced, segment.first)
        ]
        yield segment.first, first, waits
        first += len(waits)


def standing(state: PartitionState, first: int) -> Iterator[Standing]:
    """Items that are waiting or worked on, by number; numbered as ``spans`` does it."""
    due = _due(state)
    held = {
        item: reservation
        for reservation in state.reservations.values()
        for _, start, count in reservation.pick(None)
        for item in range(start, start + count)
    }
    for segment, (_, which, waits) in zip(_segments(state), spans(state, first), strict=True):
        for offset, kind in enumerate(segment.states):
            if kind not in (READY, BEHIND, SCHEDULED, RESERVED):
                continue
            item = segment.first + offset
            reservation = held.get(item)
            yield Standing(
                which + offset,
                waits[offset],
                state.place_of(item),
                Instant(due.get(item, 0)),
                _attributes(state, segment, offset),
                Instant(0 if reservation is None else reservation.reserved_at),
                Instant(0 if reservation is None else reservation.ends_at),
            )


def _segments(state: PartitionState) -> list[Segment]:
    return [state.segments[number] for number in sorted(state.segments)]


def _due(state: PartitionState) -> dict[int, int]:
    return {
        item + offset: at
        for at, place, item, count in state.schedule
        for offset in range(count)
        if state.state_of(item + offset) == SCHEDULED and state.place_of(item + offset) == place + offset
    }


def _attributes(state: PartitionState, segment: Segment, offset: int) -> Attributes:
    columns: dict[str, Any] = {name: segment.value(name, offset) for name in _COLUMNS}
    item = segment.first + offset
    expires = 0 if segment.expires is None else segment.expires[offset]
    return Attributes(
        **columns,
        attempts=state.attempts.get(item),
        produced_at=segment.produced[offset],
        expires_at=expires or None,
    )
