"""roles.* and rolebindings.* (CONTRACT.md 3.11, 4.12)."""

from typing import Any

import pytest

from tests.conformance.suite.go_client import PATIENCE, SECOND, Refused, Server, is_at, refused

STANDARD = "cannot modify or delete standard role; '%s' is a standard role"
PERMISSIONS = [
    "namespace.create", "namespace.delete", "namespace.list", "namespace.update",
    "queue.create", "queue.delete", "queue.update", "queue.list", "queue.produce", "queue.lease",
    "queue.complete", "queue.retry", "queue.stats", "queue.clear",
    "user.create", "user.delete", "user.list",
    "apikey.create", "apikey.delete", "apikey.list",
    "role.create", "role.update", "role.delete", "role.list",
    "rolebinding.create", "rolebinding.delete", "rolebinding.list",
    "system.health", "system.metrics",
]  # fmt: skip


@pytest.fixture
def spaces(server: Server) -> Server:
    """With namespaces ``a`` and ``b``, role ``r`` in ``a``, and a user ``u``."""
    for name in "ab":
        server.ok("namespaces.create", name=name)
    server.ok("roles.create", namespace="a", name="r", permissions=["queue.list"])
    server.ok("users.create", username="u")
    return server


def user_id(server: Server) -> str:
    (user,) = server.ok("users.list").items
    found: str = user.id
    return found


# --- roles ------------------------------------------------------------------------------------------

CREATE: list[tuple[dict[str, Any], int, str]] = [
    ({"namespace": "", "name": ""}, 400, "namespace is invalid; cannot be empty"),
    ({"name": ""}, 400, "name is invalid; cannot be empty"),
    ({"name": "x" * 129}, 400, "name is invalid; cannot be greater than '128' characters"),
    ({"name": "ü" * 65}, 400, "name is invalid; cannot be greater than '128' characters"),
    ({"name": "a:b", "permissions": ["bad"]}, 400, "name is invalid; 'a:b' cannot contain ':' character"),
    ({"permissions": ["queue.list", "queue.fly"]}, 400,
     "permission is invalid; 'queue.fly' is not a recognized permission"),
    ({"permissions": [""]}, 400, "permission is invalid; '' is not a recognized permission"),
    ({"permissions": ["QUEUE.LIST"]}, 400,
     "permission is invalid; 'QUEUE.LIST' is not a recognized permission"),
    ({"permissions": ["*"], "namespace": "none"}, 400,
     "permission is invalid; '*' is not a recognized permission"),
    ({"name": " "}, 400, "role name is invalid; cannot be empty"),
    ({"name": "Admin"}, 400, STANDARD % "Admin"),
    ({"name": "NamespaceOwner"}, 400, STANDARD % "NamespaceOwner"),
    ({"name": "PublicViewer", "namespace": "none"}, 400, STANDARD % "PublicViewer"),
    ({"namespace": "none"}, 453, "namespace does not exist; 'none' was not found"),
    ({"namespace": "none", "name": "r"}, 453, "namespace does not exist; 'none' was not found"),
    ({"name": "r"}, 400, "role already exists; 'a:r' already exists"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "text"), CREATE)
def test_create_refuses(spaces: Server, fields: dict[str, Any], code: int, text: str) -> None:
    assert spaces.refusal("roles.create", **{"namespace": "a", "name": "new", **fields}) == (code, text)


@pytest.mark.parametrize("name", ["x" * 128, "ü" * 64, "a b", "a~b", "admin", "R"])
def test_names_that_are_taken(spaces: Server, name: str) -> None:
    made = spaces.ok("roles.create", namespace="a", name=name, permissions=PERMISSIONS)
    (role,) = [role for role in spaces.ok("roles.list", namespace="a").items if role.id == made.id]
    assert (role.name, role.namespace, list(role.permissions)) == (name, "a", PERMISSIONS)


