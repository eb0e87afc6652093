"""The parts without an outside world keep the same promises, and repeat themselves."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream, wait_all_tasks_blocked

from querator.core.ids import DAY, HOUR, MILLISECOND, MINUTE, SECOND, Duration, Instant
from querator.core.invariants import InvariantViolation
from querator.env import FileLocked
from querator.env.trio_clock import EPOCH, TrioClock
from querator.env.virtual import (
    BACKLOG,
    PIPE_BYTES_MAX,
    InlineWorker,
    MemoryFiles,
    MemoryNetwork,
    MemoryStream,
    SeededRng,
    virtual_env,
)

PORT = 2319


async def test_virtual_time_costs_nothing(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    assert clock.now() == EPOCH
    await clock.sleep(DAY)
    assert clock.now() == EPOCH + DAY
    await clock.sleep_until(Instant(EPOCH + 2 * DAY))
    assert clock.now() == EPOCH + 2 * DAY
    await clock.sleep_until(EPOCH)
    assert clock.now() == EPOCH + 2 * DAY


@pytest.mark.parametrize("rate", [0.9, 1.0, 1.1, 1 / 3])
async def test_a_skewed_sleeper_is_never_early(autojump_clock: MockClock, rate: float) -> None:
    clock = TrioClock(offset=Duration(-5 * SECOND), rate=rate)
    assert clock.now() == EPOCH - 5 * SECOND
    for wait in (1, 7, 333_333, 12 * MILLISECOND, HOUR + 1):
        deadline = Instant(clock.now() + wait)
        await clock.sleep_until(deadline)
        assert deadline <= clock.now() <= deadline + 1


async def test_skewed_clocks_drift_apart(autojump_clock: MockClock) -> None:
    slow, fast = TrioClock(rate=0.99), TrioClock(rate=1.01)
    await slow.sleep(HOUR)
    assert fast.now() - slow.now() == pytest.approx(HOUR / 0.99 * 0.02, abs=2)


async def test_a_jump_is_told_once_and_moves_nothing(autojump_clock: MockClock) -> None:
    clock = TrioClock()
    clock.jump(Duration(-HOUR))
    assert clock.now() == EPOCH
    assert [clock.step(), clock.step()] == [-HOUR, 0]
    assert clock.step(Instant(EPOCH + MINUTE)) == MINUTE


def test_a_rate_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        TrioClock(rate=0)


def test_a_seed_repeats_itself() -> None:
    def draws(rng: SeededRng) -> list[object]:
        return [rng.nonce(), rng.random(), rng.randbelow(10), rng.token_bytes(8)]

    assert draws(SeededRng(1)) == draws(SeededRng(1))
    assert draws(SeededRng(1)) != draws(SeededRng(2))


def test_a_childs_stream_does_not_depend_on_other_draws() -> None:
    parent = SeededRng(1)
    before = parent.child("disk").nonce()
    parent.nonce()
    assert parent.child("disk").nonce() == before
    assert parent.child("net").nonce() != before
    assert parent.child("a").child("b").nonce() != parent.child("b").child("a").nonce()


async def link(network: MemoryNetwork) -> tuple[MemoryStream, MemoryStream]:
    server, client = network.net("server"), network.net("client")
    (listener,) = await server.listen("localhost", PORT)
    near = await client.connect("server", PORT)
    far = await listener.accept()
    await listener.aclose()
    assert isinstance(near, MemoryStream)
    assert isinstance(far, MemoryStream)
    return near, far


async def test_a_link_behaves_as_a_stream_does() -> None:
    """Trio's own conformance suite."""

    async def make() -> tuple[MemoryStream, MemoryStream]:
        return await link(MemoryNetwork())

    async def make_full() -> tuple[MemoryStream, MemoryStream]:
        near, far = await link(MemoryNetwork())
        await near.send_all(bytes(PIPE_BYTES_MAX))
        await far.send_all(bytes(PIPE_BYTES_MAX))
        return near, far

    await check_half_closeable_stream(make, make_full)


