"""The simulated line of nodes keeps the contract of PostgreSQL's, and is like it where it matters."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from querator.core.ids import SECOND, Duration
from querator.env.virtual import virtual_env
from querator.errors import LogUnavailable
from querator.log.lease import NodeLease, NodeTable, Place
from querator.log.line import Role
from simulations.cable import SILENCE, Cable
from simulations.disk import SimulatedDisk
from simulations.gate import Gate
from simulations.nodes import NodeRows, SimulatedNodes
from tests.log.lease_contract import LeaseContract, LeaseHarness
from tests.simulations.test_simulated_log import ToldFaults

A_LEASE = Duration(6 * SECOND)


class SimulatedLeases:
    """Implements LeaseHarness; each process has faults of its own, told by hand."""

    def __init__(self, server: trio.Nursery) -> None:
        self.server = server
        self.disk = SimulatedDisk()
        self.rows = NodeRows(self.disk)
        self.cable = Cable()

    def table(self) -> NodeTable:
        return self.told(ToldFaults())

    def told(self, faults: ToldFaults) -> SimulatedNodes:
        return SimulatedNodes(self.rows, self.disk, self.server, gate=Gate(), cable=self.cable, faults=faults)

    def lease(self, name: str, faults: ToldFaults | None = None) -> NodeLease:
        """In virtual time."""
        table = self.told(faults if faults is not None else ToldFaults())
        return NodeLease(table, virtual_env(1), Place(name, 1, name), lease=A_LEASE)

    def expire(self, name: str, ago: timedelta = timedelta()) -> None:
        self.rows.rows[name].lease_until = self.rows.now - round(ago.total_seconds() * SECOND)
        if self.rows.owner is not None and self.rows.owner.place.name == name:
            self.rows.owner.lease_until = self.rows.rows[name].lease_until

    def move_up(self, name: str) -> None:
        self.rows.rows[name].joined_at = 0

    def names(self) -> Sequence[str]:
        return list(self.rows.rows)


class TestSimulatedLeases(LeaseContract):
    @pytest.fixture
    async def harness(self) -> AsyncIterator[LeaseHarness]:
        async with trio.open_nursery() as server:
            yield SimulatedLeases(server)


@pytest.fixture
async def town(autojump_clock: MockClock) -> AsyncIterator[SimulatedLeases]:
    async with trio.open_nursery() as server:
        yield SimulatedLeases(server)


async def test_one_owns_although_the_first_ones_commit_took_its_time(
    autojump_clock: MockClock, town: SimulatedLeases
) -> None:
    """Nobody sees its row meanwhile; the next one waits for it and then stands by."""
    slow = ToldFaults()
    slow.commit_seconds = 2.0
    one, two = town.lease("one", slow), town.lease("two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.renew)
        await trio.sleep(0.1)
        assert (await two.renew()).role is Role.STANDBY
    assert trio.current_time() == pytest.approx(2.0)
    assert one.standing().role is Role.OWNER
    assert (await two.renew()).owner_name == "one"


async def test_an_owner_whose_renewal_takes_its_time_is_waited_for(
    autojump_clock: MockClock, town: SimulatedLeases
) -> None:
    """Its lease seems to be over, and is not: the renewal that says so has not committed."""
    slow = ToldFaults()
    one, two = town.lease("one", slow), town.lease("two")
    await one.renew()
    await two.renew()
    await trio.sleep(5.0)
    slow.commit_seconds = 3.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.renew)
        await trio.sleep(1.5)
        assert (await two.renew()).role is Role.STANDBY
    assert one.standing().role is Role.OWNER


async def test_who_is_cut_off_wears_off_and_is_followed(
    autojump_clock: MockClock, town: SimulatedLeases
) -> None:
    one, two = town.lease("one"), town.lease("two")
    await one.renew()
    town.cable.cut(silent=True)
    with pytest.raises(LogUnavailable):
        await one.renew()
    assert trio.current_time() == pytest.approx(SILENCE)
    await trio.sleep(2.0)
    assert one.standing().role is Role.STANDBY
    town.cable.mend()
    assert (await two.renew()).role is Role.OWNER
    assert (await one.renew()).owner_name == "two"


async def test_a_renewal_that_a_killed_server_had_not_committed_is_none(
    autojump_clock: MockClock, town: SimulatedLeases
) -> None:
    slow = ToldFaults()
    slow.commit_seconds = 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(town.lease("one", slow).renew)
        await trio.sleep(1.0)
        town.disk.abort_all()
    assert town.names() == []
