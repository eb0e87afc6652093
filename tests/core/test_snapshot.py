"""Snapshots: a state as bytes and back, while it goes on changing."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from querator.core import capture as captures
from querator.core import commands as cmd
from querator.core import dedupe
from querator.core import events as ev
from querator.core import loading as loadings
from querator.core.capture import Capture
from querator.core.commands import Verb
from querator.core.evolve import fold
from querator.core.ids import Duration, Instant, PartitionId, Place
from querator.core.invariants import InvariantViolation
from querator.core.loading import load
from querator.core.packing import unpack
from querator.core.place_ids import encode_place
from querator.core.policy import Backoff, Ordering, Policy
from querator.core.snapshot import (
    ATTEMPTS_MARK,
    DEAD_MARK,
    DEDUPE_MARK,
    FIRST,
    PLACES_MARK,
    RESERVATIONS_MARK,
    ChunkRef,
    SnapshotUnreadable,
    decode_segment,
    encode_dedupe,
    encode_head,
    encode_segment,
)
from querator.core.state import PartitionState
from querator.core.state_checks import check_state_fully
from querator.core.state_hash import state_hash
from tests.core.driver import PARTITION, START, Driver, bare

SECOND = 1_000_000
OLDER = json.loads(
    gzip.decompress((Path(__file__).parent.parent / "golden/snapshots/v1.json.gz").read_bytes())
)
OLD_MARKS = (DEAD_MARK, ATTEMPTS_MARK, PLACES_MARK)


def snapshot(state: PartitionState) -> tuple[bytes, list[bytes]]:
    segments = [encode_segment(segment) for segment in state.segments.values()]
    return encode_head(state), segments + [
        encode_dedupe(block, state.dedupe) for block in state.dedupe_order.blocks
    ]


def restored(state: PartitionState) -> PartitionState:
    return load(PARTITION, *snapshot(state))


def busy(ordering: Ordering = Ordering.FIFO) -> Driver:
    """A partition with something of everything."""
    driver = Driver(
        Policy(
            version=1,
            ordering=ordering,
            expire_timeout=Duration(60 * SECOND),
            dead_target=PartitionId(9),
            backoff=Backoff(Duration(SECOND)),
        )
    )
    driver.produce(*[b"x"] * 900, key=["a", "b", None] * 300)
    driver.produce(*[b"x"] * 900, kind="k", headers={"h": "v"}, producer="p", sequence=4)
    driver.produce(b"x", b"y", dedupe_key=["d", "e"], reservation_timeout=[None, 7])
    driver.produce(b"later", due_at=Instant(START + 5 * SECOND))
    driver.do(cmd.Receive(PartitionId(3), 1, [b"m"] * 4, ev.Attributes(encoding="text")))
    driver.do(cmd.SendBack(items_max=2))
    driver.do(cmd.Import([cmd.ImportedItem(b"i", ev.Attributes(source_id="s", attempts=2))]))
    held = [driver.take(10, session, held=True) for session in ("ada", "bob", "ada", "bob")]
    driver.settle(Verb.COMPLETE, held[0])
    driver.settle(Verb.DEAD, held[1], ((2, 3),), reason="bad")
    driver.settle(Verb.RETRY, held[1], ((0, 1), (7, 2)))
    driver.settle(Verb.RELEASE, held[2])
    driver.seal()
    driver.do(cmd.Pause())
    return driver


@pytest.mark.parametrize("ordering", list(Ordering))
def test_a_snapshot_holds_the_whole_state(ordering: Ordering) -> None:
    state = busy(ordering).state
    again = restored(state)
    assert state_hash(again) == state_hash(state)
    check_state_fully(again)
    assert again.position == state.position
    assert again.age_sum == state.age_sum
    assert again.payload_bytes == 0
    assert all(segment.payloads is None for segment in again.segments.values())


def test_an_older_segment_says_by_its_source_ids_where_its_items_came_from() -> None:
    """An import may bring anybody's id: it came from nowhere that items were received from."""
    driver = Driver()
    driver.produce(b"own")
    came = [encode_place(PartitionId(3), Place(place)) for place in (5, 9, 6)]
    driver.do(cmd.Receive(PartitionId(3), 1, [b"m"] * 3, ev.Attributes(source_id=came)))
    elsewhere = encode_place(PartitionId(4), Place(1))
    for source_id in (elsewhere, "x", None):
        driver.do(cmd.Import([cmd.ImportedItem(b"i", ev.Attributes(source_id=source_id))]))
    driver.settle(Verb.COMPLETE, driver.take(2))
    head, chunks = snapshot(driver.state)
    chunk = msgspec.msgpack.decode(chunks[0])
    del chunk["homes"], chunk["home_offsets"]
    again = load(PARTITION, head, [msgspec.msgpack.encode(chunk)])
    assert [again.home_of(item) for item in range(2, 8)] == [0, 3, 3, 0, 0, 0]
    assert state_hash(again) == state_hash(driver.state)
    check_state_fully(again)


