"""The contract of a log store: the same tests for every store (querator/log/store.py).

A store's test module says how to get one::

    class TestMemoryLog(LogContract):
        @pytest.fixture
        async def harness(self) -> AsyncIterator[LogHarness]:
            yield MemoryHarness()

The harness makes stores, damages what is stored, and brings about the outcomes that a store cannot
be asked for. Nothing here looks inside records: those of ``tests.log.records`` hold random bytes.
"""

import abc
import enum
import random
from collections.abc import AsyncIterator, Sequence

import attrs
import pytest
import trio

from querator.core.ids import PartitionId, Position
from querator.core.limits import READ_BYTES_MAX
from querator.errors import (
    AppendOutcomeUnknown,
    HistoryDropped,
    LogError,
    LogUnavailable,
    StoreCorrupt,
    StoreLocked,
)
from querator.log.records import ChunkId, Record, Snapshot, Tail, snapshot_checksum
from querator.log.store import LogStore, Verdict
from tests.log.records import ZEROS, make_chain, make_record

MINE, NOT_MINE = Verdict.MINE, Verdict.NOT_MINE
ONE, TWO = PartitionId(1), PartitionId(2)


class Fault(enum.Enum):
    """What can become of an append that gives no verdict."""

    UNAVAILABLE = "LogUnavailable, and nothing is written"
    UNKNOWN_LOST = "AppendOutcomeUnknown, and it is not there"
    UNKNOWN_WRITTEN = "AppendOutcomeUnknown, and it is there"


class LogHarness(abc.ABC):
    """One storage, and what a test does to it from outside."""

    is_shared: bool
    """Several stores may be open on the storage at once; else the second is refused (StoreLocked)."""

    @abc.abstractmethod
    async def open(self) -> LogStore:
        """A store on the storage, opened; the test closes it."""

    @abc.abstractmethod
    async def fail_next_append(self, store: LogStore, fault: Fault) -> None:
        """The next append of this store ends so."""

    @abc.abstractmethod
    async def damage_snapshot(self, store: LogStore, partition: PartitionId, position: Position) -> None:
        """Change a byte of that snapshot's head where it is stored."""

    @abc.abstractmethod
    async def damage_chunk(self, store: LogStore, partition: PartitionId, chunk: ChunkId) -> None:
        """Change a byte of that chunk where it is stored."""


async def read_all(
    store: LogStore, partition: PartitionId, start: int = 1, *, payloads: bool = True
) -> list[Record]:
    """Everything from ``start`` on, in small pages."""
    found: list[Record] = []
    while True:
        page = await store.read(
            partition,
            Position(start + len(found)),
            records_max=3,
            bytes_max=READ_BYTES_MAX,
            payloads=payloads,
        )
        if not page:
            return found
        found += page


async def append_chain(store: LogStore, records: Sequence[Record]) -> None:
    for record in records:
        assert await store.append([record]) == [MINE]


def make_snapshot(record: Record, head: bytes = b"head", chunks: tuple[ChunkId, ...] = ()) -> Snapshot:
    """A snapshot at a record."""
    return Snapshot(
        record.partition, record.position, record.hash, 1, head, chunks, snapshot_checksum(head, chunks)
    )


