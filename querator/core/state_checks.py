"""What must always hold of a partition's state, in words and checks.

``check_state`` is cheap enough to run in production, at every snapshot: it compares counters.
``check_state_fully`` recomputes every derived index and looks at every item; it is for tests,
simulations and ``log verify``.
"""

from querator.core.demand import Demand
from querator.core.invariants import check
from querator.core.lanes import Lane
from querator.core.policy import Ordering
from querator.core.segments import BEHIND, DEAD, GONE, READY, RESERVED, SCHEDULED, SEGMENT_BITS, Segment
from querator.core.state import OPEN, PartitionState, Reservation

_WAITING = (READY, BEHIND)
_AGED = (READY, RESERVED, BEHIND)


def check_state(state: PartitionState) -> None:
    """Conservation: every item that was produced is in exactly one state.

    Raises:
        InvariantViolation: it is not.
    """
    waiting = state.ready + state.scheduled
    left = state.completed + state.removed
    check(
        state.produced == waiting + state.reserved + len(state.dead) + left,
        "the items of all states together are not the items produced",
    )
    check(state.behind >= 0 and state.scheduled >= 0 and state.reserved >= 0, "a count of items is negative")
    check(len(state.ends) == len(state.reservations), "not every reservation has its end in the calendar")
    check(not state.reserved or state.reservations, "items are reserved, but not by a reservation")
    check(len(state.leaving) <= len(state.dead), "more items are leaving than are dead")


def check_state_fully(state: PartitionState) -> None:
    """Everything that is derived equals what it is derived from, and every item is where its state says.

    Raises:
        InvariantViolation: something is not as it must be; the text says what.
    """
    check_state(state)
    _check_segments(state)
    _check_line(state)
    _check_reservations(state)
    _check_schedule(state)
    _check_lanes(state)
    _check_dead(state)
    _check_expiries(state)
    _check_sums(state)
    _check_memory(state)


def check_demand(state: PartitionState, demand: Demand[object]) -> None:
    """Nobody waits while items are ready, and windows count what is in flight.

    Call it after the state was matched with the demand; a partition whose payloads must be read first
    (``state.starved``), or whose waiters linger, may keep them waiting.
    """
    if not state.paused and state.starved is None and state.line.count:
        check(not demand.parked, "a request is parked while items are ready")
        for subscription in demand.waiting.values():
            check(
                subscription.linger or subscription.room <= 0,
                "a subscription with room waits while items are ready",
            )
    in_flight: dict[int, int] = {}
    for reservation in state.reservations.values():
        if reservation.holder is not None:
            in_flight[id(reservation.holder)] = in_flight.get(id(reservation.holder), 0) + reservation.left
    for subscription in demand.subscriptions.values():
        check(
            subscription.in_flight == in_flight.get(id(subscription), 0),
            "a window does not count what its subscription has in flight",
        )
        check(subscription.bytes_in_flight >= 0, "a window counts fewer than no bytes")


def _items(state: PartitionState, kind: int) -> list[int]:
    return [
        segment.first + offset
        for _, segment in sorted(state.segments.items())
        for offset, found in enumerate(segment.states)
        if found == kind
    ]


