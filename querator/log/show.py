"""Records and events in words, a line each, for ``querator log show``."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import assert_never

import attrs

from querator.core import events as ev
from querator.core.ids import NEVER, Instant
from querator.log.codec import decode_events, name_of
from querator.log.records import Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class Line:
    """One event, as it is shown."""

    position: int
    at: Instant
    """When it happened; 0 when the record does not say."""
    name: str
    """The event's name in the log."""
    text: str


def lines(record: Record) -> list[Line]:
    """A line for each event of a record; the starts of turns only give the others their time.

    Raises:
        CorruptRecord: the events cannot be decoded.
    """
    found = []
    at = NEVER
    for event in decode_events(record.events):
        if isinstance(event, ev.TurnStarted):
            at = event.at
        else:
            found.append(Line(record.position, at, type(event).__name__, describe(event)))
    return found


def describe_record(record: Record) -> str:
    """What a record is, without its events."""
    items = (
        f", items {span(record.item_min, record.item_max - record.item_min + 1)}" if record.item_max else ""
    )
    payload = "not read" if record.payload is None else f"{len(record.payload)} B"
    return (
        f"{name_of(record)}, written {moment(record.written_at)}{items}"
        f" (events {len(record.events)} B, payloads {payload}, hash {record.hash[:6].hex()}…)"
    )


def show(records: Iterable[Record]) -> Iterator[str]:
    """Records and their events as text: a heading each, then an indented line for each event.

    Raises:
        CorruptRecord: a record's events cannot be decoded.
    """
    for record in records:
        yield describe_record(record)
        for line in lines(record):
            yield f"  {moment(line.at)}  {line.text}"


def moment(instant: int) -> str:
    """An instant as ISO 8601 in UTC, with its microseconds."""
    if not instant:
        return "-"
    try:
        return f"{_EPOCH + timedelta(microseconds=instant):%Y-%m-%dT%H:%M:%S.%fZ}"
    except OverflowError:
        return f"{instant} µs"


def span(first: int, count: int) -> str:
    """A run of numbers: ``7`` or ``7-9``."""
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def runs(pairs: ev.Runs) -> str:
    return ", ".join(span(first, count) for first, count in pairs) or "none"


def describe(event: ev.Event) -> str:  # noqa: C901, PLR0912 - a case for each kind of event
    """One event in words."""
    match event:
        case ev.TurnStarted():
            return f"turn at {moment(event.at)}"
        case ev.Claimed():
            server = f", server {event.server_identity}" if event.server_identity else ""
            return (
                f"claimed by {event.node} behind record {event.read_tail}"
                f" (incarnation {event.incarnation}, nonce {event.nonce:x}{server})"
            )
        case ev.LossAccepted():
            known = f"; record {event.known} had been there" if event.known else ""
            return f"a suspected loss was accepted{_by(event.author)}{known}"
        case ev.ItemsProduced():
            return _produced(event)
        case ev.ItemsReserved():
            holder = f"session {event.session}/{event.generation}" if event.session else "nobody"
            until = f", held until {moment(event.run_until)}" if event.run_until else ""
            return (
                f"reserved {_items(event.count)} from {event.first_item} for {holder},"
                f" deadline {moment(event.deadline)}{until}"
            )
        case ev.ItemsCompleted():
            return f"completed {_part(event.reservation, event.ranges)}"
        case ev.ItemsRetried():
            when = f", due {moment(event.due_at)}" if event.due_at else ""
            return f"retried {_part(event.reservation, event.ranges)}{when}"
        case ev.ItemsReleased():
            return f"released {_part(event.reservation, event.ranges)} ({event.why})"
        case ev.ReservationEnded():
            return f"ended {_part(event.reservation, event.ranges)} ({event.why})"
        case ev.ItemsDied():
            return f"dead {_part(event.reservation, event.ranges)} ({event.verb}): {event.reason}"
        case ev.ReservationExtended():
            until = f", held until {moment(event.run_until)}" if event.run_until else ""
            return f"extended reservation {event.reservation} to {moment(event.deadline)}{until}"
        case ev.SessionResumed():
            return f"session {event.session} resumed as generation {event.generation}"
        case ev.ItemsDue():
            return f"{_items(event.count)} became due"
        case ev.ItemsExpired():
            return f"expired items {runs(event.runs)}"
        case ev.ItemsCleared():
            states = [name for name in ("ready", "scheduled", "reserved", "dead") if getattr(event, name)]
            return f"cleared all {', '.join(states) or 'nothing'}{_by(event.author)}"
        case ev.ItemsDeleted():
            return f"deleted items {runs(event.runs)}{_by(event.author)}"
        case ev.ItemsRedriven():
            return f"redrove items {runs(event.runs)}{_by(event.author)}"
        case ev.ItemsMoved():
            return f"moved items {runs(event.runs)} to partition {event.target}, up to move {event.last_move}"
        case ev.ItemsReceived():
            return (
                f"received {_items(event.count)} from partition {event.source}, up to move {event.last_move}"
            )
        case ev.ItemsSentBack():
            return f"sent items {runs(event.runs)} back to partition {event.target}{_by(event.author)}"
        case ev.ItemsCameBack():
            return (
                f"{_items(event.count)} came back from partition {event.source}, up to move {event.last_move}"
            )
        case ev.MovesGivenUp():
            return f"partition {event.target} is gone: items {runs(event.runs)} stay here"
        case ev.ItemsPruned():
            return f"pruned dead items {runs(event.runs)}"
        case ev.PolicyApplied():
            document = event.document.decode(errors="replace")
            return f"policy version {event.version} applied{_by(event.author)}: {document}"
        case ev.PartitionPaused():
            return f"paused{_by(event.author)}"
        case ev.PartitionResumed():
            return f"resumed{_by(event.author)}"
        case ev.PayloadsCarried():
            return f"carried payloads of items {runs(event.runs)}"
        case ev.BucketOpened():
            return f"the next record is in bucket {event.bucket}"
        case ev.ClockStepped():
            return f"the wall clock was off by {event.by / 1_000_000:+.6f} s"
        case ev.CatalogChanged():
            return f"catalog: {event.document.decode(errors='replace')}"
        case _:
            assert_never(event)


def _produced(event: ev.ItemsProduced) -> str:
    parts = [f"produced {_items(event.count)} {span(event.first_item, event.count)}"]
    if event.due_at:
        parts.append(f"due {moment(event.due_at)}")
    if event.expires_at:
        parts.append(f"expiring {moment(event.expires_at)}")
    if event.producer:
        parts.append(f"by {event.producer} #{event.sequence}")
    if event.attributes is not None:
        names = [
            field.name
            for field in attrs.fields(ev.Attributes)
            if getattr(event.attributes, field.name) is not None
        ]
        parts.append(f"with {', '.join(names) or 'no attributes'}")
    if event.duplicates:
        parts.append(f"{len(event.duplicates)} more known already")
    return ", ".join(parts)


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _part(reservation: int, ranges: ev.Ranges | None) -> str:
    if ranges is None:
        return f"the rest of reservation {reservation}"
    return f"{runs(ranges)} of reservation {reservation}"


def _by(author: str) -> str:
    return f" by {author}" if author else ""
