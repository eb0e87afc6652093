"""What every database's line of nodes keeps, as nodes see it through their leases."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import pytest
import trio

from querator.core.ids import HOUR, MILLISECOND, Duration
from querator.env import seconds
from querator.env.real import real_env
from querator.log.lease import NodeLease, NodeTable, Place
from querator.log.line import Role

SHORT = Duration(200 * MILLISECOND)


class LeaseHarness(Protocol):
    """A database with a line of nodes in it, still empty."""

    def table(self) -> NodeTable:
        """A process's way to it; the harness closes what it gave away."""

    def expire(self, name: str, ago: timedelta = timedelta()) -> None:
        """The node's time was over so long ago."""

    def move_up(self, name: str) -> None:
        """The node is the longest standing of all from now on."""

    def names(self) -> Sequence[str]:
        """Nodes that are not forgotten."""


def lease(table: NodeTable, name: str, nonce: int = 1, *, lasts: Duration = HOUR) -> NodeLease:
    return NodeLease(table, real_env(), Place(name, nonce, f"http://{name}:2319"), lease=lasts)


class LeaseContract:
    """Inherit, and give a ``harness`` fixture."""

    @pytest.fixture
    def table(self, harness: LeaseHarness) -> NodeTable:
        return harness.table()

    async def test_the_first_in_line_owns_and_the_others_know_its_address(self, table: NodeTable) -> None:
        one, two = lease(table, "one"), lease(table, "two")
        assert (await one.renew()).role is Role.OWNER
        standing = await two.renew()
        assert (standing.role, standing.owner_name, standing.owner_address) == (
            Role.STANDBY,
            "one",
            "http://one:2319",
        )
        assert (await one.renew()).role is Role.OWNER

    async def test_the_first_knows_who_is_next(self, table: NodeTable) -> None:
        one, two = lease(table, "one"), lease(table, "two")
        assert (await one.renew()).next_address == ""
        assert (await two.renew()).next_address == "http://two:2319"
        assert (await one.renew()).next_address == "http://two:2319"

    async def test_the_longest_standing_is_first_whatever_its_name(self, harness: LeaseHarness) -> None:
        nodes = [lease(harness.table(), name) for name in ("c", "a", "b")]
        for node in nodes:
            await node.renew()
        await nodes[0].leave()
        assert (await nodes[2].renew()).owner_name == "a"
        assert (await nodes[1].renew()).role is Role.OWNER

    async def test_a_node_that_leaves_is_followed_at_once(self, harness: LeaseHarness) -> None:
        one, two = lease(harness.table(), "one"), lease(harness.table(), "two")
        await one.renew()
        await two.renew()
        await one.leave()
        assert one.standing().role is Role.STANDBY
        assert (await two.renew()).role is Role.OWNER

    async def test_a_node_that_was_silent_too_long_joins_again_at_the_end(
        self, harness: LeaseHarness, table: NodeTable
    ) -> None:
        one, two = lease(table, "one"), lease(table, "two")
        await one.renew()
        await two.renew()
        harness.expire("one")
        assert (await two.renew()).role is Role.OWNER
        standing = await one.renew()
        assert (standing.role, standing.owner_name) == (Role.STANDBY, "two")

    async def test_a_silent_node_that_nobody_followed_owns_again(
        self, harness: LeaseHarness, table: NodeTable
    ) -> None:
        one = lease(table, "one")
        await one.renew()
        harness.expire("one")
        assert (await one.renew()).role is Role.OWNER

    async def test_an_owner_stops_believing_before_its_lease_is_over(self, table: NodeTable) -> None:
        one = lease(table, "one", lasts=SHORT)
        before = trio.current_time()
        await one.renew()
        # Where it took longer than that, it rightly believes nothing any more.
        assert one.standing().role is Role.OWNER or trio.current_time() - before > seconds(SHORT) / 2
        await trio.sleep(seconds(SHORT))
        assert one.standing().role is Role.STANDBY

    async def test_another_boot_with_the_same_name_waits_until_the_first_is_gone(
        self, harness: LeaseHarness
    ) -> None:
        first, second = lease(harness.table(), "one", 1), lease(harness.table(), "one", 2)
        await first.renew()
        assert (await second.renew()).role is Role.STANDBY
        await second.leave()
        assert (await first.renew()).role is Role.OWNER
        harness.expire("one")
        assert (await lease(harness.table(), "one", 2).renew()).role is Role.OWNER
        assert (await first.renew()).role is Role.STANDBY

    async def test_the_same_boot_comes_back_to_its_place(self, harness: LeaseHarness) -> None:
        """A process that was killed and started again: its directory knows its nonce."""
        one, two = lease(harness.table(), "one"), lease(harness.table(), "two")
        await one.renew()
        await two.renew()
        assert (await lease(harness.table(), "one").renew()).role is Role.OWNER

    async def test_who_owns_goes_on_although_another_is_before_it(
        self, harness: LeaseHarness, table: NodeTable
    ) -> None:
        """It joined when nobody saw the other one's row yet, whose commit took its time."""
        one, two = lease(table, "one"), lease(table, "two")
        await two.renew()
        await one.renew()
        harness.move_up("one")
        assert (await two.renew()).role is Role.OWNER
        standing = await one.renew()
        assert (standing.role, standing.owner_name) == (Role.STANDBY, "two")

    async def test_a_standby_takes_over_when_the_owner_is_gone(
        self, harness: LeaseHarness, table: NodeTable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("querator.log.lease.NODE_RENEWAL", Duration(10 * MILLISECOND))
        one, two = lease(table, "one"), lease(table, "two")
        await one.renew()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(two.wait_until_owner)
                await trio.sleep(0.05)
                harness.expire("one")
        assert two.standing().role is Role.OWNER

    async def test_nodes_long_gone_are_forgotten(self, harness: LeaseHarness, table: NodeTable) -> None:
        for name in ("one", "two"):
            await lease(table, name).renew()
        harness.expire("one", timedelta(days=2))
        await lease(table, "two").forget_the_gone()
        assert harness.names() == ["two"]
