"""queues.*: what is refused in which words, lists, updates, deletion (CONTRACT.md 3.6, 3.7, 4.9, 4.11)."""

from typing import Any

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MINUTE,
    PATIENCE,
    SECOND,
    Control,
    Server,
    is_at,
    refused,
    same_queue,
)

GOOD: dict[str, Any] = {
    "queue_name": "new",
    "lease_timeout": "1m",
    "expire_timeout": "10m",
    "requested_partitions": 1,
}
FORMAT_LEASE = "expected format: 8m, 15m or 1h"
FORMAT_EXPIRE = "expected format: 60m, 2h or 24h"
NAME = "queue name is invalid; "
NAMESPACE = "namespace name is invalid; "
DEAD = "dead queue is invalid; "

NAMES: list[tuple[str, str]] = [
    ("", NAME + "queue name cannot be empty"),
    ("  \t\n", NAME + "queue name cannot be empty"),
    ("a b", NAME + "'a b' cannot contain whitespace"),
    ("invalid queue~name", NAME + "'invalid queue~name' cannot contain whitespace"),
    ("a\u00a0b", NAME + "'a\u00a0b' cannot contain whitespace"),
    ("a\u2003", NAME + "'a\u2003' cannot contain whitespace"),
    ("a~b", NAME + "'a~b' cannot contain '~' character"),
    ("x" * 513, NAME + "cannot be greater than '512' characters"),
    (" " * 513, NAME + "cannot be greater than '512' characters"),
    ("ü" * 257, NAME + "cannot be greater than '512' characters"),
]
LEASE = "lease timeout is invalid; "
EXPIRE = "expire timeout is invalid; "
TOO_LONG = "cannot be greater than the expire timeout"
LADDER: list[tuple[dict[str, Any], int, str]] = [
    ({"lease_timeout": "1" * 16}, 400, LEASE + "cannot be greater than '15' characters"),
    ({"expire_timeout": "1" * 16}, 400, EXPIRE + "cannot be greater than '15' characters"),
    ({"lease_timeout": "x" * 16, "expire_timeout": "x" * 16}, 400,
     LEASE + "cannot be greater than '15' characters"),
    ({"expire_timeout": "foo", "lease_timeout": "foo"}, 400,
     f'{EXPIRE}time: invalid duration "foo" - {FORMAT_EXPIRE}'),
    ({"lease_timeout": "foo"}, 400, f'{LEASE}time: invalid duration "foo" - {FORMAT_LEASE}'),
    ({"lease_timeout": "1"}, 400, f'{LEASE}time: missing unit in duration "1" - {FORMAT_LEASE}'),
    ({"lease_timeout": "1x"}, 400,
     f'{LEASE}time: unknown unit "x" in duration "1x" - {FORMAT_LEASE}'),
    ({"expire_timeout": "1d"}, 400,
     f'{EXPIRE}time: unknown unit "d" in duration "1d" - {FORMAT_EXPIRE}'),
    ({"namespace": "x" * 257}, 400, NAMESPACE + "cannot be greater than '256' characters"),
    ({"namespace": " "}, 400, NAMESPACE + "cannot be empty"),
    ({"namespace": "a b"}, 400, NAMESPACE + "'a b' cannot contain whitespace"),
    ({"namespace": "a~"}, 400, NAMESPACE + "'a~' cannot contain '~' character"),
    ({"namespace": "a:b"}, 400, NAMESPACE + "'a:b' cannot contain ':' character"),
    ({"namespace": "none"}, 453, "namespace does not exist; 'none' was not found"),
    ({"namespace": "none", "queue_name": "q"}, 453, "namespace does not exist; 'none' was not found"),
    ({"queue_name": "q"}, 400, "invalid queue; 'q' already exists"),
    ({"queue_name": "q", "dead_queue": "none"}, 400, "invalid queue; 'q' already exists"),
    ({"dead_queue": "x" * 501}, 400, DEAD + "cannot be greater than '500' characters"),
    ({"dead_queue": "a b"}, 400, DEAD + "'a b' cannot contain whitespace"),
    ({"dead_queue": " "}, 400, DEAD + "' ' cannot contain whitespace"),
    ({"dead_queue": "a~b"}, 400, DEAD + "'a~b' cannot contain '~' character"),
    ({"dead_queue": "new"}, 400, "dead_queue cannot reference itself"),
    ({"dead_queue": "none"}, 400, "dead_queue does not exist; 'none' was not found, create it first"),
    ({"dead_queue": "has-dead"}, 400,
     "dead_queue is invalid; 'has-dead' already has its own dead_queue configured"),
    ({"dead_queue": "none", "reference": "x" * 2_001}, 400,
     "dead_queue does not exist; 'none' was not found, create it first"),
    ({"reference": "x" * 2_001}, 400, "reference field is invalid; cannot be greater than '2000' characters"),
    ({"reference": "ü" * 1_001}, 400, "reference field is invalid; cannot be greater than '2000' characters"),
    ({"reference": "x" * 2_001, "max_attempts": -1}, 400,
     "reference field is invalid; cannot be greater than '2000' characters"),
    ({"max_attempts": 65_537}, 400, "max attempts is invalid; cannot be greater than 65536"),
    ({"max_attempts": -1}, 400, "max attempts is invalid; cannot be negative number"),
    ({"max_attempts": -1, "requested_partitions": 0}, 400,
     "max attempts is invalid; cannot be negative number"),
    ({"requested_partitions": 0}, 400, "partitions is invalid; cannot be less than 1"),
    ({"requested_partitions": -1}, 400, "partitions is invalid; cannot be less than 1"),
    ({"requested_partitions": 0, "lease_timeout": ""}, 400, "partitions is invalid; cannot be less than 1"),
    ({"lease_timeout": "", "expire_timeout": ""}, 400, LEASE + "cannot be empty"),
    ({"lease_timeout": "0s"}, 400, LEASE + "cannot be empty"),
    ({"lease_timeout": "0"}, 400, LEASE + "cannot be empty"),
    ({"expire_timeout": ""}, 400, EXPIRE + "cannot be empty"),
    ({"expire_timeout": "0m"}, 400, EXPIRE + "cannot be empty"),
    ({"lease_timeout": "2h", "expire_timeout": "90m"}, 400,
     "lease timeout is too long; 2h0m0s cannot be greater than the expire timeout 1h30m0s"),
    ({"lease_timeout": "10m0.000001s"}, 400,
     "lease timeout is too long; 10m0.000001s cannot be greater than the expire timeout 10m0s"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), NAMES)
