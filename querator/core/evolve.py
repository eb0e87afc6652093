"""evolve: the only code that changes what a partition's state *is*.

Deterministic and total: it reads no clock and refuses nothing. An event that does not fit the state
is a bug or a tampered log, and fails a check, which halts the partition.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import repeat
from typing import Any, Final

from querator.core import events as ev
from querator.core import lanes
from querator.core.commands import Verb
from querator.core.ids import Instant
from querator.core.invariants import check, violated
from querator.core.limits import DEDUPE_TAKEN_OUT_MAX, SEGMENT_ITEMS
from querator.core.line import Run
from querator.core.policy import decode_policy
from querator.core.segments import BEHIND, DEAD, FILL, GONE, READY, RESERVED, SCHEDULED, SEGMENT_BITS, Segment
from querator.core.state import Outbound, PartitionState, PlaceIndex, Reservation

ATTRIBUTE_NAMES: Final = (
    "encoding",
    "kind",
    "reference",
    "headers",
    "key",
    "dedupe_key",
    "reservation_timeout",
    "attempts_max",
    "source_id",
)
"""Columns that segments keep; attempts, produced_at and expires_at have places of their own."""

INCARNATION_BITS: Final = 40
"""Items, places and reservations of incarnation ``n`` are numbered from ``n - 1`` times two to this power
on: room for 10^12 of each, and thousands of incarnations before JSON's integers end. A multiple of a
segment's size."""

_COMPLETE: Final = Verb.COMPLETE
SENT_BACK: Final = "sent_back"
"""Why an item is dead that waited when it was sent back: as long as it travels, and on if nobody takes it."""
DEAD_VERBS: Final = {"dead": Verb.DEAD, "retried": Verb.RETRY, "ended": Verb.ENDED}


def evolve(state: PartitionState, event: ev.Event) -> None:
    """Apply one event."""
    _EVOLVE[type(event)](state, event)


def fold(state: PartitionState, position: int, events: Iterable[ev.Event]) -> None:
    """Apply the events of the record at ``position``."""
    state.position = position
    for event in events:
        _EVOLVE[type(event)](state, event)


def _turn_started(state: PartitionState, event: ev.TurnStarted) -> None:
    if event.at > state.now:
        state.now = event.at
    if state.next_reservation >= state.milestones.next_at:
        state.milestones.note(state.next_reservation, state.position, event.at)


def _claimed(state: PartitionState, event: ev.Claimed) -> None:
    if event.incarnation > (state.incarnation or 1):
        # The log may have lost its end, and with it numbers that clients have seen: none of them again.
        start = (event.incarnation - 1) << INCARNATION_BITS
        state.next_item = max(state.next_item, start)
        state.next_place = max(state.next_place, start)
        state.next_reservation = max(state.next_reservation, start)
        state.part_first = 0
    state.nonce = event.nonce
    state.incarnation = event.incarnation
    state.server_identity = event.server_identity
    state.claimed_at = state.position


# --- producing ------------------------------------------------------------------------------------


def _produced(state: PartitionState, event: ev.ItemsProduced) -> None:
    count = event.count
    first = event.first_item
    if first != state.next_item:
        violated("produced items out of number")
    if count:
        _add_items(state, event)
    if event.part:
        if not state.part_first:
            state.part_first = first
        return
    whole_first = state.part_first or first
    state.part_first = 0
    if event.producer:
        state.remember_producer(
            event.producer, event.sequence, whole_first, first + count - whole_first, event.duplicates
        )