def _check_segments(state: PartitionState) -> None:
    counts = [0] * 6
    for number, segment in state.segments.items():
        check(segment.number == number, "a segment under another number")
        length = len(segment.states)
        for kind in range(6):
            counts[kind] += segment.states.count(kind)
        check(segment.live == length - segment.states.count(GONE), "a segment's count of live items is wrong")
        check(segment.live or not segment.is_full, "a segment without live items was kept")
        check(len(segment.produced) == length, "a column of another length than its segment")
        check(segment.expires is None or len(segment.expires) == length, "expiry times are missing")
        offsets = segment.home_offsets
        check(len(offsets) == len(segment.homes), "a home without beginning, or a beginning without home")
        check(list(offsets) == sorted(dict.fromkeys(offsets)), "the homes of a segment are out of order")
        for column in (segment.columns or {}).values():
            check(len(column) == length, "an optional column of another length than its segment")
        if segment.payloads is not None:
            check(len(segment.payloads) == length, "payloads of another number than items")
            check(
                all(
                    (payload is None) == (kind == GONE)
                    for payload, kind in zip(segment.payloads, segment.states, strict=True)
                ),
                "a live item without payload, or a payload that outlived its item",
            )
    check(counts[READY] == state.line.count, "the line's count is not that of the ready items")
    check(counts[BEHIND] == state.behind, "the count of items behind others is wrong")
    check(counts[RESERVED] == state.reserved, "the count of reserved items is wrong")
    check(counts[SCHEDULED] == state.scheduled, "the count of scheduled items is wrong")
    check(counts[DEAD] == len(state.dead), "the count of dead items is wrong")
    live = {item: None for kind in range(1, 6) for item in _items(state, kind)}
    check(all(item in live for item in state.attempts), "attempts of an item that is gone")
    check(all(item in live for item in state.moved), "a place of an item that is gone")


def _check_line(state: PartitionState) -> None:
    items: dict[int, None] = {}
    last = 0
    for place, item, count in state.line.runs():
        check(count > 0, "an empty run in the line")
        check(item >> SEGMENT_BITS == (item + count - 1) >> SEGMENT_BITS, "a run over the edge of a segment")
        for offset in range(count):
            check(place + offset > last, "the line is out of order")
            last = place + offset
            check(state.place_of(item + offset) == last, "an item stands in line at another than its place")
            items[item + offset] = None
    check(last < state.next_place, "a place was taken that was not given")
    check(sorted(items) == _items(state, READY), "the line holds other items than the ready ones")


def _check_reservations(state: PartitionState) -> None:
    held: dict[int, None] = {}
    by_session: dict[str, list[int]] = {}
    for number, reservation in state.reservations.items():
        check(number == reservation.number < state.next_reservation, "a reservation under another number")
        check(state.ends.get(number) == reservation.ends_at, "a reservation's end is not in the calendar")
        check(
            sum(count for _, _, count in reservation.runs) == reservation.count,
            "a reservation of another size than its runs",
        )
        check(0 < reservation.left == _open(reservation), "a reservation's count of what it holds is wrong")
        if reservation.session:
            by_session.setdefault(reservation.session, []).append(number)
        for place, item, count in reservation.pick(None):
            for offset in range(count):
                check(item + offset not in held, "an item in two reservations")
                held[item + offset] = None
                check(state.place_of(item + offset) == place + offset, "a reserved item changed its place")
                _check_found(state, reservation, place + offset)
    check(sorted(held) == _items(state, RESERVED), "reservations hold other items than the reserved ones")
    check(
        {session: sorted(numbers) for session, numbers in state.by_session.items()} == by_session,
        "the sessions' reservations are not what they hold",
    )


def _open(reservation: Reservation) -> int:
    return reservation.count if reservation.marks is None else reservation.marks.count(OPEN)


def _check_found(state: PartitionState, reservation: Reservation, place: int) -> None:
    if state.place_index is not None:
        found = state.place_index.find(place, state.reservations)
        check(found is not None and found[0] is reservation, "a reserved item is not found by its place")


def _check_schedule(state: PartitionState) -> None:
    schedule = state.schedule
    for index in range(1, len(schedule)):
        check(schedule[(index - 1) >> 1] <= schedule[index], "the schedule is not a heap")
    items: list[int] = []
    for _, place, item, count in schedule:
        for offset in range(count):
            number = item + offset
            if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                items.append(number)
    check(sorted(items) == _items(state, SCHEDULED), "the schedule holds other items than the scheduled ones")