@pytest.mark.every_log
def test_a_role_s_life(spaces: Server) -> None:
    made = spaces.ok("roles.create", namespace="b", name="r")
    (role,) = spaces.ok("roles.list", namespace="b").items
    assert (role.id, role.namespace, role.name, list(role.permissions)) == (made.id, "b", "r", [])
    assert is_at(role.created_at, spaces.now)
    spaces.advance(SECOND)
    assert spaces.ok("roles.update", namespace="b", name="r", permissions=["queue.lease"]).code == 200
    (changed,) = spaces.ok("roles.list", namespace="b").items
    assert (changed.id, list(changed.permissions), changed.created_at) == (
        role.id,
        ["queue.lease"],
        role.created_at,
    )
    assert spaces.ok("roles.delete", namespace="b", name="r").code == 200
    gone = (453, "role does not exist; 'b:r' was not found")
    assert spaces.refusal("roles.delete", namespace="b", name="r") == gone
    assert spaces.refusal("roles.update", namespace="b", name="r") == gone
    assert list(spaces.ok("roles.list", namespace="b").items) == []
    assert len(spaces.ok("roles.list", namespace="a").items) == 1


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"namespace": ""}, 400, "namespace is invalid; cannot be empty"),
        ({"name": ""}, 400, "name is invalid; cannot be empty"),
        (
            {"permissions": ["x"], "name": "none"},
            400,
            "permission is invalid; 'x' is not a recognized permission",
        ),
        ({"name": "none"}, 453, "role does not exist; 'a:none' was not found"),
        ({"name": "y:z"}, 453, "role does not exist; 'a:y:z' was not found"),
        ({"name": "x" * 200}, 453, f"role does not exist; 'a:{'x' * 200}' was not found"),
        ({"namespace": "none"}, 453, "role does not exist; 'none:r' was not found"),
        ({"name": "Admin"}, 453, "role does not exist; 'a:Admin' was not found"),
    ],
)
def test_update_refuses(spaces: Server, fields: dict[str, Any], code: int, text: str) -> None:
    assert spaces.refusal("roles.update", **{"namespace": "a", "name": "r", **fields}) == (code, text)


def test_without_auth_there_are_no_standard_roles(server: Server) -> None:
    assert list(server.ok("roles.list").items) == []
    assert list(server.ok("users.list").items) == []
    assert list(server.ok("rolebindings.list").items) == []
    assert server.refusal("roles.delete", name="Admin") == (
        453,
        "role does not exist; '_system:Admin' was not found",
    )


def test_delete_refuses(spaces: Server) -> None:
    assert spaces.refusal("roles.delete", name="r") == (453, "role does not exist; '_system:r' was not found")
    assert spaces.refusal("roles.delete", namespace="a") == (453, "role does not exist; 'a:' was not found")
    spaces.ok("rolebindings.create", namespace="a", role_name="r", user_id=user_id(spaces))
    assert spaces.refusal("roles.delete", namespace="a", name="r") == (
        400,
        "role has active bindings; 'r' has active bindings, delete bindings first",
    )


def test_roles_are_listed_by_id(spaces: Server) -> None:
    ids = sorted(spaces.ok("roles.create", namespace="b", name=f"r{number}").id for number in range(20))

    def listed(**fields: Any) -> list[str]:
        return [role.id for role in spaces.ok("roles.list", namespace="b", **fields).items]

    assert listed() == ids
    assert listed(limit=7) == ids[:7]
    assert listed(limit=7, pivot=ids[5]) == ids[5:12]
    assert listed(pivot="~") == []
    assert listed(limit=-1) == []
    assert list(spaces.ok("roles.list", namespace="none").items) == []


# --- bindings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"namespace": "", "role_name": "", "user_id": ""}, 400, "namespace is invalid; cannot be empty"),
        ({"role_name": "", "user_id": ""}, 400, "role_name is invalid; cannot be empty"),
        ({"user_id": ""}, 400, "user_id is invalid; cannot be empty"),
        (
            {"user_id": "a:b", "role_name": "none"},
            400,
            "user_id is invalid; 'a:b' cannot contain ':' character",
        ),
        ({"role_name": "none", "user_id": "nobody"}, 453, "role does not exist; 'a:none' was not found"),
        ({"namespace": "none"}, 453, "role does not exist; 'none:r' was not found"),
        ({"namespace": "b"}, 453, "role does not exist; 'b:r' was not found"),
        ({"user_id": "nobody"}, 453, "user does not exist; 'nobody' was not found"),
    ],
)
def test_binding_refuses(spaces: Server, fields: dict[str, Any], code: int, text: str) -> None:
    wanted = {"namespace": "a", "role_name": "r", "user_id": user_id(spaces), **fields}
    assert spaces.refusal("rolebindings.create", **wanted) == (code, text)


