"""A Go client, byte by byte: protobuf in, never an Accept header, JSON read strictly, one connection.

``python -m tests.api.http.test_go_client`` writes the golden dialogue anew; a difference is a difference
that some client out there will meet.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from trio.testing import MockClock

from querator.api.http.endpoints import BY_PATH, ENDPOINTS
from querator.api.http.messages import Reply
from querator.api.http.proto import duh_pb2, querator_pb2
from querator.log.memory import MemoryDisk
from tests.api.test_whole import PORT, node

GOLDEN = Path(__file__).parents[2] / "golden" / "http" / "go_client.json"
Ask = Callable[..., Awaitable[Any]]


@attrs.define
class GoClient:
    """What the client of the Go library does with one connection."""

    stream: trio.abc.Stream
    key: str = ""
    dialogue: list[dict[str, str]] = attrs.field(factory=list)

    async def ask(self, call: str, **fields: Any) -> Any:
        """The answer, read as the client reads it: the target message, or a Reply that is not 200."""
        path = f"/v1/{call}"
        request = message(BY_PATH[path].request.__name__, fields)
        body = request.SerializeToString(deterministic=True)
        head = [f"POST {path} HTTP/1.1", "Host: localhost:2319", "User-Agent: Go-http-client/1.1"]
        head += [f"Content-Length: {len(body)}"]
        head += [f"Authorization: Bearer {self.key}"] if self.key else []
        head += ["Content-Type: application/protobuf", "Accept-Encoding: gzip"]
        await self.stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
        status, headers, text = await self._response()
        self.dialogue.append(
            {"call": call, "request": body.hex(), "status": status, "headers": headers, "answer": text}
        )
        reply = BY_PATH[path].reply
        target: Any = (
            duh_pb2.Reply()  # type: ignore[attr-defined]  # generated
            if reply is Reply or not status.endswith("200 OK")
            else message(reply.__name__)
        )
        return json_format.Parse(text, target, ignore_unknown_fields=False)

    async def _response(self) -> tuple[str, str, str]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive_some(65_536)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        (length,) = (int(line.split(": ")[1]) for line in headers if line.startswith("Content-Length: "))
        while len(body) < length:
            body += await self.stream.receive_some(65_536)
        assert len(body) == length
        return status, "\n".join(headers), body.decode()


def message(name: str, fields: dict[str, Any] | None = None) -> Any:
    """A message of the Go library's package, with moments as RFC 3339."""
    made = getattr(querator_pb2, name)()
    return json_format.ParseDict(fields or {}, made)


async def story(client: GoClient) -> None:
    """Every call of the contract once, and the refusals that clients act on."""
    ask = client.ask
    times = {"lease_timeout": "1m", "expire_timeout": "10m"}
    await ask("queues.create", queue_name="dead", requested_partitions=1, **times)
    await ask(
        "queues.create", queue_name="q", requested_partitions=1, dead_queue="dead", max_attempts=3, **times
    )
    await ask("queues.create", queue_name="q", requested_partitions=1, **times)
    await ask("queues.create", queue_name="late", lease_timeout="foo", expire_timeout="10m")
    await ask("queues.info", queue_name="q")
    await ask("queues.update", queue_name="q", reference="rainbow", dead_queue="dead", lease_timeout="90s")
    await ask("queues.list", limit=10)
    first = {"encoding": "friday", "kind": "pizza", "reference": "ref", "bytes": "AP8="}
    scheduled = {"utf8": "later", "enqueue_at": "2026-01-01T00:10:00Z"}
    await ask(
        "queue.produce", queue_name="q", request_timeout="1m", items=[first, {"utf8": "ü"}, {}, scheduled]
    )
    await ask("queue.produce", queue_name="q", items=[{}])
    await ask("queue.produce", queue_name="nope", request_timeout="1m", items=[{}])
    await ask("queue.stats", queue_name="q")
    await ask("storage/items.list", queue_name="q")
    await ask("storage/scheduled.list", queue_name="q")
    lease = {"queue_name": "q", "client_id": "worker", "request_timeout": "20ms"}
    leased = [item.id for item in (await ask("queue.lease", batch_size=3, **lease)).items]
    await ask("queue.lease", batch_size=3, **lease)
    await ask("queue.complete", queue_name="q", request_timeout="1m", ids=leased[:1])
    await ask("queue.complete", queue_name="q", request_timeout="1m", ids=leased[:1])
    await ask("queue.retry", queue_name="q", items=[{"id": leased[1]}, {"id": leased[2], "dead": True}])
    await ask("storage/items.list", queue_name="dead")
    await ask(
        "storage/items.import", queue_name="q", items=[{"source_id": "s", "payload": "YQ==", "attempts": 2}]
    )
    listed = [item.id for item in (await ask("storage/items.list", queue_name="q")).items]
    await ask("storage/items.delete", queue_name="q", ids=listed[:1])
    await ask("storage/items.delete", queue_name="q", ids=["invalid-id"])
    await ask("queue.reload", queue_name="q")
    await ask("queue.clear", queue_name="q")
    await ask("queue.clear", queue_name="q", queue=True, scheduled=True)
    await ask("storage/items.list", queue_name="q")
    await ask("queues.delete", queue_name="q")
    await ask("queues.delete", queue_name="q")
    await who_may(ask, client)


