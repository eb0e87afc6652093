"""Reading a partition's log from one end to the other, and checking on the way that it is whole.

``verify_chain`` is the half of verification that needs no state: positions, hashes, checksums, that
everything decodes and fits its record, and that nothing of an older owner stands behind a claim. What
the events say of the items is for whoever folds them, in ``on_record``.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

import attrs

from querator.core.events import Claimed, Event, ItemsProduced
from querator.core.ids import PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.core.limits import READ_BYTES_MAX, RESTORE_PAGE_RECORDS
from querator.errors import CorruptRecord, HistoryDropped, StoreCorrupt
from querator.log.codec import (
    PayloadBlock,
    check_chain,
    check_record,
    decode_columns,
    decode_events,
    name_of,
    payload_runs,
    tail_of,
)
from querator.log.records import Record, Tail
from querator.log.store import LogStore

OnRecord: TypeAlias = Callable[[Record, Sequence[Event]], None]
"""Told of every good record, with its events; CorruptRecord or InvariantViolation: it is not good."""


async def read_all(
    store: LogStore,
    partition: PartitionId,
    start: Position = Position(1),
    *,
    payloads: bool = False,
    records_max: int = RESTORE_PAGE_RECORDS,
    bytes_max: int = READ_BYTES_MAX,
) -> AsyncIterator[Record]:
    """The records from ``start`` to the tail, read in pages of these bounds.

    What is appended meanwhile is read as well. Nothing is checked.

    Raises:
        HistoryDropped: ``start`` lies in a bucket that is gone.
        LogUnavailable, StoreCorrupt: from the store.
    """
    while True:
        page = await store.read(
            partition, start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
        )
        for record in page:
            yield record
        if not page:
            return
        start = Position(start + len(page))


async def first_position(store: LogStore, partition: PartitionId, tail: Tail) -> Position:
    """The first position that was not dropped; one past the tail when all of them were."""
    low, high = 1, tail.position + 1
    while low < high:
        middle = (low + high) // 2
        try:
            await store.read(partition, Position(middle), records_max=1, bytes_max=1, payloads=False)
        except HistoryDropped:
            low = middle + 1
        else:
            high = middle
    return Position(low)


@attrs.define
class ChainReport:
    """What was found in one partition's log."""

    partition: PartitionId
    first: Position = Position(0)
    """The first record that is left; 0 where there is none."""
    last: Position = Position(0)
    """The last good record."""
    records: int = 0
    """Good ones."""
    events: int = 0
    items: int = 0
    """Produced ones."""
    payload_bytes: int = 0
    claims: int = 0
    bad: Position | None = None
    """The first bad record; nothing behind it was looked at."""
    fault: str = ""
    """What is wrong with it, naming it."""

    @property
    def is_good(self) -> bool:
        return self.bad is None


async def verify_chain(
    store: LogStore,
    partition: PartitionId,
    *,
    on_record: OnRecord | None = None,
    on_page: Callable[[ChainReport], None] | None = None,
) -> ChainReport:
    """Check all that is left of a partition's log, up to the first bad record.

    ``on_page`` is told after every page how far it got.

    Raises:
        LogUnavailable: from the store.
    """
    report = ChainReport(partition)
    tail = await store.tail(partition)
    if tail is None:
        return report
    first = await first_position(store, partition, tail)
    if first > tail.position:
        return report
    report.first = first
    # Behind a dropped bucket the first record's own word is all there is for its predecessor.
    previous: Tail | None = None
    nonce = 0
    position = first
    try:
        while position <= tail.position:
            page = await store.read(
                partition,
                position,
                records_max=RESTORE_PAGE_RECORDS,
                bytes_max=READ_BYTES_MAX,
                payloads=True,
            )
            if not page:
                raise CorruptRecord(f"record {position} of partition {partition} is missing")
            for record in page:
                if previous is None and first > 1:
                    previous = Tail(Position(first - 1), record.previous_hash, 0)
                check_chain(record, previous)
                check_record(record)
                nonce = _check_content(record, nonce, report, on_record)
                previous = tail_of(record)
                position = Position(position + 1)
            if on_page is not None:
                on_page(report)
        if previous is not None and previous.position == tail.position and previous.hash != tail.hash:
            raise CorruptRecord(f"record {tail.position} of partition {partition} is not what the tail says")
    except (CorruptRecord, StoreCorrupt) as error:
        report.bad, report.fault = position, str(error)
    return report


def _check_content(record: Record, nonce: int, report: ChainReport, on_record: OnRecord | None) -> int:
    """Check what is in a record, and count it; the nonce of the claim it belongs to.

    Raises:
        CorruptRecord: it is not good.
    """
    events = decode_events(record.events)
    runs = payload_runs(decode_columns(record.events))
    block = PayloadBlock(record.payload or b"")
    if sum(count for _, count in runs) != len(block):
        raise CorruptRecord(f"{name_of(record)} has not the payloads that its events speak of")
    numbers = [
        number
        for event in events
        if type(event) is ItemsProduced
        for number in (event.first_item, event.first_item + event.count - 1)
    ]
    if (record.item_min, record.item_max) != ((numbers[0], numbers[-1]) if numbers else (0, 0)):
        raise CorruptRecord(f"{name_of(record)} has not the items that its header speaks of")
    for event in events:
        if type(event) is Claimed:
            nonce = event.nonce
            report.claims += 1
            if event.read_tail != record.position - 1:
                raise CorruptRecord(
                    f"{name_of(record)} claims the partition behind {event.read_tail}: "
                    "somebody's records got in between"
                )
    if nonce and record.nonce != nonce:
        raise CorruptRecord(f"{name_of(record)} is of a writer that had lost the partition")
    if on_record is not None:
        try:
            on_record(record, events)
        except InvariantViolation as error:
            raise CorruptRecord(f"{name_of(record)}: {error}") from error
    report.last = record.position
    report.records += 1
    report.events += len(events)
    report.items += sum(event.count for event in events if type(event) is ItemsProduced)
    report.payload_bytes += len(record.payload or b"")
    return nonce
