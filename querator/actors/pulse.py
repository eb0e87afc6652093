"""How late the event loop is: the longest pause that its tasks have felt.

One task sleeps a little, again and again, and notes how much later than asked it woke. It costs a
few tenths of a percent of a core, so it is for servers, not for simulated nodes.
"""

from typing import Final

from querator.core.ids import MILLISECOND, MINUTE, Duration
from querator.env import Env

_BEAT: Final = Duration(10 * MILLISECOND)
_SPAN: Final = MINUTE


class Pulse:
    """Keeps the longest pause of the last one to two minutes."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._longest = 0
        self._longest_before = 0
        self._span_began = env.clock.monotonic()

    @property
    def longest(self) -> Duration:
        """The longest pause of this minute and the one before."""
        return Duration(max(self._longest, self._longest_before))

    def note(self, late: int, now: int) -> None:
        """The loop was ``late`` microseconds late; ``now`` is monotonic time."""
        if now - self._span_began >= _SPAN:
            self._longest_before, self._longest = self._longest, 0
            self._span_began = now
        self._longest = max(self._longest, late)

    async def run(self) -> None:
        """Listen; for ever."""
        clock = self._env.clock
        while True:
            asleep = clock.monotonic()
            await clock.sleep(_BEAT)
            now = clock.monotonic()
            self.note(now - asleep - _BEAT, now)
