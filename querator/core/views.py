"""Reads: counters and pages of a partition's state. They change nothing, and their answers, too, wait
for the position they were read at."""

from collections.abc import Iterator
from heapq import merge
from itertools import islice

from querator.core import commands as cmd
from querator.core import replies as rep
from querator.core.commands import Listing
from querator.core.ids import Duration, Instant, ItemNumber, PartitionId, Place
from querator.core.segments import DEAD, GONE, RESERVED, SCHEDULED, SEGMENT_BITS, STATE_NAMES
from querator.core.state import PartitionState


def read(state: PartitionState, command: cmd.Command, now: Instant) -> rep.Reply:
    """The answer to ReadStats, ReadHomes, ListItems or FindItem."""
    if isinstance(command, cmd.ListItems):
        return _page(state, command)
    if isinstance(command, cmd.FindItem):
        if state.state_of(command.item) == 0:
            return rep.Rejected(
                rep.Code.UNKNOWN_ITEM, f"item {state.partition}.{command.item} is not here (any more)", "item"
            )
        return _show_all(state, [command.item])
    if isinstance(command, cmd.ReadHomes):
        return _homes(state)
    return stats(state, now)


def _homes(state: PartitionState) -> rep.Homes:
    found = rep.Homes({}, {})
    for _, segment in sorted(state.segments.items()):
        for home, start, end in segment.stretches():
            states = segment.states[start:end]
            reserved = states.count(RESERVED)
            idle = end - start - reserved - states.count(GONE)
            first = segment.first + start
            if DEAD in states and state.leaving:
                idle -= sum(item in state.leaving for item in range(first, first + end - start))
            partition = PartitionId(home)
            if idle:
                found.idle[partition] = found.idle.get(partition, 0) + idle
            if reserved:
                found.reserved[partition] = found.reserved.get(partition, 0) + reserved
    return found


def stats(state: PartitionState, now: Instant) -> rep.PartitionStats:
    aged = state.ready + state.reserved
    return rep.PartitionStats(
        partition=PartitionId(state.partition),
        position=state.position,
        ready=state.ready,
        reserved=state.reserved,
        scheduled=state.scheduled,
        dead=len(state.dead),
        produced=state.produced,
        completed=state.completed,
        removed=state.removed,
        reservations=len(state.reservations),
        reservations_ended=state.ended,
        retried=state.retried,
        payload_bytes=state.payload_bytes,
        average_age=Duration(now - state.age_sum // aged if aged else 0),
        average_time_left=Duration(state.deadline_sum // state.reserved - now if state.reserved else 0),
        paused=state.paused,
        policy_version=state.policy.version,
        oldest_at=_oldest(state),
    )


def _oldest(state: PartitionState) -> Instant:
    head = state.line.peek()
    if head is None:
        return Instant(0)
    segment = state.segments[head[1] >> SEGMENT_BITS]
    return Instant(segment.produced[head[1] - segment.first])


def _reserved_places(state: PartitionState, pivot: int) -> Iterator[tuple[int, int]]:
    entries = sorted(
        (place, item, count)
        for reservation in state.reservations.values()
        for place, item, count in reservation.pick(None)
    )
    for place, item, count in entries:
        for offset in range(max(0, pivot - place), count):
            yield place + offset, item + offset


def _ready_places(state: PartitionState, pivot: int) -> Iterator[tuple[int, int]]:
    for place, item, count in state.line.runs(pivot):
        for offset in range(max(0, pivot - place), count):
            yield place + offset, item + offset


def _behind_places(state: PartitionState, pivot: int) -> Iterator[tuple[int, int]]:
    yield from sorted(
        (state.place_of(item), item)
        for lane in state.lanes.values()
        for item in (*(number for number, _ in lane.front), *lane.waiting)
        if state.place_of(item) >= pivot
    )


def _scheduled_places(state: PartitionState, pivot: int) -> Iterator[tuple[int, int]]:
    yield from sorted(
        (place + offset, item + offset)
        for _, place, item, count in state.schedule
        for offset in range(count)
        if place + offset >= pivot
        and state.state_of(item + offset) == SCHEDULED
        and state.place_of(item + offset) == place + offset
    )


def _page(state: PartitionState, command: cmd.ListItems) -> rep.ItemPage:
    if command.limit <= 0:
        return rep.ItemPage([])
    if command.listing is Listing.DEAD:
        chosen = sorted(item for item in state.dead if item >= command.pivot)[: command.limit]
        return _show_all(state, chosen)
    if command.listing is Listing.SCHEDULED:
        places = _scheduled_places(state, command.pivot)
    else:
        places = merge(
            _reserved_places(state, command.pivot),
            _ready_places(state, command.pivot),
            _behind_places(state, command.pivot),
        )
    return _show_all(state, [item for _, item in islice(places, command.limit)])


def _show_all(state: PartitionState, items: list[int]) -> rep.ItemPage:
    deadlines = _deadlines(state, items)
    dues = _dues(state, items)
    views = [_show(state, item, deadlines, dues) for item in items]
    return rep.ItemPage(views, [view.item for view in views if view.payload is None])


def _deadlines(state: PartitionState, items: list[int]) -> dict[int, tuple[int, str]]:
    wanted = dict.fromkeys(item for item in items if state.state_of(item) == RESERVED)
    if not wanted:
        return {}
    return {
        number: (reservation.deadline, reservation.session)
        for reservation in state.reservations.values()
        for _, item, count in reservation.pick(None)
        for number in range(item, item + count)
        if number in wanted
    }


def _dues(state: PartitionState, items: list[int]) -> dict[int, int]:
    wanted = dict.fromkeys(item for item in items if state.state_of(item) == SCHEDULED)
    if not wanted:
        return {}
    return {
        item + offset: due
        for due, place, item, count in state.schedule
        for offset in range(count)
        if item + offset in wanted and state.place_of(item + offset) == place + offset
    }


def _show(
    state: PartitionState, item: int, deadlines: dict[int, tuple[int, str]], dues: dict[int, int]
) -> rep.ItemView:
    segment = state.segments[item >> SEGMENT_BITS]
    offset = item - segment.first
    deadline, session = deadlines.get(item, (0, ""))
    payload = None if segment.payloads is None else segment.payloads[offset]
    attributes = {
        name: column[offset] for name, column in (segment.columns or {}).items() if column[offset] is not None
    }
    return rep.ItemView(
        item=ItemNumber(item),
        place=Place(state.place_of(item)),
        state=STATE_NAMES[segment.states[offset]],
        attempts=state.attempt_of(item),
        produced_at=Instant(segment.produced[offset]),
        expires_at=Instant(segment.expires[offset] if segment.expires is not None else 0),
        due_at=Instant(dues.get(item, 0)),
        deadline=Instant(deadline),
        payload=payload,
        attributes=attributes,
        reason=state.dead[item][0] if item in state.dead else "",
        session=session,
        home=PartitionId(segment.home_of(offset)),
    )
