"""No byte of an answer leaves any socket before the position it was decided at is on disk."""

import json

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import QueueName
from querator.env.virtual import MemoryNetwork, virtual_env
from querator.log.memory import Gate, MemoryLog
from querator.log.store import LogStore

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: querator.v1.json\r\n\r\n"
)


def frame(*messages: dict[str, object]) -> bytes:
    """A masked text frame (with a mask of zeros) that carries these messages."""
    data = json.dumps(messages).encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + data


class Socket:
    """A raw connection that keeps every byte that comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def listen(self) -> None:
        while data := await self.stream.receive_some(65_536):
            self.received += data


async def open_sockets(network: MemoryNetwork, nursery: trio.Nursery, count: int) -> list[Socket]:
    sockets = []
    for number in range(count):
        env = virtual_env(number, f"client-{number}", network=network)
        socket = Socket(await env.net.connect("server", 2319))
        nursery.start_soon(socket.listen)
        sockets.append(socket)
    return sockets


def post(path: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


async def _prepare(application: Application) -> None:
    changed = await application.node.catalog.change(CreateQueue(name=QueueName("q")))
    assert not hasattr(changed, "code"), changed


async def test_no_socket_sees_anything_while_the_append_is_held(autojump_clock: MockClock) -> None:
    """Producers, consumers, readers, refused settlers, on WebSocket and on HTTP; then all of them do."""
    network, gate = MemoryNetwork(), Gate()
    env = virtual_env(7, "server", network=network)
    stores: dict[str, LogStore] = {"memory": MemoryLog(env, faults=gate)}
    async with open_application(stores, env, AppOptions(host="server", port=2319)) as application:
        await _prepare(application)
        async with trio.open_nursery() as nursery:
            sockets = await open_sockets(network, nursery, 5)
            consumer, producer, reader, http_producer, http_reader = sockets
            for number, socket in enumerate(sockets[:3]):
                await socket.stream.send_all(HANDSHAKE + frame({"type": "hello", "client": f"c{number}"}))
            subscribe: dict[str, object] = {"type": "subscribe", "id": 1, "queue": "q", "batch": 1}
            await consumer.stream.send_all(frame(subscribe))
            await producer.stream.send_all(frame({"type": "produce", "id": 1, "queue": "q", "texts": ["a"]}))
            await wait_all_tasks_blocked()
            pushed = consumer.received[consumer.received.rindex(b'[{"type":"reserved"') :]
            token = json.loads(pushed)[0]["token"]
            gate.close()
            for socket in sockets:
                socket.received = b""
            await producer.stream.send_all(frame({"type": "produce", "id": 2, "queue": "q", "texts": ["b"]}))
            await gate.wait_arrived()
            # Decided on what is not committed: answers that write nothing wait as well.
            settle: dict[str, object] = {"type": "complete", "id": 3, "token": token}
            late: dict[str, object] = {"type": "retry", "id": 4, "token": token}
            await consumer.stream.send_all(frame(settle, late))
            await reader.stream.send_all(frame({"type": "stats", "id": 5, "queue": "q"}))
            item = {"utf8": "c"}
            produce: dict[str, object] = {"queue_name": "q", "request_timeout": "1m", "items": [item]}
            await http_producer.stream.send_all(post("/v1/queue.produce", produce))
            await http_reader.stream.send_all(post("/v1/queue.stats", {"queue_name": "q"}))
            await wait_all_tasks_blocked()
            assert [socket.received for socket in sockets] == [b""] * 5
            gate.open()
            await wait_all_tasks_blocked()
            assert b'"produced"' in producer.received
            assert b'"settled"' in consumer.received
            assert b'"reservation_lost"' in consumer.received
            assert b'"reserved"' in consumer.received
            assert b'"stats"' in reader.received
            assert b" 200 " in http_producer.received
            assert b" 200 " in http_reader.received
            nursery.cancel_scope.cancel()