def _add_items(state: PartitionState, event: ev.ItemsProduced) -> None:
    count = event.count
    item: int = event.first_item
    place = state.next_place
    payloads = event.payloads
    attributes = event.attributes
    due = event.due_at
    expires_at = event.expires_at
    now = state.now
    position = state.position
    state.next_item = item + count
    state.next_place = place + count
    state.produced += count
    keyed = attributes is not None and attributes.key is not None and state.is_keyed
    done = 0
    while done < count:
        number = item >> SEGMENT_BITS
        segment = state.segments.get(number)
        if segment is None:
            segment = state.segments[number] = Segment(number)
        elif state.capture is not None:
            state.capture.before_write(segment)
        segment.revision = position
        start = item - segment.first
        size = count - done
        if size > 1:
            size = min(size, SEGMENT_ITEMS - (item & (SEGMENT_ITEMS - 1)))
        if size == 1:
            segment.states.append(SCHEDULED if due else READY)
            segment.produced.append(now)
        else:
            segment.states += FILL[SCHEDULED if due else READY][size]
            segment.produced.extend(repeat(now, size))
        segment.live += size
        shift = place - item
        shifts = segment.shifts
        if not shifts or shifts[-1] != shift:
            segment.shift_offsets.append(start)
            shifts.append(shift)
        origins = segment.origin_positions
        if not origins or origins[-1] != position:
            segment.origin_offsets.append(start)
            origins.append(position)
        if segment.payloads is not None:
            _keep_payloads(state, segment, payloads, done, size)
        if expires_at or segment.expires is not None:
            segment.set_expiry(start, size, expires_at)
        if attributes is not None:
            _add_attributes(state, segment, attributes, start, done, size, item)
        elif segment.columns is not None:
            segment.pad_columns()
        if due:
            segment.set_due(start, size, due)
            heappush(state.schedule, (due, place, item, size))
            state.scheduled += size
        else:
            state.age_sum += now * size if attributes is None else state.age_of(segment, start, size)
            if keyed:
                _join_lanes(state, segment, place, item, size)
            else:
                state.line.append(place, item, size)
                if segment.expires is not None:
                    state.note_expiry(segment, start, size)
        done += size
        item += size
        place += size


def _keep_payloads(
    state: PartitionState, segment: Segment, payloads: Sequence[bytes] | None, done: int, size: int
) -> None:
    """Payloads of a segment that is in memory; a fold without them leaves the segment to the log."""
    if payloads is None or segment.payloads is None:
        state.payload_bytes -= segment.payload_bytes
        segment.payload_bytes = 0
        segment.payloads = None
        return
    part = payloads if size == len(payloads) else payloads[done : done + size]
    segment.payloads += part
    length = len(part[0]) if size == 1 else sum(map(len, part))
    segment.payload_bytes += length
    state.payload_bytes += length


def _join_lanes(state: PartitionState, segment: Segment, place: int, item: int, size: int) -> None:
    """Fresh ready items of a queue ordered by key: a lane's first one goes in line, the others behind."""
    for offset in range(size):
        number = item + offset
        key = segment.value("key", number - segment.first)
        if not isinstance(key, str):
            state.line.append(place + offset, number, 1)
            state.note_expiry(segment, number - segment.first, 1)
            continue
        lane = state.lanes.get(key)
        if lane is None:
            if state.capture is not None:
                state.capture.before_lane(key)
            state.lanes[key] = lanes.Lane(head=number)
            state.line.append(place + offset, number, 1)
            state.note_expiry(segment, number - segment.first, 1)
        else:
            lanes.arrive(state, key, number)


def _slice(column: Any, done: int, size: int) -> Sequence[object]:
    if isinstance(column, list):
        return column[done : done + size]
    return [column] * size


def _add_attributes(
    state: PartitionState,
    segment: Segment,
    attributes: ev.Attributes,
    start: int,
    done: int,
    size: int,
    item: int,
) -> None:
    for name in ATTRIBUTE_NAMES:
        column = getattr(attributes, name)
        if column is not None:
            segment.set_column(name, start, _slice(column, done, size))
    segment.pad_columns()
    if attributes.produced_at is not None:
        for offset, value in enumerate(_slice(attributes.produced_at, done, size)):
            if isinstance(value, int):
                segment.produced[start + offset] = value
    if attributes.expires_at is not None:
        if segment.expires is None:
            segment.expires = type(segment.produced)("q", bytes(8 * (start + size)))
        for offset, value in enumerate(_slice(attributes.expires_at, done, size)):
            if isinstance(value, int):
                segment.expires[start + offset] = value
    if attributes.attempts is not None:
        for offset, value in enumerate(_slice(attributes.attempts, done, size)):
            if isinstance(value, int) and value:
                state.attempts[item + offset] = value
    if attributes.source_id is not None:
        for offset, value in enumerate(_slice(attributes.source_id, done, size)):
            if isinstance(value, str):
                earlier = state.sources.get(value)
                if earlier is not None:
                    state.write(earlier)
                state.sources[value] = item + offset
    if attributes.dedupe_key is not None:
        _remember_dedupe(state, _slice(attributes.dedupe_key, done, size), item)


