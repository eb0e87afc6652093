"""Messages in JSON and protobuf: names, zeros left out, moments, strictness (CONTRACT.md 1.5, 2)."""

import base64
import itertools
import json
import time
from typing import Any

import pytest
from google.protobuf import json_format

from tests.api.http.contract import endpoint_rows, message_rows
from tests.conformance.suite.go_client import CALLS, MESSAGES, PROTOBUF, ZERO_TIME, Server, stamp

JSON = "application/json"
NOW = "2027-01-15T08:00:00.123456Z"
NOW_NANOSECONDS = 1_800_000_000_123_456_789
EXPIRES = "2027-01-16T08:00:00.123456Z"
DEADLINE = "2027-01-15T08:01:00.123456Z"


@pytest.fixture
def frozen(control: Any) -> Server:
    server: Server = control.new(now=NOW_NANOSECONDS)
    return server


def ok(server: Server, path: str, **fields: Any) -> Any:
    status, document = server.json(path, fields)
    assert status == 200, document
    return document


# --- replies, to the letter ------------------------------------------------------------------------


def test_replies_of_queues(frozen: Server) -> None:
    frozen.create()
    frozen.create("full", reference="r", max_attempts=3, dead_queue="q", requested_partitions=2)
    plain = {
        "queue_name": "q",
        "created_at": NOW,
        "updated_at": NOW,
        "lease_timeout": "1m0s",
        "expire_timeout": "24h0m0s",
        "requested_partitions": 1,
        "namespace": "_system",
    }
    full = {
        **plain,
        "queue_name": "full",
        "reference": "r",
        "max_attempts": 3,
        "dead_queue": "q",
        "requested_partitions": 2,
    }
    assert ok(frozen, "queues.info", queue_name="q") == plain
    assert ok(frozen, "queues.list") == {"items": [full, plain]}
    assert ok(frozen, "queues.list", pivot="z") == {}


def test_replies_of_a_queue(frozen: Server) -> None:
    frozen.create(requested_partitions=2)
    for text in ("a", ""):
        frozen.produce(text)
    leased = ok(frozen, "queue.lease", queue_name="q", batch_size=2, client_id="c", request_timeout="1m")
    (item,) = leased["items"]
    assert leased == {
        "queue_name": "q",
        "partition": 1,
        "items": [{"id": item["id"], "attempts": 1, "lease_deadline": DEADLINE}],
    }
    leased = ok(frozen, "queue.lease", queue_name="q", batch_size=2, client_id="c", request_timeout="1m")
    (item,) = leased["items"]
    assert leased == {
        "queue_name": "q",
        "items": [{"id": item["id"], "attempts": 1, "lease_deadline": DEADLINE, "bytes": "YQ=="}],
    }
    assert ok(frozen, "queue.stats", queue_name="q") == {
        "queue_name": "q",
        "logicalQueues": [
            {
                "partitions": [
                    {"total": 1, "total_leased": 1, "average_age": "0s", "average_leased_age": "1m0s"},
                    {
                        "partition": 1,
                        "total": 1,
                        "total_leased": 1,
                        "average_age": "0s",
                        "average_leased_age": "1m0s",
                    },
                ]
            }
        ],
    }


def test_replies_of_storage(frozen: Server) -> None:
    frozen.create()
    assert ok(frozen, "storage/items.list", queue_name="q") == {}
    assert ok(frozen, "storage/scheduled.list", queue_name="q") == {}
    frozen.produce("a")
    frozen.produce("b", enqueue_at="2027-01-15T09:00:00Z", kind="k", encoding="e", reference="r")
    (item,) = ok(frozen, "storage/items.list", queue_name="q")["items"]
    assert item == {
        "id": item["id"],
        "lease_deadline": ZERO_TIME,
        "expire_deadline": EXPIRES,
        "created_at": NOW,
        "payload": "YQ==",
    }
    (item,) = ok(frozen, "storage/scheduled.list", queue_name="q")["items"]
    assert item == {
        "id": item["id"],
        "lease_deadline": ZERO_TIME,
        "expire_deadline": EXPIRES,
        "created_at": NOW,
        "enqueue_at": "2027-01-15T09:00:00Z",
        "reference": "r",
        "encoding": "e",
        "kind": "k",
        "payload": "Yg==",
    }
    frozen.lease(1)
    (item,) = ok(frozen, "storage/items.list", queue_name="q")["items"]
    assert (item["is_leased"], item["lease_deadline"], item["attempts"]) == (True, DEADLINE, 1)


