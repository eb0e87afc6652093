"""Small questions to the archive of a server, asked so that whoever runs beside feels nothing.

One connection of one thread with a bound on memory; one question at a time, a bounded number waiting; a
deadline that interrupts the engine; a bound on rows, since rows become objects on the way out. The
engine itself runs outside the interpreter's lock.

    live = LiveAnalytics(env, directory)
    answer = await live.ask("waiting", {"queue": "mail", "width": 3_600_000_000})
    if isinstance(answer, Rejected): …
    live.close()

Questions are the documented macros, by name, and nothing else: nobody's SQL gets here.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import outcome
import trio

from querator.actors.ports import Answer
from querator.analytics import warehouse
from querator.analytics.connecting import connect, reconnect
from querator.analytics.manifest import MANIFEST, ArchiveError
from querator.core import limits
from querator.core.ids import Duration, Instant
from querator.core.replies import Code, Rejected
from querator.env import Env, seconds

_POLL: Final = Duration(20_000)
"""An interrupt that comes before the engine began is lost: it is repeated so often."""


@attrs.frozen
class Parameter:
    """Of a question: name and how it is read."""

    name: str
    kind: str
    """text | number | instant | duration (the latter two in microseconds)."""
    is_required: bool = False


_QUEUE: Final = Parameter("queue", "text", is_required=True)
_WIDTH: Final = Parameter("width", "duration")
_SINCE: Final = Parameter("since", "instant")
_UNTIL: Final = Parameter("until", "instant")
_SPAN: Final = (_SINCE, _UNTIL)

QUESTIONS: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "throughput": (_QUEUE, _WIDTH, *_SPAN),
    "waiting": (_QUEUE, _WIDTH, *_SPAN),
    "processing": (_QUEUE, _WIDTH, *_SPAN),
    "backlog": (_QUEUE, _WIDTH, *_SPAN),
    "retries": (_QUEUE, _WIDTH, *_SPAN),
    "contention": (_QUEUE, _WIDTH, *_SPAN),
    "deaths": (_QUEUE, *_SPAN),
    "failures": (_QUEUE, *_SPAN),
    "kinds": (_QUEUE, *_SPAN),
    "consumers_compared": (_QUEUE, *_SPAN),
    "slo": (
        _QUEUE,
        Parameter("waiting_target", "duration"),
        Parameter("processing_target", "duration"),
        _WIDTH,
        *_SPAN,
    ),
    "item_history": (
        Parameter("partition", "number", is_required=True),
        Parameter("item", "number", is_required=True),
    ),
}
"""Name of the macro to the parameters that a caller may give; those required go first, by position."""


class LiveAnalytics:
    """Implements AnalyticsPort over one archive; any number of tasks may ask. Owned by the server."""

    def __init__(
        self,
        env: Env,
        directory: Path,
        *,
        memory_limit: str = limits.LIVE_ANALYTICS_MEMORY,
        timeout: Duration = limits.LIVE_QUESTION_TIMEOUT,
        rows_max: int = limits.LIVE_ROWS_MAX,
    ) -> None:
        self._env = env
        self._directory = directory
        self._memory_limit = memory_limit
        self._timeout = timeout
        self._rows_max = rows_max
        self._limiter = trio.CapacityLimiter(limits.LIVE_QUESTIONS_MAX)
        self._asking = 0
        self._connection: warehouse.Connection | None = None
        self._stamp: tuple[int, int] = (0, 0)
        """Of the manifest that the connection was opened for."""
        self._as_of = Instant(0)

    async def run(self) -> None:
        """See AnalyticsPort: nothing has."""
        await trio.sleep_forever()

    def close(self) -> None:
        """See AnalyticsPort."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def ask(self, question: str, params: Mapping[str, object]) -> Answer | Rejected:
        """See AnalyticsPort."""
        read = _read_params(question, params)
        if isinstance(read, Rejected):
            return read
        if self._asking >= limits.LIVE_QUESTIONS_MAX + limits.LIVE_QUESTIONS_WAITING_MAX:
            return Rejected(Code.OVERLOADED, "too many questions are waiting")
        sql, values = read
        self._asking += 1
        try:
            with trio.move_on_after(seconds(self._timeout)):
                async with self._limiter:
                    return await self._run(sql, values)
            return Rejected(
                Code.LIMIT_EXCEEDED, f"no answer within {seconds(self._timeout):g} s: ask for less"
            )
        except ArchiveError as error:
            return Rejected(Code.UNAVAILABLE, str(error))
        except warehouse.DuckDBError as error:
            return Rejected(Code.LIMIT_EXCEEDED, f"the question could not be answered: {_first_line(error)}")
        finally:
            self._asking -= 1

    async def _run(self, sql: str, values: Mapping[str, object]) -> Answer:
        threads = trio.CapacityLimiter(1)
        await self._env.threads.run(self._open_current, limiter=threads)
        connection = self._connection
        if connection is None:
            raise ArchiveError(f"{self._directory} is closed")
        cursor = connection.cursor()
        try:
            found = await self._interruptible(cursor, sql, values, threads)
        finally:
            cursor.close()
        columns, rows = found
        return Answer(
            columns,
            [[_plain(value) for value in row] for row in rows[: self._rows_max]],
            self._as_of,
            len(rows) > self._rows_max,
        )

    async def _interruptible(
        self,
        cursor: warehouse.Connection,
        sql: str,
        values: Mapping[str, object],
        threads: trio.CapacityLimiter,
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run it in a thread; when we are cancelled, the engine is told to stop, until it did."""
        result: outcome.Outcome[tuple[list[str], list[tuple[Any, ...]]]] | None = None

        def work() -> tuple[list[str], list[tuple[Any, ...]]]:
            cursor.execute(sql, dict(values))
            names = [entry[0] for entry in cursor.description or ()]
            return names, cursor.fetchmany(self._rows_max + 1)

        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        while result is None:
                            cursor.interrupt()
                            await self._env.clock.sleep(_POLL)

            nursery.start_soon(watch)
            try:
                result = await self._env.threads.run(outcome.capture, work, limiter=threads)
            finally:
                if result is None:
                    result = outcome.Error(warehouse.Interrupted("not begun"))
                nursery.cancel_scope.cancel()
        # Ours may have been cancelled meanwhile: then that is the answer.
        await trio.lowlevel.checkpoint_if_cancelled()
        return result.unwrap()

    def _open_current(self) -> None:
        """Have a connection to the archive as it is now (in a thread)."""
        path = self._directory / MANIFEST
        try:
            found = path.stat()
        except FileNotFoundError:
            raise ArchiveError(
                f"there is no archive in {self._directory} yet: a server writes it that is started with "
                "--export-interval"
            ) from None
        stamp = (found.st_mtime_ns, found.st_ino)
        if self._connection is None:
            # The exporter of this server has just written it; reading it all again would be felt.
            self._connection = connect(
                self._directory, memory_limit=self._memory_limit, threads=1, verify=False, sandboxed=True
            )
        elif stamp != self._stamp:
            reconnect(self._connection, self._directory)
        else:
            return
        self._stamp = stamp
        self._as_of = Instant(found.st_mtime_ns // 1_000)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _read_params(name: str, params: Mapping[str, object]) -> tuple[str, dict[str, object]] | Rejected:
    """The statement of a question, and its values."""
    wanted = QUESTIONS.get(name)
    if wanted is None:
        return Rejected(
            Code.INVALID, f"there is no question '{name}'; there is {', '.join(QUESTIONS)}", "question"
        )
    unknown = [key for key in params if key not in {parameter.name for parameter in wanted}]
    if unknown:
        return Rejected(Code.INVALID, f"question '{name}' has no parameter '{unknown[0]}'", unknown[0])
    values: dict[str, object] = {}
    arguments: list[str] = []
    for parameter in wanted:
        value = params.get(parameter.name)
        if value is None:
            if parameter.is_required:
                return Rejected(Code.INVALID, f"question '{name}' needs '{parameter.name}'", parameter.name)
            continue
        read = _read_value(parameter, value)
        if isinstance(read, Rejected):
            return read
        values[parameter.name] = read
        required = f"${parameter.name}"
        arguments.append(required if parameter.is_required else f"{parameter.name} := {required}")
    return f"FROM querator.{name}({', '.join(arguments)})", values


def _read_value(parameter: Parameter, value: object) -> object:
    if parameter.kind == "text":
        return value if isinstance(value, str) else _wrong(parameter, "a text")
    if isinstance(value, bool) or not isinstance(value, int):
        return _wrong(parameter, "an integer")
    if parameter.kind == "duration":
        if not 0 < value <= limits.INSTANT_MAX:
            return _wrong(parameter, "a positive number of microseconds")
        return timedelta(microseconds=value)
    if parameter.kind == "instant":
        if not 0 <= value <= limits.INSTANT_MAX:
            return _wrong(parameter, "microseconds since 1970")
        return datetime(1970, 1, 1) + timedelta(microseconds=value)  # noqa: DTZ001 - DuckDB's are UTC
    if not 0 <= value < 1 << 63:
        return _wrong(parameter, "a number")
    return value


def _wrong(parameter: Parameter, wanted: str) -> Rejected:
    return Rejected(Code.INVALID, f"'{parameter.name}' must be {wanted}", parameter.name)


def _plain(value: Any) -> Any:
    """As every encoding has it."""
    if isinstance(value, datetime):
        return round(value.replace(tzinfo=UTC).timestamp() * 1_000_000)
    if isinstance(value, timedelta):
        return round(value.total_seconds() * 1_000_000)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
