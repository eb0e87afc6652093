"""Sessions over streams: a client of another make (trio-websocket) against the server, in virtual time."""

import struct

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionRejected
from wsproto.events import Ping, Pong

from querator import telemetry
from querator.api.calls import operations
from querator.api.registry import Settings
from querator.core import limits
from querator.core.ids import Instant
from querator.env import seconds
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.codec import CODECS, JSON, MSGPACK, Codec
from tests.api.fakes import FakeBroker, FakeCatalog, FakeHistory, FakePartitions
from tests.api.pure import SECRET
from tests.api.serving import Client, Running, read_all, running, wrap
from tests.api.test_frames import client_frame

both = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.subprotocol)


@both
async def test_an_item_travels(codec: Codec, autojump_clock: MockClock) -> None:
    async with running() as house, house.client(codec) as producer, house.client(codec) as consumer:
        await consumer.send(wire.Subscribe(id=1, queue="mail"))
        assert await consumer.receive() == [wire.Subscribed(id=1)]
        await producer.send(wire.Produce(id=1, queue="mail", payloads=[b"one", b"two"]))
        assert await producer.receive() == [wire.Produced(id=1, partition=1, first=1, count=2)]
        (reserved,) = await consumer.receive()
        assert isinstance(reserved, wire.Reserved)
        assert reserved.payloads == [b"one", b"two"]
        await consumer.send(wire.Complete(id=2, token=reserved.token), wire.Confirm(push=reserved.push))
        assert await consumer.receive() == [wire.Settled(id=2, done=2)]


async def test_no_answer_leaves_before_its_commit(autojump_clock: MockClock) -> None:
    async with running() as house, house.client() as client:
        house.broker.commits_at_once = False
        await client.send(wire.Produce(id=1, queue="mail", texts=["x"]))
        with trio.move_on_after(3) as scope:
            await client.receive()
        assert scope.cancelled_caught
        house.broker.commit()
        assert await client.receive() == [wire.Produced(id=1, partition=1, first=1, count=1)]


async def test_a_client_that_does_not_say_hello_is_closed(autojump_clock: MockClock) -> None:
    async with running() as house, house.client(hello=False) as client:
        began = trio.current_time()
        code, _ = await client.wait_closed()
        assert code == CloseCode.HELLO_TIMEOUT
        assert trio.current_time() - began == pytest.approx(seconds(limits.HELLO_TIMEOUT))


async def test_goodbye_ends_the_session_and_a_break_does_not(autojump_clock: MockClock) -> None:
    async with running() as house:
        async with house.client() as client:
            await client.socket.aclose(1000)
        await wait_all_tasks_blocked()
        assert (len(house.broker.closed), house.broker.lost) == (1, [])
        async with house.client() as client:
            await client.socket.aclose(1001)
        async with house.client() as client:
            await client.stream.aclose()
        await wait_all_tasks_blocked()
        assert (len(house.broker.closed), len(house.broker.lost)) == (1, 2)


