"""Small records: read as the columns are, and only from the bytes that their events are written as."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from querator.core import events as ev
from querator.core.ids import Instant, ItemNumber, ReservationNumber, SessionId
from querator.errors import CorruptRecord
from querator.log.codec import decode_columns, encode_events, events_of
from querator.log.kinds import KINDS
from querator.log.small import EVENTS_MAX, decode_small
from tests.log import samples
from tests.log.samples import AT, SAMPLES

plain = st.tuples(
    st.builds(ev.TurnStarted, samples.integers),
    st.builds(
        ev.ItemsProduced,
        *(samples.integers,) * 4,
        st.none(),
        samples.texts,
        samples.integers,
        st.none(),
        samples.integers,
    ),
    st.builds(ev.ItemsReserved, *(samples.integers,) * 2, samples.texts, *(samples.integers,) * 3),
    st.builds(ev.ItemsCompleted, samples.integers, st.none()),
    st.builds(ev.ItemsRetried, samples.integers, st.none(), samples.integers),
    st.builds(ev.ReservationEnded, samples.integers, st.none(), samples.texts),
    st.builds(ev.ItemsDue, samples.integers),
    st.builds(ev.PartitionPaused, samples.texts),
).flatmap(st.permutations)
"""One event of each of eight kinds, in any order."""


@given(plain, st.integers(1, EVENTS_MAX))
def test_a_small_record_comes_back_as_it_was(events: list[ev.Event], count: int) -> None:
    assert decode_small(encode_events(events[:count])) == events[:count]


def test_one_item_at_a_time_is_small() -> None:
    examples: list[list[ev.Event]] = [
        [ev.TurnStarted(AT), ev.ItemsProduced(ItemNumber(7), 1, Instant(0), Instant(0), None, "p", 3)],
        [
            ev.TurnStarted(AT),
            ev.ItemsReserved(ReservationNumber(1), ItemNumber(7), SessionId("s"), 1, AT, Instant(0)),
        ],
        [ev.TurnStarted(AT), ev.ItemsCompleted(ReservationNumber(9), None), ev.ItemsDue(2)],
    ]
    for events in examples:
        assert decode_small(encode_events(events)) == events


@given(st.lists(samples.events, max_size=12))
def test_what_is_read_fast_is_what_is_read(events: list[ev.Event]) -> None:
    data = encode_events(events)
    assert decode_small(data) in (None, events_of(decode_columns(data)))


def exact(data: bytes) -> None:
    """Read fast, it is written as these bytes, and read the same by columns."""
    found = decode_small(data)
    if found is not None:
        assert encode_events(found) == data
        assert events_of(decode_columns(data)) == found


@settings(max_examples=400)
@given(plain, st.integers(1, EVENTS_MAX), st.data())
def test_no_other_bytes_are_read_fast(events: list[ev.Event], count: int, data: st.DataObject) -> None:
    """Whatever was changed: other bytes for the same events, or no events at all, are left to others."""
    damaged = bytearray(encode_events(events[:count]))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    exact(bytes(damaged))
    exact(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    exact(bytes(damaged) + b"\0")


def test_damage_of_every_byte_of_every_kind() -> None:
    for sample in SAMPLES:
        original = encode_events([sample])
        for index in range(len(original)):
            for value in (0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF):
                exact(original[:index] + bytes((value,)) + original[index + 1 :])


@pytest.mark.parametrize(
    ("form", "number"),
    [
        (b"\x01\x00", 0),
        (b"\x02\xff\x00", 255),
        (b"\x03\xff\xff\x00\x00", 65_535),
        (b"\x04\xff\xff\xff\xff\x00\x00\x00\x00", 4_294_967_295),
    ],
)
def test_a_longer_form_of_a_number_is_not_exact(form: bytes, number: int) -> None:
    data = encode_events([ev.ItemsDue(1)])
    assert data.endswith(b"\x01\x01")
    other = data[:-2] + form
    assert events_of(decode_columns(other)) == [ev.ItemsDue(number)]
    assert decode_small(other) is None


def test_many_events_and_twice_the_same_are_not_small() -> None:
    kinds = [sample for sample in SAMPLES if decode_small(encode_events([sample])) is not None]
    assert len(kinds) > EVENTS_MAX
    assert decode_small(encode_events(kinds[:EVENTS_MAX])) == kinds[:EVENTS_MAX]
    assert decode_small(encode_events(kinds[: EVENTS_MAX + 1])) is None
    assert decode_small(encode_events([kinds[0], kinds[0]])) is None
    assert decode_small(b"") is None
    assert decode_small(encode_events([])) is None


def test_a_kind_that_is_not_known_is_left_to_who_can_say_so() -> None:
    data = bytearray(encode_events([ev.ItemsDue(1)]))
    data[5] = len(KINDS) + 1
    assert decode_small(bytes(data)) is None
    with pytest.raises(CorruptRecord, match="not known"):
        decode_columns(bytes(data))