def test_names(server: Server, name: str, text: str) -> None:
    """The strict check comes first, in create, update and delete."""
    junk = {"lease_timeout": "junk", "namespace": "a b"}
    assert server.refusal("queues.create", **junk, queue_name=name) == (400, text)
    assert server.refusal("queues.update", **junk, queue_name=name) == (400, text)
    assert server.refusal("queues.delete", queue_name=name) == (400, text)


@pytest.mark.parametrize("number", range(len(LADDER)))
def test_create_refuses(server: Server, number: int) -> None:
    fields, code, text = LADDER[number]
    server.create()
    server.create("has-dead", dead_queue="q")
    assert server.refusal("queues.create", **{**GOOD, **fields}) == (code, text)
    assert server.refusal("queues.info", queue_name="new")[0] == 400


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, {}),
        ({"queue_name": "x" * 512}, {"queue_name": "x" * 512}),
        ({"queue_name": "a.b/c:d-ü'\"%"}, {"queue_name": "a.b/c:d-ü'\"%"}),
        ({"queue_name": "a\x1cb\0"}, {"queue_name": "a\x1cb\0"}),
        ({"reference": "x" * 2_000}, {"reference": "x" * 2_000}),
        ({"max_attempts": 65_536}, {"max_attempts": 65_536}),
        ({"requested_partitions": 32}, {"requested_partitions": 32}),
        ({"lease_timeout": "10m"}, {"lease_timeout": "10m0s"}),
        ({"lease_timeout": "+1.5s"}, {"lease_timeout": "1.5s"}),
        ({"lease_timeout": "1ms"}, {"lease_timeout": "1ms"}),
        ({"lease_timeout": "250us"}, {"lease_timeout": "250µs"}),
        ({"lease_timeout": "250µs"}, {"lease_timeout": "250µs"}),
        ({"lease_timeout": "1m30s"}, {"lease_timeout": "1m30s"}),
        ({"lease_timeout": ".5s"}, {"lease_timeout": "500ms"}),
        ({"expire_timeout": "2400h"}, {"expire_timeout": "2400h0m0s"}),
        ({"expire_timeout": "87600h"}, {"expire_timeout": "87600h0m0s"}),
        ({"expire_timeout": "24h", "lease_timeout": "24h"},
         {"lease_timeout": "24h0m0s", "expire_timeout": "24h0m0s"}),
        ({"namespace": "ns"}, {"namespace": "ns"}),
        ({"namespace": "_system"}, {"namespace": "_system"}),
        ({"dead_queue": "q"}, {"dead_queue": "q"}),
    ],
)  # fmt: skip
@pytest.mark.every_log
def test_create_takes(server: Server, fields: dict[str, Any], shown: dict[str, Any]) -> None:
    server.create()
    server.ok("namespaces.create", name="ns")
    asked = {**GOOD, **fields}
    assert server.ok("queues.create", **asked).code == 200
    info = server.ok("queues.info", queue_name=asked["queue_name"])
    default = {"namespace": "_system", "lease_timeout": "1m0s", "expire_timeout": "10m0s"}
    assert same_queue(
        info, {**asked, **default, **({k: v for k, v in asked.items() if k == "namespace"}), **shown}
    )
    assert is_at(info.created_at, server.now)
    assert info.created_at == info.updated_at
    assert info in server.ok("queues.list").items


