"""The ledger tells the same item events as a plain fold that looks at every item around every event."""

import random
from typing import Any

import pytest

from querator.analytics.ledger import CheckpointUnreadable, Ledger
from querator.analytics.rows import NAMES
from querator.core.ids import PartitionId
from querator.errors import CorruptRecord
from tests.analytics.histories import plain_fold, random_history


def item_events(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    found = []
    for row in rows:
        named = dict(zip(NAMES, row, strict=True))
        if named["event"] == "extended" or not named["first_item"]:
            continue
        for offset in range(named["items"]):
            found.append((named["position"], named["first_item"] + offset, named))
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("keyed", [False, True])
def test_rows_are_the_item_events_of_a_plain_fold(seed: int, keyed: bool) -> None:
    target = 9 if seed % 3 == 0 else None
    history = random_history(random.Random(seed), 3, 250, keyed=keyed, dead_target=target)
    ledger = Ledger(PartitionId(3))
    rows: list[tuple[Any, ...]] = []
    for index, record in enumerate(history.records):
        if index % 7 == 3:
            ledger = Ledger.restore(PartitionId(3), ledger.checkpoint())
        told = ledger.fold(record)
        assert [row[2] for row in told] == list(range(len(told)))
        rows += told
    told_events = item_events(rows)
    expected = plain_fold(history.records)
    assert len(told_events) == len(expected)
    told_events.sort(key=lambda entry: (entry[0], entry[2]["seq"], entry[1]))
    by_item: dict[int, list[dict[str, Any]]] = {}
    for _, item, named in told_events:
        by_item.setdefault(item, []).append(named)
    for step in expected:
        named = by_item[step.item].pop(0)
        where = (step, named)
        assert named["position"] == step.position, where
        assert named["happened_at"] == step.at, where
        for name in ("event", "reason"):
            assert named[name] == getattr(step, name), where
        assert (named["state_before"], named["state_after"]) == (step.before, step.after), where
        assert named["produced_at"] in (0, step.produced_at), where
        if step.event in ("reserved", "completed", "retried", "released", "ended"):
            for name in (
                "reservation", "session", "attempt", "reserved_at", "ready_at", "first_reserved_at",
                "produced_at", "item_kind",
            ):  # fmt: skip
                assert named[name] == getattr(step, name), (name, where)
    counts = ledger.counts()
    assert counts["ready"] == history.state.ready
    assert counts["dead"] == len(history.state.dead)


def test_checkpoint_that_is_damaged_is_refused() -> None:
    data = Ledger(PartitionId(3)).checkpoint()
    with pytest.raises(CheckpointUnreadable):
        Ledger.restore(PartitionId(3), data[:-3])
    with pytest.raises(CheckpointUnreadable, match="partition 3, not 4"):
        Ledger.restore(PartitionId(4), data)


def test_record_that_does_not_follow_is_refused() -> None:
    history = random_history(random.Random(1), 3, 60)
    ledger = Ledger(PartitionId(3))
    ledger.fold(history.records[0])
    with pytest.raises(CorruptRecord, match="stands where record 2 should be"):
        ledger.fold(history.records[2])
