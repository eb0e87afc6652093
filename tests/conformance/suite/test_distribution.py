"""Which partition gets, and gives, what (CONTRACT.md 4.5)."""

import threading

import pytest

from tests.conformance.suite.go_client import (
    PATIENCE,
    Refused,
    Server,
)


@pytest.mark.every_log
def test_opportunistic_distribution(server: Server) -> None:
    server.create(requested_partitions=2)
    for _ in range(5):
        server.produce(*["x"] * 10)
    assert [total for total, _, _ in server.counts()] == [30, 20]
    assert [len(server.lease(size, str(size)).items) for size in (5, 10, 20)] == [5, 10, 20]
    assert server.counts() == [(30, 15, 0), (20, 20, 0)]


@pytest.mark.every_log
def test_a_fresh_queue_fills_from_its_first_partition(server: Server) -> None:
    server.create(requested_partitions=3)
    for text in "abc":
        server.produce(text)
    assert [server.payloads(partition=index) for index in range(3)] == [["a"], ["b"], ["c"]]


def test_a_request_goes_to_one_partition(server: Server) -> None:
    server.create(requested_partitions=4)
    server.produce(*map(str, range(100)))
    assert [total for total, _, _ in server.counts()] == [100, 0, 0, 0]
    leased = server.lease(100)
    assert leased.partition == 0


def test_held_produces_are_spread(server: Server) -> None:
    server.create(requested_partitions=2)
    server.pause("q")
    produces = []
    for number in range(5):
        produces.append(server.begin("queue.produce", queue_name="q", request_timeout="1m", items=[{}] * 10))
        server.until_waiting(number + 1, field="produce_waiting")
    server.pause("q", on=False)
    for produced in produces:
        produced.result(PATIENCE)
    assert [total for total, _, _ in server.counts()] == [30, 20]


@pytest.mark.every_log
def test_held_leases_are_spread(server: Server) -> None:
    server.create(requested_partitions=2)
    for _ in range(5):
        server.produce(*["x"] * 10)
    server.pause("q")
    leases = []
    for number, size in enumerate((5, 10, 20)):
        leases.append(server.lease_later(size, f"c{number}"))
        server.until_waiting(number + 1)
    server.pause("q", on=False)
    assert [len(future.result(PATIENCE).items) for future in leases] == [5, 10, 20]
    assert server.counts() == [(30, 15, 0), (20, 20, 0)]


@pytest.mark.parametrize("partitions", [2, 5, 20])
def test_every_item_of_many_partitions_is_leased_once(server: Server, partitions: int) -> None:
    server.create(requested_partitions=partitions)
    for number in range(60):
        server.produce(str(number))
    got: list[bytes] = []
    for number in range(60):
        leased = server.lease(5, str(number))
        got += [item.bytes for item in leased.items]
        server.complete(*[item.id for item in leased.items], partition=leased.partition)
        if len(got) == 60:
            break
    assert sorted(got, key=int) == [str(number).encode() for number in range(60)]


def test_a_waiting_lease_is_served_from_any_partition(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a")
    assert server.lease(1).partition == 0
    server.produce("b")
    server.produce("c")
    assert {server.lease(1, "x").partition, server.lease(1, "y").partition} == {0, 1}


@pytest.mark.every_log
def test_many_clients_at_once(running: Server) -> None:
    running.create(requested_partitions=4)
    texts = [f"{number}" for number in range(200)]
    seen: list[str] = []
    lock = threading.Lock()

    def consume(who: str) -> None:
        while True:
            with lock:
                if len(seen) == len(texts):
                    return
            try:
                leased = running.lease(5, who, timeout="50ms")
            except Refused as error:
                assert error.code == 454
                continue
            running.complete(*[item.id for item in leased.items], partition=leased.partition)
            with lock:
                seen.extend(item.bytes.decode() for item in leased.items)

    threads = [threading.Thread(target=consume, args=(f"c{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for start in range(0, 200, 8):
        running.produce(*texts[start : start + 8])
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(seen, key=int) == texts
