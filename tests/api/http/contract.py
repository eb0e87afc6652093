"""The field tables of the contract (CONTRACT.md 1.4, 2.1 to 2.6), written down a second time, by hand.

A field is ``number name type``; ``+`` behind a name: its camelCase spelling is read as well; ``*``
before a type: repeated; ``ts``: a timestamp.
"""

TABLES = """
Reply: 1 code int32, 2 code_text string, 3 message string, 4 details map
QueueProduceRequest: 1 queue_name+ string, 2 request_timeout+ string, 3 items *QueueProduceItem
QueueProduceItem: 1 encoding string, 2 kind string, 3 reference string, 4 enqueue_at+ ts, 5 bytes bytes, 6 utf8 string
QueueLeaseRequest: 1 queue_name+ string, 2 batch_size+ int32, 3 client_id+ string, 4 request_timeout+ string
QueueLeaseResponse: 1 queue_name+ string, 2 partition int32, 3 items *QueueLeaseItem
QueueLeaseItem: 1 encoding string, 2 kind string, 3 reference string, 4 id string, 5 attempts int32, 6 lease_deadline+ ts, 7 bytes bytes
QueueCompleteRequest: 1 queue_name+ string, 2 partition int32, 3 request_timeout+ string, 4 ids *string
QueueRetryRequest: 1 queue_name+ string, 2 partition int32, 3 items *QueueRetryItem
QueueRetryItem: 1 id string, 2 retry_at+ ts, 3 dead bool
QueueClearRequest: 1 queue_name+ string, 3 scheduled bool, 4 queue bool, 5 destructive bool
QueueReloadRequest: 1 queue_name+ string
QueueStatsRequest: 1 queue_name+ string
QueueStatsResponse: 1 queue_name+ string, 2 logicalQueues *QueueLogicalStats
QueueLogicalStats: 6 produce_waiting+ int32, 7 lease_waiting+ int32, 8 complete_waiting+ int32, 10 in_flight+ int32, 11 partitions *QueuePartitionStats
QueuePartitionStats: 1 partition int32, 2 total int32, 3 total_leased+ int32, 4 failures int32, 5 average_age+ string, 6 average_leased_age+ string, 7 scheduled int32
QueueInfo: 1 queue_name+ string, 2 created_at+ ts, 3 updated_at+ ts, 4 dead_queue+ string, 5 reference string, 6 lease_timeout+ string, 7 expire_timeout+ string, 8 max_attempts+ int32, 9 requested_partitions+ int32, 10 partitions *PartitionInfo, 11 namespace string
PartitionInfo: 1 partition int32
QueuesListRequest: 2 pivot string, 3 limit int32, 4 namespace string
QueuesListResponse: 1 items *QueueInfo
QueuesDeleteRequest: 1 queue_name+ string, 2 force bool
QueuesInfoRequest: 1 queue_name+ string
StorageItemsListRequest: 1 queue_name+ string, 2 partition int32, 3 pivot string, 4 limit int32
StorageItemsListResponse: 1 items *StorageItem
StorageItemsImportRequest: 1 queue_name+ string, 2 partition int32, 3 items *StorageItem
StorageItemsImportResponse: 2 items *StorageItem
StorageItemsDeleteRequest: 1 queue_name+ string, 2 partition int32, 3 ids *string
StorageItem: 1 id string, 2 source_id string, 3 is_leased+ bool, 4 lease_deadline+ ts, 5 expire_deadline+ ts, 6 dead_deadline+ ts, 7 created_at+ ts, 8 updated_at+ ts, 9 enqueue_at+ ts, 10 attempts int32, 11 max_attempts+ int32, 12 reference string, 13 encoding string, 14 kind string, 15 payload bytes
NamespaceInfo: 1 name string, 2 description string, 3 created_at+ ts, 4 api_key_tag string
NamespacesListRequest: 1 pivot string, 2 limit int32
NamespacesListResponse: 1 items *NamespaceInfo
NamespacesDeleteRequest: 1 name string
User: 1 id string, 2 username string, 3 external_id string, 4 email string, 5 created_at ts, 6 updated_at ts
UserCreateRequest: 1 username string, 2 email string, 3 external_id string
UserCreateResponse: 1 id string
UsersListRequest: 1 limit int32, 2 pivot string
UsersListResponse: 1 items *User
UsersDeleteRequest: 1 id string
APIKeyMetadata: 1 id string, 2 user_id string, 3 namespace_scope string, 4 name string, 5 prefix string, 6 expires_at ts, 7 last_used_at ts, 8 created_at ts
APIKeyCreateRequest: 1 user_id string, 2 name string, 3 namespace_scope string, 4 expires_at ts, 5 key_tag string
APIKeyCreateResponse: 1 id string, 2 key string, 3 prefix string
APIKeysListRequest: 1 user_id string, 2 limit int32, 3 pivot string
APIKeysListResponse: 1 items *APIKeyMetadata
APIKeysDeleteRequest: 1 id string
Role: 1 id string, 2 namespace string, 3 name string, 4 permissions *string, 5 created_at ts
RoleCreateRequest: 1 namespace string, 2 name string, 3 permissions *string
RoleUpdateRequest: 1 namespace string, 2 name string, 3 permissions *string
RoleCreateResponse: 1 id string
RolesListRequest: 1 namespace string, 2 limit int32, 3 pivot string
RolesListResponse: 1 items *Role
RolesDeleteRequest: 1 namespace string, 2 name string
RoleBinding: 1 id string, 2 namespace string, 3 user_id string, 4 role_id string, 5 created_at ts
RoleBindingCreateRequest: 1 namespace string, 2 role_name string, 3 user_id string
RoleBindingDeleteRequest: 1 namespace string, 2 role_name string, 3 user_id string
RoleBindingCreateResponse: 1 id string
RoleBindingsListRequest: 1 namespace string, 2 user_id_filter string, 3 limit int32, 4 pivot string
RoleBindingsListResponse: 1 items *RoleBinding
"""  # noqa: E501

