"""The identifiers and the two kinds of time that every layer shares.

All of them are plain integers or strings at run time; the names keep a place from being passed
where a position belongs.
"""

from typing import Final, NewType

PartitionId = NewType("PartitionId", int)
"""Global, never reused. Partition 0 is the catalog."""

Position = NewType("Position", int)
"""Number of a record in its partition's log, dense from 1."""

ItemNumber = NewType("ItemNumber", int)
"""Number of an item in its partition, given once, for life, never reused; from 1."""

Place = NewType("Place", int)
"""Where an item stands in its queue; given at each entry into the queue, never reused; from 1."""

ReservationNumber = NewType("ReservationNumber", int)
"""Number of a reservation in its partition, dense from 1, never reused."""

SessionId = NewType("SessionId", str)
"""Names a client session across its reconnects."""

QueueName = NewType("QueueName", str)

Instant = NewType("Instant", int)
"""Microseconds since 1970-01-01 UTC."""

Duration = NewType("Duration", int)
"""Microseconds."""

CATALOG_PARTITION: Final = PartitionId(0)

NEVER: Final = Instant(0)
"""Stands for "no such moment": not scheduled, does not expire, not held."""

MICROSECOND: Final = Duration(1)
MILLISECOND: Final = Duration(1_000)
SECOND: Final = Duration(1_000_000)
MINUTE: Final = Duration(60_000_000)
HOUR: Final = Duration(3_600_000_000)
DAY: Final = Duration(86_400_000_000)
