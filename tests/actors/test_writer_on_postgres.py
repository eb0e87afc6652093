"""A node on a real PostgreSQL: what blocks one partition delays no other, and leaves no dead rows."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio

from querator.actors.node import Node, NodeOptions, open_node
from querator.core.commands import Verb
from querator.core.ids import MILLISECOND, Duration, PartitionId, QueueName
from querator.core.replies import Produced
from querator.env.real import real_env
from querator.log.postgres import PostgresLog, append
from tests.actors.conftest import Client, World
from tests.postgres import Cluster, hold_next_position

Q = QueueName("q")
PATIENCE_SECONDS = 60.0
UNTIL_RELEASED = """
    create table public.released ();
    grant select on public.released to public;
    create function public.wait() returns trigger language plpgsql as
        $$ begin
            while not exists (select from public.released) loop perform pg_sleep(0.01); end loop;
            return new;
        end $$;
    create trigger wait before insert on querator.log for each row
        when (new.partition = {partition}) execute function public.wait();
"""


@asynccontextmanager
async def a_node(cluster: Cluster, database: str, partitions: int) -> AsyncIterator[Node]:
    env = real_env()
    log = PostgresLog(env, cluster.dsn(database))
    async with open_node({"postgres": log}, env, NodeOptions()) as node:
        await World().create(node, partitions=partitions)
        yield node


class Producer(Client):
    """Counts its requests."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.asked = 0

    def send(self, *partitions: PartitionId) -> list[int]:
        """An item to each of them, in one turn."""
        requests = []
        self.node.broker.begin_turn()
        for partition in partitions:
            self.asked += 1
            requests.append(self.asked)
            self.produce_to(partition, b"x", request=self.asked)
        self.node.broker.end_turn()
        return requests

    async def wait(self, requests: Sequence[int]) -> None:
        """Until all of them are in the log."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not self.answered(requests):
                await trio.sleep(0.001)
        for request in requests:
            assert isinstance(self.answer(request), Produced)

    def answered(self, requests: Sequence[int]) -> bool:
        told = [request for request, _ in self.told]
        return all(request in told for request in requests)


async def go_on_beside(producer: Producer, blocked: PartitionId, others: Sequence[PartitionId]) -> list[int]:
    """Send to all, then again and again to the others, each time until it is in; the blocked requests."""
    stuck = producer.send(blocked, *others)
    await producer.wait(stuck[1:])
    for _ in range(30):
        await producer.wait(producer.send(*others))
    assert not producer.answered(stuck[:1])
    return stuck[:1]


async def test_a_rivals_transaction_at_one_partition_delays_none_of_the_others(
    cluster: Cluster, database: str
) -> None:
    """It holds the next position of that partition, uncommitted, all the while."""
    async with a_node(cluster, database, 4) as node:
        blocked, *others = node.broker.queues[Q].partitions
        producer = Producer(node)
        with psycopg.connect(cluster.dsn(database)) as rival:
            hold_next_position(rival, blocked)
            stuck = await go_on_beside(producer, blocked, others)
            rival.rollback()
        await producer.wait(stuck)
        await producer.wait(producer.send(blocked, *others))


async def test_a_statement_that_does_not_end_delays_no_other_partition(
    cluster: Cluster, database: str
) -> None:
    """No lock is waited for, so nothing in the server gives up."""
    async with a_node(cluster, database, 4) as node:
        blocked, *others = node.broker.queues[Q].partitions
        producer = Producer(node)
        with cluster.admin(database) as admin:
            admin.execute(UNTIL_RELEASED.format(partition=blocked).encode())
            stuck = producer.send(blocked)
            await trio.sleep(0)
            stuck += await go_on_beside(producer, blocked, others)
            admin.execute("insert into public.released default values")
        await producer.wait(stuck)
        await producer.wait(producer.send(blocked, *others))


async def test_those_in_one_statement_with_the_slow_one_are_set_free(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled, and they are sent again without the one that is to blame."""
    monkeypatch.setattr(append, "APPEND_CANCEL_WAIT", Duration(200 * MILLISECOND))
    async with a_node(cluster, database, 4) as node:
        blocked, *others = node.broker.queues[Q].partitions
        producer = Producer(node)
        with cluster.admin(database) as admin:
            admin.execute(UNTIL_RELEASED.format(partition=blocked).encode())
            stuck = await go_on_beside(producer, blocked, others)
            admin.execute("insert into public.released default values")
        await producer.wait(stuck)
        await producer.wait(producer.send(blocked, *others))


async def test_life_cycles_leave_no_dead_rows_in_the_log(cluster: Cluster, database: str) -> None:
    """Neither an item nor a record is ever updated or deleted; the statistics are the server's own."""
    async with a_node(cluster, database, 2) as node:
        consumer = Producer(node)
        for _ in range(20):
            await consumer.wait(consumer.send(*node.broker.queues[Q].partitions))
        consumer.told.clear()
        verbs = (Verb.COMPLETE, Verb.RETRY, Verb.RELEASE, Verb.DEAD, Verb.EXTEND)
        for request in range(100, 140):
            consumer.reserve(request=request)
            with trio.fail_after(PATIENCE_SECONDS):
                while not consumer.answered([request]):
                    await trio.sleep(0.001)
            consumer.settle(consumer.reservations[-1], verbs[request % len(verbs)], request=request + 100)
            if request % 10 == 0:
                await node.stores["postgres"].roll()
        with trio.fail_after(PATIENCE_SECONDS):
            while not consumer.answered(range(200, 240)):
                await trio.sleep(0.001)
    with cluster.admin(database) as admin:
        if admin.info.server_version >= 150_000:
            admin.execute("select pg_stat_force_next_flush()")
        with trio.fail_after(PATIENCE_SECONDS):
            # Each backend says what it did when it ends, if not before.
            while not (rows := admin.execute(CHANGED).fetchone() or ())[:1] > (100,):
                await trio.sleep(0.02)
    assert rows[1:] == (0, 0, 0)


CHANGED = """
    select sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del), sum(n_dead_tup) from pg_stat_user_tables
    where schemaname = 'querator' and (relname like 'log%' or relname in ('head', 'bucket', 'bucket_dropped'))
"""
