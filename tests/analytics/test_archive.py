"""An archive as a whole: items' steps, and what verification finds."""

from pathlib import Path

import attrs
import pytest

from querator.analytics import connect
from querator.analytics.archive import item_steps, verify
from querator.analytics.manifest import read_manifest
from querator.analytics.warehouse import QueryFailed
from tests.analytics.histories import plain_fold
from tests.analytics.test_figures import build


async def test_item_steps_are_read_from_the_archive(tmp_path: Path) -> None:
    history = (await build(tmp_path, 1))[0]
    connection = connect(tmp_path)
    steps = plain_fold(history.records)
    for item in (1, 17, 40):
        found = [step["event"] for step in item_steps(connection, 4, item) if step["event"] != "extended"]
        assert found == [step.event for step in steps if step.item == item]
    connection.close()


async def test_rows_that_are_missing_are_noticed(tmp_path: Path) -> None:
    await build(tmp_path, 1)
    manifest = read_manifest(tmp_path)
    verify(tmp_path, manifest)
    mark = manifest.marks[0]
    marks = [attrs.evolve(mark, rows=mark.rows + 1), *manifest.marks[1:]]
    with pytest.raises(QueryFailed, match=f"partition {mark.partition} has {mark.rows} rows"):
        verify(tmp_path, attrs.evolve(manifest, marks=marks))