def test_negative_timeouts_are_refused(server: Server) -> None:
    for field in ("lease_timeout", "expire_timeout"):
        code, text = server.refusal("queues.create", **{**GOOD, field: "-1m"})
        assert (code, text.startswith(field.replace("_", " "))) == (400, True)


def test_what_is_sent_and_not_asked_for_is_ignored(server: Server) -> None:
    server.ok("queues.create", **GOOD, created_at="2001-01-01T00:00:00Z", partitions=[{"partition": 7}])
    info = server.ok("queues.info", queue_name="new")
    assert is_at(info.created_at, server.now)
    assert list(info.partitions) == []


def test_names_are_global_over_namespaces(server: Server) -> None:
    server.ok("namespaces.create", name="ns")
    server.create()
    assert server.refusal("queues.create", **{**GOOD, "queue_name": "q", "namespace": "ns"}) == (
        400,
        "invalid queue; 'q' already exists",
    )


@pytest.mark.every_log
def test_many_partitions(server: Server) -> None:
    server.create(requested_partitions=100)
    assert [each.partition for each in server.stats().partitions] == list(range(100))
    server.produce("a")
    assert server.lease(1).partition == 0


# --- list -------------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_lists_go_by_name_from_the_pivot(server: Server) -> None:
    names = [f"queue-{number:05}" for number in range(60)]
    for name in [*names[::2], *names[1::2]]:
        server.create(name)

    def listed(**fields: Any) -> list[str]:
        return [item.queue_name for item in server.ok("queues.list", **fields).items]

    assert listed() == names
    assert listed(limit=10) == names[:10]
    assert listed(limit=1) == names[:1]
    assert listed(limit=1_000) == names
    assert listed(limit=65_536) == names
    assert listed(pivot=names[30], limit=10) == names[30:40]
    assert listed(pivot=names[59]) == names[59:]
    assert listed(pivot="queue-00029x", limit=2) == names[30:32]
    assert listed(pivot="a", limit=3) == names[:3]
    assert listed(pivot="zzz") == []
    assert listed(pivot="a b") == names