async def test_a_full_link_makes_its_sender_wait(autojump_clock: MockClock) -> None:
    near, far = await link(MemoryNetwork())
    with trio.move_on_after(1) as scope:
        await near.send_all(bytes(PIPE_BYTES_MAX + 1))
    assert scope.cancelled_caught
    assert len(await far.receive_some()) == PIPE_BYTES_MAX


async def test_latency_is_each_ways(autojump_clock: MockClock) -> None:
    near, far = await link(MemoryNetwork(latency=Duration(250 * MILLISECOND)))
    await near.send_all(b"ping")
    assert trio.current_time() == 0
    assert await far.receive_some() == b"ping"
    assert trio.current_time() == 0.25
    await far.send_all(b"pong")
    assert await near.receive_some(2) == b"po"
    assert await near.receive_some() == b"ng"
    assert trio.current_time() == 0.5


async def test_a_cut_breaks_both_ends() -> None:
    network = MemoryNetwork()
    near, far = await link(network)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await far.receive_some()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert network.cut("server", "client") == 1
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"x")
    assert network.cut("server", "client") == 0


async def test_ports() -> None:
    network = MemoryNetwork()
    net = network.net("a")
    (listener,) = await net.listen("", 0)
    host, port = net.address(listener)
    assert host == "a"
    with pytest.raises(OSError, match="in use"):
        await net.listen("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        await net.connect("b", port)
    for _ in range(BACKLOG):
        await network.net("b").connect("a", port)
    with pytest.raises(ConnectionRefusedError, match="accepts no more"):
        await net.connect("localhost", port)
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await net.connect("localhost", port)
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_files_in_memory_keep_the_promises_of_files() -> None:
    files = MemoryFiles(holder="node 1")
    folder = Path("/data")
    with pytest.raises(FileNotFoundError):
        await files.write(folder / "f", b"")
    await files.make_directory(folder / "deep")
    await files.write(folder / "f", b"one")
    await files.write(folder / "f", b"two")
    assert await files.list(folder) == ["deep", "f"]
    await files.rename(folder / "f", folder / "deep" / "g")
    assert await files.read(folder / "deep" / "g") == b"two"
    assert not await files.exists(folder / "f")
    await files.remove(folder / "deep" / "g")
    with pytest.raises(FileNotFoundError):
        await files.read(folder / "deep" / "g")
    lock = files.lock(folder / "lock")
    with pytest.raises(FileLocked, match="node 1"):
        files.lock(folder / "lock")
    lock.release()
    files.lock(folder / "lock")
    files.lose_power()
    files.lock(folder / "lock")


async def test_an_inline_worker_keeps_order() -> None:
    worker = InlineWorker("test")
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(worker.run, seen.append, number)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    await worker.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await worker.run(seen.append, 9)


async def test_nodes_share_a_network_and_nothing_else() -> None:
    network = MemoryNetwork()
    one, two = virtual_env(7, "one", network=network), virtual_env(7, "two", network=network)
    assert one.rng.nonce() != two.rng.nonce()
    assert one.rng.child("x").nonce() == virtual_env(7, "one").rng.child("x").nonce()
    (listener,) = await one.net.listen("localhost", PORT)
    await two.net.connect("one", PORT)
    assert two.net.peer(await listener.accept()) == "two"
    await one.files.write(Path("f"), b"")
    assert not await two.files.exists(Path("f"))
    assert await one.threads.run(int, "3") == 3
    assert await one.threads.run(int, "3", limiter=trio.CapacityLimiter(1)) == 3


def test_nothing_runs_in_other_processes_where_there_are_none() -> None:
    """Who did not look at ``cores`` has a bug, which is said as all bugs are."""
    processes = virtual_env(1).processes
    assert processes.cores == 0
    with pytest.raises(InvariantViolation, match="module"):
        processes.run("some.module")
