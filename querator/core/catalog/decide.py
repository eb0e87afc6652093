"""What the catalog decides: a command becomes documents, or is refused.

Pure: time and entropy are arguments, nothing is changed. One decision is one commit: all its
documents go into one record.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple, assert_never

import attrs

from querator.core import limits
from querator.core.catalog.access import (
    KEY_SECRET_BYTES,
    KEY_TAG_LENGTH_MAX,
    hash_key,
    is_key_tag,
    make_key,
)
from querator.core.catalog.commands import (
    Bootstrap,
    CatalogCommand,
    Changed,
    CreateApiKey,
    CreateBinding,
    CreateNamespace,
    CreateQueue,
    CreateRole,
    CreateUser,
    DeleteApiKey,
    DeleteBinding,
    DeleteNamespace,
    DeleteQueue,
    DeleteRole,
    DeleteUser,
    UpdateNamespace,
    UpdateQueue,
    UpdateRole,
)
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
from querator.core.catalog.state import Catalog
from querator.core.catalog.values import (
    ADMIN,
    ANONYMOUS_USER,
    DEFAULT_KEY_TAG,
    PERMISSIONS,
    STANDARD_ROLES,
    SYSTEM_NAMESPACE,
    ApiKey,
    Binding,
    Namespace,
    Queue,
    QueuePartition,
    Role,
    User,
)
from querator.core.ids import Instant, PartitionId
from querator.core.ksuid import ENTROPY_BYTES, make_ksuid
from querator.core.replies import Code, Rejected
from querator.core.white_space import has_white_space, is_blank

DECISION_ENTROPY_BYTES: Final = 64
"""What ``decide`` wants to be given: 32 bytes for a key's secret, 32 for ids."""


class Decision(NamedTuple):
    """``documents`` (perhaps none) are to be committed in one record; then ``reply`` may leave."""

    documents: tuple[Document, ...]
    reply: Changed


_Outcome = tuple[list[Change], Changed] | Rejected
_DONE: Final = Changed()


@attrs.frozen
class _Moment:
    """The time of a decision and what it may draw from."""

    now: Instant
    entropy: bytes = attrs.field(repr=False)

    def secret(self) -> bytes:
        return self.entropy[:KEY_SECRET_BYTES]

    def id(self, index: int = 0) -> str:
        seed = index.to_bytes(4, "big") + self.entropy[KEY_SECRET_BYTES:]
        return make_ksuid(self.now, hashlib.sha256(seed).digest()[:ENTROPY_BYTES])


def decide(
    catalog: Catalog,
    command: CatalogCommand,
    *,
    now: Instant,
    entropy: bytes,
    author: str = "",
) -> Decision | Rejected:
    """Decide ``command`` by ``catalog``, which must be the newest (committed or not).

    Args:
        entropy: ``DECISION_ENTROPY_BYTES`` unguessable bytes, used for this decision only.
        author: The id of the user who asks; "" for the server itself.
    """
    outcome = _decide(catalog, command, _Moment(now, entropy))
    if isinstance(outcome, Rejected):
        return outcome
    changes, reply = outcome
    return Decision(tuple(Document(now, author, change) for change in changes), reply)


def _decide(catalog: Catalog, command: CatalogCommand, moment: _Moment) -> _Outcome:
    match command:
        case CreateQueue():
            return _create_queue(catalog, command, moment)
        case UpdateQueue():
            return _update_queue(catalog, command, moment)
        case DeleteQueue():
            if command.name not in catalog.queues:
                return _unknown_queue(command.name)
            return [QueueDeleted(command.name)], _DONE
        case CreateNamespace() | UpdateNamespace():
            return _put_namespace(catalog, command, moment)
        case DeleteNamespace():
            return _delete_namespace(catalog, command)
        case CreateUser():
            return _create_user(catalog, command, moment)
        case DeleteUser():
            if command.id not in catalog.users:
                return _missing("user", command.id, "id")
            return [UserDeleted(command.id)], _DONE
        case CreateApiKey():
            return _create_key(catalog, command, moment)
        case DeleteApiKey():
            if command.id not in catalog.keys:
                return _missing("api key", command.id, "id")
            return [ApiKeyDeleted(command.id)], _DONE
        case CreateRole():
            return _create_role(catalog, command, moment)
        case UpdateRole() | DeleteRole():
            return _change_role(catalog, command)
        case CreateBinding():
            return _create_binding(catalog, command, moment)
        case DeleteBinding():
            return _delete_binding(catalog, command)
        case Bootstrap():
            return _bootstrap(catalog, command, moment), _DONE
        case _:
            assert_never(command)


