"""queue.*: what is refused, in which order, in which words (CONTRACT.md 3.1 to 3.5)."""

from typing import Any

import pytest

from tests.conformance.suite.go_client import (
    PATIENCE,
    Control,
    Server,
)

MISSING = "request timeout is required; '5m' is recommended, 15m is the maximum"
LADDERS: list[tuple[str, dict[str, Any], str]] = [
    ("queue.produce", {"queue_name": ""}, "queue name is invalid; queue name cannot be empty"),
    ("queue.produce", {"queue_name": " \t"}, "queue name is invalid; queue name cannot be empty"),
    ("queue.produce", {"queue_name": "a~b"}, "queue name is invalid; 'a~b' cannot contain '~' character"),
    ("queue.produce", {"queue_name": "nope"}, "queue does not exist; no such queue named 'nope'"),
    ("queue.produce", {"queue_name": "a b"}, "queue does not exist; no such queue named 'a b'"),
    ("queue.produce", {"request_timeout": "foo"},
     'request timeout is invalid; time: invalid duration "foo" - expected format: 900ms, 5m or 15m'),
    ("queue.produce", {}, MISSING),
    ("queue.produce", {"request_timeout": "0s"}, MISSING),
    ("queue.produce", {"request_timeout": "15m"},
     "request timeout is invalid; maximum timeout is '15m' but '15m0s' was requested"),
    ("queue.produce", {"request_timeout": "16m", "items": [{}]},
     "request timeout is invalid; maximum timeout is '15m' but '16m0s' was requested"),
    ("queue.produce", {"request_timeout": "10ms"},
     "request timeout is invalid; minimum timeout is '10ms' but '10ms' was requested"),
    ("queue.produce", {"request_timeout": "1ms"},
     "request timeout is invalid; minimum timeout is '10ms' but '1ms' was requested"),
    ("queue.produce", {"request_timeout": "1m"}, "items cannot be empty; at least one item is required"),
    ("queue.produce", {"request_timeout": "1m", "items": [{}] * 1_001},
     "items is invalid; max_produce_batch_size is 1000 but received 1001"),
    ("queue.lease", {}, "invalid client id; cannot be empty"),
    ("queue.lease", {"client_id": " "}, "invalid client id; cannot be empty"),
    ("queue.lease", {"request_timeout": "x"},
     'request timeout is invalid; time: invalid duration "x" - expected format: 900ms, 5m or 15m'),
    ("queue.lease", {"client_id": "c"}, "invalid batch size; must be greater than zero"),
    ("queue.lease", {"client_id": "c", "batch_size": -1}, "invalid batch size; must be greater than zero"),
    ("queue.lease", {"client_id": "c", "batch_size": 1_001},
     "invalid batch size; max_lease_batch_size is 1000, but 1001 was requested"),
    ("queue.lease", {"client_id": "c", "batch_size": 1}, MISSING),
    ("queue.lease", {"client_id": "c", "batch_size": 1, "request_timeout": "16m"},
     "request timeout is invalid; maximum timeout is '15m' but '16m0s' was requested"),
    ("queue.lease", {"client_id": "c", "batch_size": 1, "request_timeout": "15m1ms"},
     "request timeout is invalid; maximum timeout is '15m' but '15m0.001s' was requested"),
    ("queue.lease", {"client_id": "c", "batch_size": 1, "request_timeout": "5ms"},
     "request timeout is invalid; minimum timeout is '10ms' but '5ms' was requested"),
    ("queue.complete", {"partition": -1}, "partition is invalid; '-1' is not a valid partition"),
    ("queue.complete", {"partition": 1}, "partition is invalid; '1' is not a valid partition"),
    ("queue.complete", {"partition": 65_234}, "partition is invalid; '65234' is not a valid partition"),
    ("queue.complete", {"request_timeout": "1"},
     'request timeout is invalid; time: missing unit in duration "1" - expected format: 900ms, 5m or 15m'),
    ("queue.complete", {}, "ids is invalid; list of ids cannot be empty"),
    ("queue.complete", {"ids": ["x"] * 1_001},
     "ids is invalid; max_complete_batch_size is 1000 but received 1001"),
    ("queue.complete", {"ids": ["x"]}, MISSING),
    ("queue.complete", {"ids": ["x"], "request_timeout": "0ms"}, MISSING),
    ("queue.complete", {"ids": ["x"], "request_timeout": "15m1s"},
     "request timeout is invalid; maximum timeout is '15m' but '15m1s' was requested"),
    ("queue.retry", {"partition": 2}, "partition is invalid; '2' is not a valid partition"),
    ("queue.retry", {}, "items is invalid; list of items cannot be empty"),
    ("queue.retry", {"items": [{"id": "x"}] * 1_001},
     "items is invalid; max_complete_batch_size is 1000 but received 1001"),
    ("queue.clear", {}, "invalid clear request; one of 'queue', 'scheduled' must be true"),
    ("queue.clear", {"destructive": True}, "invalid clear request; one of 'queue', 'scheduled' must be true"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LADDERS)))
