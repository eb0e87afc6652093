"""The whole catalog as one document, for partition 0's snapshots."""

from typing import Final

import msgspec

from querator.core.catalog.state import Catalog, restore
from querator.core.catalog.values import ApiKey, Binding, Namespace, Queue, Role, User
from querator.core.ids import Instant

SNAPSHOT_VERSION: Final = 1


class _Snapshot(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    version: int
    changed_at: int
    next_partition: int
    door_was_opened: bool
    policy_versions: dict[str, int]
    queues: list[Queue]
    namespaces: list[Namespace]
    users: list[User]
    keys: list[ApiKey]
    roles: list[Role]
    bindings: list[Binding]


def encode_catalog(catalog: Catalog) -> bytes:
    """The catalog as JSON; indexes are left out and made again by ``decode_catalog``."""
    return msgspec.json.encode(
        _Snapshot(
            SNAPSHOT_VERSION,
            catalog.version,
            catalog.changed_at,
            catalog.next_partition,
            catalog.door_was_opened,
            catalog.policy_versions,
            list(catalog.queues.values()),
            list(catalog.namespaces.values()),
            list(catalog.users.values()),
            list(catalog.keys.values()),
            list(catalog.roles.values()),
            list(catalog.bindings.values()),
        )
    )


def decode_catalog(document: bytes) -> Catalog:
    """What ``encode_catalog`` wrote.

    Raises:
        msgspec.ValidationError: it is no snapshot of a catalog, or one of a later version.
    """
    snapshot = msgspec.json.decode(document, type=_Snapshot)
    if snapshot.v != SNAPSHOT_VERSION:
        raise msgspec.ValidationError(
            f"catalog snapshot of version {snapshot.v}, expected {SNAPSHOT_VERSION}"
        )
    catalog = restore(
        queues=snapshot.queues,
        namespaces=snapshot.namespaces,
        users=snapshot.users,
        keys=snapshot.keys,
        roles=snapshot.roles,
        bindings=snapshot.bindings,
    )
    catalog.version = snapshot.version
    catalog.changed_at = Instant(snapshot.changed_at)
    catalog.next_partition = snapshot.next_partition
    catalog.door_was_opened = snapshot.door_was_opened
    catalog.policy_versions = snapshot.policy_versions
    return catalog
