"""The live door: canned questions only, bounded in time, rows and number, and the loop goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from querator.actors.ports import Answer
from querator.analytics import connecting, live
from querator.analytics.export import Exporter
from querator.analytics.live import QUESTIONS, LiveAnalytics
from querator.analytics.manifest import ArchiveError, Manifest, Part, encode_manifest
from querator.analytics.questions import RemoteQuestions
from querator.core import limits
from querator.core.commands import Produce
from querator.core.ids import MINUTE, SECOND, Duration
from querator.core.policy import Policy
from querator.core.replies import Code, Rejected
from querator.env.real import real_env
from tests.analytics.histories import START, PartitionHistory, store_records
from tests.analytics.test_export import make_store
from tests.analytics.test_figures import build


def open_door(directory: Path, *, rows_max: int = limits.LIVE_ROWS_MAX) -> LiveAnalytics:
    """Patient, since what answers is of low priority, and the machine may have much to do."""
    return LiveAnalytics(real_env(), directory, rows_max=rows_max, timeout=Duration(2 * MINUTE))


async def ask(door: LiveAnalytics, name: str, **params: object) -> Answer:
    answer = await door.ask(name, params)
    assert isinstance(answer, Answer), answer
    return answer


async def test_every_question_has_an_answer(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    for name, parameters in QUESTIONS.items():
        values: dict[str, object] = {
            "queue": "mail", "partition": 4, "item": 3, "width": 3_600_000_000,
            "since": START, "until": START + 86_400_000_000, "waiting_target": 1, "processing_target": 5,
        }  # fmt: skip
        answer = await ask(door, name, **{parameter.name: values[parameter.name] for parameter in parameters})
        assert answer.rows, name
        assert answer.as_of > 0
        for row in answer.rows:
            assert all(isinstance(value, int | float | str | None) for value in row)
    door.close()


async def test_moments_are_microseconds(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    answer = await ask(door, "item_history", partition=4, item=1)
    assert answer.rows[0][answer.columns.index("happened_at")] == START
    door.close()


@pytest.mark.parametrize(
    ("name", "params", "field"),
    [
        ("drop", {}, "question"),
        ("waiting", {}, "queue"),
        ("waiting", {"queue": 3}, "queue"),
        ("waiting", {"queue": "mail", "width": 0}, "width"),
        ("waiting", {"queue": "mail", "width": "1h"}, "width"),
        ("waiting", {"queue": "mail", "since": -1}, "since"),
        ("waiting", {"queue": "mail", "sql": "x"}, "sql"),
        ("item_history", {"partition": 4, "item": True}, "item"),
        ("item_history", {"partition": 1 << 64, "item": 1}, "partition"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, name: str, params: dict[str, object], field: str
) -> None:
    answer = await open_door(tmp_path).ask(name, params)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.field) == (Code.INVALID, field)


async def test_text_of_a_caller_is_a_value(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    answer = await ask(door, "deaths", queue="mail'); DROP VIEW querator.runs; --")
    assert answer.rows == []
    assert (await ask(door, "deaths", queue="mail")).rows
    door.close()


async def test_without_archive_it_is_unavailable(tmp_path: Path) -> None:
    answer = await open_door(tmp_path).ask("waiting", {"queue": "mail"})
    assert isinstance(answer, Rejected)
    assert answer.code is Code.UNAVAILABLE


async def test_rows_are_bounded(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path, rows_max=3)
    answer = await ask(door, "backlog", queue="mail", width=60_000_000)
    assert (len(answer.rows), answer.is_cut) == (3, True)
    door.close()


async def test_rows_and_memory_are_bounded_unless_told_otherwise(tmp_path: Path) -> None:
    """LIVE_ROWS_MAX, and LIVE_ANALYTICS_MEMORY, less than the ANALYTICS_MEMORY of a process apart."""
    await build(tmp_path, 0)
    door = LiveAnalytics(real_env(), tmp_path)
    assert (door._rows_max, door._memory_limit) == (limits.LIVE_ROWS_MAX, limits.LIVE_ANALYTICS_MEMORY)
    connection = connecting.connect(tmp_path)
    (told,) = connection.execute("SELECT current_setting('memory_limit')").fetchone() or ("",)
    megabytes = float(told.removesuffix(" MiB")) * 2**20 / 1_000_000
    assert f"{megabytes:.0f}MB" == limits.ANALYTICS_MEMORY
    connection.close()


async def test_question_that_takes_too_long_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    assert (await ask(door, "waiting", queue="mail")).rows
    endless = "SELECT count(*) FROM range(1000000000) AS a(x), range(1000000000) AS b(y) WHERE x + y < 0"
    with monkeypatch.context() as patched, trio.fail_after(120):
        patched.setattr(live, "_read_params", lambda *_: (endless, {}))
        patched.setattr(door, "_timeout", Duration(SECOND))
        answer = await door.ask("waiting", {})
    assert isinstance(answer, Rejected)
    assert answer.code is Code.LIMIT_EXCEEDED
    # The connection is as good as new.
    assert (await ask(door, "waiting", queue="mail")).rows
    door.close()


async def test_stretches_that_are_too_many_are_refused_at_once(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    answer = await door.ask("backlog", {"queue": "mail", "width": 1})
    assert isinstance(answer, Rejected)
    assert "more than a million stretches" in answer.detail
    door.close()


async def test_too_many_questions_are_refused(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    door = open_door(tmp_path)
    count = limits.LIVE_QUESTIONS_MAX + limits.LIVE_QUESTIONS_WAITING_MAX
    answers: list[object] = []

    async def one() -> None:
        answers.append(await door.ask("waiting", {"queue": "mail"}))

    async with trio.open_nursery() as nursery:
        for _ in range(count + 2):
            nursery.start_soon(one)
    refused = [answer for answer in answers if isinstance(answer, Rejected)]
    assert [answer.code for answer in refused] == [Code.OVERLOADED] * 2
    assert len(answers) == count + 2
    door.close()


async def test_later_exports_are_seen(tmp_path: Path) -> None:
    history = PartitionHistory(4, Policy(version=1))
    store = await make_store(history)
    exporter = Exporter(real_env(), [store], tmp_path)
    await exporter.refresh()
    door = open_door(tmp_path)
    assert (await ask(door, "throughput", queue="partition 4")).rows == []
    known = len(history.records)
    history.do(Produce([b"a", b"b"]))
    history.seal()
    await store_records(store, history.records[known:])
    await exporter.refresh()
    answer = await ask(door, "throughput", queue="partition 4")
    assert answer.rows[0][answer.columns.index("produced")] == 2
    door.close()


async def test_one_connection_follows_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would be eighty milliseconds of a core, after each export."""
    opened: list[Path] = []

    def connect(directory: Path, **how: Any) -> Any:
        opened.append(directory)
        return connecting.connect(directory, **how)

    monkeypatch.setattr(live, "connect", connect)
    history = PartitionHistory(4, Policy(version=1))
    store = await make_store(history)
    exporter = Exporter(real_env(), [store], tmp_path)
    await exporter.refresh()
    door = open_door(tmp_path)
    for number in range(1, 4):
        known = len(history.records)
        history.do(Produce([b"a", b"b"]))
        history.seal()
        await store_records(store, history.records[known:])
        await exporter.refresh()
        answer = await ask(door, "throughput", queue="partition 4")
        assert answer.rows[0][answer.columns.index("produced")] == 2 * number
    assert opened == [tmp_path]
    # It says what is wrong with the archive, and goes on when that is over.
    manifest = tmp_path / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b".parquet", b".gone"))
    refused = await door.ask("throughput", {"queue": "partition 4"})
    assert isinstance(refused, Rejected)
    assert refused.code == Code.UNAVAILABLE
    assert ".gone is missing" in refused.detail
    manifest.write_bytes(good)
    assert (await ask(door, "throughput", queue="partition 4")).rows == answer.rows
    assert opened == [tmp_path]
    door.close()


