"""users.* and apikeys.* (CONTRACT.md 3.10, 4.12, 4.13)."""

import re
import time
from typing import Any

import pytest

from tests.conformance.suite.go_client import (
    HOUR,
    MILLISECOND,
    PATIENCE,
    SECOND,
    ZERO_TIME,
    Control,
    Server,
    is_at,
    refused,
    stamp,
)

USERNAME = "username is invalid; "
TAG = "key_tag is invalid; "
KEY = re.compile(r"qtr-([a-z0-9]{1,16})-([0-9A-Za-z]{43})")

# --- users ------------------------------------------------------------------------------------------

USERS: list[tuple[dict[str, str], str]] = [
    ({"username": "x" * 129}, USERNAME + "cannot be greater than '128' characters"),
    ({"username": "ü" * 65}, USERNAME + "cannot be greater than '128' characters"),
    ({"username": " " * 129}, USERNAME + "cannot be greater than '128' characters"),
    ({"username": ""}, USERNAME + "cannot be empty"),
    ({"username": " \t"}, USERNAME + "cannot be empty"),
    ({"username": "", "email": "x" * 257}, USERNAME + "cannot be empty"),
    ({"email": "x" * 257}, "email is invalid; cannot be greater than '256' characters"),
    (
        {"email": "x" * 257, "external_id": "x" * 257},
        "email is invalid; cannot be greater than '256' characters",
    ),
    ({"external_id": "x" * 257}, "external_id is invalid; cannot be greater than '256' characters"),
]


@pytest.mark.parametrize(("fields", "text"), USERS)
def test_users_that_are_refused(server: Server, fields: dict[str, str], text: str) -> None:
    assert server.refusal("users.create", **{"username": "u", **fields}) == (400, text)
    assert list(server.ok("users.list").items) == []


@pytest.mark.every_log
def test_a_user_s_life(server: Server) -> None:
    assert list(server.ok("users.list").items) == []
    made = server.ok("users.create", username="u", email="e@x.org", external_id="ext")
    (user,) = server.ok("users.list").items
    assert (user.id, user.username, user.email, user.external_id) == (made.id, "u", "e@x.org", "ext")
    assert is_at(user.created_at, server.now)
    assert user.updated_at == user.created_at
    assert server.refusal("users.create", username="u") == (
        400,
        "username is already taken; 'u' is already taken",
    )
    assert server.ok("users.delete", id=made.id).code == 200
    assert server.refusal("users.delete", id=made.id) == (
        453,
        f"user does not exist; '{made.id}' was not found",
    )
    assert list(server.ok("users.list").items) == []
    assert server.ok("users.create", username="u").id != made.id


@pytest.mark.parametrize("name", ["x" * 128, "ü" * 64, "a b", "a:b~c", "Ann", "anonymous", " padded "])
def test_usernames_that_are_taken(server: Server, name: str) -> None:
    server.ok("users.create", username=name, email="x" * 256, external_id="x" * 256)
    assert [user.username for user in server.ok("users.list").items] == [name]


@pytest.mark.parametrize("name", ["", "nobody"])
def test_unknown_users(server: Server, name: str) -> None:
    assert server.refusal("users.delete", id=name) == (453, f"user does not exist; '{name}' was not found")


@pytest.mark.every_log
def test_users_are_listed_by_id(server: Server) -> None:
    ids = sorted(server.ok("users.create", username=f"u{number}").id for number in range(25))

    def listed(**fields: Any) -> list[str]:
        return [user.id for user in server.ok("users.list", **fields).items]

    assert listed() == ids
    assert listed(limit=10) == ids[:10]
    assert listed(limit=10, pivot=ids[12]) == ids[12:22]
    assert listed(pivot=ids[24]) == ids[24:]
    assert listed(pivot="~") == []
    assert listed(limit=-5) == []


def test_users_of_one_name_at_once(running: Server) -> None:
    calls = [running.begin("users.create", username="u") for _ in range(8)]
    failed = [call for call in calls if call.exception(PATIENCE) is not None]
    assert len(failed) == 7
    assert {refused(call) for call in failed} == {(400, "username is already taken; 'u' is already taken")}


# --- keys -------------------------------------------------------------------------------------------

