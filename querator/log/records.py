"""What a log store stores: records, snapshots and their chunks, as bytes and positions."""

import hashlib

import attrs

from querator.core.ids import Instant, PartitionId, Position


@attrs.define
class Record:
    """One commit of one partition.

    ``hash`` covers the header, ``events``, and the checksums of ``payload`` and ``inputs`` (so that
    a payload can be erased lawfully), and chains to ``previous_hash``. log/codec.py makes and
    checks it.
    """

    partition: PartitionId
    position: Position
    previous_hash: bytes
    """32 bytes; zeros at position 1."""
    nonce: int
    """Of the claim that wrote it: whose record this is (DESIGN: decision 6). 63 bits."""
    written_at: Instant
    item_min: int
    """First item produced in this record; 0 where none."""
    item_max: int
    version: int
    events: bytes
    """Event columns (log/codec.py)."""
    payload: bytes | None
    """Payload block; ``None`` when it was not read; b"" where there is none."""
    payload_checksum: bytes
    """8 bytes over ``payload``; so the chain can be walked without reading payloads."""
    inputs: bytes
    """What replay needs to re-decide; b"" unless switched on. The fold ignores it."""
    hash: bytes


@attrs.frozen
class Tail:
    position: Position
    hash: bytes
    nonce: int


@attrs.frozen
class ChunkId:
    """A piece of snapshots that several of them share: a sealed segment at one of its revisions."""

    segment: int
    position: Position
    """The position of the snapshot that first needed it."""


@attrs.frozen
class Snapshot:
    """A partition's committed state at ``position``; ignored unless (position, hash) is on the chain."""

    partition: PartitionId
    position: Position
    hash: bytes
    version: int
    head: bytes
    """All that is not in chunks."""
    chunks: tuple[ChunkId, ...]
    checksum: bytes


def snapshot_checksum(head: bytes, chunks: tuple[ChunkId, ...]) -> bytes:
    """16 bytes over what is the snapshot's own: its head and the names of its chunks.

    Each chunk has a checksum in its store.
    """
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(repr([(chunk.segment, chunk.position) for chunk in chunks]).encode())
    hasher.update(head)
    return hasher.digest()
