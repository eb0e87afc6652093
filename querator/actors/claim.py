"""Claiming a partition: append ``claimed`` right behind its tail, then read what is final.

Once the record is in, everything before it is final, and an earlier owner can only collide with the
log's unique key (DESIGN: decision 6). Restoring is the newest snapshot that is on the chain, then the
records after it.
"""

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core import events as ev
from querator.core.evolve import fold
from querator.core.ids import MILLISECOND, SECOND, Duration, PartitionId, Position
from querator.core.limits import CLAIM_TRIES_MAX, READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.core.snapshot import SnapshotUnreadable, load
from querator.core.state import PartitionState
from querator.env import Env
from querator.errors import AppendOutcomeUnknown, CorruptRecord, LogError, LogUnavailable, StoreCorrupt
from querator.log.codec import GENESIS, decode_events, seal
from querator.log.records import Record, Snapshot, Tail
from querator.log.store import LogStore, Verdict

_BACKOFF_MIN: Final = Duration(50 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(2 * SECOND)


class ClaimLost(LogError):
    """Others kept claiming the partition: leave it to them."""


@attrs.frozen
class Claim:
    """What a claim gave: the partition's last record is the claim itself."""

    nonce: int
    tail: Tail


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
    identity: str = "",
    more: Sequence[ev.Event] = (),
) -> Claim:
    """Take the partition; ``more`` goes into the same record (a new partition's policy).

    Raises:
        ClaimLost: every try met another claimant.
        DataLossSuspected: from the store, when its tail is below what was acknowledged.
    """
    for _ in range(CLAIM_TRIES_MAX):
        tail = await store.tail(partition)
        nonce = env.rng.nonce()
        now = env.clock.now()
        read_tail = tail.position if tail is not None else Position(0)
        record = seal(
            partition,
            Position(read_tail + 1),
            tail.hash if tail is not None else GENESIS,
            nonce,
            now,
            [ev.TurnStarted(now), ev.Claimed(node, nonce, 1, read_tail, identity), *more],
        )
        if await append_surely(store, env, record):
            telemetry.emit("partition.claimed", partition=partition, position=record.position)
            return Claim(nonce, Tail(record.position, record.hash, nonce))
        await env.clock.sleep(Duration(1 + env.rng.randbelow(_BACKOFF_MIN)))
    raise ClaimLost(f"partition {partition} is being claimed by others")


async def restore(store: LogStore, partition: PartitionId, tail: Tail) -> PartitionState:
    """The state as of ``tail``.

    Raises:
        CorruptRecord: the log does not chain or decode.
        HistoryDropped: no usable snapshot, and the log does not begin at its beginning.
    """
    state, previous = await _from_snapshot(store, partition)
    while state.position < tail.position:
        page = await store.read(
            partition,
            Position(state.position + 1),
            records_max=RESTORE_PAGE_RECORDS,
            bytes_max=READ_BYTES_MAX,
            payloads=False,
        )
        if not page:
            raise CorruptRecord(f"partition {partition} ends at {state.position}, not at {tail.position}")
        for record in page:
            if record.position != state.position + 1 or record.previous_hash != previous:
                raise CorruptRecord(f"record {record.position} of partition {partition} does not chain")
            fold(state, record.position, decode_events(record.events))
            previous = record.hash
        await trio.lowlevel.checkpoint()
    if previous != tail.hash:
        raise CorruptRecord(f"the tail of partition {partition} is not the record that was claimed")
    return state


async def _from_snapshot(store: LogStore, partition: PartitionId) -> tuple[PartitionState, bytes]:
    for snapshot in await store.snapshots(partition):
        if not await _is_on_chain(store, snapshot):
            telemetry.emit("snapshot.ignored", partition=partition, position=snapshot.position, why="off chain")
            continue
        try:
            chunks = await store.read_chunks(partition, snapshot.chunks)
            state = load(partition, snapshot.head, [chunks[chunk] for chunk in snapshot.chunks])
        except (StoreCorrupt, SnapshotUnreadable) as error:
            telemetry.emit("snapshot.ignored", partition=partition, position=snapshot.position, why=str(error))
            continue
        if state.position != snapshot.position:
            telemetry.emit("snapshot.ignored", partition=partition, position=snapshot.position, why="position")
            continue
        return state, snapshot.hash
    return PartitionState(partition), GENESIS


async def _is_on_chain(store: LogStore, snapshot: Snapshot) -> bool:
    page = await store.read(
        snapshot.partition, snapshot.position, records_max=1, bytes_max=READ_BYTES_MAX, payloads=False
    )
    return bool(page) and page[0].position == snapshot.position and page[0].hash == snapshot.hash