async def test_a_session_resumes_over_a_new_connection(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.broker.add("mail", b"a")
        async with house.client() as client:
            await client.send(wire.Reserve(id=1, queue="mail"))
            (reserved,) = await client.receive()
            assert isinstance(reserved, wire.Reserved)
            assert client.welcome is not None
            resume = client.welcome.resume
            await client.stream.aclose()
        async with house.client(hello=False) as client:
            await client.send(wire.Hello(client="test", resume=resume))
            welcome, again = await client.receive()
            assert isinstance(welcome, wire.Welcome)
            assert isinstance(again, wire.Reserved)
            assert [held.token for held in welcome.held] == [again.token] == [reserved.token]
            assert again.again


async def test_the_older_connection_is_closed_when_a_newer_resumes(autojump_clock: MockClock) -> None:
    async with running() as house, house.client() as old:
        assert old.welcome is not None
        async with house.client(hello=False) as new:
            await new.send(wire.Hello(client="test", resume=old.welcome.resume))
            (welcome,) = await new.receive()
            assert isinstance(welcome, wire.Welcome)
            assert welcome.generation == 2
            code, _ = await old.wait_closed()
            assert code == CloseCode.FENCED
            await new.send(wire.Stats(id=1, queue="mail"))
            assert len(await new.receive()) == 1
        assert house.server.registry.counters.sessions_fenced == 1


async def test_a_client_that_answers_no_pings_is_closed(autojump_clock: MockClock) -> None:
    """A half-open socket is found within the ping interval and timeout."""
    async with running() as house:
        async with await house.stream() as stream:
            await stream.send_all(HANDSHAKE + client_frame(1, JSON_HELLO))
            began = trio.current_time()
            data = await read_all(stream)
            assert struct.pack(">H", CloseCode.PING_TIMEOUT) in data
            waited = trio.current_time() - began
            least = seconds(limits.PING_TIMEOUT)
            assert (
                least <= waited <= least + seconds(limits.PING_INTERVAL) + seconds(limits.CLOSE_TIMEOUT) + 1
            )
        assert len(house.broker.lost) == 1


async def test_a_client_that_answers_pings_stays_and_keep_alive_asks_nothing(
    autojump_clock: MockClock,
) -> None:
    async with running() as house, house.client() as client:
        turns = house.broker.turns
        await trio.sleep(300)
        assert house.broker.turns == turns
        await client.send(wire.Stats(id=1, queue="mail"))
        assert len(await client.receive()) == 1


async def test_the_server_answers_pings(autojump_clock: MockClock) -> None:
    async with running() as house, house.client() as client:
        with trio.fail_after(1):
            await client.socket.ping(b"still there?")


HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: querator.v1.json\r\n\r\n"
)
JSON_HELLO = b'[{"type":"hello","client":"raw"}]'


async def test_frames_may_come_with_the_handshake(autojump_clock: MockClock) -> None:
    """Bytes read with the head are not lost; the accept key is RFC 6455's example."""
    async with running() as house:
        data = await house.exchange(
            HANDSHAKE + client_frame(1, JSON_HELLO) + client_frame(8, struct.pack(">H", 1000))
        )
        assert data.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in data
        assert b'"type":"welcome"' in data or data.endswith(b"\x88\x02\x03\xe8")
        await wait_all_tasks_blocked()
        assert len(house.broker.closed) == 1


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x01x", 1002),
        (client_frame(1, b"\xff"), 1007),
        (client_frame(2, b"\x90"), 1003),
        (client_frame(1, b"nonsense"), 4400),
        (b"\x81\xff" + b"\xff" * 8, 1009),
        (client_frame(1, b"[", fin=False) + client_frame(0, b" ", fin=False) * 300, 1009),
        (b"\x82\xff" + struct.pack(">Q", limits.MESSAGE_BYTES_MAX + 1), 1009),
    ],
)
async def test_bad_frames_get_their_close_code(frames: bytes, code: int, autojump_clock: MockClock) -> None:
    async with running() as house:
        data = await house.exchange(HANDSHAKE + client_frame(1, JSON_HELLO) + frames)
        assert b"\x88" in data
        assert struct.pack(">H", code) in data
        await wait_all_tasks_blocked()
        assert house.server.registry.sessions == []


async def test_a_fragmented_message_is_one_message(autojump_clock: MockClock) -> None:
    stats = JSON.encode([wire.Stats(id=7, queue="mail")])
    assert isinstance(stats, str)
    pieces = [stats.encode()[start : start + 9] for start in range(0, len(stats), 9)]
    frames = client_frame(1, pieces[0], fin=False)
    frames += b"".join(client_frame(0, piece, fin=False) for piece in pieces[1:]) + client_frame(0, b"")
    async with running() as house, await house.stream() as stream:
        await stream.send_all(HANDSHAKE + client_frame(1, JSON_HELLO))
        for byte in frames:
            await stream.send_all(bytes((byte,)))
        data = b""
        while b'"id":7' not in data:
            data += await stream.receive_some(65_536)


