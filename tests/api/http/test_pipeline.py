"""What comes before a call: method, authentication, path, content types, body limits (CONTRACT.md 1)."""

import json

import pytest

from querator.api.exchange import HttpRequest
from querator.api.http.endpoints import ENDPOINTS, SMALL_BODY
from querator.api.http.handler import HttpApi
from querator.api.http.messages import QueuesInfoRequest, Reply
from querator.api.http.proto import duh_pb2, querator_pb2
from querator.api.http.proto_codec import encode_protobuf
from querator.core.limits import QUEUE_NAME_BYTES_MAX
from tests.api.http.client import open_client

PROTOBUF = "application/protobuf"


async def test_only_post(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        client.key = "bad"
        answer = await client.send("/nope", method="PUT")
        assert (answer.status, answer.message) == (400, "http method 'PUT' not allowed; only POST")


async def test_authentication_comes_before_the_path(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        client.key = "bad"
        assert (await client.send("/v1/nope")).status == 401
        client.key = ""
        answer = await client.send("/v1/nope")
        assert (answer.status, answer.message) == (501, "no such method; /v1/nope")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/queues.rebalance",
        "/v1/storage/scheduled.add",
        "/v1/Queue.stats",
        "/v1/queue.stats/",
        "/health",
        "/",
    ],
)
async def test_paths_are_exact(path: str, autojump_clock: object) -> None:
    async with open_client() as client:
        answer = await client.send(path, b"not even JSON")
        assert answer.json == {
            "code": 501,
            "code_text": "Not Implemented",
            "message": f"no such method; {path}",
        }


@pytest.mark.parametrize(
    "value",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "Application/JSON ; charset=utf-8",
        "application/json,x",
    ],
)
async def test_content_types_that_mean_json(value: str, autojump_clock: object) -> None:
    async with open_client() as client:
        for headers in ({"content-type": value}, {"accept": value}, {}):
            answer = await client.send("/v1/queues.list", b"{}", headers=headers)
            assert (answer.status, answer.body) == (200, b"{}")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "value", ["text/plain", "application/x-protobuf", "application/x-www-form-urlencoded; a=b"]
)
async def test_content_types_that_are_not_read(value: str, autojump_clock: object) -> None:
    async with open_client() as client:
        answer = await client.send("/v1/queues.list", headers={"content-type": value})
        text = f"Content-Type header '{value}' is invalid format or unrecognized content type"
        assert (answer.status, answer.message) == (455, text)


async def test_an_unknown_accept_is_refused_before_anything_happens(autojump_clock: object) -> None:
    async with open_client() as client:
        body = (
            b'{"queue_name": "q", "lease_timeout": "1m", "expire_timeout": "1m", "requested_partitions": 1}'
        )
        answer = await client.send("/v1/queues.create", body, headers={"accept": "text/html;q=1"})
        text = (
            "Accept header 'text/html' is invalid format or unrecognized content type, only "
            "[application/json,application/protobuf] are supported by this method"
        )
        assert (answer.status, answer.message) == (455, text)
        assert await client.ok("queues.list") == {}


async def test_a_go_client_sends_protobuf_and_reads_json(autojump_clock: object) -> None:
    """It sets Content-Type, never Accept, and reads strictly: names, zeros left out, exact texts."""
    go = {"content-type": PROTOBUF}
    async with open_client() as client:
        await client.create("q")
        produce = querator_pb2.QueueProduceRequest(queue_name="q", request_timeout="1m")  # type: ignore[attr-defined]
        produce.items.add(encoding="friday", kind="pizza", reference="ref", bytes=b"\x00\xff")
        answer = await client.send("/v1/queue.produce", produce.SerializeToString(), headers=go)
        assert answer.body == b'{"code":200}'
        lease = querator_pb2.QueueLeaseRequest(  # type: ignore[attr-defined]
            queue_name="q", batch_size=1, client_id="c", request_timeout="5s"
        )
        answer = await client.send("/v1/queue.lease", lease.SerializeToString(), headers=go)
        leased = answer.json
        item = leased["items"][0]
        assert leased == {"queue_name": "q", "items": [item]}
        assert item == {
            "encoding": "friday",
            "kind": "pizza",
            "reference": "ref",
            "id": item["id"],
            "attempts": 1,
            "lease_deadline": "2026-01-01T00:01:00Z",
            "bytes": "AP8=",
        }
        complete = querator_pb2.QueueCompleteRequest(  # type: ignore[attr-defined]
            queue_name="q", request_timeout="5s", ids=[item["id"]]
        )
        answer = await client.send("/v1/queue.complete", complete.SerializeToString(), headers=go)
        assert answer.body == b'{"code":200}'
        answer = await client.send("/v1/queue.complete", complete.SerializeToString(), headers=go)
        assert answer.json == {
            "code": 400,
            "code_text": "Bad Request",
            "message": f"invalid storage id; '{item['id']}' does not exist",
        }
        # A request of defaults only is a body of nothing.
        answer = await client.send("/v1/queues.list", b"", headers=go)
        assert list(answer.json) == ["items"]


