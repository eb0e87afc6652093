"""The request pipeline, content negotiation, body limits, replies (CONTRACT.md 1.1 to 1.4)."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.http.contract import endpoint_rows
from tests.conformance.suite.go_client import CODES, MESSAGES, PATIENCE, PROTOBUF, Control, Server

JSON = "application/json"
ENDPOINTS = endpoint_rows()
PATHS = [path for path, *_ in ENDPOINTS]
BODY_READ_WHOLE_MAX = 6_000_000


def answer(
    server: Server, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, Any]]:
    """(status, document) of any request; header names with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, got, read = server.raw(method, path, body, named)
    assert got["content-type"] == JSON
    assert got["x-content-type-options"] == "nosniff"
    return status, json.loads(read)


def error(code: int, text: str) -> tuple[int, dict[str, Any]]:
    return code, {"code": code, "code_text": CODES[code], "message": text}


@pytest.mark.parametrize(
    ("method", "path", "code", "text"),
    [
        ("GET", "/v1/queues.list", 400, "http method 'GET' not allowed; only POST"),
        ("PUT", "/v1/queues.list", 400, "http method 'PUT' not allowed; only POST"),
        ("DELETE", "/v1/nope", 400, "http method 'DELETE' not allowed; only POST"),
        ("PATCH", "/", 400, "http method 'PATCH' not allowed; only POST"),
        ("OPTIONS", "/v1/queues.list", 400, "http method 'OPTIONS' not allowed; only POST"),
        ("PUT", "/health", 400, "http method 'PUT' not allowed; only POST"),
        ("PUT", "/metrics", 400, "http method 'PUT' not allowed; only POST"),
        ("GET", "/healthz", 400, "http method 'GET' not allowed; only POST"),
        ("GET", "/health/", 400, "http method 'GET' not allowed; only POST"),
        ("POST", "/health", 501, "no such method; /health"),
        ("POST", "/metrics", 501, "no such method; /metrics"),
        ("POST", "/", 501, "no such method; /"),
        ("POST", "/v1", 501, "no such method; /v1"),
        ("POST", "/v1/queues", 501, "no such method; /v1/queues"),
        ("POST", "/v1/queues.list/", 501, "no such method; /v1/queues.list/"),
        ("POST", "/v1/Queues.List", 501, "no such method; /v1/Queues.List"),
        ("POST", "/V1/queues.list", 501, "no such method; /V1/queues.list"),
        ("POST", "//v1/queues.list", 501, "no such method; //v1/queues.list"),
        ("POST", "/v1/queues.rebalance", 501, "no such method; /v1/queues.rebalance"),
        ("POST", "/v1/storage/scheduled.add", 501, "no such method; /v1/storage/scheduled.add"),
        ("POST", "/v1/storage/scheduled.delete", 501, "no such method; /v1/storage/scheduled.delete"),
        ("POST", "/v1/storage.items-list", 501, "no such method; /v1/storage.items-list"),
    ],
)
def test_methods_and_paths(server: Server, method: str, path: str, code: int, text: str) -> None:
    for body in (b"", b"{}", b"\xff"):
        assert answer(server, method, path, body) == error(code, text)


def test_the_query_is_ignored(server: Server) -> None:
    assert answer(server, "POST", "/v1/queues.list?limit=-1&a", b"{}") == (200, {})
    assert answer(server, "POST", "/v1/nope?x=1") == error(501, "no such method; /v1/nope")


def test_head_is_no_post(server: Server) -> None:
    status, _, read = server.raw("HEAD", "/v1/queues.list")
    assert (status, read) == (400, b"")
    assert answer(server, "POST", "/v1/queues.list", b"{}") == (200, {})


