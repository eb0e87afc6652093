"""Records: what goes in comes out, for ever, and nothing else is taken for a record."""

import contextlib
import random
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from querator.core import events as ev
from querator.core.ids import Instant, ItemNumber, PartitionId, Position, ReservationNumber, SessionId
from querator.core.invariants import InvariantViolation
from querator.core.limits import RECORD_VALUES_MAX
from querator.errors import CorruptRecord
from querator.log import codec, columns
from querator.log.codec import (
    GENESIS,
    PayloadBlock,
    attach_payloads,
    check_chain,
    check_record,
    decode_columns,
    decode_events,
    encode_events,
    encode_payload_block,
    payloads_of,
    seal,
    tail_of,
)
from querator.log.kinds import ATTRIBUTES, KIND_OF, KINDS, SCHEMAS, VERSION
from querator.log.records import Record
from querator.log.upcasts import Tables, upcast
from tests.log import samples
from tests.log.samples import AT, SAMPLES

GOLDEN = Path(__file__).parent.parent / "golden" / "records"


def seal_sample(events: Sequence[ev.Event], inputs: bytes = b"") -> Record:
    return seal(PartitionId(7), Position(3), bytes(range(32)), 2**62 + 1, AT, events, inputs)


def without_payloads(events: Sequence[ev.Event]) -> list[ev.Event]:
    return [
        attrs.evolve(event, payloads=None)
        if isinstance(event, ev.ItemsProduced | ev.PayloadsCarried)
        else event
        for event in events
    ]


def read_back(record: Record) -> list[ev.Event]:
    events = decode_events(record.events)
    assert record.payload is not None
    attach_payloads(events, PayloadBlock(record.payload))
    return events


def produce(first: int, payloads: list[bytes], attributes: ev.Attributes | None = None) -> ev.ItemsProduced:
    return ev.ItemsProduced(
        ItemNumber(first), len(payloads), Instant(0), Instant(0), attributes, "", 0, payloads
    )


# --- Every kind, for ever ------------------------------------------------------------------------


def changed(record: Record, field: str, value: object) -> Record:
    other = attrs.evolve(record)
    setattr(other, field, value)
    return other


def name_of(event: type) -> str:
    return event.__name__


EVERYTHING: Final = 26
"""Samples in the golden file of that name: the kinds that there were when it was written."""


def test_every_kind_of_event_has_a_number_a_sample_and_a_golden_file() -> None:
    members = [name_of(member) for member in typing.get_args(ev.Event)]
    assert sorted(name_of(kind.event) for kind in KINDS) == sorted(members)
    assert sorted(name_of(type(sample)) for sample in SAMPLES) == sorted(members)
    assert sorted(path.stem for path in (GOLDEN / f"v{VERSION}").glob("*.hex")) == sorted(
        [*members, "everything"]
    )


def test_every_field_of_an_event_has_a_column() -> None:
    for kind in KINDS:
        fields = [field.name for field in attrs.fields(kind.event)]
        assert sorted(kind.names) == sorted(name for name in fields if name != "payloads")


def test_every_attribute_has_a_column_in_order() -> None:
    fields = tuple(field.name for field in attrs.fields(ev.Attributes))
    (batches,) = [
        column for kind in KINDS for column in kind.columns if isinstance(column, columns.AttributeBatches)
    ]
    assert tuple(name for name, _ in batches.names) == fields


def test_numbers_of_kinds_are_never_reused() -> None:
    assert [kind.number for kind in KINDS] == list(range(1, len(KINDS) + 1))


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("v*/*.hex")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_records_of_every_version_are_readable(path: Path) -> None:
    """A golden file is a record as it was once written: version, hash, events, payload block."""
    digest, events, payload = map(bytes.fromhex, path.read_text().split("\n")[:3])
    expected = [sample for sample in SAMPLES if path.stem == name_of(type(sample))]
    if path.stem == "everything":
        expected = list(SAMPLES[:EVERYTHING])
    record = seal_sample(expected)
    assert events[0] == int(path.parent.name[1:])
    decoded = decode_events(events)
    attach_payloads(decoded, PayloadBlock(payload))
    assert decoded == expected
    if events[0] == VERSION:
        assert (record.hash, record.events, record.payload) == (digest, events, payload)


# --- Round trips ---------------------------------------------------------------------------------


