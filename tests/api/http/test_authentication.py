"""Who asks, and what they may: keys, scopes, roles, the door of the first start (CONTRACT.md 4.13, 3.12)."""

from typing import Any

import pytest

from querator.api.catalog_access import REMEMBERED_KEYS_MAX, CatalogAccess
from querator.api.exchange import HttpRequest
from querator.api.http.endpoints import ENDPOINTS
from querator.core.catalog import KeyFault
from querator.core.catalog.commands import Bootstrap
from tests.api.http.client import Client, open_client

CLOSE = {"namespace": "_system", "role_name": "Admin", "user_id": "anonymous"}


async def make_admin(client: Client) -> str:
    user = (await client.ok("users.create", username="root"))["id"]
    await client.ok("rolebindings.create", namespace="_system", role_name="Admin", user_id=user)
    return (await client.ok("apikeys.create", user_id=user))["key"]  # type: ignore[no-any-return]


async def make_key(client: Client, username: str, **key: Any) -> tuple[str, str]:
    user = (await client.ok("users.create", username=username))["id"]
    return user, (await client.ok("apikeys.create", user_id=user, **key))["key"]


async def test_without_auth_any_bearer_is_fine_and_nobody_exists(autojump_clock: object) -> None:
    async with open_client() as client:
        client.key = "whatever"
        assert await client.ok("users.list") == {}
        assert await client.ok("roles.list") == {}
        client.key = ""
        answer = await client.send("/v1/users.list", headers={"authorization": "Basic abc"})
    assert (answer.status, answer.message) == (401, "invalid authorization header format")


