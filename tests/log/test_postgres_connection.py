"""psycopg driven by trio: what is used of its private parts, and every way an answer can come."""

from collections.abc import AsyncIterator

import pytest
import trio

from querator.core.ids import MILLISECOND, SECOND, Duration
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.postgres import wire
from querator.log.postgres.classify import Meaning, classify
from querator.log.postgres.connection import PREPARED_MAX, Connection, connect
from tests.postgres import Cluster

SOON = Duration(60 * SECOND)


@pytest.fixture
async def connection(cluster: Cluster, database: str) -> AsyncIterator[Connection]:
    made = await connect(cluster.dsn(database), real_env())
    yield made
    made.close()


async def number(connection: Connection, statement: bytes, *parameters: bytes) -> int:
    rows = await connection.run(statement, parameters, within=SOON)
    assert rows.answer.completed, rows
    return wire.decode_int(rows.values[0][0] or b"")


async def test_rows_come_in_binary(connection: Connection) -> None:
    rows = await connection.run(
        b"select $1::bigint + 1, null, $2::bytea", [wire.encode_int8(41), b"\0x"], within=SOON
    )
    assert rows.values == [(wire.encode_int8(42), None, b"\0x")]
    assert classify(rows.answer) is Meaning.COMMITTED


@pytest.mark.parametrize("values", [[], [0], [1, -1, 2**63 - 1, -(2**63)], list(range(1000))])
async def test_arrays_of_integers_go_both_ways(connection: Connection, values: list[int]) -> None:
    rows = await connection.run(b"select $1::bigint[]", [wire.encode_int8s(values)], within=SOON)
    assert wire.decode_int8s(rows.values[0][0] or b"") == values


async def test_arrays_of_bytes_and_texts_arrive(connection: Connection) -> None:
    statement = (
        b"select ($1::bytea[])[2] || convert_to(($2::text[])[1], 'UTF8') || ($3::integer[])[2]::text::bytea"
    )
    parameters = [wire.encode_byteas([b"", b"\xff"]), wire.encode_texts(["ä"]), wire.encode_int4s([1, -2])]
    rows = await connection.run(statement, parameters, within=SOON)
    assert rows.values == [(b"\xff" + "ä".encode() + b"-2",)]


async def test_more_than_the_socket_holds_is_sent_and_received(connection: Connection) -> None:
    body = bytes(range(256)) * 40_000
    rows = await connection.run(b"select $1::bytea", [body], within=SOON)
    assert rows.values == [(body,)]


async def test_an_error_leaves_the_connection_usable(connection: Connection) -> None:
    rows = await connection.run(b"select 1/0", within=SOON)
    assert (rows.answer.severity, rows.answer.sqlstate) == ("ERROR", "22012")
    assert classify(rows.answer) is Meaning.NOT_WRITTEN
    assert await number(connection, b"select 7") == 7


async def test_a_notice_is_seen(connection: Connection) -> None:
    rows = await connection.run(b"do $$ begin raise warning 'careful'; end $$", within=SOON)
    assert rows.answer.notices == ("01000 careful",)
    assert classify(rows.answer) is Meaning.UNKNOWN
    assert (await connection.run(b"select 1", within=SOON)).answer.notices == ()


async def test_an_error_at_commit_is_the_answer_although_rows_came(cluster: Cluster, database: str) -> None:
    with cluster.admin(database) as admin:
        admin.execute("create table public.deferred (x integer)")
        admin.execute(
            "create function public.no() returns trigger language plpgsql as"
            " $$ begin raise exception 'not at commit either'; end $$"
        )
        admin.execute(
            "create constraint trigger no after insert on public.deferred deferrable initially deferred"
            " for each row execute function public.no()"
        )
    connection = await connect(cluster.dsn(database, "postgres"), real_env())
    rows = await connection.run(b"insert into public.deferred values (1) returning x", within=SOON)
    connection.close()
    assert classify(rows.answer) is Meaning.NOT_WRITTEN
    assert rows.answer.message == "not at commit either"


async def test_our_deadline_closes_the_connection(connection: Connection) -> None:
    rows = await connection.run(b"select pg_sleep(60)", within=Duration(50 * MILLISECOND))
    assert rows.answer.deadline_passed
    assert classify(rows.answer) is Meaning.UNKNOWN
    assert not connection.is_open


async def test_a_statement_that_takes_too_long_is_cancelled_and_its_answer_says_so(
    connection: Connection,
) -> None:
    """Severity ERROR: nothing was written, and the connection is as good as before."""
    short = Duration(50 * MILLISECOND)
    rows = await connection.run(b"select pg_sleep(300)", within=SOON, cancel_after=short)
    assert (rows.answer.severity, rows.answer.sqlstate) == ("ERROR", "57014")
    assert classify(rows.answer) is Meaning.NOT_WRITTEN
    assert await number(connection, b"select 1") == 1
    rows = await connection.run(b"select 2", within=SOON, cancel_after=SOON)
    assert rows.answer.completed


async def test_a_cancelled_caller_leaves_no_connection_in_doubt(connection: Connection) -> None:
    with trio.move_on_after(0.05) as scope:
        await connection.run(b"select pg_sleep(300)", within=SOON)
    assert scope.cancelled_caught
    assert not connection.is_open


async def test_a_terminated_backend_is_noticed(connection: Connection, cluster: Cluster) -> None:
    pid = connection.backend_pid
    with cluster.admin() as admin:
        admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    assert not connection.is_quiet()
    rows = await connection.run(b"select 1", within=SOON)
    assert classify(rows.answer) is Meaning.UNKNOWN
    assert not connection.is_open


async def test_statements_are_prepared_once(connection: Connection) -> None:
    for _ in range(3):
        rows = await connection.run(b"select 5", within=SOON, prepare=True)
        assert rows.values == [(wire.encode_int4(5),)]
    assert await number(connection, b"select count(*) from pg_prepared_statements") == 1


async def test_prepared_statements_are_bounded(connection: Connection) -> None:
    for value in range(PREPARED_MAX + 1):
        await connection.run(b"select %d" % value, within=SOON, prepare=True)
    assert await number(connection, b"select count(*) from pg_prepared_statements") == 1


async def test_a_prepared_statement_that_a_pooler_lost_is_sent_plainly(connection: Connection) -> None:
    await connection.run(b"select 5", within=SOON, prepare=True)
    await connection.run(b"deallocate all", within=SOON)
    rows = await connection.run(b"select 5", within=SOON, prepare=True)
    assert rows.values == [(wire.encode_int4(5),)]
    assert not connection.prepares


async def test_host_names_are_looked_up(cluster: Cluster, database: str) -> None:
    conninfo = cluster.dsn(database, tcp=True).replace("127.0.0.1", "localhost")
    connection = await connect(conninfo, real_env())
    assert await number(connection, b"select 3") == 3
    connection.close()


async def test_the_next_host_is_tried(cluster: Cluster, database: str) -> None:
    conninfo = cluster.dsn(database).replace(f"host={cluster.root}", f"host=/nowhere,{cluster.root}")
    connection = await connect(conninfo, real_env())
    assert await number(connection, b"select 3") == 3
    connection.close()


@pytest.mark.parametrize(
    "change", ["port=1", "host=no.such.host.invalid", "dbname=no_such_database", "nonsense=1"]
)
async def test_a_server_that_cannot_be_reached_is_unavailable_without_the_password(
    cluster: Cluster, database: str, change: str
) -> None:
    conninfo = f"{cluster.dsn(database)} password=hunter2 {change}"
    with pytest.raises(LogUnavailable) as raised:
        await connect(conninfo, real_env())
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(raised.value.__cause__)
