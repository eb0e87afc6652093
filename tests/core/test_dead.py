"""Dead items: redrive, and the way to a dead queue and back; clearing and deleting."""

import pytest

from querator.core import commands as cmd
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import Duration, Instant, PartitionId
from querator.core.limits import HOMEWARD_ITEMS_MAX, SEND_BACK_ITEMS_MAX
from querator.core.policy import Ordering, Policy
from querator.core.replies import Code
from querator.core.state_checks import check_state_fully
from tests.core.driver import START, Driver, items, numbers_of, places

SECOND = 1_000_000
TARGET = PartitionId(9)
SOURCE = PartitionId(3)


def with_dead(count: int, **settings: object) -> Driver:
    driver = Driver(Policy(version=1, **settings))  # type: ignore[arg-type]
    driver.produce(*[b"%d" % number for number in range(1, count + 1)])
    driver.settle(Verb.DEAD, driver.take(count), reason="bad")
    return driver


# --- redrive -----------------------------------------------------------------------------------------


def test_a_redriven_item_goes_to_the_tail_with_no_attempts() -> None:
    driver = with_dead(1)
    driver.produce(b"other")
    assert driver.do(cmd.Redrive()) == rep.Done(1)
    assert driver.waiting_items() == [2, 1]
    assert driver.take(2).attempts == 1


def test_redrive_goes_in_order_of_death_and_is_bounded() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", b"3")
    held = driver.take(3)
    for index in (2, 0, 1):
        driver.settle(Verb.DEAD, held, ((index, 1),))
    assert driver.do(cmd.Redrive(items_max=2)) == rep.Done(2)
    assert driver.waiting_items() == [3, 1]
    assert driver.do(cmd.Redrive()) == rep.Done(1)
    assert driver.do(cmd.Redrive()) == rep.Done(0)


def test_redrive_by_reason_takes_those_only() -> None:
    driver = with_dead(2)
    driver.produce(b"3")
    driver.settle(Verb.DEAD, driver.take(), reason="worse")
    assert driver.do(cmd.Redrive(reason="worse")) == rep.Done(1)
    assert driver.waiting_items() == [3]


def test_redrive_by_number_is_all_or_nothing() -> None:
    driver = with_dead(2)
    driver.produce(b"alive")
    reply = driver.do(cmd.Redrive(items(1, 3)))
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.UNKNOWN_ITEM, "items")
    assert list(driver.state.dead) == [1, 2]
    assert driver.do(cmd.Redrive(items(2, 2))) == rep.Done(1)


def test_a_redriven_item_does_not_expire_again() -> None:
    """It expired once, and somebody wanted it all the same."""
    driver = Driver(Policy(version=1, expire_timeout=Duration(SECOND)))
    driver.produce(b"x")
    driver.pass_time(SECOND + 1)
    driver.do(cmd.Redrive())
    driver.pass_time(100 * SECOND)
    assert driver.waiting_items() == [1]


# --- moves -------------------------------------------------------------------------------------------


def test_the_dead_leave_in_order_of_death_under_dense_move_numbers() -> None:
    driver = with_dead(3, dead_target=TARGET)
    channel = driver.state.outbound[TARGET]
    assert (channel.first_move, list(channel.items)) == (1, [1, 2, 3])
    assert driver.do(cmd.ConfirmMoves(TARGET, 2)) == rep.Done(2)
    assert (channel.first_move, list(channel.items)) == (3, [3])
    assert driver.state.removed == 2


def test_confirming_moves_again_changes_nothing() -> None:
    driver = with_dead(2, dead_target=TARGET)
    driver.do(cmd.ConfirmMoves(TARGET, 1))
    assert driver.do(cmd.ConfirmMoves(TARGET, 1)) == rep.Done(0)
    assert driver.do(cmd.ConfirmMoves(TARGET, 2)) == rep.Done(1)
    assert driver.do(cmd.ConfirmMoves(TARGET, 9)) == rep.Done(0)
    assert driver.do(cmd.ConfirmMoves(PartitionId(77), 1)) == rep.Done(0)


