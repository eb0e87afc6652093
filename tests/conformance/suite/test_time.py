"""Leases that end, items that expire, what is scheduled (CONTRACT.md 4.7, 4.9, 4.10)."""

from typing import Any

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MICROSECOND,
    MILLISECOND,
    MINUTE,
    PATIENCE,
    SECOND,
    ZERO_TIME,
    Control,
    Server,
    is_at,
    ksuid_number,
)

# --- leases that end ----------------------------------------------------------------------------------


@pytest.mark.every_log
def test_a_lease_ends_after_its_deadline(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    (item,) = server.lease(1).items
    created = server.items()[0].created_at.ToNanoseconds()
    expires = server.items()[0].expire_deadline.ToNanoseconds()
    server.advance(MINUTE)
    assert server.items()[0].is_leased
    server.advance(1 * MICROSECOND)
    listed = server.items()
    assert [each.payload for each in listed] == [b"b", b"a"]
    assert not any(each.is_leased for each in listed)
    again = listed[1]
    assert again.attempts == 1
    assert (again.created_at.ToNanoseconds(), again.expire_deadline.ToNanoseconds()) == (created, expires)
    assert again.lease_deadline.ToJsonString() == ZERO_TIME
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=[item.id]) == (
        400,
        f"invalid storage id; '{item.id}' does not exist",
    )
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=[again.id]) == (
        400,
        f"item(s) cannot be completed; '{again.id}' is not marked as leased",
    )
    assert [(each.bytes, each.attempts) for each in server.lease(2).items] == [(b"b", 1), (b"a", 2)]


def test_a_lease_that_ended_wakes_who_waits(server: Server) -> None:
    server.create()
    server.produce("a")
    server.lease(1)
    waiting = server.lease_later(1, "w", timeout="10m")
    server.until_waiting(1)
    server.advance(61 * SECOND)
    assert waiting.result(PATIENCE).items[0].attempts == 2


@pytest.mark.every_log
def test_a_lease_ends_by_the_running_clock(running: Server) -> None:
    running.create(lease_timeout="100ms")
    running.produce("a")
    running.lease(1)
    assert running.lease(1).items[0].attempts == 2


