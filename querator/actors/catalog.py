"""The catalog's owner: decides changes, commits them to partition 0, then carries them out.

Changes are rare, so one runs at a time: decide, append, fold, and only then tell the supervisor. If
the catalog's store is down queues go on by the policy in their own logs, and changes are refused.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from querator import telemetry
from querator.actors.claim import Claim, append_surely, claim
from querator.core import events as ev
from querator.core.catalog import (
    DECISION_ENTROPY_BYTES,
    Catalog,
    CatalogCommand,
    Changed,
    Document,
    decide,
    decode,
    encode,
    evolve,
)
from querator.core.ids import CATALOG_PARTITION, SECOND, Duration, Position
from querator.core.limits import READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.core.replies import Code, Rejected
from querator.env import Env, seconds
from querator.errors import CorruptRecord
from querator.log.codec import GENESIS, decode_events, seal
from querator.log.store import LogStore

CHANGE_TIMEOUT: Final = Duration(10 * SECOND)

CarryOut: TypeAlias = Callable[[Document], Awaitable[None]]


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
        self._is_open = False

    @property
    def catalog(self) -> Catalog:
        """The committed catalog."""
        return self._catalog

    async def open(self) -> None:
        """Claim partition 0 and fold it."""
        claimed: Claim = await claim(self._store, self._env, CATALOG_PARTITION, node=self._node)
        position, previous = 0, GENESIS
        while position < claimed.tail.position:
            page = await self._store.read(
                CATALOG_PARTITION,
                Position(position + 1),
                records_max=RESTORE_PAGE_RECORDS,
                bytes_max=READ_BYTES_MAX,
                payloads=False,
            )
            if not page:
                raise CorruptRecord(f"the catalog ends at {position}, not at {claimed.tail.position}")
            for record in page:
                if record.position != position + 1 or record.previous_hash != previous:
                    raise CorruptRecord(f"record {record.position} of the catalog does not chain")
                for event in decode_events(record.events):
                    if isinstance(event, ev.CatalogChanged):
                        evolve(self._catalog, decode(event.document))
                position, previous = record.position, record.hash
        self._nonce = claimed.nonce
        self._position = position
        self._hash = previous
        self._is_open = True

    async def change(self, command: CatalogCommand, author: str = "") -> Changed | Rejected:
        """See CatalogPort."""
        async with self._lock:
            if not self._is_open:
                return Rejected(Code.UNAVAILABLE, "this node does not own the catalog (any more)")
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
            with trio.CancelScope(shield=True):
                refusal = await self._commit(decision.documents)
                if refusal is not None:
                    return refusal
                for document in decision.documents:
                    evolve(self._catalog, document)
                for document in decision.documents:
                    await self._carry_out(document)
            return decision.reply

    async def _commit(self, documents: tuple[Document, ...]) -> Rejected | None:
        now = self._env.clock.now()
        events: list[ev.Event] = [ev.TurnStarted(now)]
        events += [ev.CatalogChanged(encode(document)) for document in documents]
        record = seal(CATALOG_PARTITION, Position(self._position + 1), self._hash, self._nonce, now, events)
        mine = False
        with trio.move_on_after(seconds(CHANGE_TIMEOUT)) as scope:
            mine = await append_surely(self._store, self._env, record)
        if scope.cancelled_caught:
            # It may yet appear: whoever appends next must find out, so this owner stops here.
            self._is_open = False
            return Rejected(Code.OUTCOME_UNKNOWN, "the catalog's store did not answer in time")
        if not mine:
            self._is_open = False
            telemetry.emit("catalog.lost")
            return Rejected(Code.NOT_OWNER, "another node owns the catalog now")
        self._position = record.position
        self._hash = record.hash
        return None
