"""The client's own bounds: what it puts together, hands over, and waits for."""

import math
from collections import deque
from typing import cast

import pytest
import trio
import trio.testing
import trio_websocket

from querator.client import Rejected, connect
from querator.client.answers import Answer
from querator.client.link import Link
from querator.client.producing import Receipt
from querator.client.protocol import Protocol
from querator.core import limits
from querator.core.replies import Code
from querator.env import seconds
from querator.protocol import messages as wire
from tests.client.fake_server import ADDRESS, fake_server
from tests.client.test_shell import running


async def test_a_call_has_so_many_bytes(autojump_clock: trio.testing.MockClock) -> None:
    """PRODUCE_BYTES_MAX."""
    piece = b"x" * (limits.PRODUCE_BYTES_MAX // 16)
    async with running() as (_, q):
        assert (await q.produce_batch("q", [piece] * 16)).count == 16
        with pytest.raises(Rejected) as refused:
            await q.produce_batch("q", [*[piece] * 16, b"x"])
        assert refused.value.code == Code.BATCH_TOO_LARGE


@pytest.mark.parametrize(("over", "messages"), [(0, 1), (1, 2)])
async def test_calls_share_a_message_of_so_many_bytes(
    autojump_clock: trio.testing.MockClock, over: int, messages: int
) -> None:
    """PRODUCE_MESSAGE_BYTES_MAX."""
    half = limits.PRODUCE_MESSAGE_BYTES_MAX // 2
    async with running() as (server, q):
        await q.produce("q", b"first")
        q.produce_nowait("q", [b"x" * (half // 2)] * 2)
        q.produce_nowait("q", [b"y" * (half // 2), b"y" * (half // 2 + over)])
        await q.flush()
        assert len(server.sent(wire.Produce)) == 1 + messages


async def test_so_many_bytes_may_be_handed_over(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUTSTANDING_BYTES_MAX; when nothing is outstanding a call of any size may go."""
    monkeypatch.setattr(limits, "OUTSTANDING_BYTES_MAX", 1_000)
    async with running() as (server, q):
        await q.produce("q", b"first")
        server.is_holding = True
        q.produce_nowait("q", [b"x" * 600])
        q.produce_nowait("q", [b"x" * 400])
        with pytest.raises(trio.WouldBlock):
            q.produce_nowait("q", [b"x"])
        server.is_holding = False
        await server.push()
        await q.flush()
        q.produce_nowait("q", [b"x" * 1_001])


def test_a_frame_is_closed_at_so_many_bytes() -> None:
    """CLIENT_FRAME_BYTES: who is over it closes the frame."""
    client = Protocol(client="c", producer="p")
    client.opened()
    client.take_frame()
    client.receive(wire.Welcome("s", 1, "r", 0, 5_000_000, 5_000_000, {}, []))
    answers: list[Answer[Receipt]] = [Answer() for _ in range(4)]
    for number, answer in enumerate(answers):
        # Other columns than the one before: no call shares its message.
        kind = {"kind": "odd"} if number % 2 else {}
        client.produce("q", [b"x" * (limits.CLIENT_FRAME_BYTES // 4)] * 2, kind, answer)
    (asked,) = client.take_frame()
    assert isinstance(asked, wire.Stats)
    client.receive(wire.StatsReport(asked.id, "q", [{"partition": 1}], 0, 0))
    assert [len(client.take_frame()) for _ in range(3)] == [2, 2, 0]


async def test_the_pauses_between_two_attempts_to_connect_grow_to_a_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """From RECONNECT_DELAY_MIN to RECONNECT_DELAY_MAX, with some chance in them."""
    async with running() as (_, q):
        delays = [q._connector._delay(failures) for failures in range(1, 20)]
    assert limits.RECONNECT_DELAY_MIN / 2 <= delays[0] <= limits.RECONNECT_DELAY_MIN
    assert max(delays) <= limits.RECONNECT_DELAY_MAX
    assert delays[-1] >= limits.RECONNECT_DELAY_MAX / 2


class Timed(deque[Code]):
    """Notes when something is taken."""

    def __init__(self, *codes: Code) -> None:
        super().__init__(codes)
        self.times: list[float] = []

    def popleft(self) -> Code:
        self.times.append(trio.current_time())
        return super().popleft()


async def test_the_pauses_before_asking_again_grow_to_a_bound(autojump_clock: trio.testing.MockClock) -> None:
    """From REFUSED_DELAY_MIN to REFUSED_DELAY_MAX."""
    async with running() as (server, q):
        await q.produce("q", b"first")
        refusals = server.model.refusals = Timed(*[Code.OVERLOADED] * 20)
        await q.produce("q", b"x")
    pauses = [later - earlier for earlier, later in zip(refusals.times, refusals.times[1:], strict=False)]
    longest = seconds(limits.REFUSED_DELAY_MAX)
    assert seconds(limits.REFUSED_DELAY_MIN) / 2 <= pauses[0] <= 2 * seconds(limits.REFUSED_DELAY_MIN)
    assert longest / 2 <= pauses[-1]
    assert max(pauses) <= longest or math.isclose(max(pauses), longest)


async def test_an_attempt_to_connect_takes_so_long(autojump_clock: trio.testing.MockClock) -> None:
    """CLIENT_CONNECT_TIMEOUT, from the socket to the welcome."""
    said: list[tuple[float, str]] = []
    async with fake_server() as server, trio.open_nursery() as nursery:
        server.is_mute = True
        began = trio.current_time()

        async def try_it() -> None:
            async with connect(
                ADDRESS,
                env=server.env(),
                connect_timeout=None,
                notify=lambda text: said.append((trio.current_time() - began, text)),
            ):
                raise AssertionError("it was let in")

        nursery.start_soon(try_it)
        await trio.sleep(2 * seconds(limits.CLIENT_CONNECT_TIMEOUT))
        nursery.cancel_scope.cancel()
    ((when, text),) = said
    assert "no welcome in time" in text
    assert when == pytest.approx(seconds(limits.CLIENT_CONNECT_TIMEOUT))


class Deaf:
    """A socket whose peer never takes its leave."""

    async def aclose(self) -> None:
        await trio.sleep_forever()


async def test_saying_goodbye_takes_so_long(autojump_clock: trio.testing.MockClock) -> None:
    """GOODBYE_TIMEOUT: a server that says nothing is left all the same."""
    began = trio.current_time()
    await Link(cast("trio_websocket.WebSocketConnection", Deaf())).say_goodbye()
    assert trio.current_time() - began == pytest.approx(seconds(limits.GOODBYE_TIMEOUT))
