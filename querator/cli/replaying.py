"""``querator log export`` and ``querator replay``: a log taken along, and a log decided and folded again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import trio
from cyclopts import Parameter

from querator.cli.exits import Exit, UsageError
from querator.cli.logs import Source, chosen
from querator.cli.moments import read_place_in_log
from querator.cli.output import note, print_fields, print_json, print_table, print_text
from querator.cli.progress import Progress
from querator.cli.reading import open_capture, size_of
from querator.core import events as ev
from querator.core.ids import CATALOG_PARTITION, PartitionId
from querator.env.real import real_env
from querator.log.records import Record
from querator.log.show import describe, moment
from querator.log.store import LogStore
from querator.replay.capture import (
    CapturedRecord,
    CaptureHead,
    CaptureWriter,
    Payloads,
    read_capture,
)
from querator.replay.fold import PartitionReplay, Replay, counts_of
from querator.replay.history import Moment, positions_between, read_queues, walk


async def export(
    file: Path,
    *,
    source: Source | None = None,
    queue: Annotated[str | None, Parameter(help="Only the partitions of this one.")] = None,
    partition: Annotated[
        int | None, Parameter(help="Only this one; 0, the catalog, only if it is asked for.")
    ] = None,
    start: Annotated[
        str | None,
        Parameter(
            name="--from",
            help="From then on: a time (2026-12-31T08:00:00Z), a duration before now (24h), or a position.",
        ),
    ] = None,
    end: Annotated[str | None, Parameter(name="--to", help="Up to then; likewise.")] = None,
    payloads: Annotated[
        Payloads, Parameter(help="kept, dropped, or sizes: replaced by how long each is.")
    ] = Payloads.KEPT,
) -> None:
    """Write a capture: records in one checksummed file, to be replayed and asked elsewhere.

    A stretch that does not begin with the log carries the state before it. The file must not be there yet.
    """
    source = source or Source()
    stretch = read_stretch(start, end)
    if queue is not None and partition is not None:
        raise UsageError("a --queue or a --partition, not both")
    env = real_env()
    async with source.open() as store:
        queues = await read_queues(store)
        if queue is None:
            numbers = await partitions_of(store, partition)
        else:
            numbers = [PartitionId(number) for number in _of_queue(queues, queue)]
            queues = {queue: queues[queue]}
        stretch.check_partitions(numbers)
        head = CaptureHead(payloads, queues)
        partial = file.with_name(file.name + ".partial")
        _refuse_existing(file)
        try:
            with (
                partial.open("wb") as out,
                Progress(env.clock, "exported", bytes_total=None, is_wanted=not source.json) as progress,
            ):
                writer = CaptureWriter(out, head)
                items = 0
                for number in numbers:
                    bounds = await positions_between(store, number, stretch.start, stretch.end)
                    if bounds is None:
                        continue
                    async for thing in walk(store, number, *bounds):
                        if isinstance(thing, CapturedRecord):
                            writer.record(thing.record)
                            if thing.record.item_max:
                                items += thing.record.item_max - thing.record.item_min + 1
                            progress.update(items, 0)
                        else:
                            writer.checkpoint(thing)
                writer.finish()
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)
    if source.json:
        print_json(
            {
                "file": str(file),
                "records": writer.records,
                "items": items,
                "payloads": payloads,
                "records_without_payloads": writer.without_payloads,
            }
        )
        return
    note(f"{writer.records:,} records with {items:,} items, payloads {payloads}, in {file}")
    if writer.without_payloads:
        note(
            f"of {writer.without_payloads:,} them the log has dropped the payloads, and they were not kept: "
            "neither they nor their sizes are in the capture"
        )


async def replay(
    file: Path | None = None,
    *,
    source: Source | None = None,
    partition: Annotated[int | None, Parameter(help="Only this one.")] = None,
    step: Annotated[bool, Parameter(negative="", help="Print each event, in words.")] = False,
) -> int:
    """Decide a capture, or without FILE a server's log, again through the engine's own code, and compare.

    Checked: the hash chain, that what is decided again encodes to the recorded bytes, that each event fits
    the state it meets, order of place, conservation after each record, and each snapshot. The first
    divergence is shown; exit code 65.
    """
    source = source or Source()
    env = real_env()
    walker = Replay(_Steps(is_json=source.json).show if step else None)
    is_wanted = not (source.json or step)
    if file is not None:
        if source.data is not None or source.log is not None:
            raise UsageError("replay takes a FILE or a log (--data, --log), not both")
        with (
            open_capture(file) as content,
            Progress(
                env.clock, "replayed", bytes_total=size_of(content.fileno()), is_wanted=is_wanted
            ) as progress,
        ):
            for thing in read_capture(content):
                number = getattr(thing, "partition", None) or getattr(
                    getattr(thing, "record", None), "partition", None
                )
                if partition is None or number in (None, partition):
                    walker.take(thing)
                    progress.update(walker.items, content.tell())
                # So that Ctrl-C is heard.
                await trio.lowlevel.checkpoint_if_cancelled()
            if partition is not None and partition not in walker.partitions:
                raise UsageError(f"--partition: there is no partition {partition} in this capture")
    else:
        async with source.open() as store:
            with Progress(env.clock, "replayed", bytes_total=None, is_wanted=is_wanted) as progress:
                for number in await partitions_of(store, partition):
                    async for found in walk(store, number):
                        walker.take(found)
                        progress.update(walker.items, 0)
    walker.finish()
    return _print_verdict(walker, is_json=source.json)


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file} is there already")


class _Steps:
    """Prints events as they are folded in."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._at = 0

    def show(self, record: Record, event: ev.Event) -> None:
        if isinstance(event, ev.TurnStarted):
            self._at = event.at
            return
        text = describe(event)
        if self._is_json:
            print_json(
                {
                    "partition": record.partition,
                    "position": record.position,
                    "at": self._at,
                    "event": type(event).__name__,
                    "text": text,
                }
            )
        else:
            print_text(f"{record.partition}.{record.position}  {moment(self._at)}  {text}")


