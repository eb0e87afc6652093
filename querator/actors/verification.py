"""``querator log verify``: walk a partition's log and believe nothing.

log/restore.py checks that the chain is whole; the Audit here replays it. Replaying is itself a check: an
event that does not fit (an item completed twice, settled by a reservation that does not hold it) fails an
invariant. On top of that: items are reserved in order of place, conserved after each record, and every
snapshot equals the fold at its position.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from querator.actors.refold import evolve_in_turn, recorded_events
from querator.core import events as ev
from querator.core.ids import PartitionId, Position
from querator.core.invariants import InvariantViolation, check
from querator.core.loading import load
from querator.core.snapshot import SnapshotUnreadable
from querator.core.state import PartitionState
from querator.core.state_checks import check_state, check_state_fully
from querator.core.state_hash import state_hash
from querator.errors import StoreCorrupt
from querator.log.records import Record
from querator.log.restore import ChainReport, verify_chain
from querator.log.store import LogStore

COUNTS: Final = ("produced", "completed", "ready", "reserved", "scheduled", "dead", "removed", "retried")


class Audit:
    """One partition's replay; ``take`` is given to ``verify_chain``."""

    def __init__(self, store: LogStore, partition: PartitionId) -> None:
        self._store = store
        self._partition = partition
        self._state = PartitionState(partition)
        self._snapshots: dict[int, tuple[bytes, PartitionState]] = {}
        """By position: the record's hash that it is chained to, and the state."""
        self._is_replaying = True
        self._lost_to = 0
        """Records up to here had been others, whose loss was accepted; snapshots of those may be left."""
        self.snapshots = 0
        """Compared, and equal."""

    async def prepare(self) -> None:
        """Read the snapshots. Those that cannot be read are left out, as a server would."""
        for snapshot in await self._store.snapshots(self._partition):
            try:
                chunks = await self._store.read_chunks(self._partition, snapshot.chunks)
                state = load(self._partition, snapshot.head, [chunks[chunk] for chunk in snapshot.chunks])
            except (StoreCorrupt, SnapshotUnreadable):
                continue
            self._snapshots[snapshot.position] = (snapshot.hash, state)

    def take(self, record: Record, events: Sequence[ev.Event]) -> None:
        """One more record.

        Raises:
            InvariantViolation: it does not fit what came before.
        """
        if record.position == self._state.position + 1 and self._is_replaying:
            self._replay(record, events)
        else:
            # The beginning was dropped with its bucket: the replay begins at the first snapshot.
            self._is_replaying = False
        for event in events:
            if type(event) is ev.LossAccepted:
                self._lost_to = max(self._lost_to, event.known)
        found = self._snapshots.get(record.position)
        if found is None:
            return
        chained_to, state = found
        if chained_to != record.hash and record.position <= self._lost_to:
            return
        check(chained_to == record.hash, "a snapshot is chained to another record")
        if self._is_replaying:
            check(state_hash(state) == state_hash(self._state), "the snapshot is not what the log folds to")
        else:
            self._state = state
            self._is_replaying = True
        self.snapshots += 1

    def _replay(self, record: Record, events: Sequence[ev.Event]) -> None:
        state = self._state
        state.position = record.position
        first_new = state.next_item
        with recorded_events():
            for event in events:
                evolve_in_turn(state, event, first_new)
        check_state(state)

    def finish(self, report: ChainReport) -> None:
        """Behind the last record: everything derived equals what it is derived from."""
        try:
            check_state_fully(self._state)
        except InvariantViolation as error:
            report.bad, report.fault = report.last, f"behind the last record: {error}"

    def counts(self) -> dict[str, Any]:
        """Items by state, as of the last good record."""
        state = self._state
        return {name: len(state.dead) if name == "dead" else getattr(state, name) for name in COUNTS}


@attrs.define
class Verification:
    """What was found in one partition's log."""

    chain: ChainReport
    audit: Audit

    @property
    def is_good(self) -> bool:
        return self.chain.is_good

    @property
    def fault(self) -> str:
        """The first thing that is wrong, naming its record; "" when all is well."""
        return self.chain.fault

    @property
    def fault_position(self) -> int:
        return self.chain.bad or 0

    @property
    def first(self) -> Position:
        """The first position that is kept."""
        return self.chain.first

    @property
    def produced(self) -> int:
        count: int = self.audit.counts()["produced"]
        return count

    @property
    def completed(self) -> int:
        count: int = self.audit.counts()["completed"]
        return count


async def verify_partition(
    store: LogStore, partition: PartitionId, on_page: Callable[[ChainReport], None] | None = None
) -> Verification:
    """Check all that is kept of the log of a partition that no live server writes to.

    Raises:
        LogUnavailable: from the store.
    """
    audit = Audit(store, partition)
    await audit.prepare()
    chain = await verify_chain(store, partition, on_record=audit.take, on_page=on_page)
    if chain.is_good:
        audit.finish(chain)
    return Verification(chain, audit)
