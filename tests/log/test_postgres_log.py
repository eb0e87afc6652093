"""The PostgreSQL log keeps the contract, on a real server."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from querator.core.ids import PartitionId, Position
from querator.env.real import real_env
from querator.log.postgres import PostgresLog
from querator.log.records import ChunkId
from querator.log.store import LogStore
from tests.log.log_contract import Fault, LogContract, LogHarness
from tests.postgres import Cluster, fresh_database, shared_cluster

FAULTS = {
    Fault.UNAVAILABLE: "raise exception 'no space left' using errcode = 'disk_full'",
    Fault.UNKNOWN_LOST: "perform pg_terminate_backend(pg_backend_pid())",
    # What a cancelled wait for synchronous replication looks like.
    Fault.UNKNOWN_WRITTEN: "raise warning 'committed locally, perhaps not elsewhere'",
}


class PostgresHarness(LogHarness):
    is_shared = True

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster = cluster
        self.database = database

    def admin(self) -> psycopg.Connection:
        return self.cluster.admin(self.database)

    async def open(self) -> LogStore:
        store = PostgresLog(real_env(), self.cluster.dsn(self.database))
        await store.open()
        return store

    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        """A trigger that strikes once: unlike a table, a sequence remembers through a rollback."""
        with self.admin() as connection:
            connection.execute("drop trigger if exists fault on querator.log")
            connection.execute("drop sequence if exists public.strikes")
            connection.execute("create sequence public.strikes")
            connection.execute(
                sql.SQL(
                    "create or replace function public.strike() returns trigger language plpgsql"
                    " security definer as $$ begin if nextval('public.strikes') = 1 then {}; end if;"
                    " return new; end $$"
                ).format(sql.SQL(FAULTS[fault]))
            )
            connection.execute(
                "create trigger fault before insert on querator.log for each row"
                " execute function public.strike()"
            )

    async def damage_snapshot(self, store: LogStore, partition: PartitionId, position: Position) -> None:
        with self.admin() as connection:
            connection.execute(
                "update querator.snapshot set head = set_byte(head, 0, get_byte(head, 0) # 1)"
                " where partition = %s and position = %s",
                (partition, position),
            )

    async def damage_chunk(self, store: LogStore, partition: PartitionId, chunk: ChunkId) -> None:
        with self.admin() as connection:
            connection.execute(
                "update querator.chunk set body = set_byte(body, 0, get_byte(body, 0) # 1)"
                " where partition = %s and segment = %s and position = %s",
                (partition, chunk.segment, chunk.position),
            )


class TestPostgresLog(LogContract):
    @pytest.fixture
    def harness(self) -> Iterator[LogHarness]:
        cluster = shared_cluster()
        with fresh_database(cluster) as database:
            yield PostgresHarness(cluster, database)