def _remember_dedupe(state: PartitionState, keys: Sequence[object], item: int) -> None:
    """Items from ``item`` on came with these keys. One that is known (an import, or an item that moved
    here, may bring it) keeps naming the item it named first."""
    _forget_dedupe(state, item)
    known, floor = state.dedupe, state.dedupe_floor
    fresh: list[str] = []
    for offset, key in enumerate(keys):
        if isinstance(key, str) and known.get(key, -1) < floor:
            known[key] = item + offset
            fresh.append(key)
    if fresh:
        block = state.dedupe_order.open_block(state.position)
        if state.capture is not None:
            state.capture.before_dedupe(block)
        block.add(state.now, tuple(fresh), state.position)


def _forget_dedupe(state: PartitionState, item: int) -> None:
    """All that is overdue, at once; it is taken out of memory by and by. ``item``: the next to be named."""
    horizon = state.now - state.policy.dedupe_window
    order = state.dedupe_order
    known, stale = state.dedupe, state.dedupe_stale
    while order and order.blocks[0].entries[0][0] < horizon:
        if state.capture is not None:
            state.capture.before_dedupe(order.blocks[0])
        stale.append(order.forget_first(horizon))
    floor = state.dedupe_floor = known[order.blocks[0].entries[0][1][0]] if order else item
    budget = DEDUPE_TAKEN_OUT_MAX
    while stale and budget > 0:
        _, keys = stale[0].popleft()
        if not stale[0]:
            stale.popleft()
        budget -= len(keys)
        for key in keys:
            if known.get(key, floor) < floor:
                del known[key]


def _received(state: PartitionState, event: ev.ItemsReceived) -> None:
    _came_back(state, event)
    item = state.next_item - event.count
    while item < state.next_item:
        size = min(state.next_item - item, SEGMENT_ITEMS - (item & (SEGMENT_ITEMS - 1)))
        segment = state.write(item)
        segment.set_home(item - segment.first, size, event.source)
        item += size


def _came_back(state: PartitionState, event: ev.ItemsReceived | ev.ItemsCameBack) -> None:
    check(event.last_move > state.inbound.get(event.source, 0), "received moves out of number")
    state.inbound[event.source] = event.last_move


# --- reserving ------------------------------------------------------------------------------------


def take(state: PartitionState, first_item: int, count: int) -> tuple[Run, ...]:
    """Take ``count`` items off the line, from its head (or, where ``first_item`` stands elsewhere,
    from there)."""
    line = state.line
    head = line.peek()
    if head is None:
        violated("reserved items that are not in line")
    if head[1] != first_item:
        place = state.place_of(first_item)
        line.remove(place, count)
        return ((place, first_item, count),)
    if state.is_keyed:
        return _take_lanes(state, count)
    run = line.take(count)
    if run[2] == count:
        return (run,)
    runs = [run]
    left = count - run[2]
    while left:
        run = line.take(left)
        runs.append(run)
        left -= run[2]
    return tuple(runs)


def _take_lanes(state: PartitionState, count: int) -> tuple[Run, ...]:
    runs: list[Run] = []
    left = count
    while left:
        place, item, _ = run = state.line.take(1)
        runs.append(run)
        left -= 1
        key = state.key_of(item)
        if key is None:
            continue
        lanes.hold_head(state, key)
        while left:
            item = lanes.hold_next(state, key, item)
            if not item:
                break
            place = state.place_of(item)
            runs.append((place, item, 1))
            left -= 1
    return tuple(runs)


def _reserved(state: PartitionState, event: ev.ItemsReserved) -> None:
    count = event.count
    runs = take(state, event.first_item, count)
    if runs[0][1] != event.first_item:
        violated("reserved another item than the first in line")
    for _, item, size in runs:
        segment = state.write(item)
        start = item - segment.first
        if size == 1:
            segment.states[start] = RESERVED
        else:
            segment.states[start : start + size] = FILL[RESERVED][size]
    number: Any = state.next_reservation
    state.next_reservation = number + 1
    deadline = event.deadline
    run_until = event.run_until
    session = event.session
    reservation = Reservation(
        number, state.nonce, session, event.generation, runs, count, state.now, deadline, run_until
    )
    state.reservations[number] = reservation
    state.reserved += count
    state.deadline_sum += deadline * count
    state.ends.add(number, run_until or deadline)
    if session:
        held = state.by_session.get(session)
        if held is None:
            state.by_session[session] = {number: None}
        else:
            held[number] = None
    if state.place_index is not None:
        state.place_index.add(reservation)


