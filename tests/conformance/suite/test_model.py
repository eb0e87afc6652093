"""Random walks over one queue's calls, each step compared with a model made from the contract's words (4).

The model knows items by what they carry; their ids are the server's, and must change when the contract says.
"""

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.conformance.suite.go_client import HOUR, MILLISECOND, SECOND, Control, Refused, Server, is_at

STEPS = 70
LEASE = 20 * SECOND
EXPIRE = 300 * SECOND
SOON = 100 * MILLISECOND


@attrs.define(eq=False)
class Item:
    """One item of the model. Moments in nanoseconds; 0: none."""

    text: str
    created_at: int
    expires_at: int
    due_at: int = 0
    lease_deadline: int = 0
    attempts: int = 0
    id: str = ""
    """The last one the server showed; "": it must be a new one."""


class Model:
    """The queue as the contract describes it, in one partition, with a dead queue or without."""

    def __init__(self, now: int, attempts_max: int, *, has_dead: bool) -> None:
        self.now = now
        self.attempts_max = attempts_max
        self.has_dead = has_dead
        self.line: list[Item] = []
        self.scheduled: list[Item] = []
        self.dead: dict[str, str] = {}
        """Text to last id; "": it had one that nobody saw, between the end of a lease and its own end.

        In which order items die that die at one moment is nobody's promise.
        """
        self.retired: list[str] = []

    def renew(self, item: Item) -> None:
        if item.id:
            self.retired.append(item.id)
            item.id = ""

    def enter(self, item: Item, due_at: int) -> None:
        """At the tail, or into the schedule."""
        item.lease_deadline = 0
        if due_at >= self.now + SOON:
            item.due_at = due_at
            self.scheduled.append(item)
            self.scheduled.sort(key=lambda each: each.due_at)
        else:
            item.due_at = 0
            self.line.append(item)

    def die(self, item: Item) -> None:
        if self.has_dead:
            self.dead[item.text] = item.id
        self.renew(item)

    def advance(self, now: int) -> None:
        self.now = now
        ended = [item for item in self.line if item.lease_deadline and item.lease_deadline < now]
        for item in sorted(ended, key=lambda each: each.lease_deadline):
            self.line.remove(item)
            if self.attempts_max and item.attempts >= self.attempts_max:
                self.die(item)
            else:
                self.renew(item)
                self.enter(item, 0)
        for item in [each for each in self.scheduled if each.due_at < now]:
            self.scheduled.remove(item)
            self.renew(item)
            self.enter(item, 0)
        for item in [each for each in self.line if not each.lease_deadline and each.expires_at < now]:
            self.line.remove(item)
            self.die(item)

    def lease(self, size: int) -> list[Item]:
        chosen = [item for item in self.line if not item.lease_deadline][:size]
        for item in chosen:
            item.lease_deadline = self.now + LEASE
            item.attempts += 1
        return chosen

    @property
    def leased(self) -> list[Item]:
        return [item for item in self.line if item.lease_deadline]


