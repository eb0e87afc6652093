"""``querator dead redrive --home`` of more than may be on its way at a time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from querator.cli.items import _send_home


class Busy:
    """A client of a server that has room for ``room`` items at each look."""

    def __init__(self, items: int, room: int) -> None:
        self.items = items
        self.room = room
        self.asked: list[Mapping[str, Any]] = []
        self.looks = 0

    async def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        assert method == "dead.redrive"
        self.asked.append(params)
        count = min(self.items, self.room, params.get("limit", self.items))
        self.items -= count
        return {
            "redriven": count,
            "reserved": 4,
            "stranded": 0,
            "more": count == self.room and self.items > 0,
        }

    @asynccontextmanager
    async def watch(self, queue: str, *, interval: float) -> AsyncIterator["Busy"]:
        assert (queue, interval) == ("morgue", 0.25)
        yield self

    async def __anext__(self) -> int:
        self.looks += 1
        return self.looks


def run(client: Busy, **params: object) -> dict[str, int]:
    return trio.run(_send_home, client, {"name": "morgue", **params})


def test_it_goes_on_until_all_are_on_their_way(capsys: pytest.CaptureFixture[str]) -> None:
    client = Busy(250, 100)
    assert run(client) == {"redriven": 250, "reserved": 4, "stranded": 0}
    assert client.looks == 2
    assert capsys.readouterr().err == "100 are on their way\n200 are on their way\n"


def test_a_limit_is_of_all_together() -> None:
    client = Busy(250, 100)
    assert run(client, limit=150)["redriven"] == 150
    assert [asked["limit"] for asked in client.asked] == [150, 50]


def test_nobody_watches_where_all_can_go_at_once() -> None:
    client = Busy(50, 100)
    assert run(client)["redriven"] == 50
    assert client.looks == 0