def _extended(state: PartitionState, event: ev.ReservationExtended) -> None:
    reservation = state.reservations[event.reservation]
    if state.capture is not None:
        state.capture.before_reservation(reservation)
    state.deadline_sum += (event.deadline - reservation.deadline) * reservation.left
    reservation.deadline = event.deadline
    reservation.run_until = event.run_until
    state.ends.add(reservation.number, reservation.ends_at)


def _session_resumed(state: PartitionState, event: ev.SessionResumed) -> None:
    for number in state.by_session.get(event.session, {}):
        reservation = state.reservations[number]
        if state.capture is not None:
            state.capture.before_reservation(reservation)
        reservation.generation = event.generation


# --- settling -------------------------------------------------------------------------------------


def _completed(state: PartitionState, event: ev.ItemsCompleted) -> None:
    for _, item, count in state.take_back(event.reservation, event.ranges, _COMPLETE):
        _settle_for_good(state, item, count)
        state.finish(item, count)
        state.completed += count


def _settle_for_good(state: PartitionState, item: int, count: int) -> None:
    """Reserved items will not come back: their ages and lanes go."""
    segment = state.segments[item >> SEGMENT_BITS]
    state.age_sum -= state.age_of(segment, item - segment.first, count)
    if state.lanes:
        for number in range(item, item + count):
            key = state.key_of(number)
            if key is not None:
                lanes.let_go(state, key, 1)


def _go_back(state: PartitionState, runs: Iterable[Run], due: Instant, *, counted: bool) -> None:
    """Reserved items go back: to the tail, to their lane, or to the schedule."""
    attempts = state.attempts
    for _, item, count in runs:
        if counted:
            state.write(item)
            for number in range(item, item + count):
                attempts[number] = attempts.get(number, 0) + 1
        if state.lanes:
            _go_back_by_lane(state, item, count, due)
        elif due:
            segment = state.segments[item >> SEGMENT_BITS]
            state.age_sum -= state.age_of(segment, item - segment.first, count)
            state.to_schedule(item, count, due)
        else:
            state.to_line(item, count)


def _go_back_by_lane(state: PartitionState, item: int, count: int, due: Instant) -> None:
    for number in range(item, item + count):
        key = state.key_of(number)
        if key is not None:
            lanes.come_back(state, key, number, due)
        elif due:
            segment = state.segments[number >> SEGMENT_BITS]
            state.age_sum -= state.age_of(segment, number - segment.first, 1)
            state.to_schedule(number, 1, due)
        else:
            state.to_line(number, 1)


def _retried(state: PartitionState, event: ev.ItemsRetried) -> None:
    runs = state.take_back(event.reservation, event.ranges, Verb.RETRY)
    state.retried += sum(run[2] for run in runs)
    _go_back(state, runs, event.due_at, counted=True)


def _released(state: PartitionState, event: ev.ItemsReleased) -> None:
    runs = state.take_back(event.reservation, event.ranges, Verb.RELEASE)
    _go_back(state, runs, Instant(0), counted=False)


def _ended(state: PartitionState, event: ev.ReservationEnded) -> None:
    runs = state.take_back(event.reservation, event.ranges, Verb.ENDED)
    state.ended += 1
    _go_back(state, runs, Instant(0), counted=True)


def _died(state: PartitionState, event: ev.ItemsDied) -> None:
    attempts = state.attempts
    for _, item, count in state.take_back(event.reservation, event.ranges, DEAD_VERBS[event.verb]):
        state.write(item)
        for number in range(item, item + count):
            attempts[number] = attempts.get(number, 0) + 1
        _settle_for_good(state, item, count)
        bury(state, item, count, event.reason)


def bury(state: PartitionState, item: int, count: int, reason: str) -> None:
    """Items of one segment, out of wherever they were, are dead."""
    segment = state.write(item)
    start = item - segment.first
    segment.states[start : start + count] = FILL[DEAD][count]
    state.note_death(item, count, reason)
    target = state.policy.dead_target
    if target is not None:
        _leave(state, target, item, count)


def _leave(state: PartitionState, target: int, item: int, count: int) -> None:
    """Dead items are on their way to another partition."""
    channel = state.outbound.get(target)
    if channel is None:
        channel = state.outbound[target] = Outbound()
    channel.items.extend(range(item, item + count))
    state.leaving.update(dict.fromkeys(range(item, item + count)))


# --- time and operators ---------------------------------------------------------------------------


