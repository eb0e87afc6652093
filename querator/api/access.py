"""Who is asking, and may they? The doors ask here; what answers is put in when the server is built."""

from typing import Final, Protocol

from querator.core.catalog import ANONYMOUS, Principal
from querator.core.ids import Instant, PartitionId, QueueName
from querator.core.replies import Rejected

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

    @property
    def version(self) -> int:
        """Another one than before: earlier answers need not stand any more."""

    @property
    def wants_keys(self) -> bool:
        """Who shows no good key may do nothing here."""

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        """Whose key this is; "" asks for the anonymous principal. Rejected: UNAUTHENTICATED."""

    def is_current(self, principal: Principal, now: Instant) -> bool:
        """Whether an earlier answer of ``authenticate`` still stands (asked every few seconds)."""

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        """Whether the principal has the permission for the queue."""

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        """The same for the queue that the partition belongs to."""

    def may(self, principal: Principal, namespace: str, permission: str) -> bool:
        """The same for a namespace: for what is not a queue yet."""


class OpenAccess:
    """Everybody may do everything."""

    version = 0
    wants_keys = False

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

    def may(self, principal: Principal, namespace: str, permission: str) -> bool:
        del principal, namespace, permission
        return True
