"""Many records folded at once: what ``Everyday`` does event by event, over columns.

The line of a partition is first in, first out: whatever enters goes to its tail, and a reservation takes
from its head. So over a stretch of records that has nothing but fresh items, reservations of what is at the
head, and settlements, it is a list of *pieces* (consecutive items that are alike) and an index into it, and a
reservation is the next piece, or the next few. One look at the kind of each event, which touches a few
integers, says which piece and which reservation its row is about; all that the row says follows from these
two and its moment (swept.py).

A stretch is swept whole, or refused, and then nothing of it happened: it is folded event by event, which also
says what is wrong where something is. What was swept the state does not know yet; it is written back
(writeback.py) before anything else is folded, before a checkpoint, and when it is much. What came and went in
between leaves no trace there.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, repeat
from operator import sub
from typing import Any, Final

import attrs

from querator.analytics.everyday import Everyday, Piece
from querator.analytics.swept import WORDS_MAX, SweptRows, Words
from querator.core.commands import Verb
from querator.core.ids import Instant
from querator.core.limits import SEGMENT_ITEMS
from querator.core.line import Run
from querator.core.milestones import STRIDE
from querator.core.segments import SEGMENT_BITS
from querator.core.state import OPEN, PartitionState, Reservation, open_ranges
from querator.log.skim import COMPLETED, ENDED, PRODUCED, RELEASED, RESERVED, RETRIED, SETTLED, TURN, Skimmed

OFFSET: Final = SEGMENT_ITEMS - 1
"""The bits of an item number that say where in its segment it is."""
_WORDS: Final = {COMPLETED: "completed", RETRIED: "retried", RELEASED: "released", ENDED: "ended"}
_MARKS: Final[dict[int, int]] = {
    COMPLETED: Verb.COMPLETE,
    RETRIED: Verb.RETRY,
    RELEASED: Verb.RELEASE,
    ENDED: Verb.ENDED,
}
"""How the core marks an item of a reservation that was settled in part."""
_NOTHING: Final = array("q", (0,))
_ONE: Final = array("q", (1,))


@attrs.define
class Torn:
    """An open reservation that was settled in part."""

    place: int
    """Its index."""
    pieces: list[tuple[int, int]]
    """(index of the first item in the reservation, piece); what was settled may be missing."""
    marks: bytearray
    """A verb for each item; OPEN: none yet."""
    reservation: Reservation
    """For the state, but for the marks."""


class Refused(Exception):
    """Something here has to be folded event by event."""


class Sweep:
    """What happened in the stretches since the state was written last. It changes ``rows``, and nothing else.

    Owned by one ledger, like ``state`` and ``everyday``. Pieces and reservations are known by their index in
    the tables of ``rows``.
    """

    def __init__(self, state: PartitionState, everyday: Everyday, rows: SweptRows) -> None:
        """Raises Refused: a state like this is not swept."""
        if state.is_keyed or state.lanes or state.part_first or not _is_plain(state):
            raise Refused
        self.rows = rows
        self.tables = rows.tables
        self._everyday = everyday
        self.events = 0
        self.position = 0
        """Of the last record."""
        self.now: int = state.now
        self.nonce = state.nonce
        self.next_item: int = state.next_item
        self.next_place: int = state.next_place
        # Produced:
        self.produced: list[tuple[int, int]] = []
        """(first index, count) of pieces that are one produced batch each."""
        self.batches: list[tuple[int, int]] = []
        """(position, how many produced batches) of each record that has any."""
        # The line:
        self.queue: list[int] = []
        """Pieces in order: those before ``head`` were taken, and ``used`` items of that one. The first
        ``from_line`` are in the state's line as well; while that has more, what enters is ``behind``."""
        self.behind: list[int] = []
        self.head = 0
        self.used = 0
        self.from_line = 0
        self._line = iter(state.line.runs())
        self._line_run: Run | None = next(self._line, None)
        self._waiting = 0
        """Items in the queue, while there is something behind."""
        # Reservations:
        self.first_number: int = state.next_reservation
        self.taken: list[tuple[int, ...]] = []
        """The pieces of each."""
        self.places: list[int] = []
        """Their indexes."""
        self.open = bytearray()
        """1: it is."""
        self.generations: list[int] = []
        self.deadlines: list[int] = []
        self.run_untils: list[int] = []
        self.lifted: dict[int, tuple[int, tuple[int, ...]]] = {}
        """Older ones that were closed: number to index and pieces."""
        self.torn: dict[int, Torn] = {}
        """Open ones that were settled in part. They are not in ``open``, and some are older than all here."""
        self._torn_before: dict[int, Torn | None] = {}
        """What was there before the stretch, of those that changed in it."""
        self._torn_lifted: list[Reservation] = []
        """Of the stretch: those that the state had, and does not have any more."""
        self.milestones: list[tuple[int, int, int]] = []
        self._next_milestone = state.milestones.next_at
        # Settled:
        self.finished: list[int] = []
        """Pieces that are gone for good."""
        self.returned: list[int] = []
        """Pieces that came back."""
        self.retried = 0
        self.ended = 0
        # Rows of a stretch:
        self._row_words = bytearray()
        self._row_pieces: list[int] = []
        self._row_reservations: list[int] = []
        self._row_moments: list[int] = []

    def take(self, stretch: Skimmed, partition: int) -> bool:
        """Sweep these records, which follow; whether that could be done."""
        tables = self.tables
        try:
            self._fill_queue(sum(stretch.taken))
        except Refused:
            return False
        kept = tables.lengths(), bytes(self.open), tuple(map(len, self._growing())), self._numbers()
        self._torn_before, self._torn_lifted = {}, []
        self._row_words = bytearray()
        self._row_pieces, self._row_reservations, self._row_moments = [], [], []
        try:
            first_moment, first_piece, first_place = self._fill_tables(stretch)
            ends = self._run(stretch, first_moment, first_piece, first_place)
        except (Refused, LookupError):
            self._undo(*kept)
            return False
        count = len(stretch.counts)
        self.produced.append((first_piece, count))
        tables.ready[first_piece : first_piece + count] = tables.produced[first_piece : first_piece + count]
        self.next_item += sum(stretch.counts)
        self.now = tables.moments[-1]
        self.events += stretch.events
        self.position = stretch.positions[-1]
        self._waiting -= sum(stretch.taken)
        self.rows.add(
            partition,
            zip(stretch.positions, map(sub, ends, [0, *ends[:-1]]), strict=True),
            self._row_moments,
            self._row_words,
            self._row_pieces,
            self._row_reservations,
        )
        return True

    # --- before ------------------------------------------------------------------------------------

    def _fill_queue(self, wanted: int) -> None:
        """With what stands in line, as far as it will be taken."""
        run = self._line_run
        if run is None and self.queue is self.behind:
            return
        while run is not None and self._waiting < wanted:
            place, item, count = run
            size = min(count, wanted - self._waiting)
            self._line_run = run = (
                (place + size, item + size, count - size) if size < count else next(self._line, None)
            )
            self._waiting += size
            for piece in self._everyday.pieces(item, size):
                self.queue.append(self._add(piece, place + piece[0] - item))
        if run is None:
            self.from_line = len(self.queue)
            self.queue += self.behind
            self.behind = self.queue

    def _fill_tables(self, stretch: Skimmed) -> tuple[int, int, int]:
        """With all that needs no look at the events; where the moments, pieces and reservations begin."""
        tables = self.tables
        counts = stretch.counts
        firsts: Iterable[int] = range(self.next_item, self.next_item + len(counts))
        if sum(counts) != len(counts):
            firsts = accumulate(counts[:-1], initial=self.next_item) if counts else ()
        if stretch.firsts != list(firsts):
            raise Refused
        first_moment = len(tables.moments)
        turns = [self.now, *stretch.turns]
        tables.moments.extend(turns if sorted(turns) == turns else accumulate(turns, max))
        first_piece = len(tables.items)
        count = len(counts)
        nothing = _NOTHING * count
        tables.items += array("q", stretch.firsts)
        tables.sizes += array("q", counts)
        tables.produced += nothing
        tables.ready += nothing
        tables.first_reserved += nothing
        tables.attempts += _ONE * count
        tables.kinds += stretch.item_kinds
        tables.authors += stretch.authors
        tables.places += nothing
        taken = len(stretch.taken)
        first_place = len(tables.reservations)
        number = self.first_number + len(self.taken)
        tables.reservations += array("q", range(number, number + taken))
        tables.sessions += stretch.sessions
        tables.reserved += _NOTHING * taken
        if any(stretch.run_untils):
            ends = zip(stretch.run_untils, stretch.deadlines, strict=True)
            tables.deadlines += array("q", [until or deadline for until, deadline in ends])
        else:
            tables.deadlines += array("q", stretch.deadlines)
        self.generations += stretch.generations
        self.deadlines += stretch.deadlines
        self.run_untils += stretch.run_untils
        self.places += range(first_place, first_place + taken)
        self.open += bytes((1,)) * taken
        for position, kinds in zip(stretch.positions, stretch.kinds, strict=True):
            made = kinds.count(PRODUCED)
            if made:
                self.batches.append((position, made))
        return first_moment, first_piece, first_place

    def _growing(self) -> tuple[list[Any], ...]:
        """Lists that only grow."""
        return (
            self.queue, self.behind, self.batches, self.taken, self.places, self.generations,
            self.deadlines, self.run_untils, self.milestones, self.finished, self.returned,
        )  # fmt: skip

    def _numbers(self) -> tuple[int, ...]:
        return (
            self.head, self.used, self.next_place, self._next_milestone, self.retried, self.ended,
            len(self.lifted),
        )  # fmt: skip

    def _undo(
        self, lengths: tuple[int, int, int], is_open: bytes, sizes: tuple[int, ...], numbers: tuple[int, ...]
    ) -> None:
        """The stretch did not happen."""
        self.tables.cut(lengths)
        self.open = bytearray(is_open)
        for column, size in zip(self._growing(), sizes, strict=True):
            del column[size:]
        self.head, self.used, self.next_place, self._next_milestone, self.retried, self.ended, lifted = (
            numbers
        )
        while len(self.lifted) > lifted:
            self.lifted.popitem()
        for number, torn in self._torn_before.items():
            if torn is None:
                self.torn.pop(number, None)
            else:
                self.torn[number] = torn
        for reservation in self._torn_lifted:
            self.torn.pop(reservation.number, None)
            self._everyday.give_torn(reservation)

    # --- event by event, but a few integers each -----------------------------------------------------

    def _run(self, stretch: Skimmed, moment: int, made: int, place: int) -> list[int]:
        """Every event in order, from this moment, produced piece and reservation on; how many rows there are
        behind each record."""
        tables = self.tables
        items, sizes, produced, places = tables.items, tables.sizes, tables.produced, tables.places
        reserved, moments = tables.reserved, tables.moments
        row_word, row_piece = self._row_words.append, self._row_pieces.append
        row_reservation, row_moment = self._row_reservations.append, self._row_moments.append
        queue, taken, is_open, all_places = self.queue, self.taken, self.open, self.places
        enter, finish = self.behind.append, self.finished.extend
        first_number, first_moment = self.first_number, moment
        now = moments[moment]
        head, used, ends = self.head, self.used, list[int]()
        heads = zip(stretch.heads, stretch.taken, strict=True)
        settled = {kind: _settlements(stretch, kind) for kind in SETTLED}
        completed = settled[COMPLETED]
        completed_word = self._word("completed", "")
        pieces: tuple[int, ...]
        for position, kinds in zip(stretch.positions, stretch.kinds, strict=True):
            for kind in kinds:
                if kind == TURN:
                    moment += 1
                    now = moments[moment]
                    if first_number + len(taken) >= self._next_milestone:
                        self._note(position, stretch.turns[moment - first_moment - 1])
                    continue
                if kind == RESERVED:
                    first, count = next(heads)
                    piece = queue[head]
                    if sizes[piece] == count and items[piece] == first and not used:
                        head += 1
                        pieces = (piece,)
                    else:
                        self.head, self.used = head, used
                        pieces = self._take(first, count)
                        head, used = self.head, self.used
                    taken.append(pieces)
                    reserved[place] = now
                    where, word = place, 1
                    place += 1
                elif kind == COMPLETED:
                    number, ranges, _ = next(completed)
                    index = number - first_number
                    if ranges is None and index >= 0 and is_open[index]:
                        is_open[index] = 0
                        pieces = taken[index]
                        where = all_places[index]
                    else:
                        where, pieces = self._settle(COMPLETED, number, ranges)
                    finish(pieces)
                    word = completed_word
                elif kind == PRODUCED:
                    produced[made] = now
                    places[made] = self.next_place
                    size = sizes[made]
                    self.next_place += size
                    if size == 1 or (items[made] & OFFSET) + size <= SEGMENT_ITEMS:
                        enter(made)
                    else:
                        self._enter_in_parts(made)
                    pieces = (made,)
                    made += 1
                    where = word = 0
                else:
                    number, ranges, why = next(settled[kind])
                    where, pieces = self._settle(kind, number, ranges)
                    word = self._word(_WORDS[kind], "ready", why)
                    self._return(kind, where, pieces, now)
                for piece in pieces:
                    row_word(word)
                    row_piece(piece)
                    row_reservation(where)
                    row_moment(moment)
            ends.append(len(self._row_pieces))
        self.head, self.used = head, used
        return ends

    def _word(self, event: str, after: str, reason: str = "") -> int:
        words: Words = (event, "reserved", after, reason)
        known = self.rows.words
        index = known.get(words)
        if index is None:
            if len(known) == WORDS_MAX:
                raise Refused
            index = known[words] = len(known)
        return index

    def _note(self, position: int, at: int) -> None:
        number = self.first_number + len(self.taken)
        self.milestones.append((number, position, at))
        self._next_milestone = (number | (STRIDE - 1)) + 1

    def _enter_in_parts(self, piece: int) -> None:
        """Produced items of several segments stand in line in as many runs."""
        start, size = self.tables.items[piece], self.tables.sizes[piece]
        done = 0
        while done < size:
            count = min(size - done, SEGMENT_ITEMS - ((start + done) & OFFSET))
            self.behind.append(self._part(piece, done, count))
            done += count

    def _add(self, piece: Piece, place: int) -> int:
        """A new piece, which stands (or stood) there."""
        tables = self.tables
        item, size, attempts, produced, ready, first_reserved, kind, late = piece
        if late:
            raise Refused
        tables.items.append(item)
        tables.sizes.append(size)
        tables.produced.append(produced)
        tables.ready.append(ready)
        tables.first_reserved.append(first_reserved)
        tables.attempts.append(attempts + 1)
        tables.kinds.append(kind)
        tables.authors.append("")
        tables.places.append(place)
        return len(tables.items) - 1

    def _part(self, piece: int, start: int, size: int) -> int:
        """A piece of a piece."""
        item, _, attempts, produced, ready, first_reserved, kind, late = self.piece(piece)
        part = (item + start, size, attempts, produced, ready, first_reserved, kind, late)
        return self._add(part, self.tables.places[piece] + start)

    def piece(self, index: int) -> Piece:
        """All that tells its items apart."""
        tables = self.tables
        produced = tables.produced[index]
        return (
            tables.items[index],
            tables.sizes[index],
            tables.attempts[index] - 1,
            produced,
            tables.ready[index] or produced,
            tables.first_reserved[index],
            tables.kinds[index],
            0,
        )

    def _take(self, first: int, wanted: int) -> tuple[int, ...]:
        """So many items off the head, in pieces as large as they can be."""
        tables = self.tables
        queue = self.queue
        if tables.items[queue[self.head]] + self.used != first or wanted < 1:
            raise Refused
        found: list[tuple[int, int, int]] = []
        """(piece, start, size): the first of them; there may be more of them than are in it."""
        while wanted:
            piece = queue[self.head]
            used = self.used
            size = tables.sizes[piece] - used
            if size > wanted:
                size = wanted
                self.used = used + size
            else:
                self.head += 1
                self.used = 0
            wanted -= size
            if found and self._joins(*found[-1], piece):
                before, start, length = found[-1]
                found[-1] = (before, start, length + size)
            else:
                found.append((piece, used, size))
        return tuple(
            piece if size == tables.sizes[piece] and not start else self._part(piece, start, size)
            for piece, start, size in found
        )

    def _joins(self, piece: int, start: int, size: int, follower: int) -> bool:
        """Whether these items and the follower's are of one run, and alike."""
        tables = self.tables
        item = tables.items[follower]
        return (
            tables.items[piece] + start + size == item
            and tables.places[piece] + start + size == tables.places[follower]
            and bool(item & OFFSET)
            and self.piece(piece)[2:] == self.piece(follower)[2:]
        )

    def _settle(self, kind: int, number: int, ranges: Any) -> tuple[int, tuple[int, ...]]:
        """Items of a reservation are settled: its index, and their pieces."""
        torn = self.torn.get(number) or self._lift_torn(number)
        if torn is None:
            index = number - self.first_number
            if index < 0:
                place, pieces = self._lift(number)
            else:
                if not self.open[index]:
                    raise Refused
                place, pieces = self.places[index], self.taken[index]
            if ranges is None or ranges == ((0, sum(map(self.tables.sizes.__getitem__, pieces))),):
                if index >= 0:
                    self.open[index] = 0
                return place, pieces
            torn = self._tear(number, place, pieces)
        self._keep_torn(number)
        marks = torn.marks
        found: list[int] = []
        for start, count in open_ranges(marks) if ranges is None else ranges:
            if count < 1 or start < 0 or start + count > len(marks) or any(marks[start : start + count]):
                raise Refused
            marks[start : start + count] = bytes((_MARKS[kind],)) * count
            found += self._pick(torn.pieces, start, count)
        if OPEN not in marks:
            del self.torn[number]
        return torn.place, tuple(found)

    def _pick(self, pieces: list[tuple[int, int]], start: int, count: int) -> Iterator[int]:
        """The items of a reservation from this index on, in pieces."""
        end = start + count
        for first, piece in pieces:
            size = self.tables.sizes[piece]
            low, high = max(start, first), min(end, first + size)
            if low < high:
                yield piece if high - low == size else self._part(piece, low - first, high - low)

    def _keep_torn(self, number: int) -> None:
        """It is about to change: remember how it was before the stretch."""
        if number not in self._torn_before:
            torn = self.torn.get(number)
            self._torn_before[number] = (
                None if torn is None else attrs.evolve(torn, marks=bytearray(torn.marks))
            )

    def _tear(self, number: int, place: int, pieces: tuple[int, ...]) -> Torn:
        """This reservation, of which all is open still, is about to be settled in part."""
        self._keep_torn(number)
        index = number - self.first_number
        if index < 0:
            reservation = self._everyday.reservation(number)
        else:
            self.open[index] = 0
            reservation = self.reservation(index)
        starts = accumulate(map(self.tables.sizes.__getitem__, pieces[:-1]), initial=0)
        torn = self.torn[number] = Torn(
            place, list(zip(starts, pieces, strict=True)), bytearray(reservation.count), reservation
        )
        return torn

    def _lift_torn(self, number: int) -> Torn | None:
        """A reservation that was settled in part before."""
        if number >= self.first_number:
            return None
        reservation = self._everyday.lift_torn(number)
        if reservation is None:
            return None
        self._torn_lifted.append(reservation)
        place = self._add_reservation(
            number, reservation.session, reservation.reserved_at, reservation.ends_at
        )
        pieces: list[tuple[int, int]] = []
        for start, count in reservation.open_ranges():
            first = start
            for _, item, size in reservation.pick(((start, count),)):
                for piece in self._everyday.pieces(item, size):
                    pieces.append((first, self._add(piece, 0)))
                    first += piece[1]
        marks = bytearray(reservation.marks or b"")
        torn = self.torn[number] = Torn(place, pieces, marks, reservation)
        return torn

    def reservation(self, index: int) -> Reservation:
        """One that was made here, for the state."""
        tables = self.tables
        place = self.places[index]
        runs = self.runs(self.taken[index])
        number: Any = self.first_number + index
        return Reservation(
            number,
            self.nonce,
            tables.sessions[place],
            self.generations[index],
            tuple(runs),
            sum(size for _, _, size in runs),
            Instant(tables.reserved[place]),
            Instant(self.deadlines[index]),
            Instant(self.run_untils[index]),
        )

    def runs(self, pieces: Iterable[int]) -> list[Run]:
        """These pieces as runs."""
        tables = self.tables
        runs: list[Run] = []
        for piece in pieces:
            place, item, size = tables.places[piece], tables.items[piece], tables.sizes[piece]
            if runs:
                before = runs[-1]
                if (before[0] + before[2], before[1] + before[2]) == (place, item) and item & OFFSET:
                    runs[-1] = (before[0], before[1], before[2] + size)
                    continue
            runs.append((place, item, size))
        return runs

    def _add_reservation(self, number: int, session: str, reserved_at: int, deadline: int) -> int:
        tables = self.tables
        tables.reservations.append(number)
        tables.sessions.append(session)
        tables.reserved.append(reserved_at)
        tables.deadlines.append(deadline)
        return len(tables.reservations) - 1

    def _lift(self, number: int) -> tuple[int, tuple[int, ...]]:
        """A reservation that was open before: its index and its pieces."""
        held = self._everyday.lift(number)
        if held is None or number in self.lifted:
            raise Refused
        _, pieces, _, _, _, session, _, deadline, run_until, reserved_at = held
        place = self._add_reservation(number, session, reserved_at, run_until or deadline)
        found = self.lifted[number] = place, tuple(self._add(piece, 0) for piece in pieces)
        return found

    def _return(self, kind: int, place: int, pieces: tuple[int, ...], now: int) -> None:
        """Items of a reservation go to the tail of the line."""
        tables = self.tables
        counted = kind != RELEASED
        self.ended += kind == ENDED
        for index in pieces:
            item, size, attempts, produced, _, first_reserved, item_kind, _ = self.piece(index)
            first_reserved = first_reserved or tables.reserved[place]
            again = (item, size, attempts + counted, produced, now, first_reserved, item_kind, 0)
            back = self._add(again, self.next_place)
            self.next_place += size
            self.behind.append(back)
            self.returned.append(back)
            if kind == RETRIED:
                self.retried += size


def _is_plain(state: PartitionState) -> bool:
    """Whether fresh items go to a segment like others, or to one that is new from its first item."""
    first: int = state.next_item
    segment = state.segments.get(first >> SEGMENT_BITS)
    if segment is None:
        return not first & OFFSET or first == 1
    return segment.payloads is None and segment.expires is None


def _settlements(stretch: Skimmed, kind: int) -> Iterator[tuple[int, Any, str]]:
    settled = stretch.settled[kind]
    return iter(zip(settled.numbers, settled.ranges, settled.whys or repeat(""), strict=False))
