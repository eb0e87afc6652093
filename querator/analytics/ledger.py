"""The ledger: the fold of a partition that says which items each event was about.

Events of the log name reservations and counts, not items: which items were reserved, settled or came
due follows from the fold. So the ledger keeps a core state without payloads, lets the core evolve it,
and reads from it, around each event, the runs of items concerned and what is known of them. One
Python object an event or a run, never one an item (but for items that came back: as in the core).

What is not needed to tell items apart is left out of the fold: payloads, producers' results, expiries,
dedupe keys, the memory of settlements.
"""

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from querator.analytics.everyday import Everyday, Piece
from querator.analytics.rows import AnyRow, Row, RowBuffer, full_row
from querator.analytics.sweep import Refused, Sweep
from querator.analytics.swept import SweptRows
from querator.analytics.writeback import write_back
from querator.core import events as ev
from querator.core.deadlines import Deadlines
from querator.core.evolve import evolve
from querator.core.ids import NEVER, PartitionId, Position
from querator.core.invariants import InvariantViolation, check
from querator.core.limits import EXPORT_STRETCH_EVENTS, EXPORT_SWEEP_EVENTS
from querator.core.loading import load
from querator.core.segments import BEHIND, DEAD, GONE, READY, RESERVED, SCHEDULED, SEGMENT_BITS
from querator.core.settled import SettledMemory
from querator.core.snapshot import encode_head, encode_segment
from querator.core.state import PartitionState, Reservation
from querator.errors import CorruptRecord
from querator.log.codec import GENESIS, check_chain, check_record, decode_columns, name_of, tail_of
from querator.log.records import Record, Tail
from querator.log.skim import Skimmed
from querator.log.small import decode_small

VERSION: Final = 1
_STEP_EVENTS: Final = 64
_PAUSE_MAX: Final = 64
"""Where sweeping never succeeds, trying costs a hundredth or so."""

_NEEDLESS: Final = tuple(
    field.name for field in attrs.fields(ev.Attributes) if field.name not in ("kind", "key", "attempts")
)
"""Attributes of items that no row needs."""

_STATE_WORDS: Final = {
    GONE: "",
    READY: "ready",
    BEHIND: "ready",
    RESERVED: "reserved",
    SCHEDULED: "scheduled",
    DEAD: "dead",
}
Past: TypeAlias = "tuple[int, int, int]"
"""(ready at, first reserved at, LATE or 0) of an item that is not as it was produced."""
LATE: Final = 1
"""The item was told to be scheduled, and will be ready without an event: it waits in a busy lane."""


class _Forgetful(SettledMemory):
    """Repeats are not answered here."""

    __slots__ = ()

    def remember(self, reservation: int, verb: int, count: int) -> None:
        del reservation, verb, count

    def remember_mixed(self, reservation: int, marks: bytearray) -> None:
        del reservation, marks


class _NoDeadlines(Deadlines):
    """Reservations end by events here, not by time."""

    __slots__ = ()

    def add(self, key: int, at: int) -> None:
        del key, at

    def discard(self, key: int) -> None:
        del key


@attrs.define
class _Checkpoint:
    version: int
    position: int
    hash: bytes
    nonce: int
    head: bytes
    segments: list[bytes]
    past: dict[int, Past]


_DECODER: Final = msgspec.msgpack.Decoder(_Checkpoint)


class CheckpointUnreadable(Exception):
    """These bytes are no checkpoint of a known version: fold the log from its beginning."""


