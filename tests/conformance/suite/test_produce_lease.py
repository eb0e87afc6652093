"""queue.produce and queue.lease (CONTRACT.md 3.1, 3.2, 4.2 to 4.4), and what waits."""

import socket

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MINUTE,
    PATIENCE,
    SECOND,
    ZERO_TIME,
    Control,
    Server,
    is_at,
    ksuid_number,
    ksuid_text,
    refused,
)


@pytest.mark.every_log
def test_an_item_goes_its_way(server: Server) -> None:
    server.create()
    item = {"encoding": "friendship", "kind": "yes", "reference": "rainbow@dash.com", "utf8": "I'm sleeping"}
    server.ok("queue.produce", queue_name="q", request_timeout="1m", items=[item])
    (stored,) = server.items()
    assert (stored.encoding, stored.kind, stored.reference) == ("friendship", "yes", "rainbow@dash.com")
    assert (stored.payload, stored.is_leased, stored.attempts) == (b"I'm sleeping", False, 0)
    assert is_at(stored.created_at, server.now)
    assert is_at(stored.expire_deadline, server.now + 24 * HOUR)
    assert stored.lease_deadline.ToJsonString() == ZERO_TIME
    leased = server.lease(1)
    assert (leased.queue_name, leased.partition, len(leased.items)) == ("q", 0, 1)
    (got,) = leased.items
    assert (got.id, got.bytes, got.attempts) == (stored.id, b"I'm sleeping", 1)
    assert (got.encoding, got.kind, got.reference) == ("friendship", "yes", "rainbow@dash.com")
    assert is_at(got.lease_deadline, server.now + MINUTE)
    (held,) = server.items()
    assert (held.id, held.is_leased, held.attempts) == (got.id, True, 1)
    assert held.lease_deadline == got.lease_deadline
    assert server.complete(got.id).code == 200
    assert list(server.items()) == []
    assert server.refusal(
        "queue.complete", queue_name="q", request_timeout="1m", ids=[got.id]
    ) == (400, f"invalid storage id; '{got.id}' does not exist")  # fmt: skip


def test_an_empty_item_is_an_item(server: Server) -> None:
    server.create()
    server.ok("queue.produce", queue_name="q", request_timeout="1m", items=[{}])
    (got,) = server.lease(1).items
    assert got.bytes == b""


def test_bytes_win_over_text(server: Server) -> None:
    server.create()
    items = [{"bytes": "AAH/", "utf8": "no"}, {"utf8": "ünï"}]
    server.ok("queue.produce", queue_name="q", request_timeout="1m", items=items)
    assert [item.bytes for item in server.lease().items] == [b"\0\1\xff", "ünï".encode()]


def test_fifo_in_a_partition(server: Server) -> None:
    server.create()
    for number in range(25):
        server.produce(f"{number:03}a", f"{number:03}b")
    expected = [f"{number:03}{letter}" for number in range(25) for letter in "ab"]
    assert server.payloads() == expected
    got = [item.bytes.decode() for _ in range(5) for item in server.lease(10).items]
    assert got == expected
    assert server.payloads() == expected
    assert all(item.is_leased for item in server.items())


def test_leased_items_are_at_the_head_of_the_list(server: Server) -> None:
    server.create()
    server.produce(*map(str, range(20)))
    first = server.lease(5)
    listed = server.items()
    assert [item.id for item in listed[:5]] == [item.id for item in first.items]
    assert [item.is_leased for item in listed] == [True] * 5 + [False] * 15
    server.complete(*[item.id for item in first.items])
    assert [item.id for item in server.items()] == [item.id for item in listed[5:]]


def test_a_lease_takes_what_there_is(server: Server) -> None:
    server.create()
    server.produce("a", "b", "c")
    assert len(server.lease(100).items) == 3
    server.produce("d")
    assert [item.bytes for item in server.lease(100).items] == [b"d"]


def test_ids_are_ksuids_in_order_and_a_predecessor_is_a_pivot(server: Server) -> None:
    server.create()
    for _ in range(3):
        server.produce(*map(str, range(40)))
    ids = [item.id for item in server.items()]
    numbers = [ksuid_number(name) for name in ids]
    assert numbers == sorted(set(numbers))
    assert ids == sorted(ids)
    before = ksuid_text(numbers[0] - 1)
    assert [item.id for item in server.items(pivot=before, limit=1)] == [ids[0]]


