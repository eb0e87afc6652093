"""A connection to PostgreSQL that waits the way trio does.

psycopg's protocol logic is in generators that yield what they wait for; here trio waits. That is
private to psycopg, so its minor version is pinned and tests/log/test_postgres_connection.py
guards what is used of it. A connection belongs to one task at a time.
"""

import select
from collections.abc import Generator, Sequence
from typing import Final, TypeVar

import attrs
import psycopg
import trio
from psycopg import pq
from psycopg._conninfo_attempts import conninfo_attempts
from psycopg._enums import Ready, Wait
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.generators import cancel as cancel_generator
from psycopg.generators import connect as connect_generator
from psycopg.generators import execute as execute_generator
from psycopg.pq.abc import PGconn, PGresult

from querator import telemetry
from querator.core.ids import Duration
from querator.core.limits import CONNECT_TIMEOUT
from querator.env import Env, seconds
from querator.errors import LogUnavailable
from querator.log.postgres.classify import Answer

T = TypeVar("T")

PREPARED_MAX: Final = 32
"""Prepared statements of one connection; each bucket brings new ones."""
_BINARY: Final = pq.Format.BINARY
_DONE: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY)
_SEVERITIES: Final = ("ERROR", "FATAL", "PANIC")
_NO_SUCH_PREPARED_STATEMENT: Final = "26000"


@attrs.frozen
class Rows:
    """An answer and, when it completed, the rows in PostgreSQL's binary format."""

    answer: Answer
    values: list[tuple[bytes | None, ...]] = attrs.field(factory=list, repr=False)


class Connection:
    """One session of a server, or of a pooler in front of it."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._prepared: dict[bytes, bytes] = {}
        self._prepares = 0
        self._notices: list[str] = []
        self.prepares = True
        """Whether prepared statements may be used: not behind a pooler."""
        self.is_open = True
        self._cancel_after: Duration | None = None
        pgconn.notice_handler = self._take_notice

    @property
    def backend_pid(self) -> int:
        """As told at the start; a pooler tells an invented one."""
        return self._pgconn.backend_pid

    async def run(
        self,
        statement: bytes,
        parameters: Sequence[bytes | None] = (),
        *,
        within: Duration,
        prepare: bool = False,
        cancel_after: Duration | None = None,
    ) -> Rows:
        """Run one autocommit statement with parameters in binary format, within a time.

        The server is asked to cancel it when it takes longer than ``cancel_after``; its answer is waited
        for all the same, and says what became of it.

        Never raises for what the server or the network does: the answer tells. The connection is
        closed when the answer leaves its state in doubt, and when the caller is cancelled.
        """
        self._notices.clear()
        self._cancel_after = cancel_after
        with trio.move_on_after(seconds(within)):
            try:
                return await self._run(statement, parameters, prepare=prepare and self.prepares)
            except psycopg.Error as error:
                self.close()
                return Rows(Answer(False, message=str(error), notices=tuple(self._notices)))
            except OSError as error:
                self.close()
                return Rows(Answer(False, message=repr(error), notices=tuple(self._notices)))
            except BaseException:
                self.close()
                raise
        message = f"no answer in {seconds(within):g} s"
        return Rows(Answer(False, message=message, notices=tuple(self._notices), deadline_passed=True))

    async def _run(self, statement: bytes, parameters: Sequence[bytes | None], *, prepare: bool) -> Rows:
        formats = [_BINARY] * len(parameters)
        if prepare:
            name = self._prepared.get(statement)
            if name is None:
                name, refused = await self._prepare(statement)
                if refused is not None:
                    return refused
            self._pgconn.send_query_prepared(name, parameters, formats, _BINARY)
            rows = self._rows(await self._execute())
            if rows.answer.sqlstate != _NO_SUCH_PREPARED_STATEMENT or rows.answer.severity != "ERROR":
                return rows
            # A pooler gave us another session. Nothing was written.
            self.prepares = False
            self._prepared.clear()
        self._pgconn.send_query_params(statement, parameters, None, formats, _BINARY)
        return self._rows(await self._execute())

    async def _prepare(self, statement: bytes) -> tuple[bytes, Rows | None]:
        if len(self._prepared) >= PREPARED_MAX:
            self._pgconn.send_query_params(b"deallocate all", None)
            await self._execute()
            self._prepared.clear()
        self._prepares += 1
        name = b"querator_%d" % self._prepares
        self._pgconn.send_prepare(name, statement)
        rows = self._rows(await self._execute())
        if not rows.answer.completed or rows.answer.severity is not None:
            return name, rows
        self._prepared[statement] = name
        return name, None

    async def _execute(self) -> list[PGresult]:
        waiting = execute_generator(self._pgconn)
        descriptor = self._pgconn.socket
        try:
            wanted = next(waiting)
            while True:
                wanted = waiting.send(await self._ready(descriptor, wanted))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # a generator's return value

    async def _ready(self, descriptor: int, wanted: Wait) -> Ready:
        if self._cancel_after is not None:
            with trio.move_on_after(seconds(self._cancel_after)):
                return await _wait(descriptor, wanted)
            self._cancel_after = None
            await self._cancel()
        return await _wait(descriptor, wanted)

    async def _cancel(self) -> None:
        """Ask; whether it is heeded, the answer to the statement shows."""
        try:
            asking = self._pgconn.cancel_conn()
            asking.start()
            await _drive(cancel_generator(asking))
        except (psycopg.Error, OSError) as error:
            telemetry.emit("log.cancel.failed", error=str(error))

    def _rows(self, results: list[PGresult]) -> Rows:
        """Read the results; an error of any is the answer (a commit can fail after the rows came)."""
        values: list[tuple[bytes | None, ...]] = []
        worst: PGresult | None = None
        for result in results:
            if result.status not in _DONE:
                worst = result
                continue
            columns = range(result.nfields)
            values.extend(
                tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)
            )
        if self._pgconn.status != pq.ConnStatus.OK:
            self.close()
        if worst is None:
            return Rows(Answer(bool(results), notices=tuple(self._notices)), values)
        severity = _field(worst, pq.DiagnosticField.SEVERITY_NONLOCALIZED)
        if severity not in _SEVERITIES or severity != "ERROR":
            self.close()
        return Rows(
            Answer(
                False,
                severity=severity,
                sqlstate=_field(worst, pq.DiagnosticField.SQLSTATE),
                message=_field(worst, pq.DiagnosticField.MESSAGE_PRIMARY) or worst.get_error_message(),
                notices=tuple(self._notices),
            )
        )

    def _take_notice(self, result: PGresult) -> None:
        sqlstate = _field(result, pq.DiagnosticField.SQLSTATE)
        message = _field(result, pq.DiagnosticField.MESSAGE_PRIMARY)
        self._notices.append(f"{sqlstate} {message}")

    def is_quiet(self) -> bool:
        """Whether an idle connection still looks alive: nothing came since, not even a goodbye."""
        if not self.is_open or self._pgconn.status != pq.ConnStatus.OK:
            return False
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Cut the connection; the server may still be running what was sent."""
        if self.is_open:
            self.is_open = False
            if self._pgconn.status == pq.ConnStatus.OK:
                trio.lowlevel.notify_closing(self._pgconn.socket)
            self._pgconn.finish()


