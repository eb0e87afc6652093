"""The host does what suites ask of it. Real sockets and real time; nothing here waits long."""

import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from querator.env.real import real_env
from tests.conformance.control import serve_connection
from tests.conformance.host import Host
from tests.conformance.storage import MemoryStorage, SqliteStorage, Storage

NOW = 1_800_000_000_000_000_000
"""2027-01-15T08:00:00Z, in nanoseconds."""
MINUTE = 60_000_000_000
SECOND = 1_000_000_000
PATIENCE = 60.0
"""Seconds for what takes milliseconds on an idle machine."""


class Server:
    """A client of one logical server."""

    def __init__(self, host: Host, made: dict[str, str]) -> None:
        self.host = host
        self.id = made["id"]
        self.address = made["addr"]

    async def order(self, path: str, **fields: str) -> None:
        status, document = await self.host.order(path, {"id": self.id, **fields})
        assert status == 200, document

    async def call(self, path: str, **fields: Any) -> tuple[int, Any]:
        return await trio.to_thread.run_sync(self._call, path, fields, abandon_on_cancel=True)

    def _call(self, path: str, fields: dict[str, Any]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request("POST", f"/v1/{path}", json.dumps(fields), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body)

    async def ok(self, path: str, **fields: Any) -> Any:
        status, document = await self.call(path, **fields)
        assert status == 200, document
        return document

    async def create(self, name: str, **settings: Any) -> None:
        wanted = {"lease_timeout": "1m", "expire_timeout": "10m", "requested_partitions": 1, **settings}
        await self.ok("queues.create", queue_name=name, **wanted)

    async def produce(self, name: str, *texts: str, **more: Any) -> None:
        items = [{"utf8": text, **more} for text in texts]
        await self.ok("queue.produce", queue_name=name, request_timeout="1m", items=items)

    async def lease(self, name: str, size: int, who: str, timeout: str = "1m") -> tuple[int, Any]:
        return await self.call(
            "queue.lease", queue_name=name, batch_size=size, client_id=who, request_timeout=timeout
        )

    async def waiting(self, name: str, field: str, count: int) -> None:
        """Until that many wait."""
        with trio.fail_after(PATIENCE):
            while True:
                stats = (await self.ok("queue.stats", queue_name=name))["logicalQueues"][0]
                if stats.get(field, 0) == count:
                    return


@asynccontextmanager
async def open_host(storage: Storage | None = None) -> AsyncIterator[Host]:
    async with trio.open_nursery() as nursery:
        yield Host(real_env(), storage or MemoryStorage(), nursery)
        nursery.cancel_scope.cancel()


async def new(host: Host, **fields: str) -> Server:
    status, document = await host.order("/new", fields)
    assert status == 200, document
    return Server(host, document)


async def test_servers_are_ready_at_once_and_apart() -> None:
    async with open_host() as host:
        with trio.fail_after(PATIENCE):
            servers = [await new(host) for _ in range(5)]
        for server in servers:
            await server.create("q")
        assert len({server.address for server in servers}) == 5
        assert len((await servers[0].ok("queues.list"))["items"]) == 1


async def test_a_frozen_clock_goes_on_when_told_and_all_that_is_due_has_happened() -> None:
    """In order: the reservation, the move to the dead queue, the schedule, the end of a wait."""
    async with open_host() as host, trio.open_nursery() as nursery:
        server = await new(host, now=str(NOW))
        await server.create("dead")
        await server.create("q", max_attempts=1, dead_queue="dead")
        await server.create("empty")
        await server.produce("q", "a")
        await server.produce("empty", "later", enqueue_at="2027-01-15T09:00:00Z")
        _, leased = await server.lease("q", 1, "c")
        assert leased["items"][0]["lease_deadline"] == "2027-01-15T08:01:00Z"
        answers: list[tuple[int, Any]] = []

        async def wait() -> None:
            answers.append(await server.lease("empty", 1, "w", "2m"))

        nursery.start_soon(wait)
        await server.waiting("empty", "lease_waiting", 1)
        await server.order("/clock", now=str(NOW + MINUTE))
        assert len((await server.ok("storage/items.list", queue_name="q"))["items"]) == 1
        await server.order("/clock", now=str(NOW + MINUTE + 1_000))
        assert await server.ok("storage/items.list", queue_name="q") == {}
        dead = (await server.ok("storage/items.list", queue_name="dead"))["items"]
        assert [item["source_id"] for item in dead] == [leased["items"][0]["id"]]
        await server.order("/clock", now=str(NOW))
        await server.order("/clock", now=str(NOW + 2 * MINUTE + SECOND))
        with trio.fail_after(PATIENCE):
            while not answers:
                await trio.sleep(0.001)
        assert answers[0][0] == 454
        scheduled = (await server.ok("storage/scheduled.list", queue_name="empty"))["items"]
        assert scheduled[0]["created_at"] == "2027-01-15T08:00:00Z"


async def test_a_held_queue_keeps_calls_and_serves_them_in_one_pass() -> None:
    async with open_host() as host, trio.open_nursery() as nursery:
        server = await new(host, max_requests_per_queue="4")
        await server.create("q")
        await server.order("/pause", queue="q", pause="1")
        answers: dict[str, Any] = {}

        async def lease(who: str, size: int) -> None:
            answers[who] = (await server.lease("q", size, who))[1]

        async def produce() -> None:
            await server.produce("q", *["x"] * 23)
            answers["produced"] = True

        for number, (who, size) in enumerate((("a", 20), ("b", 6), ("c", 1))):
            nursery.start_soon(lease, who, size)
            await server.waiting("q", "lease_waiting", number + 1)
        nursery.start_soon(produce)
        await server.waiting("q", "produce_waiting", 1)
        status, refusal = await server.lease("q", 1, "d")
        assert (status, refusal["message"]) == (454, "queue is overloaded; try again later")
        await server.ok("queue.clear", queue_name="q", queue=True)
        assert await server.ok("storage/items.list", queue_name="q") == {}
        await server.order("/pause", queue="q", pause="0")
        with trio.fail_after(PATIENCE):
            while len(answers) < 4:
                await trio.sleep(0.001)
        assert [len(answers[who]["items"]) for who in "abc"] == [16, 6, 1]


async def test_a_server_that_stops_answers_those_who_wait() -> None:
    async with open_host() as host, trio.open_nursery() as nursery:
        server = await new(host)
        await server.create("q")
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await server.lease("q", 1, "w", "5m"))

        nursery.start_soon(wait)
        await server.waiting("q", "lease_waiting", 1)
        with trio.fail_after(PATIENCE):
            await server.order("/stop")
        with trio.fail_after(PATIENCE):
            while not answers:
                await trio.sleep(0.001)
        assert answers[0][0] == 453
        assert answers[0][1]["message"] == "queue is shutting down"
        with pytest.raises(OSError, match="refused"):
            await server.call("queues.list")
        assert (await host.order("/stop", {"id": server.id}))[0] == 400


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_servers_of_one_token_share_their_log(kind: str, tmp_path: Path) -> None:
    storage = MemoryStorage() if kind == "memory" else SqliteStorage(tmp_path)
    async with open_host(storage) as host:
        first = await new(host, storage="token")
        await first.create("q")
        await first.produce("q", "a", "b")
        _, leased = await first.lease("q", 1, "c")
        await first.order("/stop")
        second = await new(host, storage="token")
        ids = [leased["items"][0]["id"]]
        await second.ok("queue.complete", queue_name="q", request_timeout="1m", ids=ids)
        assert len((await second.ok("storage/items.list", queue_name="q"))["items"]) == 1
        other = await new(host, storage="other")
        assert await other.ok("queues.list") == {}