class Ledger:
    """Folds the records of one partition, in order, into rows."""

    def __init__(self, partition: PartitionId) -> None:
        self.partition = partition
        self.tail: Tail | None = None
        """Of the last record folded."""
        self._state = PartitionState(partition)
        self._past: dict[int, Past] = {}
        self._rows: list[AnyRow] = []
        self._position = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            event: getattr(self, name) for event, name in _HANDLERS.items()
        }
        self._spare_state()

    def _spare_state(self) -> None:
        self._state.settled = _Forgetful()
        self._state.ends = _NoDeadlines()
        self._everyday = Everyday(self._state, self._past, self._take_unusual, self._pieces)
        self._sweep: Sweep | None = None
        self._pause = 0
        """So many records are folded event by event before sweeping is tried again."""
        self._pause_next = 1

    @property
    def position(self) -> Position:
        """Of the last record folded; 0: none."""
        return Position(0) if self.tail is None else self.tail.position

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The ledger as bytes. Costs as much as there are live items."""
        self._write_back()
        self._everyday.give_all()
        state = self._state
        tail = self.tail
        for segment in state.segments.values():
            segment.revision = 0  # when it changed last is for snapshots, and depends on the way of folding
        packed = msgspec.msgpack.encode(
            _Checkpoint(
                VERSION,
                0 if tail is None else tail.position,
                GENESIS if tail is None else tail.hash,
                0 if tail is None else tail.nonce,
                encode_head(state),
                [encode_segment(segment) for segment in state.segments.values()],
                dict(sorted(self._past.items())),
            )
        )
        return zlib.compress(packed, 1)

    @classmethod
    def restore(cls, partition: PartitionId, data: bytes) -> "Ledger":
        """The ledger that ``checkpoint`` packed.

        Raises:
            CheckpointUnreadable: it cannot be read, or is of another version.
        """
        ledger = cls(partition)
        try:
            stored = _DECODER.decode(zlib.decompress(data))
            if stored.version != VERSION:
                raise CheckpointUnreadable(f"a checkpoint of version {stored.version}")
            ledger._state = load(partition, stored.head, stored.segments)
        except CheckpointUnreadable:
            raise
        except Exception as error:  # whatever is wrong with these bytes, the log can be folded instead
            raise CheckpointUnreadable(f"not a checkpoint: {error}") from error
        ledger._past = stored.past
        ledger._spare_state()
        if stored.position:
            ledger.tail = Tail(Position(stored.position), stored.hash, stored.nonce)
        return ledger

    # --- folding ----------------------------------------------------------------------------------

    def fold(self, record: Record) -> list[Row]:
        """The rows of the next record.

        Raises:
            CorruptRecord: it does not follow the last one, or is not what was written.
        """
        for _ in self.folding(record):
            pass
        return self.rows

    @property
    def rows(self) -> list[Row]:
        """Of the record folded last."""
        return list(map(full_row, self._rows))

    @property
    def short_rows(self) -> list[AnyRow]:
        """The same, as a ``RowBuffer`` takes them."""
        return self._rows

    def folding(self, record: Record) -> Iterator[None]:
        """The same in steps: each is a few hundred microseconds; the last leaves ``rows`` and ``short_rows``.

        To be gone through to its end; a ledger that was left in the middle of a record is of no use.
        """
        self._check(record, self.tail)
        self._write_back()
        self._rows = []
        self._position = record.position
        self._state.position = record.position
        everyday = self._everyday
        everyday.begin(record.position, self._rows)
        try:
            events = decode_small(record.events)
            if events is None:
                yield from everyday.take_columns(decode_columns(record.events), _STEP_EVENTS)
            else:
                everyday.take_events(events)
        except InvariantViolation as error:
            raise CorruptRecord(f"{name_of(record)} has an event that does not fit: {error}") from error
        self.tail = tail_of(record)

    def folding_page(self, page: Sequence[Record], into: RowBuffer) -> Iterator[None]:
        """Fold these records, and add their rows; in steps, each a millisecond or two at most.

        Raises:
            CorruptRecord: see ``fold``.
        """
        start = 0
        while start < len(page):
            count = 0 if self._pause else self._take_stretch(page, start, into)
            start += count
            if count:
                yield
                continue
            self._pause = max(0, self._pause - 1)
            yield from self.folding(page[start])
            into.extend(self._rows)
            start += 1

    def _take_stretch(self, page: Sequence[Record], start: int, into: RowBuffer) -> int:
        """Sweep from this record on as far as everything is everyday; how many records that were."""
        stretch = Skimmed()
        tail = self.tail
        for index in range(start, len(page)):
            record = page[index]
            try:
                self._check(record, tail)
            except CorruptRecord:
                break  # whoever folds it says so
            if not stretch.take(record.position, record.events):
                break
            tail = tail_of(record)
            if stretch.events >= EXPORT_STRETCH_EVENTS:
                break
        count = len(stretch.positions)
        if count and self._sweep_stretch(stretch, into.swept):
            self.tail = tail
            self._pause_next = 1
            return count
        self._pause = self._pause_next
        self._pause_next = min(2 * self._pause_next, _PAUSE_MAX)
        return 0

    def _sweep_stretch(self, stretch: Skimmed, rows: SweptRows) -> bool:
        sweep = self._sweep
        if sweep is None or sweep.tables is not rows.tables or sweep.events >= EXPORT_SWEEP_EVENTS:
            self._write_back()
            try:
                sweep = self._sweep = Sweep(self._state, self._everyday, rows)
            except Refused:
                return False
        return sweep.take(stretch, self.partition)

    def _write_back(self) -> None:
        """The state catches up with what was swept."""
        if self._sweep is not None:
            write_back(self._sweep, self._state, self._past, self._everyday)
            self._sweep = None

    def _check(self, record: Record, tail: Tail | None) -> None:
        if record.partition != self.partition:
            raise CorruptRecord(f"a record of partition {record.partition} in the log of {self.partition}")
        check_chain(record, tail)
        check_record(record)

    def _take_unusual(self, event: ev.Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is None:
            evolve(self._state, event)
        else:
            handler(event)

    def counts(self) -> dict[str, int]:
        """Items by state, as the core counts them."""
        self._write_back()
        self._everyday.give_all()
        state = self._state
        return {
            "ready": state.ready,
            "scheduled": state.scheduled,
            "reserved": state.reserved,
            "dead": len(state.dead),
        }

    def _row(  # noqa: PLR0917 - in the order of the columns
        self,
        event: str,
        first_item: int = 0,
        items: int = 0,
        before: str = "",
        after: str = "",
        reservation: int = 0,
        session: str = "",
        attempt: int = 0,
        produced_at: int = 0,
        ready_at: int = 0,
        first_reserved_at: int = 0,
        reserved_at: int = 0,
        deadline: int = 0,
        due_at: int = 0,
        reason: str = "",
        item_kind: str = "",
        item_key: str = "",
        author: str = "",
        peer: int = 0,
    ) -> None:
        rows = self._rows
        rows.append(
            (
                self.partition,
                self._position,
                len(rows),
                self._state.now,
                event,
                first_item,
                items,
                before,
                after,
                reservation,
                session,
                attempt,
                produced_at,
                ready_at,
                first_reserved_at,
                reserved_at,
                deadline,
                due_at,
                reason,
                item_kind,
                item_key,
                author,
                peer,
            )
        )

    def _pieces(self, item: int, count: int) -> Iterable[Piece]:
        """A run within one segment, in pieces whose items are alike."""
        if count > 1 or item in self._past:
            return self._many_pieces(item, count)
        segment = self._state.segments[item >> SEGMENT_BITS]
        start = item - segment.first
        at = segment.produced[start]
        columns = segment.columns
        kinds = None if columns is None else columns.get("kind")
        kind = "" if kinds is None else kinds[start]
        return ((item, 1, 0, at, at, 0, kind if isinstance(kind, str) else "", 0),)

    def _many_pieces(self, item: int, count: int) -> Iterator[Piece]:
        state = self._state
        segment = state.segments[item >> SEGMENT_BITS]
        produced = segment.produced
        start = item - segment.first
        kinds = None if segment.columns is None else segment.columns.get("kind")
        past = self._past
        if past and not past.keys().isdisjoint(range(item, item + count)):
            yield from self._mixed_pieces(item, count, produced, start, kinds)
            return
        end = start + count
        while start < end:
            at = produced[start]
            stop = end if produced[end - 1] == at else bisect_right(produced, at, start, end)
            number = segment.first + start
            if kinds is None:
                yield number, stop - start, 0, at, at, 0, "", 0
            else:
                picked = kinds[start:stop]
                kind = picked[0]
                if picked.count(kind) == len(picked):
                    yield number, stop - start, 0, at, at, 0, kind if isinstance(kind, str) else "", 0
                else:
                    for kind, group in groupby(picked):
                        size = sum(1 for _ in group)
                        yield number, size, 0, at, at, 0, kind if isinstance(kind, str) else "", 0
                        number += size
            start = stop

    def _mixed_pieces(
        self, item: int, count: int, produced: "array[int]", start: int, kinds: list[object] | None
    ) -> Iterator[Piece]:
        past = self._past
        attempts = self._state.attempts
        first = 0
        alike: tuple[int, int, int, int, str, int] | None = None
        for offset in range(count):
            number = item + offset
            at = produced[start + offset]
            ready_at, first_reserved, late = past.get(number) or (at, 0, 0)
            kind = None if kinds is None else kinds[start + offset]
            found = (
                attempts.get(number, 0),
                at,
                ready_at,
                first_reserved,
                kind if isinstance(kind, str) else "",
                late,
            )
            if found != alike:
                if alike is not None:
                    yield (first, number - first, *alike)
                first, alike = number, found
        if alike is not None:
            yield (first, item + count - first, *alike)

    def _forget(self, item: int, count: int) -> None:
        past = self._past
        if past and not past.keys().isdisjoint(range(item, item + count)):
            for number in range(item, item + count):
                past.pop(number, None)

    # --- produced ---------------------------------------------------------------------------------

    def _produced(self, event: ev.ItemsProduced) -> None:
        attributes = event.attributes
        due = event.due_at
        first = event.first_item
        author = event.producer
        columns: list[Any] = []
        if attributes is not None:
            kind, key, attempts = attributes.kind, attributes.key, attributes.attempts
            if kind is None and key is None and attempts is None:
                event.attributes = None
            else:
                for name in _NEEDLESS:
                    setattr(attributes, name, None)
            columns = [kind, key]
            if attempts is not None:
                self._note_attempts(event, attempts)
        # It was decoded for us: what tells no items apart is taken off it.
        event.expires_at = NEVER
        event.producer = ""
        event.duplicates = ()
        evolve(self._state, event)
        now = self._state.now
        after = "scheduled" if due else "ready"
        if any(isinstance(column, list) for column in columns):
            number = int(first)
            full = [column if isinstance(column, list) else [column] * event.count for column in columns]
            for (kind, key), group in groupby(zip(*full, strict=True)):
                size = sum(1 for _ in group)
                self._row(
                    "produced", number, size, "", after, produced_at=now, due_at=due,
                    item_kind=kind or "", item_key=key or "", author=author,
                )  # fmt: skip
                number += size
        elif event.count:
            kind, key = columns or ("", "")
            rows = self._rows
            rows.append(
                (
                    self.partition, self._position, len(rows), now, "produced", first, event.count, "", after,
                    0, "", 0, now, 0, 0, 0, 0, due, "", kind or "", key or "", author, 0,
                )
            )  # fmt: skip

    def _note_attempts(self, event: ev.ItemsProduced, attempts: int | list[int | None]) -> None:
        now = self._state.now
        for offset in range(event.count):
            if attempts[offset] if isinstance(attempts, list) else attempts:
                self._past[event.first_item + offset] = (event.due_at or now, 0, 0)

    def _received(self, event: ev.ItemsReceived) -> None:
        self._arrived("received", event)

    def _came_back(self, event: ev.ItemsCameBack) -> None:
        self._arrived("came_back", event)

    def _arrived(self, word: str, event: ev.ItemsReceived | ev.ItemsCameBack) -> None:
        evolve(self._state, event)
        first = self._state.next_item - event.count
        state = _STATE_WORDS[self._state.state_of(first)]
        self._row(word, first, event.count, state, state, peer=event.source)

    # --- reserved and settled ---------------------------------------------------------------------

    def _reserved(self, event: ev.ItemsReserved) -> None:
        state = self._state
        number = state.next_reservation
        evolve(state, event)
        session = event.session
        now = state.now
        deadline = event.run_until or event.deadline
        partition, position, rows = self.partition, self._position, self._rows
        for _, item, count in state.reservations[number].runs:
            for first, size, attempts, produced_at, ready_at, earlier, kind, late in self._pieces(
                item, count
            ):
                rows.append(
                    (
                        partition, position, len(rows), now, "reserved", first, size,
                        "scheduled" if late else "ready", "reserved", number, session, attempts + 1,
                        produced_at, ready_at, earlier or now, now, deadline, 0, "", kind, "", "", 0,
                    )
                )  # fmt: skip
            self._on_time(item, count)

    def _on_time(self, item: int, count: int) -> None:
        """These items are late no more."""
        past = self._past
        if past and not past.keys().isdisjoint(range(item, item + count)):
            for number in range(item, item + count):
                known = past.get(number)
                if known is not None and known[2]:
                    past[number] = (known[0], known[1], 0)

    def _settled(
        self,
        word: str,
        number: int,
        ranges: ev.Ranges | None,
        after: str,
        reason: str = "",
        due_at: int = 0,
    ) -> list[tuple[int, int]]:
        """Rows of items that a reservation is about to lose; their runs."""
        reservation = self._state.reservations.get(number)
        if reservation is None:
            raise CorruptRecord(
                f"record {self._position} of partition {self.partition} settles reservation {number}, "
                "which is not there"
            )
        runs: list[tuple[int, int]] = []
        for _, item, count in reservation.pick(ranges):
            runs.append((item, count))
            self._held_rows(word, reservation, item, count, "reserved", after, reason, due_at)
        return runs

    def _held_rows(
        self,
        word: str,
        reservation: Reservation,
        item: int,
        count: int,
        before: str,
        after: str,
        reason: str = "",
        due_at: int = 0,
        author: str = "",
    ) -> None:
        reserved_at = reservation.reserved_at
        rows = self._rows
        for first, size, attempts, produced_at, ready_at, earlier, kind, _ in self._pieces(item, count):
            rows.append(
                (
                    self.partition, self._position, len(rows), self._state.now, word, first, size, before,
                    after, reservation.number, reservation.session, attempts + 1, produced_at, ready_at,
                    earlier or reserved_at, reserved_at, 0, due_at, reason, kind, "", author, 0,
                )
            )  # fmt: skip

    def _completed(self, event: ev.ItemsCompleted) -> None:
        runs = self._settled("completed", event.reservation, event.ranges, "")
        evolve(self._state, event)
        for item, count in runs:
            self._forget(item, count)

    def _come_back(self, runs: list[tuple[int, int]], reserved_at: int, ready_at: int) -> None:
        """These items wait again, since ``ready_at``."""
        past = self._past
        state = self._state
        is_scheduled = ready_at > state.now
        for item, count in runs:
            for number in range(item, item + count):
                before = past.get(number)
                late = LATE if is_scheduled and state.state_of(number) != SCHEDULED else 0
                past[number] = (ready_at, (before[1] if before is not None else 0) or reserved_at, late)

    def _returned(
        self,
        word: str,
        event: ev.ItemsRetried | ev.ItemsReleased | ev.ReservationEnded,
        reason: str,
        due_at: int,
    ) -> None:
        state = self._state
        after = "scheduled" if due_at else "ready"
        runs = self._settled(word, event.reservation, event.ranges, after, reason, due_at)
        reserved_at = state.reservations[event.reservation].reserved_at
        evolve(state, event)
        self._come_back(runs, reserved_at, due_at or state.now)

    def _retried(self, event: ev.ItemsRetried) -> None:
        self._returned("retried", event, "", event.due_at)

    def _released(self, event: ev.ItemsReleased) -> None:
        self._returned("released", event, event.why, 0)

    def _ended(self, event: ev.ReservationEnded) -> None:
        self._returned("ended", event, event.why, 0)

    def _died(self, event: ev.ItemsDied) -> None:
        state = self._state
        runs = self._settled("dead", event.reservation, event.ranges, "dead", event.reason)
        reserved_at = state.reservations[event.reservation].reserved_at
        evolve(state, event)
        self._come_back(runs, reserved_at, state.now)

    def _extended(self, event: ev.ReservationExtended) -> None:
        reservation = self._state.reservations[event.reservation]
        deadline = event.run_until or event.deadline
        for _, item, count in reservation.pick(None):
            self._row(
                "extended", item, count, "reserved", "reserved", reservation.number, reservation.session,
                reserved_at=reservation.reserved_at, deadline=deadline,
            )  # fmt: skip
        evolve(self._state, event)

    # --- time and operators -----------------------------------------------------------------------

    def _due(self, event: ev.ItemsDue) -> None:
        state = self._state
        past = self._past
        runs: list[list[int]] = []
        for number, due in self._earliest(event.count):
            before = past.get(number)
            past[number] = (due, before[1] if before is not None else 0, 0)
            if runs and runs[-1][0] + runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1])
        for first, count in runs:
            self._row("due", first, count, "scheduled", "ready")
        evolve(state, event)

    def _earliest(self, wanted: int) -> Iterator[tuple[int, int]]:
        """(item, due at) of the earliest scheduled items, in the order in which the heap gives them up."""
        state = self._state
        schedule = state.schedule
        fringe = [(schedule[0], 0)] if schedule else []
        while fringe and wanted:
            (due, place, item, count), index = heappop(fringe)
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(schedule):
                    heappush(fringe, (schedule[child], child))
            for offset in range(count):
                number = item + offset
                if (
                    wanted
                    and state.state_of(number) == SCHEDULED
                    and state.place_of(number) == place + offset
                ):
                    wanted -= 1
                    yield number, due

    def _by_state(self, runs: ev.Runs) -> Iterator[tuple[int, int, int]]:
        """(first item, count, state) of these runs, cut where segment or state changes."""
        state = self._state
        for first, count in runs:
            number = first
            for kind, group in groupby(
                range(first, first + count), key=lambda item: (state.state_of(item), item >> SEGMENT_BITS)
            ):
                size = sum(1 for _ in group)
                yield number, size, kind[0]
                number += size

    def _removed(
        self, word: str, runs: ev.Runs, after: str, *, reason: str = "", author: str = "", peer: int = 0
    ) -> None:
        """Rows of items that are about to leave the state they are in, other than by a settlement."""
        for item, count, kind in self._by_state(runs):
            if kind == GONE:
                continue
            if kind == RESERVED:
                for reservation, number, size in self._holders(item, count):
                    self._held_rows(word, reservation, number, size, "reserved", after, reason, 0, author)
                continue
            for first, size, attempts, produced_at, ready_at, earlier, item_kind, late in self._pieces(
                item, count
            ):
                self._row(
                    word, first, size, "scheduled" if late else _STATE_WORDS[kind], after, 0, "", attempts,
                    produced_at, ready_at, earlier, 0, 0, 0, reason, item_kind, "", author, peer,
                )  # fmt: skip

    def _holders(self, item: int, count: int) -> Iterator[tuple[Reservation, int, int]]:
        """The reservations that hold these items. Rare (single items deleted while reserved): searched."""
        for reservation in self._state.reservations.values():
            for _, first, size in reservation.pick(None):
                low, high = max(item, first), min(item + count, first + size)
                if low < high:
                    yield reservation, low, high - low

    def _leave(self, runs: ev.Runs) -> None:
        for item, count in runs:
            self._forget(item, count)

    def _expired(self, event: ev.ItemsExpired) -> None:
        self._removed("dead", event.runs, "dead", reason="expired")
        self._stop_waiting(event)

    def _sent_back(self, event: ev.ItemsSentBack) -> None:
        self._removed("sent_back", event.runs, "dead", author=event.author, peer=event.target)
        self._stop_waiting(event)

    def _stop_waiting(self, event: ev.ItemsExpired | ev.ItemsSentBack) -> None:
        evolve(self._state, event)
        for item, count in event.runs:
            self._on_time(item, count)

    def _stayed(self, event: ev.MovesGivenUp) -> None:
        self._removed("stayed", event.runs, "dead", peer=event.target)
        evolve(self._state, event)

    def _deleted(self, event: ev.ItemsDeleted) -> None:
        self._removed("deleted", event.runs, "", author=event.author)
        evolve(self._state, event)
        self._leave(event.runs)

    def _moved(self, event: ev.ItemsMoved) -> None:
        self._removed("moved", event.runs, "", peer=event.target)
        evolve(self._state, event)
        self._leave(event.runs)

    def _pruned(self, event: ev.ItemsPruned) -> None:
        self._removed("pruned", event.runs, "")
        evolve(self._state, event)
        self._leave(event.runs)

    def _redriven(self, event: ev.ItemsRedriven) -> None:
        self._removed("redriven", event.runs, "ready", author=event.author)
        evolve(self._state, event)
        now = self._state.now
        past = self._past
        for item, count in event.runs:
            for number in range(item, item + count):
                before = past.get(number)
                past[number] = (now, before[1] if before is not None else 0, 0)

    def _cleared(self, event: ev.ItemsCleared) -> None:
        state = self._state
        removed = state.removed
        runs: list[tuple[int, int]] = []
        if event.ready:
            behind = (
                item for lane in state.lanes.values() for item in (*(i for i, _ in lane.front), *lane.waiting)
            )
            runs += [(item, count) for _, item, count in state.line.runs()]
            runs += [(item, 1) for item in behind]
        if event.scheduled:
            runs += [
                (item + offset, 1)
                for _, place, item, count in sorted(state.schedule)
                for offset in range(count)
                if state.state_of(item + offset) == SCHEDULED
                and state.place_of(item + offset) == place + offset
            ]
        if event.dead:
            runs += [(item, 1) for item in state.dead if item not in state.leaving]
        merged = _merged(runs)
        self._removed("cleared", merged, "", author=event.author)
        held: list[tuple[int, int]] = []
        if event.reserved:
            for reservation in state.reservations.values():
                for _, item, count in reservation.pick(None):
                    held.append((item, count))
                    self._held_rows("cleared", reservation, item, count, "reserved", "", author=event.author)
        evolve(state, event)
        told = sum(count for _, count in merged) + sum(count for _, count in held)
        check(state.removed - removed == told, "a clear removed other items than those that were told")
        self._leave(merged)
        self._leave(tuple(held))

    # --- about no item ----------------------------------------------------------------------------

    def _claimed(self, event: ev.Claimed) -> None:
        evolve(self._state, event)
        self._row("claimed", author=event.node)

    def _policy_applied(self, event: ev.PolicyApplied) -> None:
        evolve(self._state, event)
        self._row("policy_applied", reason=f"version {event.version}", author=event.author)

    def _paused(self, event: ev.PartitionPaused) -> None:
        evolve(self._state, event)
        self._row("paused", author=event.author)

    def _resumed(self, event: ev.PartitionResumed) -> None:
        evolve(self._state, event)
        self._row("resumed", author=event.author)

    def _bucket_opened(self, event: ev.BucketOpened) -> None:
        self._row("bucket_opened", reason=f"bucket {event.bucket}")

    def _loss_accepted(self, event: ev.LossAccepted) -> None:
        self._row("loss_accepted", author=event.author, reason=f"record {event.known}")

    def _clock_stepped(self, event: ev.ClockStepped) -> None:
        self._row("clock_stepped", reason=f"{event.by} us")


def _merged(runs: list[tuple[int, int]]) -> ev.Runs:
    """Runs in order of item, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for first, count in sorted(runs):
        if merged and sum(merged[-1]) == first:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((first, count))
    return tuple(merged)


