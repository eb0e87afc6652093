"""Two servers on one database: one owns, whatever happens to it; the other says so, and takes over."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from querator.client import connect
from querator.errors import StoreLocked
from querator.protocol.closing import CloseCode
from tests.blackbox.arena import QUEUE, Arena, address_of, open_arena
from tests.blackbox.ownership import OWNERSHIP_FAULTS, STANDS_BY, kill_owner, owns, watching
from tests.blackbox.processes import Server, until
from tests.blackbox.run import conclude, strike
from tests.postgres import Cluster

PATIENCE = 300
PINGS = ("--ping-interval", "1")
"""So that clients notice soon that a server is stopped."""


@pytest.fixture
def address(cluster: Cluster) -> str:
    return address_of(cluster.port, cluster.new_database("querator_template"))


@pytest.mark.timeout(PATIENCE)
async def test_an_owner_that_is_drained_stopped_or_cut_off_is_followed_and_nothing_is_lost(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nothing acknowledged is lost, nothing is completed twice, what a former owner appends is refused.

    Never do two of them own. One that is killed: below, and in the long kill tests.
    """
    faults = [fault for fault in OWNERSHIP_FAULTS if fault.strike is not kill_owner]
    async with open_arena(tmp_path, seed=1, cluster=cluster, servers=2, options=PINGS) as arena:
        await check_what_a_standby_answers(arena)
        async with watching(arena) as watch:
            await strike(arena, faults)
        row = await conclude(arena, "ownership", len(faults))
    assert row.stale_refused >= len(faults)
    assert watch.both == []
    assert watch.looks > 10


@pytest.mark.timeout(PATIENCE)
async def test_a_reservation_outlives_the_owner_that_gave_it(address: str, tmp_path: Path) -> None:
    """Its session goes on at the server that takes over, by the secret that both have from the database."""
    servers = [Server(address, tmp_path, name=f"server-{number}") for number in range(2)]
    try:
        for server in servers:
            await server.start_surely()
        first, second = servers
        async with connect(f"{first.address},{second.address}") as client:
            await client.call("queues.create", {"name": QUEUE})
            await client.produce_batch(QUEUE, [b"one", b"two"])
            batch = await client.reserve(QUEUE, items=2, held=True)
            assert batch is not None
            session = client.session
            await batch.complete(0, 1)
            first.kill()
            await until("the other one owns", lambda: owns(second))
            await batch.complete(1, 1)
            assert client.session == session
            (part,) = (await client.stats(QUEUE)).partitions
            assert (part["ready"], part["reserved"]) == (0, 0)
    finally:
        for server in servers:
            server.end()


async def check_what_a_standby_answers(arena: Arena) -> None:
    """On every door: where to go."""
    first, second = arena.servers
    assert await owns(first)
    health = await second.health()
    assert health is not None
    assert health[0] == 200
    assert STANDS_BY in health[1]
    where = f"127.0.0.1:{arena.door.port}"
    assert f"the owner is {where}" in health[1]
    code, body = await http_post(second, "/v1/queue.stats", {"queue_name": QUEUE})
    assert code == 454
    assert "partition not found; partition '0' may have moved, retry again" in body
    (going_away,), closing = await hello(second)
    assert (going_away["type"], going_away["to"]) == ("going_away", where)
    assert closing[0] == CloseCode.GOING_AWAY
    assert closing[1].startswith("not_owner: ")
    code, body = await http_get(second, "/metrics")
    assert "querator_owner 0.0" in body
    code, body = await http_get(first, "/metrics")
    assert "querator_owner 1.0" in body


@pytest.mark.timeout(PATIENCE)
async def test_a_sole_server_that_was_killed_owns_again_without_standing_by(
    address: str, tmp_path: Path
) -> None:
    """It has its place in line at once: its directory says that whoever had the name is gone."""
    server = Server(address, tmp_path)
    try:
        for _ in range(2):
            await server.start_surely()
            await until("it owns", lambda: owns(server))
            server.kill()
        events = server.events()
    finally:
        server.end()
    assert events["node.took_over"] == 2
    assert events["node.standing_by"] == 0


@pytest.mark.timeout(PATIENCE)
async def test_two_servers_cannot_share_a_directory(address: str, tmp_path: Path) -> None:
    """It has what tells a node from others, and its witness."""
    first = Server(address, tmp_path)
    second = Server(address, tmp_path)
    try:
        await first.start_surely()
        second.start()
        await until("the second one gives up", lambda: not second.is_running)
        assert second.process is not None
        assert second.process.returncode == StoreLocked.exit_code
        assert "each node needs one of its own" in second.journal.read_text()
    finally:
        first.end()
        second.end()


async def http_get(server: Server, path: str) -> tuple[int, str]:
    return await _http(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


async def http_post(server: Server, path: str, document: object) -> tuple[int, str]:
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return await _http(server, head.encode() + body)


async def _http(server: Server, request: bytes) -> tuple[int, str]:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(request)
        answer = b"".join([data async for data in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def hello(server: Server) -> tuple[list[dict[str, str]], tuple[int, str]]:
    """What a WebSocket that says hello is told, and how it is closed. By hand, as any client might."""
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: querator.v1.json\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(request.encode() + _masked(b'[{"type":"hello","client":"by hand"}]'))
        answer = b""
        while not _has_close(answer):
            data = await stream.receive_some()
            if not data:
                break
            answer += data
    frames = list(_frames(answer.partition(b"\r\n\r\n")[2]))
    messages = [message for opcode, body in frames if opcode == 1 for message in json.loads(body)]
    (closing,) = [body for opcode, body in frames if opcode == 8]
    return messages, (int.from_bytes(closing[:2], "big"), closing[2:].decode())


def _masked(text: bytes) -> bytes:
    """A text frame of a client, under a mask of zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 2:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + size:
            return
        yield data[0] & 15, data[start : start + size]
        data = data[start + size :]


def _has_close(answer: bytes) -> bool:
    return any(opcode == 8 for opcode, _ in _frames(answer.partition(b"\r\n\r\n")[2]))
