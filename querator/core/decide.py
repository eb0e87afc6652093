"""decide: what a command makes happen. It never changes the state: it returns events and an answer.

``decide(state, command, now)`` is called with a state that has seen every earlier decision, so the
commands of one turn see each other. The caller evolves the events at once and sends the answer when
the record they are in is committed.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final, TypeAlias

import attrs

from querator.core import commands as cmd
from querator.core import events as ev
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.evolve import find_reserved
from querator.core.ids import NEVER, Instant, ItemNumber, PartitionId, Place, ReservationNumber, SessionId
from querator.core.limits import (
    BATCH_ITEMS_MAX,
    HOMEWARD_ITEMS_MAX,
    IMPORT_ITEMS_MAX,
    REQUEST_ITEMS_MAX,
    SEND_BACK_ITEMS_MAX,
    TURN_DUE_ITEMS_MAX,
)
from querator.core.policy import Ordering, encode_policy
from querator.core.replies import Code, Rejected
from querator.core.segments import DEAD, GONE, RESERVED, SCHEDULED, SEGMENT_BITS
from querator.core.settled import MIXED
from querator.core.state import OPEN, PartitionState, Reservation
from querator.core.views import read

Decision: TypeAlias = "tuple[Sequence[ev.Event], rep.Reply]"

_NO_EVENTS: Final[tuple[ev.Event, ...]] = ()

# A lookup in an enumeration's class takes as long as the rest of a settlement's first lines.
_COMPLETE: Final = Verb.COMPLETE
_EXTEND: Final = Verb.EXTEND
_DEAD_OF_VERB: Final = {Verb.RETRY: "retried", Verb.DEAD: "dead", Verb.ENDED: "ended"}
ATTEMPTS_REASON: Final = "attempts_exhausted"


def decide(state: PartitionState, command: cmd.Command, now: Instant) -> Decision:
    """The events that the command makes, and its answer. Reserve is decided by core/reserve.py."""
    if state.policy.deleted and not isinstance(command, cmd.ReadStats | cmd.ConfirmMoves | cmd.ApplyPolicy):
        return _NO_EVENTS, Rejected(Code.UNKNOWN_QUEUE, "the queue was deleted", "queue")
    return _DECIDE[type(command)](state, command, now)


# --- produce --------------------------------------------------------------------------------------


def decide_produce(state: PartitionState, command: cmd.Produce, now: Instant) -> Decision:
    payloads = command.payloads
    count = len(payloads)
    if not count:
        return _NO_EVENTS, Rejected(Code.BATCH_EMPTY, "there must be at least one item", "payloads")
    if count > REQUEST_ITEMS_MAX:
        detail = f"{count} items are more than {REQUEST_ITEMS_MAX} in one request"
        return _NO_EVENTS, Rejected(Code.BATCH_TOO_LARGE, detail, "payloads")
    producer = command.producer
    if producer:
        known = _known_sequence(state, producer, command.sequence)
        if known is not None:
            return _NO_EVENTS, known
    attributes = command.attributes
    timeout = state.policy.expire_timeout
    expires = Instant(now + timeout) if timeout else NEVER
    due = command.due_at
    if not isinstance(due, list) and _is_plain(attributes):
        first: Any = state.next_item
        due = due if due > now else NEVER
        event = ev.ItemsProduced(first, count, due, expires, attributes, producer, command.sequence, payloads)
        return (event,), rep.Produced(state.partition, first, count)
    return _produce_attributes(state, command, now, expires)


def _known_sequence(state: PartitionState, name: str, sequence: int) -> rep.Reply | None:
    producer = state.producers.get(name)
    if producer is None:
        return None
    result = producer.results.get(sequence)
    if result is not None:
        first, new, duplicates = result
        return _produced_reply(state, first, duplicates, new + len(duplicates), repeated=True)
    if sequence <= producer.forgotten:
        return Rejected(
            Code.SEQUENCE_TOO_OLD,
            f"sequence {sequence} of this producer is older than the remembered ones",
            "sequence",
        )
    return None


def _produced_reply(
    state: PartitionState, first: int, duplicates: Sequence[tuple[int, int]], count: int, *, repeated: bool
) -> rep.Produced:
    if not duplicates:
        return rep.Produced(state.partition, ItemNumber(first), count, repeated=repeated)
    known = dict(duplicates)
    numbers: list[int] = []
    number = first
    for index in range(count):
        existing = known.get(index)
        if existing is None:
            numbers.append(number)
            number += 1
        else:
            numbers.append(existing)
    return rep.Produced(state.partition, ItemNumber(first), count, numbers, tuple(known), repeated)


_columns_of: Final[Callable[[ev.Attributes], tuple[Any, ...]]] = attrgetter(
    *(field.name for field in attrs.fields(ev.Attributes))
)


def _is_plain(attributes: ev.Attributes | None) -> bool:
    """Nothing in them is of one item alone, or may be known already."""
    return attributes is None or (
        attributes.dedupe_key is None and list not in map(type, _columns_of(attributes))
    )


def _column_fault(attributes: ev.Attributes, count: int) -> Rejected | None:
    for field in attrs.fields(ev.Attributes):
        column = getattr(attributes, field.name)
        if isinstance(column, list) and len(column) != count:
            return Rejected(
                Code.INVALID, f"the column has {len(column)} entries for {count} items", field.name
            )
    return None


def _pick_column(column: Any, indexes: list[int]) -> Any:
    return [column[index] for index in indexes] if isinstance(column, list) else column


def _slice_attributes(attributes: ev.Attributes, indexes: list[int]) -> ev.Attributes:
    return ev.Attributes(
        **{
            field.name: _pick_column(getattr(attributes, field.name), indexes)
            for field in attrs.fields(ev.Attributes)
        }
    )


def _produce_attributes(
    state: PartitionState, command: cmd.Produce, now: Instant, expires: Instant
) -> Decision:
    payloads = command.payloads
    count = len(payloads)
    attributes = command.attributes
    due = command.due_at
    if isinstance(due, list) and len(due) != count:
        return _NO_EVENTS, Rejected(Code.INVALID, f"{len(due)} times for {count} items", "enqueue_at")
    if attributes is not None:
        fault = _column_fault(attributes, count)
        if fault is not None:
            return _NO_EVENTS, fault
    duplicates: list[tuple[int, int]] = []
    indexes: list[int] | None = None
    if attributes is not None and attributes.dedupe_key is not None:
        found = _find_duplicates(state, attributes.dedupe_key, count, now)
        if isinstance(found, Rejected):
            return _NO_EVENTS, found
        if found:
            duplicates = found
            known = dict(found)
            indexes = [index for index in range(count) if index not in known]
    first = state.next_item
    reply = _produced_reply(state, first, duplicates, count, repeated=False)
    if indexes is not None:
        if not indexes and not command.producer:
            return _NO_EVENTS, reply
        payloads = [payloads[index] for index in indexes]
        if attributes is not None:
            attributes = _slice_attributes(attributes, indexes)
        if isinstance(due, list):
            due = [due[index] for index in indexes]
    # An attempt at the same moment of all: one event; else one event a stretch of equal due times.
    stretches = _stretches(due, len(payloads), now)
    made: list[ev.Event] = []
    item = first
    for number, (start, size, due_at) in enumerate(stretches):
        last = number == len(stretches) - 1
        part = attributes
        if part is not None and len(stretches) > 1:
            part = _slice_attributes(part, list(range(start, start + size)))
        made.append(
            ev.ItemsProduced(
                ItemNumber(item),
                size,
                due_at,
                expires,
                part,
                command.producer,
                command.sequence,
                payloads[start : start + size],
                0 if last else 1,
                tuple(duplicates) if last else (),
            )
        )
        item += size
    return made, reply


def _stretches(due: Instant | list[Instant], count: int, now: Instant) -> list[tuple[int, int, Instant]]:
    if not isinstance(due, list):
        return [(0, count, due if due > now else Instant(0))]
    stretches: list[tuple[int, int, Instant]] = []
    start = 0
    for index in range(1, count + 1):
        if index == count or due[index] != due[start]:
            stretches.append((start, index - start, due[start] if due[start] > now else Instant(0)))
            start = index
    return stretches or [(0, 0, Instant(0))]


def _find_duplicates(
    state: PartitionState, column: Any, count: int, now: Instant
) -> list[tuple[int, int]] | Rejected:
    keys = column if isinstance(column, list) else [column] * count
    known, oldest = state.dedupe_order.standing(now - state.policy.dedupe_window)
    floor = state.next_item if oldest is None else state.dedupe[oldest]
    found: list[tuple[int, int]] = []
    fresh: dict[str, int] = {}
    number = state.next_item
    for index, key in enumerate(keys):
        if key is None:
            number += 1
            continue
        existing = state.dedupe.get(key)
        if existing is None or existing < floor:
            existing = fresh.get(key)
        if existing is not None:
            found.append((index, existing))
        else:
            fresh[key] = number
            number += 1
    if fresh and known + len(fresh) > state.policy.dedupe_keys_max:
        return Rejected(
            Code.DEDUPE_FULL,
            f"the partition remembers {known} dedupe keys, its limit; try again later",
            "dedupe_key",
        )
    return found


# --- settle ---------------------------------------------------------------------------------------


def decide_settle(state: PartitionState, command: cmd.Settle, now: Instant) -> Decision:
    reservation = state.reservations.get(command.reservation)
    ranges = command.ranges
    verb = command.verb
    if ranges is not None:
        fault = _range_fault(ranges)
        if fault is not None:
            return _NO_EVENTS, fault
    if reservation is None or reservation.nonce != command.nonce:
        return _NO_EVENTS, _repeat(state, command)
    if verb is _EXTEND:
        return _extend(state, reservation, command, now)
    if ranges is None and reservation.marks is None and verb is _COMPLETE:
        return (ev.ItemsCompleted(command.reservation, None),), rep.Settled(reservation.count)
    wanted, done, refused = _open_parts(reservation.marks, reservation.count, ranges, verb)
    if not wanted:
        return _NO_EVENTS, rep.Settled(done, tuple(refused), repeated=bool(done))
    total = sum(count for _, count in wanted)
    part = None if total == reservation.left else tuple(wanted)
    made = settle_part(state, reservation, part, command, now)
    return made, rep.Settled(done + total, tuple(refused))


def _range_fault(ranges: ev.Ranges) -> Rejected | None:
    if len(ranges) > BATCH_ITEMS_MAX:
        return Rejected(
            Code.BATCH_TOO_LARGE, f"{len(ranges)} ranges are more than {BATCH_ITEMS_MAX}", "ranges"
        )
    end = 0
    for start, length in sorted(ranges):
        if start < end or length < 1:
            return Rejected(Code.INVALID, "ranges must be of at least one item, and apart", "ranges")
        end = start + length
    return None


def _open_parts(
    marks: Sequence[int] | None, count: int, ranges: ev.Ranges | None, verb: Verb
) -> tuple[list[tuple[int, int]], int, list[tuple[int, Code]]]:
    """(ranges still held, items already settled by this verb, refusals) of what was asked.

    ``marks``: a verb an item, ``None`` when none is settled. Who asks for all items that a reservation
    holds (``ranges`` None) is refused none.
    """
    if ranges is None:
        if marks is None:
            return [(0, count)], 0, []
        return to_ranges([index for index in range(count) if marks[index] == OPEN]), marks.count(verb), []
    if marks is None and len(ranges) == 1 and ranges[0][0] + ranges[0][1] <= count:
        return [ranges[0]], 0, []
    done = 0
    refused: list[tuple[int, Code]] = []
    held: list[int] = []
    for start, length in sorted(ranges):
        # What lies beyond the reservation is refused item by item, but not for ever.
        for index in range(start, min(start + length, max(start, count) + BATCH_ITEMS_MAX - len(refused))):
            if index >= count:
                refused.append((index, Code.UNKNOWN_ITEM))
            elif marks is None or marks[index] == OPEN:
                held.append(index)
            elif marks[index] == verb:
                done += 1
            else:
                refused.append((index, Code.RESERVATION_LOST))
    return to_ranges(held), done, refused


def to_ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers, in their order, as (first, count) ranges of consecutive ones."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][0] + ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((number, 1))
    return ranges


def settle_part(
    state: PartitionState, reservation: Reservation, part: ev.Ranges | None, command: cmd.Settle, now: Instant
) -> list[ev.Event]:
    """The events that settle this part (``None``: the rest) of a live reservation by the verb."""
    number = ReservationNumber(reservation.number)
    if command.verb is Verb.COMPLETE:
        return [ev.ItemsCompleted(number, part)]
    if command.verb is Verb.RELEASE:
        return [ev.ItemsReleased(number, part, command.reason or "client")]
    if command.verb is Verb.DEAD:
        return [ev.ItemsDied(number, part, command.reason or "dead", "dead")]
    worn, rest = split_worn(state, reservation, part)
    made: list[ev.Event] = []
    if worn:
        made.append(ev.ItemsDied(number, tuple(worn), ATTEMPTS_REASON, "retried"))
    if rest is None or rest:
        for ranges, due in _retry_times(state, reservation, rest, command.due_at, now):
            made.append(ev.ItemsRetried(number, ranges, due))
    return made


def _retry_times(
    state: PartitionState, reservation: Reservation, part: ev.Ranges | None, due_at: Instant, now: Instant
) -> list[tuple[ev.Ranges | None, Instant]]:
    """When each part is tried again. One delay for all items of the same attempt."""
    if due_at != cmd.BY_BACKOFF:
        return [(part, due_at if due_at > now else Instant(0))]
    backoff = state.policy.backoff
    if not backoff.base:
        return [(part, Instant(0))]
    if not state.attempts:
        return [(part, Instant(now + backoff.delay(1, reservation.number)))]
    by_attempt: dict[int, list[int]] = {}
    for start, count in reservation.open_ranges() if part is None else part:
        for index, (_, item, _) in zip(
            range(start, start + count), _each(reservation.pick(((start, count),))), strict=True
        ):
            by_attempt.setdefault(state.attempts.get(item, 0) + 1, []).append(index)
    return [
        (tuple(to_ranges(indexes)), Instant(now + backoff.delay(attempt, reservation.number)))
        for attempt, indexes in sorted(by_attempt.items())
    ]


def _each(runs: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return [(place + offset, item + offset, 1) for place, item, count in runs for offset in range(count)]


def split_worn(
    state: PartitionState, reservation: Reservation, part: ev.Ranges | None
) -> tuple[list[tuple[int, int]], ev.Ranges | None]:
    """(index ranges of items at their last attempt, the other ranges; ``None`` for all of the part)."""
    # A segment whose items were all settled, of this reservation too, is there no more.
    limited = state.policy.attempts_max or any(
        (segment := state.segments.get(item >> SEGMENT_BITS)) is not None
        and segment.columns is not None
        and "attempts_max" in segment.columns
        for _, item, _ in reservation.runs
    )
    if not limited:
        return [], part
    worn: list[int] = []
    rest: list[int] = []
    for start, count in reservation.open_ranges() if part is None else part:
        for index, (_, item, _) in zip(
            range(start, start + count), _each(reservation.pick(((start, count),))), strict=True
        ):
            most = state.attempts_max_of(item)
            (worn if most and state.attempts.get(item, 0) + 1 >= most else rest).append(index)
    if not worn:
        return [], part
    return to_ranges(worn), tuple(to_ranges(rest))


def _extend(state: PartitionState, reservation: Reservation, command: cmd.Settle, now: Instant) -> Decision:
    timeout = command.timeout or state.policy.reservation_timeout
    deadline = Instant(max(reservation.deadline, now + timeout))
    run_until = Instant(reservation.run_until)
    if run_until:
        run_until = Instant(max(run_until, deadline))
    return (ev.ReservationExtended(command.reservation, deadline, run_until),), rep.Extended(
        deadline, run_until
    )


def _repeat(state: PartitionState, command: cmd.Settle) -> rep.Reply:
    """The answer about a reservation that holds nothing (any more)."""
    verb, count = state.settled.look(command.reservation)
    # The nonce of a settled reservation is not kept: numbers are unique for life, and a token of an
    # uncommitted record never left this node.
    if verb == MIXED:
        return repeat(command, state.settled.marks_of(command.reservation))
    return repeat(command, bytes((verb,)) * count)


def repeat(command: cmd.Settle, marks: Sequence[int]) -> rep.Reply:
    """The answer to who settles again what ended as ``marks`` say, a verb an item."""
    if command.verb is not Verb.EXTEND:
        _, done, refused = _open_parts(marks, len(marks), command.ranges, command.verb)
        if done:
            return rep.Settled(done, tuple(refused), repeated=True)
    return Rejected(Code.RESERVATION_LOST, "the reservation ended or was never yours", "token")


def decide_settle_places(state: PartitionState, command: cmd.SettlePlaces, now: Instant) -> Decision:
    """All or nothing, by place. A retry on this door does not look at the attempts limit (CONTRACT.md 4.8).

    What goes back, or to a dead queue, does so in the order of the request: an event for each stretch of it
    that one event can say. EXTEND moves the deadline of the whole reservation that the item is in, to
    ``due_at`` or not at all.
    """
    groups: list[tuple[tuple[int, Verb, int, str], list[int]]] = []
    completed: dict[tuple[int, Verb, int, str], list[int]] = {}
    seen: dict[int, None] = {}
    for settlement in command.settlements:
        place = settlement.place
        found = None if place in seen else find_reserved(state, place)
        if found is None:
            waiting = place not in seen and state.line.find(place) is not None
            waiting = waiting or (place not in seen and _is_behind(state, place))
            return _NO_EVENTS, rep.PlaceRefused(place, Code.NOT_RESERVED if waiting else Code.UNKNOWN_ITEM)
        seen[place] = None
        reservation, index = found
        due = int(settlement.due_at) if settlement.due_at > now else 0
        key = (reservation.number, settlement.verb, due, settlement.reason)
        if groups and groups[-1][0] == key and groups[-1][1][-1] < index:
            groups[-1][1].append(index)
        elif key in completed:
            completed[key].append(index)
        else:
            groups.append((key, [index]))
            if settlement.verb is Verb.COMPLETE:
                completed[key] = groups[-1][1]
    made: list[ev.Event] = []
    left = {key[0]: state.reservations[key[0]].left for key, _ in groups}
    for (number, verb, due, reason), indexes in groups:
        part: ev.Ranges | None = tuple(to_ranges(sorted(indexes)))
        if len(indexes) == left[number] == state.reservations[number].left:
            part = None
        left[number] -= len(indexes)
        reserved = ReservationNumber(number)
        if verb is Verb.COMPLETE:
            made.append(ev.ItemsCompleted(reserved, part))
        elif verb is Verb.DEAD:
            made.append(ev.ItemsDied(reserved, part, reason or "dead", "dead"))
        elif verb is Verb.RELEASE:
            made.append(ev.ItemsReleased(reserved, part, "client"))
        elif verb is Verb.EXTEND:
            left[number] += len(indexes)
            reservation = state.reservations[number]
            if due > reservation.deadline:
                made.append(ev.ReservationExtended(reserved, Instant(due), Instant(reservation.run_until)))
        else:
            made.append(ev.ItemsRetried(reserved, part, Instant(due)))
    return made, rep.Done(len(command.settlements))


def _is_behind(state: PartitionState, place: int) -> bool:
    return any(
        state.place_of(item) == place
        for lane in state.lanes.values()
        for item in (*(number for number, _ in lane.front), *lane.waiting)
    )


# --- operators ------------------------------------------------------------------------------------


def _clear(state: PartitionState, command: cmd.Clear, now: Instant) -> Decision:
    del now
    count = 0
    count += state.ready if command.ready else 0
    count += state.scheduled if command.scheduled else 0
    count += state.reserved if command.reserved else 0
    # Items on their way to another partition stay until it has them.
    count += len(state.dead) - len(state.leaving) if command.dead else 0
    if not count:
        return _NO_EVENTS, rep.Done(0)
    event = ev.ItemsCleared(command.ready, command.scheduled, command.reserved, command.dead, command.author)
    return (event,), rep.Done(count)


def _delete(state: PartitionState, command: cmd.Delete, now: Instant) -> Decision:
    del now
    by_place: dict[int, int] = {}
    for place in command.places:
        item = _item_at(state, place)
        if item is not None:
            by_place[place] = item
    missing = [place for place in command.places if place not in by_place]
    if missing:
        by_place.update(_scheduled_at(state, dict.fromkeys(missing)))
    items = sorted(dict.fromkeys(by_place.values()))
    if not items:
        return _NO_EVENTS, rep.Done(0)
    return (ev.ItemsDeleted(tuple(to_ranges(items)), command.author),), rep.Done(len(items))


def _item_at(state: PartitionState, place: int) -> int | None:
    found = find_reserved(state, place)
    if found is not None:
        reservation, index = found
        return reservation.pick(((index, 1),))[0][1]
    return state.line.find(place)


def _scheduled_at(state: PartitionState, places: dict[Place, None]) -> dict[int, int]:
    found: dict[int, int] = {}
    for _, first, item, count in state.schedule:
        for offset in range(count):
            place = first + offset
            if (
                place in places
                and state.state_of(item + offset) == SCHEDULED
                and state.place_of(item + offset) == place
            ):
                found[place] = item + offset
    for lane in state.lanes.values():
        for item in (*(number for number, _ in lane.front), *lane.waiting):
            if state.place_of(item) in places:
                found[state.place_of(item)] = item
    return found


def _redrive(state: PartitionState, command: cmd.Redrive, now: Instant) -> Decision:
    del now
    leaving = state.leaving
    if command.items is None:
        chosen = [
            item
            for item, (reason, _, _) in state.dead.items()
            if item not in leaving and (command.reason is None or reason == command.reason)
        ][: command.items_max]
    else:
        for item in command.items:
            if item not in state.dead or item in leaving:
                return _NO_EVENTS, Rejected(
                    Code.UNKNOWN_ITEM, f"item {state.partition}.{item} is not dead here", "items"
                )
        chosen = list(dict.fromkeys(command.items))
    if not chosen:
        return _NO_EVENTS, rep.Done(0)
    # In order of death, so that those who waited longest go first.
    return (ev.ItemsRedriven(tuple(to_ranges(chosen)), command.author),), rep.Done(len(chosen))


def _send_back(state: PartitionState, command: cmd.SendBack, now: Instant) -> Decision:
    del now
    room = HOMEWARD_ITEMS_MAX - len(state.homeward)
    homes = None if command.homes is None else dict.fromkeys(command.homes)
    if command.items is None:
        most = min(command.items_max, SEND_BACK_ITEMS_MAX, room)
        chosen = list(islice(_idle(state, homes), max(most, 0)))
    else:
        chosen = list(dict.fromkeys(command.items))
        if len(chosen) > SEND_BACK_ITEMS_MAX:
            detail = f"{len(chosen)} items are more than {SEND_BACK_ITEMS_MAX} in one request"
            return _NO_EVENTS, Rejected(Code.BATCH_TOO_LARGE, detail, "items")
        for item in chosen:
            fault = _stays(state, item, homes)
            if fault:
                return _NO_EVENTS, Rejected(
                    Code.UNKNOWN_ITEM, f"item {state.partition}.{item} {fault}", "items"
                )
    if room < max(len(chosen), 1):
        return _NO_EVENTS, Rejected(
            Code.OVERLOADED, f"{len(state.homeward)} items are on their way home already; try again"
        )
    by_home: dict[int, list[int]] = {}
    for item in chosen:
        by_home.setdefault(state.home_of(item), []).append(item)
    made = [
        ev.ItemsSentBack(tuple(to_ranges(items)), PartitionId(home), command.author)
        for home, items in by_home.items()
    ]
    return made, rep.Done(len(chosen))


def _idle(state: PartitionState, homes: Container[int] | None) -> Iterator[int]:
    """The items that could be sent back to these partitions, in the order in which they came here."""
    leaving = state.leaving
    for number in sorted(state.segments):
        segment = state.segments[number]
        for home, start, end in segment.stretches():
            if homes is not None and home not in homes:
                continue
            for offset in range(start, end):
                kind = segment.states[offset]
                if kind not in (GONE, RESERVED) and (kind != DEAD or segment.first + offset not in leaving):
                    yield segment.first + offset


def _stays(state: PartitionState, item: int, homes: Container[int] | None) -> str:
    """Why an item can't be sent back; "": it can."""
    kind = state.state_of(item)
    if kind == GONE:
        return "is not here (any more)"
    if item in state.homeward:
        return "is on its way home already"
    if item in state.leaving:
        return "is on its way to a dead queue"
    if kind == RESERVED:
        return "is reserved: it is left to who holds it"
    home = state.home_of(item)
    if not home:
        return "is not known to have come from another queue"
    return "" if homes is None or home in homes else f"came from partition {home}, where nothing is sent now"


