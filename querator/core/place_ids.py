"""Places as KSUID-shaped ids: what the HTTP API calls an item's id.

160 bits, from the left: 32 bits that make the id look like a KSUID of its time, 64 bits of the global
partition, 64 bits of the place. So ids of one partition sort as its places do, ids of all partitions
differ, and both numbers can be read back. An item gets another place, and with it another id,
whenever it enters the line again.
"""

from typing import Final

from querator.core.ids import PartitionId, Place
from querator.core.ksuid import decode_ksuid, encode_ksuid

_MARK: Final = 0x17D7_8400
"""Reads as a moment in 2027; every id begins with it."""
PLACE_MAX: Final = (1 << 64) - 1


def place_base(partition: PartitionId) -> int:
    """The number of place 0 of a partition; the id of a place is ``encode_ksuid(base + place)``."""
    return _MARK << 128 | partition << 64


def encode_place(partition: PartitionId, place: Place) -> str:
    """The id of the item that stands at ``place`` now."""
    return encode_ksuid(place_base(partition) + place)


def decode_place(text: str, partition: PartitionId) -> Place | None:
    """The place in ``partition`` that ``text`` names; 0 (which nobody has) for another partition's.

    ``None``: the text is no KSUID at all.
    """
    number = decode_ksuid(text)
    if number is None:
        return None
    offset = number - place_base(partition)
    return Place(offset if 0 < offset <= PLACE_MAX else 0)


def partition_of(text: str) -> PartitionId | None:
    """The partition of the item that ``text`` names; ``None``: it names none."""
    number = decode_ksuid(text)
    if number is None or number >> 128 != _MARK:
        return None
    return PartitionId(number >> 64 & PLACE_MAX)


def decode_pivot(text: str, partition: PartitionId) -> Place | None:
    """The first place whose id is ``text`` or greater; ``None``: the text is no KSUID at all."""
    number = decode_ksuid(text)
    if number is None:
        return None
    return Place(min(max(number - place_base(partition), 0), PLACE_MAX))
