"""The trio shell, over memory links and virtual time, against the model server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from querator.client import (
    Batch,
    Client,
    ClientError,
    Disconnected,
    Item,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
    connect,
)
from querator.core import limits
from querator.core.replies import Code
from querator.protocol import messages as wire
from querator.protocol.codec import JSON_SUBPROTOCOL
from tests.client.fake_server import ADDRESS, FakeServer, fake_server
from tests.client.model_server import ModelServer


@asynccontextmanager
async def running(
    model: ModelServer | None = None, **options: Any
) -> AsyncIterator[tuple[FakeServer, Client]]:
    async with fake_server(model) as server, connect(ADDRESS, env=server.env(), **options) as q:
        yield server, q


async def settle_down() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- connecting -----------------------------------------------------------------------------------


async def test_a_client_greets_and_says_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    async with running(client="me") as (server, q):
        assert q.is_connected
        assert q.session == "s0.1"
        assert server.sent(wire.Hello)[0].client == "me"


@pytest.mark.parametrize("subprotocol", ["json", "msgpack"])
async def test_both_subprotocols_carry_any_bytes(
    autojump_clock: trio.testing.MockClock, subprotocol: str
) -> None:
    async with running(subprotocol=subprotocol) as (server, q):
        await q.produce("q", b"\x00\xff\n", headers={"a": "b"})
        batch = await q.reserve("q")
        assert batch is not None
        assert batch.payloads == [b"\x00\xff\n"]
        assert batch.item(0).headers == {"a": "b"}
        assert (server.codecs[0].subprotocol == JSON_SUBPROTOCOL) is (subprotocol == "json")


async def test_nobody_there_is_told_within_the_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with fake_server() as server:
        began = trio.current_time()
        with pytest.raises(Disconnected, match="no server answers at server:1: "):
            async with connect("server:1", env=server.env(), connect_timeout=3):
                raise AssertionError("connected to nobody")
        assert trio.current_time() - began < 6


async def test_a_client_that_may_wait_waits_for_the_server_to_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    said: list[str] = []
    server = FakeServer(ModelServer(), (await _network()))
    async with trio.open_nursery() as nursery:

        async def come_late() -> None:
            await trio.sleep(20)
            await nursery.start(server.run)

        nursery.start_soon(come_late)
        async with connect(ADDRESS, env=server.env(), connect_timeout=60, notify=said.append) as q:
            await q.produce("q", b"x")
        nursery.cancel_scope.cancel()
    assert said[0].startswith("no connection to server:2319 (")
    assert said[1:] == ["connected to server:2319 again"]


async def _network() -> Any:
    from querator.env.virtual import MemoryNetwork

    return MemoryNetwork()


async def test_a_wrong_token_is_refused_once_and_for_all(autojump_clock: trio.testing.MockClock) -> None:
    model = ModelServer()
    model.secret = "right"
    async with fake_server(model) as server:
        with pytest.raises(Rejected) as caught:
            async with connect(ADDRESS, env=server.env(), token="wrong"):
                raise AssertionError("let in")
        assert caught.value.code == Code.UNAUTHENTICATED
        assert model.connections == 1


async def test_a_server_that_hangs_up_during_the_handshake_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with fake_server() as server:
        rude = virtual_listener(server)
        async with trio.open_nursery() as nursery:
            await nursery.start(rude)
            began = trio.current_time()
            with pytest.raises(Disconnected, match="broke during the handshake"):
                async with connect("server:99", env=server.env(), connect_timeout=1):
                    raise AssertionError("connected")
            assert trio.current_time() - began < 4
            nursery.cancel_scope.cancel()


def virtual_listener(server: FakeServer) -> Any:
    from querator.env.virtual import virtual_env

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some(10)
        await stream.aclose()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        listeners = await virtual_env(9, "server", network=server.network).net.listen("", 99)
        task_status.started()
        await trio.serve_listeners(hang_up, list(listeners))

    return run


async def test_an_exception_in_the_block_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
        async with running() as (_, q):
            await q.produce("q", b"x")
            raise ZeroDivisionError


async def test_a_server_that_talks_nonsense_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        server.garbage = b"\x91\xc1"
        with pytest.raises(Rejected, match="cannot be read"):
            await q.produce("q", b"x")


# -- produce --------------------------------------------------------------------------------------


async def test_concurrent_calls_travel_in_one_message(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"first")
        receipts = {}

        async def one(number: int) -> None:
            receipts[number] = await q.produce("q", b"%d" % number)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        produced = server.sent(wire.Produce)
        assert [len(message.payloads) for message in produced] == [1, 50]
        stored = server.model.partitions[1].payloads
        assert all(stored[receipt.first - 1] == b"%d" % number for number, receipt in receipts.items())


async def test_attributes_of_coalesced_calls_stay_with_their_items(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(partial(q.produce, "q", b"%d" % number, key=f"k{number}", kind="same"))
        (message,) = server.sent(wire.Produce)
        assert message.kind == "same"
        assert sorted(zip(message.key, message.payloads, strict=True)) == [
            ("k0", b"0"),
            ("k1", b"1"),
            ("k2", b"2"),
        ]


async def test_one_bad_item_does_not_take_its_neighbours_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        results: dict[bytes, object] = {}

        async def one(payload: bytes) -> None:
            try:
                results[payload] = await q.produce("q", payload)
            except Rejected as error:
                results[payload] = error.code

        async with trio.open_nursery() as nursery:
            for payload in (b"a", b"bad", b"c"):
                nursery.start_soon(one, payload)
        assert results[b"bad"] == Code.INVALID
        assert sorted(server.model.payloads("q")) == [b"a", b"c"]


async def test_a_delay_counts_on_the_servers_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await trio.sleep(10)
        await q.produce("q", b"x", delay="5m")
        assert server.sent(wire.Produce)[0].enqueue_at == 1_000_000_000_000 + 310_000_000


async def test_a_duplicate_names_the_item_that_is_there(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (_, q):
        first = await q.produce("q", b"x", dedupe_key="d")
        again = await q.produce("q", b"x", dedupe_key="d")
        assert not first.is_duplicate
        assert again.is_duplicate
        assert again.item == first.item == "1.1"


async def test_items_out_of_bounds_are_refused_before_they_are_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        for payloads, code, field in (
            ([], Code.BATCH_EMPTY, "payloads"),
            ([b""] * (limits.BATCH_ITEMS_MAX + 1), Code.BATCH_TOO_LARGE, "payloads"),
            ([b"", b"x" * (limits.PAYLOAD_BYTES_MAX + 1)], Code.PAYLOAD_TOO_LARGE, "payloads[1]"),
            ([b"x" * limits.PAYLOAD_BYTES_MAX] * 9, Code.BATCH_TOO_LARGE, "payloads"),
        ):
            with pytest.raises(Rejected) as caught:
                q.produce_nowait("q", payloads)
            assert (caught.value.code, caught.value.field) == (code, field)
        await q.produce_batch("q", [b"x" * limits.PAYLOAD_BYTES_MAX] * 8)
        assert len(server.sent(wire.Produce)) == 1


async def test_produce_nowait_is_bounded_and_flush_makes_room(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        server.is_holding = True
        batch = [b"x"] * limits.BATCH_ITEMS_MAX
        for _ in range(limits.OUTSTANDING_ITEMS_MAX // limits.BATCH_ITEMS_MAX):
            q.produce_nowait("q", batch)
        with pytest.raises(trio.WouldBlock):
            q.produce_nowait("q", [b"x"])
        server.is_holding = False
        await server.push()
        await q.wait_room(1)
        q.produce_nowait("q", [b"x"])
        await q.flush()
        assert q.outstanding == 0
        assert len(server.model.payloads("q")) == limits.OUTSTANDING_ITEMS_MAX + 1


async def test_flush_tells_the_first_failure(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (_, q):
        pending = q.produce_nowait("nowhere", [b"x"])
        with pytest.raises(Rejected) as caught:
            await q.flush()
        assert caught.value.code == Code.UNKNOWN_QUEUE
        assert pending.done
        await q.flush()


async def test_leaving_waits_for_what_was_handed_over(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        q.produce_nowait("q", [b"x"] * 10)
    assert len(server.model.payloads("q")) == 10


async def test_unanswered_sequences_stay_within_the_window(autojump_clock: trio.testing.MockClock) -> None:
    """The partition remembers more results than a client has unanswered, however it is driven."""
    async with running() as (server, q):
        await q.produce("q", b"x")
        server.is_holding = True
        for number in range(3 * limits.PRODUCE_WINDOW):
            q.produce_nowait("q", [b"%d" % number], kind=f"{number % 2}" if number % 2 else None)
            await settle_down()
        sequences = [message.sequence for message in server.sent(wire.Produce)]
        assert sequences == list(range(1, limits.PRODUCE_WINDOW + 2))
        server.is_holding = False
        await server.push()
        await q.flush()


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.HALTED])
async def test_what_a_partition_does_not_take_goes_to_another_one(
    autojump_clock: trio.testing.MockClock, code: Code
) -> None:
    async with running(ModelServer({"q": 3})) as (server, q):
        await q.produce("q", b"x")
        server.model.away[2] = code
        began = trio.current_time()
        for number in range(3 * limits.PRODUCE_WINDOW):
            await q.produce("q", b"%d" % number)
        assert trio.current_time() == began
        away = server.model.partitions[2]
        assert len(server.model.payloads("q")) == 3 * limits.PRODUCE_WINDOW + 1
        assert len(away.payloads) <= 1
        asked = [message for message in server.sent(wire.Produce) if message.partition == 2]
        assert len(asked) <= 5  # once for each PRODUCE_WINDOW messages
        server.model.away.clear()
        for number in range(2 * limits.PRODUCE_WINDOW):
            await q.produce("q", b"again %d" % number)
        assert len(away.payloads) > limits.PRODUCE_WINDOW // 4


async def test_when_no_partition_takes_anything_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with running(ModelServer({"q": 2})) as (server, q):
        await q.produce("q", b"x")
        server.model.away = {1: Code.UNAVAILABLE, 2: Code.UNAVAILABLE}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(q.produce, "q", b"y")
            await trio.sleep(10)
            assert server.model.payloads("q") == [b"x"]
            assert len(server.sent(wire.Produce)) < 50
            del server.model.away[2]
        assert sorted(server.model.payloads("q")) == [b"x", b"y"]


@pytest.mark.parametrize("keys", [(None, None), ("ada", "bob")])
async def test_a_partition_that_answers_nothing_holds_up_no_other(
    autojump_clock: trio.testing.MockClock, keys: tuple[str | None, str | None]
) -> None:
    """Not even what has a key that belongs to another one."""
    silent = 2
    async with running(ModelServer({"q": 2})) as (server, q):
        await q.produce("q", b"x")
        server.model.silent[silent] = []
        total = 10 * limits.PRODUCE_WINDOW
        share = limits.PRODUCE_WINDOW // 2
        for number in range(total):
            q.produce_nowait("q", [b"%d" % number], key=keys[number % 2])
            await settle_down()
        unanswered = len(server.model.silent[silent])
        assert unanswered == share
        waiting = total // 2 - share if keys[0] else 0
        assert q.outstanding == waiting + unanswered
        server.model.speak(silent)
        await server.push()
        await q.flush()
        assert len(dict.fromkeys(server.model.payloads("q"))) == total + 1


async def test_what_may_have_been_taken_goes_nowhere_else(autojump_clock: trio.testing.MockClock) -> None:
    async with running(ModelServer({"q": 3})) as (server, q):
        await q.produce("q", b"x")
        async with in_doubt(server, lambda: q.produce("q", b"y")) as ended:
            where = next(number for number, one in server.model.partitions.items() if b"y" in one.payloads)
            server.model.away[where] = Code.UNAVAILABLE
            server.is_holding = False
            server.cut()
            await trio.sleep(10)
            assert not ended
            await q.produce("q", b"z")
            server.model.away.clear()
        assert ended == [None]
        assert sorted(server.model.payloads("q")) == [b"x", b"y", b"z"]


async def test_a_queue_that_grew_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """Keys go where they now belong, and after a reconnect the new partition gets its share."""
    async with running() as (server, q):
        await q.produce("q", b"x")
        server.model.grow("q")
        async with trio.open_nursery() as nursery:
            for key in ("ada", "bob", "eve", "joe"):
                nursery.start_soon(partial(q.produce, "q", key.encode(), key=key))
        assert sorted(server.model.partitions[2].payloads) == [b"ada", b"eve"]
        await settle_down()
        for _ in range(4):
            await q.produce("q", b"y")
        assert server.model.partitions[2].payloads.count(b"y") == 2


async def test_a_producer_looks_again_which_partitions_there_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without any reconnect: the one that was away at first gets its share."""
    async with running() as (server, q):
        for _ in range(limits.PRODUCE_MESSAGES_PER_LOOK - 1):
            await q.produce("q", b"x")
        server.model.grow("q")
        assert len(server.sent(wire.Stats)) == 1
        await q.produce("q", b"x")
        await settle_down()
        assert len(server.sent(wire.Stats)) == 2
        for _ in range(4):
            await q.produce("q", b"y")
        assert server.model.partitions[2].payloads == [b"y", b"y"]


