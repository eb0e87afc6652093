"""The checks of a partition's state find what they are for: each is shown a fault."""

from collections.abc import Callable
from typing import Any

import pytest

from querator.core.commands import Verb
from querator.core.ids import Duration, Instant
from querator.core.invariants import InvariantViolation
from querator.core.policy import Ordering, Policy
from querator.core.state import PartitionState
from querator.core.state_checks import check_demand, check_state, check_state_fully
from tests.core.driver import START, Driver


def make(ordering: Ordering = Ordering.FIFO) -> Driver:
    """Items in every state."""
    driver = Driver(Policy(version=1, ordering=ordering, expire_timeout=Duration(60_000_000)))
    driver.produce(*[b"x"] * 6, key=["a", "a", "a", "b", None, "c"], dedupe_key=[f"d{n}" for n in range(6)])
    driver.produce(b"later", due_at=Instant(START + 1_000_000))
    driver.settle(Verb.DEAD, driver.take())
    driver.take(4, "ada")
    return driver


def test_a_sound_state_passes() -> None:
    for ordering in Ordering:
        driver = make(ordering)
        check_state(driver.state)
        check_state_fully(driver.state)
        check_demand(driver.state, driver.demand)  # type: ignore[arg-type]


def lose_item(state: PartitionState) -> None:
    state.line.take(1)


def flip(kind: int, to: int) -> Callable[[PartitionState], None]:
    def spoil(state: PartitionState) -> None:
        segment = state.segments[0]
        segment.states[segment.states.index(kind)] = to

    return spoil


def set_to(name: str, by: int) -> Callable[[PartitionState], None]:
    def spoil(state: PartitionState) -> None:
        setattr(state, name, getattr(state, name) + by)

    return spoil


CHEAP: dict[str, Callable[[PartitionState], Any]] = {
    "an item lost from the line": lose_item,
    "an item produced that is nowhere": set_to("produced", 1),
    "a completed item counted twice": set_to("completed", 1),
    "a dead item forgotten": lambda state: state.dead.clear(),
    "a reservation without an end": lambda state: state.ends.discard(2),
    "a scheduled item lost": set_to("scheduled", -1),
}

FULL: dict[str, Callable[[PartitionState], Any]] = {
    "a ready item marked reserved": flip(1, 2),
    "a reserved item marked ready": flip(2, 1),
    "a dead item marked gone": flip(4, 0),
    "an item in line at a wrong place": lambda state: state.line._runs[-1].__setitem__(0, 1),
    "an item at another place": lambda state: state.moved.update({5: 1}),
    "attempts of an item that is gone": lambda state: state.attempts.update({999: 1}),
    "a reservation forgotten by its session": lambda state: state.by_session.clear(),
    "a schedule forgotten": lambda state: state.schedule.clear(),
    "an expiry forgotten": lambda state: setattr(state.segments[0], "expiry_queued", 0),
    "a sum of ages drifted": set_to("age_sum", 1),
    "a sum of deadlines drifted": set_to("deadline_sum", 1),
    "payload bytes drifted": set_to("payload_bytes", 1),
    "a payload lost": lambda state: state.segments[0].payloads.__setitem__(4, None),  # type: ignore[union-attr]
    "a dedupe key that stays for ever": lambda state: state.dedupe_order.clear(),
    "a source id of nobody": lambda state: state.sources.update({"s": 4}),
    "the dead out of order": lambda state: state.dead.update({1: ("x", -1, 9)}),
    "an item that goes home and is not leaving": lambda state: state.homeward.update({1: None}),
    "a home without beginning": lambda state: state.segments[0].homes.append(3),
    "an item leaving twice": lambda state: state.leaving.update({1: None}),
    "a column too short": lambda state: state.segments[0].columns["key"].pop(),  # type: ignore[index]
}

LANES: dict[str, Callable[[PartitionState], Any]] = {
    "a lane with head and holder": lambda state: setattr(state.lanes["a"], "head", 2),
    "a lane that forgot its holder": lambda state: setattr(state.lanes["a"], "held", 0),
    "a lane forgotten": lambda state: state.lanes.pop("b"),
    "an item of another key": lambda state: state.lanes["b"].waiting.append(3),
}


@pytest.mark.parametrize("fault", CHEAP)
def test_the_cheap_check_finds(fault: str) -> None:
    state = make().state
    CHEAP[fault](state)
    with pytest.raises(InvariantViolation):
        check_state(state)


@pytest.mark.parametrize("fault", FULL)
def test_the_full_check_finds(fault: str) -> None:
    state = make().state
    FULL[fault](state)
    check_state(state)
    with pytest.raises(InvariantViolation):
        check_state_fully(state)


@pytest.mark.parametrize("fault", LANES)
def test_the_check_of_lanes_finds(fault: str) -> None:
    state = make(Ordering.KEY).state
    LANES[fault](state)
    with pytest.raises(InvariantViolation):
        check_state_fully(state)


def test_the_check_of_demand_finds_a_waiter_that_was_passed_over() -> None:
    driver = Driver()
    driver.park("a", 1)
    other = Driver()
    other.produce(b"x")
    with pytest.raises(InvariantViolation, match="parked"):
        check_demand(other.state, driver.demand)  # type: ignore[arg-type]


def test_the_check_of_demand_finds_a_window_that_counts_wrong() -> None:
    driver = Driver()
    subscription = driver.subscribe("a")
    driver.produce(b"x")
    subscription.in_flight -= 1
    with pytest.raises(InvariantViolation, match="in flight"):
        check_demand(driver.state, driver.demand)  # type: ignore[arg-type]
