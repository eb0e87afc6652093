"""What can have happened to the catalog: the documents in ``events.CatalogChanged``.

A document is JSON: ``{"v": 1, "type": …, "at": …, "author": …, "body": {…}}``. A change carries the
whole new value, so that the fold needs neither a clock nor the command. Shapes written once are
readable for ever: new fields get defaults, a changed meaning gets a new type.
"""

from typing import Any, Final, TypeAlias

import attrs
import msgspec

from querator.core.catalog.values import ApiKey, Binding, Namespace, Queue, Role, User
from querator.core.ids import Instant

DOCUMENT_VERSION: Final = 1


@attrs.frozen
class QueueCreated:
    queue: Queue


@attrs.frozen
class QueueChanged:
    """The queue's new settings; its partitions stay."""

    queue: Queue


@attrs.frozen
class QueueDeleted:
    name: str


@attrs.frozen
class NamespaceCreated:
    namespace: Namespace


@attrs.frozen
class NamespaceChanged:
    namespace: Namespace


@attrs.frozen
class NamespaceDeleted:
    name: str


@attrs.frozen
class UserCreated:
    user: User


@attrs.frozen
class UserDeleted:
    """With the user go its keys and bindings."""

    id: str


@attrs.frozen
class ApiKeyCreated:
    key: ApiKey


@attrs.frozen
class ApiKeyDeleted:
    id: str


@attrs.frozen
class RoleCreated:
    role: Role


@attrs.frozen
class RoleChanged:
    role: Role


@attrs.frozen
class RoleDeleted:
    id: str


@attrs.frozen
class BindingCreated:
    binding: Binding


@attrs.frozen
class BindingDeleted:
    id: str


@attrs.frozen
class DoorOpened:
    """The anonymous user was made an administrator; this happens once in a catalog's life."""


Change: TypeAlias = (
    QueueCreated
    | QueueChanged
    | QueueDeleted
    | NamespaceCreated
    | NamespaceChanged
    | NamespaceDeleted
    | UserCreated
    | UserDeleted
    | ApiKeyCreated
    | ApiKeyDeleted
    | RoleCreated
    | RoleChanged
    | RoleDeleted
    | BindingCreated
    | BindingDeleted
    | DoorOpened
)


ACCESS_CHANGES: Final = (
    UserDeleted,
    ApiKeyDeleted,
    RoleChanged,
    RoleDeleted,
    BindingDeleted,
)
"""By these somebody may lose what was granted."""


@attrs.frozen
class Document:
    """One change, when it happened, and who wanted it (a user's id, "" for the server itself)."""

    at: Instant
    author: str
    change: Change


TAGS: Final[dict[type[Any], str]] = {
    QueueCreated: "queue_created",
    QueueChanged: "queue_changed",
    QueueDeleted: "queue_deleted",
    NamespaceCreated: "namespace_created",
    NamespaceChanged: "namespace_changed",
    NamespaceDeleted: "namespace_deleted",
    UserCreated: "user_created",
    UserDeleted: "user_deleted",
    ApiKeyCreated: "api_key_created",
    ApiKeyDeleted: "api_key_deleted",
    RoleCreated: "role_created",
    RoleChanged: "role_changed",
    RoleDeleted: "role_deleted",
    BindingCreated: "binding_created",
    BindingDeleted: "binding_deleted",
    DoorOpened: "door_opened",
}
"""The durable names. Never rename one."""

_TYPES: Final[dict[str, type[Any]]] = {tag: kind for kind, tag in TAGS.items()}


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    type: str
    at: int
    author: str
    body: msgspec.Raw


def encode(document: Document) -> bytes:
    """The document as it stands in the log."""
    change = document.change
    body = msgspec.Raw(msgspec.json.encode(change))
    return msgspec.json.encode(
        _Envelope(DOCUMENT_VERSION, TAGS[type(change)], document.at, document.author, body)
    )


def decode(document: bytes) -> Document:
    """What ``encode`` wrote, of this or an earlier version.

    Raises:
        msgspec.ValidationError: it is no document, or one of a later version.
    """
    envelope = msgspec.json.decode(document, type=_Envelope)
    if envelope.v != DOCUMENT_VERSION:
        raise msgspec.ValidationError(
            f"catalog document of version {envelope.v}, expected {DOCUMENT_VERSION}"
        )
    kind = _TYPES.get(envelope.type)
    if kind is None:
        raise msgspec.ValidationError(f"catalog document of unknown type {envelope.type!r}")
    return Document(
        Instant(envelope.at),
        envelope.author,
        msgspec.json.decode(envelope.body, type=kind),
    )
