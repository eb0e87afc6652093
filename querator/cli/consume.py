"""``querator consume QUEUE``: items become lines, or the input of a command."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from subprocess import PIPE
from typing import Annotated, Any, Final

import attrs
import trio
from cyclopts import Parameter

from querator.cli.exits import CommandFailed, Exit, UsageError
from querator.cli.options import Patience, Target, read_duration
from querator.cli.output import note, print_json, to_json
from querator.client import Batch, Client, Item, OutcomeUnknown, Rejected, ReservationLost
from querator.core import limits
from querator.core.ids import SECOND, Duration
from querator.core.replies import Code
from querator.env import Env
from querator.env.real import real_env

EXIT_DEAD: Final = 65
EXIT_RELEASE: Final = 69
REASON_CHARACTERS: Final = 300
"""Of a command's last words, as the reason of a dead item."""
STDERR_BYTES: Final = 4_096
JOBS_MAX: Final = 1_024


@attrs.define
class Tally:
    """How it went."""

    completed: int = 0
    retried: int = 0
    released: int = 0
    dead: int = 0
    lost: int = 0

    @property
    def taken(self) -> int:
        return self.completed + self.retried + self.released + self.dead + self.lost

    def __str__(self) -> str:
        words = (
            (self.completed, "completed"),
            (self.retried, "to be retried"),
            (self.released, "released"),
            (self.dead, "dead"),
            (self.lost, "lost while we had them (they come again)"),
        )
        return ", ".join(f"{count:,} {word}" for count, word in words if count) or "nothing"


async def consume(
    queue: str,
    *,
    target: Target | None = None,
    max: Annotated[int | None, Parameter(help="Stop after so many items.")] = None,  # noqa: A002 - the flag's name
    follow: Annotated[
        bool,
        Parameter(negative="", help="Wait for more, until Ctrl-C; otherwise stop when nothing is ready."),
    ] = False,
    exec: Annotated[  # noqa: A002 - the flag's name
        str | None,
        Parameter(
            help="Run this shell command for each item, its payload on standard input. Exit codes: 0 "
            "completes; 65 makes it dead; 69 releases it; any other retries it. QUERATOR_ITEM, "
            "QUERATOR_QUEUE, "
            "QUERATOR_ATTEMPT, QUERATOR_KEY, QUERATOR_KIND and QUERATOR_REFERENCE tell about it."
        ),
    ] = None,
    jobs: Annotated[int, Parameter(help="Commands run at a time, with --exec.")] = 1,
    batch: Annotated[int, Parameter(help="Items of one reservation, at most.")] = 500,
    window: Annotated[int, Parameter(help="Items reserved for us and not yet settled, at most.")] = 2_000,
    reservation_timeout: Annotated[
        str | None,
        Parameter(help="How long a reservation lasts when we are not heard of (default: the queue's)."),
    ] = None,
    reconnect_timeout: Patience = "60s",
) -> None:
    """Take items from a queue and print their payloads, a line each.

    An item is completed once its line is written and flushed, so that a crash loses none; it may
    print one again. With --json a line has the id, the payload and the attributes.
    """
    target = target or Target()
    _check(max, jobs, batch, window)
    if exec is not None and target.json:
        raise UsageError("--exec and --json: choose one; the command may print what it likes")
    wishes = Wishes(
        queue=queue,
        items_max=max,
        follow=follow,
        batch=min(batch, window, max or batch),
        window=min(window, max or window),
        reservation_timeout=None
        if reservation_timeout is None
        else read_duration(reservation_timeout, "--reservation-timeout"),
    )
    env = real_env()
    tally = Tally()
    is_paused = False
    patience = read_duration(reconnect_timeout, "--reconnect-timeout")
    try:
        async with target.connect("consume", patience=patience) as q:
            if follow and await is_queue_paused(q, queue):
                note(f"{queue} is paused: waiting for `querator queues resume {queue}`")
            if exec is not None:
                await Runner(q, wishes, exec, env, tally).run(jobs)
            else:
                await Printer(q, wishes, env, tally, is_json=target.json).run()
            is_enough = max is not None and tally.taken >= max
            is_paused = not follow and not is_enough and await is_queue_paused(q, queue)
    finally:
        if tally.lost or exec is not None:
            note(f"{queue}: {tally}")
    if is_paused:
        if target.json:
            print_json({"queue": queue, "paused": True})
        raise CommandFailed(
            f"{queue} is paused: nothing is given until `querator queues resume {queue}`", Exit.PAUSED
        )


