"""Who is asking, and may they? The doors ask here; what answers is put in when the server is built."""

from collections.abc import Callable
from typing import Final, Protocol

from querator.core.catalog import (
    ANONYMOUS,
    SYSTEM_NAMESPACE,
    Catalog,
    KeyFault,
    Principal,
    authenticate,
    is_allowed,
    is_current,
)
from querator.core.ids import Instant, PartitionId, QueueName
from querator.core.replies import Code, Rejected

PRODUCE: Final = "queue.produce"
RESERVE: Final = "queue.lease"
COMPLETE: Final = "queue.complete"
RETRY: Final = "queue.retry"
STATS: Final = "queue.stats"
CREATE: Final = "queue.create"
LIST: Final = "queue.list"
UPDATE: Final = "queue.update"
DELETE: Final = "queue.delete"
CLEAR: Final = "queue.clear"
"""Permissions, spelled as the catalog spells them."""


class Access(Protocol):
    """Answers from memory, at once."""

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        """Whose key this is; "" asks for the anonymous principal. Rejected: UNAUTHENTICATED."""

    def is_current(self, principal: Principal, now: Instant) -> bool:
        """Whether an earlier answer of ``authenticate`` still stands (asked every few seconds)."""

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        """Whether the principal has the permission for the queue."""

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        """The same for the queue that the partition belongs to."""

    def is_allowed_namespace(self, principal: Principal, permission: str, namespace: str) -> bool:
        """The same for a namespace: for what is not a queue yet."""


class OpenAccess:
    """Everybody may do everything."""

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        del key, now
        return ANONYMOUS

    def is_current(self, principal: Principal, now: Instant) -> bool:
        del principal, now
        return True

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        del principal, permission, queue
        return True

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        del principal, permission, partition
        return True

    def is_allowed_namespace(self, principal: Principal, permission: str, namespace: str) -> bool:
        del principal, permission, namespace
        return True


class CatalogAccess:
    """As the catalog's users, keys, roles and bindings say. ``read`` returns the committed catalog."""

    def __init__(self, read: Callable[[], Catalog]) -> None:
        self._read = read

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        if not key:
            return ANONYMOUS
        known = authenticate(self._read(), key, now)
        if isinstance(known, KeyFault):
            return Rejected(Code.UNAUTHENTICATED, f"the key is {known}", "auth")
        return known

    def is_current(self, principal: Principal, now: Instant) -> bool:
        return is_current(self._read(), principal, now)

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        catalog = self._read()
        found = catalog.queues.get(queue)
        # A queue that is not there belongs to nobody: only who may do it everywhere learns of that.
        return is_allowed(
            catalog, principal, found.namespace if found is not None else SYSTEM_NAMESPACE, permission
        )

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        catalog = self._read()
        found = catalog.find_queue_of(partition)
        return is_allowed(
            catalog, principal, found.namespace if found is not None else SYSTEM_NAMESPACE, permission
        )

    def is_allowed_namespace(self, principal: Principal, permission: str, namespace: str) -> bool:
        return is_allowed(self._read(), principal, namespace, permission)