@given(st.lists(samples.events, max_size=12), st.binary(max_size=10))
def test_any_events_come_back_as_they_were(events: list[ev.Event], inputs: bytes) -> None:
    record = seal_sample(events, inputs)
    check_record(record)
    assert read_back(record) == events
    assert decode_events(record.events) == without_payloads(events)


@given(st.data())
def test_many_events_of_one_kind_come_back(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    events = [sample, *data.draw(st.lists(samples.STRATEGIES[type(sample)], max_size=8)), sample]
    assert read_back(seal_sample(events)) == events


@given(samples.events)
def test_a_single_value_is_packed_as_a_column_of_one(event: ev.Event) -> None:
    kind = KIND_OF[type(event)]
    for name, column in zip(kind.names, kind.columns, strict=True):
        out: list[bytes] = []
        column.put(out, [getattr(event, name)])
        assert column.one(getattr(event, name)) == b"".join(out), name


@given(st.lists(samples.integers, min_size=1, max_size=50))
def test_any_column_of_integers_comes_back(values: list[int]) -> None:
    out: list[bytes] = []
    columns.put_integers(out, values)
    reader = columns.Reader(b"".join(out))
    assert list(columns.take_integers(reader, len(values))) == values
    assert reader.position == len(reader.data)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([0] * 1000, 1),
        ([255] * 1000, 2),
        ([256] * 1000, 3),
        ([65_536] * 1000, 5),
        ([-1] * 1000, 9),
        (list(range(AT, AT + 1000)), 9),
        ([0, 255] * 500, 1001),
        ([0, 256] * 500, 2001),
        ([0, 65_536] * 500, 4001),
        ([0, 2**33] * 500, 8001),
        ([AT, AT + 255] * 500, 1009),
        ([AT, AT + 256] * 500, 2009),
        ([AT, AT + 65_536] * 500, 4009),
        ([-1, 2**62] * 500, 8001),
        ([2**63 - 1, -(2**63)], 17),
    ],
)
def test_integers_take_the_narrowest_form(values: list[int], size: int) -> None:
    out: list[bytes] = []
    columns.put_integers(out, values)
    assert len(b"".join(out)) == size
    assert list(columns.take_integers(columns.Reader(b"".join(out)), len(values))) == values


def test_absent_and_constant_attributes_cost_nothing_per_item() -> None:
    payloads = [b""] * 1000
    plain = len(encode_events([produce(1, payloads)]))
    constant = ev.Attributes(kind="invoice", headers={"a": "b"}, attempts_max=3)
    assert len(encode_events([produce(1, payloads, constant)])) < plain + 80


def test_a_cycle_of_one_item_takes_few_bytes() -> None:
    events: list[ev.Event] = []
    for number in range(1, 1001):
        events += (
            ev.TurnStarted(Instant(AT + number * 130)),
            produce(number, [b"p"]),
            ev.ItemsReserved(
                1, ItemNumber(number), SessionId("s"), 1, Instant(AT + number * 130 + 60), Instant(0)
            ),
            ev.ItemsCompleted(ReservationNumber(number), None),
        )
    assert len(encode_events(events)) < 4 * len(events)


def test_no_events_are_a_record_too() -> None:
    record = seal_sample([])
    check_record(record)
    assert decode_events(record.events) == []
    assert record.payload == b""


def test_columns_give_the_same_as_events() -> None:
    found = decode_columns(encode_events(SAMPLES * 3))
    completed = found.of(ev.ItemsCompleted)
    assert list(completed["reservation"]) == [70_001] * 3
    assert list(completed["ranges"]) == [((0, 1), (5, 20))] * 3
    assert found.of(ev.ItemsProduced)["attributes"][1].key == ["a", "b", "a"]
    assert len(found.kinds) == len(SAMPLES) * 3
    assert decode_columns(encode_events([])).of(ev.ItemsDue) == {}


def test_items_of_a_record_span_from_the_first_to_the_last_produced() -> None:
    record = seal_sample([produce(5, [b"a"] * 3), ev.ItemsDue(1), produce(8, [b"b"] * 2)])
    assert (record.item_min, record.item_max) == (5, 9)
    assert (seal_sample([ev.ItemsDue(1)]).item_min, seal_sample([ev.ItemsDue(1)]).item_max) == (0, 0)


