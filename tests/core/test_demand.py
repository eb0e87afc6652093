"""Demand: who gets what becomes ready."""

from typing import Any

import pytest

from querator.core import commands as cmd
from querator.core import demand as module
from querator.core.commands import Verb
from querator.core.demand import Demand, Parked
from querator.core.ids import Duration, Instant
from tests.core.driver import Driver, numbers_of

SECOND = 1_000_000


def shares(available: int, *batches: int) -> list[int]:
    """What requests of these sizes get of ``available`` items, 0 where nothing."""
    demand: Demand[str] = Demand()
    for batch in batches:
        demand.park(Parked("", 0, batch, Instant(1), Duration(0), "", held=False))
    given = {parked.number: share for parked, share in demand.shares(available)}
    return [given.get(number, 0) for number in range(1, len(batches) + 1)]


@pytest.mark.parametrize(
    ("available", "batches", "expected"),
    [
        (23, (20, 6, 1), [16, 6, 1]),
        (10, (10, 10, 10, 10, 10), [2, 2, 2, 2, 2]),
        (11, (10, 10, 10), [4, 4, 3]),
        (2, (10, 10, 10), [1, 1, 0]),
        (3, (10, 10, 10), [1, 1, 1]),
        (100, (10, 20), [10, 20]),
        (7, (1, 1, 100), [1, 1, 5]),
        (1, (5,), [1]),
    ],
)
def test_parked_requests_share_one_each_in_turn(
    available: int, batches: tuple[int, ...], expected: list[int]
) -> None:
    """As if items were dealt like cards, each request taking up to its batch."""
    assert shares(available, *batches) == expected


def test_each_parked_request_gets_a_contiguous_range() -> None:
    driver = Driver()
    for name, batch in (("a", 20), ("b", 6), ("c", 1)):
        driver.park(name, batch)
    driver.produce(*[b"x"] * 23)
    assert [(client.name, shown.runs) for client, shown in driver.handed] == [
        ("a", [(1, 1, 16)]),
        ("b", [(17, 17, 6)]),
        ("c", [(23, 23, 1)]),
    ]
    assert not driver.demand.wants


def test_a_request_waits_until_its_deadline_and_a_microsecond() -> None:
    driver = Driver()
    driver.park("a", 1, wait=SECOND)
    driver.pass_time(SECOND)
    assert driver.demand.parked
    driver.pass_time(1)
    assert not driver.demand.parked
    driver.produce(b"x")
    assert not driver.handed


@pytest.mark.parametrize(
    "make_ready", ["produce", "due", "retry", "release", "deadline", "redrive", "resume", "import", "receive"]
)
def test_whatever_makes_an_item_ready_wakes_waiters(make_ready: str) -> None:
    driver = Driver()
    if make_ready == "due":
        driver.produce(b"x", due_at=Instant(driver.now + SECOND))
    elif make_ready in ("retry", "release", "deadline", "redrive"):
        driver.produce(b"x")
        held = driver.take(timeout=SECOND)
        if make_ready == "redrive":
            driver.settle(Verb.DEAD, held)
    elif make_ready == "resume":
        driver.do(cmd.Pause())
        driver.produce(b"x")
    driver.park("a", 1)
    assert not driver.handed
    if make_ready == "produce":
        driver.produce(b"x")
    elif make_ready in ("due", "deadline"):
        driver.pass_time(SECOND + 1)
    elif make_ready == "retry":
        driver.settle(Verb.RETRY, held)
    elif make_ready == "release":
        driver.settle(Verb.RELEASE, held)
    elif make_ready == "redrive":
        driver.do(cmd.Redrive())
    elif make_ready == "resume":
        driver.do(cmd.Resume())
    elif make_ready == "import":
        driver.do(cmd.Import([cmd.ImportedItem(b"x", module_attributes())]))
    else:
        driver.do(cmd.Receive(3, 1, [b"x"], module_attributes()))  # type: ignore[arg-type]
    assert [client.name for client, _ in driver.handed] == ["a"]


def module_attributes() -> Any:
    from querator.core.events import Attributes

    return Attributes()


def test_parked_requests_go_before_subscriptions() -> None:
    driver = Driver()
    driver.subscribe("sub")
    driver.do(cmd.Pause())
    driver.produce(b"1", b"2", b"3")
    driver.park("a", 2)
    driver.do(cmd.Resume())
    assert [(client.name, shown.count) for client, shown in driver.handed] == [("a", 2), ("sub", 1)]


