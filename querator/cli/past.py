"""``querator at`` and ``querator diff``: a queue as it was."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from querator.cli.exits import UsageError
from querator.cli.logs import Source
from querator.cli.moments import read_place_in_log
from querator.cli.output import format_duration, format_instant, note, print_json, print_table
from querator.cli.reading import open_capture
from querator.core.commands import Listing, ListItems
from querator.core.ids import PartitionId
from querator.core.replies import ItemPage
from querator.core.state import PartitionState
from querator.core.views import read
from querator.replay.capture import read_capture
from querator.replay.fold import COUNTS, counts_of
from querator.replay.history import CaptureHistory, History, StoreHistory, state_at

CaptureFile = Annotated[Path | None, Parameter(help="Ask a capture instead of a server's directory.")]
OnePartition = Annotated[
    int | None, Parameter(help="Only this one; a POSITION needs it, where there are several.")
]
_SHOWN = ("ready", "reserved", "scheduled", "dead", "produced", "completed", "retried", "ended")


async def at(
    when: str,
    queue: str,
    *,
    source: Source | None = None,
    capture: CaptureFile = None,
    partition: OnePartition = None,
    limit: Annotated[int, Parameter(help="Items and holders of each partition to show.")] = 5,
) -> None:
    """A queue as it was at WHEN: a time (2026-12-31T08:00:00Z), a duration before now (2h), or a position of
    its log.

    Counts, the items at the head, and who held what. The server must not be running.
    """
    source = source or Source()
    async with _open(source, capture) as history:
        states = await _states(history, queue, when, partition)
    documents = [_document(state, max(0, limit)) for state in states]
    if source.json:
        print_json({"queue": queue, "partitions": documents})
        return
    headings = ("PARTITION", "POSITION", "TIME", *(name.upper() for name in _SHOWN))
    print_table(
        headings,
        [
            (
                document["partition"],
                document["position"],
                format_instant(document["now"]),
                *(document[name] for name in _SHOWN),
            )
            for document in documents
        ],
        right=[heading for heading in headings if heading != "TIME"],
    )
    items = [item for document in documents for item in document["items"]]
    if items:
        print_table(
            ("ITEM", "STATE", "ATTEMPTS", "PRODUCED", "AGE", "HOLDER"),
            [
                (
                    item["item"],
                    item["state"],
                    item["attempts"],
                    format_instant(item["produced_at"]),
                    format_duration(item["age"]),
                    item["session"],
                )
                for item in items
            ],
        )
    holders = [holder for document in documents for holder in document["holders"]]
    if holders:
        print_table(
            ("HOLDER", "RESERVATION", "ITEMS", "SINCE", "ENDS"),
            [
                (
                    holder["session"] or "-",
                    holder["reservation"],
                    holder["items"],
                    format_instant(holder["since"]),
                    format_instant(holder["ends_at"]),
                )
                for holder in holders
            ],
        )


async def diff(
    first: str,
    second: str,
    queue: str,
    *,
    source: Source | None = None,
    capture: CaptureFile = None,
    partition: OnePartition = None,
) -> None:
    """What changed in a queue between two moments, times or positions: counts, and who held what."""
    source = source or Source()
    async with _open(source, capture) as history:
        before = await _states(history, queue, first, partition)
        after = await _states(history, queue, second, partition)
    rows = [
        (name, old, new, new - old)
        for name in COUNTS
        for old, new in [(sum(counts_of(s)[name] for s in before), sum(counts_of(s)[name] for s in after))]
    ]
    old_holders, new_holders = _held(before), _held(after)
    gone = [name for name in old_holders if name not in new_holders]
    come = [name for name in new_holders if name not in old_holders]
    if source.json:
        print_json(
            {
                "queue": queue,
                "counts": {name: {"first": old, "second": new, "change": by} for name, old, new, by in rows},
                "reservations_gone": gone,
                "reservations_come": come,
            }
        )
        return
    print_table(
        ("", "FIRST", "SECOND", "CHANGE"),
        [(name, old, new, f"{by:+}" if by else "0") for name, old, new, by in rows],
        right=("FIRST", "SECOND", "CHANGE"),
    )
    for word, names, holders in (("gone", gone, old_holders), ("new", come, new_holders)):
        for name in names:
            note(f"{word}: reservation {name} of {holders[name]}")


@asynccontextmanager
async def _open(source: Source, capture: Path | None) -> AsyncIterator[History]:
    if capture is not None:
        if source.data is not None or source.log is not None:
            raise UsageError("--capture: a capture or a log (--data, --log), not both")
        with open_capture(capture) as content:
            history = CaptureHistory(read_capture(content))
        yield history
        return
    async with source.open() as store:
        yield StoreHistory(store)


async def _states(history: History, queue: str, when: str, partition: int | None) -> list[PartitionState]:
    queues = await history.queues()
    if queue not in queues:
        raise UsageError(f"there is no queue {queue}; there are {', '.join(sorted(queues)) or 'none'}")
    numbers = queues[queue]
    if partition is not None:
        if partition not in numbers:
            raise UsageError(f"--partition: {queue} has the partitions {', '.join(map(str, numbers))}")
        numbers = [partition]
    moment = read_place_in_log(when, "WHEN")
    if moment.position is not None and len(numbers) > 1:
        raise UsageError(
            f"a position is one of a partition's log, and {queue} has several: name one with --partition "
            f"({', '.join(map(str, numbers))}), or say a time"
        )
    states = [await state_at(history, PartitionId(number), moment) for number in numbers]
    if isinstance(history, CaptureHistory):
        if moment.at is not None and moment.at > history.ended:
            note(
                f"the capture ends at {format_instant(history.ended)}: what happened after that is not in it"
            )
        if moment.position is not None and moment.position > states[0].position:
            note(f"the capture ends with record {states[0].position}: what happened after that is not in it")
    return states


def _document(state: PartitionState, limit: int) -> dict[str, Any]:
    page = read(state, ListItems(Listing.ITEMS, 0, limit), state.now)
    views = page.items if isinstance(page, ItemPage) else []
    return {
        "partition": state.partition,
        "position": state.position,
        "now": state.now,
        **counts_of(state),
        "items": [
            {
                "item": f"{state.partition}.{view.item}",
                "state": view.state,
                "attempts": view.attempts,
                "produced_at": view.produced_at,
                "age": state.now - view.produced_at,
                "session": view.session,
            }
            for view in views
        ],
        "holders": [
            {
                "reservation": f"{state.partition}.{number}",
                "session": reservation.session,
                "items": reservation.left,
                "since": reservation.reserved_at,
                "ends_at": reservation.ends_at,
            }
            for number, reservation in sorted(state.reservations.items())[:limit]
        ],
    }


def _held(states: list[PartitionState]) -> dict[str, str]:
    """Reservation to who has it."""
    return {
        f"{state.partition}.{number}": f"{reservation.session or 'nobody'} ({reservation.left} items)"
        for state in states
        for number, reservation in sorted(state.reservations.items())
    }