async def is_queue_paused(q: Client, queue: str) -> bool:
    """As far as we may know."""
    try:
        report = await q.stats(queue)
    except Rejected as error:
        if error.code != Code.DENIED:
            raise
        return False
    return bool(report.partitions) and all(partition.get("paused", 0) for partition in report.partitions)


@attrs.frozen(kw_only=True)
class Wishes:
    queue: str
    items_max: int | None
    follow: bool
    batch: int
    window: int
    reservation_timeout: Duration | None

    @property
    def seconds(self) -> float | None:
        """The reservation timeout."""
        return None if self.reservation_timeout is None else self.reservation_timeout / SECOND


async def reserve_now(q: Client, wishes: Wishes, items: int) -> Batch | None:
    """What is ready. A connection that breaks meanwhile has given it back: ask again."""
    while True:
        with suppress(OutcomeUnknown):
            return await q.reserve(wishes.queue, items=items, held=True, reservation_timeout=wishes.seconds)


class Printer:
    """Writes payloads, then completes them."""

    def __init__(self, q: Client, wishes: Wishes, env: Env, tally: Tally, *, is_json: bool) -> None:
        self._q = q
        self._wishes = wishes
        self._env = env
        self._tally = tally
        self._is_json = is_json

    async def run(self) -> None:
        if self._wishes.follow:
            await self._follow()
        else:
            await self._empty()

    async def _follow(self) -> None:
        wishes = self._wishes
        async with self._q.consume(
            wishes.queue, window=wishes.window, batch=wishes.batch, reservation_timeout=wishes.seconds
        ) as items:
            try:
                async for batch in items.batches():
                    await self._take(batch)
                    if self._is_enough():
                        break
            finally:
                self._count_lost(items.refused_items)
        self._count_lost(items.refused_items)

    async def _empty(self) -> None:
        while not self._is_enough():
            left = None if self._wishes.items_max is None else self._wishes.items_max - self._tally.taken
            batch = await reserve_now(
                self._q, self._wishes, min(self._wishes.batch, left or self._wishes.batch)
            )
            if batch is None:
                break
            await self._take(batch)
        await self._q.wait_settled()

    async def _take(self, batch: Batch) -> None:
        items_max = self._wishes.items_max
        count = batch.count if items_max is None else min(batch.count, items_max - self._tally.taken)
        lines = self._json_lines(batch, count) if self._is_json else batch.payloads[:count]
        # In a thread: whoever reads our output slowly must not keep us from answering the server's pings.
        await self._env.threads.run(_write, b"\n".join([*lines, b""]))
        batch.complete_nowait(0, count)
        self._tally.completed += count

    def _json_lines(self, batch: Batch, count: int) -> list[bytes]:
        return [to_json(document(batch.item(index))).encode() for index in range(count)]

    def _is_enough(self) -> bool:
        return self._wishes.items_max is not None and self._tally.taken >= self._wishes.items_max

    def _count_lost(self, refused: int) -> None:
        self._tally.completed -= refused - self._tally.lost
        self._tally.lost = refused