def test_events_that_cannot_be_written_are_a_bug() -> None:
    with pytest.raises(InvariantViolation):
        encode_events([ev.ItemsDue(2**63)])
    with pytest.raises(InvariantViolation):
        encode_events([ev.PartitionPaused("\ud800")])
    with pytest.raises(InvariantViolation):
        encode_events([ev.PartitionPaused(None)])  # type: ignore[arg-type]
    with pytest.raises(InvariantViolation):
        encode_events(["no event"])  # type: ignore[list-item]
    with pytest.raises(InvariantViolation):
        encode_events([produce(1, [b""] * 2, ev.Attributes(key=["a"], kind=["a", "b"]))])
    with pytest.raises(InvariantViolation):
        encode_payload_block([attrs.evolve(produce(1, [b"a"]), count=2)])
    with pytest.raises(InvariantViolation):
        encode_payload_block([attrs.evolve(produce(1, [b"a"]), payloads=None)])
    with pytest.raises(InvariantViolation):
        seal(PartitionId(2**63), Position(1), GENESIS, 1, AT, [])


# --- Payloads ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=5), max_size=20), st.data())
def test_payloads_are_cut_out_anywhere(payloads: list[bytes], data: st.DataObject) -> None:
    block = PayloadBlock(encode_payload_block([produce(1, payloads)] if payloads else []))
    assert len(block) == len(payloads)
    assert [block[index] for index in range(len(payloads))] == payloads
    first = data.draw(st.integers(0, len(payloads)))
    count = data.draw(st.integers(0, len(payloads) - first))
    assert block.range(first, count) == payloads[first : first + count]


@pytest.mark.parametrize("payloads", [[b"abc"] * 3, [b"a", b"bc", b""], [b""] * 3])
def test_payloads_outside_the_block_are_index_errors(payloads: list[bytes]) -> None:
    block = PayloadBlock(encode_payload_block([produce(1, payloads)]))
    for index in (-1, 3):
        with pytest.raises(IndexError):
            block[index]
    for first, count in ((-1, 1), (0, 4), (3, 1), (1, -1)):
        with pytest.raises(IndexError):
            block.range(first, count)


def test_equal_lengths_are_stored_once() -> None:
    assert len(encode_payload_block([produce(1, [b"x" * 100] * 1000)])) == 4 + 2 + 100_000


def test_payloads_are_found_by_item_number() -> None:
    record = seal_sample(
        [
            produce(10, [b"10", b"11"]),
            ev.PayloadsCarried(((3, 2), (1, 1)), [b"3", b"4", b"1"]),
            produce(12, [b"12"]),
        ]
    )
    assert payloads_of(record, [12, 4, 10, 99, 1]) == {12: b"12", 4: b"4", 10: b"10", 1: b"1"}
    assert payloads_of(record, []) == {}


def test_a_block_that_does_not_fit_its_events_is_corrupt() -> None:
    record = seal_sample([produce(10, [b"10", b"11"])])
    for payload in (
        b"",
        encode_payload_block([produce(1, [b"a"])]),
        encode_payload_block([produce(1, [b"a"] * 3)]),
    ):
        with pytest.raises(CorruptRecord):
            payloads_of(attrs.evolve(record, payload=payload), [11])
        with pytest.raises(CorruptRecord):
            attach_payloads(decode_events(record.events), PayloadBlock(payload))


# --- The chain -----------------------------------------------------------------------------------


def test_records_chain() -> None:
    first = seal(PartitionId(1), Position(1), GENESIS, 5, AT, [ev.ItemsDue(1)])
    second = seal(PartitionId(1), Position(2), first.hash, 5, AT, [ev.ItemsDue(1)])
    check_chain(first, None)
    check_chain(second, tail_of(first))
    for record, previous in ((first, tail_of(first)), (second, None), (second, tail_of(second))):
        with pytest.raises(CorruptRecord):
            check_chain(record, previous)
    with pytest.raises(CorruptRecord, match="record 2 of partition 1"):
        check_chain(attrs.evolve(second, previous_hash=GENESIS), tail_of(first))


def test_a_payload_that_was_not_read_is_not_checked() -> None:
    check_record(attrs.evolve(seal_sample(SAMPLES), payload=None))


