"""The log forgets what is exported and kept, nothing else; and the past is read on as if it were there."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from querator import telemetry
from querator.actors.history import trace
from querator.actors.node import Node, NodeOptions, open_node
from querator.analytics.following import Follower
from querator.analytics.keeping import KeptRecords, RecordKeeper
from querator.analytics.manifest import read_manifest
from querator.analytics.pruning import BucketStart, buckets_to_keep
from querator.core import limits
from querator.core.ids import HOUR, Duration, Instant, ItemNumber, PartitionId, Position
from querator.core.replies import Code, Rejected
from querator.core.state_hash import state_hash
from querator.env.real import real_env
from querator.errors import HistoryDropped, StoreCorrupt
from querator.log.memory import MemoryLog
from querator.log.past import ReadThroughLog
from querator.log.postgres import PostgresLog
from querator.log.sqlite import SqliteLog
from querator.log.store import Bucket, LogStore
from querator.replay.fold import Replay
from querator.replay.history import Moment, StoreHistory, state_at, walk
from tests.actors.conftest import Client, World
from tests.analytics.test_export import PATIENCE
from tests.postgres import fresh_database, shared_cluster


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    if request.param == "sqlite":
        yield SqliteLog(real_env(), tmp_path / "data")
        return
    cluster = shared_cluster()
    with fresh_database(cluster) as database:
        yield PostgresLog(real_env(), cluster.dsn(database))


@asynccontextmanager
async def lived(store: LogStore) -> AsyncIterator[tuple[Node, PartitionId]]:
    """A node whose first bucket has a life of several items in it, and one that goes on in the second."""
    async with open_node({"log": store}, real_env(), NodeOptions(name="n")) as node:
        partition = await World().create(node)
        client = Client(node, "s")
        for number in range(6):
            client.produce(b"%d" % number, request=number)
            await committed(node)
        for request in range(20, 24):
            client.reserve(request=request)
            await committed(node)
        for reserved in client.reservations[:3]:
            client.settle(reserved, request=30)
            await committed(node)
        await node.buckets.roll("log")
        client.settle(client.reservations[3], request=31)
        client.produce(b"later", request=99)
        await committed(node)
        yield node, partition


async def committed(node: Node) -> None:
    with trio.fail_after(PATIENCE):
        while not all(writer.is_idle for writer in node.broker.writers.values()):
            await trio.sleep(0.002)


async def everything(store: LogStore, partition: PartitionId) -> list[Any]:
    """What the past looks like: each record, the trace of each item, and each state."""
    records = await store.read(partition, Position(1), records_max=1_000, bytes_max=1 << 30, payloads=False)
    last = records[-1].position
    traces = [await trace(store, partition, ItemNumber(item), last, 100) for item in range(1, 7)]
    history = StoreHistory(store)
    states = [
        state_hash(await state_at(history, partition, Moment(position=record.position))) for record in records
    ]
    return [(record.position, record.hash, record.events) for record in records] + traces + states


async def test_what_was_dropped_is_read_as_if_it_were_still_there(store: LogStore, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    async with lived(store) as (node, partition):
        before = await everything(store, partition)
        follower = Follower(real_env(), node.stores, archive, buckets=node.buckets)
        assert await follower.prune(older_than=Duration(0), buckets_kept=1) == {"log": [1]}
        # Those that live had their payload in the bucket.
        assert node.buckets.carried == 2
        with pytest.raises(HistoryDropped):
            await store.read(partition, Position(1), records_max=1, bytes_max=1, payloads=False)
        past = KeptRecords(real_env(), archive)
        through = ReadThroughLog(store, past)
        after = await everything(through, partition)
        assert [entry for entry in before if entry not in after] == []
        node.history.past = past
        steps = await node.history.trace(partition, ItemNumber(1), steps_max=100)
        assert not isinstance(steps, Rejected)
        assert [step.what for step in steps] == ["produced", "reserved", "completed"]
        replay = Replay()
        async for thing in walk(through, partition, payloads=False):
            replay.take(thing)
        replay.finish()
        assert replay.divergence is None
        (folded,) = replay.partitions.values()
        assert folded.first == 1
        past.close()


@pytest.mark.parametrize(("over", "first"), [(0, 2), (1, 3)])
async def test_records_are_kept_in_steps_of_so_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: int, first: int
) -> None:
    """KEEP_STEP_BYTES: a step that has as many is written, one that lacks a byte waits for the next page."""
    memory = MemoryLog(real_env(), name="log")
    async with lived(memory) as (node, partition):
        records = await memory.read(partition, Position(1), records_max=2, bytes_max=1 << 30, payloads=False)
        size = sum(len(record.events) + len(record.inputs) for record in records)
        monkeypatch.setattr(limits, "EXPORT_PAGE_RECORDS", 1)
        monkeypatch.setattr(limits, "KEEP_STEP_BYTES", size + over)
        archive = tmp_path / "archive"
        follower = Follower(real_env(), node.stores, archive, buckets=node.buckets)
        await follower.prune(older_than=Duration(0), buckets_kept=1)
    assert read_manifest(archive).record_parts[0].rows == first


async def test_a_node_that_did_not_see_the_bucket_opened_learns_where_it_began(
    store: LogStore, tmp_path: Path
) -> None:
    """Its own tail would do, but that moves on while others write."""
    async with lived(store):
        pass
    async with open_node({"log": store}, real_env(), NodeOptions(name="n")) as node:
        (partition,) = [number for number in node.broker.actors if number]
        follower = Follower(real_env(), node.stores, tmp_path / "archive", buckets=node.buckets)
        client = Client(node)
        keep = RecordKeeper.keep

        async def keep_and_write(self: RecordKeeper) -> int:
            count = await keep(self)
            client.produce(b"meanwhile", request=1)
            await committed(node)
            return count

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(RecordKeeper, "keep", keep_and_write)
            assert await follower.prune(older_than=Duration(0), buckets_kept=1) == {"log": [1]}
        assert node.broker.actors[partition].is_open


async def test_what_is_not_old_enough_stays(tmp_path: Path) -> None:
    async with lived(SqliteLog(real_env(), tmp_path / "data")) as (node, _):
        follower = Follower(real_env(), node.stores, tmp_path / "archive", buckets=node.buckets)
        assert await follower.prune(older_than=HOUR, buckets_kept=1) == {"log": []}
        assert await follower.prune(older_than=Duration(0), buckets_kept=2) == {}
        assert len(await node.stores["log"].buckets()) == 2
        # What stays in the log is not kept twice.
        assert read_manifest(tmp_path / "archive").record_parts == []


async def test_retention_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(real_env(), {}, tmp_path)
    exports = looks = 0
    enough = trio.Event()

    async def export() -> None:
        nonlocal exports
        exports += 1
        if exports == 5:
            enough.set()

    async def prune(*_: object) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(follower, "_export", export)
    monkeypatch.setattr(follower, "_prune", prune)

    async def run() -> None:
        await follower.run(every=Duration(100), retention=Duration(1))

    async def count() -> tuple[int, int]:
        nonlocal exports, looks, enough
        exports, looks, enough = 0, 0, trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await enough.wait()
            nursery.cancel_scope.cancel()
        return exports, looks

    assert await count() == (5, 1)
    monkeypatch.setattr(limits, "RETENTION_INTERVAL", Duration(0))
    _, often = await count()
    assert often >= 4


async def test_retention_drops_by_itself(tmp_path: Path) -> None:
    async with lived(SqliteLog(real_env(), tmp_path / "data")) as (node, _):
        follower = Follower(real_env(), node.stores, tmp_path / "archive", buckets=node.buckets)
        with telemetry.capture() as captured, trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    await follower.run(every=Duration(1_000), retention=Duration(1))

                nursery.start_soon(run)
                await captured.wait("bucket.dropped", bucket=1)
                nursery.cancel_scope.cancel()


async def test_nothing_is_dropped_that_cannot_be_kept(tmp_path: Path) -> None:
    """The archive's place is a file: nothing can be written there."""
    (tmp_path / "archive").write_text("in the way")
    async with lived(SqliteLog(real_env(), tmp_path / "data")) as (node, _):
        follower = Follower(real_env(), node.stores, tmp_path / "archive", buckets=node.buckets)
        refused = await follower.prune(older_than=Duration(0), buckets_kept=1)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.UNAVAILABLE
        assert len(await node.stores["log"].buckets()) == 2


