"""All that is left of a run, for the checkers."""

from collections.abc import Mapping

import attrs

from simulations.checkers.history import History, Item
from simulations.observations import Observations
from simulations.options import Options


@attrs.define
class Evidence:
    """``histories`` by partition; ``committed_at`` by (partition, position), in virtual seconds."""

    options: Options
    seen: Observations
    histories: dict[int, History]
    committed_at: Mapping[tuple[int, int], float]
    originals: dict[bytes, list[tuple[int, int]]] = attrs.field(init=False)
    """Payload to the (partition, item) of those that clients produced: not those that moved in."""

    def __attrs_post_init__(self) -> None:
        self.originals = {}
        for history in self.histories.values():
            for item in history.items.values():
                if not item.is_received:
                    self.originals.setdefault(item.payload, []).append((history.partition, item.number))

    def item(self, partition: int, number: int) -> Item | None:
        """The item as the log has it at the end."""
        history = self.histories.get(partition)
        return history.items.get(number) if history is not None else None

    def at(self, partition: int, position: int) -> float:
        """When the record was committed; never: infinity."""
        return self.committed_at.get((partition, position), float("inf"))