async def test_a_queue_that_is_made_anew_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        server.model.add_queue("q")
        with pytest.raises(Rejected, match="partition"):
            await q.produce("q", b"y")
        await settle_down()
        await q.produce("q", b"z")
        assert server.model.payloads("q") == [b"z"]


async def test_keys_of_several_partitions_in_one_call_are_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(ModelServer({"q": 2})) as (server, q):
        await q.produce("q", b"x")
        with pytest.raises(Rejected) as caught:
            await q.produce_batch("q", [b"1", b"2"], key=["ada", "bob"])
        assert (caught.value.code, caught.value.field) == (Code.MIXED_PARTITIONS, "key")
        await q.produce_batch("q", [b"1", b"2"], key=["a", "a"])
        assert len(server.model.payloads("q")) == 3


async def test_a_client_keeps_a_bounded_number_of_produce_sequences(
    autojump_clock: trio.testing.MockClock,
) -> None:
    count = limits.PRODUCE_STREAMS_MAX + 2
    async with running(ModelServer({f"q{number}": 1 for number in range(count)})) as (server, q):
        for number in (*range(count), 0):
            q.produce_nowait(f"q{number}", [b"x"])
            await q.flush()
        assert len(q._protocol._streams) == limits.PRODUCE_STREAMS_MAX
        assert len(server.model.payloads("q0")) == 2
        names = [(message.producer, message.sequence) for message in server.sent(wire.Produce)]
        assert len(dict.fromkeys(names)) == count + 1


