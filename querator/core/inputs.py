"""Inputs: what decided a record and does not follow from its events.

The events say which items went to whom; they don't say who else stood there, what was asked for, which
payloads were at hand, or which settlement came too late. Gathered by the actor while it decides, written
into the record's *inputs* section, ignored by the fold; a replay decides again from it.
"""

import enum
from typing import Any, Final

import attrs

from querator.core.demand import Parked, Subscription
from querator.core.ids import Duration, Instant, ReservationNumber


class How(enum.IntEnum):
    """How a reservation came about. The numbers are in logs; never reuse one."""

    NOBODY = 0
    """An import brought it: there was no waiter."""
    ASKED = 1
    """A request was answered at once."""
    PARKED = 2
    """A request had waited."""
    PUSHED = 3
    """A subscription had room."""


@attrs.frozen
class Waiter:
    """For whom a reservation was made, as that waiter was just before. One for each ItemsReserved of a
    record, in order."""

    how: How
    call: int
    """PARKED, PUSHED: reservations of one round of matching have the same number, counted in the record."""
    number: int = 0
    """PARKED, PUSHED: by order of arrival at the queue on that node; for a subscription always the same."""
    batch: int = 0
    """Items wanted at most."""
    bytes_max: int = 0
    """Payload bytes at most; PUSHED: what was left of the window's."""
    room: int = 0
    """PUSHED: items that were left of the window."""
    timeout: Duration = Duration(0)
    """Asked for; 0: the items' own, else the queue's."""
    waited: Duration = Duration(0)
    """PARKED: since the request came."""
    linger: Duration = Duration(0)
    linger_for: Duration = Duration(0)
    """PUSHED: what was left of a linger that had begun (below 0: it was over); 0 with none begun."""


@attrs.frozen
class LateSettlement:
    """Somebody settled a reservation that had ended: so long the work had taken in truth."""

    reservation: ReservationNumber
    verb: int
    at: Instant


@attrs.frozen
class PayloadsMoved:
    """Before event ``index`` of the record, the payloads of a segment came into memory, or left it."""

    index: int
    segment: int
    is_here: bool


@attrs.frozen
class Inputs:
    """The inputs section of a record, read."""

    waiters: tuple[Waiter, ...] = ()
    late: tuple[LateSettlement, ...] = ()
    moved: tuple[PayloadsMoved, ...] = ()


NO_INPUTS: Final = Inputs()

WaiterRow = tuple[int, int, int, int, int, int, int, int, int, int]
"""A Waiter on the hot path: its fields in order."""


class Gathering:
    """The inputs of a record in the making. Owned by the actor's pending batch."""

    __slots__ = ("_call", "_first", "late", "moved", "waiters")

    def __init__(self) -> None:
        self.waiters: list[WaiterRow] = []
        self.late: list[tuple[int, int, int]] = []
        self.moved: list[tuple[int, int, int]] = []
        self._call = 0
        self._first = 0

    def nobody(self) -> None:
        self.waiters.append((How.NOBODY, 0, 0, 0, 0, 0, 0, 0, 0, 0))

    def asked(self, items_max: int, bytes_max: int, timeout: Duration) -> None:
        self.waiters.append((How.ASKED, 0, 0, items_max, bytes_max, 0, timeout, 0, 0, 0))

    def begin_call(self) -> None:
        """A round of matching begins."""
        self._call += 1
        self._first = len(self.waiters)

    def end_call(self, counts: list[int]) -> None:
        """It ended before every parked request had its share: who did not get one is unknown, so what each
        was given (``counts``, of the round's reservations) stands for what it wanted."""
        rows = self.waiters
        for index, count in zip(range(self._first, len(rows)), counts, strict=True):
            row = rows[index]
            if row[0] == How.PARKED:
                rows[index] = (*row[:3], count, *row[4:])

    def parked(self, waiter: Parked[Any], now: Instant) -> None:
        self.waiters.append(
            (
                How.PARKED,
                self._call,
                waiter.number,
                waiter.items_max,
                waiter.bytes_max,
                0,
                waiter.timeout,
                now - waiter.since if waiter.since else 0,
                0,
                0,
            )
        )

    def pushed(self, waiter: Subscription[Any], now: Instant) -> None:
        self.waiters.append(
            (
                How.PUSHED,
                self._call,
                waiter.number,
                waiter.batch,
                waiter.window_bytes - waiter.bytes_in_flight,
                waiter.window - waiter.in_flight,
                waiter.timeout,
                0,
                waiter.linger,
                waiter.linger_at - now if waiter.linger_at else 0,
            )
        )
