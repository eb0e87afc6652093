"""The line of nodes in PostgreSQL: a row each, and one of the owner, in its time (see log/lease.py)."""

from querator.core.ids import Duration
from querator.core.limits import QUERY_TIMEOUT
from querator.env import Env
from querator.log.lease import NodeLease, Place, Seen
from querator.log.postgres import wire
from querator.log.postgres.checks import complete
from querator.log.postgres.pool import Pool
from querator.log.postgres.statements import statement


def open_lease(
    env: Env, conninfo: str, *, name: str, address: str, nonce: int, unsafe: frozenset[str] = frozenset()
) -> NodeLease:
    """A lease with a connection of its own, so that a renewal never waits behind other work."""
    return NodeLease(PostgresNodes(Pool(conninfo, env, 1, unsafe=unsafe)), env, Place(name, nonce, address))


class PostgresNodes:
    """Implements NodeTable; a statement each."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def renew(self, place: Place, lease: Duration) -> Seen:
        rows = await self._run(
            "renew_node",
            [
                place.name.encode(),
                wire.encode_int8(place.nonce),
                place.address.encode(),
                wire.encode_int8(lease),
            ],
        )
        owner: Place | None = None
        others: list[Place] = []
        for name, nonce, address, owns in rows:
            found = Place(name.decode(), wire.decode_int(nonce), address.decode())
            if wire.decode_bool(owns):
                owner = found
            else:
                others.append(found)
        return Seen(owner, others)

    async def leave(self, place: Place) -> None:
        await self._run("leave_node", [place.name.encode(), wire.encode_int8(place.nonce)])

    async def forget_the_gone(self) -> None:
        await self._run("forget_nodes", [])

    def close(self) -> None:
        self._pool.close()

    async def _run(self, name: str, parameters: list[bytes]) -> list[tuple[bytes, ...]]:
        async with self._pool.borrow() as connection:
            return complete(await connection.run(statement(name), parameters, within=QUERY_TIMEOUT))
