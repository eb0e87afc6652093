"""A client of the HTTP API without a socket: requests go straight into the handler of a real node."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from querator.actors.node import Node, NodeOptions, open_node
from querator.api.catalog_access import CatalogAccess
from querator.api.exchange import HttpRequest, HttpResponse
from querator.api.http.door import Door, HttpSettings
from querator.api.http.handler import HttpApi
from querator.core.ids import Duration
from querator.env.virtual import virtual_env
from querator.log.memory import Faults, MemoryDisk, MemoryLog
from querator.log.store import LogStore


@attrs.define
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        text = self.json["message"]
        assert isinstance(text, str)
        return text


@attrs.define
class Client:
    """``node`` is a real one on a memory log; its time is trio's (use ``autojump_clock``)."""

    node: Node
    door: Door
    api: HttpApi
    key: str = ""

    async def send(
        self, path: str, body: bytes = b"{}", *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> Answer:
        given = {"content-type": "application/json"} if headers is None else headers
        if self.key:
            given = {**given, "authorization": f"Bearer {self.key}"}
        response: HttpResponse = await self.api.handle(HttpRequest(method, path, given, body))
        return Answer(
            response.status, {name.lower(): value for name, value in response.headers}, response.body
        )

    async def call(self, path: str, **fields: Any) -> Answer:
        return await self.send(f"/v1/{path}", json.dumps(fields).encode())

    async def ok(self, path: str, **fields: Any) -> Any:
        answer = await self.call(path, **fields)
        assert answer.status == 200, answer.body
        return answer.json

    async def fails(self, path: str, **fields: Any) -> tuple[int, str]:
        answer = await self.call(path, **fields)
        assert answer.status != 200
        assert answer.json["code"] == answer.status
        return answer.status, answer.message

    async def create(self, name: str, **settings: Any) -> None:
        settings = {
            "lease_timeout": "1m",
            "expire_timeout": "24h",
            "requested_partitions": 1,
            **settings,
        }
        assert await self.ok("queues.create", queue_name=name, **settings) == {"code": 200}

    async def produce(self, name: str, *texts: str, **more: Any) -> None:
        items = [{"utf8": text, **more} for text in texts]
        assert await self.ok("queue.produce", queue_name=name, request_timeout="1m", items=items) == {
            "code": 200
        }

    async def lease(self, name: str, batch_size: int = 10, client: str = "c", timeout: str = "1m") -> Any:
        return await self.ok(
            "queue.lease", queue_name=name, batch_size=batch_size, client_id=client, request_timeout=timeout
        )


@asynccontextmanager
async def open_client(
    *,
    auth: bool = False,
    settings: HttpSettings | None = None,
    disk: MemoryDisk | None = None,
    faults: Faults | None = None,
) -> AsyncIterator[Client]:
    """``disk``: what an earlier client's node left."""
    env = virtual_env(1)
    stores: dict[str, LogStore] = {"memory": MemoryLog(env, disk, faults=faults)}
    # On a clock that stands still between steps, what is past is past.
    async with open_node(stores, env, NodeOptions(auth=auth, end_lag=Duration(0))) as node:
        door = Door(
            broker=node.broker,
            catalog_port=node.catalog,
            access=CatalogAccess(node.catalog, auth=auth),
            clock=env.clock,
            settings=settings or HttpSettings(),
            history=node.history,
        )
        node.catalog.when_access_changes(door.access_changed)
        yield Client(node, door, HttpApi(door))