@pytest.mark.every_log
def test_a_binding_s_life(spaces: Server) -> None:
    user = user_id(spaces)
    (role,) = spaces.ok("roles.list", namespace="a").items
    wanted = {"namespace": "a", "role_name": "r", "user_id": user}
    made = spaces.ok("rolebindings.create", **wanted)
    (shown,) = spaces.ok("rolebindings.list", namespace="a").items
    assert (shown.id, shown.namespace, shown.user_id, shown.role_id) == (made.id, "a", user, role.id)
    assert is_at(shown.created_at, spaces.now)
    assert spaces.refusal("rolebindings.create", **wanted) == (
        400,
        (
            f"role binding already exists; binding for user '{user}' to role '{role.id}' "
            "in namespace 'a' already exists"
        ),
    )
    assert spaces.ok("rolebindings.delete", **wanted).code == 200
    assert spaces.refusal("rolebindings.delete", **wanted) == (
        453,
        f"role binding does not exist; 'a:{user}:{role.id}' was not found",
    )
    assert list(spaces.ok("rolebindings.list", namespace="a").items) == []
    assert spaces.ok("roles.delete", namespace="a", name="r").code == 200


def test_unbinding_refuses(spaces: Server) -> None:
    user = user_id(spaces)
    assert spaces.refusal("rolebindings.delete", namespace="a", role_name="none", user_id="a:b") == (
        400,
        "user_id is invalid; 'a:b' cannot contain ':' character",
    )
    assert spaces.refusal("rolebindings.delete", role_name="r", user_id=user) == (
        453,
        "role does not exist; '_system:r' was not found",
    )
    assert spaces.refusal("rolebindings.delete", namespace="a", role_name="none", user_id=user) == (
        453,
        "role does not exist; 'a:none' was not found",
    )


def test_bindings_are_listed_by_id(spaces: Server) -> None:
    user = user_id(spaces)
    for number in range(12):
        spaces.ok("roles.create", namespace="b", name=f"r{number}")
    ids = sorted(
        spaces.ok("rolebindings.create", namespace="b", role_name=f"r{number}", user_id=user).id
        for number in range(12)
    )

    def listed(**fields: Any) -> list[str]:
        return [binding.id for binding in spaces.ok("rolebindings.list", namespace="b", **fields).items]

    assert listed() == ids
    assert listed(limit=5) == ids[:5]
    assert listed(limit=5, pivot=ids[4]) == ids[4:9]
    assert listed(user_id_filter=user) == ids
    assert listed(pivot="~") == []
    assert listed(limit=-1) == []
    assert list(spaces.ok("rolebindings.list").items) == []


def test_deletes_of_one_binding_at_once(spaces: Server) -> None:
    """At least one succeeds, and then it is gone."""
    wanted = {"namespace": "a", "role_name": "r", "user_id": user_id(spaces)}
    spaces.ok("rolebindings.create", **wanted)
    errors = [
        call.exception(PATIENCE) for call in [spaces.begin("rolebindings.delete", **wanted) for _ in range(8)]
    ]
    assert errors.count(None) >= 1
    assert {error.code for error in errors if isinstance(error, Refused)} <= {453}
    assert list(spaces.ok("rolebindings.list", namespace="a").items) == []


def test_bindings_of_one_kind_at_once(spaces: Server) -> None:
    wanted = {"namespace": "a", "role_name": "r", "user_id": user_id(spaces)}
    calls = [spaces.begin("rolebindings.create", **wanted) for _ in range(8)]
    failed = [call for call in calls if call.exception(PATIENCE) is not None]
    assert len(failed) == 7
    assert {refused(call)[0] for call in failed} == {400}
    assert len(spaces.ok("rolebindings.list", namespace="a").items) == 1
