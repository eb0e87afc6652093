"""What time alone makes happen."""

import pytest

from querator.core import commands as cmd
from querator.core import due as module
from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.due import next_due_at, run_due
from querator.core.ids import Duration, Instant, PartitionId
from querator.core.limits import RESERVATION_END_LAG
from querator.core.policy import Ordering, Policy
from tests.core.driver import START, Driver, numbers_of

SECOND = 1_000_000


def test_a_reservation_ends_strictly_after_its_deadline() -> None:
    """At its deadline the holder can still complete; a microsecond later the item is back in line."""
    driver = Driver()
    driver.produce(b"x")
    held = driver.take(timeout=SECOND)
    assert held.deadline == START + SECOND
    assert driver.next_due_at() == START + SECOND + 1
    driver.pass_time(SECOND)
    assert driver.state.reserved == 1
    driver.pass_time(1)
    assert driver.state.reserved == 0
    assert driver.waiting_items() == [1]
    assert driver.take().attempts == [2]


def test_a_node_s_lag_is_for_reservations_only() -> None:
    """They end that much later, strictly; what is scheduled and what expires does not wait for it."""
    driver = Driver()
    driver.produce(b"held")
    driver.take(timeout=SECOND)
    driver.produce(b"later", due_at=START + SECOND)
    state, now = driver.state, START + SECOND + RESERVATION_END_LAG
    assert next_due_at(state, RESERVATION_END_LAG) == START + SECOND + 1
    run_due(state, Instant(now), driver.apply, RESERVATION_END_LAG)
    assert (state.reserved, driver.waiting_items()) == (1, [2])
    assert next_due_at(state, RESERVATION_END_LAG) == now + 1
    run_due(state, Instant(now + 1), driver.apply, RESERVATION_END_LAG)
    assert (state.reserved, driver.waiting_items()) == (0, [2, 1])


def test_what_ended_goes_to_the_tail() -> None:
    driver = Driver()
    driver.produce(b"1", b"2")
    driver.take(timeout=SECOND)
    driver.pass_time(SECOND + 1)
    assert driver.waiting_items() == [2, 1]


def test_a_held_reservation_ends_at_its_max_runtime() -> None:
    """Its deadline is its session's business until then."""
    driver = Driver(Policy(version=1, max_runtime=Duration(100 * SECOND)))
    driver.produce(b"x")
    held = driver.take(timeout=SECOND, held=True)
    assert held.run_until == START + 100 * SECOND
    driver.pass_time(100 * SECOND)
    assert driver.state.reserved == 1
    driver.pass_time(1)
    assert driver.log[-1].events[-1] == ev.ReservationEnded(held.reservation, None, "max_runtime")


def test_a_reservation_without_holder_ends_at_its_deadline() -> None:
    driver = Driver()
    entry = cmd.ImportedItem(b"x", ev.Attributes(attempts=2), Instant(START + SECOND))
    driver.do(cmd.Import([entry]))
    assert driver.state.attempt_of(1) == 2
    driver.pass_time(SECOND + 1)
    assert driver.take().attempts == [3]


def test_an_imported_reservation_counts_as_an_attempt_when_none_were_told() -> None:
    driver = Driver()
    driver.do(cmd.Import([cmd.ImportedItem(b"x", ev.Attributes(), Instant(START + SECOND))]))
    assert driver.state.attempt_of(1) == 1


def test_scheduled_items_are_never_early_and_come_in_order_of_their_time() -> None:
    driver = Driver()
    driver.produce(b"b", b"a", b"b2", due_at=[Instant(START + t * SECOND) for t in (2, 1, 2)])
    assert driver.waiting_items() == []
    driver.pass_time(SECOND)
    assert driver.waiting_items() == []
    driver.pass_time(1)
    assert driver.waiting_items() == [2]
    driver.pass_time(SECOND)
    assert driver.waiting_items() == [2, 1, 3]


def test_an_item_scheduled_for_the_past_is_ready_at_once() -> None:
    driver = Driver()
    driver.produce(b"x", due_at=Instant(START))
    assert driver.waiting_items() == [1]


def test_waiting_items_expire_strictly_after_their_time_to_live() -> None:
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND)))
    driver.produce(b"x")
    assert driver.next_due_at() == START + SECOND + 1
    driver.pass_time(SECOND)
    assert driver.waiting_items() == [1]
    driver.pass_time(1)
    assert driver.state.dead == {1: ("expired", driver.now, 1)}


def test_reserved_items_do_not_expire_while_they_are_reserved() -> None:
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND)))
    driver.produce(b"x")
    held = driver.take(timeout=10 * SECOND)
    driver.pass_time(5 * SECOND)
    assert driver.state.reserved == 1
    driver.settle(Verb.RELEASE, held)
    driver.run_due()
    assert list(driver.state.dead) == [1]


