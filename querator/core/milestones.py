"""Where in the log to look for a reservation that memory has forgotten: a turn every 4,096 numbers.

An index over the log, part of snapshots. 24 bytes for 4,096 reservations; the oldest go when there are
``MILESTONES_MAX``.
"""

from array import array
from bisect import bisect_right
from typing import Final

import attrs

from querator.core.limits import MILESTONES_MAX

STRIDE: Final = 1 << 12


@attrs.frozen
class Milestone:
    """The first reservation of a turn."""

    number: int
    position: int
    """Of the record that the turn is in."""
    at: int
    """When the turn started; no other one of its record started then."""


class Milestones:
    """Columns of milestones, ascending."""

    __slots__ = ("ats", "next_at", "numbers", "positions")

    def __init__(self) -> None:
        self.numbers = array("q")
        self.positions = array("q")
        self.ats = array("q")
        self.next_at = 0
        """The first turn that begins with this number or a later one is noted."""

    def note(self, number: int, position: int, at: int) -> None:
        """A turn begins, and its first reservation will be ``number``."""
        if len(self.numbers) >= MILESTONES_MAX:
            for column in (self.numbers, self.positions, self.ats):
                del column[0]
        self.numbers.append(number)
        self.positions.append(position)
        self.ats.append(at)
        self.next_at = (number | (STRIDE - 1)) + 1

    def around(self, number: int) -> tuple[Milestone, Milestone | None] | None:
        """The last one up to ``number`` and the one after it; ``None``: that is too long ago."""
        index = bisect_right(self.numbers, number)
        if not index:
            return None
        return self._get(index - 1), self._get(index) if index < len(self.numbers) else None

    def _get(self, index: int) -> Milestone:
        return Milestone(self.numbers[index], self.positions[index], self.ats[index])
