"""Folding a recorded log again, with suspicion: what does not fit is a fault of the log, not a crash."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from querator.core import events as ev
from querator.core.evolve import evolve
from querator.core.invariants import InvariantViolation, check
from querator.core.state import PartitionState

MISFITS: Final = (KeyError, IndexError, ValueError, TypeError)
"""What the core raises over an event that does not fit."""


@contextmanager
def recorded_events() -> Iterator[None]:
    """Around the folding of recorded events: what the core trips over is an event that does not fit.

    Raises:
        InvariantViolation: instead of whatever the core raised.
    """
    try:
        yield
    except MISFITS as error:
        raise misfit(error) from error


def misfit(error: Exception) -> InvariantViolation:
    """What one of MISFITS means."""
    return InvariantViolation(f"an event does not fit the state that it meets: {error!r}")


def evolve_in_turn(state: PartitionState, event: ev.Event, first_new: int) -> None:
    """Fold one event; items are reserved in order of place.

    ``first_new``: the first item of the event's record. Out of turn goes only what an import brought
    reserved, in the record that brought it.

    Raises:
        InvariantViolation: it does not fit.
    """
    if type(event) is ev.ItemsReserved:
        head = state.line.peek()
        check(
            (head is not None and head[1] == event.first_item) or event.first_item >= first_new,
            f"item {event.first_item} was reserved before one that stood before it",
        )
    evolve(state, event)
