"""Producing: numbers, repeats, duplicates, and every bound of it."""

import pytest

from querator.core import commands as cmd
from querator.core import dedupe as dedupe_module
from querator.core import evolve as evolve_module
from querator.core import replies as rep
from querator.core import state as state_module
from querator.core.commands import Verb
from querator.core.events import Attributes
from querator.core.ids import Duration, Instant
from querator.core.limits import (
    BATCH_ITEMS_MAX,
    IMPORT_ITEMS_MAX,
    PRODUCER_RESULTS_MAX,
    PRODUCER_RETENTION,
    REQUEST_ITEMS_MAX,
    SEGMENT_ITEMS,
)
from querator.core.policy import Policy
from querator.core.replies import Code
from querator.core.state_checks import check_state_fully
from querator.core.state_hash import state_hash
from tests.core.driver import START, Driver

SECOND = 1_000_000


def refused(reply: rep.Reply) -> tuple[Code, str]:
    assert isinstance(reply, rep.Rejected), reply
    return reply.code, reply.field


def test_items_are_numbered_and_placed_in_the_order_of_the_request() -> None:
    driver = Driver()
    assert driver.produce(b"1", b"2") == rep.Produced(driver.state.partition, 1, 2)  # type: ignore[arg-type]
    assert driver.produce(b"3").first_item == 3
    assert driver.take(9).payloads == [b"1", b"2", b"3"]


def test_a_batch_of_the_greatest_size_is_taken_and_one_more_is_not() -> None:
    driver = Driver()
    assert driver.produce(*[b"x"] * REQUEST_ITEMS_MAX).count == REQUEST_ITEMS_MAX
    reply = driver.do(cmd.Produce([b"x"] * (REQUEST_ITEMS_MAX + 1)))
    assert refused(reply) == (Code.BATCH_TOO_LARGE, "payloads")
    assert driver.state.produced == REQUEST_ITEMS_MAX


def test_an_empty_batch_is_refused() -> None:
    assert refused(Driver().do(cmd.Produce([]))) == (Code.BATCH_EMPTY, "payloads")


@pytest.mark.parametrize("length", [1, 3])
def test_a_column_of_another_length_than_the_batch_is_refused(length: int) -> None:
    driver = Driver()
    reply = driver.do(cmd.Produce([b"1", b"2"], attributes=Attributes(kind=["a"] * length)))
    assert refused(reply) == (Code.INVALID, "kind")
    reply = driver.do(cmd.Produce([b"1", b"2"], [Instant(0)] * length))
    assert refused(reply) == (Code.INVALID, "enqueue_at")
    assert driver.state.produced == 0


def test_a_batch_over_the_edge_of_segments_is_one_batch() -> None:
    driver = Driver()
    for _ in range(3):
        driver.produce(*[b"x"] * 900, kind="k")
    assert sorted(driver.state.segments) == [0, 1, 2]
    assert driver.take(BATCH_ITEMS_MAX).count == BATCH_ITEMS_MAX
    shown = driver.take(BATCH_ITEMS_MAX)
    assert [count for _, _, count in shown.runs] == [SEGMENT_ITEMS - 1 - BATCH_ITEMS_MAX, 977]
    assert shown.attributes is not None
    assert [len(columns["kind"]) for columns in shown.attributes] == [23, 977]


def test_a_segment_without_live_items_is_dropped() -> None:
    """What was completed costs nothing."""
    driver = Driver()
    for _ in range(3):
        driver.produce(*[b"x"] * 1_000)
        driver.settle(Verb.COMPLETE, driver.take(1_000))
    assert sorted(driver.state.segments) == [2]
    assert driver.state.payload_bytes == 0


# --- idempotent producers ----------------------------------------------------------------------------


def test_a_repeated_sequence_is_answered_as_the_first_time() -> None:
    driver = Driver()
    first = driver.produce(b"1", b"2", producer="p", sequence=5)
    again = driver.produce(b"1", b"2", producer="p", sequence=5)
    assert (again.first_item, again.count, again.repeated) == (first.first_item, 2, True)
    assert driver.state.produced == 2


def test_sequences_may_come_out_of_order() -> None:
    driver = Driver()
    driver.produce(b"2", producer="p", sequence=2)
    assert not driver.produce(b"1", producer="p", sequence=1).repeated
    assert driver.state.produced == 2


def test_a_request_of_mixed_due_times_is_one_request() -> None:
    """It is several events, and repeats as one."""
    driver = Driver()
    due = [Instant(0), Instant(START + SECOND), Instant(0)]
    driver.produce(b"1", b"2", b"3", due_at=due, producer="p", sequence=1)
    again = driver.produce(b"1", b"2", b"3", due_at=due, producer="p", sequence=1)
    assert (again.first_item, again.count, again.repeated) == (1, 3, True)
    assert driver.waiting_items() == [1, 3]


