"""The world as it is: the system's clocks, generator, sockets, files and threads."""

import contextlib
import fcntl
import os
import queue
import resource
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import attrs
import outcome
import trio

from querator.core.ids import MINUTE, Duration, Instant
from querator.env import modest
from querator.env.seams import Env, FileLock, FileLocked, Rng, Worker, seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SLEW_DIVISOR: Final = 2_000
"""A disagreement is corrected by one microsecond in this many: 500 parts per million, as NTP does."""
STEP_MIN: Final = Duration(128_000)
"""Disagreements from here on are steps: reported, not followed. NTP's own threshold."""
SLEEP_LEG_MAX: Final = MINUTE
"""trio's clock stands still while the machine is suspended; a sleeper looks up this often."""
BACKLOG: Final = 4_096
"""Connections the kernel holds for us while the loop is busy; what SOMAXCONN is on Linux."""

# Unlike the clock behind time.monotonic(), both of these count the time a machine was suspended
# (on macOS it is CLOCK_MONOTONIC that does).
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boot_microseconds() -> int:
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000


def _wall_microseconds() -> int:
    return time.time_ns() // 1_000


class RealClock:
    """The wall clock at start plus the boot-time clock since, slewed towards its reference.

    ``wall`` and ``boot`` are the two clocks it is made of, in microseconds.
    """

    def __init__(
        self,
        wall: Callable[[], int] = _wall_microseconds,
        boot: Callable[[], int] = _boot_microseconds,
    ) -> None:
        self._wall = wall
        self._boot = boot
        self._offset = wall() - boot()
        self._slew = 0
        self._slew_started = 0
        self._step = 0

    def align(self, reference: Instant) -> None:
        """Take the reference's time (a database's), before anybody has read this clock."""
        self._offset = reference - self._boot()
        self._slew = 0
        self._step = 0

    def now(self) -> Instant:
        boot = self._boot()
        if self._slew:
            return Instant(boot + self._offset + self._slewed(boot))
        return Instant(boot + self._offset)

    def monotonic(self) -> int:
        return self._boot()

    async def sleep(self, duration: Duration) -> None:
        if duration <= 0:
            await trio.lowlevel.checkpoint()
            return
        await self._sleep_until_boot(self._boot() + duration)

    async def sleep_until(self, instant: Instant) -> None:
        left = instant - self.now()
        if left <= 0:
            await trio.lowlevel.checkpoint()
        # A slew can make the clock run slower than the boot clock that we sleep by: look again.
        while left > 0:
            await self._sleep_until_boot(self._boot() + left)
            left = instant - self.now()

    async def _sleep_until_boot(self, deadline: int) -> None:
        while (left := deadline - self._boot()) > 0:
            await trio.sleep(seconds(Duration(min(left, SLEEP_LEG_MAX))))

    def step(self, reference: Instant | None = None) -> Duration:
        boot = self._boot()
        self._offset += self._slewed(boot)
        self._slew = 0
        disagreement = (self._wall() if reference is None else reference) - (boot + self._offset)
        if abs(disagreement) < STEP_MIN:
            self._slew = disagreement
            self._slew_started = boot
            self._step = 0
            return Duration(0)
        if abs(disagreement - self._step) < STEP_MIN:
            return Duration(0)
        self._step = disagreement
        return Duration(disagreement)

    def _slewed(self, boot: int) -> int:
        possible = (boot - self._slew_started) // SLEW_DIVISOR
        return max(-possible, min(possible, self._slew))


class SystemRng:
    """The system's generator. Its children are itself: it has no order to keep."""

    def randbelow(self, bound: int) -> int:
        return secrets.randbelow(bound)

    def random(self) -> float:
        return secrets.randbits(53) / (1 << 53)

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def nonce(self) -> int:
        return 1 + secrets.randbelow((1 << 63) - 1)

    def child(self, name: str) -> Rng:
        return self


UNWAITED_SENDS_MAX: Final = 16
"""Sends of one connection that let no other task have its turn, between two waits of its own."""