def test_an_item_that_is_due_after_it_expired_is_given_to_nobody() -> None:
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND)))
    driver.produce(b"x", due_at=Instant(START + 2 * SECOND))
    driver.park("a", 1)
    driver.pass_time(2 * SECOND + 1)
    assert not driver.handed
    assert list(driver.state.dead) == [1]


@pytest.mark.parametrize("how", ["parked", "subscribed", "asks"])
@pytest.mark.parametrize("ordering", list(Ordering))
@pytest.mark.parametrize("verb", [Verb.RELEASE, Verb.RETRY])
def test_what_comes_back_after_its_time_is_given_to_nobody_in_that_very_turn(
    how: str, ordering: Ordering, verb: Verb
) -> None:
    """Before ``run_due`` had its turn; nor is the next of its key, which is past its time as well."""
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND), ordering=ordering))
    driver.produce(b"1", b"2", key="k")
    held = driver.take(1 if ordering is Ordering.KEY else 2, timeout=10 * SECOND)
    driver.now += 5 * SECOND
    if how == "parked":
        driver.park("a", 2)
    elif how == "subscribed":
        driver.subscribe("a")
    driver.settle(verb, held)
    if how == "asks":
        assert driver.reserve(2) is None
    assert not driver.handed
    assert list(driver.state.dead) == [1, 2]


def test_nothing_is_given_while_more_is_past_its_time_than_a_turn_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TURN_DUE_ITEMS_MAX: the rest in the next turns, which are due at once."""
    monkeypatch.setattr(module, "TURN_DUE_ITEMS_MAX", 1_000)
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND)))
    for _ in range(3):
        driver.produce(*[b"x"] * 1_000)
    driver.now += 2 * SECOND
    driver.park("a", 1)
    assert 1_000 <= len(driver.state.dead) < 3_000
    assert driver.reserve() is None
    turns = 0
    while driver.state.line.count:
        assert not driver.handed
        due = driver.next_due_at()
        assert due is not None
        assert due <= driver.now
        driver.run_due()
        turns += 1
    assert turns < 4
    assert len(driver.state.dead) == 3_000
    driver.produce(b"fresh")
    assert [shown.payloads for _, shown in driver.handed] == [[b"fresh"]]


def test_items_of_one_segment_that_expire_at_different_times_each_do_so_in_time() -> None:
    driver = Driver(Policy(version=1, expire_timeout=Duration(5 * SECOND)))
    driver.produce(b"1")
    driver.pass_time(SECOND)
    driver.produce(b"2")
    driver.pass_time(4 * SECOND + 1)
    assert list(driver.state.dead) == [1]
    assert driver.next_due_at() == START + 6 * SECOND + 1
    driver.pass_time(SECOND)
    assert list(driver.state.dead) == [1, 2]


def test_a_turn_handles_a_bounded_number_and_the_rest_is_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_DUE_ITEMS_MAX", 3)
    driver = Driver()
    driver.produce(*[b"x"] * 5, due_at=Instant(START + SECOND))
    driver.pass_time(SECOND + 1)
    assert driver.waiting_items() == [1, 2, 3]
    assert driver.next_due_at() == START + SECOND + 1
    driver.run_due()
    assert driver.waiting_items() == [1, 2, 3, 4, 5]
    assert driver.next_due_at() is None


def test_the_dead_are_pruned_when_their_retention_is_over() -> None:
    driver = Driver(Policy(version=1, dead_retention=Duration(60 * SECOND)))
    driver.produce(b"1", b"2")
    driver.settle(Verb.DEAD, driver.take())
    driver.pass_time(10 * SECOND)
    driver.settle(Verb.DEAD, driver.take())
    driver.pass_time(50 * SECOND)
    assert list(driver.state.dead) == [1, 2]
    driver.pass_time(1)
    assert list(driver.state.dead) == [2]
    assert driver.state.removed == 1


def test_items_that_are_leaving_are_not_pruned() -> None:
    """They stay until the dead queue has them."""
    driver = Driver(Policy(version=1, dead_retention=Duration(SECOND), dead_target=PartitionId(9)))
    driver.produce(b"x")
    driver.settle(Verb.DEAD, driver.take())
    driver.pass_time(100 * SECOND)
    assert list(driver.state.dead) == [1]
    assert driver.next_due_at() is None


def test_nothing_is_due_in_an_empty_partition() -> None:
    assert Driver().next_due_at() is None


def test_a_thousand_reservations_that_end_together_end_in_order() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * 1_000)
    for _ in range(1_000):
        driver.take(timeout=SECOND)
    driver.pass_time(SECOND + 1)
    assert driver.waiting_items() == list(range(1, 1_001))
    assert numbers_of(driver.take(2)) == [1, 2]
