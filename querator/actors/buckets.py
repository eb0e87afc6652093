"""Buckets of history: opened when the last one is full, dropped whole when nothing needs them any more.

The rollover is announced in each partition's log. A bucket may go when it is the oldest, sealed, behind a
snapshot of every partition, exported (where somebody exports), and no live item has its payload there: such
payloads are appended again first, by a ``carried`` record.
"""

from collections.abc import Callable, Mapping
from typing import Final

import trio

from querator import telemetry
from querator.actors.broker import Broker
from querator.actors.catalog import CatalogOwner, CatalogReader
from querator.actors.claim import StateReader
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.snapshots import SnapshotService
from querator.core import events as ev
from querator.core.decide import to_ranges
from querator.core.ids import CATALOG_PARTITION, SECOND, Duration, PartitionId, Position
from querator.core.limits import BATCH_ITEMS_MAX, BUCKET_BYTES
from querator.core.segments import GONE
from querator.env import Env
from querator.errors import LogError
from querator.log.store import Bucket, LogStore

_LOOK: Final = Duration(10 * SECOND)
_COMMIT_WAIT: Final = Duration(5_000)
_LOOKS: Final = 20
"""At a tail that is ahead of the actor's."""


class BucketService:
    """Rolls by itself (``run``); drops when told to (``prune``)."""

    def __init__(
        self,
        broker: Broker,
        stores: dict[str, LogStore],
        catalog: CatalogOwner,
        payloads: PayloadService,
        snapshots: SnapshotService,
        env: Env,
        *,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._broker = broker
        self._stores = stores
        self._catalog = catalog
        self._payloads = payloads
        self._snapshots = snapshots
        self._env = env
        self._bucket_bytes = bucket_bytes
        self._starts: dict[tuple[str, int], dict[PartitionId, int]] = {}
        """By store and bucket: a position of each partition behind which nothing of older buckets is. What
        this process did not see opened it takes to begin at the tail that it found: never too early."""
        self._announced: dict[tuple[str, int], dict[PartitionId, tuple[int, int]]] = {}
        """Likewise, of buckets that this process opened: (position of the announcing owner's claim, position
        of its announcement once that is committed)."""
        self._one = trio.Lock()
        """One pass at a time: what one has proved, another would write anew."""
        self.carried = 0
        self.dropped = 0

    async def run(self) -> None:
        """Open a new bucket whenever the open one is full; for ever."""
        while True:
            await self._env.clock.sleep(_LOOK)
            if self._broker.may_decide() is not None:
                continue
            for name, store in self._stores.items():
                try:
                    open_bucket = (await store.buckets())[-1]
                    if open_bucket.bytes_used >= self._bucket_bytes:
                        await self.roll(name)
                except LogError as error:
                    telemetry.emit("bucket.unavailable", store=name, error=str(error))

    async def roll(self, name: str) -> int:
        """Open the next bucket of a store and announce it in every partition's log; its number."""
        number = await self._stores[name].roll()
        broker = self._broker
        broker.begin_turn()
        announced = self._announced.setdefault((name, number), {})
        for actor in self._actors(name):
            broker.touch(actor)
            actor.apply(ev.BucketOpened(number))
            announced[actor.partition] = (actor.state.claimed_at, actor.state.position)
        broker.end_turn()
        telemetry.emit("bucket.opened", store=name, bucket=number)
        return number

    def learn_starts(self, name: str, number: int, starts: Mapping[PartitionId, Position]) -> None:
        """Where partitions begin in a bucket, as their logs announced it: for buckets that another process
        opened. Each is the position of the record that announced it."""
        known = self._starts.setdefault((name, number), {})
        for partition, position in starts.items():
            known.setdefault(partition, position)

    async def prune(
        self,
        name: str,
        *,
        buckets_kept: int,
        is_exported: Callable[[PartitionId, Position], bool] | None = None,
    ) -> list[int]:
        """Drop the oldest sealed buckets of a store, down to ``buckets_kept`` of all; those that went.

        ``is_exported(partition, position)`` says whether the partition's history before the position is
        safe elsewhere; ``None``: nobody asked for it to be.

        Raises:
            LogError: the store can't do it now.
        """
        gone: list[int] = []
        async with self._one:
            while (number := await self._drop_oldest(name, buckets_kept, is_exported)) is not None:
                gone.append(number)
        return gone

    async def _drop_oldest(
        self, name: str, buckets_kept: int, is_exported: Callable[[PartitionId, Position], bool] | None
    ) -> int | None:
        store = self._stores[name]
        buckets = await store.buckets()
        if len(buckets) <= buckets_kept or not buckets[0].sealed:
            return None
        number = buckets[0].number
        if not await self._make_droppable(name, buckets[0], is_exported):
            return None
        await store.drop(number)
        self.dropped += 1
        telemetry.emit("bucket.dropped", store=name, bucket=number)
        return number

    async def _make_droppable(
        self, name: str, bucket: Bucket, is_exported: Callable[[PartitionId, Position], bool] | None
    ) -> bool:
        """Whether nobody needs the bucket any more. Every doubt keeps it: dropping can't be undone."""
        for partition in await self._stores[name].partitions():
            why = await self._hindrance(name, partition, bucket, is_exported)
            if why:
                telemetry.emit("bucket.kept", bucket=bucket.number, partition=partition, why=why)
                return False
        return True

    async def _hindrance(
        self,
        name: str,
        partition: PartitionId,
        bucket: Bucket,
        is_exported: Callable[[PartitionId, Position], bool] | None,
    ) -> str:
        """Why the partition still needs the bucket; empty when it does not."""
        if self._broker.may_decide() is not None:
            # A stand-by's catalog is empty: it knows of no queue, which proves no deletion.
            return "this node does not own it"
        if partition == CATALOG_PARTITION:
            tail = await self._stores[name].tail(partition)
            if not await self._catalog.snapshot():
                return "the catalog has no snapshot"
            end = tail.position if tail is not None else Position(0)
            return await self._unreadable(name, CatalogReader(partition), end)
        actor = self._broker.actors.get(partition)
        if actor is None or not actor.is_open:
            # A deleted queue's partitions are opened by nobody; any other one may come back and read.
            is_deleted = self._catalog.catalog.find_queue_of(partition) is None
            return "" if is_deleted else "it is not open here"
        start = self._start_behind(name, bucket.number, actor)
        if is_exported is not None and not is_exported(partition, start):
            return "not exported"
        await self._carry(actor, start)
        if self._broker.actors.get(partition) is not actor or _old_payloads(actor, start):
            return "not every live payload could be carried"
        if not await self._snapshots.take(actor):
            return "it has no snapshot behind the bucket"
        if not await self._is_last(name, actor):
            return "somebody else may have written to it"
        return await self._unreadable(name, StateReader(partition), Position(start - 1))

    async def _is_last(self, name: str, actor: PartitionActor) -> bool:
        """Whether all that is in the partition's sealed buckets is this actor's to know. A rival's claim that
        it has not met yet may be in one of them, behind the snapshot: dropped, nobody could open the
        partition any more. What comes from now on goes into the open bucket."""
        store = self._stores[name]
        for _ in range(_LOOKS):
            tail = await store.tail(actor.partition)
            if not actor.is_open or tail is None:
                return False
            if tail.position <= actor.tail:
                return tail.position < actor.tail or tail.hash == actor.tail_hash
            # Perhaps its own record, of which it will hear in a moment.
            await self._env.clock.sleep(_COMMIT_WAIT)
        return False

    async def _unreadable(self, name: str, reader: CatalogReader | StateReader, end: Position) -> str:
        """Read the snapshots back, as a restart would: that one was stored is no proof that it is there.
        Why the partition can't be restored without the records up to ``end``; empty when it can."""
        store = self._stores[name]
        tail = await store.tail(reader.partition)
        if tail is not None:
            await reader.begin_at_snapshot(store, tail)
        is_good = reader.position >= end
        proved = (reader.position if is_good else 0, reader.hash)
        if reader.partition == CATALOG_PARTITION:
            self._catalog.proved(*proved)
        else:
            self._snapshots.proved(reader.partition, *proved)
        return "" if is_good else "no snapshot behind the bucket can be read"

    def _start_behind(self, name: str, bucket: int, actor: PartitionActor) -> Position:
        """A position of the partition before which all is that it has in the bucket, and little more. Where
        its log did not announce what came behind the bucket, its last record may be in there as well."""
        known = [
            (number, starts[actor.partition])
            for (store, number), starts in self._starts.items()
            if store == name and number > bucket and actor.partition in starts
        ]
        for (store, number), announced in self._announced.items():
            if store == name and number > bucket and actor.partition in announced:
                claimed_at, position = announced[actor.partition]
                # Who was fenced announced nothing: what stands there is another's, and may be older.
                if claimed_at == actor.state.claimed_at and position <= actor.tail:
                    known.append((number, position))
        return Position(min(known)[1] if known else actor.tail + 1)

    def _actors(self, name: str) -> list[PartitionActor]:
        return [actor for actor in self._broker.actors.values() if actor.store_name == name and actor.is_open]

    async def _carry(self, actor: PartitionActor, start: Position) -> None:
        """Append again the payloads of live items that stand before ``start``."""
        items = _old_payloads(actor, start)
        for first in range(0, len(items), BATCH_ITEMS_MAX):
            wanted = items[first : first + BATCH_ITEMS_MAX]
            read = await self._payloads.read_items(actor, wanted)
            left = [item for item in wanted if item in read and actor.state.state_of(item) != GONE]
            if not left or not actor.is_open:
                continue
            self._broker.begin_turn()
            self._broker.touch(actor)
            actor.apply(ev.PayloadsCarried(tuple(to_ranges(left)), [read[item] for item in left]))
            position = actor.state.position
            self._broker.end_turn()
            self.carried += len(left)
            while actor.tail < position and actor.is_open:
                await self._env.clock.sleep(_COMMIT_WAIT)


def _old_payloads(actor: PartitionActor, start: Position) -> list[int]:
    """Live items whose payload is in a record before ``start``, ascending."""
    items: list[int] = []
    for number in sorted(actor.state.segments):
        segment = actor.state.segments[number]
        if not segment.live or (segment.origin_positions and segment.origin_positions[0] >= start):
            continue
        for offset, kind in enumerate(segment.states):
            if kind != GONE and segment.origin_of(offset) < start:
                items.append(segment.first + offset)
    return items
