"""Exports: exactly once per position, in steps, killed anywhere, over damaged files."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from querator import telemetry
from querator.analytics import connect, warehouse
from querator.analytics.export import Exporter
from querator.analytics.following import Follower
from querator.analytics.manifest import MANIFEST, ArchiveError, check_parts, read_manifest
from querator.core import limits
from querator.core.ids import MILLISECOND, PartitionId
from querator.env import Env
from querator.env.real import real_env
from querator.log.memory import MemoryDisk, MemoryLog
from tests.analytics.histories import (
    PartitionHistory,
    catalog_records,
    plain_fold,
    random_history,
    store_records,
)


class Killed(BaseException):
    """The process is gone."""


class MortalFiles:
    """Files that die at the ``fatal``-th change, before it or right after it."""

    def __init__(self, files: Any, fatal: int, *, after: bool) -> None:
        self._files = files
        self._fatal = fatal
        self._after = after
        self.changes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    async def _change(self, change: Callable[..., Any], *args: Any) -> None:
        self.changes += 1
        if self.changes == self._fatal and not self._after:
            raise Killed
        await change(*args)
        if self.changes == self._fatal:
            raise Killed

    async def write(self, path: Path, content: bytes) -> None:
        await self._change(self._files.write, path, content)

    async def remove(self, path: Path) -> None:
        await self._change(self._files.remove, path)


PATIENCE = 120
"""Seconds: the processes of a server's export have only what others leave, and a machine may be busy."""


async def make_store(*histories: PartitionHistory, queues: dict[str, list[int]] | None = None) -> MemoryLog:
    store = MemoryLog(real_env(), MemoryDisk())
    await store.open()
    if queues is not None:
        await store_records(store, catalog_records(queues))
    for history in histories:
        await store_records(store, history.records)
    return store


def rows_of(directory: Path) -> list[tuple[Any, ...]]:
    manifest = read_manifest(directory)
    connection = warehouse.open_database(threads=1)
    files = warehouse.file_list([directory / part.file for part in manifest.parts])
    rows = connection.execute(
        "SELECT partition, position, seq, event, first_item, items, epoch_us(happened_at)"
        f" FROM read_parquet({files}) ORDER BY ALL"
    ).fetchall()
    connection.close()
    return rows


def item_count(directory: Path) -> int:
    return sum(row[5] for row in rows_of(directory) if row[4] is not None and row[3] != "extended")


async def test_export_has_every_item_event_once(tmp_path: Path) -> None:
    histories = [random_history(random.Random(seed), seed, 200, keyed=seed == 2) for seed in (1, 2)]
    store = await make_store(*histories)
    exported = await Exporter(real_env(), [store], tmp_path).refresh()
    expected = sum(len(plain_fold(history.records)) for history in histories)
    assert item_count(tmp_path) == expected
    manifest = read_manifest(tmp_path)
    assert exported.records == sum(len(history.records) for history in histories)
    assert exported.rows == sum(part.rows for part in manifest.parts) == len(rows_of(tmp_path))
    assert exported.items == sum(part.items for part in manifest.parts)
    check_parts(tmp_path, manifest.parts)
    days = {part.day for part in manifest.parts}
    assert len(days) > 1
    assert {mark.partition: mark.position for mark in manifest.marks} == {
        history.state.partition: len(history.records) for history in histories
    }


async def test_exports_in_steps_make_the_same_rows_as_one(tmp_path: Path) -> None:
    history = random_history(random.Random(5), 4, 150)
    store = await make_store()
    exporter = Exporter(real_env(), [store], tmp_path / "steps")
    for start in range(0, len(history.records), 9):
        await store_records(store, history.records[start : start + 9])
        await exporter.refresh()
    await Exporter(real_env(), [store], tmp_path / "once").refresh()
    assert rows_of(tmp_path / "steps") == rows_of(tmp_path / "once")
    again = await exporter.refresh()
    assert (again.records, again.rows) == (0, 0)