def test_a_connection_that_cannot_follow_stays_as_it_was(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "manifest.json").write_bytes(encode_manifest(Manifest()))
    connection = connecting.connect(archive)
    (archive / "odd.parquet").write_bytes(b"odd")
    part = Part("odd.parquet", "2026-11-24", 1, 1, 3, "")
    (archive / "manifest.json").write_bytes(encode_manifest(Manifest(parts=[part])))
    with pytest.raises(ArchiveError, match="cannot be read"):
        connecting.reconnect(connection, archive)
    assert connection.execute("FROM queues").fetchall() == []
    connection.close()


# --- in a process of their own ------------------------------------------------------------------


@asynccontextmanager
async def remote(directory: Path) -> AsyncIterator[RemoteQuestions]:
    door = RemoteQuestions(real_env(), directory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.run)
        yield door
        nursery.cancel_scope.cancel()
    door.close()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has only what others leave, and a machine may be busy."""
    monkeypatch.setattr(limits, "LIVE_START_TIMEOUT", Duration(120_000_000))


async def ask_again(door: RemoteQuestions, name: str, params: dict[str, object]) -> Answer | Rejected:
    """Until it does not take too long."""
    while True:
        answer = await door.ask(name, params)
        if not isinstance(answer, Rejected) or answer.code is not Code.LIMIT_EXCEEDED:
            return answer


@pytest.mark.usefixtures("patience")
async def test_another_process_answers_alike(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    here = open_door(tmp_path)
    async with remote(tmp_path) as door:
        questions: dict[str, dict[str, object]] = {
            "throughput": {"queue": "mail", "width": 3_600_000_000},
            "item_history": {"partition": 4, "item": 3},
            "waiting": {"queue": 3},
        }
        for name, params in questions.items():
            assert await ask_again(door, name, params) == await here.ask(name, params)
    here.close()


@pytest.mark.usefixtures("patience")
async def test_a_process_that_was_killed_is_started_again_by_the_next_question(tmp_path: Path) -> None:
    await build(tmp_path, 0)
    killed = []

    class Processes:
        cores = 2

        @asynccontextmanager
        async def run(self, module: str, **how: bool) -> AsyncIterator[trio.abc.Stream]:
            async with real_env().processes.run(module, **how) as stream:
                killed.append(stream)
                yield stream

    processes: Any = Processes()
    door = RemoteQuestions(attrs.evolve(real_env(), processes=processes), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.run)
        question: tuple[str, dict[str, object]] = ("deaths", {"queue": "mail"})
        assert isinstance(await ask_again(door, *question), Answer)
        await killed[0].aclose()
        refused = await door.ask(*question)
        assert isinstance(refused, Rejected)
        assert refused.code is Code.UNAVAILABLE
        assert isinstance(await ask_again(door, *question), Answer)
        assert len(killed) == 2
        nursery.cancel_scope.cancel()


async def test_questions_to_another_process_are_bounded_in_number_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers: ``run`` is not running."""
    monkeypatch.setattr(limits, "LIVE_QUESTION_TIMEOUT", Duration(1))
    monkeypatch.setattr(limits, "LIVE_START_TIMEOUT", Duration(50_000))
    door = RemoteQuestions(real_env(), tmp_path)
    codes: list[Code] = []

    async def one() -> None:
        answer = await door.ask("waiting", {"queue": "mail"})
        assert isinstance(answer, Rejected)
        codes.append(answer.code)

    room = limits.LIVE_QUESTIONS_MAX + limits.LIVE_QUESTIONS_WAITING_MAX
    async with trio.open_nursery() as nursery:
        for _ in range(room + 1):
            nursery.start_soon(one)
    assert sorted(codes) == sorted([Code.OVERLOADED, *[Code.LIMIT_EXCEEDED] * room])