async def test_protobuf_is_answered_when_it_is_asked_for(autojump_clock: object) -> None:
    headers = {"content-type": "application/json", "accept": PROTOBUF}
    async with open_client() as client:
        await client.create("q", reference="r")
        answer = await client.send("/v1/queues.info", b'{"queue_name":"q"}', headers=headers)
        info = querator_pb2.QueueInfo.FromString(answer.body)  # type: ignore[attr-defined]
        assert (info.queue_name, info.reference, info.lease_timeout, info.namespace) == (
            "q",
            "r",
            "1m0s",
            "_system",
        )
        assert answer.headers["content-type"] == PROTOBUF
        answer = await client.send("/v1/queues.info", b'{"queue_name":"x"}', headers=headers)
        error = duh_pb2.Reply.FromString(answer.body)  # type: ignore[attr-defined]
        assert (answer.status, error.code, error.code_text) == (400, 400, "Bad Request")
        answer = await client.send("/v1/queue.reload", b'{"queue_name":"q"}', headers=headers)
        assert answer.body == encode_protobuf(Reply(200))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_bodies_over_the_limit_are_refused(endpoint: object, autojump_clock: object) -> None:
    async with open_client() as client:
        path = endpoint.path  # type: ignore[attr-defined]
        limit = client.api._body_bytes_max(endpoint)  # type: ignore[arg-type]
        at_limit = await client.send(path, b" " * limit)
        assert at_limit.status == 455, "read, and no JSON"
        over = await client.send(path, b" " * (limit + 1))
        assert over.status == 400
        assert over.message.startswith("request body exceeds ")
        cut = await client.api.handle(HttpRequest("POST", path, {}, b"", is_too_large=True))
        assert cut.body == over.body


@pytest.mark.parametrize("name", ["x" * QUEUE_NAME_BYTES_MAX, "\u00fc" * (QUEUE_NAME_BYTES_MAX // 2)])
@pytest.mark.parametrize("escaped", [True, False])
async def test_a_queue_of_the_longest_name_is_leased_from(
    name: str, autojump_clock: object, *, escaped: bool
) -> None:
    """QUEUE_NAME_BYTES_MAX: 512 bytes of body do not count the name, however it is written."""

    def body(**fields: object) -> bytes:
        return json.dumps({"queue_name": name, **fields}, ensure_ascii=escaped).encode()

    async with open_client() as client:
        await client.create(name)
        await client.produce(name, "x")
        lease = {"client_id": "c", "batch_size": 1, "request_timeout": "1s"}
        leased = await client.send("/v1/queue.lease", body(**lease))
        assert (leased.status, len(leased.json["items"])) == (200, 1)
        for path, fields in (("queue.stats", {}), ("queue.reload", {}), ("queue.clear", {"queue": True})):
            assert (await client.send(f"/v1/{path}", body(**fields))).status == 200
        too_much = await client.send("/v1/queue.lease", body(**lease | {"client_id": "c" * SMALL_BODY}))
        assert (too_much.status, too_much.message) == (400, "request body exceeds 512B limit")
        longer = json.dumps({"queue_name": name + "xx"}).encode()
        assert (await client.send("/v1/queue.lease", longer)).message == "request body exceeds 512B limit"
        proto = {"content-type": PROTOBUF}
        request = querator_pb2.QueueLeaseRequest(queue_name=name, client_id="c", batch_size=1)  # type: ignore[attr-defined]
        request.request_timeout = "1s"
        await client.produce(name, "y")
        sent = await client.send("/v1/queue.lease", request.SerializeToString(), headers=proto)
        assert sent.status == 200


async def test_a_bug_costs_one_request(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_client() as client:

        def explode(_door: object, name: str) -> None:
            raise RuntimeError(name)

        monkeypatch.setattr(type(client.door), "find_queue", explode)
        assert await client.fails("queues.info", queue_name="q") == (500, "Internal Error")
        assert await client.ok("queues.list") == {}


async def test_undecodable_bodies_are_455(autojump_clock: object) -> None:
    async with open_client() as client:
        answer = await client.send("/v1/queues.info", b"")
        assert (answer.status, answer.json["code_text"]) == (455, "Client Content Error")
        assert answer.message == "proto: syntax error (line 1:1): unexpected token "
        answer = await client.send("/v1/queues.info", b"bad")
        assert answer.status == 455
        answer = await client.send("/v1/queues.info", b'{"nope":1}')
        assert (answer.status, answer.message) == (455, 'proto: unknown field "nope"')
        answer = await client.send("/v1/queues.info", b"\xff", headers={"content-type": PROTOBUF})
        assert (answer.status, answer.message) == (455, "proto: cannot parse invalid wire-format data")


async def test_the_handler_is_stateless_between_requests(autojump_clock: object) -> None:
    """Headers of one answer are not changed by another."""
    async with open_client() as client:
        api: HttpApi = client.api
        request = HttpRequest("POST", "/v1/queues.list", {}, b"{}")
        first = await api.handle(request)
        first.headers.append(("X-Mine", "1"))
        second = await api.handle(request)
        assert ("X-Mine", "1") not in second.headers


def test_requests_are_messages() -> None:
    assert json.loads(b"{}") == {}
    assert encode_protobuf(QueuesInfoRequest()) == b""