@pytest.mark.parametrize("after", [False, True])
async def test_export_killed_anywhere_goes_on_without_gap_or_duplicate(tmp_path: Path, after: bool) -> None:
    history = random_history(random.Random(6), 4, 40)
    whole = await make_store(history)
    await Exporter(real_env(), [whole], tmp_path / "whole").refresh()
    half = len(history.records) // 2
    fatal = 0
    while True:
        fatal += 1
        directory = tmp_path / f"killed-{fatal}"
        store = await make_store()
        await store_records(store, history.records[:half])
        await Exporter(real_env(), [store], directory).refresh()
        await store_records(store, history.records[half:])
        files = MortalFiles(real_env().files, fatal, after=after)
        mortal: Env = attrs.evolve(real_env(), files=files)
        try:
            await Exporter(mortal, [store], directory).refresh()
        except Killed:
            pass
        else:
            break
        await Exporter(real_env(), [store], directory).refresh()
        assert rows_of(directory) == rows_of(tmp_path / "whole")
        named = {directory / name for name in read_manifest(directory).files()}
        found = {path for path in directory.rglob("*") if path.is_file()}
        assert found - named == {directory / MANIFEST, directory / "lock"}
    assert fatal > 4


async def test_missing_and_damaged_parts_are_named(tmp_path: Path) -> None:
    store = await make_store(random_history(random.Random(7), 4, 100))
    await Exporter(real_env(), [store], tmp_path).refresh()
    parts = read_manifest(tmp_path).parts
    path = tmp_path / parts[0].file
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes((content[50] ^ 1,)) + content[51:])
    with pytest.raises(ArchiveError, match=f"{parts[0].file} is damaged"):
        check_parts(tmp_path, parts)
    path.write_bytes(content[:-1])
    with pytest.raises(ArchiveError, match="bytes instead of"):
        check_parts(tmp_path, parts, digests=False)
    path.unlink()
    with pytest.raises(ArchiveError, match=f"{parts[0].file} is missing"):
        check_parts(tmp_path, parts, digests=False)


async def test_damaged_checkpoint_and_manifest_are_named(tmp_path: Path) -> None:
    history = random_history(random.Random(8), 4, 100)
    store = await make_store()
    await store_records(store, history.records[:-1])
    await Exporter(real_env(), [store], tmp_path).refresh()
    await store_records(store, history.records[-1:])
    fold = tmp_path / read_manifest(tmp_path).marks[0].fold
    content = fold.read_bytes()
    fold.write_bytes(content[:-1])
    with pytest.raises(ArchiveError, match=r"partition-4-00000001\.fold is damaged"):
        await Exporter(real_env(), [store], tmp_path).refresh()
    fold.unlink()
    with pytest.raises(ArchiveError, match=r"partition-4-00000001\.fold is missing"):
        await Exporter(real_env(), [store], tmp_path).refresh()
    (tmp_path / MANIFEST).write_bytes(b"{}x")
    with pytest.raises(ArchiveError, match="manifest"):
        await Exporter(real_env(), [store], tmp_path).refresh()


async def test_archive_of_another_log_is_refused(tmp_path: Path) -> None:
    history = random_history(random.Random(9), 4, 100)
    await Exporter(real_env(), [await make_store(history)], tmp_path).refresh()
    shorter = await make_store()
    await store_records(shorter, history.records[:3])
    with pytest.raises(ArchiveError, match="partition 4 of store"):
        await Exporter(real_env(), [shorter], tmp_path).refresh()


async def test_one_process_writes_an_archive_at_a_time(tmp_path: Path) -> None:
    store = await make_store(random_history(random.Random(9), 4, 30))
    exporter = Exporter(real_env(), [store], tmp_path)
    async with exporter.archive.locked():
        with pytest.raises(ArchiveError, match="is being written by process"):
            await Exporter(real_env(), [store], tmp_path).refresh()


async def test_payloads_are_exported_when_asked_for(tmp_path: Path) -> None:
    history = random_history(random.Random(10), 4, 60)
    store = await make_store(history)
    await Exporter(real_env(), [store], tmp_path, payloads=True).refresh()
    manifest = read_manifest(tmp_path)
    connection = warehouse.open_database(threads=1)
    files = warehouse.file_list([tmp_path / part.file for part in manifest.payload_parts])
    found = connection.execute(f"SELECT partition, item, payload FROM read_parquet({files}) ORDER BY item")
    assert found.fetchall() == [(4, item, b"x") for item in range(1, history.state.next_item)]
    connection.close()


async def test_queues_come_from_the_catalog(tmp_path: Path) -> None:
    store = await make_store(random_history(random.Random(11), 4, 30), queues={"mail": [4, 5]})
    await Exporter(real_env(), [store], tmp_path).refresh()
    queue = read_manifest(tmp_path).queues[0]
    assert (queue.name, queue.partitions) == ("mail", [PartitionId(4), PartitionId(5)])


