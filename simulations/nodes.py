"""The simulated server's table of nodes, in its own time, with the semantics of PostgreSQL's statements.

A renewal sees what was committed when it began, so two nodes that join at the same moment do not see each
other; it waits for another renewal under the same name, and for another one that has the owner's row; and it
commits after a while, whatever becomes of the client that sent it. It passes the contract that PostgreSQL's
tables pass (tests/simulations/test_simulated_nodes.py).
"""

from contextlib import ExitStack
from typing import Final

import attrs
import trio

from querator.core.ids import DAY, Duration
from querator.errors import LogUnavailable
from querator.log.lease import Place, Seen
from simulations.cable import Cable
from simulations.disk import Faults, SimulatedDisk
from simulations.gate import Gate

_OWNER: Final = "the owner's row"


@attrs.define(kw_only=True)
class Row:
    """Of one name. Times are the server's, in microseconds."""

    place: Place
    joined_at: int
    lease_until: int


class NodeRows:
    """The table."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.rows: dict[str, Row] = {}
        self.owner: Row | None = None
        self._held: dict[str, trio.Event] = {}

    @property
    def now(self) -> int:
        """The server's clock."""
        return round(trio.current_time() * 1_000_000)

    def live(self) -> list[Row]:
        """Those whose time is not over."""
        return [row for row in self.rows.values() if row.lease_until > self.now]

    async def renew(self, place: Place, lease: Duration, commits_after: float) -> Seen:
        """As renew_node.sql in querator/log/postgres/sql says."""
        others = [row for row in self.live() if row.place.name != place.name]
        owner = self.owner
        with ExitStack() as held:
            await self._take(place.name, held)
            there = self.rows.get(place.name)
            if there is not None and there.place.nonce != place.nonce and there.lease_until > self.now:
                return self._seen(owner, [*others, there])
            is_live = there is not None and there.place.nonce == place.nonce and there.lease_until > self.now
            joined_at = there.joined_at if there is not None and is_live else self.now
            me = Row(place=place, joined_at=joined_at, lease_until=self.now + lease)
            is_mine = False
            is_first = all(_by_age(me) < _by_age(row) for row in others)
            if is_first or (owner is not None and owner.place == place):
                await self._take(_OWNER, held)
                is_mine = self._may_own(place)
            restarts = self._disk.restarts
            await trio.sleep(commits_after)
            if self._disk.restarts == restarts:
                self.rows[place.name] = me
                if is_mine:
                    self.owner = me
        if is_mine:
            owner = me
        elif owner is not None and owner.place == place:
            owner = None
        return self._seen(owner, [*others, me])

    def _may_own(self, place: Place) -> bool:
        return self.owner is None or self.owner.place == place or self.owner.lease_until <= self.now

    async def _take(self, key: str, held: ExitStack) -> None:
        """A row's lock, until the statement ends."""
        while key in self._held:
            await self._held[key].wait()
        done = self._held[key] = trio.Event()
        held.callback(self._release, key, done)

    def _release(self, key: str, done: trio.Event) -> None:
        del self._held[key]
        done.set()

    def _seen(self, owner: Row | None, line: list[Row]) -> Seen:
        if owner is not None and owner.lease_until <= self.now:
            owner = None
        owns = owner.place if owner is not None else None
        names = [row.place for row in sorted(line, key=_by_age)]
        return Seen(owns, [place for place in names if owns is None or place.name != owns.name])

    def leave(self, place: Place) -> None:
        """As leave_node.sql in querator/log/postgres/sql says."""
        there = self.rows.get(place.name)
        if there is not None and there.place.nonce == place.nonce:
            del self.rows[place.name]
        if self.owner is not None and (self.owner.place.name, self.owner.place.nonce) == (
            place.name,
            place.nonce,
        ):
            self.owner = None

    def forget(self) -> None:
        """As forget_nodes.sql in querator/log/postgres/sql says."""
        self.rows = {name: row for name, row in self.rows.items() if row.lease_until >= self.now - DAY}


class SimulatedNodes:
    """Implements NodeTable: one process's way to the simulated table."""

    def __init__(
        self,
        rows: NodeRows,
        disk: SimulatedDisk,
        server: trio.Nursery,
        *,
        gate: Gate,
        cable: Cable,
        faults: Faults,
    ) -> None:
        self._rows = rows
        self._disk = disk
        self._server = server
        self._gate = gate
        self._cable = cable
        self._faults = faults

    async def renew(self, place: Place, lease: Duration) -> Seen:
        await self._send()
        fate = self._faults.fate()
        if fate in ("unavailable", "unknown_lost"):
            raise LogUnavailable("simulated: the connection broke")
        answers: list[Seen] = []
        done = trio.Event()

        async def execute() -> None:
            answers.append(await self._rows.renew(place, lease, self._faults.commit()))
            done.set()

        self._server.start_soon(execute, name="server: a node's row")
        with self._cable.crossing() as scope:
            await done.wait()
        await self._gate.passage()
        if fate or scope.cancelled_caught or self._cable.is_cut or self._disk.is_down:
            raise LogUnavailable("simulated: the connection broke before the answer came")
        return answers[0]

    async def leave(self, place: Place) -> None:
        await self._send()
        self._rows.leave(place)

    async def forget_the_gone(self) -> None:
        await self._send()
        self._rows.forget()

    def close(self) -> None:
        """There is no connection to end."""

    async def _send(self) -> None:
        await self._gate.passage()
        await trio.sleep(self._faults.network())
        await self._gate.passage()
        if not await self._cable.reaches() or self._disk.is_down:
            raise LogUnavailable("simulated: the server is out of reach")


def _by_age(row: Row) -> tuple[int, str]:
    return row.joined_at, row.place.name
