"""What ``querator log verify`` checks beyond the chain: the log replayed, and compared with its snapshots.

Replaying is itself a check: an event that does not fit (an item completed twice, reserved out of
turn, settled by a reservation that does not hold it) fails an invariant. On top of that, conservation
after each record, and equality with every snapshot at its position.
"""

from collections.abc import Sequence
from typing import Any, Final

from querator.core.events import Event
from querator.core.evolve import fold
from querator.core.ids import PartitionId
from querator.core.invariants import InvariantViolation, check
from querator.core.snapshot import SnapshotUnreadable, load, state_hash
from querator.core.state import PartitionState
from querator.core.state_checks import check_state, check_state_fully
from querator.errors import StoreCorrupt
from querator.log.records import Record
from querator.log.restore import ChainReport
from querator.log.store import LogStore

COUNTS: Final = ("produced", "completed", "ready", "reserved", "scheduled", "dead", "removed", "retried")


class Audit:
    """One partition's replay."""

    def __init__(self, store: LogStore, partition: PartitionId) -> None:
        self._store = store
        self._partition = partition
        self._state = PartitionState(partition)
        self._snapshots: dict[int, tuple[bytes, PartitionState]] = {}
        """By position: the record's hash that it is chained to, and the state."""
        self._is_replaying = True
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

    def take(self, record: Record, events: Sequence[Event]) -> None:
        """One more record.

        Raises:
            InvariantViolation: it does not fit what came before.
        """
        if record.position == self._state.position + 1 and self._is_replaying:
            fold(self._state, record.position, events)
            check_state(self._state)
        else:
            # The beginning was dropped with its bucket: the replay begins at the first snapshot.
            self._is_replaying = False
        found = self._snapshots.get(record.position)
        if found is None:
            return
        chained_to, state = found
        check(chained_to == record.hash, "a snapshot is chained to another record")
        if self._is_replaying:
            check(state_hash(state) == state_hash(self._state), "the snapshot is not what the log folds to")
        else:
            self._state = state
            self._is_replaying = True
        self.snapshots += 1

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
