"""History in buckets: announced in the log, dropped whole, and no live payload goes with them."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from querator.actors.claim import claim
from querator.actors.node import NodeOptions, open_node
from querator.actors.verification import verify_partition
from querator.core.ids import QueueName
from querator.core.limits import SEGMENT_ITEMS
from querator.env.virtual import virtual_env
from querator.errors import LogUnavailable
from querator.log.memory import MemoryLog
from querator.log.records import Snapshot
from tests.actors.conftest import Client, World, settle_down


async def test_a_bucket_is_dropped_and_everything_alive_outlives_it(
    autojump_clock: MockClock, world: World
) -> None:
    """What waits in the dropped bucket is carried first; a restart finds queues, order and payloads."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        for start in range(0, 2_000, 500):
            client.produce(*[b"%05d" % number for number in range(start, start + 500)], request=start)
        await settle_down()
        consumer = Client(node, "s")
        consumer.subscribe(batch=100, window=100)
        await settle_down()
        consumer.settle(consumer.reservations[0])
        await settle_down()
        node.broker.begin_turn()
        node.broker.session_closed(consumer)
        node.broker.end_turn()
        assert await node.buckets.roll("memory") == 2
        client.produce(b"after", request=9_999)
        await settle_down()
        assert await node.buckets.prune("memory", buckets_kept=1) == [1]
        assert node.buckets.carried == 1_900
        assert world.disk.find(partition, 1) is None
    async with world.node() as node:
        assert QueueName("q") in node.broker.queues
        reader = Client(node, "r")
        reader.subscribe(batch=1000, window=5_000)
        await trio.sleep(1)
        got = [payload for reserved in reader.reservations for payload in reserved.payloads]
        # What the first consumer held went back to the tail when it said goodbye.
        assert sorted(got) == sorted([*(b"%05d" % number for number in range(100, 2_000)), b"after"])


async def test_payloads_are_not_read_where_they_are_being_carried_to(
    autojump_clock: MockClock, world: World
) -> None:
    """The record that carries them is not committed yet: a line that wants them waits for it."""
    async with world.node() as node, trio.open_nursery() as nursery:
        partition = await world.create(node)
        payloads = [b"%05d" % number for number in range(SEGMENT_ITEMS + 100)]
        for start in range(0, len(payloads), 500):
            Client(node).produce(*payloads[start : start + 500], request=start)
        await settle_down()
        state = node.broker.actors[partition].state
        spilled = state.segments[0]
        state.payload_bytes -= spilled.payload_bytes
        spilled.payload_bytes, spilled.payloads = 0, None
        await node.buckets.roll("memory")
        await settle_down()
        world.gate.close()
        nursery.start_soon(partial(node.buckets.prune, "memory", buckets_kept=1))
        await world.gate.wait_arrived()
        consumer = Client(node, "s")
        consumer.subscribe(batch=1_000, window=5_000)
        await trio.sleep(0.1)
        world.gate.open()
        await trio.sleep(1)
        got = [payload for reserved in consumer.reservations for payload in reserved.payloads]
        assert got == payloads


async def test_a_bucket_that_is_not_exported_is_kept(autojump_clock: MockClock, world: World) -> None:
    """Where somebody exports, retention waits for the export."""
    async with world.node() as node:
        await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.buckets.roll("memory")
        kept = await node.buckets.prune("memory", buckets_kept=1, is_exported=lambda *_: False)
        assert kept == []
        assert len(world.disk.buckets) == 2


async def test_a_full_bucket_is_followed_by_the_next(autojump_clock: MockClock, world: World) -> None:
    """By itself, within some seconds."""
    async with world.node(bucket_bytes=10_000) as node:
        await world.create(node)
        Client(node).produce(b"x" * 20_000)
        await trio.sleep(15)
        assert world.disk.bucket == 2


async def test_what_is_left_of_a_log_can_be_verified(autojump_clock: MockClock, world: World) -> None:
    """From the snapshot behind which everything is kept."""
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node)
        client.produce(*[b"x"] * 100)
        await settle_down()
        await node.buckets.roll("memory")
        await node.buckets.prune("memory", buckets_kept=1)
        client.produce(b"y", request=2)
        await settle_down()
    found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)
    assert found.is_good, found
    assert found.first > 1
    assert found.produced == 101


async def test_a_bucket_stays_while_a_partition_is_not_open_here(
    autojump_clock: MockClock, world: World
) -> None:
    """It may come back, and will read its history then."""
    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.buckets.roll("memory")
        node.broker.actors[partition].halt("for this test")
        assert await node.buckets.prune("memory", buckets_kept=1) == []
        assert world.disk.find(partition, 1) is not None


