"""``querator log show`` and ``querator log verify``: the log itself, while no server has it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import attrs
from cyclopts import App, Parameter

from querator import config
from querator.actors.acceptance import NothingSuspected
from querator.actors.acceptance import accept_loss as accept
from querator.actors.verification import Verification, verify_partition
from querator.app import ARCHIVE, locked, make_stores
from querator.cli.exits import CommandFailed, Exit, UsageError
from querator.cli.options import Target, read_duration
from querator.cli.output import note, print_fields, print_json, print_table, print_text
from querator.cli.partitions import Number, Yes, check_yes, tell_loss
from querator.cli.progress import Progress
from querator.core.ids import PartitionId, Position
from querator.core.stores import choose, parse_stores
from querator.env.real import real_env
from querator.log.past import ReadThroughLog
from querator.log.records import Record
from querator.log.restore import ChainReport, first_position, read_all
from querator.log.show import describe_record, lines, moment
from querator.log.store import LogStore

app = App(name="log", help="Read and check the log of a server that is not running.")
app.command("querator.cli.replaying:export", name="export")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Source:
    """Which log."""

    data: Annotated[
        Path | None, Parameter(help="The server's directory (./querator-data). [env: QUERATOR_DATA]")
    ] = None
    log: Annotated[
        str | None, Parameter(help="sqlite, or postgresql://USER@HOST/DB. [env: QUERATOR_LOG]")
    ] = None
    store: Annotated[str | None, Parameter(help="Which store, where there are several; else the first.")] = (
        None
    )
    json: Annotated[bool, Parameter(negative="", help="Print JSON, for programs.")] = False

    @asynccontextmanager
    async def open(self, *, reads_on: bool = True, is_exclusive: bool = False) -> AsyncIterator[LogStore]:
        """The chosen store; with ``reads_on`` also what it has dropped, where that was kept.

        ``is_exclusive``: to write; no server may have the directory.

        Raises:
            StoreLocked: a server has it.
            UsageError: there is no log.
        """
        flags = {"data": None if self.data is None else str(self.data), "log": self.log}
        settings = config.load(flags).config
        log = str(settings.log)
        try:
            chosen = choose(parse_stores(log), self.store)
        except ValueError as error:
            raise UsageError(f"store: {error}") from error
        if chosen.log == "memory":
            raise UsageError("log: a log in memory is gone when its server is")
        if chosen.log == "sqlite" and not settings.data.is_dir():
            raise UsageError(f"data: there is no directory {settings.data}; name a server's with --data")
        store = make_stores(log, settings.data, real_env())[chosen.name]
        needs_lock = is_exclusive and chosen.log != "sqlite"
        with locked(settings.data, real_env(), is_needed=needs_lock):
            await store.open()
            try:
                yield _reading_on(store, settings.data / ARCHIVE) if reads_on else store
            finally:
                await store.aclose()


def _reading_on(store: LogStore, archive: Path) -> LogStore:
    """The store, and what was kept of it when it dropped history, if anything was."""
    if not archive.is_dir():
        return store
    # It loads DuckDB, which only those should wait for who have an archive.
    from querator.analytics.keeping import KeptRecords  # noqa: PLC0415

    return ReadThroughLog(store, KeptRecords(real_env(), archive))


@app.command
async def prune(
    *,
    older_than: Annotated[
        str, Parameter(help="Drop history that ended so long ago, as 30d; 0s: all that may.")
    ],
    keep: Annotated[
        int, Parameter(help="Buckets that stay at least; the one that is written always does.")
    ] = 1,
    target: Target | None = None,
) -> None:
    """Let a running server drop old history from its log, once that is exported and kept in its archive.

    History goes in buckets, oldest first, and only what nothing alive needs: payloads of living items are
    appended again first. `item trace`, `at`, `diff` and `replay` go on reading what was dropped.
    """
    target = target or Target()
    params = {"older_than": read_duration(older_than, "--older-than"), "buckets_kept": keep}
    async with target.connect("log prune") as q:
        dropped = (await q.call("log.prune", params))["dropped"]
    if target.json:
        print_json({"dropped": dropped})
        return
    for name, buckets in dropped.items():
        words = ", ".join(map(str, buckets)) or "none: the server's journal says what needs them"
        note(f"buckets of {name} dropped: {words}")
    if not dropped:
        note("there is only the bucket that is being written")


@app.command
async def show(
    *,
    source: Source | None = None,
    partition: Annotated[int | None, Parameter(help="Only this one (0 is the catalog).")] = None,
    start: Annotated[int, Parameter(name="--from", help="From this position on.")] = 0,
    limit: Annotated[int, Parameter(help="Records of each partition to show at most; 0: all.")] = 0,
) -> None:
    """Records and their events, in words."""
    source = source or Source()
    async with source.open() as store:
        for number in await chosen(store, partition):
            await _show(store, number, start, limit, is_json=source.json)


async def _show(store: LogStore, partition: PartitionId, start: int, limit: int, *, is_json: bool) -> None:
    tail = await store.tail(partition)
    if tail is None:
        return
    first = max(start, await first_position(store, partition, tail))
    shown = 0
    reading = cast("AsyncGenerator[Record, None]", read_all(store, partition, Position(first), payloads=True))
    async with aclosing(reading) as records:
        async for record in records:
            found = lines(record)
            if is_json:
                for line in found:
                    print_json(
                        {
                            "partition": partition,
                            "position": line.position,
                            "at": line.at,
                            "event": line.name,
                            "text": line.text,
                        }
                    )
            else:
                print_text(describe_record(record))
                for line in found:
                    print_text(f"  {moment(line.at)}  {line.text}")
            shown += 1
            if shown == limit:
                return


@app.command(name="accept-loss")
async def accept_loss(partition: Number, /, *, source: Source | None = None, yes: Yes = False) -> None:
    """Accept, while no server runs, that a partition's log lacks what had been acknowledged.

    So that a server can start again whose catalog (partition 0) is concerned; for others as well.
    """
    source = source or Source()
    check_yes(partition, is_given=yes)
    async with source.open(reads_on=False, is_exclusive=True) as store:
        try:
            log = await accept(store, real_env(), PartitionId(partition), author="querator log accept-loss")
        except NothingSuspected as error:
            raise CommandFailed(str(error), Exit.USAGE) from error
    tell_loss(partition, log.claimed_at - 1, log.loss_known, is_json=source.json)


@app.command
async def verify(
    *,
    source: Source | None = None,
    partition: Annotated[int | None, Parameter(help="Only this one (0 is the catalog).")] = None,
) -> int:
    """Check every record: hash chain, checksums, density, fencing, conservation, order, snapshots.

    Replays the log from its beginning, so that an item that was lost, completed twice or reserved out of
    turn is found, and names the first bad record. Exit code 65: something is wrong.
    """
    source = source or Source()
    env = real_env()
    documents: list[dict[str, Any]] = []
    async with source.open(reads_on=False) as store:
        with Progress(env.clock, "checked", bytes_total=None, is_wanted=not source.json) as progress:
            done = 0
            for number in await chosen(store, partition):

                def tell(report: ChainReport, before: int = done) -> None:
                    progress.update(before + report.items, 0)

                found = await verify_partition(store, number, tell)
                done += found.chain.items
                documents.append(_document(found))
    is_good = all(document["ok"] for document in documents)
    if source.json:
        print_json({"ok": is_good, "partitions": documents})
    else:
        _print_verdict(documents, is_good=is_good)
    return Exit.OK if is_good else Exit.DATA


async def chosen(store: LogStore, partition: int | None) -> Sequence[PartitionId]:
    """The one, or all. Raises UsageError: there is none of that number."""
    there = sorted(await store.partitions())
    if partition is None:
        return there
    if partition not in there:
        known = ", ".join(str(number) for number in there) or "none"
        raise UsageError(f"--partition: there is no partition {partition} in this log; there are {known}")
    return [PartitionId(partition)]


def _document(found: Verification) -> dict[str, Any]:
    report, audit = found.chain, found.audit
    document: dict[str, Any] = {
        "partition": report.partition,
        "ok": report.is_good,
        "first": report.first,
        "last": report.last,
        "records": report.records,
        "events": report.events,
        "claims": report.claims,
        "payload_bytes": report.payload_bytes,
        **audit.counts(),
        "snapshots": audit.snapshots,
    }
    if not report.is_good:
        document |= {"bad": report.bad, "fault": report.fault}
    return document


def _print_verdict(documents: Sequence[dict[str, Any]], *, is_good: bool) -> None:
    names = (
        "partition",
        "records",
        "produced",
        "completed",
        "ready",
        "reserved",
        "scheduled",
        "dead",
        "removed",
    )
    print_table(
        (*(name.upper() for name in names), "SNAPSHOTS", "VERDICT"),
        [
            (*(document[name] for name in names), document["snapshots"], "good" if document["ok"] else "BAD")
            for document in documents
        ],
        right=[name.upper() for name in names] + ["SNAPSHOTS"],
    )
    for document in documents:
        if not document["ok"]:
            print_fields([(f"partition {document['partition']}", document["fault"])])
    note("the log is good" if is_good else "the log is damaged: nothing behind a bad record was looked at")
