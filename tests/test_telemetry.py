"""Telemetry reaches its listeners, the journal and the counters."""

import io
import json

import pytest
import trio
from prometheus_client.core import CounterMetricFamily

from querator import telemetry
from querator.config import LogFormat, LogLevel
from querator.journal import EVENT_NAMES_MAX, EventCounts, level_of, write_journal


class Watch:
    """A stopwatch that moves by 5 microseconds at each look."""

    def __init__(self) -> None:
        self.time = 0

    def monotonic(self) -> int:
        self.time += 5
        return self.time


def test_a_capture_sees_only_its_block() -> None:
    telemetry.emit("test.before")
    with telemetry.capture() as captured:
        telemetry.emit("test.within", number=1)
    telemetry.emit("test.after")
    assert captured.marks == [telemetry.Mark("test.within", {"number": 1})]


async def test_a_mark_can_be_awaited(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> None:
        telemetry.emit("test.done", number=1)
        await trio.sleep(3)
        telemetry.emit("test.done", number=2, why="slow")

    with telemetry.capture() as captured:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            mark = await captured.wait("test.done", number=2)
        assert mark.fields == {"number": 2, "why": "slow"}
        assert await captured.wait("test.done") == telemetry.Mark("test.done", {"number": 1})
    assert trio.current_time() == 3
    assert captured.count("test.done") == 2


def test_a_span_says_how_long_and_how_it_ended() -> None:
    with telemetry.capture() as captured:
        with telemetry.span(Watch(), "test.span", partition=7):
            pass
        with pytest.raises(ValueError, match="no"), telemetry.span(Watch(), "test.span"):
            raise ValueError("no")
    assert captured.marks[0].fields == {"partition": 7, "microseconds": 5}
    assert captured.marks[1].fields == {"microseconds": 5, "error": "ValueError('no')"}


def test_the_journal_is_a_line_of_json_an_event() -> None:
    out = io.StringIO()
    stop = write_journal(LogLevel.INFO, LogFormat.AUTO, out)
    telemetry.emit("partition.opened", partition=3)
    telemetry.emit("partition.halted", partition=4, error=ValueError("x"))
    stop()
    telemetry.emit("partition.opened", partition=5)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["level"], first["partition"]) == ("partition.opened", "info", 3)
    assert (second["event"], second["level"]) == ("partition.halted", "error")
    assert first["timestamp"].endswith("Z")


def test_the_journal_leaves_out_what_is_below_its_level() -> None:
    out = io.StringIO()
    stop = write_journal(LogLevel.WARNING, LogFormat.TEXT, out)
    telemetry.emit("snapshot.taken")
    telemetry.emit("snapshot.failed")
    stop()
    assert "snapshot.failed" in out.getvalue()
    assert "snapshot.taken" not in out.getvalue()


def test_a_journal_that_cannot_be_written_harms_nobody() -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("no space left")

    stop = write_journal(LogLevel.INFO, LogFormat.JSON, Full())
    telemetry.emit("snapshot.taken")
    stop()


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("log.append.failed", LogLevel.WARNING),
        ("partition.halted", LogLevel.ERROR),
        ("failed.partition.opened", LogLevel.INFO),
    ],
)
def test_the_level_follows_from_the_last_word(name: str, level: LogLevel) -> None:
    assert level_of(name) is level


def samples(counts: EventCounts) -> dict[str, float]:
    (family,) = counts.families()
    assert isinstance(family, CounterMetricFamily)
    return {sample.labels["name"]: sample.value for sample in family.samples}


def test_events_are_counted_by_name() -> None:
    counts = EventCounts()
    stop = counts.start()
    for _ in range(3):
        telemetry.emit("b.happened", secret="not a label")
    telemetry.emit("a.happened")
    stop()
    telemetry.emit("a.happened")
    assert samples(counts) == {"a.happened": 1, "b.happened": 3}


def test_counted_names_are_bounded() -> None:
    counts = EventCounts()
    stop = counts.start()
    for number in range(EVENT_NAMES_MAX + 1):
        telemetry.emit(f"test.made_up.{number}")
    stop()
    assert len(samples(counts)) == EVENT_NAMES_MAX
