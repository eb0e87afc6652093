"""Exports from real stores: live databases, copies of either store, and processes that are killed."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from querator.analytics.export import Exporter
from querator.analytics.manifest import read_manifest
from querator.env.real import real_env
from querator.log.postgres import PostgresLog
from querator.log.sqlite import SqliteLog
from querator.log.store import LogStore
from tests.analytics.histories import PartitionHistory, catalog_records, random_history, store_records
from tests.analytics.test_export import make_store, rows_of
from tests.postgres import Cluster

QUEUES = {"mail": [4, 5]}


def make_histories(steps: int = 80) -> list[PartitionHistory]:
    return [random_history(random.Random(seed), seed, steps) for seed in (4, 5)]


async def fill(store: LogStore, histories: list[PartitionHistory]) -> None:
    await store_records(store, catalog_records(QUEUES))
    for history in histories:
        await store_records(store, history.records)


async def export(store: LogStore, directory: Path) -> None:
    await Exporter(real_env(), [store], directory).refresh()


async def test_a_live_database_is_followed_while_its_server_writes(
    cluster: Cluster, database: str, tmp_path: Path
) -> None:
    histories = make_histories()
    server, reader = (PostgresLog(real_env(), cluster.dsn(database)) for _ in range(2))
    await server.open()
    await reader.open()
    try:
        await store_records(server, catalog_records(QUEUES))
        exporter = Exporter(real_env(), [reader], tmp_path / "live")
        for start in range(0, max(len(history.records) for history in histories), 10):
            for history in histories:
                await store_records(server, history.records[start : start + 10])
            await exporter.refresh()
    finally:
        await reader.aclose()
        await server.aclose()
    await export(await make_store(*histories, queues=QUEUES), tmp_path / "once")
    assert rows_of(tmp_path / "live") == rows_of(tmp_path / "once")
    assert read_manifest(tmp_path / "live").queues == read_manifest(tmp_path / "once").queues


async def test_a_copy_of_a_database_exports_the_same(cluster: Cluster, database: str, tmp_path: Path) -> None:
    histories = make_histories()
    server = PostgresLog(real_env(), cluster.dsn(database))
    await server.open()
    await fill(server, histories)
    await server.aclose()
    copy = PostgresLog(real_env(), cluster.dsn(cluster.new_database(template=database)))
    await copy.open()
    try:
        await export(copy, tmp_path / "copy")
    finally:
        await copy.aclose()
    await export(await make_store(*histories, queues=QUEUES), tmp_path / "once")
    assert rows_of(tmp_path / "copy") == rows_of(tmp_path / "once")


async def test_a_copy_of_a_directory_exports_the_same_while_its_server_runs(tmp_path: Path) -> None:
    histories = make_histories()
    server = SqliteLog(real_env(), tmp_path / "data")
    await server.open()
    await fill(server, histories)
    shutil.copytree(tmp_path / "data", tmp_path / "data-copy")
    copy = SqliteLog(real_env(), tmp_path / "data-copy")
    await copy.open()
    try:
        await export(copy, tmp_path / "copy")
        # The server exports itself, from the store that it has open.
        await export(server, tmp_path / "own")
    finally:
        await copy.aclose()
        await server.aclose()
    assert rows_of(tmp_path / "copy") == rows_of(tmp_path / "own")
    await export(await make_store(*histories, queues=QUEUES), tmp_path / "once")
    assert rows_of(tmp_path / "copy") == rows_of(tmp_path / "once")


async def test_a_process_killed_while_it_exports_leaves_neither_gap_nor_duplicate(tmp_path: Path) -> None:
    """Killed by the system, at random, each time somewhat further on; then left to finish."""
    rng = random.Random(21)
    histories = make_histories(steps=150)
    store = SqliteLog(real_env(), tmp_path / "data")
    await store.open()
    await fill(store, histories)
    await store.aclose()
    archive = tmp_path / "archive"
    command = [sys.executable, "-m", "tests.analytics.exporting", str(tmp_path / "data"), str(archive)]
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen, is_over = 0, False
        fatal = rng.randrange(2, 8)
        with process.stdout as lines:
            for line in lines:
                seen += 1
                is_over = line == b"done\n"
                if seen == fatal and kills < 5:
                    time.sleep(rng.random() * 0.004)
                    process.kill()
        if process.wait() == 0:
            assert is_over
            break
        kills += 1
    assert kills == 5
    await export(await make_store(*histories, queues=QUEUES), tmp_path / "once")
    assert rows_of(archive) == rows_of(tmp_path / "once")
    assert read_manifest(archive).generation > kills