def test_what_is_leaving_cannot_be_redriven_cleared_or_deleted_here() -> None:
    """It is, or will be, at its target: it must not come back as well."""
    driver = with_dead(1, dead_target=TARGET)
    assert driver.do(cmd.Redrive()) == rep.Done(0)
    assert isinstance(driver.do(cmd.Redrive(items(1))), rep.Rejected)
    assert driver.do(cmd.Clear(dead=True)) == rep.Done(0)
    assert driver.do(cmd.Delete(places(1))) == rep.Done(0)
    assert list(driver.state.dead) == [1]


def test_who_died_before_there_was_a_dead_queue_stays() -> None:
    driver = with_dead(1)
    driver.do(cmd.ApplyPolicy(Policy(version=2, dead_target=TARGET)))
    assert not driver.state.outbound
    assert driver.do(cmd.Redrive()) == rep.Done(1)


def receive(first: int, *payloads: bytes) -> cmd.Receive:
    return cmd.Receive(
        SOURCE, first, list(payloads), Attributes(kind=[payload.decode() for payload in payloads])
    )


def test_a_target_takes_each_move_once() -> None:
    driver = Driver()
    assert driver.do(receive(1, b"1", b"2")) == rep.Done(2)
    assert driver.do(receive(1, b"1", b"2")) == rep.Done(0)
    assert driver.do(receive(2, b"2", b"3")) == rep.Done(1)
    shown = driver.take(9)
    assert shown.payloads == [b"1", b"2", b"3"]
    assert shown.attributes == [{"kind": ["1", "2", "3"]}]


def test_a_target_refuses_moves_with_a_gap_before_them() -> None:
    driver = Driver()
    driver.do(receive(1, b"1"))
    reply = driver.do(receive(3, b"3"))
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.INVALID, "first_move")


def test_moves_are_numbered_for_each_source() -> None:
    driver = Driver()
    driver.do(receive(1, b"1"))
    assert driver.do(cmd.Receive(PartitionId(4), 1, [b"2"], Attributes())) == rep.Done(1)
    assert driver.state.inbound == {SOURCE: 1, 4: 1}


# --- sent back ---------------------------------------------------------------------------------------


def with_received(count: int, **settings: object) -> Driver:
    driver = Driver(Policy(version=1, **settings))  # type: ignore[arg-type]
    driver.produce(b"own")
    driver.do(receive(1, *[b"%d" % number for number in range(1, count + 1)]))
    return driver


def homeward(driver: Driver, home: PartitionId = SOURCE) -> list[int]:
    return list(driver.state.outbound[home].items)


def test_what_came_from_elsewhere_is_sent_back_in_the_order_in_which_it_came() -> None:
    driver = with_received(3)
    driver.do(cmd.Receive(PartitionId(4), 1, [b"x"], Attributes()))
    assert driver.do(cmd.ReadHomes()) == rep.Homes({SOURCE: 3, PartitionId(4): 1}, {})
    assert driver.do(cmd.SendBack(items_max=2)) == rep.Done(2)
    assert driver.do(cmd.SendBack(author="ops")) == rep.Done(2)
    assert (homeward(driver), homeward(driver, PartitionId(4))) == ([2, 3, 4], [5])
    assert driver.do(cmd.SendBack()) == rep.Done(0)
    assert driver.waiting_items() == [1]
    assert driver.do(cmd.ReadHomes()) == rep.Homes({}, {})
    assert driver.do(cmd.ConfirmMoves(SOURCE, 3)) == rep.Done(3)
    assert (driver.state.removed, list(driver.state.homeward)) == (3, [5])


def test_only_what_came_from_one_place_is_sent_back_there() -> None:
    driver = with_received(2)
    driver.do(cmd.Receive(PartitionId(4), 1, [b"x"], Attributes()))
    assert driver.do(cmd.SendBack(homes=[PartitionId(4)])) == rep.Done(1)
    assert driver.waiting_items() == [1, 2, 3]


