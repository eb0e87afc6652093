"""What only SQLite can do to us: its files, its locks, its errors."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from querator import telemetry
from querator.core.ids import PartitionId, Position
from querator.core.limits import SQLITE_FILES_MAX, SQLITE_WAL_BYTES
from querator.env.real import real_env
from querator.errors import (
    AppendOutcomeUnknown,
    DataLossSuspected,
    HistoryDropped,
    LogError,
    LogUnavailable,
    StoreCorrupt,
    StoreLocked,
)
from querator.log.records import Record
from querator.log.sqlite import SqliteLog
from querator.log.store import Verdict
from querator.log.witness import Witness, WitnessedLog
from tests.log.log_contract import Fault, append_chain, make_snapshot, read_all
from tests.log.records import make_chain, make_record
from tests.log.sqlite_harness import FailingConnection, io_error

ONE = PartitionId(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Names of what was told to telemetry."""
    names: list[str] = []
    stop = telemetry.listen(lambda name, _: names.append(name))
    yield names
    stop()


async def open_log(data: Path, **options: Any) -> SqliteLog:
    store = SqliteLog(real_env(), data, **options)
    await store.open()
    return store


async def written(data: Path, count: int = 5, *, rolls: tuple[int, ...] = ()) -> list[Record]:
    """A closed store of one partition, rolled over behind these positions."""
    store = await open_log(data)
    chain = make_chain(1, count)
    for record in chain:
        await store.append([record])
        if record.position in rolls:
            await store.roll()
    await store.aclose()
    return chain


async def open_and_read(data: Path) -> list[Record]:
    store = await open_log(data)
    try:
        return await read_all(store, ONE)
    finally:
        await store.aclose()


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# --- The directory -------------------------------------------------------------------------------


async def test_a_second_server_is_told_who_has_the_directory(data: Path) -> None:
    store = await open_log(data)
    with pytest.raises(StoreLocked, match=f"{data} is in use by process {os.getpid()}"):
        await open_log(data)
    await store.aclose()
    await (await open_log(data)).aclose()


async def test_a_refused_directory_is_not_kept_locked(data: Path) -> None:
    await written(data)
    change(data / "log-000001.db", "PRAGMA user_version = 9")
    for _ in range(2):
        with pytest.raises(StoreCorrupt):
            await open_log(data)
    change(data / "log-000001.db", "PRAGMA user_version = 1")
    await (await open_log(data)).aclose()


async def test_a_file_where_the_directory_should_be_is_unavailable(data: Path) -> None:
    data.write_text("not a directory")
    with pytest.raises(LogUnavailable, match="data"):
        await open_log(data)


async def test_a_closed_store_is_unavailable(data: Path) -> None:
    store = await open_log(data)
    await store.aclose()
    await store.aclose()
    with pytest.raises(LogUnavailable):
        await store.append([make_record()])


@pytest.mark.parametrize("name", ["log-000001.db", "snapshots.db"])
async def test_a_later_version_is_refused(data: Path, name: str) -> None:
    await written(data)
    change(data / name, "PRAGMA user_version = 2")
    with pytest.raises(StoreCorrupt, match="later version of Querator: use that version"):
        await open_log(data)


@pytest.mark.parametrize("name", ["log-000001.db", "snapshots.db"])
async def test_somebody_elses_database_is_refused_and_left_alone(data: Path, name: str) -> None:
    data.mkdir()
    change(data / name, "CREATE TABLE customers (name TEXT)", "PRAGMA application_id = 77")
    with pytest.raises(StoreCorrupt, match="is not Querator's"):
        await open_log(data)
    connection = sqlite3.connect(data / name)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("customers",)]
    connection.close()


async def test_a_file_that_is_no_database_is_refused_with_a_remedy(data: Path) -> None:
    await written(data)
    (data / "log-000001.db").write_bytes(b"garbage" * 2_000)
    with pytest.raises(StoreCorrupt, match=r"restore (it|the data directory) from a copy"):
        await open_log(data)


