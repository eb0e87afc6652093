"""The stream over the real engine, on a log in memory and in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from querator.actors.node import NodeOptions
from querator.app import Application, AppOptions, open_application
from querator.core import decide, limits
from querator.env import Env, seconds
from querator.env.virtual import MemoryNetwork, virtual_env
from querator.log.memory import MemoryDisk, MemoryLog
from querator.protocol import messages as wire
from querator.protocol.codec import JSON, MSGPACK, Codec
from tests.api.pure import SECRET
from tests.api.serving import Client, wrap

PORT = 2319


@asynccontextmanager
async def node(disk: MemoryDisk, *, auth: bool = False) -> AsyncIterator[tuple[Application, Env]]:
    env = virtual_env(1, network=MemoryNetwork())
    options = AppOptions(host="node", port=PORT, secret=SECRET, node=NodeOptions(auth=auth))
    async with open_application({"memory": MemoryLog(env, disk)}, env, options) as application:
        yield application, env


@asynccontextmanager
async def client(env: Env, codec: Codec = JSON, resume: str = "", key: str = "") -> AsyncIterator[Client]:
    stream = await env.net.connect("node", PORT)
    async with trio.open_nursery() as nursery:
        socket = await wrap(nursery, stream, codec.subprotocol)
        await socket._open_handshake.wait()
        made = Client(socket, codec, stream)
        await made.send(wire.Hello(client="test", resume=resume, auth=key))
        first = (await made.receive())[0]
        assert isinstance(first, wire.Welcome)
        made.welcome = first
        yield made
        nursery.cancel_scope.cancel()


async def one(client: Client, *messages: wire.ClientMessage) -> wire.ServerMessage:
    """The answer to a request; it comes alone."""
    await client.send(*messages)
    (answer,) = await client.receive()
    return answer


async def create(client: Client, **settings: object) -> None:
    params = client.codec.encode_value({"name": "mail", **settings})
    answer = await one(client, wire.Call(id=0, method="queues.create", params=params))
    assert isinstance(answer, wire.Result)


async def reserve(client: Client, number: int = 1, **fields: object) -> wire.Reserved:
    answer = await one(client, wire.Reserve(id=number, queue="mail", **fields))  # type: ignore[arg-type]
    assert isinstance(answer, wire.Reserved)
    return answer


async def test_an_item_travels_through_the_engine(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env), client(env, MSGPACK) as peer:
        await create(peer)
        assert await one(peer, wire.Subscribe(id=1, queue="mail")) == wire.Subscribed(id=1)
        await peer.send(
            wire.Produce(id=2, queue="mail", payloads=[b"a", b"b"], kind="k", headers=[{"x": "y"}, None])
        )
        heard: list[wire.ServerMessage] = []
        while len(heard) < 2:
            heard += await peer.receive()
        produced, reserved = sorted(heard, key=lambda message: isinstance(message, wire.Reserved))
        assert isinstance(produced, wire.Produced)
        assert isinstance(reserved, wire.Reserved)
        assert (reserved.items, reserved.payloads) == (produced.first, [b"a", b"b"])
        assert reserved.kind in ("k", ["k", "k"])
        assert reserved.headers == [{"x": "y"}, None]
        assert await one(peer, wire.Complete(id=3, token=reserved.token)) == wire.Settled(id=3, done=2)
        again = await one(peer, wire.Complete(id=4, token=reserved.token))
        assert again == wire.Settled(id=4, done=2, repeated=True)
        late = await one(peer, wire.Retry(id=5, token=reserved.token))
        assert isinstance(late, wire.Rejected) or (isinstance(late, wire.Settled) and not late.done)
        stats = await one(peer, wire.Stats(id=6, queue="mail"))
        assert isinstance(stats, wire.StatsReport)
        assert (stats.partitions[0]["completed"], stats.subscriptions) == (2, 1)


async def test_a_broken_connection_keeps_its_reservations_for_the_grace(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env):
        async with client(env) as peer:
            await create(peer)
            await one(peer, wire.Produce(id=1, queue="mail", texts=["a"]))
            reserved = await reserve(peer, held=True)
            assert peer.welcome is not None
            resume = peer.welcome.resume
            await peer.stream.aclose()
        await trio.sleep(seconds(limits.SESSION_GRACE) / 2)
        async with client(env, resume=resume) as peer:
            assert peer.welcome is not None
            assert [(held.token, held.remaining) for held in peer.welcome.held] == [
                (reserved.token, [(0, 1)])
            ]
            await peer.send(wire.Confirm(push=reserved.push + 1))  # it was pushed again
            await trio.sleep(seconds(limits.SESSION_GRACE) * 30)
            assert await one(peer, wire.Complete(id=2, token=reserved.token)) == wire.Settled(id=2, done=1)


async def test_an_item_is_followed_until_unwatch(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env), client(env, MSGPACK) as peer, client(env) as worker:
        await create(peer)
        await one(peer, wire.Produce(id=1, queue="mail", texts=["a", "b"]))
        assert await one(peer, wire.WatchItem(id=2, partition=1, item=2)) == wire.Watching(id=2)
        taken = await one(peer, wire.WatchItem(id=2, partition=1, item=1))
        assert isinstance(taken, wire.Rejected)
        reserved = await reserve(worker, items=2)
        (step,) = await peer.receive()
        assert isinstance(step, wire.Step)
        assert (step.id, step.what, step.details["state"]) == (2, "reserved", "reserved")
        assert await one(peer, wire.Unwatch(id=3, watch=2)) == wire.Unwatched(id=3)
        await one(worker, wire.Complete(id=4, token=reserved.token))
        again = await one(peer, wire.Unwatch(id=5, watch=2))
        assert isinstance(again, wire.Rejected)
        never = await one(peer, wire.WatchItem(id=6, partition=1, item=3))
        assert isinstance(never, wire.Rejected)
        assert (never.code, never.field) == ("unknown_item", "item")


async def test_after_the_grace_the_items_are_somebody_elses(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env), client(env) as other:
        await create(other)
        async with client(env) as peer:
            await one(peer, wire.Produce(id=1, queue="mail", texts=["a"]))
            reserved = await reserve(peer, held=True)
            assert peer.welcome is not None
            resume = peer.welcome.resume
            await peer.stream.aclose()
        taken = await reserve(other, wait=60_000_000, held=True)
        assert (taken.items, taken.attempts) in ((reserved.items, 2), (reserved.items, [2]))
        async with client(env, resume=resume) as peer:
            assert peer.welcome is not None
            assert peer.welcome.held == []
            stale = await one(peer, wire.Complete(id=2, token=reserved.token))
            assert isinstance(stale, wire.Rejected)
            assert stale.code == "reservation_lost"
        assert await one(other, wire.Complete(id=2, token=taken.token)) == wire.Settled(id=2, done=1)


async def test_goodbye_gives_back_at_once_without_blame(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env), client(env) as other:
        await create(other)
        async with client(env) as peer:
            await one(peer, wire.Produce(id=1, queue="mail", texts=["a"]))
            await reserve(peer, held=True)
            await peer.socket.aclose(1000)
        taken = await reserve(other, wait=1_000_000)
        assert taken.attempts in (1, [1])


async def test_a_session_resumes_after_a_restart(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with node(disk) as (_, env), client(env) as peer:
        await create(peer)
        await one(peer, wire.Produce(id=1, queue="mail", texts=["a", "b"]))
        reserved = await reserve(peer, items=2, held=True)
        assert peer.welcome is not None
        resume = peer.welcome.resume
        await peer.socket.aclose(1001)
    async with node(disk) as (_, env), client(env, resume=resume) as peer:
        assert peer.welcome is not None
        assert peer.welcome.generation == 2
        assert [held.token for held in peer.welcome.held] == [reserved.token]
        assert await one(peer, wire.Complete(id=2, token=reserved.token)) == wire.Settled(id=2, done=2)


async def test_pushes_that_were_not_confirmed_come_again(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env):
        async with client(env) as peer:
            await create(peer)
            await one(peer, wire.Subscribe(id=1, queue="mail", batch=1))
            await peer.send(wire.Produce(id=2, queue="mail", texts=["a", "b"]))
            heard: list[wire.ServerMessage] = []
            while len(heard) < 3:
                heard += await peer.receive()
            first, second = (message for message in heard if isinstance(message, wire.Reserved))
            await peer.send(wire.Confirm(push=first.push))
            await one(peer, wire.Stats(id=3, queue="mail"))
            assert peer.welcome is not None
            resume = peer.welcome.resume
            await peer.stream.aclose()
        stream = await env.net.connect("node", PORT)
        async with trio.open_nursery() as nursery:
            socket = await wrap(nursery, stream, JSON.subprotocol)
            await socket._open_handshake.wait()
            peer = Client(socket, JSON, stream)
            await peer.send(wire.Hello(client="test", resume=resume, confirmed=first.push))
            welcome, again = await peer.receive()
            assert isinstance(welcome, wire.Welcome)
            assert isinstance(again, wire.Reserved)
            assert {held.token for held in welcome.held} == {first.token, second.token}
            assert (again.token, again.again, again.attempts) == (second.token, True, second.attempts)
            nursery.cancel_scope.cancel()


async def test_a_subscription_outlives_nothing_and_is_made_again(autojump_clock: MockClock) -> None:
    async with node(MemoryDisk()) as (_, env):
        async with client(env) as peer:
            await create(peer)
            await one(peer, wire.Subscribe(id=1, queue="mail"))
            assert peer.welcome is not None
            resume = peer.welcome.resume
            await peer.stream.aclose()
        async with client(env, resume=resume) as peer:
            assert await one(peer, wire.Subscribe(id=1, queue="mail")) == wire.Subscribed(id=1)
            stats = await one(peer, wire.Stats(id=2, queue="mail"))
            assert isinstance(stats, wire.StatsReport)
            assert stats.subscriptions == 1


# -- what a dead queue took ---------------------------------------------------------------------------


async def call(client: Client, method: str, **params: object) -> dict[str, Any] | wire.Rejected:
    encoded = client.codec.encode_value(params)
    answer = await one(client, wire.Call(id=70, method=method, params=encoded))
    if isinstance(answer, wire.Rejected):
        return answer
    assert isinstance(answer, wire.Result)
    found: dict[str, Any] = client.codec.decode_value(answer.value, dict[str, Any])
    return found


async def die(client: Client, *payloads: bytes) -> None:
    """Items of the queue ``mail`` are set aside, and its dead queue has them."""
    await one(client, wire.Produce(id=1, queue="mail", payloads=list(payloads)))
    reserved = await reserve(client, items=len(payloads))
    await one(client, wire.Dead(id=2, token=reserved.token, reason="bad"))
    await trio.sleep(1)


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
async def test_items_are_sent_home_from_a_dead_queue(autojump_clock: MockClock, codec: Codec) -> None:
    async with node(MemoryDisk()) as (_, env), client(env, codec) as operator:
        await create(operator, name="morgue")
        await create(operator, dead_queue="morgue")
        await create(operator, name="old", dead_queue="morgue")
        await die(operator, b"a", b"b", b"c")
        here = [{"home": 2, "home_queue": "mail", "idle": 3, "reserved": 0}]
        assert await call(operator, "dead.homes", name="morgue") == {"homes": here}
        found = await call(operator, "item.find", partition=1, item=1)
        assert isinstance(found, dict)
        assert (found["home"], found["home_queue"]) == (2, "mail")
        held = await one(operator, wire.Reserve(id=3, queue="morgue", items=1))
        assert isinstance(held, wire.Reserved)
        refused = await call(operator, "dead.redrive", name="morgue", to="home", partition=1, items=[1])
        assert isinstance(refused, wire.Rejected)
        assert (refused.code, refused.field) == ("unknown_item", "items")
        assert "item 1.1 is reserved" in refused.detail
        chosen = await call(operator, "dead.redrive", name="morgue", to="home", partition=1, items=[3])
        assert chosen == {"redriven": 1, "reserved": 1, "stranded": 0, "more": False}
        other = await call(operator, "dead.redrive", name="morgue", to="home", from_queue="old")
        assert other == {"redriven": 0, "reserved": 0, "stranded": 0, "more": False}
        sent = await call(operator, "dead.redrive", name="morgue", to="home", limit=5)
        assert sent == {"redriven": 1, "reserved": 1, "stranded": 0, "more": False}
        await trio.sleep(1)
        reserved = await reserve(operator, 4, items=9)
        assert len(reserved.payloads) == 2
        # Their queue goes: what is left stays, and is counted.
        await one(operator, wire.Release(id=5, token=held.token))
        assert await call(operator, "queues.delete", name="mail") == {}
        sent = await call(operator, "dead.redrive", name="morgue", to="home")
        assert sent == {"redriven": 0, "reserved": 0, "stranded": 1, "more": False}
        here = [{"home": 2, "home_queue": "", "idle": 1, "reserved": 0}]
        assert await call(operator, "dead.homes", name="morgue") == {"homes": here}
        assert await call(operator, "dead.redrive", name="morgue") == {"redriven": 0}


async def test_who_sends_home_more_than_may_be_on_its_way_is_told_that_there_is_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "HOMEWARD_ITEMS_MAX", 2)
    async with node(MemoryDisk()) as (_, env), client(env) as operator:
        await create(operator, name="morgue")
        await create(operator, dead_queue="morgue")
        await die(operator, *[b"x"] * 5)
        total = 0
        for is_last in (False, False, True):
            sent = await call(operator, "dead.redrive", name="morgue", to="home")
            assert isinstance(sent, dict)
            assert sent["more"] is not is_last
            total += sent["redriven"]
            await trio.sleep(1)
        assert total == 5


async def test_a_queue_of_the_longest_name_is_produced_to_and_reserved_from(
    autojump_clock: MockClock,
) -> None:
    """QUEUE_NAME_BYTES_MAX."""
    name = "x" * limits.QUEUE_NAME_BYTES_MAX
    async with node(MemoryDisk()) as (_, env), client(env) as peer:
        await create(peer, name=name)
        made = await one(peer, wire.Produce(id=1, queue=name, payloads=[b"a"]))
        assert isinstance(made, wire.Produced)
        held = await one(peer, wire.Reserve(id=2, queue=name))
        assert isinstance(held, wire.Reserved)
        counted = await one(peer, wire.Stats(id=3, queue=name))
        assert not isinstance(counted, wire.Rejected)
        refused = await one(peer, wire.Reserve(id=4, queue=name + "x"))
        assert isinstance(refused, wire.Rejected)
        assert (refused.code, refused.field) == ("invalid", "queue")