def _check_lanes(state: PartitionState) -> None:
    behind: list[int] = []
    held: dict[str, dict[int, int]] = {}
    check(state.policy.ordering is Ordering.KEY or not state.lanes, "lanes in a queue without them")
    if state.policy.ordering is Ordering.KEY:
        for reservation in state.reservations.values():
            for _, item, count in reservation.pick(None):
                for number in range(item, item + count):
                    key = state.key_of(number)
                    if key is not None:
                        holders = held.setdefault(key, {})
                        holders[reservation.number] = holders.get(reservation.number, 0) + 1
    check(all(len(holders) == 1 for holders in held.values()), "a key with two reservations")
    check(all(key in state.lanes for key in held), "items of a key are reserved, but not of its lane")
    for key, lane in state.lanes.items():
        check(lane.held == sum(held.get(key, {}).values()), "a lane's count of held items is wrong")
        check(bool(lane.head) != bool(lane.held), "a lane has both a head and a holder, or neither")
        items = _behind(lane)
        behind += items
        check(all(state.key_of(item) == key for item in items), "an item in another key's lane")
        if lane.head:
            check(state.state_of(lane.head) in (READY, SCHEDULED), "a lane's head does not wait")
            check(state.key_of(lane.head) == key, "a head of another key's lane")
        check(
            sorted(lane.front) == lane.front or _ascending(lane), "what came back to a lane is out of order"
        )
    check(sorted(behind) == _items(state, BEHIND), "lanes hold other items than those behind others")
    for item in _items(state, READY) if state.policy.ordering is Ordering.KEY else []:
        key = state.key_of(item)
        check(key is None or state.lanes[key].head == item, "an item in line that is not its lane's head")


def _behind(lane: Lane) -> list[int]:
    return [*(item for item, _ in lane.front), *lane.waiting]


def _ascending(lane: Lane) -> bool:
    items = [item for item, _ in lane.front]
    return items == sorted(items)


def _check_dead(state: PartitionState) -> None:
    check(sorted(state.dead) == _items(state, DEAD), "the dead are other items than those in state dead")
    last = 0
    for _, at, _ in state.dead.values():
        check(at >= last, "the dead are out of order")
        last = at
    leaving = [item for channel in state.outbound.values() for item in channel.items]
    check(sorted(leaving) == sorted(state.leaving), "items are leaving through no channel, or through two")
    check(all(item in state.dead for item in leaving), "an item is leaving that is not dead")
    check(all(item in state.leaving for item in state.homeward), "an item goes home that is not leaving")
    for target, channel in state.outbound.items():
        for item in channel.items:
            check(
                item not in state.homeward or state.home_of(item) == target,
                "an item goes home by a channel that leads elsewhere",
            )


def _earliest(segment: Segment) -> int:
    return min(
        (
            at
            for at, kind in zip(segment.expires or (), segment.states, strict=segment.expires is not None)
            if at and kind in _WAITING
        ),
        default=0,
    )


def _check_expiries(state: PartitionState) -> None:
    queued = dict.fromkeys(state.expiries)
    for number, segment in state.segments.items():
        earliest = _earliest(segment)
        if earliest:
            check(0 < segment.expiry_queued <= earliest, "an item will expire unnoticed")
        if segment.expiry_queued:
            check((segment.expiry_queued, number) in queued, "a segment's expiry is not in the calendar")


def _check_sums(state: PartitionState) -> None:
    ages = sum(
        at
        for segment in state.segments.values()
        for at, kind in zip(segment.produced, segment.states, strict=True)
        if kind in _AGED
    )
    check(ages == state.age_sum, "the sum of ages is wrong")
    deadlines = sum(reservation.deadline * reservation.left for reservation in state.reservations.values())
    check(deadlines == state.deadline_sum, "the sum of deadlines is wrong")
    size = sum(segment.payload_bytes for segment in state.segments.values())
    check(size == state.payload_bytes, "the payload bytes of the segments are not those of the partition")


def _check_memory(state: PartitionState) -> None:
    keys = [key for _, names in state.dedupe_order for key in names]
    check(len(keys) == len(state.known_keys()), "dedupe keys that will never be forgotten, or twice")
    check(all(key in state.dedupe for key in keys), "a dedupe key will be forgotten that is not known")
    for source, item in state.sources.items():
        segment = state.segments.get(item >> SEGMENT_BITS)
        check(
            segment is not None and segment.value("source_id", item - segment.first) == source,
            "a source id of an item that does not have it",
        )
