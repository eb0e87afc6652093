"""What if: played unchanged it is the log; changed, it is what the production core makes of it."""

import io
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from benchmarks.replaying import make_capture, record
from querator.core.commands import (
    Clear,
    Delete,
    Import,
    ImportedItem,
    Pause,
    PlaceSettlement,
    Redrive,
    SendBack,
    SettlePlaces,
    Verb,
)
from querator.core.events import Attributes
from querator.core.ids import MILLISECOND, SECOND, Duration, Instant, Place, Position, QueueName
from querator.core.policy import Backoff, Ordering
from querator.core.replies import Done
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryLog
from querator.replay.capture import CapturedRecord, CaptureHead, CaptureWriter, Payloads, read_capture
from querator.replay.history import Moment, positions_between, read_queues, walk
from querator.replay.whatif.loading import CannotSimulate, load, read_traffic
from querator.replay.whatif.measures import Measures
from querator.replay.whatif.simulation import Settings, Simulation
from querator.replay.whatif.traffic import DeleteItems, Traffic
from querator.replay.whatif.verdict import COUNTS, Difference, compare
from tests.actors.conftest import Client, World, settle_down

MS = MILLISECOND


async def capture_of(store: MemoryLog, start: int = 0, since: Instant | None = None) -> bytes:
    """Of all queues, from a position or a time on."""
    begins = Moment(at=since) if since is not None else Moment(position=Position(start)) if start else None
    out = io.BytesIO()
    writer = CaptureWriter(out, CaptureHead(Payloads.SIZES, await read_queues(store)))
    for partition in await store.partitions():
        if partition:
            bounds = await positions_between(store, partition, begins, None)
            assert bounds is not None
            async for thing in walk(store, partition, *bounds):
                if isinstance(thing, CapturedRecord):
                    writer.record(thing.record)
                else:
                    writer.checkpoint(thing)
    writer.finish()
    return out.getvalue()


async def traffic_of(
    store: MemoryLog, queue: str | None = None, start: int = 0, since: Instant | None = None
) -> Traffic:
    return read_traffic(load(read_capture(io.BytesIO(await capture_of(store, start, since))), queue))


def play(traffic: Traffic, **settings: object) -> Measures:
    return Simulation(traffic, Settings(**settings)).run()  # type: ignore[arg-type]


def counts(measures: Measures) -> dict[str, int]:
    return {name: getattr(measures, name) for name in COUNTS}


async def work(
    *,
    workers: int = 2,
    items: int = 40,
    every: float = 0.1003,
    takes: Callable[[int], float] = lambda _: 0.15,
    ends: Callable[[int], Verb] = lambda _: Verb.COMPLETE,
    inputs: bool = True,
    rest: float = 20.0,
    keys: int = 0,
    **settings: object,
) -> MemoryLog:
    """Items come one by one, and one more after ``rest``. Each worker asks for one, works on it for as long
    as ``takes`` says of its number, settles it (too late, if that is so), and asks again."""
    world = World()
    settings.setdefault("reservation_timeout", Duration(SECOND))
    async with world.node(record_inputs=inputs) as node, trio.open_nursery() as nursery:
        await world.create(node, **settings)
        clients = [Client(node, f"w{index}") for index in range(workers)]

        async def consume(client: Client) -> None:
            request = 1_000
            while True:
                request += 1
                client.reserve(1, request=request, wait=3_600 * SECOND)
                while not client.reservations:
                    await trio.sleep(0.0137)
                (reserved,) = client.reservations
                client.told.clear()
                number = reserved.runs[0][1]
                await trio.sleep(takes(number))
                client.settle(reserved, ends(number), request=request)
                await settle_down()
                client.told.clear()

        for client in clients:
            nursery.start_soon(consume, client)
        producer = Client(node)
        for number in range(items):
            attributes = Attributes(key=[f"k{number % keys}"]) if keys else None
            producer.produce(b"x", request=number, attributes=attributes)
            await trio.sleep(every)
        await trio.sleep(rest)
        producer.produce(b"last", request=items)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    return MemoryLog(virtual_env(1), world.disk)


