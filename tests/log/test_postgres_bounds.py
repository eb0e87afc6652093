"""The bounds of the PostgreSQL log: connections, waits and tries."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from querator.core.ids import Duration, PartitionId
from querator.core.limits import (
    APPEND_BLOCKED_WAIT,
    APPEND_CONNECTIONS,
    APPEND_LOCK_WAIT,
    APPEND_PARTITIONS_MAX,
    APPEND_TRIES_MAX,
    CLOCK_TRIES_MAX,
    CONNECT_TIMEOUT,
    QUERY_TIMEOUT,
    READ_CONNECTIONS,
)
from querator.env import seconds
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.postgres import PostgresLog
from querator.log.postgres.append import Appender, _Part
from querator.log.postgres.connection import connect
from querator.log.postgres.pool import Pool
from querator.log.store import Verdict
from tests.log.records import make_record
from tests.postgres import Cluster

ANY = Pool("", real_env(), 1, unsafe=frozenset())


@pytest.mark.parametrize(("pool", "most"), [("_writers", APPEND_CONNECTIONS), ("_readers", READ_CONNECTIONS)])
async def test_a_store_has_so_many_connections_and_who_needs_another_waits_for_one(
    cluster: Cluster, database: str, pool: str, most: int
) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    lent = 0
    give_back = trio.Event()

    async def borrow() -> None:
        nonlocal lent
        async with getattr(log, pool).borrow():
            lent += 1
            await give_back.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(most + 1):
            nursery.start_soon(borrow)
        with trio.fail_after(60):
            while lent < most:
                await trio.sleep(0.01)
        await wait_all_tasks_blocked(0.05)
        assert lent == most
        give_back.set()
    assert lent == most + 1
    await log.aclose()


def test_an_append_waits_less_for_a_partition_that_was_just_blocked() -> None:
    """APPEND_LOCK_WAIT at first; then it has a statement of its own, which waits APPEND_BLOCKED_WAIT."""
    appender = Appender(ANY, unsafe=frozenset())
    records = [make_record(partition=PartitionId(number)) for number in (1, 2, 3)]
    (part,) = appender._parts(records)
    assert (part.records, part.lock_wait) == (records, APPEND_LOCK_WAIT)
    appender._remember(PartitionId(2), Verdict.BUSY)
    parts = appender._parts(records)
    assert [(part.records, part.lock_wait) for part in parts] == [
        ([records[0], records[2]], APPEND_LOCK_WAIT),
        ([records[1]], APPEND_BLOCKED_WAIT),
    ]
    appender._remember(PartitionId(2), Verdict.MINE)
    assert len(appender._parts(records)) == 1


def test_a_statement_has_so_many_partitions() -> None:
    appender = Appender(ANY, unsafe=frozenset())
    records = [make_record(partition=PartitionId(number)) for number in range(1, APPEND_PARTITIONS_MAX + 2)]
    assert [len(part.records) for part in appender._parts(records[:-1])] == [APPEND_PARTITIONS_MAX]
    assert [len(part.records) for part in appender._parts(records)] == [APPEND_PARTITIONS_MAX, 1]


class Restless(Appender):
    """Met a rollover so many times."""

    rollovers_met = 0
    tries = 0

    async def _try(self, part: _Part, verdicts: dict[PartitionId, Verdict]) -> list[_Part]:
        await trio.lowlevel.checkpoint()
        self.tries += 1
        if self.rollovers_met:
            self.rollovers_met -= 1
            return [part]
        verdicts.update({record.partition: Verdict.MINE for record in part.records})
        return []


@pytest.mark.parametrize(
    ("rollovers", "verdict"), [(APPEND_TRIES_MAX, Verdict.MINE), (APPEND_TRIES_MAX + 1, Verdict.BUSY)]
)
async def test_an_append_is_tried_so_many_times_again(rollovers: int, verdict: Verdict) -> None:
    appender = Restless(ANY, unsafe=frozenset())
    appender.rollovers_met = rollovers
    assert await appender.append([make_record()]) == [verdict]
    assert appender.tries == APPEND_TRIES_MAX + 1


class Script:
    """A bound on round trips that these are within, or not, one after the other."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def __ge__(self, round_trip: object) -> bool:
        return self.answers.pop(0)


async def test_the_time_is_asked_for_so_often(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    late = [False] * (CLOCK_TRIES_MAX - 1)
    script = Script(*late, True, *late, False)
    monkeypatch.setattr("querator.log.postgres.store.CLOCK_ROUND_TRIP_MAX", script)
    assert await log.time()
    with pytest.raises(LogUnavailable, match="too long to tell the time"):
        await log.time()
    assert script.answers == []
    await log.aclose()


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT_TIMEOUT, for each host of a connection string."""
    assert seconds(CONNECT_TIMEOUT) == 10
    monkeypatch.setattr("querator.log.postgres.connection.CONNECT_TIMEOUT", Duration(100_000))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with pytest.raises(LogUnavailable, match=r"no answer from 127\.0\.0\.1 in 0\.1 s"):
        await connect(f"host=127.0.0.1 port={port}", real_env())
    await listener.aclose()


async def test_a_question_that_is_not_answered_is_given_up(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUERY_TIMEOUT, of all that is no append."""
    assert seconds(QUERY_TIMEOUT) == 60
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    with cluster.admin(database) as admin, admin.transaction():
        admin.execute("lock table querator.log_1 in access exclusive mode")
        monkeypatch.setattr("querator.log.postgres.store.QUERY_TIMEOUT", Duration(100_000))
        with pytest.raises(LogUnavailable):
            await log.tail(PartitionId(1))
    monkeypatch.undo()
    assert await log.tail(PartitionId(1)) is None
    await log.aclose()