async def test_with_auth_the_first_start_leaves_the_door_open(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        users = (await client.ok("users.list"))["items"]
        assert [(user["id"], user["username"]) for user in users] == [("anonymous", "anonymous")]
        roles = (await client.ok("roles.list"))["items"]
        assert sorted(role["name"] for role in roles) == ["Admin", "NamespaceOwner", "PublicViewer"]
        assert {role["name"]: len(role["permissions"]) for role in roles} == {
            "Admin": 29,
            "NamespaceOwner": 19,
            "PublicViewer": 2,
        }


async def test_a_closed_door_stays_closed(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        key = await make_admin(client)
        await client.ok("rolebindings.delete", **CLOSE)
        assert await client.fails("users.list") == (403, "access denied")
        await client.node.catalog.change(Bootstrap(auth=True))
        assert await client.fails("users.list") == (403, "access denied")
        client.key = key
        await client.ok("users.list")


async def test_keys_are_wanted_where_the_door_is_closed(autojump_clock: object) -> None:
    """Then whoever has shown none is a stranger, of whom there may be few."""
    async with open_client(auth=True) as client:
        access = client.door.access
        assert not access.wants_keys
        key = await make_admin(client)
        await client.ok("rolebindings.delete", **CLOSE)
        assert access.wants_keys
        for shown, is_good in (("", False), ("qtr-live-" + "0" * 43, False), (key, True)):
            request = HttpRequest("POST", "/v1/users.list", {"authorization": f"Bearer {shown}"}, b"{}")
            await client.api.handle(request)
            assert request.has_good_key is is_good
    async with open_client() as client:
        assert not client.door.access.wants_keys


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("bearer x", "invalid authorization header format"),
        ("Bearer", "invalid authorization header format"),
        ("Bearer x", "api key is invalid"),
        ("Bearer  qtr-live-" + "0" * 43, "api key is invalid"),
        ("Bearer qtr-LIVE-" + "0" * 43, "api key is invalid"),
        ("Bearer qtr-live-" + "0" * 43, "api key does not exist"),
    ],
)
async def test_headers_that_are_not_taken(header: str, text: str, autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        answer = await client.send("/v1/users.list", headers={"authorization": header})
        assert answer.json == {"code": 401, "code_text": "Unauthorized", "message": text}


async def test_a_key_expires_even_when_it_is_remembered(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        _, key = await make_key(client, "u", expires_at="2026-01-01T00:00:10Z")
        client.key = key
        assert await client.fails("users.list") == (403, "access denied")
        await client.node.env.clock.sleep(10_000_000)  # type: ignore[arg-type]
        assert await client.fails("users.list") == (401, "api key has expired")


async def test_a_key_may_have_expired_when_it_is_made(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        _, client.key = await make_key(client, "u", expires_at="1969-01-01T00:00:00Z")
        assert await client.fails("users.list") == (401, "api key has expired")


async def test_deleting_a_key_or_its_user_acts_at_once(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        first, key = await make_key(client, "first")
        second, other = await make_key(client, "second")
        made = (await client.ok("apikeys.list", user_id=first))["items"]
        assert [entry["user_id"] for entry in made] == [first]
        await client.ok("apikeys.delete", id=made[0]["id"])
        await client.ok("users.delete", id=second)
        for gone in (key, other):
            client.key = gone
            assert await client.fails("users.list") == (401, "api key does not exist")


async def test_bad_keys_are_remembered_and_not_looked_up_again(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        client.key = "qtr-live-" + "z" * 43
        for _ in range(50):
            assert (await client.call("users.list")).status == 401
        assert client.door.access.looked_up == 1


async def test_what_is_remembered_has_a_bound(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        access: CatalogAccess = client.door.access
        for number in range(REMEMBERED_KEYS_MAX + 1):
            assert access.recognise(f"bad{number}", client.door.clock.now()) is KeyFault.MALFORMED
        assert len(access._known) <= REMEMBERED_KEYS_MAX


async def test_the_tag_of_a_key(autojump_clock: object) -> None:
    """From the request, else from the namespace it is scoped to, else ``live``."""
    async with open_client(auth=True) as client:
        await client.ok("namespaces.create", name="space", api_key_tag="blue")
        user = (await client.ok("users.create", username="u"))["id"]
        tags = []
        for wanted in (
            {"key_tag": "red", "namespace_scope": "space"},
            {"namespace_scope": "space"},
            {"namespace_scope": "nope"},
            {},
        ):
            made = await client.ok("apikeys.create", user_id=user, **wanted)
            assert made["key"].startswith(made["prefix"])
            tags.append(made["key"].split("-")[1])
        assert tags == ["red", "blue", "live", "live"]
        await client.ok("namespaces.update", name="space")
        made = await client.ok("apikeys.create", user_id=user, namespace_scope="space")
        assert made["key"].startswith("qtr-live-"), "an omitted tag clears it"


async def test_keys_of_a_tenant_stay_in_their_namespace(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        for name in ("mine", "other"):
            await client.ok("namespaces.create", name=name)
            await client.create(f"{name}-q", namespace=name)
        await client.ok(
            "roles.create", namespace="mine", name="worker", permissions=["queue.list", "queue.produce"]
        )
        user, key = await make_key(client, "tenant", namespace_scope="mine")
        await client.ok("rolebindings.create", namespace="mine", role_name="worker", user_id=user)
        await client.ok("rolebindings.delete", **CLOSE)
        client.key = key
        listed = (await client.ok("queues.list", namespace="mine"))["items"]
        assert [queue["queue_name"] for queue in listed] == ["mine-q"]
        assert await client.fails("queues.list", namespace="other") == (403, "access denied")
        assert await client.fails("queues.list") == (403, "access denied")
        await client.produce("mine-q", "a")
        assert await client.fails("queue.stats", queue_name="mine-q") == (403, "access denied")
        assert await client.fails("queue.produce", queue_name="other-q") == (403, "access denied")


async def test_a_scoped_key_with_a_binding_in_system_may_list_users(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        user, key = await make_key(client, "u", namespace_scope="elsewhere")
        await client.ok("rolebindings.create", namespace="_system", role_name="Admin", user_id=user)
        client.key = key
        await client.ok("users.list")


async def test_a_changed_role_acts_at_once(autojump_clock: object) -> None:
    async with open_client(auth=True) as client:
        await client.ok("roles.create", namespace="_system", name="r", permissions=["user.list"])
        user, key = await make_key(client, "u")
        await client.ok("rolebindings.create", namespace="_system", role_name="r", user_id=user)
        client.key = key
        await client.ok("users.list")
        client.key = ""
        await client.ok("roles.update", namespace="_system", name="r")
        client.key = key
        assert await client.fails("users.list") == (403, "access denied")


REQUESTS: dict[str, dict[str, Any]] = {
    "queues.create": {"queue_name": "new"},
    "namespaces.create": {"name": "new"},
    "namespaces.update": {"name": "new"},
    "namespaces.delete": {"name": "new"},
    "users.create": {"username": "new"},
    "apikeys.create": {"user_id": "x"},
    "roles.create": {"namespace": "n", "name": "r"},
    "roles.update": {"namespace": "n", "name": "r"},
    "rolebindings.create": {"namespace": "n", "role_name": "r", "user_id": "x"},
}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_every_call_asks_for_its_permission(endpoint: Any, autojump_clock: object) -> None:
    """Without it: 403. With that one alone: not 403. There is no call that asks for none."""
    name = endpoint.path.removeprefix("/v1/")
    request = REQUESTS.get(
        name, {"queue_name": "q"} if "queue_name" in endpoint.request.__struct_fields__ else {}
    )
    async with open_client(auth=True) as client:
        await client.create("q")
        user, key = await make_key(client, "u")
        await client.ok("roles.create", namespace="_system", name="one", permissions=[endpoint.permission])
        client.key = key
        assert await client.fails(name, **request) == (403, "access denied")
        client.key = ""
        await client.ok("rolebindings.create", namespace="_system", role_name="one", user_id=user)
        client.key = key
        answer = await client.call(name, **request)
        assert answer.status != 403, answer.body