async def who_may(ask: Ask, client: GoClient) -> None:
    await ask("namespaces.create", name="tenant", description="of one customer", api_key_tag="acme")
    await ask("namespaces.update", name="tenant", description="of another")
    await ask("namespaces.list")
    user = (await ask("users.create", username="ann", email="ann@example.org", external_id="7")).id
    await ask("users.create", username="ann")
    await ask("users.list", limit=5)
    role = {"namespace": "tenant", "name": "worker"}
    await ask("roles.create", permissions=["queue.lease"], **role)
    await ask("roles.update", permissions=["queue.lease", "queue.list"], **role)
    await ask("roles.list", namespace="tenant")
    binding = {"namespace": "tenant", "role_name": "worker", "user_id": user}
    await ask("rolebindings.create", **binding)
    await ask("rolebindings.list", namespace="tenant")
    key = await ask("apikeys.create", user_id=user, name="k", namespace_scope="tenant")
    client.key = key.key
    await ask("queues.list", namespace="tenant")
    await ask("users.list")
    client.key = "qtr-acme-" + "0" * 43
    await ask("queues.list")
    client.key = ""
    await ask("apikeys.list", user_id=user)
    await ask("apikeys.delete", id=key.id)
    await ask("apikeys.delete", id=key.id)
    await ask("rolebindings.delete", **binding)
    await ask("roles.delete", **role)
    await ask("users.delete", id=user)
    await ask("namespaces.delete", name="tenant")


async def converse() -> list[dict[str, str]]:
    async with node(MemoryDisk(), auth=True) as (_, env):
        client = GoClient(await env.net.connect("node", PORT))
        await story(client)
        await client.stream.aclose()
    return client.dialogue


async def test_a_go_client_hears_what_it_always_heard(autojump_clock: MockClock) -> None:
    golden = json.loads(GOLDEN.read_text())
    dialogue = await converse()
    for said, expected in zip(dialogue, golden, strict=True):
        assert said == expected


def test_every_call_of_the_contract_is_in_the_dialogue() -> None:
    calls = {endpoint.path.removeprefix("/v1/") for endpoint in ENDPOINTS if "/v1/x/" not in endpoint.path}
    assert {turn["call"] for turn in json.loads(GOLDEN.read_text())} == calls


def test_what_is_refused_and_what_is_done_are_both_in_it() -> None:
    statuses = {turn["status"].split(" ", 1)[1] for turn in json.loads(GOLDEN.read_text())}
    assert statuses == {
        "200 OK",
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "454 Retry Request",
    }


def test_the_dialogue_is_as_plain_as_the_go_library_wants_it() -> None:
    """No compression, no chunks, a JSON content type without a charset, and the connection stays."""
    for turn in json.loads(GOLDEN.read_text()):
        headers = dict(line.split(": ", 1) for line in turn["headers"].split("\n"))
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert set(headers) == {"Content-Type", "X-Content-Type-Options", "Content-Length", "Date"}


def test_moments_are_those_of_go() -> None:
    """Its zero time is the year 1, and is written so for what is not leased."""
    stamp = Timestamp()
    json_format.Parse('"0001-01-01T00:00:00Z"', stamp)
    listed = next(turn for turn in json.loads(GOLDEN.read_text()) if turn["call"] == "storage/items.list")
    answer = json_format.Parse(listed["answer"], message("StorageItemsListResponse"))
    assert {item.lease_deadline.seconds for item in answer.items} == {stamp.seconds}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    told = trio.run(converse, clock=MockClock(autojump_threshold=0))
    GOLDEN.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
