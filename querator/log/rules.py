"""What the stores decide alike, wherever they keep their bytes."""

import enum
import hashlib
from collections.abc import Sequence
from typing import Final

from querator.core.ids import PartitionId
from querator.errors import LogError, StoreCorrupt
from querator.log.codec import GENESIS
from querator.log.records import ChunkId, Record, Snapshot, Tail

SNAPSHOTS_KEPT: Final = 2
"""Of each partition: the newest, and the one before in case that is damaged."""


class Standing(enum.Enum):
    """Where a record's position is, seen from the tail of its partition."""

    NEXT = "next"
    """Right behind the tail, and chained to it: it may be written."""
    TAKEN = "taken"
    """At the tail or before it: it is mine if it is the very record that is there."""
    NOWHERE = "nowhere"
    """Behind a gap, or chained to another predecessor."""


def standing(record: Record, tail: Tail | None) -> Standing:
    """What may become of a record when its partition ends at ``tail``."""
    position, previous_hash = (0, GENESIS) if tail is None else (tail.position, tail.hash)
    if 0 < record.position <= position:
        return Standing.TAKEN
    if record.position == position + 1 and record.previous_hash == previous_hash:
        return Standing.NEXT
    return Standing.NOWHERE


def size_of(record: Record) -> int:
    """Bytes of a record as far as they were read, for bounds."""
    return len(record.events) + len(record.inputs) + len(record.payload or b"")


def check_droppable(bucket: int, numbers: Sequence[int], open_bucket: int) -> None:
    """Only the oldest bucket goes, and only when it is sealed.

    Raises:
        LogError: it must not be dropped.
    """
    if bucket not in numbers:
        raise LogError(f"there is no bucket {bucket}")
    if bucket == open_bucket:
        raise LogError(f"bucket {bucket} is not sealed")
    if bucket != numbers[0]:
        raise LogError(f"bucket {bucket} is not the oldest: that is {numbers[0]}")


def damaged_chunk(partition: PartitionId, chunk: ChunkId) -> StoreCorrupt:
    return StoreCorrupt(
        f"the piece of a snapshot of partition {partition} for segment {chunk.segment} at {chunk.position} "
        "is missing or damaged; an older snapshot or the log itself can take its place"
    )


def chunk_checksum(data: bytes) -> bytes:
    """16 bytes over a chunk as a store keeps it."""
    return hashlib.blake2b(data, digest_size=16).digest()


def row_checksum(snapshot: Snapshot) -> bytes:
    """Over everything that a store keeps of a snapshot."""
    chunks = [(chunk.segment, chunk.position) for chunk in snapshot.chunks]
    fields = (snapshot.partition, snapshot.position, snapshot.version, chunks)
    hasher = hashlib.blake2b(repr(fields).encode(), digest_size=16)
    for part in (snapshot.hash, snapshot.checksum, snapshot.head):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()