@pytest.mark.parametrize("inputs", [True, False])
async def test_unchanged_it_is_what_was_recorded(autojump_clock: MockClock, inputs: bool) -> None:
    """Failures, deaths, reservations that end by themselves, and a backlog that comes and goes."""
    store = await work(
        takes=lambda number: 2.5 if number % 11 == 0 else 0.05 + number % 7 * 0.05,
        ends=lambda number: Verb.RETRY if number % 5 == 0 else Verb.COMPLETE,
        inputs=inputs,
        attempts_max=3,
        backoff=Backoff(Duration(500 * MS), jitter=0.0),
    )
    traffic = await traffic_of(store)
    recorded = traffic.recorded
    assert recorded.dead > 3
    assert recorded.duplicates > 1
    assert recorded.retried > 5
    simulated = play(traffic)
    assert compare(recorded, simulated) == []
    assert simulated.timeline.waiting == recorded.timeline.waiting
    assert simulated.timeline.dead == recorded.timeline.dead
    assert simulated.percentiles("works") == recorded.percentiles("works")


def test_subscriptions_of_two_partitions_are_what_was_recorded(tmp_path: Path) -> None:
    """Eight windows over two partitions; work that fails, and work that is never settled."""
    file = tmp_path / "two.capture"
    make_capture(file, 12_000, 10, partitions=2)
    with file.open("rb") as content:
        traffic = read_traffic(load(read_capture(content), None))
    assert (len(traffic.subscriptions), len(traffic.slots), traffic.partitions) == (8, 0, 2)
    assert min(traffic.recorded.retried, traffic.recorded.ended) > 0
    simulated = play(traffic)
    assert compare(traffic.recorded, simulated) == []
    assert simulated.timeline.reserved == traffic.recorded.timeline.reserved
    few = play(traffic, consumers=2)
    assert max(few.timeline.waiting) > max(simulated.timeline.waiting)


async def test_keys_hold_each_other_up_only_where_they_are_ordered(autojump_clock: MockClock) -> None:
    store = await work(
        workers=4,
        every=0.0503,
        takes=lambda number: 2.5 if number % 11 == 0 else 0.05 + number % 7 * 0.05,
        ends=lambda number: Verb.RETRY if number % 5 == 0 else Verb.COMPLETE,
        keys=3,
        attempts_max=3,
        ordering=Ordering.KEY,
        backoff=Backoff(Duration(500 * MS), jitter=0.0),
    )
    traffic = await traffic_of(store)
    assert compare(traffic.recorded, play(traffic)) == []
    free = play(traffic, policy={"ordering": Ordering.FIFO})
    assert (free.percentiles("waits")[90] or 0) * 2 < (traffic.recorded.percentiles("waits")[90] or 0)
    assert counts(play(traffic, partitions=3)) == counts(traffic.recorded)


async def test_a_shorter_timeout_makes_duplicates_of_slow_work(autojump_clock: MockClock) -> None:
    store = await work(takes=lambda number: 0.9 if number % 10 == 0 else 0.1)
    traffic = await traffic_of(store)
    assert (traffic.recorded.duplicates, traffic.recorded.ended) == (0, 0)
    shorter = play(traffic, policy={"reservation_timeout": Duration(500 * MS)})
    assert shorter.ended >= 4
    assert shorter.duplicates == shorter.ended
    assert shorter.late >= 4
    longer = play(traffic, policy={"reservation_timeout": Duration(60 * SECOND)})
    assert counts(longer) == counts(traffic.recorded)


async def test_a_longer_timeout_lets_late_work_be_in_time(autojump_clock: MockClock) -> None:
    """So long the work had taken is in the log's inputs only."""
    slow: Callable[[int], float] = lambda number: 1.5 if number == 7 else 0.1  # noqa: E731
    traffic = await traffic_of(await work(takes=slow))
    assert traffic.recorded.duplicates > 0
    longer = play(traffic, policy={"reservation_timeout": Duration(2 * SECOND)})
    assert (longer.duplicates, longer.ended, longer.completed) == (0, 0, 41)


