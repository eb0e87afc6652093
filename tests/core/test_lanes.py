"""Lanes: a queue ordered by key."""

from querator.core import commands as cmd
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import Duration, Instant, Place
from querator.core.policy import Backoff, Ordering, Policy
from querator.core.replies import Code
from tests.core.driver import START, Driver, numbers_of

SECOND = 1_000_000


def make(**settings: object) -> Driver:
    return Driver(Policy(version=1, ordering=Ordering.KEY, **settings))  # type: ignore[arg-type]


def test_only_the_head_of_a_key_is_in_the_line() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", b"4", key=["a", "a", "b", None])
    assert driver.waiting_items() == [1, 3, 4]
    assert driver.state.ready == 4


def test_one_reservation_may_hold_several_successive_items_of_a_key() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", b"4", key=["a", "b", "a", "a"])
    assert numbers_of(driver.take(3)) == [1, 3, 4]


def test_an_item_that_comes_back_behind_another_one_has_another_place() -> None:
    """What its holder of before knew it by is no good any more, though it did not go through the line."""
    driver = make()
    driver.produce(b"1", b"2", key="a")
    ((_, _, _), (place, item, _)) = driver.take(2).runs
    driver.pass_time(120 * SECOND)
    ((_, _, _), (other, same, _)) = driver.take(2).runs
    assert (item, same) == (2, 2)
    assert other != place
    refused = driver.decide(cmd.SettlePlaces([cmd.PlaceSettlement(Place(place), Verb.COMPLETE)]))
    assert isinstance(refused, rep.PlaceRefused)


def test_a_key_that_is_held_gives_nothing_to_others() -> None:
    """At most one reservation a key, however many items of it wait."""
    driver = make()
    driver.produce(b"1", b"2", b"3", key=["a", "a", "b"])
    assert numbers_of(driver.take(1, "ada")) == [1]
    assert numbers_of(driver.take(9, "bob")) == [3]
    assert driver.reserve(9, "eve") is None


def test_the_next_item_of_a_key_stands_in_line_when_the_last_held_one_is_settled() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", key="a")
    held = driver.take(2)
    driver.settle(Verb.COMPLETE, held, ((0, 1),))
    assert driver.waiting_items() == []
    driver.settle(Verb.COMPLETE, held, ((1, 1),))
    assert driver.waiting_items() == [3]
    assert driver.state.behind == 0


def test_a_failed_head_holds_back_its_own_key_and_no_other() -> None:
    """It stays head, with its backoff, until it is completed or dead."""
    driver = make(backoff=Backoff(Duration(10 * SECOND), jitter=0.0))
    driver.produce(b"1", b"2", b"3", b"4", key=["a", "a", "b", "b"])
    driver.settle(Verb.RETRY, driver.take())
    assert driver.waiting_items() == [3]
    held = driver.take(2)
    assert numbers_of(held) == [3, 4]
    driver.settle(Verb.COMPLETE, held)
    assert driver.reserve() is None
    driver.pass_time(10 * SECOND + 1)
    assert driver.waiting_items() == [1]
    assert numbers_of(driver.take(9)) == [1, 2]


def test_a_dead_head_lets_its_successor_go() -> None:
    driver = make(attempts_max=1)
    driver.produce(b"1", b"2", key="a")
    driver.settle(Verb.RETRY, driver.take())
    assert list(driver.state.dead) == [1]
    assert driver.waiting_items() == [2]


def test_items_that_fail_together_keep_the_order_of_their_lane() -> None:
    """The order in which they arrived: not that of their numbers, nor of their failures."""
    driver = make()
    driver.produce(b"late", key="a", due_at=Instant(START + SECOND))
    driver.produce(b"early", key="a")
    driver.pass_time(SECOND + 1)
    held = driver.take(2)
    assert held.payloads == [b"early", b"late"]
    driver.settle(Verb.RETRY, held, ((1, 1),))
    driver.settle(Verb.RETRY, held, ((0, 1),))
    assert driver.take(2).payloads == [b"early", b"late"]


def test_a_successor_that_failed_is_not_taken_before_its_time() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", key="a")
    held = driver.take(2)
    driver.settle(Verb.RETRY, held, ((1, 1),), due_at=Instant(START + 10 * SECOND))
    driver.settle(Verb.RELEASE, held, ((0, 1),))
    held = driver.take(9)
    assert numbers_of(held) == [1]
    driver.settle(Verb.COMPLETE, held)
    assert driver.state.scheduled == 1
    assert driver.reserve() is None, "item 3 went before item 2"
    driver.pass_time(10 * SECOND + 1)
    assert numbers_of(driver.take(9)) == [2, 3]


def test_a_scheduled_item_joins_its_lane_when_it_is_due() -> None:
    """A key is not held back by what is not due yet."""
    driver = make()
    driver.produce(b"later", key="a", due_at=Instant(START + 10 * SECOND))
    driver.produce(b"now", key="a")
    held = driver.take(9)
    assert held.payloads == [b"now"]
    driver.pass_time(10 * SECOND + 1)
    assert driver.reserve() is None
    driver.settle(Verb.COMPLETE, held)
    assert driver.take(9).payloads == [b"later"]


def test_an_expired_head_makes_way() -> None:
    driver = make(expire_timeout=Duration(5 * SECOND))
    driver.produce(b"1", key="a")
    driver.pass_time(SECOND)
    driver.produce(b"2", key="a")
    driver.pass_time(4 * SECOND + 1)
    assert list(driver.state.dead) == [1]
    assert driver.waiting_items() == [2]
    driver.pass_time(SECOND)
    assert list(driver.state.dead) == [1, 2]
    assert not driver.state.lanes


def test_deleting_an_item_in_the_middle_of_a_lane_closes_the_gap() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", key="a")
    driver.do(cmd.Delete([driver.state.place_of(2)]))  # type: ignore[list-item]
    assert numbers_of(driver.take(9)) == [1, 3]


def test_clearing_what_is_ready_clears_what_stands_behind() -> None:
    driver = make()
    driver.produce(b"1", b"2", b"3", key="a")
    held = driver.take(1)
    assert driver.do(cmd.Clear(ready=True)) == rep.Done(2)
    assert driver.state.ready == 0
    driver.settle(Verb.RELEASE, held)
    assert driver.waiting_items() == [1]


def test_an_empty_lane_is_forgotten() -> None:
    driver = make()
    driver.produce(b"1", b"2", key=["a", "b"])
    driver.settle(Verb.COMPLETE, driver.take(2))
    assert not driver.state.lanes


def test_a_redriven_item_goes_to_the_end_of_its_lane() -> None:
    driver = make()
    driver.produce(b"1", b"2", key="a")
    driver.settle(Verb.DEAD, driver.take())
    driver.do(cmd.Redrive())
    assert driver.waiting_items() == [2]
    assert numbers_of(driver.take(2)) == [2, 1]


def test_reserved_items_with_a_key_cannot_be_imported_into_lanes() -> None:
    """The item might stand behind another: it could not be held."""
    driver = make()
    driver.produce(b"1", key="a")
    entry = cmd.ImportedItem(b"2", Attributes(key="a"), Instant(START + SECOND))
    reply = driver.do(cmd.Import([entry]))
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.INVALID, "items")
    assert driver.state.next_item == 2


def test_the_ordering_of_a_used_queue_cannot_change() -> None:
    driver = make()
    driver.produce(b"1")
    reply = driver.do(cmd.ApplyPolicy(Policy(version=2, ordering=Ordering.FIFO)))
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.INVALID, "ordering")
