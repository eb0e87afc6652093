"""Letting the log forget: what is exported, kept, old enough, and needed by nothing that lives.

The buckets' service decides what lives needs; here it is told what is safe in the archive, and where
each bucket began.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from querator.analytics.connecting import connect
from querator.analytics.manifest import Manifest
from querator.core.ids import Duration, Instant, PartitionId, Position
from querator.core.limits import SERVER_EXPORT_MEMORY
from querator.log.store import Bucket


@attrs.frozen
class BucketStart:
    """Where a partition's part of a bucket begins, as its log announced it."""

    partition: PartitionId
    bucket: int
    position: Position
    at: Instant


def read_starts(directory: Path) -> list[BucketStart]:
    """All that were exported (in a thread).

    Raises:
        ArchiveError: the archive cannot be read.
    """
    connection = connect(directory, memory_limit=SERVER_EXPORT_MEMORY, threads=1, verify=False)
    try:
        rows = connection.execute(
            "SELECT partition, reason.replace('bucket ', '')::BIGINT, position, epoch_us(happened_at)"
            " FROM querator.runs WHERE event = 'bucket_opened' ORDER BY ALL"
        ).fetchall()
    finally:
        connection.close()
    return [
        BucketStart(PartitionId(partition), bucket, Position(position), Instant(at))
        for partition, bucket, position, at in rows
    ]


def buckets_to_keep(
    buckets: Sequence[Bucket], starts: Sequence[BucketStart], *, before: Instant, at_least: int
) -> int:
    """How many of a store's buckets retention keeps, of all.

    A bucket's history ended when the next one was opened; it goes when that was before ``before``. What is
    not known to be that old stays, and so does everything behind it.
    """
    ended: dict[int, Instant] = {}
    for start in starts:
        ended[start.bucket - 1] = max(start.at, ended.get(start.bucket - 1, start.at))
    old = 0
    for bucket in buckets:
        end = ended.get(bucket.number)
        if not bucket.sealed or end is None or end >= before:
            break
        old += 1
    return max(at_least, len(buckets) - old)


def starts_of(
    starts: Sequence[BucketStart], partitions: Sequence[PartitionId]
) -> Mapping[int, Mapping[PartitionId, Position]]:
    """Bucket to where each of these partitions begins in it."""
    there = frozenset(partitions)
    found: dict[int, dict[PartitionId, Position]] = {}
    for start in starts:
        if start.partition in there:
            found.setdefault(start.bucket, {})[start.partition] = start.position
    return found


def is_kept(manifest: Manifest, partition: PartitionId, position: Position) -> bool:
    """Whether all before ``position`` is in the archive: for questions, and to be folded again."""
    kept = manifest.kept_of(partition)
    mark = manifest.mark_of(partition)
    exported = 0 if mark is None else mark.position
    return position - 1 <= min(exported, 0 if kept is None else kept.position)


def age_limit(now: Instant, older_than: Duration) -> Instant:
    """What was before is older."""
    return Instant(now - older_than)