# --- queues -----------------------------------------------------------------------------------


def _create_queue(catalog: Catalog, command: CreateQueue, moment: _Moment) -> _Outcome:
    refusal = _check_name(command.name, limits.QUEUE_NAME_BYTES_MAX, "queue name", "name")
    if refusal is not None:
        return refusal
    if command.namespace not in catalog.namespaces:
        return _missing("namespace", command.namespace, "namespace")
    if command.name in catalog.queues:
        return Rejected(Code.QUEUE_EXISTS, f"queue {command.name!r} exists already", "name")
    if len(catalog.queues) >= limits.QUEUES_MAX:
        return Rejected(
            Code.LIMIT_EXCEEDED,
            f"there are {limits.QUEUES_MAX} queues, which is all there may be",
        )
    if not command.stores:
        return Rejected(Code.INVALID, "no store to put partitions into", "stores")
    partitions = tuple(
        QueuePartition(
            PartitionId(catalog.next_partition + index),
            command.stores[index % len(command.stores)],
        )
        for index in range(command.partitions)
    )
    settings = {
        field.name: getattr(command, field.name)
        for field in attrs.fields(CreateQueue)
        if field.name not in ("partitions", "stores")
    }
    queue = Queue(
        partitions=partitions,
        partitions_requested=command.partitions,
        created_at=moment.now,
        updated_at=moment.now,
        **settings,
    )
    refusal = _check_queue(catalog, queue)
    if refusal is not None:
        return refusal
    return [QueueCreated(queue)], _DONE


def _update_queue(catalog: Catalog, command: UpdateQueue, moment: _Moment) -> _Outcome:
    queue = catalog.queues.get(command.name)
    if queue is None:
        return _unknown_queue(command.name)
    given = {
        field.name: value
        for field in attrs.fields(UpdateQueue)
        if field.name != "name" and (value := getattr(command, field.name)) is not None
    }
    # An update is later than the creation even when both fall into one microsecond.
    changed = attrs.evolve(queue, **given, updated_at=Instant(max(moment.now, queue.updated_at + 1)))
    refusal = _check_queue(catalog, changed)
    if refusal is not None:
        return refusal
    return [QueueChanged(changed)], _DONE


def _check_queue(catalog: Catalog, queue: Queue) -> Rejected | None:
    if not 1 <= queue.partitions_requested <= limits.PARTITIONS_PER_QUEUE_MAX:
        detail = f"a queue has 1 to {limits.PARTITIONS_PER_QUEUE_MAX} partitions"
        return Rejected(Code.INVALID, detail, "partitions")
    if not 1 <= queue.reservation_timeout <= limits.QUEUE_TIMEOUT_MAX:
        detail = f"a reservation lasts 1 to {limits.QUEUE_TIMEOUT_MAX} µs"
        return Rejected(Code.INVALID, detail, "reservation_timeout")
    if not 0 <= queue.expire_timeout <= limits.QUEUE_TIMEOUT_MAX:
        detail = f"an item expires after 0 (never) to {limits.QUEUE_TIMEOUT_MAX} µs"
        return Rejected(Code.INVALID, detail, "expire_timeout")
    if not 0 <= queue.attempts_max <= limits.ATTEMPTS_MAX_MAX:
        return Rejected(
            Code.INVALID,
            f"an item is tried at most 0 (without limit) to {limits.ATTEMPTS_MAX_MAX} times",
            "attempts_max",
        )
    if not 0 <= queue.dedupe_keys_max <= limits.DEDUPE_KEYS_MAX:
        detail = f"a partition remembers 0 to {limits.DEDUPE_KEYS_MAX} dedupe keys"
        return Rejected(Code.INVALID, detail, "dedupe_keys_max")
    if len(queue.reference.encode()) > limits.REFERENCE_BYTES_MAX:
        return Rejected(Code.INVALID, f"longer than {limits.REFERENCE_BYTES_MAX} bytes", "reference")
    for name in ("max_runtime", "dead_retention", "session_grace", "dedupe_window"):
        if not 0 <= getattr(queue, name) <= limits.QUEUE_TIMEOUT_MAX:
            detail = f"a duration from 0 to {limits.QUEUE_TIMEOUT_MAX} µs"
            return Rejected(Code.INVALID, detail, name)
    return _check_dead_queue(catalog, queue)


