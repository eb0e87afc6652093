"""``querator log verify``: walk a partition's log from its beginning and believe nothing.

The chain and the checksums (log/restore.py), then what the events say: they must fit the state they meet
(the fold checks that), conserve items, reserve in order of place, and agree with every snapshot.
"""

from collections.abc import Callable

import attrs
import trio

from querator.core import events as ev
from querator.core.evolve import evolve
from querator.core.ids import PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.core.limits import READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.core.snapshot import SnapshotUnreadable, load, state_hash
from querator.core.state import PartitionState
from querator.core.state_checks import check_state, check_state_fully
from querator.errors import CorruptRecord, HistoryDropped, StoreCorrupt
from querator.log.codec import GENESIS, check_record, decode_events
from querator.log.records import Record, Snapshot
from querator.log.restore import first_position
from querator.log.store import LogStore


@attrs.define
class Verification:
    """What was found in one partition's log."""

    partition: int
    records: int = 0
    events: int = 0
    produced: int = 0
    completed: int = 0
    dead: int = 0
    removed: int = 0
    waiting: int = 0
    reserved: int = 0
    retried: int = 0
    ended: int = 0
    first: int = 1
    """The first position that is kept; what was before it is taken from the snapshot there."""
    snapshots: int = 0
    """Snapshots that were compared with the fold and agree."""
    fault: str = ""
    """The first thing that is wrong; "" when all is well."""
    fault_position: int = 0

    @property
    def is_good(self) -> bool:
        return not self.fault


async def verify_partition(
    store: LogStore,
    partition: PartitionId,
    on_progress: Callable[[Verification], None] | None = None,
) -> Verification:
    """Check the whole log of a partition that no live server writes to."""
    found = Verification(partition)
    snapshots = {snapshot.position: snapshot for snapshot in await store.snapshots(partition)}
    state = PartitionState(partition)
    previous = GENESIS
    tail = await store.tail(partition)
    last = tail.position if tail is not None else 0
    if tail is not None:
        found.first = await first_position(store, partition, tail)
    if found.first > 1:
        begun = await _begin_at_snapshot(store, partition, snapshots, found)
        if begun is None:
            found.fault, found.fault_position = "history was dropped and no snapshot stands behind it", found.first
            return found
        state, previous = begun
    while found.records < last:
        try:
            page = await store.read(
                partition,
                Position(found.records + 1),
                records_max=RESTORE_PAGE_RECORDS,
                bytes_max=READ_BYTES_MAX,
                payloads=True,
            )
        except HistoryDropped as error:
            found.fault, found.fault_position = str(error), found.records + 1
            break
        if not page:
            found.fault = f"the log says it ends at {last}, but there is no record {found.records + 1}"
            found.fault_position = found.records + 1
            break
        for record in page:
            fault = _check(state, record, previous, found)
            if not fault and record.position in snapshots:
                fault = await _check_snapshot(store, snapshots[record.position], state)
                found.snapshots += not fault
            if fault:
                found.fault, found.fault_position = fault, record.position
                break
            previous = record.hash
        _count(found, state)
        if on_progress is not None:
            on_progress(found)
        if found.fault:
            break
        await trio.lowlevel.checkpoint()
    if not found.fault:
        try:
            check_state_fully(state)
        except InvariantViolation as error:
            found.fault, found.fault_position = str(error), found.records
    return found


async def _begin_at_snapshot(
    store: LogStore, partition: PartitionId, snapshots: dict[Position, Snapshot], found: Verification
) -> tuple[PartitionState, bytes] | None:
    """The oldest snapshot behind which everything is kept; verification trusts what it says."""
    for position in sorted(snapshots):
        if position >= found.first - 1:
            snapshot = snapshots[position]
            try:
                chunks = await store.read_chunks(partition, snapshot.chunks)
                state = load(partition, snapshot.head, [chunks[chunk] for chunk in snapshot.chunks])
            except (StoreCorrupt, SnapshotUnreadable):
                continue
            found.records = position
            return state, snapshot.hash
    return None


def _check(state: PartitionState, record: Record, previous: bytes, found: Verification) -> str:
    expected = found.records + 1
    if record.position != expected:
        return f"record {record.position} follows record {expected - 1}"
    if record.previous_hash != previous:
        return "it does not chain to its predecessor"
    state.position = record.position
    first_new = state.next_item
    try:
        check_record(record)
        for event in decode_events(record.events):
            if isinstance(event, ev.ItemsReserved):
                head = state.line.peek()
                if head is None or (head[1] != event.first_item and event.first_item < first_new):
                    return f"item {event.first_item} was reserved before an item that stood before it"
            evolve(state, event)
            found.events += 1
        check_state(state)
    except (CorruptRecord, InvariantViolation) as error:
        return str(error)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        return f"an event does not fit the state it meets: {error!r}"
    found.records += 1
    return ""


async def _check_snapshot(store: LogStore, snapshot: Snapshot, state: PartitionState) -> str:
    try:
        chunks = await store.read_chunks(snapshot.partition, snapshot.chunks)
        loaded = load(snapshot.partition, snapshot.head, [chunks[chunk] for chunk in snapshot.chunks])
    except (StoreCorrupt, SnapshotUnreadable) as error:
        return f"the snapshot at {snapshot.position} can't be read: {error}"
    if state_hash(loaded) != state_hash(state):
        return f"the snapshot at {snapshot.position} is not the fold of the log up to it"
    return ""


def _count(found: Verification, state: PartitionState) -> None:
    found.produced = state.produced
    found.completed = state.completed
    found.dead = len(state.dead)
    found.removed = state.removed
    found.waiting = state.ready + state.scheduled
    found.reserved = state.reserved
    found.retried = state.retried
    found.ended = state.ended
