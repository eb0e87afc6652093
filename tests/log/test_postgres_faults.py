"""The unknown path, with real faults: what was acknowledged is never lost, and sending again decides.

The server of this module is its own, because it is killed. Long runs of the same are marked ``long``
and print their ledger.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import psycopg
import pytest
import trio

from querator.core.ids import MILLISECOND, Duration, PartitionId, Position
from querator.core.limits import READ_BYTES_MAX
from querator.env.real import real_env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.postgres import PostgresLog, append
from querator.log.records import Record
from querator.log.store import Verdict
from tests.broken_disks import SMALL_DISK_SETTINGS, NotHere, fill, fsync_switch, small_disk
from tests.log.records import make_chain, make_record
from tests.log.test_postgres_node import wait_locked
from tests.postgres import Cluster, fresh_database, own_cluster, prepare

ONE = PartitionId(1)
PARTITIONS = 8
PATIENCE_SECONDS = 60.0

GATE = """
    create table public.opened ();
    grant select on public.opened to public;
    create function public.wait_at_commit() returns trigger language plpgsql as
        $$ begin
            while not exists (select from public.opened) loop perform pg_sleep(0.01); end loop;
            return null;
        end $$;
    create constraint trigger wait_at_commit after insert on querator.log_1
        deferrable initially deferred for each row when (new.partition = 1)
        execute function public.wait_at_commit();
"""
"""Commits of partition 1 wait until there is a row."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    cluster.start_if_ended()
    with fresh_database(cluster) as name:
        yield name


async def open_log(cluster: Cluster, database: str) -> PostgresLog:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    return log


async def append_surely(log: PostgresLog, record: Record) -> Verdict:
    """Send the same record until the answer is final."""
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            try:
                (verdict,) = await log.append([record])
            except (AppendOutcomeUnknown, LogUnavailable):
                await trio.sleep(0.02)
                continue
            if verdict is not Verdict.BUSY:
                return verdict


async def append_until_it_fails(log: PostgresLog, record: Record) -> None:
    """A server says that it has a setting before it heeds it."""
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            await log.append([record])


async def positions(log: PostgresLog, partition: PartitionId = ONE) -> list[int]:
    records = await log.read(
        partition, Position(1), records_max=100_000, bytes_max=READ_BYTES_MAX, payloads=False
    )
    return [record.position for record in records]


# --- Commits that land later ---------------------------------------------------------------------


class Gate:
    """Commits of partition 1 wait at it, and land when it is opened, whoever is still there to hear of it."""

    def __init__(self, admin: psycopg.Connection) -> None:
        self._admin = admin
        admin.execute(GATE.encode())

    def waiting(self) -> list[int]:
        """The backends that are at such a commit."""
        rows = self._admin.execute(
            "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        )
        return [pid for (pid,) in rows.fetchall()]

    def open(self) -> None:
        self._admin.execute("insert into public.opened default values")

    async def leave_there(self, log: PostgresLog, record: Record) -> int:
        """Give up an append that is at its commit; the backend that goes on with it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(append, "APPEND_TIMEOUT", Duration(100 * MILLISECOND))
            while not (waiting := self.waiting()):
                with pytest.raises(AppendOutcomeUnknown):
                    await log.append([record])
        return waiting[0]


async def test_a_commit_that_lands_after_the_socket_was_cut_is_found_by_sending_again(
    cluster: Cluster, database: str
) -> None:
    with cluster.admin(database) as admin:
        gate = Gate(admin)
        log = await open_log(cluster, database)
        record = make_record()
        await gate.leave_there(log, record)
        assert await positions(log) == [], "a naive look shows nothing, and is wrong"
        (verdict,) = await log.append([record])
        assert verdict is Verdict.BUSY, "the zombie's insert is waited for, not overtaken"
        gate.open()
    assert await append_surely(log, record) is Verdict.MINE
    assert await positions(log) == [1]
    await log.aclose()


async def test_a_rival_of_a_commit_that_lands_late_loses(cluster: Cluster, database: str) -> None:
    verdicts: list[Verdict] = []

    async def append_as_rival() -> None:
        verdicts.append(await append_surely(rival, make_record(nonce=8)))

    with cluster.admin(database) as admin:
        gate = Gate(admin)
        log, rival = await open_log(cluster, database), await open_log(cluster, database)
        await gate.leave_there(log, make_record())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append_as_rival)
            await wait_locked(cluster, database)
            assert verdicts == []
            gate.open()
    assert verdicts == [Verdict.NOT_MINE]
    assert await append_surely(log, make_record()) is Verdict.MINE
    await log.aclose()
    await rival.aclose()


async def test_a_blocked_partition_delays_none_of_its_neighbours(cluster: Cluster, database: str) -> None:
    """A backend is stopped in the middle of its insert: only that partition is busy, until it goes on."""
    with cluster.admin(database) as admin:
        gate = Gate(admin)
        log = await open_log(cluster, database)
        backend = await gate.leave_there(log, make_record())
        os.kill(backend, signal.SIGSTOP)
        try:
            chains = [make_chain(number, 3) for number in range(2, 22)]
            for step in range(3):
                verdicts = await log.append([make_record(), *(chain[step] for chain in chains)])
                assert verdicts == [Verdict.BUSY] + [Verdict.MINE] * 20
            statements = log.counts.statements
            await log.append([make_record(), *(make_record(partition=number) for number in range(30, 50))])
            assert log.counts.statements == statements + 2, "the blocked one is sent apart, the rest together"
        finally:
            os.kill(backend, signal.SIGCONT)
        gate.open()
    assert await append_surely(log, make_record()) is Verdict.MINE
    await log.aclose()


# --- Replication ---------------------------------------------------------------------------------


async def test_a_cancelled_replication_wait_is_not_acknowledged_by_looking_again(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is visible and may be on no standby: finding it there is no proof either."""
    log = await open_log(cluster, database)
    records = make_chain(1, 2)
    assert await log.append([records[0]]) == [Verdict.MINE]
    with cluster.admin() as admin:

        def configure(standbys: str) -> None:
            admin.execute(f"alter system set synchronous_standby_names = '{standbys}'".encode())
            admin.execute("select pg_reload_conf()")

        async def cancel_the_wait() -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                while not admin.execute(
                    "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
                ).fetchall():
                    await trio.sleep(0.01)

        configure("nobody")
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                while admin.execute("show synchronous_standby_names").fetchone() != ("nobody",):
                    await trio.sleep(0.01)
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_the_wait)
                    with pytest.raises(AppendOutcomeUnknown, match="synchronous replication"):
                        await append_until_it_fails(log, records[1])
            assert await positions(log) == [1, 2]
        finally:
            configure("")
    assert await append_surely(log, records[1]) is Verdict.MINE
    await log.aclose()


