"""What the Go server was known to get wrong (CONTRACT.md 5), a test a row: here it does not happen."""

import importlib
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from querator.api.http.handler import HttpApi
from querator.core.ids import Duration
from querator.errors import LogUnavailable
from querator.log.memory import Gate, MemoryDisk, MemoryLog
from querator.protocol import messages as wire
from tests.api.http.client import Answer, Client, open_client
from tests.api.http.test_semantics import MINUTE, Background, items, passes, stats, texts
from tests.api.test_whole import client as stream_client
from tests.api.test_whole import node, one

FAULTS = {
    "failed storage writes acknowledged with 200": (
        "test_a_failed_write_is_not_acknowledged",
        "test_a_write_that_never_happens_is_never_acknowledged",
    ),
    "only the earliest scheduled item fires, and schedules die on restart": (
        "test_every_scheduled_item_fires_also_after_a_restart",
    ),
    "a partial queues.update zeroes live timeouts": ("test_a_partial_update_keeps_the_live_timeouts",),
    "a live last-attempt lease is revoked early": ("test_a_running_last_attempt_is_not_taken_away",),
    "waiting consumers are not woken by a retry, an expiry, a due schedule or an import": (
        "test_whatever_makes_an_item_ready_wakes_those_who_wait",
    ),
    "dead: true never reaches the dead queue": ("test_dead_goes_to_the_dead_queue",),
    "shutdown hangs under load": ("test_a_stop_under_load_ends_and_loses_nothing",),
    "the anonymous-admin door reopens at every start": (
        "test_the_door_of_the_first_start_is_not_opened_again",
    ),
    "whoever knows an id may complete it, whoever leases it now": (
        "test_an_old_holder_can_not_complete_what_another_one_has",
    ),
    "no extend/heartbeat": ("test_a_lease_can_be_extended",),
    "no history": ("test_what_happened_to_an_item_can_be_asked",),
    "permission checks cost storage reads": ("test_permission_checks_read_no_storage",),
    "no cluster": ("tests.actors.test_ownership:test_a_node_that_leaves_is_followed_within_a_renewal",),
    "no WebSocket": ("test_items_are_pushed_over_a_websocket",),
    "no analytics": ("tests.app.test_questions:test_both_doors_answer_alike",),
    "a bad id in queue.complete leaves the ids before it removed": (
        "test_ids_before_a_bad_one_are_not_removed",
    ),
}
"""The rows of CONTRACT.md 5 (and one of its 4.6), and the tests that show that it does not happen here."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_known_fault_has_its_test(fault: str) -> None:
    for name in FAULTS[fault]:
        module, _, test = name.rpartition(":")
        assert callable(getattr(importlib.import_module(module or __name__), test))


class Call:
    """A call in the background."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    async def run(self, client: Client, path: str, fields: dict[str, Any]) -> None:
        self.answer = await client.call(path, **fields)


PRODUCE = {"queue_name": "q", "request_timeout": "1m", "items": [{"utf8": "a"}]}


async def test_a_failed_write_is_not_acknowledged(autojump_clock: object) -> None:
    """The Go server answered 200. Here: nothing, until the same bytes are in; then 200, and they are."""
    gate, disk = Gate(), MemoryDisk()
    async with open_client(faults=gate, disk=disk) as client, trio.open_nursery() as nursery:
        await client.create("q")
        gate.close()
        call = Call()
        nursery.start_soon(call.run, client, "queue.produce", PRODUCE)
        await gate.wait_arrived()
        gate.fail(LogUnavailable("the disk is full"))
        gate.fail(LogUnavailable("the disk is full"))
        await trio.sleep(0.01)
        assert call.answer is None
        gate.open()
        await trio.sleep(1)
        assert call.answer is not None
        assert call.answer.status == 200
        assert await texts(client, "q") == ["a"]
    async with open_client(disk=disk) as client:
        assert await texts(client, "q") == ["a"]


