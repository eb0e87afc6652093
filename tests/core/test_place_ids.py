"""Ids of places: one-to-one, in order, and nobody else's."""

from hypothesis import given
from hypothesis import strategies as st

from querator.core.ids import PartitionId, Place
from querator.core.ksuid import decode_ksuid, encode_ksuid
from querator.core.place_ids import PLACE_MAX, decode_pivot, decode_place, encode_place

PLACES = st.integers(1, 2**63 - 1).map(Place)
PARTITIONS = st.integers(1, 2**48).map(PartitionId)


@given(PARTITIONS, PLACES)
def test_an_id_names_its_place(partition: PartitionId, place: Place) -> None:
    assert decode_place(encode_place(partition, place), partition) == place


@given(PARTITIONS, PLACES, PLACES)
def test_ids_sort_as_places_do(partition: PartitionId, first: Place, second: Place) -> None:
    assert (encode_place(partition, first) < encode_place(partition, second)) == (first < second)


@given(PARTITIONS, PARTITIONS, PLACES)
def test_an_id_of_another_partition_names_nobody(one: PartitionId, other: PartitionId, place: Place) -> None:
    if one != other:
        assert decode_place(encode_place(one, place), other) == 0


def test_the_predecessor_of_an_id_is_a_pivot_before_it() -> None:
    """Clients take the first id of a page, count one down, and start there."""
    number = decode_ksuid(encode_place(PartitionId(3), Place(1)))
    assert number is not None
    assert decode_pivot(encode_ksuid(number - 1), PartitionId(3)) == 0


def test_pivots_outside_the_partition() -> None:
    assert decode_pivot("0" * 27, PartitionId(3)) == 0
    assert decode_pivot("Z" * 27, PartitionId(3)) == PLACE_MAX
    assert decode_pivot("invalid-id", PartitionId(3)) is None
    assert decode_place("invalid-id", PartitionId(3)) is None