@pytest.mark.every_log
def test_ids_grow_over_a_restart(control: Control) -> None:
    first = control.new(storage="ids")
    first.create()
    first.produce("a", "b")
    old = [item.id for item in first.items()]
    first.stop()
    second = control.new(storage="ids")
    assert [item.id for item in second.items()] == old
    second.produce("c")
    assert second.items()[2].id > old[1]
    second.stop()


def test_no_lease_is_454_after_its_time(running: Server) -> None:
    running.create()
    assert running.refusal(
        "queue.lease", queue_name="q", batch_size=1, client_id="c", request_timeout="50ms"
    ) == (454, "request timeout; no items are in the queue, try again")
    running.produce("a")
    assert len(running.lease(1).items) == 1


def test_a_parked_lease_ends_with_the_frozen_clock(server: Server) -> None:
    server.create()
    waiting = server.lease_later(timeout="1m")
    server.until_waiting(1)
    server.advance(MINUTE)
    assert not waiting.done()
    server.advance(1 * SECOND)
    assert refused(waiting) == (454, "request timeout; no items are in the queue, try again")
    assert server.stats().lease_waiting == 0


def test_a_parked_lease_gets_what_comes(server: Server) -> None:
    server.create()
    waiting = server.lease_later(10)
    server.until_waiting(1)
    server.produce("a", "b")
    assert [item.bytes for item in waiting.result(PATIENCE).items] == [b"a", b"b"]


@pytest.mark.every_log
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1_000])
def test_batches(server: Server, size: int) -> None:
    server.create()
    server.produce(*(str(number) for number in range(size)))
    leased = server.lease(size)
    assert len(leased.items) == size
    server.complete(*[item.id for item in leased.items])
    assert server.counts() == [(0, 0, 0)]


@pytest.mark.every_log
def test_large_payloads_do_not_shorten_a_lease(server: Server) -> None:
    server.create()
    big = "x" * 800_000
    for _ in range(4):
        server.produce(*[big] * 5)
    assert [len(item.bytes) for item in server.lease(20).items] == [800_000] * 20


@pytest.mark.every_log
@pytest.mark.parametrize(
    ("sizes", "count", "shares"),
    [((20, 6, 1), 23, (16, 6, 1)), ((10,) * 5, 10, (2,) * 5), ((1, 1, 1), 2, (1, 1)), ((5, 5), 5, (3, 2))],
)
def test_waiting_leases_share_round_robin(
    server: Server, sizes: tuple[int, ...], count: int, shares: tuple[int, ...]
) -> None:
    server.create()
    waiting = []
    for number, size in enumerate(sizes):
        waiting.append(server.lease_later(size, f"c{number}"))
        server.until_waiting(number + 1)
    server.produce(*map(str, range(count)))
    got = [len(future.result(PATIENCE).items) for future in waiting[: len(shares)]]
    assert tuple(got) == shares
    if len(sizes) > len(shares):
        server.until_waiting(len(sizes) - len(shares))


@pytest.mark.every_log
def test_held_leases_share_round_robin_in_one_pass(server: Server) -> None:
    server.create()
    server.pause("q")
    waiting = []
    for number, size in enumerate((20, 6, 1)):
        waiting.append(server.lease_later(size, f"c{number}"))
        server.until_waiting(number + 1)
    produced = server.begin(
        "queue.produce", queue_name="q", request_timeout="1m", items=[{"utf8": str(n)} for n in range(23)]
    )
    server.until_waiting(1, field="produce_waiting")
    assert server.stats().in_flight == 4
    assert not any(future.done() for future in waiting)
    server.pause("q", on=False)
    assert [len(future.result(PATIENCE).items) for future in waiting] == [16, 6, 1]
    produced.result(PATIENCE)


@pytest.mark.every_log
def test_held_produces_come_before_held_leases(server: Server) -> None:
    """Whatever was asked for first."""
    server.create()
    server.pause("q")
    lease = server.lease_later(3)
    server.until_waiting(1)
    produces = []
    for number in range(3):
        produces.append(
            server.begin("queue.produce", queue_name="q", request_timeout="1m", items=[{"utf8": str(number)}])
        )
        server.until_waiting(number + 1, field="produce_waiting")
    server.pause("q", on=False)
    assert [item.bytes for item in lease.result(PATIENCE).items] == [b"0", b"1", b"2"]
    for produced in produces:
        produced.result(PATIENCE)


