"""The messages of ``/v1/stream`` (docs/PROTOCOL.md), one definition for both subprotocols.

A WebSocket message is a list of these. They are msgspec structs, not attrs classes: msgspec
decodes a tagged union of structs at 0.1 µs a message (PERFORMANCE.md D7). All instants and
durations are integers, microseconds. A *column* is absent, one value for all items, or a list with
an entry an item.
"""

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

NUMBER_MAX: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly; ids and push numbers stay below it."""

Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]


class Message(
    msgspec.Struct,
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
    tag_field="type",
):
    """Base of all messages: unknown fields are refused, defaults are left out."""


# --- from the client ------------------------------------------------------------------------------


class Hello(Message, tag="hello"):
    """The first message. ``resume`` is the token of the latest ``welcome``.

    Subscriptions do not outlive their connection: subscribe again after each ``welcome``.
    """

    client: str
    resume: str = ""
    auth: str = ""
    confirmed: Number = 0
    """With ``resume``: the last push this client has taken over."""


class Produce(Message, tag="produce"):
    """Give ``payloads`` (bytes; base64 in JSON) or ``texts`` (UTF-8)."""

    id: Number
    queue: str
    payloads: list[bytes] | UnsetType = UNSET
    texts: list[str] | UnsetType = UNSET
    enqueue_at: int | list[int | None] | None = None
    encoding: str | list[str | None] | None = None
    kind: str | list[str | None] | None = None
    reference: str | list[str | None] | None = None
    headers: dict[str, str] | list[dict[str, str] | None] | None = None
    key: str | list[str | None] | None = None
    dedupe_key: str | list[str | None] | None = None
    reservation_timeout: int | list[int | None] | None = None
    attempts_max: int | list[int | None] | None = None
    producer: str = ""
    sequence: Number = 0
    partition: int | None = None
    """Pin to this partition: a repeat of a producer's sequence goes where the first went."""


class Subscribe(Message, tag="subscribe"):
    """Have reservations pushed. The subscription is named by this message's ``id``."""

    id: Number
    queue: str
    window: int = 1_000
    """Items pushed and not yet settled, at most."""
    window_bytes: int = 0
    """0: the server's default."""
    batch: int = 100
    """Items of one reservation, at most."""
    linger: int = 0
    """How long to wait for a full batch once something is ready."""
    reservation_timeout: int = 0
    held: bool = True
    texts: bool = False
    """Deliver payloads that are UTF-8 as ``texts`` (JSON clients)."""


class Unsubscribe(Message, tag="unsubscribe"):
    id: Number
    subscription: Number


class Reserve(Message, tag="reserve"):
    """Ask once. ``wait``: how long to stay parked when nothing is ready; 0 answers at once."""

    id: Number
    queue: str
    items: int = 1
    wait: int = 0
    reservation_timeout: int = 0
    held: bool = False
    texts: bool = False


class Complete(Message, tag="complete"):
    """``ranges``: [first index, count] pairs within the reservation; absent: all of it."""

    id: Number
    token: str
    ranges: list[tuple[int, int]] | None = None


class Retry(Message, tag="retry"):
    """The attempt failed. ``at`` or ``delay`` (0: at once) says when again; neither: the queue's backoff."""

    id: Number
    token: str
    ranges: list[tuple[int, int]] | None = None
    at: int | None = None
    delay: int | None = None


class Release(Message, tag="release"):
    """Give back without blame: the attempt does not count."""

    id: Number
    token: str
    ranges: list[tuple[int, int]] | None = None


class Dead(Message, tag="dead"):
    id: Number
    token: str
    reason: str
    ranges: list[tuple[int, int]] | None = None


class Extend(Message, tag="extend"):
    """Move the deadline to ``timeout`` from now; 0: the queue's reservation timeout."""

    id: Number
    token: str
    timeout: int = 0


class Confirm(Message, tag="confirm"):
    """All pushes up to ``push`` have been taken over. Unanswered."""

    push: Number


class Stats(Message, tag="stats"):
    id: Number
    queue: str


class Watch(Message, tag="watch"):
    """Follow a queue's counters (every ``interval``), until ``unwatch``."""

    id: Number
    queue: str
    interval: int = 1_000_000


class WatchItem(Message, tag="watch_item"):
    """Follow what becomes of one item, until ``unwatch``."""

    id: Number
    partition: Number
    item: Number


class Unwatch(Message, tag="unwatch"):
    id: Number
    watch: Number


class Call(Message, tag="call"):
    """An operator's call; see docs/PROTOCOL.md for the methods and their parameters."""

    id: Number
    method: str
    params: msgspec.Raw = msgspec.Raw(b"")