def _has_source(state: PartitionState, source: str) -> bool:
    """An item with this source id is here and not dead: what is dead has left the queue."""
    item = state.sources.get(source)
    return item is not None and item not in state.dead


def _import(state: PartitionState, command: cmd.Import, now: Instant) -> Decision:
    if not command.items:
        return _NO_EVENTS, Rejected(Code.BATCH_EMPTY, "there must be at least one item", "items")
    if len(command.items) > IMPORT_ITEMS_MAX:
        return _NO_EVENTS, Rejected(
            Code.BATCH_TOO_LARGE, f"more than {IMPORT_ITEMS_MAX} items in one import", "items"
        )
    if state.policy.ordering is Ordering.KEY and any(
        entry.reserved_until and entry.attributes.key is not None for entry in command.items
    ):
        return _NO_EVENTS, Rejected(
            Code.INVALID, "reserved items with a key can't be imported into a queue ordered by key", "items"
        )
    fresh: list[cmd.ImportedItem] = []
    places: list[Place] = []
    numbers: list[ItemNumber] = []
    seen: dict[str, None] = {}
    for entry in command.items:
        source = entry.attributes.source_id
        if isinstance(source, str) and (source in seen or _has_source(state, source)):
            places.append(Place(0))
            numbers.append(ItemNumber(0))
            continue
        if isinstance(source, str):
            seen[source] = None
        places.append(Place(state.next_place + len(fresh)))
        numbers.append(ItemNumber(state.next_item + len(fresh)))
        fresh.append(entry)
    reply = rep.Imported(places, numbers)
    if not fresh:
        return _NO_EVENTS, reply
    made: list[ev.Event] = [
        ev.ItemsProduced(
            ItemNumber(state.next_item),
            len(fresh),
            Instant(0),
            Instant(0),
            _gather(fresh),
            "",
            0,
            [entry.payload for entry in fresh],
        )
    ]
    start = 0
    for index in range(1, len(fresh) + 1):
        until = fresh[start].reserved_until
        # A run taken from the line lies within one segment.
        item = ItemNumber(state.next_item + start)
        edge = index < len(fresh) and (state.next_item + index) >> SEGMENT_BITS != item >> SEGMENT_BITS
        if index == len(fresh) or edge or fresh[index].reserved_until != until:
            if until:
                made.append(
                    ev.ItemsReserved(index - start, ItemNumber(item), SessionId(""), 0, until, Instant(0))
                )
            start = index
    del now
    return made, reply


