"""The everyday of a partition, folded without an object for each event and without the core's whole care.

Fresh items come, go to a reservation as one run, and are completed together: that is nearly all of every log.
The ledger's state follows, but such a reservation is a tuple here, from which its completion takes all that
its row says, until an event that is not everyday may ask the state for it: then it is given to the state, by
the core's own ``evolve``. What is not everyday is left to the ledger, event by event.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, TypeAlias

from querator.analytics.rows import AnyRow
from querator.core import events as ev
from querator.core.evolve import evolve
from querator.core.ids import Instant, ItemNumber, SessionId
from querator.core.limits import SEGMENT_ITEMS
from querator.core.line import Line, Run
from querator.core.segments import FILL, GONE, NOTHINGS, READY, RESERVED, SEGMENT_BITS
from querator.core.state import PartitionState, Reservation
from querator.log.codec import Columns
from querator.log.kinds import KIND_OF, KINDS, Kind

Piece: TypeAlias = "tuple[int, int, int, int, int, int, str, int]"
"""(first item, count, attempts, produced at, ready at, first reserved at, kind, LATE or 0): alike in
all of them."""
Held: TypeAlias = "tuple[Sequence[Run], Sequence[Piece], bool, int, int, str, int, int, int, int]"
"""(runs, pieces, are they fresh, count, nonce, session, generation, deadline, run until, reserved at)."""

_KINDS: Final = {kind.number: kind for kind in KINDS}
_TURN: Final = KIND_OF[ev.TurnStarted].number
_PRODUCED: Final = KIND_OF[ev.ItemsProduced].number
_RESERVED: Final = KIND_OF[ev.ItemsReserved].number
_COMPLETED: Final = KIND_OF[ev.ItemsCompleted].number
_ASKS_NOTHING: Final = (ev.TurnStarted, ev.ItemsProduced, ev.ItemsReserved)
"""These ask the state for no reservation."""


class Everyday:
    """Folds events into ``state`` and ``rows``, of one ledger, which owns it and all three.

    ``past`` has the items that are not as they were produced; ``unusual`` folds what is not everyday;
    ``cut`` cuts a run of one segment into pieces.
    """

    def __init__(
        self,
        state: PartitionState,
        past: dict[int, Any],
        unusual: Callable[[ev.Event], None],
        cut: Callable[[int, int], Iterable[Piece]],
    ) -> None:
        self._state = state
        self._past = past
        self._unusual = unusual
        self._cut = cut
        self.held: dict[int, Held] = {}
        """Open reservations that the state does not have, by number."""
        self._is_sorted = True
        """Whether the reservations of the state are in order of their numbers."""
        self._rows: list[AnyRow] = []
        self._position = 0
        self._hot: dict[int, Callable[..., bool]] = {
            _TURN: self._turn,
            _PRODUCED: self._produce,
            _RESERVED: self._reserve,
            _COMPLETED: self._complete,
        }

    def begin(self, position: int, rows: list[AnyRow]) -> None:
        """The record at ``position`` comes; its rows go there."""
        self._position = position
        self._rows = rows

    def take_columns(self, columns: Columns, step: int) -> Iterator[None]:
        """Fold the events of a record, so many between two yields."""
        hot = self._hot
        feeds: dict[int, Iterator[Any]] = {}
        handlers: dict[int, Callable[..., bool] | None] = {}
        for number, table in columns.tables.items():
            kind = _KINDS[number]
            handlers[number] = hot.get(number)
            feeds[number] = (
                zip(*kind.positional(table))  # noqa: B905 - some are without end
                if number in hot
                else map(kind.event, *kind.positional(table))
            )
        kinds = columns.kinds
        for start in range(0, len(kinds), step):
            for number in kinds[start : start + step]:
                handler = handlers[number]
                values = next(feeds[number])
                if handler is None:
                    self.take_unusual(values)
                elif not handler(*values):
                    self.take_unusual(_KINDS[number].event(*values))
            yield

    def take_events(self, events: list[ev.Event]) -> None:
        """Fold events that are objects already."""
        hot = self._hot
        for event in events:
            kind: Kind = KIND_OF[type(event)]
            handler = hot.get(kind.number)
            if handler is None or not handler(*[getattr(event, name) for name in kind.arguments]):
                self.take_unusual(event)

    def take_unusual(self, event: ev.Event) -> None:
        """Give the state what this event may ask it for, and have it folded."""
        if self.held:
            number = getattr(event, "reservation", None)
            if number is not None:
                self._give(number)
            elif not isinstance(event, _ASKS_NOTHING):
                self.give_all()
        self._unusual(event)

    # --- what is everyday; False: it is not, and nothing was done -----------------------------------

    def _turn(self, at: int) -> bool:
        state = self._state
        if state.next_reservation >= state.milestones.next_at:
            return False
        if at > state.now:
            state.now = Instant(at)
        return True

    def _produce(
        self,
        first: int,
        count: int,
        due: int,
        expires_at: int,
        attributes: ev.Attributes | None,
        producer: str,
        sequence: int,
        payloads: object,
        part: int,
        duplicates: object,
    ) -> bool:
        del expires_at, sequence, payloads, duplicates
        state = self._state
        segment = state.segments.get(first >> SEGMENT_BITS)
        if (
            segment is None
            or due
            or part
            or state.part_first
            or state.is_keyed
            or segment.payloads is not None
            or segment.expires is not None
            or first != state.next_item
            or not count
            or (first & (SEGMENT_ITEMS - 1)) + count > SEGMENT_ITEMS
        ):
            return False
        columns = segment.columns
        kind: Any = ""
        if attributes is not None:
            if attributes.key is not None or attributes.attempts is not None:
                return False
            kind = attributes.kind
            if kind is None:
                kind = ""
            elif type(kind) is not str:
                return False
        if columns is not None:
            column = columns.get("kind")
            if column is None or len(columns) > 1:
                return False
            if count == 1:
                column.append(kind or None)
            else:
                column += [kind or None] * count
        elif kind:
            return False
        start = first - segment.first
        now = state.now
        position = self._position
        if count == 1:
            segment.states.append(READY)
            segment.produced.append(now)
        else:
            segment.states += FILL[READY][count]
            segment.produced.extend(repeat(now, count))
        segment.live += count
        segment.revision = position
        place = state.next_place
        shift = place - first
        if segment.shifts[-1] != shift:
            segment.shift_offsets.append(start)
            segment.shifts.append(shift)
        if segment.origin_positions[-1] != position:
            segment.origin_offsets.append(start)
            segment.origin_positions.append(position)
        state.next_item = first + count
        state.next_place = place + count
        state.produced += count
        state.age_sum += now * count
        state.line.append(place, first, count)
        rows = self._rows
        rows.append((state.partition, position, len(rows), now, first, count, kind, producer))
        return True

    def _reserve(
        self, count: int, first: int, session: str, generation: int, deadline: int, run_until: int
    ) -> bool:
        state = self._state
        line = state.line
        head = line.peek()
        if head is None or head[1] != first or state.is_keyed or state.lanes:
            return False
        number: Any = state.next_reservation
        now = state.now
        runs = [line.take(count)]
        left = count - runs[0][2]
        while left:
            runs.append(line.take(left))
            left -= runs[-1][2]
        pieces: list[Piece] = []
        are_fresh = True
        for _, item, size in runs:
            are_fresh = self._add_pieces(item, size, pieces) and are_fresh
        state.next_reservation = number + 1
        self.held[number] = (
            runs, pieces, are_fresh, count, state.nonce, session, generation, deadline, run_until, now,
        )  # fmt: skip
        rows = self._rows
        partition, position = state.partition, self._position
        until = run_until or deadline
        for piece in pieces:
            item, size, attempts, produced_at, ready_at, earlier, kind, late = piece
            if are_fresh or _is_short(piece):
                rows.append(
                    (
                        partition, position, len(rows), now, item, size, number, session, 1, produced_at,
                        until, kind,
                    )
                )  # fmt: skip
                continue
            rows.append(
                (
                    partition, position, len(rows), now, "reserved", item, size,
                    "scheduled" if late else "ready", "reserved", number, session, attempts + 1,
                    produced_at, ready_at, earlier or now, now, until, 0, "", kind, "", "", 0,
                )
            )  # fmt: skip
            if late:
                for offset in range(size):
                    self._past[item + offset] = (*self._past[item + offset][:2], 0)
        return True

    def pieces(self, item: int, size: int) -> list[Piece]:
        """The pieces of a run of one segment."""
        found: list[Piece] = []
        self._add_pieces(item, size, found)
        return found

    def _add_pieces(self, item: int, size: int, pieces: list[Piece]) -> bool:
        """Add the pieces of a run of one segment; whether they are fresh."""
        if self._fresh_piece(item, size, pieces):
            return True
        pieces += self._cut(item, size)
        return self._past.keys().isdisjoint(range(item, item + size))

    def _fresh_piece(self, item: int, size: int, pieces: list[Piece]) -> bool:
        """Whether these items are fresh and alike; then they are added to the pieces."""
        past = self._past
        segment = self._state.segments[item >> SEGMENT_BITS]
        start = item - segment.first
        at = segment.produced[start]
        kinds = None if segment.columns is None else segment.columns.get("kind")
        kind: Any = "" if kinds is None else kinds[start]
        if size == 1:
            if item in past:
                return False
        else:
            end = start + size
            if (
                segment.produced[end - 1] != at
                or (past and not past.keys().isdisjoint(range(item, item + size)))
                or (kinds is not None and kinds[start:end].count(kind) != size)
            ):
                return False
        pieces.append((item, size, 0, at, at, 0, kind if type(kind) is str else "", 0))
        return True

    def _complete(self, number: int, ranges: object) -> bool:
        if ranges is not None:
            return False
        held = self.held.pop(number, None)
        if held is None:
            return False
        runs, pieces, are_fresh, count, _, session, _, _, _, reserved_at = held
        state = self._state
        position = self._position
        rows = self._rows
        partition, now = state.partition, state.now
        for piece in pieces:
            item, size, attempts, produced_at, ready_at, earlier, kind, _ = piece
            state.age_sum -= produced_at * size
            if are_fresh or _is_short(piece):
                rows.append(
                    (
                        partition, position, len(rows), now, item, size, number, session, produced_at,
                        reserved_at, kind,
                    )
                )  # fmt: skip
                continue
            rows.append(
                (
                    partition, position, len(rows), now, "completed", item, size, "reserved", "", number,
                    session, attempts + 1, produced_at, ready_at, earlier or reserved_at, reserved_at, 0, 0,
                    "", kind, "", "", 0,
                )
            )  # fmt: skip
        for _, item, size in runs:
            if are_fresh:
                self.finish(item, size)
                continue
            state.finish(item, size)
            for gone in range(item, item + size):
                self._past.pop(gone, None)
        state.completed += count
        return True

    def finish(self, item: int, count: int) -> None:
        """Fresh items of one segment are gone for good."""
        state = self._state
        segment = state.segments[item >> SEGMENT_BITS]
        start = item - segment.first
        columns = segment.columns
        if count == 1:
            segment.states[start] = GONE
            if columns is not None:
                for column in columns.values():
                    column[start] = None
        else:
            segment.states[start : start + count] = FILL[GONE][count]
            if columns is not None:
                for column in columns.values():
                    column[start : start + count] = NOTHINGS[count]
        segment.live -= count
        segment.revision = self._position
        if not segment.live and segment.is_full:
            del state.segments[segment.number]

    # --- giving reservations to the state ----------------------------------------------------------

    def _give(self, number: int) -> None:
        held = self.held.pop(number, None)
        if held is None:
            return
        runs, _, _, count, nonce, session, generation, deadline, run_until, reserved_at = held
        state = self._state
        kept = state.line, state.next_reservation, state.now, state.nonce
        state.line = Line()
        for run in runs:
            state.line.append(*run)
        state.next_reservation, state.now, state.nonce = number, Instant(reserved_at), nonce
        first = ItemNumber(runs[0][1])
        until = Instant(deadline), Instant(run_until)
        try:
            evolve(state, ev.ItemsReserved(count, first, SessionId(session), generation, *until))
        finally:
            state.line, state.next_reservation, state.now, state.nonce = kept
        self._is_sorted = False

    def give_all(self) -> None:
        """From here on the state has every reservation, in order of their numbers."""
        for number in list(self.held):
            self._give(number)
        if not self._is_sorted:
            self._state.reservations = dict(sorted(self._state.reservations.items()))
            self._is_sorted = True

    def reservation(self, number: int) -> Reservation:
        """One that is held, for the state."""
        runs, _, _, count, nonce, session, generation, deadline, run_until, reserved_at = self.held[number]
        named: Any = number
        until = Instant(deadline), Instant(run_until)
        return Reservation(
            named, nonce, session, generation, tuple(runs), count, Instant(reserved_at), *until
        )

    def give_torn(self, reservation: Reservation) -> None:
        """From here on the state has this reservation, which was settled in part."""
        state = self._state
        number = reservation.number
        state.reservations[number] = reservation
        if reservation.session:
            state.by_session.setdefault(reservation.session, {})[number] = None
        self._count_torn(reservation, 1, RESERVED)
        self._is_sorted = False

    def lift_torn(self, number: int) -> Reservation | None:
        """A reservation that was settled in part, which the state has no more; ``None``: there is none."""
        state = self._state
        reservation = state.reservations.get(number)
        if reservation is None or reservation.marks is None:
            return None
        self._count_torn(reservation, -1, READY)
        state.drop_reservation(reservation)
        return reservation

    def _count_torn(self, reservation: Reservation, sign: int, item_state: int) -> None:
        state = self._state
        state.reserved += sign * reservation.left
        state.deadline_sum += sign * reservation.deadline * reservation.left
        for _, item, size in reservation.pick(None):
            segment = state.segments[item >> SEGMENT_BITS]
            start = item - segment.first
            segment.states[start : start + size] = FILL[item_state][size]

    def lift(self, number: int) -> "Held | None":
        """An open reservation, of which the state has nothing any more; ``None``: it is not there, or was
        settled in part."""
        held = self.held.get(number)
        if held is not None:
            return held
        state = self._state
        reservation = state.reservations.get(number)
        if reservation is None or reservation.marks is not None:
            return None
        pieces: list[Piece] = []
        are_fresh = True
        for _, item, size in reservation.runs:
            are_fresh = self._add_pieces(item, size, pieces) and are_fresh
            segment = state.segments[item >> SEGMENT_BITS]
            start = item - segment.first
            segment.states[start : start + size] = FILL[READY][size]
        count, deadline = reservation.count, reservation.deadline
        state.reserved -= count
        state.deadline_sum -= deadline * count
        state.drop_reservation(reservation)
        held = self.held[number] = (
            reservation.runs, pieces, are_fresh, count, reservation.nonce, reservation.session,
            reservation.generation, deadline, reservation.run_until, reservation.reserved_at,
        )  # fmt: skip
        return held


def _is_short(piece: Piece) -> bool:
    """Whether the row of these items is a short one: their first attempt, and ready since they came."""
    return not piece[2] and piece[4] == piece[3] and not piece[5] and not piece[7]
