"""The log writer's lanes: trouble with one partition or one append is nobody else's.

Virtual time, real actors, a log in memory whose appends are held, slowed, refused and hidden by partition.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import hypothesis
import hypothesis.strategies as st
import pytest
import trio
from trio.testing import MockClock

from querator.actors import writer as writer_module
from querator.actors.partition import Condition, PartitionActor
from querator.actors.ports import Delivery
from querator.actors.writer import LogWriter
from querator.core.commands import Produce
from querator.core.demand import Demand
from querator.core.ids import PartitionId, Position, SessionId
from querator.core.limits import (
    APPEND_BYTES_MAX,
    APPEND_LANES,
    APPEND_PARTITIONS_MAX,
    APPEND_PATIENCE,
    APPEND_PAUSE,
    HOLD_TIMEOUT,
    PAUSE_PARTITIONS,
)
from querator.core.replies import Produced, Rejected
from querator.core.state import PartitionState
from querator.env import seconds
from querator.env.virtual import virtual_env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.codec import GENESIS
from querator.log.memory import MemoryLog
from querator.log.records import Record
from querator.log.rules import size_of
from querator.log.store import Verdict
from tests.actors.conftest import settle_down

PATIENCE = seconds(APPEND_PATIENCE)
PAUSE = seconds(APPEND_PAUSE)


class TroubledLog(MemoryLog):
    """A log with partitions that are busy, slow or stuck; it watches what the writer owes a store."""

    def __init__(self, lanes: int = APPEND_LANES) -> None:
        super().__init__(virtual_env(1))
        self.lanes = lanes
        self.busy: dict[int, None] = {}
        self.slow: dict[int, float] = {}
        """Seconds that an append with the partition takes."""
        self.stuck: dict[int, trio.Event] = {}
        self.refuse: list[Exception] = []
        """Of the appends to come, with nothing written."""
        self.hide: list[Exception] = []
        """Of the appends to come, with all written."""
        self.flying: Counter[int] = Counter()
        self.flights: list[list[int]] = []
        self.side_by_side = 0
        self.bytes_max = APPEND_BYTES_MAX

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        partitions = [record.partition for record in records]
        self.flights.append([int(partition) for partition in partitions])
        assert not any(self.flying[partition] for partition in partitions), "one in flight a partition"
        assert len(set(partitions)) == len(partitions)
        assert len(records) <= APPEND_PARTITIONS_MAX
        assert len(records) == 1 or sum(map(size_of, records)) <= self.bytes_max
        self.flying.update(partitions)
        self.side_by_side += 1
        assert self.side_by_side <= self.lanes
        try:
            return await self._append(records)
        finally:
            self.flying.subtract(partitions)
            self.side_by_side -= 1

    async def _append(self, records: Sequence[Record]) -> list[Verdict]:
        await trio.sleep(max((self.slow.get(record.partition, 0.0) for record in records), default=0.0))
        for record in records:
            if record.partition in self.stuck:
                await self.stuck[record.partition].wait()
        if self.refuse:
            raise self.refuse.pop(0)
        free = [record for record in records if record.partition not in self.busy]
        found = dict(zip((record.partition for record in free), await super().append(free), strict=True))
        if self.hide:
            raise self.hide.pop(0)
        return [found.get(record.partition, Verdict.BUSY) for record in records]


@attrs.define(eq=False)
class Office:
    """Actors of some partitions, and a producer of each."""

    log: TroubledLog
    writer: LogWriter
    actors: dict[int, PartitionActor]
    lost: dict[int, str]
    session: SessionId = SessionId("")
    generation: int = 0
    is_open: bool = True
    asked: int = 0
    answers: dict[int, object] = attrs.Factory(dict)
    deliveries: list[int] = attrs.Factory(list)
    """How many answers came together."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.deliveries.append(len(deliveries))
        for request, reply in deliveries:
            assert request not in self.answers, "one answer a request"
            self.answers[request] = reply

    def produce(self, *partitions: int, payload: bytes = b"x") -> list[int]:
        """One item to each, in one turn; the numbers of the requests."""
        requests = []
        for partition in partitions:
            actor = self.actors[partition]
            self.asked += 1
            requests.append(self.asked)
            actor.submit(self, self.asked, Produce([payload]))
            if actor.has_pending:
                self.writer.wake(actor)
        return requests

    def waiting(self, requests: Sequence[int]) -> list[int]:
        """Those that are not in the log yet."""
        return [request for request in requests if not isinstance(self.answers.get(request), Produced)]