async def test_a_damaged_page_is_corrupt(data: Path) -> None:
    await written(data, 300)
    path = data / "log-000001.db"
    content = bytearray(path.read_bytes())
    content[8192:-4096] = bytes(len(content) - 12288)
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        await open_and_read(data)


async def test_a_missing_bucket_is_named(data: Path) -> None:
    await written(data, 6, rolls=(2, 4))
    (data / "log-000002.db").unlink()
    with pytest.raises(StoreCorrupt, match=r"log-000002\.db is missing"):
        await open_log(data)


async def test_a_missing_first_bucket_is_not_taken_for_a_dropped_one(data: Path) -> None:
    await written(data, 6, rolls=(2, 4))
    (data / "log-000001.db").unlink()
    with pytest.raises(StoreCorrupt, match=r"log-000001\.db is missing"):
        await open_log(data)


async def test_a_log_that_is_gone_is_not_begun_anew(data: Path) -> None:
    await written(data, 4, rolls=(2,))
    store = await open_log(data)
    await store.drop(1)
    await store.aclose()
    (data / "log-000002.db").unlink()
    with pytest.raises(StoreCorrupt, match="lost its log"):
        await open_log(data)


# --- Buckets and crashes -------------------------------------------------------------------------


async def test_a_bucket_that_was_being_made_in_a_crash_is_removed(data: Path) -> None:
    chain = await written(data)
    for suffix in ("", "-wal", "-shm"):
        (data / f"making.db{suffix}").write_bytes(b"half of a bucket")
    store = await open_log(data)
    assert await store.roll() == 2
    assert await read_all(store, ONE) == chain
    await store.aclose()
    assert not list(data.glob("making*"))


async def test_a_bucket_whose_removal_a_crash_stopped_is_removed(data: Path) -> None:
    await written(data, 4, rolls=(2,))
    kept = (data / "log-000001.db").read_bytes()
    store = await open_log(data)
    await store.drop(1)
    await store.aclose()
    (data / "log-000001.db").write_bytes(kept)
    store = await open_log(data)
    assert not (data / "log-000001.db").exists()
    with pytest.raises(HistoryDropped):
        await read_all(store, ONE)
    await store.aclose()


async def test_more_buckets_than_are_kept_open_can_be_read(data: Path) -> None:
    count = SQLITE_FILES_MAX + 3
    store = await open_log(data)
    chain = make_chain(1, count)
    for record in chain:
        await store.append([record])
        await store.roll()
    for _ in range(2):
        assert await read_all(store, ONE) == chain
    assert len(store._reader._connections) == SQLITE_FILES_MAX
    await store.aclose()


async def test_appends_wait_for_a_rollover(data: Path) -> None:
    store = await open_log(data)
    chain = make_chain(1, 40)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_chain, store, chain)
        for _ in range(4):
            await store.roll()
    assert len(await store.buckets()) == 5
    assert await read_all(store, ONE) == chain
    await store.aclose()
    store = await open_log(data)
    assert await read_all(store, ONE) == chain
    await store.aclose()


async def test_a_rollover_that_fails_changes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await open_log(data)
    chain = make_chain(1, 2)
    await store.append(chain[:1])

    async def refuse(source: Path, target: Path) -> None:
        raise OSError("no room for a name")

    monkeypatch.setattr(store._env.files, "rename", refuse)
    with pytest.raises(LogUnavailable, match="no room"):
        await store.roll()
    monkeypatch.undo()
    assert await store.append(chain[1:]) == [Verdict.MINE]
    assert await store.roll() == 2
    assert await read_all(store, ONE) == chain
    await store.aclose()


# --- Durability ----------------------------------------------------------------------------------


async def test_every_commit_is_flushed_and_checkpoints_are_ours(data: Path) -> None:
    store = await open_log(data)
    connection = store._writer._connection
    assert connection is not None

    def ask() -> list[Any]:
        return [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "wal_autocheckpoint")
        ]

    assert await store._write_thread.run(ask) == [2, "wal", 0]
    await store.aclose()