ENDPOINTS = """
/v1/queue.produce QueueProduceRequest Reply 5000000 5.0MB
/v1/queue.lease QueueLeaseRequest QueueLeaseResponse 512 512B
/v1/queue.complete QueueCompleteRequest Reply 256000 250.0KiB
/v1/queue.retry QueueRetryRequest Reply 256000 250.0KiB
/v1/queue.stats QueueStatsRequest QueueStatsResponse 512 512B
/v1/queue.clear QueueClearRequest Reply 512 512B
/v1/queue.reload QueueReloadRequest Reply 512 512B
/v1/queues.create QueueInfo Reply 256000 250.0KiB
/v1/queues.list QueuesListRequest QueuesListResponse 256000 250.0KiB
/v1/queues.update QueueInfo Reply 512000 500.0KiB
/v1/queues.delete QueuesDeleteRequest Reply 256000 250.0KiB
/v1/queues.info QueuesInfoRequest QueueInfo 256000 250.0KiB
/v1/storage/items.list StorageItemsListRequest StorageItemsListResponse 256000 250.0KiB
/v1/storage/items.import StorageItemsImportRequest StorageItemsImportResponse 64000000 61.0MiB
/v1/storage/items.delete StorageItemsDeleteRequest Reply 256000 250.0KiB
/v1/storage/scheduled.list StorageItemsListRequest StorageItemsListResponse 256000 250.0KiB
/v1/namespaces.create NamespaceInfo Reply 256000 250.0KiB
/v1/namespaces.update NamespaceInfo Reply 256000 250.0KiB
/v1/namespaces.list NamespacesListRequest NamespacesListResponse 256000 250.0KiB
/v1/namespaces.delete NamespacesDeleteRequest Reply 256000 250.0KiB
/v1/users.create UserCreateRequest UserCreateResponse 256000 250.0KiB
/v1/users.list UsersListRequest UsersListResponse 256000 250.0KiB
/v1/users.delete UsersDeleteRequest Reply 256000 250.0KiB
/v1/apikeys.create APIKeyCreateRequest APIKeyCreateResponse 256000 250.0KiB
/v1/apikeys.list APIKeysListRequest APIKeysListResponse 256000 250.0KiB
/v1/apikeys.delete APIKeysDeleteRequest Reply 256000 250.0KiB
/v1/roles.create RoleCreateRequest RoleCreateResponse 256000 250.0KiB
/v1/roles.list RolesListRequest RolesListResponse 256000 250.0KiB
/v1/roles.update RoleUpdateRequest Reply 256000 250.0KiB
/v1/roles.delete RolesDeleteRequest Reply 256000 250.0KiB
/v1/rolebindings.create RoleBindingCreateRequest RoleBindingCreateResponse 256000 250.0KiB
/v1/rolebindings.list RoleBindingsListRequest RoleBindingsListResponse 256000 250.0KiB
/v1/rolebindings.delete RoleBindingDeleteRequest Reply 256000 250.0KiB
"""


def message_rows() -> dict[str, list[tuple[int, str, str, bool, bool]]]:
    """Message to (number, JSON name, type, is repeated, has an alias) in order of number."""
    rows = {}
    for line in TABLES.strip().splitlines():
        message, _, fields = line.partition(": ")
        rows[message] = sorted(_field(field) for field in fields.split(", "))
    return rows


def _field(text: str) -> tuple[int, str, str, bool, bool]:
    number, name, kind = text.split()
    return int(number), name.rstrip("+"), kind.lstrip("*"), kind.startswith("*"), name.endswith("+")


def endpoint_rows() -> list[tuple[str, str, str, int, str]]:
    """(path, request, reply, body limit, how the limit reads)."""
    rows = [line.split() for line in ENDPOINTS.strip().splitlines()]
    return [(path, request, reply, int(limit), text) for path, request, reply, limit, text in rows]
