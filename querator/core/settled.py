"""What is remembered of reservations that are settled, so that a repeat answers as the first did.

Three bytes a reservation: reservation numbers are dense, so a block of 4,096 of them is a byte
string of verbs and an array of counts. A reservation whose items were settled by different verbs
keeps a byte an item besides.
"""

from array import array
from typing import Final

from querator.core.limits import SETTLED_RESERVATIONS_MAX

_BLOCK_BITS: Final = 12
_BLOCK: Final = 1 << _BLOCK_BITS
_BLOCKS_MAX: Final = SETTLED_RESERVATIONS_MAX >> _BLOCK_BITS
MIXED: Final = 7

_NO_MARKS: Final[dict[int, bytes]] = {}
_ZERO_COUNTS: Final = array("H", bytes(2 * _BLOCK))


class SettledMemory:
    """Reservation number to verb (0: unknown) and count of items."""

    __slots__ = ("blocks", "floor", "mixed")

    def __init__(self) -> None:
        self.blocks: dict[int, tuple[bytearray, array[int]]] = {}
        self.mixed: dict[int, dict[int, bytes]] = {}
        """By block: the verbs of those whose items were settled by different ones. Only ever added to."""
        self.floor = 0
        """Of lower numbers nothing is remembered any more."""

    def remember(self, reservation: int, verb: int, count: int) -> None:
        """The whole reservation ended by ``verb``."""
        number = reservation >> _BLOCK_BITS
        block = self.blocks.get(number)
        if block is None:
            block = self._open(number)
        index = reservation & (_BLOCK - 1)
        block[0][index] = verb
        block[1][index] = count

    def remember_mixed(self, reservation: int, marks: bytearray) -> None:
        """Its items ended by the verbs in ``marks``."""
        first = marks[0]
        if marks.count(first) == len(marks):
            self.remember(reservation, first, len(marks))
            return
        self.remember(reservation, MIXED, len(marks))
        self.mixed.setdefault(reservation >> _BLOCK_BITS, {})[reservation] = bytes(marks)

    def marks_of(self, reservation: int) -> bytes:
        """The verb of each item of a reservation that is MIXED."""
        return self.mixed.get(reservation >> _BLOCK_BITS, _NO_MARKS).get(reservation, b"")

    def _open(self, number: int) -> tuple[bytearray, "array[int]"]:
        if len(self.blocks) >= _BLOCKS_MAX:
            oldest = min(self.blocks)
            del self.blocks[oldest]
            self.mixed.pop(oldest, None)
        block = (bytearray(_BLOCK), array("H", _ZERO_COUNTS))
        self.blocks[number] = block
        self.restored()
        return block

    def restored(self) -> None:
        """The blocks changed: none was ever dropped while there are fewer than the most."""
        self.floor = min(self.blocks) << _BLOCK_BITS if len(self.blocks) >= _BLOCKS_MAX else 0

    def look(self, reservation: int) -> tuple[int, int]:
        """(verb, count); verb 0 when nothing is remembered, MIXED: ``marks_of`` has the marks."""
        block = self.blocks.get(reservation >> _BLOCK_BITS)
        if block is None:
            return 0, 0
        index = reservation & (_BLOCK - 1)
        return block[0][index], block[1][index]
