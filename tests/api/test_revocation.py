"""The same keys and permissions on both doors; who loses theirs loses at once what was begun by them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from querator.api.catalog_access import REMEMBERED_KEYS_MAX
from querator.api.http.endpoints import ENDPOINTS, Endpoint
from querator.api.http.examples import EXAMPLES
from querator.api.http.handler import HttpApi
from querator.env import Env
from querator.log.memory import MemoryDisk, MemoryLog
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.codec import JSON
from tests.api.http.client import Answer
from tests.api.http.client import Client as HttpClient
from tests.api.http.test_authentication import CLOSE, make_admin
from tests.api.serving import Client, wrap
from tests.api.test_whole import PORT, client, node, one

QUEUE = "mail"
USUAL = ("queue.produce", "queue.lease", "queue.complete", "queue.retry", "queue.stats", "queue.list")
HOUR = 3_600_000_000


@attrs.define
class House:
    """A node with auth on, its first door closed; ``admin`` speaks HTTP with a key."""

    env: Env
    admin: HttpClient
    methods: tuple[str, ...]
    """Of calls over the WebSocket."""
    users: int = 0

    async def grant(self, *permissions: str) -> tuple[str, str]:
        """A user with these permissions, and its key."""
        self.users += 1
        user = (await self.admin.ok("users.create", username=f"user-{self.users}"))["id"]
        role = f"role-{self.users}"
        await self.admin.ok("roles.create", namespace="_system", name=role, permissions=list(permissions))
        await self.admin.ok("rolebindings.create", namespace="_system", role_name=role, user_id=user)
        return user, (await self.admin.ok("apikeys.create", user_id=user))["key"]

    def http(self, key: str) -> HttpClient:
        return attrs.evolve(self.admin, key=key)

    async def revoke(self, user: str) -> None:
        """Delete its key."""
        (key,) = (await self.admin.ok("apikeys.list", user_id=user))["items"]
        await self.admin.ok("apikeys.delete", id=key["id"])

    async def restrict(self, *permissions: str) -> None:
        """The role of the user granted last has these permissions now."""
        name = f"role-{self.users}"
        await self.admin.ok("roles.update", namespace="_system", name=name, permissions=list(permissions))


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with node(MemoryDisk(), auth=True) as (application, env):
        admin = HttpClient(application.node, application.door, HttpApi(application.door))
        admin.key = await make_admin(admin)
        await admin.ok("rolebindings.delete", **CLOSE)
        await admin.create(QUEUE)
        yield House(env, admin, tuple(application.server.registry.operations))


# -- every verb asks for its permission ------------------------------------------------------------

VERBS: dict[str, tuple[str, Callable[[str], wire.ClientMessage]]] = {
    "produce": ("queue.produce", lambda _: wire.Produce(id=9, queue=QUEUE, texts=["b"])),
    "subscribe": ("queue.lease", lambda _: wire.Subscribe(id=9, queue=QUEUE)),
    "reserve": ("queue.lease", lambda _: wire.Reserve(id=9, queue=QUEUE)),
    "complete": ("queue.complete", lambda token: wire.Complete(id=9, token=token)),
    "retry": ("queue.retry", lambda token: wire.Retry(id=9, token=token)),
    "release": ("queue.retry", lambda token: wire.Release(id=9, token=token)),
    "dead": ("queue.retry", lambda token: wire.Dead(id=9, token=token, reason="r")),
    "extend": ("queue.lease", lambda token: wire.Extend(id=9, token=token, timeout=HOUR)),
    "stats": ("queue.stats", lambda _: wire.Stats(id=9, queue=QUEUE)),
    "watch": ("queue.stats", lambda _: wire.Watch(id=9, queue=QUEUE)),
    "watch_item": ("queue.list", lambda _: wire.WatchItem(id=9, partition=1, item=1)),
}
ASK_FOR_NOTHING = {"hello", "unsubscribe", "unwatch", "confirm", "call"}
"""They begin nothing: a call's own method asks."""