async def test_too_many_control_frames_end_the_connection(autojump_clock: MockClock) -> None:
    most = limits.CONTROL_FRAMES_PER_SECOND_MAX
    async with running() as house:
        data = await house.exchange(
            HANDSHAKE + client_frame(1, JSON_HELLO) + client_frame(9, b"") * (most + 1)
        )
        assert struct.pack(">H", CloseCode.POLICY) in data
        async with house.client() as client:
            for _ in range(3):
                await trio.sleep(1)
                for _ in range(most // 2):
                    await client.socket._send(Ping(b""))
                    await client.socket._send(Pong(b""))
            await client.send(wire.Stats(id=1, queue="mail"))
            assert len(await client.receive()) == 1


async def test_a_slow_reader_is_cut_off_and_the_others_are_served(autojump_clock: MockClock) -> None:
    async with running() as house, house.client(MSGPACK) as quick, await house.stream() as slow:
        hello = JSON_HELLO[:-1] + b',{"type":"subscribe","id":1,"queue":"mail","batch":10,"window":10000}]'
        await slow.send_all(HANDSHAKE + client_frame(1, hello))
        await wait_all_tasks_blocked()
        (session,) = (s for s in house.server.registry.sessions if s.codec is JSON)
        for _ in range(50):
            house.broker.add("mail", *([b"x" * 200_000] * 10))
            assert session.outbox.bytes_waiting <= limits.OUTBOX_BYTES_MAX
            await quick.send(wire.Stats(id=1, queue="mail"))
            assert len(await quick.receive()) == 1
        await trio.sleep(seconds(limits.CLOSE_TIMEOUT) + 1)
        assert session not in house.server.registry.sessions
        assert len(house.broker.lost) == 1
        assert house.server.registry.counters.sessions_cut_off == 1


async def test_a_client_that_vanishes_while_pushed_to_costs_only_itself(autojump_clock: MockClock) -> None:
    """Whenever between the two it vanishes: the writer must not go round and keep the loop for itself."""
    async with running() as house, house.client(MSGPACK) as quick:
        for steps in range(12):
            gone = await house.stream()
            subscribe = b',{"type":"subscribe","id":1,"queue":"mail","batch":10,"window":10000}]'
            hello = JSON_HELLO[:-1] + subscribe
            await gone.send_all(HANDSHAKE + client_frame(1, hello))
            await wait_all_tasks_blocked()
            for _ in range(4):
                house.broker.add("mail", b"x" * 60_000)
                await wait_all_tasks_blocked()
            # The writer waits for room, and more waits behind it: it gets room, and its client goes.
            for _ in range(steps):
                await gone.receive_some(30_000)
            await trio.aclose_forcefully(gone)
            await quick.send(wire.Stats(id=1, queue="mail"))
            assert len(await quick.receive()) == 1
        await wait_all_tasks_blocked()
        assert len(house.server.registry.sessions) == 1


async def test_a_bug_costs_one_connection(autojump_clock: MockClock) -> None:
    told = []
    stop = telemetry.listen(lambda name, fields: told.append((name, fields)))
    async with running() as house, house.client() as unlucky, house.client() as other:
        house.broker.fault = RuntimeError("a bug")
        await unlucky.send(wire.Produce(id=1, queue="mail", texts=["x"]))
        code, _ = await unlucky.wait_closed()
        assert code == CloseCode.INTERNAL
        await other.send(wire.Produce(id=1, queue="mail", texts=["x"]))
        assert len(await other.receive()) == 1
    stop()
    assert ("api.session.failed") in [name for name, _ in told]


# -- handshakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), 426),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        ((b"querator.v1.json", b"graphql-ws"), 400),
        ((b"Connection: Upgrade", b"Connection: close"), 400),
        ((b"Host: node", b"Host: node\r\nOrigin: https://evil.example"), 403),
        ((b"Host: node", b"Host: node\r\nOrigin: null"), 403),
        ((b"Host: node", b"Host: node\r\nOrigin: http://[::1"), 403),
        ((b"Host: node", b"Host: node\r\nOrigin: http://node"), 101),
    ],
)
async def test_a_handshake_is_granted_or_told_why_not(
    change: tuple[bytes, bytes], status: int, autojump_clock: MockClock
) -> None:
    async with running() as house:
        data = await house.exchange(HANDSHAKE.replace(*change) + client_frame(8, b""))
        assert data.startswith(b"HTTP/1.1 %d " % status)


