"""A server with two PostgreSQL servers: one is killed, and only what lives there is away until it is back."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from querator.client import Client, connect
from querator.core import limits
from tests.blackbox.arena import address_of
from tests.blackbox.processes import Server, until
from tests.postgres import Cluster, own_cluster, shared_cluster

PATIENCE = 300


@pytest.fixture
def second() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


async def conditions(client: Client) -> dict[str, str]:
    queue = await client.call("queues.info", {"name": "q"})
    return {place["store"]: place["condition"] for place in queue["places"]}


@pytest.mark.timeout(PATIENCE)
async def test_one_postgresql_is_killed_and_the_queue_goes_on_with_the_other(
    second: Cluster, tmp_path: Path
) -> None:
    first = shared_cluster()
    main = address_of(first.port, first.new_database("querator_template"))
    more = address_of(second.port, second.new_database("querator_template"))
    server = Server(f"main={main} more={more}", tmp_path)
    answered: list[bytes] = []

    try:
        await server.start_surely()
        async with connect(server.address) as client, trio.open_nursery() as nursery:

            async def produce(payload: bytes, **columns: Any) -> None:
                await client.produce("q", payload, **columns)
                answered.append(payload)

            await client.call("queues.create", {"name": "q", "partitions": 2})
            assert await conditions(client) == {"main": "open", "more": "open"}
            for _ in range(4):
                await produce(b"before")
            second.kill()
            # What is under way to the partition that is away is answered when that is back; the others now.
            for number in range(8):
                # Calls with other columns than the one before do not share its message.
                nursery.start_soon(partial(produce, b"during", **{"kind": "odd"} if number % 2 else {}))
            await until("the other partition answers", lambda: b"during" in answered)
            for _ in range(2 * limits.PRODUCE_WINDOW):
                await produce(b"and on")

            async def is_noticed() -> bool:
                health = await server.health()
                if health is None:
                    return False
                assert (health[0], json.loads(health[1])["status"]) == (200, "pass")
                return "store 'more' is away" in health[1]

            await until("the store that is away is seen in the health", is_noticed)
            # A start does not need it either.
            server.kill()
            await server.start_surely()
            assert await conditions(client) == {"main": "open", "more": "unavailable"}
            nursery.start_soon(produce, b"without")
            await until("the other partition answers after a start", lambda: b"without" in answered)
            await client.call("queues.create", {"name": "meanwhile", "partitions": 2})
            places = (await client.call("queues.info", {"name": "meanwhile"}))["places"]
            assert [place["store"] for place in places] == ["main", "main"]
            second.start()

            async def is_back() -> bool:
                return await conditions(client) == {"main": "open", "more": "open"}

            await until("the second store is back", is_back)
            await until("all is answered", lambda: len(answered) == 4 + 8 + 2 * limits.PRODUCE_WINDOW + 1)
            taken: list[bytes] = []
            while len(taken) < len(answered):
                batch = await client.reserve("q", items=100, wait=5)
                assert batch is not None, taken
                taken += batch.payloads
                await batch.complete()
            assert sorted(taken) == sorted(answered)
    finally:
        server.end()
