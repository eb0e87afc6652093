"""A store that need not be there when a server starts: it is opened when it comes, and unavailable before."""

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.core.ids import MILLISECOND, SECOND, Duration, PartitionId, Position
from querator.env import Env
from querator.errors import ConfigError, LogError, LogUnavailable
from querator.log.delegating import DelegatingLog
from querator.log.records import Record, Snapshot, Tail
from querator.log.store import Bucket, Verdict

_BACKOFF_MIN: Final = Duration(100 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(5 * SECOND)


@attrs.define
class LateLog(DelegatingLog):
    """For every store but the one that has the catalog. Whoever opens it runs ``run`` in the background."""

    env: Env = attrs.field(kw_only=True)
    away: str = "it is not open yet"
    """Why it can't be used; "" once it could be opened."""

    async def open(self) -> None:
        """Open it if it is there.

        Raises:
            ConfigError: it is there, and unfit.
            LogError: it is there, and can't be read.
        """
        try:
            await self._try()
        except LogUnavailable:
            return

    async def run(self) -> None:
        """Go on trying until it is open."""
        backoff = _BACKOFF_MIN
        while self.away:
            await self.env.clock.sleep(backoff)
            backoff = Duration(min(backoff * 2, _BACKOFF_MAX))
            try:
                await self._try()
            except (LogError, ConfigError) as error:
                telemetry.emit("store.away", store=self.name, error=str(error))
        await trio.sleep_forever()

    async def _try(self) -> None:
        try:
            await self.store.open()
        except (LogError, ConfigError) as error:
            self.away = str(error)
            raise
        self.away = ""
        telemetry.emit("store.opened", store=self.name)

    def _check(self) -> None:
        if self.away:
            raise LogUnavailable(f"store '{self.name}': {self.away}")

    async def aclose(self) -> None:
        if not self.away:
            await self.store.aclose()

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        self._check()
        return await self.store.append(records)

    async def partitions(self) -> list[PartitionId]:
        self._check()
        return await self.store.partitions()

    async def tail(self, partition: PartitionId) -> Tail | None:
        self._check()
        return await self.store.tail(partition)

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        self._check()
        return await self.store.read(
            partition, start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
        )

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        self._check()
        return await self.store.read_payloads(partition, positions)

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        self._check()
        return await self.store.snapshots(partition)

    async def buckets(self) -> list[Bucket]:
        self._check()
        return await self.store.buckets()
