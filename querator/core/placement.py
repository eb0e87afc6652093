"""Which partition of a queue a key belongs to: 1,024 fixed slots, mapped to the partitions in order."""

from zlib import crc32

from querator.core.limits import KEY_SLOTS


def slot_of(key: str) -> int:
    """The slot of a key; the same on every node and for ever."""
    return crc32(key.encode()) % KEY_SLOTS


def index_of(key: str, partitions: int) -> int:
    """The queue-local index of the partition that a key's items go to."""
    return slot_of(key) * partitions // KEY_SLOTS