async def test_what_the_server_is_too_busy_for_is_asked_again_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        server.model.refusals.extend([Code.OVERLOADED, Code.UNAVAILABLE, Code.OUTCOME_UNKNOWN])
        began = trio.current_time()
        await q.produce("q", b"x")
        assert server.model.payloads("q") == [b"x"]
        assert 0.03 < trio.current_time() - began < 3


async def test_a_server_that_goes_away_says_where_to(autojump_clock: trio.testing.MockClock) -> None:
    async with fake_server() as server, connect("server:2319", env=server.env()) as q:
        elsewhere = FakeServer(server.model, server.network)
        elsewhere.host = "other"
        async with trio.open_nursery() as nursery:
            await nursery.start(elsewhere.run)
            server.connections[0].outbox.append(wire.GoingAway(0, "other:2319"))
            await server.push()
            await settle_down()
            server.stop()
            await q.produce("q", b"x")
            assert len(elsewhere.sent(wire.Produce)) == 1
            elsewhere.stop()
            with pytest.raises(trio.TooSlowError), trio.fail_after(30):
                await q.produce("q", b"y")
            nursery.cancel_scope.cancel()


async def test_of_several_nodes_the_one_that_answers_is_found_again_and_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first is not there, the second goes away, the third takes over."""
    async with fake_server() as server:
        third = FakeServer(ModelServer({"q": 1}), server.network)
        third.host = "third"
        async with connect(f"nobody:1,{ADDRESS},third:2319", env=server.env()) as q:
            await q.produce("q", b"x")
            assert len(server.sent(wire.Produce)) == 1
            server.stop()
            async with trio.open_nursery() as nursery:
                await nursery.start(third.run)
                await q.produce("q", b"y")
                assert len(third.sent(wire.Produce)) == 1
                third.stop()
                nursery.cancel_scope.cancel()


async def test_a_client_leaves_a_server_that_goes_away_as_soon_as_it_holds_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not when the server's patience ends: until then nobody would serve it."""
    async with fake_server() as server, connect("server:2319", env=server.env()) as q:
        elsewhere = FakeServer(server.model, server.network)
        elsewhere.host = "other"
        await q.produce("q", b"held")
        batch = await q.reserve("q")
        assert batch is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(elsewhere.run)
            server.connections[0].outbox.append(wire.GoingAway(0, "other:2319"))
            await server.push()
            await settle_down()
            assert not elsewhere.sent(wire.Hello)
            await batch.complete()
            await settle_down()
            began = trio.current_time()
            await q.produce("q", b"x")
            assert len(elsewhere.sent(wire.Produce)) == 1
            assert trio.current_time() - began < 1
            elsewhere.stop()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [Code.SHUTTING_DOWN, Code.NOT_OWNER])
