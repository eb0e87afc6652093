"""Columns: absent (``None``), one value for all, or a list with an entry an item."""

from typing import TypeVar

T = TypeVar("T")


def at(column: T | list[T | None] | None, index: int) -> T | None:
    """The value of item ``index``."""
    return column[index] if isinstance(column, list) else column


def joined(
    parts: list[tuple[int, T | list[T | None] | None]],
) -> T | list[T | None] | None:
    """One column for several messages' columns, given with their counts of items."""
    first = parts[0][1]
    if not isinstance(first, list) and all(column == first for _, column in parts):
        return first
    whole: list[T | None] = []
    for count, column in parts:
        whole.extend(column if isinstance(column, list) else [column] * count)
    return whole
