"""``querator analytics``: export the log, and ask everything about a queue's history."""

import csv
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
from cyclopts import App, Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from querator import config
from querator.analytics import asking, connect
from querator.analytics.archive import verify as verify_archive
from querator.analytics.compact import compact as compact_archive
from querator.analytics.directory import Progress as Step
from querator.analytics.directory import Report, silent
from querator.analytics.export import Exporter
from querator.analytics.manifest import read_manifest
from querator.analytics.page import make_page
from querator.analytics.report import make_report, queue_names
from querator.analytics.schema import view_names
from querator.analytics.terminal import print_report
from querator.analytics.warehouse import Connection, QueryFailed
from querator.analytics.words import say_count
from querator.cli.exits import UsageError
from querator.cli.items import read_item
from querator.cli.logs import Source
from querator.cli.moments import read_moment
from querator.cli.options import Target, read_duration
from querator.cli.output import (
    console,
    format_instant,
    note,
    print_fields,
    print_json,
    print_table,
    print_text,
)
from querator.env.real import real_env
from querator.errors import LogUnavailable, StoreLocked

app = App(name="analytics", help="Export the log, and ask everything about a queue's history.")

TABLE_ROWS: Final = 1_000
"""Rows of a table on a terminal; other formats give all."""
REPORT_WIDTH: Final = 100
_SERVED: Final = (
    "a running server exports its log itself (`querator serve --export-interval 60`), and "
    "`querator analytics ask` asks it"
)
STDIN: Final = ("-", "/dev/stdin")
"""What stands for standard input; main makes the second of the first."""

ArchiveOption = Annotated[Path | None, Parameter(help="The directory of exported files (DATA/analytics).")]


ModestOption = Annotated[
    bool,
    Parameter(help="Take only what the processors have left: a server here does not feel it."),
]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Where:
    """Which archive."""

    archive: ArchiveOption = None
    data: Annotated[
        Path | None,
        Parameter(help="The server's directory, whose archive it is (./querator-data). [env: QUERATOR_DATA]"),
    ] = None
    modest: ModestOption = True

    @property
    def directory(self) -> Path:
        """As told, else in the data directory."""
        return archive_of(self.archive, self.data)


def archive_of(archive: Path | None, data: Path | None) -> Path:
    """The archive's directory: as told, else in the data directory."""
    if archive is not None:
        return archive
    flags = {"data": None if data is None else str(data)}
    return config.load(flags).config.data / "analytics"


@contextmanager
def progress_bar(*, is_wanted: bool = True) -> Iterator[Report]:
    """Shows how far a command is, on a terminal's standard error."""
    out = console(stderr=True)
    if not is_wanted or not out.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("…", total=None)

        def show(step: Step) -> None:
            bar.update(task, description=step.what, completed=step.done, total=step.total or None)

        yield show


# --- making and keeping -------------------------------------------------------------------------


@app.command
async def refresh(
    *,
    source: Source | None = None,
    archive: ArchiveOption = None,
    payloads: Annotated[bool, Parameter(negative="", help="Export the payloads as well.")] = False,
    modest: ModestOption = True,
) -> None:
    """Export what the log has and the archive has not.

    Reads the log of a server that is not running, of a copy of its data directory, or of its PostgreSQL
    database while it runs. Goes on where the last refresh ended, or was killed.
    """
    del modest  # Seen to before anything was loaded.
    source = source or Source()
    directory = archive_of(archive, source.data)
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(source.open())
        except StoreLocked as error:
            raise StoreLocked(f"{error}; {_SERVED}") from error
        env = real_env()
        exporter = Exporter(env, [store], directory, payloads=payloads, workers=env.processes.cores)
        report = stack.enter_context(progress_bar(is_wanted=not source.json))
        done = await exporter.refresh(report)
    if source.json:
        print_json({"archive": str(directory), **attrs.asdict(done)})
    else:
        size = say_count(done.bytes)
        note(f"{done.records:,} records, {done.items:,} events of items: {size} bytes more in {directory}")
    for name, why in done.away.items():
        raise LogUnavailable(f"store '{name}' went away: {why}; the rest is for the next refresh")


@app.command
async def compact(
    *,
    where: Where | None = None,
    everything: Annotated[bool, Parameter(negative="", help="Also days that are not over.")] = False,
) -> None:
    """Make one file of the parts of each day that is over."""
    directory = (where or Where()).directory
    read_manifest(directory)
    with progress_bar() as report:
        done = await compact_archive(real_env(), directory, report, everything=everything)
    note(
        f"{done.days} days: {done.parts_before} files ({say_count(done.bytes_before)} bytes) "
        f"became {done.parts_after} ({say_count(done.bytes_after)} bytes)"
    )


