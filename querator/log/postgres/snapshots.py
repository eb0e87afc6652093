"""Snapshots and their chunks as rows, off the hot path, over connections of their own."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from querator import telemetry
from querator.core.ids import PartitionId, Position
from querator.core.limits import QUERY_TIMEOUT
from querator.errors import LogUnavailable, StoreCorrupt
from querator.log.postgres import wire
from querator.log.postgres.checks import complete
from querator.log.postgres.classify import Meaning, classify
from querator.log.postgres.connection import Rows
from querator.log.postgres.pool import Pool
from querator.log.postgres.statements import statement
from querator.log.records import ChunkId, Snapshot

CHECKSUM_BYTES: Final = 16


@attrs.define
class SnapshotRows:
    """The snapshot half of ``LogStore``."""

    name: str
    pool: Pool

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        bodies = list(chunks.values())
        await self._write(
            "put_chunks",
            [
                wire.encode_int8(partition),
                wire.encode_int8s([chunk.segment for chunk in chunks]),
                wire.encode_int8s([chunk.position for chunk in chunks]),
                wire.encode_byteas([_checksum(body) for body in bodies]),
                wire.encode_byteas(bodies),
            ],
        )

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        rows = await self._write(
            "put_snapshot",
            [
                wire.encode_int8(snapshot.partition),
                wire.encode_int8(snapshot.position),
                wire.encode_int4(snapshot.version),
                snapshot.hash,
                snapshot.checksum,
                _seal(snapshot),
                wire.encode_int8s([chunk.segment for chunk in snapshot.chunks]),
                wire.encode_int8s([chunk.position for chunk in snapshot.chunks]),
                snapshot.head,
            ],
        )
        missing = wire.decode_int(rows.values[0][0] or b"")
        if missing:
            raise StoreCorrupt(
                f"a snapshot of partition {snapshot.partition} names {missing} chunks that are not there"
            )

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        found = []
        for row in complete(await self._run("snapshots", [wire.encode_int8(partition)])):
            segments, positions = wire.decode_int8s(row[5]), wire.decode_int8s(row[6])
            snapshot = Snapshot(
                partition=partition,
                position=Position(wire.decode_int(row[0])),
                hash=row[2],
                version=wire.decode_int(row[1]),
                head=row[7],
                chunks=tuple(
                    ChunkId(segment, Position(position))
                    for segment, position in zip(segments, positions, strict=False)
                ),
                checksum=row[3],
            )
            if row[4] == _seal(snapshot):
                found.append(snapshot)
            else:
                telemetry.emit("snapshot.damaged", store=self.name, partition=partition)
        return found

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        rows = await self._run(
            "read_chunks",
            [
                wire.encode_int8(partition),
                wire.encode_int8s([chunk.segment for chunk in chunks]),
                wire.encode_int8s([chunk.position for chunk in chunks]),
            ],
        )
        found = {}
        for segment, position, checksum, body in complete(rows):
            if checksum == _checksum(body):
                found[ChunkId(wire.decode_int(segment), Position(wire.decode_int(position)))] = body
        for chunk in chunks:
            if chunk not in found:
                raise StoreCorrupt(f"{chunk} of partition {partition} is missing or damaged")
        return {chunk: found[chunk] for chunk in chunks}

    async def _write(self, name: str, parameters: list[bytes]) -> Rows:
        rows = await self._run(name, parameters)
        if classify(rows.answer) is not Meaning.COMMITTED:
            # Writing it again is harmless, so an unknown outcome is no other than a failure.
            raise LogUnavailable(f"PostgreSQL: {rows.answer.message}")
        return rows

    async def _run(self, name: str, parameters: list[bytes]) -> Rows:
        async with self.pool.borrow() as connection:
            return await connection.run(statement(name), parameters, within=QUERY_TIMEOUT)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECKSUM_BYTES).digest()


def _seal(snapshot: Snapshot) -> bytes:
    """Over a whole row; the snapshot's own checksum is its maker's, for whatever it covers."""
    hasher = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    numbers = [snapshot.partition, snapshot.position, snapshot.version]
    numbers += [number for chunk in snapshot.chunks for number in (chunk.segment, chunk.position)]
    hasher.update(wire.encode_int8s(numbers))
    hasher.update(wire.encode_byteas([snapshot.hash, snapshot.checksum, snapshot.head]))
    return hasher.digest()
