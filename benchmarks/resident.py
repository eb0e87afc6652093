"""The memory of a benchmark: this process and all that it started, at one moment."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.processes import resident_bytes

_PAUSE = 0.02
"""Seconds between two looks."""


def _children(pid: int) -> list[int]:
    """The living processes that this one started, and those that they did."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found + [other for child in found for other in _children(child)]


class Resident:
    """Within its block, a thread adds up what all of them have resident, and keeps the most.

    What they share (libraries, mostly) counts once for each of them.
    """

    def __init__(self) -> None:
        self.most = 0
        """Bytes."""
        self.processes = 0
        """How many there were at that moment."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="resident", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(_PAUSE):
            self._look()

    def _look(self) -> None:
        pids = [os.getpid()]
        with suppress(OSError):
            pids += _children(pids[0])
        size = 0
        for pid in pids:
            with suppress(OSError):
                size += resident_bytes(pid)
        if size > self.most:
            self.most, self.processes = size, len(pids)
