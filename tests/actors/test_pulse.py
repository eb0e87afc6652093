"""The pulse tells the longest pause of the event loop, and forgets it after two minutes."""

import pytest
import trio
import trio.testing

from querator.actors.pulse import Pulse
from querator.core.ids import MILLISECOND, MINUTE, SECOND
from querator.env.virtual import virtual_env


@pytest.fixture
async def pulse() -> Pulse:
    return Pulse(virtual_env(1))


async def test_a_loop_that_is_never_held_up_has_no_pause(
    pulse: Pulse, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.run)
        await trio.sleep(5)
        assert pulse.longest < MILLISECOND
        nursery.cancel_scope.cancel()


async def test_the_longest_pause_is_told_for_one_to_two_minutes(
    pulse: Pulse, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.run)
        await trio.sleep(1)
        autojump_clock.jump(0.3)
        await trio.sleep(59)
        assert 0.28 * SECOND < pulse.longest < 0.31 * SECOND
        await trio.sleep(2 * MINUTE / SECOND)
        assert pulse.longest < MILLISECOND
        nursery.cancel_scope.cancel()