@pytest.mark.parametrize("ordering", list(Ordering))
def test_items_are_sent_back_from_every_state_but_reserved(ordering: Ordering) -> None:
    """Ready, behind others of their key, scheduled, and dead in the dead queue itself."""
    driver = Driver(Policy(version=1, ordering=ordering, attempts_max=9))
    attributes = Attributes(key=["k", "k", "k", None, None, None])
    driver.do(cmd.Receive(SOURCE, 1, [b"x"] * 6, attributes))
    later = Instant(driver.now + SECOND)
    held = driver.take(1)
    assert numbers_of(held) == [1]
    dead, late, ready = (driver.take(1) for _ in range(3))
    driver.settle(Verb.DEAD, dead)
    driver.settle(Verb.RETRY, late, due_at=later)
    driver.settle(Verb.RELEASE, ready)
    assert (driver.state.behind, driver.state.scheduled) == (2 if ordering is Ordering.KEY else 0, 1)
    assert driver.do(cmd.SendBack()) == rep.Done(5)
    assert homeward(driver) == [2, 3, 4, 5, 6]
    assert driver.do(cmd.ReadHomes()) == rep.Homes({}, {SOURCE: 1})
    driver.pass_time(10 * SECOND)
    assert (driver.state.ready, driver.state.scheduled, driver.state.reserved) == (0, 0, 1)
    check_state_fully(driver.state)
    driver.settle(Verb.RETRY, held, due_at=Instant(0))
    assert driver.do(cmd.SendBack(items(1))) == rep.Done(1)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (1, "is not known to have come from another queue"),
        (2, "is reserved: it is left to who holds it"),
        (3, "is on its way home already"),
        (4, "is on its way to a dead queue"),
        (5, "came from partition 3, where nothing is sent now"),
        (99, "is not here (any more)"),
    ],
)
def test_by_number_all_are_sent_back_or_none_and_it_is_said_why(what: int, why: str) -> None:
    driver = with_received(5, dead_target=TARGET)
    driver.do(cmd.SendBack(items(3)))
    driver.settle(Verb.RELEASE, driver.take(1))
    driver.take(1)
    driver.settle(Verb.DEAD, driver.take(1))
    command = cmd.SendBack(items(6, what), [PartitionId(4)] if what == 5 else None)
    if what == 5:
        command.items = items(5)
    before = list(driver.state.leaving)
    reply = driver.do(command)
    assert reply == rep.Rejected(Code.UNKNOWN_ITEM, f"item 7.{what} {why}", "items")
    assert list(driver.state.leaving) == before


def test_what_goes_home_cannot_be_redriven_cleared_deleted_or_pruned_and_nobody_gets_it() -> None:
    driver = with_received(1, dead_retention=Duration(SECOND), expire_timeout=Duration(SECOND))
    driver.do(cmd.Clear(ready=False))
    place = driver.state.place_of(2)
    driver.do(cmd.SendBack())
    assert driver.do(cmd.Redrive()) == rep.Done(0)
    assert driver.do(cmd.Clear(ready=True, scheduled=True, reserved=True, dead=True)) == rep.Done(1)
    assert driver.do(cmd.Delete(places(place))) == rep.Done(0)
    driver.pass_time(100 * SECOND)
    assert list(driver.state.dead) == [2]
    assert driver.reserve() is None


def test_what_came_home_is_at_home() -> None:
    """From there it is sent nowhere; when it dies again it goes to the dead queue again."""
    driver = Driver(Policy(version=1, dead_target=SOURCE))
    command = receive(1, b"1")
    command.come_back = True
    assert driver.do(command) == rep.Done(1)
    assert driver.do(command) == rep.Done(0)
    assert driver.do(cmd.ReadHomes()) == rep.Homes({}, {})
    assert driver.do(cmd.SendBack()) == rep.Done(0)
    shown = driver.take()
    assert shown.attempts == 1
    driver.settle(Verb.DEAD, shown)
    assert homeward(driver) == [1]
    assert not driver.state.homeward


def test_both_ways_between_two_partitions_have_numbers_of_their_own() -> None:
    driver = with_received(2, dead_target=SOURCE)
    driver.do(cmd.SendBack(items(2)))
    driver.settle(Verb.DEAD, driver.take(1))
    assert homeward(driver) == [2, 1]
    assert driver.do(receive(3, b"3")) == rep.Done(1)
    assert driver.do(cmd.ConfirmMoves(SOURCE, 2)) == rep.Done(2)
    assert driver.state.inbound == {SOURCE: 3}


def test_moves_to_a_queue_that_is_gone_are_given_up_and_the_items_stay_dead_here() -> None:
    driver = with_received(3)
    driver.do(cmd.SendBack())
    driver.do(cmd.ConfirmMoves(SOURCE, 1))
    assert driver.do(cmd.GiveUpMoves(SOURCE)) == rep.Done(2)
    assert driver.do(cmd.GiveUpMoves(SOURCE)) == rep.Done(0)
    assert [reason for reason, _, _ in driver.state.dead.values()] == ["sent_back"] * 2
    assert not driver.state.leaving
    assert not driver.state.homeward
    assert driver.do(cmd.Redrive(reason="sent_back")) == rep.Done(2)
    assert driver.waiting_items() == [1, 3, 4]


