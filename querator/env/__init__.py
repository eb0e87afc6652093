"""The one door to the outside world: clock, randomness, network, files, threads, processes.

A node is given one ``Env`` and reaches for nothing around it, so that the same code runs in
production (``real.real_env()``), in tests and in simulations (``virtual.virtual_env(seed)``), where
time is virtual, chance is seeded, links are memory and threads are calls. ``tests/test_forbidden_names.py``
holds the rest of ``querator/`` to that.

* **Time** is ``clock.now()``: integer microseconds UTC, the wall clock's at start plus the
  boot-time clock elapsed since. Small disagreements with the wall are slewed away (at most 500 µs a
  second); larger ones are reported by ``clock.step()`` and not followed, so that a jump of the wall
  clock ends nobody's reservation. Relative timeouts around I/O are trio's own
  (``trio.move_on_after(seconds(limits.DRAIN_TIMEOUT))``): they are cancellation, not time that
  anybody records.
* **Chance** is ``rng``, with a named child stream for each purpose, so that a draw added in one place
  shifts no other.
* **Waiting** is ``clock.sleep`` and ``clock.sleep_until``; the latter is never early.
* **The scheduler** is a seam too: ``scheduling.py`` is the one module that touches trio's private
  names.

Not here: the log store, whose protocol is in ``querator.log.store``, and observation
(``querator.telemetry``).
"""

from querator.env.seams import (
    Clock,
    Env,
    FileLock,
    FileLocked,
    Files,
    Net,
    NoProcesses,
    Processes,
    Rng,
    Spare,
    Threads,
    Worker,
    seconds,
)

__all__ = [
    "Clock",
    "Env",
    "FileLock",
    "FileLocked",
    "Files",
    "Net",
    "NoProcesses",
    "Processes",
    "Rng",
    "Spare",
    "Threads",
    "Worker",
    "seconds",
]