def test_authentication_comes_after_the_method_and_before_the_path(guarded: Server) -> None:
    bad: dict[str, Any] = {"Authorization": "Bearer nope"}
    assert answer(guarded, "GET", "/v1/nope", **bad)[0] == 400
    assert answer(guarded, "POST", "/v1/nope", **bad) == error(401, "api key is invalid")
    assert answer(guarded, "POST", "/v1/queues.list", b"x", **bad) == error(401, "api key is invalid")
    assert guarded.raw("GET", "/health", headers=bad)[0] == 200
    assert guarded.raw("GET", "/metrics", headers=bad)[0] == 200


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        " application/json , text/plain",
        "*/*",
        "*/*;q=0.8",
        "application/*",
        "application/json;,application/protobuf",
    ],
)
def test_what_means_json(server: Server, value: str) -> None:
    for headers in ({"Content_Type": value}, {"Accept": value}, {"Content_Type": value, "Accept": value}):
        assert answer(server, "POST", "/v1/queues.list", b"{}", **headers) == (200, {})


@pytest.mark.parametrize(
    "value",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/x-protobuf",
        "application/protobuf+json",
        "multipart/form-data; boundary=x",
        "json",
        "text/html, application/json",
        "application / json",
    ],
)
def test_what_is_no_content_type(server: Server, value: str) -> None:
    text = f"Content-Type header '{value}' is invalid format or unrecognized content type"
    assert answer(server, "POST", "/v1/queues.list", b"{}", Content_Type=value) == error(455, text)
    cut = value.partition(";")[0].partition(",")[0].strip()
    text = (
        f"Accept header '{cut}' is invalid format or unrecognized content type, only "
        "[application/json,application/protobuf] are supported by this method"
    )
    assert answer(server, "POST", "/v1/queues.list", b"{}", Accept=value) == error(455, text)


@pytest.mark.parametrize(
    "value", ["application/protobuf", "Application/Protobuf; a=b", "application/protobuf, x"]
)
def test_protobuf_both_ways(server: Server, value: str) -> None:
    server.create()
    request = MESSAGES["QueuesInfoRequest"](queue_name="q").SerializeToString()
    status, headers, read = server.raw(
        "POST", "/v1/queues.info", request, {"Content-Type": value, "Accept": value}
    )
    assert (status, headers["content-type"]) == (200, PROTOBUF)
    assert headers["x-content-type-options"] == "nosniff"
    assert MESSAGES["QueueInfo"].FromString(read).queue_name == "q"


@pytest.mark.parametrize("path", ["/v1/queues.info", "/v1/nope", "/v1/queue.lease"])
def test_errors_are_protobuf_when_that_is_accepted(server: Server, path: str) -> None:
    status, headers, read = server.raw("POST", path, b"{}", {"Accept": PROTOBUF})
    reply = MESSAGES["Reply"].FromString(read)
    assert headers["content-type"] == PROTOBUF
    assert (reply.code, reply.code_text) == (status, CODES[status])
    assert reply.message
    assert not reply.details


def test_an_empty_accept_is_none(server: Server) -> None:
    assert answer(server, "POST", "/v1/queues.list", b"{}", Accept="", Content_Type="") == (200, {})


def test_a_bad_accept_changes_nothing(server: Server) -> None:
    body = b'{"queue_name":"q","lease_timeout":"1m","expire_timeout":"1m","requested_partitions":1}'
    assert answer(server, "POST", "/v1/queues.create", body, Accept="text/html")[0] == 455
    assert answer(server, "POST", "/v1/queues.list", b"{}") == (200, {})


def test_success_without_data_is_a_code(server: Server) -> None:
    server.create()
    for path, body in (
        ("queue.reload", {"queue_name": "q"}),
        ("queue.clear", {"queue_name": "q", "queue": True}),
        ("queue.produce", {"queue_name": "q", "request_timeout": "1m", "items": [{}]}),
        ("queues.update", {"queue_name": "q"}),
        ("queues.delete", {"queue_name": "q"}),
        ("namespaces.create", {"name": "n"}),
        ("namespaces.delete", {"name": "n"}),
    ):
        assert server.json(path, body) == (200, {"code": 200})


