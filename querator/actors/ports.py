"""The seam between the doors (api/) and the actors: what a door may call, and what it is called with.

Everything here is synchronous. A door opens a turn, hands over what it decoded, and ends the turn;
answers come back through ``Requester.deliver`` when the position they were decided at is committed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from querator.core.catalog import Catalog, CatalogCommand, Changed
from querator.core.commands import Command, Produce, Settle
from querator.core.ids import (
    Duration,
    Instant,
    ItemNumber,
    PartitionId,
    Position,
    QueueName,
    ReservationNumber,
    SessionId,
)
from querator.core.limits import RESERVATION_BYTES_MAX
from querator.core.replies import Rejected, Reply

Delivery: TypeAlias = "tuple[int, Reply | QueueStats | ReservationLost | TraceStep]"
"""(request or subscription id, what became of it). Ids below 0 are the door's own."""


@attrs.define
class ReservationLost:
    """Pushed to a holder: that reservation ended without its doing."""

    partition: PartitionId
    reservation: ReservationNumber
    nonce: int
    why: str


@attrs.define
class HeldReservation:
    """One entry of a resumed session's reservations."""

    queue: QueueName
    partition: PartitionId
    reservation: ReservationNumber
    nonce: int
    remaining: list[tuple[int, int]]
    """(first index, count) ranges not yet settled."""
    deadline: Instant


class Requester(Protocol):
    """Who asked: a session or one HTTP request. Owned by the door; actors only call ``deliver``."""

    session: SessionId
    """"" for one that cannot hold reservations across a reconnect."""
    generation: int
    is_open: bool
    """False: nothing can reach the client any more; its undelivered reservations are released."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Take committed answers and pushes; never waits, never raises."""


@attrs.define
class SubscriptionRequest:
    window: int
    window_bytes: int
    batch: int
    linger: Duration
    reservation_timeout: Duration
    held: bool


@attrs.define
class ReserveRequest:
    """``deadline`` 0: answer at once (Rejected NOTHING_READY if empty); else park until then."""

    items_max: int
    deadline: Instant
    reservation_timeout: Duration
    held: bool
    bytes_max: int = RESERVATION_BYTES_MAX
    """Of the payloads; one item always goes."""
    client: str = ""
    """HTTP: two parked requests of one client on one queue are refused."""


@attrs.define
class QueueStats:
    queue: QueueName
    partitions: "list[object]"
    """PartitionStats, one a partition."""
    subscriptions: int
    parked: int


class BrokerPort(Protocol):
    """What the doors use of a running node (implemented by actors/broker.py)."""

    def begin_turn(self) -> Instant:
        """Read the clock once for all that follows, up to ``end_turn``."""

    def end_turn(self) -> None:
        """Match what became ready with the demand, and let the log writer run."""

    def produce(
        self,
        requester: Requester,
        request: int,
        queue: QueueName,
        command: Produce,
        partition: PartitionId | None,
    ) -> None: ...

    def settle(
        self,
        requester: Requester,
        request: int,
        partition: PartitionId,
        command: Settle,
    ) -> None: ...

    def reserve(
        self,
        requester: Requester,
        request: int,
        queue: QueueName,
        reserve: ReserveRequest,
    ) -> None: ...

    def withdraw(self, requester: Requester, request: int, refusal: Rejected) -> None:
        """Refuse a ``reserve`` that is parked and must not be served any more; one that is not, is let be."""

    def subscribe(
        self,
        requester: Requester,
        subscription: int,
        queue: QueueName,
        wanted: SubscriptionRequest,
    ) -> None:
        """Delivers ``Done`` under the subscription's id, then Reserved under the same id, for ever.

        Rejected instead of ``Done``, or later (the queue is gone), ends the subscription.
        """

    def unsubscribe(self, requester: Requester, request: int, subscription: int) -> None: ...

    def command(
        self,
        requester: Requester,
        request: int,
        partition: PartitionId,
        command: Command,
    ) -> None:
        """Any other command, to one partition."""

    def stats(self, requester: Requester, request: int, queue: QueueName) -> None:
        """Delivers QueueStats, once every partition's counters are committed, or some are and STATS_WAIT
        is over."""

    def watch_item(
        self, requester: Requester, request: int, partition: PartitionId, item: ItemNumber
    ) -> None:
        """Delivers ``Done``, then a TraceStep for each event that touches the item, until ``unwatch_item``.

        Rejected instead of ``Done``, or later (the partition was opened anew), ends it.
        """

    def unwatch_item(self, requester: Requester, request: int, partition: PartitionId) -> None:
        """End what ``request`` began. Not answered."""

    def partitions(self, queue: QueueName) -> list[PartitionId] | None:
        """In order of their queue-local index; ``None``: no such queue."""

    def session_opened(self, requester: Requester) -> None:
        """A new session: it may be told of what it loses from here on."""

    def session_resumed(self, requester: Requester) -> list[HeldReservation]:
        """The newer connection of ``requester.session`` took over its reservations: what becomes of them
        goes to ``requester`` now. Pushes decided before, and not yet committed, go there as well.
        """

    def session_lost(self, session: SessionId, generation: int) -> None:
        """The connection is gone; its held reservations end after the grace unless it resumes.

        Its subscriptions and parked requests end at once: a client that resumes subscribes again.
        """

    def holds(
        self, session: SessionId, partition: PartitionId, reservation: ReservationNumber, nonce: int
    ) -> bool:
        """Whether this reservation is there, and this session's."""

    def unconfirmed(self, partition: PartitionId, reservation: ReservationNumber, nonce: int) -> None:
        """The client has never said that it took this reservation over: it ends if its deadline is past,
        held or not."""

    def session_closed(self, requester: Requester) -> None:
        """The client said goodbye: release at once what it still holds, drop its subscriptions."""


