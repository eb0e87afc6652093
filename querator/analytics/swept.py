"""Rows that were folded in bulk, as what they share: a row is a few small indexes.

An item that is produced, reserved and completed makes three rows that say the same of it, and the reservation
is in two of them. So such rows are indexes into tables: of *pieces* (consecutive items that are alike), of
*reservations*, of *moments*, and of *words* (what happened, from which state to which, and why). DuckDB reads
the columns as dictionaries (arrow.py), so nothing is copied for each row here.

Nothing else is ever in such rows: they have no due time, key, author but that of produced items, or peer.
"""

from array import array
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from querator.analytics.arrow import ArrowTable, NumberColumn, TextColumn

Words: TypeAlias = "tuple[str, str, str, str]"
"""(event, state before, state after, reason)."""

PRODUCED_WORDS: Final[Words] = ("produced", "", "ready", "")
RESERVED_WORDS: Final[Words] = ("reserved", "ready", "reserved", "")
WORDS_MAX: Final = 256
"""What a byte can name."""
_DAY: Final = 86_400_000_000

SELECT: Final = (
    "SELECT partition, position, seq, happened_at, event, first_item, items, state_before, state_after,"
    " reservation, session, CASE WHEN event = 'produced' THEN 0 ELSE attempt END AS attempt, produced_at,"
    " ready_at, first_reserved_at, reserved_at, CASE WHEN event = 'reserved' THEN deadline ELSE 0 END AS"
    " deadline, 0 AS due_at, reason, item_kind, '' AS item_key,"
    " CASE WHEN event = 'produced' THEN author ELSE '' END AS author, 0 AS peer"
)
"""The raw columns of rows.py, in their order, over those of ``table``. Of a moment that the file has only
where it differs from another it does not matter whether it is absent here."""


class Tables:
    """What rows share, a column for each field. Whoever sweeps fills them (sweep.py)."""

    def __init__(self) -> None:
        # Of each piece:
        self.items = array("q")
        """The first."""
        self.sizes = array("q")
        self.produced = array("q")
        self.ready = array("q")
        self.first_reserved = array("q")
        """0: not before."""
        self.attempts = array("q")
        """The number of the attempt that is next, or runs."""
        self.kinds: list[str] = []
        self.authors: list[str] = []
        """Who produced them, if that is what the row is about."""
        self.places = array("q")
        """Where they stood in line; in no row."""
        # Of each reservation; the first is none:
        self.reservations = array("q", (0,))
        """Its number."""
        self.sessions: list[str] = [""]
        self.reserved = array("q", (0,))
        self.deadlines = array("q", (0,))
        self.moments = array("q")

    def lengths(self) -> tuple[int, int, int]:
        """How many pieces, reservations and moments there are."""
        return len(self.items), len(self.reservations), len(self.moments)

    def cut(self, lengths: tuple[int, int, int]) -> None:
        """Leave so many."""
        pieces, reservations, moments = lengths
        column: Any
        for column in (
            self.items, self.sizes, self.produced, self.ready, self.first_reserved, self.attempts, self.kinds,
            self.authors, self.places,
        ):  # fmt: skip
            del column[pieces:]
        for column in (self.reservations, self.sessions, self.reserved, self.deadlines):
            del column[reservations:]
        del self.moments[moments:]


class SweptRows:
    """Such rows, in order. Owned by one export."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """None are left; who still has the tables may keep them."""
        self.tables = Tables()
        self.words: dict[Words, int] = {PRODUCED_WORDS: 0, RESERVED_WORDS: 1}
        # A row each:
        self._partitions = array("q")
        self._positions = array("q")
        self._seqs = array("q")
        self._moments = array("i")
        self._words = array("B")
        self._pieces = array("i")
        self._reservations = array("i")
        self.last_at = 0
        """When what the last row is about happened; who asks may set it to 0."""
        self._days: dict[int, None] = {}
        self._last_partition = 0
        self.is_sorted = True
        """Whether they are in order of partition, position and number."""

    def __len__(self) -> int:
        return len(self._words)

    def add(
        self,
        partition: int,
        records: Iterable[tuple[int, int]],
        moments: list[int],
        words: bytes | bytearray,
        pieces: list[int],
        reservations: list[int],
    ) -> None:
        """Rows that follow; ``records``: (position, how many rows) of each record."""
        if partition < self._last_partition:
            self.is_sorted = False
        self._last_partition = partition
        self._partitions.extend(array("q", (partition,)) * len(words))
        for position, count in records:
            self._positions.extend(array("q", (position,)) * count)
            self._seqs.extend(_SEQS[:count] if count <= len(_SEQS) else array("q", range(count)))
        self._moments.extend(array("i", moments))
        self._words.frombytes(words)
        self._pieces.extend(array("i", pieces))
        self._reservations.extend(array("i", reservations))
        if words:
            self.last_at = self.tables.moments[moments[-1]]
            first, last = self.tables.moments[moments[0]] // _DAY, self.last_at // _DAY
            if first == last:
                self._days[first] = None
            else:
                self._days |= dict.fromkeys(self.tables.moments[moment] // _DAY for moment in moments)

    def days(self) -> Iterable[int]:
        """Of the rows, since 1970-01-01."""
        return self._days

    def table(self) -> ArrowTable:
        """What is here, readable as long as the table is kept and nothing is added."""
        pieces, reservations, tables = self._pieces, self._reservations, self.tables

        def of_piece(numbers: "array[int]") -> NumberColumn:
            return NumberColumn(pieces, numbers)

        def of_reservation(numbers: "array[int]") -> NumberColumn:
            return NumberColumn(reservations, numbers)

        words = [TextColumn(self._words, texts) for texts in zip(*self.words, strict=True)]
        return ArrowTable(
            {
                "partition": self._partitions,
                "position": self._positions,
                "seq": self._seqs,
                "happened_at": NumberColumn(self._moments, tables.moments),
                "event": words[0],
                "first_item": of_piece(tables.items),
                "items": of_piece(tables.sizes),
                "state_before": words[1],
                "state_after": words[2],
                "reservation": of_reservation(tables.reservations),
                "session": TextColumn(reservations, tables.sessions),
                "attempt": of_piece(tables.attempts),
                "produced_at": of_piece(tables.produced),
                "ready_at": of_piece(tables.ready),
                "first_reserved_at": of_piece(tables.first_reserved),
                "reserved_at": of_reservation(tables.reserved),
                "deadline": of_reservation(tables.deadlines),
                "reason": words[3],
                "item_kind": TextColumn(pieces, tables.kinds),
                "author": TextColumn(pieces, tables.authors),
            }
        )


_SEQS: Final = array("q", range(1_024))