@pytest.mark.every_log
def test_complete_and_retry_wait_while_a_queue_is_held(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    first, second = server.lease(2).items
    server.pause("q")
    complete = server.begin("queue.complete", queue_name="q", request_timeout="1m", ids=[first.id])
    retry = server.begin("queue.retry", queue_name="q", items=[{"id": second.id}])
    server.until_waiting(2, field="complete_waiting")
    assert len(server.items()) == 2
    assert server.counts() == [(2, 2, 0)]
    server.pause("q", on=False)
    complete.result(PATIENCE)
    retry.result(PATIENCE)
    assert server.counts() == [(1, 0, 0)]


def test_clear_works_while_a_queue_is_held(server: Server) -> None:
    server.create()
    server.produce("a")
    server.pause("q")
    server.ok("queue.clear", queue_name="q", queue=True)
    assert server.counts() == [(0, 0, 0)]
    server.pause("q", on=False)


def test_a_held_lease_times_out(server: Server) -> None:
    server.create()
    server.pause("q")
    waiting = server.lease_later(1, timeout="1m")
    server.until_waiting(1)
    server.advance(MINUTE + SECOND)
    assert refused(waiting)[0] == 454
    server.until_waiting(0)
    server.pause("q", on=False)


def test_a_full_backlog_is_overload(control: Control) -> None:
    server = control.new(max_requests_per_queue=2)
    server.create()
    server.create("other")
    server.pause("q")
    waiting = [server.lease_later(1, "a"), server.lease_later(1, "b")]
    server.until_waiting(2)
    overloaded = (454, "queue is overloaded; try again later")
    for path, fields in (
        ("queue.produce", {"request_timeout": "1m", "items": [{}]}),
        ("queue.lease", {"request_timeout": "1m", "batch_size": 1, "client_id": "x"}),
        ("queue.complete", {"request_timeout": "1m", "ids": ["0" * 27]}),
        ("queue.retry", {"items": [{"id": "0" * 27}]}),
    ):
        assert server.refusal(path, queue_name="q", **fields) == overloaded
    server.produce("x", queue="other")
    server.pause("q", on=False)
    server.produce("1", "2")
    assert [len(future.result(PATIENCE).items) for future in waiting] == [1, 1]
    server.stop()


def test_a_client_waits_once_in_a_queue(server: Server) -> None:
    server.create()
    server.create("other")
    waiting = server.lease_later(1, "me")
    server.until_waiting(1)
    assert server.refusal(
        "queue.lease", queue_name="q", batch_size=1, client_id="me", request_timeout="1m"
    ) == (
        400,
        "duplicate client id; a client cannot make multiple leased requests to the same queue",
    )
    elsewhere = server.lease_later(1, "me", queue="other")
    server.until_waiting(1, "other")
    server.produce("a")
    server.produce("b", queue="other")
    waiting.result(PATIENCE)
    elsewhere.result(PATIENCE)
    server.produce("c")
    assert len(server.lease(1, "me").items) == 1


def test_a_client_waits_once_in_a_held_queue(server: Server) -> None:
    server.create()
    server.produce("a", "b")
    server.pause("q")
    waiting = server.lease_later(1, "me")
    server.until_waiting(1)
    code, text = server.refusal(
        "queue.lease", queue_name="q", batch_size=1, client_id="me", request_timeout="1m"
    )
    assert (code, text.partition(";")[0]) == (400, "duplicate client id")
    server.pause("q", on=False)
    waiting.result(PATIENCE)


@pytest.mark.every_log
def test_a_client_that_hung_up_is_given_nothing(server: Server) -> None:
    server.create()
    host, _, port = server.address.partition(":")
    body = b'{"queue_name":"q","batch_size":1,"client_id":"gone","request_timeout":"1m"}'
    head = f"POST /v1/queue.lease HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        server.until_waiting(1)
    server.until_waiting(0)
    server.produce("a")
    assert server.counts() == [(1, 0, 0)]
