"""Snapshots in the background: captured when a record is sealed, encoded a little at a time.

The state at the moment a record is sealed is the fold up to that record. Its small head is encoded then, at
once; all else between turns, a few segments or one chunk at a time, or just before it changes. What did
not change since the last snapshot is referenced, not stored again. Nothing is stored before the
record it is chained to is committed.
"""

from typing import Final

import trio

from querator import telemetry
from querator.actors.partition import CaptureRequest, PartitionActor
from querator.actors.wanted import Wanted
from querator.core.capture import Capture
from querator.core.ids import PartitionId, Position
from querator.core.limits import SNAPSHOT_BYTES, SNAPSHOT_RECORDS
from querator.core.snapshot import VERSION
from querator.env import Env
from querator.errors import LogError
from querator.log.codec import checksum
from querator.log.records import ChunkId, Snapshot
from querator.log.store import LogStore

SEGMENTS_PER_STEP: Final = 4
"""Segments encoded between two checkpoints: a millisecond or two."""


class SnapshotService:
    """Told of every commit; makes one snapshot at a time."""

    def __init__(self, stores: dict[str, LogStore], env: Env) -> None:
        self._stores = stores
        self._env = env
        self._wanted = Wanted()
        self._last: dict[PartitionId, tuple[int, tuple[tuple[int, int], ...]]] = {}
        """By partition: position and chunks of the last snapshot that this process stored."""
        self._proved: dict[PartitionId, tuple[int, bytes]] = {}
        """By partition: position and hash of the last snapshot that was read back, and is good."""
        self._one = trio.Lock()
        self.taken = 0

    def committed(self, actor: PartitionActor) -> None:
        """Ask for a snapshot when enough was logged since the last one."""
        if actor.log_records >= SNAPSHOT_RECORDS or actor.log_bytes >= SNAPSHOT_BYTES:
            self._wanted.add(actor)

    async def run(self) -> None:
        """Take what is asked for; for ever."""
        while True:
            actor = await self._wanted.take()
            if actor.is_open:
                await self.take(actor)

    async def finish(self, actors: list[PartitionActor]) -> None:
        """Before a stop: a snapshot of each partition that logged something, so that a start is quick."""
        for actor in actors:
            if actor.is_open and actor.log_records:
                await self.take(actor)

    def proved(self, partition: PartitionId, position: int, hash_: bytes) -> None:
        """The snapshot of this position was read back: it is not written over by another one of the same
        position, which may be no good. 0: none could be read."""
        self._proved[partition] = (position, hash_)

    async def take(self, actor: PartitionActor) -> bool:
        """Capture at the next seal, encode between turns, wait for the commit; whether it is stored."""
        async with self._one:
            position, chunks = self._last.get(actor.partition, (0, ()))
            request = CaptureRequest(chunks, position)
            actor.request_capture(request)
            try:
                await request.begun.wait()
                if request.capture is None:
                    return False
                return await self._finish(actor, request, request.capture)
            finally:
                actor.end_capture()

    async def _finish(self, actor: PartitionActor, request: CaptureRequest, capture: Capture) -> bool:
        store = self._stores[actor.store_name]
        while not capture.step(SEGMENTS_PER_STEP):
            await trio.lowlevel.checkpoint()
        await request.committed.wait()
        if not request.hash:
            return False
        position = Position(capture.position)
        if self._proved.get(actor.partition) == (position, request.hash):
            return True
        fresh = {ChunkId(number, Position(at)): data for (number, at), data in capture.fresh.items()}
        chunks = tuple(ChunkId(number, Position(at)) for number, at in capture.chunks)
        try:
            if fresh:
                await store.put_chunks(actor.partition, fresh)
            await store.put_snapshot(
                Snapshot(
                    actor.partition,
                    position,
                    request.hash,
                    VERSION,
                    capture.head,
                    chunks,
                    checksum(capture.head),
                )
            )
        except LogError as error:
            # The next one stores everything anew: what this one referred to may be what is missing.
            self._last.pop(actor.partition, None)
            telemetry.emit("snapshot.failed", partition=actor.partition, error=str(error))
            return False
        self._last[actor.partition] = (position, capture.chunks)
        actor.log_records = 0
        actor.log_bytes = 0
        self.taken += 1
        telemetry.emit("snapshot.taken", partition=actor.partition, position=position, chunks=len(fresh))
        return True
