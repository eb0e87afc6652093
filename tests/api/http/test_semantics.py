"""What calls do to queues and items (CONTRACT.md 4), on a real node with virtual time."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from querator.api.http import queue_calls
from querator.api.http.stamps import parse_stamp
from querator.api.http.storage_calls import IMPORTED_DEADLINE
from querator.core import limits
from querator.core.ids import Duration
from querator.core.ksuid import decode_ksuid, encode_ksuid
from tests.api.http.client import Client, open_client

SECOND = 1_000_000
MINUTE = 60 * SECOND
GO_ZERO = "0001-01-01T00:00:00Z"
UNIX_ZERO = "1970-01-01T00:00:00Z"
MISSING = "invalid storage id; '{}' does not exist"
NOT_LEASED = "item(s) cannot be completed; '{}' is not marked as leased"


async def passes(client: Client, micros: int) -> None:
    """Virtual time, and a little more: what is due is past, not present."""
    await client.node.env.clock.sleep(Duration(micros + 1_000))
    await wait_all_tasks_blocked()


async def items(client: Client, name: str, listing: str = "items", **more: Any) -> list[dict[str, Any]]:
    listed = await client.ok(f"storage/{listing}.list", queue_name=name, **more)
    return listed.get("items", [])  # type: ignore[no-any-return]


async def texts(client: Client, name: str, **more: Any) -> list[str]:
    import base64

    return [base64.b64decode(item.get("payload", "")).decode() for item in await items(client, name, **more)]


async def stats(client: Client, name: str) -> dict[str, Any]:
    logical = (await client.ok("queue.stats", queue_name=name))["logicalQueues"]
    assert len(logical) == 1
    return logical[0]  # type: ignore[no-any-return]


async def complete(client: Client, name: str, *ids: str, partition: int = 0) -> Any:
    return await client.call(
        "queue.complete", queue_name=name, partition=partition, ids=ids, request_timeout="1m"
    )


class Background:
    """A call that waits."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.done = trio.Event()

    async def lease(self, client: Client, name: str, size: int, who: str, timeout: str = "5m") -> None:
        self.answer = await client.call(
            "queue.lease", queue_name=name, batch_size=size, client_id=who, request_timeout=timeout
        )
        self.done.set()


# --- ids ------------------------------------------------------------------------------------------


