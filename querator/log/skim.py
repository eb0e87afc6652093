"""The everyday events of many records as columns over all of them, for whoever folds records in bulk.

A record is either skimmed whole or refused, and then nothing was taken from it. Refused is what has another
kind of event, what says something that only a fold event by event understands (items with keys, parts of a
request, items that are scheduled), and what cannot be read: ``decode_columns`` says what is wrong with it.

Of produced items only what tells them apart is read: their numbers, their kind, and who sent them.
"""

from collections.abc import Sequence
from struct import Struct, error
from typing import Any, Final, TypeAlias

import attrs

from querator.core import events as ev
from querator.errors import CorruptRecord
from querator.log.columns import OPTIONAL_PAIRS, PAIRS, Pairs, Reader, take_integers, take_texts
from querator.log.kinds import ATTRIBUTES, KIND_OF, VERSION

TURN: Final = KIND_OF[ev.TurnStarted].number
PRODUCED: Final = KIND_OF[ev.ItemsProduced].number
RESERVED: Final = KIND_OF[ev.ItemsReserved].number
COMPLETED: Final = KIND_OF[ev.ItemsCompleted].number
RETRIED: Final = KIND_OF[ev.ItemsRetried].number
RELEASED: Final = KIND_OF[ev.ItemsReleased].number
ENDED: Final = KIND_OF[ev.ReservationEnded].number
SETTLED: Final = (COMPLETED, RETRIED, RELEASED, ENDED)
"""Kinds of events that settle items of a reservation, in the order of the bytes."""

_COMMON: Final = bytes((TURN, PRODUCED, RESERVED, *SETTLED))
_PREFIX: Final = Struct("<BI")
_TELLING: Final = ("key", "attempts")
"""Attributes with which an item is not as others are."""


@attrs.define
class Settlements:
    """Events of one kind that settle."""

    numbers: list[int] = attrs.field(factory=list)
    """Of the reservations."""
    ranges: list[Pairs | None] = attrs.field(factory=list)
    whys: list[str] = attrs.field(factory=list)
    """Empty for kinds that do not say."""


@attrs.define
class Skimmed:
    """Events of some records of one partition: a list for each field, in order of the events of its kind."""

    kinds: list[bytes] = attrs.field(factory=list)
    """For each record the kind numbers of its events, in order."""
    positions: list[int] = attrs.field(factory=list)
    turns: list[int] = attrs.field(factory=list)
    """When each turn started."""
    firsts: list[int] = attrs.field(factory=list)
    """First item of each produced batch; then how many, of which kind ("": none), and from whom."""
    counts: list[int] = attrs.field(factory=list)
    item_kinds: list[str] = attrs.field(factory=list)
    authors: list[str] = attrs.field(factory=list)
    taken: list[int] = attrs.field(factory=list)
    """How many items each reservation took."""
    heads: list[int] = attrs.field(factory=list)
    """First item of each reservation."""
    sessions: list[str] = attrs.field(factory=list)
    generations: list[int] = attrs.field(factory=list)
    deadlines: list[int] = attrs.field(factory=list)
    run_untils: list[int] = attrs.field(factory=list)
    settled: dict[int, Settlements] = attrs.field(
        factory=lambda: {number: Settlements() for number in SETTLED}
    )
    events: int = 0

    def take(self, position: int, data: bytes) -> bool:
        """Add the events of the record at ``position``; whether they are everyday."""
        if len(data) < _PREFIX.size:
            return False
        version, count = _PREFIX.unpack_from(data)
        start = _PREFIX.size + count
        kinds = data[_PREFIX.size : start]
        if version != VERSION or len(kinds) != count or kinds.translate(None, _COMMON):
            return False
        reader = Reader(data, start)
        try:
            found = self._read(reader, kinds)
        except (CorruptRecord, error, OverflowError, ValueError, IndexError):
            return False
        if found is None or reader.position != len(data):
            return False
        for column, values in found:
            column.extend(values)
        self.kinds.append(kinds)
        self.positions.append(position)
        self.events += count
        return True

    def _read(self, reader: Reader, kinds: bytes) -> "_Found | None":
        """What is to be added to which column."""
        found: _Found = []
        count = kinds.count(TURN)
        if count:
            found.append((self.turns, take_integers(reader, count)))
        count = kinds.count(PRODUCED)
        if count:
            produced = self._read_produced(reader, count)
            if produced is None:
                return None
            found += produced
        count = kinds.count(RESERVED)
        if count:
            found += (
                (self.taken, take_integers(reader, count)),
                (self.heads, take_integers(reader, count)),
                (self.sessions, take_texts(reader, count)),
                (self.generations, take_integers(reader, count)),
                (self.deadlines, take_integers(reader, count)),
                (self.run_untils, take_integers(reader, count)),
            )
        for number in SETTLED:
            count = kinds.count(number)
            if not count:
                continue
            into = self.settled[number]
            found.append((into.numbers, take_integers(reader, count)))
            found.append((into.ranges, _read_ranges(reader, count)))
            if number == RETRIED:
                if not _skip_zeros(reader) and any(take_integers(reader, count)):
                    return None
            elif number != COMPLETED:
                found.append((into.whys, take_texts(reader, count)))
        return found

    def _read_produced(self, reader: Reader, count: int) -> "_Found | None":
        firsts = take_integers(reader, count)
        counts = take_integers(reader, count)
        due_at = not _skip_zeros(reader) and any(take_integers(reader, count))
        _skip_zeros(reader) or take_integers(reader, count)
        kinds = _read_kinds(reader, count)
        authors = take_texts(reader, count)
        _skip_zeros(reader) or take_integers(reader, count)
        parts = not _skip_zeros(reader) and any(take_integers(reader, count))
        _skip_zeros(reader) or PAIRS.take(reader, count)
        if kinds is None or due_at or parts or min(counts) < 1:
            return None
        return [
            (self.firsts, firsts),
            (self.counts, counts),
            (self.item_kinds, kinds),
            (self.authors, authors),
        ]


