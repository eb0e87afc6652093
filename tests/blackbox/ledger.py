"""The ledger: kinds of faults, how often each struck, and what it cost. Runs that are recorded are lines of
``ledger.jsonl``, which ``python -m simulations --ledger`` reads."""

import json
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from simulations.ledger import PROCESSES, day_and_commit

KILLS: Final = ("killed", "immediate stop")
"""Words of faults that end a process at once."""


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


def record(rows: Sequence[Row], what: str, *, seconds: float, runs: int, violations: int) -> None:
    """Add what was run to the ledger."""
    summed = add_up(rows)
    entry = day_and_commit() | {
        "what": what,
        "runs": runs,
        "seconds": round(seconds),
        "kills": sum(row.times for row in summed if any(word in row.fault for word in KILLS)),
        "acknowledged": sum(row.acknowledged for row in summed),
        "completed": sum(row.completed for row in summed),
        "unknown": sum(row.unknown for row in summed),
        "stale_refused": sum(row.stale_refused for row in summed),
        "violations": violations,
        "faults": {row.fault: row.times for row in summed},
    }
    with PROCESSES.open("a") as ledger:
        ledger.write(json.dumps(entry, separators=(",", ":")) + "\n")
