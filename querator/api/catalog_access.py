"""Authentication and authorisation for every door, from the catalog in memory.

What a header or key turned out to be is remembered (bad ones too, so that they cost a look-up and no
hashing) until the catalog changes; a key's own expiry is looked at each time.
"""

from typing import Final

from querator.actors.ports import CatalogPort
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
from querator.core.ids import NEVER, Instant, PartitionId, QueueName
from querator.core.replies import Code, Rejected

REMEMBERED_KEYS_MAX: Final = 4_096
KEY_LENGTH_MAX: Final = 512
"""Longer ones are not remembered: none of ours is."""

FAULT_TEXTS: Final = {
    KeyFault.MALFORMED: "api key is invalid",
    KeyFault.UNKNOWN: "api key does not exist",
    KeyFault.EXPIRED: "api key has expired",
}


class CatalogAccess:
    """Implements Access. With ``auth`` off everybody is anonymous and may do everything."""

    def __init__(self, port: CatalogPort, *, auth: bool) -> None:
        self._port = port
        self.auth = auth
        self._known: dict[str, Principal | KeyFault] = {}
        self._version = -1
        self._is_anonymous_known = False
        """The anonymous user has a role somewhere."""
        self.looked_up = 0
        """Keys that were not remembered, so far."""
        self._last_used: dict[str, Instant] = {}

    @property
    def version(self) -> int:
        """See Access."""
        return self._port.catalog.version

    @property
    def wants_keys(self) -> bool:
        """See Access."""
        if not self.auth:
            return False
        catalog = self._port.catalog
        if catalog.version != self._version:
            self._begin_anew(catalog)
        return not self._is_anonymous_known

    def recognise(self, key: str, now: Instant) -> Principal | KeyFault:
        """Whose key this is; "" is the anonymous user's."""
        if not self.auth or not key:
            return ANONYMOUS
        catalog = self._port.catalog
        if catalog.version != self._version:
            self._begin_anew(catalog)
        known = self._known.get(key)
        if known is None:
            self.looked_up += 1
            known = authenticate(catalog, key, now)
            if len(key) <= KEY_LENGTH_MAX:
                if len(self._known) >= REMEMBERED_KEYS_MAX:
                    self._known.clear()
                self._known[key] = known
        if isinstance(known, Principal):
            if known.expires_at != NEVER and now >= known.expires_at:
                return KeyFault.EXPIRED
            self._last_used[known.key_id] = now
        return known

    def last_used(self, key_id: str) -> Instant:
        """When the key was last taken, by this process; NEVER: not yet. It is no part of the log: that would
        cost a write a request."""
        return self._last_used.get(key_id, NEVER)

    def _begin_anew(self, catalog: Catalog) -> None:
        self._known.clear()
        self._version = catalog.version
        self._is_anonymous_known = any(user == ANONYMOUS.user_id for user, _ in catalog.grants)
        if len(self._last_used) > len(catalog.keys):
            self._last_used = {
                key_id: used for key_id, used in self._last_used.items() if key_id in catalog.keys
            }

    def may(self, principal: Principal, namespace: str, permission: str) -> bool:
        """Whether the principal has the permission in the namespace."""
        return not self.auth or is_allowed(self._port.catalog, principal, namespace, permission)

    # --- as the WebSocket door asks -----------------------------------------------------------------

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        """See Access."""
        found = self.recognise(key, now)
        if isinstance(found, Principal):
            return found
        return Rejected(Code.UNAUTHENTICATED, FAULT_TEXTS[found], "auth")

    def is_current(self, principal: Principal, now: Instant) -> bool:
        """See Access."""
        if not self.auth:
            return True
        if not is_current(self._port.catalog, principal, now):
            return False
        if principal.key_id:
            self._last_used[principal.key_id] = now
        return True

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        """See Access. A queue that is not there is nobody's secret: it is looked for in ``_system``."""
        found = self._port.catalog.queues.get(queue) if queue else None
        return self.may(principal, SYSTEM_NAMESPACE if found is None else found.namespace, permission)

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        """See Access."""
        found = self._port.catalog.find_queue_of(partition)
        return self.may(principal, SYSTEM_NAMESPACE if found is None else found.namespace, permission)