async def connect(conninfo: str, env: Env) -> Connection:
    """Open a connection, trying each host and address of ``conninfo`` in turn.

    Raises:
        LogUnavailable: none of them can be reached, or the server refuses; the text has no password.
    """
    try:
        # Looks up host names, which blocks.
        attempts = await env.threads.run(list, conninfo_attempts(conninfo_to_dict(conninfo)))
    except psycopg.Error as error:
        raise LogUnavailable(f"PostgreSQL: {error}") from error
    failure = "no host to connect to"
    for attempt in attempts:
        with trio.move_on_after(seconds(CONNECT_TIMEOUT)):
            try:
                generator = connect_generator(make_conninfo("", **attempt))
                return Connection(await _drive(generator))
            except psycopg.Error as error:
                failure = str(error)
                continue
        failure = f"no answer from {attempt.get('host')} in {seconds(CONNECT_TIMEOUT):g} s"
    raise LogUnavailable(f"PostgreSQL: {failure}")


async def _drive(generator: Generator[tuple[int, Wait], Ready, T]) -> T:
    try:
        descriptor, wanted = next(generator)
        while True:
            descriptor, wanted = generator.send(await _wait(descriptor, wanted))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return] # a generator's return value


async def _wait(descriptor: int, wanted: Wait) -> Ready:
    if wanted == Wait.R:
        await trio.lowlevel.wait_readable(descriptor)
        return Ready.R
    if wanted == Wait.W:
        await trio.lowlevel.wait_writable(descriptor)
        return Ready.W
    return await _wait_both(descriptor)


async def _wait_both(descriptor: int) -> Ready:
    """Only while output is left to send, so nearly always writable: look before waiting with two tasks."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLOUT)

    async def wait(until_ready: object, cancel: trio.CancelScope) -> None:
        await until_ready(descriptor)  # type: ignore[operator] # one of trio's two functions
        cancel.cancel()

    while not (events := poll.poll(0)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, trio.lowlevel.wait_readable, nursery.cancel_scope)
            nursery.start_soon(wait, trio.lowlevel.wait_writable, nursery.cancel_scope)
    mask = events[0][1]
    if mask & ~select.POLLOUT:
        return Ready.RW if mask & select.POLLOUT else Ready.R
    return Ready.W


def _field(result: PGresult, field: pq.DiagnosticField) -> str | None:
    value = result.error_field(field)
    return None if value is None else value.decode("utf-8", "replace")