def _gather(entries: list[cmd.ImportedItem]) -> ev.Attributes:
    columns: dict[str, Any] = {}
    for field in attrs.fields(ev.Attributes):
        values = [getattr(entry.attributes, field.name) for entry in entries]
        if field.name == "attempts":
            # A reservation counts as an attempt; what is stored are the finished ones.
            values = [
                max(0, (value or 0) - 1) if entry.reserved_until else value
                for value, entry in zip(values, entries, strict=True)
            ]
        columns[field.name] = None if all(value is None for value in values) else values
    return ev.Attributes(**columns)


def _receive(state: PartitionState, command: cmd.Receive, now: Instant) -> Decision:
    """Take over items of another partition; what was taken before is skipped."""
    count = len(command.payloads)
    last = state.inbound.get(command.source, 0)
    if command.first_move > last + 1:
        return _NO_EVENTS, Rejected(Code.INVALID, "moves must be dense", "first_move")
    skip = last + 1 - command.first_move
    if skip >= count:
        return _NO_EVENTS, rep.Done(0)
    indexes = list(range(skip, count))
    timeout = state.policy.expire_timeout
    produced = ev.ItemsProduced(
        ItemNumber(state.next_item),
        count - skip,
        Instant(0),
        Instant(now + timeout) if timeout else Instant(0),
        _slice_attributes(command.attributes, indexes),
        "",
        0,
        list(command.payloads[skip:]),
    )
    kind = ev.ItemsCameBack if command.come_back else ev.ItemsReceived
    received = kind(command.source, command.first_move + count - 1, count - skip)
    return (produced, received), rep.Done(count - skip)


