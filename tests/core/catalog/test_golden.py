"""Catalog documents written by earlier versions stay readable: one of each kind, as bytes.

A new kind needs a new entry (``python -m tests.core.catalog.test_golden`` prints those that are
missing); an entry that is there is never changed.
"""

import json
from pathlib import Path

import pytest

from querator.core.catalog import Document, decode, encode
from querator.core.catalog.documents import (
    TAGS,
    ApiKeyCreated,
    ApiKeyDeleted,
    BindingCreated,
    BindingDeleted,
    Change,
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
from querator.core.catalog.values import ApiKey, Binding, Namespace, Queue, QueuePartition, Role, User
from querator.core.ids import Duration, Instant, PartitionId, QueueName
from querator.core.policy import Backoff, Ordering

GOLDEN = Path(__file__).parents[2] / "golden" / "catalog.json"
AT = Instant(1_800_000_000_000_001)

QUEUE = Queue(
    name=QueueName("q"),
    namespace="space",
    partitions=(QueuePartition(PartitionId(7), "one"), QueuePartition(PartitionId(8))),
    partitions_requested=3,
    created_at=AT,
    updated_at=Instant(AT + 1),
    reservation_timeout=Duration(1),
    expire_timeout=Duration(2),
    attempts_max=3,
    dead_queue="dead",
    reference="é",
    max_runtime=Duration(4),
    backoff=Backoff(Duration(5), 1.5, Duration(6), 0.25),
    ordering=Ordering.KEY,
    dead_retention=Duration(7),
    session_grace=Duration(8),
    dedupe_window=Duration(9),
    dedupe_keys_max=10,
    paused=True,
)
NAMESPACE = Namespace(name="space", description="d", api_key_tag="t", created_at=AT)
USER = User(id="u1", username="name", email="e", external_id="x", created_at=AT, updated_at=AT)
KEY = ApiKey(
    id="k1",
    user_id="u1",
    name="n",
    scope="space",
    prefix="qtr-t-00000000",
    hash=bytes(range(32)),
    expires_at=Instant(5),
    created_at=AT,
)
ROLE = Role(id="r1", namespace="space", name="role", permissions=("queue.list",), created_at=AT)
BINDING = Binding(id="b1", namespace="space", user_id="u1", role_id="r1", created_at=AT)

CHANGES: list[Change] = [
    QueueCreated(QUEUE),
    QueueChanged(QUEUE),
    QueueDeleted("q"),
    NamespaceCreated(NAMESPACE),
    NamespaceChanged(NAMESPACE),
    NamespaceDeleted("space"),
    UserCreated(USER),
    UserDeleted("u1"),
    ApiKeyCreated(KEY),
    ApiKeyDeleted("k1"),
    RoleCreated(ROLE),
    RoleChanged(ROLE),
    RoleDeleted("r1"),
    BindingCreated(BINDING),
    BindingDeleted("b1"),
    DoorOpened(),
]
DOCUMENTS = {f"{TAGS[type(change)]}.v1": Document(AT, "author", change) for change in CHANGES}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_what_was_written_is_read(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert decode(golden[name].encode()) == DOCUMENTS[name]


def test_every_kind_has_its_golden_document() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(f"{tag}.v1" for tag in TAGS.values())


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    missing = {name: encode(document).decode() for name, document in DOCUMENTS.items() if name not in known}
    print(json.dumps(missing, indent=1, ensure_ascii=False))
