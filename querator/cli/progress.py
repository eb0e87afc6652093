"""A progress line on standard error: count, rate, time left. Only on a terminal."""

from types import TracebackType
from typing import Final, Self

from rich.live import Live
from rich.text import Text

from querator.cli.output import console, format_duration
from querator.core.ids import MILLISECOND, SECOND, Duration
from querator.env import Clock

INTERVAL: Final = Duration(100 * MILLISECOND)
BAR_WIDTH: Final = 24


class Progress:
    """Shows how far it is. ``bytes_total``: of the input, where known; it gives the time left."""

    def __init__(self, clock: Clock, verb: str, *, bytes_total: int | None, is_wanted: bool) -> None:
        self._clock = clock
        self._verb = verb
        self._total = bytes_total
        out = console(stderr=True)
        self._live = (
            Live(console=out, auto_refresh=False, transient=True) if is_wanted and out.is_terminal else None
        )
        self._began = clock.monotonic()
        self._shown = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def elapsed(self) -> Duration:
        return Duration(self._clock.monotonic() - self._began)

    def update(self, items: int, bytes_read: int) -> None:
        """At most ten times a second this shows; otherwise it costs one reading of the clock."""
        if self._live is None:
            return
        now = self._clock.monotonic()
        if now - self._shown < INTERVAL:
            return
        self._shown = now
        self._live.update(Text(self.line(items, bytes_read)), refresh=True)

    def line(self, items: int, bytes_read: int) -> str:
        """What is shown."""
        elapsed = max(1, self.elapsed)
        text = f"{self._verb} {items:,} items  {items * SECOND / elapsed:,.0f}/s"
        if self._total:
            share = min(1.0, bytes_read / self._total)
            filled = round(share * BAR_WIDTH)
            text = f"{'█' * filled}{'░' * (BAR_WIDTH - filled)} {share:4.0%}  {text}"
            if share > 0:
                left = round(elapsed * (1 - share) / share / SECOND) * SECOND
                text += f"  {format_duration(left)} left"
        return text
