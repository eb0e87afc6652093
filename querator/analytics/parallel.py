"""Folders in processes of their own: an export folds partitions on all cores, or out of a server's way.

``python -m querator.analytics.parallel`` is such a process. It is told what to do over its standard
input and answers over its standard output (frames.py). It reads no log, writes no manifest (but when it
compacts), and ends with its input. Files that it leaves when it or its parent is killed bear a name that
nobody else gives.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import trio

from querator.analytics.compact import compact
from querator.analytics.directory import Archive
from querator.analytics.folding import LocalFolder, Made
from querator.analytics.frames import Bodies, Frames, PeerGone
from querator.analytics.manifest import ArchiveError, Mark
from querator.core import limits
from querator.core.ids import PartitionId
from querator.env import Env
from querator.errors import CorruptRecord, QueratorError
from querator.log.records import Record


@attrs.frozen
class _Open:
    directory: str
    suffix: str
    is_servers: bool
    """It works for a server, for long: of low priority, with little memory, and it keeps its ledgers."""


@attrs.frozen
class _Begin:
    partition: int
    mark: Mark | None


@attrs.frozen
class _Failure:
    is_corrupt: bool
    """The log's fault; else the archive's."""
    text: str


MODULE: Final = "querator.analytics.parallel"
_BODIES: Final[Bodies] = {
    "open": msgspec.msgpack.Decoder(_Open),
    "begin": msgspec.msgpack.Decoder(_Begin),
    "take": msgspec.msgpack.Decoder(list[Record]),
    "reset": msgspec.msgpack.Decoder(None),
    "compact": msgspec.msgpack.Decoder(None),
    "step": msgspec.msgpack.Decoder(int),
    "done": msgspec.msgpack.Decoder(None),
    "full": msgspec.msgpack.Decoder(bool),
    "made": msgspec.msgpack.Decoder(Made),
    "failed": msgspec.msgpack.Decoder(_Failure),
}


class RemoteFolder:
    """A Folder in another process. While that folds a page, the next one is read here."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._frames = Frames(stream, _BODIES)
        self._is_folding = False

    async def open(self, archive: Archive, suffix: str, *, is_servers: bool = False) -> None:
        """Before anything else."""
        await self._ask("open", _Open(str(archive.directory.resolve()), suffix, is_servers))

    async def compact(self) -> None:
        """Compact the archive there; nobody may have it locked.

        Raises:
            ArchiveError: see ``compact``.
        """
        await self._ask("compact", None)

    async def reset(self) -> None:
        """See Folder."""
        await self._finish()
        await self._ask("reset", None)

    async def begin(self, partition: PartitionId, mark: Mark | None) -> None:
        """See Folder."""
        await self._finish()
        await self._ask("begin", _Begin(partition, mark))

    async def take(self, page: list[Record]) -> bool:
        """See Folder. What is said is of the page before."""
        is_full = await self._finish()
        await self._send("take", page)
        self._is_folding = True
        return is_full

    async def step(self, generation: int) -> Made:
        """See Folder."""
        await self._finish()
        made: Made = await self._ask("step", generation)
        return made

    async def _finish(self) -> bool:
        """Wait for the page that is being folded."""
        if not self._is_folding:
            return False
        self._is_folding = False
        return bool(await self._answer())

    async def _ask(self, name: str, body: object) -> Any:
        await self._send(name, body)
        return await self._answer()

    async def _send(self, name: str, body: object) -> None:
        try:
            await self._frames.send(name, body)
        except PeerGone:
            raise _gone() from None

    async def _answer(self) -> Any:
        try:
            name, body = await self._frames.receive()
        except PeerGone:
            raise _gone() from None
        if name == "failed":
            raise CorruptRecord(body.text) if body.is_corrupt else ArchiveError(body.text)
        return body


def _gone() -> ArchiveError:
    return ArchiveError("a process that was exporting ended: what it had not finished is exported next time")


@asynccontextmanager
async def remote_folders(
    env: Env, archive: Archive, count: int, *, is_servers: bool = False
) -> AsyncIterator[list[RemoteFolder]]:
    """So many processes, which end with the block.

    Raises:
        ArchiveError: one cannot be started.
    """
    async with AsyncExitStack() as stack:
        folders: list[RemoteFolder] = []
        for number in range(count):
            stream = await stack.enter_async_context(env.processes.run(MODULE, is_modest=is_servers))
            folder = RemoteFolder(stream)
            suffix = f"-{env.rng.token_bytes(6).hex()}-{number}"
            await folder.open(archive, suffix, is_servers=is_servers)
            folders.append(folder)
        yield folders


async def serve(env: Env, stream: trio.abc.Stream) -> None:
    """Fold for the process at the other end, until it is gone."""
    frames = Frames(stream, _BODIES)
    try:
        _, opened = await frames.receive()
        await frames.send("done", None)
        memory_limit = limits.SERVER_EXPORT_MEMORY if opened.is_servers else limits.WORKER_EXPORT_MEMORY
        directory = Path(opened.directory)
        folder = LocalFolder(
            env,
            Archive(env, directory),
            memory_limit=memory_limit,
            threads=1,
            suffix=opened.suffix,
            keeps=opened.is_servers,
        )
        while True:
            name, body = await frames.receive()
            try:
                if name == "compact":
                    await compact(env, directory, memory_limit=memory_limit, threads=1)
                    answer: tuple[str, object] = ("done", None)
                else:
                    answer = await _do(folder, name, body)
            except QueratorError as error:
                answer = ("failed", _Failure(isinstance(error, CorruptRecord), str(error)))
            except OSError as error:
                answer = ("failed", _Failure(is_corrupt=False, text=str(error)))
            await frames.send(*answer)
    except PeerGone:
        return


async def _do(folder: LocalFolder, name: str, body: Any) -> tuple[str, object]:
    match name:
        case "begin":
            await folder.begin(PartitionId(body.partition), body.mark)
        case "take":
            return "full", await folder.take(body)
        case "step":
            return "made", await folder.step(body)
        case _:
            await folder.reset()
    return "done", None


async def main() -> None:
    """What a child process does."""
    from querator.env.real import real_env, standard_stream  # noqa: PLC0415 - only a child needs it

    # Rows are tuples that die by reference counts; looking for cycles among them is a tenth of the time.
    gc.disable()
    await serve(real_env(), standard_stream())


if __name__ == "__main__":
    trio.run(main)