async def test_another_make_of_client_is_told_of_a_refused_handshake(autojump_clock: MockClock) -> None:
    async with running() as house:
        stream = await house.stream()
        with pytest.RaisesGroup(ConnectionRejected):
            async with trio.open_nursery() as nursery:
                await wrap(nursery, stream, "other")


async def test_the_better_subprotocol_is_chosen(autojump_clock: MockClock) -> None:
    async with running() as house:
        offer = HANDSHAKE.replace(b"querator.v1.json", b"querator.v1.json, querator.v1.msgpack")
        assert b"Sec-WebSocket-Protocol: querator.v1.msgpack\r\n" in await house.exchange(
            offer + client_frame(8, b"")
        )


# -- drain ----------------------------------------------------------------------------------------


async def test_draining_waits_for_settlements_and_closes(autojump_clock: MockClock) -> None:
    async with running() as house, house.client() as client:
        house.broker.add("mail", b"a")
        await client.send(wire.Reserve(id=1, queue="mail"))
        (reserved,) = await client.receive()
        assert isinstance(reserved, wire.Reserved)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.server.drain, "elsewhere:1")
            (going,) = await client.receive()
            assert isinstance(going, wire.GoingAway)
            assert going.to == "elsewhere:1"
            await trio.sleep(1)
            await client.send(wire.Complete(id=2, token=reserved.token))
            assert await client.receive() == [wire.Settled(id=2, done=1)]
            began = trio.current_time()
            await client.socket.aclose(1001)
        assert trio.current_time() - began < 1
        with pytest.raises(ConnectionRefusedError):
            await house.stream()


async def test_draining_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with running() as house, house.client() as client:
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(house.server.drain)
            code, heard = await client.wait_closed()
        assert code == CloseCode.GOING_AWAY
        assert [type(message) for message in heard] == [wire.GoingAway]
        assert (
            seconds(limits.DRAIN_TIMEOUT) <= trio.current_time() - began <= seconds(limits.DRAIN_TIMEOUT) + 3
        )


async def test_draining_outlasts_a_client_that_is_not_there(autojump_clock: MockClock) -> None:
    async with running() as house, await house.stream() as stream:
        await stream.send_all(HANDSHAKE + client_frame(1, JSON_HELLO))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await house.server.drain()
        assert (
            trio.current_time() - began <= seconds(limits.DRAIN_TIMEOUT) + seconds(limits.CLOSE_TIMEOUT) + 1
        )
        assert house.server.registry.counters.connections_now == 0


# -- many -----------------------------------------------------------------------------------------


async def test_idle_sessions_share_their_pings_evenly(autojump_clock: MockClock) -> None:
    """A thousand sessions cost one task, and no beat has more than its share of them."""
    async with running(settings=Settings(secret=SECRET)) as house:
        registry = house.server.registry
        async with trio.open_nursery() as nursery:
            streams = []
            for _ in range(200):
                stream = await house.stream()
                streams.append(stream)
                await stream.send_all(HANDSHAKE + client_frame(1, JSON_HELLO))
            await wait_all_tasks_blocked()
            assert len(registry.sessions) == 200
            assert {len(slot) for slot in registry._slots} == {10}
            nursery.cancel_scope.cancel()


# -- calls ----------------------------------------------------------------------------------------


class Operator:
    """A client that calls, over a house with a catalog."""

    def __init__(self, house: Running, client: Client, catalog: FakeCatalog) -> None:
        self.house = house
        self.client = client
        self.catalog = catalog
        self._number = 0

    async def call(self, method: str, params: object = None) -> object:
        """The value, or the rejection."""
        self._number += 1
        raw = {} if params is None else {"params": self.client.codec.encode_value(params)}
        await self.client.send(wire.Call(id=self._number, method=method, **raw))
        (answer,) = await self.client.receive()
        if isinstance(answer, wire.Result):
            return self.client.codec.decode_value(answer.value, object)
        assert isinstance(answer, wire.Rejected)
        return answer


async def operate(script: "Script") -> None:
    async with running() as house:
        broker: FakeBroker = house.broker
        catalog = FakeCatalog(house.env.clock)
        house.server.registry.operations = operations(broker, catalog, FakeHistory(), FakePartitions())
        async with house.client() as client:
            await script(Operator(house, client, catalog))


