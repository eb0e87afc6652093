"""Claiming a partition: read its log to the tail, then append ``claimed`` right behind it.

Once the record is in, everything before it is final, and an earlier owner can only collide with the
log's unique key (DESIGN: decision 6). What was read before the claim is read once: when others wrote
meanwhile the claim collides, and only what is new is read before the next try. Reading begins at the
newest snapshot that is on the chain.
"""

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core import events as ev
from querator.core.evolve import fold
from querator.core.ids import MILLISECOND, SECOND, Duration, PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.core.limits import CLAIM_TRIES_MAX, READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.core.loading import Loading
from querator.core.snapshot import SnapshotUnreadable
from querator.core.state import PartitionState
from querator.env import Env
from querator.errors import (
    AppendOutcomeUnknown,
    CorruptRecord,
    DataLossSuspected,
    HistoryDropped,
    LogError,
    LogUnavailable,
    StoreCorrupt,
)
from querator.log.codec import GENESIS, decode_events, seal
from querator.log.records import Record, Snapshot, Tail
from querator.log.store import LogStore, Verdict

_BACKOFF_MIN: Final = Duration(50 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(2 * SECOND)


class ClaimLost(LogError):
    """Others kept claiming the partition: leave it to them."""


@attrs.define
class Reader:
    """How far a partition's log was read, and what its last claim said. Subclasses keep more."""

    partition: PartitionId
    position: Position = Position(0)
    hash: bytes = GENESIS
    nonce: int = 0
    incarnation: int = 0
    server_identity: str = ""
    claimed_at: Position = Position(0)
    loss_known: Position = Position(0)
    """If the last claim accepted a loss: the furthest position that is known to have been there."""

    def take(self, record: Record, events: Sequence[ev.Event]) -> None:
        """The next record.

        Raises:
            CorruptRecord: it does not follow the one before.
        """
        if record.position != self.position + 1 or record.previous_hash != self.hash:
            raise CorruptRecord(f"record {record.position} of partition {self.partition} does not chain")
        self.fold(record, events)
        self.position = record.position
        self.hash = record.hash
        for event in events[:3]:
            if type(event) is ev.LossAccepted:
                self.loss_known = Position(event.known)
            elif type(event) is ev.Claimed:
                self.loss_known = Position(0)
                self.nonce = event.nonce
                self.incarnation = event.incarnation
                self.server_identity = event.server_identity
                self.claimed_at = record.position

    def fold(self, record: Record, events: Sequence[ev.Event]) -> None:
        """What a subclass makes of a record."""

    async def begin_at_snapshot(self, store: LogStore, tail: Tail) -> None:
        """Where a subclass has snapshots: start behind the newest that can be used."""

    async def read_to(self, store: LogStore, tail: Tail | None) -> None:
        """Read what is new.

        Raises:
            CorruptRecord: the log does not chain or decode.
            DataLossSuspected: it ends before what was read already.
            HistoryDropped: what comes next is not kept any more.
        """
        end, digest = (0, GENESIS) if tail is None else (tail.position, tail.hash)
        if end < self.position:
            raise DataLossSuspected(
                f"the log of partition {self.partition} ends at {end}, but {self.position} was there just now"
            )
        while self.position < end:
            page = await store.read(
                self.partition,
                Position(self.position + 1),
                records_max=RESTORE_PAGE_RECORDS,
                bytes_max=READ_BYTES_MAX,
                payloads=False,
            )
            if not page:
                raise CorruptRecord(f"partition {self.partition} ends at {self.position}, not at {end}")
            for record in page:
                if record.position <= end:
                    self.take(record, decode_events(record.events))
            await trio.lowlevel.checkpoint()
        if self.hash != digest:
            raise CorruptRecord(f"record {end} of partition {self.partition} is not what the tail says")


@attrs.define
class StateReader(Reader):
    """Reads a partition into its state."""

    state: PartitionState = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = PartitionState(self.partition)

    def fold(self, record: Record, events: Sequence[ev.Event]) -> None:
        """Raises CorruptRecord when the record does not fit: that halts its partition, and no other."""
        try:
            fold(self.state, record.position, events)
        except (InvariantViolation, KeyError, IndexError, ValueError, TypeError) as error:
            raise CorruptRecord(
                f"record {record.position} of partition {self.partition} does not fit: {error!r}"
            ) from error

    async def read_to(self, store: LogStore, tail: Tail | None) -> None:
        if not self.position and tail is not None:
            await self.begin_at_snapshot(store, tail)
        await Reader.read_to(self, store, tail)

    async def begin_at_snapshot(self, store: LogStore, tail: Tail) -> None:
        for snapshot in await store.snapshots(self.partition):
            ignored = await self._try_snapshot(store, snapshot, tail)
            if not ignored:
                return
            telemetry.emit(
                "snapshot.ignored", partition=self.partition, position=snapshot.position, why=ignored
            )

    async def _try_snapshot(self, store: LogStore, snapshot: Snapshot, tail: Tail) -> str:
        """Empty when the snapshot was taken over, else why not."""
        if not await is_on_chain(store, snapshot, tail):
            return "off chain"
        try:
            chunks = await store.read_chunks(self.partition, snapshot.chunks)
            state = await load_slowly(
                self.partition, snapshot.head, [chunks[chunk] for chunk in snapshot.chunks]
            )
        except (StoreCorrupt, SnapshotUnreadable) as error:
            return str(error)
        if state.position != snapshot.position:
            return "it is of another position"
        self.state = state
        self.position = snapshot.position
        self.hash = snapshot.hash
        self.nonce = state.nonce
        self.incarnation = state.incarnation
        self.server_identity = state.server_identity
        self.claimed_at = Position(state.claimed_at)
        return ""


async def load_slowly(partition: PartitionId, head: bytes, chunks: Sequence[bytes]) -> PartitionState:
    """The state of a snapshot, loaded a chunk at a time, so that other partitions go on meanwhile.

    Raises:
        SnapshotUnreadable: it is none.
    """
    loading = Loading(partition, head)
    for chunk in chunks:
        loading.add(chunk)
        await trio.lowlevel.checkpoint()
    while not loading.step():
        await trio.lowlevel.checkpoint()
    return loading.state


async def is_on_chain(store: LogStore, snapshot: Snapshot, tail: Tail) -> bool:
    """Whether the log goes through the snapshot's record, which itself may have been dropped since."""
    if snapshot.position >= tail.position:
        return (snapshot.position, snapshot.hash) == (tail.position, tail.hash)
    try:
        following = await store.read(
            snapshot.partition, Position(snapshot.position + 1), records_max=1, bytes_max=1, payloads=False
        )
    except HistoryDropped:
        return False
    return bool(following) and following[0].previous_hash == snapshot.hash


async def append_surely(store: LogStore, env: Env, record: Record) -> bool:
    """Append one record until the store says whose it is: True when it is in and ours."""
    backoff = _BACKOFF_MIN
    while True:
        try:
            (verdict,) = await store.append([record])
        except (LogUnavailable, AppendOutcomeUnknown) as error:
            telemetry.emit("log.append.failed", store=store.name, error=str(error))
        else:
            if verdict is not Verdict.BUSY:
                return verdict is Verdict.MINE
        await env.clock.sleep(backoff)
        backoff = Duration(min(backoff * 2, _BACKOFF_MAX))


async def claim(
    store: LogStore,
    env: Env,
    partition: PartitionId,
    *,
    node: str,
    reader: Reader | None = None,
    more: Sequence[ev.Event] = (),
    accepted_by: str | None = None,
) -> Reader:
    """Take the partition; the reader that has read all of it, the claim as its last record.

    ``more`` goes into the same record (a new partition's policy). ``accepted_by``: an operator who takes the
    log as it is, whatever it may have lost; the claim says so, and begins a new incarnation.

    Raises:
        ClaimLost: every try met another claimant.
        CorruptRecord: the log does not chain or decode.
        DataLossSuspected: the log may have lost what was acknowledged (see ``_incarnation``).
        HistoryDropped: no usable snapshot, and the log does not begin at its beginning.
    """
    log = reader if reader is not None else Reader(partition)
    known = store.remembered(partition)
    accepted: list[ev.Event] = []
    if accepted_by is not None:
        store.accept_loss(partition)
    for _ in range(CLAIM_TRIES_MAX):
        # This is where a store with a witness compares what it finds with what was acknowledged.
        tail = await store.tail(partition)
        await log.read_to(store, tail)
        identity = store.server_identity(partition)
        if accepted_by is not None:
            # Numbers that the lost end may have given must not be given again, whoever wrote it.
            incarnation = max(log.incarnation, 1) + 1
            accepted = [ev.LossAccepted(accepted_by, max(known, log.claimed_at))]
        else:
            incarnation = _incarnation(store, log, identity)
        nonce = env.rng.nonce()
        now = env.clock.now()
        claimed = ev.Claimed(node, nonce, incarnation, log.position, identity)
        events = [ev.TurnStarted(now), claimed, *accepted, *more]
        record = seal(partition, Position(log.position + 1), log.hash, nonce, now, events)
        if await append_surely(store, env, record):
            log.take(record, events)
            telemetry.emit(
                "partition.claimed", partition=partition, position=record.position, incarnation=incarnation
            )
            return log
        await env.clock.sleep(Duration(1 + env.rng.randbelow(_BACKOFF_MIN)))
    raise ClaimLost(f"partition {partition} is being claimed by others")


async def suspicion(store: LogStore, log: Reader) -> str:
    """Why the partition's log can't be claimed as if nothing were amiss; "" when it can.

    Raises:
        LogError: the log can't be read.
    """
    try:
        await log.read_to(store, await store.tail(log.partition))
        _incarnation(store, log, store.server_identity(log.partition))
    except DataLossSuspected as error:
        return str(error)
    return ""


def _incarnation(store: LogStore, log: Reader, identity: str) -> int:
    """The incarnation to claim: another one when the log is on another server than at the last claim.

    A server that took over from another may lack the end of the log (a promoted standby). The node that
    owned the partition remembers how far it had come, and the store's ``tail`` compared that; a node
    that does not remember the last claim cannot tell, so it must not go on as if nothing were amiss.

    Raises:
        DataLossSuspected: the server changed, and this node does not remember the last claim.
    """
    if not log.claimed_at:
        return 1
    if identity == log.server_identity:
        return log.incarnation
    if store.remembered(log.partition) < log.claimed_at:
        raise DataLossSuspected(
            f"the log of partition {log.partition} is on another server ({identity}) than when it was last "
            f"claimed ({log.server_identity}), and this node was not its owner, so it cannot tell whether "
            "something is lost: start the node that was, or accept the log as it is (docs/POSTGRES.md)"
        )
    telemetry.emit("partition.server_changed", partition=log.partition, server=identity)
    return log.incarnation + 1
