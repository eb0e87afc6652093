"""The seams without an outside world: seeded chance, links in memory, files in a dict, threads as calls.

Deterministic under ``seeded_scheduler`` and ``MockClock``. Faults that a simulator needs beyond
``MemoryNetwork.cut`` and ``MemoryFiles.lose_power`` are its own wrappers around these.
"""

import hashlib
import operator
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, TypeVar, TypeVarTuple

import trio

from querator.core.ids import Duration
from querator.env.seams import Clock, Env, FileLock, FileLocked, Rng, Worker, seconds
from querator.env.trio_clock import TrioClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PIPE_BYTES_MAX: Final = 65_536
"""What a link holds in one direction before its sender waits, like a socket's buffers."""
BACKLOG: Final = 128
EPHEMERAL_PORT_FIRST: Final = 49_152


class SeededRng:
    """One stream of draws. A child's stream depends on the seed and the names only, not on draws before."""

    def __init__(self, seed: int | str) -> None:
        self._seed = str(seed)
        digest = hashlib.blake2b(self._seed.encode(), digest_size=16).digest()
        self._random = Random(int.from_bytes(digest, "big"))

    def randbelow(self, bound: int) -> int:
        return self._random.randrange(bound)

    def random(self) -> float:
        return self._random.random()

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def nonce(self) -> int:
        return 1 + self._random.randrange((1 << 63) - 1)

    def child(self, name: str) -> Rng:
        return SeededRng(f"{self._seed}/{name}")


