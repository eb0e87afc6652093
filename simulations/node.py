"""The seams of a node that can be killed: after ``sever`` nothing it does reaches anybody.

A crash is not a cancellation: ``finally`` blocks run when a task is cancelled, and do not when a process
is killed. So first the node's outside world goes, then its tasks.
"""

import ssl
from collections.abc import Mapping, Sequence

import trio

from querator.core.ids import PartitionId
from querator.env import Env
from querator.env.virtual import MemoryListener, MemoryNetwork
from querator.log.memory import MemoryLog
from querator.log.records import ChunkId, Snapshot
from simulations.disk import SimulatedDisk, SimulatedFaults


class MortalNet:
    """One life's view of the network: it takes its listeners along when it is severed."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self._network = network
        self._net = network.net(host)
        self._host = host
        self._listeners: list[MemoryListener] = []
        self.is_severed = False

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        if self.is_severed:
            await trio.sleep_forever()
        listeners = await self._net.listen(host, port, tls=tls)
        self._listeners += [listener for listener in listeners if isinstance(listener, MemoryListener)]
        return listeners

    async def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
        if self.is_severed:
            await trio.sleep_forever()
        return await self._net.connect(host, port, tls=tls)

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        return self._net.address(listener)

    def peer(self, stream: trio.abc.Stream) -> str:
        return self._net.peer(stream)

    def sever(self, others: Sequence[str]) -> None:
        """The host is gone; ``others`` see their connections break."""
        self.is_severed = True
        for listener in self._listeners:
            self._network.forget(listener)
        for other in others:
            self._network.cut(self._host, other)


class MortalLog(MemoryLog):
    """A handle that writes nothing once its process is dead."""

    def __init__(self, env: Env, disk: SimulatedDisk, faults: SimulatedFaults) -> None:
        super().__init__(env, disk, faults=faults)
        self._gate = faults

    async def _alive(self) -> None:
        if self._gate.is_severed:
            await trio.sleep_forever()

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self._alive()
        await super().put_chunks(partition, chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._alive()
        await super().put_snapshot(snapshot)

    async def roll(self) -> int:
        await self._alive()
        return await super().roll()

    async def drop(self, bucket: int) -> None:
        await self._alive()
        await super().drop(bucket)