async def test_ids_sort_in_order_of_the_queue_and_a_predecessor_is_a_pivot(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        for text in "abc":
            await client.produce("q", text)
        ids = [item["id"] for item in await items(client, "q")]
        assert ids == sorted(ids)
        number = decode_ksuid(ids[0])
        assert number is not None
        assert len(await items(client, "q", pivot=encode_ksuid(number - 1))) == 3
        assert [item["id"] for item in await items(client, "q", pivot=ids[1])] == ids[1:]
        assert await items(client, "q", pivot=encode_ksuid(number + 3)) == []
        assert len(await items(client, "q", limit=2)) == 2
        assert await items(client, "q", limit=-1) == []


async def test_a_lease_has_so_many_bytes(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """LEASE_BYTES_MAX, which is as much as an import may bring; one item always goes, however large."""
    assert limits.LEASE_BYTES_MAX == 67_108_864
    for most, sizes in ((30, [3, 1]), (29, [2, 2]), (9, [1, 1, 1, 1])):
        monkeypatch.setattr(queue_calls, "LEASE_BYTES_MAX", most)
        async with open_client() as client:
            await client.create("q")
            await client.produce("q", *("x" * 10 for _ in range(4)))
            leased = [
                len((await client.lease("q", client=f"c{turn}"))["items"]) for turn in range(len(sizes))
            ]
            assert leased == sizes


async def test_a_retired_id_is_refused(autojump_clock: object) -> None:
    """On retry, on expiry of the lease, on promotion: another id; the old one does not exist."""
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        first = (await client.lease("q"))["items"][0]["id"]
        await client.ok("queue.retry", queue_name="q", items=[{"id": first}])
        assert (await complete(client, "q", first)).message == MISSING.format(first)
        second = (await client.lease("q"))["items"][0]["id"]
        await passes(client, MINUTE)
        assert (await complete(client, "q", second)).message == MISSING.format(second)
        third = (await items(client, "q"))[0]["id"]
        assert (await complete(client, "q", third)).message == NOT_LEASED.format(third)
        assert len({first, second, third}) == 3


# --- produce and lease ----------------------------------------------------------------------------


async def test_payloads_are_bytes_or_text_or_nothing(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        produced = [
            {"bytes": "YQ==", "utf8": "ignored"},
            {"utf8": "é\n"},
            {},
            {"encoding": "e", "kind": "k", "reference": "r"},
        ]
        await client.ok("queue.produce", queue_name="q", request_timeout="1m", items=produced)
        leased = (await client.lease("q"))["items"]
        assert [item.get("bytes", "") for item in leased] == ["YQ==", "w6kK", "", ""]
        assert [item.get("kind", "") for item in leased] == ["", "", "", "k"]
        assert {key: leased[3][key] for key in ("encoding", "kind", "reference")} == produced[3]


async def test_leased_items_keep_id_and_place(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", *"abcd")
        before = await items(client, "q")
        leased = (await client.lease("q", 2))["items"]
        listed = await items(client, "q")
        assert [item["id"] for item in listed] == [item["id"] for item in before]
        assert [item.get("is_leased", False) for item in listed] == [True, True, False, False]
        assert [item["lease_deadline"] for item in listed] == ["2026-01-01T00:01:00Z"] * 2 + [GO_ZERO] * 2
        assert [item["id"] for item in leased] == [item["id"] for item in listed[:2]]
        assert listed[0]["attempts"] == 1
        assert listed[0]["created_at"] == "2026-01-01T00:00:00Z"
        assert listed[0]["expire_deadline"] == "2026-01-02T00:00:00Z"


async def test_a_lease_never_waits_to_fill_its_batch(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        assert len((await client.lease("q", 1_000))["items"]) == 1


@pytest.mark.parametrize(
    ("sizes", "count", "shares"),
    [([20, 6, 1], 23, [16, 6, 1]), ([10] * 5, 10, [2] * 5), ([2, 2], 1, [1, 0]), ([5, 5], 20, [5, 5])],
)
async def test_waiting_leases_share_round_robin(
    sizes: list[int], count: int, shares: list[int], autojump_clock: object
) -> None:
    """While the queue is held, so that all of them wait and one pass serves them."""
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q")
        broker = client.node.broker
        broker.hold("q")  # type: ignore[arg-type]
        waiting = [Background() for _ in sizes]
        for number, size in enumerate(sizes):
            nursery.start_soon(waiting[number].lease, client, "q", size, f"c{number}")
            await wait_all_tasks_blocked()
            assert (await stats(client, "q"))["lease_waiting"] == number + 1
        nursery.start_soon(lambda: client.produce("q", *["x"] * count))
        await wait_all_tasks_blocked()
        assert (await stats(client, "q"))["produce_waiting"] == 1
        assert (await stats(client, "q"))["in_flight"] == len(sizes) + 1
        broker.unhold("q")  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        given = [len(lease.answer.json["items"]) if lease.answer is not None else 0 for lease in waiting]
        assert given == shares
        nursery.cancel_scope.cancel()


async def test_a_client_waits_once_in_a_queue(autojump_clock: object) -> None:
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q")
        await client.create("other")
        waiting, elsewhere = Background(), Background()
        nursery.start_soon(waiting.lease, client, "q", 1, "me")
        nursery.start_soon(elsewhere.lease, client, "other", 1, "me")
        await wait_all_tasks_blocked()
        text = "duplicate client id; a client cannot make multiple leased requests to the same queue"
        request = {"queue_name": "q", "batch_size": 1, "client_id": "me", "request_timeout": "1m"}
        assert await client.fails("queue.lease", **request) == (400, text)
        await client.produce("q", "a", "b")
        await waiting.done.wait()
        assert len((await client.lease("q", client="me"))["items"]) == 1
        nursery.cancel_scope.cancel()


async def test_a_client_that_hung_up_is_given_nothing(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        with trio.move_on_after(1):
            await client.lease("q", client="gone")
        await client.produce("q", "a")
        leased = await client.lease("q", client="gone")
        assert leased["items"][0]["attempts"] == 1
        assert (await stats(client, "q")).get("in_flight", 0) == 0


async def test_a_lease_that_finds_nothing_is_454(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        before = client.door.clock.now()
        request = {"queue_name": "q", "batch_size": 1, "client_id": "me", "request_timeout": "2s"}
        text = "request timeout; no items are in the queue, try again"
        assert await client.fails("queue.lease", **request) == (454, text)
        assert 2 * SECOND <= client.door.clock.now() - before <= 2 * SECOND + 20_000


# --- partitions -----------------------------------------------------------------------------------


async def test_work_is_spread_by_opportunity(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q", requested_partitions=2)
        for _ in range(5):
            await client.produce("q", *["x"] * 10)
        totals = [partition["total"] for partition in (await stats(client, "q"))["partitions"]]
        assert totals == [30, 20]
        for number, size in enumerate((5, 10, 20)):
            await client.lease("q", size, f"c{number}")
        assert [partition["total_leased"] for partition in (await stats(client, "q"))["partitions"]] == [
            15,
            20,
        ]
        assert [partition.get("partition", 0) for partition in (await stats(client, "q"))["partitions"]] == [
            0,
            1,
        ]


async def test_items_are_settled_in_the_partition_that_the_lease_named(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q", requested_partitions=2)
        await client.produce("q", "a")
        await client.produce("q", "b", "c")
        leased = await client.lease("q")
        assert leased["partition"] == 1
        ids = [item["id"] for item in leased["items"]]
        assert (await complete(client, "q", *ids, partition=0)).message == MISSING.format(ids[0])
        assert (await complete(client, "q", *ids, partition=1)).status == 200


# --- complete and retry ---------------------------------------------------------------------------


async def test_complete_is_all_or_nothing(autojump_clock: object) -> None:
    """The Go server had removed the ids before the bad one."""
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b", "c")
        a, b = [item["id"] for item in (await client.lease("q", 2))["items"]]
        c = (await items(client, "q"))[2]["id"]
        for bad, text in (
            (c, NOT_LEASED.format(c)),
            ("x" * 5, "invalid storage id; 'xxxxx'"),
            (a, MISSING.format(a)),
        ):
            answer = await complete(client, "q", a, b, bad)
            assert answer.status == 400
            assert answer.message.startswith(text)
        assert (await complete(client, "q", a, b)).status == 200
        assert await texts(client, "q") == ["c"]


async def test_a_scheduled_item_does_not_exist_for_complete(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", enqueue_at="2026-01-01T01:00:00Z")
        scheduled = (await items(client, "q", "scheduled"))[0]["id"]
        assert (await complete(client, "q", scheduled)).message == MISSING.format(scheduled)


async def test_retry_now_later_or_never(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "now", "soon", "later", "dead", "rest")
        ids = [item["id"] for item in (await client.lease("q", 4))["items"]]
        await client.ok(
            "queue.retry",
            queue_name="q",
            items=[
                {"id": ids[0]},
                {"id": ids[1], "retry_at": "2026-01-01T00:00:00.099999Z"},
                {"id": ids[2], "retry_at": "2026-01-01T00:00:10Z"},
                {"id": ids[3], "retry_at": "2026-01-01T00:00:10Z", "dead": True},
            ],
        )
        assert await texts(client, "q") == ["rest", "now", "soon"]
        scheduled = await items(client, "q", "scheduled")
        assert [item["attempts"] for item in scheduled] == [1]
        partition = (await stats(client, "q"))["partitions"][0]
        assert (partition["total"], partition["scheduled"]) == (3, 1)
        await passes(client, 10 * SECOND)
        assert await texts(client, "q") == ["rest", "now", "soon", "later"]
        again = (await client.lease("q", 4))["items"]
        assert [item["attempts"] for item in again] == [1, 2, 2, 2]


# --- time -----------------------------------------------------------------------------------------


async def test_a_lease_holds_up_to_its_deadline_and_then_the_item_is_at_the_tail(
    autojump_clock: object,
) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b")
        leased = (await client.lease("q", 1))["items"][0]
        await client.node.env.clock.sleep(Duration(MINUTE))
        assert (await items(client, "q"))[0]["is_leased"], "at the deadline it can still be completed"
        await passes(client, 0)
        listed = await items(client, "q")
        assert await texts(client, "q") == ["b", "a"]
        assert listed[1]["attempts"] == 1
        assert listed[1]["created_at"] == "2026-01-01T00:00:00Z"
        assert listed[1]["expire_deadline"] == "2026-01-02T00:00:00Z"
        assert listed[1]["lease_deadline"] == GO_ZERO
        assert leased["id"] != listed[1]["id"]


async def test_a_longer_lease_timeout_does_not_move_deadlines(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b")
        await client.lease("q", 1)
        await client.ok("queues.update", queue_name="q", lease_timeout="10m")
        await client.lease("q", 1, "d")
        deadlines = [item["lease_deadline"] for item in await items(client, "q")]
        assert deadlines == ["2026-01-01T00:01:00Z", "2026-01-01T00:10:00Z"]


async def test_scheduled_items_come_due_in_order(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q", expire_timeout="1h")
        await client.ok(
            "queue.produce",
            queue_name="q",
            request_timeout="1m",
            items=[
                {"utf8": "second", "enqueue_at": "2026-01-01T00:00:20Z"},
                {"utf8": "third", "enqueue_at": "2026-01-01T00:00:20Z"},
                {"utf8": "first", "enqueue_at": "2026-01-01T00:00:10Z"},
                {"utf8": "at once", "enqueue_at": "2020-01-01T00:00:00Z"},
            ],
        )
        assert await texts(client, "q") == ["at once"]
        ids = [item["id"] for item in await items(client, "q", "scheduled")]
        assert ids == sorted(ids)
        await passes(client, 20 * SECOND)
        assert await texts(client, "q") == ["at once", "first", "second", "third"]
        listed = await items(client, "q")
        assert not {item["id"] for item in listed} & set(ids)
        assert {item["expire_deadline"] for item in listed} == {"2026-01-01T01:00:00Z"}, "since produce"


async def test_items_expire_and_go_to_the_dead_queue(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("dead", expire_timeout="2h")
        await client.create("q", expire_timeout="1h", dead_queue="dead")
        await client.produce("q", "a", reference="r", encoding="e", kind="k")
        last = (await items(client, "q"))[0]["id"]
        await passes(client, 60 * MINUTE)
        assert await items(client, "q") == []
        (item,) = await items(client, "dead")
        assert item["source_id"] == last
        assert item["id"] != last
        assert (item["reference"], item["encoding"], item["kind"], item["payload"]) == ("r", "e", "k", "YQ==")
        assert "attempts" not in item
        assert item["created_at"].startswith("2026-01-01T01:00:00")
        assert item["expire_deadline"].startswith("2026-01-01T03:00:00")


async def test_at_max_attempts_the_item_dies_when_its_last_lease_ends(autojump_clock: object) -> None:
    """Not before: the Go server took a running last attempt away."""
    async with open_client() as client:
        await client.create("dead")
        await client.create("q", max_attempts=2, dead_queue="dead")
        await client.produce("q", "a")
        await client.lease("q")
        await passes(client, MINUTE)
        second = (await client.lease("q"))["items"][0]
        assert second["attempts"] == 2
        await client.ok("queues.update", queue_name="q", max_attempts=1, dead_queue="dead")
        assert (await items(client, "q"))[0]["is_leased"]
        await passes(client, MINUTE)
        assert await items(client, "q") == []
        assert [item["source_id"] for item in await items(client, "dead")] == [second["id"]]


@pytest.mark.parametrize(("attempts", "remains"), [(1, False), (2, True), (0, True)])
async def test_limits_are_read_when_the_lease_ends(
    attempts: int, remains: bool, autojump_clock: object
) -> None:
    """A changed queue applies to the items it has; 0 is without limit. Without a dead queue they go."""
    async with open_client() as client:
        await client.create("q", max_attempts=5)
        await client.produce("q", "a")
        await client.lease("q")
        await client.ok("queues.update", queue_name="q", max_attempts=attempts)
        await passes(client, MINUTE)
        assert bool(await items(client, "q")) is remains


# --- queues ---------------------------------------------------------------------------------------


async def test_an_update_keeps_timeouts_and_replaces_the_rest(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.ok("namespaces.create", name="space")
        await client.create("dead")
        await client.create("q", reference="r", max_attempts=3, dead_queue="dead", namespace="space")
        await client.ok("queues.update", queue_name="q", namespace="_system")
        info = await client.ok("queues.info", queue_name="q")
        assert parse_stamp(info["updated_at"]) > parse_stamp(info["created_at"])
        assert {key: value for key, value in info.items() if not key.endswith("_at")} == {
            "queue_name": "q",
            "lease_timeout": "1m0s",
            "expire_timeout": "24h0m0s",
            "requested_partitions": 1,
            "namespace": "space",
        }
        await client.ok(
            "queues.update", queue_name="q", lease_timeout="90s", requested_partitions=4, reference="s"
        )
        info = await client.ok("queues.info", queue_name="q")
        assert (info["lease_timeout"], info["requested_partitions"], info["reference"]) == ("1m30s", 4, "s")


async def test_lists_of_queues(autojump_clock: object) -> None:
    """Ascending by name; the pivot is inclusive, or the next; a namespace does not eat into the limit."""
    async with open_client() as client:
        await client.ok("namespaces.create", name="space")
        for number in range(6):
            await client.create(f"q{number}", namespace="space" if number % 2 else "")

        async def names(**request: Any) -> list[str]:
            return [
                queue["queue_name"] for queue in (await client.ok("queues.list", **request)).get("items", [])
            ]

        assert await names() == [f"q{number}" for number in range(6)]
        assert await names(limit=2, namespace="space") == ["q1", "q3"]
        assert await names(pivot="q3") == ["q3", "q4", "q5"]
        assert await names(pivot="q35", limit=1) == ["q4"]
        assert await names(pivot="r") == []


async def test_deleting_a_queue_refuses_those_who_wait_and_its_name_is_free(autojump_clock: object) -> None:
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q")
        await client.produce("q", "a")
        await client.lease("q")
        waiting = Background()
        nursery.start_soon(waiting.lease, client, "q", 1, "waiter")
        await wait_all_tasks_blocked()
        await client.ok("queues.delete", queue_name="q")
        await waiting.done.wait()
        assert (waiting.answer.status, waiting.answer.message) == (453, "queue is shutting down")
        text = "queue does not exist; no such queue named 'q'"
        assert await client.fails("queues.delete", queue_name="q") == (400, text)
        await client.create("q")
        assert await items(client, "q") == []


async def test_a_node_that_stops_refuses_those_who_wait(autojump_clock: object) -> None:
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q")
        waiting = Background()
        nursery.start_soon(waiting.lease, client, "q", 1, "waiter")
        await wait_all_tasks_blocked()
        client.node.refuse_waiting()
        await waiting.done.wait()
        assert (waiting.answer.status, waiting.answer.message) == (453, "queue is shutting down")


async def test_changes_that_cross_are_refused_in_the_contract_s_words(autojump_clock: object) -> None:
    """Both see a queue that is not there yet; the second learns that it exists."""
    async with open_client() as client:
        answers: list[Any] = []

        async def create() -> None:
            answers.append(
                await client.call(
                    "queues.create",
                    queue_name="q",
                    lease_timeout="1m",
                    expire_timeout="1m",
                    requested_partitions=1,
                )
            )

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(create)
        assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
        assert {answer.message for answer in answers if answer.status == 400} == {
            "invalid queue; 'q' already exists"
        }


# --- clear, stats, reload -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "left", "scheduled"),
    [
        ({"queue": True}, ["leased"], 1),
        ({"scheduled": True}, ["leased", "ready"], 0),
        ({"queue": True, "scheduled": True}, ["leased"], 0),
        ({"queue": True, "destructive": True}, [], 0),
        ({"scheduled": True, "destructive": True}, ["leased", "ready"], 0),
    ],
)
async def test_clear(flags: dict[str, bool], left: list[str], scheduled: int, autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "leased", "ready")
        await client.produce("q", "scheduled", enqueue_at="2026-01-02T00:00:00Z")
        await client.lease("q", 1)
        await client.ok("queue.clear", queue_name="q", **flags)
        assert await texts(client, "q") == left
        assert len(await items(client, "q", "scheduled")) == scheduled


async def test_clear_reaches_all_partitions_and_leaves_waiting_leases(autojump_clock: object) -> None:
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.create("q", requested_partitions=3)
        for _ in range(3):
            await client.produce("q", "a")
        await client.ok("queue.clear", queue_name="q", queue=True)
        waiting = Background()
        nursery.start_soon(waiting.lease, client, "q", 1, "waiter")
        await wait_all_tasks_blocked()
        await client.ok("queue.clear", queue_name="q", queue=True)
        await client.produce("q", "b")
        await waiting.done.wait()
        assert waiting.answer.json["items"][0]["bytes"] == "Yg=="


async def test_stats_of_ages(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q", requested_partitions=2)
        await client.produce("q", "a")
        assert (await stats(client, "q"))["partitions"][1] == {
            "partition": 1,
            "average_age": "0s",
            "average_leased_age": "0s",
        }
        await client.lease("q", 1)
        await client.node.env.clock.sleep(Duration(15 * SECOND))
        assert (await stats(client, "q"))["partitions"][0] == {
            "total": 1,
            "total_leased": 1,
            "average_age": "15s",
            "average_leased_age": "45s",
        }


async def test_reload_loses_nothing(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b")
        await client.lease("q", 1)
        before = await items(client, "q")
        await client.ok("queue.reload", queue_name="q")
        assert await items(client, "q") == before


# --- storage --------------------------------------------------------------------------------------


async def test_import_keeps_what_it_should(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        full = {
            "source_id": "s1",
            "is_leased": True,
            "lease_deadline": "2026-01-01T00:05:00Z",
            "expire_deadline": "2026-01-01T05:00:00Z",
            "attempts": 3,
            "max_attempts": 9,
            "reference": "r",
            "encoding": "e",
            "kind": "k",
            "payload": "YQ==",
        }
        ignored = {
            "id": "anything",
            "enqueue_at": "2027-01-01T00:00:00Z",
            "created_at": "2020-01-01T00:00:00Z",
        }
        idle = {"lease_deadline": "2026-01-01T00:06:00Z", "payload": "Yg=="}
        reply = await client.ok("storage/items.import", queue_name="q", items=[{**full, **ignored}, idle, {}])
        listed = await items(client, "q")
        made = [{key: item[key] for key in item if key not in ("id", "created_at")} for item in listed]
        assert made == [
            full,
            {**idle, "expire_deadline": UNIX_ZERO},
            {"lease_deadline": UNIX_ZERO, "expire_deadline": UNIX_ZERO},
        ]
        assert listed == reply["items"]
        assert {item["created_at"] for item in listed} == {"2026-01-01T00:00:00Z"}
        assert (await complete(client, "q", listed[0]["id"])).status == 200
        assert (await complete(client, "q", listed[1]["id"])).message == NOT_LEASED.format(listed[1]["id"])


async def test_an_imported_deadline_is_forgotten_once_the_item_was_leased(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.ok(
            "storage/items.import", queue_name="q", items=[{"lease_deadline": "2026-01-01T00:06:00Z"}]
        )
        view = client.node.broker.actors[1].state  # type: ignore[index]
        assert IMPORTED_DEADLINE in str(view.segments[0].columns)
        await client.lease("q")
        await passes(client, MINUTE)
        assert (await items(client, "q"))[0]["lease_deadline"] == GO_ZERO


async def test_an_import_skips_source_ids_that_are_there(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        batch = [{"source_id": "s1", "payload": "YQ=="}, {"source_id": "s2"}, {"source_id": "s1"}]
        first = (await client.ok("storage/items.import", queue_name="q", items=batch))["items"]
        assert ["id" in item for item in first] == [True, True, False]
        again = (await client.ok("storage/items.import", queue_name="q", items=batch[:1]))["items"]
        assert again[0]["source_id"] == "s1"
        assert "id" not in again[0]
        await client.ok("storage/items.delete", queue_name="q", ids=[first[0]["id"]])
        freed = (await client.ok("storage/items.import", queue_name="q", items=batch[:1]))["items"]
        assert "id" in freed[0]


async def test_delete_takes_items_in_any_state(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "leased", "ready", "kept")
        await client.produce("q", "scheduled", enqueue_at="2026-01-02T00:00:00Z")
        await client.lease("q", 1)
        ids = [item["id"] for item in await items(client, "q")]
        scheduled = (await items(client, "q", "scheduled"))[0]["id"]
        await client.ok("storage/items.delete", queue_name="q", ids=[ids[0], ids[1], scheduled, "0" * 27])
        assert await texts(client, "q") == ["kept"]
        assert await items(client, "q", "scheduled") == []


async def test_ten_thousand_items_are_imported_at_once(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        batch = [{"payload": "YQ==", "reference": f"{number}"} for number in range(10_000)]
        reply = (await client.ok("storage/items.import", queue_name="q", items=batch))["items"]
        ids = [item["id"] for item in reply]
        assert ids == sorted(ids)
        assert len(await items(client, "q")) == 1_000, "the default page"
        page = await items(client, "q", limit=10_000, pivot=ids[5_000])
        assert [item["reference"] for item in page] == [f"{number}" for number in range(5_000, 10_000)]


# --- lists of the rest ----------------------------------------------------------------------------


async def test_lists_are_by_id_and_pages_begin_at_the_pivot(autojump_clock: object) -> None:
    async with open_client() as client:
        ids = sorted([(await client.ok("users.create", username=f"u{number}"))["id"] for number in range(5)])
        listed = [user["id"] for user in (await client.ok("users.list"))["items"]]
        assert listed == ids
        page = [user["id"] for user in (await client.ok("users.list", pivot=ids[2], limit=2))["items"]]
        assert page == ids[2:4]
        assert await client.ok("users.list", limit=-1) == {}


async def test_a_namespace_keeps_its_birthday(autojump_clock: object) -> None:
    """The Go server wiped it on update."""
    async with open_client() as client:
        await client.ok("namespaces.create", name="space", description="d", api_key_tag="t")
        before = (await client.ok("namespaces.list", pivot="space"))["items"][0]
        await client.ok("namespaces.update", name="space", description="e")
        after = (await client.ok("namespaces.list", pivot="space"))["items"][0]
        assert before == {**after, "description": "d", "api_key_tag": "t"}
        listed = [entry["name"] for entry in (await client.ok("namespaces.list"))["items"]]
        assert listed == ["_system", "space"]


async def test_bindings_end_with_their_user(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        user = (await client.ok("users.create", username="u"))["id"]
        await client.ok("rolebindings.create", namespace="_system", role_name="PublicViewer", user_id=user)
        filtered = await client.ok("rolebindings.list", user_id_filter=user)
        assert [binding["user_id"] for binding in filtered["items"]] == [user]
        await client.ok("users.delete", id=user)
        assert len((await client.ok("rolebindings.list"))["items"]) == 1


# --- /v1/x/ ---------------------------------------------------------------------------------------


async def test_produce_that_answers_ids_and_their_trace(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        request = {"queue_name": "q", "request_timeout": "1m", "items": [{"utf8": "a"}, {"utf8": "b"}]}
        made = await client.ok("x/queue.produce", **request)
        assert made == {"queue_name": "q", "ids": ["1.1", "1.2"]}
        leased = (await client.lease("q", 1))["items"][0]["id"]
        await complete(client, "q", leased)
        steps = (await client.ok("x/items.trace", queue_name="q", id="1.1"))["steps"]
        assert [step["what"] for step in steps] == ["produced", "reserved", "completed"]
        code, text = await client.fails("x/items.trace", queue_name="q", id="7.1")
        assert (code, text) == (400, "invalid item id; '7.1' is not in queue 'q'")
        assert (await client.fails("x/items.trace", queue_name="q", id="1.9"))[0] == 400
        assert (await client.fails("x/items.trace", queue_name="q", id="x"))[0] == 400


async def test_extend_moves_the_deadline(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        leased = (await client.lease("q"))["items"][0]["id"]
        await client.ok("x/queue.extend", queue_name="q", ids=[leased], timeout="10m")
        assert (await items(client, "q"))[0]["lease_deadline"] == "2026-01-01T00:10:00Z"
        await passes(client, 9 * MINUTE)
        assert (await complete(client, "q", leased)).status == 200
        code, text = await client.fails("x/queue.extend", queue_name="q", ids=[leased])
        assert (code, text) == (400, MISSING.format(leased))


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        ("99ms", "timeout is invalid; it is 100ms to 168h0m0s"),
        ("169h", "timeout is invalid; it is 100ms to 168h0m0s"),
        ("x", 'timeout is invalid; time: invalid duration "x" - expected format: 900ms, 5m or 15m'),
    ],
)
async def test_extend_has_bounds(timeout: str, text: str, autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        assert await client.fails("x/queue.extend", queue_name="q", ids=["x"], timeout=timeout) == (400, text)


async def test_release_gives_the_attempt_back(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a")
        leased = (await client.lease("q"))["items"][0]["id"]
        await client.ok("x/queue.release", queue_name="q", ids=[leased])
        assert (await client.lease("q"))["items"][0]["attempts"] == 1


async def test_the_dead_are_listed_and_brought_back(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.produce("q", "a", "b", "c")
        ids = [item["id"] for item in (await client.lease("q"))["items"]]
        await client.ok("queue.retry", queue_name="q", items=[{"id": text, "dead": True} for text in ids])
        assert await items(client, "q") == []
        dead = (await client.ok("x/dead.list", queue_name="q"))["items"]
        assert [(item["id"], item["reason"], item["payload"]) for item in dead] == [
            ("1.1", "dead", "YQ=="),
            ("1.2", "dead", "Yg=="),
            ("1.3", "dead", "Yw=="),
        ]
        page = (await client.ok("x/dead.list", queue_name="q", pivot="1.2", limit=1))["items"]
        assert [item["id"] for item in page] == ["1.2"]
        assert await client.ok("x/dead.redrive", queue_name="q", ids=["1.2"]) == {"count": 1}
        assert await texts(client, "q") == ["b"]
        assert await client.ok("x/dead.redrive", queue_name="q", reason="other") == {}
        assert await client.ok("x/dead.redrive", queue_name="q", limit=1) == {"count": 1}
        assert await client.ok("x/dead.redrive", queue_name="q") == {"count": 1}
        assert await texts(client, "q") == ["b", "a", "c"]
