"""One request of every call, for the OpenAPI document; ids are where a server would have its own.

They are told as a story: queues, items, the extensions, then who may do what.
"""

from typing import Any, Final

ITEM_ID: Final = "3DVgD7tJ9kCkwZCYbDlXTkZRkdY"
QUEUE: Final = {"queue_name": "mail"}
WAIT: Final = {"request_timeout": "100ms"}
TIMES: Final = {"lease_timeout": "1m", "expire_timeout": "24h"}
WORKER: Final = {"namespace": "tenant", "name": "worker"}
BINDING: Final = {"namespace": "tenant", "role_name": "worker", "user_id": "anonymous"}
IDS: Final = {**QUEUE, "partition": 0, "ids": [ITEM_ID]}
PAGE: Final = {**QUEUE, "partition": 0, "limit": 10}
PRODUCE: Final = {
    **QUEUE,
    **WAIT,
    "items": [{"utf8": "hello", "kind": "greeting"}, {"bytes": "AP8=", "enqueue_at": "2030-01-01T00:00:00Z"}],
}

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "/v1/queues.create": {**QUEUE, **TIMES, "requested_partitions": 1, "max_attempts": 3},
    "/v1/queues.update": {**QUEUE, "lease_timeout": "5m", "max_attempts": 5},
    "/v1/queues.info": QUEUE,
    "/v1/queues.list": {"limit": 10},
    "/v1/queues.delete": {"queue_name": "spare"},
    "/v1/queue.produce": PRODUCE,
    "/v1/queue.lease": {**QUEUE, "batch_size": 10, "client_id": "worker-1", **WAIT},
    "/v1/queue.complete": {**IDS, **WAIT},
    "/v1/queue.retry": {**QUEUE, "items": [{"id": ITEM_ID, "retry_at": "2030-01-01T00:00:00Z"}]},
    "/v1/queue.stats": QUEUE,
    "/v1/queue.clear": {**QUEUE, "scheduled": True},
    "/v1/queue.reload": QUEUE,
    "/v1/storage/items.list": PAGE,
    "/v1/storage/items.import": {**QUEUE, "items": [{"payload": "aGVsbG8=", "source_id": "elsewhere-1"}]},
    "/v1/storage/items.delete": IDS,
    "/v1/storage/scheduled.list": PAGE,
    "/v1/x/queue.produce": PRODUCE,
    "/v1/x/queue.extend": {**IDS, "timeout": "5m"},
    "/v1/x/queue.release": IDS,
    "/v1/x/items.trace": {**QUEUE, "id": "1.1", "limit": 100},
    "/v1/x/analytics": {**QUEUE, "question": "waiting", "width": "1h"},
    "/v1/x/dead.list": PAGE,
    "/v1/x/dead.redrive": {**QUEUE, "limit": 100},
    "/v1/namespaces.create": {"name": "tenant", "description": "of one customer", "api_key_tag": "acme"},
    "/v1/namespaces.update": {"name": "tenant", "description": "of another customer"},
    "/v1/namespaces.list": {"limit": 10},
    "/v1/namespaces.delete": {"name": "tenant"},
    "/v1/users.create": {"username": "ann", "email": "ann@example.org"},
    "/v1/users.list": {"limit": 10},
    "/v1/users.delete": {"id": ITEM_ID},
    "/v1/apikeys.create": {"user_id": "anonymous", "name": "of the mailer", "namespace_scope": "tenant"},
    "/v1/apikeys.list": {"user_id": "anonymous"},
    "/v1/apikeys.delete": {"id": ITEM_ID},
    "/v1/roles.create": {**WORKER, "permissions": ["queue.lease", "queue.complete"]},
    "/v1/roles.list": {"namespace": "tenant"},
    "/v1/roles.update": {**WORKER, "permissions": ["queue.lease"]},
    "/v1/roles.delete": WORKER,
    "/v1/rolebindings.create": BINDING,
    "/v1/rolebindings.list": {"namespace": "tenant"},
    "/v1/rolebindings.delete": BINDING,
}
