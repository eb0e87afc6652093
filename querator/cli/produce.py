"""``querator produce QUEUE``: lines, JSON documents or files become items."""

import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
import msgspec
import trio
from cyclopts import Parameter

from querator.cli.exits import CommandFailed, Exit, UsageError
from querator.cli.options import Patience, Target, given, read_duration
from querator.cli.output import note, print_json
from querator.cli.progress import Progress
from querator.cli.reading import LineSplitter, read_chunks, size_of
from querator.client import Client, ClientError, Pending
from querator.client.durations import parse_duration, parse_instant
from querator.core import limits
from querator.core.ids import SECOND
from querator.env import Env, seconds
from querator.env.real import real_env

OUTSTANDING_ITEMS: Final = 20_000
"""Items on their way at a time: enough that the server never waits for us, little to hold."""
BATCH_BYTES: Final = limits.PRODUCE_MESSAGE_BYTES_MAX
JSON_FIELDS: Final = (
    "payload",
    "key",
    "dedupe_key",
    "kind",
    "reference",
    "headers",
    "encoding",
    "delay",
    "at",
    "attempts_max",
    "reservation_timeout",
)


@attrs.define
class Chunk:
    """Items to produce together, in order. ``columns``: by attribute, one value or a list."""

    payloads: list[bytes]
    columns: dict[str, Any]
    bytes_read: int = 0
    """Of the input, up to the end of this chunk."""


async def produce(
    queue: str,
    paths: Annotated[
        list[Path] | None, Parameter(help="Files to read (default: standard input; - is standard input).")
    ] = None,
    /,
    *,
    target: Target | None = None,
    jsonl: Annotated[
        bool,
        Parameter(negative="", help='Each line is JSON: {"payload": ..., "key": ..., "delay": "5m", ...}.'),
    ] = False,
    files: Annotated[
        bool,
        Parameter(
            negative="", help="Each path is an item: its content. Without PATHS they are read, a line each."
        ),
    ] = False,
    key: Annotated[str | None, Parameter(help="The key of every item.")] = None,
    kind: Annotated[str | None, Parameter(help="The kind of every item.")] = None,
    encoding: Annotated[str | None, Parameter(help="How the payloads are encoded, as text/plain.")] = None,
    delay: Annotated[str | None, Parameter(help="Schedule the items for so long from now, as 5m.")] = None,
    at: Annotated[
        str | None, Parameter(help="Schedule the items for this time, as 2026-12-31T08:00:00Z.")
    ] = None,
    batch: Annotated[int, Parameter(help="Items of one message, at most.")] = limits.BATCH_ITEMS_MAX,
    reconnect_timeout: Patience = "60s",
    progress: Annotated[bool, Parameter(help="Show progress on a terminal.")] = True,
) -> None:
    """Append items to a queue: a line is an item, without its line feed.

    Goes on when the server restarts: every item is produced once. Input is read as fast as items are
    committed, so that a file of any size takes little memory.
    """
    target = target or Target()
    if jsonl and files:
        raise UsageError("--jsonl and --files: choose one")
    if not 1 <= batch <= limits.BATCH_ITEMS_MAX:
        raise UsageError(f"--batch: give a number from 1 to {limits.BATCH_ITEMS_MAX}")
    env = real_env()
    constant = given(
        key=key, kind=kind, encoding=encoding, enqueue_at=_enqueue_at(delay, at, env.clock.now())
    )
    patience = read_duration(reconnect_timeout, "--reconnect-timeout")
    async with (
        _open_inputs([] if files else paths or []) as descriptors,
        target.connect("produce", patience=patience) as q,
    ):
        if files:
            source = _file_items(env, paths, descriptors[0])
        elif jsonl:
            source = _json_items(descriptors, batch, env)
        else:
            source = _line_items(descriptors, batch)
        sizes = [size_of(descriptor) for descriptor in descriptors]
        total = None if files or None in sizes else sum(size or 0 for size in sizes)
        with Progress(
            env.clock, "produced", bytes_total=total, is_wanted=progress and not target.json
        ) as shown:
            pump = Pump(q, queue, constant, shown, is_json=target.json)
            await pump.run(source)