@pytest.mark.parametrize(
    "field",
    ["partition", "position", "nonce", "written_at", "item_min", "item_max", "version"],
)
def test_every_number_of_a_record_is_covered(field: str) -> None:
    record = seal_sample(SAMPLES, b"inputs")
    for value in (getattr(record, field) + 1, -1, 2**64):
        with pytest.raises(CorruptRecord):
            check_record(changed(record, field, value))


@pytest.mark.parametrize(
    "field", ["previous_hash", "events", "payload", "payload_checksum", "inputs", "hash"]
)
def test_every_changed_byte_of_a_record_is_noticed(field: str) -> None:
    record = seal_sample(SAMPLES, b"inputs")
    original: bytes = getattr(record, field)
    rng = random.Random(field)
    for index in range(len(original)):
        damaged = bytearray(original)
        damaged[index] ^= 1 << rng.randrange(8)
        with pytest.raises(CorruptRecord, match="record 3 of partition 7"):
            check_record(changed(record, field, bytes(damaged)))
    for changed_length in (original[:-1], original + b"\0", b""):
        with pytest.raises(CorruptRecord):
            check_record(changed(record, field, changed_length))


def test_a_version_or_kind_from_the_future_is_not_guessed() -> None:
    events = encode_events([ev.ItemsDue(1)])
    with pytest.raises(CorruptRecord, match="version 2"):
        decode_events(b"\x02" + events[1:])
    with pytest.raises(CorruptRecord, match="kind 200"):
        decode_events(events[:5] + b"\xc8" + events[6:])
    record = seal_sample([ev.ItemsDue(1)])
    record.version = 2
    record.hash = codec.hash_of(record)
    with pytest.raises(CorruptRecord, match="version 2"):
        check_record(record)


def test_a_record_whose_events_are_of_another_version_is_noticed() -> None:
    record = seal_sample([ev.ItemsDue(1)])
    record.events = b"\x02" + record.events[1:]
    record.hash = codec.hash_of(record)
    with pytest.raises(CorruptRecord, match="another"):
        check_record(record)


# --- Damage --------------------------------------------------------------------------------------


def survives(data: bytes) -> None:
    """Decoding either works or says CorruptRecord."""
    with contextlib.suppress(CorruptRecord):
        decode_events(data)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_corrupt(data: bytes) -> None:
    survives(data)
    survives(bytes((VERSION,)) + data)
    with contextlib.suppress(CorruptRecord):
        PayloadBlock(data)