class CatalogPort(Protocol):
    """The catalog as the doors use it (implemented by actors/catalog.py)."""

    @property
    def catalog(self) -> Catalog:
        """The committed catalog. To read at once, not to keep: it moves on between two awaits."""

    async def change(self, command: CatalogCommand, author: str = "") -> Changed | Rejected:
        """Decide, commit and carry out a change; what a later call finds in ``catalog`` includes it.

        A created queue's partitions take commands when this returns; an updated one's decide by the
        new policy; a deleted one's parked requests have been refused (SHUTTING_DOWN). Refused with
        UNAVAILABLE, nothing was written; with OUTCOME_UNKNOWN, it may have been. Cancelling it leaves the
        outcome open.
        """


@attrs.frozen
class TraceStep:
    """One event in the life of an item."""

    position: Position
    at: Instant
    what: str
    """produced, reserved, completed, retried, released, ended, dead, due, expired, redriven, moved, ..."""
    text: str
    """The event in words."""
    details: dict[str, object] = attrs.field(factory=dict)
    """Its fields, ready for JSON."""


@attrs.frozen
class Answer:
    """Rows of an answer, ready for encoding: numbers, texts, and moments and durations in microseconds."""

    columns: list[str]
    rows: list[list[Any]]
    as_of: Instant
    """When what was asked was written."""
    is_cut: bool = False
    """There were more rows than a server gives."""


class AnalyticsPort(Protocol):
    """Questions about the exported history (implemented by analytics/)."""

    async def ask(self, question: str, params: Mapping[str, object]) -> Answer | Rejected:
        """The rows of a canned question: a bounded number, within a bounded time. Never raises for what
        the caller asked or the archive is."""

    async def run(self) -> None:
        """What has to be done beside, until it is cancelled; a task of the server's."""

    def close(self) -> None:
        """Let go of what questions are asked of. None may be under way, nor ``run``."""


class PrunePort(Protocol):
    """The log's retention (implemented by analytics/)."""

    async def prune(self, *, older_than: Duration, buckets_kept: int) -> dict[str, list[int]] | Rejected:
        """Drop the buckets of history that ended so long ago, are exported and kept, and that nothing alive
        needs; at least ``buckets_kept`` of each store stay. Those that went, by store."""


@attrs.frozen
class Whereabouts:
    """Of a partition."""

    store: str
    condition: str
    """open | holding (its store does not take appends) | halted | unavailable."""
    fault: str
    """Why it is not open; "" when it is."""


@attrs.frozen
class AcceptedLoss:
    """What an operator put up with."""

    kept: Position
    """Of the last record that is there."""
    known: Position
    """Of the last one that is known to have been there, which may be the same; 0: none is known."""


class PartitionsPort(Protocol):
    """What an operator wants of single partitions (implemented by actors/supervisor.py)."""

    def whereabouts(self, partition: PartitionId) -> Whereabouts:
        """Where it lives, and how it is."""

    async def accept_loss(self, partition: PartitionId, author: str) -> AcceptedLoss | Rejected:
        """Go on with a partition that halted because its log may have lost its end; Rejected: why not."""


class HistoryPort(Protocol):
    """What the doors use of the log's history (implemented by actors/)."""

    async def trace(
        self, partition: PartitionId, item: ItemNumber, *, steps_max: int
    ) -> Sequence[TraceStep] | Rejected:
        """All events of one item, oldest first, read from the log; at most ``steps_max`` (the newest)."""
