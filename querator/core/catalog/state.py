"""The catalog as the fold of its documents, and the look-ups the doors and actors need.

Owned by whoever folds; everybody else reads. Nothing here refuses: a document in the log happened.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar, assert_never

import attrs

from querator.core.catalog.documents import (
    ApiKeyCreated,
    ApiKeyDeleted,
    BindingCreated,
    BindingDeleted,
    Change,
    Document,
    DoorOpened,
    NamespaceChanged,
    NamespaceCreated,
    NamespaceDeleted,
    QueueChanged,
    QueueCreated,
    QueueDeleted,
    RoleChanged,
    RoleCreated,
    RoleDeleted,
    UserCreated,
    UserDeleted,
)
from querator.core.catalog.values import ApiKey, Binding, Namespace, Queue, Role, User
from querator.core.ids import NEVER, Instant, PartitionId

_Value = TypeVar("_Value")


class SortedTable(Mapping[str, _Value], Generic[_Value]):
    """A dictionary that also knows its keys in ascending order of their UTF-8 text."""

    __slots__ = ("_keys", "_values")

    def __init__(self) -> None:
        self._values: dict[str, _Value] = {}
        self._keys: list[str] = []

    def __getitem__(self, key: str) -> _Value:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SortedTable) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def get(self, key: str, default: _Value | None = None) -> _Value | None:  # type: ignore[override]
        return self._values.get(key, default)

    def put(self, key: str, value: _Value) -> None:
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value

    def remove(self, key: str) -> _Value:
        del self._keys[bisect_left(self._keys, key)]
        return self._values.pop(key)

    def from_pivot(self, pivot: str) -> Iterator[_Value]:
        """Values in ascending order of key, from ``pivot`` (inclusive, or the next greater) on."""
        for index in range(bisect_left(self._keys, pivot), len(self._keys)):
            yield self._values[self._keys[index]]


@attrs.define(eq=True)
class Catalog:
    """All there is to know about queues and who may do what with them."""

    version: int = 0
    """Documents folded so far."""
    changed_at: Instant = NEVER
    next_partition: int = 1
    """Partition 0 is the catalog itself; ids below this are never given again."""
    queues: SortedTable[Queue] = attrs.field(factory=SortedTable)
    namespaces: SortedTable[Namespace] = attrs.field(factory=SortedTable)
    users: SortedTable[User] = attrs.field(factory=SortedTable)
    keys: SortedTable[ApiKey] = attrs.field(factory=SortedTable)
    roles: SortedTable[Role] = attrs.field(factory=SortedTable)
    bindings: SortedTable[Binding] = attrs.field(factory=SortedTable)
    door_was_opened: bool = False
    """The anonymous administrator was made once; if it is gone, somebody closed that door."""

    policy_versions: dict[str, int] = attrs.field(factory=dict)
    """By queue: the catalog's version when what its partitions decide by last changed."""
    queue_of_partition: dict[int, str] = attrs.field(factory=dict)
    user_of_name: dict[str, str] = attrs.field(factory=dict)
    role_of_name: dict[tuple[str, str], str] = attrs.field(factory=dict)
    """(namespace, name) to id."""
    keys_of_prefix: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    keys_of_user: dict[str, dict[str, None]] = attrs.field(factory=dict)
    grants: dict[tuple[str, str], dict[str, str]] = attrs.field(factory=dict)
    """(user id, namespace) to {role id: binding id}."""
    permissions_of_role: dict[str, frozenset[str]] = attrs.field(factory=dict)

    def find_role(self, namespace: str, name: str) -> Role | None:
        found = self.role_of_name.get((namespace, name))
        return None if found is None else self.roles[found]

    def find_user_named(self, username: str) -> User | None:
        found = self.user_of_name.get(username)
        return None if found is None else self.users[found]

    def find_binding(self, namespace: str, user_id: str, role_id: str) -> Binding | None:
        found = self.grants.get((user_id, namespace), {}).get(role_id)
        return None if found is None else self.bindings[found]

    def find_queue_of(self, partition: PartitionId) -> Queue | None:
        """The queue a partition belongs to; ``None``: the catalog, a deleted queue's, or none yet."""
        name = self.queue_of_partition.get(partition)
        return None if name is None else self.queues[name]

    def queues_of_dead_queue(self, name: str) -> list[Queue]:
        """The queues whose dead items go to ``name``."""
        return [queue for queue in self.queues.values() if queue.dead_queue == name]