def test_no_verb_is_forgotten() -> None:
    tags = {kind.__struct_config__.tag for kind in wire.ClientMessage.__args__}
    assert tags == set(VERBS) | ASK_FOR_NOTHING


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_without_its_permission_is_refused(verb: str, autojump_clock: MockClock) -> None:
    """With all the others: denied. With that one alone: not denied."""
    permission, make = VERBS[verb]
    async with house() as here:
        await here.admin.produce(QUEUE, "a")
        _, holder = await here.grant("queue.lease")
        _, without = await here.grant(*(name for name in USUAL if name != permission))
        _, only = await here.grant(permission)
        async with client(here.env, key=holder) as peer:
            reserved = await one(peer, wire.Reserve(id=1, queue=QUEUE))
            assert isinstance(reserved, wire.Reserved)
            async with client(here.env, key=without) as other:
                refused = await one(other, make(reserved.token))
                assert isinstance(refused, wire.Rejected)
                assert (refused.id, refused.code) == (9, "denied")
            async with client(here.env, key=only) as other:
                await other.send(make(reserved.token))
                assert not isinstance((await other.receive())[0], wire.Rejected)


async def make_tenant(here: House) -> str:
    """A key with every permission in a namespace of its own, which has the queue ``own``."""
    await here.admin.ok("namespaces.create", name="tenant")
    await here.admin.create("own", namespace="tenant")
    user = (await here.admin.ok("users.create", username="tenant"))["id"]
    permissions = sorted({*USUAL, "queue.create", "queue.update", "queue.delete", "queue.clear"})
    await here.admin.ok("roles.create", namespace="tenant", name="all", permissions=permissions)
    await here.admin.ok("rolebindings.create", namespace="tenant", role_name="all", user_id=user)
    key: str = (await here.admin.ok("apikeys.create", user_id=user, namespace_scope="tenant"))["key"]
    return key


async def test_a_tenant_does_nothing_with_what_is_anothers(autojump_clock: MockClock) -> None:
    """No verb, no call, not even with another's token; its own queue it has all of."""
    async with house() as here:
        await here.admin.produce(QUEUE, "a")
        _, holder = await here.grant("queue.lease")
        tenant = await make_tenant(here)
        async with client(here.env, key=holder) as peer, client(here.env, key=tenant) as other:
            reserved = await one(peer, wire.Reserve(id=1, queue=QUEUE))
            assert isinstance(reserved, wire.Reserved)
            for verb, (_, make) in VERBS.items():
                refused = await one(other, make(reserved.token))
                assert isinstance(refused, wire.Rejected), verb
                assert refused.code == "denied", verb
            for number, (method, fields) in enumerate(CALLS.items()):
                refused = await one(
                    other, wire.Call(id=number, method=method, params=JSON.encode_value(fields))
                )
                assert isinstance(refused, wire.Rejected), method
                assert refused.code == "denied", method
            listed = await one(other, wire.Call(id=1, method="queues.list", params=JSON.encode_value({})))
            assert isinstance(listed, wire.Result)
            assert b'"own"' in bytes(listed.value)
            assert QUEUE.encode() not in bytes(listed.value)
            assert isinstance(await one(other, wire.Produce(id=1, queue="own", texts=["b"])), wire.Produced)
            own = await one(other, wire.Reserve(id=2, queue="own"))
            assert isinstance(own, wire.Reserved)
            assert await one(other, wire.Complete(id=3, token=own.token)) == wire.Settled(id=3, done=1)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_a_tenant_is_refused_by_every_call_over_http(
    endpoint: Endpoint, autojump_clock: MockClock
) -> None:
    """What is of no queue is asked for ``_system``, where the tenant has nothing either."""
    async with house() as here:
        tenant = here.http(await make_tenant(here))
        request = dict(EXAMPLES[endpoint.path])
        for name, value in (("namespace", "_system"), ("name", "other"), ("namespace_scope", "")):
            if request.get(name) == "tenant":
                request[name] = value
        answer = await tenant.call(endpoint.path.removeprefix("/v1/"), **request)
        if endpoint.path == "/v1/queues.delete":
            assert answer.message == "queue does not exist; no such queue named 'spare'"
        else:
            assert (answer.status, answer.message) == (403, "access denied"), answer.body


