"""Migrations, rights, refusals at the start, and the plans of the hot statement."""

from typing import Any

import attrs
import psycopg
import pytest
from psycopg import sql

from querator.core.ids import Instant, PartitionId
from querator.env.real import real_env
from querator.errors import ConfigError, LogUnavailable
from querator.log.postgres import PostgresLog, migrate, statements
from querator.log.postgres.checks import UNSAFE_DURABILITY, UNSAFE_ROLE, Facts, all_faults
from querator.log.postgres.connection import connect
from querator.log.store import Verdict
from tests.log.records import make_chain, make_record
from tests.postgres import APP_ROLE, OWNER_ROLE, Cluster, prepare

FINE = Facts(
    version=150_000,
    in_recovery=False,
    fsync=True,
    full_page_writes=True,
    synchronous_commit="on",
    time=Instant(1),
    backend_pid=1,
    has_schema=True,
    reads_system_identifier=True,
    role="app",
    is_superuser=False,
)


@pytest.fixture
def empty_database(cluster: Cluster) -> str:
    name = cluster.new_database()
    with cluster.admin() as admin:
        admin.execute(
            sql.SQL("alter database {} owner to {}").format(sql.Identifier(name), sql.Identifier(OWNER_ROLE))
        )
    return name


async def opening(cluster: Cluster, database: str, user: str = APP_ROLE, *unsafe: str) -> PostgresLog:
    log = PostgresLog(real_env(), cluster.dsn(database, user), unsafe=frozenset(unsafe))
    await log.open()
    await log.aclose()
    return log


# --- Migrations ----------------------------------------------------------------------------------


def test_installing_twice_does_nothing_the_second_time(cluster: Cluster, empty_database: str) -> None:
    conninfo = cluster.dsn(empty_database, OWNER_ROLE)
    assert [applied.number for applied in migrate.install(conninfo)] == [
        number for number, _, _ in statements.migrations()
    ]
    assert migrate.install(conninfo) == []


async def test_the_printed_script_makes_what_install_makes(cluster: Cluster, empty_database: str) -> None:
    assert migrate.script() == migrate.script()
    with psycopg.connect(cluster.dsn(empty_database, OWNER_ROLE), autocommit=True) as connection:
        connection.execute(migrate.script().encode())
        migrate.grant(connection, APP_ROLE)
    assert migrate.install(cluster.dsn(empty_database, OWNER_ROLE)) == []
    await opening(cluster, empty_database)


def test_a_migration_with_another_text_is_refused(cluster: Cluster, database: str) -> None:
    with cluster.admin(database) as admin:
        admin.execute("update querator.migration set checksum = 'x' where number = 1")
    with pytest.raises(ConfigError, match="different build"):
        migrate.install(cluster.dsn(database, OWNER_ROLE))


def test_a_newer_schema_is_refused_by_install(cluster: Cluster, database: str) -> None:
    with cluster.admin(database) as admin:
        admin.execute("insert into querator.migration (number, name, checksum) values (9999, 'x', 'x')")
    with pytest.raises(ConfigError, match="newer"):
        migrate.install(cluster.dsn(database, OWNER_ROLE))


# --- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "flag"),
    [
        ({"version": 130_012}, "version", ""),
        ({"in_recovery": True}, "recovery", ""),
        ({"fsync": False}, "fsync", UNSAFE_DURABILITY),
        ({"full_page_writes": False}, "full_page_writes", UNSAFE_DURABILITY),
        ({"synchronous_commit": "off"}, "synchronous_commit", UNSAFE_DURABILITY),
    ],
)
def test_an_unfit_server_is_a_fault(change: dict[str, Any], code: str, flag: str) -> None:
    (fault,) = attrs.evolve(FINE, **change).faults()
    assert (fault.code, fault.flag) == (code, flag)
    assert fault.remedy in str(fault)