@app.command
def verify(*, where: Where | None = None) -> None:
    """Read the whole archive: every file is what was written, every row is there once."""
    directory = (where or Where()).directory
    manifest = read_manifest(directory)
    verify_archive(directory, manifest)
    rows = sum(part.rows for part in manifest.parts)
    note(f"{directory} is good: {len(manifest.parts)} files, {rows:,} rows, {len(manifest.marks)} partitions")


# --- asking -------------------------------------------------------------------------------------


def _datetime(text: str | None, option: str) -> datetime | None:
    return None if text is None else datetime.fromtimestamp(read_moment(text, option) / 1e6, UTC)


@app.command
def report(
    queue: Annotated[str, Parameter(help="The queue.")],
    *,
    since: Annotated[str | None, Parameter(help="A moment, or a duration before now, such as 24h.")] = None,
    until: Annotated[str | None, Parameter(help="A moment, or a duration before now.")] = None,
    out: Annotated[Path | None, Parameter(help="Write a self-contained HTML page there.")] = None,
    where: Where | None = None,
) -> None:
    """A queue's report: in the terminal, or as a page with plots (--out report.html)."""
    with progress_bar() as bar:
        bar(Step("reading the archive", 0, 0))
        connection = connect((where or Where()).directory)
        try:
            made = make_report(
                connection,
                queue,
                _datetime(since, "--since"),
                _datetime(until, "--until"),
            )
        finally:
            connection.close()
    if out is None:
        print_text(print_report(made, min(console().width, REPORT_WIDTH)).rstrip("\n"))
        return
    out.write_text(make_page(made))
    note(f"wrote {out}")


@app.command
async def ask(
    question: Annotated[
        str, Parameter(help="throughput, waiting, processing, backlog, retries, deaths, kinds, slo …")
    ],
    queue: Annotated[str | None, Parameter(help="The queue.")] = None,
    *,
    item: Annotated[str | None, Parameter(help="PARTITION.NUMBER, for item_history.")] = None,
    width: Annotated[str | None, Parameter(help="The stretch that each row is about, as 1h.")] = None,
    since: Annotated[str | None, Parameter(help="A moment, or a duration before now, such as 24h.")] = None,
    until: Annotated[str | None, Parameter(help="A moment, or a duration before now.")] = None,
    waiting_target: Annotated[str | None, Parameter(help="For slo: as 5s.")] = None,
    processing_target: Annotated[str | None, Parameter(help="For slo: as 30s.")] = None,
    target: Target | None = None,
) -> None:
    """Ask a running server one of the canned questions; its answer is as old as its last export."""
    target = target or Target()
    async with target.connect("analytics ask") as q:
        answer = await q.ask(
            question,
            queue,
            item=None if item is None else read_item(item),
            width=_span(width, "--width"),
            since=_datetime(since, "--since"),
            until=_datetime(until, "--until"),
            waiting_target=_span(waiting_target, "--waiting-target"),
            processing_target=_span(processing_target, "--processing-target"),
        )
    if target.json:
        print_json(attrs.asdict(answer))
        return
    moments = [name in ("bucket", "deadline") or name.endswith("_at") for name in answer.columns]
    rows = [
        tuple(
            format_instant(value) if is_moment and value is not None else value
            for value, is_moment in zip(row, moments, strict=True)
        )
        for row in answer.rows
    ]
    show_rows(asking.Result(answer.columns, rows, answer.is_cut), "table")
    note(f"as of {format_instant(answer.as_of)}")


def _span(text: str | None, option: str) -> timedelta | None:
    return None if text is None else timedelta(microseconds=read_duration(text, option))


Format = Literal["table", "csv", "json"]


@app.command
def sql(
    statement: Annotated[
        str, Parameter(help="One SELECT, such as \"FROM waiting('mail')\"; - reads it from input.")
    ],
    *,
    form: Annotated[
        Format, Parameter(name="--format", help="How to print: table, csv or json (a document a line).")
    ] = "table",
    out: Annotated[
        Path | None, Parameter(help="Write the rows there instead: .parquet, .csv or .json.")
    ] = None,
    where: Where | None = None,
) -> None:
    """Ask anything in SQL: the schema is in docs/analytics.md. Reads the archive and nothing else."""
    question = "".join(_input_lines()) if statement in STDIN else statement
    connection = connect((where or Where()).directory, sandboxed=True)
    try:
        if out is not None:
            note(f"wrote {asking.write_query(connection, question, out):,} rows to {out}")
        else:
            show_rows(
                asking.run_query(connection, question, rows_max=TABLE_ROWS if form == "table" else 0), form
            )
    finally:
        connection.close()


