"""What waits to be written to one client. Putting never waits; a client that reads too slowly is cut off."""

from collections import deque
from collections.abc import Callable, Sequence

import attrs
import trio

from querator.core import limits
from querator.protocol.closing import CloseCode
from querator.protocol.codec import Encoded


@attrs.frozen
class Farewell:
    """How the connection is to be closed once what waits before it is written."""

    code: int
    reason: str


class Outbox:
    """Encoded messages and control frames on their way to one client. Owned by its session.

    ``OUTBOX_BYTES_MAX`` bounds what waits. A single batch over it passes when nothing else waits,
    since one item may be larger than we would choose. One task takes; anybody puts.
    """

    def __init__(self) -> None:
        self.bytes_waiting = 0
        self.push_taken = 0
        """Highest push number that was taken for writing: it may have reached the client."""
        self.farewell: Farewell | None = None
        self.is_cut_off = False
        self.on_close: Callable[[], None] | None = None
        """Told once, when the connection is to be closed."""
        self._batches: deque[tuple[Encoded, int]] = deque()
        self._control: list[bytes] = []
        self._wakeup: trio.Event | None = None

    def put(self, batch: Encoded, push: int = 0) -> None:
        """Queue messages; ``push`` is the highest push number among them, 0 if none.

        Past the bound the client is cut off, and what waits for it is dropped.
        """
        if self.farewell is not None:
            return
        size = len(batch.data)
        if self._batches and self.bytes_waiting + size > limits.OUTBOX_BYTES_MAX:
            self.is_cut_off = True
            self._batches.clear()
            self.bytes_waiting = 0
            self.close(CloseCode.TOO_SLOW, "the client reads too slowly")
            return
        self._batches.append((batch, push))
        self.bytes_waiting += size
        self._wake()

    def put_control(self, frame: bytes) -> None:
        """Queue a ready-made ping or pong; it overtakes messages. The caller bounds their rate."""
        if self.farewell is None:
            self._control.append(frame)
            self._wake()

    def close(self, code: int, reason: str) -> None:
        """Close once what waits is written. The first reason stands."""
        if self.farewell is None:
            self.farewell = Farewell(code, reason)
            self._wake()
            if self.on_close is not None:
                self.on_close()

    def take(self) -> list[Encoded]:
        """Batches for one WebSocket message: as many as fit, at least one if any waits."""
        taken: list[Encoded] = []
        size = 0
        while self._batches:
            batch, push = self._batches[0]
            size += len(batch.data)
            if taken and size > limits.MESSAGE_BYTES_MAX:
                break
            self._batches.popleft()
            self.bytes_waiting -= len(batch.data)
            taken.append(batch)
            self.push_taken = max(self.push_taken, push)
        return taken

    def take_control(self) -> Sequence[bytes]:
        """All control frames that wait."""
        if not self._control:
            return ()
        taken, self._control = self._control, []
        return taken

    async def wait(self) -> None:
        """Until something waits or the connection is to be closed."""
        if self._batches or self._control or self.farewell is not None:
            return
        self._wakeup = trio.Event()
        await self._wakeup.wait()

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None
