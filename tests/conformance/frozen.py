"""A wall clock that stands still until it is told to go on."""

import trio

from querator.core.ids import Duration, Instant
from querator.env import Clock


class FrozenClock:
    """Implements Clock. Moments are the host's; pauses (retries, housekeeping) take real time."""

    def __init__(self, now: Instant, real: Clock) -> None:
        self._now = now
        self._real = real
        self._advanced = trio.lowlevel.ParkingLot()

    def advance(self, now: Instant) -> None:
        """Go on to ``now``; never back."""
        if now > self._now:
            self._now = now
            self._advanced.unpark_all()

    def now(self) -> Instant:
        return self._now

    def align(self, reference: Instant) -> None:
        """It has a time of its own."""

    def monotonic(self) -> int:
        return self._real.monotonic()

    async def sleep(self, duration: Duration) -> None:
        await self._real.sleep(duration)

    async def sleep_until(self, instant: Instant) -> None:
        while self._now < instant:
            await self._advanced.park()

    def step(self, reference: Instant | None = None) -> Duration:
        del reference
        return Duration(0)