def test_replies_of_the_catalog(frozen: Server) -> None:
    ok(frozen, "namespaces.create", name="n", description="d", api_key_tag="tag")
    listed = ok(frozen, "namespaces.list")["items"]
    assert listed == [
        {"name": "_system", "created_at": NOW},
        {"name": "n", "description": "d", "created_at": NOW, "api_key_tag": "tag"},
    ]
    user = ok(frozen, "users.create", username="u", email="e@x", external_id="x")
    assert list(user) == ["id"]
    assert ok(frozen, "users.list") == {
        "items": [
            {
                "id": user["id"],
                "username": "u",
                "external_id": "x",
                "email": "e@x",
                "created_at": NOW,
                "updated_at": NOW,
            }
        ]
    }
    key = ok(frozen, "apikeys.create", user_id=user["id"])
    assert sorted(key) == ["id", "key", "prefix"]
    assert ok(frozen, "apikeys.list") == {
        "items": [{"id": key["id"], "user_id": user["id"], "prefix": key["prefix"], "created_at": NOW}]
    }
    role = ok(frozen, "roles.create", namespace="n", name="r", permissions=["queue.list", "queue.lease"])
    assert list(role) == ["id"]
    assert ok(frozen, "roles.list", namespace="n") == {
        "items": [
            {
                "id": role["id"],
                "namespace": "n",
                "name": "r",
                "permissions": ["queue.list", "queue.lease"],
                "created_at": NOW,
            }
        ]
    }
    binding = ok(frozen, "rolebindings.create", namespace="n", role_name="r", user_id=user["id"])
    assert list(binding) == ["id"]
    assert ok(frozen, "rolebindings.list", namespace="n") == {
        "items": [
            {
                "id": binding["id"],
                "namespace": "n",
                "user_id": user["id"],
                "role_id": role["id"],
                "created_at": NOW,
            }
        ]
    }
    for path in ("roles.list", "rolebindings.list"):
        assert ok(frozen, path) == {}


# --- requests ---------------------------------------------------------------------------------------


def _alias(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


SPELLINGS = [
    (path, field, has_alias)
    for path, request, _, _, _ in endpoint_rows()
    for _, field, _, _, has_alias in message_rows()[request]
    if "_" in field
]


@pytest.mark.parametrize(("path", "field", "has_alias"), SPELLINGS)
def test_camel_case_is_read_where_it_is_listed(
    frozen: Server, path: str, field: str, has_alias: bool
) -> None:
    """A null says nothing, so that only the spelling matters."""
    plain = frozen.json(path.removeprefix("/v1/"), {field: None})
    assert plain[0] != 455
    aliased = frozen.json(path.removeprefix("/v1/"), {_alias(field): None})
    assert aliased == plain if has_alias else aliased[0] == 455


@pytest.mark.parametrize(
    "names", [("queueName", "requestTimeout", "enqueueAt"), ("queue_name", "request_timeout", "enqueue_at")]
)
def test_camel_case_means_the_same(frozen: Server, names: tuple[str, str, str]) -> None:
    frozen.create()
    queue, timeout, at = names
    item = {"utf8": "a", at: "2027-01-15T09:00:00Z"}
    ok(frozen, "queue.produce", **{queue: "q", timeout: "1m", "items": [item]})
    assert len(frozen.scheduled()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"queue_name":"q","queueName":"q"}', 455),
        ('{"queue_name":"q","queue_name":"q"}', 455),
        ('{"queue_name":"q","pivot":null,"pivot":null}', 455),
        ('{"queue_name":"q","limit":"5"}', 200),
        ('{"queue_name":"q","limit":5.0}', 200),
        ('{"queue_name":"q","limit":5.5}', 455),
        ('{"queue_name":"q","limit":"x"}', 455),
        ('{"queue_name":"q","limit":2147483648}', 455),
        ('{"queue_name":"q","limit":-2147483649}', 455),
        ('{"queue_name":"q","limit":2147483647}', 200),
        ('{"queue_name":"q","limit":true}', 455),
        ('{"queue_name":"q","limit":null}', 200),
        ('{"queue_name":"q","partition":null,"pivot":null}', 200),
        ('{"queue_name":5}', 455),
        ('{"queue_name":["q"]}', 455),
        ('{"queue_name":"q","Limit":5}', 455),
        ('{"queue_name":"q",}', 455),
        ('{"queue_name":"q"} x', 455),
        (' \n\t{ "queue_name" : "q" } \r\n', 200),
        ('{"queue_name":"\\u0071"}', 200),
        ('{"queue_name":"\\ud800"}', 455),
        ("{'queue_name':'q'}", 455),
        ('{"queue_name":"q"/**/}', 455),
        ('{"queue_name":"q","limit":NaN}', 455),
        ('{"queue_name":"q","limit":01}', 455),
        ('\ufeff{"queue_name":"q"}', 455),
    ],
)
def test_strictness(frozen: Server, body: str, code: int) -> None:
    frozen.create()
    status, _, read = frozen.raw("POST", "/v1/storage/items.list", body.encode(), {"Content-Type": JSON})
    assert status == code, read


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("AAH/", b"\0\1\xff"),
        ("AAH_", b"\0\1\xff"),
        ("-_-_", b"\xfb\xff\xbf"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("YQ==", b"a"),
        ("YQ", b"a"),
        ("YWI=", b"ab"),
        ("YWI", b"ab"),
        ("", b""),
    ],
)
def test_bytes_in_either_alphabet(frozen: Server, text: str, payload: bytes) -> None:
    frozen.create()
    ok(frozen, "queue.produce", queue_name="q", request_timeout="1m", items=[{"bytes": text}])
    (item,) = frozen.items()
    assert item.payload == payload
    (item,) = ok(frozen, "storage/items.list", queue_name="q")["items"]
    assert item.get("payload", "") == base64.b64encode(payload).decode()


