"""The control port: clocks, holding, logs that are shared (CONTRACT.md 6)."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MILLISECOND,
    MINUTE,
    PATIENCE,
    SECOND,
    Control,
    Server,
    is_at,
    refused,
)

TIMED_OUT = (454, "request timeout; no items are in the queue, try again")


@pytest.mark.every_log
def test_a_frozen_clock_stands(server: Server) -> None:
    server.create()
    server.produce("a")
    server.until(lambda: True)
    server.produce("b")
    first, second = server.items()
    assert first.created_at == second.created_at
    assert is_at(first.created_at, server.now)


def test_a_clock_never_goes_back(server: Server) -> None:
    server.create()
    start = server.now
    server.advance(HOUR)
    server.control.order("/clock", id=server.id, now=start)
    server.produce("a")
    assert is_at(server.items()[0].created_at, server.now)


@pytest.mark.every_log
def test_all_that_is_due_has_happened(server: Server) -> None:
    """When the order returns: leases, expiries, moves into the dead queue, schedules, waits."""
    server.create("dead", expire_timeout="1000h")
    server.create("leases", requested_partitions=2)
    server.create("expiring", expire_timeout="10m", dead_queue="dead")
    server.create("dying", max_attempts=1, dead_queue="dead")
    server.create("waits")
    for name in ("leases", "dying"):
        server.produce("x", queue=name)
        server.lease(1, queue=name)
    server.produce("x", "y", queue="expiring")
    server.produce("later", queue="leases", enqueue_at=server.stamp(HOUR))
    waiting = [server.lease_later(1, f"c{number}", queue="waits") for number in range(3)]
    server.until_waiting(3, "waits")
    server.advance(2 * HOUR)
    assert server.counts("leases") == [(2, 0, 0), (0, 0, 0)]
    assert server.counts("expiring") == [(0, 0, 0)]
    assert server.counts("dying") == [(0, 0, 0)]
    assert sorted(server.payloads("dead")) == ["x", "x", "y"]
    assert server.counts("waits") == [(0, 0, 0)]
    assert server.stats("waits").lease_waiting == 0
    assert [refused(future) for future in waiting] == [TIMED_OUT] * 3


def test_a_lease_that_ends_comes_before_a_wait_that_ends(server: Server) -> None:
    """In one advance that is past both."""
    server.create()
    server.produce("x")
    server.lease(1)
    waiting = server.lease_later(1, "w", timeout="30s")
    server.until_waiting(1)
    server.advance(HOUR)
    assert [(item.bytes, item.attempts) for item in waiting.result(PATIENCE).items] == [(b"x", 2)]


def test_a_schedule_comes_before_a_wait_that_ends(server: Server) -> None:
    server.create()
    server.produce("x", enqueue_at=server.stamp(MINUTE))
    waiting = server.lease_later(1, "w", timeout="30s")
    server.until_waiting(1)
    server.advance(HOUR)
    assert waiting.result(PATIENCE).items[0].bytes == b"x"


def test_a_lease_that_ends_comes_before_an_expiry(server: Server) -> None:
    server.create("dead", expire_timeout="1000h")
    server.create(expire_timeout="10m", dead_queue="dead")
    server.produce("x")
    server.lease(1)
    server.advance(HOUR)
    (dead,) = server.items("dead")
    assert (dead.payload, dead.attempts) == (b"x", 0)
    assert server.counts() == [(0, 0, 0)]


def test_chains_of_what_is_due(server: Server) -> None:
    """What dies in one queue is at once in the next, and expires there in its own time."""
    server.create("last", expire_timeout="1000h")
    server.create("dead", expire_timeout="10m", dead_queue="last", lease_timeout="1m")
    server.ok("queues.update", queue_name="dead")
    server.create(expire_timeout="10m", dead_queue="dead")
    server.produce("x")
    server.advance(11 * MINUTE)
    assert server.payloads("dead") == ["x"]
    server.ok("queues.update", queue_name="dead", dead_queue="last")
    server.advance(11 * MINUTE)
    assert server.payloads("last") == ["x"]


def test_many_small_steps(server: Server) -> None:
    server.create()
    server.produce("x")
    server.lease(1)
    for _ in range(60):
        server.advance(SECOND)
        assert server.items()[0].is_leased
    server.advance(MILLISECOND)
    assert not server.items()[0].is_leased


def test_a_running_clock_is_not_advanced(running: Server) -> None:
    with pytest.raises(AssertionError, match="frozen"):
        running.control.order("/clock", id=running.id, now=1)


@pytest.mark.parametrize(
    ("path", "fields"), [("/stop", {"id": "none"}), ("/nope", {}), ("/clock", {"id": "none", "now": 1})]
)
def test_orders_that_make_no_sense(control: Control, path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        control.order(path, **fields)
    control.new().stop()


@pytest.mark.every_log
def test_many_servers_at_once(control: Control) -> None:
    """Made and stopped from several threads; each is empty and its own."""

    def live(number: int) -> None:
        server = control.new(now=1_800_000_000 * SECOND)
        server.create(f"q{number}")
        server.produce(str(number), queue=f"q{number}")
        assert [queue.queue_name for queue in server.ok("queues.list").items] == [f"q{number}"]
        assert server.lease(5, queue=f"q{number}").items[0].bytes == str(number).encode()
        server.advance(MINUTE + SECOND)
        assert server.counts(f"q{number}") == [(1, 0, 0)]
        server.stop()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(live, range(18)))


@pytest.mark.every_log
def test_holding_is_of_one_queue(server: Server) -> None:
    for name in ("held", "free"):
        server.create(name)
    server.pause("held")
    waiting = server.begin("queue.produce", queue_name="held", request_timeout="1m", items=[{"utf8": "x"}])
    server.until_waiting(1, "held", "produce_waiting")
    server.produce("y", queue="free")
    assert server.lease(1, queue="free").items[0].bytes == b"y"
    assert server.counts("held") == [(0, 0, 0)]
    assert server.ok("queue.reload", queue_name="held").code == 200
    assert server.ok("queues.update", queue_name="held", reference="r").code == 200
    server.pause("held")
    server.pause("held", on=False)
    waiting.result(PATIENCE)
    server.pause("held", on=False)
    assert server.payloads("held") == ["x"]


def test_checks_come_before_holding(server: Server) -> None:
    server.create()
    server.pause("q")
    assert server.refusal("queue.produce", queue_name="q", request_timeout="1m") == (
        400,
        "items cannot be empty; at least one item is required",
    )
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m")[0] == 400
    server.pause("q", on=False)


def test_what_is_wrong_with_held_settlements_is_told_on_release(server: Server) -> None:
    server.create()
    server.produce("a")
    name = server.items()[0].id
    server.pause("q")
    call = server.begin("queue.complete", queue_name="q", request_timeout="1m", ids=[name])
    server.until_waiting(1, field="complete_waiting")
    server.pause("q", on=False)
    assert refused(call) == (400, f"item(s) cannot be completed; '{name}' is not marked as leased")


def test_time_goes_on_while_a_queue_is_held(server: Server) -> None:
    """Leases end and schedules fire; what waits is served when it is released."""
    server.create()
    server.produce("a")
    server.produce("b", enqueue_at=server.stamp(MINUTE))
    server.lease(1)
    server.pause("q")
    waiting = server.lease_later(5, "w", timeout="15m")
    server.until_waiting(1)
    server.advance(2 * MINUTE)
    assert not waiting.done()
    assert server.counts() == [(2, 0, 0)]
    server.pause("q", on=False)
    assert sorted(item.bytes for item in waiting.result(PATIENCE).items) == [b"a", b"b"]


def test_the_document_of_a_new_server(control: Control) -> None:
    answer = control.order("/new")
    assert set(answer) == {"id", "addr"}
    assert json.dumps(answer)
    assert answer["addr"].startswith("127.0.0.1:")
    control.order("/stop", id=answer["id"])