class Script:
    async def __call__(self, operator: Operator) -> None:
        raise NotImplementedError


async def test_a_suspected_loss_is_accepted_once(autojump_clock: MockClock) -> None:
    async def script(operator: Operator) -> None:
        await operator.call("queues.create", {"name": "mail"})
        assert await operator.call("partitions.accept_loss", {"partition": 1}) == {
            "kept": 3,
            "known": 5,
        }
        again = await operator.call("partitions.accept_loss", {"partition": 1})
        assert isinstance(again, wire.Rejected)
        assert (again.code, again.field) == ("invalid", "params.partition")
        unknown = await operator.call("partitions.accept_loss", {"partition": 99})
        assert isinstance(unknown, wire.Rejected)
        assert "there is no partition 99" in unknown.detail

    await operate(script)


async def test_queues_are_created_listed_changed_and_deleted(autojump_clock: MockClock) -> None:
    async def script(operator: Operator) -> None:
        made = await operator.call(
            "queues.create",
            {
                "name": "jobs",
                "partitions": 2,
                "attempts_max": 3,
                "backoff": {"base": 1_000_000},
                "ordering": "key",
            },
        )
        assert isinstance(made, dict)
        assert (made["name"], made["partitions"], made["attempts_max"]) == ("jobs", [1, 2], 3)
        assert (made["backoff"]["base"], made["ordering"], made["paused"]) == (1_000_000, "key", False)
        await operator.call("queues.create", {"name": "other"})
        page = await operator.call("queues.list", {"limit": 1})
        assert isinstance(page, dict)
        assert ([queue["name"] for queue in page["queues"]], page["next"]) == (["jobs"], "other")
        page = await operator.call("queues.list", {"pivot": "other"})
        assert isinstance(page, dict)
        assert ([queue["name"] for queue in page["queues"]], page["next"]) == (["other"], None)
        changed = await operator.call("queues.update", {"name": "jobs", "reservation_timeout": 5_000_000})
        assert isinstance(changed, dict)
        assert (changed["reservation_timeout"], changed["attempts_max"]) == (5_000_000, 3)
        paused = await operator.call("queues.pause", {"name": "jobs"})
        assert isinstance(paused, dict)
        assert paused["paused"]
        resumed = await operator.call("queues.resume", {"name": "jobs"})
        assert isinstance(resumed, dict)
        assert not resumed["paused"]
        assert await operator.call("queues.delete", {"name": "jobs"}) == {}
        gone = await operator.call("queues.info", {"name": "jobs"})
        assert isinstance(gone, wire.Rejected)
        assert gone.code == "unknown_queue"
        assert set(operator.catalog.authors) == {"anonymous"}

    await operate(script)  # type: ignore[arg-type]  # a function is a script


@pytest.mark.parametrize(
    ("method", "params", "code", "field"),
    [
        ("queues.destroy", {}, "invalid", "method"),
        ("queues.create", {}, "invalid", "params"),
        ("queues.create", {"name": 5}, "invalid", "params.name"),
        ("queues.create", {"name": "x", "color": "red"}, "invalid", "params"),
        ("queues.create", {"name": "x", "attempts_max": "5"}, "invalid", "params.attempts_max"),
        ("queues.create", {"name": "x", "ordering": "lifo"}, "invalid", "params.ordering"),
        ("queues.create", [], "invalid", "params"),
        ("queues.info", {"name": "nowhere"}, "unknown_queue", "params.name"),
        ("queues.list", {"limit": 0}, "invalid", "params.limit"),
        ("queues.list", {"limit": 1_001}, "invalid", "params.limit"),
        ("queues.clear", {"name": "mail"}, "invalid", "params"),
        ("queues.clear", {"name": "nowhere", "ready": True}, "unknown_queue", "params.name"),
        ("dead.list", {"name": "nowhere"}, "unknown_queue", "params.name"),
        ("dead.list", {"name": "mail", "partition": 9}, "invalid", "params.partition"),
        ("dead.redrive", {"name": "mail", "items": [1]}, "invalid", "params.partition"),
        (
            "dead.redrive",
            {"name": "mail", "partition": 1, "items": [1] * 4_097},
            "batch_too_large",
            "params.items",
        ),
        ("dead.redrive", {"name": "mail", "to": "nowhere"}, "invalid", "params.to"),
        ("dead.redrive", {"name": "mail", "from_queue": "other"}, "invalid", "params.from_queue"),
        ("dead.redrive", {"name": "mail", "to": "home", "reason": "x"}, "invalid", "params.reason"),
        (
            "dead.redrive",
            {"name": "mail", "to": "home", "from_queue": "nowhere"},
            "unknown_queue",
            "params.from_queue",
        ),
        ("dead.homes", {"name": "nowhere"}, "unknown_queue", "params.name"),
        ("item.find", {"partition": 99, "item": 1}, "unknown_item", "params.partition"),
    ],
)
async def test_a_bad_call_is_refused_by_its_field(
    method: str, params: object, code: str, field: str, autojump_clock: MockClock
) -> None:
    async def script(operator: Operator) -> None:
        answer = await operator.call(method, params)
        assert isinstance(answer, wire.Rejected)
        assert (answer.code, answer.field) == (code, field)
        assert answer.detail

    await operate(script)  # type: ignore[arg-type]  # a function is a script


