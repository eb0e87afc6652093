"""How long a node believes that it owns, when nobody tells it anything."""

from typing import cast

import trio
from trio.testing import MockClock

from querator.core.ids import SECOND, Duration
from querator.core.limits import NODE_DRIFT_PERMILLE
from querator.env import seconds
from querator.env.virtual import virtual_env
from querator.log.lease import NodeLease, NodeTable, Place, Seen
from querator.log.line import Role

LASTS = Duration(100 * SECOND)


class Alone:
    """A table with one node in it, which owns."""

    async def renew(self, place: Place, lease: Duration) -> Seen:
        del lease
        await trio.lowlevel.checkpoint()
        return Seen(place, [place])


async def test_a_lease_is_trusted_less_by_what_clocks_may_drift(autojump_clock: MockClock) -> None:
    """NODE_DRIFT_PERMILLE of it: the database may have counted faster than we do."""
    node = NodeLease(cast("NodeTable", Alone()), virtual_env(1), Place("one", 1, ""), lease=LASTS)
    assert (await node.renew()).role is Role.OWNER
    trusted = seconds(LASTS) * (1_000 - NODE_DRIFT_PERMILLE) / 1_000
    await trio.sleep(trusted - 0.001)
    assert node.standing().role is Role.OWNER
    await trio.sleep(0.002)
    assert node.standing().role is Role.STANDBY
