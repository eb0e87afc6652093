"""The exporter as a task of a live server: every so often, slowly, and never the server's undoing."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from querator import telemetry
from querator.analytics.compact import compact
from querator.analytics.export import Exporter
from querator.analytics.manifest import ArchiveError
from querator.core import limits
from querator.core.ids import Duration
from querator.env import Env
from querator.errors import LogError
from querator.log.store import LogStore


def server_exporter(env: Env, stores: Sequence[LogStore], directory: Path) -> Exporter:
    """One that a server can bear: a share of a core, one thread of DuckDB, little memory."""
    return Exporter(
        env,
        stores,
        directory,
        pace=limits.EXPORT_PACE,
        memory_limit=limits.SERVER_EXPORT_MEMORY,
        threads=1,
    )


async def follow(env: Env, exporter: Exporter, *, every: Duration) -> NoReturn:
    """Export and compact, then rest for ``every``; for ever, until it is cancelled.

    What goes wrong with the archive or the log is told (``analytics.export.failed``) and tried again after
    the rest: exporting stops, the queue does not.
    """
    while True:
        try:
            done = await exporter.refresh()
            if done.rows:
                telemetry.emit(
                    "analytics.exported",
                    records=done.records,
                    rows=done.rows,
                    items=done.items,
                    bytes=done.bytes,
                )
            await compact(
                env, exporter.archive.directory, memory_limit=limits.SERVER_EXPORT_MEMORY, threads=1
            )
        except (ArchiveError, LogError, OSError) as error:
            telemetry.emit("analytics.export.failed", error=str(error))
        await env.clock.sleep(every)