async def test_a_write_that_never_happens_is_never_acknowledged(autojump_clock: object) -> None:
    """Those who waited learn that it failed; what comes meanwhile is refused at once."""

    class Full(Gate):
        is_full = False

        async def before(self, records: Any) -> None:
            if self.is_full:
                raise LogUnavailable("the disk is full")
            await super().before(records)

    disk, full = MemoryDisk(), Full()
    async with open_client(faults=full, disk=disk) as client:
        await client.create("q")
        full.is_full = True
        first, second = Call(), Call()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run, client, "queue.produce", PRODUCE)
            await trio.sleep(1)
            nursery.start_soon(second.run, client, "queue.produce", PRODUCE)
        assert first.answer is not None
        assert second.answer is not None
        assert (first.answer.status, first.answer.message) == (454, "internal error, try your request again")
        text = "partition not available; partition '0' is failing, retry again"
        assert (second.answer.status, second.answer.message) == (454, text)
        full.is_full = False
        await trio.sleep(20)
        assert await texts(client, "q") == []
        await client.produce("q", "b")
    async with open_client(disk=disk) as client:
        assert await texts(client, "q") == ["b"]


async def test_every_scheduled_item_fires_also_after_a_restart(autojump_clock: object) -> None:
    """There only the earliest fired, and a restart forgot them all."""
    disk = MemoryDisk()
    async with open_client(disk=disk) as client:
        await client.create("q")
        for number in range(3):
            await client.produce("q", str(number), enqueue_at=f"2026-01-01T00:0{number + 1}:00Z")
        await passes(client, MINUTE)
        assert await texts(client, "q") == ["0"]
    async with open_client(disk=disk) as client:
        assert len(await items(client, "q", "scheduled")) == 2
        await passes(client, 3 * MINUTE)
        assert await texts(client, "q") == ["0", "1", "2"]


async def test_a_partial_update_keeps_the_live_timeouts(autojump_clock: object) -> None:
    """There it zeroed them in the running queue."""
    async with open_client() as client:
        await client.create("q", lease_timeout="2m", expire_timeout="1h")
        await client.ok("queues.update", queue_name="q", reference="new")
        await client.produce("q", "a")
        item = (await client.lease("q"))["items"][0]
        assert item["lease_deadline"] == "2026-01-01T00:02:00Z"
        assert (await items(client, "q"))[0]["expire_deadline"] == "2026-01-01T01:00:00Z"