CALLS: dict[str, dict[str, Any]] = {
    "queues.create": {"name": "new"},
    "queues.update": {"name": QUEUE},
    "queues.delete": {"name": QUEUE},
    "queues.info": {"name": QUEUE},
    "queues.pause": {"name": QUEUE},
    "queues.resume": {"name": QUEUE},
    "queues.clear": {"name": QUEUE, "ready": True},
    "partitions.accept_loss": {"partition": 1},
    "dead.list": {"name": QUEUE},
    "dead.redrive": {"name": QUEUE},
    "dead.homes": {"name": QUEUE},
    "item.find": {"partition": 1, "item": 1},
    "item.trace": {"partition": 1, "item": 1},
    "log.prune": {},
}


async def test_a_call_without_its_permission_is_refused(autojump_clock: MockClock) -> None:
    async with house() as here:
        assert set(here.methods) == set(CALLS) | {"queues.list", "analytics.ask"}
        _, key = await here.grant("user.list")
        async with client(here.env, key=key) as peer:
            for number, (method, fields) in enumerate(CALLS.items()):
                call = wire.Call(id=number, method=method, params=JSON.encode_value(fields))
                refused = await one(peer, call)
                assert isinstance(refused, wire.Rejected), method
                assert refused.code == "denied", method


# -- who loses a key ---------------------------------------------------------------------------------


async def test_a_session_whose_key_goes_is_closed_at_once(autojump_clock: MockClock) -> None:
    """No time passes, and it need not act; what it held goes back after the grace."""
    async with house() as here:
        await here.admin.produce(QUEUE, "a")
        user, key = await here.grant(*USUAL)
        async with client(here.env, key=key) as peer:
            await one(peer, wire.Subscribe(id=1, queue=QUEUE))
            (pushed,) = await peer.receive()
            assert isinstance(pushed, wire.Reserved)
            began = trio.current_time()
            await here.revoke(user)
            await here.admin.produce(QUEUE, "b")
            code, heard = await peer.wait_closed()
            assert (code, heard) == (CloseCode.UNAUTHENTICATED, [])
            assert trio.current_time() - began < 0.1
        await trio.sleep(10)
        leased = await here.admin.lease(QUEUE)
        assert len(leased["items"]) == 2


async def test_a_user_who_goes_takes_its_sessions_along(autojump_clock: MockClock) -> None:
    async with house() as here:
        user, key = await here.grant(*USUAL)
        async with client(here.env, key=key) as peer:
            await here.admin.ok("users.delete", id=user)
            assert (await peer.wait_closed())[0] == CloseCode.UNAUTHENTICATED


async def test_a_key_that_expires_ends_its_session(autojump_clock: MockClock) -> None:
    """At its next act, and at the next ping if there is none."""
    async with house() as here:
        user, _ = await here.grant(*USUAL)
        soon = await here.admin.ok("apikeys.create", user_id=user, expires_at="2026-01-01T00:00:10Z")
        async with client(here.env, key=soon["key"]) as peer, client(here.env, key=soon["key"]) as silent:
            await trio.sleep(9.9)
            assert isinstance(await one(peer, wire.Produce(id=1, queue=QUEUE, texts=["a"])), wire.Produced)
            await trio.sleep(0.2)
            await peer.send(wire.Produce(id=2, queue=QUEUE, texts=["b"]))
            assert (await peer.wait_closed())[0] == CloseCode.UNAUTHENTICATED
            with trio.fail_after(6):
                assert (await silent.wait_closed())[0] == CloseCode.UNAUTHENTICATED
        (item,) = (await here.admin.lease(QUEUE))["items"]
        assert item["bytes"] == "YQ=="


