"""The messages of the HTTP API, defined once: JSON, protobuf and OpenAPI follow from these classes.

Every field says its protobuf number. ``omit_defaults`` is proto3's rule that zero values are not
written. This API says *lease* where the rest of Querator says reservation; so does this module.
"""

from typing import Annotated, Final, TypeAlias

import attrs
import msgspec

from querator.api.http.stamps import Stamp

INT32_MAX: Final = 2**31 - 1
INT32_MIN: Final = -(2**31)


@attrs.frozen
class Field:
    """``has_alias``: JSON input may spell the name in camelCase as well."""

    number: int
    has_alias: bool = False


def _f(number: int) -> Field:
    return Field(number)


def _fa(number: int) -> Field:
    return Field(number, has_alias=True)


Bytes: TypeAlias = bytes
"""Within a class with a field of that name, ``bytes`` is the field."""
Int32: TypeAlias = Annotated[int, msgspec.Meta(ge=INT32_MIN, le=INT32_MAX)]


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of all messages: strict in, zero values left out."""


class Reply(Message):
    """The answer where there is no data, and to everything that fails."""

    code: Annotated[Int32, _f(1)] = 0
    code_text: Annotated[str, _f(2)] = ""
    message: Annotated[str, _f(3)] = ""
    details: Annotated[dict[str, str], _f(4)] = {}


# --- queue.* ----------------------------------------------------------------------------------


class QueueProduceItem(Message):
    encoding: Annotated[str, _f(1)] = ""
    kind: Annotated[str, _f(2)] = ""
    reference: Annotated[str, _f(3)] = ""
    enqueue_at: Annotated[Stamp | None, _fa(4)] = None
    bytes: Annotated[Bytes, _f(5)] = b""
    utf8: Annotated[str, _f(6)] = ""


class QueueProduceRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    request_timeout: Annotated[str, _fa(2)] = ""
    items: Annotated[list[QueueProduceItem], _f(3)] = []


class QueueLeaseRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    batch_size: Annotated[Int32, _fa(2)] = 0
    client_id: Annotated[str, _fa(3)] = ""
    request_timeout: Annotated[str, _fa(4)] = ""


class QueueLeaseItem(Message):
    encoding: Annotated[str, _f(1)] = ""
    kind: Annotated[str, _f(2)] = ""
    reference: Annotated[str, _f(3)] = ""
    id: Annotated[str, _f(4)] = ""
    attempts: Annotated[Int32, _f(5)] = 0
    lease_deadline: Annotated[Stamp | None, _fa(6)] = None
    bytes: Annotated[Bytes, _f(7)] = b""


class QueueLeaseResponse(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    items: Annotated[list[QueueLeaseItem], _f(3)] = []


class QueueCompleteRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    request_timeout: Annotated[str, _fa(3)] = ""
    ids: Annotated[list[str], _f(4)] = []


class QueueRetryItem(Message):
    id: Annotated[str, _f(1)] = ""
    retry_at: Annotated[Stamp | None, _fa(2)] = None
    dead: Annotated[bool, _f(3)] = False


class QueueRetryRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    items: Annotated[list[QueueRetryItem], _f(3)] = []


class QueueClearRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    scheduled: Annotated[bool, _f(3)] = False
    queue: Annotated[bool, _f(4)] = False
    destructive: Annotated[bool, _f(5)] = False


class QueueReloadRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""


class QueueStatsRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""


class QueuePartitionStats(Message):
    partition: Annotated[Int32, _f(1)] = 0
    total: Annotated[Int32, _f(2)] = 0
    total_leased: Annotated[Int32, _fa(3)] = 0
    failures: Annotated[Int32, _f(4)] = 0
    average_age: Annotated[str, _fa(5)] = ""
    average_leased_age: Annotated[str, _fa(6)] = ""
    scheduled: Annotated[Int32, _f(7)] = 0


class QueueLogicalStats(Message):
    produce_waiting: Annotated[Int32, _fa(6)] = 0
    lease_waiting: Annotated[Int32, _fa(7)] = 0
    complete_waiting: Annotated[Int32, _fa(8)] = 0
    in_flight: Annotated[Int32, _fa(10)] = 0
    partitions: Annotated[list[QueuePartitionStats], _f(11)] = []


class QueueStatsResponse(Message, rename={"logical_queues": "logicalQueues"}):
    queue_name: Annotated[str, _fa(1)] = ""
    logical_queues: Annotated[list[QueueLogicalStats], _f(2)] = []


# --- queues.* ---------------------------------------------------------------------------------


class PartitionInfo(Message):
    partition: Annotated[Int32, _f(1)] = 0


class QueueInfo(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    created_at: Annotated[Stamp | None, _fa(2)] = None
    updated_at: Annotated[Stamp | None, _fa(3)] = None
    dead_queue: Annotated[str, _fa(4)] = ""
    reference: Annotated[str, _f(5)] = ""
    lease_timeout: Annotated[str, _fa(6)] = ""
    expire_timeout: Annotated[str, _fa(7)] = ""
    max_attempts: Annotated[Int32, _fa(8)] = 0
    requested_partitions: Annotated[Int32, _fa(9)] = 0
    partitions: Annotated[list[PartitionInfo], _f(10)] = []
    namespace: Annotated[str, _f(11)] = ""


class QueuesListRequest(Message):
    pivot: Annotated[str, _f(2)] = ""
    limit: Annotated[Int32, _f(3)] = 0
    namespace: Annotated[str, _f(4)] = ""


class QueuesListResponse(Message):
    items: Annotated[list[QueueInfo], _f(1)] = []


class QueuesDeleteRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    force: Annotated[bool, _f(2)] = False


class QueuesInfoRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""


# --- storage/* --------------------------------------------------------------------------------


class StorageItem(Message):
    id: Annotated[str, _f(1)] = ""
    source_id: Annotated[str, _f(2)] = ""
    is_leased: Annotated[bool, _fa(3)] = False
    lease_deadline: Annotated[Stamp | None, _fa(4)] = None
    expire_deadline: Annotated[Stamp | None, _fa(5)] = None
    dead_deadline: Annotated[Stamp | None, _fa(6)] = None
    created_at: Annotated[Stamp | None, _fa(7)] = None
    updated_at: Annotated[Stamp | None, _fa(8)] = None
    enqueue_at: Annotated[Stamp | None, _fa(9)] = None
    attempts: Annotated[Int32, _f(10)] = 0
    max_attempts: Annotated[Int32, _fa(11)] = 0
    reference: Annotated[str, _f(12)] = ""
    encoding: Annotated[str, _f(13)] = ""
    kind: Annotated[str, _f(14)] = ""
    payload: Annotated[Bytes, _f(15)] = b""


class StorageItemsListRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    pivot: Annotated[str, _f(3)] = ""
    limit: Annotated[Int32, _f(4)] = 0


class StorageItemsListResponse(Message):
    items: Annotated[list[StorageItem], _f(1)] = []


class StorageItemsImportRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    items: Annotated[list[StorageItem], _f(3)] = []


class StorageItemsImportResponse(Message):
    items: Annotated[list[StorageItem], _f(2)] = []


class StorageItemsDeleteRequest(Message):
    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    ids: Annotated[list[str], _f(3)] = []


# --- namespaces.* -----------------------------------------------------------------------------


class NamespaceInfo(Message):
    name: Annotated[str, _f(1)] = ""
    description: Annotated[str, _f(2)] = ""
    created_at: Annotated[Stamp | None, _fa(3)] = None
    api_key_tag: Annotated[str, _f(4)] = ""


class NamespacesListRequest(Message):
    pivot: Annotated[str, _f(1)] = ""
    limit: Annotated[Int32, _f(2)] = 0


class NamespacesListResponse(Message):
    items: Annotated[list[NamespaceInfo], _f(1)] = []


class NamespacesDeleteRequest(Message):
    name: Annotated[str, _f(1)] = ""


# --- users.* and apikeys.* --------------------------------------------------------------------


class User(Message):
    id: Annotated[str, _f(1)] = ""
    username: Annotated[str, _f(2)] = ""
    external_id: Annotated[str, _f(3)] = ""
    email: Annotated[str, _f(4)] = ""
    created_at: Annotated[Stamp | None, _f(5)] = None
    updated_at: Annotated[Stamp | None, _f(6)] = None


class UserCreateRequest(Message):
    username: Annotated[str, _f(1)] = ""
    email: Annotated[str, _f(2)] = ""
    external_id: Annotated[str, _f(3)] = ""


class UserCreateResponse(Message):
    id: Annotated[str, _f(1)] = ""


class UsersListRequest(Message):
    limit: Annotated[Int32, _f(1)] = 0
    pivot: Annotated[str, _f(2)] = ""


class UsersListResponse(Message):
    items: Annotated[list[User], _f(1)] = []


class UsersDeleteRequest(Message):
    id: Annotated[str, _f(1)] = ""


class APIKeyMetadata(Message):
    id: Annotated[str, _f(1)] = ""
    user_id: Annotated[str, _f(2)] = ""
    namespace_scope: Annotated[str, _f(3)] = ""
    name: Annotated[str, _f(4)] = ""
    prefix: Annotated[str, _f(5)] = ""
    expires_at: Annotated[Stamp | None, _f(6)] = None
    last_used_at: Annotated[Stamp | None, _f(7)] = None
    created_at: Annotated[Stamp | None, _f(8)] = None


class APIKeyCreateRequest(Message):
    user_id: Annotated[str, _f(1)] = ""
    name: Annotated[str, _f(2)] = ""
    namespace_scope: Annotated[str, _f(3)] = ""
    expires_at: Annotated[Stamp | None, _f(4)] = None
    key_tag: Annotated[str, _f(5)] = ""


class APIKeyCreateResponse(Message):
    id: Annotated[str, _f(1)] = ""
    key: Annotated[str, _f(2)] = ""
    prefix: Annotated[str, _f(3)] = ""


class APIKeysListRequest(Message):
    user_id: Annotated[str, _f(1)] = ""
    limit: Annotated[Int32, _f(2)] = 0
    pivot: Annotated[str, _f(3)] = ""


class APIKeysListResponse(Message):
    items: Annotated[list[APIKeyMetadata], _f(1)] = []


class APIKeysDeleteRequest(Message):
    id: Annotated[str, _f(1)] = ""


# --- roles.* and rolebindings.* ---------------------------------------------------------------


class Role(Message):
    id: Annotated[str, _f(1)] = ""
    namespace: Annotated[str, _f(2)] = ""
    name: Annotated[str, _f(3)] = ""
    permissions: Annotated[list[str], _f(4)] = []
    created_at: Annotated[Stamp | None, _f(5)] = None


class RoleCreateRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    name: Annotated[str, _f(2)] = ""
    permissions: Annotated[list[str], _f(3)] = []


class RoleUpdateRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    name: Annotated[str, _f(2)] = ""
    permissions: Annotated[list[str], _f(3)] = []


class RoleCreateResponse(Message):
    id: Annotated[str, _f(1)] = ""


class RolesListRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    limit: Annotated[Int32, _f(2)] = 0
    pivot: Annotated[str, _f(3)] = ""


class RolesListResponse(Message):
    items: Annotated[list[Role], _f(1)] = []


class RolesDeleteRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    name: Annotated[str, _f(2)] = ""


class RoleBinding(Message):
    id: Annotated[str, _f(1)] = ""
    namespace: Annotated[str, _f(2)] = ""
    user_id: Annotated[str, _f(3)] = ""
    role_id: Annotated[str, _f(4)] = ""
    created_at: Annotated[Stamp | None, _f(5)] = None


class RoleBindingCreateRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    role_name: Annotated[str, _f(2)] = ""
    user_id: Annotated[str, _f(3)] = ""


class RoleBindingCreateResponse(Message):
    id: Annotated[str, _f(1)] = ""


class RoleBindingsListRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    user_id_filter: Annotated[str, _f(2)] = ""
    limit: Annotated[Int32, _f(3)] = 0
    pivot: Annotated[str, _f(4)] = ""


class RoleBindingsListResponse(Message):
    items: Annotated[list[RoleBinding], _f(1)] = []


class RoleBindingDeleteRequest(Message):
    namespace: Annotated[str, _f(1)] = ""
    role_name: Annotated[str, _f(2)] = ""
    user_id: Annotated[str, _f(3)] = ""


# --- beyond the contract: /v1/x/ ----------------------------------------------------------------


class XProduceResponse(Message):
    """``ids`` are ``<partition>.<number>``, in the order of the items: an item's own, for life."""

    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    ids: Annotated[list[str], _f(3)] = []


