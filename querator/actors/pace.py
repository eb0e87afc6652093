"""The pace of small appends: while many partitions have little to write each, they wait for one another.

An append costs about the same for one record and for twenty, in the store and on the way of what it sets
free: answers leave by the commit, and whoever reads them answers in turn. What gathers while an append
runs is little when appends are fast and partitions many, so then, and only then, the next append does not
begin sooner than ``APPEND_PAUSE`` after the last one did. Few partitions never wait: with one or two
active, every record is somebody's latency, and its successor gathers behind it anyway.
"""

from collections import deque
from collections.abc import Iterable

from querator.core.ids import Instant, PartitionId
from querator.core.limits import APPEND_PAUSE, PAUSE_PARTITIONS, PAUSE_RECORDS


class Pace:
    """Of one writer's common appends."""

    def __init__(self) -> None:
        self.next_at = Instant(0)
        """When the next append may begin."""
        self._recent: deque[PartitionId] = deque(maxlen=PAUSE_RECORDS)

    def began(self, partitions: Iterable[PartitionId], now: Instant) -> None:
        """An append with records of these partitions began."""
        self._recent.extend(partitions)
        is_spread = len(dict.fromkeys(self._recent)) >= PAUSE_PARTITIONS
        self.next_at = Instant(now + APPEND_PAUSE if is_spread else 0)