def test_subscriptions_are_filled_in_turn() -> None:
    """Each up to its batch, then to the end, while its window has room."""
    driver = Driver()
    driver.subscribe("a", window=5, batch=2)
    driver.subscribe("b", window=2, batch=2)
    driver.produce(*[b"x"] * 20)
    assert [(client.name, shown.count) for client, shown in driver.handed] == [
        ("a", 2),
        ("b", 2),
        ("a", 2),
        ("a", 1),
    ]
    assert driver.state.ready == 13


def test_a_window_has_room_again_when_the_settlement_is_decided() -> None:
    driver = Driver()
    subscription = driver.subscribe("a", window=3, batch=3)
    driver.produce(*[b"x"] * 10)
    ((_, held),) = driver.handed
    driver.handed.clear()
    driver.settle(Verb.COMPLETE, held, ((0, 2),))
    assert [shown.count for _, shown in driver.handed] == [2]
    assert subscription.in_flight == 3


def test_a_reservation_that_ends_by_itself_frees_its_window() -> None:
    driver = Driver()
    subscription = driver.subscribe("a", window=1, batch=1, timeout=SECOND, held=False)
    driver.produce(b"1", b"2")
    driver.pass_time(SECOND + 1)
    assert subscription.in_flight == 1
    assert [numbers_of(shown) for _, shown in driver.handed] == [[1], [2]]


def test_a_window_is_full_when_its_bytes_are() -> None:
    """It takes what makes it full, and then nothing until bytes are freed."""
    driver = Driver()
    subscription = driver.subscribe("a", window=100, window_bytes=1_000, batch=1)
    driver.produce(*[b"x" * 400] * 5)
    assert [shown.count for _, shown in driver.handed] == [1, 1, 1]
    assert subscription.bytes_in_flight == 1_200
    driver.settle(Verb.COMPLETE, driver.handed[0][1])
    assert subscription.bytes_in_flight == 1_200, "the next one took its place"
    for _, shown in list(driver.handed):
        driver.settle(Verb.COMPLETE, shown)
    for _, shown in driver.handed[3:]:
        driver.settle(Verb.COMPLETE, shown)
    assert (subscription.in_flight, subscription.bytes_in_flight) == (0, 0)


def test_a_lingering_subscription_waits_for_a_full_batch() -> None:
    driver = Driver()
    driver.subscribe("a", batch=4, linger=SECOND)
    driver.produce(b"1", b"2")
    assert not driver.handed
    driver.produce(b"3", b"4")
    assert [shown.count for _, shown in driver.handed] == [4]


def test_a_lingering_subscription_takes_what_there_is_when_its_linger_ends() -> None:
    driver = Driver()
    driver.subscribe("a", batch=4, linger=SECOND)
    driver.produce(b"1")
    assert driver.demand.next_at() == driver.now + SECOND
    driver.pass_time(SECOND)
    assert not driver.handed
    driver.pass_time(1)
    assert [shown.count for _, shown in driver.handed] == [1]
    driver.produce(b"2")
    assert len(driver.handed) == 1, "it lingers anew"


def test_one_that_lingers_does_not_hold_up_the_others() -> None:
    driver = Driver()
    driver.subscribe("slow", batch=4, linger=SECOND)
    driver.subscribe("fast", batch=4)
    driver.produce(b"1")
    assert [client.name for client, _ in driver.handed] == ["fast"]


def test_who_unsubscribed_gets_nothing_more_and_settles_what_it_has() -> None:
    driver = Driver()
    subscription = driver.subscribe("a", window=1, batch=1)
    driver.produce(b"1", b"2")
    driver.demand.unsubscribe(subscription)
    driver.settle(Verb.COMPLETE, driver.handed[0][1])
    assert len(driver.handed) == 1
    assert not driver.demand.wants


def test_a_paused_partition_reserves_nothing() -> None:
    driver = Driver()
    driver.do(cmd.Pause())
    driver.produce(b"1")
    driver.subscribe("a")
    assert not driver.handed
    assert driver.reserve() is None


def test_demand_is_full_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITERS_MAX", 2)
    driver = Driver()
    driver.park("a", 1)
    assert not driver.demand.is_full
    driver.subscribe("b")
    assert driver.demand.is_full
