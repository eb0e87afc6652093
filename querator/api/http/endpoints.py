"""Every call of the HTTP API, in one table: path, messages, permission, body limit, and who answers.

The table is what the door routes by, what OpenAPI is made from, and what the tests walk along.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import attrs

from querator.api.http import (
    extension_calls,
    messages,
    namespace_calls,
    queue_calls,
    queues_calls,
    role_calls,
    storage_calls,
    user_calls,
)
from querator.api.http.messages import Message, Reply
from querator.core.limits import QUEUE_NAME_BYTES_MAX

SMALL_BODY: Final = 512
"""Beside the queue's name, which alone may have as many bytes."""
NAME_ROOM: Final = 6 * QUEUE_NAME_BYTES_MAX
"""How long a queue's name can be in JSON, where each of its characters may be escaped."""
USUAL_BODY: Final = 256_000
UPDATE_BODY: Final = 512_000
IMPORT_BODY: Final = 64_000_000
PRODUCE_BODY: Final = 0
"""Stands for the operator's setting."""

Call: TypeAlias = Callable[[Any, Any, Any], Awaitable[Message | None]]
"""(door, caller, request) to the reply; ``None``: done, nothing to tell."""


@attrs.frozen
class Endpoint:
    """One call. ``reply`` is ``Reply`` where there is nothing to tell but that it is done."""

    path: str
    request: type[Message]
    reply: type[Message]
    permission: str
    call: Call
    body_bytes_max: int = USUAL_BODY


