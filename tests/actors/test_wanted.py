"""Who asks for a background service is served once, in turn, and never in the place of a successor."""

from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import wait_all_tasks_blocked

from querator.actors.partition import PartitionActor
from querator.actors.wanted import Wanted


def actor(partition: int, *, is_alive: bool = True) -> PartitionActor:
    return cast("PartitionActor", SimpleNamespace(partition=partition, is_alive=is_alive))


async def test_each_is_taken_once_in_the_order_of_asking() -> None:
    wanted = Wanted()
    first, second = actor(1), actor(2)
    for one in (first, second, first):
        wanted.add(one)
    assert [await wanted.take(), await wanted.take()] == [first, second]
    with trio.move_on_after(0):
        raise AssertionError(await wanted.take())


async def test_who_takes_waits_for_who_asks() -> None:
    wanted, taken = Wanted(), []

    async def take() -> None:
        taken.append(await wanted.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        wanted.add(actor(7))
    assert [one.partition for one in taken] == [7]


async def test_a_closed_actor_keeps_nobody_out() -> None:
    """It asked, was closed and replaced; or its service tries again after that."""
    wanted, old, new = Wanted(), actor(1, is_alive=False), actor(1)
    wanted.add(old)
    wanted.add(new)
    wanted.add(old)
    assert await wanted.take() is new
