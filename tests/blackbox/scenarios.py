"""All that can be run, by name; each ``run(folder, seed, times)`` gives the rows of its ledger.

A scenario that this machine cannot do raises NotHere (tests/broken_disks.py) with the reason.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs

from tests.blackbox.arena import open_arena
from tests.blackbox.disks import failing_fsync, full_disk
from tests.blackbox.failover import (
    to_a_lagging_standby,
    to_a_lagging_standby_that_is_accepted,
    to_a_standby_with_everything,
)
from tests.blackbox.faults import CLIENT_FAULTS, POSTGRES_FAULTS, SERVER_FAULTS, Fault
from tests.blackbox.ledger import Row
from tests.blackbox.ownership import OWNERSHIP_FAULTS, watching
from tests.blackbox.run import RunFailed, conclude, strike
from tests.postgres import own_cluster


@attrs.frozen
class Scenario:
    name: str
    run: Callable[[Path, int, int], Awaitable[list[Row]]]


async def on_postgres(fault: Fault, folder: Path, seed: int, times: int) -> list[Row]:
    """One fault, again and again, on a PostgreSQL of its own."""
    with own_cluster() as cluster:
        async with open_arena(folder, seed=seed, cluster=cluster, processes=2) as arena:
            await strike(arena, [fault] * times)
            return [await conclude(arena, fault.name, times)]


async def on_two_servers(fault: Fault, folder: Path, seed: int, times: int) -> list[Row]:
    """One fault of who owns the log, again and again; never do both own."""
    with own_cluster() as cluster:
        async with open_arena(folder, seed=seed, cluster=cluster, servers=2) as arena:
            async with watching(arena) as watch:
                await strike(arena, [fault] * times)
            if watch.both:
                raise RunFailed(f"two servers owned at a time: {'; '.join(watch.both)}")
            return [await conclude(arena, fault.name, times)]


async def on_sqlite(fault: Fault, folder: Path, seed: int, times: int) -> list[Row]:
    """The same with the embedded log."""
    async with open_arena(folder, seed=seed, processes=2) as arena:
        await strike(arena, [fault] * times)
        return [await conclude(arena, f"{fault.name} (SQLite)", times)]


SCENARIOS = (
    *(
        Scenario(f"postgres: {fault.name}", partial(on_postgres, fault))
        for fault in POSTGRES_FAULTS + CLIENT_FAULTS
    ),
    *(Scenario(f"ownership: {fault.name}", partial(on_two_servers, fault)) for fault in OWNERSHIP_FAULTS),
    Scenario("postgres: disk full", full_disk),
    Scenario("postgres: fsync fails", failing_fsync),
    Scenario("failover: standby up to date", to_a_standby_with_everything),
    Scenario("failover: standby lags", to_a_lagging_standby),
    Scenario("failover: standby lags, loss accepted", to_a_lagging_standby_that_is_accepted),
    *(
        Scenario(f"sqlite: {fault.name}", partial(on_sqlite, fault))
        for fault in SERVER_FAULTS + CLIENT_FAULTS
    ),
)
