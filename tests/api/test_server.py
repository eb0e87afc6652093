"""The one port as an HTTP server: what it answers, what it refuses, and that nothing brings it down."""

import contextlib
import errno

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily
from trio.testing import MockClock, wait_all_tasks_blocked

from querator import telemetry
from querator.api.access import OpenAccess
from querator.api.counters import Counters
from querator.api.doorway import Doorway, connections_within
from querator.api.hangups import MOMENT
from querator.api.health import Probe
from querator.api.http_connection import HttpConnection
from querator.api.server import Server, ServerOptions
from querator.core import limits
from querator.core.catalog import Principal
from querator.core.ids import Instant
from querator.core.replies import Code, Rejected
from querator.env import seconds
from querator.errors import LogUnavailable
from querator.protocol import messages as wire
from tests.api.serving import LARGE, EchoHandler, Running, read_all, running


def request(line: str = "POST /x HTTP/1.1", *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: h", *headers, "", ""]).encode() + body


def split(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """(status, headers, body) of each response."""
    responses = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            data = rest
            continue
        length = int(headers["content-length"])
        responses.append((status, headers, rest[:length]))
        data = rest[length:]
    return responses


CLOSE = "Connection: close"


async def ask(house: Running, data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    return split(await house.exchange(data))


async def test_a_request_is_handled(autojump_clock: MockClock) -> None:
    async with running() as house:
        ((status, headers, body),) = await ask(
            house, request("POST /v1/a?b=1 HTTP/1.1", "Content-Length: 3", "X-Y: z", CLOSE, body=b"abc")
        )
        assert (status, body) == (200, b"POST /v1/a 3")
        assert headers["connection"] == "close"
        assert headers["date"].endswith("GMT")
        (handled,) = house.http.handled
        assert (handled.method, handled.path, handled.query, handled.body) == ("POST", "/v1/a", "b=1", b"abc")
        assert handled.headers["x-y"] == "z"
        assert handled.remote == "node"


async def test_a_connection_is_kept_for_more_requests(autojump_clock: MockClock) -> None:
    async with running() as house, await house.stream() as stream:
        for number in range(3):
            await stream.send_all(request(f"POST /{number} HTTP/1.1", "Content-Length: 1", body=b"x"))
            ((status, headers, body),) = split(bytes(await stream.receive_some(65_536)))
            assert (status, body) == (200, f"POST /{number} 1".encode())
            assert "connection" not in headers
        assert house.server.registry.counters.connections == 1


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with running() as house:
        data = (
            request("POST /slow HTTP/1.1", "Content-Length: 5", body=b"first")
            + request("POST /b HTTP/1.1", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")
            + b"\r\n"
            + request("GET /c HTTP/1.1")
            + request("POST /d HTTP/1.1", CLOSE)
            + request("POST /never HTTP/1.1")
        )
        bodies = [body for _, _, body in await ask(house, data)]
        assert bodies == [b"POST /slow 5", b"POST /b 3", b"GET /c 0", b"POST /d 0"]


@pytest.mark.parametrize("piece", [1, 7, 1_000])
async def test_requests_may_come_in_any_pieces(piece: int, autojump_clock: MockClock) -> None:
    data = request("POST /a HTTP/1.1", "Content-Length: 5", body=b"first") + request(
        "POST /b HTTP/1.1",
        "Transfer-Encoding: chunked",
        CLOSE,
        body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\n",
    )
    async with running() as house, await house.stream() as stream:
        for start in range(0, len(data), piece):
            await stream.send_all(data[start : start + piece])
        assert [body for _, _, body in split(await read_all(stream))] == [b"POST /a 5", b"POST /b 5"]


async def test_old_clients_are_let_go(autojump_clock: MockClock) -> None:
    async with running() as house:
        ((status, headers, _),) = await ask(house, b"POST /x HTTP/1.0\r\n\r\n")
        assert (status, headers["connection"]) == (200, "close")


async def test_head_has_no_body(autojump_clock: MockClock) -> None:
    async with running() as house:
        data = await house.exchange(request("HEAD /x HTTP/1.1", CLOSE))
        assert data.endswith(b"Content-Length: 9\r\n\r\n")


async def test_a_client_that_asks_first_is_told_to_go_on(autojump_clock: MockClock) -> None:
    async with running() as house, await house.stream() as stream:
        await stream.send_all(request("POST /x HTTP/1.1", "Content-Length: 3", "Expect: 100-continue", CLOSE))
        assert await stream.receive_some(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert split(await read_all(stream))[0][2] == b"POST /x 3"


async def test_a_client_that_asks_first_with_too_much_is_not(autojump_clock: MockClock) -> None:
    async with running() as house:
        data = await house.exchange(
            request("POST /x HTTP/1.1", "Content-Length: 1001", "Expect: 100-continue")
        )
        assert b"100 Continue" not in data
        assert split(data)[0][2] == b"POST /x too large"


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        (["Content-Length: 1000"], b"x" * 1_000, b"1000"),
        (["Content-Length: 1001"], b"x" * 1_001, b"too large"),
        (["Content-Length: 99999999"], b"", b"too large"),
        (["Transfer-Encoding: chunked"], b"3e8\r\n" + b"x" * 1_000 + b"\r\n0\r\n\r\n", b"1000"),
        (["Transfer-Encoding: chunked"], b"3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n", b"too large"),
    ],
)
async def test_the_handler_says_how_large_a_body_may_be(
    headers: list[str], body: bytes, said: bytes, autojump_clock: MockClock
) -> None:
    async with running() as house, await house.stream() as stream:
        await stream.send_all(request("POST /x HTTP/1.1", *headers, body=body))
        with trio.move_on_after(1) as scope:
            data = await read_all(stream)
        if said == b"too large":
            ((status, answered, text),) = split(data)
            assert (status, answered["connection"], text) == (200, "close", b"POST /x too large")
        else:
            assert scope.cancelled_caught
            assert len(house.http.handled[0].body) == int(said)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (request("POST /x HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (request("POST /x HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400),
        (request("POST /x HTTP/1.1", "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
        (request("POST /x HTTP/3.7"), 400),
        (request("GET /" + "x" * limits.REQUEST_LINE_BYTES_MAX + " HTTP/1.1"), 414),
        (b"G" * 20_000, 414),
        (request("GET /x HTTP/1.1", "X: " + "y" * limits.HEADER_BYTES_MAX), 431),
        (request("GET /x HTTP/1.1", *["X: y"] * 4_000), 431),
        (request("GET /x HTTP/1.1", *["X: y"] * limits.HEADER_LINES_MAX), 431),
        (request("POST /x HTTP/1.1", "Content-Length: 5 ", "Content-Length: 5"), 400),
        (b"POST /x HTTP/1.1\r\nHost: h\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\nHost: h\n\r\n\r\n", 400),
        (request("POST /x HTTP/1.1", "X: a", " Content-Length: 40"), 400),
        (request("POST /x HTTP/1.1", "Transfer-Encoding: chunked", body=b"5;\nx\r\nhello\r\n0\r\n\r\n"), 400),
        (
            request("POST /x HTTP/1.1", "Transfer-Encoding: chunked", body=b"0\r\n\nGET / HTTP/1.1\r\n\r\n"),
            400,
        ),
    ],
)
async def test_what_is_no_request_is_refused_and_closed(
    data: bytes, status: int, autojump_clock: MockClock
) -> None:
    async with running() as house:
        ((answered, headers, _),) = await ask(house, data + request("POST /smuggled HTTP/1.1"))
        assert answered in {status, 505}
        assert headers["connection"] == "close"
        assert house.http.handled == []
        assert house.server.registry.counters.http_faults == 1


async def test_a_head_that_dawdles_is_given_up(autojump_clock: MockClock) -> None:
    async with running() as house, await house.stream() as stream:
        began = trio.current_time()
        await stream.send_all(b"POST /x HTTP/1.1\r\n")
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                while True:
                    await trio.sleep(1)
                    await stream.send_all(b"X")

            nursery.start_soon(dribble)
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(1_000)
            nursery.cancel_scope.cancel()
        assert data.startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - began == pytest.approx(seconds(limits.HEADER_TIMEOUT), abs=1)


async def test_a_body_that_dawdles_is_given_up(autojump_clock: MockClock) -> None:
    async with running() as house:
        began = trio.current_time()
        ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", "Content-Length: 3", body=b"a"))
        assert status == 408
        assert trio.current_time() - began == pytest.approx(seconds(limits.BODY_TIMEOUT), abs=3)


async def trickle(stream: trio.abc.Stream, size: int, every: float) -> None:
    """So many bytes, again and again, until the other side has had enough."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while True:
            await trio.sleep(every)
            await stream.send_all(b"x" * size)


async def test_a_body_below_the_least_rate_is_given_up(autojump_clock: MockClock) -> None:
    """However regular it is: each byte earns no patience."""
    async with running() as house, await house.stream() as stream, trio.open_nursery() as nursery:
        began = trio.current_time()
        await stream.send_all(request("POST /x HTTP/1.1", "Content-Length: 900"))
        nursery.start_soon(trickle, stream, 5, 1.0)
        assert (await stream.receive_some(1_000)).startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - began == pytest.approx(seconds(limits.BODY_TIMEOUT), abs=3)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("headers", [["Content-Length: 90000"], ["Transfer-Encoding: chunked"]])
async def test_a_body_at_the_least_rate_may_take_its_time(
    headers: list[str], autojump_clock: MockClock
) -> None:
    """A slow line is no attack: the body comes whole, long after a still one would have been given up."""
    async with running() as house, await house.stream() as stream:
        house.http.limit = 100_000
        began = trio.current_time()
        await stream.send_all(request("POST /x HTTP/1.1", *headers, CLOSE))
        size = limits.BODY_BYTES_PER_SECOND_MIN
        sent = 0
        while sent < 90_000:
            piece = b"x" * min(size, 90_000 - sent)
            sent += len(piece)
            framed = piece if headers[0].startswith("Content") else b"%x\r\n%b\r\n" % (len(piece), piece)
            await stream.send_all(framed)
            await trio.sleep(1)
        if not headers[0].startswith("Content"):
            await stream.send_all(b"0\r\n\r\n")
        ((status, _, body),) = split(await read_all(stream))
        assert (status, body) == (200, b"POST /x 90000")
        assert trio.current_time() - began > 5 * seconds(limits.BODY_TIMEOUT)


async def test_a_response_that_is_not_read_is_given_up(autojump_clock: MockClock) -> None:
    """One that is read slowly is not: each slice has its time."""
    async with running() as house:
        async with await house.stream() as still:
            await still.send_all(request("POST /large HTTP/1.1"))
            await trio.sleep(seconds(limits.BODY_TIMEOUT) + 3)
            assert house.server.registry.counters.connections_now == 0
        async with await house.stream() as slow:
            await slow.send_all(request("POST /large HTTP/1.1", CLOSE))
            size = 0
            while data := await slow.receive_some(LARGE // 16):
                size += len(data)
                await trio.sleep(seconds(limits.BODY_TIMEOUT) / 10)
            assert size > LARGE


async def test_a_response_is_to_be_read_slice_by_slice(autojump_clock: MockClock) -> None:
    """RESPONSE_SLICE_BYTES, each within BODY_TIMEOUT: what is as large is sent in one, a byte more in two."""
    for size, slices in ((limits.RESPONSE_SLICE_BYTES, 1), (limits.RESPONSE_SLICE_BYTES + 1, 2)):
        stream = Counting()
        async with running() as house:
            server = house.server
            connection = HttpConnection(
                stream, house.http, server._dates, server._counters, server._patience, server._hangups
            )
            await connection._send(bytes(size))
        assert [len(data) for data in stream.sent] == [limits.RESPONSE_SLICE_BYTES, 1][:slices]


class Counting(trio.abc.Stream):
    """Keeps what it is given to send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_those_who_dawdle_do_not_keep_others_waiting(autojump_clock: MockClock) -> None:
    """Hundreds of connections that send a byte now and then; meanwhile requests take no time at all."""
    async with running() as house, trio.open_nursery() as nursery:
        for _ in range(300):
            stream = await house.stream()
            nursery.start_soon(trickle, stream, 1, 5.0)
        for _ in range(8):
            await trio.sleep(1)
            before = trio.current_time()
            ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
            assert (status, trio.current_time()) == (200, before)
        await trio.sleep(seconds(limits.HEADER_TIMEOUT) + 10)
        assert house.server.registry.counters.connections_now == 0
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with running() as house, await house.stream() as stream:
        began = trio.current_time()
        assert await read_all(stream) == b""
        assert trio.current_time() - began == pytest.approx(seconds(limits.IDLE_TIMEOUT), abs=3)


async def test_a_client_that_hangs_up_ends_its_waiting_request(autojump_clock: MockClock) -> None:
    async with running() as house:
        async with await house.stream() as stream:
            await stream.send_all(request("POST /v1/queue.lease HTTP/1.1"))
            await trio.sleep(2 * seconds(MOMENT))
            assert house.http.cancelled == 0
        await wait_all_tasks_blocked()
        assert house.http.cancelled == 1
        assert house.server.registry.counters.connections_now == 0


async def test_what_is_pipelined_behind_a_waiting_request_is_not_lost(autojump_clock: MockClock) -> None:
    """The connection is watched by then; what the watch has read is the next request."""
    async with running() as house, await house.stream() as stream:
        await stream.send_all(request("POST /v1/queue.lease HTTP/1.1"))
        await trio.sleep(3 * seconds(MOMENT))
        await stream.send_all(request("POST /b HTTP/1.1", "Content-Length: 5", CLOSE)[:-2])
        await wait_all_tasks_blocked()
        house.http.found.set()
        await wait_all_tasks_blocked()
        await stream.send_all(b"\r\nfirst")
        bodies = [body for _, _, body in split(await read_all(stream))]
        assert bodies == [b"POST /v1/queue.lease 0", b"POST /b 5"]
        assert house.http.cancelled == 0


async def test_a_bug_in_the_handler_costs_one_request(autojump_clock: MockClock) -> None:
    told = []
    stop = telemetry.listen(lambda name, fields: told.append((name, fields)))
    async with running() as house:
        data = request("POST /broken HTTP/1.1") + request("POST /x HTTP/1.1", CLOSE)
        assert [(status, body) for status, _, body in await ask(house, data)] == [
            (500, b"Internal Error\n"),
            (200, b"POST /x 0"),
        ]
    stop()
    assert [(name, fields["path"]) for name, fields in told] == [("api.http.failed", "/broken")]


async def test_a_handler_cannot_split_a_response(autojump_clock: MockClock) -> None:
    async with running() as house:
        assert b"Evil" not in await house.exchange(request("POST /split HTTP/1.1", CLOSE))


async def test_health_and_metrics_are_the_servers_own(autojump_clock: MockClock) -> None:
    async with running(options=ServerOptions(version="1.2")) as house:
        house.server.metrics.add(lambda: [GaugeMetricFamily("querator_broker_items", "items", value=5)])
        health, metrics = await ask(
            house, request("GET /health HTTP/1.1") + request("GET /metrics HTTP/1.1", CLOSE)
        )
        assert (health[0], health[1]["content-type"]) == (200, "application/health+json")
        document = msgspec.json.decode(health[2])
        assert (document["status"], document["version"]) == ("pass", "1.2")
        (check,) = document["checks"]["queues:storage"]
        assert (check["componentType"], check["status"]) == ("datastore", "pass")
        assert check["time"].endswith("Z")
        assert metrics[0] == 200
        text = metrics[2].decode()
        assert "querator_api_connections 1.0" in text
        assert "querator_api_connections_opened_total 1.0" in text
        assert "querator_broker_items 5.0" in text
        assert house.http.handled == []
        others = request("POST /health HTTP/1.1") + request("PUT /metrics HTTP/1.1", CLOSE)
        assert [body for _, _, body in await ask(house, others)] == [b"POST /health 0", b"PUT /metrics 0"]


async def _slow() -> str:
    await trio.sleep_forever()
    return ""


async def _unavailable() -> str:
    raise LogUnavailable("no database")


async def _unwell() -> str:
    return "storage check failed"


@pytest.mark.parametrize("probe", [_slow, _unavailable, _unwell])
async def test_an_unwell_node_says_so(probe: Probe, autojump_clock: MockClock) -> None:
    async with running(probe=probe) as house:
        ((status, _, body),) = await ask(house, request("GET /health HTTP/1.1", CLOSE))
        assert status == 503
        document = msgspec.json.decode(body)
        assert document["status"] == document["checks"]["queues:storage"][0]["status"] == "fail"
        assert document["checks"]["queues:storage"][0]["output"]


async def test_connections_have_their_bound(autojump_clock: MockClock) -> None:
    async with running(options=ServerOptions(connections_max=2)) as house:
        first, second = await house.stream(), await house.stream()
        await wait_all_tasks_blocked()
        ((status, headers, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert (status, headers["retry-after"]) == (503, "1")
        assert house.server.registry.counters.connections_refused == 1
        await first.aclose()
        await wait_all_tasks_blocked()
        ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert status == 200
        await second.aclose()


async def test_connections_of_one_address_have_their_bound(autojump_clock: MockClock) -> None:
    """This machine's own have none; others are not touched by one that has many."""
    options = ServerOptions(connections_per_address_max=2)
    async with running(options=options) as house, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(await house.stream())
        await wait_all_tasks_blocked()
        ((status, headers, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert (status, headers["retry-after"]) == (503, "1")
        doorway = house.server._doorway
        assert doorway.refusal("192.0.2.7") == ""
        for own in ("127.0.0.1", "::1"):
            doorway._of_address[own] = 1_000
            assert doorway.refusal(own) == ""
        doorway._of_address["192.0.2.7"] = 2
        assert doorway.refusal("192.0.2.7")
    async with running(options=options) as house:
        for _ in range(5):
            ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
            assert status == 200
            await wait_all_tasks_blocked()
        assert house.server._doorway._of_address == {}


def test_an_address_has_so_many_connections_by_default() -> None:
    """CONNECTIONS_PER_ADDRESS_MAX; of a node CONNECTIONS_MAX."""
    counters = Counters()
    options = ServerOptions()
    doorway = Doorway(
        OpenAccess(),
        counters,
        options.connections_max,
        options.connections_per_address_max,
        options.strangers_max,
    )
    for _ in range(limits.CONNECTIONS_PER_ADDRESS_MAX - 1):
        visit = doorway.enter("192.0.2.7")
    assert doorway.refusal("192.0.2.7") == ""
    doorway.enter("192.0.2.7")
    assert doorway.refusal("192.0.2.7")
    assert doorway.refusal("192.0.2.8") == ""
    visit.leave()
    assert doorway.refusal("192.0.2.7") == ""
    counters.connections_now = limits.CONNECTIONS_MAX - 1
    assert doorway.refusal("192.0.2.8") == ""
    doorway.enter("192.0.2.8")
    assert doorway.refusal("192.0.2.9")


class Keys(OpenAccess):
    """One key is good."""

    wants_keys = True

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        del now
        return Principal("u", "k") if key == "good" else Rejected(Code.UNAUTHENTICATED, "who are you?")


async def crowd(house: Running, stack: contextlib.AsyncExitStack, count: int) -> list[trio.abc.Stream]:
    """Connections that say nothing."""
    streams = [await stack.enter_async_context(await house.stream()) for _ in range(count)]
    await wait_all_tasks_blocked()
    return streams


async def test_strangers_have_their_bound(autojump_clock: MockClock) -> None:
    """STRANGERS_MAX connections that have shown no good key; who has shown one is none any more."""
    async with running(access=Keys()) as house, contextlib.AsyncExitStack() as stack:
        streams = await crowd(house, stack, limits.STRANGERS_MAX - 1)
        ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert status == 200
        await wait_all_tasks_blocked()
        streams += await crowd(house, stack, 1)
        ((status, headers, body),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"API key" in body
        await streams[0].send_all(request("POST /x HTTP/1.1", "Authorization: Bearer bad"))
        assert b" 200 OK" in await streams[0].receive_some()
        ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert status == 503
        await streams[0].send_all(request("POST /x HTTP/1.1", "Authorization: Bearer good"))
        assert b" 200 OK" in await streams[0].receive_some()
        # One more may come: it is the last again, until a session's hello has shown a key.
        async with house.client(hello=False) as client:
            ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
            assert status == 503
            await client.send(wire.Hello(client="test", auth="good"))
            await client.receive()
            ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
            assert status == 200
        await streams[1].aclose()
        await wait_all_tasks_blocked()
        assert house.server._doorway.strangers == limits.STRANGERS_MAX - 2


async def test_where_nobody_needs_a_key_nobody_is_a_stranger(autojump_clock: MockClock) -> None:
    async with running() as house, contextlib.AsyncExitStack() as stack:
        await crowd(house, stack, limits.STRANGERS_MAX + 10)
        ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
        assert status == 200


@pytest.mark.parametrize(
    "options", [ServerOptions(connections_max=2), ServerOptions(strangers_max=2)], ids=["all", "strangers"]
)
async def test_the_health_is_told_also_beyond_the_bound(
    options: ServerOptions, autojump_clock: MockClock
) -> None:
    async with running(options=options, access=Keys()) as house, contextlib.AsyncExitStack() as stack:
        await crowd(house, stack, 2)
        ((status, headers, body),) = await ask(house, request("GET /health HTTP/1.1"))
        assert (status, headers["connection"]) == (200, "close")
        assert msgspec.json.decode(body)["status"] == "pass"
        for line in ("POST /health HTTP/1.1", "GET /metrics HTTP/1.1", "GET /v1/stream HTTP/1.1", "nonsense"):
            ((status, _, _),) = await ask(house, request(line))
            assert status == (400 if line == "nonsense" else 503)


async def test_who_is_turned_away_and_says_nothing_is_told_after_a_moment(autojump_clock: MockClock) -> None:
    async with (
        running(options=ServerOptions(connections_max=1)) as house,
        contextlib.AsyncExitStack() as stack,
    ):
        await crowd(house, stack, 1)
        began = trio.current_time()
        ((status, _, _),) = await ask(house, b"")
        assert status == 503
        assert trio.current_time() - began == pytest.approx(seconds(limits.TURN_AWAY_TIMEOUT))


async def test_those_turned_away_have_their_bound(autojump_clock: MockClock) -> None:
    """TURNED_AWAY_MAX; one more ends the oldest, so that there is always room for who asks for the health."""
    async with (
        running(options=ServerOptions(connections_max=1)) as house,
        contextlib.AsyncExitStack() as stack,
    ):
        await crowd(house, stack, 1)
        silent = await crowd(house, stack, limits.TURNED_AWAY_MAX)
        assert len(house.server._turned_away) == limits.TURNED_AWAY_MAX
        ((status, _, _),) = await ask(house, request("GET /health HTTP/1.1"))
        assert status == 200
        assert await silent[0].receive_some() == b""
        ((status, _, _),) = split(await read_all(silent[1]))
        assert status == 503
        await wait_all_tasks_blocked()
        assert house.server._turned_away == {}


def test_connections_leave_descriptors_for_all_else() -> None:
    beside = limits.DESCRIPTORS_BESIDE
    assert connections_within(limits.CONNECTIONS_MAX + beside) == limits.CONNECTIONS_MAX
    assert connections_within(limits.CONNECTIONS_MAX + beside + 1) == limits.CONNECTIONS_MAX
    assert connections_within(limits.CONNECTIONS_MAX + beside - 1) == limits.CONNECTIONS_MAX - 1
    assert connections_within(2 * beside) == beside
    assert connections_within(beside) == beside // 2
    assert connections_within(256) == 128


class FullListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that is out of file descriptors, some times."""

    def __init__(self, inner: trio.abc.Listener[trio.abc.Stream], times: int) -> None:
        self.times = times
        self._inner = inner

    async def accept(self) -> trio.abc.Stream:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return await self._inner.accept()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_accepting_survives_a_lack_of_file_descriptors(autojump_clock: MockClock) -> None:
    async with running() as house, trio.open_nursery() as nursery:
        (inner,) = await house.env.net.listen("node", 2_320)
        listener = FullListener(inner, 3)
        nursery.start_soon(house.server._accept, listener, nursery)
        async with await house.env.net.connect("node", 2_320) as stream:
            await stream.send_all(request("POST /x HTTP/1.1", CLOSE))
            assert split(await read_all(stream))[0][0] == 200
        assert listener.times == 0
        nursery.cancel_scope.cancel()


class OneSpare:
    """A descriptor without which the listener has no room."""

    def __init__(self) -> None:
        self.listener: FullListener | None = None
        self.is_held = True

    def give_up(self) -> bool:
        was_held, self.is_held = self.is_held, False
        if was_held and self.listener is not None:
            self.listener.times = 0
        return was_held

    def get_back(self) -> None:
        self.is_held = True
        if self.listener is not None:
            self.listener.times = 1_000


async def test_without_file_descriptors_the_health_is_told_by_the_one_kept_for_it(
    autojump_clock: MockClock,
) -> None:
    async with running() as house, trio.open_nursery() as nursery:
        (inner,) = await house.env.net.listen("node", 2_320)
        spare = house.server._spare = OneSpare()
        spare.listener = FullListener(inner, 1_000)
        nursery.start_soon(house.server._accept, spare.listener, nursery)

        async def ask_there(data: bytes) -> tuple[int, dict[str, str], bytes]:
            async with await house.env.net.connect("node", 2_320) as stream:
                await stream.send_all(data)
                (answer,) = split(await read_all(stream))
                return answer

        for _ in range(3):
            status, _, body = await ask_there(request("GET /health HTTP/1.1"))
            assert (status, msgspec.json.decode(body)["status"]) == (200, "pass")
            status, _, _ = await ask_there(request("POST /x HTTP/1.1"))
            assert status == 503
        async with await house.env.net.connect("node", 2_320):
            # One that says nothing keeps the others waiting for a moment only.
            status, _, _ = await ask_there(request("GET /health HTTP/1.1"))
            assert status == 200
        nursery.cancel_scope.cancel()
    assert not spare.is_held


async def test_draining_closes_idle_connections_and_finishes_requests(autojump_clock: MockClock) -> None:
    async with running() as house:
        idle, busy = await house.stream(), await house.stream()
        await busy.send_all(request("POST /slow HTTP/1.1"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.server.drain)
            assert await read_all(idle) == b""
            ((status, headers, _),) = split(await read_all(busy))
            assert (status, headers["connection"]) == (200, "close")
            await idle.aclose()
            await busy.aclose()
        assert trio.current_time() - began < seconds(limits.DRAIN_TIMEOUT)


async def test_a_request_that_begins_as_its_idle_connection_is_ended_is_answered(
    autojump_clock: MockClock,
) -> None:
    """Its head came in the same moment, its body later: nobody let anything run out."""
    async with running() as house:
        served, client = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.server.serve_stream, served)
            await wait_all_tasks_blocked()
            served.receive_stream.put_data(request("POST /x HTTP/1.1", "Content-Length: 3", CLOSE))
            house.server._patience.end_idle()
            await wait_all_tasks_blocked()
            await client.send_all(b"abc")
            ((status, _, body),) = split(await read_all(client))
            await client.aclose()
        assert (status, body) == (200, b"POST /x 3")


PREFIXES = [b"", b"GET /v1/stream HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: h\r\n"]


@given(data=st.binary(max_size=400), piece=st.integers(1, 100), prefix=st.sampled_from(PREFIXES))
@settings(max_examples=60, deadline=None)
def test_no_bytes_break_the_server(data: bytes, piece: int, prefix: bytes) -> None:
    """Whatever is sent, no exception escapes and the next client is served."""
    told: list[str] = []
    stop = telemetry.listen(lambda name, _: told.append(name))

    async def script() -> None:
        async with running() as house:
            async with await house.stream() as stream:
                sent = prefix + data
                for start in range(0, len(sent), piece):
                    await stream.send_all(sent[start : start + piece])
                await wait_all_tasks_blocked()
            ((status, _, _),) = await ask(house, request("POST /x HTTP/1.1", CLOSE))
            assert status == 200

    trio.run(script, clock=MockClock(autojump_threshold=0))
    stop()
    assert told == []


def test_a_server_can_be_built_twice() -> None:
    """Each has its own page of metrics."""

    async def script() -> None:
        async with running() as house:
            Server(house.server.registry, EchoHandler())

    trio.run(script, clock=MockClock(autojump_threshold=0))