def restore(
    *,
    queues: Iterable[Queue],
    namespaces: Iterable[Namespace],
    users: Iterable[User],
    keys: Iterable[ApiKey],
    roles: Iterable[Role],
    bindings: Iterable[Binding],
) -> Catalog:
    """A catalog of these things, its indexes made anew; counters are the caller's to set."""
    catalog = Catalog()
    everything: list[Change] = [
        *(QueueCreated(queue) for queue in queues),
        *(NamespaceCreated(namespace) for namespace in namespaces),
        *(UserCreated(user) for user in users),
        *(ApiKeyCreated(key) for key in keys),
        *(RoleCreated(role) for role in roles),
        *(BindingCreated(binding) for binding in bindings),
    ]
    for change in everything:
        evolve(catalog, Document(NEVER, "", change))
    return catalog


def evolve(catalog: Catalog, document: Document) -> None:
    """Fold one document in; mutates ``catalog``."""
    catalog.version += 1
    catalog.changed_at = document.at
    change = document.change
    match change:
        case QueueCreated():
            _put_queue(catalog, change.queue)
            for partition in change.queue.partitions:
                catalog.queue_of_partition[partition.id] = change.queue.name
                catalog.next_partition = max(catalog.next_partition, partition.id + 1)
        case QueueChanged():
            _put_queue(catalog, change.queue)
        case QueueDeleted():
            _delete_queue(catalog, change.name)
        case NamespaceCreated() | NamespaceChanged():
            catalog.namespaces.put(change.namespace.name, change.namespace)
        case NamespaceDeleted():
            catalog.namespaces.remove(change.name)
        case UserCreated():
            catalog.users.put(change.user.id, change.user)
            catalog.user_of_name[change.user.username] = change.user.id
        case UserDeleted():
            _delete_user(catalog, change.id)
        case ApiKeyCreated():
            _put_key(catalog, change.key)
        case ApiKeyDeleted():
            _delete_key(catalog, change.id)
        case RoleCreated() | RoleChanged():
            role = change.role
            catalog.roles.put(role.id, role)
            catalog.role_of_name[role.namespace, role.name] = role.id
            catalog.permissions_of_role[role.id] = frozenset(role.permissions)
        case RoleDeleted():
            role = catalog.roles.remove(change.id)
            del catalog.role_of_name[role.namespace, role.name]
            del catalog.permissions_of_role[change.id]
        case BindingCreated():
            binding = change.binding
            catalog.bindings.put(binding.id, binding)
            catalog.grants.setdefault((binding.user_id, binding.namespace), {})[binding.role_id] = binding.id
        case BindingDeleted():
            _delete_binding(catalog, change.id)
        case DoorOpened():
            catalog.door_was_opened = True
        case _:
            assert_never(change)


def _put_queue(catalog: Catalog, queue: Queue) -> None:
    is_new = queue.name not in catalog.queues
    catalog.queues.put(queue.name, queue)
    catalog.policy_versions[queue.name] = catalog.version
    if is_new:
        _touch_sources(catalog, queue.name)


def _touch_sources(catalog: Catalog, dead_queue: str) -> None:
    """The dead queue came or went: where its sources' dead items go has changed."""
    for source in catalog.queues_of_dead_queue(dead_queue):
        catalog.policy_versions[source.name] = catalog.version


def _delete_queue(catalog: Catalog, name: str) -> None:
    queue = catalog.queues.remove(name)
    del catalog.policy_versions[name]
    for partition in queue.partitions:
        del catalog.queue_of_partition[partition.id]
    _touch_sources(catalog, name)


def _delete_user(catalog: Catalog, user_id: str) -> None:
    user = catalog.users.remove(user_id)
    del catalog.user_of_name[user.username]
    for key_id in list(catalog.keys_of_user.get(user_id, ())):
        _delete_key(catalog, key_id)
    for binding in [binding for binding in catalog.bindings.values() if binding.user_id == user_id]:
        _delete_binding(catalog, binding.id)


def _put_key(catalog: Catalog, key: ApiKey) -> None:
    catalog.keys.put(key.id, key)
    catalog.keys_of_prefix[key.prefix] = (
        *catalog.keys_of_prefix.get(key.prefix, ()),
        key.id,
    )
    catalog.keys_of_user.setdefault(key.user_id, {})[key.id] = None


def _delete_key(catalog: Catalog, key_id: str) -> None:
    key = catalog.keys.remove(key_id)
    others = tuple(other for other in catalog.keys_of_prefix[key.prefix] if other != key_id)
    if others:
        catalog.keys_of_prefix[key.prefix] = others
    else:
        del catalog.keys_of_prefix[key.prefix]
    of_user = catalog.keys_of_user[key.user_id]
    del of_user[key_id]
    if not of_user:
        del catalog.keys_of_user[key.user_id]


def _delete_binding(catalog: Catalog, binding_id: str) -> None:
    binding = catalog.bindings.remove(binding_id)
    granted = catalog.grants[binding.user_id, binding.namespace]
    del granted[binding.role_id]
    if not granted:
        del catalog.grants[binding.user_id, binding.namespace]
