"""``querator simulate``: recorded traffic once more, under another policy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from querator.analytics.page import make_page
from querator.analytics.report import Chart, Figure, Report, Series, Table
from querator.analytics.words import say_seconds
from querator.cli.exits import Exit, UsageError
from querator.cli.options import read_duration
from querator.cli.output import complain, note, print_json, print_table, print_text
from querator.cli.progress import Progress
from querator.cli.reading import open_capture, size_of
from querator.core.ids import SECOND
from querator.core.limits import ATTEMPTS_MAX_MAX, PARTITIONS_PER_QUEUE_MAX
from querator.core.policy import Backoff, Ordering
from querator.env import Env
from querator.env.real import real_env
from querator.replay.capture import read_capture
from querator.replay.whatif.loading import Recording, load, read_traffic
from querator.replay.whatif.measures import PERCENTILES, POINTS, Measures, percentile
from querator.replay.whatif.simulation import Settings, Simulation
from querator.replay.whatif.traffic import Traffic
from querator.replay.whatif.verdict import COUNTS, Difference, compare

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATIONS: Final = (
    "reservation_timeout",
    "max_runtime",
    "expire_timeout",
    "dead_retention",
    "dedupe_window",
)
SHOWN: Final = (*COUNTS, "late")
CONSUMERS_MAX: Final = 100_000
_WORDS: Final = {
    "produced": "items produced",
    "completed": "completed",
    "deliveries": "deliveries",
    "retried": "retries",
    "released": "released",
    "ended": "reservations' items that ended by themselves",
    "dead": "dead letters",
    "expired": "of them expired",
    "moved": "of them to a dead queue",
    "redriven": "brought back from the dead",
    "sent_back": "sent home from this dead queue",
    "removed": "cleared or deleted",
    "duplicates": "duplicates: delivered again after that",
    "late": "settled too late",
}


def simulate(
    file: Path,
    *,
    queue: Annotated[
        str | None, Parameter(help="Which queue of the capture; needed where it has several.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            negative="",
            help="NAME=VALUE, may be repeated: reservation_timeout, max_attempts, partitions, "
            "expire_timeout, max_runtime, dead_retention, dedupe_window (as 30s), ordering (fifo, key), "
            "backoff (1s, or 1s,factor=3,limit=1m,jitter=0).",
        ),
    ] = None,
    consumers: Annotated[
        int,
        Parameter(
            help="So many consumers, each as most were, and there all of the time; 0: those that there were."
        ),
    ] = 0,
    speed: Annotated[float, Parameter(help="2: work takes half as long as was recorded.")] = 1.0,
    seed: Annotated[int, Parameter(help="Of what has to be drawn: attempts that were never recorded.")] = 1,
    html: Annotated[Path | None, Parameter(help="Write a page with plots to this file.")] = None,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
) -> int:
    """What if? The traffic of a capture once more, under another policy.

    The unchanged traffic is played first: unless that gives what was recorded (counts exactly, percentiles
    within 5 % or 20 ms), nothing is predicted; exit code 65. See docs/WHATIF.md.
    """
    settings = _settings(set_ or [], consumers, speed, seed)
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html: there is no directory {html.parent}")
    env = real_env()
    is_wanted = not json
    with (
        open_capture(file) as content,
        Progress(env.clock, "read", bytes_total=size_of(content.fileno()), is_wanted=is_wanted) as progress,
    ):
        recording = load(read_capture(content), queue, lambda items: progress.update(items, content.tell()))
    with _counting(env, "sorted", recording, is_wanted=is_wanted) as told:
        traffic = read_traffic(recording, told)
    recording.records.clear()
    unchanged = Settings(seed=seed)
    with _counting(env, "played unchanged", recording, is_wanted=is_wanted) as told:
        baseline = Simulation(traffic, unchanged, _items_of(traffic, told)).run()
    differences = compare(traffic.recorded, baseline)
    if differences:
        return _refuse(traffic, differences, is_json=json)
    if settings.is_unchanged:
        simulated = baseline
    else:
        with _counting(env, "played changed", recording, is_wanted=is_wanted) as told:
            simulated = Simulation(traffic, settings, _items_of(traffic, told)).run()
    if json:
        print_json(
            {
                "ok": True,
                "queue": recording.queue,
                "recorded": _document(traffic.recorded),
                "simulated": _document(simulated),
                "timeline": _timelines(traffic.recorded, simulated),
            }
        )
    else:
        _print(traffic.recorded, simulated)
    if html is not None:
        html.write_text(make_page(_report(recording.queue, settings, traffic.recorded, simulated)))
        note(f"the page is in {html}")
    return Exit.OK


# --- settings ---------------------------------------------------------------------------------------


def _settings(words: Sequence[str], consumers: int, speed: float, seed: int) -> Settings:
    if not 0 <= consumers <= CONSUMERS_MAX:
        raise UsageError(f"--consumers: from 0 to {CONSUMERS_MAX}")
    if not 0.001 <= speed <= 1_000:
        raise UsageError("--speed: from 0.001 to 1000")
    policy: dict[str, Any] = {}
    partitions = 0
    for word in words:
        name, found, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not found:
            raise UsageError(f"--set {word}: write NAME=VALUE, such as reservation_timeout=30s")
        where = f"--set {name}"
        if name in _DURATIONS:
            policy[name] = read_duration(value, where)
            if name == "reservation_timeout" and not policy[name]:
                raise UsageError(f"{where}: must be longer than nothing")
        elif name in ("max_attempts", "attempts_max"):
            policy["attempts_max"] = _whole(value, where, 0, ATTEMPTS_MAX_MAX)
        elif name == "partitions":
            partitions = _whole(value, where, 1, PARTITIONS_PER_QUEUE_MAX)
        elif name == "ordering":
            if value not in list(Ordering):
                raise UsageError(f"{where}: '{value}' is neither fifo nor key")
            policy[name] = Ordering(value)
        elif name == "backoff":
            policy[name] = _backoff(value, where)
        else:
            known = ", ".join((*_DURATIONS, "max_attempts", "partitions", "ordering", "backoff"))
            raise UsageError(f"{where}: there is no such setting; there are {known}")
    return Settings(policy=policy, partitions=partitions, consumers=consumers, speed=speed, seed=seed)


def _whole(value: str, where: str, least: int, most: int) -> int:
    if not value.isdecimal() or not least <= int(value) <= most:
        raise UsageError(f"{where}: '{value}' is no whole number from {least} to {most}")
    return int(value)


def _backoff(value: str, where: str) -> Backoff:
    base, *others = value.split(",")
    fields: dict[str, Any] = {"base": read_duration(base, where)}
    for other in others:
        name, _, text = other.partition("=")
        if name == "limit":
            fields[name] = read_duration(text, f"{where}, limit")
            continue
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if name not in ("factor", "jitter") or number < 0 or (name == "jitter" and number > 1):
            raise UsageError(f"{where}: write it as 1s, or as 1s,factor=3,limit=1m,jitter=0 (up to 1)")
        fields[name] = number
    return Backoff(**fields)


# --- progress ---------------------------------------------------------------------------------------


@contextmanager
def _counting(
    env: Env, verb: str, recording: Recording, *, is_wanted: bool
) -> Iterator[Callable[[int], None]]:
    """A progress bar over the items of the recording; told how many there are so far."""
    with Progress(env.clock, verb, bytes_total=recording.items, is_wanted=is_wanted) as progress:
        yield lambda items: progress.update(items, items)


def _items_of(traffic: Traffic, told: Callable[[int], None]) -> Callable[[int], None]:
    """A simulation tells of arrivals; a bar shows items."""
    count = max(1, len(traffic.arrivals))
    return lambda arrivals: told(traffic.items * arrivals // count)


# --- results ----------------------------------------------------------------------------------------


def _refuse(traffic: Traffic, differences: Sequence[Difference], *, is_json: bool) -> int:
    if is_json:
        print_json(
            {
                "ok": False,
                "differences": [
                    {"what": one.what, "recorded": one.recorded, "simulated": one.simulated}
                    for one in differences
                ],
            }
        )
        return Exit.DATA
    complain("played unchanged, the traffic does not come out as it was recorded: nothing is predicted")
    print_table(
        ("", "RECORDED", "PLAYED UNCHANGED"),
        [(one.what, one.recorded, one.simulated) for one in differences],
        right=("RECORDED", "PLAYED UNCHANGED"),
    )
    if not traffic.has_inputs:
        note("the log does not say when consumers asked: a server with --record-inputs writes that down")
    return Exit.DATA


def _document(measures: Measures) -> dict[str, Any]:
    document: dict[str, Any] = {name: getattr(measures, name) for name in SHOWN}
    for which, name in (("waits", "waiting"), ("works", "processing")):
        document[name] = {f"p{share}": value for share, value in measures.percentiles(which).items()}
    return document


def _timelines(recorded: Measures, simulated: Measures) -> dict[str, Any]:
    return {
        "at": [recorded.timeline.moment(point) for point in range(POINTS)],
        **{
            word: {
                name: getattr(measures.timeline, name)
                for name in ("waiting", "reserved", "retried", "dead", "duplicates")
            }
            for word, measures in (("recorded", recorded), ("simulated", simulated))
        },
    }


def _rows(recorded: Measures, simulated: Measures) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name in SHOWN:
        before, after = getattr(recorded, name), getattr(simulated, name)
        if name == "late" and not before:
            # Whether somebody came too late is in the log's inputs at most.
            rows.append([_WORDS[name], "-", f"{after:,}", ""])
            continue
        rows.append(
            [_WORDS[name], f"{before:,}", f"{after:,}", f"{after - before:+,}" if after != before else ""]
        )
    for which, name in (("waits", "waiting"), ("works", "processing")):
        mine, theirs = recorded.percentiles(which), simulated.percentiles(which)
        for share in PERCENTILES:
            first, second = mine[share], theirs[share]
            change = ""
            if first is not None and second is not None and first != second:
                change = ("+" if second > first else "") + say_seconds((second - first) / SECOND)
            rows.append([f"{name} time, p{share}", _seconds(first), _seconds(second), change])
    rows.append(
        [
            "most that waited",
            f"{max(recorded.timeline.waiting):,}",
            f"{max(simulated.timeline.waiting):,}",
            _change(max(recorded.timeline.waiting), max(simulated.timeline.waiting)),
        ]
    )
    rows.append(
        [
            "waiting at the end",
            f"{recorded.timeline.waiting[-1]:,}",
            f"{simulated.timeline.waiting[-1]:,}",
            _change(recorded.timeline.waiting[-1], simulated.timeline.waiting[-1]),
        ]
    )
    return rows


def _change(before: int, after: int) -> str:
    return f"{after - before:+,}" if after != before else ""


def _seconds(value: int | None) -> str:
    return "-" if value is None else say_seconds(value / SECOND)


def _print(recorded: Measures, simulated: Measures) -> None:
    headings = ("RECORDED", "SIMULATED", "CHANGE")
    print_table(("", *headings), _rows(recorded, simulated), right=headings)
    print_text("")
    note("played unchanged, the traffic came out as it was recorded; so this is what it would have been")


def _report(queue: str, settings: Settings, recorded: Measures, simulated: Measures) -> Report:
    line = recorded.timeline
    buckets = [_EPOCH + timedelta(microseconds=line.moment(point)) for point in range(POINTS)]

    def both(name: str) -> list[Series]:
        return [
            Series("recorded", [float(value) for value in getattr(recorded.timeline, name)]),
            Series("simulated", [float(value) for value in getattr(simulated.timeline, name)]),
        ]

    def times(name: str) -> list[Series]:
        return [
            Series(f"{word}, p{share}", _over_time(getattr(measures.timeline, name), share))
            for word, measures in (("recorded", recorded), ("simulated", simulated))
            for share in (50, 99)
        ]

    waits, works = recorded.percentiles("waits"), simulated.percentiles("waits")
    return Report(
        queue=queue,
        since=buckets[0],
        until=buckets[-1],
        width=timedelta(microseconds=max(1, line.moment(1) - line.moment(0))),
        buckets=buckets,
        figures=[
            Figure("waiting p99, recorded", _or_none(waits[99]), "seconds"),
            Figure("waiting p99, simulated", _or_none(works[99]), "seconds"),
            Figure("duplicates, simulated", simulated.duplicates, "items"),
            Figure("dead letters, simulated", simulated.dead, "items"),
        ],
        charts=[
            Chart(
                "Backlog", "items", "Items that waited to be reserved, or for their time.", both("waiting")
            ),
            Chart("In work", "items", "Items that somebody had reserved.", both("reserved")),
            Chart(
                "Waiting time",
                "seconds",
                "From ready to reserved, of what was delivered then.",
                times("waits"),
            ),
            Chart(
                "Processing time",
                "seconds",
                "From reserved to completed, of what was completed then.",
                times("works"),
            ),
            Chart("Retries", "items", "Failed attempts that were tried again, up to then.", both("retried")),
            Chart(
                "Duplicates",
                "items",
                "Items delivered again after a reservation that had ended by itself, up to then.",
                both("duplicates"),
            ),
            Chart("Dead letters", "items", "Items that will not be tried again, up to then.", both("dead")),
        ],
        tables=[
            Table(
                "Recorded and simulated",
                "Played unchanged, it came out as it was recorded: every count, and each percentile within "
                "5 % or 20 ms.",
                ["", "recorded", "simulated", "change"],
                _rows(recorded, simulated),
            )
        ],
        kind="what if",
        intro=f"The recorded traffic, played again. {_say_settings(settings)}.",
    )


def _over_time(values: Sequence[Sequence[int]], share: int) -> list[float | None]:
    return [_or_none(percentile(sorted(one), share)) for one in values]


def _or_none(value: int | None) -> float | None:
    return None if value is None else value / SECOND


def _say_settings(settings: Settings) -> str:
    parts = [
        f"{'max_attempts' if name == 'attempts_max' else name} = {_say_value(name, value)}"
        for name, value in settings.policy.items()
    ]
    if settings.partitions:
        parts.append(f"partitions = {settings.partitions}")
    if settings.consumers:
        parts.append(f"{settings.consumers} consumers")
    if settings.speed != 1.0:
        parts.append(f"work {settings.speed:g} times as fast")
    return "Changed: " + (", ".join(parts) if parts else "nothing")


def _say_value(name: str, value: Any) -> str:
    if isinstance(value, Backoff):
        base, limit = say_seconds(value.base / SECOND), say_seconds(value.limit / SECOND)
        return f"{base}, {value.factor:g} times as long each time up to {limit}, jitter {value.jitter:g}"
    return say_seconds(value / SECOND) if name in _DURATIONS else str(value)
