"""The line of nodes: the first one may claim, the others stand by, in database time."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import psycopg
import pytest
import trio
from psycopg.errors import InsufficientPrivilege

from querator.core.ids import HOUR, SECOND, Duration
from querator.core.limits import CLOCK_ROUND_TRIP_MAX
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.lease import NodeTable
from querator.log.line import Role
from querator.log.postgres import PostgresLog
from querator.log.postgres.node import PostgresNodes
from querator.log.postgres.pool import Pool
from querator.log.postgres.statements import text
from tests.log.lease_contract import LeaseContract, LeaseHarness, lease
from tests.postgres import Cluster


class PostgresLeases:
    """Implements LeaseHarness."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster = cluster
        self.database = database
        self.pools: list[Pool] = []

    def table(self) -> NodeTable:
        self.pools.append(Pool(self.cluster.dsn(self.database), real_env(), 4, unsafe=frozenset()))
        return PostgresNodes(self.pools[-1])

    def expire(self, name: str, ago: timedelta = timedelta()) -> None:
        with self.cluster.admin(self.database) as admin:
            for update in (
                "update querator.node set lease_until = clock_timestamp() - %s where name = %s",
                "update querator.owner set lease_until = clock_timestamp() - %s where name = %s",
            ):
                admin.execute(update, (ago, name))

    def move_up(self, name: str) -> None:
        with self.cluster.admin(self.database) as admin:
            admin.execute("update querator.node set joined_at = 'epoch' where name = %s", (name,))

    def names(self) -> Sequence[str]:
        with self.cluster.admin(self.database) as admin:
            return [name for (name,) in admin.execute("select name from querator.node").fetchall()]


class TestPostgresLeases(LeaseContract):
    @pytest.fixture
    async def harness(self, cluster: Cluster, database: str) -> AsyncIterator[LeaseHarness]:
        made = PostgresLeases(cluster, database)
        yield made
        for pool in made.pools:
            pool.close()


async def wait_locked(cluster: Cluster, database: str) -> None:
    """Until a statement waits for another transaction."""
    with cluster.admin(database) as admin, trio.fail_after(60):
        while not admin.execute(
            "select from pg_stat_activity where datname = %s and wait_event_type = 'Lock'", (database,)
        ).fetchall():
            await trio.sleep(0.01)


async def test_a_renewal_that_has_not_committed_keeps_others_from_owning(
    cluster: Cluster, database: str
) -> None:
    """Nobody sees its row, and it is the first all the same: that the next one finds out by waiting."""
    nodes = PostgresNodes(Pool(cluster.dsn(database), real_env(), 1, unsafe=frozenset()))
    two = lease(nodes, "two")
    with psycopg.connect(cluster.dsn(database), cursor_factory=psycopg.RawCursor) as slow:
        slow.execute(text("renew_node"), ("one", 1, "http://one:2319", HOUR))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.renew)
            await wait_locked(cluster, database)
            assert two.standing().role is Role.STANDBY
            slow.commit()
    assert two.standing().role is Role.STANDBY
    standing = await two.renew()
    assert (standing.role, standing.owner_name) == (Role.STANDBY, "one")
    nodes.close()


async def test_without_a_database_the_standing_wears_off(cluster: Cluster, database: str) -> None:
    away = Pool("host=/nowhere port=1", real_env(), 1, unsafe=frozenset())
    one = lease(PostgresNodes(away), "one", lasts=Duration(60 * SECOND))
    with pytest.raises(LogUnavailable):
        await one.renew()
    assert one.standing().role is Role.STANDBY


async def test_nodes_have_the_secret_of_whoever_came_first(cluster: Cluster, database: str) -> None:
    """Also when they come at once; the role can put one, and change none."""
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    found: list[bytes] = []

    async def ask(fresh: bytes) -> None:
        found.append(await log.shared_secret("session", fresh))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, b"secret %d" % number)
    assert len(dict.fromkeys(found)) == 1
    assert await log.shared_secret("another", b"x") == b"x"
    await log.aclose()
    with psycopg.connect(cluster.dsn(database)) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute("update querator.secret set value = 'known'")


async def test_the_time_is_the_databases(cluster: Cluster, database: str) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    with cluster.admin(database) as admin:
        before = admin.execute("select extract(epoch from clock_timestamp()) * 1000000").fetchone()
        now = await told_at_last(log)
        after = admin.execute("select extract(epoch from clock_timestamp()) * 1000000").fetchone()
    assert before is not None
    assert after is not None
    assert before[0] <= now <= after[0] + CLOCK_ROUND_TRIP_MAX
    await log.aclose()


async def told_at_last(log: PostgresLog) -> int:
    """On a busy machine its answers may take too long for a while."""
    while True:
        try:
            return await log.time()
        except LogUnavailable:
            await trio.sleep(0.05)


async def test_a_time_that_takes_long_to_come_is_none(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("querator.log.postgres.store.CLOCK_ROUND_TRIP_MAX", -1)
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    with pytest.raises(LogUnavailable, match="too long to tell the time"):
        await log.time()
    await log.aclose()


async def test_a_name_that_another_boot_just_renewed_leaves_no_line(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one snapshot of a statement may show it: then nobody is known to be first."""
    nodes = PostgresNodes(Pool(cluster.dsn(database), real_env(), 1, unsafe=frozenset()))
    one = lease(nodes, "one")
    await one.renew()
    nodes.close()

    async def nothing(name: str, parameters: list[bytes]) -> list[tuple[bytes, ...]]:
        del name, parameters
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(nodes, "_run", nothing)
    assert (await one.renew()).role is Role.STANDBY
