"""Requests that wait: watched late, let go at once, and nobody else's trouble."""

import trio
from trio.testing import MockClock

from querator import telemetry
from querator.api.hangups import MOMENT, Hangups, Waiting
from querator.env import seconds
from querator.env.virtual import virtual_env


async def never() -> None:
    await trio.sleep_forever()


async def test_what_is_answered_within_a_moment_is_never_watched(autojump_clock: MockClock) -> None:
    hangups = Hangups(virtual_env(1).clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hangups.run)
        for _ in range(10):
            waiting = Waiting(never)
            hangups.begin(waiting)
            await trio.sleep(seconds(MOMENT) / 2)
            await hangups.end(waiting)
            assert waiting.watch is None
        nursery.cancel_scope.cancel()


async def test_the_connection_is_let_go_before_the_end_returns(autojump_clock: MockClock) -> None:
    reading = 0

    async def read() -> None:
        nonlocal reading
        reading += 1
        try:
            await trio.sleep_forever()
        finally:
            reading -= 1

    hangups = Hangups(virtual_env(1).clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hangups.run)
        many = [Waiting(read) for _ in range(5)]
        for waiting in many:
            hangups.begin(waiting)
        await trio.sleep(3 * seconds(MOMENT))
        assert reading == 5
        for left, waiting in zip(range(4, -1, -1), many, strict=True):
            await hangups.end(waiting)
            assert reading == left
            assert not waiting.scope.cancel_called
        nursery.cancel_scope.cancel()


async def test_a_request_of_a_client_that_is_gone_ends(autojump_clock: MockClock) -> None:
    """Also where the watch itself fails: that is one connection's trouble."""
    told: list[str] = []
    stop = telemetry.listen(lambda name, _: told.append(name))

    async def gone() -> None:
        await trio.sleep(1)

    async def broken() -> None:
        raise RuntimeError("a bug")

    hangups = Hangups(virtual_env(1).clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hangups.run)
        for hung_up, after in ((gone, 1.0), (broken, 0.0)):
            waiting = Waiting(hung_up)
            hangups.begin(waiting)
            began = trio.current_time()
            with waiting.scope:
                await trio.sleep_forever()
            assert after <= trio.current_time() - began <= after + 3 * seconds(MOMENT)
            await hangups.end(waiting)
        nursery.cancel_scope.cancel()
    stop()
    assert told == ["api.connection.failed"]
