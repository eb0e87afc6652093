"""What an export may use: memory of its databases, a server's share of a core."""

import random
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from querator.analytics import directory, parallel, warehouse
from querator.analytics.directory import Archive
from querator.analytics.folding import LocalFolder
from querator.analytics.following import Follower
from querator.analytics.rows import COLUMNS, RowBuffer
from querator.core import limits
from querator.core.ids import PartitionId
from querator.env.real import real_env
from querator.env.seams import NoProcesses
from tests.analytics.histories import START, random_history
from tests.analytics.test_export import Clock, make_store

MIB = 1 << 20


class Databases:
    """Those that are opened, and what they were told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def open(self, **how: Any) -> warehouse.Connection:
        self.told.append({name: how[name] for name in ("memory_limit", "threads")})
        return warehouse.open_database(**how)


@pytest.mark.parametrize(
    ("is_servers", "memory"), [(False, limits.WORKER_EXPORT_MEMORY), (True, limits.SERVER_EXPORT_MEMORY)]
)
async def test_a_process_that_exports_has_so_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_servers: bool, memory: str
) -> None:
    databases = Databases()

    class Warehouse:
        def __getattr__(self, name: str) -> Any:
            return databases.open if name == "open_database" else getattr(warehouse, name)

    monkeypatch.setattr(directory, "warehouse", Warehouse())
    here, there = trio.testing.memory_stream_pair()
    folder = parallel.RemoteFolder(here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.serve, real_env(), there)
        await folder.open(Archive(real_env(), tmp_path), "-x", is_servers=is_servers)
        await folder.begin(PartitionId(4), None)
        await folder.take(random_history(random.Random(4), 4, 20).records)
        assert (await folder.step(1)).parts
        nursery.cancel_scope.cancel()
    assert databases.told == [{"memory_limit": memory, "threads": 1}]


def test_a_whole_step_of_rows_that_have_little_in_common_is_written_within_it(tmp_path: Path) -> None:
    rng = random.Random(1)
    buffer = RowBuffer()
    texts = [f"text {number}" for number in range(2_000)]
    choices: list[list[Any]] = [
        texts if column.kind == "text" else [rng.randrange(1 << 40) for _ in range(5_000)]
        for column in COLUMNS
    ]
    day = START // 86_400_000_000
    rows: list[tuple[Any, ...]] = []
    for seq in range(limits.EXPORT_STEP_ROWS):
        row = [values[(seq * 7_919 + index) % len(values)] for index, values in enumerate(choices)]
        row[2:4] = seq, START + seq
        rows.append(tuple(row))
    buffer.extend(rows)
    gathered = buffer.gathered()
    for memory in (limits.SERVER_EXPORT_MEMORY, limits.WORKER_EXPORT_MEMORY):
        path = tmp_path / f"{memory}.parquet"
        connection = warehouse.open_database(memory_limit=memory, threads=1, temporary=tmp_path / "tmp")
        written, _ = warehouse.write_rows(connection, gathered, day, path)
        assert written == limits.EXPORT_STEP_ROWS
        assert warehouse.count_rows(connection, [path]) == written
        connection.close()


def test_a_database_keeps_to_its_memory(tmp_path: Path) -> None:
    """It has no place to put aside what does not fit."""
    connection = warehouse.open_database(memory_limit=limits.SERVER_EXPORT_MEMORY, threads=1)
    connection.execute("SET temp_directory = ''")
    fits, too_much = 8 * MIB, 128 * MIB
    assert connection.execute(_listed(fits)).fetchone() == (fits // 8,)
    with pytest.raises(warehouse.DuckDBError, match="memory"):
        connection.execute(_listed(too_much))
    connection.close()


def _listed(size: int) -> str:
    """A question that needs so many bytes at once."""
    return f"SELECT len(list(range)) FROM range({size // 8})"


async def test_a_server_without_processes_folds_with_its_share_of_a_core(tmp_path: Path) -> None:
    clock: Any = Clock()
    env = attrs.evolve(real_env(), clock=clock, processes=NoProcesses())
    follower = Follower(env, {"memory": await make_store(random_history(random.Random(13), 4, 60))}, tmp_path)
    await follower._export()
    # One look at the clock is within a slice, two are beyond; the loop was not late before the first rest.
    assert 700 <= limits.EXPORT_SLICE < 1_400
    assert clock.slept[0] == round(1_400 * (1 / limits.EXPORT_PACE - 1))
    assert min(clock.slept) == clock.slept[0]


async def test_a_step_ends_when_it_has_so_many_bytes_of_payloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = random_history(random.Random(4), 4, 40).records
    size = sum(len(record.payload or b"") for record in records)
    for most, is_full in ((size + 1, False), (size, True)):
        monkeypatch.setattr(limits, "EXPORT_STEP_PAYLOAD_BYTES", most)
        folder = LocalFolder(real_env(), Archive(real_env(), tmp_path))
        await folder.begin(PartitionId(4), None)
        assert await folder.take(records) is is_full