def document(item: Item) -> dict[str, Any]:
    """An item as ``--json`` prints it; what it does not have is left out."""
    found = {
        "id": item.id,
        "payload": item.payload,
        "attempt": item.attempt,
        "key": item.key,
        "kind": item.kind,
        "encoding": item.encoding,
        "reference": item.reference,
        "headers": item.headers or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _write(data: bytes) -> None:
    out = sys.stdout.buffer
    out.write(data)
    out.flush()


class Runner:
    """Runs a command for each item, several at a time."""

    def __init__(self, q: Client, wishes: Wishes, command: str, env: Env, tally: Tally) -> None:
        self._q = q
        self._wishes = wishes
        self._command = command
        self._env = env
        self._tally = tally
        self._started = 0

    async def run(self, jobs: int) -> None:
        if not self._wishes.follow:
            async with trio.open_nursery() as nursery:
                for _ in range(jobs):
                    nursery.start_soon(self._empty)
            return
        async with (
            self._q.consume(
                self._wishes.queue, window=jobs, batch=1, reservation_timeout=self._wishes.seconds
            ) as items,
            trio.open_nursery() as nursery,
        ):
            # The window bounds the tasks: an item is only pushed when one has been settled.
            while self._may_start():
                nursery.start_soon(self._run_one, await anext(items))

    async def _empty(self) -> None:
        while self._may_start():
            batch = await reserve_now(self._q, self._wishes, 1)
            if batch is None:
                return
            await self._run_one(batch.item(0))

    def _may_start(self) -> bool:
        self._started += 1
        return self._wishes.items_max is None or self._started <= self._wishes.items_max

    async def _run_one(self, item: Item) -> None:
        tally = self._tally
        try:
            async with item:
                code, words = await self._call(item)
                if code == 0:
                    await item.complete()
                    tally.completed += 1
                elif code == EXIT_DEAD:
                    await item.dead(words or f"the command exited with {code}")
                    tally.dead += 1
                elif code == EXIT_RELEASE:
                    await item.release()
                    tally.released += 1
                else:
                    await item.retry()
                    tally.retried += 1
        except ReservationLost as error:
            tally.lost += 1
            note(f"item {item.id}: {error}")

    async def _call(self, item: Item) -> tuple[int, str]:
        """(exit code, last words). Cancelling ends the command."""
        tail = bytearray()
        # Its output is ours; what it complains of is passed on, and the end kept as a reason.
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(self._start, item)
            if process.stderr is not None:
                async for chunk in process.stderr:
                    sys.stderr.buffer.write(chunk)
                    sys.stderr.flush()
                    tail += chunk
                    del tail[:-STDERR_BYTES]
            code = await process.wait()
        lines = tail.decode(errors="replace").strip().splitlines()
        return code, lines[-1][:REASON_CHARACTERS] if lines else ""

    async def _start(self, item: Item, task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(  # noqa: S604 - the operator's own command
            self._command,
            stdin=item.payload,
            stderr=PIPE,
            shell=True,
            check=False,
            env={**os.environ, **_about(item)},
            task_status=task_status,
        )


def _about(item: Item) -> dict[str, str]:
    """The command's environment. A NUL cannot stand in one."""
    about = {
        "QUERATOR_ITEM": item.id,
        "QUERATOR_QUEUE": item.queue,
        "QUERATOR_ATTEMPT": str(item.attempt),
        "QUERATOR_KEY": item.key or "",
        "QUERATOR_KIND": item.kind or "",
        "QUERATOR_REFERENCE": item.reference or "",
    }
    return {name: value.replace("\0", "") for name, value in about.items()}


def _check(items_max: int | None, jobs: int, batch: int, window: int) -> None:
    bounds: Sequence[tuple[str, int, int]] = (
        ("--max", 1 if items_max is None else items_max, 1 << 53),
        ("--jobs", jobs, JOBS_MAX),
        ("--batch", batch, limits.BATCH_ITEMS_MAX),
        ("--window", window, limits.WINDOW_ITEMS_MAX),
    )
    for name, value, most in bounds:
        if not 1 <= value <= most:
            raise UsageError(f"{name}: give a number from 1 to {most}")