async def test_the_write_ahead_log_is_bounded(data: Path) -> None:
    store = await open_log(data)
    chain: list[Record] = []
    for number in range(1, 31):
        previous = chain[-1].hash if chain else bytes(32)
        chain.append(make_record(1, number, previous, payload=bytes(500_000)))
        await store.append([chain[-1]])
        assert (data / "log-000001.db-wal").stat().st_size < SQLITE_WAL_BYTES * 1.5
    assert await read_all(store, ONE) == chain
    await store.aclose()
    assert not (data / "log-000001.db-wal").exists()


async def test_a_checkpoint_that_fails_fails_no_append(data: Path, told: list[str]) -> None:
    class NoCheckpoint(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if "PASSIVE" in sql:
                raise io_error("no checkpoint today")
            return super().execute(sql, parameters)

    store = await open_log(data, factory=NoCheckpoint)
    previous = bytes(32)
    for number in range(1, 13):
        record = make_record(1, number, previous, payload=bytes(500_000))
        assert await store.append([record]) == [Verdict.MINE]
        previous = record.hash
    assert told == ["log.checkpoint.failed"]
    await store.aclose()
    store = await open_log(data)
    assert len(await read_all(store, ONE)) == 12
    await store.aclose()


async def test_while_an_outcome_is_unknown_nothing_is_answered_from_memory(data: Path) -> None:
    """The file cannot be opened again at first: the append stays unknown, and so does the tail."""

    class Broken(FailingConnection):
        refusals = 0

        def __init__(self, path: Path, **options: Any) -> None:
            if Broken.refusals:
                Broken.refusals -= 1
                raise io_error("unable to open database file", sqlite3.SQLITE_CANTOPEN)
            super().__init__(path, **options)

    store = await open_log(data, factory=Broken)
    chain = make_chain(1, 2)
    await store.append(chain[:1])
    FailingConnection.plan[str(data)].append(Fault.UNKNOWN_WRITTEN)
    with pytest.raises(AppendOutcomeUnknown):
        await store.append(chain[1:])
    Broken.refusals = 3
    with pytest.raises(AppendOutcomeUnknown, match="not known yet"):
        await store.append(chain[1:])
    with pytest.raises(LogUnavailable):
        await store.tail(ONE)
    with pytest.raises(LogUnavailable):
        await store.roll()
    tail = await store.tail(ONE)
    assert tail is not None
    assert tail.position == 2
    assert await store.append(chain[1:]) == [Verdict.MINE]
    await store.aclose()


async def test_what_an_unknown_commit_left_is_on_the_disk_before_it_is_acknowledged(data: Path) -> None:
    """It may be in the page cache only, after a failed flush: moved into the file, it is not."""
    store = await open_log(data, factory=FailingConnection)
    record = make_record()
    # A reader has the file open: that the writer leaves it does not make SQLite move the log by itself.
    assert await read_all(store, ONE) == []
    FailingConnection.plan[str(data)].append(Fault.UNKNOWN_WRITTEN)
    with pytest.raises(AppendOutcomeUnknown):
        await store.append([record])
    assert (data / "log-000001.db-wal").stat().st_size > 0
    assert await store.append([record]) == [Verdict.MINE]
    assert (data / "log-000001.db-wal").stat().st_size == 0
    await store.aclose()


async def test_a_statement_that_fails_before_the_commit_is_rolled_back(data: Path) -> None:
    class Failing(sqlite3.Connection):
        failures = 1

        def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
            cursor = super().executemany(sql, rows)
            if Failing.failures:
                Failing.failures -= 1
                raise io_error(code=sqlite3.SQLITE_IOERR)
            return cursor

    store = await open_log(data, factory=Failing)
    record = make_record()
    with pytest.raises(LogUnavailable):
        await store.append([record])
    assert await read_all(store, ONE) == []
    assert await store.append([record]) == [Verdict.MINE]
    await store.aclose()


async def test_a_file_that_is_damaged_under_a_server_is_unavailable_to_appends(data: Path) -> None:
    class Damaged(sqlite3.Connection):
        def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
            raise io_error("database disk image is malformed", sqlite3.SQLITE_CORRUPT)

    store = await open_log(data, factory=Damaged)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=r"damaged.*restore"):
            await store.append([make_record()])
    await store.aclose()