async def test_fewer_attempts_make_dead_letters(autojump_clock: MockClock) -> None:
    ends: Callable[[int], Verb] = lambda number: Verb.RETRY if number == 3 else Verb.COMPLETE  # noqa: E731
    traffic = await traffic_of(await work(ends=ends, items=10, attempts_max=6))
    assert (traffic.recorded.dead, traffic.recorded.retried) == (1, 5)
    fewer = play(traffic, policy={"attempts_max": 2})
    assert (fewer.dead, fewer.retried, fewer.completed) == (1, 1, 10)
    later = play(traffic, policy={"backoff": Backoff(Duration(SECOND), jitter=0.0)})
    assert later.retried == 5
    assert later.timeline.waiting[-1] == 1


async def test_more_consumers_wait_less_and_slower_work_waits_more(autojump_clock: MockClock) -> None:
    traffic = await traffic_of(await work(workers=1))
    recorded = traffic.recorded.percentiles("waits")[90]
    assert recorded is not None
    many = play(traffic, consumers=8)
    assert many.completed == 41
    assert many.percentiles("waits")[99] == 0
    slow = play(traffic, speed=0.5)
    assert (slow.percentiles("waits")[90] or 0) > recorded
    assert max(slow.timeline.waiting) > max(traffic.recorded.timeline.waiting)
    assert slow.percentiles("works")[50] == pytest.approx(300 * MS, rel=0.15)


async def test_more_partitions_are_filled_evenly(autojump_clock: MockClock) -> None:
    traffic = await traffic_of(await work(workers=4, every=0.02))
    assert traffic.partitions == 1
    simulation = Simulation(traffic, Settings(partitions=4))
    assert simulation.run().completed == 41
    assert [part.state.produced > 3 for part in simulation.partitions] == [True] * 4


async def test_the_same_seed_draws_the_same(autojump_clock: MockClock) -> None:
    """A queue whose work was never finished: most of what happens had to be drawn."""
    traffic = await traffic_of(await work(rest=0.0, every=0.01, takes=lambda number: number % 5 / 10 + 0.1))
    runs = [play(traffic, consumers=4, speed=5.0, seed=seed) for seed in (1, 1, 2)]
    assert attrs.asdict(runs[0]) == attrs.asdict(runs[1])
    assert runs[0].timeline.works != runs[2].timeline.works


async def test_no_number_is_close_that_should_be_exact(autojump_clock: MockClock) -> None:
    traffic = await traffic_of(await work(items=10))
    simulated = play(traffic)
    simulated.completed -= 1
    assert compare(traffic.recorded, simulated) == [Difference("completed", 11, 10)]
    simulated.completed += 1
    for values in simulated.timeline.works:
        for index in range(len(values)):
            values[index] += 19 * MS
    assert compare(traffic.recorded, simulated) == []
    for values in simulated.timeline.works:
        for index in range(len(values)):
            values[index] += 2 * MS
    assert [one.what for one in compare(traffic.recorded, simulated)] == [
        f"p{share} of works, microseconds" for share in (50, 90, 99)
    ]


async def test_what_operators_did_is_done_again(autojump_clock: MockClock) -> None:
    world = World()
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node, "s")
        client.produce(b"a", b"b")
        await settle_down()

        def command(what: object) -> None:
            node.broker.begin_turn()
            node.broker.command(client, 5, partition, what)  # type: ignore[arg-type]
            node.broker.end_turn()

        command(Pause("me"))
        await trio.sleep(1)
        command(Clear(ready=True, author="me"))
        await trio.sleep(1)
        client.produce(b"c")
        await settle_down()
        cleared = MemoryLog(virtual_env(1), world.disk)
        traffic = await traffic_of(cleared)
        assert len(traffic.orders) == 2
        simulated = play(traffic)
        assert simulated.timeline.waiting == traffic.recorded.timeline.waiting
        assert simulated.timeline.waiting[-1] == 1
        command(Delete([Place(3)], "me"))
        await settle_down()
        traffic = await traffic_of(cleared)
        assert (traffic.recorded.removed, traffic.orders[-1][2]) == (3, DeleteItems((2,)))
        simulated = play(traffic)
        assert compare(traffic.recorded, simulated) == []
        assert simulated.timeline.waiting[-1] == 0


