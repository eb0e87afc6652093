"""namespaces.* (CONTRACT.md 3.9, 4.12)."""

from typing import Any

import pytest

from tests.conformance.suite.go_client import PATIENCE, SECOND, Control, Server, is_at, refused

NAME = "namespace name is invalid; "
TAG = "api_key_tag is invalid; "
RESERVED = "namespace name is reserved; '%s' names starting with '_' are reserved"

NAMES = [
    ("x" * 257, NAME + "cannot be greater than '256' characters"),
    ("ü" * 129, NAME + "cannot be greater than '256' characters"),
    ("", NAME + "cannot be empty"),
    (" \t", NAME + "cannot be empty"),
    ("a b", NAME + "'a b' cannot contain whitespace"),
    ("a ~:", NAME + "'a ~:' cannot contain whitespace"),
    ("a~b", NAME + "'a~b' cannot contain '~' character"),
    ("a:~b", NAME + "'a:~b' cannot contain '~' character"),
    ("a:b", NAME + "'a:b' cannot contain ':' character"),
]
TAGS = [
    ("a" * 17, TAG + "cannot be greater than 16 characters"),
    ("A" * 17, TAG + "cannot be greater than 16 characters"),
    ("Prod", TAG + "must be lowercase alphanumeric only"),
    ("a-b", TAG + "must be lowercase alphanumeric only"),
    ("a b", TAG + "must be lowercase alphanumeric only"),
    ("ü", TAG + "must be lowercase alphanumeric only"),
    ("٣", TAG + "must be lowercase alphanumeric only"),
]


@pytest.mark.parametrize("path", ["namespaces.create", "namespaces.update", "namespaces.delete"])
@pytest.mark.parametrize(("name", "text"), NAMES)
def test_names(server: Server, path: str, name: str, text: str) -> None:
    fields = {} if path.endswith("delete") else {"api_key_tag": "BAD"}
    assert server.refusal(path, name=name, **fields) == (400, text)


@pytest.mark.parametrize("path", ["namespaces.create", "namespaces.update"])
@pytest.mark.parametrize(("tag", "text"), TAGS)
def test_tags(server: Server, path: str, tag: str, text: str) -> None:
    """Before what is reserved and before what is there."""
    assert server.refusal(path, name="_a", api_key_tag=tag) == (400, text)


@pytest.mark.parametrize("name", ["_system", "_", "_mine"])
def test_reserved_names(server: Server, name: str) -> None:
    for path in ("namespaces.create", "namespaces.update", "namespaces.delete"):
        assert server.refusal(path, name=name) == (400, RESERVED % name)


@pytest.mark.every_log
def test_a_life(server: Server) -> None:
    assert [item.name for item in server.ok("namespaces.list").items] == ["_system"]
    made = {"name": "n", "description": "what it is for", "api_key_tag": "prod1"}
    assert server.ok("namespaces.create", **made).code == 200
    _, shown = server.ok("namespaces.list").items
    assert (shown.name, shown.description, shown.api_key_tag) == ("n", "what it is for", "prod1")
    assert is_at(shown.created_at, server.now)
    assert server.refusal("namespaces.create", name="n") == (
        400,
        "namespace already exists; 'n' already exists",
    )
    server.advance(SECOND)
    assert server.ok("namespaces.update", name="n", description="else").code == 200
    _, changed = server.ok("namespaces.list").items
    assert (changed.description, changed.api_key_tag) == ("else", "")
    assert changed.created_at == shown.created_at
    server.ok("namespaces.update", name="n", api_key_tag="t")
    _, changed = server.ok("namespaces.list").items
    assert (changed.description, changed.api_key_tag) == ("", "t")
    assert server.ok("namespaces.delete", name="n").code == 200
    gone = (453, "namespace does not exist; 'n' was not found")
    assert server.refusal("namespaces.delete", name="n") == gone
    assert server.refusal("namespaces.update", name="n") == gone
    assert [item.name for item in server.ok("namespaces.list").items] == ["_system"]


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "A.b-c/d'\"%", "日本", "a_b"])
def test_names_that_are_taken(server: Server, name: str) -> None:
    server.ok("namespaces.create", name=name, api_key_tag="a" * 16)
    assert name in [item.name for item in server.ok("namespaces.list").items]
    server.create(namespace=name)
    assert server.ok("queues.info", queue_name="q").namespace == name


