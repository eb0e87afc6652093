"""What lies between a node and the store's server, and can be cut while the node's clients still reach it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

SILENCE: Final = 4.0
"""Seconds until a process gives up on a server from which nothing comes."""


class Cable:
    """Of one host. A cut that is silent swallows what is sent; one that is not refuses it."""

    def __init__(self) -> None:
        self.is_cut = False
        self._silence = 0.0
        self._crossings: dict[trio.CancelScope, None] = {}

    def cut(self, *, silent: bool) -> None:
        """Nothing gets through from here on, not the answers to what is under way either."""
        self.is_cut = True
        self._silence = SILENCE if silent else 0.0
        for scope in self._crossings:
            scope.deadline = trio.current_time() + self._silence

    def mend(self) -> None:
        """New things get through again."""
        self.is_cut = False

    async def reaches(self) -> bool:
        """Whether something can be sent; where it can't, after a while."""
        if self.is_cut:
            await trio.sleep(self._silence)
        return not self.is_cut

    @contextmanager
    def crossing(self) -> Iterator[trio.CancelScope]:
        """Wait for an answer in the block; the scope is cancelled when none will come."""
        with trio.CancelScope() as scope:
            self._crossings[scope] = None
            try:
                yield scope
            finally:
                del self._crossings[scope]