async def test_a_file_that_cannot_be_recovered_keeps_its_outcome_unknown(data: Path) -> None:
    store = await open_log(data, factory=FailingConnection)
    chain = make_chain(1, 2)
    await store.append(chain[:1])
    FailingConnection.plan[str(data)].append(Fault.UNKNOWN_LOST)
    with pytest.raises(AppendOutcomeUnknown):
        await store.append(chain[1:])
    kept = (data / "log-000001.db").read_bytes()
    (data / "log-000001.db").write_bytes(b"garbage" * 1_000)
    with pytest.raises(AppendOutcomeUnknown, match="not known yet"):
        await store.append(chain[1:])
    with pytest.raises(StoreCorrupt):
        await store.tail(ONE)
    (data / "log-000001.db").write_bytes(kept)
    assert await store.append(chain[1:]) == [Verdict.MINE]
    await store.aclose()


async def test_a_record_that_is_no_row_leaves_no_transaction_open(data: Path) -> None:
    store = await open_log(data)
    with pytest.raises(OverflowError):
        await store.append([make_record(nonce=2**70)])
    assert await store.append([make_record()]) == [Verdict.MINE]
    await store.aclose()


async def test_a_bucket_that_vanishes_is_unavailable_to_readers(data: Path) -> None:
    chain = await written(data, 4, rolls=(2,))
    store = await open_log(data)
    (data / "log-000001.db").rename(data / "elsewhere")
    with pytest.raises(LogUnavailable, match="log-000001"):
        await read_all(store, ONE)
    with pytest.raises(LogUnavailable):
        await store.read_payloads(ONE, [Position(1)])
    with pytest.raises(LogUnavailable):
        await store.append([chain[0]])
    (data / "elsewhere").rename(data / "log-000001.db")
    assert await read_all(store, ONE) == chain
    await store.aclose()


@pytest.mark.parametrize("when", ["at the start", "in the midst"])
async def test_a_damaged_file_of_snapshots_is_set_aside_and_begun_anew(
    data: Path, told: list[str], when: str
) -> None:
    """The log has everything. Each damaged file keeps a name of its own."""
    chain = await written(data, 5, rolls=(2,))
    for time in (1, 2):
        store = await open_log(data)
        for number in range(60):
            await store.put_snapshot(make_snapshot(make_record(number + 2, 1)))
        await store.put_snapshot(make_snapshot(chain[-1]))
        await store.aclose()
        content = bytearray((data / "snapshots.db").read_bytes())
        start = 0 if when == "at the start" else 4 * 4_096
        content[start:] = b"x" * (len(content) - start)
        (data / "snapshots.db").write_bytes(content)
        told.clear()
        store = await open_log(data)
        assert await store.snapshots(ONE) == []
        assert told == ["snapshots.damaged"]
        name = f"snapshots.db.damaged-{time}"
        assert store.remarks == [
            f"snapshots.db was damaged: it is now {name}, and snapshots are made anew from the log"
        ]
        assert (data / name).read_bytes() == bytes(content)
        assert await read_all(store, ONE) == chain
        await store.put_snapshot(make_snapshot(chain[-1]))
        assert len(await store.snapshots(ONE)) == 1
        await store.aclose()


async def test_a_damaged_file_of_snapshots_is_refused_where_the_log_has_not_all(data: Path) -> None:
    await written(data, 4, rolls=(2,))
    store = await open_log(data)
    await store.drop(1)
    await store.aclose()
    (data / "snapshots.db").write_bytes(b"garbage" * 2_000)
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=r"log begins with log-000002\.db.*back from a copy"):
            await open_log(data)
    assert (data / "snapshots.db").exists()


async def test_damaged_snapshots_are_reported(data: Path, told: list[str]) -> None:
    (record,) = await written(data, 1)
    store = await open_log(data)
    await store.put_snapshot(make_snapshot(record))
    change(data / "snapshots.db", "UPDATE snapshot SET chunks = x'0102'")
    assert await store.snapshots(ONE) == []
    assert told == ["snapshot.damaged"]
    # What is damaged does not keep a new one from being stored.
    await store.put_snapshot(make_snapshot(make_record(1, 2, record.hash)))
    assert [snapshot.position for snapshot in await store.snapshots(ONE)] == [2]
    await store.aclose()