KEYS: list[tuple[dict[str, Any], int, str]] = [
    ({"user_id": ""}, 400, "user_id is invalid; cannot be empty"),
    ({"user_id": "", "name": "x" * 129}, 400, "user_id is invalid; cannot be empty"),
    ({"name": "x" * 129}, 400, "name is invalid; cannot be greater than '128' characters"),
    ({"name": "x" * 129, "key_tag": "BAD"}, 400, "name is invalid; cannot be greater than '128' characters"),
    ({"key_tag": "a" * 17}, 400, TAG + "cannot be greater than 16 characters"),
    ({"key_tag": "PROD"}, 400, TAG + "must be lowercase alphanumeric only"),
    ({"key_tag": "a-b"}, 400, TAG + "must be lowercase alphanumeric only"),
    ({"user_id": "nobody"}, 453, "user does not exist; 'nobody' was not found"),
    ({"user_id": "nobody", "key_tag": "a_b"}, 400, TAG + "must be lowercase alphanumeric only"),
]


@pytest.mark.parametrize(("fields", "code", "text"), KEYS)
def test_keys_that_are_refused(server: Server, fields: dict[str, Any], code: int, text: str) -> None:
    user = server.ok("users.create", username="u").id
    assert server.refusal("apikeys.create", **{"user_id": user, **fields}) == (code, text)
    assert list(server.ok("apikeys.list").items) == []


@pytest.mark.every_log
def test_a_key_s_life(server: Server) -> None:
    user = server.ok("users.create", username="u").id
    expires = server.stamp(HOUR)
    made = server.ok(
        "apikeys.create", user_id=user, name="k", namespace_scope="none", expires_at=expires, key_tag="test1"
    )
    match = KEY.fullmatch(made.key)
    assert match is not None
    assert match[1] == "test1"
    assert made.prefix == f"qtr-test1-{match[2][:8]}"
    (shown,) = server.ok("apikeys.list").items
    assert (shown.id, shown.user_id, shown.name) == (made.id, user, "k")
    assert (shown.namespace_scope, shown.prefix) == ("none", made.prefix)
    assert is_at(shown.expires_at, server.now + HOUR)
    assert is_at(shown.created_at, server.now)
    assert server.ok("apikeys.delete", id=made.id).code == 200
    assert list(server.ok("apikeys.list").items) == []
    assert server.refusal("apikeys.delete", id=made.id) == (401, "api key does not exist")


@pytest.mark.parametrize("name", ["", "nope", "0" * 27])
def test_unknown_keys_are_401(server: Server, name: str) -> None:
    assert server.refusal("apikeys.delete", id=name) == (401, "api key does not exist")


@pytest.mark.parametrize(
    ("key_tag", "scope", "expected"),
    [
        ("", "", "live"),
        ("mine", "", "mine"),
        ("", "tagged", "prod"),
        ("mine", "tagged", "mine"),
        ("", "untagged", "live"),
        ("", "none", "live"),
        ("0", "", "0"),
        ("a" * 16, "", "a" * 16),
    ],
)
def test_the_tag_of_a_key(server: Server, key_tag: str, scope: str, expected: str) -> None:
    server.ok("namespaces.create", name="tagged", api_key_tag="prod")
    server.ok("namespaces.create", name="untagged")
    user = server.ok("users.create", username="u").id
    made = server.ok("apikeys.create", user_id=user, key_tag=key_tag, namespace_scope=scope)
    match = KEY.fullmatch(made.key)
    assert match is not None
    assert match[1] == expected


def test_the_tag_follows_the_namespace_s(server: Server) -> None:
    server.ok("namespaces.create", name="n", api_key_tag="old")
    user = server.ok("users.create", username="u").id

    def tag() -> str:
        key: str = server.ok("apikeys.create", user_id=user, namespace_scope="n").key
        return key.split("-")[1]

    assert tag() == "old"
    server.ok("namespaces.update", name="n", api_key_tag="new")
    assert tag() == "new"
    server.ok("namespaces.update", name="n")
    assert tag() == "live"


@pytest.mark.parametrize("later", [None, -HOUR, 0, HOUR])
def test_expiries(server: Server, later: int | None) -> None:
    """The past is taken, too."""
    user = server.ok("users.create", username="u").id
    at = {} if later is None else {"expires_at": server.stamp(later)}
    server.ok("apikeys.create", user_id=user, **at)
    (shown,) = server.ok("apikeys.list").items
    if later is None:
        assert not shown.HasField("expires_at")
    else:
        assert is_at(shown.expires_at, server.now + later)
    assert not shown.HasField("last_used_at")


def test_the_zero_moment_is_no_expiry(server: Server) -> None:
    user = server.ok("users.create", username="u").id
    server.ok("apikeys.create", user_id=user, expires_at=ZERO_TIME)
    assert not server.ok("apikeys.list").items[0].HasField("expires_at")