def _check_dead_queue(catalog: Catalog, queue: Queue) -> Rejected | None:
    if not queue.dead_queue:
        return None
    if queue.dead_queue == queue.name:
        return Rejected(Code.INVALID, "a queue cannot be its own dead queue", "dead_queue")
    before = catalog.queues.get(queue.name)
    if before is not None and before.dead_queue == queue.dead_queue:
        return None
    dead = catalog.queues.get(queue.dead_queue)
    if dead is None:
        return Rejected(Code.UNKNOWN_QUEUE, f"there is no queue {queue.dead_queue!r}", "dead_queue")
    if dead.dead_queue:
        return Rejected(
            Code.INVALID,
            f"{queue.dead_queue!r} has a dead queue of its own",
            "dead_queue",
        )
    return None


def _unknown_queue(name: str) -> Rejected:
    return Rejected(Code.UNKNOWN_QUEUE, f"there is no queue {name!r}", "name")


# --- namespaces -------------------------------------------------------------------------------


def _put_namespace(catalog: Catalog, command: CreateNamespace | UpdateNamespace, moment: _Moment) -> _Outcome:
    refusal = _check_namespace_name(command.name) or _check_tag(command.api_key_tag, "api_key_tag")
    if refusal is not None:
        return refusal
    namespace = Namespace(
        name=command.name,
        description=command.description,
        api_key_tag=command.api_key_tag,
        created_at=moment.now,
    )
    before = catalog.namespaces.get(command.name)
    if isinstance(command, CreateNamespace):
        if before is not None:
            return _exists("namespace", command.name, "name")
        if len(catalog.namespaces) >= limits.NAMESPACES_MAX:
            return _full("namespaces", limits.NAMESPACES_MAX)
        return [NamespaceCreated(namespace)], _DONE
    if before is None:
        return _missing("namespace", command.name, "name")
    return [NamespaceChanged(attrs.evolve(namespace, created_at=before.created_at))], _DONE


def _delete_namespace(catalog: Catalog, command: DeleteNamespace) -> _Outcome:
    name = command.name
    refusal = _check_namespace_name(name)
    if refusal is not None:
        return refusal
    for what, members in (
        ("role bindings", (binding.namespace for binding in catalog.bindings.values())),
        ("roles", (role.namespace for role in catalog.roles.values())),
        ("queues", (queue.namespace for queue in catalog.queues.values())),
    ):
        if any(member == name for member in members):
            return Rejected(Code.IN_USE, f"namespace {name!r} has {what}", "name")
    if name not in catalog.namespaces:
        return _missing("namespace", name, "name")
    return [NamespaceDeleted(name)], _DONE


def _check_namespace_name(name: str) -> Rejected | None:
    if name.startswith("_"):
        return Rejected(Code.INVALID, "names that start with '_' are reserved", "name")
    return _check_name(name, limits.NAMESPACE_NAME_BYTES_MAX, "namespace name", "name", forbidden="~:")


# --- users and keys ---------------------------------------------------------------------------


def _create_user(catalog: Catalog, command: CreateUser, moment: _Moment) -> _Outcome:
    if is_blank(command.username):
        return Rejected(Code.INVALID, "empty", "username")
    for name, bound in (
        ("username", limits.USERNAME_BYTES_MAX),
        ("email", limits.EMAIL_BYTES_MAX),
        ("external_id", limits.EXTERNAL_ID_BYTES_MAX),
    ):
        if len(getattr(command, name).encode()) > bound:
            return Rejected(Code.INVALID, f"longer than {bound} bytes", name)
    if command.username in catalog.user_of_name:
        return _exists("user", command.username, "username")
    if len(catalog.users) >= limits.USERS_MAX:
        return _full("users", limits.USERS_MAX)
    user = User(
        id=moment.id(),
        username=command.username,
        email=command.email,
        external_id=command.external_id,
        created_at=moment.now,
        updated_at=moment.now,
    )
    return [UserCreated(user)], Changed(user.id)


