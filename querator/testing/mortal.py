"""A user's process that dies in the middle: which await is its last is drawn by the seed."""

import ssl
from collections.abc import Callable, Sequence

import trio

from querator.env import Net, Spare


class MortalNet:
    """A process's network, for as long as it lives: the dead connect to nobody."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self.is_dead = False

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        return await self._net.listen(host, port, tls=tls)

    async def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
        if self.is_dead:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("this process is dead")
        return await self._net.connect(host, port, tls=tls)

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        return self._net.address(listener)

    def peer(self, stream: trio.abc.Stream) -> str:
        return self._net.peer(stream)

    def spare(self) -> Spare:
        return self._net.spare()


class Fate(trio.abc.Instrument):
    """Kills a task at one of its waits: ``kill`` cuts it off from the world, and ``scope`` is cancelled.

    ``is_sudden``: as it begins to wait, so that what it asked for just now has not left. Else as the wait
    ends: what it asked for was done, and it will never know.
    """

    def __init__(
        self, task: trio.lowlevel.Task, waits: int, kill: Callable[[], None], *, is_sudden: bool
    ) -> None:
        self._task = task
        self._left = waits
        self._kill = kill
        self._is_sudden = is_sudden
        self.scope = trio.CancelScope()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._left:
            self._left -= 1
            if not self._left and self._is_sudden:
                self._die()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and not self._left and not self.scope.cancel_called:
            self._die()

    def _die(self) -> None:
        self._kill()
        self.scope.cancel()
