"""Reading a log through, and what verification finds."""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from querator.core import events as ev
from querator.core.ids import Instant, ItemNumber, PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.core.limits import RESTORE_PAGE_RECORDS
from querator.env.virtual import virtual_env
from querator.errors import CorruptRecord, HistoryDropped
from querator.log import codec
from querator.log.codec import GENESIS, seal
from querator.log.memory import MemoryLog
from querator.log.records import Record
from querator.log.restore import ChainReport, read_all, verify_chain
from tests.log.records import make_chain
from tests.log.samples import AT

ONE = PartitionId(1)


def chain(*batches: Sequence[ev.Event], nonce: int = 5) -> list[Record]:
    """A claim, then a record for each batch of events."""
    records: list[Record] = []
    previous = GENESIS
    for events in ([claimed(nonce, 0)], *batches):
        record = seal(ONE, Position(len(records) + 1), previous, nonce, AT, events)
        records.append(record)
        previous = record.hash
    return records


def claimed(nonce: int, read_tail: int) -> ev.Claimed:
    return ev.Claimed("node", nonce, 1, read_tail, "")


def produce(first: int, count: int = 2) -> ev.ItemsProduced:
    payloads = [f"item {number}".encode() for number in range(first, first + count)]
    return ev.ItemsProduced(ItemNumber(first), count, Instant(0), Instant(0), None, "", 0, payloads)


async def stored(records: Sequence[Record]) -> MemoryLog:
    """A store with these records, whatever they are."""
    store = MemoryLog(virtual_env(1))
    for record in records:
        await store.append([record])
    return store


def spoil(store: MemoryLog, position: int, /, **changes: object) -> None:
    record = store.disk.find(ONE, position)
    assert record is not None
    for name, value in changes.items():
        setattr(record, name, value)


async def verified(records: Sequence[Record]) -> ChainReport:
    return await verify_chain(await stored(records), ONE)


GOOD = chain([produce(1)], [produce(3, 3)], [ev.ItemsDue(1), ev.PayloadsCarried(((1, 1),), [b"item 1"])])


async def test_a_log_is_read_through_in_pages() -> None:
    store = await stored(GOOD)
    found = [record async for record in read_all(store, ONE, payloads=True, records_max=3)]
    assert found == GOOD
    later = [record.position async for record in read_all(store, ONE, Position(3), records_max=1)]
    assert later == [3, 4]
    assert [record async for record in read_all(store, PartitionId(2))] == []


async def test_a_good_log_is_counted() -> None:
    assert await verified(GOOD) == ChainReport(
        ONE,
        first=Position(1),
        last=Position(4),
        records=4,
        events=5,
        items=5,
        payload_bytes=sum(len(record.payload or b"") for record in GOOD),
        claims=1,
    )


async def test_an_empty_log_is_good() -> None:
    assert (await verified([])).is_good


async def test_what_is_left_behind_a_dropped_bucket_is_verified() -> None:
    store = await stored(GOOD[:2])
    await store.roll()
    for record in GOOD[2:]:
        await store.append([record])
    await store.drop(1)
    with pytest.raises(HistoryDropped):
        [record async for record in read_all(store, ONE)]
    report = await verify_chain(store, ONE)
    assert (report.first, report.last, report.records, report.is_good) == (3, 4, 2, True)


async def test_a_log_whose_every_bucket_was_dropped_is_good() -> None:
    store = await stored(GOOD)
    await store.roll()
    await store.drop(1)
    report = await verify_chain(store, ONE)
    assert (report.first, report.records, report.is_good) == (0, 0, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": 4}, "where record 3 should be"),
        ({"previous_hash": GENESIS}, "does not follow"),
        ({"nonce": 6}, "does not match its hash"),
        ({"hash": GENESIS}, "does not match its hash"),
        ({"payload": b"other"}, "do not match their checksum"),
        ({"events": b"other"}, "does not match its hash"),
    ],
)
async def test_the_first_bad_record_is_named(changes: dict[str, object], words: str) -> None:
    store = await stored(GOOD)
    spoil(store, 3, **changes)
    report = await verify_chain(store, ONE)
    assert (report.bad, report.last, report.records) == (3, 2, 2)
    assert words in report.fault
    assert "of partition 1" in report.fault


