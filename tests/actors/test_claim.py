"""Claims: read, then append; snapshots that outlive their records; another server is another incarnation."""

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.claim import Reader, StateReader, claim
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.verification import verify_partition
from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.evolve import INCARNATION_BITS
from querator.core.ids import Instant, PartitionId, Position, QueueName, ReservationNumber
from querator.core.loading import load
from querator.core.segments import SEGMENT_BITS
from querator.core.snapshot import encode_head
from querator.env import Env
from querator.env.virtual import virtual_env
from querator.errors import DataLossSuspected, LogUnavailable
from querator.log.codec import seal
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.records import Record, Snapshot, snapshot_checksum
from querator.log.store import LogStore, Verdict
from querator.log.witness import Witness, WitnessedLog
from tests.actors.conftest import SECOND, Client, Produced, World, settle_down

P = PartitionId(7)


class MovableLog(MemoryLog):
    """A log whose server changes when a test says so."""

    server = "system:1"

    def server_identity(self, partition: PartitionId) -> str:
        del partition
        return self.server


def witnessed(env: Env, log: MemoryLog) -> WitnessedLog:
    return WitnessedLog(log, Witness(env, Path("/data/witness.json")))


async def test_the_same_server_keeps_the_incarnation(autojump_clock: MockClock) -> None:
    """However often the partition is claimed, and its numbers go on."""
    env = virtual_env(1)
    log = MovableLog(env)
    assert (await claim(log, env, P, node="a")).incarnation == 1
    assert (await claim(log, env, P, node="b")).incarnation == 1
    reader = StateReader(P)
    await claim(log, env, P, node="a", reader=reader)
    assert (reader.incarnation, reader.claimed_at, reader.server_identity) == (1, 3, "system:1")
    assert reader.state.next_item == 1


async def test_another_server_is_another_incarnation_with_numbers_of_its_own(
    autojump_clock: MockClock,
) -> None:
    """Items that the lost end of a log may have had are not numbered twice."""
    env = virtual_env(1)
    log = MovableLog(env)
    store = witnessed(env, log)
    await claim(store, env, P, node="a")
    log.server = "system:2"
    reader = StateReader(P)
    await claim(store, env, P, node="a", reader=reader)
    start = 1 << INCARNATION_BITS
    assert reader.incarnation == 2
    assert (reader.state.next_item, reader.state.next_place, reader.state.next_reservation) == (start,) * 3
    assert start % (1 << SEGMENT_BITS) == 0
    again = StateReader(P)
    await claim(store, env, P, node="a", reader=again)
    assert again.incarnation == 2
    assert again.state.next_item == start


async def test_who_does_not_remember_the_last_claim_does_not_go_on_on_another_server(
    autojump_clock: MockClock,
) -> None:
    """It can't tell whether what the old owner had acknowledged is there: neither without a witness nor with
    one that saw only an earlier claim."""
    env = virtual_env(1)
    log = MovableLog(env)
    mine, theirs = witnessed(env, log), WitnessedLog(log, Witness(env, Path("/other/witness.json")))
    await claim(mine, env, P, node="a")
    await claim(theirs, env, P, node="b")
    log.server = "system:2"
    with pytest.raises(DataLossSuspected, match="another server"):
        await claim(mine, env, P, node="a")
    with pytest.raises(DataLossSuspected, match="another server"):
        await claim(log, env, P, node="c")
    assert (await claim(theirs, env, P, node="b")).incarnation == 2