@pytest.mark.parametrize("how", ["damaged", "missing"])
async def test_kept_records_that_are_no_good_are_named(tmp_path: Path, how: str) -> None:
    async with lived(SqliteLog(real_env(), tmp_path / "data")) as (node, partition):
        follower = Follower(real_env(), node.stores, tmp_path / "archive", buckets=node.buckets)
        await follower.prune(older_than=Duration(0), buckets_kept=1)
        (part,) = read_manifest(tmp_path / "archive").record_parts
        path = tmp_path / "archive" / part.file
        content = path.read_bytes()
        if how == "damaged":
            middle = len(content) // 3
            path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
        else:
            path.unlink()
        past = KeptRecords(real_env(), tmp_path / "archive")
        with pytest.raises(StoreCorrupt, match="part-"):
            await past.read(partition, Position(1), records_max=10, bytes_max=1 << 20)
        # And what is damaged there lets nothing more go from the log.
        await node.buckets.roll("log")
        await committed(node)
        refused = await follower.prune(older_than=Duration(0), buckets_kept=1)
        assert isinstance(refused, Rejected)
        assert part.file in refused.detail
        past.close()


def test_buckets_go_by_the_time_at_which_they_ended() -> None:
    buckets = [Bucket(number, 1, sealed=number < 4) for number in range(1, 5)]

    def start(partition: int, bucket: int, at: int) -> BucketStart:
        return BucketStart(PartitionId(partition), bucket, Position(bucket), Instant(at))

    starts = [start(1, 2, 10), start(2, 2, 12), start(1, 3, 20), start(1, 4, 30)]

    def kept(before: int, at_least: int = 1) -> int:
        return buckets_to_keep(buckets, starts, before=Instant(before), at_least=at_least)

    assert [kept(before) for before in (10, 12, 13, 20, 21, 31)] == [4, 4, 3, 3, 2, 1]
    assert kept(31, at_least=3) == 3
    # What nobody is known to have opened is not known to be old, nor is anything behind it.
    assert buckets_to_keep(buckets, starts[2:], before=Instant(31), at_least=1) == 4
