"""What operators see of telemetry: a line an event, and a counter an event.

The level follows from the event's last word, so that code which emits need not choose one.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Final, TextIO

import structlog
from prometheus_client.core import CounterMetricFamily, Metric

from querator import telemetry
from querator.config import LogFormat, LogLevel

ERRORS: Final = frozenset(("bug", "corrupt", "damaged", "halted", "loss_suspected"))
WARNINGS: Final = frozenset(
    (
        "away",
        "differs",
        "failed",
        "fenced",
        "ignored",
        "lapsed",
        "loss_accepted",
        "lost",
        "no_room",
        "outcome_unknown",
        "overloaded",
        "refused",
        "server_changed",
        "stepped",
        "stepped_down",
        "store_unknown",
        "unavailable",
        "unsafe",
    )
)
_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
EVENT_NAMES_MAX: Final = 1_000
"""Names of events that are counted. They are literals in the code; this holds if one is not."""


def level_of(name: str) -> LogLevel:
    """How bad the event is."""
    last = name.rpartition(".")[2]
    if last in ERRORS:
        return LogLevel.ERROR
    return LogLevel.WARNING if last in WARNINGS else LogLevel.INFO


def write_journal(level: LogLevel, log_format: LogFormat, stream: TextIO | None = None) -> Callable[[], None]:
    """Write events from now on, to standard error unless told otherwise; call the result to stop that."""
    out = sys.stderr if stream is None else stream
    as_text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and out.isatty())
    renderer = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if as_text else structlog.processors.JSONRenderer()
    )
    logger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    writers = {LogLevel.ERROR: logger.error, LogLevel.WARNING: logger.warning, LogLevel.INFO: logger.info}

    def write(name: str, fields: dict[str, object]) -> None:
        # A listener must not raise: a full disk or a closed pipe behind standard error stops the
        # journal, not the partition whose event it was. There is nobody left to tell.
        with contextlib.suppress(OSError):
            writers[level_of(name)](name, **fields)

    return telemetry.listen(write)


class EventCounts:
    """How often each event happened; ``families`` is a source of the metrics page."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def start(self) -> Callable[[], None]:
        """Count from now on; call the result to stop that."""
        return telemetry.listen(self._count)

    def families(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "querator_telemetry_events",
            "What happened, by the name under which it is logged",
            labels=["name"],
        )
        for name, count in sorted(self._counts.items()):
            family.add_metric([name], count)
        return [family]

    def _count(self, name: str, _: dict[str, object]) -> None:
        if name in self._counts or len(self._counts) < EVENT_NAMES_MAX:
            self._counts[name] = self._counts.get(name, 0) + 1