@attrs.frozen
class Stretch:
    """From a moment to a moment, both included; ``None``: from the beginning, up to the end."""

    start: Moment | None
    end: Moment | None

    def check_partitions(self, numbers: Sequence[PartitionId]) -> None:
        """Raises UsageError: a position is one of several partitions."""
        for bound, option in ((self.start, "--from"), (self.end, "--to")):
            if bound is not None and bound.position is not None and len(numbers) > 1:
                raise UsageError(
                    f"{option}: a position is one of a partition's log, and there are several: name one with "
                    f"--partition ({', '.join(map(str, numbers))}), or say a time"
                )


def read_stretch(start: str | None, end: str | None) -> Stretch:
    """Raises UsageError: they are no moments, or the end lies before the start."""
    found = Stretch(
        None if start is None else read_place_in_log(start, "--from"),
        None if end is None else read_place_in_log(end, "--to"),
    )
    if found.start is not None and found.end is not None:
        first, last = found.start, found.end
        if (first.position is None) != (last.position is None):
            raise UsageError("--from, --to: two times or two positions")
        if (last.position or last.at or 0) < (first.position or first.at or 0):
            raise UsageError(f"--to: {end} lies before --from {start}")
    return found


def _of_queue(queues: dict[str, list[int]], queue: str) -> list[int]:
    if queue not in queues:
        known = ", ".join(sorted(queues)) or "none"
        raise UsageError(f"--queue: there is no queue '{queue}' in this log; there are {known}")
    return queues[queue]


async def partitions_of(store: LogStore, partition: int | None) -> Sequence[PartitionId]:
    """The one, or all but the catalog."""
    return [
        number
        for number in await chosen(store, partition)
        if partition is not None or number != CATALOG_PARTITION
    ]


def _print_verdict(walker: Replay, *, is_json: bool) -> int:
    documents = [_document(found) for _, found in sorted(walker.partitions.items())]
    divergence = walker.divergence
    if is_json:
        print_json({"ok": divergence is None, "partitions": documents})
        return Exit.OK if divergence is None else Exit.DATA
    names = (
        "partition",
        "first",
        "records",
        "produced",
        "ready",
        "reserved",
        "scheduled",
        "dead",
        "completed",
    )
    headings = [name.upper() for name in names]
    print_table(
        (*headings, "SNAPSHOTS", "VERDICT"),
        [
            (
                *(document[name] for name in names),
                document["snapshots"],
                "same" if document["ok"] else "DIVERGES",
            )
            for document in documents
        ],
        right=[*headings, "SNAPSHOTS"],
    )
    if divergence is None:
        assignments = sum(document["assignments"] for document in documents)
        known = sum(document["from_waiters"] for document in documents)
        note("the replay is what was recorded, bit for bit")
        if known == assignments:
            note(f"{assignments:,} assignments were decided again from the waiters that were recorded")
        else:
            note(
                f"{assignments:,} assignments were decided again, {known:,} of them from recorded waiters; "
                "the others from what the reservation says (a server with --record-inputs records more)"
            )
        return Exit.OK
    fields = [("first divergence", f"partition {divergence.partition}, record {divergence.position}")]
    if divergence.event:
        fields.append(("event", divergence.event))
    if divergence.index >= 0:
        fields.append(("field", divergence.field or "the whole event"))
        fields.append(("recorded", divergence.expected))
        fields.append(("replayed", divergence.got))
    print_fields([*fields, ("what is wrong", divergence.fault)])
    return Exit.DATA


def _document(found: PartitionReplay) -> dict[str, Any]:
    document: dict[str, Any] = {
        "partition": found.partition,
        "ok": found.divergence is None,
        "first": found.first,
        "records": found.records,
        "events": found.events,
        "snapshots": found.checkpoints,
        "assignments": found.decided.assignments,
        "from_waiters": found.decided.from_waiters,
        "events_decided": found.decided.events,
        **counts_of(found.state),
    }
    if found.divergence is not None:
        document["position"] = found.divergence.position
        document["fault"] = found.divergence.fault
        document["event"] = found.divergence.event
        if found.divergence.index >= 0:
            document["event_index"] = found.divergence.index
            document["field"] = found.divergence.field
            document["recorded"] = found.divergence.expected
            document["replayed"] = found.divergence.got
    return document