def test_a_repeat_names_duplicates_again() -> None:
    driver = Driver()
    driver.produce(b"old", dedupe_key="d")
    for repeated in (False, True):
        reply = driver.produce(b"1", b"2", dedupe_key=["e", "d"], producer="p", sequence=1)
        assert (reply.numbers, reply.duplicates, reply.repeated) == ([2, 1], (1,), repeated)
    assert driver.state.produced == 2


def test_a_sequence_older_than_what_is_remembered_is_refused() -> None:
    driver = Driver()
    for sequence in range(1, PRODUCER_RESULTS_MAX + 2):
        driver.produce(b"x", producer="p", sequence=sequence)
    assert driver.produce(b"x", producer="p", sequence=2).repeated
    reply = driver.do(cmd.Produce([b"x"], producer="p", sequence=1))
    assert refused(reply) == (Code.SEQUENCE_TOO_OLD, "sequence")


def test_the_producer_unused_for_longest_is_forgotten_past_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "PRODUCERS_MAX", 2)
    driver = Driver()
    for name in ("a", "b", "a", "c"):
        driver.produce(b"x", producer=name, sequence=driver.state.next_item)
    assert list(driver.state.producers) == ["a", "c"]


def test_a_producer_is_forgotten_after_its_retention() -> None:
    driver = Driver()
    driver.produce(b"x", producer="p", sequence=1)
    driver.pass_time(PRODUCER_RETENTION)
    driver.produce(b"x", producer="q", sequence=1)
    assert list(driver.state.producers) == ["p", "q"]
    driver.pass_time(1)
    driver.produce(b"x", producer="r", sequence=1)
    assert list(driver.state.producers) == ["q", "r"]


# --- dedupe keys ---------------------------------------------------------------------------------------


def test_a_dedupe_key_returns_the_existing_number_and_a_flag() -> None:
    driver = Driver()
    driver.produce(b"1", dedupe_key="d")
    reply = driver.produce(b"2", dedupe_key="d")
    assert (reply.numbers, reply.duplicates, reply.repeated) == ([1], (0,), False)
    assert driver.state.produced == 1


def test_a_dedupe_key_outlives_its_item_and_ends_with_its_window() -> None:
    driver = Driver(Policy(version=1, dedupe_window=Duration(10 * SECOND)))
    driver.produce(b"1", dedupe_key="d")
    driver.settle(Verb.COMPLETE, driver.take())
    driver.pass_time(10 * SECOND)
    assert driver.produce(b"2", dedupe_key="d").duplicates == (0,)
    driver.pass_time(1)
    assert driver.produce(b"3", dedupe_key="d").duplicates == ()


