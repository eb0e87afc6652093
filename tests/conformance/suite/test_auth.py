"""Who may do what: bootstrap, keys, scopes, permissions (CONTRACT.md 3.12, 4.13)."""

import json
from typing import Any

import pytest

from tests.conformance.suite.go_client import Control, Refused, Server
from tests.conformance.suite.test_roles import PERMISSIONS

DENIED = (403, "access denied")
OWNER = [
    permission
    for permission in PERMISSIONS
    if permission.split(".")[0] in ("queue", "role", "rolebinding", "system")
]
LENGTH = 43


def bearer(server: Server, value: str, path: str = "/v1/queues.list") -> tuple[int, str]:
    """(status, message) of a call with this Authorization header."""
    status, _, read = server.raw("POST", path, b"{}", {"Authorization": value})
    return status, json.loads(read).get("message", "")


def close_door(server: Server) -> None:
    server.ok("rolebindings.delete", namespace="_system", role_name="Admin", user_id="anonymous")


class Keys:
    """Users with roles, made while the door is open."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._made = 0

    def of(self, *roles: tuple[str, str], scope: str = "") -> str:
        """A key of a new user with these (namespace, role) bindings."""
        self._made += 1
        user = self.server.ok("users.create", username=f"user{self._made}").id
        for namespace, role in roles:
            self.server.ok("rolebindings.create", namespace=namespace, role_name=role, user_id=user)
        key: str = self.server.ok("apikeys.create", user_id=user, namespace_scope=scope).key
        return key


@pytest.fixture
def keys(guarded: Server) -> Keys:
    for name in ("a", "b"):
        guarded.ok("namespaces.create", name=name)
        guarded.create(f"queue-{name}", namespace=name)
    guarded.create("queue-system")
    return Keys(guarded)


# --- bootstrap --------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_the_bootstrap(guarded: Server) -> None:
    assert [item.name for item in guarded.ok("namespaces.list").items] == ["_system"]
    (anonymous,) = guarded.ok("users.list").items
    assert (anonymous.id, anonymous.username) == ("anonymous", "anonymous")
    roles = {role.name: role for role in guarded.ok("roles.list").items}
    assert {name: sorted(role.permissions) for name, role in roles.items()} == {
        "Admin": sorted(PERMISSIONS),
        "NamespaceOwner": sorted(OWNER),
        "PublicViewer": ["system.health", "system.metrics"],
    }
    assert {role.namespace for role in roles.values()} == {"_system"}
    (binding,) = guarded.ok("rolebindings.list").items
    assert (binding.user_id, binding.role_id, binding.namespace) == (
        "anonymous",
        roles["Admin"].id,
        "_system",
    )
    assert list(guarded.ok("apikeys.list").items) == []


@pytest.mark.every_log
def test_the_bootstrap_changes_nothing_again(control: Control) -> None:
    server = control.new(storage="bootstrap", auth=1)
    lists = ("namespaces.list", "users.list", "roles.list", "rolebindings.list")
    before = [server.ok(path) for path in lists]
    server.bootstrap()
    server.bootstrap()
    assert [server.ok(path) for path in lists] == before
    server.stop()
    again = control.new(storage="bootstrap", auth=1)
    assert [again.ok(path) for path in lists] == before
    again.stop()


def test_standard_roles_stay(guarded: Server) -> None:
    for name in ("Admin", "NamespaceOwner", "PublicViewer"):
        text = f"cannot modify or delete standard role; '{name}' is a standard role"
        assert guarded.refusal("roles.update", namespace="_system", name=name) == (400, text)
        assert guarded.refusal("roles.delete", name=name) == (400, text)
        assert guarded.refusal("roles.create", namespace="_system", name=name) == (400, text)


@pytest.mark.every_log
def test_the_door_closes_and_stays_closed(control: Control) -> None:
    """Also over a bootstrap and a restart."""
    server = control.new(storage="door", auth=1)
    key = Keys(server).of(("_system", "Admin"))
    close_door(server)
    assert server.refusal("users.list") == DENIED
    assert server.ok("users.list", key=key) is not None
    server.bootstrap()
    assert server.refusal("users.list") == DENIED
    server.stop()
    again = control.new(storage="door", auth=1)
    assert again.refusal("users.list") == DENIED
    assert len(again.ok("users.list", key=key).items) == 2
    again.ok("rolebindings.create", key=key, namespace="_system", role_name="Admin", user_id="anonymous")
    assert len(again.ok("users.list").items) == 2
    again.stop()


SETTINGS = {"lease_timeout": "1m", "expire_timeout": "1h", "requested_partitions": 1}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("namespaces.create", {"name": "n"}),
    ("namespaces.update", {"name": "a"}),
    ("namespaces.list", {}),
    ("namespaces.delete", {"name": "a"}),
    ("queues.create", SETTINGS | {"queue_name": "new"}),
    ("queues.list", {}),
    ("queues.update", {"queue_name": "queue-a"}),
    ("queues.info", {"queue_name": "queue-a"}),
    ("queues.delete", {"queue_name": "queue-a"}),
    ("queue.produce", {"queue_name": "queue-a", "request_timeout": "1m", "items": [{}]}),
    ("queue.lease", {"queue_name": "queue-a", "request_timeout": "1m", "batch_size": 1, "client_id": "c"}),
    ("queue.complete", {"queue_name": "queue-a", "request_timeout": "1m", "ids": ["x"]}),
    ("queue.retry", {"queue_name": "queue-a", "items": [{"id": "x"}]}),
    ("queue.stats", {"queue_name": "queue-a"}),
    ("queue.clear", {"queue_name": "queue-a", "queue": True}),
    ("queue.reload", {"queue_name": "queue-a"}),
    ("storage/items.list", {"queue_name": "queue-a"}),
    ("storage/scheduled.list", {"queue_name": "queue-a"}),
    ("storage/items.import", {"queue_name": "queue-a", "items": [{}]}),
    ("storage/items.delete", {"queue_name": "queue-a", "ids": ["0" * 27]}),
    ("users.create", {"username": "n"}),
    ("users.list", {}),
    ("users.delete", {"id": "none"}),
    ("apikeys.create", {"user_id": "none"}),
    ("apikeys.list", {}),
    ("apikeys.delete", {"id": "none"}),
    ("roles.create", {"namespace": "a", "name": "n"}),
    ("roles.update", {"namespace": "a", "name": "n"}),
    ("roles.list", {"namespace": "a"}),
    ("roles.delete", {"namespace": "a", "name": "n"}),
    ("rolebindings.create", {"namespace": "a", "role_name": "n", "user_id": "u"}),
    ("rolebindings.list", {"namespace": "a"}),
    ("rolebindings.delete", {"namespace": "a", "role_name": "n", "user_id": "u"}),
]  # fmt: skip
NEEDS = {
    "queue.reload": "queue.update",
    "queues.info": "queue.stats",
    "storage/items.list": "queue.stats",
    "storage/scheduled.list": "queue.stats",
    "storage/items.import": "queue.produce",
    "storage/items.delete": "queue.clear",
}


def permission_of(path: str) -> str:
    head, _, verb = path.partition(".")
    singular = {"namespaces": "namespace", "queues": "queue", "users": "user", "apikeys": "apikey",
                "roles": "role", "rolebindings": "rolebinding"}  # fmt: skip
    return NEEDS.get(path) or f"{singular.get(head, head)}.{verb}"


@pytest.mark.parametrize(("path", "fields"), CALLS, ids=[path for path, _ in CALLS])
def test_each_call_wants_its_permission(keys: Keys, path: str, fields: dict[str, Any]) -> None:
    """All but it is not enough, it alone is; where the queue is, in the given namespace or in ``_system``."""
    server = keys.server
    permission = permission_of(path)
    head, _, _ = path.partition(".")
    system = head in ("namespaces", "users", "apikeys") or path in ("queues.create", "queues.list")
    namespace = "_system" if system else "a"
    server.ok("roles.create", namespace=namespace, name="it", permissions=[permission])
    server.ok(
        "roles.create",
        namespace=namespace,
        name="rest",
        permissions=[each for each in PERMISSIONS if each != permission],
    )
    server.produce("x", queue="queue-a")
    without, with_it, nothing = keys.of((namespace, "rest")), keys.of((namespace, "it")), keys.of()
    close_door(server)
    assert server.refusal(path, key=nothing, **fields) == DENIED
    assert server.refusal(path, **fields) == DENIED
    assert server.refusal(path, key=without, **fields) == DENIED
    try:
        server.ok(path, key=with_it, **fields)
    except Refused as refused:
        assert refused.code != 403


@pytest.mark.parametrize(("path", "fields"), CALLS, ids=[path for path, _ in CALLS])
def test_without_auth_everybody_may(server: Server, path: str, fields: dict[str, Any]) -> None:
    server.ok("namespaces.create", name="a")
    server.create("queue-a", namespace="a")
    server.produce("x", "y", queue="queue-a")
    for header in ({}, {"key": "whatever"}):
        try:
            server.ok(path, **header, **fields)
        except Refused as refused:
            assert refused.code != 403
            assert (refused.code == 401) == (path == "apikeys.delete")


def test_existence_is_told_before_the_right_is_asked(keys: Keys) -> None:
    """For queues; for roles the right comes first."""
    server = keys.server
    close_door(server)
    assert server.refusal("queue.stats", queue_name="none") == (
        400,
        "queue does not exist; no such queue named 'none'",
    )
    assert server.refusal("queues.delete", queue_name="none")[0] == 400
    assert server.refusal("roles.create", namespace="none", name="r") == DENIED
    assert server.refusal("roles.create", namespace="", name="r")[0] == 400
    assert server.refusal("roles.create", namespace="a", name="Admin") == DENIED
    assert server.refusal("rolebindings.create", namespace="none", role_name="r", user_id="u") == DENIED
    assert server.refusal("queues.create", queue_name="x y") == (
        400,
        "queue name is invalid; 'x y' cannot contain whitespace",
    )
    assert server.refusal("queues.create", queue_name="queue-a", namespace="none") == DENIED
    assert server.refusal("namespaces.create", name="_x") == DENIED
    assert server.refusal("namespaces.create", name="a b")[0] == 400
    assert server.refusal("users.create", username="")[0] == 400
    assert server.refusal("apikeys.create", user_id="none") == DENIED
    assert server.refusal("queue.produce", queue_name="queue-a", request_timeout="junk") == DENIED
    assert server.refusal("queue.complete", queue_name="queue-a", partition=99) == DENIED


# --- scopes -----------------------------------------------------------------------------------------


@pytest.mark.every_log
def test_a_binding_counts_in_its_namespace(keys: Keys) -> None:
    server = keys.server
    server.ok("roles.create", namespace="a", name="all", permissions=PERMISSIONS)
    tenant = keys.of(("a", "all"))
    close_door(server)
    assert server.ok("queue.stats", key=tenant, queue_name="queue-a") is not None
    assert server.refusal("queue.stats", key=tenant, queue_name="queue-b") == DENIED
    assert server.refusal("queue.stats", key=tenant, queue_name="queue-system") == DENIED
    assert [q.queue_name for q in server.ok("queues.list", key=tenant, namespace="a").items] == ["queue-a"]
    assert server.refusal("queues.list", key=tenant, namespace="b") == DENIED
    assert server.refusal("queues.list", key=tenant) == DENIED
    assert server.refusal("users.list", key=tenant) == DENIED
    assert server.refusal("namespaces.list", key=tenant) == DENIED
    assert server.ok("roles.list", key=tenant, namespace="a") is not None
    assert server.refusal("roles.list", key=tenant) == DENIED


@pytest.mark.every_log
def test_a_binding_in_system_counts_everywhere(keys: Keys) -> None:
    server = keys.server
    server.ok("roles.create", namespace="_system", name="reader", permissions=["queue.stats", "queue.list"])
    reader = keys.of(("_system", "reader"))
    close_door(server)
    for name in ("queue-a", "queue-b", "queue-system"):
        assert server.ok("queue.stats", key=reader, queue_name=name) is not None
        assert server.refusal("queue.clear", key=reader, queue_name=name, queue=True) == DENIED
    assert len(server.ok("queues.list", key=reader).items) == 3
    assert server.refusal("users.list", key=reader) == DENIED


@pytest.mark.every_log
def test_a_scoped_key(keys: Keys) -> None:
    """It works in its namespace; elsewhere not; in ``_system`` by the bindings there only."""
    server = keys.server
    server.ok("roles.create", namespace="a", name="all", permissions=PERMISSIONS)
    admin = keys.of(("_system", "Admin"), scope="a")
    tenant = keys.of(("a", "all"), scope="a")
    lost = keys.of(("a", "all"), scope="b")
    close_door(server)
    assert server.ok("queue.stats", key=admin, queue_name="queue-a") is not None
    assert server.refusal("queue.stats", key=admin, queue_name="queue-b") == DENIED
    assert server.ok("users.list", key=admin) is not None
    assert server.ok("queue.stats", key=admin, queue_name="queue-system") is not None
    assert server.ok("queues.list", key=tenant, namespace="a") is not None
    assert server.refusal("queues.list", key=tenant, namespace="b") == DENIED
    assert server.refusal("queues.list", key=tenant) == DENIED
    assert server.refusal("users.list", key=tenant) == DENIED
    assert server.refusal("queue.stats", key=lost, queue_name="queue-a") == DENIED


def test_a_scope_of_system(keys: Keys) -> None:
    server = keys.server
    key = keys.of(("_system", "Admin"), scope="_system")
    close_door(server)
    assert server.ok("users.list", key=key) is not None
    assert server.refusal("queue.stats", key=key, queue_name="queue-a") == DENIED


def test_namespace_owners(keys: Keys) -> None:
    """The standard role, made once more in a namespace by hand; and bound where it is."""
    server = keys.server
    server.ok("roles.create", namespace="a", name="owner", permissions=OWNER)
    owner = keys.of(("a", "owner"), scope="a")
    close_door(server)
    created = SETTINGS | {"queue_name": "mine"}
    assert server.ok("queues.create", key=owner, namespace="a", **created).code == 200
    assert server.refusal("queues.create", key=owner, **created) == DENIED
    assert (
        server.ok("queue.produce", key=owner, queue_name="mine", request_timeout="1m", items=[{}]).code == 200
    )
    assert server.ok("roles.create", key=owner, namespace="a", name="r2").id
    assert server.refusal("roles.create", key=owner, namespace="b", name="r2") == DENIED
    assert server.refusal("namespaces.delete", key=owner, name="a") == DENIED
    assert server.refusal("users.create", key=owner, username="x") == DENIED


@pytest.mark.every_log
def test_changes_act_at_once(keys: Keys) -> None:
    server = keys.server
    server.ok("roles.create", namespace="a", name="r", permissions=["queue.stats"])
    key = keys.of(("a", "r"))
    admin = keys.of(("_system", "Admin"))
    close_door(server)
    call = {"key": key, "queue_name": "queue-a"}
    assert server.ok("queue.stats", **call) is not None
    assert server.refusal("queue.clear", queue=True, **call) == DENIED
    server.ok("roles.update", key=admin, namespace="a", name="r", permissions=["queue.clear"])
    assert server.refusal("queue.stats", **call) == DENIED
    assert server.ok("queue.clear", queue=True, **call).code == 200
    user = next(user.id for user in server.ok("users.list", key=admin).items if user.username == "user1")
    server.ok("rolebindings.delete", key=admin, namespace="a", role_name="r", user_id=user)
    assert server.refusal("queue.clear", queue=True, **call) == DENIED


# --- headers ----------------------------------------------------------------------------------------

UNKNOWN = "A" * LENGTH
FORMAT = (401, "invalid authorization header format")
INVALID = (401, "api key is invalid")


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("Basic dTpw", FORMAT),
        ("bearer qtr-live-" + UNKNOWN, FORMAT),
        ("Bearer", FORMAT),
        ("BearerX y", FORMAT),
        ("qtr-live-" + UNKNOWN, FORMAT),
        ("Bearer x", INVALID),
        ("Bearer qtr", INVALID),
        ("Bearer qtr-live", INVALID),
        ("Bearer qtr-live-short", INVALID),
        ("Bearer qtr-live-" + "A" * 42, INVALID),
        ("Bearer abc-live-" + UNKNOWN, INVALID),
        ("Bearer QTR-live-" + UNKNOWN, INVALID),
        ("Bearer qtr--" + UNKNOWN, INVALID),
        ("Bearer qtr-LIVE-" + UNKNOWN, INVALID),
        ("Bearer qtr-" + "a" * 17 + "-" + UNKNOWN, INVALID),
        ("Bearer qtr-a_b-" + UNKNOWN, INVALID),
        ("Bearer qtr-live-" + "A" * 42 + "-", INVALID),
        ("Bearer qtr-live-" + "A" * 42 + "é", INVALID),
        ("Bearer  qtr-live-" + UNKNOWN, INVALID),
        ("Bearer qtr-live-" + UNKNOWN, (401, "api key does not exist")),
        ("Bearer qtr-0-" + UNKNOWN, (401, "api key does not exist")),
        ("Bearer qtr-" + "a" * 16 + "-" + UNKNOWN, (401, "api key does not exist")),
        ("Bearer qtr-live-" + "A" * 60, (401, "api key does not exist")),
    ],
)
def test_headers(guarded: Server, value: str, answer: tuple[int, str]) -> None:
    assert bearer(guarded, value) == answer
    assert bearer(guarded, value, "/v1/nope") == answer
    assert bearer(guarded, "") == (200, "")


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("", (200, "")),
        ("Bearer x", (200, "")),
        ("Bearer qtr-live-" + UNKNOWN, (200, "")),
        ("Bearer ", FORMAT),
        ("Basic dTpw", FORMAT),
        ("bearer x", FORMAT),
    ],
)
def test_headers_without_auth(server: Server, value: str, answer: tuple[int, str]) -> None:
    assert bearer(server, value) == answer


@pytest.mark.every_log
def test_a_key_says_who_asks(keys: Keys) -> None:
    server = keys.server
    admin, other = keys.of(("_system", "Admin")), keys.of(("_system", "PublicViewer"))
    close_door(server)
    for _ in range(3):
        assert len(server.ok("users.list", key=admin).items) == 3
        assert server.refusal("users.list", key=other) == DENIED
        assert server.refusal("users.list") == DENIED
    changed = admin[:-1] + ("0" if admin[-1] != "0" else "1")
    assert server.refusal("users.list", key=changed) == (401, "api key does not exist")
    tag, _, entropy = admin.removeprefix("qtr-").partition("-")
    assert tag == "live"
    assert server.refusal("users.list", key=f"qtr-dead-{entropy}") == (401, "api key does not exist")
