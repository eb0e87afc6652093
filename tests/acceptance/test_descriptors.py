"""A server that has used up its file descriptors tells its health, and goes on when there are some again."""

import json
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from tests.blackbox.processes import Server, until

BESIDE = 20


async def test_the_health_is_told_without_a_descriptor_to_spare(tmp_path: Path) -> None:
    server = Server("memory", tmp_path)
    told: list[tuple[int, str]] = []

    async def is_told() -> bool:
        health = await server.health()
        told.extend([health] if health is not None else [])
        return bool(told)

    async def answers() -> bool:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            return b" 501 " in await stream.receive_some()

    try:
        await server.start_surely()
        assert server.process is not None
        number = server.process.pid
        _, hard = resource.prlimit(number, resource.RLIMIT_NOFILE)
        in_use = max(int(entry.name) for entry in Path(f"/proc/{number}/fd").iterdir())
        resource.prlimit(number, resource.RLIMIT_NOFILE, (in_use + BESIDE, hard))
        async with AsyncExitStack() as stack:
            while "api.accept.no_room" not in server.journal.read_text():
                await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port))
                await trio.sleep(0.02)
            await until("the health is told", is_told)
            status, body = told[0]
            assert (status, json.loads(body)["status"]) == (200, "pass")
        await until("it has room again", answers)
    finally:
        server.end()
