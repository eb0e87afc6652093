"""Deciding again: from its inputs a record is decided as it was, or it is shown where not."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from querator.actors.ports import SubscriptionRequest
from querator.core import commands as cmd
from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import SECOND, Duration, Instant, PartitionId, Place
from querator.core.policy import Ordering
from querator.env.virtual import virtual_env
from querator.log.codec import PayloadBlock, attach_payloads, decode_events, seal
from querator.log.inputs import decode_inputs
from querator.log.memory import MemoryLog
from querator.log.records import Record
from querator.log.restore import read_all
from querator.replay.capture import CapturedRecord
from querator.replay.fold import Divergence, PartitionReplay
from querator.replay.history import walk
from tests.actors.conftest import Client, Q, World, settle_down
from tests.replay.logs import busy_log

P = PartitionId(1)


async def records_of(store: MemoryLog) -> list[Record]:
    return [record async for record in read_all(store, P, payloads=True)]


def replayed(records: Sequence[Record], *, payloads: bool = True) -> PartitionReplay:
    replay = PartitionReplay(P, redecides=True)
    for record in records:
        replay.take(record if payloads else attrs.evolve(record, payload=None))
    replay.finish()
    return replay


def resealed(records: Sequence[Record], change: Callable[[ev.Event], ev.Event | None]) -> list[Record]:
    """The log with some events changed (``None``: left as it is), and a chain that is whole again."""
    found: list[Record] = []
    for old in records:
        events = decode_events(old.events)
        attach_payloads(events, PayloadBlock(old.payload or b""))
        events = [change(event) or event for event in events]
        previous = found[-1].hash if found else bytes(32)
        found.append(seal(P, old.position, previous, old.nonce, old.written_at, events, old.inputs))
    return found


def divergence_of(records: Sequence[Record]) -> Divergence:
    divergence = replayed(records).divergence
    assert divergence is not None
    return divergence


async def crowd_log(**settings: Any) -> MemoryLog:
    """Waiters of every kind meet items of every kind: shares, windows, lingers, bytes, backoffs, deaths."""
    world = World()
    async with world.node(record_inputs=True) as node:
        await world.create(node, reservation_timeout=Duration(20 * SECOND), attempts_max=2, **settings)
        clients = [Client(node, f"s{index}") for index in range(6)]
        first, second, third, *others = clients
        first.produce(b"here", b"already", request=48)
        first.reserve(2, request=49)
        for index, client in enumerate(clients):
            client.reserve(index + 1, request=50, wait=30 * SECOND)
        first.produce(*[b"x" * size for size in range(11)])
        await settle_down()
        first.subscribe(100, window=5, batch=2)
        second.subscribe(100, window=7, batch=3)
        broker = node.broker
        broker.begin_turn()
        wanted = SubscriptionRequest(20, 0, 10, Duration(2 * SECOND), Duration(0), False)
        broker.subscribe(third, 101, Q, wanted)
        narrow = SubscriptionRequest(50, 40, 10, Duration(0), Duration(7 * SECOND), False)
        broker.subscribe(others[0], 102, Q, narrow)
        broker.end_turn()
        for round_ in range(6):
            keys = Attributes(key=["k"]) if settings else None
            first.produce(b"y" * 12, request=round_ + 200, attributes=keys)
            second.produce(*[b"z" * 9] * 7, request=round_ + 300)
            others[1].reserve(4, request=round_ + 400)
            await trio.sleep(1)
            for client in clients:
                for index, reserved in enumerate(client.reservations[-2:]):
                    verb = (Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD)[(index + round_) % 4]
                    parts = ((0, 1),) if (round_ + index) % 3 == 0 else None
                    client.settle(reserved, verb, request=round_ + 500, ranges=parts)
            await trio.sleep(3)
        await trio.sleep(60)
        for index, late in enumerate(client.reservations[-1] for client in clients):
            clients[index].settle(late, request=900)
        first.produce(b"end", request=901)
        await settle_down()
    return MemoryLog(virtual_env(1), world.disk)


@pytest.mark.parametrize("settings", [{}, {"ordering": Ordering.KEY}], ids=["fifo", "key"])
async def test_every_assignment_is_decided_again_from_who_waited(
    autojump_clock: MockClock, settings: dict[str, object]
) -> None:
    records = await records_of(await crowd_log(**settings))
    replay = replayed(records)
    assert replay.divergence is None
    assert replay.decided.assignments == replay.decided.from_waiters > 40
    waiters = [waiter for record in records for waiter in decode_inputs(record.inputs).waiters]
    assert {waiter.how.name for waiter in waiters} == {"ASKED", "PARKED", "PUSHED"}
    assert any(waiter.linger for waiter in waiters)


async def test_a_settlement_that_came_too_late_is_recorded(autojump_clock: MockClock) -> None:
    records = await records_of(await crowd_log())
    late = [one for record in records for one in decode_inputs(record.inputs).late]
    assert Verb.COMPLETE in [one.verb for one in late]


async def test_without_inputs_assignments_are_decided_by_what_the_reservation_says(
    autojump_clock: MockClock,
) -> None:
    store, _ = await busy_log()
    replay = replayed(await records_of(store))
    assert replay.divergence is None
    assert replay.decided.assignments > replay.decided.from_waiters == 0


async def test_without_sizes_nothing_that_depends_on_them_is_decided(autojump_clock: MockClock) -> None:
    replay = replayed(await records_of(await crowd_log()), payloads=False)
    assert replay.divergence is None
    assert replay.decided.from_waiters == 0


async def test_payloads_that_were_not_in_memory_are_not_there_again(autojump_clock: MockClock) -> None:
    """A line that waited for payloads gave less: the replay knows where, over a restart as well."""
    world = World()
    async with world.node(record_inputs=True, payload_memory=100_000) as node:
        await world.create(node)
        client = Client(node, "s1")
        for index in range(8):
            client.produce(*[b"p" * 100] * 1_024, request=index)
            await settle_down()
        await trio.sleep(1)
        assert node.payloads.spilled
    async with world.node(record_inputs=True) as node:
        client = Client(node, "s2")
        client.subscribe(window=5_000, batch=700)
        await trio.sleep(5)
        assert sum(one.count for one in client.reservations) == 5_000
    records = await records_of(MemoryLog(virtual_env(1), world.disk))
    assert any(decode_inputs(record.inputs).moved for record in records)
    replay = replayed(records)
    assert replay.divergence is None
    assert replay.decided.from_waiters == replay.decided.assignments > 7


async def test_a_stretch_decides_what_it_can(autojump_clock: MockClock) -> None:
    store = await crowd_log()
    last = len(await records_of(store))
    for start in range(2, last, 5):
        replay = PartitionReplay(P, redecides=True)
        async for thing in walk(store, P, start):
            if isinstance(thing, CapturedRecord):
                replay.take(thing.record)
            elif thing.is_base:
                replay.begin(thing)
        assert replay.divergence is None


async def test_another_share_than_was_decided_is_found(autojump_clock: MockClock) -> None:
    """An item more than its share for one waiter, one less for the next: it folds, and was never decided."""
    records = await records_of(await crowd_log())
    changes = iter([-1, 1])

    def shift(event: ev.Event) -> ev.Event | None:
        if type(event) is ev.ItemsReserved and event.count > 1 and (by := next(changes, 0)):
            return attrs.evolve(event, count=event.count + by)
        return None

    found = divergence_of(resealed(records, shift))
    assert found.field == "count"
    assert int(found.expected) == int(found.got) - 1
    assert "ItemsReserved.count" in found.fault


async def test_a_deadline_that_does_not_follow_from_the_policy_is_found(autojump_clock: MockClock) -> None:
    records = await records_of(await crowd_log())

    def later(event: ev.Event) -> ev.Event | None:
        if type(event) is ev.ItemsReserved and not event.run_until:
            return attrs.evolve(event, deadline=Instant(event.deadline + 1))
        return None

    found = divergence_of(resealed(records, later))
    assert (found.field, int(found.expected)) == ("deadline", int(found.got) + 1)


async def test_what_ended_before_its_time_is_found(autojump_clock: MockClock) -> None:
    records = await records_of(await crowd_log())

    def why(event: ev.Event) -> ev.Event | None:
        if type(event) is ev.ReservationEnded and event.why == "max_runtime":
            return attrs.evolve(event, why="deadline")
        if type(event) is ev.ReservationEnded and event.why == "deadline":
            return attrs.evolve(event, why="max_runtime")
        return None

    assert divergence_of(resealed(records, why)).field == "why"


async def test_inputs_of_fewer_waiters_than_reservations_are_found(autojump_clock: MockClock) -> None:
    records = await records_of(await crowd_log())
    index = next(
        index for index, record in enumerate(records) if len(decode_inputs(record.inputs).waiters) > 1
    )
    found: list[Record] = []
    other = next(record.inputs for record in records if len(decode_inputs(record.inputs).waiters) == 1)
    for at, old in enumerate(records):
        events = decode_events(old.events)
        attach_payloads(events, PayloadBlock(old.payload or b""))
        inputs = other if at == index else old.inputs
        previous = found[-1].hash if found else bytes(32)
        found.append(seal(P, old.position, previous, old.nonce, old.written_at, events, inputs))
    assert divergence_of(found).position == records[index].position


@pytest.mark.parametrize("inputs", [True, False], ids=["inputs", "none"])
async def test_every_kind_of_command_is_decided_again(autojump_clock: MockClock, *, inputs: bool) -> None:
    """Imports with a past, requests by place, duplicates, mixed due times, ends of life, operators."""
    world = World()
    async with world.node(record_inputs=inputs) as node:
        partition = await world.create(
            node, expire_timeout=Duration(90 * SECOND), attempts_max=3, dead_retention=Duration(100 * SECOND)
        )
        client = Client(node, "s1")

        async def command(what: cmd.Command) -> None:
            node.broker.begin_turn()
            node.broker.command(client, 9, partition, what)
            node.broker.end_turn()
            await settle_down()

        now = node.env.clock.now()
        past = [
            cmd.ImportedItem(
                b"old",
                Attributes(source_id=f"id{index}", attempts=index, produced_at=now - SECOND, expires_at=ends),
                Instant(until),
            )
            for index, (ends, until) in enumerate(
                [(0, 0), (now + 5 * SECOND, 0), (0, now + 9 * SECOND), (0, now + 9 * SECOND), (0, 0)]
            )
        ]
        await command(cmd.Import(past))
        await command(cmd.Import([*past, cmd.ImportedItem(b"bare", Attributes())]))
        client.produce(b"a", b"b", b"c", attributes=Attributes(dedupe_key=["x", "y", "x"]), request=11)
        client.produce(
            b"d", b"e", attributes=Attributes(dedupe_key=["y", "z"]), producer="p", sequence=1, request=12
        )
        client.produce(
            b"d", b"e", attributes=Attributes(dedupe_key=["y", "z"]), producer="p", sequence=1, request=13
        )
        client.produce(b"f", b"g", b"h", due_at=[now, now + 3 * SECOND, now + 2 * SECOND], request=14)
        client.produce(
            b"own", attributes=Attributes(reservation_timeout=7 * SECOND, attempts_max=1), request=15
        )
        await settle_down()
        client.reserve(3, request=60)
        client.reserve(20, request=61)
        await settle_down()
        reserved = client.reservations[-1]
        places = [place + offset for place, _, count in reserved.runs for offset in range(count)]
        verbs = [Verb.COMPLETE, Verb.RETRY, Verb.DEAD, Verb.RELEASE]
        await command(
            cmd.SettlePlaces(
                [cmd.PlaceSettlement(Place(place), verbs[i % 4]) for i, place in enumerate(places)]
            )
        )
        await trio.sleep(4)
        await command(cmd.Redrive(author="me"))
        client.reserve(2, request=62, held=True)
        await settle_down()
        client.settle(client.reservations[-1], Verb.EXTEND, timeout=Duration(500 * SECOND), request=63)
        await command(cmd.Pause("me"))
        await trio.sleep(10)
        await command(cmd.Resume("me"))
        await command(cmd.Delete([Place(places[1]), Place(10**6)], "me"))
        client.reserve(1, request=64, wait=50 * SECOND)
        await trio.sleep(250)
        client.produce(b"late", request=65)
        await command(cmd.Clear(ready=True, dead=True, author="me"))
        for comes_back in (False, True):
            first = 3 if comes_back else 1
            await command(cmd.Receive(PartitionId(77), first, [b"x"] * 2, Attributes(), comes_back))
        await command(cmd.SendBack(author="me"))
        await command(cmd.ConfirmMoves(PartitionId(77), 1))
        await command(cmd.GiveUpMoves(PartitionId(77)))
    records = await records_of(MemoryLog(virtual_env(1), world.disk))
    replay = replayed(records)
    assert replay.divergence is None
    assert replay.decided.assignments >= 5
    seen = {type(event).__name__ for record in records for event in decode_events(record.events)}
    assert {
        "ItemsProduced",
        "ItemsReserved",
        "ItemsCompleted",
        "ItemsRetried",
        "ItemsReleased",
        "ReservationEnded",
        "ItemsDied",
        "ReservationExtended",
        "ItemsDue",
        "ItemsExpired",
        "ItemsCleared",
        "ItemsRedriven",
        "ItemsReceived",
        "ItemsCameBack",
        "ItemsSentBack",
        "ItemsMoved",
        "MovesGivenUp",
        "ItemsPruned",
        "PartitionPaused",
    } <= seen
