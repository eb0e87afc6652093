"""What is folded in bulk comes to the same rows, files and state as what is folded event by event."""

import gc
import random
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks.analytics import make_partition
from querator.analytics import ledger as ledgers
from querator.analytics import warehouse, writeback
from querator.analytics.ledger import Ledger
from querator.analytics.rows import RowBuffer
from querator.analytics.sweep import Sweep
from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import limits
from querator.core.due import end_reservation
from querator.core.ids import DAY, MILLISECOND, SECOND, Instant, PartitionId
from querator.core.policy import Policy
from querator.errors import CorruptRecord
from querator.log.codec import decode_columns, seal
from querator.log.records import Record
from querator.log.skim import COMPLETED, ENDED, RELEASED, RETRIED, SETTLED, Skimmed
from tests.analytics.histories import KINDS, SESSIONS, PartitionHistory, random_history
from tests.analytics.test_everyday import unhurried

PARTITION = PartitionId(3)


@pytest.fixture
def connection() -> Iterator[warehouse.Connection]:
    connection = warehouse.open_database(threads=1)
    yield connection
    connection.close()


def busy_history(rng: random.Random, steps: int) -> PartitionHistory:
    """Nearly nothing but what can be swept: batches of all sizes, over segments, taken and settled in parts
    and as a whole, in turns that are short and long; now and then something else."""
    history = PartitionHistory(3, Policy(version=1))
    size = rng.choice((1, 3, 40, 700))
    for sequence in range(1, steps + 1):
        action = rng.choices(
            ("produce", "reserve", "settle", "time", "seal", "else"), (25, 25, 30, 20, 10, 0.3)
        )[0]
        live = list(history.state.reservations)
        if action == "produce":
            attributes = rng.choice((None, ev.Attributes(kind=rng.choice(KINDS) or None)))
            count = rng.choice((1, rng.randint(1, size)))
            producer = rng.choice(("", "shop"))
            history.do(cmd.Produce([b""] * count, Instant(0), attributes, producer, sequence))
        elif action == "reserve":
            history.reserve(rng.randint(1, size), rng.choice((*SESSIONS, "")), held=rng.random() < 0.3)
        elif action == "settle" and live:
            _settle(rng, history, rng.choice(live))
        elif action == "time":
            history.now += rng.choice((1, MILLISECOND, SECOND, SECOND, DAY // 30))
        elif action == "seal":
            history.seal()
        elif action == "else":
            history.do(rng.choice((cmd.Pause("root"), cmd.Resume("root"))))
    history.seal()
    return history


def _settle(rng: random.Random, history: PartitionHistory, number: int) -> None:
    reservation = history.state.reservations[number]
    ranges: ev.Ranges | None = None
    if rng.random() < 0.3:
        start, length = rng.choice(reservation.open_ranges())
        first = rng.randrange(start, start + length)
        ranges = ((first, rng.randint(1, start + length - first)),)
        if rng.random() < 0.3:
            ranges = reservation.open_ranges()
    verb = rng.choices((cmd.Verb.COMPLETE, cmd.Verb.RETRY, cmd.Verb.RELEASE, None), (70, 15, 8, 7))[0]
    if verb is None:
        end_reservation(history.state, reservation, rng.choice(("deadline", "session_lost")), history.apply)
    elif verb is cmd.Verb.RETRY:
        history.settle(verb, number, ranges, due_at=Instant(0))
    elif verb is cmd.Verb.RELEASE:
        history.settle(verb, number, ranges, reason=rng.choice(("client", "undelivered")))
    else:
        history.settle(verb, number, ranges)


def pages(records: Sequence[Record], rng: random.Random) -> Iterator[Sequence[Record]]:
    start = 0
    while start < len(records):
        size = rng.choice((1, 2, 9, 60))
        yield records[start : start + size]
        start += size


def read_back(connection: warehouse.Connection, buffer: RowBuffer, directory: Path) -> list[tuple[Any, ...]]:
    """The rows of the files that are written of it."""
    rows: list[tuple[Any, ...]] = []
    gathered = buffer.gathered()
    for day in gathered.days:
        path = directory / f"{day}.parquet"
        written, items = warehouse.write_rows(connection, gathered, day, path)
        found = connection.execute(f"FROM '{path}'").fetchall()
        assert (written, items) == (len(found), sum(row[6] for row in found))
        rows += found
    return rows


def fold_both_ways(
    connection: warehouse.Connection, records: Sequence[Record], rng: random.Random, directory: Path
) -> tuple[int, int]:
    """Compare all that comes of it, and tell how many rows were swept, and how many there are."""
    swept, slow = Ledger(PARTITION), unhurried()
    here, there = RowBuffer(), RowBuffer()
    both: list[tuple[list[Any], list[Any]]] = []
    count = all_rows = 0

    def write() -> None:
        nonlocal count, all_rows
        count += len(here.swept)
        all_rows += here.rows
        both.append((read_back(connection, here, directory), read_back(connection, there, directory)))
        here.clear()
        there.clear()

    for page in pages(records, rng):
        if rng.random() < 0.2:
            swept._pause = rng.randrange(3)
        for _ in swept.folding_page(page, here):
            pass
        for record in page:
            there.extend(slow.fold(record))
        assert here.rows == there.rows
        assert here.pop_last_at() == there.pop_last_at()
        if rng.random() < 0.15:
            assert swept.checkpoint() == slow.checkpoint()
            assert swept.counts() == slow.counts()
        if rng.random() < 0.1:
            swept = Ledger.restore(PARTITION, swept.checkpoint())
        if rng.random() < 0.1:
            write()
    write()
    for one, other in both:
        assert one == other
    assert swept.checkpoint() == slow.checkpoint()
    assert swept._state.age_sum == slow._state.age_sum
    assert swept._state.deadline_sum == slow._state.deadline_sum
    return count, all_rows


@pytest.mark.parametrize("bound", [None, 40])
def test_busy_histories(
    connection: warehouse.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int | None
) -> None:
    if bound:
        monkeypatch.setattr(ledgers, "EXPORT_STRETCH_EVENTS", bound)
        monkeypatch.setattr(ledgers, "EXPORT_SWEEP_EVENTS", 3 * bound)
    count = rows = 0
    for seed in range(16):
        rng = random.Random(seed)
        told = fold_both_ways(connection, busy_history(rng, 500).records, rng, tmp_path)
        count, rows = count + told[0], rows + told[1]
    assert count > 0.5 * rows


@pytest.mark.parametrize("keyed", [False, True])
def test_histories_in_which_everything_happens(
    connection: warehouse.Connection, tmp_path: Path, keyed: bool
) -> None:
    count = 0
    for seed in range(12):
        rng = random.Random(seed)
        target = 9 if seed % 3 == 0 else None
        records = random_history(rng, 3, 200, keyed=keyed, dead_target=target).records
        count += fold_both_ways(connection, records, rng, tmp_path)[0]
    assert bool(count) is not keyed


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_log_of_the_benchmark_is_swept_whole(
    connection: warehouse.Connection, tmp_path: Path, batch: int
) -> None:
    records = make_partition(3, 5_000, batch, random.Random(batch))
    count, rows = fold_both_ways(connection, records, random.Random(batch), tmp_path)
    assert count > 0.8 * rows
    ledger, buffer = Ledger(PARTITION), RowBuffer()
    for _ in ledger.folding_page(records, buffer):
        pass
    assert len(buffer.swept) == buffer.rows > 0


def test_milestones_are_noted_where_they_fall(connection: warehouse.Connection, tmp_path: Path) -> None:
    records = make_partition(3, 13_000, 1, random.Random(5))
    fold_both_ways(connection, records, random.Random(5), tmp_path)
    ledger, buffer = Ledger(PARTITION), RowBuffer()
    for _ in ledger.folding_page(records, buffer):
        pass
    ledger.checkpoint()
    assert list(ledger._state.milestones.numbers)[1:] == [4_096, 8_192, 12_288]


# --- refused -------------------------------------------------------------------------------------


def record_of(events: Sequence[ev.Event], before: Record) -> Record:
    position: Any = before.position + 1
    return seal(PARTITION, position, before.hash, 41, before.written_at, events)


@pytest.mark.parametrize(
    "wrong",
    [
        ev.ItemsCompleted(99, None),  # type: ignore[arg-type]
        ev.ItemsCompleted(1, None),  # type: ignore[arg-type]
        ev.ItemsRetried(2, ((0, 1), (0, 1)), Instant(0)),  # type: ignore[arg-type]
        ev.ItemsReserved(3, 6, "ann", 1, Instant(9), Instant(0)),  # type: ignore[arg-type]
        ev.ItemsProduced(12, 1, Instant(0), Instant(0), None, "", 0, [b""]),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_named_and_of_its_stretch_nothing_is_swept(wrong: ev.Event) -> None:
    """Behind a part of the stretch that was fine, and changed something of each kind."""
    history = PartitionHistory(3, Policy(version=1))
    history.do(cmd.Produce([b""] * 10, Instant(0), None, "", 0))
    first, second = history.reserve(3, "ann"), history.reserve(3, "bob")
    history.settle(cmd.Verb.COMPLETE, second, ((1, 1),))
    history.seal()
    sound = len(history.records)
    history.settle(cmd.Verb.RETRY, first, ((0, 1),), due_at=Instant(0))
    history.settle(cmd.Verb.COMPLETE, first)
    history.settle(cmd.Verb.RETRY, second, ((0, 1),), due_at=Instant(0))
    history.seal()
    last = history.records[-1]
    broken = [*history.records, record_of([ev.TurnStarted(Instant(history.now)), wrong], last)]
    ledger, other = Ledger(PARTITION), Ledger(PARTITION)
    here, there = RowBuffer(), RowBuffer()
    for _ in ledger.folding_page(history.records[:sound], here):
        pass
    swept = len(here.swept)
    with pytest.raises(CorruptRecord, match=f"record {last.position + 1} of partition 3"):
        for _ in ledger.folding_page(broken[sound:], here):
            pass
    assert len(here.swept) == swept
    for _ in other.folding_page(history.records, there):
        pass
    assert here.rows == there.rows
    assert ledger.position == other.position == last.position


def test_a_corrupt_record_is_named_behind_what_was_swept() -> None:
    records = make_partition(3, 300, 1, random.Random(1))
    damaged = [*records[:7], attrs.evolve(records[7], written_at=records[7].written_at + 1)]
    ledger, buffer = Ledger(PARTITION), RowBuffer()
    with pytest.raises(CorruptRecord, match="record 8 of partition 3 does not match its hash"):
        for _ in ledger.folding_page(damaged, buffer):
            pass
    assert ledger.position == 7
    assert len(buffer.swept) == buffer.rows > 0


# --- skimming --------------------------------------------------------------------------------------


def test_skimmed_columns_are_those_of_the_record() -> None:
    taken = 0
    for seed in range(12):
        rng = random.Random(seed)
        for records in (
            busy_history(rng, 200).records,
            random_history(rng, 3, 100).records,
            random_history(rng, 3, 60, keyed=True).records,
            make_partition(3, 300, 1, rng),
        ):
            for record in records:
                skimmed = Skimmed()
                if not skimmed.take(record.position, record.events):
                    assert skimmed == Skimmed()
                    continue
                taken += 1
                columns = decode_columns(record.events)
                assert skimmed.kinds == [columns.kinds]
                assert skimmed.events == len(columns.kinds)
                _compare(skimmed, columns)
    assert taken > 200


def _compare(skimmed: Skimmed, columns: Any) -> None:
    produced, reserved = columns.of(ev.ItemsProduced), columns.of(ev.ItemsReserved)
    assert skimmed.turns == list(columns.of(ev.TurnStarted).get("at", ()))
    for values, name in (
        (skimmed.firsts, "first_item"),
        (skimmed.counts, "count"),
        (skimmed.authors, "producer"),
    ):
        assert values == list(produced.get(name, ()))
    kinds = [(attributes and attributes.kind) or "" for attributes in produced.get("attributes", ())]
    assert skimmed.item_kinds == kinds
    assert not any(produced.get("due_at", ()))
    assert not any(produced.get("part", ()))
    for values, name in (
        (skimmed.taken, "count"),
        (skimmed.heads, "first_item"),
        (skimmed.sessions, "session"),
        (skimmed.generations, "generation"),
        (skimmed.deadlines, "deadline"),
        (skimmed.run_untils, "run_until"),
    ):
        assert values == list(reserved.get(name, ()))
    events = (ev.ItemsCompleted, ev.ItemsRetried, ev.ItemsReleased, ev.ReservationEnded)
    for number, event in zip((COMPLETED, RETRIED, RELEASED, ENDED), events, strict=True):
        table = columns.of(event)
        assert skimmed.settled[number].numbers == list(table.get("reservation", ()))
        assert skimmed.settled[number].ranges == list(table.get("ranges", ()))
        assert skimmed.settled[number].whys == list(table.get("why", ()))
    assert (COMPLETED, RETRIED, RELEASED, ENDED) == SETTLED


@pytest.mark.parametrize("seed", range(3))
def test_a_record_that_ends_too_early_or_too_late_is_left_alone(seed: int) -> None:
    for record in busy_history(random.Random(seed), 40).records[2:6]:
        for data in (*(record.events[:size] for size in range(len(record.events))), record.events + b"\0"):
            skimmed = Skimmed()
            assert not skimmed.take(record.position, data)
            assert skimmed == Skimmed()


@pytest.mark.parametrize(
    "attributes",
    [
        ev.Attributes(kind=["mail", "fax"]),
        ev.Attributes(kind=""),
        ev.Attributes(key="a"),
        ev.Attributes(attempts=2),
    ],
)
def test_items_that_are_not_as_others_are_not_skimmed(attributes: ev.Attributes) -> None:
    turn = ev.TurnStarted(Instant(1))
    produced = ev.ItemsProduced(1, 2, Instant(0), Instant(0), attributes, "", 0, [b"", b""])  # type: ignore[arg-type]
    history = PartitionHistory(3, Policy(version=1))
    assert not Skimmed().take(3, record_of([turn, produced], history.records[-1]).events)
    produced = attrs.evolve(produced, attributes=ev.Attributes(encoding="json", kind="mail", reference="r"))
    skimmed = Skimmed()
    assert skimmed.take(3, record_of([turn, produced], history.records[-1]).events)
    assert skimmed.item_kinds == ["mail"]


# --- bounds and memory -------------------------------------------------------------------------------


def test_a_stretch_ends_behind_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_partition(3, 3_000, 1, random.Random(1))
    ledger, buffer = Ledger(PARTITION), RowBuffer()
    sizes: list[int] = []
    kept = Sweep.take

    def take(self: Any, stretch: Skimmed, partition: int) -> bool:
        sizes.append(stretch.events)
        return kept(self, stretch, partition)

    monkeypatch.setattr(Sweep, "take", take)
    for _ in ledger.folding_page(records, buffer):
        pass
    most = limits.EXPORT_STRETCH_EVENTS + max(len(decode_columns(record.events).kinds) for record in records)
    assert len(sizes) > 3
    assert all(limits.EXPORT_STRETCH_EVENTS <= size < most for size in sizes[:-1])


def test_what_was_swept_reaches_the_state_behind_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_partition(3, 40_000, 1, random.Random(1))
    ledger, buffer = Ledger(PARTITION), RowBuffer()
    written: list[int] = []
    kept = writeback.write_back

    def write_back(sweep: Any, *rest: Any) -> None:
        written.append(sweep.events)
        kept(sweep, *rest)

    monkeypatch.setattr(ledgers, "write_back", write_back)
    for _ in ledger.folding_page(records, buffer):
        pass
    most = limits.EXPORT_SWEEP_EVENTS + 2 * limits.EXPORT_STRETCH_EVENTS
    assert len(written) == 2
    assert all(limits.EXPORT_SWEEP_EVENTS <= events < most for events in written)


def test_partitions_in_any_order_are_sorted_in_the_file(
    connection: warehouse.Connection, tmp_path: Path
) -> None:
    buffer = RowBuffer()
    for partition in (3, 2, 4):
        ledger = Ledger(PartitionId(partition))
        for _ in ledger.folding_page(make_partition(partition, 200, 1, random.Random(1)), buffer):
            pass
    assert len(buffer.swept) == buffer.rows
    assert not buffer.gathered().is_sorted
    for day in buffer.gathered().days:
        path = tmp_path / f"{day}.parquet"
        warehouse.write_rows(connection, buffer.gathered(), day, path)
        keys = connection.execute(f"SELECT partition, position, seq FROM '{path}'").fetchall()
        assert keys == sorted(keys)
        assert {key[0] for key in keys} == {2, 3, 4}


def test_rows_that_were_written_are_freed_without_looking_for_cycles(
    connection: warehouse.Connection, tmp_path: Path
) -> None:
    """A process that exports does not look for them."""
    buffer = RowBuffer()
    for _ in Ledger(PARTITION).folding_page(make_partition(3, 200, 1, random.Random(1)), buffer):
        pass
    gc.disable()
    try:
        gathered = buffer.gathered()
        tables = [weakref.ref(table) for table in gathered.tables.values()]
        warehouse.write_rows(connection, gathered, gathered.days[0], tmp_path / "day.parquet")
        del gathered
        assert [table() for table in tables] == [None]
    finally:
        gc.enable()