def _due(state: PartitionState, event: ev.ItemsDue) -> None:
    left = event.count
    schedule = state.schedule
    while left:
        due, place, item, count = schedule[0]
        heappop(schedule)
        for offset in range(count):
            number = item + offset
            if state.state_of(number) != SCHEDULED or state.place_of(number) != place + offset:
                continue
            if not left:
                heappush(schedule, (due, place + offset, number, count - offset))
                break
            left -= 1
            state.scheduled -= 1
            segment = state.segments[number >> SEGMENT_BITS]
            state.age_sum += segment.produced[number - segment.first]
            key = state.key_of(number) if state.is_keyed else None
            if key is None:
                state.to_line(number, 1)
            else:
                lanes.arrive(state, key, number)


def _remove_waiting(state: PartitionState, number: int) -> None:
    """One ready, behind or scheduled item leaves line, schedule and lane."""
    key = state.key_of(number) if state.lanes else None
    state.leave_waiting(number, 1)
    # Marked before its lane advances, so that the lane cannot find it waiting.
    segment = state.write(number)
    segment.states[number - segment.first] = DEAD
    if key is not None:
        lanes.leave(state, key, number)


def _expired(state: PartitionState, event: ev.ItemsExpired) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            _remove_waiting(state, number)
            bury(state, number, 1, "expired")


def _cleared(state: PartitionState, event: ev.ItemsCleared) -> None:
    if event.ready:
        _clear_ready(state)
    if event.scheduled:
        _clear_scheduled(state)
    if event.reserved:
        for number in list(state.reservations):
            for _, item, count in state.take_back(number, None, Verb.ENDED):
                _settle_for_good(state, item, count)
                _remove(state, item, count)
    if event.dead:
        for number in [number for number in state.dead if number not in state.leaving]:
            _remove(state, number, 1)


def _remove(state: PartitionState, item: int, count: int) -> None:
    state.write(item)
    for number in range(item, item + count):
        state.dead.pop(number, None)
    state.finish(item, count)
    state.removed += count


def _clear_ready(state: PartitionState) -> None:
    behind = [item for lane in state.lanes.values() for item in (*(i for i, _ in lane.front), *lane.waiting)]
    runs = state.line.clear()
    if state.capture is not None:
        for key in state.lanes:
            state.capture.before_lane(key)
    for lane in state.lanes.values():
        if lane.head and state.state_of(lane.head) == READY:
            lane.head = 0
        lane.front.clear()
        lane.waiting.clear()
    for _, item, count in runs:
        segment = state.segments[item >> SEGMENT_BITS]
        state.age_sum -= state.age_of(segment, item - segment.first, count)
        _remove(state, item, count)
    for item in behind:
        segment = state.segments[item >> SEGMENT_BITS]
        state.age_sum -= state.age_of(segment, item - segment.first, 1)
        state.behind -= 1
        _remove(state, item, 1)
    for key in [key for key, lane in state.lanes.items() if not lane.head and not lane.held]:
        del state.lanes[key]


def _clear_scheduled(state: PartitionState) -> None:
    schedule = sorted(state.schedule)
    for _, place, item, count in schedule:
        for offset in range(count):
            number = item + offset
            if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                _remove_waiting(state, number)
                _remove(state, number, 1)
    # A lane whose scheduled head was cleared may have sent its next item to the schedule: it stays.
    state.schedule = [
        entry
        for entry in state.schedule
        if any(state.state_of(entry[2] + o) == SCHEDULED for o in range(entry[3]))
    ]
    state.schedule.sort()


def _deleted(state: PartitionState, event: ev.ItemsDeleted) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            kind = state.state_of(number)
            check(kind != GONE, "deleted an item that is gone")
            if kind == RESERVED:
                _delete_reserved(state, number)
                continue
            if kind in (READY, BEHIND, SCHEDULED):
                _remove_waiting(state, number)
            _remove(state, number, 1)


def _delete_reserved(state: PartitionState, item: int) -> None:
    place = state.place_of(item)
    found = find_reserved(state, place)
    check(found is not None, "a reserved item without reservation")
    if found is None:
        return
    reservation, index = found
    for _, number, count in state.take_back(reservation.number, ((index, 1),), Verb.ENDED):
        _settle_for_good(state, number, count)
        _remove(state, number, count)


def find_reserved(state: PartitionState, place: int) -> tuple[Reservation, int] | None:
    """(reservation, index) of the reserved item at ``place``, if one is there and still held."""
    if state.place_index is None:
        state.place_index = PlaceIndex(state.reservations)
    found = state.place_index.find(place, state.reservations)
    if found is not None and found[0].marks is not None and found[0].marks[found[1]]:
        return None
    return found


