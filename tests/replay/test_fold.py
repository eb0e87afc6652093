"""Replay: the first divergence is found, whatever it is."""

from collections.abc import Callable, Sequence

import attrs
import pytest
from trio.testing import MockClock

from querator.core import events as ev
from querator.core.ids import Instant, ItemNumber, PartitionId
from querator.core.state import PartitionState
from querator.log.codec import (
    PayloadBlock,
    attach_payloads,
    decode_events,
    encode_events,
    hash_of,
    seal,
)
from querator.log.records import Record
from querator.log.restore import read_all
from querator.log.small import decode_small
from querator.replay.capture import CapturedRecord, Checkpoint
from querator.replay.fold import Divergence, PartitionReplay
from querator.replay.history import checkpoint_of, walk
from tests.replay.logs import busy_log

P = PartitionId(1)


async def records_of() -> list[Record]:
    store, _ = await busy_log()
    return [record async for record in read_all(store, P, payloads=True)]


def diverges(records: Sequence[Record]) -> Divergence:
    replay = PartitionReplay(P)
    for record in records:
        replay.take(record)
    replay.finish()
    assert replay.divergence is not None
    return replay.divergence


def resealed(records: list[Record], index: int, events: list[ev.Event]) -> list[Record]:
    """The log with another record there, and a chain that is whole again."""
    found = records[:index]
    for old in records[index:]:
        its_events = events if old.position == index + 1 else decode_events(old.events)
        if its_events is not events:
            attach_payloads(its_events, PayloadBlock(old.payload or b""))
        previous = found[-1].hash if found else bytes(32)
        found.append(seal(P, old.position, previous, old.nonce, old.written_at, its_events))
    return found


async def test_a_good_log_does_not_diverge(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    replay = PartitionReplay(P, lambda _, event: seen.append(type(event).__name__))
    for record in await records_of():
        replay.take(record)
    replay.finish()
    assert replay.divergence is None
    assert {
        "ItemsProduced",
        "ItemsReserved",
        "ItemsCompleted",
        "ItemsRetried",
        "ReservationEnded",
    } <= dict.fromkeys(seen).keys()
    assert len(seen) == replay.events


async def test_a_changed_record_is_found(autojump_clock: MockClock) -> None:
    records = await records_of()
    for index, record in enumerate(records):
        changed = [
            *records[:index],
            attrs.evolve(record, written_at=Instant(record.written_at + 1)),
            *records[index + 1 :],
        ]
        assert diverges(changed).position == record.position
    assert diverges([*records[:2], *records[3:]]).position == records[3].position


async def test_an_item_completed_twice_is_found_and_shown(autojump_clock: MockClock) -> None:
    records = await records_of()
    index = next(
        index
        for index, record in enumerate(records)
        if any(isinstance(event, ev.ItemsCompleted) for event in decode_events(record.events))
    )
    events = decode_events(records[index].events)
    attach_payloads(events, PayloadBlock(records[index].payload or b""))
    completed = next(event for event in events if isinstance(event, ev.ItemsCompleted))
    found = diverges(resealed(records, index, [*events, completed]))
    assert found.position == index + 1
    assert found.event.startswith("completed")


async def test_an_item_reserved_out_of_turn_is_found(autojump_clock: MockClock) -> None:
    records = await records_of()
    index = next(
        index
        for index, record in enumerate(records)
        if any(isinstance(event, ev.ItemsReserved) for event in decode_events(record.events))
    )
    events = [
        attrs.evolve(event, first_item=ItemNumber(2)) if isinstance(event, ev.ItemsReserved) else event
        for event in decode_events(records[index].events)
    ]
    found = diverges(resealed(records, index, events))
    assert found.position == index + 1
    assert "before one that stood before it" in found.fault


async def test_events_that_encode_otherwise_are_found(autojump_clock: MockClock) -> None:
    """Bytes that mean the same, and were never written."""
    records = await records_of()
    index = next(index for index, record in enumerate(records) if decode_small(record.events))
    old = records[index]
    at = encode_events([ev.TurnStarted(old.written_at)])[6:]
    assert at in old.events
    longer = old.events.replace(at, b"\x0a" + at[1:] + b"\0", 1)
    assert decode_events(longer) == decode_events(old.events)
    records[index] = attrs.evolve(old, events=longer)
    records[index].hash = hash_of(records[index])
    found = diverges(records)
    assert found.position == index + 1
    assert "other bytes" in found.fault


def _tamper_counter(state: PartitionState) -> None:
    state.retried += 1


def _tamper_dedupe(state: PartitionState) -> None:
    state.dedupe["never"] = 1
    state.dedupe_order.open_block(state.position).add(state.now, ("never",), state.position)


@pytest.mark.parametrize(
    ("tamper", "words"), [(_tamper_counter, "retried 1 in the snapshot"), (_tamper_dedupe, "counters agree")]
)
async def test_a_snapshot_of_something_else_is_found(
    autojump_clock: MockClock, tamper: Callable[[PartitionState], None], words: str
) -> None:
    store, _ = await busy_log()
    replay = PartitionReplay(P)
    for thing in [thing async for thing in walk(store, P)]:
        if isinstance(thing, CapturedRecord):
            replay.take(thing.record)
            continue
        assert isinstance(thing, Checkpoint)
        copy = PartitionReplay(P)
        copy.begin(thing)
        tamper(copy.state)
        replay.compare(attrs.evolve(checkpoint_of(copy), is_base=False))
        break
    assert replay.divergence is not None
    assert words in replay.divergence.fault
    assert replay.checkpoints == 0


async def test_a_snapshot_of_another_chain_is_found(autojump_clock: MockClock) -> None:
    store, _ = await busy_log()
    replay = PartitionReplay(P)
    async for thing in walk(store, P):
        if isinstance(thing, CapturedRecord):
            replay.take(thing.record)
        else:
            replay.compare(attrs.evolve(thing, hash=bytes(32)))
    assert replay.divergence is not None
    assert "chained to another record" in replay.divergence.fault