def test_keys_differ(server: Server) -> None:
    user = server.ok("users.create", username="u").id
    made = [server.ok("apikeys.create", user_id=user) for _ in range(50)]
    assert len({key.key for key in made}) == len({key.id for key in made}) == 50


@pytest.mark.every_log
def test_keys_are_listed_by_id_of_one_user_or_all(server: Server) -> None:
    first, second = (server.ok("users.create", username=name).id for name in "ab")
    of_first = sorted(server.ok("apikeys.create", user_id=first).id for _ in range(15))
    of_second = sorted(server.ok("apikeys.create", user_id=second).id for _ in range(5))
    every = sorted(of_first + of_second)

    def listed(**fields: Any) -> list[str]:
        return [key.id for key in server.ok("apikeys.list", **fields).items]

    assert listed() == every
    assert listed(user_id=first) == of_first
    assert listed(user_id=second) == of_second
    assert listed(user_id=second, limit=2) == of_second[:2]
    assert listed(user_id=first, limit=5, pivot=of_first[7]) == of_first[7:12]
    assert listed(limit=5, pivot=every[7]) == every[7:12]
    assert listed(user_id="nobody") == []
    assert listed(limit=-1) == []


@pytest.mark.every_log
def test_a_deleted_user_takes_keys_and_bindings_along(server: Server) -> None:
    server.ok("namespaces.create", name="n")
    server.ok("roles.create", namespace="n", name="r", permissions=["queue.list"])
    first, second = (server.ok("users.create", username=name).id for name in "ab")
    for user in (first, second):
        server.ok("apikeys.create", user_id=user)
        server.ok("rolebindings.create", namespace="n", role_name="r", user_id=user)
    server.ok("users.delete", id=first)
    assert [key.user_id for key in server.ok("apikeys.list").items] == [second]
    assert [binding.user_id for binding in server.ok("rolebindings.list", namespace="n").items] == [second]


# --- keys at work -----------------------------------------------------------------------------------


def admin(server: Server, **fields: Any) -> tuple[str, Any]:
    """(user id, key) of a new administrator."""
    count = len(server.ok("users.list").items)
    user = server.ok("users.create", username=f"admin{count}").id
    server.ok("rolebindings.create", namespace="_system", role_name="Admin", user_id=user)
    return user, server.ok("apikeys.create", user_id=user, **fields)


@pytest.mark.every_log
def test_deleted_keys_and_users_are_refused_at_once(guarded: Server) -> None:
    user, key = admin(guarded)
    other = guarded.ok("apikeys.create", user_id=user)
    assert guarded.ok("users.list", key=key.key) is not None
    assert guarded.ok("users.list", key=other.key) is not None
    guarded.ok("apikeys.delete", id=key.id)
    assert guarded.refusal("users.list", key=key.key) == (401, "api key does not exist")
    assert guarded.ok("users.list", key=other.key) is not None
    guarded.ok("users.delete", id=user)
    code, text = guarded.refusal("users.list", key=other.key)
    assert (code, text) in ((401, "api key does not exist"), (401, "api key is invalid"))


def test_a_key_that_expires_is_refused(guarded: Server) -> None:
    _, key = admin(guarded, expires_at=guarded.stamp(HOUR))
    assert guarded.ok("users.list", key=key.key) is not None
    guarded.advance(HOUR - SECOND)
    assert guarded.ok("users.list", key=key.key) is not None
    guarded.advance(2 * SECOND)
    assert guarded.refusal("users.list", key=key.key) == (401, "api key has expired")


def test_a_key_that_is_over_already_is_refused(guarded: Server) -> None:
    _, key = admin(guarded, expires_at=guarded.stamp(-HOUR))
    assert guarded.refusal("users.list", key=key.key) == (401, "api key has expired")


def test_a_key_expires_by_the_running_clock(control: Control) -> None:
    """However often it was used before. A life that is over before its first use was too short: again."""
    guarded = control.new(auth=1)
    user, key = admin(guarded)
    for life in (300 * MILLISECOND, 3 * SECOND, 30 * SECOND):
        ends = time.time_ns() + life
        key = guarded.ok("apikeys.create", user_id=user, expires_at=stamp(ends))
        if answers(guarded, key.key) == 200:
            break
    assert time.time_ns() < ends
    guarded.until(lambda: answers(guarded, key.key) != 200)
    assert time.time_ns() > ends - 10 * MILLISECOND
    assert guarded.refusal("users.list", key=key.key) == (401, "api key has expired")
    guarded.stop()


def answers(server: Server, key: str) -> int:
    return server.raw("POST", "/v1/users.list", b"{}", {"Authorization": f"Bearer {key}"})[0]
