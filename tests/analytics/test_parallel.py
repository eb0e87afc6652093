"""Exports on all cores: the same rows, and what goes wrong in another process is said by name."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from querator.analytics import parallel
from querator.analytics.connecting import connect
from querator.analytics.directory import Archive
from querator.analytics.export import Exporter
from querator.analytics.manifest import ArchiveError, read_manifest
from querator.core import limits
from querator.core.ids import Instant, PartitionId
from querator.env import Env
from querator.env.real import real_env
from querator.errors import CorruptRecord
from querator.log.memory import MemoryLog
from tests.analytics.histories import catalog_records, random_history, store_records
from tests.analytics.test_export import make_store, rows_of

PARTITIONS = (4, 5, 6)


@pytest.fixture(autouse=True)
def little_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXPORT_PARALLEL_RECORDS", 1)


async def make_histories() -> MemoryLog:
    store = await make_store()
    asked = {"mail": True}
    await store_records(store, catalog_records({"mail": [4], "jobs": [5, 6]}, export_payloads=asked))
    for partition in PARTITIONS:
        await store_records(store, random_history(random.Random(partition), partition, 80).records)
    return store


async def test_two_processes_make_the_rows_of_one(tmp_path: Path) -> None:
    store = await make_histories()
    alone = await Exporter(real_env(), [store], tmp_path / "alone").refresh()
    together = await Exporter(real_env(), [store], tmp_path / "together", workers=2).refresh()
    assert rows_of(tmp_path / "together") == rows_of(tmp_path / "alone")
    assert attrs.evolve(together, bytes=0) == attrs.evolve(alone, bytes=0)
    assert len(read_manifest(tmp_path / "together").parts) > len(read_manifest(tmp_path / "alone").parts)
    connection = connect(tmp_path / "together")
    assert connection.execute("SELECT DISTINCT partition FROM payloads").fetchall() == [(4,)]
    connection.close()
    again = await Exporter(real_env(), [store], tmp_path / "together", workers=2).refresh()
    assert again.records == 0


async def test_they_go_on_where_one_ended_and_it_where_they_did(tmp_path: Path) -> None:
    store = await make_store()
    histories = [random_history(random.Random(partition), partition, 90) for partition in PARTITIONS]
    for start in range(0, 400, 30):
        for history in histories:
            await store_records(store, history.records[start : start + 30])
        workers = 2 if start // 30 % 2 else 0
        await Exporter(real_env(), [store], tmp_path / "turns", workers=workers).refresh()
        if start == 90:
            break
    for history in histories:
        await store_records(store, history.records[120:])
    await Exporter(real_env(), [store], tmp_path / "turns", workers=2).refresh()
    await Exporter(real_env(), [await make_store(*histories)], tmp_path / "once").refresh()
    assert rows_of(tmp_path / "turns") == rows_of(tmp_path / "once")


class Processes:
    """Children of whose streams the second breaks behind so many frames from here."""

    cores = 2

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.started = 0

    @asynccontextmanager
    async def run(self, module: str, **how: bool) -> AsyncIterator[trio.abc.Stream]:
        async with real_env().processes.run(module, **how) as stream:
            self.started += 1
            yield Breaking(stream, self.frames) if self.started == 2 else stream  # type: ignore[misc]


class Breaking:
    def __init__(self, stream: trio.abc.Stream, frames: int) -> None:
        self._stream = stream
        self._left = frames

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def send_all(self, data: bytes) -> None:
        self._left -= 1
        if self._left < 0:
            await self._stream.aclose()
        await self._stream.send_all(data)


async def test_a_process_that_ends_leaves_what_it_had_not_finished_to_the_next_time(tmp_path: Path) -> None:
    store = await make_histories()
    await Exporter(real_env(), [store], tmp_path / "alone").refresh()
    for frames in (1, 3):
        processes: Any = Processes(frames)
        env: Env = attrs.evolve(real_env(), processes=processes)
        archive = tmp_path / f"broken-{frames}"
        with pytest.raises(ArchiveError, match="exported next time"):
            await Exporter(env, [store], archive, workers=2).refresh()
        await Exporter(real_env(), [store], archive).refresh()
        assert rows_of(archive) == rows_of(tmp_path / "alone")


async def test_a_corrupt_record_is_named_by_whichever_process_meets_it(tmp_path: Path) -> None:
    store = await make_histories()

    class Damaged:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def read(self, partition: int, *args: Any, **bounds: Any) -> Any:
            page = await store.read(partition, *args, **bounds)  # type: ignore[arg-type]
            return [
                attrs.evolve(record, written_at=Instant(record.written_at + 1))
                if (record.partition, record.position) == (6, 7)
                else record
                for record in page
            ]

    damaged: Any = Damaged()
    with pytest.raises(CorruptRecord, match="record 7 of partition 6 does not match its hash"):
        await Exporter(real_env(), [damaged], tmp_path, workers=2).refresh()


async def test_an_archive_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(real_env().files, name)

        async def write(self, path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device", str(path))

    files: Any = Full()
    here, there = trio.testing.memory_stream_pair()
    folder = parallel.RemoteFolder(here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.serve, attrs.evolve(real_env(), files=files), there)
        await folder.open(Archive(real_env(), tmp_path), "-x")
        await folder.begin(PartitionId(4), None)
        await folder.take(random_history(random.Random(4), 4, 20).records)
        with pytest.raises(ArchiveError, match=r"No space left on device.*part-00000001-x"):
            await folder.step(1)
        nursery.cancel_scope.cancel()


async def test_little_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXPORT_PARALLEL_RECORDS", 10_000)

    def start(*_: object) -> None:
        raise AssertionError("a process for nothing")

    monkeypatch.setattr(parallel, "RemoteFolder", start)
    assert (await Exporter(real_env(), [await make_histories()], tmp_path, workers=2).refresh()).records


async def test_the_child_of_a_server_follows_its_log_and_compacts(tmp_path: Path) -> None:
    """One process for many refreshes, which reads no checkpoint but its own memory."""
    histories = [random_history(random.Random(partition), partition, 60) for partition in PARTITIONS]
    store = await make_store()
    archive = Archive(real_env(), tmp_path / "helped")
    async with parallel.remote_folders(real_env(), archive, 1, is_servers=True) as (child,):
        exporter = Exporter(real_env(), [store], archive.directory, folder=child)
        for start, end in ((0, 4), (4, 8), (8, None)):
            for history in histories:
                await store_records(store, history.records[start:end])
            await exporter.refresh()
            for fold in (archive.directory / "folds").iterdir():
                fold.write_bytes(b"nobody reads this")
        await child.compact()
    await Exporter(real_env(), [store], tmp_path / "once").refresh()
    assert rows_of(archive.directory) == rows_of(tmp_path / "once")
    parts = read_manifest(archive.directory).parts
    assert len({part.day for part in parts}) == len(parts)
    assert any(part.is_compacted for part in parts)