class Walk:
    """Takes steps on both and compares."""

    def __init__(self, server: Server, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = server
        self.trace: list[str] = []
        self._made = 0
        attempts_max = self.random.choice([0, 0, 1, 2, 3])
        has_dead = self.random.random() < 0.6
        if has_dead:
            server.create("dead", expire_timeout="1000h")
        self._settings: dict[str, Any] = {
            "max_attempts": attempts_max,
            "dead_queue": "dead" if has_dead else "",
        }
        server.create(lease_timeout="20s", expire_timeout="5m", **self._settings)
        self.model = Model(server.now, attempts_max, has_dead=has_dead)

    def step(self) -> None:
        steps: list[Callable[[], None]] = [
            *[self.produce] * 4,
            *[self.lease] * 4,
            *[self.complete] * 3,
            *[self.retry] * 3,
            *[self.advance] * 4,
            self.schedule,
            self.wrong,
            self.delete,
            self.clear,
            self.update,
        ]
        chosen = self.random.choice(steps)
        chosen()
        self.compare()

    def note(self, *what: object) -> None:
        self.trace.append(" ".join(map(str, what)))

    # --- steps --------------------------------------------------------------------------------------

    def _new_items(self) -> list[Item]:
        made = []
        for _ in range(self.random.choice([1, 1, 2, 5])):
            self._made += 1
            made.append(Item(f"i{self._made}", self.model.now, self.model.now + EXPIRE))
        return made

    def produce(self) -> None:
        items = self._new_items()
        self.note("produce", *[item.text for item in items])
        self.server.produce(*[item.text for item in items])
        for item in items:
            self.model.enter(item, 0)

    def schedule(self) -> None:
        items = self._new_items()
        later = self.random.choice(
            [-SECOND, 50 * MILLISECOND, 200 * MILLISECOND, 10 * SECOND, 30 * SECOND, HOUR]
        )
        self.note("schedule", later, *[item.text for item in items])
        at = self.server.now + later
        self.server.produce(*[item.text for item in items], enqueue_at=self.server.stamp(later))
        for item in items:
            self.model.enter(item, at)

    def lease(self) -> None:
        size = self.random.choice([1, 1, 2, 4, 100])
        self.note("lease", size)
        if all(item.lease_deadline for item in self.model.line):
            return  # it would wait: the clock stands
        got = self.server.lease(size).items
        expected = self.model.lease(size)
        assert [item.bytes.decode() for item in got] == [item.text for item in expected]
        assert [item.attempts for item in got] == [item.attempts for item in expected]
        assert [item.id for item in got] == [item.id for item in expected]
        assert all(is_at(item.lease_deadline, self.model.now + LEASE) for item in got)

    def _some_leased(self) -> list[Item]:
        leased = self.model.leased
        return self.random.sample(leased, min(len(leased), self.random.choice([1, 2, 5])))

    def complete(self) -> None:
        items = self._some_leased()
        if not items:
            return
        self.note("complete", *[item.text for item in items])
        self.server.complete(*[item.id for item in items])
        for item in items:
            self.model.line.remove(item)
            self.model.renew(item)

    def retry(self) -> None:
        items = self._some_leased()
        if not items:
            return
        wanted = []
        for item in items:
            kind = self.random.choice(["now", "now", "later", "soon", "dead"])
            later = {"now": 0, "later": 15 * SECOND, "soon": 60 * MILLISECOND, "dead": HOUR}[kind]
            fields = {"id": item.id}
            if later:
                fields["retry_at"] = self.server.stamp(later)
            wanted.append((item, fields | ({"dead": True} if kind == "dead" else {}), kind, later))
        self.note("retry", *[f"{item.text} {kind}" for item, _, kind, _ in wanted])
        self.server.retry(*[fields for _, fields, _, _ in wanted])
        for item, _, kind, later in wanted:
            self.model.line.remove(item)
            if kind == "dead":
                self.model.die(item)
            else:
                self.model.renew(item)
                self.model.enter(item, self.model.now + later if later else 0)
        # An item whose life ended while it was leased dies now that it is back.
        self.server.advance(0)
        self.model.advance(self.server.now)

    def advance(self) -> None:
        step = self.random.choice(
            [MILLISECOND, SECOND, 5 * SECOND, 20 * SECOND, 21 * SECOND, 60 * SECOND, 200 * SECOND]
        )
        self.note("advance", step)
        self.server.advance(step)
        self.model.advance(self.server.now)

    def wrong(self) -> None:
        """A settlement that names one item that is not leased, with others that are: nothing happens."""
        names = [item.id for item in self._some_leased()]
        ready = [item.id for item in self.model.line if not item.lease_deadline]
        bad = self.random.choice([*ready[:3], *self.model.retired[-3:], "0" * 27])
        names.insert(self.random.randint(0, len(names)), bad)
        self.note("wrong", bad)
        text = "is not marked as leased" if bad in ready else "does not exist"
        for path, fields in (
            ("queue.complete", {"ids": names, "request_timeout": "1m"}),
            ("queue.retry", {"items": [{"id": name} for name in names]}),
        ):
            try:
                self.server.ok(path, queue_name="q", **fields)
            except Refused as refused:
                assert refused.code == 400
                assert refused.text.endswith(f"'{bad}' {text}")
            else:
                raise AssertionError(f"{path} took {bad}")

    def delete(self) -> None:
        everything = self.model.line + self.model.scheduled
        items = self.random.sample(everything, min(len(everything), 2))
        if not items:
            return
        self.note("delete", *[item.text for item in items])
        self.server.ok("storage/items.delete", queue_name="q", ids=[item.id for item in items])
        for item in items:
            (self.model.scheduled if item.due_at else self.model.line).remove(item)
            self.model.renew(item)

    def clear(self) -> None:
        if self.random.random() < 0.6:
            return
        queue, scheduled, destructive = (self.random.random() < 0.5 for _ in range(3))
        if not queue and not scheduled:
            return
        self.note("clear", queue, scheduled, destructive)
        self.server.ok(
            "queue.clear", queue_name="q", queue=queue, scheduled=scheduled, destructive=destructive
        )
        everything = queue and destructive
        for item in [*self.model.line, *self.model.scheduled]:
            if everything or (scheduled if item.due_at else queue and not item.lease_deadline):
                (self.model.scheduled if item.due_at else self.model.line).remove(item)
                self.model.renew(item)

    def update(self) -> None:
        attempts_max = self.random.choice([0, 1, 2, 3])
        self.note("update", attempts_max)
        self._settings["max_attempts"] = attempts_max
        self.server.ok("queues.update", queue_name="q", **self._settings)
        self.model.attempts_max = attempts_max

    # --- comparing ----------------------------------------------------------------------------------

    def compare(self) -> None:
        model, server = self.model, self.server
        listed = server.items(limit=10_000)
        assert [item.payload.decode() for item in listed] == [item.text for item in model.line]
        scheduled = server.scheduled(limit=10_000)
        by_text = {item.text: item for item in model.scheduled}
        assert sorted(item.payload.decode() for item in scheduled) == sorted(by_text)
        ids = [item.id for item in listed]
        assert ids == sorted(set(ids))
        self._compare_items(listed, model.line)
        self._compare_items(scheduled, [by_text[item.payload.decode()] for item in scheduled])
        assert server.counts() == [(len(model.line), len(model.leased), len(model.scheduled))]
        if model.has_dead:
            dead = {item.payload.decode(): item.source_id for item in server.items("dead", limit=10_000)}
            assert {text: source for text, source in dead.items() if model.dead[text]} == {
                text: last for text, last in model.dead.items() if last
            }
            assert dead.keys() == model.dead.keys()

    def _compare_items(self, shown: list[Any], expected: list[Item]) -> None:
        for got, item in zip(shown, expected, strict=True):
            assert isinstance(got.id, str)
            if item.id:
                assert got.id == item.id
            else:
                assert got.id not in self.model.retired
                item.id = got.id
            assert got.is_leased == bool(item.lease_deadline)
            assert got.attempts == item.attempts
            assert is_at(got.created_at, item.created_at)
            assert is_at(got.expire_deadline, item.expires_at)
            if item.lease_deadline:
                assert is_at(got.lease_deadline, item.lease_deadline)
            if item.due_at:
                assert is_at(got.enqueue_at, item.due_at)


SEEDS = [*range(6), *[pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 100)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_walks(control: Control, seed: int) -> None:
    server = control.new(now=1_800_000_000 * SECOND)
    walk = Walk(server, seed)
    try:
        for _ in range(STEPS):
            walk.step()
    except BaseException as error:
        error.add_note("\n".join(walk.trace))
        raise
    server.stop()


@pytest.mark.every_log
@pytest.mark.parametrize("seed", [1_000, 1_001])
def test_walks_over_restarts(control: Control, seed: int) -> None:
    """A new server over the same log, again and again: nobody notices."""
    token = f"walk-{seed}"
    server = control.new(now=1_800_000_000 * SECOND, storage=token)
    walk = Walk(server, seed)
    try:
        for number in range(STEPS):
            walk.step()
            if number % 10 == 9:
                server.stop()
                server = walk.server = control.new(now=server.now, storage=token)
                walk.note("restart")
                walk.compare()
    except BaseException as error:
        error.add_note("\n".join(walk.trace))
        raise
    server.stop()
