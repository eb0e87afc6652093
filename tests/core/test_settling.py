"""Settling: verbs, ranges, tokens, repeats."""

import pytest

from querator.core import commands as cmd
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import Duration, Instant, Place
from querator.core.limits import BATCH_ITEMS_MAX, SEGMENT_ITEMS
from querator.core.policy import Backoff, Policy
from querator.core.replies import Code
from querator.core.state_hash import state_hash
from tests.core.driver import START, Driver, numbers_of, places

SECOND = 1_000_000
VERBS = [Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD]


def make(count: int = 4, **settings: object) -> tuple[Driver, rep.Reserved]:
    """A driver, and a reservation of ``count`` items."""
    driver = Driver(Policy(version=1, **settings))  # type: ignore[arg-type]
    driver.produce(*[b"%d" % number for number in range(1, count + 1)])
    return driver, driver.take(count)


def lost(reply: rep.Reply) -> bool:
    return isinstance(reply, rep.Rejected) and reply.code is Code.RESERVATION_LOST


# --- the verbs ---------------------------------------------------------------------------------------


def test_completed_items_are_gone() -> None:
    driver, held = make()
    assert driver.settle(Verb.COMPLETE, held) == rep.Settled(4)
    assert (driver.state.completed, driver.state.reserved, driver.state.ready) == (4, 0, 0)


def test_a_retry_costs_an_attempt_and_goes_to_the_tail() -> None:
    driver, held = make(1)
    driver.produce(b"other")
    driver.settle(Verb.RETRY, held)
    assert driver.waiting_items() == [2, 1]
    assert driver.take(2).attempts == [1, 2]


def test_a_release_gives_the_attempt_back() -> None:
    driver, held = make(1)
    driver.settle(Verb.RELEASE, held)
    assert driver.take().attempts == 1


def test_a_retry_at_a_time_is_scheduled() -> None:
    driver, held = make(1)
    driver.settle(Verb.RETRY, held, due_at=Instant(START + 5 * SECOND))
    assert driver.state.scheduled == 1
    driver.pass_time(5 * SECOND)
    assert driver.reserve() is None
    driver.pass_time(1)
    assert driver.take().payloads == [b"1"]


def test_the_backoff_grows_with_the_attempts_and_is_spread_below() -> None:
    backoff = Backoff(Duration(8 * SECOND), 2.0, Duration(20 * SECOND), jitter=0.5)
    driver = Driver(Policy(version=1, backoff=backoff))
    driver.produce(b"x")
    for full in (8 * SECOND, 16 * SECOND, 20 * SECOND, 20 * SECOND):
        driver.settle(Verb.RETRY, driver.take())
        due = driver.next_due_at()
        assert due is not None
        delay = due - 1 - driver.now
        assert full // 2 <= delay <= full
        driver.pass_time(delay + 1)


def test_the_jitter_needs_no_dice_and_differs_between_items() -> None:
    backoff = Backoff(Duration(SECOND), jitter=1.0)
    delays = [backoff.delay(1, number) for number in range(100)]
    assert delays == [backoff.delay(1, number) for number in range(100)]
    assert len(dict.fromkeys(delays)) > 50
    assert Backoff().delay(3, 1) == 0


def test_items_of_one_reservation_wait_by_their_own_attempts() -> None:
    driver = Driver(Policy(version=1, backoff=Backoff(Duration(SECOND), jitter=0.0)))
    driver.produce(b"old")
    driver.settle(Verb.RETRY, driver.take())
    driver.produce(b"new")
    driver.pass_time(SECOND + 1)
    held = driver.take(2)
    assert held.payloads == [b"new", b"old"]
    driver.settle(Verb.RETRY, held)
    driver.pass_time(SECOND + 1)
    assert driver.take(2).payloads == [b"new"]
    driver.pass_time(SECOND)
    assert driver.take(2).payloads == [b"old"]


def test_a_dead_item_says_why() -> None:
    driver, held = make(2)
    driver.settle(Verb.DEAD, held, ((0, 1),), reason="poison")
    driver.settle(Verb.DEAD, held, ((1, 1),))
    assert driver.state.dead == {1: ("poison", START, 1), 2: ("dead", START, 2)}


def test_an_item_is_dead_when_its_last_attempt_fails() -> None:
    """A running attempt is never taken away: only its end counts."""
    driver, held = make(1, attempts_max=2)
    driver.settle(Verb.RETRY, held)
    held = driver.take()
    assert held.attempts == [2]
    driver.settle(Verb.RETRY, held)
    assert driver.state.dead == {1: ("attempts_exhausted", START, 1)}


