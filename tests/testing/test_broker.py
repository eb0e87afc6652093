"""The in-process broker: time, crashes, seeds, and the plugin."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from querator.client import Batch, Client, Redriven
from querator.client.errors import Rejected
from querator.testing import Broker, broker, run

ROOT = Path(__file__).parents[2]


async def taken(q: Client, items: int = 1) -> Batch:
    batch = await q.reserve("q", items=items)
    assert batch is not None
    return batch


async def test_an_item_travels(querator_broker: Broker) -> None:
    await querator_broker.create_queue("q")
    async with querator_broker.connect() as q:
        await q.produce("q", b"hello")
        batch = await taken(q)
        assert batch.item(0).payload == b"hello"
        await batch.complete()
        report = await q.stats("q")
        assert report.partitions[0]["completed"] == 1


async def test_time_passes_when_it_is_told_to(querator_broker: Broker) -> None:
    await querator_broker.create_queue("q")
    before = querator_broker.now
    async with querator_broker.connect() as q:
        await q.produce("q", b"later", delay="1h")
        await querator_broker.settle()
        assert querator_broker.now == before
        await querator_broker.advance("59m")
        assert (await q.stats("q")).partitions[0]["scheduled"] == 1
        await querator_broker.advance("1m")
        assert (await q.stats("q")).partitions[0]["ready"] == 1
    assert (querator_broker.now - before).total_seconds() == pytest.approx(3_600, abs=10)


async def test_a_crash_keeps_what_was_acknowledged(querator_broker: Broker) -> None:
    await querator_broker.create_queue("q")
    async with querator_broker.connect() as q:
        await q.produce("q", b"kept")
        first = querator_broker.application
        await querator_broker.crash()
        assert querator_broker.application is not first
        await q.produce("q", b"after")
        batch = await taken(q, 2)
        assert batch.column("payloads") == [b"kept", b"after"]
    assert querator_broker.crashes == 1


async def test_a_reservation_survives_a_crash(querator_broker: Broker) -> None:
    await querator_broker.create_queue("q", reservation_timeout="1h")
    async with querator_broker.connect() as q:
        await q.produce("q", b"work")
        batch = await taken(q)
        await querator_broker.crash()
        await batch.complete()
        counts = (await q.stats("q")).partitions[0]
        assert (counts["completed"], counts["ready"], counts["reserved"]) == (1, 0, 0)


async def test_what_a_dead_queue_took_is_sent_home_and_tried_again(querator_broker: Broker) -> None:
    await querator_broker.create_queue("morgue")
    await querator_broker.create_queue("q", dead_queue="morgue")
    async with querator_broker.connect() as q:
        await q.produce("q", b"mended")
        await (await taken(q)).dead("broken")
        await querator_broker.advance("1s")
        assert await q.redrive("q") == Redriven(0)
        held = await q.reserve("morgue")
        assert held is not None
        assert await q.redrive("morgue", home=True) == Redriven(0, reserved=1)
        with pytest.raises(Rejected, match="is reserved"):
            await q.redrive("morgue", home=True, partition=held.partition, items=list(held.items))
        await held.dead("still broken")
        await querator_broker.crash()
        assert await q.redrive("morgue", home=True, from_queue="q") == Redriven(1)
        await querator_broker.advance("1s")
        batch = await taken(q)
        assert (batch.item(0).payload, batch.item(0).attempt) == (b"mended", 1)


async def test_what_is_refused_is_said(querator_broker: Broker) -> None:
    await querator_broker.create_queue("q")
    with pytest.raises(Rejected, match="q"):
        await querator_broker.create_queue("q")


async def _busy(found: Broker) -> list[str]:
    """Competing producers and consumers, and a crash; every record that came of it."""
    await found.create_queue("q", partitions=2)

    async def produce(number: int) -> None:
        async with found.connect() as q:
            for index in range(5):
                await q.produce("q", f"{number}.{index}".encode())

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(produce, number)
    await found.crash()
    async with found.connect() as q:
        for _ in range(4):
            await (await taken(q, 2)).complete()
    return [
        f"{number}.{stored.record.position} {stored.record.hash.hex()}"
        for number, there in sorted(found.disk.partitions.items())
        for stored in there.records
    ]


def test_a_seed_repeats_everything() -> None:
    first = run(_busy, seed=3)
    assert run(_busy, seed=3) == first
    assert run(_busy, seed=4) != first


def test_a_real_clock_is_refused() -> None:
    async def main() -> None:
        async with broker():
            pass

    with pytest.raises(RuntimeError, match="virtual clock"):
        trio.run(main)


def test_the_tests_own_failure_comes_out_as_it_is() -> None:
    async def main(found: Broker) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(main)


def test_the_clock_is_given_back() -> None:
    clock = MockClock()

    async def main() -> float:
        async with broker():
            pass
        return clock.autojump_threshold

    assert trio.run(main, clock=clock) == float("inf")


USERS_TEST = """
async def test_theirs(querator_broker):
    await querator_broker.create_queue("q")
    async with querator_broker.connect() as q:
        await q.produce("q", b"x")
        assert querator_broker.seed == 7
        assert len(await q.reserve("q")) == IS_THERE