class XExtendRequest(Message):
    """Move the deadline of leased items to ``timeout`` from now ("": the queue's lease timeout).

    Items that were leased together have one deadline: it moves for all of them, and only to later.
    """

    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    ids: Annotated[list[str], _f(3)] = []
    timeout: Annotated[str, _f(4)] = ""


class XReleaseRequest(Message):
    """Give leased items back without blame: the attempt does not count."""

    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    ids: Annotated[list[str], _f(3)] = []


class XTraceRequest(Message):
    """``id``: of an item (``<partition>.<number>``)."""

    queue_name: Annotated[str, _fa(1)] = ""
    id: Annotated[str, _f(2)] = ""
    limit: Annotated[Int32, _f(3)] = 0


class XTraceStep(Message):
    position: Annotated[int, _f(1)] = 0
    at: Annotated[Stamp | None, _f(2)] = None
    what: Annotated[str, _f(3)] = ""
    text: Annotated[str, _f(4)] = ""


class XTraceResponse(Message):
    steps: Annotated[list[XTraceStep], _f(1)] = []


class XAnalyticsRequest(Message):
    """One of the canned questions (docs/analytics.md) about a queue; ``id``: of an item, for its history.

    ``width``, ``waiting_target`` and ``processing_target`` are durations.
    """

    question: Annotated[str, _f(1)] = ""
    queue_name: Annotated[str, _fa(2)] = ""
    width: Annotated[str, _f(3)] = ""
    since: Annotated[Stamp | None, _f(4)] = None
    until: Annotated[Stamp | None, _f(5)] = None
    id: Annotated[str, _f(6)] = ""
    waiting_target: Annotated[str, _fa(7)] = ""
    processing_target: Annotated[str, _fa(8)] = ""


