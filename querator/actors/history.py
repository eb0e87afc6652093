"""An item's life, read back from the log: every event that touched it, in order."""

from collections.abc import Sequence

import trio

from querator.actors.broker import Broker
from querator.actors.ports import TraceStep
from querator.actors.steps import arrives, holds, look, step
from querator.core.events import ItemsReserved
from querator.core.evolve import evolve
from querator.core.ids import ItemNumber, PartitionId, Position
from querator.core.limits import READ_BYTES_MAX, RESTORE_PAGE_RECORDS, TRACE_SLICE_EVENTS
from querator.core.replies import Code, Rejected
from querator.core.segments import GONE
from querator.core.state import PartitionState, Reservation
from querator.errors import HistoryDropped, LogError
from querator.log.codec import decode_events
from querator.log.past import PastRecords, ReadThroughLog
from querator.log.store import LogStore


class History:
    """Implements HistoryPort over the stores of this node's partitions."""

    def __init__(self, broker: Broker, stores: dict[str, LogStore]) -> None:
        self._broker = broker
        self._stores = stores
        self.past: PastRecords | None = None
        """Who keeps what the stores have dropped, where somebody does."""

    async def trace(
        self, partition: PartitionId, item: ItemNumber, *, steps_max: int
    ) -> Sequence[TraceStep] | Rejected:
        """All events of one item, oldest first, from the beginning of the log."""
        actor = self._broker.actors.get(partition)
        if actor is None:
            return Rejected(Code.UNAVAILABLE, f"partition {partition} is not available here", "item")
        if not 0 < item < actor.state.next_item:
            return Rejected(Code.UNKNOWN_ITEM, f"there was never an item {partition}.{item}", "item")
        try:
            store = self._stores[actor.store_name]
            if self.past is not None:
                store = ReadThroughLog(store, self.past)
            return await trace(store, partition, item, actor.tail, steps_max)
        except HistoryDropped:
            return Rejected(Code.UNKNOWN_ITEM, "that part of the history was dropped", "item")
        except LogError as error:
            return Rejected(Code.UNAVAILABLE, str(error), "item")


async def trace(
    store: LogStore, partition: PartitionId, item: ItemNumber, last: Position, steps_max: int
) -> list[TraceStep]:
    """Fold the log up to ``last`` and note each event after which the item is not as it was before."""
    state = PartitionState(partition)
    steps: list[TraceStep] = []
    holder: Reservation | None = None
    """That had the item last."""
    position = Position(1)
    while position <= last:
        page = await store.read(
            partition, position, records_max=RESTORE_PAGE_RECORDS, bytes_max=READ_BYTES_MAX, payloads=False
        )
        if not page:
            break
        for record in page:
            if record.position > last:
                break
            state.position = record.position
            events = decode_events(record.events)
            for start in range(0, len(events), TRACE_SLICE_EVENTS):
                for event in events[start : start + TRACE_SLICE_EVENTS]:
                    before = look(state, item, holder)
                    evolve(state, event)
                    if type(event) is ItemsReserved:
                        made = state.reservations[state.next_reservation - 1]
                        holder = made if holds(made, item) else holder
                    after = look(state, item, holder)
                    if before != after or arrives(state, item, event):
                        steps.append(step(record.position, state.now, event, before, after))
                # The event loop's other tasks, and the queue, come first.
                await trio.lowlevel.checkpoint()
            position = Position(record.position + 1)
        if state.next_item > item and state.state_of(item) == GONE:
            break
    return steps[-steps_max:]