def test_lists_filter_by_namespace_before_they_limit(server: Server) -> None:
    server.ok("namespaces.create", name="ns")
    for number in range(30):
        server.create(f"q{number:02}", namespace="ns" if number % 3 == 0 else "")
    mine = [f"q{number:02}" for number in range(0, 30, 3)]

    def listed(**fields: Any) -> list[str]:
        return [item.queue_name for item in server.ok("queues.list", **fields).items]

    assert listed(namespace="ns") == mine
    assert listed(namespace="ns", limit=4) == mine[:4]
    assert listed(namespace="ns", pivot="q10", limit=3) == ["q12", "q15", "q18"]
    assert listed(namespace="none") == []
    assert len(listed(namespace="_system")) == 20
    assert len(listed()) == 30


def test_a_list_has_a_thousand_unless_asked(server: Server) -> None:
    for number in range(1_005):
        server.json("queues.create", {**GOOD, "queue_name": f"q{number:05}"})
    assert len(server.ok("queues.list").items) == 1_000
    assert len(server.ok("queues.list", limit=2_000).items) == 1_005


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"limit": -1}, "limit is invalid; limit cannot be negative"),
        ({"limit": -1, "pivot": "a~"}, "limit is invalid; limit cannot be negative"),
        ({"limit": 65_537}, "limit is invalid; cannot be greater than 65536"),
        ({"limit": 2**31 - 1}, "limit is invalid; cannot be greater than 65536"),
        ({"pivot": "a~b"}, "pivot is invalid; 'a~b' cannot contain '~' character"),
    ],
)
def test_lists_refuse(server: Server, fields: dict[str, Any], text: str) -> None:
    assert server.refusal("queues.list", **fields) == (400, text)


# --- update -----------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_update_is_half_patch_and_half_replace(server: Server) -> None:
    server.create("dead")
    server.create(
        lease_timeout="2m",
        expire_timeout="3h",
        max_attempts=7,
        reference="r",
        dead_queue="dead",
        requested_partitions=2,
    )
    before = server.ok("queues.info", queue_name="q")
    server.advance(SECOND)
    assert server.ok("queues.update", queue_name="q").code == 200
    after = server.ok("queues.info", queue_name="q")
    assert (after.lease_timeout, after.expire_timeout, after.requested_partitions) == ("2m0s", "3h0m0s", 2)
    assert (after.max_attempts, after.reference, after.dead_queue) == (0, "", "")
    assert after.created_at == before.created_at
    assert is_at(after.updated_at, server.now)
    assert after.updated_at.ToNanoseconds() > after.created_at.ToNanoseconds()
    fields = {
        "lease_timeout": "1m",
        "expire_timeout": "1h",
        "max_attempts": 3,
        "reference": "new",
        "dead_queue": "dead",
    }
    server.ok("queues.update", queue_name="q", **fields)
    changed = server.ok("queues.info", queue_name="q")
    assert same_queue(
        changed, {**fields, "lease_timeout": "1m0s", "expire_timeout": "1h0m0s", "requested_partitions": 2}
    )
    server.ok("queues.update", queue_name="q", lease_timeout="0s", expire_timeout="0")
    assert server.ok("queues.info", queue_name="q").lease_timeout == "1m0s"


def test_an_update_is_later_even_if_the_clock_stands(server: Server) -> None:
    server.create()
    server.ok("queues.update", queue_name="q", reference="x")
    info = server.ok("queues.info", queue_name="q")
    assert info.updated_at.ToNanoseconds() > info.created_at.ToNanoseconds()


def test_the_namespace_of_a_queue_stays(server: Server) -> None:
    server.ok("namespaces.create", name="ns")
    server.create()
    server.ok("queues.update", queue_name="q", namespace="ns")
    assert server.ok("queues.info", queue_name="q").namespace == "_system"
    server.ok("queues.update", queue_name="q", namespace="none")
    assert server.ok("queues.info", queue_name="q").namespace == "_system"