def test_lists(server: Server) -> None:
    names = [f"ns{number:02}" for number in range(20)]
    for name in reversed(names):
        server.ok("namespaces.create", name=name)

    def listed(**fields: Any) -> list[str]:
        return [item.name for item in server.ok("namespaces.list", **fields).items]

    assert listed() == ["_system", *names]
    assert listed(limit=5) == ["_system", *names[:4]]
    assert listed(pivot=names[10], limit=5) == names[10:15]
    assert listed(pivot=names[19]) == names[19:]
    assert listed(pivot="zz") == []
    assert listed(limit=-1) == []
    assert listed(limit=2**31 - 1) == ["_system", *names]


@pytest.mark.every_log
def test_what_is_used_is_not_deleted(server: Server) -> None:
    """Bindings are told before roles, roles before queues."""
    server.ok("namespaces.create", name="n")
    server.create(namespace="n")
    user = server.ok("users.create", username="u").id
    server.ok("roles.create", namespace="n", name="r", permissions=["queue.list"])
    server.ok("rolebindings.create", namespace="n", role_name="r", user_id=user)
    assert server.refusal("namespaces.delete", name="n") == (
        400,
        "namespace has role bindings; 'n' has role bindings, delete role bindings first",
    )
    server.ok("rolebindings.delete", namespace="n", role_name="r", user_id=user)
    assert server.refusal("namespaces.delete", name="n") == (
        400,
        "namespace has roles; 'n' has roles, delete roles first",
    )
    server.ok("roles.delete", namespace="n", name="r")
    assert server.refusal("namespaces.delete", name="n") == (
        400,
        "namespace has queues; 'n' has queues, delete queues first",
    )
    server.ok("queues.delete", queue_name="q")
    assert server.ok("namespaces.delete", name="n").code == 200


def test_creates_of_one_name_at_once(running: Server) -> None:
    calls = [running.begin("namespaces.create", name="n") for _ in range(8)]
    failed = [call for call in calls if call.exception(PATIENCE) is not None]
    assert len(failed) == 7
    assert {refused(call) for call in failed} == {(400, "namespace already exists; 'n' already exists")}


def test_bytes_of_a_description_are_kept(server: Server) -> None:
    text = "ü" * 5_000 + "\n\t\0"
    server.ok("namespaces.create", name="n", description=text)
    assert server.ok("namespaces.list", pivot="n").items[0].description == text


@pytest.mark.every_log
def test_the_catalog_outlives_a_restart(control: Control) -> None:
    first = control.new(storage="catalog", auth=1)
    first.ok("namespaces.create", name="n", api_key_tag="t")
    user = first.ok("users.create", username="u", email="e", external_id="x").id
    key = first.ok("apikeys.create", user_id=user, name="k", namespace_scope="n").key
    first.ok("roles.create", namespace="n", name="r", permissions=["queue.list", "user.list"])
    first.ok("rolebindings.create", namespace="n", role_name="r", user_id=user)
    lists = {
        path: first.ok(path, **fields)
        for path, fields in (
            ("namespaces.list", {}),
            ("users.list", {}),
            ("apikeys.list", {}),
            ("roles.list", {"namespace": "n"}),
            ("roles.list", {}),
            ("rolebindings.list", {"namespace": "n"}),
        )
    }
    first.stop()
    second = control.new(storage="catalog", auth=1)
    for path, fields in (("users.list", {}), ("apikeys.list", {}), ("rolebindings.list", {"namespace": "n"})):
        assert second.ok(path, **fields) == lists[path]
    assert second.ok("queues.list", namespace="n", key=key) is not None
    assert second.refusal("queues.list", key=key) == (403, "access denied")
    second.stop()
