"""Reading an archive as a whole: is it what was written, and what became of one item."""

from pathlib import Path
from typing import Any

from querator.analytics import warehouse
from querator.analytics.connecting import connect
from querator.analytics.manifest import Manifest, check_parts
from querator.core.limits import ANALYTICS_MEMORY


def verify(directory: Path, manifest: Manifest) -> None:
    """Read the whole archive: every file is what was written, every row is there once.

    Raises:
        ArchiveError: what is wrong, and in which file.
    """
    check_parts(directory, [*manifest.parts, *manifest.payload_parts, *manifest.record_parts])
    connection = connect(directory, memory_limit=ANALYTICS_MEMORY, verify=False)
    try:
        found = connection.execute(
            "SELECT partition, count(*), count(DISTINCT (position, seq)), max(position)"
            " FROM querator.runs GROUP BY partition"
        ).fetchall()
    except warehouse.DuckDBError as error:
        raise warehouse.QueryFailed(f"{directory} cannot be read: {error}") from error
    finally:
        connection.close()
    counted = {row[0]: row[1:] for row in found}
    for mark in manifest.marks:
        rows, distinct, last = counted.get(mark.partition, (0, 0, 0))
        if rows != mark.rows or distinct != rows or last > mark.position:
            raise warehouse.QueryFailed(
                f"partition {mark.partition} has {rows} rows in {directory} ({distinct} different ones, "
                f"up to position {last}) instead of {mark.rows} up to {mark.position}"
            )


def item_steps(connection: warehouse.Connection, partition: int, item: int) -> list[dict[str, Any]]:
    """Everything that happened to one item, oldest first, as rows by name of column."""
    cursor = connection.execute("FROM querator.item_history($1, $2)", [partition, item])
    names = [entry[0] for entry in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
