"""The order in which dedupe keys were remembered, and will be forgotten: oldest first, in blocks.

A block is to these what a segment is to items: what a snapshot encodes at once, and stores again only
when it changed. It begins with a record and ends with one, so its number, the position of the record
that began it, means the same keys in every fold of the log. Keys join the last block and leave the first.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, TypeAlias

BLOCK_KEYS: Final = 4_096
"""A block with so many keys takes no more records. Encoding one takes half a millisecond."""

Entry: TypeAlias = "tuple[int, tuple[str, ...]]"
"""(when, keys that were new then)."""


class DedupeBlock:
    """Successive entries. ``number``: see the module's text."""

    __slots__ = ("entries", "forgotten", "keys", "left", "number", "revision")

    def __init__(self, number: int) -> None:
        self.number = number
        self.entries: deque[Entry] = deque()
        """Those not forgotten."""
        self.forgotten = 0
        """Entries that were before these."""
        self.keys = 0
        """All that ever joined."""
        self.left = 0
        """Of these, those not forgotten."""
        self.revision = 0
        """Position of the last record that added to it: what snapshots compare."""

    def add(self, at: int, keys: tuple[str, ...], position: int) -> None:
        self.entries.append((at, keys))
        self.keys += len(keys)
        self.left += len(keys)
        self.revision = position


class DedupeOrder:
    """All blocks. Iterating gives the entries, oldest first."""

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks: deque[DedupeBlock] = deque()
        """None of them is empty."""

    def __bool__(self) -> bool:
        return bool(self.blocks)

    def __iter__(self) -> Iterator[Entry]:
        for block in self.blocks:
            yield from block.entries

    def open_block(self, position: int) -> DedupeBlock:
        """The block for what the record at ``position`` adds; the caller adds at once."""
        blocks = self.blocks
        if not blocks or (blocks[-1].keys >= BLOCK_KEYS and blocks[-1].revision != position):
            blocks.append(DedupeBlock(position))
        return blocks[-1]

    def forget_first(self, horizon: int) -> deque[Entry]:
        """Drop the oldest block if all of it is from before ``horizon``, else its oldest entry; what went."""
        block = self.blocks[0]
        if block.entries[-1][0] < horizon:
            self.blocks.popleft()
            return block.entries
        entry = block.entries.popleft()
        block.forgotten += 1
        block.left -= len(entry[1])
        return deque((entry,))

    def standing(self, horizon: int) -> tuple[int, str | None]:
        """How many keys are not from before ``horizon``, and the oldest of them."""
        count = 0
        oldest: str | None = None
        for block in self.blocks:
            if block.entries[-1][0] < horizon:
                continue
            count += block.left
            if oldest is None:
                for at, keys in block.entries:
                    if at >= horizon:
                        oldest = keys[0]
                        break
                    count -= len(keys)
        return count, oldest

    def clear(self) -> None:
        self.blocks.clear()
