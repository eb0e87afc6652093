"""The metrics page: whole, however many pieces it is made in, and nobody waits for all of it."""

from types import SimpleNamespace

import pytest
import trio
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from querator.actors.queue import QueueRuntime
from querator.api import engine_metrics as module
from querator.api.metrics import MetricsPage
from querator.core.ids import PartitionId, QueueName
from querator.core.limits import METRICS_PIECE_QUEUES


def families_of(queues: int) -> list[Metric]:
    runtimes = {
        f"q{number}": QueueRuntime(QueueName(f"q{number}"), number, (PartitionId(number),))
        for number in range(queues)
    }
    return list(module._queues(SimpleNamespace(broker=SimpleNamespace(queues=runtimes))))  # type: ignore[arg-type]


@pytest.mark.parametrize("over", [0, 1])
def test_a_piece_has_so_many_queues(over: int) -> None:
    """METRICS_PIECE_QUEUES."""
    families = families_of(METRICS_PIECE_QUEUES + over)
    assert len(families) == 6 * (1 + over)
    depth = [family for family in families if family.name == "querator_queue_depth"]
    assert [len(family.samples) for family in depth] == [4 * METRICS_PIECE_QUEUES, 4][: 1 + over]


async def test_a_page_in_pieces_is_the_page_and_others_run_between_them(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = families_of(10)
    monkeypatch.setattr(module, "METRICS_PIECE_QUEUES", 3)
    pieces = families_of(10)
    assert len(pieces) == 4 * len(whole)
    texts: list[str] = []
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        for families in (whole, pieces):
            page = MetricsPage()
            page.add(lambda: iter(families))  # noqa: B023  # it is asked at once
            texts.append((await page.response()).body.decode())
        nursery.cancel_scope.cancel()
    assert texts[0] == texts[1]
    assert ticks >= len(pieces)
    found = {family.name: len(family.samples) for family in text_string_to_metric_families(texts[1])}
    assert found["querator_queue_depth"] == 40
    assert found["querator_queue_waiters"] == 20


def test_no_queues_are_a_page_too() -> None:
    assert [len(family.samples) for family in families_of(0)] == [0] * 6