class LogContract:
    """Inherit, and give it a ``harness`` fixture."""

    @pytest.fixture
    async def store(self, harness: LogHarness) -> AsyncIterator[LogStore]:
        store = await harness.open()
        yield store
        await store.aclose()

    # --- Append ----------------------------------------------------------------------------------

    async def test_an_appended_record_is_read_back_as_it_was(self, store: LogStore) -> None:
        record = make_record(inputs=b"what replay needs")
        assert await store.append([record]) == [MINE]
        assert await read_all(store, ONE) == [record]

    async def test_all_numbers_of_a_record_may_be_large(self, store: LogStore) -> None:
        record = make_record(partition=2**40, nonce=2**63 - 1)
        record.item_min, record.item_max = 2**62, 2**63 - 1
        assert await store.append([record]) == [MINE]
        assert await read_all(store, PartitionId(2**40)) == [record]

    async def test_any_bytes_are_kept(self, store: LogStore) -> None:
        every = bytes(range(256)) * 5
        record = make_record(events=every, payload=every[::-1], inputs=every)
        await store.append([record])
        assert await read_all(store, ONE) == [record]

    async def test_a_record_without_payloads_is_not_one_whose_payloads_were_not_read(
        self, store: LogStore
    ) -> None:
        record = make_record(payload=b"")
        await store.append([record])
        assert [found.payload for found in await read_all(store, ONE)] == [b""]
        assert [found.payload for found in await read_all(store, ONE, payloads=False)] == [None]

    async def test_a_large_record_is_kept(self, store: LogStore) -> None:
        record = make_record(payload=random.Random(5).randbytes(3_000_000), events=b"e" * 1_000_000)
        await store.append([record])
        assert await read_all(store, ONE) == [record]

    async def test_nothing_to_append_is_fine(self, store: LogStore) -> None:
        assert await store.append([]) == []

    async def test_records_of_many_partitions_are_appended_together(self, store: LogStore) -> None:
        records = [make_record(partition=number) for number in range(200)]
        assert await store.append(records) == [MINE] * 200
        assert await store.partitions() == list(range(200))
        assert await read_all(store, PartitionId(137)) == [records[137]]

    async def test_positions_are_dense_from_one(self, store: LogStore) -> None:
        chain = make_chain(1, 20)
        await append_chain(store, chain)
        assert [record.position for record in await read_all(store, ONE)] == list(range(1, 21))

    async def test_the_first_record_stands_at_position_one(self, store: LogStore) -> None:
        assert await store.append([make_record(position=2)]) == [NOT_MINE]
        assert await store.tail(ONE) is None

    async def test_the_first_record_has_no_predecessor(self, store: LogStore) -> None:
        assert await store.append([make_record(previous_hash=b"x" * 32)]) == [NOT_MINE]

    async def test_a_gap_is_refused(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        await append_chain(store, chain[:1])
        assert await store.append([chain[2]]) == [NOT_MINE]
        assert await store.tail(ONE) == Tail(chain[0].position, chain[0].hash, chain[0].nonce)

    async def test_a_wrong_predecessor_is_refused(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain)
        assert await store.append([make_record(position=3, previous_hash=chain[0].hash)]) == [NOT_MINE]
        assert len(await read_all(store, ONE)) == 2

    async def test_a_position_that_another_has_is_refused(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain)
        rival = make_record(position=2, previous_hash=chain[0].hash, nonce=8)
        assert await store.append([rival]) == [NOT_MINE]
        assert await read_all(store, ONE) == chain

    async def test_a_record_that_is_there_is_mine_when_it_is_sent_again(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        await append_chain(store, chain)
        for record in chain:
            assert await store.append([record]) == [MINE]
        assert await read_all(store, ONE) == chain

    async def test_another_record_of_the_same_writer_at_a_position_is_refused(self, store: LogStore) -> None:
        await store.append([make_record()])
        assert await store.append([make_record(events=b"others")]) == [NOT_MINE]

    async def test_a_refused_record_fails_no_neighbour(self, store: LogStore) -> None:
        await store.append([make_record(partition=2)])
        records = [make_record(partition=1), make_record(partition=2, nonce=8), make_record(partition=3)]
        assert await store.append(records) == [MINE, NOT_MINE, MINE]
        assert [len(await read_all(store, PartitionId(number))) for number in (1, 2, 3)] == [1, 1, 1]

    async def test_verdicts_come_in_the_order_of_the_records(self, store: LogStore) -> None:
        await store.append([make_record(partition=5, nonce=8)])
        records = [make_record(partition=number) for number in (9, 5, 1, 7)]
        assert await store.append(records) == [MINE, NOT_MINE, MINE, MINE]

    async def test_new_and_known_records_mix(self, store: LogStore) -> None:
        one, two = make_chain(1, 2), make_chain(2, 1)
        await append_chain(store, one[:1])
        assert await store.append([one[1], two[0]]) == [MINE, MINE]
        assert await store.append([one[1], two[0]]) == [MINE, MINE]
        assert await read_all(store, ONE) == one

    async def test_partitions_do_not_see_each_other(self, store: LogStore) -> None:
        one, two = make_chain(1, 4), make_chain(2, 2)
        await append_chain(store, [one[0], two[0], one[1], one[2], two[1], one[3]])
        assert await read_all(store, ONE) == one
        assert await read_all(store, TWO) == two

    async def test_a_cancelled_append_is_not_half_there(self, store: LogStore) -> None:
        records = [make_record(partition=number) for number in range(10)]
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.append(records)
        there = [number for number in range(10) if await read_all(store, PartitionId(number))]
        assert there in ([], list(range(10)))
        assert await store.append(records) == [MINE] * 10

    async def test_appends_of_several_tasks_all_arrive(self, store: LogStore) -> None:
        chains = [make_chain(number, 10) for number in range(8)]

        async with trio.open_nursery() as nursery:
            for chain in chains:
                nursery.start_soon(append_chain, store, chain)
        for number, chain in enumerate(chains):
            assert await read_all(store, PartitionId(number)) == chain

    # --- Outcomes --------------------------------------------------------------------------------

    async def test_an_unavailable_store_has_written_nothing(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await harness.fail_next_append(store, Fault.UNAVAILABLE)
        with pytest.raises(LogUnavailable):
            await store.append([chain[1], make_record(partition=2)])
        assert await read_all(store, ONE) == chain[:1]
        assert await store.tail(TWO) is None

    async def test_an_unavailable_store_recovers_by_itself(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await harness.fail_next_append(store, Fault.UNAVAILABLE)
        with pytest.raises(LogUnavailable):
            await store.append([chain[1]])
        assert await store.append([chain[1]]) == [MINE]
        assert await read_all(store, ONE) == chain

    @pytest.mark.parametrize("fault", [Fault.UNKNOWN_LOST, Fault.UNKNOWN_WRITTEN])
    async def test_after_an_unknown_outcome_the_same_records_settle_it(
        self, harness: LogHarness, store: LogStore, fault: Fault
    ) -> None:
        one, two = make_chain(1, 3), make_chain(2, 2)
        await store.append([one[0], two[0]])
        await harness.fail_next_append(store, fault)
        with pytest.raises(AppendOutcomeUnknown):
            await store.append([one[1], two[1]])
        assert await store.append([one[1], two[1]]) == [MINE, MINE]
        assert await store.append([one[2]]) == [MINE]
        assert await read_all(store, ONE) == one
        assert await read_all(store, TWO) == two

    async def test_an_unknown_outcome_that_was_written_keeps_a_rival_out(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await harness.fail_next_append(store, Fault.UNKNOWN_WRITTEN)
        with pytest.raises(AppendOutcomeUnknown):
            await store.append([chain[1]])
        rival = make_record(position=2, previous_hash=chain[0].hash, nonce=8)
        assert await store.append([rival]) == [NOT_MINE]
        assert await read_all(store, ONE) == chain

    async def test_an_unknown_outcome_that_was_lost_may_lose_to_a_rival(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await harness.fail_next_append(store, Fault.UNKNOWN_LOST)
        with pytest.raises(AppendOutcomeUnknown):
            await store.append([chain[1]])
        rival = make_record(position=2, previous_hash=chain[0].hash, nonce=8)
        assert await store.append([rival]) == [MINE]
        assert await store.append([chain[1]]) == [NOT_MINE]
        assert await read_all(store, ONE) == [chain[0], rival]

    async def test_reading_after_an_unknown_outcome_shows_whole_records(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        records = [make_record(partition=number) for number in range(20)]
        await harness.fail_next_append(store, Fault.UNKNOWN_WRITTEN)
        with pytest.raises(AppendOutcomeUnknown):
            await store.append(records)
        await store.append(records)
        for record in records:
            assert await read_all(store, record.partition) == [record]

    # --- Reading ---------------------------------------------------------------------------------

    async def test_an_empty_store_has_nothing(self, store: LogStore) -> None:
        assert await store.partitions() == []
        assert await store.tail(ONE) is None
        assert await read_all(store, ONE) == []
        assert await store.read_payloads(ONE, [Position(1)]) == {}

    async def test_the_tail_is_the_last_record(self, store: LogStore) -> None:
        for record in make_chain(1, 3):
            await store.append([record])
            assert await store.tail(ONE) == Tail(record.position, record.hash, record.nonce)

    async def test_partitions_are_listed_in_order(self, store: LogStore) -> None:
        for number in (5, 0, 2**33, 3):
            await store.append([make_record(partition=number)])
        assert await store.partitions() == [0, 3, 5, 2**33]

    async def test_a_page_has_at_most_the_records_asked_for(self, store: LogStore) -> None:
        chain = make_chain(1, 7)
        await append_chain(store, chain)
        page = await store.read(ONE, Position(2), records_max=3, bytes_max=READ_BYTES_MAX, payloads=True)
        assert page == chain[1:4]

    async def test_a_page_ends_at_its_bytes(self, store: LogStore) -> None:
        chain: list[Record] = []
        for record in make_chain(1, 6):
            chain.append(
                make_record(1, record.position, chain[-1].hash if chain else ZEROS, payload=b"p" * 1000)
            )
        await append_chain(store, chain)
        page = await store.read(ONE, Position(1), records_max=100, bytes_max=2500, payloads=True)
        assert 2 <= len(page) <= 3
        assert page == chain[: len(page)]

    async def test_a_page_without_payloads_does_not_count_them(self, store: LogStore) -> None:
        record = make_record(payload=b"p" * 5000)
        more = make_record(1, 2, record.hash, payload=b"p" * 5000)
        await append_chain(store, [record, more])
        page = await store.read(ONE, Position(1), records_max=100, bytes_max=2500, payloads=False)
        assert [found.position for found in page] == [1, 2]

    async def test_a_record_larger_than_a_page_is_read_alone(self, store: LogStore) -> None:
        record = make_record(payload=b"p" * 5000)
        await append_chain(store, [record, make_record(1, 2, record.hash)])
        page = await store.read(ONE, Position(1), records_max=100, bytes_max=1, payloads=True)
        assert page == [record]

    async def test_reading_beyond_the_tail_gives_nothing(self, store: LogStore) -> None:
        await append_chain(store, make_chain(1, 2))
        assert await read_all(store, ONE, 3) == []
        assert await read_all(store, ONE, 1_000_000) == []

    async def test_without_payloads_everything_else_is_there(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        await append_chain(store, chain)
        expected = [attrs.evolve(record, payload=None) for record in chain]
        assert await read_all(store, ONE, payloads=False) == expected

    async def test_payloads_are_read_by_position(self, store: LogStore) -> None:
        chain = make_chain(1, 6)
        await append_chain(store, chain)
        wanted = [Position(5), Position(1), Position(2)]
        assert await store.read_payloads(ONE, wanted) == {
            position: chain[position - 1].payload for position in wanted
        }

    async def test_payloads_of_unknown_positions_are_left_out(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain)
        assert await store.read_payloads(ONE, [Position(2), Position(3)]) == {2: chain[1].payload}

    async def test_a_reader_does_not_hold_up_an_append(self, store: LogStore) -> None:
        chain = make_chain(1, 30)
        await append_chain(store, chain[:10])
        found: list[Record] = []

        async def read() -> None:
            found.extend(await read_all(store, ONE))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
            nursery.start_soon(append_chain, store, chain[10:])
        assert [record for record in found if record not in chain] == []
        assert await read_all(store, ONE) == chain

    # --- Life ------------------------------------------------------------------------------------

    async def test_everything_is_there_after_reopening(self, harness: LogHarness) -> None:
        store = await harness.open()
        one, two = make_chain(1, 5), make_chain(2, 3)
        await append_chain(store, one + two)
        snapshot = make_snapshot(one[4])
        await store.put_snapshot(snapshot)
        await store.aclose()
        store = await harness.open()
        assert await store.partitions() == [1, 2]
        assert await read_all(store, ONE) == one
        assert await store.tail(TWO) == Tail(two[2].position, two[2].hash, two[2].nonce)
        assert await store.snapshots(ONE) == [snapshot]
        more = make_chain(1, 2, after=one[4])
        await append_chain(store, more)
        assert await store.append([one[4]]) == [MINE]
        assert await read_all(store, ONE) == one + more
        await store.aclose()

    async def test_a_second_store_shares_the_storage_or_is_refused(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        chain = make_chain(1, 2)
        await store.append([chain[0]])
        if not harness.is_shared:
            with pytest.raises(StoreLocked):
                await harness.open()
            return
        other = await harness.open()
        assert await read_all(other, ONE) == chain[:1]
        assert await other.append([chain[1]]) == [MINE]
        assert await store.append([make_record(position=2, previous_hash=chain[0].hash, nonce=8)]) == [
            NOT_MINE
        ]
        assert await read_all(store, ONE) == chain
        await other.aclose()

    # --- Snapshots -------------------------------------------------------------------------------

    async def test_a_snapshot_is_read_back_as_it_was(self, store: LogStore) -> None:
        (record,) = make_chain(1, 1)
        chunk = ChunkId(3, Position(1))
        snapshot = make_snapshot(record, bytes(range(256)), (chunk,))
        await store.put_chunks(ONE, {chunk: b"\0chunk\xff" * 1000})
        await store.put_snapshot(snapshot)
        assert await store.snapshots(ONE) == [snapshot]
        assert await store.read_chunks(ONE, [chunk]) == {chunk: b"\0chunk\xff" * 1000}

    async def test_a_chunk_may_have_any_number_and_chunks_keep_their_order(self, store: LogStore) -> None:
        """Negative ones are of what is no segment."""
        (record,) = make_chain(1, 1)
        chunks = tuple(ChunkId(number, Position(1)) for number in (3, -(1 << 63), -1, (1 << 63) - 1, -7))
        await store.put_chunks(ONE, {chunk: b"%d" % chunk.segment for chunk in chunks})
        await store.put_snapshot(make_snapshot(record, b"head", chunks))
        (found,) = await store.snapshots(ONE)
        assert found.chunks == chunks
        read = await store.read_chunks(ONE, list(chunks))
        assert read == {chunk: b"%d" % chunk.segment for chunk in chunks}

    async def test_the_newest_snapshot_comes_first_and_the_previous_is_kept(self, store: LogStore) -> None:
        chain = make_chain(1, 4)
        snapshots = [make_snapshot(record, f"head {record.position}".encode()) for record in chain]
        for snapshot in snapshots:
            await store.put_snapshot(snapshot)
        found = await store.snapshots(ONE)
        assert found[:2] == [snapshots[3], snapshots[2]]
        assert [snapshot.position for snapshot in found] == sorted(
            (snapshot.position for snapshot in found), reverse=True
        )

    async def test_chunks_are_shared_by_snapshots(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        old, new = ChunkId(1, Position(1)), ChunkId(2, Position(2))
        await store.put_chunks(ONE, {old: b"old"})
        await store.put_snapshot(make_snapshot(chain[0], chunks=(old,)))
        for record in chain[1:]:
            await store.put_chunks(ONE, {new: b"new"})
            await store.put_snapshot(make_snapshot(record, chunks=(old, new)))
        assert await store.read_chunks(ONE, [new, old]) == {new: b"new", old: b"old"}

    async def test_chunks_of_kept_snapshots_stay(self, store: LogStore) -> None:
        chain = make_chain(1, 5)
        for record in chain:
            chunk = ChunkId(7, record.position)
            await store.put_chunks(ONE, {chunk: f"at {record.position}".encode()})
            await store.put_snapshot(make_snapshot(record, chunks=(chunk,)))
        for snapshot in await store.snapshots(ONE):
            expected = {snapshot.chunks[0]: f"at {snapshot.position}".encode()}
            assert await store.read_chunks(ONE, snapshot.chunks) == expected

    async def test_chunks_that_nothing_needs_any_more_are_removed(self, store: LogStore) -> None:
        chain = make_chain(1, 5)
        for record in chain:
            chunk = ChunkId(7, record.position)
            await store.put_chunks(ONE, {chunk: b"chunk"})
            await store.put_snapshot(make_snapshot(record, chunks=(chunk,)))
        with pytest.raises(StoreCorrupt):
            await store.read_chunks(ONE, [ChunkId(7, Position(1))])

    async def test_storing_a_chunk_or_snapshot_again_is_fine(self, store: LogStore) -> None:
        (record,) = make_chain(1, 1)
        chunk = ChunkId(1, Position(1))
        snapshot = make_snapshot(record, chunks=(chunk,))
        for data in (b"first", b"second"):
            await store.put_chunks(ONE, {chunk: data})
            await store.put_snapshot(snapshot)
        assert await store.snapshots(ONE) == [snapshot]
        assert await store.read_chunks(ONE, [chunk]) == {chunk: b"second"}

    async def test_a_snapshot_without_its_chunks_is_refused(self, store: LogStore) -> None:
        (record,) = make_chain(1, 1)
        with pytest.raises(StoreCorrupt):
            await store.put_snapshot(make_snapshot(record, chunks=(ChunkId(1, Position(1)),)))
        assert await store.snapshots(ONE) == []

    async def test_snapshots_of_partitions_are_apart(self, store: LogStore) -> None:
        one, two = make_record(partition=1), make_record(partition=2)
        chunk = ChunkId(1, Position(1))
        await store.put_chunks(ONE, {chunk: b"of one"})
        await store.put_chunks(TWO, {chunk: b"of two"})
        for record in (one, two):
            await store.put_snapshot(make_snapshot(record, chunks=(chunk,)))
        assert await store.snapshots(ONE) == [make_snapshot(one, chunks=(chunk,))]
        assert await store.read_chunks(TWO, [chunk]) == {chunk: b"of two"}

    async def test_a_damaged_snapshot_is_left_out(self, harness: LogHarness, store: LogStore) -> None:
        chain = make_chain(1, 2)
        older, newer = (make_snapshot(record, b"a head of some length") for record in chain)
        await store.put_snapshot(older)
        await store.put_snapshot(newer)
        await harness.damage_snapshot(store, ONE, newer.position)
        assert await store.snapshots(ONE) == [older]

    async def test_a_damaged_chunk_is_noticed(self, harness: LogHarness, store: LogStore) -> None:
        (record,) = make_chain(1, 1)
        good, bad = ChunkId(1, Position(1)), ChunkId(2, Position(1))
        await store.put_chunks(ONE, {good: b"good" * 100, bad: b"bad" * 100})
        await store.put_snapshot(make_snapshot(record, chunks=(good, bad)))
        await harness.damage_chunk(store, ONE, bad)
        assert await store.read_chunks(ONE, [good]) == {good: b"good" * 100}
        with pytest.raises(StoreCorrupt):
            await store.read_chunks(ONE, [good, bad])

    async def test_a_missing_chunk_is_noticed(self, store: LogStore) -> None:
        with pytest.raises(StoreCorrupt):
            await store.read_chunks(ONE, [ChunkId(1, Position(1))])

    # --- Buckets ---------------------------------------------------------------------------------

    async def test_one_bucket_is_open(self, store: LogStore) -> None:
        assert [bucket.sealed for bucket in await store.buckets()] == [False]

    async def test_a_rollover_seals_the_bucket_and_opens_the_next(self, store: LogStore) -> None:
        (first,) = await store.buckets()
        await store.append([make_record()])
        number = await store.roll()
        assert number > first.number
        assert [(bucket.number, bucket.sealed) for bucket in await store.buckets()] == [
            (first.number, True),
            (number, False),
        ]

    async def test_a_buckets_bytes_grow_with_what_it_holds(self, store: LogStore) -> None:
        await store.append([make_record(payload=random.Random(1).randbytes(200_000))])
        (bucket,) = await store.buckets()
        assert bucket.bytes_used >= 200_000

    async def test_the_log_reads_on_across_buckets(self, store: LogStore) -> None:
        chain = make_chain(1, 9)
        for record in chain:
            await store.append([record])
            if record.position % 3 == 0:
                await store.roll()
        assert await read_all(store, ONE) == chain
        page = await store.read(ONE, Position(2), records_max=6, bytes_max=READ_BYTES_MAX, payloads=False)
        assert [record.position for record in page] == [2, 3, 4, 5, 6, 7]
        assert await store.read_payloads(ONE, [Position(2), Position(8)]) == {
            2: chain[1].payload,
            8: chain[7].payload,
        }

    async def test_the_key_is_unique_across_buckets(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain)
        await store.roll()
        rival = make_record(position=2, previous_hash=chain[0].hash, nonce=8)
        assert await store.append([rival]) == [NOT_MINE]
        assert await store.append([make_record(nonce=8)]) == [NOT_MINE]
        assert await read_all(store, ONE) == chain

    async def test_a_record_in_an_older_bucket_is_still_mine(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        await append_chain(store, chain[:2])
        await store.roll()
        assert await store.append([chain[1]]) == [MINE]
        assert await store.append([chain[2]]) == [MINE]
        await store.roll()
        assert await store.append([chain[0]]) == [MINE]
        assert await read_all(store, ONE) == chain

    async def test_a_predecessor_in_an_older_bucket_counts(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await store.roll()
        await store.roll()
        assert await store.append([make_record(position=2, previous_hash=b"x" * 32)]) == [NOT_MINE]
        assert await store.append([chain[1]]) == [MINE]

    @pytest.mark.parametrize("fault", [Fault.UNKNOWN_LOST, Fault.UNKNOWN_WRITTEN])
    async def test_an_unknown_outcome_is_settled_across_a_rollover(
        self, harness: LogHarness, store: LogStore, fault: Fault
    ) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain[:1])
        await harness.fail_next_append(store, fault)
        with pytest.raises(AppendOutcomeUnknown):
            await store.append([chain[1]])
        await store.roll()
        assert await store.append([chain[1]]) == [MINE]
        assert await read_all(store, ONE) == chain

    async def test_a_dropped_bucket_is_gone_and_says_so(self, store: LogStore) -> None:
        chain = make_chain(1, 5)
        await append_chain(store, chain[:3])
        first = (await store.buckets())[0].number
        await store.roll()
        await append_chain(store, chain[3:])
        await store.drop(first)
        assert first not in [bucket.number for bucket in await store.buckets()]
        for position in (1, 3):
            with pytest.raises(HistoryDropped):
                await store.read(
                    ONE, Position(position), records_max=9, bytes_max=READ_BYTES_MAX, payloads=False
                )
            with pytest.raises(HistoryDropped):
                await store.read_payloads(ONE, [Position(position)])
        assert await read_all(store, ONE, 4) == chain[3:]

    async def test_the_log_goes_on_after_its_bucket_was_dropped(self, harness: LogHarness) -> None:
        """A partition that rested through a whole bucket keeps its tail: its next record is not the first."""
        store = await harness.open()
        chain = make_chain(1, 3)
        await append_chain(store, chain[:2])
        first = (await store.buckets())[0].number
        await store.roll()
        await store.append([make_record(partition=2)])
        await store.drop(first)
        tail = Tail(chain[1].position, chain[1].hash, chain[1].nonce)
        assert await store.tail(ONE) == tail
        assert await store.append([make_record(nonce=8)]) == [NOT_MINE]
        await store.aclose()
        store = await harness.open()
        assert await store.tail(ONE) == tail
        assert await store.partitions() == [1, 2]
        assert await store.append([make_record(nonce=8)]) == [NOT_MINE]
        assert await store.append([chain[2]]) == [MINE]
        assert await read_all(store, ONE, 3) == chain[2:]
        await store.aclose()

    async def test_a_bucket_that_is_not_sealed_cannot_be_dropped(self, store: LogStore) -> None:
        await store.append([make_record()])
        with pytest.raises(LogError):
            await store.drop((await store.buckets())[-1].number)
        assert len(await read_all(store, ONE)) == 1

    async def test_only_the_oldest_bucket_can_be_dropped(self, store: LogStore) -> None:
        chain = make_chain(1, 3)
        for record in chain:
            await store.append([record])
            await store.roll()
        with pytest.raises(LogError):
            await store.drop((await store.buckets())[1].number)
        assert await read_all(store, ONE) == chain

    async def test_snapshots_outlive_a_dropped_bucket(self, store: LogStore) -> None:
        chain = make_chain(1, 2)
        await append_chain(store, chain)
        snapshot = make_snapshot(chain[1])
        await store.put_snapshot(snapshot)
        first = (await store.buckets())[0].number
        await store.roll()
        await store.drop(first)
        assert await store.snapshots(ONE) == [snapshot]

    async def test_buckets_are_there_after_reopening(self, harness: LogHarness) -> None:
        store = await harness.open()
        chain = make_chain(1, 6)
        for record in chain:
            await store.append([record])
            if record.position in (2, 4):
                await store.roll()
        before = [(bucket.number, bucket.sealed) for bucket in await store.buckets()]
        await store.drop(before[0][0])
        await store.aclose()
        store = await harness.open()
        assert [(bucket.number, bucket.sealed) for bucket in await store.buckets()] == before[1:]
        assert await read_all(store, ONE, 3) == chain[2:]
        assert await store.append([chain[3]]) == [MINE]
        await store.aclose()

    # --- The fence -------------------------------------------------------------------------------

    async def test_after_a_claim_nothing_of_an_older_owner_gets_in(
        self, harness: LogHarness, store: LogStore
    ) -> None:
        """Owners claim, append and lose the partition to each other, over rollovers.

        A dense chain does not show a broken fence: what counts is that nobody's record stands behind
        the tail that a later claimant read, and that all that was acknowledged is there.
        """
        stores = [store, await harness.open()] if harness.is_shared else [store, store]
        claims: dict[int, int] = {}
        acknowledged: dict[int, bytes] = {}

        async def own(mine: LogStore, rng: random.Random) -> None:
            while len(claims) < 25:
                tail = await mine.tail(ONE) or Tail(Position(0), ZEROS, 0)
                read_tail = tail.position
                nonce = rng.getrandbits(62)
                steps = rng.randrange(1, 6)
                for step in range(steps):
                    record = make_record(
                        1, tail.position + 1, tail.hash, nonce=nonce, seed=rng.getrandbits(30)
                    )
                    verdicts = await mine.append([record])
                    while verdicts == [Verdict.BUSY]:
                        verdicts = await mine.append([record])
                    if verdicts == [NOT_MINE]:
                        break
                    acknowledged[record.position] = record.hash
                    if step == 0:
                        claims[record.position] = read_tail
                    tail = Tail(record.position, record.hash, nonce)

        async def roll() -> None:
            for _ in range(3):
                rolled_at = len(claims)
                while len(claims) < rolled_at + 5:
                    await trio.lowlevel.checkpoint()
                await store.roll()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(roll)
            for number in range(3):
                nursery.start_soon(own, stores[number % 2], random.Random(number))
        records = await read_all(store, ONE)
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        assert {record.position: record.hash for record in records} == acknowledged
        for position, read_tail in claims.items():
            assert read_tail == position - 1
            before = {record.nonce for record in records[: position - 1]}
            after = {record.nonce for record in records[position - 1 :]}
            assert not before & after
        if harness.is_shared:
            await stores[1].aclose()
