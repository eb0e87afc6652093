"""What one exported row is: a *run* of consecutive items that one event did the same to.

A row is a tuple in the order of ``COLUMNS``; numbers are integers (0: none), texts are strings
("": none). Rows gather in a ``RowBuffer`` and leave it as columns, texts by dictionary. Rows that were
folded in bulk are no tuples (swept.py).
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from querator.analytics import swept
from querator.analytics.arrow import ArrowTable, TextColumn

Row: TypeAlias = "tuple[Any, ...]"
AnyRow: TypeAlias = "tuple[Any, ...]"
"""A row, or a short one, of what happens all the time, without what follows. It begins as any does."""


@attrs.frozen
class RowColumn:
    """A column of the exported files. ``kind``: number | time (microseconds, UTC) | text."""

    name: str
    kind: str
    comment: str

    @property
    def sql(self) -> str:
        """Its expression over the raw columns, for the Parquet file."""
        if self.kind == "time":
            same = _SAME.get(self.name)
            value = self.name if same is None else f"CASE WHEN NOT ({same[0]}) THEN {self.name} END"
            return f"make_timestamp(nullif({value}, 0)) AS {self.name}"
        if self.kind == "text":
            return f"nullif({self.name}, '') AS {self.name}"
        if self.name in NEVER_NULL:
            return self.name
        return f"nullif({self.name}, 0) AS {self.name}"

    @property
    def restored(self) -> str:
        """Its expression over the columns of the file, called ``r``."""
        same = _SAME.get(self.name)
        return f"r.{self.name}" if same is None else f"coalesce(r.{self.name}, {same[1]}) AS {self.name}"

    @property
    def sql_type(self) -> str:
        return {"time": "TIMESTAMP", "text": "VARCHAR", "number": "BIGINT"}[self.kind]


NEVER_NULL: Final = frozenset({"partition", "position", "seq", "items"})

_RESERVED_AT: Final = "coalesce(r.reserved_at, CASE WHEN r.reservation IS NOT NULL THEN r.happened_at END)"
_SAME: Final = {
    "produced_at": (
        "event = 'produced'",
        "CASE WHEN r.event = 'produced' THEN r.happened_at END",
    ),
    "ready_at": ("ready_at = produced_at", "CASE WHEN r.event <> 'produced' THEN r.produced_at END"),
    "reserved_at": (
        "reserved_at = happened_at",
        "CASE WHEN r.reservation IS NOT NULL THEN r.happened_at END",
    ),
    "first_reserved_at": (
        "first_reserved_at = reserved_at",
        f"CASE WHEN r.reservation IS NOT NULL AND r.event <> 'extended' THEN {_RESERVED_AT} END",
    ),
}
"""Moments that are mostly the same as another one are stored only where they are not: they would be half
of a file. (When it is absent, what then stands for it.)"""

COLUMNS: Final = (
    RowColumn("partition", "number", "the partition, globally"),
    RowColumn("position", "number", "the record in the partition's log"),
    RowColumn("seq", "number", "the row within its record, from 0: (partition, position, seq) is unique"),
    RowColumn("happened_at", "time", "when it happened, UTC"),
    RowColumn("event", "text", "what happened: produced, reserved, completed, retried, ended, dead …"),
    RowColumn("first_item", "number", "number of the first item; absent where the event is about no item"),
    RowColumn("items", "number", "how many consecutive items this row is about"),
    RowColumn(
        "state_before", "text", "state before: scheduled, ready, reserved, dead; absent: there were none"
    ),
    RowColumn("state_after", "text", "state after; absent: they are gone (completed, cleared, …)"),
    RowColumn("reservation", "number", "number of the reservation in its partition"),
    RowColumn("session", "text", "session of the holder; absent: a reservation without a session"),
    RowColumn("attempt", "number", "number of the attempt, from 1 (a released one is not counted)"),
    RowColumn("produced_at", "time", "when the items entered this partition"),
    RowColumn("ready_at", "time", "since when they had been ready (or were due) when they were reserved"),
    RowColumn("first_reserved_at", "time", "when they were reserved for the first time"),
    RowColumn("reserved_at", "time", "when the reservation in question began"),
    RowColumn("deadline", "time", "deadline of the reservation (of reserved and extended)"),
    RowColumn("due_at", "time", "for when the items were scheduled (of produced and retried)"),
    RowColumn(
        "reason",
        "text",
        "why: of released, ended, dead; what, of policy_applied, bucket_opened, clock_stepped and "
        "loss_accepted",
    ),
    RowColumn("item_kind", "text", "the items' kind"),
    RowColumn("item_key", "text", "the items' key (of produced)"),
    RowColumn("author", "text", "who: producer, operator or node"),
    RowColumn("peer", "number", "the other partition (of moved, received, sent_back, came_back and stayed)"),
)

NAMES: Final = tuple(column.name for column in COLUMNS)
_IS_TEXT: Final = tuple(column.kind == "text" for column in COLUMNS)


@attrs.frozen
class _Always:
    """A column that is the same in all rows of a shape."""

    value: Any


_Shape: TypeAlias = "tuple[int | _Always, ...]"


def _shape(**columns: int | _Always) -> _Shape:
    """For each column its index in a short row, or what it always is: nothing where it is not named."""
    begin = {"partition": 0, "position": 1, "seq": 2, "happened_at": 3}
    found: dict[str, int | _Always] = {**begin, **columns}
    return tuple(found.get(column.name, _Always("" if column.kind == "text" else 0)) for column in COLUMNS)


_SHAPES: Final[dict[int, _Shape]] = {
    8: _shape(
        event=_Always("produced"), first_item=4, items=5, state_after=_Always("ready"), produced_at=3,
        item_kind=6, author=7,
    ),
    11: _shape(
        event=_Always("completed"), first_item=4, items=5, state_before=_Always("reserved"),
        reservation=6, session=7, attempt=_Always(1), produced_at=8, ready_at=8, first_reserved_at=9,
        reserved_at=9, item_kind=10,
    ),
    12: _shape(
        event=_Always("reserved"), first_item=4, items=5, state_before=_Always("ready"),
        state_after=_Always("reserved"), reservation=6, session=7, attempt=8, produced_at=9, ready_at=9,
        first_reserved_at=3, reserved_at=3, deadline=10, item_kind=11,
    ),
    len(COLUMNS): tuple(range(len(COLUMNS))),
}  # fmt: skip
"""What the values of a row are, by how many there are. The short ones are of fresh items."""


def full_row(row: AnyRow) -> Row:
    """A row with all its columns."""
    if len(row) == len(COLUMNS):
        return row
    return tuple(spec.value if isinstance(spec, _Always) else row[spec] for spec in _SHAPES[len(row)])


@attrs.frozen
class Gathered:
    """Rows on their way to a file."""

    tables: dict[str, ArrowTable]
    """By the name that ``source`` knows them by; kept alive until the rows are written."""
    source: str
    """SQL: a relation of the raw columns."""
    days: list[int]
    """Of the rows, since 1970-01-01, ascending."""
    is_sorted: bool
    """Whether they are in order of partition, position and number."""


class RowBuffer:
    """Rows that wait to be written, as columns. Owned by one export."""

    def __init__(self) -> None:
        self.swept = swept.SweptRows()
        """Those that were folded in bulk: whoever does, adds them."""
        self._loose: list[AnyRow] = []
        """The newest rows, not yet in columns: turning many at once is cheaper."""
        self._numbers: list[array[int]] = []
        self._texts: list[dict[str, int]] = []
        self._days: dict[int, None] = {}
        self._rows = 0
        self._last_at = 0
        self.clear()

    def clear(self) -> None:
        self.swept.clear()
        self._loose = []
        self._days = {}
        self._numbers = [array("i" if is_text else "q") for is_text in _IS_TEXT]
        self._texts = [{"": 0} if is_text else {} for is_text in _IS_TEXT]
        self._rows = 0
        self._last_at = 0

    @property
    def rows(self) -> int:
        return self._rows + len(self.swept)

    def pop_last_at(self) -> int:
        """When the last of what was added since this was asked before happened; 0: nothing was.

        All of it is to be of one partition, where time does not go back.
        """
        last_at = max(self._last_at, self.swept.last_at)
        self._last_at = self.swept.last_at = 0
        return last_at

    def extend(self, rows: list[AnyRow]) -> None:
        """Take over these rows."""
        if not rows:
            return
        self._loose += rows
        self._rows += len(rows)
        self._last_at = rows[-1][3]
        if len(self._loose) >= _LOOSE_MAX:
            self._settle()

    def _settle(self) -> None:
        """Turn the loose rows into columns, those of each shape together: files are sorted."""
        shapes: dict[int, list[AnyRow]] = {size: [] for size in _SHAPES}
        for row in self._loose:
            shapes[len(row)].append(row)
        self._loose = []
        for size, rows in shapes.items():
            if rows:
                self._settle_shape(_SHAPES[size], rows)

    def _settle_shape(self, shape: _Shape, rows: list[AnyRow]) -> None:
        count = len(rows)
        columns = list(zip(*rows, strict=True))
        for index, spec in enumerate(shape):
            into = self._numbers[index]
            if isinstance(spec, _Always):
                value = self._indexes(index, (spec.value,))[0] if _IS_TEXT[index] else spec.value
                into.extend(array(into.typecode, (value,)) * count)
            elif _IS_TEXT[index]:
                into.extend(array("i", self._indexes(index, columns[spec])))
            else:
                into.extend(array("q", columns[spec]))
        happened = self._numbers[_AT][-count:]
        first, last = min(happened) // _DAY, max(happened) // _DAY
        days = (first,) if first == last else dict.fromkeys(at // _DAY for at in happened)
        self._days.update(dict.fromkeys(days))

    def _indexes(self, column: int, values: Sequence[str]) -> list[int]:
        texts = self._texts[column]
        for text in dict.fromkeys(values):
            if text not in texts:
                texts[text] = len(texts)
        return list(map(texts.__getitem__, values))

    def gathered(self) -> Gathered:
        """What is here, readable as long as it is kept and nothing is added."""
        self._settle()
        tables: dict[str, ArrowTable] = {}
        sources: list[str] = []
        if self._rows:
            tables["raw_rows"] = ArrowTable(
                {
                    column.name: TextColumn(numbers, list(texts)) if column.kind == "text" else numbers
                    for column, numbers, texts in zip(COLUMNS, self._numbers, self._texts, strict=True)
                }
            )
            sources.append("FROM raw_rows")
        if len(self.swept):
            tables["swept_rows"] = self.swept.table()
            sources.append(f"{swept.SELECT} FROM swept_rows")
        return Gathered(
            tables,
            f"({' UNION ALL '.join(sources)})",
            sorted({**self._days, **dict.fromkeys(self.swept.days())}),
            self.swept.is_sorted and not self._rows,
        )


_AT: Final = NAMES.index("happened_at")
_DAY: Final = 86_400_000_000
_LOOSE_MAX: Final = 1_024
"""Turning these takes a millisecond or two, in which a live server does nothing else."""


def select_list(columns: Iterable[RowColumn] = COLUMNS) -> str:
    """The SELECT list that turns raw columns into those of the files."""
    return ", ".join(column.sql for column in columns)