async def test_what_died_before_the_capture_is_brought_back_in_it(autojump_clock: MockClock) -> None:
    world = World()
    async with world.node() as node:
        partition = await world.create(node)
        client = Client(node, "s")
        client.produce(b"a")
        await settle_down()
        client.reserve(1)
        await settle_down()
        client.settle(client.reservations[0], Verb.DEAD, reason="bad")
        await settle_down()
        await trio.sleep(1)
        behind = node.broker.actors[partition].tail + 1
        node.broker.begin_turn()
        node.broker.command(client, 5, partition, Redrive())
        node.broker.end_turn()
        await settle_down()
    store = MemoryLog(virtual_env(1), world.disk)
    for start in (0, behind):
        traffic = await traffic_of(store, start=start)
        assert (traffic.recorded.redriven, traffic.recorded.timeline.waiting[-1]) == (1, 1)
        assert compare(traffic.recorded, play(traffic)) == []
    # Where it is routed anew, nobody knows where it would be.
    assert play(traffic, partitions=2).redriven == 0


async def test_imported_items_come_back_with_their_past(autojump_clock: MockClock) -> None:
    """Attempts that were made elsewhere, an end of life of their own, and a holder whom nobody knows here."""
    world = World()
    async with world.node(record_inputs=True) as node:
        partition = await world.create(
            node,
            attempts_max=3,
            expire_timeout=Duration(5 * SECOND),
            reservation_timeout=Duration(2 * SECOND),
        )
        client = Client(node, "s")
        client.produce(b"ours")
        await settle_down()
        now = node.env.clock.now()
        node.broker.begin_turn()
        imported = [
            ImportedItem(b"tired", Attributes(attempts=2, produced_at=now - SECOND)),
            ImportedItem(
                b"held", Attributes(attempts=1, produced_at=now - SECOND), Instant(now + 8 * SECOND)
            ),
            ImportedItem(b"short", Attributes(produced_at=now, expires_at=now + SECOND)),
        ]
        node.broker.command(client, 5, partition, Import(imported))
        node.broker.end_turn()
        await trio.sleep(3)
        for request in (51, 52):
            client.reserve(1, request=request)
            await settle_down()
            client.settle(client.reservations[-1], Verb.RETRY, request=request + 10)
            await trio.sleep(1)
        await trio.sleep(20)
        client.produce(b"last", request=99)
        await settle_down()
    traffic = await traffic_of(MemoryLog(virtual_env(1), world.disk))
    recorded = traffic.recorded
    assert (recorded.produced, recorded.expired, recorded.ended, recorded.dead) == (5, 2, 1, 3)
    simulated = play(traffic)
    assert compare(recorded, simulated) == []
    assert simulated.timeline.reserved == recorded.timeline.reserved
    assert play(traffic, policy={"attempts_max": 9}).dead < recorded.dead


async def test_a_retry_by_place_does_not_look_at_the_limit(autojump_clock: MockClock) -> None:
    """As over HTTP."""
    world = World()
    async with world.node(record_inputs=True) as node:
        partition = await world.create(node, attempts_max=1)
        client = Client(node, "s")
        client.produce(b"a")
        for request in (51, 52, 53):
            client.reserve(1, request=request)
            await settle_down()
            place = Place(client.reservations[-1].runs[0][0])
            await trio.sleep(1)
            node.broker.begin_turn()
            verb = Verb.COMPLETE if request == 53 else Verb.RETRY
            node.broker.command(client, request + 10, partition, SettlePlaces([PlaceSettlement(place, verb)]))
            node.broker.end_turn()
            await settle_down()
    traffic = await traffic_of(MemoryLog(virtual_env(1), world.disk))
    assert (traffic.recorded.retried, traffic.recorded.dead, traffic.recorded.completed) == (2, 0, 1)
    assert compare(traffic.recorded, play(traffic)) == []


async def test_one_queue_is_played(autojump_clock: MockClock) -> None:
    store = await work(items=3, rest=1)
    with pytest.raises(CannotSimulate, match="no queue 'other'"):
        await traffic_of(store, "other")
    with pytest.raises(CannotSimulate, match="nothing of queue 'q'"):
        await traffic_of(store, since=Instant(2**60))