@pytest.mark.parametrize("text", ["Y", "YQ=a", "Y Q=", "é", "YQ!=", "YQ=", "YQ===", "+_8="])
def test_what_is_not_base64(frozen: Server, text: str) -> None:
    body = {"queue_name": "q", "request_timeout": "1m", "items": [{"bytes": text}]}
    assert frozen.json("queue.produce", body)[0] == 455


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2027-01-15T09:00:00Z", "2027-01-15T09:00:00Z"),
        ("2027-01-15T11:00:00+02:00", "2027-01-15T09:00:00Z"),
        ("2027-01-15T03:30:00.5-05:30", "2027-01-15T09:00:00.500Z"),
        ("2027-01-15T09:00:00.123Z", "2027-01-15T09:00:00.123Z"),
        ("2027-01-15T09:00:00.1234Z", "2027-01-15T09:00:00.123400Z"),
        ("2027-01-15T09:00:00.123456Z", "2027-01-15T09:00:00.123456Z"),
        ("2027-01-15T09:00:00.123456789Z", "2027-01-15T09:00:00.123456Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_moments(frozen: Server, given: str, shown: str) -> None:
    frozen.create()
    ok(frozen, "queue.produce", queue_name="q", request_timeout="1m", items=[{"enqueue_at": given}])
    (item,) = ok(frozen, "storage/scheduled.list", queue_name="q")["items"]
    assert item["enqueue_at"] == shown


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2027-01-15",
        "2027-01-15 09:00:00Z",
        "2027-01-15T09:00:00",
        "2027-02-30T09:00:00Z",
        "",
        "5",
    ],
)
def test_what_is_no_moment(frozen: Server, text: str) -> None:
    body = {"queue_name": "q", "request_timeout": "1m", "items": [{"enqueue_at": text}]}
    assert frozen.json("queue.produce", body)[0] == 455


@pytest.mark.parametrize("text", ["ünï·cödé", "日本語", "\0\x01", '"\\/', "a\u2028b", "🦆" * 50, " "])
def test_text_comes_back_as_it_was(frozen: Server, text: str) -> None:
    frozen.create(reference=text)
    assert ok(frozen, "queues.info", queue_name="q")["reference"] == text
    item = {"utf8": text, "kind": text, "encoding": text, "reference": text}
    for produce in (frozen.json, lambda path, fields: (200, frozen.ok(path, **fields))):
        assert (
            produce("queue.produce", {"queue_name": "q", "request_timeout": "1m", "items": [item]})[0] == 200
        )
    for leased in frozen.lease(2).items:
        assert (leased.kind, leased.encoding, leased.reference) == (text,) * 3
        assert leased.bytes.decode() == text


# --- one call in all four encodings ---------------------------------------------------------------


def _call(server: Server, path: str, fields: dict[str, Any], taken: str, given: str) -> Any:
    """The reply as a message, sent and read in these encodings."""
    request, reply = CALLS[f"/v1/{path}"]
    message = json_format.ParseDict(fields, MESSAGES[request]())
    body = message.SerializeToString() if taken == PROTOBUF else json.dumps(fields).encode()
    status, headers, read = server.raw("POST", f"/v1/{path}", body, {"Content-Type": taken, "Accept": given})
    assert headers["content-type"] == given
    kind = MESSAGES[reply if status == 200 else "Reply"]
    if given == JSON:
        return json_format.Parse(read, kind())
    parsed = kind.FromString(read)
    parsed_again = kind.FromString(read)
    parsed_again.DiscardUnknownFields()
    assert parsed == parsed_again, "a field that the contract does not know"
    return parsed


