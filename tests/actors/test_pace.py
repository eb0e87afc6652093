"""The pace of small appends: who is many, and who never waits."""

from collections.abc import Iterable

from querator.actors.pace import Pace
from querator.core.ids import Instant, PartitionId
from querator.core.limits import APPEND_PAUSE, PAUSE_PARTITIONS, PAUSE_RECORDS

NOW = Instant(1_000_000)


def pace_of(*appends: Iterable[int]) -> Pace:
    pace = Pace()
    for partitions in appends:
        pace.began(map(PartitionId, partitions), NOW)
    return pace


def test_fewer_than_so_many_partitions_never_wait() -> None:
    """PAUSE_PARTITIONS."""
    few = range(PAUSE_PARTITIONS - 1)
    assert pace_of(few, few, few).next_at == 0
    assert pace_of(few, [PAUSE_PARTITIONS]).next_at == NOW + APPEND_PAUSE


def test_it_counts_over_the_last_records_alone() -> None:
    """PAUSE_RECORDS: those of a partition that is busy again push the others out."""
    many = range(PAUSE_PARTITIONS)
    again = [[0]] * (PAUSE_RECORDS - PAUSE_PARTITIONS)
    assert pace_of(many, *again).next_at == NOW + APPEND_PAUSE
    assert pace_of(many, *again, [0], [0]).next_at == 0
