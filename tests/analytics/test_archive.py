"""What the archive lets the log forget, and what verification finds."""

from pathlib import Path

import attrs
import pytest

from querator.analytics import connect
from querator.analytics.archive import BucketContent, Held, Verdict, item_steps, prunable, verify
from querator.analytics.manifest import Manifest, Mark, read_manifest
from querator.analytics.warehouse import QueryFailed
from querator.core.ids import Instant
from tests.analytics.histories import plain_fold
from tests.analytics.test_figures import build

MARKS = [Mark(4, 100, "", 0, "", "", 0), Mark(5, 50, "", 0, "", "", 0)]
MANIFEST = Manifest(marks=MARKS, catalog_position=3)
OLD = BucketContent(1, is_sealed=True, last_position={4: 90, 5: 40}, newest_at=Instant(1_000))
HELD = {4: Held(95, 0), 5: Held(45, 41)}
KEEP = Instant(5_000)


def decide(bucket: BucketContent = OLD, manifest: Manifest = MANIFEST, held: dict[int, Held] = HELD) -> str:
    (verdict,) = prunable([bucket], manifest, held, keep_since=KEEP)
    assert verdict.may_go == (not verdict.why)
    return verdict.why


def test_bucket_that_nobody_needs_may_go() -> None:
    assert decide() == ""


@pytest.mark.parametrize(
    ("bucket", "held", "why"),
    [
        (attrs.evolve(OLD, is_sealed=False), HELD, "it is being written"),
        (attrs.evolve(OLD, newest_at=KEEP), HELD, "retention wants it"),
        (OLD, {4: HELD[4]}, "nothing is known of partition 5"),
        (OLD, {**HELD, 4: Held(89, 0)}, "partition 4 restores from it: its older snapshot is at 89"),
        (OLD, {**HELD, 5: Held(45, 40)}, "a live item of partition 5 has its payload at 40"),
        (
            attrs.evolve(OLD, last_position={4: 101}),
            {4: Held(200, 0)},
            "partition 4 is exported up to 100 of 101",
        ),
        (attrs.evolve(OLD, last_position={6: 1}), {6: Held(2, 0)}, "partition 6 is exported up to 0 of 1"),
        (attrs.evolve(OLD, last_position={0: 4}), {0: Held(9, 0)}, "partition 0 is exported up to 3 of 4"),
    ],
)
def test_bucket_stays_and_says_why(bucket: BucketContent, held: dict[int, Held], why: str) -> None:
    assert decide(bucket, held=held) == why


def test_buckets_go_from_the_oldest_on() -> None:
    young = attrs.evolve(OLD, number=2, newest_at=KEEP)
    last = attrs.evolve(OLD, number=3)
    assert prunable([last, young, OLD], MANIFEST, HELD, keep_since=KEEP) == [
        Verdict(1, may_go=True),
        Verdict(2, may_go=False, why="retention wants it"),
        Verdict(3, may_go=False, why="bucket 2 before it stays"),
    ]


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