def make_actor(
    office: Office, partition: int, *, tail: Position = Position(0), tail_hash: bytes = GENESIS
) -> None:
    office.actors[partition] = PartitionActor(
        PartitionState(PartitionId(partition)),
        tail=tail,
        tail_hash=tail_hash,
        queue="q",
        index=0,
        demand=Demand(),
        store_name="memory",
        session_of=lambda _: None,
    )


@asynccontextmanager
async def an_office(partitions: int, lanes: int = APPEND_LANES) -> AsyncIterator[Office]:
    """A writer at work for partitions 1 to ``partitions``."""
    log = TroubledLog(lanes)
    lost: dict[int, str] = {}

    def lose(actor: PartitionActor, reason: str) -> None:
        lost[actor.partition] = reason
        writer.forget(actor)

    writer = LogWriter(log, virtual_env(1), on_committed=lambda _: None, on_lost=lose)
    office = Office(log, writer, {}, lost)
    for partition in range(1, partitions + 1):
        make_actor(office, partition)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await settle_down()
        yield office
        nursery.cancel_scope.cancel()


async def at_once(office: Office, *partitions: int) -> bool:
    """Whether items to these are in the log before any time has passed."""
    began = trio.current_time()
    requests = office.produce(*partitions)
    await settle_down()
    assert trio.current_time() == began, "the clock must not jump here"
    return not office.waiting(requests)


# --- one append for all, while all is well -------------------------------------------------------


async def test_what_gathers_while_an_append_runs_is_the_next_append(mock_clock: MockClock) -> None:
    async with an_office(5) as office:
        office.log.stuck[1] = trio.Event()
        office.produce(1)
        await settle_down()
        gathered = [*office.produce(2, 3), *office.produce(4), *office.produce(3, 5)]
        await settle_down()
        assert office.log.flights == [[1]]
        office.log.stuck.pop(1).set()
        await settle_down()
        assert office.log.flights == [[1], [2, 3, 4, 5]]
        assert office.waiting(gathered) == []
        assert office.writer.is_idle


async def spread(office: Office) -> None:
    """An append of so many partitions that the next one waits for others, and the time that it took."""
    assert await at_once(office, *range(1, PAUSE_PARTITIONS + 1))


@pytest.mark.parametrize("lanes", [1, APPEND_LANES])
async def test_many_partitions_wait_for_one_another_a_moment(mock_clock: MockClock, lanes: int) -> None:
    """APPEND_PAUSE: from the beginning of one append to that of the next."""
    async with an_office(PAUSE_PARTITIONS, lanes) as office:
        await spread(office)
        assert not await at_once(office, 3)
        mock_clock.jump(PAUSE - 0.0005)
        assert not await at_once(office, 5, 7)
        assert len(office.log.flights) == 1
        mock_clock.jump(0.0005)
        await settle_down()
        assert office.log.flights[1:] == [[3, 5, 7]]
        mock_clock.jump(PAUSE)
        assert await at_once(office, 3), "what comes later does not wait"


async def test_the_wait_for_others_does_not_hold_up_who_flies_apart(mock_clock: MockClock) -> None:
    async with an_office(PAUSE_PARTITIONS + 1) as office:
        suspect = PAUSE_PARTITIONS + 1
        office.log.slow[suspect] = 2 * PATIENCE
        office.produce(suspect)
        await settle_down()
        mock_clock.jump(2 * PATIENCE)
        await settle_down()
        office.log.slow.clear()
        await spread(office)
        requests = office.produce(3)
        await settle_down()
        assert await at_once(office, suspect)
        assert office.waiting(requests) == requests
        mock_clock.jump(PAUSE)
        await settle_down()
        assert office.waiting(requests) == []


