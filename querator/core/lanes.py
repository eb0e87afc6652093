"""Lanes: order by key. Of each key only the head is in the line; the others stand behind it.

A lane is in one of three conditions: its head waits (in the line, or scheduled after a failure);
items of it are held by one reservation; or it is empty and forgotten. So at most one reservation
holds items of a key, and a failed head holds back its own key and no other.
"""

from collections import deque
from typing import TYPE_CHECKING

import attrs

from querator.core.segments import BEHIND, FILL, SEGMENT_BITS

if TYPE_CHECKING:
    from querator.core.state import PartitionState


@attrs.define
class Lane:
    """The items of one key that are not settled."""

    head: int = 0
    """The item that stands in the line (or is scheduled) for the lane; 0: none."""
    held: int = 0
    """Items of the lane that a reservation holds."""
    ranks: dict[int, int] | None = None
    """Of the items a reservation took, where it took several: their order in the lane."""
    front: list[tuple[int, int]] = attrs.Factory(list)
    """(item, due at) that came back and go before everything that waits, in the order they had."""
    waiting: deque[int] = attrs.Factory(deque)


def _before_change(state: "PartitionState", key: str) -> None:
    if state.capture is not None:
        state.capture.before_lane(key)


def _set_behind(state: "PartitionState", item: int) -> None:
    segment = state.write(item)
    start = item - segment.first
    segment.states[start : start + 1] = FILL[BEHIND][1]
    state.behind += 1
    state.note_expiry(segment, start, 1)


def arrive(state: "PartitionState", key: str, item: int) -> None:
    """A ready item of ``key`` joins its lane; the caller has counted its age."""
    _before_change(state, key)
    lane = state.lanes.get(key)
    if lane is None:
        state.lanes[key] = Lane(head=item)
        state.to_line(item, 1)
    elif lane.head == item:
        # The head was scheduled after a failure, and is due.
        state.to_line(item, 1)
    else:
        lane.waiting.append(item)
        _set_behind(state, item)


def hold_head(state: "PartitionState", key: str) -> None:
    """The lane's head was taken from the line into a reservation."""
    _before_change(state, key)
    lane = state.lanes[key]
    lane.head = 0
    lane.held = 1
    lane.ranks = None


def hold_next(state: "PartitionState", key: str, last: int) -> int:
    """Take the successor of ``last``, the one taken before, into the same reservation; 0 when there is
    none that may go now."""
    item = peek_next(state, key, 0, state.now)
    if not item:
        return 0
    _before_change(state, key)
    lane = state.lanes[key]
    if lane.ranks is None:
        lane.ranks = {last: 0}
    lane.ranks[item] = len(lane.ranks)
    if lane.front:
        lane.front.pop(0)
    else:
        lane.waiting.popleft()
    lane.held += 1
    state.behind -= 1
    return item


def peek_next(state: "PartitionState", key: str, skip: int, now: int) -> int:
    """The successor that ``hold_next`` would give at ``now`` after ``skip`` more of them; 0: none."""
    lane = state.lanes[key]
    front = lane.front
    if skip < len(front):
        item, due = front[skip]
        if any(earlier > now for _, earlier in front[:skip]):
            return 0
        return item if due <= now else 0
    skip -= len(front)
    if any(due > now for _, due in front):
        return 0
    return lane.waiting[skip] if skip < len(lane.waiting) else 0


def come_back(state: "PartitionState", key: str, item: int, due: int) -> None:
    """A held item goes back to the front of its lane, to be tried again not before ``due``."""
    _before_change(state, key)
    lane = state.lanes[key]
    lane.held -= 1
    front = lane.front
    index = 0
    ranks = lane.ranks
    if ranks is not None and front:
        # Behind those of its reservation that went before it; what the reservation left here comes later.
        rank = ranks[item]
        index = len(front)
        while index and ranks.get(front[index - 1][0], len(ranks)) > rank:
            index -= 1
    front.insert(index, (item, due))
    _set_behind(state, item)
    advance(state, key, lane)
    if lane.head != item:
        state.renew_place(item)


def let_go(state: "PartitionState", key: str, count: int) -> None:
    """Held items of the lane are settled for good."""
    _before_change(state, key)
    lane = state.lanes[key]
    lane.held -= count
    advance(state, key, lane)


def leave(state: "PartitionState", key: str, item: int) -> None:
    """A waiting item of the lane left otherwise (expired, cleared, deleted)."""
    lane = state.lanes.get(key)
    if lane is None:
        return
    _before_change(state, key)
    if lane.head == item:
        lane.head = 0
        advance(state, key, lane)
        return
    for index, (other, _) in enumerate(lane.front):
        if other == item:
            del lane.front[index]
            break
    else:
        if item in lane.waiting:
            lane.waiting.remove(item)
    advance(state, key, lane)


def advance(state: "PartitionState", key: str, lane: Lane) -> None:
    """When nothing of the lane is held or in line, its next item steps up."""
    if lane.head or lane.held:
        return
    if lane.front:
        item, due = lane.front.pop(0)
        lane.head = item
        state.behind -= 1
        if due > state.now:
            segment = state.segments[item >> SEGMENT_BITS]
            state.age_sum -= state.age_of(segment, item - segment.first, 1)
            state.to_schedule(item, 1, due)
        else:
            state.to_line(item, 1)
    elif lane.waiting:
        item = lane.waiting.popleft()
        lane.head = item
        state.behind -= 1
        state.to_line(item, 1)
    else:
        del state.lanes[key]
