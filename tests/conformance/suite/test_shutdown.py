"""What a server that stops does with its clients (CONTRACT.md 4.15)."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite.go_client import PATIENCE, Control, Refused, Server, refused

QUEUE_STOPS = (453, "queue is shutting down")
STOP_SECONDS_MAX = 30.0
"""Half of what those who hold it up would wait, by themselves or in the drain."""


@pytest.mark.every_log
def test_parked_leases_are_told(running: Server) -> None:
    running.create(requested_partitions=2)
    running.create("other")
    waiting = [running.lease_later(1, f"c{number}") for number in range(10)]
    waiting += [running.lease_later(1, f"c{number}", queue="other") for number in range(10)]
    running.until_waiting(10)
    running.until_waiting(10, "other")
    started = time.monotonic()
    running.stop()
    assert [refused(future) for future in waiting] == [QUEUE_STOPS] * 20
    assert time.monotonic() - started < STOP_SECONDS_MAX


@pytest.mark.every_log
def test_what_a_held_queue_keeps_is_told(control: Control) -> None:
    """And not done."""
    server = control.new(storage="held")
    server.create()
    server.produce("a", "b")
    first, second = server.lease(2).items
    server.pause("q")
    fields = {"queue_name": "q", "request_timeout": "1m"}
    calls = [
        server.begin("queue.produce", **fields, items=[{}]),
        server.begin("queue.lease", **fields, batch_size=1, client_id="c"),
        server.begin("queue.complete", **fields, ids=[first.id]),
        server.begin("queue.retry", queue_name="q", items=[{"id": second.id}]),
    ]
    server.until(lambda: server.stats().in_flight == 4)
    server.stop()
    assert [refused(call) for call in calls] == [QUEUE_STOPS] * 4
    again = control.new(storage="held")
    assert [item.id for item in again.items()] == [first.id, second.id]
    assert again.counts() == [(2, 2, 0)]
    again.stop()


def test_a_server_that_stopped_is_gone(running: Server) -> None:
    running.stop()
    host, _, port = running.address.partition(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=PATIENCE)


@pytest.mark.every_log
def test_stopping_under_load(control: Control) -> None:
    """Every call ends soon, in success, with a text that says so or a broken connection.

    What was acknowledged is there afterwards.
    """
    token = "load"
    server = control.new(storage=token)
    server.create(requested_partitions=2)
    acknowledged: list[str] = []
    completed: list[str] = []
    strange: list[str] = []
    lock = threading.Lock()

    def until_stopped(step: Callable[[int], None]) -> None:
        for number in range(100_000):
            try:
                step(number)
            except Refused as error:
                if "shutting down" in error.text:
                    return
                if error.code != 454:
                    strange.append(str(error))
            except (OSError, http.client.HTTPException):
                return

    def produce(who: int) -> None:
        def step(number: int) -> None:
            texts = [f"{who}-{number}-{index}" for index in range(5)]
            server.produce(*texts)
            with lock:
                acknowledged.extend(texts)

        until_stopped(step)

    def consume(who: int) -> None:
        def step(_: int) -> None:
            leased = server.lease(3, f"c{who}")
            server.complete(*[item.id for item in leased.items], partition=leased.partition)
            with lock:
                completed.extend(item.bytes.decode() for item in leased.items)

        until_stopped(step)

    threads = [
        threading.Thread(target=target, args=(number,))
        for number in range(6)
        for target in (produce, consume)
    ]
    for thread in threads:
        thread.start()
    server.until(lambda: len(acknowledged) > 100 and completed)
    started = time.monotonic()
    server.stop()
    for thread in threads:
        thread.join(STOP_SECONDS_MAX)
    assert time.monotonic() - started < STOP_SECONDS_MAX
    assert not any(thread.is_alive() for thread in threads)
    assert strange == []
    again = control.new(storage=token)
    there = [
        item.payload.decode()
        for partition in range(2)
        for item in again.items(partition=partition, limit=100_000)
    ]
    assert len(set(there)) == len(there)
    lost = set(acknowledged) - set(completed) - set(there)
    # What was completed and not acknowledged was the last call of its client; at most so many are open.
    assert len(lost) <= 6 * 3
    assert not set(completed) & set(there)
    again.stop()


def stopping_amid(server: Server, *requests: bytes) -> list[bytes]:
    """The answers to requests that were half sent when the server began to stop."""
    host, _, port = server.address.partition(":")
    connections = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in requests]
    for connection, request in zip(connections, requests, strict=True):
        connection.sendall(b"POST /v1/queues.list HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(request[:-1])
        server.until(partial(has_been_read, connection))
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    server.until(lambda: not is_listened_at(host, int(port)))
    answers = []
    for connection, request in zip(connections, requests, strict=True):
        connection.sendall(request[-1:])
        answers.append(connection.recv(65_536))
        connection.close()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    return answers


def has_been_read(connection: socket.socket) -> bool:
    """Whether the other end has taken all that was sent, by what the system says of both ends."""
    here, there = connection.getsockname()[1], connection.getpeername()[1]
    waiting = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        ports = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        waiting[ports] = [int(queue, 16) for queue in queues.split(":")]
    (unsent, _), (_, unread) = waiting[here, there], waiting[there, here]
    return unsent == unread == 0


def is_listened_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except ConnectionError:
        return False
    return True


def test_calls_that_come_later_are_told(running: Server) -> None:
    """In whatever order a call looks at things."""
    running.create()
    bodies = {
        "queue.produce": {"queue_name": "q", "request_timeout": "1m", "items": [{}]},
        "queue.lease": {"queue_name": "q", "request_timeout": "1m", "batch_size": 1, "client_id": "c"},
        "queue.stats": {"queue_name": "none"},
        "storage/items.list": {"queue_name": ""},
        "queues.info": {"queue_name": "q"},
        "queues.list": {"limit": -1},
        "queues.create": {"queue_name": "n", "lease_timeout": "1m", "expire_timeout": "1m"},
        "queues.delete": {"queue_name": "q"},
    }
    requests = []
    for path, fields in bodies.items():
        body = json.dumps(fields).encode()
        asked = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(asked.encode() + body)
    for answer in stopping_amid(running, *requests):
        head, _, document = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 453")
        assert b"connection: close" in head.lower()
        assert json.loads(document)["message"] == "service is shutting down"


def test_a_server_that_stops_is_not_healthy(running: Server) -> None:
    (answer,) = stopping_amid(running, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, document = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    health = json.loads(document)
    (check,) = health["checks"]["queues:storage"]
    assert (health["status"], check["status"], check["output"]) == ("fail", "fail", "storage check failed")


@pytest.mark.long
def test_a_stop_ends_though_a_client_never_does(control: Control) -> None:
    running = control.new(drain=2)
    host, _, port = running.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as slow:
        slow.sendall(b"POST /v1/queues.list HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < STOP_SECONDS_MAX


def test_idle_connections_hold_nobody(running: Server) -> None:
    host, _, port = running.address.partition(":")
    idle = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(50)]
    for connection in idle:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65_536)
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < STOP_SECONDS_MAX
    for connection in idle:
        assert connection.recv(100) == b""
        connection.close()


@pytest.mark.every_log
def test_starting_and_stopping_many_times(control: Control) -> None:
    """Over one log: nothing is lost, nothing is doubled, ids grow."""
    ids: list[str] = []
    for number in range(6):
        server = control.new(storage="many")
        if not number:
            server.create()
        assert [item.id for item in server.items()] == ids
        server.produce(str(number), str(number))
        ids = [item.id for item in server.items()]
        assert ids == sorted(set(ids))
        assert len(ids) == 2 * number + 2
        server.stop()


def test_a_future_is_not_left_alone(running: Server) -> None:
    """Calls of every kind while it stops: each ends."""
    running.create()
    futures: list[Future[Any]] = []
    for number in range(30):
        futures.append(running.lease_later(1, f"c{number}"))
        futures.append(running.begin("queue.stats", queue_name="q"))
    running.until(lambda: running.stats().lease_waiting >= 10)
    running.stop()
    for future in futures:
        error = future.exception(STOP_SECONDS_MAX)
        assert (
            error is None
            or isinstance(error, OSError | http.client.HTTPException)
            or "shutting" in str(error)
        )