async def test_who_asked_many_partitions_hears_of_an_append_at_once(mock_clock: MockClock) -> None:
    async with an_office(3) as office:
        assert await at_once(office, 1, 2, 3)
        assert office.deliveries == [3]


async def test_an_append_has_so_many_bytes(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """APPEND_BYTES_MAX: what does not fit goes into another one, at the same time."""
    monkeypatch.setattr(writer_module, "APPEND_BYTES_MAX", 250_000)
    async with an_office(5) as office:
        office.log.bytes_max = 250_000
        requests = office.produce(1, 2, 3, 4, 5, payload=bytes(100_000))
        await settle_down()
        assert office.log.flights == [[1, 2], [3, 4], [5]]
        requests += office.produce(1, payload=bytes(300_000))
        await settle_down()
        assert office.waiting(requests) == []


# --- trouble is apart ----------------------------------------------------------------------------


async def test_an_append_that_hangs_holds_up_the_others_for_a_moment_and_then_not_at_all(
    mock_clock: MockClock,
) -> None:
    """APPEND_PATIENCE, once."""
    async with an_office(3) as office:
        office.log.stuck[1] = trio.Event()
        hanging = office.produce(1)
        await settle_down()
        others = office.produce(2)
        await settle_down()
        assert office.waiting(others) == others
        mock_clock.jump(PATIENCE)
        await settle_down()
        assert office.waiting(others) == []
        for _ in range(20):
            assert await at_once(office, 2, 3)
        assert office.waiting(hanging) == hanging
        office.log.stuck.pop(1).set()
        await settle_down()
        assert office.waiting(hanging) == []
        assert await at_once(office, 1, 2, 3)


async def test_a_busy_partition_flies_alone_and_delays_none_of_the_others(mock_clock: MockClock) -> None:
    async with an_office(4) as office:
        office.log.busy[1] = None
        blocked = office.produce(1)
        assert await at_once(office, 2, 3)
        for _ in range(20):
            mock_clock.jump(0.02)
            assert await at_once(office, 2, 3, 4)
        assert office.waiting(blocked) == blocked
        with_it = [flight for flight in office.log.flights if 1 in flight]
        assert len(with_it) > 3, "it is tried again"
        assert with_it[1:] == [[1]] * (len(with_it) - 1)
        office.log.busy.clear()
        mock_clock.jump(0.1)
        await settle_down()
        assert office.waiting(blocked) == []
        assert await at_once(office, 1, 2)
        assert office.log.flights[-1] == [1, 2], "and is one of all again"


async def test_the_slow_one_is_soon_told_from_those_that_flew_with_it(mock_clock: MockClock) -> None:
    """They share the lanes until it is alone in one."""
    everyone = range(1, 41)
    async with an_office(len(everyone)) as office:
        office.log.slow[7] = 1.0
        for _ in range(4):
            requests = office.produce(*everyone)
            await settle_down()
            for _ in range(20):
                mock_clock.jump(0.1)
                await settle_down()
            assert office.waiting(requests) == []
        office.produce(7)
        await settle_down()
        assert office.log.flights[-1] == [7]
        assert await at_once(office, *(partition for partition in everyone if partition != 7))


async def test_appends_that_hang_leave_a_lane_to_the_others(mock_clock: MockClock) -> None:
    """APPEND_LANES: however many suspects there are, and whenever they come."""
    async with an_office(40) as office:
        office.log.slow[40] = 2 * PATIENCE
        office.produce(40)
        await settle_down()
        mock_clock.jump(2 * PATIENCE)
        await settle_down()
        stuck = range(1, 31)
        for partition in stuck:
            office.log.busy[partition] = None
        requests = office.produce(*stuck)
        await settle_down()
        for partition in stuck:
            office.log.stuck[partition] = trio.Event()
        mock_clock.jump(0.02)
        await settle_down()
        assert office.log.side_by_side == APPEND_LANES - 1
        requests += office.produce(40)
        await settle_down()
        assert office.log.side_by_side == APPEND_LANES - 1
        for _ in range(5):
            mock_clock.jump(PAUSE)
            assert await at_once(office, *range(31, 40))
        office.log.busy.clear()
        for partition in stuck:
            heal(office.log, partition)
        for _ in range(10):
            mock_clock.jump(0.1)
            await settle_down()
        assert office.waiting(requests) == []


async def test_a_partition_has_one_record_in_flight_and_the_next_one_has_all_that_came_since(
    mock_clock: MockClock,
) -> None:
    async with an_office(2) as office:
        office.log.stuck[1] = trio.Event()
        requests = office.produce(1)
        for _ in range(5):
            mock_clock.jump(2 * PATIENCE)
            await settle_down()
            requests += office.produce(1)
        assert office.log.flights == [[1]]
        heal(office.log, 1)
        await settle_down()
        assert office.log.flights == [[1], [1]]
        assert office.waiting(requests) == []
        assert office.actors[1].ready == 6


async def test_a_store_with_one_lane_gets_one_append_after_the_other(mock_clock: MockClock) -> None:
    async with an_office(3, lanes=1) as office:
        office.log.stuck[1] = trio.Event()
        requests = office.produce(1)
        await settle_down()
        requests += office.produce(2, 3)
        mock_clock.jump(10 * PATIENCE)
        await settle_down()
        assert office.waiting(requests) == requests
        office.log.stuck.pop(1).set()
        await settle_down()
        assert office.waiting(requests) == []
        assert office.log.flights == [[1], [2, 3]]
        office.log.refuse.append(LogUnavailable("no space left"))
        requests = office.produce(1)
        await settle_down()
        requests += office.produce(2)
        mock_clock.jump(0.02)
        await settle_down()
        assert office.log.flights[2:] == [[1], [1, 2]]
        assert office.waiting(requests) == []


# --- what fails ----------------------------------------------------------------------------------


async def test_a_refused_append_is_sent_again_apart_and_the_store_is_not_pressed(
    mock_clock: MockClock,
) -> None:
    async with an_office(3) as office:
        office.log.refuse += [LogUnavailable("no space left")] * 2
        first = office.produce(1)
        await settle_down()
        assert office.actors[1].condition is Condition.HOLDING
        second = office.produce(2)
        await settle_down()
        assert office.log.flights == [[1]], "nobody is sent while the store refuses"
        for _ in range(10):
            mock_clock.jump(0.02)
            await settle_down()
        assert office.waiting(first + second) == []
        assert office.actors[1].is_open


async def test_a_partition_that_stays_busy_is_given_up_when_the_hold_ends(autojump_clock: MockClock) -> None:
    """HOLD_TIMEOUT: those who wait must learn something."""
    async with an_office(2) as office:
        office.log.busy[1] = None
        office.produce(1)
        await trio.sleep(1)
        refused = office.produce(1)
        assert isinstance(office.answers[refused[0]], Rejected)
        await trio.sleep(seconds(HOLD_TIMEOUT) + 1)
        assert list(office.lost) == [1]
        assert office.writer.is_idle


async def test_a_record_whose_actor_was_closed_is_not_sent_again_and_its_successor_waits_for_it(
    mock_clock: MockClock,
) -> None:
    """One in flight a partition, whoever sent it."""
    async with an_office(1) as office:
        office.log.stuck[1] = trio.Event()
        office.produce(1)
        await settle_down()
        office.writer.forget(office.actors[1])
        record = office.log.flights
        office.log.hide.append(AppendOutcomeUnknown("nobody heard"))
        make_actor(office, 1)
        office.produce(1)
        mock_clock.jump(1)
        await settle_down()
        assert record == [[1]]
        office.log.stuck.pop(1).set()
        await settle_down()
        mock_clock.jump(0.02)
        await settle_down()
        assert record == [[1], [1]]
        assert office.lost == {1: "another node owns the partition now"}, "the successor's, which is none"
        assert office.writer.is_idle


async def test_a_halted_partition_stays_halted_whatever_becomes_of_its_record(mock_clock: MockClock) -> None:
    async with an_office(1) as office:
        office.log.busy[1] = None
        office.produce(1)
        await settle_down()
        office.actors[1].halt("evidence")
        mock_clock.jump(1)
        await settle_down()
        assert office.actors[1].condition is Condition.HALTED
        assert office.actors[1].fault == "evidence"
        assert office.lost == {}
        assert office.writer.is_idle


# --- whatever happens ----------------------------------------------------------------------------

PARTITIONS = 5
partitions = st.integers(1, PARTITIONS)
troubles = st.one_of(
    st.tuples(st.sampled_from(("busy", "slow", "stuck", "well")), partitions),
    st.tuples(st.sampled_from(("refuse", "lose", "hide")), st.none()),
)
rounds = st.tuples(
    st.lists(troubles, max_size=2),
    st.lists(partitions, min_size=1, max_size=2 * PARTITIONS),
    st.sampled_from((0.0, 0.001, 0.03, 0.2, 1.5)),
)
Round: TypeAlias = "tuple[list[tuple[str, int | None]], list[int], float]"


def make_trouble(log: TroubledLog, kind: str, partition: int | None) -> None:
    if partition is not None:
        heal(log, partition)
        if kind == "busy":
            log.busy[partition] = None
        elif kind == "slow":
            log.slow[partition] = 0.3
        elif kind == "stuck":
            log.stuck[partition] = trio.Event()
    elif kind == "hide":
        log.hide.append(AppendOutcomeUnknown("written"))
    else:
        log.refuse.append(LogUnavailable("full") if kind == "refuse" else AppendOutcomeUnknown("lost"))


def heal(log: TroubledLog, partition: int) -> None:
    log.busy.pop(partition, None)
    log.slow.pop(partition, None)
    event = log.stuck.pop(partition, None)
    if event is not None:
        event.set()


@hypothesis.given(st.lists(rounds, min_size=1, max_size=20), st.sampled_from((1, 2, 3, APPEND_LANES)))
def test_in_any_trouble_each_partition_is_written_once_in_order_and_all_gets_in_when_it_is_over(
    script: list[Round], lanes: int
) -> None:
    """``TroubledLog`` watches the bounds and that a partition has one record in flight; the log refuses
    what is out of order."""

    async def main() -> None:
        async with an_office(PARTITIONS, lanes) as office:
            requests = []
            for trouble, partitions, pause in script:
                for kind, partition in trouble:
                    make_trouble(office.log, kind, partition)
                requests += office.produce(*partitions)
                await trio.sleep(pause)
            for partition in range(1, PARTITIONS + 1):
                heal(office.log, partition)
            office.log.refuse.clear()
            office.log.hide.clear()
            await trio.sleep(5)
            assert office.writer.is_idle
            assert office.lost == {}
            assert sorted(office.answers) == requests
            for partition, actor in office.actors.items():
                there = office.log.disk.partitions.get(PartitionId(partition))
                stored = 0 if there is None else len(there.records)
                assert actor.tail == stored
                assert actor.is_open
            items = sum(actor.ready for actor in office.actors.values())
            assert items == sum(isinstance(answer, Produced) for answer in office.answers.values())
            for _ in range(2):
                assert await at_once(office, *range(1, PARTITIONS + 1))
            assert office.log.flights[-1] == list(range(1, PARTITIONS + 1)), "nobody is suspect any more"

    trio.run(main, clock=MockClock(autojump_threshold=0))