@pytest.mark.parametrize("row", ENDPOINTS, ids=PATHS)
def test_body_limits(server: Server, row: tuple[str, str, str, int, str]) -> None:
    """One byte more is too much; the connection is kept or at least the answer arrives."""
    path, _, _, limit, size = row
    if limit <= BODY_READ_WHOLE_MAX:
        assert answer(server, "POST", path, b" " * limit)[0] == 455
    over = error(400, f"request body exceeds {size} limit")
    assert answer(server, "POST", path, b" " * (limit + 1)) == over
    assert answer(server, "POST", path, b"\xff" * (limit + 1), Content_Type=PROTOBUF) == over
    assert answer(server, "POST", "/v1/queues.list", b"{}") == (200, {})


@pytest.mark.parametrize("path", PATHS)
def test_undecodable_bodies(server: Server, path: str) -> None:
    """In JSON nothing, garbage, what is unknown; in protobuf garbage. All are 455, none changes anything."""
    bodies = (b"", b"bad", b"[]", b"null", b"{", b'{"nope": 1}', b'{"a":1}{}', b"\xff", b'{"queue_name": {}}')
    for body in bodies:
        status, document = answer(server, "POST", path, body)
        assert (status, document["code"], document["code_text"]) == (455, 455, "Client Content Error")
        assert document["message"].startswith("proto: ")
    for body in (b"\xff", b"\x0a", b"\x0a\x05ab", b"\x07"):
        status, document = answer(server, "POST", path, body, Content_Type=PROTOBUF)
        assert (status, document["message"]) == (455, "proto: cannot parse invalid wire-format data")


def test_decode_errors_read_as_observed(server: Server) -> None:
    assert answer(server, "POST", "/v1/queue.lease", b"") == error(
        455, "proto: syntax error (line 1:1): unexpected token "
    )


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_protobuf_body_is_a_message(server: Server, path: str) -> None:
    """All defaults: answered by the call's own checks, or a list."""
    status, document = answer(server, "POST", path, b"", Content_Type=PROTOBUF)
    assert status in (200, 400, 401, 453)
    assert document.get("code", 200) == status


def test_many_requests_on_one_connection(server: Server) -> None:
    server.create()
    host, _, port = server.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.connect()
    first = connection.sock
    for number in range(50):
        connection.request("POST", ("/v1/queues.list", "/v1/nope", "/health")[number % 3], b"{}")
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


@pytest.mark.every_log
def test_many_connections_at_once(server: Server) -> None:
    """Kept ones, half of which wait for items."""
    server.create()
    body = '{{"queue_name":"q","batch_size":1,"client_id":"{}","request_timeout":"1m"}}'
    host, _, port = server.address.partition(":")
    connections = [http.client.HTTPConnection(host, int(port), timeout=PATIENCE) for _ in range(200)]
    for number, connection in enumerate(connections):
        connection.request("POST", "/v1/queue.lease", body.format(number).encode())
    server.until_waiting(200)
    server.produce(*["x"] * 200)
    for connection in connections:
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["items"]) == 1
        connection.close()


@pytest.mark.every_log
def test_calls_of_many_threads(running: Server) -> None:
    running.create()

    def call(number: int) -> None:
        running.produce(str(number))
        running.lease(1, f"c{number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(64)))
    assert running.counts() == [(64, 64, 0)]


def test_a_body_may_come_in_pieces(server: Server) -> None:
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        for piece in (
            b"POST /v1/queues.list HT",
            b"TP/1.1\r\nHost: x\r\nContent-Le",
            b"ngth: 2\r\n\r\n",
            b"{",
            b"}",
        ):
            connection.sendall(piece)
        assert connection.recv(4_096).startswith(b"HTTP/1.1 200")


def test_expect_continue(server: Server) -> None:
    """As an HTTP client does that asks before it sends a large body."""
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        head = (
            b"POST /v1/queues.list HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        connection.sendall(head)
        assert connection.recv(4_096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 200")


def test_servers_are_apart(control: Control) -> None:
    first, second = control.new(), control.new()
    first.create()
    assert second.refusal("queues.info", queue_name="q")[0] == 400
    first.stop()
    assert second.json("queues.list", {}) == (200, {})
