"""Deadlines: a calendar of many moments of which most are withdrawn before they come.

Ids are kept in buckets of 16 ms, so that adding and withdrawing is one dictionary operation and
nothing is left behind: a heap would keep every withdrawn deadline until its time comes (at 60,000
reservations a second of one minute each, millions).
"""

from heapq import heappop, heappush
from typing import Final

_BUCKET_BITS: Final = 14
_EXACT_MAX: Final = 64
"""Buckets of up to this many ids are searched for their exact first moment."""


_EMPTY: Final[dict[int, None]] = {}
"""Stands for every bucket that was emptied; nothing is ever put into it."""


class Deadlines:
    """A set of (id, moment), ordered by moment. Ids and moments are positive integers."""

    __slots__ = ("_at", "_buckets", "_order")

    def __init__(self) -> None:
        self._at: dict[int, int] = {}
        self._buckets: dict[int, dict[int, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key: int, at: int) -> None:
        """Set the moment of ``key``, replacing an earlier one."""
        if key in self._at:
            self.discard(key)
        self._at[key] = at
        number = at >> _BUCKET_BITS
        bucket = self._buckets.get(number)
        if bucket:
            bucket[key] = None
            return
        self._buckets[number] = {key: None}
        if bucket is None:
            heappush(self._order, number)

    def discard(self, key: int) -> None:
        """Withdraw ``key``, if it is here."""
        at = self._at.pop(key, None)
        if at is not None:
            number = at >> _BUCKET_BITS
            bucket = self._buckets[number]
            if len(bucket) > 1:
                del bucket[key]
            else:
                # Its number stays in the order until it comes up: an hour ahead, 225,000 of them.
                self._buckets[number] = _EMPTY

    def get(self, key: int) -> int | None:
        return self._at.get(key)

    def _first(self) -> dict[int, None] | None:
        order, buckets = self._order, self._buckets
        while order:
            bucket = buckets[order[0]]
            if bucket:
                return bucket
            del buckets[heappop(order)]
        return None

    def next_at(self) -> int | None:
        """When to look next: never before the first moment, at most 16 ms after it."""
        bucket = self._first()
        if bucket is None:
            return None
        if len(bucket) <= _EXACT_MAX:
            at = self._at
            return min(at[key] for key in bucket)
        return (self._order[0] + 1) << _BUCKET_BITS

    def due(self, now: int, limit: int) -> list[int]:
        """Up to ``limit`` ids whose moment is ``now`` or earlier, in order of (moment, id). They stay
        until they are discarded: what is due ends by an event, and the event withdraws it."""
        found: list[tuple[int, int]] = []
        at = self._at
        for number in self._past(now >> _BUCKET_BITS):
            found.extend(sorted((at[key], key) for key in self._buckets[number] if at[key] <= now))
            if len(found) >= limit:
                break
        return [key for _, key in found[:limit]]

    def _past(self, last: int) -> list[int]:
        """The numbers of buckets up to ``last``, ascending."""
        self._first()
        order = self._order
        numbers: list[int] = []
        # Only the part of the heap that is past is walked: a child is never earlier than its parent.
        stack = [0]
        while stack:
            index = stack.pop()
            if index < len(order) and order[index] <= last:
                numbers.append(order[index])
                stack += (2 * index + 1, 2 * index + 2)
        return sorted(numbers)