async def test_items_of_another_incarnation_are_served_beside_the_old_ones(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order, snapshots and verification included."""
    server = "system:1"
    monkeypatch.setattr(MemoryLog, "server_identity", lambda *_: server)
    monkeypatch.setattr(MemoryLog, "remembered", lambda *_: Position(1_000_000))
    async with world.node() as node:
        partition = await world.create(node)
        Client(node).produce(b"old-1", b"old-2")
        await settle_down()
    server = "system:2"
    for _ in range(2):
        # The second time from the snapshot that the first one left.
        async with world.node() as node:
            assert node.broker.actors[partition].state.incarnation == 2
            producer, consumer = Client(node), Client(node, "s")
            producer.produce(b"new")
            await settle_down()
            answer = producer.answer(1)
            assert isinstance(answer, Produced)
            assert answer.first_item >= 1 << INCARNATION_BITS
            consumer.reserve(10)
            await settle_down()
            (reserved,) = consumer.reservations
            assert reserved.payloads[:2] == [b"old-1", b"old-2"]
            assert reserved.payloads[-1] == b"new"
            consumer.settle(reserved, verb=Verb.RELEASE)
            await settle_down()
    found = await verify_partition(MemoryLog(virtual_env(1), world.disk), partition)
    assert found.is_good, found


async def test_a_snapshot_outlives_the_bucket_of_its_record(autojump_clock: MockClock) -> None:
    """The record behind it says that it is on the chain; one that is of another chain is ignored."""
    env = virtual_env(1)
    disk = MemoryDisk()
    log = MemoryLog(env, disk)
    owner = await claim(log, env, P, node="a", more=[ev.PartitionPaused("")])
    state_reader = StateReader(P)
    tail = await log.tail(P)
    await state_reader.read_to(log, tail)
    head = encode_head(state_reader.state)
    load(P, head, [])
    snapshot = Snapshot(P, owner.position, owner.hash, 1, head, (), snapshot_checksum(head, ()))
    await log.put_snapshot(snapshot)
    await log.roll()
    await claim(log, env, P, node="a")
    await log.drop(1)
    restored = StateReader(P)
    await claim(log, env, P, node="a", reader=restored)
    assert restored.position == 3
    assert restored.state.paused


@attrs.define
class Interrupting:
    """Writes a record of somebody else just before each append, so many times."""

    log: MemoryLog
    env: Env
    times: int
    is_at_it: bool = False

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        if self.times and not self.is_at_it:
            self.times -= 1
            self.is_at_it = True
            await claim(self.log, self.env, P, node="rival")
            self.is_at_it = False
        return await MemoryLog.append(self.log, records)


async def test_a_claim_that_collides_reads_on_and_tries_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others wrote is folded as well, and nothing is folded twice."""
    env = virtual_env(1)
    log = MemoryLog(env)
    interrupting = Interrupting(log, env, 3)
    monkeypatch.setattr(log, "append", interrupting.append)
    reader = StateReader(P)
    await claim(log, env, P, node="a", reader=reader)
    assert reader.position == 4
    assert reader.state.position == 4
    assert reader.state.nonce == reader.nonce
    tail = await log.tail(P)
    assert tail is not None
    assert (tail.position, tail.hash) == (reader.position, reader.hash)


async def test_a_log_that_shrinks_between_two_tries_is_not_claimed(autojump_clock: MockClock) -> None:
    env = virtual_env(1)
    log = MemoryLog(env)
    reader = await claim(log, env, P, node="a")
    with pytest.raises(DataLossSuspected):
        await claim(MemoryLog(env), env, P, node="a", reader=reader)


__all__ = ["SECOND", "Instant", "Reader"]


async def test_a_record_that_does_not_fit_halts_its_partition_and_no_other(
    autojump_clock: MockClock, world: World
) -> None:
    """An event that nothing allows: the node comes up, and what it can serve is served."""
    async with world.node() as node:
        bad = await world.create(node, QueueName("bad"))
        await world.create(node)
        Client(node).produce(b"a")
        await settle_down()
        actor = node.broker.actors[bad]
        completed = ev.ItemsCompleted(ReservationNumber(99), None)
        events: list[ev.Event] = [ev.TurnStarted(actor.now), completed]
        record = seal(bad, Position(actor.tail + 1), actor.tail_hash, actor.nonce, actor.now, events)
        assert world.disk.append([record]) == [Verdict.MINE]
    async with world.node() as node:
        assert bad not in node.broker.actors
        (fault,) = node.broker.queues[QueueName("bad")].faults.values()
        assert f"record {record.position} of partition {bad} does not fit" in fault
        client = Client(node)
        client.reserve()
        await settle_down()
        assert len(client.reservations) == 1


async def test_a_partition_whose_payloads_cannot_be_read_is_opened_later(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away just then: that is the partition's trouble, not its node's."""
    async with world.node() as node:
        await world.create(node)
        Client(node).produce(b"x")
        await settle_down()
        await node.snapshots.take(next(iter(node.broker.actors.values())))
    refused: list[str] = []
    fill_tail = PayloadService.fill_tail

    async def fails_once(self: PayloadService, actor: PartitionActor, store: LogStore) -> None:
        if not refused:
            refused.append("once")
            raise LogUnavailable("the store is away")
        await fill_tail(self, actor, store)

    monkeypatch.setattr(PayloadService, "fill_tail", fails_once)
    async with world.node() as node:
        assert refused == ["once"]
        client = Client(node)
        client.reserve(wait=10 * SECOND)
        await trio.sleep(2)
        assert client.reservations[0].payloads == [b"x"]