_HANDLERS: Final[dict[type, str]] = {
    ev.Claimed: "_claimed",
    ev.ItemsProduced: "_produced",
    ev.ItemsReserved: "_reserved",
    ev.ItemsCompleted: "_completed",
    ev.ItemsRetried: "_retried",
    ev.ItemsReleased: "_released",
    ev.ReservationEnded: "_ended",
    ev.ItemsDied: "_died",
    ev.ReservationExtended: "_extended",
    ev.ItemsDue: "_due",
    ev.ItemsExpired: "_expired",
    ev.ItemsCleared: "_cleared",
    ev.ItemsDeleted: "_deleted",
    ev.ItemsRedriven: "_redriven",
    ev.ItemsMoved: "_moved",
    ev.ItemsReceived: "_received",
    ev.ItemsSentBack: "_sent_back",
    ev.ItemsCameBack: "_came_back",
    ev.MovesGivenUp: "_stayed",
    ev.ItemsPruned: "_pruned",
    ev.PolicyApplied: "_policy_applied",
    ev.PartitionPaused: "_paused",
    ev.PartitionResumed: "_resumed",
    ev.BucketOpened: "_bucket_opened",
    ev.ClockStepped: "_clock_stepped",
    ev.LossAccepted: "_loss_accepted",
}
