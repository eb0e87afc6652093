"""The in-process broker: time, crashes, seeds, and the plugin."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from querator.client import Batch, Client
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
