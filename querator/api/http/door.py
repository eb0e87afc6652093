"""What every call of the HTTP API has in common: who asks, for which queue, and how the engine is asked.

``Door`` is what a call is given. It decides nothing about items: that is the engine's.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from querator.actors.ports import AnalyticsPort, BrokerPort, CatalogPort, HistoryPort
from querator.api.catalog_access import CatalogAccess
from querator.api.http.pending import Answer, PendingRequest
from querator.api.http.refusals import (
    ACCESS_DENIED,
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL_ERROR,
    OVERLOADED,
    REQUEST_FAILED,
    RETRY_REQUEST,
    SERVICE_STOPPING,
    TRY_AGAIN,
    Refused,
    refusal_of,
    refuse,
)
from querator.core.catalog import SYSTEM_NAMESPACE, Catalog, CatalogCommand, Changed, Principal, Queue
from querator.core.commands import Command
from querator.core.ids import Instant, PartitionId, QueueName
from querator.core.replies import Code, Rejected
from querator.core.white_space import is_blank
from querator.env import Clock

_T = TypeVar("_T")

_UNANSWERED: Final = (Code.UNAVAILABLE, Code.NOT_OWNER, Code.OUTCOME_UNKNOWN, Code.HALTED, Code.OVERLOADED)


@attrs.frozen(kw_only=True)
class HttpSettings:
    """What an operator may set about this door."""

    produce_items_max: int = 1_000
    lease_items_max: int = 1_000
    complete_items_max: int = 1_000
    produce_body_bytes_max: int = 5_000_000
    stores: tuple[str, ...] = ("",)
    """Where the partitions of new queues live, in turn."""


@attrs.define
class Traffic:
    """Calls of one queue that wait for the engine, by kind."""

    produce: int = 0
    lease: int = 0
    settle: int = 0

    @property
    def total(self) -> int:
        return self.produce + self.lease + self.settle


def _never_full(queue: QueueName, waiting: int) -> bool:
    del queue, waiting
    return False


@attrs.define(kw_only=True)
class Door:
    """Shared by all calls of one node. ``is_full`` may refuse calls beyond what the engine refuses."""

    broker: BrokerPort
    catalog_port: CatalogPort
    access: CatalogAccess
    clock: Clock
    settings: HttpSettings = attrs.field(factory=HttpSettings)
    history: HistoryPort | None = None
    analytics: AnalyticsPort | None = None
    is_full: Callable[[QueueName, int], bool] = _never_full
    is_stopping: bool = False
    is_standing_by: Callable[[], bool] = bool
    """Another node has all the queues; here is not even a catalog to look into."""
    _traffic: dict[QueueName, Traffic] = attrs.field(factory=dict)
    _waiting: dict[PendingRequest, tuple[Principal, str, str]] = attrs.field(factory=dict)
    """Who waits for long, by which permission in which namespace."""

    @property
    def catalog(self) -> Catalog:
        return self.catalog_port.catalog

    # --- checks ----------------------------------------------------------------------------------

    def running(self) -> None:
        """Raises:
        Refused: the service is stopping.
        """
        if self.is_stopping:
            refuse(SERVICE_STOPPING, REQUEST_FAILED)

    def find_queue(self, name: str) -> Queue:
        """The common look-up (Q)."""
        self.running()
        queue = self.catalog.queues.get(name)
        if queue is not None:
            return queue
        if is_blank(name):
            refuse("queue name is invalid; queue name cannot be empty")
        if "~" in name:
            refuse(f"queue name is invalid; '{name}' cannot contain '~' character")
        raise no_such_queue(name)

    def authorize(self, caller: Principal, permission: str, namespace: str = SYSTEM_NAMESPACE) -> None:
        """A."""
        if not self.access.may(caller, namespace, permission):
            refuse(ACCESS_DENIED, FORBIDDEN)

    def partition(self, queue: Queue, index: int) -> PartitionId:
        """P: the partition that the queue-local index names."""
        if not 0 <= index < len(queue.partitions):
            refuse(f"partition is invalid; '{index}' is not a valid partition")
        return queue.partitions[index].id

    def index_of(self, queue: Queue, partition: PartitionId) -> int:
        """The queue-local index of a partition of the queue."""
        for index, candidate in enumerate(queue.partitions):
            if candidate.id == partition:
                return index
        raise Refused(INTERNAL_ERROR, "Internal Error")

    # --- the engine ------------------------------------------------------------------------------

    def traffic(self, queue: Queue) -> Traffic:
        """Of one queue; kept while calls wait."""
        traffic = self._traffic.get(queue.name)
        if traffic is None:
            traffic = self._traffic[queue.name] = Traffic()
        return traffic

    def enter(self, queue: Queue) -> Traffic:
        """The queue's traffic, for a call that is about to join it."""
        traffic = self.traffic(queue)
        if self.is_full(queue.name, traffic.total):
            refuse(OVERLOADED, RETRY_REQUEST)
        return traffic

    def left(self, queue: Queue, traffic: Traffic) -> None:
        """A call left the queue's traffic."""
        if not traffic.total:
            self._traffic.pop(queue.name, None)

    async def ask_waiting(
        self,
        caller: Principal,
        permission: str,
        namespace: str,
        call: Callable[[PendingRequest, Instant], None],
    ) -> Answer:
        """As ``ask``, for what may wait for long: it is refused when the caller's key or permission goes."""
        pending = PendingRequest()
        self._waiting[pending] = (caller, permission, namespace)
        try:
            return await self.ask(call, pending)
        finally:
            del self._waiting[pending]

    def access_changed(self) -> None:
        """Refuse what waits and might not begin any more."""
        now = self.broker.begin_turn()
        try:
            for pending, (caller, permission, namespace) in list(self._waiting.items()):
                if not self.access.is_current(caller, now):
                    gone = Rejected(Code.UNAUTHENTICATED, "api key does not exist")
                    self.broker.withdraw(pending, 0, gone)
                elif not self.access.may(caller, namespace, permission):
                    self.broker.withdraw(pending, 0, Rejected(Code.DENIED, ACCESS_DENIED))
        finally:
            self.broker.end_turn()

    async def ask(
        self, call: Callable[[PendingRequest, Instant], None], pending: PendingRequest | None = None
    ) -> Answer:
        """One turn of one request, and its committed answer. ``call`` is given the turn's time."""
        pending = pending or PendingRequest()
        now = self.broker.begin_turn()
        try:
            call(pending, now)
        finally:
            self.broker.end_turn()
        return (await pending.answers(self.broker))[0]

    async def ask_partition(self, partition: PartitionId, command: Command) -> Answer:
        """The answer of one partition."""
        return await self.ask(lambda pending, _: self.broker.command(pending, 0, partition, command))

    async def ask_each(self, queue: Queue, command: Command) -> list[Answer]:
        """The answers of all partitions of a queue, in order of their index; one turn."""
        pending = PendingRequest(expected=len(queue.partitions))
        self.broker.begin_turn()
        try:
            for index, partition in enumerate(queue.partitions):
                self.broker.command(pending, index, partition.id, command)
        finally:
            self.broker.end_turn()
        return await pending.answers(self.broker)

    async def change(self, caller: Principal, decide: Callable[[], CatalogCommand]) -> Changed:
        """Change the catalog by the command that ``decide`` arrives at after its checks.

        The checks look at the committed catalog, the catalog's owner at the newest. When the owner
        refuses, another change came first: then the checks run again and say in the words of this door
        what is wrong now.
        """
        outcome = await self.catalog_port.change(decide(), caller.user_id)
        if isinstance(outcome, Changed):
            return outcome
        if outcome.code in _UNANSWERED:
            refuse(TRY_AGAIN, RETRY_REQUEST)
        if outcome.code is Code.SHUTTING_DOWN:
            refuse(SERVICE_STOPPING, REQUEST_FAILED)
        decide()
        raise Refused(BAD_REQUEST, f"{outcome.field or 'request'} is invalid; {outcome.detail}")


def no_such_queue(name: str) -> Refused:
    return Refused(BAD_REQUEST, f"queue does not exist; no such queue named '{name}'")


def expect(answer: object, kind: type[_T], queue: Queue, partition: int = 0) -> _T:
    """The answer, if it is of the kind that was asked for.

    Raises:
        Refused: the engine refused, or answered something else.
    """
    if isinstance(answer, kind):
        return answer
    if isinstance(answer, Rejected):
        raise refusal_of(answer, queue.name, partition)
    raise Refused(INTERNAL_ERROR, "Internal Error")