async def test_server_goes_on_exporting_whatever_happens(tmp_path: Path) -> None:
    history = random_history(random.Random(12), 4, 60)
    store = await make_store()
    half = len(history.records) // 2 - 1
    # Not as many as the rest, whose export is waited for below.
    await store_records(store, history.records[:half])
    follower = Follower(real_env(), {"memory": store}, tmp_path)
    with telemetry.capture() as captured, trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(follower.run, every=MILLISECOND))
            await captured.wait("analytics.exported", records=half)
            content = (tmp_path / MANIFEST).read_bytes()
            (tmp_path / MANIFEST).write_bytes(b"damaged")
            await captured.wait("analytics.export.failed")
            await store_records(store, history.records[half:])
            (tmp_path / MANIFEST).write_bytes(content)
            await captured.wait("analytics.exported", records=len(history.records) - half)
            nursery.cancel_scope.cancel()
    assert read_manifest(tmp_path).marks[0].position == len(history.records)


class Clock:
    """Each look takes 700 microseconds, each sleep as much longer than asked as the loop is late."""

    def __init__(self, late: int = 0) -> None:
        self.late = late
        self.time = 0
        self.slept: list[int] = []

    def now(self) -> int:
        return 0

    def monotonic(self) -> int:
        self.time += 700
        return self.time

    async def sleep(self, duration: int) -> None:
        self.slept.append(duration)
        self.time += duration + self.late


async def export_paced(directory: Path, clock: Any) -> set[int]:
    """How long an export at a quarter of a core rests."""
    history = random_history(random.Random(13), 4, 60)
    env = attrs.evolve(real_env(), clock=clock)
    await Exporter(env, [await make_store(history)], directory, pace=0.25).refresh()
    assert len(clock.slept) > 2
    return set(clock.slept)


async def test_paced_export_leaves_the_rest_of_the_time_to_others(tmp_path: Path) -> None:
    # A slice of 1.4 ms is a quarter of what it and the rest behind it take; a look at the clock is 0.7.
    first, *more = sorted(await export_paced(tmp_path, Clock()))
    assert first == 4_200
    assert more == [4_200 + limits.EXPORT_LATE_FACTOR * 700]


async def test_paced_export_rests_longer_when_others_have_work(tmp_path: Path) -> None:
    busy = await export_paced(tmp_path / "busy", Clock(late=3_000))
    assert max(busy) == 4_200 + limits.EXPORT_LATE_FACTOR * 3_700
    overwhelmed = await export_paced(tmp_path / "overwhelmed", Clock(late=10_000_000))
    assert max(overwhelmed) == limits.EXPORT_REST_MAX


async def test_payloads_are_exported_of_queues_that_ask_for_it(tmp_path: Path) -> None:
    histories = [random_history(random.Random(seed), seed, 40) for seed in (4, 5)]
    store = await make_store()
    asked = {"mail": True, "jobs": False}
    await store_records(store, catalog_records({"mail": [4], "jobs": [5]}, export_payloads=asked))
    for history in histories:
        await store_records(store, history.records)
    await Exporter(real_env(), [store], tmp_path).refresh()
    connection = connect(tmp_path)
    found = connection.execute("SELECT DISTINCT partition FROM payloads").fetchall()
    connection.close()
    assert found == [(4,)]


async def test_a_server_goes_on_with_the_ledger_that_it_has(tmp_path: Path) -> None:
    """A checkpoint costs as much as there are live items: it is for those who begin."""
    history = random_history(random.Random(14), 4, 60)
    store = await make_store()
    half = len(history.records) // 2
    await store_records(store, history.records[:half])
    read: list[Path] = []

    class Files:
        def __getattr__(self, name: str) -> Any:
            return getattr(real_env().files, name)

        async def read(self, path: Path) -> bytes:
            read.append(path)
            return await real_env().files.read(path)

    files: Any = Files()
    exporter = Exporter(attrs.evolve(real_env(), files=files), [store], tmp_path, pace=0.5)
    await exporter.refresh()
    await store_records(store, history.records[half:])
    await exporter.refresh()
    assert not [path for path in read if path.suffix == ".fold"]
    await Exporter(real_env(), [store], tmp_path / "once").refresh()
    assert rows_of(tmp_path) == rows_of(tmp_path / "once")