async def test_items_are_cleared_found_and_brought_back(autojump_clock: MockClock) -> None:
    async def script(operator: Operator) -> None:
        await operator.call("queues.create", {"name": "mail"})
        operator.house.broker.add("mail", b"a", b"b", b"c")
        found = await operator.call("item.find", {"partition": 1, "item": 2})
        assert isinstance(found, dict)
        assert (found["state"], found["payload"], found["partition"]) == ("ready", "Yg==", 1)
        trace = await operator.call("item.trace", {"partition": 1, "item": 1})
        assert isinstance(trace, dict)
        assert [step["what"] for step in trace["steps"]] == ["produced"]
        await operator.client.send(wire.Reserve(id=90, queue="mail", items=3))
        (reserved,) = await operator.client.receive()
        assert isinstance(reserved, wire.Reserved)
        await operator.client.send(
            wire.Dead(id=91, token=reserved.token, reason="bad", ranges=[(0, 2)]),
            wire.Release(id=92, token=reserved.token),
        )
        await operator.client.receive()
        page = await operator.call("dead.list", {"name": "mail", "limit": 1})
        assert isinstance(page, dict)
        assert [(item["item"], item["reason"]) for item in page["items"]] == [(1, "bad")]
        assert page["next"] == {"partition": 1, "item": 2}
        page = await operator.call("dead.list", {"name": "mail", **page["next"], "payloads": False})
        assert isinstance(page, dict)
        assert [item.get("payload") for item in page["items"]] == [None]
        assert page["next"] is None
        assert await operator.call("dead.redrive", {"name": "mail", "partition": 1, "items": [2]}) == {
            "redriven": 1
        }
        assert await operator.call("dead.redrive", {"name": "mail", "reason": "other"}) == {"redriven": 0}
        assert await operator.call("dead.redrive", {"name": "mail"}) == {"redriven": 1}
        assert await operator.call("queues.clear", {"name": "mail", "ready": True}) == {"cleared": 3}

    await operate(script)  # type: ignore[arg-type]  # a function is a script


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (LogUnavailable("the disk is full"), "unavailable"),
        (AppendOutcomeUnknown("who knows"), "outcome_unknown"),
        (RuntimeError("a bug"), "internal"),
    ],
)
async def test_a_failing_call_costs_only_itself(
    failure: Exception, code: str, autojump_clock: MockClock
) -> None:
    async def script(operator: Operator) -> None:
        operator.catalog.failure = failure
        answer = await operator.call("queues.delete", {"name": "mail"})
        assert isinstance(answer, wire.Rejected)
        assert answer.code == code
        await operator.client.send(wire.Stats(id=1, queue="mail"))
        assert len(await operator.client.receive()) == 1

    await operate(script)  # type: ignore[arg-type]  # a function is a script


def test_settings_do_not_show_their_secret() -> None:
    assert SECRET.decode() not in repr(Settings(secret=SECRET))
    assert attrs.evolve(Settings(secret=SECRET)).secret == SECRET
    assert Instant(0) == 0
