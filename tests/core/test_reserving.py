"""Reserving: how many items go together, and until when."""

import pytest

from querator.core import commands as cmd
from querator.core.commands import Verb
from querator.core.ids import Duration
from querator.core.limits import PAYLOAD_BYTES_MAX, REQUEST_ITEMS_MAX, RESERVATION_BYTES_MAX
from querator.core.policy import Ordering, Policy
from tests.core.driver import START, Driver, numbers_of

SECOND = 1_000_000


def test_items_go_in_order_of_place() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", b"3")
    assert numbers_of(driver.take(2)) == [1, 2]
    assert numbers_of(driver.take(2)) == [3]
    assert driver.reserve(2) is None


def test_a_reservation_ends_before_an_item_with_a_timeout_of_its_own() -> None:
    """One reservation has one deadline."""
    driver = Driver(Policy(version=1, reservation_timeout=Duration(60 * SECOND)))
    own = 5 * SECOND
    driver.produce(*[b"x"] * 6, reservation_timeout=[None, None, own, own, 9 * SECOND, None])
    made = [driver.take(10) for _ in range(4)]
    assert [(shown.count, shown.deadline - START) for shown in made] == [
        (2, 60 * SECOND),
        (2, own),
        (1, 9 * SECOND),
        (1, 60 * SECOND),
    ]


def test_the_askers_timeout_goes_before_the_items_own() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", reservation_timeout=5 * SECOND)
    assert driver.take(2, timeout=SECOND).deadline == START + SECOND


def test_a_reservation_is_bounded_in_bytes() -> None:
    driver = Driver()
    driver.produce(*[b"x" * PAYLOAD_BYTES_MAX] * 20)
    assert driver.take(20).count == RESERVATION_BYTES_MAX // PAYLOAD_BYTES_MAX


def test_its_bytes_are_counted_and_not_estimated() -> None:
    """A few large items among many small ones in one segment."""
    driver = Driver()
    driver.produce(*[b"x" * PAYLOAD_BYTES_MAX] * 20)
    driver.produce(*[b""] * 1_000)
    shown = driver.take(20)
    assert sum(map(len, shown.payloads)) <= RESERVATION_BYTES_MAX


def test_one_item_always_goes() -> None:
    driver = Driver()
    driver.produce(b"x" * (RESERVATION_BYTES_MAX + 1), b"y")
    assert driver.take(10).count == 1


def test_a_reservation_is_bounded_in_items() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * REQUEST_ITEMS_MAX)
    driver.produce(b"y")
    assert driver.take(2 * REQUEST_ITEMS_MAX).count == REQUEST_ITEMS_MAX


@pytest.mark.parametrize("is_parked", [False, True])
def test_an_asker_may_take_more_bytes_than_a_session_s_message_holds(is_parked: bool) -> None:
    """Up to the bound it named, one byte more not; whether the items were there or came."""
    driver = Driver()
    payloads = [b"x" * PAYLOAD_BYTES_MAX] * 12
    bound = 12 * PAYLOAD_BYTES_MAX
    for spare, count in ((0, 12), (-1, 11)):
        if is_parked:
            driver.park("a", 20, bytes_max=bound + spare)
            driver.produce(*payloads)
            assert driver.handed.pop()[1].count == count
        else:
            driver.produce(*payloads)
            assert driver.take(20, bytes_max=bound + spare).count == count
        while driver.state.ready:
            driver.take(20)


@pytest.mark.parametrize(("bytes_max", "count"), [(3 * 10, 3), (3 * 10 - 1, 2)])
def test_bytes_are_bounded_in_lanes_too(bytes_max: int, count: int) -> None:
    driver = Driver(Policy(version=1, ordering=Ordering.KEY))
    driver.produce(*[b"x" * 10] * 3, key=["a", "b", "c"])
    assert driver.take(20, bytes_max=bytes_max).count == count


def test_the_line_waits_for_payloads_that_are_not_in_memory() -> None:
    """What is in memory goes; then their segment is named."""
    driver = Driver()
    driver.produce(*[b"x"] * 1_000)
    driver.produce(*[b"y"] * 1_000)
    segment = driver.state.segments[1]
    segment.payloads = None
    assert driver.take(1_000).count == 1_000
    assert driver.take(1_000).count == 23
    assert driver.reserve(1_000) is None
    assert driver.state.starved == 1


def test_who_is_shown_part_of_a_reservation_sees_that_part() -> None:
    from querator.core.reserve import show

    driver = Driver()
    driver.produce(b"1", b"2", b"3", kind=["a", "b", "c"])
    driver.take(3)
    shown = show(driver.state, driver.state.reservations[1], ((1, 2),))
    assert shown.payloads == [b"2", b"3"]
    assert shown.attributes == [{"kind": ["b", "c"]}]


def test_attempts_count_at_reservation() -> None:
    driver = Driver()
    driver.produce(b"1", b"2")
    held = driver.take()
    assert held.attempts == 1
    driver.settle(Verb.RETRY, held)
    assert driver.take(2).attempts == [1, 2]


def test_nothing_is_reserved_while_paused() -> None:
    driver = Driver()
    driver.produce(b"1")
    driver.do(cmd.Pause())
    assert driver.reserve() is None
    driver.do(cmd.Resume())
    assert driver.take().count == 1
