"""storage/*: lists, imports, deletes (CONTRACT.md 2.3, 3.8, 4.14)."""

import base64
from typing import Any

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
    stamp,
)

EPOCH = "1970-01-01T00:00:00Z"
MALFORMED = [
    "invalid-id",
    "0" * 26,
    "0" * 28,
    "z" * 27,
    "aWgEPTl1tmebfsQzFP4bxwgy80W",
    "é" * 27,
    " " * 27,
    "-" * 27,
]
GREATEST = "aWgEPTl1tmebfsQzFP4bxwgy80V"


def imported(server: Server, *items: dict[str, Any], **more: Any) -> Any:
    return server.ok("storage/items.import", **{"queue_name": "q", "items": list(items), **more}).items


# --- checks -----------------------------------------------------------------------------------------

COMMON: list[tuple[dict[str, Any], str]] = [
    ({"queue_name": ""}, "queue name is invalid; queue name cannot be empty"),
    ({"queue_name": "\t"}, "queue name is invalid; queue name cannot be empty"),
    ({"queue_name": "a~b"}, "queue name is invalid; 'a~b' cannot contain '~' character"),
    ({"queue_name": "none", "partition": 9}, "queue does not exist; no such queue named 'none'"),
    ({"partition": -1}, "partition is invalid; '-1' is not a valid partition"),
    ({"partition": 2}, "partition is invalid; '2' is not a valid partition"),
    ({"partition": 65_234}, "partition is invalid; '65234' is not a valid partition"),
]


@pytest.mark.parametrize(
    "path", ["storage/items.list", "storage/scheduled.list", "storage/items.import", "storage/items.delete"]
)
@pytest.mark.parametrize(("fields", "text"), COMMON)
def test_the_queue_and_the_partition_come_first(
    server: Server, path: str, fields: dict[str, Any], text: str
) -> None:
    """Before an empty list, and before what is malformed."""
    server.create(requested_partitions=2)
    assert server.refusal(path, **{"queue_name": "q", **fields}) == (400, text)
    if "list" in path:
        assert server.refusal(path, **{"queue_name": "q", "pivot": "bad", **fields}) == (400, text)


def test_nothing_to_import_or_delete(server: Server) -> None:
    server.create()
    assert server.refusal("storage/items.import", queue_name="q") == (
        400,
        "items is invalid; cannot be empty",
    )
    assert server.refusal("storage/items.delete", queue_name="q") == (400, "ids is invalid; cannot be empty")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pivots(server: Server, name: str) -> None:
    server.create()
    for path in ("storage/items.list", "storage/scheduled.list"):
        code, text = server.refusal(path, queue_name="q", pivot=name)
        assert (code, text.startswith(f"invalid storage id; '{name}': Valid encoded KSUIDs are ")) == (
            400,
            True,
        )


# --- lists ------------------------------------------------------------------------------------------


@pytest.mark.every_log
@pytest.mark.parametrize("scheduled", [False, True])
def test_pages(server: Server, scheduled: bool) -> None:
    server.create()
    at = {"enqueue_at": server.stamp(HOUR)} if scheduled else {}
    texts = [f"{number:03}" for number in range(50)]
    for start in range(0, 50, 10):
        server.produce(*texts[start : start + 10], **at)
    lister = server.scheduled if scheduled else server.items
    everything = lister()
    ids = [item.id for item in everything]
    assert [item.payload.decode() for item in everything] == texts
    assert ids == sorted(set(ids))
    assert [item.id for item in lister(limit=10)] == ids[:10]
    assert [item.id for item in lister(limit=10, pivot=ids[20])] == ids[20:30]
    assert [item.id for item in lister(limit=1, pivot=ids[49])] == ids[49:]
    assert [item.id for item in lister(limit=100, pivot=ids[45])] == ids[45:]
    before = ksuid_text(ksuid_number(ids[0]) - 1)
    assert [item.id for item in lister(limit=3, pivot=before)] == ids[:3]
    assert list(lister(pivot=ksuid_text(ksuid_number(ids[49]) + 1_000_000))) == []
    assert list(lister(pivot=GREATEST)) == []
    assert [item.id for item in lister(pivot="0" * 27, limit=2)] == ids[:2]
    assert list(lister(limit=-1)) == []