ENDPOINTS: Final = (
    Endpoint(
        "/v1/queue.produce",
        messages.QueueProduceRequest,
        Reply,
        "queue.produce",
        queue_calls.produce,
        PRODUCE_BODY,
    ),
    Endpoint(
        "/v1/queue.lease",
        messages.QueueLeaseRequest,
        messages.QueueLeaseResponse,
        "queue.lease",
        queue_calls.lease,
        SMALL_BODY,
    ),
    Endpoint(
        "/v1/queue.complete",
        messages.QueueCompleteRequest,
        Reply,
        "queue.complete",
        queue_calls.complete,
    ),
    Endpoint("/v1/queue.retry", messages.QueueRetryRequest, Reply, "queue.retry", queue_calls.retry),
    Endpoint(
        "/v1/queue.stats",
        messages.QueueStatsRequest,
        messages.QueueStatsResponse,
        "queue.stats",
        queue_calls.stats,
        SMALL_BODY,
    ),
    Endpoint(
        "/v1/queue.clear",
        messages.QueueClearRequest,
        Reply,
        "queue.clear",
        queue_calls.clear,
        SMALL_BODY,
    ),
    Endpoint(
        "/v1/queue.reload",
        messages.QueueReloadRequest,
        Reply,
        "queue.update",
        queue_calls.reload,
        SMALL_BODY,
    ),
    Endpoint("/v1/queues.create", messages.QueueInfo, Reply, "queue.create", queues_calls.create),
    Endpoint(
        "/v1/queues.list",
        messages.QueuesListRequest,
        messages.QueuesListResponse,
        "queue.list",
        queues_calls.list_queues,
    ),
    Endpoint(
        "/v1/queues.update", messages.QueueInfo, Reply, "queue.update", queues_calls.update, UPDATE_BODY
    ),
    Endpoint("/v1/queues.delete", messages.QueuesDeleteRequest, Reply, "queue.delete", queues_calls.delete),
    Endpoint(
        "/v1/queues.info",
        messages.QueuesInfoRequest,
        messages.QueueInfo,
        "queue.stats",
        queues_calls.info,
    ),
    Endpoint(
        "/v1/storage/items.list",
        messages.StorageItemsListRequest,
        messages.StorageItemsListResponse,
        "queue.stats",
        storage_calls.list_items,
    ),
    Endpoint(
        "/v1/storage/items.import",
        messages.StorageItemsImportRequest,
        messages.StorageItemsImportResponse,
        "queue.produce",
        storage_calls.import_items,
        IMPORT_BODY,
    ),
    Endpoint(
        "/v1/storage/items.delete",
        messages.StorageItemsDeleteRequest,
        Reply,
        "queue.clear",
        storage_calls.delete_items,
    ),
    Endpoint(
        "/v1/storage/scheduled.list",
        messages.StorageItemsListRequest,
        messages.StorageItemsListResponse,
        "queue.stats",
        storage_calls.list_scheduled,
    ),
    Endpoint(
        "/v1/namespaces.create",
        messages.NamespaceInfo,
        Reply,
        "namespace.create",
        namespace_calls.create,
    ),
    Endpoint(
        "/v1/namespaces.update",
        messages.NamespaceInfo,
        Reply,
        "namespace.update",
        namespace_calls.update,
    ),
    Endpoint(
        "/v1/namespaces.list",
        messages.NamespacesListRequest,
        messages.NamespacesListResponse,
        "namespace.list",
        namespace_calls.list_namespaces,
    ),
    Endpoint(
        "/v1/namespaces.delete",
        messages.NamespacesDeleteRequest,
        Reply,
        "namespace.delete",
        namespace_calls.delete,
    ),
    Endpoint(
        "/v1/users.create",
        messages.UserCreateRequest,
        messages.UserCreateResponse,
        "user.create",
        user_calls.create_user,
    ),
    Endpoint(
        "/v1/users.list",
        messages.UsersListRequest,
        messages.UsersListResponse,
        "user.list",
        user_calls.list_users,
    ),
    Endpoint("/v1/users.delete", messages.UsersDeleteRequest, Reply, "user.delete", user_calls.delete_user),
    Endpoint(
        "/v1/apikeys.create",
        messages.APIKeyCreateRequest,
        messages.APIKeyCreateResponse,
        "apikey.create",
        user_calls.create_key,
    ),
    Endpoint(
        "/v1/apikeys.list",
        messages.APIKeysListRequest,
        messages.APIKeysListResponse,
        "apikey.list",
        user_calls.list_keys,
    ),
    Endpoint(
        "/v1/apikeys.delete",
        messages.APIKeysDeleteRequest,
        Reply,
        "apikey.delete",
        user_calls.delete_key,
    ),
    Endpoint(
        "/v1/roles.create",
        messages.RoleCreateRequest,
        messages.RoleCreateResponse,
        "role.create",
        role_calls.create,
    ),
    Endpoint(
        "/v1/roles.list",
        messages.RolesListRequest,
        messages.RolesListResponse,
        "role.list",
        role_calls.list_roles,
    ),
    Endpoint("/v1/roles.update", messages.RoleUpdateRequest, Reply, "role.update", role_calls.update),
    Endpoint("/v1/roles.delete", messages.RolesDeleteRequest, Reply, "role.delete", role_calls.delete),
    Endpoint(
        "/v1/rolebindings.create",
        messages.RoleBindingCreateRequest,
        messages.RoleBindingCreateResponse,
        "rolebinding.create",
        role_calls.create_binding,
    ),
    Endpoint(
        "/v1/rolebindings.list",
        messages.RoleBindingsListRequest,
        messages.RoleBindingsListResponse,
        "rolebinding.list",
        role_calls.list_bindings,
    ),
    Endpoint(
        "/v1/rolebindings.delete",
        messages.RoleBindingDeleteRequest,
        Reply,
        "rolebinding.delete",
        role_calls.delete_binding,
    ),
    Endpoint(
        "/v1/x/queue.produce",
        messages.QueueProduceRequest,
        messages.XProduceResponse,
        "queue.produce",
        extension_calls.produce,
        PRODUCE_BODY,
    ),
    Endpoint(
        "/v1/x/queue.extend",
        messages.XExtendRequest,
        Reply,
        "queue.complete",
        extension_calls.extend,
    ),
    Endpoint(
        "/v1/x/queue.release",
        messages.XReleaseRequest,
        Reply,
        "queue.retry",
        extension_calls.release,
    ),
    Endpoint(
        "/v1/x/items.trace",
        messages.XTraceRequest,
        messages.XTraceResponse,
        "queue.stats",
        extension_calls.trace,
    ),
    Endpoint(
        "/v1/x/analytics",
        messages.XAnalyticsRequest,
        messages.XAnalyticsResponse,
        "queue.stats",
        extension_calls.ask,
    ),
    Endpoint(
        "/v1/x/dead.list",
        messages.XDeadListRequest,
        messages.XDeadListResponse,
        "queue.stats",
        extension_calls.list_dead,
    ),
    Endpoint(
        "/v1/x/dead.redrive",
        messages.XRedriveRequest,
        messages.XRedriveResponse,
        "queue.retry",
        extension_calls.redrive,
    ),
)

BY_PATH: Final = {endpoint.path: endpoint for endpoint in ENDPOINTS}


def size_text(size: int) -> str:
    """A body limit as the texts of the API print it: ``512B``, ``5.0MB``, ``61.0MiB``."""
    binary = size % 1_024 == 0
    step, units = (1_024, ("B", "KiB", "MiB", "GiB")) if binary else (1_000, ("B", "KB", "MB", "GB"))
    value = float(size)
    unit = 0
    while value >= step and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{size}B" if not unit else f"{value:.1f}{units[unit]}"
