"""Standard input, and files like it, without blocking the event loop."""

import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import BinaryIO, Final

import trio

from querator.cli.exits import CommandFailed, Exit, UsageError
from querator.core import limits

CHUNK_BYTES: Final = 262_144


async def read_chunks(descriptor: int) -> AsyncGenerator[bytes, None]:
    """What can be read there, as it comes. Cancelling stops the wait: no thread hangs in a read."""
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:
            # A regular file is always ready, which epoll refuses to say.
            await trio.lowlevel.checkpoint()
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def open_capture(file: Path) -> BinaryIO:
    """To be closed by the caller.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; captures are made by querator log export") from error


class LineSplitter:
    """Chunks in, whole lines out, without their line feeds."""

    def __init__(self) -> None:
        self.lines = 0
        """Given out so far."""
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in ``chunk``.

        Raises:
            CommandFailed: a line is longer than a payload may be.
        """
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        self._check(lines)
        if len(self._rest) > limits.PAYLOAD_BYTES_MAX:
            self._complain(self.lines + len(lines) + 1)
        self.lines += len(lines)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if nothing ended it."""
        rest, self._rest = self._rest, b""
        self.lines += bool(rest)
        return [rest] if rest else []

    def _check(self, lines: Iterable[bytes]) -> None:
        for number, line in enumerate(lines, self.lines + 1):
            if len(line) > limits.PAYLOAD_BYTES_MAX:
                self._complain(number)

    def _complain(self, number: int) -> None:
        raise CommandFailed(
            f"line {number}: longer than the {limits.PAYLOAD_BYTES_MAX} bytes that an item may have",
            Exit.DATA,
        )


def size_of(descriptor: int) -> int | None:
    """Bytes still to come, where that can be known."""
    try:
        status = os.fstat(descriptor)
        here = os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return None
    return max(0, status.st_size - here) if status.st_size else None
