"""The connections of one store: at most so many, checked when they are made, none that failed kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from querator.core.limits import QUERY_TIMEOUT
from querator.env import Env
from querator.errors import LogUnavailable
from querator.log.postgres.checks import Facts, complete, read_facts
from querator.log.postgres.connection import Connection, connect
from querator.log.postgres.statements import statement


class Pool:
    """Owns its connections; a borrower has one to itself. Waiting borrowers are served in order."""

    def __init__(self, conninfo: str, env: Env, connections_max: int, *, unsafe: frozenset[str]) -> None:
        self._conninfo = conninfo
        self._env = env
        self._unsafe = unsafe
        self._limiter = trio.CapacityLimiter(connections_max)
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Connection]:
        """A live connection to a server that may be trusted with a log.

        Raises:
            LogUnavailable: there is none to be had.
        """
        borrower = object()
        try:
            # No checkpoint when there is room, which is nearly always.
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)
        try:
            connection = self._take() or await self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._limiter.release_on_behalf_of(borrower)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
        elif connection.is_open:
            self._idle.append(connection)
        else:
            # What broke one has likely broken all: a restart must not cost a failure for each.
            self.close_idle()

    async def _connect(self) -> Connection:
        connection = await connect(self._conninfo, self._env)
        try:
            facts = await read_facts(connection)
            refusals = [fault for fault in facts.faults() if fault.flag not in self._unsafe]
        except BaseException:
            connection.close()
            raise
        if refusals:
            connection.close()
            raise LogUnavailable("; ".join(str(fault) for fault in refusals))
        connection.prepares = not is_pooled(facts, connection)
        if connection.prepares:
            # Else the planner prefers to plan anew each time, for arrays of a length it knows: three times
            # the cost of the append itself. Only the plans of prepared statements are meant.
            complete(await connection.run(statement("plan_once"), within=QUERY_TIMEOUT))
        return connection

    def close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._closed = True
        self.close_idle()


def is_pooled(facts: Facts, connection: Connection) -> bool:
    """A pooler invents the process number it tells at the start; the server knows the real one."""
    return facts.backend_pid != connection.backend_pid
