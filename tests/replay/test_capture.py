"""Captures: what is written is read, in every way of keeping payloads, and damage is found."""

import io
from struct import Struct

import attrs
import pytest
from trio.testing import MockClock

from querator.core.ids import PartitionId
from querator.core.limits import CAPTURE_FRAME_BYTES_MAX
from querator.log.memory import MemoryLog
from querator.log.restore import read_all
from querator.replay.capture import (
    MAGIC,
    Captured,
    CapturedRecord,
    CaptureEnd,
    CaptureHead,
    CaptureUnreadable,
    CaptureWriter,
    Checkpoint,
    Payloads,
    read_capture,
)
from querator.replay.fold import Replay
from querator.replay.history import StoreHistory, read_queues, walk
from tests.replay.logs import busy_log
from tests.replay.test_redecide import crowd_log

P = PartitionId(1)


async def capture(
    payloads: Payloads = Payloads.KEPT, start: int = 0, end: int = 0, *, store: MemoryLog | None = None
) -> bytes:
    if store is None:
        store, _ = await busy_log()
    out = io.BytesIO()
    writer = CaptureWriter(out, CaptureHead(payloads, await read_queues(store)))
    async for thing in walk(store, P, start, end):
        if isinstance(thing, CapturedRecord):
            writer.record(thing.record)
        else:
            writer.checkpoint(thing)
    writer.finish()
    return out.getvalue()


def replayed(data: bytes) -> tuple[Replay, list[Captured]]:
    things = list(read_capture(io.BytesIO(data)))
    replay = Replay()
    for thing in things:
        replay.take(thing)
    replay.finish()
    return replay, things


async def test_what_is_written_is_read(autojump_clock: MockClock) -> None:
    store, _ = await busy_log()
    replay, things = replayed(await capture(store=store))
    assert things[0] == CaptureHead(Payloads.KEPT, {"q": [1]})
    assert things[0] == CaptureHead(Payloads.KEPT, await StoreHistory(store).queues())
    records = [thing.record for thing in things if isinstance(thing, CapturedRecord)]
    assert things[-1] == CaptureEnd(len(records))
    assert [attrs.astuple(record) for record in records] == [
        attrs.astuple(record) async for record in read_all(store, P, payloads=True)
    ]
    assert replay.divergence is None
    assert replay.partitions[P].checkpoints == 2


@pytest.mark.parametrize("payloads", [Payloads.DROPPED, Payloads.SIZES])
async def test_payloads_may_stay_at_home(autojump_clock: MockClock, payloads: Payloads) -> None:
    data = await capture(payloads)
    assert b"dddd" in await capture()
    assert b"dddd" not in data
    replay, things = replayed(data)
    assert replay.divergence is None
    sizes = [thing.sizes for thing in things if isinstance(thing, CapturedRecord) and thing.record.item_max]
    assert sizes == ([None] * 3 if payloads is Payloads.DROPPED else [[1, 2, 3], [4], [1]])


@pytest.mark.parametrize("payloads", [Payloads.KEPT, Payloads.SIZES])
async def test_records_of_which_the_payloads_are_gone_have_no_sizes(
    autojump_clock: MockClock, payloads: Payloads
) -> None:
    """As an archive has them: what is left is decided again as far as it can be known."""
    records = [record async for record in read_all(await crowd_log(), P, payloads=True)]
    half = len(records) // 2
    out = io.BytesIO()
    writer = CaptureWriter(out, CaptureHead(payloads, {"q": [1]}))
    for index, record in enumerate(records):
        writer.record(attrs.evolve(record, payload=None) if index < half else record)
    writer.finish()
    assert writer.without_payloads == sum(bool(record.payload) for record in records[:half]) > 3
    replay, things = replayed(out.getvalue())
    assert replay.divergence is None
    decided = replay.partitions[P].decided
    # All of them take from one segment, of which too little is known.
    assert decided.from_waiters == 0 < decided.assignments
    found = [thing for thing in things if isinstance(thing, CapturedRecord)]
    for index, thing in enumerate(found):
        is_known = index >= half or not records[index].item_max
        if payloads is Payloads.SIZES:
            assert (thing.sizes is not None) == is_known
        else:
            assert thing.record.payload == (records[index].payload if is_known else None)


async def test_a_stretch_brings_the_state_before_it(autojump_clock: MockClock) -> None:
    store, _ = await busy_log()
    whole, _ = replayed(await capture(store=store))
    last = whole.partitions[P].records
    for start in range(2, last + 1):
        replay, things = replayed(
            await capture(start=start, end=last - 1 if start < last else 0, store=store)
        )
        assert isinstance(things[1], Checkpoint)
        assert (things[1].is_base, things[1].position) == (True, start - 1)
        assert replay.divergence is None
        found = replay.partitions[P]
        assert found.first == start
        assert found.tail is not None
        assert found.tail.position == (last - 1 if start < last else last)


async def test_every_damaged_byte_is_found(autojump_clock: MockClock) -> None:
    data = await capture(Payloads.DROPPED)
    for where in range(0, len(data), 7):
        damaged = data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]
        with pytest.raises(CaptureUnreadable):
            list(read_capture(io.BytesIO(damaged)))


async def test_a_capture_that_is_cut_off_or_goes_on_is_refused(autojump_clock: MockClock) -> None:
    data = await capture(Payloads.DROPPED)
    for length in range(0, len(data), 11):
        with pytest.raises(CaptureUnreadable):
            list(read_capture(io.BytesIO(data[:length])))
    with pytest.raises(CaptureUnreadable, match="goes on"):
        list(read_capture(io.BytesIO(data + b"x")))


def test_a_frame_has_a_bound() -> None:
    start = Struct("<cI").pack(b"H", CAPTURE_FRAME_BYTES_MAX + 1)
    with pytest.raises(CaptureUnreadable, match="at most"):
        list(read_capture(io.BytesIO(MAGIC + start)))
    start = Struct("<cI").pack(b"H", CAPTURE_FRAME_BYTES_MAX)
    with pytest.raises(CaptureUnreadable, match="cut off"):
        list(read_capture(io.BytesIO(MAGIC + start)))