_Found: TypeAlias = "list[tuple[list[Any], Sequence[Any]]]"
"""Columns, and what is to be added to each."""


def _skip_zeros(reader: Reader) -> bool:
    """Whether a column of integers is nothing but zeros; then it is read."""
    if reader.data[reader.position]:
        return False
    reader.position += 1
    return True


def _read_ranges(reader: Reader, count: int) -> Sequence[Pairs | None]:
    start = reader.position
    if reader.data.startswith(_FROM_THE_FIRST, start):
        # So many items from the first one on, the same for all: whoever settles one by one says it so.
        reader.position = start + len(_FROM_THE_FIRST)
        return [((0, reader.byte()),)] * count
    return OPTIONAL_PAIRS.take(reader, count)


def _read_kinds(reader: Reader, count: int) -> list[str] | None:
    """The kind of each batch; ``None``: its items are of several, or not as others are."""
    start = reader.position
    if reader.data.startswith(_KINDS_ONLY, start):
        # All batches have one, the same for all of their items, and nothing else: what most have.
        reader.position = start + len(_KINDS_ONLY)
        if reader.length() == count:
            kinds = take_texts(reader, count)
            end = reader.position
            if reader.data.startswith(_NO_MORE, end):
                reader.position = end + len(_NO_MORE)
                return None if "" in kinds else kinds
        reader.position = start
    return _read_any_kinds(reader, count)


def _read_any_kinds(reader: Reader, count: int) -> list[str] | None:
    code = reader.byte()
    if not code:
        return [""] * count
    if code != 1:
        return None
    present = take_integers(reader, count)
    size = sum(map(bool, present))
    lengths = take_integers(reader, size)
    kinds: list[Any] = []
    for name, codec in ATTRIBUTES.names:
        if size and _skip_zeros(reader):
            continue
        values = ATTRIBUTES.take_values(reader, codec, lengths)
        if name == "kind":
            kinds = values
        elif name in _TELLING and size:
            return None
    if not kinds:
        return [""] * count
    if list in map(type, kinds) or "" in kinds:
        return None
    left = iter(kinds)
    return [(next(left) or "") if there else "" for there in present]


_FROM_THE_FIRST: Final = bytes((1, 1, 2, 0, 1))
"""Before a byte that says how many: there are ranges, one each; from index 0; a constant."""
_KINDS_ONLY: Final = bytes((1, 1, 1, 0, 0, 1, 1))
"""Before the kinds: all batches have attributes, none of them a list; no encoding; a kind, the same for all
of a batch's items."""
_NO_MORE: Final = bytes(len(ATTRIBUTES.names) - 2)
"""Behind them: nothing else."""
