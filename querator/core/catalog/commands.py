"""What may be asked of the catalog, and what is answered. Values only.

Texts are checked for what the catalog's own integrity needs; what a door refuses beyond that (and
in which words) is the door's business.
"""

from typing import TypeAlias

import attrs

from querator.core import limits
from querator.core.catalog.values import SYSTEM_NAMESPACE
from querator.core.ids import DAY, HOUR, NEVER, SECOND, Duration, Instant, QueueName
from querator.core.policy import Backoff, Ordering


@attrs.frozen(kw_only=True)
class CreateQueue:
    """Durations in microseconds. Partition number ``i`` lives in ``stores[i % len(stores)]``."""

    name: QueueName
    namespace: str = SYSTEM_NAMESPACE
    partitions: int = 1
    stores: tuple[str, ...] = ("",)
    reservation_timeout: Duration = Duration(60 * SECOND)
    expire_timeout: Duration = Duration(0)
    attempts_max: int = 0
    dead_queue: str = ""
    reference: str = ""
    max_runtime: Duration = HOUR
    backoff: Backoff = Backoff()
    ordering: Ordering = Ordering.FIFO
    dead_retention: Duration = Duration(14 * DAY)
    session_grace: Duration = Duration(5 * SECOND)
    dedupe_window: Duration = DAY
    dedupe_keys_max: int = limits.DEDUPE_KEYS_MAX
    export_payloads: bool = False


@attrs.frozen(kw_only=True)
class UpdateQueue:
    """``None`` keeps what is there; "" or 0 is a value."""

    name: QueueName
    partitions_requested: int | None = None
    reservation_timeout: Duration | None = None
    expire_timeout: Duration | None = None
    attempts_max: int | None = None
    dead_queue: str | None = None
    reference: str | None = None
    max_runtime: Duration | None = None
    backoff: Backoff | None = None
    dead_retention: Duration | None = None
    session_grace: Duration | None = None
    dedupe_window: Duration | None = None
    dedupe_keys_max: int | None = None
    paused: bool | None = None
    export_payloads: bool | None = None


@attrs.frozen
class DeleteQueue:
    name: QueueName


@attrs.frozen(kw_only=True)
class CreateNamespace:
    name: str
    description: str = ""
    api_key_tag: str = ""


@attrs.frozen(kw_only=True)
class UpdateNamespace:
    """Replaces both."""

    name: str
    description: str = ""
    api_key_tag: str = ""


@attrs.frozen
class DeleteNamespace:
    name: str


@attrs.frozen(kw_only=True)
class CreateUser:
    username: str
    email: str = ""
    external_id: str = ""


@attrs.frozen
class DeleteUser:
    id: str


@attrs.frozen(kw_only=True)
class CreateApiKey:
    user_id: str
    name: str = ""
    scope: str = ""
    tag: str = ""
    """"": the tag of the namespace in ``scope``, else ``live``."""
    expires_at: Instant = NEVER


@attrs.frozen
class DeleteApiKey:
    id: str


@attrs.frozen(kw_only=True)
class CreateRole:
    namespace: str
    name: str
    permissions: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class UpdateRole:
    """Replaces the permissions."""

    namespace: str
    name: str
    permissions: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class DeleteRole:
    namespace: str
    name: str


@attrs.frozen(kw_only=True)
class CreateBinding:
    namespace: str
    role_name: str
    user_id: str


@attrs.frozen(kw_only=True)
class DeleteBinding:
    namespace: str
    role_name: str
    user_id: str


@attrs.frozen
class Bootstrap:
    """What every start asks for; decides nothing when all is there already."""

    auth: bool


CatalogCommand: TypeAlias = (
    CreateQueue
    | UpdateQueue
    | DeleteQueue
    | CreateNamespace
    | UpdateNamespace
    | DeleteNamespace
    | CreateUser
    | DeleteUser
    | CreateApiKey
    | DeleteApiKey
    | CreateRole
    | UpdateRole
    | DeleteRole
    | CreateBinding
    | DeleteBinding
    | Bootstrap
)


@attrs.frozen
class Changed:
    """The change is in. ``id`` names what was created; ``secret`` is the key's text, told once."""

    id: str = ""
    secret: str = attrs.field(default="", repr=False)
    prefix: str = ""
