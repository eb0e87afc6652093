"""What a partition answers. Rejections are values: they are never raised."""

import enum
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from querator.core.ids import Duration, Instant, ItemNumber, PartitionId, Place, ReservationNumber


class Code(enum.StrEnum):
    """Why a request was refused, or what is not known of it. Public: clients match on these words."""

    # the request
    INVALID = "invalid"
    UNKNOWN_QUEUE = "unknown_queue"
    UNKNOWN_ITEM = "unknown_item"
    UNKNOWN_SUBSCRIPTION = "unknown_subscription"
    BATCH_EMPTY = "batch_empty"
    BATCH_TOO_LARGE = "batch_too_large"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    MIXED_PARTITIONS = "mixed_partitions"
    SEQUENCE_TOO_OLD = "sequence_too_old"
    DEDUPE_FULL = "dedupe_full"
    LIMIT_EXCEEDED = "limit_exceeded"
    QUEUE_EXISTS = "queue_exists"
    NOT_FOUND = "not_found"
    """A namespace, user, key, role or binding."""
    ALREADY_EXISTS = "already_exists"
    IN_USE = "in_use"
    DENIED = "denied"
    UNAUTHENTICATED = "unauthenticated"
    # the reservation
    RESERVATION_LOST = "reservation_lost"
    NOT_RESERVED = "not_reserved"
    # the moment
    PAUSED = "paused"
    NOTHING_READY = "nothing_ready"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    HALTED = "halted"
    NOT_OWNER = "not_owner"
    SHUTTING_DOWN = "shutting_down"
    OUTCOME_UNKNOWN = "outcome_unknown"
    INTERNAL = "internal"


@attrs.define
class Rejected:
    """The request is well formed and changed nothing. ``field`` names the part at fault, "" if none."""

    code: Code
    detail: str
    field: str = ""


@attrs.define
class Produced:
    """Items are in. Numbers are ``first_item`` + index, unless ``numbers`` lists them."""

    partition: PartitionId
    first_item: ItemNumber
    count: int
    numbers: list[int] | None = None
    """All numbers in request order, when some items were duplicates of existing ones."""
    duplicates: tuple[int, ...] = ()
    """Indexes in the request that name an existing item."""
    repeated: bool = False
    """The producer's sequence had been seen: this is the first answer again."""


@attrs.define
class Reserved:
    """A reservation. Columns: one value (the same for all) or a list with an entry an item.

    ``items``: (first item number, count) runs; the places likewise.
    """

    partition: PartitionId
    reservation: ReservationNumber
    nonce: int
    count: int
    runs: list[tuple[Place, ItemNumber, int]]
    payloads: list[bytes]
    attempts: int | list[int]
    deadline: Instant
    run_until: Instant
    attributes: "list[SegmentAttributes] | None" = None
    """Per run: the optional columns, or ``None`` when no item has any."""
    produced_at: list[Instant] | None = None


SegmentAttributes: TypeAlias = dict[str, list[object]]
"""Column name (as in events.Attributes) to one value an item."""


@attrs.define
class Settled:
    """What a settlement did. ``refused``: (index, code) of the items it did not touch."""

    done: int
    refused: tuple[tuple[int, Code], ...] = ()
    repeated: bool = False


@attrs.define
class Extended:
    deadline: Instant
    run_until: Instant


@attrs.define
class PlaceRefused:
    """The first item at fault in a SettlePlaces; nothing was changed."""

    place: Place
    code: Code
    """UNKNOWN_ITEM or NOT_RESERVED."""


@attrs.define
class Done:
    """An operator's command took effect on ``count`` items."""

    count: int = 0


@attrs.define
class Homes:
    """How many items came from other partitions as dead ones, by which."""

    idle: dict[PartitionId, int]
    """Waiting ones and those dead here: they can be sent back."""
    reserved: dict[PartitionId, int]
    """Somebody holds them."""


@attrs.define
class Imported:
    places: list[Place]
    """0: skipped, its source id is here already."""
    items: list[ItemNumber]


@attrs.define
class PartitionStats:
    partition: PartitionId
    position: int
    ready: int
    reserved: int
    scheduled: int
    dead: int
    produced: int
    completed: int
    removed: int
    """Cleared, deleted, moved or pruned."""
    reservations: int
    reservations_ended: int
    retried: int
    payload_bytes: int
    average_age: Duration
    """Of ready and reserved items, since they were produced."""
    average_time_left: Duration
    """Of reservations, to their deadline, weighted by items."""
    paused: bool
    policy_version: int
    oldest_at: Instant = Instant(0)


@attrs.define
class ItemView:
    """One item as it stands."""

    item: ItemNumber
    place: Place
    state: str
    """scheduled | ready | reserved | dead | gone."""
    attempts: int
    produced_at: Instant
    expires_at: Instant
    due_at: Instant
    deadline: Instant
    payload: bytes | None
    attributes: dict[str, object]
    reason: str = ""
    session: str = ""
    home: PartitionId = PartitionId(0)
    """The partition that it was dead in before it moved here; 0: none."""


@attrs.define
class ItemPage:
    items: list[ItemView]
    missing_payloads: Sequence[ItemNumber] = ()
    """Items whose payload is not in memory: the actor reads them from the log."""


Reply: TypeAlias = (
    Produced
    | Reserved
    | Settled
    | Extended
    | PlaceRefused
    | Done
    | Homes
    | Imported
    | PartitionStats
    | ItemPage
    | Rejected
)