@pytest.mark.every_log
def test_lease_timeouts_are_read_when_leasing(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    (first,) = server.lease(1).items
    server.ok("queues.update", queue_name="q", lease_timeout="5m")
    assert is_at(server.items()[0].lease_deadline, server.now + MINUTE)
    (second,) = server.lease(1).items
    assert is_at(second.lease_deadline, server.now + 5 * MINUTE)
    server.advance(2 * MINUTE)
    assert [(each.payload, each.is_leased) for each in server.items()] == [(b"b", True), (b"a", False)]
    assert first.id not in [each.id for each in server.items()]


@pytest.mark.every_log
def test_at_max_attempts_an_item_goes_to_the_dead_queue(server: Server) -> None:
    server.create("dead")
    server.create(max_attempts=2, dead_queue="dead")
    server.produce("a")
    server.lease(1)
    server.advance(61 * SECOND)
    (item,) = server.lease(1).items
    assert item.attempts == 2
    server.advance(61 * SECOND)
    assert list(server.items()) == []
    (dead,) = server.items("dead")
    assert (dead.source_id, dead.attempts) == (item.id, 0)
    assert ksuid_number(dead.id)
    assert is_at(dead.created_at, server.now)


def test_without_a_dead_queue_it_is_gone(server: Server) -> None:
    server.create(max_attempts=1)
    server.produce("a")
    server.lease(1)
    server.advance(61 * SECOND)
    assert server.counts() == [(0, 0, 0)]


def test_a_running_last_attempt_is_not_taken_away(server: Server) -> None:
    server.create(max_attempts=1)
    server.produce("a")
    (item,) = server.lease(1).items
    server.advance(30 * SECOND)
    server.complete(item.id)


@pytest.mark.parametrize(
    ("before", "update", "is_dead"),
    [
        (3, {"max_attempts": 1, "dead_queue": "dead"}, True),
        (1, {"max_attempts": 5, "dead_queue": "dead"}, False),
        (1, {"dead_queue": "dead"}, False),
        (0, {"max_attempts": 1, "dead_queue": "dead"}, True),
    ],
)
def test_max_attempts_are_read_when_a_lease_ends(
    server: Server, before: int, update: dict[str, Any], is_dead: bool
) -> None:
    server.create("dead")
    server.create(max_attempts=before, dead_queue="dead")
    server.produce("a")
    server.lease(1)
    server.ok("queues.update", queue_name="q", **update)
    server.advance(61 * SECOND)
    assert [total for total, _, _ in server.counts()] == [0 if is_dead else 1]
    assert len(server.items("dead")) == int(is_dead)


@pytest.mark.parametrize("then", ["other", ""])
def test_dead_queues_are_read_when_an_item_dies(server: Server, then: str) -> None:
    server.create("dead")
    server.create("other")
    server.create(max_attempts=1, dead_queue="dead")
    server.produce("a")
    server.lease(1)
    server.ok("queues.update", queue_name="q", max_attempts=1, dead_queue=then)
    server.advance(61 * SECOND)
    assert list(server.items("dead")) == []
    assert len(server.items("other")) == (1 if then else 0)
    assert server.counts() == [(0, 0, 0)]


# --- items that expire ------------------------------------------------------------------------------


def test_items_expire_into_the_dead_queue(server: Server) -> None:
    server.create("dead", expire_timeout="48h")
    server.create(expire_timeout="1h", dead_queue="dead", reference="r")
    server.produce("a", "b", kind="k")
    ids = [item.id for item in server.items()]
    server.advance(HOUR)
    assert len(server.items()) == 2
    server.advance(1 * SECOND)
    assert list(server.items()) == []
    dead = server.items("dead")
    assert [item.source_id for item in dead] == ids
    assert [(item.payload, item.kind, item.attempts) for item in dead] == [(b"a", "k", 0), (b"b", "k", 0)]
    assert all(is_at(item.expire_deadline, server.now + 48 * HOUR) for item in dead)


def test_items_that_expire_without_a_dead_queue_are_gone(server: Server) -> None:
    server.create(expire_timeout="1h")
    server.produce("a")
    server.advance(HOUR + SECOND)
    assert server.counts() == [(0, 0, 0)]


def test_expire_timeouts_are_read_when_producing(server: Server) -> None:
    server.create(expire_timeout="1h")
    server.produce("a")
    server.ok("queues.update", queue_name="q", expire_timeout="3h")
    server.produce("b")
    assert [item.expire_deadline.ToNanoseconds() // 1_000 for item in server.items()] == [
        (server.now + hours * HOUR) // 1_000 for hours in (1, 3)
    ]
    server.advance(2 * HOUR)
    assert server.payloads() == ["b"]


# --- scheduled items ----------------------------------------------------------------------------------


def test_scheduled_items_wait_for_their_time(server: Server) -> None:
    server.create()
    server.produce("later", enqueue_at=server.stamp(HOUR))
    server.produce("now")
    assert server.payloads() == ["now"]
    assert server.counts() == [(1, 0, 1)]
    (waiting,) = server.scheduled()
    assert waiting.payload == b"later"
    assert is_at(waiting.enqueue_at, server.now + HOUR)
    server.advance(HOUR)
    assert server.counts() == [(1, 0, 1)]
    server.advance(1 * SECOND)
    assert server.payloads() == ["now", "later"]
    assert server.counts() == [(2, 0, 0)]
    assert server.items()[1].id != waiting.id
    assert not server.items()[1].HasField("enqueue_at")


@pytest.mark.every_log
def test_several_schedules_fire_in_order(server: Server) -> None:
    server.create()
    for seconds in (30, 10, 20, 10):
        server.produce(f"{seconds}a", f"{seconds}b", enqueue_at=server.stamp(seconds * SECOND))
    assert len(server.scheduled()) == 8
    server.advance(15 * SECOND)
    assert server.payloads() == ["10a", "10b", "10a", "10b"]
    server.advance(20 * SECOND)
    assert server.payloads()[4:] == ["20a", "20b", "30a", "30b"]


@pytest.mark.parametrize("later", [-HOUR, 0, 50 * MILLISECOND, 99 * MILLISECOND])
def test_what_is_due_soon_is_ready(server: Server, later: int) -> None:
    server.create()
    server.produce("a", enqueue_at=server.stamp(later))
    assert server.counts() == [(1, 0, 0)]
    assert list(server.scheduled()) == []


def test_a_due_item_wakes_who_waits(server: Server) -> None:
    server.create()
    server.produce("a", enqueue_at=server.stamp(10 * SECOND))
    waiting = server.lease_later(1)
    server.until_waiting(1)
    server.advance(11 * SECOND)
    assert waiting.result(PATIENCE).items[0].bytes == b"a"


def test_scheduled_items_are_not_complete_nor_retried(server: Server) -> None:
    server.create()
    server.produce("a", enqueue_at=server.stamp(HOUR))
    name = server.scheduled()[0].id
    for path, fields in (
        ("queue.complete", {"request_timeout": "1m", "ids": [name]}),
        ("queue.retry", {"items": [{"id": name}]}),
    ):
        assert server.refusal(path, queue_name="q", **fields) == (
            400,
            f"invalid storage id; '{name}' does not exist",
        )


def test_the_expire_clock_starts_when_producing(server: Server) -> None:
    server.create(expire_timeout="2h")
    server.produce("a", enqueue_at=server.stamp(HOUR))
    created = server.now
    server.advance(HOUR + SECOND)
    (item,) = server.items()
    assert is_at(item.expire_deadline, created + 2 * HOUR)
    assert is_at(item.created_at, created)


@pytest.mark.every_log
def test_schedules_outlive_a_restart(control: Control) -> None:
    first = control.new(storage="schedules", now=1_800_000_000 * SECOND)
    first.create()
    first.produce("a", enqueue_at=first.stamp(HOUR))
    first.produce("b", enqueue_at=first.stamp(2 * HOUR))
    first.stop()
    second = control.new(storage="schedules", now=first.now)
    assert len(second.scheduled()) == 2
    second.advance(90 * MINUTE)
    assert second.payloads() == ["a"]
    second.advance(HOUR)
    assert second.payloads() == ["a", "b"]
    second.stop()


def test_the_zero_moment_of_go_is_now(server: Server) -> None:
    """Its clients write the year 1 for a time that was not set."""
    server.create()
    server.produce("a", enqueue_at=ZERO_TIME)
    (item,) = server.lease(1).items
    server.retry({"id": item.id, "retry_at": ZERO_TIME})
    assert server.counts() == [(1, 0, 0)]


def test_a_retry_is_scheduled_in_its_partition(server: Server) -> None:
    server.create(requested_partitions=3)
    for text in "abc":
        server.produce(text)
    leased = [server.lease(1, text) for text in "abc"]
    for each in leased:
        item = {"id": each.items[0].id, "retry_at": server.stamp(MINUTE)}
        server.retry(item, partition=each.partition)
    assert server.counts() == [(0, 0, 1)] * 3
    server.advance(2 * MINUTE)
    assert server.counts() == [(1, 0, 0)] * 3
    assert [server.payloads(partition=index) for index in range(3)] == [["a"], ["b"], ["c"]]


def test_an_item_keeps_its_life_over_leases(server: Server) -> None:
    """However often it was leased, it expires when it would have."""
    server.create("dead", expire_timeout="1000h")
    server.create(expire_timeout="10m", dead_queue="dead", lease_timeout="4m")
    server.produce("a")
    for _ in range(2):
        server.lease(1)
        server.advance(4 * MINUTE + SECOND)
    assert server.counts() == [(1, 0, 0)]
    server.advance(2 * MINUTE)
    assert server.counts() == [(0, 0, 0)]
    assert server.payloads("dead") == ["a"]


def test_a_lease_over_the_end_of_an_item_s_life_is_not_taken_away(server: Server) -> None:
    server.create(expire_timeout="10m", lease_timeout="8m")
    server.produce("a")
    server.advance(5 * MINUTE)
    (item,) = server.lease(1).items
    server.advance(6 * MINUTE)
    server.complete(item.id)
