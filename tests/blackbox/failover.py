"""A PostgreSQL that is lost, and its standby promoted: with everything in it, or without the end."""

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from querator.core.limits import WITNESS_INTERVAL
from querator.env import seconds
from tests.blackbox.arena import Arena, open_arena
from tests.blackbox.judge import LOST, judge
from tests.blackbox.ledger import Row
from tests.blackbox.processes import until
from tests.blackbox.record import read_account
from tests.blackbox.run import RunFailed, conclude
from tests.postgres import Cluster, own_cluster

LOSS = "had been acknowledged"
"""What the health document says of a log that ends too early."""


async def to_a_standby_with_everything(folder: Path, seed: int, times: int) -> list[Row]:
    """Commits wait for the standby (synchronous replication), so nothing acknowledged is missing when it is
    promoted: the server claims anew, under another incarnation, and goes on. ``times``: each needs a new
    standby of the last one."""
    name = "failover, standby up to date"
    with contextlib.ExitStack() as clusters:
        primary = clusters.enter_context(own_cluster())
        async with open_arena(folder, seed=seed, cluster=primary) as arena:
            for _ in range(times):
                standby = clusters.enter_context(_standby(arena.postgres))
                await _follow(arena.postgres, standby)
                _set(arena.postgres, "synchronous_standby_names", "*")
                await arena.more()
                await _fail_over(arena, standby)
                _set(standby, "synchronous_standby_names", "")
                await arena.more()
            return [await conclude(arena, name, times)]


async def to_a_lagging_standby(folder: Path, seed: int, times: int) -> list[Row]:
    """Acknowledged items are missing from the promoted standby. The server must not go on as if they had
    never been: the partitions halt, also for a server that is started anew. Once: what is halted stays so.
    """
    del times
    async with _left_behind(folder, seed) as arena:
        acknowledged = await arena.wait_still()
        tails = await _tails(arena)
        await trio.sleep(1.2 * seconds(WITNESS_INTERVAL))
        arena.tell("SIGKILL to the server, and a new one")
        arena.server.kill()
        await arena.server.start_surely()
        await until("the loss is noticed again", lambda: _is_halted(arena))
        if await arena.wait_still() != acknowledged:
            raise RunFailed("the server went on over a log that had lost its end")
        for client in arena.clients:
            client.end()
        await arena.server.stop()
        if await _tails(arena) != tails:
            raise RunFailed(f"appended to a log that had lost its end: {tails}, now {await _tails(arena)}")
        judgement = await judge(arena, is_drained=False)
        if not judgement.lost:
            raise RunFailed("nothing acknowledged was lost, so there was nothing to notice")
        note = "lost by PostgreSQL: halted (data_loss_suspected)"
        return [judgement.row("failover, standby lags", 1, note)]


async def to_a_lagging_standby_that_is_accepted(folder: Path, seed: int, times: int) -> list[Row]:
    """An operator takes them as they are: the clients go on by themselves, and what was lost is what the
    operator was told, and nothing that was acknowledged afterwards."""
    del times
    async with _left_behind(folder, seed) as arena:
        await arena.wait_still()
        before = read_account(arena.history).seen.productions
        kept = dict(await _tails(arena))
        for partition, tail in kept.items():
            told = await trio.to_thread.run_sync(_accept_loss, arena, partition)
            arena.tell(f"an operator accepts the loss of partition {partition}: {told}")
            if not (told["kept"] == tail and told["known"] > tail):
                raise RunFailed(f"partition {partition} ends at {tail}, and the operator was told {told}")
        if await _is_halted(arena):
            raise RunFailed("accepted, and halted all the same")
        await arena.more()
        await arena.drain()
        await arena.close()
        judgement = await judge(arena)
        lost = [fault for fault in judgement.faults if fault.startswith(LOST)]
        if not lost or len(lost) != judgement.lost:
            raise RunFailed("nothing acknowledged was lost, so there was nothing to accept")
        gone = dict.fromkeys(f"{LOST}{payload!r}" for one in before for payload in one.payloads)
        after = [fault for fault in lost if fault not in gone]
        # Settlements in the lost end are lost as well: such an item is settled again, which is no fault here.
        after += [
            fault for fault in judgement.faults if fault.startswith(("querator log verify", "S6", "L1"))
        ]
        if after:
            raise RunFailed(f"after the loss was accepted: {after}")
        return [judgement.row("failover, standby lags, loss accepted", 1, "lost by PostgreSQL, and accepted")]