def _redriven(state: PartitionState, event: ev.ItemsRedriven) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            segment = state.write(number)
            check(state.dead.pop(number, None) is not None, "redrove an item that is not dead")
            state.attempts.pop(number, None)
            if segment.expires is not None:
                segment.expires[number - segment.first] = 0
            state.age_sum += segment.produced[number - segment.first]
            key = state.key_of(number) if state.is_keyed else None
            if key is None:
                state.to_line(number, 1)
            else:
                lanes.arrive(state, key, number)


def _sent_back(state: PartitionState, event: ev.ItemsSentBack) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            if state.state_of(number) != DEAD:
                check(
                    state.state_of(number) in (READY, BEHIND, SCHEDULED),
                    "sent an item back that somebody has",
                )
                _remove_waiting(state, number)
                state.note_death(number, 1, SENT_BACK)
            check(number not in state.leaving, "sent an item back that is leaving")
            state.homeward[number] = None
        _leave(state, event.target, item, count)


def _moved(state: PartitionState, event: ev.ItemsMoved) -> None:
    channel = state.outbound[event.target]
    for number in _out_of_channel(state, event.target, event.runs):
        channel.first_move += 1
        _remove(state, number, 1)
    check(channel.first_move == event.last_move + 1, "moved items out of number")


def _out_of_channel(state: PartitionState, target: int, runs: ev.Runs) -> Iterator[int]:
    """The next items of the channel, which must be these, as they come out of it."""
    if state.capture is not None:
        state.capture.before_moved(target, sum(count for _, count in runs))
    channel = state.outbound[target]
    for item, count in runs:
        for number in range(item, item + count):
            check(channel.items and channel.items[0] == number, "moved items out of order")
            channel.items.popleft()
            del state.leaving[number]
            state.homeward.pop(number, None)
            yield number


def _moves_given_up(state: PartitionState, event: ev.MovesGivenUp) -> None:
    for _ in _out_of_channel(state, event.target, event.runs):
        pass


def _pruned(state: PartitionState, event: ev.ItemsPruned) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            check(number in state.dead, "pruned an item that is not dead")
            _remove(state, number, 1)


def _policy_applied(state: PartitionState, event: ev.PolicyApplied) -> None:
    state.use_policy(decode_policy(event.document))


def _paused(state: PartitionState, event: ev.PartitionPaused) -> None:
    del event
    state.paused = True


def _resumed(state: PartitionState, event: ev.PartitionResumed) -> None:
    del event
    state.paused = False


def _carried(state: PartitionState, event: ev.PayloadsCarried) -> None:
    for item, count in event.runs:
        for number in range(item, item + count):
            segment = state.write(number)
            if segment.carried is None:
                segment.carried = {}
            segment.carried[number - segment.first] = state.position


def _bucket_opened(state: PartitionState, event: ev.BucketOpened) -> None:
    state.bucket = event.bucket


def _nothing(state: PartitionState, event: ev.Event) -> None:
    """An event that only tells."""


_EVOLVE: Final[dict[type, Callable[[PartitionState, Any], None]]] = {
    ev.TurnStarted: _turn_started,
    ev.Claimed: _claimed,
    ev.ItemsProduced: _produced,
    ev.ItemsReceived: _received,
    ev.ItemsCameBack: _came_back,
    ev.ItemsReserved: _reserved,
    ev.ItemsCompleted: _completed,
    ev.ItemsRetried: _retried,
    ev.ItemsReleased: _released,
    ev.ReservationEnded: _ended,
    ev.ItemsDied: _died,
    ev.ReservationExtended: _extended,
    ev.SessionResumed: _session_resumed,
    ev.ItemsDue: _due,
    ev.ItemsExpired: _expired,
    ev.ItemsCleared: _cleared,
    ev.ItemsDeleted: _deleted,
    ev.ItemsRedriven: _redriven,
    ev.ItemsSentBack: _sent_back,
    ev.ItemsMoved: _moved,
    ev.MovesGivenUp: _moves_given_up,
    ev.ItemsPruned: _pruned,
    ev.PolicyApplied: _policy_applied,
    ev.PartitionPaused: _paused,
    ev.PartitionResumed: _resumed,
    ev.PayloadsCarried: _carried,
    ev.BucketOpened: _bucket_opened,
    ev.ClockStepped: _nothing,
    ev.LossAccepted: _nothing,
    ev.CatalogChanged: _nothing,
}
