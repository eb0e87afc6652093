"""What can have happened to a partition.

An event records an *outcome*: deadlines and due times that were computed, not the timeouts that
were asked for; so the fold needs neither a clock nor a policy. Events are batch-shaped: a run of
items is one event. Treat them as immutable: they are not frozen only because construction is on
the hot path.

Where a field is called ``ranges`` it holds ``(first index, count)`` pairs *within a reservation*,
in ascending order, and ``None`` stands for all items that the reservation still holds. Where a
field is called ``runs`` it holds ``(first item number, count)`` pairs.

Numbers (items, places, reservations) that an event does not carry are given by the fold from its
counters, in the order of the events.
"""

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from querator.core.ids import Instant, ItemNumber, PartitionId, ReservationNumber, SessionId

Ranges: TypeAlias = tuple[tuple[int, int], ...]
Runs: TypeAlias = tuple[tuple[int, int], ...]


@attrs.define
class Attributes:
    """The optional attributes of a batch of items, by column.

    A column is ``None`` (absent), one value (the same for every item of the batch) or a list with
    one entry an item (``None`` in it: this item has none).
    """

    encoding: str | list[str | None] | None = None
    kind: str | list[str | None] | None = None
    reference: str | list[str | None] | None = None
    headers: dict[str, str] | list[dict[str, str] | None] | None = None
    key: str | list[str | None] | None = None
    dedupe_key: str | list[str | None] | None = None
    reservation_timeout: int | list[int | None] | None = None
    attempts_max: int | list[int | None] | None = None
    source_id: str | list[str | None] | None = None
    attempts: int | list[int | None] | None = None
    """Attempts already made: only of imported items."""
    produced_at: int | list[int | None] | None = None
    """When the item was first produced, where that is not the time of this event (imports)."""
    expires_at: int | list[int | None] | None = None
    """Per item, where it differs from the event's ``expires_at`` (imports)."""


@attrs.define
class TurnStarted:
    """Every event after this one, up to the next TurnStarted, happened at ``at``."""

    at: Instant


@attrs.define
class Claimed:
    """A node took the partition; everything before this record is final."""

    node: str
    nonce: int
    """Drawn by the claimant; part of every token and record of this claim."""
    incarnation: int
    read_tail: int
    """The position the claimant saw as the tail; this record stands right behind it."""
    server_identity: str


@attrs.define
class LossAccepted:
    """Follows a Claimed of a new incarnation: an operator takes the log as it is, though it may lack what had
    been acknowledged."""

    author: str
    known: int
    """The furthest position that is known to have been there; 0: none is."""


@attrs.define
class ItemsProduced:
    """Items entered the partition, in order. Their numbers are ``first_item``, +1, +2, ..."""

    first_item: ItemNumber
    count: int
    due_at: Instant
    """0: ready at once; else the items are scheduled for then."""
    expires_at: Instant
    """0: never."""
    attributes: Attributes | None
    producer: str
    """Idempotent producer, "" where none."""
    sequence: int
    payloads: Sequence[bytes] | None = attrs.field(default=None, repr=False)
    """In memory only: the log keeps payloads in the record's payload block."""
    part: int = 0
    """A request of mixed due times is several events; all but its last have ``part`` 1."""
    duplicates: tuple[tuple[int, int], ...] = ()
    """(index in the request, existing item number) of items refused as duplicates, on the last part."""


@attrs.define
class ItemsReserved:
    """Consecutive items of the line went to one holder, as the next reservation number.

    ``count`` items are taken from the head of the line (for a key's lane: the head item and its
    successors of the same key). The holder is a session, or "" for a reservation without holder.
    """

    count: int
    first_item: ItemNumber
    """The first item taken; the fold checks it against its line."""
    session: SessionId
    generation: int
    deadline: Instant
    run_until: Instant
    """0: not held; else the reservation is held by its live session up to this moment."""


@attrs.define
class ItemsCompleted:
    reservation: ReservationNumber
    ranges: Ranges | None


@attrs.define
class ItemsRetried:
    """The attempt failed; the items go back, to the tail at once (``due_at`` 0) or scheduled."""

    reservation: ReservationNumber
    ranges: Ranges | None
    due_at: Instant


@attrs.define
class ItemsReleased:
    """Given back without blame: the attempt does not count."""

    reservation: ReservationNumber
    ranges: Ranges | None
    why: str
    """client | undelivered | going_away."""