def test_homes_are_of_the_items_that_have_them_over_the_edges_of_segments() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * 1_000)
    driver.do(cmd.Receive(PartitionId(3), 1, [b"m"] * 1_100, ev.Attributes()))
    driver.do(cmd.Receive(PartitionId(3), 1_101, [b"m"] * 2, ev.Attributes()))
    driver.do(cmd.Receive(PartitionId(4), 1, [b"m"] * 2, ev.Attributes()))
    driver.produce(b"x")
    driver.do(cmd.Receive(PartitionId(4), 3, [b"m"], ev.Attributes()))
    wanted = [0] * 1_000 + [3] * 1_102 + [4, 4, 0, 4]
    for state in (driver.state, restored(driver.state), driver.refold()):
        assert [state.home_of(item) for item in range(1, driver.state.next_item)] == wanted
    assert [len(segment.homes) for segment in driver.state.segments.values()] == [1, 1, 5]


def test_a_snapshot_of_a_snapshot_is_the_same_snapshot() -> None:
    state = restored(busy().state)
    assert snapshot(restored(state)) == snapshot(state)


@pytest.mark.parametrize("seed", range(6))
def test_snapshot_and_tail_are_the_whole_log_at_every_position(seed: int) -> None:
    """A random history; a snapshot at each record; the rest of the log folded on top."""
    dice = random.Random(seed)
    driver = random_history(dice, Ordering.KEY if seed % 2 else Ordering.FIFO)
    whole = state_hash(driver.state)
    state = PartitionState(PARTITION)
    for index, stretch in enumerate(driver.log):
        fold(state, stretch.position, stretch.events)
        again = restored(state)
        check_state_fully(again)
        assert state_hash(again) == state_hash(state)
        for later in driver.log[index + 1 :]:
            fold(again, later.position, [bare(event) for event in later.events])
        assert state_hash(again) == whole
        check_state_fully(again)


def random_history(dice: random.Random, ordering: Ordering) -> Driver:
    driver = Driver(
        Policy(
            version=1,
            ordering=ordering,
            attempts_max=3,
            backoff=Backoff(Duration(SECOND)),
            expire_timeout=Duration(9 * SECOND),
        )
    )
    # Near the edge of a segment, so that histories go over it.
    driver.produce(*[b"x"] * 1_000)
    driver.settle(Verb.COMPLETE, driver.take(1_000))
    driver.seal()
    for _ in range(25):
        for _ in range(dice.randint(1, 3)):
            random_step(driver, dice)
        driver.seal()
    return driver