def test_pages_walk_over_the_whole(server: Server) -> None:
    server.create()
    for number in range(37):
        server.produce(str(number))
    seen: list[str] = []
    pivot = ""
    while True:
        page = [item.id for item in server.items(pivot=pivot, limit=10)]
        seen += page if not seen else page[1:]
        if len(page) < 10:
            break
        pivot = page[-1]
    assert seen == [item.id for item in server.items()]


def test_a_pivot_that_is_gone_is_the_next_one(server: Server) -> None:
    server.create()
    server.produce(*map(str, range(5)))
    ids = [item.id for item in server.items()]
    server.ok("storage/items.delete", queue_name="q", ids=[ids[2]])
    assert [item.id for item in server.items(pivot=ids[2])] == ids[3:]


def test_each_partition_has_its_list(server: Server) -> None:
    server.create(requested_partitions=3)
    for text in "abcdef":
        server.produce(text)
    assert [server.payloads(partition=index) for index in range(3)] == [["a", "d"], ["b", "e"], ["c", "f"]]
    every = [item.id for index in range(3) for item in server.items(partition=index)]
    assert len(set(every)) == 6


def test_a_pivot_of_another_partition_is_a_place_like_any(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a")
    server.produce("b")
    first, second = (server.items(partition=index)[0].id for index in range(2))
    low, high = sorted((first, second))
    low_partition = 0 if low == first else 1
    assert [item.id for item in server.items(partition=low_partition, pivot=high)] == []
    assert [item.id for item in server.items(partition=1 - low_partition, pivot=low)] == [high]


def in_json(server: Server, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The items of a reply. Ten thousand are parsed in no time, as messages they are not."""
    status, document = server.json(path, {"queue_name": "q", **fields})
    assert status == 200, document
    items: list[dict[str, Any]] = document.get("items", [])
    return items


@pytest.mark.every_log
def test_ten_thousand_items(server: Server) -> None:
    """Imported at once, listed at once (else a thousand), leased and completed in thousands."""
    server.create()
    given = [{"payload": "eA==", "reference": str(number)} for number in range(10_000)]
    ids = [item["id"] for item in in_json(server, "storage/items.import", items=given)]
    assert len(set(ids)) == 10_000
    assert len(in_json(server, "storage/items.list")) == 1_000
    listed = in_json(server, "storage/items.list", limit=10_000)
    assert [item["id"] for item in listed] == ids
    assert [item["reference"] for item in listed] == [str(number) for number in range(10_000)]
    assert len(in_json(server, "storage/items.list", limit=20_000)) == 10_000
    assert [item["id"] for item in in_json(server, "storage/items.list", pivot=ids[9_500])] == ids[9_500:]
    assert server.counts() == [(10_000, 0, 0)]
    for _ in range(10):
        fields = {"batch_size": 1_000, "client_id": "c", "request_timeout": "1m"}
        leased = [item["id"] for item in in_json(server, "queue.lease", **fields)]
        assert len(leased) == 1_000
        in_json(server, "queue.complete", ids=leased, request_timeout="1m")
    assert server.counts() == [(0, 0, 0)]


def test_thousands_of_deletes_at_once(server: Server) -> None:
    """As many as fit into a body."""
    server.create()
    ids = [item["id"] for item in in_json(server, "storage/items.import", items=[{}] * 8_000)]
    in_json(server, "storage/items.delete", ids=ids)
    assert server.counts() == [(0, 0, 0)]


def test_ten_thousand_scheduled_items_become_due_at_once(server: Server) -> None:
    server.create()
    for _ in range(10):
        server.produce(*["x"] * 1_000, enqueue_at=server.stamp(HOUR))
    assert len(in_json(server, "storage/scheduled.list", limit=10_000)) == 10_000
    server.advance(HOUR + SECOND)
    assert server.counts() == [(10_000, 0, 0)]
    assert len(in_json(server, "storage/items.list", limit=10_000)) == 10_000


def test_ten_thousand_leases_end_at_once(server: Server) -> None:
    server.create()
    for _ in range(10):
        server.produce(*["x"] * 1_000)
        server.lease(1_000)
    server.advance(MINUTE + SECOND)
    assert server.counts() == [(10_000, 0, 0)]


# --- import -----------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_import_keeps_what_it_keeps(server: Server) -> None:
    server.create()
    lease, expire = server.stamp(HOUR), server.stamp(2 * HOUR)
    item = {
        "id": ksuid_text(1),
        "source_id": "source",
        "is_leased": True,
        "lease_deadline": lease,
        "expire_deadline": expire,
        "dead_deadline": server.stamp(9 * HOUR),
        "created_at": "2001-01-01T00:00:00Z",
        "updated_at": "2002-01-01T00:00:00Z",
        "enqueue_at": server.stamp(HOUR),
        "attempts": 7,
        "max_attempts": 9,
        "reference": "r",
        "encoding": "e",
        "kind": "k",
        "payload": "AP8=",
    }
    (echo,) = imported(server, item)
    (listed,) = server.items()
    assert echo == listed
    assert listed.id != item["id"]
    assert (listed.source_id, listed.is_leased, listed.attempts, listed.max_attempts) == (
        "source",
        True,
        7,
        9,
    )
    assert (listed.reference, listed.encoding, listed.kind, listed.payload) == ("r", "e", "k", b"\0\xff")
    assert listed.lease_deadline.ToJsonString() == _canonical(lease)
    assert listed.expire_deadline.ToJsonString() == _canonical(expire)
    assert is_at(listed.created_at, server.now)
    for field in ("dead_deadline", "updated_at", "enqueue_at"):
        assert not listed.HasField(field)
    assert list(server.scheduled()) == []
    assert server.counts() == [(1, 1, 0)]


def _canonical(text: str) -> str:
    whole, _, fraction = text.rstrip("Z").partition(".")
    return text if fraction.rstrip("0") else f"{whole}Z"


@pytest.mark.parametrize("leased", [False, True])
def test_absent_moments_are_1970(server: Server, leased: bool) -> None:
    server.create()
    (echo,) = imported(server, {"payload": "eA==", "is_leased": leased, "lease_deadline": server.stamp(HOUR)})
    assert echo.expire_deadline.ToJsonString() == EPOCH
    (listed,) = server.items()
    assert listed.expire_deadline.ToJsonString() == EPOCH
    assert listed.lease_deadline == echo.lease_deadline
    (echo,) = imported(server, {"payload": "eQ=="})
    assert echo.lease_deadline.ToJsonString() == EPOCH
    assert server.items()[1].lease_deadline.ToJsonString() == EPOCH


def test_the_zero_moment_of_go_is_kept(server: Server) -> None:
    """Its clients write the year 1 for "none"."""
    server.create()
    (echo,) = imported(server, {"lease_deadline": ZERO_TIME, "expire_deadline": ZERO_TIME})
    (listed,) = server.items()
    assert echo == listed
    assert listed.lease_deadline.ToJsonString() == ZERO_TIME
    assert listed.expire_deadline.ToJsonString() == ZERO_TIME


def test_imports_are_appended_in_order(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a")
    server.produce("b")
    texts = [f"{number}" for number in range(20)]
    items = [
        {"payload": base64.b64encode(text.encode()).decode(), "id": ksuid_text(99 - n)}
        for n, text in enumerate(texts)
    ]
    echoed = imported(server, *items, partition=1)
    assert [item.payload.decode() for item in echoed] == texts
    assert server.payloads(partition=1) == ["b", *texts]
    assert server.payloads(partition=0) == ["a"]
    assert [item.id for item in echoed] == [item.id for item in server.items(partition=1)][1:]


def test_an_imported_lease_is_a_lease(server: Server) -> None:
    """It can be completed and retried, and it ends at its deadline."""
    server.create()
    item = {
        "is_leased": True,
        "lease_deadline": server.stamp(MINUTE),
        "attempts": 3,
        "expire_deadline": server.stamp(HOUR),
    }
    first, second, third = imported(server, item, item, item)
    server.produce("later")
    server.complete(first.id)
    server.retry({"id": second.id})
    assert server.counts() == [(3, 1, 0)]
    server.advance(MINUTE + SECOND)
    assert server.counts() == [(3, 0, 0)]
    assert [each.attempts for each in server.items()] == [0, 3, 3]
    assert third.id not in [each.id for each in server.items()]
    assert [each.attempts for each in server.lease(3).items] == [1, 4, 4]


def test_an_imported_item_is_leased_in_its_turn(server: Server) -> None:
    server.create()
    server.produce("a")
    imported(server, {"payload": "Yg==", "attempts": 2, "expire_deadline": server.stamp(HOUR)})
    server.produce("c")
    leased = server.lease(3)
    assert [(item.bytes, item.attempts) for item in leased.items] == [(b"a", 1), (b"b", 3), (b"c", 1)]


def test_an_imported_item_expires(server: Server) -> None:
    server.create("dead")
    server.create(dead_queue="dead")
    (item,) = imported(server, {"payload": "eA==", "expire_deadline": server.stamp(MINUTE)})
    server.advance(MINUTE + SECOND)
    assert list(server.items()) == []
    (dead,) = server.items("dead")
    assert (dead.source_id, dead.payload) == (item.id, b"x")


def test_an_import_wakes_who_waits(server: Server) -> None:
    server.create()
    waiting = server.lease_later(1)
    server.until_waiting(1)
    imported(server, {"payload": "eA==", "expire_deadline": server.stamp(HOUR)})
    assert waiting.result(PATIENCE).items[0].bytes == b"x"


@pytest.mark.every_log
def test_a_source_id_is_imported_once(server: Server) -> None:
    """While its item is there, in that partition; the reply echoes it without an id."""
    server.create(requested_partitions=2)
    first, again, other = imported(
        server, {"source_id": "s"}, {"source_id": "s", "kind": "k"}, {"source_id": "t"}
    )
    assert (bool(first.id), again.id, again.source_id, again.kind) == (True, "", "s", "k")
    assert other.id
    (skipped,) = imported(server, {"source_id": "s"})
    assert skipped.id == ""
    assert [item.source_id for item in server.items()] == ["s", "t"]
    (elsewhere,) = imported(server, {"source_id": "s"}, partition=1)
    assert elsewhere.id
    assert len(imported(server, {}, {})) == 2


@pytest.mark.parametrize("how", ["complete", "delete", "retry dead"])
def test_a_source_id_is_free_once_its_item_is_gone(server: Server, how: str) -> None:
    server.create()
    (item,) = imported(server, {"source_id": "s", "is_leased": True, "lease_deadline": server.stamp(HOUR)})
    if how == "complete":
        server.complete(item.id)
    elif how == "delete":
        server.ok("storage/items.delete", queue_name="q", ids=[item.id])
    else:
        server.retry({"id": item.id, "dead": True})
    assert server.counts() == [(0, 0, 0)]
    (again,) = imported(server, {"source_id": "s"})
    assert again.id


def test_a_source_id_stays_taken_over_a_retry(server: Server) -> None:
    server.create()
    (item,) = imported(server, {"source_id": "s", "is_leased": True, "lease_deadline": server.stamp(HOUR)})
    server.retry({"id": item.id})
    assert [each.source_id for each in server.items()] == ["s"]
    assert imported(server, {"source_id": "s"})[0].id == ""


def test_a_large_import(server: Server) -> None:
    """Near the body's limit, in a few large items."""
    server.create()
    echoed = in_json(server, "storage/items.import", items=[{"payload": "A" * 4_000_000}] * 15)
    assert [len(item["payload"]) for item in echoed] == [4_000_000] * 15
    assert server.counts() == [(15, 0, 0)]
    assert len(in_json(server, "storage/items.list")) == 15


def test_imports_into_a_held_queue(server: Server) -> None:
    server.create()
    server.pause("q")
    imported(server, {"payload": "eA=="})
    assert server.counts() == [(1, 0, 0)]
    server.pause("q", on=False)


# --- delete -----------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_deletes_whatever_its_state(server: Server) -> None:
    server.create()
    server.produce("leased", "ready", "stays")
    server.produce("scheduled", enqueue_at=server.stamp(HOUR))
    (leased,) = server.lease(1).items
    ready = server.items()[1].id
    (scheduled,) = server.scheduled()
    for name in (leased.id, ready, scheduled.id):
        assert server.ok("storage/items.delete", queue_name="q", ids=[name]).code == 200
    assert server.payloads() == ["stays"]
    assert server.counts() == [(1, 0, 0)]
    assert server.refusal("queue.complete", queue_name="q", request_timeout="1m", ids=[leased.id]) == (
        400,
        f"invalid storage id; '{leased.id}' does not exist",
    )


def test_deletes_of_what_is_not_there_are_skipped(server: Server) -> None:
    server.create(requested_partitions=2)
    server.produce("a", "b")
    first, second = (item.id for item in server.items())
    assert server.ok("storage/items.delete", queue_name="q", ids=[ksuid_text(7), first, first]).code == 200
    assert server.payloads() == ["b"]
    assert server.ok("storage/items.delete", queue_name="q", ids=[first]).code == 200
    assert server.ok("storage/items.delete", queue_name="q", partition=1, ids=[second]).code == 200
    assert server.payloads() == ["b"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_id_deletes_nothing(server: Server, name: str) -> None:
    server.create()
    server.produce("a")
    good = server.items()[0].id
    code, text = server.refusal("storage/items.delete", queue_name="q", ids=[good, name])
    assert (code, text.startswith(f"invalid storage id; '{name}': Valid encoded KSUIDs are ")) == (400, True)
    assert server.payloads() == ["a"]


# --- restarts ---------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_everything_outlives_a_restart(control: Control) -> None:
    """Ready, leased, scheduled and imported items, with their ids, deadlines and attempts."""
    first = control.new(storage="items", now=1_800_000_000 * SECOND)
    first.create("dead")
    first.create(requested_partitions=2, max_attempts=2, dead_queue="dead")
    first.produce(*"abc", kind="k")
    first.produce("later", enqueue_at=first.stamp(HOUR))
    first.produce("d")
    leased = first.lease(2)
    imported(
        first, {"source_id": "s", "is_leased": True, "lease_deadline": first.stamp(2 * MINUTE)}, partition=1
    )
    retried = first.lease(1)
    first.retry({"id": retried.items[0].id}, partition=retried.partition)

    def seen(server: Server) -> list[Any]:
        return [
            [*server.items(partition=index), *server.scheduled(partition=index)] for index in range(2)
        ] + server.counts()

    before = seen(first)
    first.stop()
    second = control.new(storage="items", now=first.now)
    assert seen(second) == before
    second.complete(leased.items[0].id, partition=leased.partition)
    assert imported(second, {"source_id": "s"}, partition=1)[0].id == ""
    second.advance(MINUTE + SECOND)
    second.stop()
    third = control.new(storage="items", now=second.now)
    old = [item.id for item in leased.items]
    listed = third.items(partition=leased.partition)
    assert all(item.id not in old for item in listed)
    third.advance(HOUR)
    assert sum(scheduled for _, _, scheduled in third.counts()) == 0
    third.stop()


def test_moments_have_their_microseconds(server: Server) -> None:
    server.create()
    at = stamp(server.now + HOUR + 123_456_000)
    server.produce("a", enqueue_at=at)
    assert is_at(server.scheduled()[0].enqueue_at, server.now + HOUR + 123_456_000)
