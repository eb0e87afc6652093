"""Which of the nodes on one database may try to claim: a line of live nodes, in database time.

This is a courtesy between nodes, not a lock: what keeps two owners apart is the log's unique key.
The first node in line claims everything; the others stand by, with its address at hand. A node
that does not renew in time falls out of the line and joins again at its end.
"""

import attrs

from querator.core.ids import Duration
from querator.core.limits import (
    NODE_DRIFT_PERMILLE,
    NODE_LEASE,
    NODE_RENEWAL,
    QUERY_TIMEOUT,
)
from querator.env import Env
from querator.errors import LogUnavailable
from querator.log.line import Role, Standing
from querator.log.postgres import wire
from querator.log.postgres.checks import complete
from querator.log.postgres.pool import Pool
from querator.log.postgres.statements import statement


def open_lease(
    env: Env, conninfo: str, *, name: str, address: str, nonce: int, unsafe: frozenset[str] = frozenset()
) -> "NodeLease":
    """A lease with a connection of its own, so that a renewal never waits behind other work."""
    return NodeLease(Pool(conninfo, env, 1, unsafe=unsafe), env, name=name, address=address, nonce=nonce)


@attrs.frozen
class Place:
    name: str
    nonce: int
    address: str


class NodeLease:
    """This node's place in the line; renewed by ``renew``, which the caller runs every ``NODE_RENEWAL``.

    ``nonce`` is of this boot, so that another process with our name is not mistaken for us.
    """

    def __init__(
        self, pool: Pool, env: Env, *, name: str, address: str, nonce: int, lease: Duration = NODE_LEASE
    ) -> None:
        self._pool = pool
        self._env = env
        self._name = name
        self._address = address
        self._nonce = nonce
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
        rows = await self._run(
            "renew_node",
            [
                self._name.encode(),
                wire.encode_int8(self._nonce),
                self._address.encode(),
                wire.encode_int8(self._lease),
            ],
        )
        line = [
            Place(name.decode(), wire.decode_int(nonce), address.decode()) for name, nonce, address in rows
        ]
        if not line:
            # Another boot renewed our name just when its time seemed to be over.
            self._standing = Standing(Role.STANDBY)
            return self._standing
        first = line[0]
        is_owner = (first.name, first.nonce) == (self._name, self._nonce)
        self._standing = Standing(
            Role.OWNER if is_owner else Role.STANDBY,
            first.name,
            first.address,
            line[1].address if len(line) > 1 else "",
        )
        self._believed_until = sent_at + self._lease * (1_000 - NODE_DRIFT_PERMILLE) // 1_000
        return self.standing()

    async def leave(self) -> None:
        """Step out of the line, so that the next one takes over at its next renewal. For a clean drain:
        call it when nothing more will be appended."""
        self._standing = Standing(Role.STANDBY)
        try:
            await self._run("leave_node", [self._name.encode(), wire.encode_int8(self._nonce)])
        finally:
            self._pool.close()

    async def forget_the_gone(self) -> None:
        """Remove nodes unseen for a day."""
        await self._run("forget_nodes", [])

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

    async def _run(self, name: str, parameters: list[bytes]) -> list[tuple[bytes, ...]]:
        async with self._pool.borrow() as connection:
            return complete(await connection.run(statement(name), parameters, within=QUERY_TIMEOUT))