@pytest.mark.parametrize("how", ["sent away", "cut"])
async def test_a_reserve_that_a_stopping_node_refuses_is_served_by_another_one(
    autojump_clock: trio.testing.MockClock, code: Code, how: str
) -> None:
    async with fake_server() as server, connect("server:2319,other:2319", env=server.env()) as q:
        elsewhere = FakeServer(server.model, server.network)
        elsewhere.host = "other"
        await q.produce_batch("q", [b"held", b"wanted"])
        held = await q.reserve("q")
        assert held is not None
        async with trio.open_nursery() as nursery:
            await nursery.start(elsewhere.run)
            server.connections[0].refuses_to_reserve = code
            batches: list[Batch | None] = []

            async def reserve() -> None:
                batches.append(await q.reserve("q"))

            nursery.start_soon(reserve)
            await trio.sleep(2)
            assert not batches
            if how == "cut":
                server.stop()
            else:
                server.connections[0].outbox.append(wire.GoingAway(0, "other:2319"))
                await server.push()
                await held.complete()
            await trio.sleep(5)
            assert [batch.payloads for batch in batches if batch is not None] == [[b"wanted"]]
            elsewhere.stop()
            nursery.cancel_scope.cancel()


async def test_a_reserve_that_nobody_serves_is_told_in_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """RESERVE_REFUSALS_MAX."""
    async with running() as (server, q):
        await q.produce("q", b"x")
        server.connections[0].refuses_to_reserve = Code.SHUTTING_DOWN
        with pytest.raises(Rejected, match="shutting_down"):
            await q.reserve("q")
        assert len(server.sent(wire.Reserve)) == limits.RESERVE_REFUSALS_MAX + 1
        assert trio.current_time() < 60


# -- breaking connections -------------------------------------------------------------------------


async def test_a_produce_survives_a_cut_without_being_doubled(autojump_clock: trio.testing.MockClock) -> None:
    said: list[str] = []
    async with running(ModelServer({"q": 3}), notify=said.append) as (server, q):
        await q.produce("q", b"0")
        server.is_holding = True
        async with trio.open_nursery() as nursery:
            for number in range(1, 30):
                nursery.start_soon(q.produce, "q", b"%d" % number)
                await settle_down()
            server.cut()
            server.is_holding = False
            server.model.restart()
        assert sorted(server.model.payloads("q"), key=int) == [b"%d" % number for number in range(30)]
    assert said == [
        "lost the connection to server:2319 (the connection broke); reconnecting",
        "connected to server:2319 again",
    ]