class QuickStream(trio.abc.HalfCloseableStream):
    """A TCP stream that does not give way to the other tasks where it need not wait.

    A whole send is one system call: trio's would be followed by a round through its scheduler, which
    costs as much. And a server that has just answered need not try whether the next request is there.
    """

    def __init__(self, plain: trio.SocketStream) -> None:
        self.plain = plain
        self._unwaited = 0
        self._is_sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sent = 0
        if not self._is_sending and self._unwaited < UNWAITED_SENDS_MAX:
            try:
                sent = os.write(self.plain.socket.fileno(), data)
                if sent == len(data):
                    self._unwaited += 1
                    return
            except OSError:
                pass  # it goes wrong again below, where trio says it in its own words
        self._unwaited = 0
        self._is_sending = True
        try:
            await self.plain.send_all(memoryview(data)[sent:])
        finally:
            self._is_sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._unwaited = 0
        number = self.plain.socket.fileno()
        if number >= 0 and isinstance(max_bytes, int) and max_bytes > 0:
            await trio.lowlevel.wait_readable(number)
            try:
                return os.read(number, max_bytes)
            except BlockingIOError:
                pass
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
        return await self.plain.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await self.plain.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.plain.send_eof()

    async def aclose(self) -> None:
        await self.plain.aclose()


@attrs.frozen(eq=False)
class QuickListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts QuickStreams."""

    plain: trio.SocketListener

    async def accept(self) -> QuickStream:
        return QuickStream(await self.plain.accept())

    async def aclose(self) -> None:
        await self.plain.aclose()


class SpareDescriptor:
    """See Spare."""

    def __init__(self) -> None:
        self._number: int | None = None
        self.get_back()

    def give_up(self) -> bool:
        number, self._number = self._number, None
        if number is None:
            return False
        os.close(number)
        return True

    def get_back(self) -> None:
        # There may be none to be had: the next connection then waits until there is.
        with contextlib.suppress(OSError):
            if self._number is None:
                self._number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class TcpNet:
    """TCP, with TLS where a context is given. Streams have TCP_NODELAY, as trio sets it."""

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        if tls is None:
            plain = await trio.open_tcp_listeners(port, host=host or None, backlog=BACKLOG)
            return [QuickListener(listener) for listener in plain]
        return list(
            await trio.open_ssl_over_tcp_listeners(
                port, tls, host=host or None, https_compatible=True, backlog=BACKLOG
            )
        )

    async def connect(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
        if tls is None:
            return await trio.open_tcp_stream(host, port)
        return await trio.open_ssl_over_tcp_stream(host, port, ssl_context=tls, https_compatible=True)

    def address(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        if isinstance(listener, QuickListener):
            listener = listener.plain
        elif isinstance(listener, trio.SSLListener):
            listener = listener.transport_listener
        if not isinstance(listener, trio.SocketListener):
            raise TypeError(f"not a listener of this net: {listener!r}")
        name = listener.socket.getsockname()
        return str(name[0]), int(name[1])

    def spare(self) -> SpareDescriptor:
        return SpareDescriptor()

    def peer(self, stream: trio.abc.Stream) -> str:
        if isinstance(stream, QuickStream):
            stream = stream.plain
        elif isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if not isinstance(stream, trio.SocketStream):
            raise TypeError(f"not a stream of this net: {stream!r}")
        try:
            return str(stream.socket.getpeername()[0])
        except OSError:
            return ""


def allow_descriptors(wanted: int) -> int:
    """Let this process have so many open files, as far as the system does; returns how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft


_CIPHERS: Final = (
    "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM:!PSK"
)
"""Of TLS 1.2: those of Python itself, which are forward secret; a distribution's Python may allow others."""


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer, forward secret.

    Raises:
        OSError: a file cannot be read, or is not what it should be (ssl.SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(_CIPHERS)
    context.load_cert_chain(certificate, key, password=_no_password)
    return context


def reload_server_tls(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Take the files' present certificate for all handshakes from now on; connections that are open stay.

    Raises:
        OSError: as ``server_tls``; the context is as it was.
    """
    server_tls(certificate, key)
    context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> bytes:
    """An encrypted key is refused; without this, OpenSSL would ask for its password at the terminal."""
    return b""


def client_tls(authority: Path | None = None) -> ssl.SSLContext:
    """A client's context: the system's authorities, or the one in the file.

    Raises:
        OSError: the file cannot be read, or is not what it should be (ssl.SSLError).
    """
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Lock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Twice is fine. The file stays: removing it would let two processes lock two files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SystemFiles:
    """Files of the operating system (POSIX), off the event loop."""

    async def read(self, path: Path) -> bytes:
        return await trio.to_thread.run_sync(path.read_bytes)

    async def write(self, path: Path, content: bytes) -> None:
        await trio.to_thread.run_sync(_write, path, content)

    async def exists(self, path: Path) -> bool:
        return await trio.to_thread.run_sync(path.exists)

    async def make_directory(self, path: Path) -> None:
        await trio.to_thread.run_sync(_make_directory, path)

    async def list(self, path: Path) -> list[str]:
        return sorted(await trio.to_thread.run_sync(os.listdir, path))

    async def rename(self, source: Path, target: Path) -> None:
        await trio.to_thread.run_sync(_rename, source, target)

    async def remove(self, path: Path) -> None:
        await trio.to_thread.run_sync(_remove, path)

    def lock(self, path: Path) -> FileLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 256).decode(errors="replace").strip()
            os.close(descriptor)
            raise FileLocked(path, holder) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()}\n".encode())
        return _Lock(descriptor)


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    _sync_directory(path.parent)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)
    _sync_directory(target.parent)
    if source.parent != target.parent:
        _sync_directory(source.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@attrs.define
class _Job:
    work: Callable[[], object]
    task: trio.lowlevel.Task
    token: trio.lowlevel.TrioToken


class ThreadWorker:
    """A thread and a queue. Beside trio's thread cache: the calls share one thread, and no limiter is asked.

    The queue has no bound of its own: each caller waits for its call, so it holds at most one a task.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        # A daemon, so that a crash of the event loop does not leave the process hanging here.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError(f"worker {self._thread.name} is closed")
        job = _Job(lambda: function(*args), trio.lowlevel.current_task(), trio.lowlevel.current_trio_token())
        self._jobs.put(job)
        result: T = await trio.lowlevel.wait_task_rescheduled(_refuse_to_abort)
        return result

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = outcome.capture(job.work)
            # The loop can only have ended by crashing: it waits for its tasks. Nobody is left to tell.
            with contextlib.suppress(trio.RunFinishedError):
                job.token.run_sync_soon(trio.lowlevel.reschedule, job.task, result)


def _refuse_to_abort(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class SystemThreads:
    """trio's thread cache, and threads of their own."""

    async def run(
        self, function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=limiter)

    def worker(self, name: str) -> Worker:
        return ThreadWorker(name)


_MODEST: Final = Path(modest.__file__)


class SystemProcesses:
    """Processes of this interpreter. Who is modest has no children that are not."""

    @property
    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    @contextlib.asynccontextmanager
    async def run(self, module: str, *, is_modest: bool = False) -> AsyncIterator[trio.abc.Stream]:
        # Its imports alone are half a second of a core: it must not begin as we are.
        # It is not inherited: a session of their own would be as important as any.
        start = [str(_MODEST), module] if is_modest or modest.is_modest() else ["-m", module]
        process = await trio.lowlevel.open_process(
            [sys.executable, *start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for us: we end it, by ending its input.
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise TypeError("a process without pipes")
        stream = trio.StapledStream(process.stdin, process.stdout)
        try:
            yield stream
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
                process.kill()
                await process.wait()


def standard_stream() -> trio.abc.Stream:
    """This process's standard input and output, for one that was started by ``run``."""
    return trio.StapledStream(
        trio.lowlevel.FdStream(os.dup(sys.stdout.fileno())),
        trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())),
    )


def real_env() -> Env:
    """Production's Env."""
    return Env(
        clock=RealClock(),
        rng=SystemRng(),
        net=TcpNet(),
        files=SystemFiles(),
        threads=SystemThreads(),
        processes=SystemProcesses(),
    )
