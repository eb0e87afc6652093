"""What the archive lets the log forget, and reading on where the log ends.

A bucket of the log may go when everything in it is exported and verified, lies behind the snapshots
(of every partition), is older than retention wants it, and holds no payload of a live item (dead
included; unless it was carried). These functions decide; the caller drops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from querator.analytics import warehouse
from querator.analytics.connecting import connect
from querator.analytics.manifest import Manifest, check_parts
from querator.core.ids import Instant
from querator.core.limits import ANALYTICS_MEMORY


@attrs.frozen
class BucketContent:
    """What is in a bucket, as far as the decision needs it."""

    number: int
    is_sealed: bool
    last_position: Mapping[int, int]
    """Partition to the highest position that it has in this bucket."""
    newest_at: Instant
    """Time of the newest record."""


@attrs.frozen
class Held:
    """What the node knows of a partition."""

    snapshot_position: int
    """Of the older snapshot of the two that are kept; 0: there are not two."""
    oldest_payload_position: int
    """The oldest record that a live item's payload is in; 0: there is none."""


@attrs.frozen
class Verdict:
    """Whether a bucket may go; ``why`` not, for people."""

    number: int
    may_go: bool
    why: str = ""


def prunable(
    buckets: Sequence[BucketContent],
    manifest: Manifest,
    partitions: Mapping[int, Held],
    *,
    keep_since: Instant,
) -> list[Verdict]:
    """Which buckets may go, in order of number.

    Only from the oldest on: a bucket behind one that stays, stays. ``partitions`` are all partitions but
    the catalog, whose history is small and never goes: a bucket with records of partition 0 stays
    unless they are behind its snapshots (then give it an entry as well).
    """
    verdicts: list[Verdict] = []
    stays = 0
    for bucket in sorted(buckets, key=lambda entry: entry.number):
        why = (
            f"bucket {stays} before it stays" if stays else _why_not(bucket, manifest, partitions, keep_since)
        )
        if why and not stays:
            stays = bucket.number
        verdicts.append(Verdict(bucket.number, not why, why))
    return verdicts


def _why_not(
    bucket: BucketContent, manifest: Manifest, partitions: Mapping[int, Held], keep_since: Instant
) -> str:
    if not bucket.is_sealed:
        return "it is being written"
    if bucket.newest_at >= keep_since:
        return "retention wants it"
    for partition, last in sorted(bucket.last_position.items()):
        held = partitions.get(partition)
        if held is None:
            return f"nothing is known of partition {partition}"
        if held.snapshot_position < last:
            return (
                f"partition {partition} restores from it: its older snapshot is at {held.snapshot_position}"
            )
        if held.oldest_payload_position and held.oldest_payload_position <= last:
            return f"a live item of partition {partition} has its payload at {held.oldest_payload_position}"
        mark = manifest.mark_of(partition)
        exported = manifest.catalog_position if partition == 0 else 0 if mark is None else mark.position
        if exported < last:
            return f"partition {partition} is exported up to {exported} of {last}"
    return ""


def verify(directory: Path, manifest: Manifest) -> None:
    """Read the whole archive: every file is what was written, every row is there once.

    Raises:
        ArchiveError: what is wrong, and in which file.
    """
    check_parts(directory, [*manifest.parts, *manifest.payload_parts])
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
