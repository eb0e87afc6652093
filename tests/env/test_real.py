"""The real world's parts: the clock that is never stepped, whole files, threads that are waited for."""

import contextlib
import os
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trustme

from querator.core.ids import DAY, HOUR, MILLISECOND, MINUTE, SECOND, Duration, Instant
from querator.env import Env, FileLocked, seconds
from querator.env.real import (
    SLEW_DIVISOR,
    STEP_MIN,
    UNWAITED_SENDS_MAX,
    QuickStream,
    RealClock,
    SystemFiles,
    SystemRng,
    TcpNet,
    ThreadWorker,
    client_tls,
    real_env,
    server_tls,
)


class Clocks:
    """A wall and a boot clock that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_000_000
        self.boot = 5_000_000

    def pass_time(self, duration: int) -> None:
        self.wall += duration
        self.boot += duration

    def clock(self) -> RealClock:
        return RealClock(lambda: self.wall, lambda: self.boot)


def test_time_is_the_wall_at_start_and_the_boot_clock_since() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    assert clock.now() == clocks.wall
    clocks.boot += HOUR
    clocks.wall -= DAY
    assert clock.now() == 1_700_000_000_000_000 + HOUR


def test_a_small_disagreement_is_slewed_away_at_500_ppm() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clocks.wall += 100 * MILLISECOND
    assert clock.step() == 0
    assert clock.now() == clocks.wall - 100 * MILLISECOND
    clocks.pass_time(100 * SECOND)
    assert clock.now() == clocks.wall - 50 * MILLISECOND
    clocks.pass_time(HOUR)
    assert clock.now() == clocks.wall


def test_a_slew_backwards_never_goes_back() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clocks.wall -= 100 * MILLISECOND
    assert clock.step() == 0
    last = clock.now()
    for _ in range(3 * SLEW_DIVISOR):
        clocks.pass_time(1)
        if clocks.boot % 7 == 0:
            assert clock.step() == 0
        assert last <= clock.now() <= last + 1
        last = clock.now()


def test_a_slew_goes_on_over_several_comparisons() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clocks.wall += 100 * MILLISECOND
    for _ in range(100):
        assert clock.step() == 0
        clocks.pass_time(SECOND)
    assert clock.now() == clocks.wall - 50 * MILLISECOND


def test_a_step_is_reported_once_and_not_followed() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clocks.wall += HOUR
    assert clock.step() == HOUR
    assert clock.step() == 0
    clocks.pass_time(SECOND)
    assert clock.step() == 0
    assert clock.now() == clocks.wall - HOUR
    clocks.wall -= 2 * HOUR
    assert clock.step() == -HOUR
    clocks.wall += HOUR
    assert clock.step() == 0
    clocks.wall += HOUR
    assert clock.step() == HOUR


def test_the_step_threshold() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    assert clock.step(Instant(clocks.wall + STEP_MIN - 1)) == 0
    assert clock.step(Instant(clock.now() + STEP_MIN)) == STEP_MIN


def test_a_clock_may_be_aligned_with_the_database() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    clock.align(Instant(42))
    clocks.pass_time(8)
    assert clock.now() == 50
    assert clock.step(Instant(50)) == 0


def test_the_system_clocks_are_what_they_should_be() -> None:
    clock = RealClock()
    assert Instant(1_700_000_000_000_000) < clock.now() < Instant(5_000_000_000_000_000)
    assert clock.step() == 0
    before = clock.monotonic()
    assert before <= clock.monotonic() < before + MINUTE


async def test_sleep_until_is_never_early() -> None:
    clock = RealClock()
    for _ in range(5):
        deadline = Instant(clock.now() + 2 * MILLISECOND)
        await clock.sleep_until(deadline)
        assert clock.now() >= deadline


async def test_sleep_until_waits_for_a_clock_that_is_slewed_back() -> None:
    """The boot clock that a sleeper sleeps by runs ahead then."""
    clock = RealClock()
    clock.step(Instant(clock.now() - 100 * MILLISECOND))
    deadline = Instant(clock.now() + 5 * MILLISECOND)
    await clock.sleep_until(deadline)
    assert clock.now() >= deadline


async def test_sleeping_for_nothing_is_a_checkpoint() -> None:
    clock = RealClock()
    with trio.move_on_after(0) as scope:
        await clock.sleep(Duration(-1))
    assert scope.cancelled_caught
    with trio.move_on_after(0) as scope:
        await clock.sleep_until(Instant(0))
    assert scope.cancelled_caught


def test_chance() -> None:
    rng = SystemRng()
    nonces = [rng.nonce() for _ in range(200)]
    assert all(0 < nonce < 1 << 63 for nonce in nonces)
    assert len(dict.fromkeys(nonces)) == 200
    assert all(0 <= rng.random() < 1 for _ in range(200))
    assert sorted(dict.fromkeys(rng.randbelow(3) for _ in range(200))) == [0, 1, 2]
    assert len(rng.token_bytes(32)) == 32
    assert rng.child("x").nonce() != rng.child("x").nonce()


async def test_a_written_file_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    files = SystemFiles()
    await files.make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    path = tmp_path / "a" / "b" / "witness"
    await files.write(path, b"one")
    await files.write(path, b"two")
    assert await files.read(path) == b"two"
    assert await files.list(path.parent) == ["witness"]
    await files.rename(path, tmp_path / "moved")
    assert not await files.exists(path)
    await files.remove(tmp_path / "moved")
    await files.remove(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        await files.read(path)


async def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space left")

    files = SystemFiles()
    await files.write(tmp_path / "f", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        await files.write(tmp_path / "f", b"new")
    assert await files.read(tmp_path / "f") == b"old"
    assert await files.list(tmp_path) == ["f"]


def test_a_lock_excludes_another_process_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    source = (
        "import sys; from pathlib import Path; from querator.env.real import SystemFiles; "
        "lock = SystemFiles().lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", source, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(FileLocked) as refusal:
        SystemFiles().lock(path)
    assert refusal.value.holder == f"process {holder.pid}"
    holder.kill()
    holder.communicate()
    lock = SystemFiles().lock(path)
    with pytest.raises(FileLocked):
        SystemFiles().lock(path)
    lock.release()
    lock.release()
    SystemFiles().lock(path).release()


async def test_a_worker_runs_calls_in_order_on_one_thread() -> None:
    worker = ThreadWorker("test")
    seen: list[tuple[int, int]] = []

    def call(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number * 2

    results: dict[int, int] = {}

    async def run(number: int) -> None:
        results[number] = await worker.run(call, number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert results == {number: number * 2 for number in range(20)}
    assert len(dict.fromkeys(thread for _, thread in seen)) == 1
    assert seen[0][1] != threading.get_ident()
    await worker.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await worker.run(call, 1)


async def test_a_workers_exception_is_its_callers() -> None:
    worker = ThreadWorker("test")

    def fail() -> None:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        await worker.run(fail)
    assert await worker.run(int, "7") == 7
    await worker.aclose()
    await worker.aclose()


async def test_a_call_that_has_begun_is_waited_for() -> None:
    """A commit must not be left behind half-known: cancellation arrives after it."""
    worker = ThreadWorker("test")
    may_end, has_begun = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    ended = False

    def commit() -> str:
        nonlocal ended
        token.run_sync_soon(has_begun.set)
        may_end.wait(60)
        ended = True
        return "committed"

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, commit)
            await has_begun.wait()
            scope.cancel()
            assert not ended
            may_end.set()
    assert ended
    assert await worker.run(str, 1) == "1"
    await worker.aclose()


async def echo(env: Env, stream: trio.abc.Stream) -> None:
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data + env.net.peer(stream).encode())


@pytest.mark.parametrize("with_tls", [False, True])
async def test_streams(with_tls: bool, tmp_path: Path) -> None:
    server, client = None, None
    if with_tls:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        server, client = (
            server_tls(tmp_path / "cert.pem", tmp_path / "key.pem"),
            client_tls(tmp_path / "ca.pem"),
        )
        assert server.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert server.options & ssl.OP_NO_RENEGOTIATION
        assert server.options & ssl.OP_NO_COMPRESSION
        old = [suite for suite in server.get_ciphers() if suite["protocol"] != "TLSv1.3"]
        assert {suite["kea"] for suite in old} <= {"kx-ecdhe", "kx-dhe"}, "forward secrecy"
    env = real_env()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            (listener,) = await env.net.listen("127.0.0.1", 0, tls=server)
            host, port = env.net.address(listener)
            assert host == "127.0.0.1"
            nursery.start_soon(trio.serve_listeners, lambda stream: echo(env, stream), [listener])
            stream = await env.net.connect("localhost", port, tls=client)
            await stream.send_all(b"hello from ")
            assert await stream.receive_some() == b"hello from 127.0.0.1"
            await stream.aclose()
            nursery.cancel_scope.cancel()


class GivesWay(QuickStream):
    """What every other stream does, and trio's own checks ask for."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await super().send_all(data)