def random_step(driver: Driver, dice: random.Random) -> None:
    choice = dice.randrange(10)
    live = list(driver.state.reservations.values())
    if choice < 4:
        count = dice.randint(1, 9)
        due = Instant(driver.now + SECOND if dice.random() < 0.3 else 0)
        keys = [dice.choice(["a", "b", "c", None]) for _ in range(count)]
        driver.produce(*[b"%d" % dice.randrange(99)] * count, key=keys, due_at=due)
    elif choice < 6:
        driver.reserve(dice.randint(1, 6), dice.choice(["ada", "bob"]), held=dice.random() < 0.5)
    elif choice < 8 and live:
        reservation = dice.choice(live)
        first = dice.randrange(reservation.count)
        ranges = None if dice.random() < 0.5 else ((first, reservation.count - first),)
        verb = dice.choice([Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD])
        driver.do(cmd.Settle(verb, reservation.number, reservation.nonce, ranges))  # type: ignore[arg-type]
    elif choice == 8:
        driver.pass_time(dice.choice([1, SECOND, 3 * SECOND]))
    else:
        driver.do(cmd.Redrive(items_max=2))


# --- captures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, 1, 2])
def test_a_capture_is_the_state_at_its_beginning_whatever_happens_meanwhile(budget: int) -> None:
    """Segments are encoded one at a time, or just before they change, or before they are dropped."""
    driver = Driver()
    for _ in range(8):
        driver.produce(*[b"x"] * 1_000)
    driver.take(300)
    wanted = state_hash(driver.state)
    capture = Capture(driver.state)
    driver.seal()
    for _ in range(30):
        capture.step(budget)
        held = driver.take(200)
        driver.settle(Verb.COMPLETE if driver.now % 2 else Verb.RETRY, held)
        driver.produce(*[b"y"] * 100)
        driver.pass_time(1)
    while not capture.step(1):
        pass
    assert driver.state.capture is None
    again = load(PARTITION, capture.head, [capture.fresh[chunk] for chunk in capture.chunks])
    assert state_hash(again) == wanted
    assert state_hash(driver.state) != wanted


def test_an_untouched_segment_keeps_its_chunk() -> None:
    """What a snapshot costs grows with what changed, not with what waits."""
    driver = Driver()
    for _ in range(4):
        driver.produce(*[b"x"] * 1_000)
    first = Capture(driver.state)
    driver.seal()
    while not first.step(10):
        pass
    driver.take(1)
    driver.produce(b"y")
    second = Capture(driver.state, first.chunks, first.position)
    while not second.step(10):
        pass
    reserved = (FIRST[RESERVATIONS_MARK], second.position)
    assert second.chunks == (
        (0, second.position),
        (1, first.position),
        (2, first.position),
        (3, second.position),
        reserved,
    )
    assert list(second.fresh) == [(0, second.position), (3, second.position), reserved]
    stored: dict[ChunkRef, bytes] = {**first.fresh, **second.fresh}
    again = load(PARTITION, second.head, [stored[chunk] for chunk in second.chunks])
    assert state_hash(again) == state_hash(driver.state)


def test_a_restored_partition_goes_on_with_the_chunks_it_was_restored_from() -> None:
    driver = Driver()
    for _ in range(3):
        driver.produce(*[b"x"] * 1_000)
    first = Capture(driver.state)
    while not first.step(10):
        pass
    again = load(PARTITION, first.head, [first.fresh[chunk] for chunk in first.chunks])
    second = Capture(again, first.chunks, first.position)
    assert second.is_done
    assert second.chunks == first.chunks
    assert not second.fresh


def keyed(driver: Driver, *keys: str) -> None:
    driver.produce(*[b"x"] * len(keys), dedupe_key=list(keys))
    driver.seal()


def finished(capture: Capture) -> Capture:
    while not capture.step(1):
        pass
    return capture


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "BLOCK_KEYS", 3)


