"""What the log has dropped and somebody kept: read on, as if it were still there."""

from typing import Protocol

import attrs

from querator.core.ids import PartitionId, Position
from querator.errors import HistoryDropped
from querator.log.delegating import DelegatingLog
from querator.log.records import Record


class PastRecords(Protocol):
    """Who kept them (implemented by analytics/)."""

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int
    ) -> list[Record]:
        """Records from ``start`` on, as of LogStore, without their payloads; none where they were not kept.

        Raises:
            StoreCorrupt: they were, and cannot be read; the text names the file.
        """

    def close(self) -> None:
        """Let go of files. No reading may be under way."""


@attrs.define
class ReadThroughLog(DelegatingLog):
    """A log store to read from: what it has dropped comes from ``past``, without payloads."""

    past: PastRecords

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        try:
            return await self.store.read(
                partition, start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
            )
        except HistoryDropped:
            found = await self.past.read(partition, start, records_max=records_max, bytes_max=bytes_max)
            if not found:
                raise
            return found