@pytest.mark.parametrize("batch", [1, 10])
def test_windows_that_were_full_when_it_began_are_as_large_as_they_were(batch: int) -> None:
    disk = trio.run(record, 4_000, batch, 2, clock=MockClock(autojump_threshold=0))
    store = MemoryLog(virtual_env(1), disk)
    whole = trio.run(traffic_of, store)
    length = whole.ended - whole.began
    for share in (0.1, 0.2, 0.5, 0.9):
        traffic = trio.run(traffic_of, store, None, 0, Instant(int(whole.began + share * length)))
        assert traffic.recorded.timeline.reserved[0] > 0
        assert {one.window for one in traffic.subscriptions} <= {one.window for one in whole.subscriptions}
        assert compare(traffic.recorded, play(traffic)) == []


async def test_an_item_that_was_mended_and_brought_back_stays_mended(autojump_clock: MockClock) -> None:
    """What it took before its death is not tried again after it."""
    world = World()
    async with world.node(record_inputs=True) as node:
        partition = await world.create(node, attempts_max=3)
        client = Client(node, "s")
        client.produce(b"a")
        for request in (51, 52, 53, 54):
            client.reserve(1, request=request)
            await settle_down()
            verb = Verb.RETRY if request < 54 else Verb.COMPLETE
            client.settle(client.reservations[-1], verb, request=request + 10)
            await trio.sleep(1)
            if request == 53:
                node.broker.begin_turn()
                node.broker.command(client, 5, partition, Redrive())
                node.broker.end_turn()
                await settle_down()
    traffic = await traffic_of(MemoryLog(virtual_env(1), world.disk))
    recorded = traffic.recorded
    assert (recorded.retried, recorded.dead, recorded.redriven, recorded.completed) == (2, 1, 1, 1)
    assert compare(recorded, play(traffic)) == []
    fewer = play(traffic, policy={"attempts_max": 1})
    assert (fewer.retried, fewer.dead, fewer.redriven, fewer.completed) == (0, 1, 1, 1)


async def test_what_was_sent_out_of_a_dead_queue_is_sent_out_again(autojump_clock: MockClock) -> None:
    """Ready, scheduled or dead there; what was reserved stayed. At home it comes when it came."""
    world = World()
    async with world.node(record_inputs=True) as node:
        morgue = await world.create(node, QueueName("morgue"))
        await world.create(node, dead_queue="morgue", attempts_max=1)
        client = Client(node, "s")
        client.produce(*[b"x"] * 5)
        await settle_down()
        client.reserve(5, request=50)
        await settle_down()
        client.settle(client.reservations[-1], Verb.DEAD, reason="bad")
        await trio.sleep(1)
        for request, verb in ((51, Verb.DEAD), (52, Verb.RETRY), (53, None)):
            client.reserve(1, request=request, queue=QueueName("morgue"))
            await settle_down()
            if verb is not None:
                later = {"due_at": Instant(node.env.clock.now() + 60 * SECOND)} if verb is Verb.RETRY else {}
                await trio.sleep(0.5)
                client.settle(client.reservations[-1], verb, request=request + 10, **later)
            await trio.sleep(0.5)
        node.broker.begin_turn()
        node.broker.command(client, 5, morgue, SendBack(author="me"))
        node.broker.end_turn()
        await trio.sleep(1)
        assert client.answer(5) == Done(4)
        client.reserve(9, request=70)
        await settle_down()
        client.settle(client.reservations[-1], request=71)
        await trio.sleep(1)
    store = MemoryLog(virtual_env(1), world.disk)
    traffic = await traffic_of(store, queue="morgue")
    assert (traffic.recorded.sent_back, traffic.recorded.timeline.reserved[-1]) == (4, 1)
    simulated = play(traffic)
    assert compare(traffic.recorded, simulated) == []
    assert simulated.timeline.waiting[-1] == 0
    home = await traffic_of(store, queue="q")
    assert (home.recorded.produced, home.recorded.completed, home.recorded.moved) == (9, 4, 5)
    assert compare(home.recorded, play(home)) == []
