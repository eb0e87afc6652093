"""Whether this node decides: it claims everything when it is first in line, and stands by otherwise.

::

    standing by ──first in line──► taking over ──► owner ──somebody else is first──► standing by
                                                    │
                                                    └─ its time is over and nobody said who is first:
                                                       it answers nothing, and looks again

That is for the line to say (log/line.py). What makes it safe to write is the claim of every partition, which
is in the log; so a node that wakes from a long sleep can be wrong about its standing and still write nothing.
A store without a line has one node, which owns from the start.
"""

from collections.abc import Callable
from typing import Final

import trio

from querator import telemetry
from querator.actors.broker import Broker
from querator.actors.catalog import CatalogOwner
from querator.actors.claim import ClaimLost
from querator.actors.supervisor import Supervisor
from querator.core.catalog.commands import Bootstrap
from querator.core.ids import MILLISECOND, NEVER, SECOND, Duration, Instant
from querator.core.limits import NODE_RENEWAL, SESSION_GRACE
from querator.core.replies import Code, Rejected
from querator.env import Env, seconds
from querator.errors import LogError, LogUnavailable
from querator.log.line import Line, Role, Standing

_LOOK_TIMEOUT: Final = Duration(1 * SECOND)
_BACKOFF_MIN: Final = Duration(100 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(5 * SECOND)


class Ownership:
    """Takes over and steps down. ``start`` first, then ``run``."""

    def __init__(
        self,
        broker: Broker,
        catalog: CatalogOwner,
        supervisor: Supervisor,
        env: Env,
        *,
        line: Line | None,
        bootstrap: Bootstrap,
    ) -> None:
        self.is_owner = False
        """It took over, and has not stepped down."""
        self.fault = ""
        """Why it could not take over although it is first in line."""
        self.take_overs = 0
        self.stepped_down: Callable[[str], None] = _ignore
        """Told when this node stops deciding, with the (likely) new owner's address ("": unknown)."""
        self._broker = broker
        self._catalog = catalog
        self._supervisor = supervisor
        self._env = env
        self._line = line
        self._bootstrap = bootstrap
        self._standing = Standing(Role.OWNER if line is None else Role.STANDBY)
        self._has_lapsed = False
        self._opening_until = NEVER
        """While partitions are opened: for how long sessions wait for that."""
        self._is_leaving = False
        self._is_stale = False
        """What the standing says may have changed since: look before acting on it."""
        self._changed = trio.Event()
        if line is not None:
            broker.may_decide = self.may_decide

    @property
    def owner_address(self) -> str:
        """Where clients are sent while this node decides nothing; "" when it is not known."""
        if self._standing.role is not Role.OWNER:
            return self._standing.owner_address
        return self._standing.next_address if self._has_lapsed else ""

    @property
    def successor_address(self) -> str:
        """Who takes over when this node leaves; "" when nobody stands by."""
        return self._standing.next_address if self._standing.role is Role.OWNER else self.owner_address

    async def find_successor(self) -> str:
        """``successor_address`` as of now: whoever joined since the last renewal counts."""
        if self._line is not None and self.is_owner:
            with trio.move_on_after(seconds(_LOOK_TIMEOUT)):
                try:
                    self._standing = await self._line.renew()
                except LogUnavailable as error:
                    telemetry.emit("node.renewal.failed", error=str(error))
        return self.successor_address

    @property
    def is_deciding(self) -> bool:
        """An owner that may not be one any more is none."""
        return self.is_owner and self.may_decide() is None

    def may_decide(self) -> Rejected | None:
        """Asked at the beginning of every turn: why nothing may be decided now."""
        if self._line is None:
            return None
        if self.is_owner and not self._has_lapsed:
            if self._line.standing().role is Role.OWNER:
                return None
            # Somebody else may have taken over since: nothing is answered before that is known.
            self._has_lapsed = True
        if self.is_owner:
            return Rejected(Code.UNAVAILABLE, "this node has not reached its log for too long; try again")
        return self.not_owner()

    def may_greet(self) -> Rejected | None:
        """Why no session may come (back) to this node now. Also while it takes over: a session that resumes
        before its partitions are open would be told that it holds nothing. A partition that cannot be
        opened keeps nobody away for longer than sessions are waited for."""
        refusal = self.may_decide()
        if refusal is None and self._env.clock.now() < self._opening_until:
            return Rejected(Code.UNAVAILABLE, "this node is taking over; try again")
        return refusal

    def not_owner(self) -> Rejected:
        """What a node that stands by answers to everything."""
        where = self.owner_address
        return Rejected(
            Code.NOT_OWNER,
            f"the owner is {where}" if where else "this node stands by; nobody knows the owner",
        )

    async def start(self) -> None:
        """Join the line; take over if this node is first.

        Raises:
            LogError: it is, and can't.
        """
        if self._line is not None:
            await self._line.renew()
            # Who joins while another one takes the lead may not see it yet; the second look shows it.
            self._standing = await self._line.renew()
        if self._standing.role is not Role.OWNER:
            telemetry.emit("node.standing_by", owner=self._standing.owner_name)
            return
        try:
            await self._take_over()
        except (ClaimLost, LogUnavailable) as error:
            if self._line is None:
                raise
            # Another node is at it as well: ``run`` sees who is first.
            self._failed(error)
            self._changed.set()

    async def run(self) -> None:
        """Stay in line, and do what that asks for; for ever."""
        async with trio.open_nursery() as nursery:
            if self._line is not None:
                nursery.start_soon(self._renew, self._line)
                nursery.start_soon(self._send_away)
            backoff = _BACKOFF_MIN
            while True:
                await self._wait_changed()
                try:
                    await self._follow()
                except LogError as error:
                    self._failed(error)
                    await self._env.clock.sleep(backoff)
                    backoff = Duration(min(backoff * 2, _BACKOFF_MAX))
                    self._changed.set()
                else:
                    self.fault = ""
                    backoff = _BACKOFF_MIN

    def _failed(self, error: LogError) -> None:
        self._is_stale = True
        self.fault = str(error)
        telemetry.emit("node.take_over.failed", error=str(error))

    async def leave(self) -> None:
        """Nothing more will be appended by this node: let the next one take over at once."""
        self._is_leaving = True
        if self._line is not None:
            try:
                await self._line.leave()
            except LogUnavailable as error:
                telemetry.emit("node.leave.failed", error=str(error))

    async def _wait_changed(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_catalog_lost, nursery.cancel_scope)
            await self._changed.wait()
            nursery.cancel_scope.cancel()
        self._changed = trio.Event()

    async def _wait_catalog_lost(self, scope: trio.CancelScope) -> None:
        await self._catalog.lost.wait()
        scope.cancel()

    async def _renew(self, line: Line) -> None:
        while not self._is_leaving:
            await self._env.clock.sleep(NODE_RENEWAL)
            if self._is_leaving:
                return
            self.may_decide()
            try:
                standing = await line.renew()
            except LogUnavailable as error:
                telemetry.emit("node.renewal.failed", error=str(error))
                continue
            if standing != self._standing or self._has_lapsed:
                self._standing = standing
                self._changed.set()

    async def _send_away(self) -> None:
        """Who cannot reach its log is of no use to its clients, while somebody who stands by may be: do not
        keep them until the log can be asked who is first now."""
        is_told = False
        while not self._is_leaving:
            await self._env.clock.sleep(NODE_RENEWAL)
            has_lapsed = self.is_owner and self.may_decide() is not None
            if has_lapsed and not is_told and self._standing.next_address:
                telemetry.emit("node.lapsed", next=self._standing.next_address)
                self.stepped_down(self._standing.next_address)
            is_told = has_lapsed

    async def _follow(self) -> None:
        """Make this node what its place in the line says."""
        if self._is_leaving:
            return
        if self._line is not None and (self._is_stale or self._catalog.lost.is_set()):
            self._standing = await self._line.renew()
            self._is_stale = False
        if self._standing.role is not Role.OWNER:
            if self.is_owner:
                self._step_down()
            # Also where a take-over had only begun.
            self._catalog.close()
            return
        if self.is_owner and self._has_lapsed and not await self._catalog.is_last():
            # Whoever took over in between claimed the catalog first of all.
            self._step_down()
        self._has_lapsed = False
        if not self.is_owner or self._catalog.lost.is_set():
            await self._take_over()

    async def _take_over(self) -> None:
        """Claim the catalog, then every partition that is not open here."""
        await self._catalog.open()
        refusal = await self._catalog.change(self._bootstrap)
        if isinstance(refusal, Rejected):
            raise LogUnavailable(f"the catalog can't be written: {refusal.detail}")
        # From here to where the queues are known nothing waits: nobody is told that there is no such queue.
        self.is_owner = True
        self._opening_until = Instant(self._env.clock.now() + SESSION_GRACE)
        await self._supervisor.follow(self._catalog.catalog)
        self._opening_until = NEVER
        self.take_overs += 1
        telemetry.emit("node.took_over", queues=len(self._catalog.catalog.queues))

    def _step_down(self) -> None:
        self.is_owner = False
        telemetry.emit("node.stepped_down", owner=self._standing.owner_name)
        self._catalog.close()
        self._supervisor.step_down(self.not_owner())
        self.stepped_down(self.owner_address)


def _ignore(address: str) -> None:
    del address
