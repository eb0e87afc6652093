"""The durable numbers of the kinds of events, and the columns of each: what a record's bytes mean.

A number and the columns of a kind are for ever: a kind that changes gets a new version of the
whole table, and the step between the two goes into log/upcasts.py. The order of the columns is
the order in the bytes.
"""

from collections.abc import Callable
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

import attrs

from querator.core import events as ev
from querator.log.columns import (
    BLOBS,
    BOOLEANS,
    HEADERS,
    INTEGERS,
    OPTIONAL_PAIRS,
    PAIRS,
    TEXTS,
    AttributeBatches,
    Column,
)

VERSION: Final = 1
"""Of the records written now."""

ATTRIBUTES: Final = AttributeBatches(
    (
        ("encoding", TEXTS),
        ("kind", TEXTS),
        ("reference", TEXTS),
        ("headers", HEADERS),
        ("key", TEXTS),
        ("dedupe_key", TEXTS),
        ("reservation_timeout", INTEGERS),
        ("attempts_max", INTEGERS),
        ("source_id", TEXTS),
        ("attempts", INTEGERS),
        ("produced_at", INTEGERS),
        ("expires_at", INTEGERS),
    )
)


class Kind:
    """One kind of event: its number, its class, and its columns in order."""

    __slots__ = ("_ones", "arguments", "columns", "event", "getter", "names", "number")

    def __init__(self, number: int, event: type[Any], **columns: Column) -> None:
        self.number = number
        self.event = event
        self.names = tuple(columns)
        self.columns = tuple(columns.values())
        self.getter: Callable[[Any], Any] = attrgetter(*columns)
        self._ones = tuple(column.one for column in self.columns)
        self.arguments = tuple(field.name for field in attrs.fields(event))

    def one(self, event: Any) -> list[bytes]:  # of the kind's class
        """The columns of a single event."""
        values = self.getter(event)
        if len(self._ones) == 1:
            return [self._ones[0](values)]
        return [one(value) for one, value in zip(self._ones, values, strict=True)]

    def positional(self, columns: dict[str, Any]) -> list[Any]:
        """The columns in the order of the constructor; what the log keeps elsewhere is ``None``."""
        return [columns[name] if name in columns else repeat(None) for name in self.arguments]


KINDS: Final = (
    Kind(1, ev.TurnStarted, at=INTEGERS),
    Kind(
        2,
        ev.Claimed,
        node=TEXTS,
        nonce=INTEGERS,
        incarnation=INTEGERS,
        read_tail=INTEGERS,
        server_identity=TEXTS,
    ),
    Kind(
        3,
        ev.ItemsProduced,
        first_item=INTEGERS,
        count=INTEGERS,
        due_at=INTEGERS,
        expires_at=INTEGERS,
        attributes=ATTRIBUTES,
        producer=TEXTS,
        sequence=INTEGERS,
        part=INTEGERS,
        duplicates=PAIRS,
    ),
    Kind(
        4,
        ev.ItemsReserved,
        count=INTEGERS,
        first_item=INTEGERS,
        session=TEXTS,
        generation=INTEGERS,
        deadline=INTEGERS,
        run_until=INTEGERS,
    ),
    Kind(5, ev.ItemsCompleted, reservation=INTEGERS, ranges=OPTIONAL_PAIRS),
    Kind(6, ev.ItemsRetried, reservation=INTEGERS, ranges=OPTIONAL_PAIRS, due_at=INTEGERS),
    Kind(7, ev.ItemsReleased, reservation=INTEGERS, ranges=OPTIONAL_PAIRS, why=TEXTS),
    Kind(8, ev.ReservationEnded, reservation=INTEGERS, ranges=OPTIONAL_PAIRS, why=TEXTS),
    Kind(9, ev.ItemsDied, reservation=INTEGERS, ranges=OPTIONAL_PAIRS, reason=TEXTS, verb=TEXTS),
    Kind(10, ev.ReservationExtended, reservation=INTEGERS, deadline=INTEGERS, run_until=INTEGERS),
    Kind(11, ev.SessionResumed, session=TEXTS, generation=INTEGERS),
    Kind(12, ev.ItemsDue, count=INTEGERS),
    Kind(13, ev.ItemsExpired, runs=PAIRS),
    Kind(
        14,
        ev.ItemsCleared,
        ready=BOOLEANS,
        scheduled=BOOLEANS,
        reserved=BOOLEANS,
        dead=BOOLEANS,
        author=TEXTS,
    ),
    Kind(15, ev.ItemsDeleted, runs=PAIRS, author=TEXTS),
    Kind(16, ev.ItemsRedriven, runs=PAIRS, author=TEXTS),
    Kind(17, ev.ItemsMoved, runs=PAIRS, target=INTEGERS, last_move=INTEGERS),
    Kind(18, ev.ItemsReceived, source=INTEGERS, last_move=INTEGERS, count=INTEGERS),
    Kind(19, ev.ItemsPruned, runs=PAIRS),
    Kind(20, ev.PolicyApplied, version=INTEGERS, document=BLOBS, author=TEXTS),
    Kind(21, ev.PartitionPaused, author=TEXTS),
    Kind(22, ev.PartitionResumed, author=TEXTS),
    Kind(23, ev.PayloadsCarried, runs=PAIRS),
    Kind(24, ev.BucketOpened, bucket=INTEGERS),
    Kind(25, ev.ClockStepped, by=INTEGERS),
    Kind(26, ev.CatalogChanged, document=BLOBS),
    Kind(27, ev.LossAccepted, author=TEXTS, known=INTEGERS),
    Kind(28, ev.ItemsSentBack, runs=PAIRS, target=INTEGERS, author=TEXTS),
    Kind(29, ev.ItemsCameBack, source=INTEGERS, last_move=INTEGERS, count=INTEGERS),
    Kind(30, ev.MovesGivenUp, runs=PAIRS, target=INTEGERS),
)

SCHEMAS: Final[dict[int, dict[int, Kind]]] = {VERSION: {kind.number: kind for kind in KINDS}}
"""Record version to kind number to columns: every version ever written."""

KIND_OF: Final[dict[type[Any], Kind]] = {kind.event: kind for kind in KINDS}