@asynccontextmanager
async def in_doubt(
    server: FakeServer, call: Callable[[], Awaitable[object]]
) -> AsyncIterator[list[Exception | None]]:
    """The call is made and carried out, and its answer lost; in the block things may change, then it is asked
    again. Yields a list that has how it ended afterwards."""
    ended: list[Exception | None] = []

    async def ask() -> None:
        try:
            await call()
        except ClientError as error:
            ended.append(error)
        else:
            ended.append(None)

    server.is_holding = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await settle_down()
        assert not ended
        yield ended
        server.is_holding = False
        server.cut()


@pytest.mark.parametrize("code", [Code.HALTED, Code.DENIED, Code.UNKNOWN_QUEUE, Code.MIXED_PARTITIONS])
@pytest.mark.parametrize("partitions", [1, 2])
async def test_a_refusal_after_a_lost_answer_is_told_as_unknown(
    autojump_clock: trio.testing.MockClock, code: Code, partitions: int
) -> None:
    async with running(ModelServer({"q": partitions})) as (server, q):
        await q.produce("q", b"0")
        async with in_doubt(server, lambda: q.produce("q", b"1")) as ended:
            server.model.refusals.append(code)
        assert isinstance(ended[0], OutcomeUnknown)
        assert str(code) in str(ended[0])
        assert sorted(server.model.payloads("q")) == [b"0", b"1"]


async def test_a_refusal_before_an_answer_was_lost_is_told_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        server.model.refusals.append(Code.HALTED)
        with pytest.raises(Rejected, match="halted"):
            await q.produce("q", b"x")


async def test_nobody_knows_and_then_a_refusal_is_unknown(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        server.model.refusals.extend([Code.OUTCOME_UNKNOWN, Code.HALTED])
        with pytest.raises(OutcomeUnknown):
            await q.produce("q", b"x")


async def test_a_bad_item_is_known_as_bad_also_after_a_lost_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"0")
        results: dict[bytes, str] = {}

        async def produce(payload: bytes) -> None:
            try:
                await q.produce("q", payload)
                results[payload] = "in"
            except Rejected as error:
                results[payload] = error.code

        async with in_doubt(server, lambda: _all_of(produce, b"a", b"bad", b"b")):
            pass
        assert results == {b"a": "in", b"bad": Code.INVALID, b"b": "in"}
        assert sorted(server.model.payloads("q")) == [b"0", b"a", b"b"]