@pytest.mark.usefixtures("small_blocks")
def test_dedupe_keys_are_captured_block_by_block_as_they_were_at_the_beginning() -> None:
    """While some join the last block, and others are forgotten out of the first ones."""
    driver = Driver(Policy(version=1, dedupe_window=Duration(10 * SECOND)))
    for number in range(10):
        keyed(driver, f"a{number}", f"b{number}")
        driver.pass_time(SECOND)
    assert [block.keys for block in driver.state.dedupe_order.blocks] == [4, 4, 4, 4, 4]
    wanted = state_hash(driver.state)
    capture = Capture(driver.state)
    driver.seal()
    for number in range(10, 16):
        driver.pass_time(SECOND)
        keyed(driver, f"a{number}")
    assert len(driver.state.dedupe) < 20
    finished(capture)
    assert driver.state.capture is None
    again = load(PARTITION, capture.head, [capture.fresh[chunk] for chunk in capture.chunks])
    assert state_hash(again) == wanted
    check_state_fully(again)


@pytest.mark.usefixtures("small_blocks")
def test_a_block_of_dedupe_keys_keeps_its_chunk_while_none_joins_it() -> None:
    """Also when some of it were forgotten meanwhile: those the chunk still has are passed over."""
    driver = Driver(Policy(version=1, dedupe_window=Duration(10 * SECOND)))
    for number in range(5):
        keyed(driver, f"a{number}", f"b{number}")
        driver.pass_time(2 * SECOND)
    first = finished(Capture(driver.state))
    driver.seal()
    driver.pass_time(SECOND)
    keyed(driver, "later")
    second = finished(Capture(driver.state, first.chunks, first.position))
    driver.seal()
    kept = [chunk for chunk in second.chunks if chunk in first.chunks and chunk[0] < 0]
    assert kept == [chunk for chunk in first.chunks if chunk[0] < 0][:2]
    assert driver.state.dedupe_order.blocks[0].forgotten == 1
    stored: dict[ChunkRef, bytes] = {**first.fresh, **second.fresh}
    again = load(PARTITION, second.head, [stored[chunk] for chunk in second.chunks])
    assert "a0" not in again.dedupe
    assert state_hash(again) == state_hash(driver.state)
    folded = driver.refold()
    assert [block.number for block in folded.dedupe_order.blocks] == [
        block.number for block in again.dedupe_order.blocks
    ], "however the state came about"


def test_a_block_of_dedupe_keys_has_so_many() -> None:
    """BLOCK_KEYS, and what one record brings."""
    driver = Driver()
    for number in range(9):
        keyed(driver, *[f"{number}-{index}" for index in range(1_000)])
    assert [block.keys for block in driver.state.dedupe_order.blocks] == [5_000, 4_000]


def settle_next(driver: Driver, verb: Verb, count: int) -> None:
    """The next items in line."""
    shown = driver.reserve(count)
    assert shown is not None
    driver.settle(verb, shown, reason="why")