async def test_a_bucket_stays_while_no_snapshot_can_be_stored(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a partition's nor the catalog's; and the snapshot after a failed one refers to nothing old."""

    async def full(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise LogUnavailable("the disk is full")

    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.buckets.roll("memory")
        with monkeypatch.context() as patched:
            patched.setattr(MemoryLog, "put_chunks", full)
            assert await node.buckets.prune("memory", buckets_kept=1) == []
        assert world.disk.find(partition, 1) is not None
        assert await node.buckets.prune("memory", buckets_kept=1) == [1]


async def test_a_bucket_stays_while_a_live_payload_cannot_be_read(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not carried would be gone with it."""

    async def nothing(*_: object) -> dict[int, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.buckets.roll("memory")
        monkeypatch.setattr(node.payloads, "read_items", nothing)
        assert await node.buckets.prune("memory", buckets_kept=1) == []
        assert world.disk.find(partition, 1) is not None


async def test_a_bucket_is_kept_while_no_snapshot_behind_it_can_be_read_back(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one was stored is no proof: it may have been damaged on its way. Neither the partition's nor
    the catalog's."""
    for damaged in (0, 1):
        async with world.node() as node:
            partition = await world.create(node, QueueName(f"q{damaged}"))
            Client(node).produce(b"x", queue=QueueName(f"q{damaged}"))
            await settle_down()
            await node.buckets.roll("memory")
            store = node.stores["memory"]
            original = store.put_snapshot

            async def put_and_damage(
                snapshot: Snapshot,
                original: Callable[[Snapshot], Awaitable[None]] = original,
                is_of_queue: bool = bool(damaged),
            ) -> None:
                await original(snapshot)
                if is_of_queue is bool(snapshot.partition):
                    kept = world.disk.partitions[snapshot.partition].snapshots
                    kept[-1] = (kept[-1][0], b"rotten")

            with monkeypatch.context() as patched:
                patched.setattr(store, "put_snapshot", put_and_damage)
                assert await node.buckets.prune("memory", buckets_kept=1) == []
        async with world.node() as node:
            client = Client(node)
            client.reserve(queue=QueueName(f"q{damaged}"))
            await settle_down()
            assert partition in node.broker.actors
            assert len(client.reservations) == 1


async def test_a_snapshot_that_was_read_back_is_not_written_over(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the last that is good when the bucket goes, and the same one again may be damaged on its way.
    One that was damaged later is written again."""
    async with world.node() as node:
        first = await world.create(node)
        second = await world.create(node, QueueName("other"))
        Client(node).produce(b"x")
        await settle_down()
        await node.buckets.roll("memory")
        node.broker.actors[second].halt("so that the bucket stays")
        written: list[int] = []
        store = node.stores["memory"]
        original = store.put_snapshot

        async def put(snapshot: Snapshot) -> None:
            written.append(snapshot.partition)
            await original(snapshot)

        monkeypatch.setattr(store, "put_snapshot", put)
        for expected in ([0, first], []):
            assert await node.buckets.prune("memory", buckets_kept=1) == []
            assert written == expected
            written.clear()
        kept = world.disk.partitions[first].snapshots
        kept[-1] = (kept[-1][0], b"rotten")
        for expected in ([], [first]):
            assert await node.buckets.prune("memory", buckets_kept=1) == []
            assert written == expected


async def test_a_bucket_is_kept_while_a_rival_has_claimed_what_it_holds(
    autojump_clock: MockClock, world: World
) -> None:
    """Its owner has not met the claim yet, so its snapshot is before it: nobody could open what is left."""
    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        rival = virtual_env(2)
        await claim(MemoryLog(rival, world.disk), rival, partition, node="rival")
        # Closed by another process, that is: this one would announce it, and meet the claim.
        await node.stores["memory"].roll()
        assert await node.buckets.prune("memory", buckets_kept=1) == []
        Client(node).produce(b"y", request=2)
        await trio.sleep(2)
        assert node.broker.actors[partition].is_open


async def test_what_was_thrown_away_with_decisions_that_were_not_committed_gives_no_snapshot(
    autojump_clock: MockClock, world: World
) -> None:
    """Its state is ahead of the log: as a snapshot at the tail it would be believed after a restart."""
    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        actor = node.broker.actors[partition]
        world.gate.close()
        Client(node).produce(b"y")
        await world.gate.wait_arrived()
        rival = virtual_env(2)
        await claim(MemoryLog(rival, world.disk), rival, partition, node="rival")
        world.gate.open()
        await settle_down()
        assert not actor.is_alive
        assert actor.state.produced == 2
        assert not await node.snapshots.take(actor)


async def test_the_last_record_before_a_bucket_that_nobody_announced_is_carried(
    autojump_clock: MockClock, world: World
) -> None:
    """By another process, or while the partition could not write: its last record is in the closed bucket."""
    async with world.node() as node:
        await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.stores["memory"].roll()
        assert await node.buckets.prune("memory", buckets_kept=1) == [1]
        assert node.buckets.carried == 1
    async with world.node() as node:
        client = Client(node)
        client.reserve()
        await settle_down()
        assert client.reservations[0].payloads == [b"x"]


async def test_an_owner_that_was_fenced_announced_no_bucket(autojump_clock: MockClock, world: World) -> None:
    """Where its announcement should have stood another owner had written, into the bucket before."""
    async with world.node() as node:
        await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        env = virtual_env(2)
        async with open_node({"memory": MemoryLog(env, world.disk)}, env, NodeOptions()) as other:
            Client(other).produce(b"y")
            await settle_down()
        await node.buckets.roll("memory")
        await trio.sleep(2)
        await node.catalog.open()
        assert await node.buckets.prune("memory", buckets_kept=1) == [1]
        assert node.buckets.carried == 2
    async with world.node() as node:
        client = Client(node)
        client.reserve(5)
        await settle_down()
        assert client.reservations[0].payloads == [b"x", b"y"]
