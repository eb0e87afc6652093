"""Records made by hand: random bytes, consistent hashes. The log store does not look inside."""

import hashlib
import random

from querator.core.ids import Instant, PartitionId, Position
from querator.log.records import Record, Tail

ZEROS = bytes(32)
START = Instant(1_750_000_000_000_000)


def make_record(
    partition: int = 1,
    position: int = 1,
    previous_hash: bytes = ZEROS,
    *,
    nonce: int = 7,
    events: bytes = b"events",
    payload: bytes = b"payload",
    inputs: bytes = b"",
    seed: int = 0,
) -> Record:
    """A record whose hash follows from everything in it and from ``seed``."""
    checksum = hashlib.blake2b(payload, digest_size=8).digest()
    body = f"{partition} {position} {nonce} {seed}".encode() + previous_hash + events + checksum + inputs
    return Record(
        partition=PartitionId(partition),
        position=Position(position),
        previous_hash=previous_hash,
        nonce=nonce,
        written_at=Instant(START + position),
        item_min=position,
        item_max=position + 9,
        version=1,
        events=events,
        payload=payload,
        payload_checksum=checksum,
        inputs=inputs,
        hash=hashlib.blake2b(body, digest_size=32).digest(),
    )


def make_chain(
    partition: int, count: int, *, after: Tail | Record | None = None, nonce: int = 7
) -> list[Record]:
    """``count`` records of a partition, each behind the one before."""
    position, previous = (0, ZEROS) if after is None else (after.position, after.hash)
    records = []
    for _ in range(count):
        position += 1
        payload = random.Random(f"{partition} {position}").randbytes(40)
        records.append(make_record(partition, position, previous, nonce=nonce, payload=payload))
        previous = records[-1].hash
    return records
