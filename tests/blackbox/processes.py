"""The processes of a run: servers and clients, started as direct children and ended by their number."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, TypeAlias

import attrs
import trio

from tests.ports import free_port

POLL = 0.02
"""Seconds between two looks."""
PATIENCE = 60.0
"""Seconds for what takes one or two on an idle machine."""


Condition: TypeAlias = Callable[[], bool | Awaitable[bool]]


async def until(what: str, is_so: Condition, *, within: float = PATIENCE) -> None:
    """Poll; raises TimeoutError with ``what`` when it takes longer than anything could."""
    deadline = time.monotonic() + within
    while True:
        found = is_so()
        if not isinstance(found, bool):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within:g} s not yet: {what}")
        await trio.sleep(POLL)


@attrs.define
class Server:
    """``querator serve``; its journal, a line of JSON an event, goes to ``folder``."""

    log: str
    folder: Path
    name: str = "server"
    port: int = attrs.field(factory=free_port)
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exits: list[int] = attrs.field(factory=list)
    """Codes of those that ended by themselves."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / f"{self.name}-data"

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.name}.journal"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "querator", "serve", "--log", self.log, "--data", str(self.data)),
            *("--address", self.address, "--log-format", "json", *self.options),
        ]
        with self.journal.open("ab") as journal:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=journal
            )
        self.starts += 1

    async def start_surely(self) -> None:
        """Start, and start again when it ends by itself, as a supervisor would, until it answers."""
        self.start()

        async def answers() -> bool:
            if self.process is not None and (code := self.process.poll()) is not None:
                self.exits.append(code)
                self.start()
            return await self.health() is not None

        await until(f"{self.name} answers", answers)

    async def health(self) -> tuple[int, str] | None:
        """Status and body of ``GET /health``; ``None``: nobody answers."""
        with trio.move_on_after(5):
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                async with stream:
                    await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = b""
                    async for data in stream:
                        answer += data
            except (OSError, trio.BrokenResourceError):
                return None
            head, _, body = answer.partition(b"\r\n\r\n")
            return (int(head.split()[1]), body.decode()) if head else None
        return None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and its exit code; what does not end in time is killed, which is a failure."""
        assert self.process is not None
        self.signal(signal.SIGCONT)
        self.process.terminate()
        await until(f"{self.name} stops", lambda: not self.is_running)
        return self.process.returncode

    def end(self) -> None:
        """However it stands: make it end."""
        if self.is_running:
            self.kill()

    def events(self) -> Counter[str]:
        """How often each event is in the journal."""
        counts: Counter[str] = Counter()
        for line in self.lines():
            counts[line["event"]] += 1
        return counts

    def lines(self) -> list[dict[str, str]]:
        """The journal. What is no JSON, a traceback say, is an event of its own."""
        if not self.journal.exists():
            return []
        found = []
        for text in self.journal.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                found.append({"event": "stderr", "text": text})
        return found


@attrs.define
class ClientProcess:
    """``tests.blackbox.client``."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    orders: IO[bytes]

    @classmethod
    def start(
        cls, name: str, address: str, folder: Path, history: Path, **options: object
    ) -> "ClientProcess":
        command = [
            *(sys.executable, "-m", "tests.blackbox.client", address, "--name", name),
            *("--history", str(history)),
        ]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        with (folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert process.stdin is not None
        return cls(name, folder, process, process.stdin)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def tell(self, order: str) -> None:
        """``quiet`` or ``heal``."""
        with contextlib.suppress(BrokenPipeError):
            self.orders.write(f"{order}\n".encode())
            self.orders.flush()

    async def leave(self) -> None:
        """Its input ends, and it does."""
        self.signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.orders.close()
        await until(f"{self.name} leaves", lambda: not self.is_running)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.orders.close()
        if self.is_running:
            self.process.kill()
        self.process.wait()

    def output(self) -> str:
        """What it printed: nothing, when all is well."""
        return (self.folder / f"{self.name}.out").read_text(errors="replace")