@attrs.define
class ReservationEnded:
    """It ended by itself; its remaining items go back to the tail, the attempt counted."""

    reservation: ReservationNumber
    ranges: Ranges | None
    why: str
    """deadline | session_lost | max_runtime | given_up (the session resumed while the partition was not open,
    so that its client saw no such reservation in the welcome)."""


@attrs.define
class ItemsDied:
    """Reserved items that will not be tried again."""

    reservation: ReservationNumber
    ranges: Ranges | None
    reason: str
    verb: str
    """How the reservation ended for them: dead | retried | ended."""


@attrs.define
class ReservationExtended:
    reservation: ReservationNumber
    deadline: Instant
    run_until: Instant


@attrs.define
class SessionResumed:
    """A newer connection took over the session's reservations."""

    session: SessionId
    generation: int


@attrs.define
class ItemsDue:
    """The ``count`` earliest scheduled items became ready, in order of due time."""

    count: int


@attrs.define
class ItemsExpired:
    """Waiting items whose time to live ended; they are dead (reason ``expired``)."""

    runs: Runs


@attrs.define
class ItemsCleared:
    """All items in these states, as they were at this moment, were removed by an operator."""

    ready: bool
    scheduled: bool
    reserved: bool
    dead: bool
    author: str


@attrs.define
class ItemsDeleted:
    """Single items removed by an operator, in whatever state they were."""

    runs: Runs
    author: str


@attrs.define
class ItemsRedriven:
    """Dead items went back to the tail with no attempts counted."""

    runs: Runs
    author: str


@attrs.define
class ItemsMoved:
    """Dead items that another partition has taken (its log says ItemsReceived)."""

    runs: Runs
    target: PartitionId
    last_move: int


@attrs.define
class ItemsReceived:
    """Follows an ItemsProduced: those items came from another partition, as moves up to ``last_move``."""

    source: PartitionId
    last_move: int
    count: int


@attrs.define
class ItemsSentBack:
    """Waiting or dead items that a dead queue took are on their way home, to the partition they came from."""

    runs: Runs
    target: PartitionId
    author: str


@attrs.define
class ItemsCameBack:
    """As ItemsReceived; but these items come home, from the dead queue that had taken them."""

    source: PartitionId
    last_move: int
    count: int


@attrs.define
class MovesGivenUp:
    """Items on their way to a partition that will never take them, since its queue was deleted: they stay
    here, dead."""

    runs: Runs
    target: PartitionId


@attrs.define
class ItemsPruned:
    """Dead items whose retention ended."""

    runs: Runs


@attrs.define
class PolicyApplied:
    """From here on the partition decides by this policy."""

    version: int
    document: bytes
    """The policy as JSON (core/policy.py)."""
    author: str


@attrs.define
class PartitionPaused:
    author: str


@attrs.define
class PartitionResumed:
    author: str


@attrs.define
class PayloadsCarried:
    """Payloads of live items, appended again so that an old bucket can be dropped."""

    runs: Runs
    payloads: Sequence[bytes] | None = attrs.field(default=None, repr=False)


@attrs.define
class BucketOpened:
    """The next record of this partition is in bucket ``bucket``."""

    bucket: int


@attrs.define
class ClockStepped:
    """The wall clock disagreed with the log's time by this many microseconds; nobody's deadline moved."""

    by: int


@attrs.define
class CatalogChanged:
    """A change of the catalog (partition 0), as a document (core/catalog.py)."""

    document: bytes


Event: TypeAlias = (
    TurnStarted
    | Claimed
    | LossAccepted
    | ItemsProduced
    | ItemsReserved
    | ItemsCompleted
    | ItemsRetried
    | ItemsReleased
    | ReservationEnded
    | ItemsDied
    | ReservationExtended
    | SessionResumed
    | ItemsDue
    | ItemsExpired
    | ItemsCleared
    | ItemsDeleted
    | ItemsRedriven
    | ItemsMoved
    | ItemsReceived
    | ItemsSentBack
    | ItemsCameBack
    | MovesGivenUp
    | ItemsPruned
    | PolicyApplied
    | PartitionPaused
    | PartitionResumed
    | PayloadsCarried
    | BucketOpened
    | ClockStepped
    | CatalogChanged
)