@pytest.mark.every_log
@pytest.mark.parametrize(
    ("taken", "given"), [*itertools.product((JSON, PROTOBUF), repeat=2)], ids=lambda name: name.split("/")[1]
)
def test_everything_in_each_encoding(frozen: Server, taken: str, given: str) -> None:
    def call(path: str, **fields: Any) -> Any:
        return _call(frozen, path, fields, taken, given)

    soon = stamp(NOW_NANOSECONDS + 3_600 * 10**9)
    queue = {"queue_name": "q", "partition": 0}
    settings = {"lease_timeout": "90s", "expire_timeout": "24h", "requested_partitions": 1}
    assert call("namespaces.create", name="n", description="d", api_key_tag="t1").code == 200
    assert call("namespaces.update", name="n", description="d2").code == 200
    assert [item.description for item in call("namespaces.list", limit=5).items] == ["", "d2"]
    assert call("queues.create", queue_name="q", namespace="n", reference="r", **settings).code == 200
    assert call("queues.update", queue_name="q", max_attempts=5).code == 200
    info = call("queues.info", queue_name="q")
    assert (info.lease_timeout, info.max_attempts, info.reference, info.namespace) == ("1m30s", 5, "", "n")
    assert call("queues.list", namespace="n").items[0] == info
    items = [{"bytes": "AP8=", "kind": "k"}, {"utf8": "b"}, {"utf8": "c", "enqueue_at": soon}]
    assert call("queue.produce", queue_name="q", request_timeout="1m", items=items).code == 200
    assert len(call("storage/scheduled.list", **queue).items) == 1
    leased = call("queue.lease", queue_name="q", batch_size=2, client_id="c", request_timeout="1m")
    assert [item.bytes for item in leased.items] == [b"\0\xff", b"b"]
    first, second = (item.id for item in leased.items)
    assert call("queue.complete", **queue, request_timeout="1m", ids=[first]).code == 200
    assert call("queue.retry", **queue, items=[{"id": second, "retry_at": soon}]).code == 200
    imported = call(
        "storage/items.import", **queue, items=[{"payload": "eA==", "is_leased": True, "attempts": 2}]
    )
    assert (imported.items[0].payload, imported.items[0].is_leased) == (b"x", True)
    stats = call("queue.stats", queue_name="q").logicalQueues[0].partitions[0]
    assert (stats.total, stats.scheduled) == (1, 2)
    assert call("storage/items.delete", **queue, ids=[imported.items[0].id]).code == 200
    assert call("queue.reload", queue_name="q").code == 200
    assert call("queue.clear", queue_name="q", scheduled=True).code == 200
    user = call("users.create", username="u", email="e", external_id="x").id
    assert [each.username for each in call("users.list", limit=9).items] == ["u"]
    key = call("apikeys.create", user_id=user, name="k", namespace_scope="n", key_tag="z9", expires_at=soon)
    assert key.key.startswith(key.prefix)
    (shown,) = call("apikeys.list", user_id=user).items
    assert (shown.id, shown.name, shown.namespace_scope, shown.prefix) == (key.id, "k", "n", key.prefix)
    assert shown.expires_at.ToJsonString() == soon.replace("Z", "Z")
    role = call("roles.create", namespace="n", name="r", permissions=["queue.list"]).id
    assert call("roles.update", namespace="n", name="r", permissions=["queue.lease"]).code == 200
    assert list(call("roles.list", namespace="n").items[0].permissions) == ["queue.lease"]
    binding = call("rolebindings.create", namespace="n", role_name="r", user_id=user).id
    (bound,) = call("rolebindings.list", namespace="n").items
    assert (bound.id, bound.role_id, bound.user_id) == (binding, role, user)
    assert call("rolebindings.delete", namespace="n", role_name="r", user_id=user).code == 200
    assert call("roles.delete", namespace="n", name="r").code == 200
    assert call("apikeys.delete", id=key.id).code == 200
    assert call("users.delete", id=user).code == 200
    assert call("queues.delete", queue_name="q", force=True).code == 200
    assert call("namespaces.delete", name="n").code == 200
    refused = call("queues.info", queue_name="q")
    assert (refused.code, refused.message) == (400, "queue does not exist; no such queue named 'q'")


def test_a_running_clock_has_its_microseconds(running: Server) -> None:
    before = time.time_ns() // 1_000
    running.create()
    created = running.ok("queues.info", queue_name="q").created_at.ToNanoseconds() // 1_000
    assert before <= created <= time.time_ns() // 1_000