async def test_a_bit_flipped_in_the_write_ahead_log_is_noticed_by_the_witness(
    data: Path, tmp_path: Path
) -> None:
    """SQLite takes a frame that fails its checksum for the end of the log, and says nothing."""
    env = real_env()
    log = WitnessedLog(SqliteLog(env, data), Witness(env, tmp_path / "witness.json"))
    await log.open()
    await append_chain(log, make_chain(1, 50))
    await log.witness.flush()
    crashed = tmp_path / "crashed"
    shutil.copytree(data, crashed)
    await log.aclose()
    wal = crashed / "log-000001.db-wal"
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 1
    wal.write_bytes(content)
    log = WitnessedLog(SqliteLog(env, crashed), Witness(env, tmp_path / "witness.json"))
    await log.open()
    with pytest.raises(DataLossSuspected, match="but 50 had been acknowledged"):
        await log.tail(ONE)
    await log.store.aclose()


async def test_what_was_copied_from_under_a_server_is_whole(data: Path, tmp_path: Path) -> None:
    store = await open_log(data)
    chain = make_chain(1, 50)
    await append_chain(store, chain)
    crashed = tmp_path / "crashed"
    shutil.copytree(data, crashed)
    await store.aclose()
    store = await open_log(crashed)
    assert await read_all(store, ONE) == chain
    await store.aclose()


_APPEND_UNTIL_KILLED = """
import sys, trio
from pathlib import Path
from querator.env.real import real_env
from querator.log.sqlite import SqliteLog
from tests.log.records import make_chain

async def main():
    store = SqliteLog(real_env(), Path(sys.argv[1]))
    await store.open()
    tail = await store.tail(1)
    while True:
        for record in make_chain(1, 50, after=tail):
            await store.append([record])
            print(record.position, flush=True)
            tail = record
            if record.position % 40 == 0:
                await store.roll()

trio.run(main)
"""


async def test_a_killed_server_has_lost_nothing_that_it_answered(data: Path) -> None:
    """SIGKILL in the midst of appends and rollovers, several times over one directory."""
    root = Path(__file__).parents[2]
    acknowledged = 0
    for answers in (30, 45, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", _APPEND_UNTIL_KILLED, str(data)], stdout=subprocess.PIPE, cwd=root
        )
        assert process.stdout is not None
        for _ in range(answers):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        if rest:
            acknowledged = int(rest[-1])
        store = await open_log(data)
        records = await read_all(store, ONE)
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        assert len(records) >= acknowledged
        assert records == make_chain(1, len(records))
        await store.aclose()


# --- A full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "querator-test", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield path
    # Lazily: a test that failed may have files open there, and must not leave the mount behind.
    subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_is_unavailable_with_its_reason_and_recovers(small_disk: Path) -> None:
    data = small_disk / "data"
    store = await open_log(data)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    chain: list[Record] = []
    refused: Record | None = None
    for number in range(1, 100):
        record = make_record(1, number, chain[-1].hash if chain else bytes(32), payload=bytes(200_000))
        try:
            await store.append([record])
        except LogUnavailable as error:
            assert "is full: make room" in str(error)
            refused = record
            break
        chain.append(record)
    assert refused is not None
    assert await read_all(store, ONE) == chain
    with pytest.raises(LogUnavailable):
        await store.append([refused])
    with pytest.raises(LogError):
        await store.put_snapshot(make_snapshot(chain[0], bytes(4_000_000)))
    ballast.unlink()
    assert await store.append([refused]) == [Verdict.MINE]
    assert await read_all(store, ONE) == [*chain, refused]
    await store.aclose()
    assert (data / "log-000001.db-wal").exists(), "there was room for all of it after all"
    store = await open_log(data)
    assert await read_all(store, ONE) == [*chain, refused]
    tail = await store.tail(ONE)
    assert tail is not None
    assert tail.position == Position(len(chain) + 1)
    await store.aclose()
