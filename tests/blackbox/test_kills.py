"""Kills and cuts, a few of each in every test run, on both logs: real processes, real sockets.

``make test-kill-postgres`` does the same for as long as one likes, kind by kind, with other seeds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.arena import open_arena
from tests.blackbox.faults import CLIENT_FAULTS, POSTGRES_FAULTS, SERVER_FAULTS, Fault
from tests.blackbox.run import conclude, strike
from tests.postgres import Cluster, own_cluster

PATIENCE = 300


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.mark.parametrize(
    "faults",
    [POSTGRES_FAULTS[:5], POSTGRES_FAULTS[5:] + CLIENT_FAULTS],
    ids=["kills", "commits, links and clients"],
)
@pytest.mark.timeout(PATIENCE)
async def test_on_postgresql_nothing_is_lost_or_completed_twice(
    cluster: Cluster, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    async with open_arena(tmp_path, seed=1, cluster=cluster, processes=2) as arena:
        await strike(arena, faults)
        row = await conclude(arena, ", ".join(fault.name for fault in faults), len(faults))
    assert row.stale_refused or "server killed" not in row.fault


@pytest.mark.timeout(PATIENCE)
async def test_on_sqlite_nothing_is_lost_or_completed_twice(tmp_path: Path) -> None:
    faults = SERVER_FAULTS + CLIENT_FAULTS
    async with open_arena(tmp_path, seed=1, processes=2) as arena:
        await strike(arena, faults)
        row = await conclude(arena, "all faults", len(faults))
    assert row.stale_refused > 0