def test_a_burst_of_dedupe_keys_is_forgotten_at_once_and_taken_out_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DEDUPE_TAKEN_OUT_MAX; one that comes again meanwhile is remembered anew, and stays."""
    monkeypatch.setattr(evolve_module, "DEDUPE_TAKEN_OUT_MAX", 4)
    monkeypatch.setattr(dedupe_module, "BLOCK_KEYS", 6)
    driver = Driver(Policy(version=1, dedupe_window=Duration(10 * SECOND), dedupe_keys_max=30))
    keys = [f"key-{number}" for number in range(30)]
    for start in range(0, 30, 2):
        driver.seal()
        driver.produce(b"x", b"x", dedupe_key=keys[start : start + 2])
    assert refused(driver.do(produce_keyed("full"))) == (Code.DEDUPE_FULL, "dedupe_key")
    driver.pass_time(10 * SECOND + 1)
    driver.seal()
    # The last of the old ones: it is among those that are taken out last.
    again = driver.produce(b"y", dedupe_key=keys[-1])
    assert not again.duplicates
    state = driver.state
    assert state.known_keys() == {keys[-1]: again.first_item}
    left = [len(state.dedupe)]
    while len(state.dedupe) > len(state.known_keys()):
        assert driver.produce(b"y", dedupe_key=keys[-1]).duplicates
        driver.produce(b"z", dedupe_key=f"new-{len(left)}")
        left.append(len(state.dedupe))
        assert left[-1] >= left[-2] - 4
        assert state_hash(driver.refold()) == state_hash(state)
        check_state_fully(state)
    assert len(left) > 5
    assert not state.dedupe_stale
    assert driver.produce(b"y", dedupe_key=keys[-1]).numbers == [again.first_item]


def produce_keyed(key: str) -> cmd.Produce:
    return cmd.Produce([b"x"], attributes=Attributes(dedupe_key=key))


def test_duplicates_within_a_batch_are_one_item() -> None:
    driver = Driver()
    reply = driver.produce(b"1", b"2", b"3", dedupe_key=["d", None, "d"])
    assert (reply.numbers, reply.duplicates) == ([1, 2, 1], (2,))
    assert driver.take(9).payloads == [b"1", b"2"]


def test_dedupe_keys_are_bounded_and_say_so() -> None:
    driver = Driver(Policy(version=1, dedupe_keys_max=2, dedupe_window=Duration(SECOND)))
    driver.produce(b"1", b"2", dedupe_key=["a", "b"])
    reply = driver.do(cmd.Produce([b"3"], attributes=Attributes(dedupe_key="c")))
    assert refused(reply) == (Code.DEDUPE_FULL, "dedupe_key")
    assert driver.produce(b"1", dedupe_key="a").duplicates == (0,), "a known one needs no room"
    driver.pass_time(SECOND + 1)
    assert driver.produce(b"3", dedupe_key="c").duplicates == ()


def test_an_item_that_moves_here_with_a_known_key_changes_nothing_about_it() -> None:
    driver = Driver(Policy(version=1, dedupe_window=Duration(10 * SECOND)))
    driver.produce(b"1", dedupe_key="d")
    driver.pass_time(5 * SECOND)
    driver.do(cmd.Receive(3, 1, [b"moved"], Attributes(dedupe_key="d")))  # type: ignore[arg-type]
    assert driver.produce(b"2", dedupe_key="d").numbers == [1]
    driver.pass_time(6 * SECOND)
    driver.produce(b"3", dedupe_key="e")
    assert driver.produce(b"4", dedupe_key="d").duplicates == ()


# --- import --------------------------------------------------------------------------------------------


def entry(source: str | None = None, until: int = 0) -> cmd.ImportedItem:
    return cmd.ImportedItem(b"x", Attributes(source_id=source), Instant(until))


def test_an_imported_source_id_that_is_here_is_skipped() -> None:
    driver = Driver()
    reply = driver.do(cmd.Import([entry("a"), entry("a"), entry("b"), entry()]))
    assert isinstance(reply, rep.Imported)
    assert reply.items == [1, 0, 2, 3]
    assert [bool(place) for place in reply.places] == [True, False, True, True]
    again = driver.do(cmd.Import([entry("b")]))
    assert isinstance(again, rep.Imported)
    assert again.items == [0]


def test_a_source_id_is_free_when_its_item_is_gone() -> None:
    driver = Driver()
    driver.do(cmd.Import([entry("a")]))
    driver.settle(Verb.COMPLETE, driver.take())
    reply = driver.do(cmd.Import([entry("a")]))
    assert isinstance(reply, rep.Imported)
    assert reply.items == [2]


def test_imported_reservations_keep_their_deadlines_and_order_behind_what_waits() -> None:
    driver = Driver()
    driver.produce(b"waits")
    driver.do(
        cmd.Import(
            [entry(), entry("a", START + SECOND), entry("b", START + SECOND), entry("c", START + 2 * SECOND)]
        )
    )
    assert driver.waiting_items() == [1, 2]
    assert [(r.session, r.count, r.deadline - START) for r in driver.state.reservations.values()] == [
        ("", 2, SECOND),
        ("", 1, 2 * SECOND),
    ]


def test_an_import_is_bounded() -> None:
    driver = Driver()
    assert refused(driver.do(cmd.Import([]))) == (Code.BATCH_EMPTY, "items")
    reply = driver.do(cmd.Import([entry()] * (IMPORT_ITEMS_MAX + 1)))
    assert refused(reply) == (Code.BATCH_TOO_LARGE, "items")


def test_an_import_of_the_greatest_size_with_reservations_is_taken() -> None:
    """Reservations end where segments do."""
    driver = Driver()
    driver.do(cmd.Import([entry(None, START + SECOND)] * IMPORT_ITEMS_MAX))
    assert driver.state.reserved == IMPORT_ITEMS_MAX
    assert len(driver.state.reservations) == IMPORT_ITEMS_MAX // SEGMENT_ITEMS + 1


# --- a queue that is gone ----------------------------------------------------------------------------


def test_a_deleted_queue_refuses_and_gives_nothing() -> None:
    driver = Driver()
    driver.produce(b"x")
    driver.do(cmd.ApplyPolicy(Policy(version=2, deleted=True)))
    assert refused(driver.do(cmd.Produce([b"x"]))) == (Code.UNKNOWN_QUEUE, "queue")
    assert driver.reserve() is None
    assert isinstance(driver.do(cmd.ReadStats()), rep.PartitionStats)


def test_an_older_policy_than_the_present_one_changes_nothing() -> None:
    driver = Driver(Policy(version=3, attempts_max=7))
    assert driver.do(cmd.ApplyPolicy(Policy(version=3))) == rep.Done(0)
    assert driver.state.policy.attempts_max == 7


def test_a_source_id_of_a_dead_item_is_free() -> None:
    """What is dead has left the queue; nor does it take the id away from the new item when it is pruned."""
    driver = Driver()
    assert isinstance(driver.do(cmd.Import([entry("a")])), rep.Imported)
    driver.settle(cmd.Verb.DEAD, driver.take(1))
    reply = driver.do(cmd.Import([entry("a"), entry("a")]))
    assert isinstance(reply, rep.Imported)
    assert [bool(number) for number in reply.items] == [True, False]
    driver.do(cmd.Clear(dead=True))
    reply = driver.do(cmd.Import([entry("a")]))
    assert isinstance(reply, rep.Imported)
    assert list(reply.items) == [0]