def _create_key(catalog: Catalog, command: CreateApiKey, moment: _Moment) -> _Outcome:
    if len(command.name.encode()) > limits.API_KEY_NAME_BYTES_MAX:
        return Rejected(Code.INVALID, f"longer than {limits.API_KEY_NAME_BYTES_MAX} bytes", "name")
    refusal = _check_tag(command.tag, "tag")
    if refusal is not None:
        return refusal
    if command.user_id not in catalog.users:
        return _missing("user", command.user_id, "user_id")
    if len(catalog.keys) >= limits.API_KEYS_MAX:
        return _full("API keys", limits.API_KEYS_MAX)
    scope = catalog.namespaces.get(command.scope)
    tag = command.tag or ("" if scope is None else scope.api_key_tag) or DEFAULT_KEY_TAG
    text, prefix = make_key(tag, moment.secret())
    key = ApiKey(
        id=moment.id(),
        user_id=command.user_id,
        name=command.name,
        scope=command.scope,
        prefix=prefix,
        hash=hash_key(text),
        expires_at=command.expires_at,
        created_at=moment.now,
    )
    return [ApiKeyCreated(key)], Changed(key.id, text, prefix)


# --- roles and bindings -----------------------------------------------------------------------


def _create_role(catalog: Catalog, command: CreateRole, moment: _Moment) -> _Outcome:
    if is_blank(command.name) or ":" in command.name:
        return Rejected(Code.INVALID, "empty, or with a ':'", "name")
    if len(command.name.encode()) > limits.ROLE_NAME_BYTES_MAX:
        return Rejected(Code.INVALID, f"longer than {limits.ROLE_NAME_BYTES_MAX} bytes", "name")
    refusal = _check_permissions(command.permissions) or _check_standard(command.name)
    if refusal is not None:
        return refusal
    if command.namespace not in catalog.namespaces:
        return _missing("namespace", command.namespace, "namespace")
    if catalog.find_role(command.namespace, command.name) is not None:
        return _exists("role", f"{command.namespace}:{command.name}", "name")
    if len(catalog.roles) >= limits.ROLES_MAX:
        return _full("roles", limits.ROLES_MAX)
    role = Role(
        id=moment.id(),
        namespace=command.namespace,
        name=command.name,
        permissions=command.permissions,
        created_at=moment.now,
    )
    return [RoleCreated(role)], Changed(role.id)


def _change_role(catalog: Catalog, command: UpdateRole | DeleteRole) -> _Outcome:
    role = catalog.find_role(command.namespace, command.name)
    if role is None:
        return _missing("role", f"{command.namespace}:{command.name}", "name")
    refusal = _check_standard(command.name)
    if refusal is not None:
        return refusal
    if isinstance(command, UpdateRole):
        refusal = _check_permissions(command.permissions)
        if refusal is not None:
            return refusal
        return [RoleChanged(attrs.evolve(role, permissions=command.permissions))], _DONE
    if any(binding.role_id == role.id for binding in catalog.bindings.values()):
        return Rejected(Code.IN_USE, f"role {command.name!r} is bound to users", "name")
    return [RoleDeleted(role.id)], _DONE


def _create_binding(catalog: Catalog, command: CreateBinding, moment: _Moment) -> _Outcome:
    role = catalog.find_role(command.namespace, command.role_name)
    if role is None:
        return _missing("role", f"{command.namespace}:{command.role_name}", "role_name")
    if command.user_id not in catalog.users:
        return _missing("user", command.user_id, "user_id")
    if catalog.find_binding(command.namespace, command.user_id, role.id) is not None:
        return _exists(
            "role binding",
            f"{command.namespace}:{command.user_id}:{role.id}",
            "user_id",
        )
    if len(catalog.bindings) >= limits.BINDINGS_MAX:
        return _full("role bindings", limits.BINDINGS_MAX)
    binding = Binding(
        id=moment.id(),
        namespace=command.namespace,
        user_id=command.user_id,
        role_id=role.id,
        created_at=moment.now,
    )
    return [BindingCreated(binding)], Changed(binding.id)