# --- Kills ---------------------------------------------------------------------------------------


@attrs.define
class Ledger:
    """What a hammered log came to."""

    acknowledged: dict[tuple[int, int], bytes] = attrs.field(factory=dict)
    unknown: int = 0
    unavailable: int = 0


async def hammer(log: PostgresLog, ledger: Ledger, until: trio.Event) -> None:
    """Append to all partitions together, without pause; after a failure send the very same records."""
    chains = {number: make_chain(number, 1)[0] for number in range(1, PARTITIONS + 1)}
    while not until.is_set():
        pending = list(chains.values())
        try:
            verdicts = await log.append(pending)
        except AppendOutcomeUnknown:
            ledger.unknown += 1
            continue
        except LogUnavailable:
            ledger.unavailable += 1
            await trio.sleep(0.01)
            continue
        for record, verdict in zip(pending, verdicts, strict=True):
            assert verdict is not Verdict.NOT_MINE, "nobody else is here"
            if verdict is Verdict.MINE:
                ledger.acknowledged[record.partition, record.position] = record.hash
                chains[record.partition] = make_chain(record.partition, 1, after=record)[0]


async def check_ledger(log: PostgresLog, ledger: Ledger) -> None:
    """All that was acknowledged is there, dense, and nothing else but what was under way."""
    found: dict[tuple[int, int], bytes] = {}
    for number in range(1, PARTITIONS + 1):
        records = await log.read(
            PartitionId(number), Position(1), records_max=1_000_000, bytes_max=READ_BYTES_MAX, payloads=False
        )
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        found.update({(number, record.position): record.hash for record in records})
    lost = {key for key, digest in ledger.acknowledged.items() if found.get(key) != digest}
    assert lost == set()
    assert len(found) - len(ledger.acknowledged) <= PARTITIONS


def kill_a_backend(cluster: Cluster, database: str) -> None:
    with cluster.admin() as admin:
        rows = admin.execute(
            "select pid from pg_stat_activity where datname = %s order by state <> 'active', random()",
            (database,),
        ).fetchall()
    if rows:
        os.kill(rows[0][0], signal.SIGKILL)
        # Crash recovery has begun when the postmaster has seen it; wait until it is over.
        cluster.wait_ready()


def terminate_backends(cluster: Cluster, database: str) -> None:
    with cluster.admin() as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (database,)
        )


def kill_the_server(cluster: Cluster, database: str) -> None:
    cluster.kill()
    cluster.start()


def stop_at_once(cluster: Cluster, database: str) -> None:
    cluster.stop(signal.SIGQUIT)
    cluster.start()


KILLS: dict[str, Callable[[Cluster, str], None]] = {
    "backend killed": kill_a_backend,
    "backends terminated": terminate_backends,
    "server killed": kill_the_server,
    "immediate stop": stop_at_once,
}


