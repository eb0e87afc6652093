"""Segments: the items of a partition in columns, 1,024 item numbers each.

No object, row or tuple an item: a state byte, the time it was produced, its payload, and optional
columns that are absent until a batch brings one. A segment whose items are all gone is dropped.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from querator.core.limits import SEGMENT_ITEMS

SEGMENT_BITS: Final = SEGMENT_ITEMS.bit_length() - 1

GONE: Final = 0
READY: Final = 1
RESERVED: Final = 2
SCHEDULED: Final = 3
DEAD: Final = 4
BEHIND: Final = 5
"""Ready, but an earlier item of its key is before it."""

STATE_NAMES: Final = ("gone", "ready", "reserved", "scheduled", "dead", "ready")

FILL: Final = tuple(tuple(bytes([state]) * n for n in range(SEGMENT_ITEMS + 1)) for state in range(6))
"""FILL[state][n]: n state bytes."""
NOTHINGS: Final = tuple([None] * n for n in range(SEGMENT_ITEMS + 1))


class Segment:
    """Items ``first`` ... ``first + len(states) - 1``. Offsets count from ``first``."""

    __slots__ = (
        "carried",
        "columns",
        "due",
        "expires",
        "expiry_queued",
        "first",
        "home_offsets",
        "homes",
        "live",
        "number",
        "origin_offsets",
        "origin_positions",
        "payload_bytes",
        "payloads",
        "produced",
        "revision",
        "shift_offsets",
        "shifts",
        "states",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.first = max(1, number << SEGMENT_BITS)
        self.live = 0
        """Items that are not gone."""
        self.states = bytearray()
        self.produced: array[int] = array("q")
        self.expires: array[int] | None = None
        """Absent while no item here expires."""
        self.due: array[int] | None = None
        """Of items that are scheduled: when they are due. Absent while none ever was; it may be shorter than
        the segment."""
        self.expiry_queued = 0
        """The earliest moment this segment stands for in the calendar of expiries; 0: none. Derived."""
        self.columns: dict[str, list[object]] | None = None
        self.shift_offsets: array[int] = array("H")
        self.shifts: array[int] = array("q")
        """Place minus item number of never moved items, from each shift offset on."""
        self.origin_offsets: array[int] = array("H")
        self.origin_positions: array[int] = array("q")
        """The record that holds the payloads, from each origin offset on."""
        self.carried: dict[int, int] | None = None
        """Offset to the record that a payload was carried to."""
        self.home_offsets: array[int] = array("H")
        self.homes: array[int] = array("q")
        """The partition that the items were dead in before they moved here, from each home offset on; 0: they
        did not come so. Nothing where none did."""
        # Volatile, outside the fold:
        self.payloads: list[bytes | None] | None = []
        """``None``: they are in the log only."""
        self.payload_bytes = 0
        self.revision = 0
        """Position of the last change: what snapshots compare."""

    @property
    def is_full(self) -> bool:
        return self.first + len(self.states) == (self.number + 1) << SEGMENT_BITS

    def place_of(self, offset: int) -> int:
        """The place this item was given when it was produced."""
        index = bisect_right(self.shift_offsets, offset) - 1
        return self.first + offset + self.shifts[index]

    def origin_of(self, offset: int) -> int:
        """The position of the record that holds this item's payload."""
        if self.carried is not None:
            position = self.carried.get(offset)
            if position is not None:
                return position
        return self.origin_positions[bisect_right(self.origin_offsets, offset) - 1]

    def home_of(self, offset: int) -> int:
        """The partition that this item came from as a dead one; 0: none."""
        index = bisect_right(self.home_offsets, offset) - 1
        return self.homes[index] if index >= 0 else 0

    def set_home(self, start: int, count: int, partition: int) -> None:
        """The ``count`` newest items, from offset ``start`` on, came from there."""
        offsets, homes = self.home_offsets, self.homes
        if homes and offsets[-1] == start:
            # Where what came before ended.
            offsets.pop()
            homes.pop()
        if not homes or homes[-1] != partition:
            offsets.append(start)
            homes.append(partition)
        if self.first + start + count < (self.number + 1) << SEGMENT_BITS:
            offsets.append(start + count)
            homes.append(0)

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """(home, first offset, offset behind the last) of all items that have one."""
        offsets = self.home_offsets
        for index, home in enumerate(self.homes):
            if home:
                is_last = index + 1 == len(offsets)
                yield home, offsets[index], len(self.states) if is_last else offsets[index + 1]

    def set_expiry(self, start: int, count: int, expires_at: int) -> None:
        """``count`` new items from offset ``start`` on (the end of the segment) expire then; 0: never."""
        if self.expires is None:
            self.expires = array("q", bytes(8 * start))
        self.expires.extend(array("q", (expires_at,)) * count)

    def set_due(self, start: int, count: int, due_at: int) -> None:
        """``count`` items from offset ``start`` on are scheduled for then."""
        due = self.due
        if due is None:
            due = self.due = array("q")
        if len(due) < start:
            due.extend(array("q", bytes(8 * (start - len(due)))))
        due[start : start + count] = array("q", (due_at,)) * count

    def set_column(self, name: str, start: int, values: Sequence[object]) -> None:
        """Write ``values`` from offset ``start`` on (which is the end of the segment as it was)."""
        if self.columns is None:
            self.columns = {}
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = [None] * start
        column.extend(values)

    def pad_columns(self) -> None:
        """Give every column an entry for every item: batches may lack a column that others have."""
        if self.columns is not None:
            length = len(self.states)
            for column in self.columns.values():
                if len(column) < length:
                    column.extend([None] * (length - len(column)))

    def value(self, name: str, offset: int) -> object:
        """One optional attribute of one item; ``None`` when it has none."""
        columns = self.columns
        if columns is None:
            return None
        column = columns.get(name)
        return None if column is None else column[offset]
