"""Compaction keeps every row, names what is damaged, and can be killed anywhere."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest

from querator.analytics.archive import verify
from querator.analytics.compact import compact
from querator.analytics.export import Exporter
from querator.analytics.manifest import MANIFEST, ArchiveError, read_manifest
from querator.core import limits
from querator.env.real import real_env
from querator.log.memory import MemoryLog
from tests.analytics.histories import random_history, store_records
from tests.analytics.test_export import Clock, Killed, MortalFiles, make_store, rows_of


async def make_archive(directory: Path, *, steps: int = 4, payloads: bool = False) -> MemoryLog:
    history = random_history(random.Random(3), 4, 120)
    store = await make_store()
    exporter = Exporter(real_env(), [store], directory, payloads=payloads)
    size = len(history.records) // steps + 1
    for start in range(0, len(history.records), size):
        await store_records(store, history.records[start : start + size])
        await exporter.refresh()
    return store


async def test_days_that_are_over_become_one_file_each(tmp_path: Path) -> None:
    await make_archive(tmp_path, payloads=True)
    before = rows_of(tmp_path)
    parts = read_manifest(tmp_path).parts
    assert len({part.day for part in parts}) < len(parts)
    done = await compact(real_env(), tmp_path)
    manifest = read_manifest(tmp_path)
    assert len({part.day for part in manifest.parts}) == len(manifest.parts)
    assert len({part.day for part in manifest.payload_parts}) == len(manifest.payload_parts)
    assert rows_of(tmp_path) == before
    assert done.days > 0
    verify(tmp_path, manifest)
    again = await compact(real_env(), tmp_path)
    assert again.days == 0


@pytest.mark.parametrize("more", [0, 1])
async def test_a_day_that_is_not_over_is_compacted_when_it_has_too_many_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    await make_archive(tmp_path)
    days = Counter(part.day for part in read_manifest(tmp_path).parts)
    (fullest, count), *_ = days.most_common()
    assert count > 1
    monkeypatch.setattr(limits, "COMPACT_PARTS_MAX", count - more)
    clock: Any = Clock()  # in 1970, so that no day is over
    await compact(attrs.evolve(real_env(), clock=clock), tmp_path)
    assert Counter(part.day for part in read_manifest(tmp_path).parts)[fullest] == (1 if more else count)


async def test_old_files_stay_for_one_step_for_those_who_read_them(tmp_path: Path) -> None:
    store = await make_archive(tmp_path)
    await compact(real_env(), tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.superseded
    assert all((tmp_path / name).exists() for name in manifest.superseded)
    other = random_history(random.Random(4), 5, 30)
    await store_records(store, other.records)
    await Exporter(real_env(), [store], tmp_path).refresh()
    assert not any((tmp_path / name).exists() for name in manifest.superseded)


@pytest.mark.parametrize("after", [False, True])
async def test_compaction_killed_anywhere_keeps_every_row(tmp_path: Path, after: bool) -> None:
    fatal = 0
    while True:
        fatal += 1
        directory = tmp_path / str(fatal)
        await make_archive(directory, steps=2)
        before = rows_of(directory)
        files = MortalFiles(real_env().files, fatal, after=after)
        try:
            await compact(attrs.evolve(real_env(), files=files), directory)
        except Killed:
            assert rows_of(directory) == before
        else:
            break
        await compact(real_env(), directory)
        assert rows_of(directory) == before
        named = {directory / name for name in read_manifest(directory).files()}
        found = {path for path in directory.rglob("*") if path.is_file()}
        assert found - named == {directory / MANIFEST, directory / "lock"}
    assert fatal > 3


async def test_damaged_part_is_named_and_not_compacted_away(tmp_path: Path) -> None:
    await make_archive(tmp_path)
    part = read_manifest(tmp_path).parts[0]
    path = tmp_path / part.file
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"\xff" + content[21:])
    with pytest.raises(ArchiveError, match=f"{part.file} is damaged"):
        await compact(real_env(), tmp_path)
    assert part in read_manifest(tmp_path).parts
