"""The line: the ready items of a partition, in order of place, as runs.

A run is ``[place, item, count]``: consecutive places held by consecutive items of one segment.
Fresh items coalesce, so a million waiting items are a thousand runs. Invariant: the line holds
exactly the ready items; whatever makes an item leave removes it here, so nothing is ever skipped.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, TypeAlias

from querator.core.invariants import check
from querator.core.limits import SEGMENT_ITEMS

Run: TypeAlias = "tuple[int, int, int]"
"""(first place, first item, count)."""

_SEGMENT_BITS: Final = SEGMENT_ITEMS.bit_length() - 1
_TRIM_RUNS: Final = 1_024


class Line:
    """Ready items in order of place."""

    __slots__ = ("_head", "_runs", "count")

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        self._head = 0
        self.count = 0

    def append(self, place: int, item: int, count: int) -> None:
        """Put ``count`` items of one segment at the tail."""
        runs = self._runs
        if runs:
            last = runs[-1]
            length = last[2]
            if (
                last[1] + length == item
                and last[0] + length == place
                and last[1] >> _SEGMENT_BITS == item >> _SEGMENT_BITS
                and length
            ):
                last[2] = length + count
                self.count += count
                return
        runs.append([place, item, count])
        self.count += count

    def peek(self) -> list[int] | None:
        """The run at the head, not to be changed by the caller."""
        return self._runs[self._head] if self.count else None

    def take(self, count: int) -> Run:
        """Take up to ``count`` items off the head: one run of what is contiguous there."""
        runs = self._runs
        head = self._head
        run = runs[head]
        length = run[2]
        place, item = run[0], run[1]
        if length > count:
            run[0] = place + count
            run[1] = item + count
            run[2] = length - count
            self.count -= count
            return place, item, count
        head += 1
        if head >= _TRIM_RUNS and head * 2 >= len(runs):
            del runs[:head]
            head = 0
        elif head == len(runs):
            runs.clear()
            head = 0
        self._head = head
        self.count -= length
        return place, item, length

    def _index(self, place: int) -> int | None:
        index = bisect_right(self._runs, place, lo=self._head, key=_first_place) - 1
        if index < self._head:
            return None
        run = self._runs[index]
        return index if place < run[0] + run[2] else None

    def find(self, place: int) -> int | None:
        """The item at ``place``, if one stands there."""
        index = self._index(place)
        if index is None:
            return None
        run = self._runs[index]
        return run[1] + place - run[0]

    def remove(self, place: int, count: int) -> None:
        """Take out ``count`` items with consecutive places that all stand in one run."""
        index = self._index(place)
        check(index is not None, "removed an item that does not stand in line")
        if index is None:
            return
        run = self._runs[index]
        before = place - run[0]
        after = run[2] - before - count
        check(after >= 0, "removed items beyond their run")
        pieces: list[list[int]] = []
        if before:
            pieces.append([run[0], run[1], before])
        if after:
            pieces.append([place + count, run[1] + before + count, after])
        self._runs[index : index + 1] = pieces
        self.count -= count

    def clear(self) -> list[Run]:
        """Take everything."""
        taken = list(self.runs())
        self._runs = []
        self._head = 0
        self.count = 0
        return taken

    def runs(self, start: int = 0) -> Iterator[Run]:
        """All runs in order, from the run that holds place ``start`` (or the next) on."""
        runs = self._runs
        index = self._head
        if start:
            index = max(index, bisect_right(runs, start, lo=index, key=_first_place) - 1)
        for position in range(index, len(runs)):
            place, item, count = runs[position]
            yield place, item, count

    def canonical(self) -> list[Run]:
        """The same line always as the same runs, however it came about."""
        merged: list[Run] = []
        for place, item, count in self.runs():
            if merged:
                last_place, last_item, length = merged[-1]
                if (
                    last_place + length == place
                    and last_item + length == item
                    and last_item >> _SEGMENT_BITS == item >> _SEGMENT_BITS
                ):
                    merged[-1] = (last_place, last_item, length + count)
                    continue
            merged.append((place, item, count))
        return merged


def _first_place(run: list[int]) -> int:
    return run[0]
