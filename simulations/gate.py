"""A process's way to the outside world, which can be closed for a while (SIGSTOP) or for ever (SIGKILL)."""

import trio


class Gate:
    """Every call of a node's Env passes here."""

    def __init__(self) -> None:
        self.is_severed = False
        self._resumed: trio.Event | None = None

    @property
    def is_paused(self) -> bool:
        """The process stands still now."""
        return self._resumed is not None

    async def passage(self) -> None:
        """Go on at once, or when the process may run again, or never."""
        while self._resumed is not None and not self.is_severed:
            await self._resumed.wait()
        if self.is_severed:
            await trio.sleep_forever()

    def sever(self) -> None:
        """The process is dead: whatever it still does reaches nobody."""
        self.is_severed = True

    def pause(self) -> None:
        """The process stands still; the world goes on."""
        if self._resumed is None:
            self._resumed = trio.Event()

    def resume(self) -> None:
        """It runs again, and finds everything that came meanwhile."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