def _delete_binding(catalog: Catalog, command: DeleteBinding) -> _Outcome:
    role = catalog.find_role(command.namespace, command.role_name)
    if role is None:
        return _missing("role", f"{command.namespace}:{command.role_name}", "role_name")
    binding = catalog.find_binding(command.namespace, command.user_id, role.id)
    if binding is None:
        return _missing(
            "role binding",
            f"{command.namespace}:{command.user_id}:{role.id}",
            "user_id",
        )
    return [BindingDeleted(binding.id)], _DONE


# --- bootstrap --------------------------------------------------------------------------------


def _bootstrap(catalog: Catalog, command: Bootstrap, moment: _Moment) -> list[Change]:
    """The documents that a start needs, none when all is there.

    With auth, the first start makes the anonymous user an administrator, so that somebody can make
    the first key. Later starts don't: a binding that is gone was deleted by an operator.
    """
    now = moment.now
    changes: list[Change] = []
    if SYSTEM_NAMESPACE not in catalog.namespaces:
        changes.append(NamespaceCreated(Namespace(name=SYSTEM_NAMESPACE, created_at=now)))
    if not command.auth:
        return changes
    if ANONYMOUS_USER not in catalog.users:
        anonymous = User(id=ANONYMOUS_USER, username=ANONYMOUS_USER, created_at=now, updated_at=now)
        changes.append(UserCreated(anonymous))
    admin_id = ""
    for index, (name, permissions) in enumerate(STANDARD_ROLES.items()):
        role = catalog.find_role(SYSTEM_NAMESPACE, name)
        if role is None:
            role = Role(
                id=moment.id(index),
                namespace=SYSTEM_NAMESPACE,
                name=name,
                permissions=permissions,
                created_at=now,
            )
            changes.append(RoleCreated(role))
        elif role.permissions != permissions:
            changes.append(RoleChanged(attrs.evolve(role, permissions=permissions)))
        if name == ADMIN:
            admin_id = role.id
    if not catalog.door_was_opened:
        binding = Binding(
            id=moment.id(len(STANDARD_ROLES)),
            namespace=SYSTEM_NAMESPACE,
            user_id=ANONYMOUS_USER,
            role_id=admin_id,
            created_at=now,
        )
        changes += [BindingCreated(binding), DoorOpened()]
    return changes


# --- shared checks ----------------------------------------------------------------------------


def _check_name(name: str, bound: int, what: str, field: str, forbidden: str = "~") -> Rejected | None:
    if is_blank(name):
        return Rejected(Code.INVALID, f"{what} is empty", field)
    if len(name.encode()) > bound:
        return Rejected(Code.INVALID, f"{what} is longer than {bound} bytes", field)
    if has_white_space(name) or any(character in forbidden for character in name):
        return Rejected(Code.INVALID, f"{what} contains white space or one of {forbidden!r}", field)
    return None


def _check_tag(tag: str, field: str) -> Rejected | None:
    if len(tag) > KEY_TAG_LENGTH_MAX or not is_key_tag(tag):
        return Rejected(
            Code.INVALID,
            f"not 0 to {KEY_TAG_LENGTH_MAX} lower-case letters and digits",
            field,
        )
    return None


def _check_permissions(permissions: Sequence[str]) -> Rejected | None:
    for permission in permissions:
        if permission not in PERMISSIONS:
            return Rejected(Code.INVALID, f"{permission!r} is no permission", "permissions")
    return None


def _check_standard(name: str) -> Rejected | None:
    if name in STANDARD_ROLES:
        return Rejected(Code.INVALID, f"{name!r} is a standard role", "name")
    return None


def _missing(what: str, name: str, field: str) -> Rejected:
    return Rejected(Code.NOT_FOUND, f"there is no {what} {name!r}", field)


def _exists(what: str, name: str, field: str) -> Rejected:
    return Rejected(Code.ALREADY_EXISTS, f"{what} {name!r} exists already", field)


def _full(what: str, bound: int) -> Rejected:
    return Rejected(Code.LIMIT_EXCEEDED, f"there are {bound} {what}, which is all there may be")