@attrs.define
class Lease:
    """A call in the background."""

    answer: Answer | None = None

    async def run(self, asker: HttpClient, **fields: Any) -> None:
        asked = {"queue_name": QUEUE, "batch_size": 1, "client_id": "c", "request_timeout": "5m", **fields}
        self.answer = await asker.call("queue.lease", **asked)


async def test_a_parked_lease_whose_key_goes_is_refused_at_once(autojump_clock: MockClock) -> None:
    """And gets nothing of what is produced then."""
    async with house() as here:
        user, key = await here.grant(*USUAL)
        lease = Lease()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lease.run, here.http(key))
            await wait_all_tasks_blocked()
            began = trio.current_time()
            await here.revoke(user)
        assert trio.current_time() - began < 0.1
        assert lease.answer is not None
        assert (lease.answer.status, lease.answer.message) == (401, "api key does not exist")
        await here.admin.produce(QUEUE, "a")
        assert len((await here.admin.lease(QUEUE))["items"]) == 1


async def test_a_parked_lease_waits_no_longer_than_its_key_lives(autojump_clock: MockClock) -> None:
    async with house() as here:
        user, _ = await here.grant(*USUAL)
        soon = await here.admin.ok("apikeys.create", user_id=user, expires_at="2026-01-01T00:00:10Z")
        lease = Lease()
        await lease.run(here.http(soon["key"]))
        assert lease.answer is not None
        assert lease.answer.status == 454
        assert trio.current_time() == pytest.approx(10, abs=1)


# -- who loses a permission ----------------------------------------------------------------------------


