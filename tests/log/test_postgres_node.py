"""The line of nodes: the first one may claim, the others stand by, in database time."""

from collections.abc import AsyncIterator

import psycopg
import pytest
import trio
from psycopg.errors import InsufficientPrivilege

from querator.core.ids import HOUR, MILLISECOND, SECOND, Duration
from querator.core.limits import CLOCK_ROUND_TRIP_MAX
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.postgres import PostgresLog
from querator.log.postgres.node import NodeLease, Role
from querator.log.postgres.pool import Pool
from tests.postgres import Cluster

SHORT = Duration(200 * MILLISECOND)


@pytest.fixture
async def pool(cluster: Cluster, database: str) -> AsyncIterator[Pool]:
    made = Pool(cluster.dsn(database), real_env(), 4, unsafe=frozenset())
    yield made
    made.close()


def lease(pool: Pool, name: str, nonce: int = 1, *, lasts: Duration = HOUR) -> NodeLease:
    return NodeLease(pool, real_env(), name=name, address=f"http://{name}:2319", nonce=nonce, lease=lasts)


def expire(cluster: Cluster, database: str, name: str) -> None:
    with cluster.admin(database) as admin:
        admin.execute("update querator.node set lease_until = clock_timestamp() where name = %s", (name,))


async def test_the_first_in_line_owns_and_the_others_know_its_address(pool: Pool) -> None:
    one, two = lease(pool, "one"), lease(pool, "two")
    assert (await one.renew()).role is Role.OWNER
    standing = await two.renew()
    assert (standing.role, standing.owner_name, standing.owner_address) == (
        Role.STANDBY,
        "one",
        "http://one:2319",
    )
    assert (await one.renew()).role is Role.OWNER


async def test_the_longest_standing_is_first_whatever_its_name(pool: Pool) -> None:
    nodes = [lease(pool, name) for name in ("c", "a", "b")]
    for node in nodes:
        await node.renew()
    await nodes[0].leave()
    assert (await nodes[2].renew()).owner_name == "a"
    assert (await nodes[1].renew()).role is Role.OWNER


async def test_a_node_that_leaves_is_followed_at_once(pool: Pool) -> None:
    one, two = lease(pool, "one"), lease(pool, "two")
    await one.renew()
    await two.renew()
    await one.leave()
    assert one.standing().role is Role.STANDBY
    assert (await two.renew()).role is Role.OWNER


async def test_a_node_that_was_silent_too_long_joins_again_at_the_end(
    pool: Pool, cluster: Cluster, database: str
) -> None:
    one, two = lease(pool, "one"), lease(pool, "two")
    await one.renew()
    await two.renew()
    expire(cluster, database, "one")
    assert (await two.renew()).role is Role.OWNER
    standing = await one.renew()
    assert (standing.role, standing.owner_name) == (Role.STANDBY, "two")


async def test_a_silent_node_that_nobody_followed_owns_again(
    pool: Pool, cluster: Cluster, database: str
) -> None:
    one = lease(pool, "one")
    await one.renew()
    expire(cluster, database, "one")
    assert (await one.renew()).role is Role.OWNER


async def test_an_owner_stops_believing_before_its_lease_is_over(pool: Pool) -> None:
    one = lease(pool, "one", lasts=SHORT)
    await one.renew()
    assert one.standing().role is Role.OWNER
    await trio.sleep(SHORT / 1_000_000)
    assert one.standing().role is Role.STANDBY


async def test_another_boot_with_the_same_name_waits_until_the_first_is_gone(
    pool: Pool, cluster: Cluster, database: str
) -> None:
    first, second = lease(pool, "one", 1), lease(pool, "one", 2)
    await first.renew()
    assert (await second.renew()).role is Role.STANDBY
    await second.leave()
    assert (await first.renew()).role is Role.OWNER
    expire(cluster, database, "one")
    assert (await second.renew()).role is Role.OWNER
    assert (await first.renew()).role is Role.STANDBY


async def test_a_standby_takes_over_when_the_owner_is_gone(
    pool: Pool, cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("querator.log.postgres.node.NODE_RENEWAL", Duration(10 * MILLISECOND))
    one, two = lease(pool, "one"), lease(pool, "two", lasts=SHORT)
    await one.renew()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.wait_until_owner)
            await trio.sleep(0.05)
            expire(cluster, database, "one")
    assert two.standing().role is Role.OWNER


async def test_without_a_database_the_standing_wears_off(cluster: Cluster, database: str) -> None:
    away = Pool("host=/nowhere port=1", real_env(), 1, unsafe=frozenset())
    one = lease(away, "one", lasts=Duration(60 * SECOND))
    with pytest.raises(LogUnavailable):
        await one.renew()
    assert one.standing().role is Role.STANDBY


async def test_nodes_long_gone_are_forgotten(pool: Pool, cluster: Cluster, database: str) -> None:
    for name in ("one", "two"):
        await lease(pool, name).renew()
    with cluster.admin(database) as admin:
        admin.execute(
            "update querator.node set lease_until = clock_timestamp() - interval '2 days' where name = 'one'"
        )
        await lease(pool, "two").forget_the_gone()
        assert admin.execute("select name from querator.node").fetchall() == [("two",)]


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
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the one snapshot of a statement may show it: then nobody is known to be first."""
    one = lease(pool, "one")
    await one.renew()

    async def nothing(name: str, parameters: list[bytes]) -> list[tuple[bytes, ...]]:
        del name, parameters
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(one, "_run", nothing)
    assert (await one.renew()).role is Role.STANDBY