def test_so_many_are_sent_back_at_once_and_so_many_are_on_their_way() -> None:
    driver = Driver()
    count = HOMEWARD_ITEMS_MAX + 1
    driver.do(cmd.Receive(SOURCE, 1, [b"x"] * count, Attributes()))
    chosen = items(*range(1, SEND_BACK_ITEMS_MAX + 2))
    reply = driver.do(cmd.SendBack(chosen, items_max=count))
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.BATCH_TOO_LARGE, "items")
    assert driver.do(cmd.SendBack(chosen[:-1])) == rep.Done(SEND_BACK_ITEMS_MAX)
    for _ in range(HOMEWARD_ITEMS_MAX // SEND_BACK_ITEMS_MAX - 1):
        assert driver.do(cmd.SendBack(items_max=count)) == rep.Done(SEND_BACK_ITEMS_MAX)
    for command in (cmd.SendBack(), cmd.SendBack(items(count))):
        reply = driver.do(command)
        assert isinstance(reply, rep.Rejected)
        assert reply.code is Code.OVERLOADED
    driver.do(cmd.ConfirmMoves(SOURCE, 1))
    assert driver.do(cmd.SendBack()) == rep.Done(1)


# --- clearing and deleting -----------------------------------------------------------------------------


def all_states() -> Driver:
    """Item 1 is reserved, 2 dead, 3 ready, 4 scheduled."""
    driver = Driver()
    driver.produce(b"1", b"2")
    driver.take()
    driver.settle(Verb.DEAD, driver.take())
    driver.produce(b"3")
    driver.produce(b"4", due_at=Instant(START + SECOND))
    return driver


@pytest.mark.parametrize("what", ["ready", "scheduled", "reserved", "dead"])
def test_clear_removes_what_is_in_a_state_and_nothing_else(what: str) -> None:
    driver = all_states()
    assert driver.do(cmd.Clear(**{what: True})) == rep.Done(1)  # type: ignore[arg-type]
    stats = driver.do(cmd.ReadStats())
    assert isinstance(stats, rep.PartitionStats)
    left = {
        "ready": stats.ready,
        "scheduled": stats.scheduled,
        "reserved": stats.reserved,
        "dead": stats.dead,
    }
    assert left == {name: int(name != what) for name in left}
    assert stats.removed == 1


def test_clearing_everything_leaves_nothing_to_do() -> None:
    driver = all_states()
    assert driver.do(cmd.Clear(ready=True, scheduled=True, reserved=True, dead=True)) == rep.Done(4)
    assert driver.do(cmd.Clear(ready=True, scheduled=True, reserved=True, dead=True)) == rep.Done(0)
    assert driver.next_due_at() is None


def test_clearing_a_million_is_one_event() -> None:
    driver = Driver()
    for _ in range(20):
        driver.produce(*[b"x"] * 1_000)
    before = sum(len(stretch.events) for stretch in driver.log)
    assert driver.do(cmd.Clear(ready=True)) == rep.Done(20_000)
    assert sum(len(stretch.events) for stretch in driver.log) == before + 1
    assert driver.state.payload_bytes == 0


def test_delete_removes_by_place_in_any_state_and_skips_the_rest() -> None:
    driver = all_states()
    known = [driver.state.place_of(number) for number in (1, 3, 4)]
    assert driver.do(cmd.Delete(places(*known, 999))) == rep.Done(3)
    assert (driver.state.ready, driver.state.reserved, driver.state.scheduled) == (0, 0, 0)
    assert driver.do(cmd.Delete(places(*known))) == rep.Done(0)


def test_deleting_a_held_item_leaves_the_others_held() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", b"3")
    held = driver.take(3)
    driver.do(cmd.Delete(places(2)))
    assert driver.settle(Verb.COMPLETE, held) == rep.Settled(2)
    assert numbers_of(held) == [1, 2, 3]
    assert (driver.state.completed, driver.state.removed) == (2, 1)
