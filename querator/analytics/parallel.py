"""Folders in processes of their own: an export folds partitions on all cores.

``python -m querator.analytics.parallel`` is such a process. It is told what to do over its standard
input and answers over its standard output, in frames: length u32, then msgpack, a name and a body. It
reads no log and knows no manifest, and ends with its input. Files that it leaves when it or its parent is
killed bear a name that nobody else gives.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from struct import Struct
from typing import Any, Final

import attrs
import msgspec
import trio

from querator.analytics.directory import Archive
from querator.analytics.folding import Folder, LocalFolder, Made
from querator.analytics.manifest import ArchiveError, Mark
from querator.core import limits
from querator.core.ids import PartitionId
from querator.env import Env
from querator.errors import CorruptRecord, QueratorError
from querator.log.records import Record

_LENGTH: Final = Struct("<I")
_READ_BYTES: Final = 1 << 20
_ENCODE: Final = msgspec.msgpack.Encoder().encode


@attrs.frozen
class _Open:
    directory: str
    suffix: str


@attrs.frozen
class _Begin:
    partition: int
    mark: Mark | None


@attrs.frozen
class _Failure:
    is_corrupt: bool
    """The log's fault; else the archive's."""
    text: str


_BODIES: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "open": msgspec.msgpack.Decoder(_Open),
    "begin": msgspec.msgpack.Decoder(_Begin),
    "take": msgspec.msgpack.Decoder(list[Record]),
    "step": msgspec.msgpack.Decoder(int),
    "done": msgspec.msgpack.Decoder(None),
    "full": msgspec.msgpack.Decoder(bool),
    "made": msgspec.msgpack.Decoder(Made),
    "failed": msgspec.msgpack.Decoder(_Failure),
}


class _Frames:
    """Messages over a stream of bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def send(self, name: str, body: object) -> None:
        data = _ENCODE((name, msgspec.Raw(_ENCODE(body))))
        await self._stream.send_all(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> tuple[str, Any] | None:
        """The next one; ``None``: the other side is gone."""
        if not await self._fill(_LENGTH.size):
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if not await self._fill(_LENGTH.size + size):
            return None
        data = bytes(self._buffer[_LENGTH.size : _LENGTH.size + size])
        del self._buffer[: _LENGTH.size + size]
        name, body = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
        return name, _BODIES[name].decode(body)

    async def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(_READ_BYTES)
            if not data:
                return False
            self._buffer += data
        return True


class RemoteFolder:
    """A Folder in another process. While that folds a page, the next one is read here."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._frames = _Frames(stream)
        self._is_folding = False

    async def open(self, archive: Archive, suffix: str) -> None:
        await self._ask("open", _Open(str(archive.directory.resolve()), suffix))

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
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _gone() from None

    async def _answer(self) -> Any:
        answer = await self._frames.receive()
        if answer is None:
            raise _gone()
        name, body = answer
        if name == "failed":
            raise CorruptRecord(body.text) if body.is_corrupt else ArchiveError(body.text)
        return body


def _gone() -> ArchiveError:
    return ArchiveError("a process that was exporting ended: what it had not finished is exported next time")


@asynccontextmanager
async def remote_folders(env: Env, archive: Archive, count: int) -> AsyncIterator[list[Folder]]:
    """So many processes, which end with the block.

    Raises:
        ArchiveError: one cannot be started.
    """
    async with AsyncExitStack() as stack:
        folders: list[Folder] = []
        for number in range(count):
            stream = await stack.enter_async_context(env.processes.run("querator.analytics.parallel"))
            folder = RemoteFolder(stream)
            await folder.open(archive, f"-{env.rng.token_bytes(6).hex()}-{number}")
            folders.append(folder)
        yield folders


async def serve(env: Env, stream: trio.abc.Stream) -> None:
    """Fold for the process at the other end, until it is gone."""
    frames = _Frames(stream)
    folder: LocalFolder | None = None
    while (message := await frames.receive()) is not None:
        name, body = message
        try:
            if folder is None:
                folder = LocalFolder(
                    env,
                    Archive(env, Path(body.directory)),
                    memory_limit=limits.WORKER_EXPORT_MEMORY,
                    threads=1,
                    suffix=body.suffix,
                )
                await frames.send("done", None)
            elif name == "begin":
                await folder.begin(PartitionId(body.partition), body.mark)
                await frames.send("done", None)
            elif name == "take":
                await frames.send("full", await folder.take(body))
            else:
                await frames.send("made", await folder.step(body))
        except QueratorError as error:
            await frames.send("failed", _Failure(isinstance(error, CorruptRecord), str(error)))
        except OSError as error:
            await frames.send("failed", _Failure(is_corrupt=False, text=str(error)))


async def main() -> None:
    """What a child process does."""
    from querator.env.real import real_env, standard_stream  # noqa: PLC0415 - only a child needs it

    # Rows are tuples that die by reference counts; looking for cycles among them is a tenth of the time.
    gc.disable()
    await serve(real_env(), standard_stream())


if __name__ == "__main__":
    trio.run(main)
