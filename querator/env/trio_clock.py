"""Time from trio's own clock, for tests and simulations under ``trio.testing.MockClock``."""

from typing import Final

import trio

from querator.core.ids import Duration, Instant

EPOCH: Final = Instant(1_767_225_600_000_000)
"""2026-01-01 00:00 UTC: where virtual time starts unless told otherwise."""


class TrioClock:
    """``epoch`` + trio's time, as one node sees it.

    MockClock is one clock for all nodes; skew lives here: ``offset`` (microseconds) is how far ahead
    this node's clock is, ``rate`` how fast it runs.
    """

    def __init__(self, epoch: Instant = EPOCH, *, offset: Duration = Duration(0), rate: float = 1.0) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be positive, not {rate}")
        self._start = epoch + offset
        self._rate = rate
        self._jumped = 0

    def now(self) -> Instant:
        return Instant(self._start + self.monotonic())

    def monotonic(self) -> int:
        return round(trio.current_time() * 1_000_000 * self._rate)

    async def sleep(self, duration: Duration) -> None:
        await self._sleep_until(self.monotonic() + duration)

    async def sleep_until(self, instant: Instant) -> None:
        await self._sleep_until(instant - self._start)

    async def _sleep_until(self, deadline: int) -> None:
        if self.monotonic() >= deadline:
            await trio.lowlevel.checkpoint()
        while (left := deadline - self.monotonic()) > 0:
            await trio.sleep(left / 1_000_000 / self._rate)

    def step(self, reference: Instant | None = None) -> Duration:
        jumped, self._jumped = self._jumped, 0
        return Duration(jumped if reference is None else reference - self.now())

    def align(self, reference: Instant) -> None:
        self._start = Instant(reference - self.monotonic())

    def jump(self, by: Duration) -> None:
        """A fault: this node's wall clock jumps. ``now()`` does not follow, ``step()`` tells, once."""
        self._jumped += by