@pytest.mark.parametrize("setting", ["on", "remote_write", "remote_apply", "local"])
def test_other_kinds_of_synchronous_commit_are_fine(setting: str) -> None:
    assert attrs.evolve(FINE, synchronous_commit=setting).faults() == []


async def test_the_application_role_opens_the_log_without_any_fault(cluster: Cluster, database: str) -> None:
    assert (await opening(cluster, database)).accepted_faults == []


async def test_a_database_without_the_schema_is_refused_with_the_remedy(
    cluster: Cluster, empty_database: str
) -> None:
    with pytest.raises(ConfigError, match="querator db install"):
        await opening(cluster, empty_database)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("insert into querator.migration (number, name, checksum) values (9999, 'x', 'x')", "version that"),
        ("delete from querator.migration", "querator db upgrade"),
    ],
)
async def test_an_unknown_schema_is_refused(
    cluster: Cluster, database: str, change: str, remedy: str
) -> None:
    with cluster.admin(database) as admin:
        admin.execute(change.encode())
    with pytest.raises(ConfigError, match=remedy):
        await opening(cluster, database, APP_ROLE, UNSAFE_DURABILITY, UNSAFE_ROLE)


@pytest.mark.parametrize("user", ["postgres", OWNER_ROLE])
async def test_a_role_that_could_change_history_is_refused_or_accepted_openly(
    cluster: Cluster, database: str, user: str
) -> None:
    with pytest.raises(ConfigError, match="--unsafe-role"):
        await opening(cluster, database, user)
    log = await opening(cluster, database, user, UNSAFE_ROLE)
    assert [fault.code for fault in log.accepted_faults] == ["role"]


async def test_a_role_without_its_rights_is_refused(cluster: Cluster, database: str) -> None:
    with cluster.admin(database) as admin:
        admin.execute(sql.SQL("revoke insert on querator.snapshot from {}").format(sql.Identifier(APP_ROLE)))
    with pytest.raises(ConfigError, match=r"INSERT on querator\.snapshot"):
        await opening(cluster, database)


async def test_synchronous_commit_off_is_refused_at_the_start_and_in_every_append(
    cluster: Cluster, database: str
) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    assert await log.append([make_record()]) == [Verdict.MINE]
    with cluster.admin(database) as admin:
        admin.execute(
            sql.SQL("alter role {} in database {} set synchronous_commit = off").format(
                sql.Identifier(APP_ROLE), sql.Identifier(database)
            )
        )
        admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s", (APP_ROLE,)
        )
    with pytest.raises(LogUnavailable, match="synchronous_commit is off"):
        await log.append([make_record(2)])
    with pytest.raises(ConfigError, match="--unsafe-durability"):
        await opening(cluster, database)
    assert [
        fault.code
        for fault in (await opening(cluster, database, APP_ROLE, UNSAFE_DURABILITY)).accepted_faults
    ] == ["synchronous_commit"]
    await log.aclose()


async def test_a_standby_is_refused() -> None:
    primary = Cluster.create()
    primary.start()
    prepare(primary)
    standby = primary.copy()
    standby.start()
    with pytest.raises(ConfigError, match="connect to the primary"):
        await opening(standby, "querator_template")
    standby.destroy()
    primary.destroy()


async def test_verify_names_all_faults(cluster: Cluster, database: str) -> None:
    connection = await connect(cluster.dsn(database, "postgres"), real_env())
    assert [fault.code for fault in await all_faults(connection)] == ["role"]
    connection.close()