async def test_the_bootstrap_changes_nothing() -> None:
    async with open_host() as host:
        server = await new(host, auth="1")
        await server.ok("rolebindings.delete", namespace="_system", role_name="Admin", user_id="anonymous")
        await server.order("/bootstrap")
        assert (await server.call("users.list"))[0] == 403


async def test_batch_limits_are_the_suite_s() -> None:
    async with open_host() as host:
        server = await new(
            host, max_produce_batch_size="1", max_lease_batch_size="2", max_complete_batch_size="3"
        )
        await server.create("q")
        status, refusal = await server.call(
            "queue.produce", queue_name="q", request_timeout="1m", items=[{}, {}]
        )
        assert refusal["message"] == "items is invalid; max_produce_batch_size is 1 but received 2"
        _, refusal = await server.lease("q", 3, "c")
        assert refusal["message"].endswith("max_lease_batch_size is 2, but 3 was requested")
        _, refusal = await server.call("queue.complete", queue_name="q", request_timeout="1m", ids=["x"] * 4)
        assert refusal["message"] == "ids is invalid; max_complete_batch_size is 3 but received 4"
        assert status == 400


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/nope", {}), ("/stop", {"id": "9"}), ("/clock", {"id": "1", "now": "1"}), ("/pause", {"id": "1"})],
)
async def test_orders_that_make_no_sense_are_refused(path: str, fields: dict[str, str]) -> None:
    async with open_host() as host:
        await new(host)
        status, document = await host.order(path, fields)
        assert status in (400, 404)
        assert document["error"]


async def test_the_control_port_speaks_http() -> None:
    """Forms in the body or the query, several on one connection, a bug told and survived."""

    async def order(path: str, fields: Any) -> tuple[int, dict[str, str]]:
        if path == "/bug":
            raise RuntimeError("a bug")
        return 200, {"path": path, **fields}

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    def ask() -> list[tuple[int, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        answers = []
        for method, target, body in (
            ("POST", "/new", "auth=1&now=5"),
            ("POST", "/clock?id=1", ""),
            ("POST", "/bug", ""),
            ("GET", "/new", ""),
        ):
            connection.request(method, target, body)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        connection.close()
        return answers

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, lambda stream: serve_connection(stream, order), listeners)
        answers = await trio.to_thread.run_sync(ask)
        nursery.cancel_scope.cancel()
    assert answers == [
        (200, {"path": "/new", "auth": "1", "now": "5"}),
        (200, {"path": "/clock", "id": "1"}),
        (500, {"error": "RuntimeError('a bug')"}),
        (405, {"error": "orders are POSTs"}),
    ]
