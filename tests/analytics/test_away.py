"""A store that is away keeps up no other: theirs is exported and kept, and its own when it is back."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from querator import telemetry
from querator.analytics.export import Exporter
from querator.analytics.following import Follower
from querator.analytics.keeping import RecordKeeper
from querator.analytics.manifest import read_manifest
from querator.core import limits
from querator.core.ids import Duration
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.memory import MemoryDisk, MemoryLog
from tests.analytics.histories import catalog_records, random_history, store_records
from tests.analytics.test_export import rows_of

HERE, THERE = 4, 7


class Away:
    """A store that may be away: at once, or when so many pages of it were read."""

    def __init__(self, store: MemoryLog, *, pages: int) -> None:
        self._store = store
        self.pages = pages
        """Negative: it is there."""
        self.records = 0
        """How many were read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _check(self) -> None:
        if not self.pages:
            raise LogUnavailable("no route to it")

    async def partitions(self) -> Any:
        self._check()
        return await self._store.partitions()

    async def buckets(self) -> Any:
        self._check()
        return await self._store.buckets()

    async def read(self, *args: Any, **bounds: Any) -> Any:
        self._check()
        self.pages -= 1
        page = await self._store.read(*args, **bounds)
        self.records += len(page)
        return page


async def make_stores(*, pages: int) -> tuple[MemoryLog, Away]:
    stores = []
    for name, partitions in (("here", (HERE,)), ("there", (THERE, THERE + 1))):
        store = MemoryLog(real_env(), MemoryDisk(), name=name)
        await store.open()
        for partition in partitions:
            await store_records(store, random_history(random.Random(partition), partition, 60).records)
        stores.append(store)
    await store_records(stores[0], catalog_records({"mail": [HERE], "jobs": [THERE, THERE + 1]}))
    return stores[0], Away(stores[1], pages=pages)


def marks(directory: Path) -> Mapping[int, int]:
    return {mark.partition: mark.position for mark in read_manifest(directory).marks}


@pytest.mark.parametrize(
    ("workers", "first", "pages"), [(0, False, 0), (0, True, 0), (0, False, 2), (2, True, 2)]
)
async def test_the_others_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, first: bool, pages: int
) -> None:
    monkeypatch.setattr(limits, "EXPORT_PAGE_RECORDS", 5)
    monkeypatch.setattr(limits, "EXPORT_PARALLEL_RECORDS", 1)
    here, there = await make_stores(pages=pages)
    away: Any = there
    stores = [away, here] if first else [here, away]
    exporter = Exporter(real_env(), stores, tmp_path / "turns", workers=workers)
    done = await exporter.refresh()
    assert done.away == {"there": "no route to it"}
    tail = await here.tail(HERE)  # type: ignore[arg-type]
    found = marks(tmp_path / "turns")
    assert tail is not None
    assert found[HERE] == tail.position
    # What was read before it went is exported as well.
    assert there.records > 5 * (pages - 1)
    assert sum(found.get(THERE + index, 0) for index in (0, 1)) == there.records
    there.pages = -1
    assert (await exporter.refresh()).away == {}
    await Exporter(real_env(), stores, tmp_path / "once").refresh()
    assert rows_of(tmp_path / "turns") == rows_of(tmp_path / "once")


async def test_when_all_are_away_that_is_an_error(tmp_path: Path) -> None:
    _, away = await make_stores(pages=0)
    stores: Any = [away]
    with pytest.raises(LogUnavailable, match="no route to it"):
        await Exporter(real_env(), stores, tmp_path).refresh()
    follower = Follower(real_env(), {"there": stores[0]}, tmp_path)
    with telemetry.capture() as captured:
        refused = await follower.prune(older_than=Duration(0), buckets_kept=1)
    assert "no route to it" in str(refused)
    assert not captured.count("analytics.store.away")


async def test_the_others_are_kept(tmp_path: Path) -> None:
    here, away = await make_stores(pages=-1)
    stores: Any = {"there": away, "here": here}
    await Exporter(real_env(), list(stores.values()), tmp_path).refresh()
    away.pages = 0
    with telemetry.capture() as captured:
        kept = await RecordKeeper(real_env(), list(stores.values()), tmp_path).keep()
        pruned = await Follower(real_env(), stores, tmp_path).prune(older_than=Duration(0), buckets_kept=1)
    assert kept == marks(tmp_path)[HERE]
    assert [one.partition for one in read_manifest(tmp_path).kept] == [HERE]
    assert pruned == {}
    assert captured.count("analytics.store.away")
    away.pages = -1
    more = await RecordKeeper(real_env(), list(stores.values()), tmp_path).keep()
    assert more == sum(marks(tmp_path)[partition] for partition in (THERE, THERE + 1))
