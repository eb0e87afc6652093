"""A queue on this node: its partitions here, the demand they all draw from, and how work is spread."""

from collections.abc import Callable, Sequence
from typing import Final

import attrs

from querator.actors.partition import PartitionActor
from querator.actors.ports import Requester
from querator.core.demand import Demand
from querator.core.events import Attributes
from querator.core.ids import PartitionId, QueueName
from querator.core.placement import index_of
from querator.core.replies import Code, Rejected

MIXED: Final = Rejected(
    Code.MIXED_PARTITIONS,
    "the items of one request must go to one partition: split the request by partition first",
    "key",
)


@attrs.frozen(eq=False)
class HeldCall:
    """A produce (``order`` 0) or a settlement (1) that came while an operator held the queue."""

    order: int
    requester: Requester
    request: int
    let_in: Callable[[], None]


@attrs.define(eq=False)
class QueueRuntime:
    """Held by the broker. ``actors`` has ``None`` where a partition is not open here."""

    name: QueueName
    number: int
    partitions: tuple[PartitionId, ...]
    demand: Demand[Requester] = attrs.Factory(Demand)
    actors: list[PartitionActor | None] = attrs.Factory(list)
    held: list[HeldCall] | None = None
    """While an operator holds the queue: what came in."""
    is_closing: bool = False
    faults: dict[int, str] = attrs.Factory(dict)
    """By index: why a partition is halted and nobody tries to open it."""

    def __attrs_post_init__(self) -> None:
        self.actors = [None] * len(self.partitions)

    def open_actors(self) -> list[PartitionActor]:
        return [actor for actor in self.actors if actor is not None]

    def emptiest(self) -> PartitionActor | Rejected:
        """Where the next batch goes: the healthy partition with the fewest ready items, the lowest first."""
        if len(self.actors) == 1:
            only = self.actors[0]
            return only if only is not None else self.unavailable()
        best: PartitionActor | None = None
        fewest = 0
        for actor in self.actors:
            if actor is not None and actor.is_open:
                ready = actor.state.ready
                if best is None or ready < fewest:
                    best, fewest = actor, ready
        return best if best is not None else self.unavailable()

    def fullest(self) -> PartitionActor | None:
        """Where a reserve request is served: the healthy partition with the most ready items."""
        best: PartitionActor | None = None
        most = 0
        for actor in self.actors:
            if actor is not None and actor.is_open:
                ready = actor.ready
                if ready and ready >= most and not actor.state.paused:
                    best, most = actor, ready
        return best

    def route(self, attributes: Attributes | None) -> PartitionActor | Rejected:
        """By key, else by dedupe key, else the emptiest."""
        if attributes is None or len(self.actors) == 1:
            return self.emptiest()
        index: int | None = None
        for column in (attributes.key, attributes.dedupe_key):
            if column is None:
                continue
            values: Sequence[str | None] = column if isinstance(column, list) else (column,)
            for value in values:
                if value is None:
                    continue
                wanted = index_of(value, len(self.actors))
                if index is None:
                    index = wanted
                elif index != wanted:
                    return MIXED
            if index is not None:
                break
        if index is None:
            return self.emptiest()
        actor = self.actors[index]
        return actor if actor is not None else self.unavailable()

    def unavailable(self) -> Rejected:
        if self.faults:
            index, fault = next(iter(self.faults.items()))
            return Rejected(Code.HALTED, f"partition {self.partitions[index]} is halted: {fault}")
        return Rejected(Code.UNAVAILABLE, f"no partition of queue '{self.name}' is available; try again")