class _Pipe:
    """One direction of a link: bytes in flight, each chunk with the moment it arrives."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._lot = trio.lowlevel.ParkingLot()
        self.sender_closed = False
        self.receiver_closed = False
        self.is_cut = False

    def wake(self) -> None:
        self._lot.unpark_all()

    async def wait_room(self) -> None:
        while True:
            if self.sender_closed:
                raise trio.ClosedResourceError
            if self.is_cut or self.receiver_closed:
                raise trio.BrokenResourceError
            if self._size < PIPE_BYTES_MAX:
                return
            await self._lot.park()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self.wait_room()
            chunk = bytes(view[: PIPE_BYTES_MAX - self._size])
            view = view[len(chunk) :]
            self._chunks.append((trio.current_time() + self._latency, chunk))
            self._size += len(chunk)
            self.wake()

    async def receive(self, bytes_max: int) -> bytes:
        while True:
            if self.receiver_closed:
                raise trio.ClosedResourceError
            if self.is_cut:
                raise trio.BrokenResourceError
            if self._chunks:
                arrives_at, chunk = self._chunks[0]
                if trio.current_time() < arrives_at:
                    await self._park_until(arrives_at)
                    continue
                self._chunks.popleft()
                if len(chunk) > bytes_max:
                    self._chunks.appendleft((arrives_at, chunk[bytes_max:]))
                    chunk = chunk[:bytes_max]
                self._size -= len(chunk)
                self.wake()
                return chunk
            if self.sender_closed:
                return b""
            await self._lot.park()

    async def _park_until(self, moment: float) -> None:
        """Until then, or until something happens to the pipe."""
        with trio.move_on_at(moment):
            await self._lot.park()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a link of a MemoryNetwork."""

    def __init__(
        self, outgoing: _Pipe, incoming: _Pipe, peer: str, on_close: "Callable[[MemoryStream], None]"
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self.peer = peer
        self._on_close = on_close
        self._sending = _Busy("another task is sending on this stream")
        self._receiving = _Busy("another task is receiving on this stream")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self._outgoing.wait_room()
            await self._outgoing.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self._outgoing.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            return await self._incoming.receive(max_bytes or PIPE_BYTES_MAX)

    async def send_eof(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._outgoing.sender_closed = True
            self._outgoing.wake()

    async def aclose(self) -> None:
        self._outgoing.sender_closed = True
        self._incoming.receiver_closed = True
        self._outgoing.wake()
        self._incoming.wake()
        self._on_close(self)
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """A fault: both ends see a broken connection, bytes in flight are lost."""
        for pipe in (self._outgoing, self._incoming):
            pipe.is_cut = True
            pipe.wake()


class _Busy:
    """Refuses two tasks at the same end, as sockets do."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(self._complaint)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """A port of a MemoryNetwork."""

    def __init__(self, network: "MemoryNetwork", host: str, port: int) -> None:
        self._network = network
        self.host = host
        self.port = port
        self._send, self._receive = trio.open_memory_channel[MemoryStream](BACKLOG)

    async def accept(self) -> MemoryStream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel as error:
            raise trio.ClosedResourceError from error

    async def aclose(self) -> None:
        self._network.forget(self)
        self._send.close()
        await self._receive.aclose()

    def offer(self, stream: MemoryStream) -> None:
        """Raises ConnectionRefusedError when the backlog is full."""
        try:
            self._send.send_nowait(stream)
        except trio.WouldBlock as error:
            raise ConnectionRefusedError(f"{self.host}:{self.port} accepts no more connections") from error


class MemoryNetwork:
    """The network that several nodes share; each has its own ``host`` on it."""

    def __init__(self, latency: Duration = Duration(0)) -> None:
        self.latency = latency
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._streams: dict[MemoryStream, list[str]] = {}
        self._port_next = EPHEMERAL_PORT_FIRST

    def net(self, host: str) -> "MemoryNet":
        return MemoryNet(self, host)

    def listen(self, host: str, port: int) -> MemoryListener:
        if port == 0:
            port, self._port_next = self._port_next, self._port_next + 1
        if (host, port) in self._listeners:
            raise OSError(f"{host}:{port} is in use")
        listener = MemoryListener(self, host, port)
        self._listeners[host, port] = listener
        return listener

    def connect(self, source: str, target: str, port: int) -> MemoryStream:
        listener = self._listeners.get((target, port))
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on {target}:{port}")
        there, back = _Pipe(seconds(self.latency)), _Pipe(seconds(self.latency))
        near = MemoryStream(there, back, target, self._forget_stream)
        listener.offer(MemoryStream(back, there, source, self._forget_stream))
        self._streams[near] = sorted((source, target))
        return near

    def forget(self, listener: MemoryListener) -> None:
        if self._listeners.get((listener.host, listener.port)) is listener:
            del self._listeners[listener.host, listener.port]

    def cut(self, host: str, other: str) -> int:
        """A fault: break every connection between two hosts; how many there were."""
        hosts = sorted((host, other))
        broken = [stream for stream, ends in self._streams.items() if ends == hosts]
        for stream in broken:
            del self._streams[stream]
            stream.cut()
        return len(broken)

    def _forget_stream(self, stream: MemoryStream) -> None:
        self._streams.pop(stream, None)


LOCAL_NAMES: Final = ("", "localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names, nothing is bound


class MemoryNet:
    """One host's view of a MemoryNetwork. Local names mean the host itself. TLS is not simulated."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self._network = network
        self.host = host

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        _refuse_tls(tls)
        await trio.lowlevel.checkpoint()
        return [self._network.listen(self._resolve(host), port)]

    async def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
        _refuse_tls(tls)
        await trio.lowlevel.checkpoint()
        return self._network.connect(self.host, self._resolve(host), port)

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        if not isinstance(listener, MemoryListener):
            raise TypeError(f"not a listener of this net: {listener!r}")
        return listener.host, listener.port

    def peer(self, stream: trio.abc.Stream) -> str:
        if not isinstance(stream, MemoryStream):
            raise TypeError(f"not a stream of this net: {stream!r}")
        return stream.peer

    def spare(self) -> "NoSpare":
        return NoSpare()

    def _resolve(self, host: str) -> str:
        return self.host if host in LOCAL_NAMES else host


class NoSpare:
    """Links in memory take no descriptors."""

    def give_up(self) -> bool:
        return False

    def get_back(self) -> None:
        """There is none."""


def _refuse_tls(tls: ssl.SSLContext | None) -> None:
    if tls is not None:
        raise NotImplementedError("links in memory carry no TLS: its handshake draws from the system")


class _MemoryLock:
    def __init__(self, locks: dict[Path, str], path: Path) -> None:
        self._locks = locks
        self._path = path
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._locks.pop(self._path, None)


class MemoryFiles:
    """A disk as a dict. Everything Files promises to be durable is, so a lost power loses the locks only."""

    def __init__(self, holder: str = "node") -> None:
        self._holder = holder
        self._contents: dict[Path, bytes] = {}
        self._directories: dict[Path, None] = {Path("/"): None, Path(): None}
        self._locks: dict[Path, str] = {}

    async def read(self, path: Path) -> bytes:
        await trio.lowlevel.checkpoint()
        if path not in self._contents:
            raise FileNotFoundError(str(path))
        return self._contents[path]

    async def write(self, path: Path, content: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._require_directory(path.parent)
        self._contents[path] = content

    async def exists(self, path: Path) -> bool:
        await trio.lowlevel.checkpoint()
        return path in self._contents or path in self._directories

    async def make_directory(self, path: Path) -> None:
        await trio.lowlevel.checkpoint()
        for directory in (path, *path.parents):
            self._directories[directory] = None

    async def list(self, path: Path) -> list[str]:
        await trio.lowlevel.checkpoint()
        self._require_directory(path)
        names = [
            other.name for other in (*self._contents, *self._directories) if other.parent == path != other
        ]
        return sorted(names)

    async def rename(self, source: Path, target: Path) -> None:
        await trio.lowlevel.checkpoint()
        if source not in self._contents:
            raise FileNotFoundError(str(source))
        self._require_directory(target.parent)
        self._contents[target] = self._contents.pop(source)

    async def remove(self, path: Path) -> None:
        await trio.lowlevel.checkpoint()
        self._contents.pop(path, None)

    def lock(self, path: Path) -> FileLock:
        if path in self._locks:
            raise FileLocked(path, self._locks[path])
        self._require_directory(path.parent)
        self._locks[path] = self._holder
        self._contents.setdefault(path, b"")
        return _MemoryLock(self._locks, path)

    def lose_power(self) -> None:
        """A fault: the node that held the locks is gone."""
        self._locks = {}

    def _require_directory(self, path: Path) -> None:
        if path not in self._directories:
            raise FileNotFoundError(str(path))


class InlineWorker:
    """Calls in the event loop. They still wait for each other, in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = trio.StrictFIFOLock()
        self._closed = False

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._closed:
            raise trio.ClosedResourceError(f"worker {self._name} is closed")
        async with self._lock:
            return function(*args)

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()


class InlineThreads:
    """Threads as plain calls: a thread's timing would not repeat."""

    async def run(
        self, function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        if limiter is None:
            await trio.lowlevel.checkpoint()
            return function(*args)
        async with limiter:
            return function(*args)

    def worker(self, name: str) -> Worker:
        return InlineWorker(name)


def virtual_env(
    seed: int,
    host: str = "node",
    *,
    network: MemoryNetwork | None = None,
    files: MemoryFiles | None = None,
    clock: Clock | None = None,
) -> Env:
    """A node's Env: give nodes the same network and seed, each its own host, files and clock skew."""
    return Env(
        clock=clock or TrioClock(),
        rng=SeededRng(seed).child(host),
        net=(network or MemoryNetwork()).net(host),
        files=files or MemoryFiles(holder=host),
        threads=InlineThreads(),
    )
