"""A PostgreSQL whose disk is full, or whose fsync fails, under a server."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from tests.blackbox.arena import Arena, open_arena
from tests.blackbox.faults import APPEND_FAILED, Fault
from tests.blackbox.ledger import Row
from tests.blackbox.processes import until
from tests.blackbox.run import conclude, strike
from tests.broken_disks import SMALL_DISK_SETTINGS, fill, fsync_switch, small_disk
from tests.postgres import Cluster, prepare

PAYLOAD_BYTES = 4_000
"""Large enough that a table soon needs another page."""


async def full_disk(folder: Path, seed: int, times: int) -> list[Row]:
    """Raises NotHere without the right to mount."""

    async def strike_once(arena: Arena) -> None:
        arena.tell("the disk is full")
        ballast = fill(arena.postgres.root)
        async with _felt(arena):
            ballast.unlink()
            arena.tell("there is room again")

    with small_disk() as root:
        cluster = Cluster.create(root)
        try:
            cluster.start(SMALL_DISK_SETTINGS)
            prepare(cluster)
            clients = {"payload": PAYLOAD_BYTES, "rate": 30}
            async with open_arena(folder, seed=seed, cluster=cluster, clients=clients) as arena:
                await strike(arena, [Fault("disk full", strike_once, APPEND_FAILED)] * times)
                return [await conclude(arena, "disk full", times)]
        finally:
            cluster.stop()


async def failing_fsync(folder: Path, seed: int, times: int) -> list[Row]:
    """Raises NotHere without a compiler."""
    cluster = Cluster.create()
    try:
        switch, environment = fsync_switch(cluster)
        cluster.start(environment=environment)
        prepare(cluster)

        async def strike_once(arena: Arena) -> None:
            arena.tell("fsync fails")
            switch.touch()
            async with _felt(arena):
                switch.unlink()
                arena.tell("fsync works again")

        async with open_arena(folder, seed=seed, cluster=cluster) as arena:
            await strike(arena, [Fault("fsync fails", strike_once, APPEND_FAILED)] * times)
            return [await conclude(arena, "fsync fails", times)]
    finally:
        cluster.destroy()


@contextlib.asynccontextmanager
async def _felt(arena: Arena) -> AsyncIterator[None]:
    """Wait until appends fail; in the block it is healed; afterwards PostgreSQL is there, started again if it
    had given up."""
    before = arena.server.events()[APPEND_FAILED[0]]
    await until("an append fails", lambda: arena.server.events()[APPEND_FAILED[0]] > before)
    await trio.sleep(arena.dice.uniform(0, 0.5))
    yield
    cluster = arena.postgres

    cluster.start_if_ended()