class Pump:
    """Moves chunks from the input to the queue, with a bounded number on their way."""

    def __init__(
        self, q: Client, queue: str, constant: Mapping[str, Any], progress: Progress, *, is_json: bool
    ) -> None:
        self._q = q
        self._queue = queue
        self._constant = constant
        self._progress = progress
        self._is_json = is_json
        self._pending: deque[Pending] = deque()
        self._bytes_read = 0
        self.committed = 0
        self.duplicates = 0

    async def run(self, source: AsyncGenerator[Chunk, None]) -> None:
        """Until the source ends, or a chunk is refused; what was handed over before is waited for."""
        try:
            try:
                async with aclosing(source):
                    async for chunk in source:
                        await self._hand_over(chunk)
            finally:
                # Also after a bad line, and after Ctrl-C for a moment: the last word is what is committed.
                await self._finish()
        except ClientError:
            self._say("stopped")
            raise
        except trio.Cancelled:
            self._say("interrupted")
            raise
        except CommandFailed as error:
            self._say("stopped")
            raise error from None
        self._say("")

    async def _hand_over(self, chunk: Chunk) -> None:
        if self._q.outstanding >= OUTSTANDING_ITEMS:
            await self._q.flush(OUTSTANDING_ITEMS // 2)
        await self._q.wait_room(len(chunk.payloads), sum(map(len, chunk.payloads)))
        columns = {**self._constant, **chunk.columns}
        self._pending.append(self._q.produce_nowait(self._queue, chunk.payloads, **columns))
        self._bytes_read = chunk.bytes_read
        self._collect()
        # What is read from a file never waits; the sender must get its turn.
        await trio.lowlevel.checkpoint()

    async def _finish(self) -> None:
        try:
            await self._q.flush()
        except trio.Cancelled:
            with trio.move_on_after(seconds(limits.GOODBYE_TIMEOUT), shield=True):
                await self._q.flush()
            raise
        finally:
            self._collect()

    def _collect(self) -> None:
        while self._pending and self._pending[0].done:
            pending = self._pending.popleft()
            if pending.error is not None:
                continue
            receipt = pending.result()
            self.committed += receipt.count
            self.duplicates += len(receipt.duplicates)
            if self._is_json:
                document = {
                    "partition": receipt.partition,
                    "first": receipt.first,
                    "count": receipt.count,
                    "numbers": receipt.numbers,
                    "duplicates": receipt.duplicates or None,
                }
                print_json({name: value for name, value in document.items() if value is not None})
        self._progress.update(self.committed, self._bytes_read)

    def _say(self, what: str) -> None:
        elapsed = max(1, self._progress.elapsed)
        text = f"produced {self.committed:,} items to {self._queue} in {elapsed / SECOND:.1f} s"
        text += f" ({self.committed * SECOND / elapsed:,.0f}/s)"
        if self.duplicates:
            text += f", {self.duplicates:,} of them were there already"
        if what:
            text = f"{what}: {text}"
            if self._pending:
                text += "; more may have been committed"
        if what or not self._is_json:
            note(text)


# -- the input ------------------------------------------------------------------------------------


@asynccontextmanager
async def _open_inputs(paths: Sequence[Path]) -> AsyncIterator[list[int]]:
    """Descriptors to read one after the other."""
    opened: list[int] = []
    descriptors: list[int] = []
    try:
        for path in paths:
            if str(path) == "/dev/stdin":
                descriptors.append(sys.stdin.fileno())
                continue
            try:
                opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
            descriptors.append(opened[-1])
        yield descriptors or [sys.stdin.fileno()]
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _line_items(descriptors: Sequence[int], batch: int) -> AsyncGenerator[Chunk, None]:
    bytes_read = 0
    for descriptor in descriptors:
        splitter = LineSplitter()
        async with aclosing(read_chunks(descriptor)) as chunks:
            async for data in chunks:
                bytes_read += len(data)
                for lines in _portions(splitter.feed(data), batch):
                    yield Chunk(lines, {}, bytes_read)
        if last := splitter.finish():
            yield Chunk(last, {}, bytes_read)


def _portions(lines: list[bytes], batch: int) -> list[list[bytes]]:
    """In messages of at most ``batch`` items and about BATCH_BYTES."""
    portions: list[list[bytes]] = []
    start = 0
    size = 0
    for index, line in enumerate(lines):
        if index - start >= batch or (size and size + len(line) > BATCH_BYTES):
            portions.append(lines[start:index])
            start, size = index, 0
        size += len(line)
    if start < len(lines):
        portions.append(lines[start:])
    return portions


async def _json_items(descriptors: Sequence[int], batch: int, env: Env) -> AsyncGenerator[Chunk, None]:
    number = 0
    async with aclosing(_line_items(descriptors, batch)) as chunks:
        async for chunk in chunks:
            items = []
            for line in chunk.payloads:
                number += 1
                if line.strip():
                    items.append(_read_json(line, number, env))
            start = 0
            # Items of different keys may belong to different partitions: a call has one key.
            for index in range(1, len(items) + 1):
                if index == len(items) or _route(items[index]) != _route(items[start]):
                    yield _as_chunk(items[start:index], chunk.bytes_read)
                    start = index


def _route(item: Mapping[str, Any]) -> object:
    return item.get("key", item.get("dedupe_key"))


def _as_chunk(items: Sequence[Mapping[str, Any]], bytes_read: int) -> Chunk:
    names = dict.fromkeys(name for item in items for name in item if name != "payload")
    columns = {name: [item.get(name) for item in items] for name in names}
    return Chunk([item["payload"] for item in items], columns, bytes_read)


def _read_json(line: bytes, number: int, env: Env) -> dict[str, Any]:
    """One item.

    Raises:
        CommandFailed: names the line, the field and what it should be.
    """

    def complain(text: str) -> CommandFailed:
        return CommandFailed(f"line {number}: {text}", Exit.DATA)

    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise complain(f"not JSON: {error}") from error
    if not isinstance(document, dict) or "payload" not in document:
        raise complain('write an object with a "payload", such as {"payload": "hello", "key": "a"}')
    item: dict[str, Any] = {}
    for name, value in document.items():
        if name not in JSON_FIELDS:
            raise complain(f"unknown field {name!r}; there are {', '.join(JSON_FIELDS)}")
        if value is None and name != "payload":
            continue
        try:
            item.update(_read_field(name, value, env))
        except (ValueError, TypeError) as error:
            raise complain(f"{name}: {error}") from error
    if "delay" in document and "at" in document:
        raise complain("give delay or at, not both")
    if len(item["payload"]) > limits.PAYLOAD_BYTES_MAX:
        raise complain(f"payload: longer than the {limits.PAYLOAD_BYTES_MAX} bytes that an item may have")
    return item


def _read_field(name: str, value: Any, env: Env) -> dict[str, Any]:
    if name == "payload":
        # Text is taken as it is; any other JSON is the payload as JSON.
        return {name: value.encode() if isinstance(value, str) else msgspec.json.encode(value)}
    if name == "delay":
        return {"enqueue_at": env.clock.now() + parse_duration(value)}
    if name == "at":
        return {"enqueue_at": parse_instant(value)}
    if name == "reservation_timeout":
        return {name: parse_duration(value)}
    if name == "attempts_max":
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{value!r} is not a number")
        return {name: value}
    if name == "headers":
        if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
            raise TypeError(f"{value!r} does not give each header a string")
        return {name: value}
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return {name: value}


async def _file_items(env: Env, paths: Sequence[Path] | None, descriptor: int) -> AsyncGenerator[Chunk, None]:
    if paths:
        for path in paths:
            yield await _file_item(env, path)
        return
    async with aclosing(_line_items([descriptor], limits.BATCH_ITEMS_MAX)) as chunks:
        async for chunk in chunks:
            for line in chunk.payloads:
                if line:
                    yield await _file_item(env, Path(os.fsdecode(line)))


async def _file_item(env: Env, path: Path) -> Chunk:
    try:
        content = await env.files.read(path)
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be read: {error.strerror}", Exit.FAILED) from error
    if len(content) > limits.PAYLOAD_BYTES_MAX:
        raise CommandFailed(
            f"{path}: {len(content)} bytes; an item has at most {limits.PAYLOAD_BYTES_MAX}", Exit.DATA
        )
    name = str(path)
    reference = name if len(name.encode(errors="replace")) <= limits.REFERENCE_BYTES_MAX else path.name
    return Chunk([content], {"reference": reference})


def _enqueue_at(delay: str | None, at: str | None, now: int) -> int | None:
    if delay is not None and at is not None:
        raise UsageError("--delay and --at: choose one")
    if delay is not None:
        return now + read_duration(delay, "--delay")
    if at is None:
        return None
    try:
        return parse_instant(at)
    except ValueError as error:
        raise UsageError(f"--at: {error}") from error
