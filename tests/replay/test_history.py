"""Past states: the same by position and by time, from snapshots and without, from a log and a capture."""

import pytest
from trio.testing import MockClock

from querator.core.ids import Instant, PartitionId, Position
from querator.core.state_hash import state_hash
from querator.errors import HistoryDropped
from querator.log.restore import read_all
from querator.replay.capture import Captured, CaptureHead, Payloads
from querator.replay.fold import PartitionReplay, counts_of
from querator.replay.history import CaptureHistory, Moment, StoreHistory, read_queues, state_at, walk
from tests.replay.logs import busy_log

P = PartitionId(1)


async def test_every_position_is_what_the_fold_was_there(autojump_clock: MockClock) -> None:
    store, _ = await busy_log()
    things: list[Captured] = [CaptureHead(Payloads.KEPT, await read_queues(store))]
    things += [thing async for thing in walk(store, P)]
    captured = CaptureHistory(things)
    replay = PartitionReplay(P)
    async for record in read_all(store, P):
        replay.take(record)
        moment = Moment(position=record.position)
        for history in (StoreHistory(store), captured):
            state = await state_at(history, P, moment)
            assert state.position == record.position
            assert state_hash(state) == state_hash(replay.state)


async def test_a_time_is_all_that_had_happened_by_then(autojump_clock: MockClock) -> None:
    store, middle = await busy_log()
    history = StoreHistory(store)
    state = await state_at(history, P, Moment(at=middle))
    counts = counts_of(state)
    assert (counts["produced"], counts["ready"], counts["reserved"]) == (3, 1, 2)
    assert [reservation.session for reservation in state.reservations.values()] == ["s1"]
    assert counts_of(await state_at(history, P, Moment(at=Instant(1))))["produced"] == 0
    last = counts_of(await state_at(history, P, Moment(at=Instant(middle + 3_600_000_000))))
    assert (last["produced"], last["completed"], last["retried"], last["ended"]) == (5, 1, 1, 1)


async def test_what_is_not_there_is_not_made_up(autojump_clock: MockClock) -> None:
    store, _ = await busy_log()
    things: list[Captured] = [thing async for thing in walk(store, P, 3)]
    captured = CaptureHistory(things)
    with pytest.raises(HistoryDropped, match="begins with record 3"):
        await state_at(captured, P, Moment(position=Position(1)))
    with pytest.raises(HistoryDropped, match="not in this capture"):
        await state_at(captured, PartitionId(7), Moment(position=Position(1)))
