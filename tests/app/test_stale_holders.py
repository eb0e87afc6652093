"""A stale holder is refused everything, on every door: after expiry, after release, after a restart."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from querator.app import Application, AppOptions, open_application
from querator.core.catalog.commands import CreateQueue
from querator.core.ids import SECOND, Duration, QueueName
from querator.env.virtual import MemoryFiles, MemoryNetwork, virtual_env
from querator.log.memory import MemoryDisk, MemoryLog
from tests.app.test_commit_before_answer import HANDSHAKE, frame, post

AFTER = ("expiry", "release", "restart")


class House:
    """A server that can be started again on the same disk, and raw sockets to it."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.disk, self.files = MemoryDisk(), MemoryFiles()
        self.lives = 0

    async def live(self, visit: Callable[["House"], Any]) -> Any:
        """Start, visit, stop."""
        self.lives += 1
        self.network = MemoryNetwork()
        env = virtual_env(self.lives, "server", network=self.network, files=self.files)
        options = AppOptions(
            host="server", port=2319, secret=b"one secret for all lives of it", **self.options
        )
        async with open_application({"memory": MemoryLog(env, self.disk)}, env, options) as application:
            self.application = application
            await self._create(application)
            return await visit(self)

    async def _create(self, application: Application) -> None:
        if QueueName("q") not in application.node.catalog.catalog.queues:
            queue = CreateQueue(
                name=QueueName("q"),
                reservation_timeout=Duration(10 * SECOND),
                expire_timeout=Duration(3_600 * SECOND),
            )
            await application.node.catalog.change(queue)

    async def exchange(self, *sent: bytes) -> bytes:
        """What comes when these bytes are sent on a new connection."""
        env = virtual_env(1, "client", network=self.network)
        async with await env.net.connect("server", 2319) as stream:
            for data in sent:
                await stream.send_all(data)
            await wait_all_tasks_blocked()
            received = b""
            with trio.move_on_after(0.001):
                while more := await stream.receive_some(1 << 20):
                    received += more
            return received

    async def http(self, path: str, **body: object) -> tuple[int, dict[str, Any]]:
        """The status and the answer of one call."""
        answer = await self.exchange(post(path, {"queue_name": "q", **body}))
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)

    async def stream(self, *messages: dict[str, object]) -> list[dict[str, Any]]:
        """The answers to these messages in a session of their own."""
        hello: dict[str, object] = {"type": "hello", "client": "c"}
        answer = await self.exchange(HANDSHAKE, frame(hello, *messages))
        decoder, answers, text = json.JSONDecoder(), [], answer.partition(b"\r\n\r\n")[2].decode("latin-1")
        while (start := text.find("[{")) >= 0:
            found, end = decoder.raw_decode(text[start:])
            answers += found
            text = text[start + end :]
        return answers


async def _make_stale(house: House, how: str, release: Callable[[], Any]) -> None:
    if how == "release":
        await release()
    else:
        # A restart comes after the reservation ended, or it would still hold.
        await trio.sleep(11)


@pytest.mark.parametrize("how", AFTER)
async def test_a_stale_token_is_refused_on_the_stream(autojump_clock: MockClock, how: str) -> None:
    house = House()

    async def take(house: House) -> str:
        await house.stream({"type": "produce", "id": 1, "queue": "q", "texts": ["x"]})
        answers = await house.stream({"type": "reserve", "id": 2, "queue": "q"})
        (token,) = [answer["token"] for answer in answers if answer["type"] == "reserved"]
        await _make_stale(house, how, lambda: house.stream({"type": "release", "id": 3, "token": token}))
        return str(token)

    async def insist(house: House, token: str) -> None:
        verbs = (
            ("complete", "retry", "extend", "dead")
            if how == "release"
            else (
                "complete",
                "retry",
                "extend",
                "dead",
                "release",
            )
        )
        for number, verb in enumerate(verbs, 10):
            more: dict[str, object] = {"reason": "x"} if verb == "dead" else {}
            (_, refused) = await house.stream({"type": verb, "id": number, "token": token, **more})
            assert (refused["type"], refused.get("code")) == ("rejected", "reservation_lost"), (verb, refused)
        (_, stats) = await house.stream({"type": "stats", "id": 30, "queue": "q"})
        assert (stats["partitions"][0]["ready"], stats["partitions"][0]["completed"]) == (1, 0)

    if how == "restart":
        token = await house.live(take)
        await house.live(lambda house: insist(house, token))
    else:

        async def both(house: House) -> None:
            await insist(house, await take(house))

        await house.live(both)


@pytest.mark.parametrize("how", AFTER)
async def test_a_stale_id_is_refused_over_http(autojump_clock: MockClock, how: str) -> None:
    """There the id stands for the token: it changes whenever the item enters the queue again."""
    house = House()

    async def take(house: House) -> str:
        status, _ = await house.http("/v1/queue.produce", request_timeout="1m", items=[{"utf8": "x"}])
        assert status == 200
        status, leased = await house.http(
            "/v1/queue.lease", client_id="c", batch_size=1, request_timeout="1m"
        )
        assert status == 200
        item = str(leased["items"][0]["id"])
        await _make_stale(house, how, lambda: house.http("/v1/x/queue.release", ids=[item]))
        return item

    async def insist(house: House, item: str) -> None:
        calls: list[tuple[str, dict[str, object]]] = [
            ("/v1/queue.complete", {"ids": [item], "request_timeout": "1m"}),
            ("/v1/queue.retry", {"items": [{"id": item}]}),
            ("/v1/x/queue.extend", {"ids": [item], "timeout": "1m"}),
            ("/v1/x/queue.release", {"ids": [item]}),
        ]
        for path, body in calls:
            status, answer = await house.http(path, **body)
            assert status == 400, (path, answer)
            assert f"'{item}' does not exist" in answer["message"], (path, answer)
        status, stats = await house.http("/v1/queue.stats")
        assert status == 200
        (partition,) = stats["logicalQueues"][0]["partitions"]
        assert partition["total"] == 1

    if how == "restart":
        item = await house.live(take)
        await house.live(lambda house: insist(house, item))
    else:

        async def both(house: House) -> None:
            await insist(house, await take(house))

        await house.live(both)
