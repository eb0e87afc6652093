"""queue.complete and queue.retry (CONTRACT.md 3.3, 3.4, 4.6, 4.8)."""

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MILLISECOND,
    MINUTE,
    PATIENCE,
    SECOND,
    ZERO_TIME,
    Server,
    is_at,
    ksuid_text,
)

# --- complete -----------------------------------------------------------------------------------------


def test_what_is_not_leased_is_not_completed(server: Server) -> None:
    server.create()
    server.produce("a")
    (item,) = server.items()
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=[item.id]) == (
        400,
        f"item(s) cannot be completed; '{item.id}' is not marked as leased",
    )


@pytest.mark.every_log
def test_complete_is_all_or_nothing(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    first, second = server.lease(2).items
    for ids in ([first.id, "nope"], [first.id, ksuid_text(1)], [first.id, second.id, first.id]):
        code, text = server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=ids)
        assert code == 400
        assert text.startswith(f"invalid storage id; '{ids[-1]}'")
    assert server.counts() == [(2, 2, 0)]
    server.complete(first.id, second.id)


@pytest.mark.parametrize("name", ["", "invalid-id", "z" * 27, "é" * 27, "0" * 28, "a b"])
def test_malformed_ids(server: Server, name: str) -> None:
    server.create()
    for path, fields in (
        ("queue.complete", {"request_timeout": "1m", "ids": [name]}),
        ("queue.retry", {"items": [{"id": name}]}),
        ("storage/items.delete", {"ids": [name]}),
    ):
        code, text = server.refusal(path, queue_name="q", **fields)
        assert code == 400
        assert text.startswith(f"invalid storage id; '{name}': Valid encoded KSUIDs are ")


def test_ids_belong_to_their_partition(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a")
    leased = server.lease(1)
    name = leased.items[0].id
    code, text = server.refusal(
        "queue.complete", queue_name="q", partition=1, request_timeout="1m", ids=[name]
    )
    assert (code, text) == (400, f"invalid storage id; '{name}' does not exist")
    server.complete(name, partition=0)


def test_an_item_may_be_completed_at_its_deadline(server: Server) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    server.advance(MINUTE)
    server.complete(item.id)


# --- retry --------------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_retry_puts_an_item_at_the_tail_under_a_new_id(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    (item,) = server.lease(1).items
    server.retry({"id": item.id})
    listed = server.items()
    assert [each.payload for each in listed] == [b"b", b"a"]
    again = listed[1]
    assert again.id > listed[0].id
    assert (again.attempts, again.is_leased) == (1, False)
    assert again.lease_deadline.ToJsonString() == ZERO_TIME
    code, text = server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=[item.id])
    assert (code, text) == (400, f"invalid storage id; '{item.id}' does not exist")
    assert server.lease(1).items[0].bytes == b"b"
    got = server.lease(1).items[0]
    assert (got.bytes, got.attempts, got.id) == (b"a", 2, again.id)


def test_retry_needs_a_lease(server: Server) -> None:
    server.create()
    server.produce("a")
    (item,) = server.items()
    assert server.refusal("queue.retry", queue_name="q", items=[{"id": item.id}]) == (
        400,
        f"item(s) cannot be retried; '{item.id}' is not marked as leased",
    )
    unknown = ksuid_text(5)
    assert server.refusal("queue.retry", queue_name="q", items=[{"id": unknown}]) == (
        400,
        f"invalid storage id; '{unknown}' does not exist",
    )


@pytest.mark.parametrize("later", [-HOUR, 0, 99 * MILLISECOND])
def test_retry_soon_is_retry_now(server: Server, later: int) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    server.retry({"id": item.id, "retry_at": server.stamp(later)})
    assert server.counts() == [(1, 0, 0)]


@pytest.mark.every_log
def test_retry_later_is_scheduled(server: Server) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    server.retry({"id": item.id, "retry_at": server.stamp(10 * SECOND)})
    assert server.counts() == [(0, 0, 1)]
    (waiting,) = server.scheduled()
    assert waiting.attempts == 1
    assert is_at(waiting.enqueue_at, server.now + 10 * SECOND)
    assert list(server.items()) == []
    server.advance(11 * SECOND)
    (ready,) = server.items()
    assert ready.id not in (item.id, waiting.id)
    assert server.lease(1).items[0].attempts == 2


def test_dead_leaves_the_queue(server: Server) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    server.retry({"id": item.id, "dead": True, "retry_at": server.stamp(HOUR)})
    assert server.counts() == [(0, 0, 0)]
    assert server.refusal("queue.retry", queue_name="q", items=[{"id": item.id}])[0] == 400


@pytest.mark.every_log
def test_dead_goes_to_the_dead_queue(server: Server) -> None:
    server.create("dead", expire_timeout="1h")
    server.create(dead_queue="dead")
    server.produce("a", kind="k", encoding="e", reference="r")
    (item,) = server.lease(1).items
    server.retry({"id": item.id, "dead": True})
    server.until(lambda: server.items("dead"))
    (dead,) = server.items("dead")
    assert (dead.source_id, dead.attempts, dead.is_leased) == (item.id, 0, False)
    assert (dead.kind, dead.encoding, dead.reference, dead.payload) == ("k", "e", "r", b"a")
    assert is_at(dead.expire_deadline, server.now + HOUR)
    assert server.counts() == [(0, 0, 0)]


def test_retry_of_several_is_all_or_nothing(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    first, _ = server.lease(2).items
    assert (
        server.refusal("queue.retry", queue_name="q", items=[{"id": first.id}, {"id": ksuid_text(9)}])[0]
        == 400
    )
    assert server.counts() == [(2, 2, 0)]


@pytest.mark.every_log
@pytest.mark.parametrize("later", [0, 10 * SECOND])
def test_a_retry_wakes_who_waits(server: Server, later: int) -> None:
    server.create()
    server.produce("a")
    (item,) = server.lease(1).items
    waiting = server.lease_later(1, "w")
    server.until_waiting(1)
    server.retry({"id": item.id, "retry_at": server.stamp(later)})
    if later:
        server.advance(later + SECOND)
    assert waiting.result(PATIENCE).items[0].attempts == 2


def test_a_last_attempt_is_not_taken_away(server: Server) -> None:
    """It lasts as long as any other, and can be completed at its end."""
    server.create("dead")
    server.create(max_attempts=1, dead_queue="dead")
    server.produce("a", "b")
    first, second = server.lease(2).items
    server.advance(30 * SECOND)
    server.complete(first.id)
    server.advance(30 * SECOND)
    assert server.items()[0].is_leased
    server.complete(second.id)
    server.advance(HOUR)
    assert list(server.items("dead")) == []


def test_a_retry_of_a_last_attempt_is_a_retry(server: Server) -> None:
    """Only the end of a lease looks at the number of attempts."""
    server.create(max_attempts=1)
    server.produce("a")
    (item,) = server.lease(1).items
    server.retry({"id": item.id})
    (again,) = server.lease(1).items
    assert again.attempts == 2


def test_dead_wins_over_a_moment(server: Server) -> None:
    server.create("dead")
    server.create(dead_queue="dead")
    server.produce("a", "b")
    first, second = server.lease(2).items
    server.retry({"id": first.id, "dead": True, "retry_at": server.stamp(HOUR)}, {"id": second.id})
    server.until(lambda: server.items("dead"))
    assert server.counts() == [(1, 0, 0)]
    assert server.payloads() == ["b"]
