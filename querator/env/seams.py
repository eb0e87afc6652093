"""The protocols of the seams, and ``Env``, which holds one of each."""

import ssl as _ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

import attrs
import trio

from querator.core.ids import Duration, Instant
from querator.core.invariants import violated

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Clock(Protocol):
    """Time as this node sees it: microseconds UTC, never going back."""

    def now(self) -> Instant:
        """This moment. Nondecreasing over the life of the clock."""

    def align(self, reference: Instant) -> None:
        """Take the reference's time (a database's), before anybody has read this clock."""

    def monotonic(self) -> int:
        """Microseconds since an arbitrary moment, suspended time included; only differences mean anything."""

    async def sleep(self, duration: Duration) -> None:
        """Wait at least ``duration``; a checkpoint when it is not positive."""

    async def sleep_until(self, instant: Instant) -> None:
        """Wait until ``now() >= instant``: never early; a checkpoint when that is already so."""

    def step(self, reference: Instant | None = None) -> Duration:
        """Compare with a reference (default: the wall clock), to be called every few seconds.

        A small disagreement is slewed away. A large one is not followed; it is returned when it is
        new (reference minus ``now()``, so positive: the reference jumped forward), otherwise 0.
        """


class Rng(Protocol):
    """Random draws. Everything that depends on chance draws here."""

    def randbelow(self, bound: int) -> int:
        """An integer in [0, bound)."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` bytes; from the system's generator in production, so fit for secrets."""

    def nonce(self) -> int:
        """A 63-bit integer greater than 0."""

    def child(self, name: str) -> "Rng":
        """The stream named ``name``: a draw added in one stream does not shift the others."""


class Spare(Protocol):
    """An open descriptor, kept for the moment at which no other can be had."""

    def give_up(self) -> bool:
        """Close it, so that something else can be opened; False: it was closed already."""

    def get_back(self) -> None:
        """Open it again, if the system lets us."""


class Net(Protocol):
    """Byte streams between processes."""

    async def listen(
        self, host: str, port: int, *, tls: _ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Listen on every address of ``host`` ("" for all); ``port`` 0 chooses a free one.

        Raises:
            OSError: an address cannot be bound.
        """

    async def connect(self, host: str, port: int, *, tls: _ssl.SSLContext | None = None) -> trio.abc.Stream:
        """Open a stream, owned by the caller. With ``tls`` the handshake runs with the first bytes.

        Raises:
            OSError: nobody answers there.
        """

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        """(host, port) that a listener of this net is bound to."""

    def peer(self, stream: trio.abc.Stream) -> str:
        """The host at the other end of a stream of this net; "" when it is not known any more."""

    def spare(self) -> "Spare":
        """A descriptor to keep."""


class FileLock(Protocol):
    """A lock held until ``release`` or the end of the process, however it ends."""

    def release(self) -> None: ...


class Files(Protocol):
    """Whole small files. Big or hot files (SQLite, Parquet) belong to the libraries that know them."""

    async def read(self, path: Path) -> bytes:
        """Raises FileNotFoundError."""

    async def write(self, path: Path, content: bytes) -> None:
        """Replace the file, atomically and durably: after a crash it is the old or the new one."""

    async def exists(self, path: Path) -> bool: ...

    async def make_directory(self, path: Path) -> None:
        """Make it and its parents; fine when it is there. Only the owner may read it."""

    async def list(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""

    async def rename(self, source: Path, target: Path) -> None:
        """Move within one file system, durably, replacing ``target``."""

    async def remove(self, path: Path) -> None:
        """Remove a file, durably; fine when it is not there."""

    def lock(self, path: Path) -> FileLock:
        """Take the exclusive lock of ``path``, which is made when it is missing.

        Raises:
            FileLocked: somebody else has it.
        """


class FileLocked(Exception):
    """Somebody else holds the lock. ``holder`` is what they wrote into the file, for the message."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder or 'another process'}")
        self.path = path
        self.holder = holder


class Worker(Protocol):
    """One thread of its own that runs calls one after the other, in the order they came.

    For connections that belong to one thread. A call that has begun is always waited for:
    cancellation arrives when it is over.
    """

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run it there; its result or exception is the caller's."""

    async def aclose(self) -> None:
        """Let the queued calls finish and end the thread. ``run`` must not be called any more."""


class Threads(Protocol):
    """Work that would block the event loop."""

    async def run(
        self, function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Run it in some thread and wait, also when cancelled meanwhile."""

    def worker(self, name: str) -> Worker:
        """A new thread of its own; the caller closes it."""


class Processes(Protocol):
    """Other processes of this program, for work that needs more than one core."""

    @property
    def cores(self) -> int:
        """How many can work at once; 0: there are none."""

    def run(self, module: str, *, is_modest: bool = False) -> AbstractAsyncContextManager[trio.abc.Stream]:
        """Run a module of ours in a process of its own, whose standard input and output are the stream.
        It is killed when the block ends, if it has not ended with its input. ``is_modest``: it has what
        other processes leave, from its first breath on."""


class NoProcesses:
    """Where there is but one. Who wants to run something asks for ``cores`` first."""

    cores = 0

    def run(self, module: str, *, is_modest: bool = False) -> AbstractAsyncContextManager[trio.abc.Stream]:
        del is_modest
        violated(f"no processes here, and one was asked to run {module}")


@attrs.frozen(kw_only=True)
class Env:
    """All that the outside world gives to a node."""

    clock: Clock
    rng: Rng
    net: Net
    files: Files
    threads: Threads
    processes: Processes = attrs.field(factory=NoProcesses)


def seconds(duration: Duration) -> float:
    """For trio's relative timeouts: ``trio.move_on_after(seconds(limits.DRAIN_TIMEOUT))``."""
    return duration / 1_000_000