async def pair() -> tuple[GivesWay, GivesWay]:
    net = TcpNet()
    (listener,) = await net.listen("127.0.0.1", 0)
    connected = await net.connect(*net.address(listener))
    accepted = await listener.accept()
    await listener.aclose()
    assert isinstance(connected, trio.SocketStream)
    assert isinstance(accepted, QuickStream)
    return GivesWay(connected), GivesWay(accepted.plain)


async def clogged_pair() -> tuple[GivesWay, GivesWay]:
    both = await pair()
    for stream in both:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(stream.plain.socket.fileno(), bytes(1 << 20))
    return both


async def test_streams_keep_trios_contract() -> None:
    with trio.fail_after(60):
        await trio.testing.check_half_closeable_stream(pair, clogged_pair)


async def test_a_stream_that_sends_for_ever_lets_others_have_their_turn() -> None:
    near, far = await pair()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(UNWAITED_SENDS_MAX):
            await QuickStream.send_all(near, b"x")
        assert turns == 0
        for _ in range(UNWAITED_SENDS_MAX + 2):  # they wait at the first of these, and at the last
            await QuickStream.send_all(near, b"x")
        assert turns > 0
        nursery.cancel_scope.cancel()


def test_descriptors_are_allowed_as_far_as_the_system_does() -> None:
    """In a process of its own: what is lowered here could not be raised again."""
    script = (
        "import resource; from querator.env.real import allow_descriptors;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000));"
        "print(allow_descriptors(1500), allow_descriptors(1000), allow_descriptors(9000));"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1500 1500 2000", "(2000, 2000)"]


async def test_a_foreign_stream_is_refused() -> None:
    net = TcpNet()
    one, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError):
        net.peer(one)


async def test_a_thread_call() -> None:
    assert await real_env().threads.run(threading.get_ident) != threading.get_ident()
    assert seconds(Duration(1_500_000)) == 1.5