def test_what_is_refused(server: Server, number: int) -> None:
    path, fields, text = LADDERS[number]
    server.create()
    assert server.refusal(path, **{"queue_name": "q", **fields}) == (400, text)


@pytest.mark.parametrize("timeout", ["-1m", "1ns", "5ms"])
def test_complete_takes_any_timeout(server: Server, timeout: str) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    server.ok("queue.complete", queue_name="q", request_timeout=timeout, ids=[item.id])


def test_longest_timeouts_pass(server: Server) -> None:
    server.create()
    server.ok("queue.produce", queue_name="q", request_timeout="14m59.999s", items=[{}])
    assert server.lease(1, timeout="15m").items


@pytest.mark.parametrize(
    "path", ["queue.lease", "queue.complete", "queue.retry", "queue.stats", "queue.clear", "queue.reload"]
)
def test_every_call_wants_a_queue(server: Server, path: str) -> None:
    assert server.refusal(path) == (400, "queue name is invalid; queue name cannot be empty")
    assert server.refusal(path, queue_name="a~") == (
        400,
        "queue name is invalid; 'a~' cannot contain '~' character",
    )
    assert server.refusal(path, queue_name="none") == (
        400,
        "queue does not exist; no such queue named 'none'",
    )


def test_limits_are_the_operator_s(control: Control) -> None:
    server = control.new(max_produce_batch_size=10, max_lease_batch_size=20, max_complete_batch_size=30)
    server.create()
    assert server.refusal("queue.produce", queue_name="q", request_timeout="1m", items=[{}] * 11) == (
        400,
        "items is invalid; max_produce_batch_size is 10 but received 11",
    )
    assert server.refusal(
        "queue.lease", queue_name="q", request_timeout="1m", client_id="c", batch_size=21
    ) == (400, "invalid batch size; max_lease_batch_size is 20, but 21 was requested")
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=["x"] * 31)[1] == (
        "ids is invalid; max_complete_batch_size is 30 but received 31"
    )
    assert server.refusal("queue.retry", queue_name="q", items=[{"id": "x"}] * 31)[1] == (
        "items is invalid; max_complete_batch_size is 30 but received 31"
    )
    server.produce(*["x"] * 10)
    assert len(server.lease(20).items) == 10
    server.stop()


@pytest.mark.every_log
def test_limits_may_be_larger_than_usual(control: Control) -> None:
    server = control.new(
        max_produce_batch_size=5_000, max_lease_batch_size=5_000, max_complete_batch_size=5_000
    )
    server.create()
    server.produce(*["x"] * 5_000)
    leased = server.lease(5_000)
    assert len(leased.items) == 5_000
    server.complete(*[item.id for item in leased.items])
    waiting = server.lease_later(5_000)
    server.until_waiting(1)
    server.produce(*["x"] * 5_000)
    again = waiting.result(PATIENCE)
    assert len(again.items) == 5_000
    server.retry(*[{"id": item.id} for item in again.items])
    assert server.counts() == [(5_000, 0, 0)]
    server.stop()
