"""What is everyday is folded another way, to the same rows and the same state."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.analytics import make_partition
from querator.analytics import ledger as ledgers
from querator.analytics.ledger import Ledger
from querator.analytics.rows import COLUMNS, RowBuffer, full_row
from querator.core.ids import PartitionId
from querator.log.records import Record
from tests.analytics.histories import random_history

PARTITION = PartitionId(3)


def unhurried() -> Ledger:
    """A ledger to which no event is everyday: the core folds them all."""
    ledger = Ledger(PARTITION)
    ledger._everyday._hot.clear()
    return ledger


def compare(records: Sequence[Record], rng: random.Random) -> tuple[int, int]:
    """Fold both ways, compare all that comes of it, and tell how many rows there are, and short ones."""
    hurried, slow = Ledger(PARTITION), unhurried()
    rows = short = 0
    for record in records:
        assert hurried.fold(record) == slow.fold(record)
        rows += len(slow.short_rows)
        short += sum(len(row) < len(COLUMNS) for row in hurried.short_rows)
        assert all(len(row) == len(COLUMNS) for row in slow.short_rows)
        if rng.random() < 0.1:
            assert hurried.checkpoint() == slow.checkpoint()
        if rng.random() < 0.1:
            hurried = Ledger.restore(PARTITION, hurried.checkpoint())
    assert hurried.checkpoint() == slow.checkpoint()
    assert hurried.counts() == slow.counts()
    return rows, short


@pytest.mark.parametrize("columns_only", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_random_histories(monkeypatch: pytest.MonkeyPatch, keyed: bool, columns_only: bool) -> None:
    if columns_only:
        monkeypatch.setattr(ledgers, "decode_small", lambda _: None)
    short = 0
    for seed in range(12):
        target = 9 if seed % 3 == 0 else None
        history = random_history(random.Random(seed), 3, 150, keyed=keyed, dead_target=target)
        short += compare(history.records, random.Random(seed))[1]
    assert keyed or short > 100


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_log_of_the_benchmark(batch: int) -> None:
    """Several segments, retries that put every later reservation across two runs, items of many kinds."""
    rng = random.Random(batch)
    rows, short = compare(make_partition(3, 4_000, batch, rng), rng)
    assert short > 0.8 * rows


def test_a_buffer_takes_rows_of_all_lengths() -> None:
    records = make_partition(3, 900, 7, random.Random(7))
    ledger = Ledger(PARTITION)
    mixed, full = RowBuffer(), RowBuffer()
    for record in records:
        ledger.fold(record)
        mixed.extend(ledger.short_rows)
        full.extend(list(map(full_row, ledger.short_rows)))
    assert mixed.gathered().days == full.gathered().days
    assert mixed.rows == full.rows > 0
    assert sorted(_read(mixed)) == sorted(_read(full))


def _read(buffer: RowBuffer) -> list[tuple[Any, ...]]:
    columns = []
    for column in buffer.gathered().tables["raw_rows"]._columns.values():
        texts = getattr(column, "texts", None)
        columns.append(column if texts is None else [texts[index] for index in column.indexes])  # type: ignore[union-attr]
    return list(zip(*columns, strict=True))
