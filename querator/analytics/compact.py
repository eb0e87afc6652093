"""Compaction: the parts of a day become one file.

Many small files make every question slow. A day that is over is compacted once; the present day when
it has many parts. The rows stay what they are, in the same order as in each part; the manifest
changes from the old files to the new one in one step, and the old ones stay for one step more, for
those who read them.
"""

from pathlib import Path
from typing import Final

import attrs

from querator.analytics import warehouse
from querator.analytics.directory import Archive, Progress, Report, day_name, silent
from querator.analytics.manifest import EVENTS, PAYLOADS, ArchiveError, Manifest, Part
from querator.core import limits
from querator.env import Env

_DAY: Final = 86_400_000_000
_ORDER: Final = {EVENTS: "partition, position, seq", PAYLOADS: "partition, item, position"}


@attrs.frozen
class Compacted:
    """What a compaction did."""

    days: int = 0
    parts_before: int = 0
    parts_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


async def compact(
    env: Env,
    directory: Path,
    report: Report = silent,
    *,
    everything: bool = False,
    memory_limit: str = limits.ANALYTICS_MEMORY,
    threads: int = 0,
) -> Compacted:
    """Compact what is due in the archive; ``everything``: also days that are not over.

    Raises:
        ArchiveError: a part is missing or damaged, or the archive is being written.
    """
    archive = Archive(env, directory)
    async with archive.locked():
        manifest = await archive.manifest()
        await archive.sweep(manifest)
        today = day_name(env.clock.now() // _DAY)
        due: list[tuple[str, str, list[Part]]] = []
        for kind, parts in ((EVENTS, manifest.parts), (PAYLOADS, manifest.payload_parts)):
            for day in sorted(dict.fromkeys(part.day for part in parts)):
                of_day = [part for part in parts if part.day == day]
                if len(of_day) > 1 and (everything or day < today or len(of_day) > limits.COMPACT_PARTS_MAX):
                    due.append((kind, day, of_day))
        done = Compacted()
        if not due:
            return done
        connection = await archive.open_database(memory_limit, threads)
        try:
            for index, (kind, day, parts) in enumerate(due):
                report(Progress("days compacted", index, len(due)))
                manifest, done = await _compact_day(archive, connection, manifest, kind, day, parts, done)
        except warehouse.DuckDBError as error:
            raise ArchiveError(f"{directory} cannot be compacted: {error}") from error
        finally:
            connection.close()
        report(Progress("days compacted", len(due), len(due)))
        return done


async def _compact_day(
    archive: Archive,
    connection: warehouse.Connection,
    manifest: Manifest,
    kind: str,
    day: str,
    parts: list[Part],
    done: Compacted,
) -> tuple[Manifest, Compacted]:
    await archive.check(parts)
    generation = manifest.generation + 1
    sources = [archive.directory / part.file for part in parts]
    rows = sum(part.rows for part in parts)

    def write(path: Path) -> None:
        written = warehouse.merge_files(connection, sources, _ORDER[kind], path)
        if written != rows:
            raise ArchiveError(f"{day} has {written} rows after compaction instead of {rows}: left as it was")

    merged = await archive.put_part(
        f"{kind}/day={day}/part-{generation:08}.parquet",
        day,
        rows,
        sum(part.items for part in parts),
        write,
        is_compacted=True,
    )
    old = [part.file for part in parts]
    gone = frozenset(old)
    made = attrs.evolve(
        manifest,
        generation=generation,
        parts=_replace(manifest.parts, gone, merged if kind == EVENTS else None),
        payload_parts=_replace(manifest.payload_parts, gone, merged if kind == PAYLOADS else None),
        superseded=old,
    )
    await archive.commit(made)
    await archive.sweep(made)
    return made, Compacted(
        done.days + 1,
        done.parts_before + len(parts),
        done.parts_after + 1,
        done.bytes_before + sum(part.bytes for part in parts),
        done.bytes_after + merged.bytes,
    )


def _replace(parts: list[Part], gone: frozenset[str], merged: Part | None) -> list[Part]:
    kept = [part for part in parts if part.file not in gone]
    return kept if merged is None else sorted([*kept, merged], key=lambda part: (part.day, part.file))