async def test_a_missing_end_is_found() -> None:
    store = await stored(GOOD)
    del store.disk.partitions[ONE].records[2:]
    report = await verify_chain(store, ONE)
    assert (report.bad, report.fault) == (3, "record 3 of partition 1 is missing")


async def test_a_replaced_end_is_found() -> None:
    """The last record is good by itself, and it is not the one that the store says it ends with."""
    store = await stored(GOOD)
    other = seal(ONE, Position(4), GOOD[2].hash, 5, AT, [ev.ItemsDue(99)])
    spoil(store, 4, **{field.name: getattr(other, field.name) for field in attrs.fields(Record)})
    assert "not what the tail says" in (await verify_chain(store, ONE)).fault


async def test_a_writer_that_had_lost_the_partition_is_found() -> None:
    records = GOOD[:2]
    claim = seal(ONE, Position(3), records[1].hash, 6, AT, [claimed(6, 2)])
    late = seal(ONE, Position(4), claim.hash, 5, AT, [ev.ItemsDue(1)])
    report = await verified([*records, claim, late])
    assert (report.bad, report.claims) == (4, 2)
    assert "lost the partition" in report.fault


async def test_a_record_between_a_claim_and_what_it_read_is_found() -> None:
    records = GOOD[:2]
    claim = seal(ONE, Position(3), records[1].hash, 6, AT, [claimed(6, 1)])
    report = await verified([*records, claim])
    assert report.bad == 3
    assert "behind 1" in report.fault


async def test_a_header_that_speaks_of_other_items_is_found() -> None:
    record = seal(ONE, Position(2), GOOD[0].hash, 5, AT, [produce(1)])
    record.item_max += 1
    record.hash = codec.hash_of(record)
    assert "header" in (await verified([GOOD[0], record])).fault


async def test_a_payload_block_of_other_events_is_found() -> None:
    record = seal(ONE, Position(2), GOOD[0].hash, 5, AT, [produce(1)])
    record.payload = codec.encode_payload_block([produce(1, 3)])
    record.payload_checksum = codec.checksum(record.payload)
    record.hash = codec.hash_of(record)
    assert "payloads" in (await verified([GOOD[0], record])).fault


async def test_events_that_cannot_be_decoded_are_found() -> None:
    record = seal(ONE, Position(2), GOOD[0].hash, 5, AT, [produce(1)])
    record.events += b"more"
    record.hash = codec.hash_of(record)
    report = await verified([GOOD[0], record])
    assert report.bad == 2


@pytest.mark.parametrize("error", [CorruptRecord, InvariantViolation])
async def test_a_fold_may_find_a_record_bad(error: type[Exception]) -> None:
    seen: list[tuple[Position, int]] = []

    def fold(record: Record, events: Sequence[ev.Event]) -> None:
        seen.append((record.position, len(events)))
        if record.position == 3:
            raise error("more reserved than ready")

    report = await verify_chain(await stored(GOOD), ONE, on_record=fold)
    assert seen == [(1, 1), (2, 1), (3, 1)]
    assert (report.bad, report.records) == (3, 2)
    assert "more reserved than ready" in report.fault


async def test_progress_is_told_a_page_at_a_time() -> None:
    records = chain(*[[ev.ItemsDue(1)]] * 450)
    told: list[int] = []
    report = await verify_chain(
        await stored(records), ONE, on_page=lambda so_far: told.append(so_far.records)
    )
    assert told == [200, 400, 451]
    assert report.is_good


class Paged(MemoryLog):
    """Notes how many records each read gave."""

    def __init__(self) -> None:
        super().__init__(virtual_env(1))
        self.pages: list[int] = []

    async def read(self, *args: Any, **kwargs: Any) -> list[Record]:
        page = await super().read(*args, **kwargs)
        self.pages.append(len(page))
        return page


async def test_records_are_restored_in_pages_of_so_many() -> None:
    """RESTORE_PAGE_RECORDS."""
    log = Paged()
    for record in make_chain(1, RESTORE_PAGE_RECORDS + 1):
        await log.append([record])
    assert len([record async for record in read_all(log, ONE)]) == RESTORE_PAGE_RECORDS + 1
    assert log.pages == [RESTORE_PAGE_RECORDS, 1, 0]