def test_an_item_is_dead_when_its_last_reservation_ends_by_itself() -> None:
    driver, _ = make(1, attempts_max=1)
    driver.pass_time(60 * SECOND + 1)
    assert driver.state.dead == {1: ("attempts_exhausted", driver.now, 1)}


def test_the_last_attempt_can_be_released_and_tried_again() -> None:
    driver, held = make(1, attempts_max=1)
    for _ in range(3):
        driver.settle(Verb.RELEASE, held)
        held = driver.take()
    assert driver.settle(Verb.COMPLETE, held) == rep.Settled(1)


def test_an_items_own_limit_goes_before_the_queues() -> None:
    driver = Driver(Policy(version=1, attempts_max=1))
    driver.produce(b"1", b"2", attempts_max=[3, None])
    driver.settle(Verb.RETRY, driver.take(2))
    assert list(driver.state.dead) == [2]
    assert driver.waiting_items() == [1]


def test_extending_moves_the_deadline_of_all_and_never_back() -> None:
    driver, held = make(2)
    reply = driver.settle(Verb.EXTEND, held, timeout=Duration(100 * SECOND))
    assert reply == rep.Extended(START + 100 * SECOND, 0)  # type: ignore[arg-type]
    reply = driver.settle(Verb.EXTEND, held, timeout=Duration(SECOND))
    assert reply == rep.Extended(START + 100 * SECOND, 0)  # type: ignore[arg-type]
    driver.pass_time(100 * SECOND)
    assert driver.state.reserved == 2
    driver.pass_time(1)
    assert driver.state.reserved == 0


def test_extending_past_max_runtime_is_an_explicit_wish() -> None:
    driver = Driver(Policy(version=1, max_runtime=Duration(100 * SECOND)))
    driver.produce(b"x")
    held = driver.take(held=True)
    reply = driver.settle(Verb.EXTEND, held, timeout=Duration(500 * SECOND))
    assert reply == rep.Extended(START + 500 * SECOND, START + 500 * SECOND)  # type: ignore[arg-type]


# --- ranges ------------------------------------------------------------------------------------------


def test_ranges_settle_their_items_and_the_rest_stays_held() -> None:
    driver, held = make(5)
    assert driver.settle(Verb.COMPLETE, held, ((0, 2), (4, 1))) == rep.Settled(3)
    assert driver.settle(Verb.RETRY, held) == rep.Settled(2)
    assert driver.waiting_items() == [3, 4]


def test_ranges_may_come_in_any_order() -> None:
    driver, held = make(4)
    assert driver.settle(Verb.RETRY, held, ((3, 1), (0, 2))) == rep.Settled(3)
    assert driver.waiting_items() == [1, 2, 4]


@pytest.mark.parametrize("ranges", [((0, 0),), ((-1, 2),), ((0, 2), (1, 1)), ((2, 1), (0, 3)), ((0, -5),)])
def test_ranges_that_are_empty_negative_or_overlap_are_refused(ranges: tuple[tuple[int, int], ...]) -> None:
    driver, held = make(4)
    reply = driver.settle(Verb.COMPLETE, held, ranges)
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.INVALID, "ranges")
    assert driver.state.reserved == 4


def test_the_number_of_ranges_is_bounded() -> None:
    driver, held = make(4)
    ranges = tuple((index * 2, 1) for index in range(BATCH_ITEMS_MAX + 1))
    reply = driver.settle(Verb.COMPLETE, held, ranges)
    assert isinstance(reply, rep.Rejected)
    assert (reply.code, reply.field) == (Code.BATCH_TOO_LARGE, "ranges")
    reply = driver.settle(Verb.COMPLETE, held, ranges[:-1])
    assert isinstance(reply, rep.Settled)
    assert reply.done == 2


def test_items_beyond_the_reservation_are_refused_but_not_for_ever() -> None:
    driver, held = make(2)
    reply = driver.settle(Verb.COMPLETE, held, ((1, 2),))
    assert reply == rep.Settled(1, ((2, Code.UNKNOWN_ITEM),))
    reply = driver.settle(Verb.COMPLETE, held, ((0, 10**12),))
    assert isinstance(reply, rep.Settled)
    assert reply.done == 2
    assert len(reply.refused) == BATCH_ITEMS_MAX
    assert lost(driver.settle(Verb.RETRY, held, ((0, 10**12),)))