def _confirm_moves(state: PartitionState, command: cmd.ConfirmMoves, now: Instant) -> Decision:
    del now
    channel = state.outbound.get(command.target)
    if channel is None or command.last_move < channel.first_move:
        return _NO_EVENTS, rep.Done(0)
    count = min(command.last_move - channel.first_move + 1, len(channel.items))
    runs = to_ranges(list(islice(channel.items, count)))
    event = ev.ItemsMoved(tuple(runs), command.target, channel.first_move + count - 1)
    return (event,), rep.Done(count)


def _give_up_moves(state: PartitionState, command: cmd.GiveUpMoves, now: Instant) -> Decision:
    del now
    channel = state.outbound.get(command.target)
    if channel is None or not channel.items:
        return _NO_EVENTS, rep.Done(0)
    items = list(islice(channel.items, TURN_DUE_ITEMS_MAX))
    return (ev.MovesGivenUp(tuple(to_ranges(items)), command.target),), rep.Done(len(items))


def _pause(state: PartitionState, command: cmd.Pause, now: Instant) -> Decision:
    del now
    return (() if state.paused else (ev.PartitionPaused(command.author),)), rep.Done()


def _resume(state: PartitionState, command: cmd.Resume, now: Instant) -> Decision:
    del now
    return ((ev.PartitionResumed(command.author),) if state.paused else ()), rep.Done()


