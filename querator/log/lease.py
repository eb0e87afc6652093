"""What a node may believe of its place in the line of a database's nodes, which is kept in database time.

The first node in line takes the owner's row, which only one can have, and claims everything; the others
stand by, with its address at hand. A node that does not renew in time falls out of the line and joins
again at its end. What it may have believed a moment too long is no danger to the log, whose unique key
keeps two owners apart; but whoever answers without writing answers by this belief alone.
"""

from typing import Protocol

import attrs

from querator.core.ids import Duration
from querator.core.limits import NODE_DRIFT_PERMILLE, NODE_LEASE, NODE_RENEWAL
from querator.env import Env
from querator.errors import LogUnavailable
from querator.log.line import Role, Standing


@attrs.frozen
class Place:
    """A node in line. ``nonce`` is of this boot: another process with its name is not mistaken for it."""

    name: str
    nonce: int
    address: str


@attrs.frozen
class Seen:
    """Who owns, if anybody does, and who else is in line, longest standing first."""

    owner: Place | None
    others: list[Place]


class NodeTable(Protocol):
    """Where a database keeps the line: one process's way to it. All of it may raise LogUnavailable."""

    async def renew(self, place: Place, lease: Duration) -> Seen:
        """Join the line or stay in it, for ``lease`` from now; own, or go on owning, where this node is first
        and nobody else does. A name that another boot holds is left to it until its time is over.

        Whoever owns does so alone: also where a statement like this has not committed and is seen by nobody.
        """

    async def leave(self, place: Place) -> None:
        """Step out of the line, if it is this boot that stands there, and own no more."""

    async def forget_the_gone(self) -> None:
        """Remove nodes unseen for a day."""

    def close(self) -> None:
        """The table is not used any more."""


class NodeLease:
    """This node's place in the line; renewed by ``renew``, which the caller runs every ``NODE_RENEWAL``."""

    def __init__(self, table: NodeTable, env: Env, place: Place, *, lease: Duration = NODE_LEASE) -> None:
        self._table = table
        self._env = env
        self._place = place
        self._lease = lease
        self._standing = Standing(Role.STANDBY)
        self._believed_until = 0

    def standing(self) -> Standing:
        """What may be acted on now: an owner whose lease may have run out is none."""
        if self._standing.role is Role.OWNER and self._env.clock.monotonic() >= self._believed_until:
            return Standing(Role.STANDBY)
        return self._standing

    async def renew(self) -> Standing:
        """Join the line or stay in it.

        Raises:
            LogUnavailable: the database does not answer; the standing wears off by itself.
        """
        # Before the request leaves: the lease begins later than this, never earlier.
        sent_at = self._env.clock.monotonic()
        seen = await self._table.renew(self._place, self._lease)
        owner, others = seen.owner, [place for place in seen.others if place.name != self._place.name]
        if owner is not None and (owner.name, owner.nonce) == (self._place.name, self._place.nonce):
            self._standing = Standing(
                Role.OWNER, owner.name, owner.address, others[0].address if others else ""
            )
        elif owner is None and (not seen.others or seen.others[0].name == self._place.name):
            # Another node was about to take what nobody seemed to have.
            self._standing = Standing(Role.STANDBY)
        else:
            first = owner or seen.others[0]
            after = [place for place in seen.others if place.name != first.name]
            self._standing = Standing(
                Role.STANDBY, first.name, first.address, after[0].address if after else ""
            )
        self._believed_until = sent_at + self._lease * (1_000 - NODE_DRIFT_PERMILLE) // 1_000
        return self.standing()

    async def leave(self) -> None:
        """Step out of the line, so that the next one takes over at its next renewal. For a clean drain:
        call it when nothing more will be appended."""
        self._standing = Standing(Role.STANDBY)
        try:
            await self._table.leave(self._place)
        finally:
            self._table.close()

    async def forget_the_gone(self) -> None:
        """Remove nodes unseen for a day."""
        await self._table.forget_the_gone()

    async def wait_until_owner(self) -> Standing:
        """Stand by until this node is first in line. An outage of the database is waited out."""
        while True:
            try:
                standing = await self.renew()
            except LogUnavailable:
                standing = self.standing()
            if standing.role is Role.OWNER:
                return standing
            await self._env.clock.sleep(NODE_RENEWAL)