def _accept_loss(arena: Arena, partition: int) -> dict[str, int]:
    """What ``querator partitions accept-loss`` says."""
    command = [
        sys.executable,
        "-m",
        "querator",
        "partitions",
        "accept-loss",
        str(partition),
        "--yes",
        "--json",
    ]
    done = subprocess.run(
        [*command, "--address", arena.server.address], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise RunFailed(f"the loss could not be accepted: {done.stderr}")
    told: dict[str, int] = json.loads(done.stdout)
    return told


@contextlib.asynccontextmanager
async def _left_behind(folder: Path, seed: int) -> AsyncIterator[Arena]:
    """A run whose primary is lost after its standby had got nothing for a while; the loss is noticed."""
    with own_cluster() as primary, _standby(primary) as standby:
        async with open_arena(folder, seed=seed, cluster=primary) as arena:
            await arena.more()
            await _follow(primary, standby)
            _set(standby, "primary_conninfo", "")
            await until("the standby is left behind", lambda: not _rows(primary, "table pg_stat_replication"))
            arena.tell("the standby gets nothing more")
            await arena.more(100, 100)
            await _fail_over(arena, standby)
            await until("the loss is noticed", lambda: _is_halted(arena))
            arena.tell("the loss is noticed")
            yield arena


@contextlib.contextmanager
def _standby(primary: Cluster) -> Iterator[Cluster]:
    standby = primary.copy(follows=True)
    try:
        standby.start({"hot_standby": "on"})
        yield standby
    finally:
        standby.destroy()


async def _follow(primary: Cluster, standby: Cluster) -> None:
    await until("the standby follows", lambda: bool(_rows(primary, "table pg_stat_replication")))
    ((position,),) = _rows(primary, "select pg_current_wal_lsn()::text")
    reached = f"select pg_last_wal_replay_lsn() >= '{position}'"
    await until("the standby has caught up", lambda: _rows(standby, reached) == [(True,)])


async def _fail_over(arena: Arena, standby: Cluster) -> None:
    """The primary dies, the standby is promoted, and the link leads there."""
    arena.tell("the primary is killed, and the standby promoted")
    await trio.to_thread.run_sync(arena.postgres.kill)
    standby.promote()
    await until("it is promoted", lambda: _rows(standby, "select pg_is_in_recovery()") == [(False,)])
    arena.cluster = standby
    arena.link.target = standby.port
    arena.link.cut()


async def _is_halted(arena: Arena) -> bool:
    health = await arena.server.health()
    return health is not None and health[0] == 503 and LOSS in health[1]


async def _tails(arena: Arena) -> list[tuple[int, int]]:
    """(partition, position) of the queue's partitions, as the log has them."""
    found = []
    async with arena.open_log() as log:
        for partition in await log.partitions():
            tail = await log.tail(partition)
            if partition and tail is not None:
                found.append((int(partition), int(tail.position)))
    return found


def _rows(cluster: Cluster, statement: str) -> list[tuple[object, ...]]:
    with cluster.admin() as admin:
        return admin.execute(statement.encode()).fetchall()


def _set(cluster: Cluster, setting: str, value: str) -> None:
    with cluster.admin() as admin:
        admin.execute(f"alter system set {setting} = '{value}'".encode())
        admin.execute("select pg_reload_conf()")
