"""The ledger: kinds of faults, how often each struck, and what it cost."""

from collections.abc import Iterable

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """Of one kind. ``items``: acknowledged."""

    fault: str
    times: int
    acknowledged: int
    completed: int
    unknown: int
    lost: int
    twice: int
    stale_refused: int
    note: str = ""


_HEADS = ("times", "acknowledged", "completed", "unknown", "lost", "twice", "stale refused")


def add_up(rows: Iterable[Row]) -> list[Row]:
    """One row a fault, in order of their first appearance."""
    sums: dict[str, Row] = {}
    for row in rows:
        before = sums.get(row.fault)
        if before is None:
            sums[row.fault] = row
            continue
        numbers = {
            field.name: getattr(before, field.name) + getattr(row, field.name)
            for field in attrs.fields(Row)
            if field.type is int
        }
        sums[row.fault] = attrs.evolve(before, **numbers)
    return list(sums.values())


def table(rows: Iterable[Row]) -> str:
    """For a person. ``unknown`` are calls that ended without an answer either way; ``twice`` are items that
    were completed twice; ``stale refused`` are appends in the name of fenced owners."""
    summed = add_up(rows)
    width = max((len(row.fault) for row in summed), default=5)
    lines = [f"{'fault':{width}}  " + "  ".join(_HEADS)]
    for row in summed:
        cells = attrs.astuple(row)[1:-1]
        numbers = "  ".join(f"{cell:>{len(head)}}" for cell, head in zip(cells, _HEADS, strict=True))
        lines.append(f"{row.fault:{width}}  {numbers}  {row.note}".rstrip())
    return "\n".join(lines)