UPDATE_LADDER: list[tuple[dict[str, Any], str]] = [
    ({"queue_name": "none", "lease_timeout": "x" * 16},
     LEASE + "cannot be greater than '15' characters"),
    ({"queue_name": "none", "lease_timeout": "1"},
     f'{LEASE}time: missing unit in duration "1" - {FORMAT_LEASE}'),
    ({"queue_name": "none", "namespace": "a b"}, NAMESPACE + "'a b' cannot contain whitespace"),
    ({"queue_name": "none", "dead_queue": "a b"}, "queue does not exist; no such queue named 'none'"),
    ({"dead_queue": "x" * 501}, DEAD + "cannot be greater than '500' characters"),
    ({"dead_queue": "q"}, "dead_queue cannot reference itself"),
    ({"dead_queue": "none"}, "dead_queue does not exist; 'none' was not found, create it first"),
    ({"dead_queue": "has-dead"},
     "dead_queue is invalid; 'has-dead' already has its own dead_queue configured"),
    ({"reference": "x" * 2_001}, "reference field is invalid; cannot be greater than '2000' characters"),
    ({"max_attempts": 65_537}, "max attempts is invalid; cannot be greater than 65536"),
    ({"max_attempts": -1}, "max attempts is invalid; cannot be negative number"),
    ({"requested_partitions": -1}, "partitions is invalid; cannot be less than 1"),
    ({"lease_timeout": "1h", "expire_timeout": "30m"},
     "lease timeout is too long; 1h0m0s cannot be greater than the expire timeout 30m0s"),
    ({"lease_timeout": "25h"}, f"lease timeout is too long; 25h0m0s {TOO_LONG} 24h0m0s"),
    ({"expire_timeout": "30s"}, f"lease timeout is too long; 1m0s {TOO_LONG} 30s"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(UPDATE_LADDER)))
def test_update_refuses(server: Server, number: int) -> None:
    fields, text = UPDATE_LADDER[number]
    server.create()
    server.create("other")
    server.create("has-dead", dead_queue="other")
    before = server.ok("queues.info", queue_name="q")
    assert server.refusal("queues.update", **{"queue_name": "q", **fields}) == (400, text)
    assert server.ok("queues.info", queue_name="q") == before


@pytest.mark.parametrize(
    ("attempts_max", "dies_after"),
    [(1, 2), (2, 2), (3, 3), (0, None)],
    ids=["lower", "same", "raise", "unlimited"],
)
@pytest.mark.every_log
def test_attempts_are_counted_by_the_limit_of_the_moment(
    server: Server, attempts_max: int, dies_after: int | None
) -> None:
    """Existing items, of which one has an attempt behind it, die by the updated number."""
    server.create("dead")
    server.create(max_attempts=2, dead_queue="dead")
    server.produce("a")
    for attempt in range(1, 5):
        server.lease(1)
        if attempt == 2:
            server.ok("queues.update", queue_name="q", max_attempts=attempts_max, dead_queue="dead")
        server.advance(MINUTE + SECOND)
        died = bool(server.items("dead"))
        assert died == (dies_after is not None and attempt >= dies_after), attempt
        if died:
            return
    assert dies_after is None


def test_the_dead_queue_is_that_of_the_moment(server: Server) -> None:
    for name in ("first", "second"):
        server.create(name)
    server.create(max_attempts=1, dead_queue="first")
    for text, target in (("a", "first"), ("b", "second"), ("c", "")):
        server.produce(text)
        server.lease(1)
        server.ok("queues.update", queue_name="q", max_attempts=1, dead_queue=target)
        server.advance(MINUTE + SECOND)
    assert server.payloads("first") == ["a"]
    assert server.payloads("second") == ["b"]
    assert server.counts() == [(0, 0, 0)]


def test_more_partitions_may_be_asked_for(server: Server) -> None:
    server.create()
    server.produce("a")
    server.ok("queues.update", queue_name="q", requested_partitions=3)
    assert server.ok("queues.info", queue_name="q").requested_partitions == 3
    assert server.payloads() == ["a"]


# --- info and delete --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "queue name is invalid; queue name cannot be empty"),
        (" ", "queue name is invalid; queue name cannot be empty"),
        ("a~", "queue name is invalid; 'a~' cannot contain '~' character"),
        ("a b", "queue does not exist; no such queue named 'a b'"),
        ("x" * 600, f"queue does not exist; no such queue named '{'x' * 600}'"),
    ],
)
def test_info_refuses(server: Server, name: str, text: str) -> None:
    assert server.refusal("queues.info", queue_name=name) == (400, text)


