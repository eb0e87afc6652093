"""The one module that touches trio's private names: a seed for its scheduler.

trio shuffles each batch of runnable tasks on purpose. With these two names the shuffle becomes a
function of the seed, so that a simulation can be run again. There is no public way (trio#890,
trio#2675); ``tests/env/test_scheduler_seam.py`` says when an upgrade of trio moves them.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio._core import _run


def seed_scheduler(seed: int) -> None:
    """From here on, in this process, trio's order of tasks is a function of ``seed``.

    Call it right before ``trio.run``. Deterministic only without threads, sockets and iteration over
    sets, and with garbage collection switched off or free of finalizers that act.
    """
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    _run._r.seed(seed)  # noqa: SLF001


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """``seed_scheduler`` for the block; afterwards the scheduler is as it was."""
    allowed = _run._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
    state = _run._r.getstate()  # noqa: SLF001
    seed_scheduler(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]  # noqa: SLF001
        _run._r.setstate(state)  # noqa: SLF001


class Fingerprint(trio.abc.Instrument):
    """A digest over every step of every task, and over what is noted: two equal runs have equal ones."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        self._hash.update(task.name.encode())

    def note(self, *facts: object) -> None:
        """Add facts, by their repr; give only what has a repr without addresses."""
        self._hash.update(repr(facts).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