# --- tokens and repeats --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("by_ranges", [False, True])
def test_a_repeat_answers_as_the_first_time_and_writes_nothing(verb: Verb, *, by_ranges: bool) -> None:
    driver, held = make(3)
    ranges = ((0, 3),) if by_ranges else None
    assert driver.settle(verb, held, ranges) == rep.Settled(3)
    before = state_hash(driver.state)
    assert driver.settle(verb, held, ranges) == rep.Settled(3, repeated=True)
    assert state_hash(driver.state) == before


@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("second", VERBS)
def test_a_settled_reservation_is_lost_to_every_other_verb(first: Verb, second: Verb) -> None:
    driver, held = make(3)
    driver.settle(first, held)
    reply = driver.settle(second, held)
    assert lost(reply) if first is not second else reply == rep.Settled(3, repeated=True)


def test_a_repeat_of_parts_is_answered_item_by_item() -> None:
    driver, held = make(4)
    driver.settle(Verb.COMPLETE, held, ((0, 2),))
    driver.settle(Verb.RETRY, held, ((2, 1),))
    assert driver.settle(Verb.COMPLETE, held, ((0, 3),)) == rep.Settled(
        2, ((2, Code.RESERVATION_LOST),), repeated=True
    )
    driver.settle(Verb.COMPLETE, held)
    assert driver.settle(Verb.COMPLETE, held, ((1, 3),)) == rep.Settled(
        2, ((2, Code.RESERVATION_LOST),), repeated=True
    )
    assert driver.settle(Verb.RETRY, held) == rep.Settled(1, repeated=True)
    assert lost(driver.settle(Verb.DEAD, held))


@pytest.mark.parametrize("verb", [*VERBS, Verb.EXTEND])
@pytest.mark.parametrize(
    "why", ["expired", "released", "cleared", "deleted", "forged nonce", "never was", "new claim"]
)
def test_a_stale_token_is_refused(verb: Verb, why: str) -> None:
    """After whatever ended the reservation, every verb of its holder is refused and changes nothing."""
    driver, held = make(1)
    if why == "expired":
        driver.pass_time(60 * SECOND + 1)
    elif why == "released":
        driver.settle(Verb.RELEASE, held)
        driver.settle(Verb.COMPLETE, driver.take())
        if verb is Verb.RELEASE:
            return  # a repeat
    elif why == "cleared":
        driver.do(cmd.Clear(reserved=True))
    elif why == "deleted":
        driver.do(cmd.Delete(places(1)))
    elif why == "forged nonce":
        held.nonce += 1
    elif why == "never was":
        held.reservation += 1  # type: ignore[assignment]
    else:
        held.nonce = 99
    before = state_hash(driver.state)
    assert lost(driver.settle(verb, held))
    assert state_hash(driver.state) == before


def test_tokens_survive_a_new_claim_of_the_partition() -> None:
    from querator.core import events as ev

    driver, held = make(1)
    driver.seal()
    driver.apply(ev.Claimed("other", 42, 1, 1, "server"))
    assert driver.settle(Verb.COMPLETE, held) == rep.Settled(1)


# --- by place ------------------------------------------------------------------------------------------


def by_place(*settlements: cmd.PlaceSettlement) -> cmd.SettlePlaces:
    return cmd.SettlePlaces(list(settlements))


def one(place: int, verb: Verb = Verb.COMPLETE, due_at: int = 0) -> cmd.PlaceSettlement:
    return cmd.PlaceSettlement(Place(place), verb, Instant(due_at))


def test_items_settle_by_place_whatever_reservation_holds_them() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", b"3")
    driver.take(2)
    driver.take(1)
    assert driver.do(by_place(one(2), one(3, Verb.RETRY), one(1, Verb.DEAD))) == rep.Done(3)
    assert (driver.state.completed, driver.state.ready, len(driver.state.dead)) == (1, 1, 1)


@pytest.mark.parametrize("verb", [Verb.RETRY, Verb.RELEASE])
@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (4, 1, 5, 3, 2), (1, 4, 2, 5)])
def test_what_goes_back_by_place_does_so_in_the_order_of_the_request(
    order: tuple[int, ...], verb: Verb
) -> None:
    """Whichever reservations hold the items, and as few events as can say it."""
    driver = Driver()
    driver.produce(*[b"x"] * 5)
    driver.take(3)
    driver.take(2)
    before = len(driver.log[-1].events)
    assert driver.do(by_place(*(one(place, verb) for place in order))) == rep.Done(len(order))
    assert driver.waiting_items() == list(order)
    if order == (1, 2, 3, 4, 5):
        assert len(driver.log[-1].events) == before + 2