@pytest.mark.every_log
def test_a_deleted_queue_is_gone(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a")
    assert server.ok("queues.delete", queue_name="q").code == 200
    gone = (400, "queue does not exist; no such queue named 'q'")
    assert server.refusal("queues.delete", queue_name="q") == gone
    assert server.refusal("queues.info", queue_name="q") == gone
    assert server.refusal("queue.produce", queue_name="q") == gone
    assert list(server.ok("queues.list").items) == []
    server.create()
    assert server.counts() == [(0, 0, 0)]


def test_deleting_a_queue_answers_those_who_wait(server: Server) -> None:
    server.create()
    waiting = [server.lease_later(1, who) for who in "abc"]
    server.until_waiting(3)
    server.ok("queues.delete", queue_name="q")
    assert [refused(future) for future in waiting] == [(453, "queue is shutting down")] * 3


def test_deleting_a_held_queue_answers_those_who_wait(server: Server) -> None:
    server.create()
    server.produce("x")
    (item,) = server.lease(1).items
    server.pause("q")
    fields = {"queue_name": "q", "request_timeout": "1m"}
    calls = [
        server.begin("queue.produce", **fields, items=[{}]),
        server.begin("queue.lease", **fields, batch_size=1, client_id="c"),
        server.begin("queue.complete", **fields, ids=[item.id]),
        server.begin("queue.retry", queue_name="q", items=[{"id": item.id}]),
    ]
    server.until(lambda: server.stats().in_flight == 4)
    server.ok("queues.delete", queue_name="q")
    assert [refused(call) for call in calls] == [(453, "queue is shutting down")] * 4


def test_a_dead_queue_may_be_deleted(server: Server) -> None:
    """What would go there is deleted instead, once the queue is gone."""
    server.create("dead")
    server.create(max_attempts=1, dead_queue="dead")
    server.ok("queues.delete", queue_name="dead")
    server.produce("a")
    server.lease(1)
    server.advance(MINUTE + SECOND)
    assert server.counts() == [(0, 0, 0)]
    assert server.ok("queues.info", queue_name="q").queue_name == "q"


def test_a_dead_queue_may_get_a_dead_queue_later(server: Server) -> None:
    for name in ("last", "dead"):
        server.create(name)
    server.create(dead_queue="dead", max_attempts=1)
    server.ok("queues.update", queue_name="dead", dead_queue="last", max_attempts=1)
    server.produce("a")
    server.lease(1)
    server.advance(MINUTE + SECOND)
    server.lease(1, queue="dead")
    server.advance(MINUTE + SECOND)
    assert server.payloads("last") == ["a"]


@pytest.mark.every_log
def test_queues_outlive_a_restart(control: Control) -> None:
    first = control.new(storage="queues", now=1_800_000_000 * SECOND)
    first.ok("namespaces.create", name="ns", description="d", api_key_tag="t")
    first.create("dead")
    first.create(namespace="ns", dead_queue="dead", reference="r", max_attempts=3, requested_partitions=3)
    first.advance(HOUR)
    first.ok("queues.update", queue_name="q", reference="r2", dead_queue="dead")
    first.create("gone")
    first.ok("queues.delete", queue_name="gone")
    queues, namespaces = first.ok("queues.list"), first.ok("namespaces.list")
    first.stop()
    second = control.new(storage="queues", now=first.now)
    assert second.ok("queues.list") == queues
    assert second.ok("namespaces.list") == namespaces
    assert len(second.stats().partitions) == 3
    second.stop()


def test_creates_of_one_name_at_once(running: Server) -> None:
    calls = [running.begin("queues.create", **GOOD) for _ in range(8)]
    errors = [call.exception(PATIENCE) for call in calls]
    assert errors.count(None) == 1
    texts = [refused(call) for call in calls if call.exception() is not None]
    assert texts == [(400, "invalid queue; 'new' already exists")] * 7


def test_deletes_of_one_name_at_once(running: Server) -> None:
    running.create()
    calls = [running.begin("queues.delete", queue_name="q") for _ in range(8)]
    errors = [call.exception(PATIENCE) for call in calls]
    assert errors.count(None) >= 1
    assert running.refusal("queues.info", queue_name="q")[0] == 400