# --- Rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "update querator.log set nonce = 0",
        "delete from querator.log",
        "truncate querator.log",
        "delete from querator.log_1",
        "truncate querator.log_2",
        "update querator.log_2 set nonce = 0",
        "drop table querator.log_1",
        "alter table querator.log_1 drop constraint sealed",
        "insert into querator.head values (1, 1, 1, 1, 1, '')",
        "insert into querator.bucket (number) values (3)",
        "delete from querator.head",
        "update querator.migration set checksum = ''",
        "select querator.create_bucket(3)",
        "create table querator.mine (x integer)",
    ],
)
async def test_the_application_role_cannot_change_history(
    cluster: Cluster, database: str, statement: str
) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    await log.roll()
    await log.aclose()
    with (
        psycopg.connect(cluster.dsn(database)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


async def test_a_sealed_bucket_takes_nothing_from_anybody(cluster: Cluster, database: str) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    await log.append([make_record()])
    await log.roll()
    await log.aclose()
    with cluster.admin(database) as admin, pytest.raises(psycopg.errors.CheckViolation):
        admin.execute(
            "insert into querator.log select partition, position + 1, nonce, written_at, item_min, item_max,"
            " bucket, version, previous_hash, hash, payload_checksum, inputs, events, payload"
            " from querator.log"
        )


# --- The shape of the work -----------------------------------------------------------------------


async def test_appends_leave_no_dead_rows_and_no_spilled_files(cluster: Cluster, database: str) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    chains = [make_chain(number, 20) for number in range(1, 9)]
    for step in range(20):
        records = [chain[step] for chain in chains]
        for record in records:
            record.payload = bytes(500_000)
        assert await log.append(records) == [Verdict.MINE] * 8
        assert await log.append(records[:1]) == [Verdict.MINE]
        if step == 10:
            await log.roll()
    await log.aclose()
    with cluster.admin(database) as admin:
        admin.execute("select pg_stat_force_next_flush()") if admin.info.server_version >= 150_000 else None
        changed = admin.execute(
            "select sum(n_tup_upd), sum(n_tup_del), sum(n_dead_tup) from pg_stat_user_tables"
            " where schemaname = 'querator' and relname like 'log%'"
        ).fetchone()
        assert changed == (0, 0, 0)
        spilled = admin.execute(
            "select temp_files from pg_stat_database where datname = current_database()"
        ).fetchone()
        assert spilled == (0,)


async def test_the_append_looks_up_predecessors_by_index(cluster: Cluster, database: str) -> None:
    """In a table that has grown since it was analysed last, and in a generic plan."""
    with cluster.admin(database) as admin:
        admin.execute("alter table querator.log_1 set (autovacuum_enabled = off)")
        admin.execute(
            "insert into querator.log select p, n, 1, 0, 0, 0, 1, 1, '', int8send(n), '', '', '', ''"
            " from generate_series(1, 20) p, generate_series(1, 500) n"
        )
        admin.execute("set plan_cache_mode = force_generic_plan")
        statement = statements.statement("append", bucket=1, identity="identity_full")
        admin.execute(b"prepare append as " + statement)
        arguments = ", ".join(["null"] * 16)
        rows = admin.execute(f"explain execute append({arguments})".encode()).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on log_1" not in plan, plan
    assert plan.count("log_1_pkey") >= 3, plan


async def test_an_idle_partition_costs_a_bucket_one_row(cluster: Cluster, database: str) -> None:
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    for number in range(1, 4):
        await log.append([make_record(number)])
    for _ in range(3):
        await log.roll()
    assert await log.partitions() == [PartitionId(number) for number in range(1, 4)]
    await log.aclose()
    with cluster.admin(database) as admin:
        assert admin.execute("select count(*) from querator.head").fetchone() == (3,)


async def test_a_reader_that_will_not_make_way_puts_the_rollover_off(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.admin(database) as admin:
        admin.execute("alter function querator.open_bucket(integer) set lock_timeout = '50ms'")
    log = PostgresLog(real_env(), cluster.dsn(database))
    await log.open()
    with psycopg.connect(cluster.dsn(database)) as reader:
        reader.execute("select count(*) from querator.log")
        with pytest.raises(LogUnavailable, match="lock timeout"):
            await log.roll()
        assert await log.append([make_record()]) == [Verdict.MINE]
    assert await log.roll() == 2
    await log.aclose()