PART = 30
"""Of tests that make parts small."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (captures, loadings):
        monkeypatch.setattr(module, "PART_ENTRIES", PART)
    monkeypatch.setattr(captures, "PRODUCERS_PER_CHUNK", PART)
    monkeypatch.setattr(captures, "RESERVATIONS_PER_CHUNK", PART)
    monkeypatch.setattr(captures, "SETTLED_PER_CHUNK", 1)
    monkeypatch.setattr(loadings, "_SHELF_BITS", 4)


def full_of_everything(driver: Driver, count: int, name: str) -> None:
    """``count`` of all that a partition can have many of."""
    last = driver.state.inbound.get(3, 0)
    driver.do(cmd.Receive(PartitionId(3), last + 1, [b"m"] * count, ev.Attributes()))
    driver.do(cmd.SendBack(items_max=count))
    driver.produce(*[b"x"] * 7 * count)
    settle_next(driver, Verb.DEAD, count)
    settle_next(driver, Verb.RETRY, count)
    settle_next(driver, Verb.RELEASE, count)
    for index in range(count):
        shown = driver.take(3, f"{name}{index % 7}", held=index % 2 == 0)
        driver.settle(Verb.COMPLETE, shown, ((0, 1),))
        if index % 2:
            driver.settle(Verb.RETRY, shown, ((1, 2),))
    driver.produce(*[b"x"] * count, due_at=[Instant(driver.now + SECOND + n * 7 % 5) for n in range(count)])
    for index in range(count):
        driver.produce(b"x", producer=f"{name}{index}", sequence=1)
        driver.do(
            cmd.Import(
                [cmd.ImportedItem(b"i", ev.Attributes(source_id=f"{name}{index}", attempts=index % 3))]
            )
        )


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("meanwhile", ["nothing", "much"])
@pytest.mark.parametrize("target", [None, PartitionId(9)])
def test_all_that_can_be_long_is_captured_as_it_was(target: PartitionId | None, meanwhile: str) -> None:
    """However much of it changes between two steps, and however many steps it takes."""
    driver = Driver(Policy(version=1, dead_target=target))
    full_of_everything(driver, 3 * PART + 1, "a")
    driver.seal()
    wanted = state_hash(driver.state)
    capture = Capture(driver.state)
    driver.seal()
    steps = 0
    while not capture.step(1):
        steps += 1
        if meanwhile == "nothing":
            continue
        if steps % 5 == 0:
            driver.pass_time(SECOND // 3)
            for where, channel in list(driver.state.outbound.items()):
                driver.do(cmd.ConfirmMoves(PartitionId(where), channel.first_move + 2))
            full_of_everything(driver, 2, f"b{steps}-")
            # What came before the capture changes as well: producers, source ids, reservations.
            driver.produce(b"x", producer=f"a{steps}", sequence=2)
            driver.do(cmd.Redrive(items_max=1))
            for number in list(driver.state.reservations)[:3]:
                held = driver.state.reservations[number]
                driver.do(cmd.Settle(Verb.EXTEND, held.number, held.nonce, timeout=Duration(99 * SECOND)))
                driver.do(cmd.Settle(Verb.COMPLETE, held.number, held.nonce, (held.open_ranges()[0],)))
            driver.seal()
    again = load(PARTITION, capture.head, [capture.fresh[chunk] for chunk in capture.chunks])
    assert state_hash(again) == wanted
    check_state_fully(again)


@pytest.mark.usefixtures("small_parts")
def test_no_step_is_in_proportion_to_the_state() -> None:
    """PART_ENTRIES: twice as much of everything is twice as many chunks, none longer; the head stays."""
    heads: list[int] = []
    counts: list[int] = []
    for times in (4, 8):
        driver = Driver(Policy(version=1, dead_target=PartitionId(9)))
        full_of_everything(driver, times * PART, "a")
        driver.seal()
        capture = finished(Capture(driver.state))
        parts = [chunk for chunk in capture.chunks if chunk[0] < -(1 << 62)]
        assert max(len(capture.fresh[chunk]) for chunk in parts if chunk[0] > -(10 << 59)) < 16_000
        assert max(len(capture.fresh[chunk]) for chunk in parts if chunk[0] < -(10 << 59)) < 100 * PART
        heads.append(len(capture.head))
        counts.append(len(parts))
    assert heads[1] < heads[0] + 32
    assert counts[1] > 1.8 * counts[0] - 2


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("meanwhile", ["nothing", "much"])
def test_lanes_are_captured_as_they_were(meanwhile: str) -> None:
    """Many keys, one of them with many items; some lanes come and go meanwhile."""
    driver = Driver(Policy(version=1, ordering=Ordering.KEY, backoff=Backoff(Duration(SECOND))))
    driver.produce(*[b"x"] * 3 * PART, key=[f"k{index}" for index in range(3 * PART)])
    driver.produce(*[b"x"] * 5 * PART, key=["k1"] * 5 * PART)
    driver.settle(Verb.RETRY, driver.take(9), ((3, 4),))
    driver.seal()
    wanted = state_hash(driver.state)
    capture = Capture(driver.state)
    driver.seal()
    steps = 0
    while not capture.step(1):
        steps += 1
        if meanwhile == "much" and steps % 2:
            driver.settle(Verb.COMPLETE, driver.take(4))
            driver.settle(Verb.RETRY, driver.take(3))
            driver.produce(b"y", b"z", key=[f"n{steps}", "k1"])
            driver.pass_time(SECOND // 2)
    again = load(PARTITION, capture.head, [capture.fresh[chunk] for chunk in capture.chunks])
    assert state_hash(again) == wanted
    check_state_fully(again)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("mark", [mark for mark in loadings._LOADERS if mark not in OLD_MARKS])
def test_a_chunk_that_was_cut_off_is_no_snapshot(mark: bytes) -> None:
    driver = Driver(Policy(version=1, ordering=Ordering.KEY, dead_target=PartitionId(9)))
    driver.produce(*[b"x"] * 3 * PART, key=["k"] * 3 * PART, producer="p", sequence=1)
    driver.settle(Verb.DEAD, driver.take(5))
    driver.take(2)
    driver.seal()
    capture = finished(Capture(driver.state))
    chunks = [capture.fresh[chunk] for chunk in capture.chunks]
    index = next(index for index, chunk in enumerate(chunks) if chunk.startswith(mark))
    chunks[index] = chunks[index][:-1]
    with pytest.raises(SnapshotUnreadable):
        load(PARTITION, capture.head, chunks)


# --- older versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OLDER))
def test_what_the_first_version_wrote_is_read(name: str) -> None:
    """Whole heads, and what it put into chunks of their own; and what is made of it then is complete."""
    stored = OLDER[name]
    chunks = [bytes.fromhex(chunk) for chunk in stored["chunks"]]
    state = load(PARTITION, bytes.fromhex(stored["head"]), chunks)
    check_state_fully(state)
    again = msgspec.msgpack.decode(encode_head(state))
    wanted = msgspec.msgpack.decode(bytes.fromhex(stored["whole"]))
    for head in (again, wanted):
        head["milestones"] = [list(unpack(column)) for column in head["milestones"]]
    assert {field: again[field] for field in wanted} == {**wanted, "version": 2}
    for chunk in chunks:
        if chunk[:1] != DEDUPE_MARK:
            known = msgspec.msgpack.decode(chunk)
            again = msgspec.msgpack.decode(encode_segment(state.segments[known["number"]]))
            assert {field: again[field] for field in known if field != "revision"} == {
                field: value for field, value in known.items() if field != "revision"
            }
    everything = [(segment.number, state.position) for segment in state.segments.values()]
    capture = finished(Capture(state, everything, state.position))
    restored_again = load(PARTITION, capture.head, [capture.fresh[chunk] for chunk in capture.chunks])
    assert state_hash(restored_again) == state_hash(state), "also where its segments had been stored"
    check_state_fully(restored_again)


def test_an_older_head_has_its_dedupe_keys_in_it() -> None:
    driver = busy()
    head = msgspec.msgpack.decode(encode_head(driver.state))
    head["dedupe_order"] = list(driver.state.dedupe_order)
    head["dedupe"] = driver.state.dedupe
    segments = [encode_segment(segment) for segment in driver.state.segments.values()]
    again = load(PARTITION, msgspec.msgpack.encode(head), segments)
    assert again.dedupe
    assert state_hash(again) == state_hash(driver.state)
    assert state_hash(restored(again)) == state_hash(again)


def test_there_is_one_capture_at_a_time() -> None:
    driver = Driver()
    driver.produce(b"x")
    capture = Capture(driver.state)
    with pytest.raises(InvariantViolation):
        Capture(driver.state)
    capture.abandon()
    assert Capture(driver.state).step(1)


def test_a_capture_of_an_empty_partition_is_done_at_once() -> None:
    driver = Driver()
    capture = Capture(driver.state)
    assert capture.is_done
    assert capture.step(1)
    assert driver.state.capture is None
    assert state_hash(load(PARTITION, capture.head, [])) == state_hash(driver.state)


# --- the hash ----------------------------------------------------------------------------------------


def test_the_hash_does_not_tell_where_payloads_are() -> None:
    driver = busy()
    assert state_hash(driver.refold(payloads=False)) == state_hash(driver.state)


def test_the_hash_does_not_tell_how_a_heap_is_laid_out_or_what_is_stale_in_it() -> None:
    driver = Driver()
    driver.produce(*[b"x"] * 6, due_at=[Instant(START + t) for t in (9, 3, 7, 1, 8, 2)])
    driver.do(cmd.Delete([driver.state.place_of(4)]))
    other = driver.refold()
    other.schedule = sorted(entry for entry in other.schedule if entry[0] != START + 1)
    assert other.schedule != driver.state.schedule
    assert state_hash(other) == state_hash(driver.state)


@pytest.mark.parametrize("field", ["paused", "next_place", "completed", "nonce", "retried"])
def test_the_hash_tells_every_difference_of_counters(field: str) -> None:
    driver = busy()
    other = driver.refold()
    setattr(other, field, getattr(other, field) + 1)
    assert state_hash(other) != state_hash(driver.state)


def test_the_hash_tells_the_order_of_the_line() -> None:
    driver = Driver()
    driver.produce(b"1", b"2")
    held = driver.take(2)
    other = driver.refold()
    driver.settle(Verb.RELEASE, held, ((0, 1),))
    driver.settle(Verb.RELEASE, held, ((1, 1),))
    swapped = [
        ev.ItemsReleased(held.reservation, ((1, 1),), "client"),
        ev.ItemsReleased(held.reservation, ((0, 1),), "client"),
    ]
    fold(other, driver.state.position, swapped)
    assert state_hash(other) != state_hash(driver.state)


_PROGRAM = """
import random
from tests.core.test_snapshot import random_history
from querator.core.policy import Ordering
from querator.core.snapshot import encode_head
from querator.core.state_hash import state_hash
state = random_history(random.Random(5), Ordering.KEY).state
print(state_hash(state).hex(), encode_head(state).hex())
"""


def test_two_processes_with_other_string_hashes_fold_the_same_state() -> None:
    """Byte for byte, the snapshot's head too: nothing iterates over a set."""
    results = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert results[0] == results[1]
    assert results[0].strip()