@pytest.fixture
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged length asks for little, so that thousands of them can be tried."""
    monkeypatch.setattr(columns, "RECORD_VALUES_MAX", 5_000)


@pytest.mark.usefixtures("few_values")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(samples.events, min_size=1, max_size=6), st.data())
def test_damaged_events_decode_or_are_corrupt(events: list[ev.Event], data: st.DataObject) -> None:
    damaged = bytearray(encode_events(events))
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(damaged) - 1))
        damaged[index] = data.draw(st.integers(0, 255))
    survives(bytes(damaged))
    survives(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@pytest.mark.usefixtures("few_values")
def test_damage_anywhere_in_every_kind_decodes_or_is_corrupt() -> None:
    rng = random.Random(11)
    for sample in (*([sample] * 2 for sample in SAMPLES), list(SAMPLES)):
        original = encode_events(sample)
        for index in range(len(original)):
            for value in (0, 1, 0xFF, rng.randrange(256)):
                survives(original[:index] + bytes((value,)) + original[index + 1 :])
        survives(original + b"\0")


def test_a_damaged_payload_block_is_corrupt_or_another_one() -> None:
    original = encode_payload_block([produce(1, [b"a", b"bcd", b""])])
    for index in range(len(original)):
        for value in range(256):
            try:
                block = PayloadBlock(original[:index] + bytes((value,)) + original[index + 1 :])
            except CorruptRecord:
                continue
            assert len(block.range(0, len(block))) == len(block)


def test_a_damaged_length_cannot_ask_for_all_memory() -> None:
    with pytest.raises(CorruptRecord):
        PayloadBlock((2**32 - 1).to_bytes(4, "little") + b"\0")
    expired = encode_events([ev.ItemsExpired(((1, 1),))])
    # The number of runs, then two constant columns: a few bytes for any number of values.
    huge = expired[:6] + b"\x03" + (2**31).to_bytes(4, "little") + b"\x00\x00"
    with pytest.raises(CorruptRecord, match="2147483648 values"):
        decode_events(huge)
    columns.check_count(RECORD_VALUES_MAX)
    with pytest.raises(CorruptRecord):
        columns.check_count(RECORD_VALUES_MAX + 1)


@pytest.mark.parametrize(
    ("column", "data", "words"),
    [
        (columns.INTEGERS, b"\x0d", "integers of type 13"),
        (columns.INTEGERS, b"\x09\x01", "ends in the middle"),
        (columns.INTEGERS, b"", "ends in the middle"),
        (columns.TEXTS, b"\x04", "texts of type 4"),
        (columns.TEXTS, b"\x01\x01\x00\x00\x00\xff", "not UTF-8"),
        (columns.TEXTS, b"\x03\x03\x00\x00\x00", "dictionary of 3 texts for 2"),
        (columns.TEXTS, b"\x03\x00\x00\x00\x00", "dictionary of 0 texts for 2"),
        (
            columns.TEXTS,
            b"\x03\x01\x00\x00\x00\x01\x01\x01\x00\x00\x00a\x06\x00\x01",
            "beyond the dictionary",
        ),
        (columns.TEXTS, b"\x02\x01\x02\x01\x00\x00\x00a", "not as long as they should be"),
        (columns.TEXTS, b"\x02\x04" + b"\xff" * 8, "negative count"),
        (columns.BLOBS, b"\x01", "bytes of type 1"),
        (columns.OPTIONAL_PAIRS, b"\x02", "ranges of type 2"),
        (columns.OPTIONAL_PAIRS, b"\x01\x04" + b"\xff" * 8, "negative count"),
        (columns.PAIRS, b"\x04" + b"\xff" * 8, "negative count"),
        (columns.HEADERS, b"\x01\x02\x01\x01\x00\x00\x00a\x00", "there twice"),
        (ATTRIBUTES, b"\x02", "attributes of type 2"),
        (ATTRIBUTES, b"\x01\x01\x01\x00\x01\x04", "unknown shape"),
        (ATTRIBUTES, b"\x01\x01\x01\x00\x01\x01\x01\x00\x00\x00\x00", "fewer attributes"),
        (ATTRIBUTES, b"\x01\x01\x01\x00\x01\x01\x03\x00\x00\x00\x00", "more attributes"),
    ],
)
def test_what_is_wrong_with_a_column_is_said(column: columns.Column, data: bytes, words: str) -> None:
    with pytest.raises(CorruptRecord, match=words):
        column.take(columns.Reader(data), 2)


@pytest.mark.parametrize(
    "column",
    [columns.INTEGERS, columns.BOOLEANS, columns.TEXTS, columns.BLOBS, columns.OPTIONAL_PAIRS, ATTRIBUTES],
)
def test_an_empty_column_is_no_bytes(column: columns.Column) -> None:
    out: list[bytes] = []
    column.put(out, [])
    assert out == []
    assert list(column.take(columns.Reader(b""), 0)) == []


# --- Upcasts -------------------------------------------------------------------------------------


def test_tables_pass_through_every_step_to_the_current_version() -> None:
    def first(tables: Tables) -> None:
        tables[12]["reason"] = ["time"] * len(tables[12]["count"])

    def second(tables: Tables) -> None:
        tables[12]["reason"] = [reason.upper() for reason in tables[12]["reason"]]

    tables: Tables = {12: {"count": [1, 2]}}
    upcast(1, tables, steps={1: first, 2: second}, current=3)
    assert tables == {12: {"count": [1, 2], "reason": ["TIME", "TIME"]}}


def test_a_version_without_a_way_is_corrupt() -> None:
    with pytest.raises(CorruptRecord):
        upcast(1, {}, steps={}, current=2)
    assert list(SCHEMAS) == list(range(1, VERSION + 1))


def write_golden() -> None:
    """Write the golden files of the current version: only for a kind that has never been written."""
    for name, chosen in [(name_of(type(sample)), [sample]) for sample in SAMPLES] + [
        ("everything", list(SAMPLES[:EVERYTHING]))
    ]:
        record = seal_sample(chosen)
        assert record.payload is not None
        path = GOLDEN / f"v{VERSION}" / f"{name}.hex"
        if not path.exists():
            path.write_text(f"{record.hash.hex()}\n{record.events.hex()}\n{record.payload.hex()}\n")


if __name__ == "__main__":
    write_golden()