ClientMessage: TypeAlias = (
    Hello
    | Produce
    | Subscribe
    | Unsubscribe
    | Reserve
    | Complete
    | Retry
    | Release
    | Dead
    | Extend
    | Confirm
    | Stats
    | Watch
    | WatchItem
    | Unwatch
    | Call
)


# --- from the server ------------------------------------------------------------------------------


class Held(Message):
    """A reservation that the session still holds, in ``welcome``."""

    token: str
    queue: str
    partition: int
    remaining: list[tuple[int, int]]
    """Ranges of indexes not yet settled."""
    deadline: int
    subscription: int | None = None


class Welcome(Message, tag="welcome"):
    session: str
    generation: int
    resume: str
    server_time: int
    ping_interval: int
    grace: int
    limits: dict[str, int]
    held: list[Held] = []


class Produced(Message, tag="produced"):
    """Committed. Item numbers are ``first`` + index, or ``numbers`` when some were duplicates."""

    id: int
    partition: int
    first: int
    count: int
    numbers: list[int] | None = None
    duplicates: list[int] | None = None
    """Indexes whose dedupe key named an existing item."""
    repeated: bool = False
    """The answer to a producer sequence that was already known."""


class Subscribed(Message, tag="subscribed"):
    id: int


class Unsubscribed(Message, tag="unsubscribed"):
    id: int


class Reserved(Message, tag="reserved"):
    """A reservation: pushed (``subscription`` set) or the answer to ``reserve`` (``id`` set).

    Either is numbered by ``push``. A large reservation comes in several messages of the same token and
    number, the final one with ``last``: confirm it then. ``first`` is the index of this message's first
    item within the reservation.
    """

    token: str
    queue: str
    partition: int
    items: int | list[int]
    """First item number (consecutive), or all numbers."""
    deadline: int
    payloads: list[bytes] | UnsetType = UNSET
    texts: list[str] | UnsetType = UNSET
    first: int = 0
    push: int = 0
    subscription: int | None = None
    id: int | None = None
    last: bool = True
    """False: more messages of this reservation follow."""
    attempts: int | list[int] = 1
    run_until: int = 0
    encoding: str | list[str | None] | None = None
    kind: str | list[str | None] | None = None
    reference: str | list[str | None] | None = None
    headers: dict[str, str] | list[dict[str, str] | None] | None = None
    key: str | list[str | None] | None = None
    again: bool = False
    """Pushed again after a resume: the same attempt."""


class Empty(Message, tag="empty"):
    """Nothing became ready within a ``reserve``'s wait."""

    id: int


class Settled(Message, tag="settled"):
    """The answer to complete, retry, release, dead. ``refused``: [index, code] of items not touched."""

    id: int
    done: int
    refused: list[tuple[int, str]] | None = None
    repeated: bool = False


class Extended(Message, tag="extended"):
    id: int
    deadline: int
    run_until: int = 0


class Lost(Message, tag="lost"):
    """A reservation that this session no longer holds; settling it is refused from here on.

    It bears no push number: after a resume, what ``welcome`` does not list is lost.
    """

    token: str
    why: str


class GoingAway(Message, tag="going_away"):
    """The server drains: finish, settle, reconnect (to ``to`` if given) before ``deadline``."""

    deadline: int
    to: str = ""


class Rejected(Message, tag="rejected"):
    """The request ``id`` changed nothing (``outcome_unknown``: may have)."""

    id: int
    code: str
    detail: str
    field: str = ""


class Error(Message, tag="error"):
    """The frame was not understood; ``path`` says where. ``id`` when it could be read."""

    code: str
    detail: str
    path: str = ""
    id: int | None = None


class StatsReport(Message, tag="stats"):
    """Counters of a queue, per partition; the answer to ``stats`` and each beat of ``watch``."""

    id: int
    queue: str
    partitions: list[dict[str, int]]
    subscriptions: int = 0
    parked: int = 0


class Watching(Message, tag="watching"):
    id: int


class Step(Message, tag="step"):
    """One event in the life of a watched item."""

    id: int
    """Of the ``watch_item``."""
    position: int
    at: int
    what: str
    text: str
    details: dict[str, Any]


class Unwatched(Message, tag="unwatched"):
    id: int


class Result(Message, tag="result"):
    """The answer to ``call``."""

    id: int
    value: msgspec.Raw


ServerMessage: TypeAlias = (
    Welcome
    | Produced
    | Subscribed
    | Unsubscribed
    | Reserved
    | Empty
    | Settled
    | Extended
    | Lost
    | GoingAway
    | Rejected
    | Error
    | StatsReport
    | Watching
    | Step
    | Unwatched
    | Result
)
