"""Questions about exported history: the same answers on both doors, and refusals in their words."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trio.testing import MockClock

from querator.actors.node import NodeOptions
from querator.analytics.export import Exporter
from querator.api.history_calls import AskParams, QuestionCalls
from querator.core.catalog.commands import DeleteBinding
from querator.core.replies import Code, Rejected
from querator.env.real import real_env
from tests.analytics.histories import random_history
from tests.analytics.test_export import make_store
from tests.app.test_stale_holders import House

HOUR = 3_600_000_000


async def make_archive(directory: Path) -> None:
    """Of a partition 1, which is that of the house's queue as well."""
    store = await make_store(random_history(random.Random(3), 1, 120), queues={"q": [1]})
    await Exporter(real_env(), [store], directory).refresh()


async def ask(house: House, **params: object) -> dict[str, Any]:
    (_, answer) = await house.stream({"type": "call", "id": 7, "method": "analytics.ask", "params": params})
    assert answer["id"] == 7
    return answer


async def test_both_doors_answer_alike(tmp_path: Path, autojump_clock: MockClock) -> None:
    await make_archive(tmp_path)

    async def visit(house: House) -> None:
        told = (await ask(house, question="throughput", queue="q", width=HOUR))["value"]
        assert told["rows"]
        assert told["is_cut"] is False
        status, answer = await house.http("/v1/x/analytics", question="throughput", width="1h")
        assert status == 200, answer
        assert answer["columns"] == told["columns"]
        assert [row["cells"] for row in answer["rows"]] == [
            ["" if value is None else str(value) for value in row] for row in told["rows"]
        ]
        assert answer["as_of"].endswith("Z")

    await House(analytics=tmp_path).live(visit)


async def test_items_have_their_history_on_both_doors(tmp_path: Path, autojump_clock: MockClock) -> None:
    await make_archive(tmp_path)

    async def visit(house: House) -> None:
        told = (await ask(house, question="item_history", partition=1, item=2))["value"]
        event = told["columns"].index("event")
        assert told["rows"][0][event] == "produced"
        _, answer = await house.http("/v1/x/analytics", question="item_history", id="1.2")
        assert [row["cells"][event] for row in answer["rows"]] == [row[event] for row in told["rows"]]

    await House(analytics=tmp_path).live(visit)


async def test_what_makes_no_sense_is_refused_on_both_doors(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    await make_archive(tmp_path)

    async def visit(house: House) -> None:
        refused = await ask(house, question="drop", queue="q")
        assert (refused["code"], refused["field"]) == ("invalid", "params.question")
        refused = await ask(house, question="waiting", queue="q", width=-1)
        assert (refused["code"], refused["field"]) == ("invalid", "params.width")
        refused = await ask(house, question="waiting", queue="q", sql="SELECT 1")
        assert refused["code"] == "invalid"
        status, answer = await house.http("/v1/x/analytics", question="drop")
        assert (status, answer["message"][:20]) == (400, "question is invalid;")
        status, answer = await house.http("/v1/x/analytics", question="waiting", width="x")
        assert (status, answer["message"][:17]) == (400, "width is invalid;")
        assert (await house.http("/v1/x/analytics", question="waiting", queue_name="none"))[0] == 400

    await House(analytics=tmp_path).live(visit)


async def test_nothing_exported_is_said(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def visit(house: House) -> None:
        refused = await ask(house, question="waiting", queue="q")
        assert (refused["code"], "no archive" in refused["detail"]) == ("unavailable", True)
        status, answer = await house.http("/v1/x/analytics", question="waiting")
        assert (status, "no archive" in answer["message"]) == (453, True)

    await House(analytics=tmp_path).live(visit)


async def test_a_server_that_keeps_none_says_so(autojump_clock: MockClock) -> None:
    async def visit(house: House) -> None:
        assert (await ask(house, question="waiting", queue="q"))["code"] == "unavailable"
        assert (await house.http("/v1/x/analytics", question="waiting"))[0] == 453

    await House().live(visit)


@pytest.mark.parametrize("params", [{"queue": "q"}, {"partition": 1, "item": 1}])
async def test_who_may_not_see_counters_may_not_ask(
    tmp_path: Path, params: dict[str, object], autojump_clock: MockClock
) -> None:
    async def visit(house: House) -> None:
        close = DeleteBinding(namespace="_system", role_name="Admin", user_id="anonymous")
        await house.application.node.catalog.change(close)
        refused = await ask(house, question="waiting", **params)
        assert refused["code"] == "denied"
        status, answer = await house.http("/v1/x/analytics", question="waiting")
        assert (status, answer["message"]) == (403, "access denied")

    await House(analytics=tmp_path, node=NodeOptions(auth=True)).live(visit)


@pytest.mark.parametrize(
    ("code", "status"), [(Code.OVERLOADED, 454), (Code.LIMIT_EXCEEDED, 453), (Code.UNAVAILABLE, 453)]
)
async def test_questions_beyond_the_bounds_are_refused_in_the_words_of_each_door(
    code: Code, status: int, autojump_clock: MockClock
) -> None:
    class Bounded:
        async def ask(self, question: str, params: object) -> Rejected:
            return Rejected(code, f"not now: {question}")

        async def run(self) -> None:
            raise AssertionError("nobody runs this one")

        def close(self) -> None:
            pass

    async def visit(house: House) -> None:
        bounded = Bounded()
        house.application.door.analytics = bounded
        found, answer = await house.http("/v1/x/analytics", question="waiting")
        assert (found, answer["message"]) == (status, "not now: waiting")
        caller: Any = SimpleNamespace(refusal=lambda *_: None)
        refused = await QuestionCalls(bounded).ask(caller, AskParams(question="waiting", queue="q"))
        assert isinstance(refused, Rejected)
        assert (refused.code, refused.detail) == (code, "not now: waiting")

    await House().live(visit)
