"""What may be asked of a partition. Values only; who asks and where the answer goes is the actor's business.

``ranges`` are (first index, count) pairs within a reservation; ``None``: all it still holds.
"""

import enum
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from querator.core import limits
from querator.core.events import Attributes, Ranges
from querator.core.ids import Duration, Instant, ItemNumber, PartitionId, Place, ReservationNumber, SessionId
from querator.core.policy import Policy


class Verb(enum.IntEnum):
    """How a reservation is settled (or kept: EXTEND). The numbers are in snapshots; never reuse one."""

    COMPLETE = 1
    RETRY = 2
    RELEASE = 3
    DEAD = 4
    EXTEND = 5
    ENDED = 6
    """Not a client's verb: the reservation ended by itself."""


BY_BACKOFF = Instant(-1)
"""As ``Settle.due_at``: when the queue's backoff says."""


@attrs.define
class Produce:
    """Append items, atomically and in order.

    ``due_at`` is 0 (ready at once), one instant, or one an item.
    """

    payloads: Sequence[bytes]
    due_at: Instant | list[Instant] = Instant(0)
    attributes: Attributes | None = None
    producer: str = ""
    sequence: int = 0


@attrs.define
class Reserve:
    """Take up to ``items_max`` items now; nothing ready is an empty answer (parking is demand's business)."""

    items_max: int
    session: SessionId
    generation: int = 0
    reservation_timeout: Duration = Duration(0)
    """0: the item's, else the queue's."""
    held: bool = False


@attrs.define
class Settle:
    """Complete, retry, release, set aside or extend (part of) a reservation."""

    verb: Verb
    reservation: ReservationNumber
    nonce: int
    ranges: Ranges | None = None
    due_at: Instant = BY_BACKOFF
    """RETRY: 0 at once, BY_BACKOFF, or a time."""
    reason: str = ""
    """DEAD: why; RELEASE: client | undelivered | going_away."""
    timeout: Duration = Duration(0)
    """EXTEND: from now on; 0: the queue's reservation timeout."""


@attrs.define
class PlaceSettlement:
    place: Place
    verb: Verb
    due_at: Instant = Instant(0)
    reason: str = ""


@attrs.define
class SettlePlaces:
    """Settle items named by place (the HTTP door): all of them or none."""

    settlements: list[PlaceSettlement]


@attrs.define
class Clear:
    ready: bool = False
    scheduled: bool = False
    reserved: bool = False
    dead: bool = False
    author: str = ""


@attrs.define
class Delete:
    """Remove items named by place; those that are not there are skipped."""

    places: list[Place]
    author: str = ""


@attrs.define
class Redrive:
    """Bring dead items back: by number, or (``None``) all, optionally only those of one reason."""

    items: list[ItemNumber] | None = None
    reason: str | None = None
    items_max: int = 4_096
    author: str = ""


@attrs.define
class SendBack:
    """Send items that a dead queue took home, to the partitions they came from: by number, or (``None``) all
    that wait or are dead, in the order in which they came here. Reserved ones are left to who holds them."""

    items: list[ItemNumber] | None = None
    homes: Sequence[PartitionId] | None = None
    """Only those that came from these; ``None``: from wherever."""
    items_max: int = limits.SEND_BACK_ITEMS_MAX
    """Where none are named."""
    author: str = ""


@attrs.define
class ImportedItem:
    payload: bytes
    attributes: Attributes
    reserved_until: Instant = Instant(0)
    """0: not reserved; else a reservation without holder up to then."""


@attrs.define
class Import:
    """Append items with a past (HTTP: storage/items.import); a source id already here is skipped."""

    items: list[ImportedItem]


@attrs.define
class Receive:
    """Take over items of another partition: moves ``first_move`` ... in order, dense."""

    source: PartitionId
    first_move: int
    payloads: Sequence[bytes]
    attributes: Attributes
    come_back: bool = False
    """The source is a dead queue, and the items come home; else they are its dead."""


@attrs.define
class ConfirmMoves:
    """The target has committed our moves up to ``last_move``."""

    target: PartitionId
    last_move: int


@attrs.define
class GiveUpMoves:
    """The target's queue was deleted, and what it took was confirmed: what it did not take stays here."""

    target: PartitionId


@attrs.define
class Pause:
    author: str = ""


@attrs.define
class Resume:
    author: str = ""


@attrs.define
class ApplyPolicy:
    policy: Policy
    author: str = ""


@attrs.define
class ReadStats:
    """Counters of the partition, as of the committed position the answer carries."""


@attrs.define
class ReadHomes:
    """How many items could be sent back, by where they came from."""


class Listing(enum.StrEnum):
    ITEMS = "items"
    """Reserved and ready items, in order of place."""
    SCHEDULED = "scheduled"
    DEAD = "dead"


@attrs.define
class ListItems:
    """A page of items, from ``pivot`` (a place; for DEAD an item number), inclusive."""

    listing: Listing
    pivot: int = 0
    limit: int = 1_000


@attrs.define
class FindItem:
    """The present state of one item."""

    item: ItemNumber


Command: TypeAlias = (
    Produce
    | Reserve
    | Settle
    | SettlePlaces
    | Clear
    | Delete
    | Redrive
    | SendBack
    | Import
    | Receive
    | ConfirmMoves
    | GiveUpMoves
    | Pause
    | Resume
    | ApplyPolicy
    | ReadStats
    | ReadHomes
    | ListItems
    | FindItem
)