# --- what is no snapshot -------------------------------------------------------------------------------


def test_another_partitions_snapshot_is_refused() -> None:
    head, segments = snapshot(busy().state)
    with pytest.raises(SnapshotUnreadable, match="partition 7, not 8"):
        load(PartitionId(8), head, segments)


@pytest.mark.parametrize("damage", ["empty", "truncated", "other", "version"])
def test_damaged_or_foreign_bytes_are_refused(damage: str) -> None:
    state = busy().state

    def spoil(data: bytes) -> bytes:
        if damage == "version":
            return msgspec.msgpack.encode({**msgspec.msgpack.decode(data), "version": 3})
        return {"empty": b"", "truncated": data[:-3], "other": msgspec.msgpack.encode(["x"])}[damage]

    head, segments = snapshot(state)
    with pytest.raises(SnapshotUnreadable):
        load(PARTITION, spoil(head), segments)
    with pytest.raises(SnapshotUnreadable):
        load(PARTITION, head, [spoil(segments[0])])


# --- what it costs -------------------------------------------------------------------------------------


def test_a_waiting_segment_takes_few_bytes() -> None:
    """A million waiting items are a thousand chunks of a few hundred bytes."""
    driver = Driver()
    for _ in range(3):
        driver.produce(*[b"x" * 100] * 1_000, kind="mail")
    assert len(encode_segment(driver.state.segments[1])) < 400
    assert len(encode_head(driver.state)) < 2_000


def test_columns_come_back_as_they_were() -> None:
    driver = Driver()
    driver.produce(b"1", b"2", kind=["a", None], headers={"x": "y"}, attempts_max=[3, 4])
    driver.produce(b"3")
    segment, _ = decode_segment(encode_segment(driver.state.segments[0]))
    assert segment.columns == driver.state.segments[0].columns
    assert segment.origin_of(2) == driver.state.segments[0].origin_of(2)