def _apply_policy(state: PartitionState, command: cmd.ApplyPolicy, now: Instant) -> Decision:
    del now
    policy = command.policy
    if policy.version <= state.policy.version:
        return _NO_EVENTS, rep.Done(0)
    if policy.ordering is not state.policy.ordering and state.next_item > 1:
        return _NO_EVENTS, Rejected(
            Code.INVALID, "the ordering of a queue that was used can't change", "ordering"
        )
    return (ev.PolicyApplied(policy.version, encode_policy(policy), command.author),), rep.Done(1)


def _read(state: PartitionState, command: cmd.Command, now: Instant) -> Decision:
    return _NO_EVENTS, read(state, command, now)


_DECIDE: Final[dict[type, Callable[[PartitionState, Any, Instant], Decision]]] = {
    cmd.Produce: decide_produce,
    cmd.Settle: decide_settle,
    cmd.SettlePlaces: decide_settle_places,
    cmd.Clear: _clear,
    cmd.Delete: _delete,
    cmd.Redrive: _redrive,
    cmd.SendBack: _send_back,
    cmd.Import: _import,
    cmd.Receive: _receive,
    cmd.ConfirmMoves: _confirm_moves,
    cmd.GiveUpMoves: _give_up_moves,
    cmd.Pause: _pause,
    cmd.Resume: _resume,
    cmd.ApplyPolicy: _apply_policy,
    cmd.ReadStats: _read,
    cmd.ReadHomes: _read,
    cmd.ListItems: _read,
    cmd.FindItem: _read,
}
