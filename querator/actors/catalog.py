"""The catalog's owner: decides changes, commits them to partition 0, then carries them out.

Changes are rare, so one runs at a time: decide, append, fold, and only then tell the supervisor. If
the catalog's store is down queues go on by the policy in their own logs, and changes are refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs
import msgspec
import trio

from querator import telemetry
from querator.actors.claim import Reader, append_surely, claim, is_on_chain
from querator.core import events as ev
from querator.core.catalog import (
    ACCESS_CHANGES,
    DECISION_ENTROPY_BYTES,
    Catalog,
    CatalogCommand,
    Changed,
    Document,
    decide,
    decode,
    decode_catalog,
    encode,
    encode_catalog,
    evolve,
)
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import CATALOG_PARTITION, SECOND, Duration, Position
from querator.core.limits import PARTITIONS_PER_QUEUE_MAX
from querator.core.replies import Code, Rejected
from querator.env import Env, seconds
from querator.log.codec import GENESIS, checksum, seal
from querator.log.records import Record, Snapshot, Tail
from querator.log.store import LogStore

CHANGE_TIMEOUT: Final = Duration(10 * SECOND)

CarryOut: TypeAlias = Callable[[Document], Awaitable[None]]


@attrs.define
class CatalogReader(Reader):
    """Reads partition 0 into a catalog."""

    catalog: Catalog = attrs.field(factory=Catalog, init=False)

    def fold(self, record: Record, events: Sequence[ev.Event]) -> None:
        for event in events:
            if isinstance(event, ev.CatalogChanged):
                evolve(self.catalog, decode(event.document))

    async def read_to(self, store: LogStore, tail: Tail | None) -> None:
        if not self.position and tail is not None:
            await self.begin_at_snapshot(store, tail)
        await Reader.read_to(self, store, tail)

    async def begin_at_snapshot(self, store: LogStore, tail: Tail) -> None:
        for snapshot in await store.snapshots(self.partition):
            if await is_on_chain(store, snapshot, tail) and self._begin_at(snapshot):
                break

    def _begin_at(self, snapshot: Snapshot) -> bool:
        try:
            head = msgspec.msgpack.decode(snapshot.head, type=_CatalogHead)
            self.catalog = decode_catalog(head.catalog)
        except ValueError as error:
            telemetry.emit("snapshot.ignored", partition=0, position=snapshot.position, why=str(error))
            return False
        self.position, self.hash = snapshot.position, snapshot.hash
        self.nonce, self.incarnation = head.nonce, head.incarnation
        self.server_identity, self.claimed_at = head.server_identity, Position(head.claimed_at)
        return True


@attrs.define
class _CatalogHead:
    """A snapshot of the catalog: the catalog, and what its last claim said."""

    catalog: bytes
    nonce: int
    incarnation: int
    server_identity: str
    claimed_at: int


class CatalogOwner:
    """Implements CatalogPort. ``open`` first."""

    def __init__(self, store: LogStore, env: Env, *, node: str, carry_out: CarryOut) -> None:
        self._store = store
        self._env = env
        self._node = node
        self._carry_out = carry_out
        self._catalog = Catalog()
        self._lock = trio.Lock()
        self._nonce = 0
        self._position = 0
        self._hash = GENESIS
        self._proved = (0, b"")
        self._is_open = False
        self._log = CatalogReader(CATALOG_PARTITION)
        self._told: list[Callable[[], None]] = []
        self.place: Callable[[int], tuple[str, ...]] | None = None
        """Which stores so many partitions of a new queue go to; ``None``: where the command says."""
        self.lost = trio.Event()
        """Set when changes can't be made any more, until ``open`` claims the catalog anew."""

    @property
    def catalog(self) -> Catalog:
        """The committed catalog."""
        return self._catalog

    async def open(self) -> None:
        """Claim partition 0 and fold it; again, when it was lost."""
        log = CatalogReader(CATALOG_PARTITION)
        await claim(self._store, self._env, CATALOG_PARTITION, node=self._node, reader=log)
        self._log = log
        self._catalog = log.catalog
        self._nonce = log.nonce
        self._position = log.position
        self._hash = log.hash
        self._is_open = True
        self.lost = trio.Event()

    def close(self) -> None:
        """Another node owns it now: change nothing, and show nothing that may be out of date."""
        self._is_open = False
        self._catalog = Catalog()
        self.lost = trio.Event()

    async def is_last(self) -> bool:
        """Whether nobody wrote to the catalog since this node did.

        Raises:
            LogError: the store does not say.
        """
        tail = await self._store.tail(CATALOG_PARTITION)
        return tail is not None and tail.position == self._position and tail.hash == self._hash

    def _lose(self, catalog: Catalog) -> None:
        if self._catalog is catalog:
            self._is_open = False
            self.lost.set()

    def when_access_changes(self, call: Callable[[], None]) -> None:
        """Call it each time that keys, users, roles or bindings have changed, as soon as that is committed.

        It must not wait and must not raise.
        """
        self._told.append(call)

    async def snapshot(self) -> bool:
        """Store the catalog as it is, so that the history behind it may be dropped; whether it is stored.

        Raises:
            LogError: the store can't take it now.
        """
        async with self._lock:
            if not self._is_open:
                return False
            log = self._log
            head = msgspec.msgpack.encode(
                _CatalogHead(
                    encode_catalog(self._catalog),
                    log.nonce,
                    log.incarnation,
                    log.server_identity,
                    log.claimed_at,
                )
            )
            position = Position(self._position)
            if self._proved == (position, self._hash):
                return True
            await self._store.put_snapshot(
                Snapshot(CATALOG_PARTITION, position, self._hash, 1, head, (), checksum(head))
            )
            return True

    def proved(self, position: int, hash_: bytes) -> None:
        """The snapshot of this position was read back; 0: none could be. See ``SnapshotService.proved``."""
        self._proved = (position, hash_)

    async def change(self, command: CatalogCommand, author: str = "") -> Changed | Rejected:
        """See CatalogPort."""
        async with self._lock:
            if not self._is_open:
                return Rejected(Code.UNAVAILABLE, "this node does not own the catalog (any more)")
            if isinstance(command, CreateQueue) and self.place is not None:
                wanted = min(max(command.partitions, 1), PARTITIONS_PER_QUEUE_MAX)
                command = attrs.evolve(command, stores=self.place(wanted))
            decision = decide(
                self._catalog,
                command,
                now=self._env.clock.now(),
                entropy=self._env.rng.token_bytes(DECISION_ENTROPY_BYTES),
                author=author,
            )
            if isinstance(decision, Rejected):
                return decision
            if not decision.documents:
                return decision.reply
            catalog = self._catalog
            with trio.CancelScope(shield=True):
                refusal = await self._commit(decision.documents)
                if refusal is not None:
                    return refusal
                if self._catalog is not catalog:
                    # Closed or claimed anew meanwhile; the change is in the log, for whoever reads it there.
                    return decision.reply
                for document in decision.documents:
                    evolve(catalog, document)
                if any(isinstance(document.change, ACCESS_CHANGES) for document in decision.documents):
                    for call in self._told:
                        call()
                for document in decision.documents:
                    await self._carry_out(document)
            return decision.reply

    async def _commit(self, documents: tuple[Document, ...]) -> Rejected | None:
        now = self._env.clock.now()
        events: list[ev.Event] = [ev.TurnStarted(now)]
        events += [ev.CatalogChanged(encode(document)) for document in documents]
        record = seal(CATALOG_PARTITION, Position(self._position + 1), self._hash, self._nonce, now, events)
        catalog = self._catalog
        mine = False
        with trio.move_on_after(seconds(CHANGE_TIMEOUT)) as scope:
            mine = await append_surely(self._store, self._env, record)
        if scope.cancelled_caught:
            # It may yet appear: whoever appends next must find out, so this owner stops here.
            self._lose(catalog)
            return Rejected(Code.OUTCOME_UNKNOWN, "the catalog's store did not answer in time")
        if not mine:
            self._lose(catalog)
            telemetry.emit("catalog.lost")
            return Rejected(Code.NOT_OWNER, "another node owns the catalog now")
        if self._catalog is catalog:
            self._position = record.position
            self._hash = record.hash
        return None