async def test_what_waits_by_a_permission_ends_with_it(autojump_clock: MockClock) -> None:
    """Subscription, reserve, watch, lease: each is told; the session goes on with what is left."""
    async with house() as here:
        _, key = await here.grant(*USUAL)
        lease = Lease()
        async with client(here.env, key=key) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(lease.run, here.http(key))
            await wait_all_tasks_blocked()
            await one(peer, wire.Subscribe(id=1, queue=QUEUE))
            await peer.send(wire.Reserve(id=2, queue=QUEUE, wait=HOUR // 4))
            await peer.send(wire.Watch(id=3, queue=QUEUE))
            assert isinstance((await peer.receive())[0], wire.Watching)
            await wait_all_tasks_blocked()
            await here.restrict("queue.produce")
            told: list[wire.Rejected] = []
            while len(told) < 3:
                told += [message for message in await peer.receive() if isinstance(message, wire.Rejected)]
            assert sorted((message.id, message.code) for message in told) == [
                (1, "denied"),
                (2, "denied"),
                (3, "denied"),
            ]
            assert isinstance(await one(peer, wire.Produce(id=4, queue=QUEUE, texts=["a"])), wire.Produced)
        assert lease.answer is not None
        assert (lease.answer.status, lease.answer.message) == (403, "access denied")
        assert len((await here.admin.lease(QUEUE))["items"]) == 1


async def test_what_a_session_may_not_settle_any_more_it_may_give_back(autojump_clock: MockClock) -> None:
    """What is its own, and nobody else's."""
    async with house() as here:
        await here.admin.produce(QUEUE, "a")
        _, key = await here.grant(*USUAL)
        async with client(here.env, key=key) as peer, client(here.env, key=here.admin.key) as other:
            held = await one(peer, wire.Reserve(id=1, queue=QUEUE))
            assert isinstance(held, wire.Reserved)
            await here.restrict("queue.produce")
            await here.admin.produce(QUEUE, "b")
            foreign = await one(other, wire.Reserve(id=1, queue=QUEUE))
            assert isinstance(foreign, wire.Reserved)
            for refused in (
                wire.Complete(id=2, token=held.token),
                wire.Retry(id=2, token=held.token),
                wire.Release(id=2, token=foreign.token),
            ):
                answer = await one(peer, refused)
                assert isinstance(answer, wire.Rejected)
                assert answer.code == "denied"
            settled = await one(peer, wire.Release(id=3, token=held.token))
            assert isinstance(settled, wire.Settled)
            assert settled.done == 1
            assert len((await here.admin.lease(QUEUE))["items"]) == 1


async def test_a_permission_that_is_given_acts_at_once(autojump_clock: MockClock) -> None:
    async with house() as here:
        _, key = await here.grant("queue.stats")
        async with client(here.env, key=key) as peer:
            refused = await one(peer, wire.Produce(id=1, queue=QUEUE, texts=["a"]))
            assert isinstance(refused, wire.Rejected)
            await here.restrict("queue.stats", "queue.produce")
            assert isinstance(await one(peer, wire.Produce(id=2, queue=QUEUE, texts=["a"])), wire.Produced)


async def test_others_are_not_disturbed(autojump_clock: MockClock) -> None:
    async with house() as here:
        user, _ = await here.grant(*USUAL)
        _, stays = await here.grant(*USUAL)
        lease = Lease()
        async with client(here.env, key=stays) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(lease.run, here.http(stays))
            await one(peer, wire.Subscribe(id=1, queue=QUEUE))
            await here.revoke(user)
            await here.admin.produce(QUEUE, "a", "b")
            (pushed,) = await peer.receive()
            assert isinstance(pushed, wire.Reserved)
        assert lease.answer is not None
        assert lease.answer.status == 200


# -- what a key costs ------------------------------------------------------------------------------------


async def test_keys_that_are_none_cost_no_look_into_storage(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On either door, each another one; and so many of them are not remembered."""
    async with house() as here:
        asked: list[str] = []
        for name in ("append", "read", "tail", "partitions", "read_payloads", "latest_snapshot"):
            if hasattr(MemoryLog, name):
                monkeypatch.setattr(MemoryLog, name, _counted(name, getattr(MemoryLog, name), asked))
        for number in range(REMEMBERED_KEYS_MAX + 10):
            wrong = f"qtr-live-{number:043}"
            assert (await here.http(wrong).call("queues.list")).status == 401
        assert len(here.admin.door.access._known) <= REMEMBERED_KEYS_MAX
        for number in range(20):
            stream = await here.env.net.connect("node", PORT)
            async with trio.open_nursery() as nursery:
                socket = await wrap(nursery, stream, JSON.subprotocol)
                await socket._open_handshake.wait()
                peer = Client(socket, JSON, stream)
                await peer.send(wire.Hello(client="test", auth=f"qtr-test-{number:043}"))
                code, (error,) = await peer.wait_closed()
                assert code == CloseCode.UNAUTHENTICATED
                assert isinstance(error, wire.Error)
                assert error.detail == "api key does not exist"
                nursery.cancel_scope.cancel()
        assert asked == []
        await here.admin.produce(QUEUE, "a")
        assert asked != []


def _counted(name: str, method: Callable[..., Any], asked: list[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **more: Any) -> Any:
        asked.append(name)
        return method(*arguments, **more)

    return counted


async def test_when_a_key_was_last_used(autojump_clock: MockClock) -> None:
    async with house() as here:
        user, key = await here.grant(*USUAL)

        async def used() -> str | None:
            (entry,) = (await here.admin.ok("apikeys.list", user_id=user))["items"]
            at: str | None = entry.get("last_used_at")
            return at

        assert await used() is None
        await here.http(key).produce(QUEUE, "a")
        first = await used()
        assert first is not None
        assert first.startswith("2026-01-01T00:00:0")
        await trio.sleep(60)
        assert await used() == first, "looking at it is not using it"
        async with client(here.env, key=key):
            await trio.sleep(20)
        assert (await used() or "").startswith("2026-01-01T00:01:1")
