"""What the catalog holds: queues, namespaces, users, keys, roles and bindings, as values."""

from typing import Final

import attrs

from querator.core import limits
from querator.core.ids import (
    DAY,
    HOUR,
    NEVER,
    SECOND,
    Duration,
    Instant,
    PartitionId,
    QueueName,
)
from querator.core.policy import Backoff, Ordering

SYSTEM_NAMESPACE: Final = "_system"
ANONYMOUS_USER: Final = "anonymous"
"""Id and name of the user that a request without a key speaks for."""
DEFAULT_KEY_TAG: Final = "live"

ADMIN: Final = "Admin"
NAMESPACE_OWNER: Final = "NamespaceOwner"
PUBLIC_VIEWER: Final = "PublicViewer"

_QUEUE_PERMISSIONS: Final = tuple(
    f"queue.{verb}"
    for verb in (
        "create",
        "delete",
        "update",
        "list",
        "produce",
        "lease",
        "complete",
        "retry",
        "stats",
        "clear",
    )
)
_ROLE_PERMISSIONS: Final = tuple(f"role.{verb}" for verb in ("create", "update", "delete", "list"))
_BINDING_PERMISSIONS: Final = tuple(f"rolebinding.{verb}" for verb in ("create", "delete", "list"))
_SYSTEM_PERMISSIONS: Final = ("system.health", "system.metrics")

PERMISSIONS: Final[tuple[str, ...]] = (
    *(f"namespace.{verb}" for verb in ("create", "delete", "list", "update")),
    *_QUEUE_PERMISSIONS,
    *(f"user.{verb}" for verb in ("create", "delete", "list")),
    *(f"apikey.{verb}" for verb in ("create", "delete", "list")),
    *_ROLE_PERMISSIONS,
    *_BINDING_PERMISSIONS,
    *_SYSTEM_PERMISSIONS,
)
"""All there are; their spelling is the HTTP contract's (``queue.lease`` is the right to reserve)."""

STANDARD_ROLES: Final[dict[str, tuple[str, ...]]] = {
    ADMIN: PERMISSIONS,
    NAMESPACE_OWNER: (
        *_QUEUE_PERMISSIONS,
        *_ROLE_PERMISSIONS,
        *_BINDING_PERMISSIONS,
        *_SYSTEM_PERMISSIONS,
    ),
    PUBLIC_VIEWER: _SYSTEM_PERMISSIONS,
}
"""They live in ``_system``; their names are reserved in every namespace."""


@attrs.frozen
class QueuePartition:
    """One partition of a queue: its global id, and the log store its records live in."""

    id: PartitionId
    store: str = ""
    """"": the first configured store."""


@attrs.frozen(kw_only=True)
class Queue:
    """A queue and its settings. Durations in microseconds.

    ``partitions`` is in order of the queue-local index. ``partitions_requested`` may differ from
    their number after an update: partitions are given once, at creation.
    """

    name: QueueName
    namespace: str = SYSTEM_NAMESPACE
    partitions: tuple[QueuePartition, ...]
    partitions_requested: int = 1
    created_at: Instant
    updated_at: Instant
    reservation_timeout: Duration = Duration(60 * SECOND)
    expire_timeout: Duration = Duration(0)
    """0: items never expire."""
    attempts_max: int = 0
    """0: without limit."""
    dead_queue: str = ""
    reference: str = ""
    max_runtime: Duration = HOUR
    backoff: Backoff = Backoff()
    ordering: Ordering = Ordering.FIFO
    dead_retention: Duration = Duration(14 * DAY)
    session_grace: Duration = Duration(5 * SECOND)
    dedupe_window: Duration = DAY
    dedupe_keys_max: int = limits.DEDUPE_KEYS_MAX
    paused: bool = False
    export_payloads: bool = False
    """Whether exports of the log have the payloads of its items as well."""


@attrs.frozen(kw_only=True)
class Namespace:
    name: str
    description: str = ""
    api_key_tag: str = ""
    created_at: Instant


@attrs.frozen(kw_only=True)
class User:
    id: str
    username: str
    email: str = ""
    external_id: str = ""
    created_at: Instant
    updated_at: Instant


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key as it is stored: its SHA-256, never the key."""

    id: str
    user_id: str
    name: str = ""
    scope: str = ""
    """The only namespace this key works in; "": all of its user's."""
    prefix: str
    hash: bytes
    expires_at: Instant = NEVER
    """0: never. The moment itself is already too late."""
    created_at: Instant


@attrs.frozen(kw_only=True)
class Role:
    id: str
    namespace: str
    name: str
    permissions: tuple[str, ...] = ()
    created_at: Instant


@attrs.frozen(kw_only=True)
class Binding:
    """The user has the role in the namespace."""

    id: str
    namespace: str
    user_id: str
    role_id: str
    created_at: Instant