class XAnalyticsRow(Message):
    """Cells as text, in the order of the columns: moments and durations in microseconds, "" for none."""

    cells: Annotated[list[str], _f(1)] = []


class XAnalyticsResponse(Message):
    """``as_of``: when the history that was asked was exported; ``is_cut``: there were more rows."""

    columns: Annotated[list[str], _f(1)] = []
    rows: Annotated[list[XAnalyticsRow], _f(2)] = []
    as_of: Annotated[Stamp | None, _f(3)] = None
    is_cut: Annotated[bool, _f(4)] = False


class XRedriveRequest(Message):
    """Dead items back to the tail: those named (``<partition>.<number>``), else all or those of a reason."""

    queue_name: Annotated[str, _fa(1)] = ""
    ids: Annotated[list[str], _f(2)] = []
    reason: Annotated[str, _f(3)] = ""
    limit: Annotated[Int32, _f(4)] = 0


class XRedriveResponse(Message):
    count: Annotated[Int32, _f(1)] = 0


class XDeadItem(Message):
    id: Annotated[str, _f(1)] = ""
    """``<partition>.<number>``."""
    reason: Annotated[str, _f(2)] = ""
    attempts: Annotated[Int32, _f(3)] = 0
    reference: Annotated[str, _f(4)] = ""
    encoding: Annotated[str, _f(5)] = ""
    kind: Annotated[str, _f(6)] = ""
    payload: Annotated[Bytes, _f(7)] = b""
    created_at: Annotated[Stamp | None, _f(8)] = None


class XDeadListRequest(Message):
    """``pivot``: the id to begin with, inclusive."""

    queue_name: Annotated[str, _fa(1)] = ""
    partition: Annotated[Int32, _f(2)] = 0
    pivot: Annotated[str, _f(3)] = ""
    limit: Annotated[Int32, _f(4)] = 0


class XDeadListResponse(Message):
    items: Annotated[list[XDeadItem], _f(1)] = []
