"""A node: stores, writers, broker, catalog and services, put together and kept running.

The production server, the conformance host, the tests' in-process broker and a simulated node are all
this, with other stores and another Env.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.actors.broker import Broker
from querator.actors.buckets import BucketService
from querator.actors.catalog import CatalogOwner
from querator.actors.history import History
from querator.actors.moves import Mover
from querator.actors.ownership import Ownership
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.recall import Recall
from querator.actors.snapshots import SnapshotService
from querator.actors.supervisor import Supervisor
from querator.actors.writer import LogWriter
from querator.core.catalog.commands import Bootstrap
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant, PartitionId
from querator.core.limits import (
    BUCKET_BYTES,
    CLOCK_REFERENCE_INTERVAL,
    PAYLOAD_MEMORY_BYTES,
    RESERVATION_END_LAG,
    SESSION_GRACE,
)
from querator.core.replies import Code
from querator.core.stores import place
from querator.env import Env, seconds
from querator.errors import LogError
from querator.log.line import Line
from querator.log.store import LogStore

STOP_TIMEOUT: Final = Duration(5 * SECOND)
_HOUSEKEEPING: Final = Duration(250 * MILLISECOND)


@attrs.frozen(kw_only=True)
class NodeOptions:
    """What a node is told. ``name`` goes into claims."""

    name: str = "node"
    auth: bool = False
    grace: Duration = SESSION_GRACE
    end_lag: Duration = RESERVATION_END_LAG
    payload_memory: int = PAYLOAD_MEMORY_BYTES
    snapshots: bool = True
    bucket_bytes: int = BUCKET_BYTES
    """A bucket of history is closed past this size."""
    affinities: Mapping[str, int] = attrs.Factory(dict)
    """How new partitions are shared between the stores, by name; empty: wherever the door says."""
    record_inputs: bool = False
    """Records say, too, what decided them: who waited, what was asked."""


class Node:
    """A running node; see ``open_node``."""

    def __init__(
        self, stores: dict[str, LogStore], env: Env, options: NodeOptions, line: Line | None = None
    ) -> None:
        self.env = env
        self.options = options
        self.stores = stores
        self.broker = Broker(env, grace=options.grace, end_lag=options.end_lag)
        self.payloads = PayloadService(self.broker, stores, env, budget=options.payload_memory)
        self.supervisor = Supervisor(
            self.broker,
            stores,
            env,
            self.payloads,
            node=options.name,
            record_inputs=options.record_inputs,
        )
        self.catalog = CatalogOwner(
            next(iter(stores.values())), env, node=options.name, carry_out=self.supervisor.carry_out
        )
        self.history = History(self.broker, stores)
        self.recall = Recall(stores)
        self.broker.recalls = self.recall.wants
        self.mover = Mover(self.broker, self.payloads, stores, env, self._is_gone)
        self.snapshots = SnapshotService(stores, env)
        self.buckets = BucketService(
            self.broker,
            stores,
            self.catalog,
            self.payloads,
            self.snapshots,
            env,
            bucket_bytes=options.bucket_bytes,
        )
        self.ownership = Ownership(
            self.broker,
            self.catalog,
            self.supervisor,
            env,
            line=line,
            bootstrap=Bootstrap(options.auth),
        )
        if options.affinities:
            self.catalog.place = self._place
        self.time_reference: Callable[[], Awaitable[Instant]] | None = None
        """A clock that all nodes on a store share; ours follows it slowly. ``None``: the wall clock."""
        self.broker.starved = self.payloads.starved
        self.broker.leaving = self.mover.leaving
        for name, store in stores.items():
            self.broker.writers[name] = LogWriter(
                store, env, on_committed=self._committed, on_lost=self.supervisor.lost
            )

    def _is_gone(self, partition: PartitionId) -> bool:
        """Its queue was deleted, and what it had decided is in its log, or never will be."""
        catalog = self.catalog.catalog
        return (
            partition < catalog.next_partition
            and catalog.find_queue_of(partition) is None
            and partition not in self.broker.actors
            and partition not in self.broker.retiring
        )

    def _committed(self, actor: PartitionActor) -> None:
        self.broker.committed(actor)
        if self.options.snapshots:
            self.snapshots.committed(actor)

    async def start(self, nursery: trio.Nursery) -> None:
        """Open the catalog and every partition, or stand by; services run in ``nursery``."""
        await nursery.start(self.supervisor.run)
        for writer in self.broker.writers.values():
            nursery.start_soon(writer.run, name="log writer")
        nursery.start_soon(self.broker.alarms.run, name="alarms")
        nursery.start_soon(self.payloads.run, name="payloads")
        nursery.start_soon(self.mover.run, name="mover")
        nursery.start_soon(self.recall.run, name="recall")
        nursery.start_soon(self.snapshots.run, name="snapshots")
        nursery.start_soon(self.buckets.run, name="buckets")
        nursery.start_soon(self._keep_house, name="housekeeping")
        await self.ownership.start()
        nursery.start_soon(self.ownership.run, name="ownership")

    async def _keep_house(self) -> None:
        """Small duties that no turn should pay for."""
        asked_at = self.env.clock.monotonic()
        while True:
            await self.env.clock.sleep(_HOUSEKEEPING)
            while self.payloads.spill():
                await trio.lowlevel.checkpoint()
            if self.time_reference is None:
                self._compare_clock(None)
            elif self.env.clock.monotonic() - asked_at > CLOCK_REFERENCE_INTERVAL:
                asked_at = self.env.clock.monotonic()
                try:
                    reference = await self.time_reference()
                except LogError:
                    # The store says elsewhere that it is away; until it is back our clock runs on.
                    continue
                self._compare_clock(reference)

    def _compare_clock(self, reference: Instant | None) -> None:
        step = self.env.clock.step(reference)
        if step:
            telemetry.emit("clock.stepped", by=step)

    def refuse_waiting(self) -> None:
        """Answer all that is parked or held: nobody waits for a node that stops."""
        broker = self.broker
        for queue in list(broker.queues.values()):
            broker.refuse_waiting(queue, Code.SHUTTING_DOWN, "queue is shutting down")

    async def stop(self) -> None:
        """Refuse what is new, answer what waits, and let the log writers finish what is decided."""
        broker = self.broker
        self.refuse_waiting()
        for queue in list(broker.queues.values()):
            queue.is_closing = True
        broker.is_closing = True
        with trio.move_on_after(seconds(STOP_TIMEOUT)):
            while not all(writer.is_idle for writer in broker.writers.values()):
                await self.env.clock.sleep(Duration(5 * MILLISECOND))
            if self.options.snapshots:
                await self.snapshots.finish(list(broker.actors.values()))
        for actor in [*broker.actors.values(), *broker.retiring.values()]:
            actor.close(Code.OUTCOME_UNKNOWN, "the server stopped")
        with trio.move_on_after(seconds(STOP_TIMEOUT)):
            await self.ownership.leave()

    def _place(self, partitions: int) -> tuple[str, ...]:
        """Where so many partitions go: by affinity, and only where they can be opened, if anywhere."""
        affinities = self.options.affinities
        reachable = {
            name: affinity for name, affinity in affinities.items() if affinity and not self._is_away(name)
        }
        present: dict[str, int] = {}
        for queue in self.catalog.catalog.queues.values():
            for part in queue.partitions:
                present[part.store] = present.get(part.store, 0) + 1
        return place(partitions, reachable or affinities, present)

    def _is_away(self, name: str) -> bool:
        """As far as was seen: nothing is asked now."""
        return bool(self.stores[name].away) or self.broker.writers[name].is_refused

    def notes(self) -> list[str]:
        """What an operator should know though the node is well: other stores than the catalog's are away,
        and what stores say of themselves."""
        first, *others = self.stores
        del first
        away = [
            f"store '{name}' is away: {self.stores[name].away or 'it takes no appends'}"
            for name in others
            if self._is_away(name)
        ]
        return away + [
            f"store '{name}': {remark}" for name, store in self.stores.items() for remark in store.remarks
        ]

    async def probe(self) -> str:
        """Empty when the storage answers; else what is wrong. A store that is away is, if it has the
        catalog; of others ``notes`` tells, since all that is not theirs goes on."""
        if self.ownership.fault:
            return self.ownership.fault
        for queue in self.broker.queues.values():
            for fault in queue.faults.values():
                return fault
        first = next(iter(self.stores))
        for actor in self.broker.actors.values():
            if not actor.is_open and actor.store_name == first:
                return actor.fault or actor.condition.value
        try:
            await self.stores[first].buckets()
        except LogError as error:
            return str(error)
        return ""


@asynccontextmanager
async def open_stores(stores: dict[str, LogStore]) -> AsyncIterator[None]:
    """Open the stores; close them at the end.

    Raises:
        LogError: a store can't be opened.
    """
    opened: list[LogStore] = []
    try:
        for store in stores.values():
            await store.open()
            opened.append(store)
        yield
    finally:
        with trio.CancelScope(shield=True):
            for store in opened:
                await store.aclose()


@asynccontextmanager
async def run_node(
    stores: dict[str, LogStore], env: Env, options: NodeOptions, line: Line | None = None
) -> AsyncIterator[Node]:
    """Start a node on open stores, and stop it in order at the end. Without a line it is the only one.

    Raises:
        LogError: the catalog can't be claimed.
    """
    async with trio.open_nursery() as nursery:
        try:
            node = Node(stores, env, options, line)
            await node.start(nursery)
            try:
                yield node
            finally:
                with trio.CancelScope(shield=True):
                    await node.stop()
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_node(stores: dict[str, LogStore], env: Env, options: NodeOptions) -> AsyncIterator[Node]:
    """``open_stores``, then ``run_node``.

    Raises:
        LogError: a store can't be opened, or the catalog not be claimed.
    """
    async with open_stores(stores), run_node(stores, env, options) as node:
        yield node