"""


@pytest.mark.parametrize("is_there", [1, 2])
def test_the_plugin_in_a_users_project(tmp_path: Path, is_there: int) -> None:
    (tmp_path / "test_theirs.py").write_text(USERS_TEST.replace("IS_THERE", str(is_there)))
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "querator.testing.plugin", "--querator-seed=7", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if is_there == 1:
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert done.returncode == 1
        assert "again with: pytest test_theirs.py::test_theirs --querator-seed=7" in done.stdout


def test_the_plugin_is_announced_to_pytest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"querator.testing.plugin": "querator.testing.plugin"}


async def _pay(found: Broker) -> list[bytes]:
    """A handler that pays and then completes; what it paid, over all of its lives."""
    await found.create_queue("q", reservation_timeout="30s")
    async with found.connect() as q:
        await q.produce_batch("q", [b"%d" % number for number in range(12)])
    paid: list[bytes] = []

    async def handler(q: Client) -> int:
        while True:
            batch = await q.reserve("q", items=2, wait="2m")
            if batch is None:
                return len(paid)
            for payload in batch.column("payloads"):
                await trio.sleep(0.1)
                paid.append(payload)
            await batch.complete()

    assert await found.crashing(handler, crashes=4, awaits=30) == len(paid)
    async with found.connect() as q:
        counts = (await q.stats("q")).partitions[0]
    assert (counts["completed"], counts["ready"], counts["reserved"]) == (12, 0, 0)
    return paid


def test_a_handler_that_dies_does_everything_at_least_once() -> None:
    """And now and then twice: paid, dead before it was completed. A seed that finds that finds it again."""
    seen: dict[int, list[bytes]] = {}
    for seed in range(6):
        seen[seed] = run(_pay, seed=seed)
        assert sorted(dict.fromkeys(seen[seed]), key=int) == [b"%d" % number for number in range(12)]
    twice = [seed for seed, paid in seen.items() if len(paid) > 12]
    assert twice
    assert run(_pay, seed=twice[0]) == seen[twice[0]]
    assert len({tuple(paid) for paid in seen.values()}) > 1


async def test_the_dead_say_no_goodbye(querator_broker: Broker) -> None:
    """What a handler holds when it dies is nobody's until its time is over: nothing was released."""
    await querator_broker.create_queue("q", reservation_timeout="30s")
    async with querator_broker.connect() as q:
        await q.produce("q", b"held")
    lives = 0

    async def handler(q: Client) -> float:
        nonlocal lives
        lives += 1
        began = querator_broker.now
        batch = await q.reserve("q", wait="5m")
        if lives == 1:
            await trio.sleep_forever()
        assert batch is not None
        assert batch.item(0).attempt == 2
        await batch.complete()
        return (querator_broker.now - began).total_seconds()

    async def restless(q: Client) -> float:
        if lives == 0:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handler, q)
                for _ in range(10_000):
                    await trio.sleep(0.01)
        return await handler(q)

    waited = await querator_broker.crashing(restless, crashes=1, awaits=300)
    assert querator_broker.handler_crashes == 1
    assert waited > 1


async def test_a_handler_that_is_done_dies_no_more(querator_broker: Broker) -> None:
    async def handler(q: Client) -> str:
        await querator_broker.settle()
        return "done"

    assert await querator_broker.crashing(handler, crashes=5, awaits=10_000) == "done"
    assert querator_broker.handler_crashes == 0


async def test_what_a_handler_raises_comes_out(querator_broker: Broker) -> None:
    async def handler(q: Client) -> None:
        raise ValueError("a bug of theirs")

    with pytest.raises(ValueError, match="a bug of theirs"):
        await querator_broker.crashing(handler, crashes=1, awaits=10_000)