async def test_a_running_last_attempt_is_not_taken_away(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q", max_attempts=1)
        await client.produce("q", "a")
        leased = (await client.lease("q"))["items"][0]["id"]
        await client.node.env.clock.sleep(Duration(MINUTE))
        request = {"queue_name": "q", "request_timeout": "1m", "ids": [leased]}
        assert await client.ok("queue.complete", **request) == {"code": 200}


@pytest.mark.parametrize(
    "wake",
    ["produce", "retry", "expiry", "schedule", "import"],
)
async def test_whatever_makes_an_item_ready_wakes_those_who_wait(wake: str, autojump_clock: object) -> None:
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q")
        leased = ""
        if wake in ("retry", "expiry"):
            await client.produce("q", "a")
            leased = (await client.lease("q"))["items"][0]["id"]
        if wake == "schedule":
            await client.produce("q", "a", enqueue_at="2026-01-01T00:00:30Z")
        waiting = Background()
        nursery.start_soon(waiting.lease, client, "q", 1, "waiter")
        await wait_all_tasks_blocked()
        match wake:
            case "produce":
                await client.produce("q", "a")
            case "retry":
                await client.ok("queue.retry", queue_name="q", items=[{"id": leased}])
            case "import":
                await client.ok("storage/items.import", queue_name="q", items=[{"payload": "YQ=="}])
            case _:
                await passes(client, MINUTE)
        with trio.fail_after(1):
            await waiting.done.wait()
        assert waiting.answer.json["items"][0]["bytes"] == "YQ=="


async def test_dead_goes_to_the_dead_queue(autojump_clock: object) -> None:
    """The Go server deleted it."""
    async with open_client() as client:
        await client.create("dead")
        await client.create("q", dead_queue="dead")
        await client.produce("q", "a")
        leased = (await client.lease("q"))["items"][0]["id"]
        await client.ok("queue.retry", queue_name="q", items=[{"id": leased, "dead": True}])
        await wait_all_tasks_blocked()
        assert [item["source_id"] for item in await items(client, "dead")] == [leased]


async def test_a_stop_under_load_ends_and_loses_nothing(autojump_clock: object) -> None:
    """Every call is answered; what was acknowledged is there after the restart."""
    disk = MemoryDisk()
    acknowledged: list[str] = []
    refused: list[tuple[int, str]] = []

    async def producer(client: Client, name: str) -> None:
        for number in range(1_000):
            text = f"{name}-{number}"
            answer = await client.call(
                "queue.produce", queue_name="q", request_timeout="1m", items=[{"utf8": text}]
            )
            if answer.status != 200:
                refused.append((answer.status, answer.message))
                return
            acknowledged.append(text)

    async with open_client(disk=disk) as client:
        await client.create("q")
        await client.create("idle")
        waiting = Background()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(producer, client, str(number))
            nursery.start_soon(waiting.lease, client, "idle", 1, "waiter")
            while len(acknowledged) < 100:
                await trio.lowlevel.checkpoint()
            with trio.fail_after(5):
                client.door.is_stopping = True
                await client.node.stop()
        assert len(refused) == 8
        assert {code for code, _ in refused} == {453}
        assert all("shutting down" in text for _, text in refused)
        assert (waiting.answer.status, waiting.answer.message) == (453, "queue is shutting down")
    async with open_client(disk=disk) as client:
        there = await texts(client, "q", limit=10_000)
        assert sorted(there) == sorted(acknowledged)


async def test_the_door_of_the_first_start_is_not_opened_again(autojump_clock: object) -> None:
    disk = MemoryDisk()
    async with open_client(auth=True, disk=disk) as client:
        await client.ok("rolebindings.delete", namespace="_system", role_name="Admin", user_id="anonymous")
    for _ in range(2):
        async with open_client(auth=True, disk=disk) as client:
            assert await client.fails("users.list") == (403, "access denied")


async def test_an_old_holder_can_not_complete_what_another_one_has(autojump_clock: object) -> None:
    """There whoever knew the id completed it, whoever held it now. Here the id is the old holder's own."""
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        old = (await client.lease("q"))["items"][0]["id"]
        await passes(client, MINUTE)
        new = (await client.lease("q", client="other"))["items"][0]["id"]
        request = {"queue_name": "q", "request_timeout": "1m"}
        text = f"invalid storage id; '{old}' does not exist"
        assert await client.fails("queue.complete", ids=[old], **request) == (400, text)
        assert (await stats(client, "q"))["partitions"][0]["total_leased"] == 1
        await client.ok("queue.complete", ids=[new], **request)


async def test_a_lease_can_be_extended(autojump_clock: object) -> None:
    """There was no heartbeat: a lease lasted what its queue said, and slow work was done twice."""
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        leased = (await client.lease("q"))["items"][0]["id"]
        for _ in range(3):
            await passes(client, MINUTE // 2)
            await client.ok("x/queue.extend", queue_name="q", ids=[leased])
        assert (await stats(client, "q"))["partitions"][0]["total_leased"] == 1
        await client.ok("queue.complete", queue_name="q", request_timeout="1m", ids=[leased])


async def test_what_happened_to_an_item_can_be_asked(autojump_clock: object) -> None:
    """There was no history: an item that was completed had never been."""
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        await client.lease("q")
        await passes(client, MINUTE)
        leased = (await client.lease("q"))["items"][0]["id"]
        await client.ok("queue.complete", queue_name="q", request_timeout="1m", ids=[leased])
        steps = (await client.ok("x/items.trace", queue_name="q", id="1.1"))["steps"]
        assert [step["what"] for step in steps] == ["produced", "reserved", "ended", "reserved", "completed"]


async def test_items_are_pushed_over_a_websocket(autojump_clock: MockClock) -> None:
    """There a consumer had to ask, again and again."""
    async with node(MemoryDisk()) as (application, env), stream_client(env) as consumer:
        client = Client(application.node, application.door, HttpApi(application.door))
        await client.create("q")
        await one(consumer, wire.Subscribe(id=1, queue="q", texts=True))
        await client.produce("q", "a")
        (pushed,) = await consumer.receive()
        assert isinstance(pushed, wire.Reserved)
        assert pushed.texts == ["a"]


async def test_permission_checks_read_no_storage(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_client(auth=True) as client:
        await client.create("q")

        async def refuse(*_: object, **__: object) -> None:
            raise AssertionError("storage was asked")

        for name in ("append", "read", "tail", "partitions", "read_payloads"):
            monkeypatch.setattr(MemoryLog, name, refuse)
        for key in ("", "qtr-live-" + "z" * 43, "bad"):
            client.key = key
            for _ in range(3):
                await client.call("queues.list")
                await client.call("queues.info", queue_name="q")


async def test_ids_before_a_bad_one_are_not_removed(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b")
        leased = [item["id"] for item in (await client.lease("q"))["items"]]
        await wait_all_tasks_blocked()
        await client.fails("queue.complete", queue_name="q", request_timeout="1m", ids=[leased[0], "0" * 27])
        assert await texts(client, "q") == ["a", "b"]