@app.command
def export(
    name: Annotated[str, Parameter(help="A view, such as items or events.")],
    out: Annotated[Path, Parameter(help="The file: .parquet, .csv or .json.")],
    *,
    queue: Annotated[str | None, Parameter(help="Only this queue.")] = None,
    where: Where | None = None,
) -> None:
    """Write a whole view to a file, for other tools."""
    picked = "" if queue is None else " WHERE queue = '" + queue.replace("'", "''") + "'"
    connection = connect((where or Where()).directory, sandboxed=True)
    try:
        views = view_names()
        if name not in views:
            raise UsageError(f"'{name}' is no view; there are {', '.join(views)}")
        rows = asking.write_query(connection, f"FROM querator.{name}{picked}", out)
    finally:
        connection.close()
    note(f"wrote {rows:,} rows to {out}")


def _input_lines() -> Iterator[str]:
    stream: Any = getattr(sys.stdin, "buffer", sys.stdin)
    for line in stream:
        yield line.decode(errors="replace")


def show_rows(result: asking.Result, form: str) -> None:
    """Print the rows of an answer."""
    if form == "json":
        for row in result.rows:
            print_json(dict(zip(result.columns, map(_readable, row), strict=True)))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows([_readable(value) for value in row] for row in result.rows)
    else:
        _show_table(result)


def _show_table(result: asking.Result) -> None:
    """As a table where it fits, else each row as a block of lines: half a column says nothing."""
    numbers = [
        name
        for index, name in enumerate(result.columns)
        if all(isinstance(row[index], int | float | None) for row in result.rows)
    ]
    shown = [["" if value is None else _readable(value) for value in row] for row in result.rows]
    widths = [
        max(len(str(value)) for value in column) + 2 for column in zip(result.columns, *shown, strict=True)
    ]
    if sum(widths) - 2 <= console().width or not shown:
        print_table(result.columns, shown, right=numbers)
    else:
        for index, row in enumerate(shown):
            if index:
                print_text("")
            print_fields(zip(result.columns, row, strict=True))
    if result.is_cut:
        note(f"only the first {len(result.rows):,} rows; --format csv or --out gives all")


def _readable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, timedelta):
        return str(value)
    return value


# --- the shell ----------------------------------------------------------------------------------

_SHELL_HELP: Final = """One SELECT (or FROM …), ended by a semicolon; it may go over several lines.
.tables     views and macros, and what they are
.queues     queues that have a history
.schema X   columns of a view
.format F   table, csv or json
.quit       leave (so does Ctrl-D)"""


@app.command
def shell(*, where: Where | None = None) -> None:
    """Ask one question after the other."""
    directory = (where or Where()).directory
    connection = connect(directory, sandboxed=True)
    try:
        note(f"{directory}; .help says what there is")
        Shell(connection).run()
    finally:
        connection.close()


class Shell:
    """Reads questions from standard input and prints answers. Owned by one command."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._form = "table"
        self._lines: list[str] = []

    def run(self) -> None:
        """Until the input ends, or ``.quit``."""
        for line in self._typed() if sys.stdin.isatty() else _input_lines():
            if not self._lines and line.strip() in (".quit", ".exit"):
                return
            self.take(line)

    def _typed(self) -> Iterator[str]:
        import readline  # noqa: F401, PLC0415 - gives input() a history, where there is a terminal

        while True:
            try:
                yield input("      ... " if self._lines else "querator> ")
            except EOFError:
                return

    def take(self, line: str) -> None:
        """One line of input."""
        if not self._lines and line.lstrip().startswith("."):
            self._command(line.split())
            return
        if line.strip() or self._lines:
            self._lines.append(line.rstrip("\n"))
        if line.rstrip().endswith(";"):
            question = "\n".join(self._lines)
            self._lines = []
            self._ask(question, self._form)

    def _ask(self, question: str, form: str) -> None:
        try:
            show_rows(asking.run_query(self._connection, question, rows_max=TABLE_ROWS), form)
        except QueryFailed as error:
            print_text(str(error))

    def _command(self, words: list[str]) -> None:
        match words:
            case [".help"]:
                print_text(_SHELL_HELP)
            case [".tables"]:
                self._ask(
                    "SELECT name, comment FROM querator.documentation ORDER BY kind DESC, name", "table"
                )
            case [".queues"]:
                print_text("\n".join(queue_names(self._connection)))
            case [".schema", name] if name.isidentifier():
                self._ask(f"SELECT column_name, column_type FROM (DESCRIBE querator.{name})", "table")  # noqa: S608
            case [".format", ("table" | "csv" | "json") as form]:
                self._form = form
            case _:
                print_text(_SHELL_HELP)