def test_completions_by_place_are_one_event_for_each_reservation() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * 4)
    driver.take(2)
    driver.take(2)
    before = len(driver.log[-1].events)
    driver.do(by_place(*(one(place) for place in (4, 1, 3, 2))))
    assert len(driver.log[-1].events) == before + 2
    assert driver.state.completed == 4


@pytest.mark.parametrize(
    ("bad", "code"),
    [(4, Code.NOT_RESERVED), (9, Code.UNKNOWN_ITEM), (1, Code.UNKNOWN_ITEM)],
    ids=["ready", "none", "twice"],
)
def test_settling_by_place_is_all_or_nothing(bad: int, code: Code) -> None:
    driver = Driver()
    driver.produce(b"1", b"2", b"3", b"4")
    driver.take(3)
    before = state_hash(driver.state)
    assert driver.do(by_place(one(1), one(bad), one(2))) == rep.PlaceRefused(Place(bad), code)
    assert state_hash(driver.state) == before


def test_the_place_changes_whenever_the_item_enters_again() -> None:
    """So a stale holder that names it by its old place is refused."""
    driver, held = make(1)
    driver.settle(Verb.RELEASE, held)
    assert driver.take().runs == [(2, 1, 1)]
    assert driver.do(by_place(one(1))) == rep.PlaceRefused(Place(1), Code.UNKNOWN_ITEM)
    assert driver.do(by_place(one(2))) == rep.Done(1)


def test_a_retry_by_place_does_not_look_at_the_limit_of_attempts() -> None:
    driver, _ = make(1, attempts_max=1)
    driver.do(by_place(one(1, Verb.RETRY)))
    assert driver.take().attempts == [2]


def test_an_extension_by_place_moves_the_whole_reservation() -> None:
    driver, held = make(2)
    assert driver.do(by_place(one(1, Verb.EXTEND, held.deadline + SECOND))) == rep.Done(1)
    assert driver.state.reservations[1].deadline == held.deadline + SECOND
    driver.do(by_place(one(2, Verb.EXTEND, held.deadline - SECOND)))
    assert driver.state.reservations[1].deadline == held.deadline + SECOND


def test_places_are_found_among_many_ended_reservations() -> None:
    """Entries of ended reservations are swept, and never found."""
    driver = Driver()
    driver.produce(b"kept")
    driver.take()
    driver.do(by_place())
    assert driver.do(by_place(one(7))) == rep.PlaceRefused(Place(7), Code.UNKNOWN_ITEM)
    for _ in range(3_000):
        driver.produce(b"x")
        driver.settle(Verb.COMPLETE, driver.take())
    index = driver.state.place_index
    assert index is not None
    assert driver.do(by_place(one(2_000))) == rep.PlaceRefused(Place(2_000), Code.UNKNOWN_ITEM)
    assert len(index._runs) < 2_100
    assert driver.do(by_place(one(1))) == rep.Done(1)


def test_one_holder_per_item() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * 50)
    seen: dict[int, None] = {}
    while (shown := driver.reserve(7)) is not None:
        for number in numbers_of(shown):
            assert number not in seen
            seen[number] = None
    assert sorted(seen) == list(range(1, 51))


def test_attributes_travel_with_the_item_however_often_it_fails() -> None:
    driver = Driver()
    attributes = Attributes(kind="k", headers={"a": "1"}, reference="r", encoding="text")
    driver.do(cmd.Produce([b"x"], attributes=attributes))
    for _ in range(3):
        held = driver.take()
        assert held.attributes == [
            {"encoding": ["text"], "kind": ["k"], "reference": ["r"], "headers": [{"a": "1"}]}
        ]
        driver.settle(Verb.RETRY, held)


@pytest.mark.parametrize("ending", ["retry", "deadline"])
def test_a_reservation_outlives_the_segment_of_those_of_its_items_that_are_settled(ending: str) -> None:
    """Its first items were the last of a segment, and were completed; the rest goes back nevertheless."""
    driver, held = make(SEGMENT_ITEMS - 3)
    driver.settle(Verb.COMPLETE, held)
    driver.produce(*[b"x"] * 4)
    held = driver.take(4)
    driver.settle(Verb.COMPLETE, held, ((0, 2),))
    assert list(driver.state.segments) == [1]
    if ending == "retry":
        assert driver.settle(Verb.RETRY, held) == rep.Settled(2)
    else:
        driver.pass_time(3_600 * SECOND)
    assert driver.waiting_items() == [SEGMENT_ITEMS, SEGMENT_ITEMS + 1]
