"""The seams of a node that can be killed and stopped: after ``Gate.sever`` nothing it does reaches anybody.

A crash is not a cancellation: ``finally`` blocks run when a task is cancelled, and do not when a process
is killed. So first the node's outside world goes, then its tasks.
"""

import ssl
from collections.abc import Sequence
from random import Random

import trio

from querator.core.ids import Duration, Instant
from querator.env import Spare
from querator.env.trio_clock import TrioClock
from querator.env.virtual import MemoryListener, MemoryNetwork, MemoryStream
from simulations.gate import Gate


class MortalClock(TrioClock):
    """Nobody wakes in a process that stands still."""

    def __init__(self, gate: Gate, offset: Duration, rate: float = 1.0) -> None:
        super().__init__(offset=offset, rate=rate)
        self._gate = gate

    async def sleep(self, duration: Duration) -> None:
        await super().sleep(duration)
        await self._gate.passage()

    async def sleep_until(self, instant: Instant) -> None:
        await super().sleep_until(instant)
        await self._gate.passage()


class MortalStream(trio.abc.HalfCloseableStream):
    """A node's end of a link: gated, and, where the network splits what it carries, read in small pieces.

    The network can hold a link: nothing comes through until it is released, or breaks.
    """

    def __init__(self, inner: MemoryStream, gate: Gate, dice: Random | None) -> None:
        self.inner = inner
        self.link = Gate()
        self.is_closed = False
        self._gate = gate
        self._dice = dice
        self._received = b""

    async def _passage(self) -> None:
        await self.link.passage()
        await self._gate.passage()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._passage()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._dice is not None:
            most = self._dice.choice((1, 7, 100, 65_536))
            max_bytes = min(max_bytes or most, most)
        if not self._received:
            self._received = await self.inner.receive_some(max_bytes)
        # Kept meanwhile: whoever is cancelled here finds it the next time.
        await self._passage()
        received, self._received = self._received, b""
        return received

    async def send_eof(self) -> None:
        await self._passage()
        await self.inner.send_eof()

    async def aclose(self) -> None:
        self.is_closed = True
        if not self._gate.is_severed:
            await self.inner.aclose()
        else:
            await trio.lowlevel.checkpoint()


class MortalListener(trio.abc.Listener[MortalStream]):
    """Accepts into a life's hands."""

    def __init__(self, inner: MemoryListener, net: "MortalNet") -> None:
        self.inner = inner
        self._net = net

    async def accept(self) -> MortalStream:
        return self._net.take(await self.inner.accept())

    async def aclose(self) -> None:
        await self.inner.aclose()


class MortalNet:
    """One life's view of the network: it takes its listeners along when it is severed."""

    def __init__(self, network: MemoryNetwork, host: str, gate: Gate, dice: Random | None) -> None:
        self._network = network
        self._net = network.net(host)
        self._host = host
        self._gate = gate
        self._dice = dice
        self._listeners: list[MemoryListener] = []
        self._streams: list[MortalStream] = []

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        await self._gate.passage()
        listeners: list[MortalListener] = []
        for listener in await self._net.listen(host, port, tls=tls):
            if isinstance(listener, MemoryListener):
                self._listeners.append(listener)
                listeners.append(MortalListener(listener, self))
        return listeners

    async def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
        await self._gate.passage()
        stream = await self._net.connect(host, port, tls=tls)
        return self.take(stream) if isinstance(stream, MemoryStream) else stream

    def take(self, stream: MemoryStream) -> MortalStream:
        """A stream of this life."""
        mortal = MortalStream(stream, self._gate, self._dice)
        self._streams.append(mortal)
        return mortal

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        return self._net.address(listener.inner if isinstance(listener, MortalListener) else listener)

    def peer(self, stream: trio.abc.Stream) -> str:
        return self._net.peer(stream.inner if isinstance(stream, MortalStream) else stream)

    def spare(self) -> Spare:
        return self._net.spare()

    @property
    def links(self) -> list[MortalStream]:
        """Those that are open."""
        self._streams = [stream for stream in self._streams if not stream.is_closed]
        return self._streams

    def sever(self, others: Sequence[str]) -> None:
        """The host is gone; ``others`` see their connections break."""
        for listener in self._listeners:
            self._network.forget(listener)
        for other in others:
            self._network.cut(self._host, other)
        for stream in self._streams:
            stream.link.resume()
