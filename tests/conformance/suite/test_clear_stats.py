"""queue.clear, queue.reload and queue.stats (CONTRACT.md 3.5, 4.14)."""

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    PATIENCE,
    SECOND,
    Server,
)


@pytest.mark.every_log
@pytest.mark.parametrize(
    ("flags", "left"),
    [
        ({"queue": True}, (1, 1, 2)),
        ({"scheduled": True}, (4, 1, 0)),
        ({"queue": True, "scheduled": True}, (1, 1, 0)),
        ({"queue": True, "destructive": True}, (0, 0, 0)),
        ({"queue": True, "scheduled": True, "destructive": True}, (0, 0, 0)),
        ({"scheduled": True, "destructive": True}, (4, 1, 0)),
    ],
)
def test_clear(server: Server, flags: dict[str, bool], left: tuple[int, int, int]) -> None:
    server.create()
    server.produce("a", "b", "c", "d")
    server.produce("e", "f", enqueue_at=server.stamp(HOUR))
    server.lease(1)
    assert server.ok("queue.clear", queue_name="q", **flags).code == 200
    assert server.counts() == [left]
    assert len(server.items()) == left[0]
    assert len(server.scheduled()) == left[2]


def test_clear_reaches_every_partition(server: Server) -> None:
    server.create(requested_partitions=3)
    for _ in range(6):
        server.produce("a")
    server.ok("queue.clear", queue_name="q", queue=True)
    assert server.counts() == [(0, 0, 0)] * 3


def test_clear_leaves_those_who_wait(server: Server) -> None:
    server.create()
    waiting = server.lease_later(1)
    server.until_waiting(1)
    server.ok("queue.clear", queue_name="q", queue=True, scheduled=True, destructive=True)
    server.produce("a")
    waiting.result(PATIENCE)


@pytest.mark.every_log
def test_reload_loses_nothing(server: Server) -> None:
    server.create(requested_partitions=2)
    for text in "abcd":
        server.produce(text)
    (item,) = server.lease(1).items
    before = server.counts()
    assert server.ok("queue.reload", queue_name="q").code == 200
    assert server.counts() == before
    server.complete(item.id, partition=1 if before[1][1] else 0)


@pytest.mark.every_log
def test_stats_say_what_is_there(server: Server) -> None:
    server.create(requested_partitions=2)
    stats = server.stats()
    assert [each.partition for each in stats.partitions] == [0, 1]
    assert [(each.average_age, each.average_leased_age, each.failures) for each in stats.partitions] == [
        ("0s", "0s", 0)
    ] * 2
    server.produce("a", "b")
    server.advance(10 * SECOND)
    server.lease(1)
    server.advance(20 * SECOND)
    first = server.stats().partitions[0]
    assert (first.total, first.total_leased, first.average_age, first.average_leased_age) == (
        2,
        1,
        "30s",
        "40s",
    )


def test_stats_names_are_as_they_are(server: Server) -> None:
    server.create()
    server.produce("a")
    _, document = server.json("queue.stats", {"queueName": "q"})
    assert document == {
        "queue_name": "q",
        "logicalQueues": [{"partitions": [{"total": 1, "average_age": "0s", "average_leased_age": "0s"}]}],
    }