@pytest.mark.parametrize("verb", ["complete", "release", "retry", "dead", "extend"])
async def test_a_refused_settlement_after_a_lost_answer_is_told_as_unknown(
    autojump_clock: trio.testing.MockClock, verb: str
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        batch = await q.reserve("q", wait=5)
        assert batch is not None
        args = ("why",) if verb == "dead" else ()
        async with in_doubt(server, lambda: getattr(batch, verb)(*args)) as ended:
            server.model.refusals.append(Code.HALTED)
        assert isinstance(ended[0], OutcomeUnknown)


async def test_what_may_not_be_settled_any_more_is_given_back(autojump_clock: trio.testing.MockClock) -> None:
    """The permission went: whoever worked on it is told, the window is free, the item is somebody else's."""
    async with running() as (server, q):
        await q.produce_batch("q", [b"x", b"y"])
        async with q.consume("q", batch=2) as items:
            batch = await anext(items.batches())
            server.model.refusals.append(Code.DENIED)
            with pytest.raises(Rejected, match="denied"):
                await batch.complete(0, 1)
            again = await anext(items.batches())
            assert again.payloads == [b"x"]
            await again.complete()
            server.model.refusals.append(Code.DENIED)
            batch.complete_nowait(1, 1)
            again = await anext(items.batches())
            assert again.payloads == [b"y"]
            await again.complete()
            assert items.refused_items == 1
        assert list(server.model.partitions[1].line) == []


async def test_what_a_halted_partition_kept_is_given_back_when_it_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The caller was told that it is not settled and works on it no more; nor could anybody else."""
    async with running() as (server, q):
        await q.produce_batch("q", [b"x", b"y"])
        async with q.consume("q", batch=2) as items:
            batch = await anext(items.batches())
            server.model.halted.append(1)
            with pytest.raises(Rejected, match="halted"):
                await batch.complete(0, 1)
            batch.complete_nowait(1, 1)
            await trio.sleep(10)
            assert items.refused_items == 1
            assert list(server.model.partitions[1].line) == []
            server.model.halted.clear()
            again: list[bytes] = []
            while len(again) < 2:
                batch = await anext(items.batches())
                again += batch.payloads
                await batch.complete()
        assert sorted(server.model.completed("q")) == [b"x", b"y"]


async def test_who_leaves_does_not_wait_for_a_halted_partition(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        began = trio.current_time()
        async with q.consume("q") as items:
            batch = await anext(items.batches())
            server.model.halted.append(1)
            with pytest.raises(Rejected, match="halted"):
                await batch.complete()
        assert trio.current_time() - began < 1


async def test_what_was_completed_is_not_told_as_lost(autojump_clock: trio.testing.MockClock) -> None:
    """The answer is lost, and so is the session; the reservation is not held because it was settled."""
    async with running() as (server, q):
        await q.produce_batch("q", [b"x", b"y"])
        batch = await q.reserve("q", items=2, wait=5)
        assert batch is not None
        async with in_doubt(server, lambda: batch.complete(0, 1)) as ended:
            server.model.end_reservation(batch.token)
            server.model.sessions.clear()
        assert batch.lost
        assert ended == [None]
        assert server.model.completed("q") == [b"x"]
        with pytest.raises(ReservationLost):
            await batch.complete(1, 1)


async def test_what_was_sent_is_unknown_when_the_client_gives_up_and_what_was_not_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(reconnect_timeout="1m") as (server, q):
        await q.produce("q", b"0")
        async with in_doubt(server, lambda: q.produce("q", b"1")) as sent:
            server.stop()
            await settle_down()
            with pytest.raises(Disconnected):
                await q.produce("q", b"2")
        assert isinstance(sent[0], OutcomeUnknown)


async def test_who_is_not_let_in_again_does_not_know_what_became_of_what_was_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(token="old") as (server, q):
        await q.produce("q", b"0")
        server.model.secret = "new"
        async with in_doubt(server, lambda: q.produce("q", b"1")) as ended:
            pass
        assert isinstance(ended[0], OutcomeUnknown)
        with pytest.raises(Rejected, match="unauthenticated"):
            await q.stats("q")


async def _all_of(call: Callable[[bytes], Awaitable[None]], *payloads: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for payload in payloads:
            nursery.start_soon(call, payload)


async def test_a_server_that_stays_away_too_long_fails_what_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with fake_server() as server:
        with pytest.raises(Disconnected, match="no connection to server:2319 for 1m: "):  # noqa: PT012 - the block is what raises
            async with connect(ADDRESS, env=server.env(), reconnect_timeout="1m") as q:
                await q.produce("q", b"0")
                server.stop()
                await settle_down()
                began = trio.current_time()
                try:
                    await q.produce("q", b"1")
                finally:
                    assert 60 < trio.current_time() - began < 120


async def test_a_link_that_is_half_gone_is_noticed_and_left(autojump_clock: trio.testing.MockClock) -> None:
    said: list[str] = []
    async with running(notify=said.append) as (server, q):
        await q.produce("q", b"0")
        server.is_mute = True
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(q.produce, "q", b"1")
            while not said:
                await trio.sleep(1)
            assert trio.current_time() - began < 25
            server.is_mute = False
        assert "no answer to a ping" in said[0]
        assert server.model.payloads("q") == [b"0", b"1"]


async def test_what_cannot_be_repeated_is_told_as_unknown(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        results: list[object] = []

        async def ask(call: Any, *args: Any) -> None:
            try:
                await call(*args)
            except OutcomeUnknown as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, lambda: q.reserve("q", wait=60))
            nursery.start_soon(ask, lambda: q.call("queues.delete", {"name": "q"}))
            await settle_down()
            server.cut()
        assert len(results) == 2
        assert (await q.stats("q")).partitions[0]["ready"] == 0


async def test_a_read_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await q.call("queues.list", is_repeatable=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle_down()
            server.model.results["queues.list"] = {"queues": []}
            server.cut()
        assert answers == [{"queues": []}]
        assert [method for method, _ in server.model.calls] == ["queues.list", "queues.list"]


async def test_reservations_are_kept_over_a_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        async with q.consume("q") as items:
            async for item in items:
                async with item:
                    server.cut()
                    await q.produce("q", b"y")
                if item.payload == b"y":
                    break
        assert server.model.completed("q") == [b"x", b"y"]
        assert len(server.sent(wire.Subscribe)) >= 2


async def test_a_completion_whose_answer_was_lost_is_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        async with q.consume("q") as items:
            batch = await anext(items.batches())
            server.is_holding = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(batch.complete)
                await settle_down()
                assert server.model.completed("q") == [b"x"]
                server.is_holding = False
                server.cut()
        assert server.model.completed("q") == [b"x"]
        assert len(server.sent(wire.Complete)) == 2


async def test_a_stray_is_given_back(autojump_clock: trio.testing.MockClock) -> None:
    """A server that restarted lists what it does not push again: nobody here could work on it."""
    async with running() as (server, q):
        await q.produce("q", b"x")
        server.is_holding = True
        with trio.move_on_after(1):
            await q.reserve("q")
        assert server.model.partitions[1].line.count(1) == 0
        server.is_holding = False
        server.model.sessions["s0.1"].pushes.clear()
        server.cut()
        await trio.sleep(3)
        assert list(server.model.partitions[1].line) == [1]


# -- consume --------------------------------------------------------------------------------------


async def take_one(q: Client, queue: str = "q") -> Item:
    batch = await q.reserve(queue, wait=5)
    assert batch is not None
    return batch.item(0)


async def test_a_clean_exit_completes(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        async with await take_one(q) as item:
            assert (item.id, item.payload, item.text, item.attempt) == ("1.1", b"x", "x", 1)
            assert not item.is_settled
        assert server.model.completed("q") == [b"x"]


async def test_an_exception_retries_and_goes_on_up(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        with pytest.raises(ZeroDivisionError):
            async with await take_one(q):
                raise ZeroDivisionError
        assert len(server.sent(wire.Retry)) == 1
        item = await take_one(q)
        assert item.attempt == 2


async def test_an_exception_may_be_kept(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        seen = 0
        async with q.consume("q", reraise=False) as items:
            async for item in items:
                seen += 1
                async with item:
                    if item.attempt < 3:
                        raise ZeroDivisionError
                if item.attempt == 3:
                    break
        assert seen == 3
        assert server.model.completed("q") == [b"x"]


async def test_a_cancelled_block_releases(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        item = await take_one(q)
        with trio.move_on_after(1):
            async with item:
                await trio.sleep_forever()
        await q.wait_settled()
        assert len(server.sent(wire.Release)) == 1
        assert not server.sent(wire.Retry)


async def test_a_client_cancelled_from_outside_gives_back_what_it_holds_and_says_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As Ctrl-C does: at once, and not by the silence of a connection that was cut."""
    async with fake_server() as server:
        with trio.CancelScope() as everything:
            async with connect(ADDRESS, env=server.env()) as q, q.consume("q") as items:
                await q.produce("q", b"x")
                async for item in items:
                    async with item:
                        began = trio.current_time()
                        everything.cancel()
                        await trio.sleep_forever()
        assert trio.current_time() - began < 1
        assert len(server.sent(wire.Release)) == 1
        assert len(server.sent(wire.Unsubscribe)) == 1


async def test_a_deadline_on_the_items_scope_is_a_failed_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        item = await take_one(q)
        async with item:
            item.scope.deadline = trio.current_time() + 1
            await trio.sleep_forever()
        assert len(server.sent(wire.Retry)) == 1


@pytest.mark.parametrize("by", ["consume", "reserve"])
async def test_a_lost_reservation_cancels_the_work_and_says_so(
    autojump_clock: trio.testing.MockClock, by: str
) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")

        async def lose() -> None:
            await settle_down()
            server.connections[0].lose("t1")
            await server.push()

        async with trio.open_nursery() as nursery:
            if by == "reserve":
                item = await take_one(q)
                with pytest.raises(ReservationLost, match="deadline"):  # noqa: PT012 - the block is what raises
                    async with item:
                        nursery.start_soon(lose)
                        await trio.sleep_forever()
            else:
                async with q.consume("q", batch=1, window=1) as items:
                    item = await anext(items)
                    with pytest.raises(ReservationLost, match="deadline"):  # noqa: PT012 - the block is what raises
                        async with item:
                            nursery.start_soon(lose)
                            await trio.sleep_forever()
                    assert items.lost_reservations == 1
        assert not server.sent(wire.Complete)
        assert not server.model.late_settles


async def test_what_was_lost_before_it_was_looked_at_is_passed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce_batch("q", [b"x"])
        async with q.consume("q", batch=1, window=1) as items:
            await settle_down()
            server.connections[0].lose("t1")
            await server.push()
            await settle_down()
            item = await anext(items)
            assert item.attempt == 2
            with pytest.raises(ReservationLost):
                async with Item(items_batch(items, lost=True, like=item), 0):
                    raise AssertionError("entered what was lost")


def items_batch(items: Any, *, lost: bool, like: Item) -> Any:
    batch = like._batch
    batch.reservation.lost = "gone" if lost else ""
    return batch


async def test_the_other_verbs(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        for number in range(4):
            await q.produce("q", b"%d" % number)
        async with await take_one(q) as item:
            await item.dead("no good")
        async with await take_one(q) as item:
            await item.retry(delay="30s")
        async with await take_one(q) as item:
            await item.release()
        async with await take_one(q) as item:
            assert await item.extend("1m") == 77_000_000
        assert server.model.partitions[1].dead == {1: "no good"}
        assert server.sent(wire.Retry)[0].delay == 30_000_000
        assert server.sent(wire.Extend)[0].timeout == 60_000_000
        assert server.model.completed("q") == [b"3"]


async def test_an_item_is_settled_once(autojump_clock: trio.testing.MockClock) -> None:
    from querator.client import AlreadySettled

    async with running() as (_, q):
        await q.produce_batch("q", [b"a", b"b"])
        batch = await q.reserve("q", items=2)
        assert batch is not None
        await batch.item(0).complete()
        with pytest.raises(AlreadySettled):
            await batch.item(0).complete()
        assert batch.left == 1
        await batch.complete()
        assert batch.left == 0
        await batch.complete()


async def test_consecutive_completions_of_a_reservation_become_ranges(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        await q.produce_batch("q", [b"x"] * 10)
        async with q.consume("q") as items:
            batch = await anext(items.batches())
            assert (batch.count, list(batch.items)) == (10, list(range(1, 11)))
            for index in (0, 1, 2, 5, 6):
                batch.complete_nowait(index, 1)
            await items.flush()
            assert [message.ranges for message in server.sent(wire.Complete)] == [[(0, 3), (5, 2)]]
            batch.complete_nowait()
            await items.flush()
            assert server.sent(wire.Complete)[1].ranges == [(3, 2), (7, 3)]
        assert len(server.model.completed("q")) == 10


async def test_a_whole_batch_is_completed_by_its_token_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce_batch("q", [b"x"] * 10)
        async with q.consume("q") as items:
            batch = await anext(items.batches())
            await batch.complete()
        (message,) = server.sent(wire.Complete)
        assert message.ranges is None


async def test_a_large_reservation_comes_in_parts(autojump_clock: trio.testing.MockClock) -> None:
    model = ModelServer()
    model.part_items_max = 4
    async with running(model) as (_, q):
        await q.produce_batch("q", [b"%d" % number for number in range(10)], kind=[None, "k"] * 5)
        batch = await q.reserve("q", items=10)
        assert batch is not None
        assert batch.payloads == [b"%d" % number for number in range(10)]
        assert [batch.item(index).kind for index in range(4)] == [None, "k", None, "k"]
        assert batch.ids[-1] == "1.10"
        await batch.complete()
        assert len(model.completed("q")) == 10


async def test_leaving_gives_back_what_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce_batch("q", [b"%d" % number for number in range(10)])
        async with q.consume("q", batch=3) as items:
            async for batch in items.batches():
                await batch.complete(0, 1)
                break
        assert server.model.completed("q") == [b"0"]
        assert not server.model.held(q.session)
        assert sorted(server.model.partitions[1].line) == list(range(2, 11))


async def test_an_abandoned_reserve_gives_back_what_comes_late(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (server, q):
        with trio.move_on_after(1):
            await q.reserve("q", wait=60)
        await q.produce("q", b"x")
        await settle_down()
        assert list(server.model.partitions[1].line) == [1]


async def test_reserve_answers_none_when_nothing_is_ready(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (_, q):
        assert await q.reserve("q") is None


async def test_a_queue_that_is_not_there(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (_, q):
        for call in (
            lambda: q.produce("nowhere", b"x"),
            lambda: q.reserve("nowhere"),
            lambda: q.stats("nowhere"),
            lambda: q.consume("nowhere").__aenter__(),
        ):
            with pytest.raises(Rejected) as caught:
                await call()
            assert caught.value.code == Code.UNKNOWN_QUEUE


async def test_pushes_are_confirmed(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce("q", b"x")
        async with q.consume("q") as items:
            await anext(items)
            await settle_down()
            assert server.sent(wire.Confirm)[-1].push == 1
            assert not server.model.sessions[q.session].pushes


async def test_refusals_that_nobody_waits_for_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        await q.produce_batch("q", [b"x"] * 3)
        async with q.consume("q") as items:
            batch = await anext(items.batches())
            server.model.end_reservation(batch.token)
            batch.complete_nowait()
            await items.flush()
            assert items.refused_items == 3


async def test_a_subscription_that_ends_is_asked_for_again_or_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody waits for what will never come."""
    async with running() as (server, q), q.consume("q") as items:
        await settle_down()
        (asked,) = server.sent(wire.Subscribe)
        (connection,) = server.connections
        connection.outbox.append(wire.Rejected(asked.id, Code.SHUTTING_DOWN, "the queue moves"))
        del connection.subscriptions[asked.id]
        await server.push()
        await trio.sleep(10)
        assert [again.id for again in server.sent(wire.Subscribe)] == [asked.id] * 2
        await q.produce("q", b"x")
        async with await anext(items):
            pass
        connection.outbox.append(wire.Rejected(asked.id, Code.UNKNOWN_QUEUE, "it was deleted", "queue"))
        del connection.subscriptions[asked.id]
        await server.push()
        with pytest.raises(Rejected, match="it was deleted"):
            await anext(items)


async def test_a_watch_that_ends_says_why(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q), q.watch("q") as reports:
        await anext(reports)
        (asked,) = server.sent(wire.Watch)
        server.connections[0].outbox.append(wire.Rejected(asked.id, Code.DENIED, "not any more"))
        await server.push()
        with pytest.raises(Rejected, match="not any more"):
            await anext(reports)


async def test_watch_reports_until_it_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        async with q.watch("q", interval="2s") as reports:
            assert (await anext(reports)).partitions[0]["produced"] == 0
            server.cut()
            await q.produce("q", b"x")
            assert (await anext(reports)).queue == "q"
        await settle_down()
        assert server.sent(wire.Watch)[0].interval == 2_000_000
        assert server.sent(wire.Unwatch)


async def test_a_call_passes_params_and_refusals(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (server, q):
        server.model.results["queues.info"] = {"name": "q"}
        server.model.results["queues.delete"] = wire.Rejected(0, Code.DENIED, "no", "name")
        assert await q.call("queues.info", {"name": "q"}) == {"name": "q"}
        assert server.model.calls == [("queues.info", {"name": "q"})]
        with pytest.raises(Rejected) as caught:
            await q.call("queues.delete", {"name": "q"})
        assert (caught.value.code, caught.value.field) == (Code.DENIED, "name")
