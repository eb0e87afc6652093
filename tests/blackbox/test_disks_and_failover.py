"""A full disk, a failing fsync, a lost primary under a server; the slower ones with ``--long``."""

from pathlib import Path

import pytest

from tests.blackbox.disks import failing_fsync, full_disk
from tests.blackbox.failover import (
    to_a_lagging_standby,
    to_a_lagging_standby_that_is_accepted,
    to_a_standby_with_everything,
)
from tests.broken_disks import NotHere

pytestmark = pytest.mark.timeout(300)


async def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    try:
        await full_disk(tmp_path, seed=1, times=1)
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.mark.long
async def test_an_fsync_that_fails_loses_nothing_acknowledged(tmp_path: Path) -> None:
    try:
        await failing_fsync(tmp_path, seed=1, times=2)
    except NotHere as reason:
        pytest.skip(str(reason))


async def test_partitions_whose_end_a_failover_lost_halt_and_stay_so(tmp_path: Path) -> None:
    (row,) = await to_a_lagging_standby(tmp_path, seed=1, times=1)
    assert row.lost > 0


@pytest.mark.long
async def test_a_loss_that_an_operator_accepts_is_named_and_work_goes_on(tmp_path: Path) -> None:
    (row,) = await to_a_lagging_standby_that_is_accepted(tmp_path, seed=1, times=1)
    assert row.lost > 0


@pytest.mark.long
async def test_after_a_failover_that_lost_nothing_work_goes_on(tmp_path: Path) -> None:
    (row,) = await to_a_standby_with_everything(tmp_path, seed=1, times=2)
    assert row.lost == 0
    assert row.stale_refused > 0