@pytest.mark.parametrize(
    "times", [pytest.param(3, id="short"), pytest.param(50, id="long", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("kind", KILLS)
@pytest.mark.timeout(600)
async def test_kills_lose_nothing_acknowledged(
    cluster: Cluster, database: str, kind: str, times: int
) -> None:
    log = await open_log(cluster, database)
    ledger, enough = Ledger(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hammer, log, ledger, enough)
        for _ in range(times):
            before = len(ledger.acknowledged)
            with trio.fail_after(PATIENCE_SECONDS):
                while len(ledger.acknowledged) < before + 10 * PARTITIONS:
                    await trio.sleep(0.005)
            await trio.to_thread.run_sync(KILLS[kind], cluster, database)
        before = len(ledger.acknowledged)
        with trio.fail_after(PATIENCE_SECONDS):
            while len(ledger.acknowledged) < before + PARTITIONS:
                await trio.sleep(0.005)
        enough.set()
    await check_ledger(log, ledger)
    await log.aclose()
    assert ledger.unknown + ledger.unavailable > 0, "no kill was felt"
    print(f"{kind}: {times} times, {len(ledger.acknowledged)} acknowledged, {ledger.unknown} unknown, 0 lost")


# --- Disks ---------------------------------------------------------------------------------------


@pytest.fixture
def failing_fsync() -> Iterator[tuple[Cluster, Path]]:
    """A server whose fsync fails while a file is there."""
    made = Cluster.create()
    try:
        switch, environment = fsync_switch(made)
    except NotHere as reason:
        pytest.skip(str(reason))
    made.start(environment=environment)
    prepare(made)
    yield made, switch
    switch.unlink(missing_ok=True)
    made.destroy()


async def test_a_failed_fsync_is_an_unknown_outcome(failing_fsync: tuple[Cluster, Path]) -> None:
    cluster, switch = failing_fsync
    log = await open_log(cluster, "querator_template")
    records = make_chain(1, 2)
    assert await log.append([records[0]]) == [Verdict.MINE]
    switch.touch()
    with pytest.raises(AppendOutcomeUnknown):
        await log.append([records[1]])
    switch.unlink()
    # Where it could not even write its last checkpoint, it has ended, or will in a moment.
    cluster.start_if_ended()
    assert await append_surely(log, records[1]) is Verdict.MINE
    assert await positions(log) == [1, 2]
    await log.aclose()


@pytest.fixture
def small_server() -> Iterator[Cluster]:
    """A server on a small file system of its own."""
    try:
        with small_disk() as root:
            made = Cluster.create(root)
            made.start(SMALL_DISK_SETTINGS)
            prepare(made)
            yield made
            made.stop()
    except NotHere as reason:
        pytest.skip(str(reason))


async def test_a_full_disk_writes_nothing_and_heals(small_server: Cluster) -> None:
    log = await open_log(small_server, "querator_template")
    records = make_chain(1, 2)
    assert await log.append([records[0]]) == [Verdict.MINE]
    large = make_record(1, 2, records[0].hash, payload=os.urandom(3_000_000))
    ballast = fill(small_server.root, leaving=300_000)
    with pytest.raises((LogUnavailable, AppendOutcomeUnknown)):
        await log.append([large])
    ballast.unlink()
    small_server.start_if_ended()
    assert await append_surely(log, large) is Verdict.MINE
    assert await positions(log) == [1, 2]
    await log.aclose()


# --- Failover ------------------------------------------------------------------------------------


async def test_after_a_failover_nothing_is_appended_before_the_tail_was_read_anew() -> None:
    """A standby that lags is promoted: the old owner is refused where it lost data and where it did not."""
    primary = Cluster.create()
    primary.start({"hot_standby": "on", "wal_keep_size": "64MB"})
    prepare(primary)
    log = await open_log(primary, "querator_template")
    lagging, safe = make_chain(1, 4), make_chain(2, 2)
    for record in (safe[0], *lagging[:2]):
        assert await log.append([record]) == [Verdict.MINE]
    assert (await log.tail(PartitionId(2))) is not None

    standby = primary.copy()
    assert await log.append([lagging[2]]) == [Verdict.MINE]
    primary.kill()
    standby.port = primary.port
    standby.start()
    standby.promote()

    # The clients' address leads to the new primary.
    link = primary.root / f".s.PGSQL.{primary.port}"
    link.unlink(missing_ok=True)
    link.symlink_to(standby.root / f".s.PGSQL.{standby.port}")

    assert await append_surely(log, lagging[3]) is Verdict.NOT_MINE
    assert await append_surely(log, safe[1]) is Verdict.NOT_MINE
    assert log.counts.other_server > 0
    tail = await log.tail(PartitionId(2))
    assert tail is not None
    assert tail.hash == safe[0].hash
    assert await append_surely(log, safe[1]) is Verdict.MINE
    lost = await log.tail(ONE)
    assert lost is not None
    assert lost.position == 2, "acknowledged record 3 is gone: for the witness to notice"
    await log.aclose()
    standby.destroy()
    primary.destroy()
