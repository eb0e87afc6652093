"""Records: how events and payloads become bytes, what the hash covers, and how a record is checked.

    events    version u8 · number of events u32 · a kind number each, in order
              · for each kind that is there, by number: its columns (log/kinds.py)
    payloads  number u32 · column of lengths · the payloads; nothing at all when there are none:
              those of the produced events in order, then the carried ones
    hash      blake2b-256 over the header (all numbers of the record, the previous hash, both
              checksums) and the events
    checksums of payloads and inputs: 8 bytes, so that the chain can be walked without them, and
              stands when a payload was erased

Nothing here does I/O or knows a clock.
"""

import hashlib
import struct
from collections.abc import Sequence
from itertools import accumulate, chain
from struct import Struct
from typing import Any, Final, TypeAlias

import attrs

from querator.core.events import Event, ItemsProduced, PayloadsCarried
from querator.core.ids import Instant, PartitionId, Position
from querator.core.invariants import InvariantViolation, check
from querator.core.limits import RECORD_VALUES_MAX
from querator.errors import CorruptRecord
from querator.log.columns import (
    Reader,
    put_integers,
    take_constant,
    take_integers,
)
from querator.log.kinds import KIND_OF, SCHEMAS, VERSION
from querator.log.records import Record, Tail
from querator.log.small import EVENTS_MAX, decode_small
from querator.log.upcasts import Tables, upcast

GENESIS: Final = bytes(32)
"""The previous hash of a first record."""
CHECKSUM_BYTES: Final = 8
HASH_BYTES: Final = 32

_PREFIX: Final = Struct("<BI")
_COUNT: Final = Struct("<I")
_HEADER: Final = Struct("<HqqqqqqI8s8s32s")
_NUMBER_OF: Final = {event: kind.number for event, kind in KIND_OF.items()}
_KNOWN: Final = {version: bytes(kinds) for version, kinds in SCHEMAS.items()}
_CURRENT: Final = SCHEMAS[VERSION]
_PRODUCED: Final = KIND_OF[ItemsProduced].number
_CARRIED: Final = KIND_OF[PayloadsCarried].number


# --- Events -------------------------------------------------------------------------------------


Groups: TypeAlias = dict[type[Any], list[Any]]
"""Events by their class, in order."""


def encode_events(events: Sequence[Event]) -> bytes:
    """The event columns of a record. What is in ``payloads`` is not in them."""
    return _encode(*_group(events))


def _group(events: Sequence[Event]) -> tuple[bytes, Groups]:
    """The kind number of every event in order, and the events by class."""
    types = list(map(type, events))
    try:
        numbers = bytes(map(_NUMBER_OF.__getitem__, types))
    except KeyError as error:
        raise InvariantViolation(f"an event without a durable number: {error}") from error
    if len(events) <= EVENTS_MAX:
        small: Groups = {}
        for event, its_type in zip(events, types, strict=True):
            small.setdefault(its_type, []).append(event)
        return numbers, small
    groups: Groups = {its_type: [] for its_type in dict.fromkeys(types)}
    if len(groups) == 1:
        groups[types[0]] += events
    else:
        append = {its_type: group.append for its_type, group in groups.items()}
        for event, its_type in zip(events, types, strict=True):
            append[its_type](event)
    return numbers, groups


def _encode(numbers: bytes, groups: Groups) -> bytes:
    out = [_PREFIX.pack(VERSION, len(numbers)), numbers]
    try:
        for number in sorted(map(_NUMBER_OF.__getitem__, groups)):
            kind = _CURRENT[number]
            group = groups[kind.event]
            if len(group) == 1:
                out += kind.one(group[0])
                continue
            rows = map(kind.getter, group)
            if len(kind.columns) == 1:
                kind.columns[0].put(out, list(rows))
            else:
                for column, values in zip(kind.columns, zip(*rows, strict=True), strict=True):
                    column.put(out, values)
    except (struct.error, AttributeError, OverflowError, TypeError, UnicodeEncodeError) as error:
        raise InvariantViolation(f"an event that cannot be written: {error}") from error
    return b"".join(out)


@attrs.define
class Columns:
    """The events of a record without an object for each: for analytics, and the first half of decoding."""

    kinds: bytes
    """The kind number of every event, in order."""
    tables: Tables
    """Kind number to column name to values, in order; of the current version."""

    def of(self, event: type[Any]) -> dict[str, Sequence[Any]]:
        """The columns of one kind of event; empty where the record has none."""
        return self.tables.get(KIND_OF[event].number, {})


def decode_columns(data: bytes) -> Columns:
    """The event columns of a record, of any version.

    Raises:
        CorruptRecord: that is not the events of a record, or of a version that is not known here.
    """
    if len(data) < _PREFIX.size:
        raise CorruptRecord("the events end before they begin")
    version, count = _PREFIX.unpack_from(data)
    kinds = SCHEMAS.get(version)
    if kinds is None:
        raise CorruptRecord(f"the events are of version {version}, which is not known")
    reader = Reader(data, _PREFIX.size)
    numbers = reader.bytes(count)
    unknown = numbers.translate(None, _KNOWN[version])
    if unknown:
        raise CorruptRecord(f"an event of kind {unknown[0]}, which is not known")
    tables: Tables = {}
    try:
        for number in sorted(dict.fromkeys(numbers)):
            kind = kinds[number]
            size = numbers.count(number)
            tables[number] = {
                name: column.take(reader, size) for name, column in zip(kind.names, kind.columns, strict=True)
            }
    except (struct.error, OverflowError, ValueError) as error:
        raise CorruptRecord(f"columns that cannot be read: {error}") from error
    if reader.position != len(data):
        raise CorruptRecord("the events go on after their end")
    upcast(version, tables)
    return Columns(numbers, tables)


def decode_events(data: bytes) -> list[Event]:
    """The events of a record in order, without payloads.

    Raises:
        CorruptRecord: see ``decode_columns``.
    """
    small = decode_small(data)
    if small is not None:
        return small
    return events_of(decode_columns(data))


def events_of(columns: Columns) -> list[Event]:
    """An object for each event, in order, without payloads."""
    events: dict[int, Any] = {}
    for number, table in columns.tables.items():
        kind = _CURRENT[number]
        events[number] = map(kind.event, *kind.positional(table))
    if len(events) == 1:
        return list(events[columns.kinds[0]])
    return list(map(next, map(events.__getitem__, columns.kinds)))


# --- Payloads -----------------------------------------------------------------------------------


def encode_payload_block(events: Sequence[Event]) -> bytes:
    """The payloads of a record: the produced ones in order of the events, then the carried ones."""
    return _encode_block(_group(events)[1])


def _encode_block(groups: Groups) -> bytes:
    produced: list[ItemsProduced] = groups.get(ItemsProduced, [])
    carried: list[PayloadsCarried] = groups.get(PayloadsCarried, [])
    if not produced and not carried:
        return b""
    if len(produced) == 1 and not carried:
        payloads = produced[0].payloads or ()
        check(len(payloads) == produced[0].count, "an event without the payloads of its items")
        return _pack_block(payloads)
    batches = [event.payloads or () for event in produced]
    counts = [event.count for event in produced]
    for event in carried:
        batches.append(event.payloads or ())
        counts.append(sum(count for _, count in event.runs))
    check(list(map(len, batches)) == counts, "an event without the payloads of its items")
    return _pack_block(list(chain.from_iterable(batches)))


def _pack_block(payloads: Sequence[bytes]) -> bytes:
    if not payloads:
        return b""
    check(len(payloads) <= RECORD_VALUES_MAX, "more payloads than can be read back")
    out = [_COUNT.pack(len(payloads))]
    put_integers(out, list(map(len, payloads)))
    out += payloads
    return b"".join(out)


class PayloadBlock:
    """The payloads of a record, cut out of its block when they are asked for.

    Raises:
        CorruptRecord: on construction, that is not a payload block.
    """

    __slots__ = ("_data", "_ends", "_start", "count")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.count = 0
        self._start = 0
        self._ends: Sequence[int] = ()
        if not data:
            return
        reader = Reader(data)
        count = reader.length()
        if not 0 < count <= RECORD_VALUES_MAX:
            raise CorruptRecord(f"a block of {count} payloads")
        length = take_constant(reader, count)
        if length is not None:
            self._ends = range(length, length * count + 1, length) if length else [0] * count
        else:
            lengths = take_integers(reader, count)
            if min(lengths) < 0:
                raise CorruptRecord("a payload of a negative length")
            self._ends = list(accumulate(lengths))
        self.count = count
        self._start = reader.position
        if self._start + self._ends[-1] != len(data):
            raise CorruptRecord("a payload block that is not as long as it should be")

    def __len__(self) -> int:
        return self.count

    def sizes(self) -> list[int]:
        """How long each payload is."""
        ends = self._ends
        return [end - start for start, end in zip(chain((0,), ends), ends, strict=False)]

    def __getitem__(self, index: int) -> bytes:
        """Payload ``index`` of the record. Raises IndexError."""
        if not 0 <= index < self.count:
            raise IndexError(f"payload {index} of {self.count}")
        start = self._ends[index - 1] if index else 0
        return self._data[self._start + start : self._start + self._ends[index]]

    def range(self, first: int, count: int) -> list[bytes]:
        """``count`` payloads from ``first`` on. Raises IndexError."""
        end = first + count
        if first < 0 or count < 0 or end > self.count:
            raise IndexError(f"payloads {first} to {end} of {self.count}")
        if not count:
            return []
        ends = self._ends[first:end]
        start = self._ends[first - 1] if first else 0
        data = self._data
        base = self._start
        return [data[base + a : base + b] for a, b in zip(chain((start,), ends), ends, strict=False)]


def payload_runs(columns: Columns) -> list[tuple[int, int]]:
    """(first item number, count) of the payloads of a record, in the order of its block."""
    produced = columns.of(ItemsProduced)
    runs: list[tuple[int, int]] = list(
        zip(produced.get("first_item", ()), produced.get("count", ()), strict=True)
    )
    runs += chain.from_iterable(columns.of(PayloadsCarried).get("runs", ()))
    return runs


def payloads_of(record: Record, items: Sequence[int]) -> dict[int, bytes]:
    """The payloads of these items as far as the record has them; it must have been read with payloads.

    An item that was produced and carried in the same record has the same payload twice.

    Raises:
        CorruptRecord: events and payload block don't fit, or cannot be decoded.
    """
    check(record.payload is not None, "the payloads of a record that was read without them")
    block = PayloadBlock(record.payload or b"")
    found: dict[int, bytes] = {}
    wanted = sorted(items)
    offset = 0
    for first, count in payload_runs(decode_columns(record.events)):
        if wanted and first <= wanted[-1] and first + count > wanted[0]:
            for item in wanted:
                if first <= item < first + count:
                    if offset + item - first >= block.count:
                        raise _misfit(record)
                    found[item] = block[offset + item - first]
        offset += count
    if offset != block.count:
        raise _misfit(record)
    return found


def _misfit(record: Record) -> CorruptRecord:
    return CorruptRecord(f"{name_of(record)} has not the payloads that its events speak of")


def attach_payloads(events: Sequence[Event], block: PayloadBlock) -> None:
    """Give decoded events their payloads back.

    Raises:
        CorruptRecord: events and payload block don't fit.
    """
    offset = 0
    try:
        for event in events:
            if type(event) is ItemsProduced:
                event.payloads = block.range(offset, event.count)
                offset += event.count
        for event in events:
            if type(event) is PayloadsCarried:
                count = sum(count for _, count in event.runs)
                event.payloads = block.range(offset, count)
                offset += count
    except IndexError as error:
        raise CorruptRecord(f"events without their payloads: {error}") from error
    if offset != block.count:
        raise CorruptRecord("payloads that no event speaks of")


# --- Records ------------------------------------------------------------------------------------


def checksum(data: bytes) -> bytes:
    """Of a payload block or of inputs.

    The start of a SHA-256: processors have instructions for it, so that it costs half of what
    blake2b does, and payloads are most of what is hashed.
    """
    return hashlib.sha256(data).digest()[:CHECKSUM_BYTES]


_NOTHING: Final = checksum(b"")


def seal(
    partition: PartitionId,
    position: Position,
    previous_hash: bytes,
    nonce: int,
    written_at: Instant,
    events: Sequence[Event],
    inputs: bytes = b"",
) -> Record:
    """Make the record of these events, whose produced and carried items have their payloads."""
    numbers, groups = _group(events)
    payload = _encode_block(groups)
    produced: list[ItemsProduced] = groups.get(ItemsProduced, [])
    item_min = produced[0].first_item if produced else 0
    item_max = produced[-1].first_item + produced[-1].count - 1 if produced else 0
    record = Record(
        partition,
        position,
        previous_hash,
        nonce,
        written_at,
        item_min,
        item_max,
        VERSION,
        _encode(numbers, groups),
        payload,
        checksum(payload) if payload else _NOTHING,
        inputs,
        b"",
    )
    try:
        record.hash = hash_of(record)
    except struct.error as error:
        raise InvariantViolation(f"a header that cannot be written: {error}") from error
    return record


def hash_of(record: Record) -> bytes:
    """What ``record.hash`` has to be."""
    hasher = hashlib.blake2b(
        _HEADER.pack(
            record.version,
            record.partition,
            record.position,
            record.nonce,
            record.written_at,
            record.item_min,
            record.item_max,
            len(record.events),
            record.payload_checksum,
            checksum(record.inputs) if record.inputs else _NOTHING,
            record.previous_hash,
        ),
        digest_size=HASH_BYTES,
    )
    hasher.update(record.events)
    return hasher.digest()


def check_record(record: Record) -> None:
    """Check a record by itself: hash, checksums (the payload's if it was read), versions.

    Raises:
        CorruptRecord: it is not what was written; the text names the record.
    """
    if record.version not in SCHEMAS:
        raise CorruptRecord(f"{name_of(record)} is of version {record.version}, which is not known")
    if len(record.payload_checksum) != CHECKSUM_BYTES or len(record.previous_hash) != HASH_BYTES:
        raise CorruptRecord(f"{name_of(record)} has a checksum or hash of the wrong length")
    try:
        is_right = hash_of(record) == record.hash
    except struct.error:
        is_right = False
    if not is_right:
        raise CorruptRecord(f"{name_of(record)} does not match its hash")
    if record.payload is not None and checksum(record.payload) != record.payload_checksum:
        raise CorruptRecord(f"the payloads of {name_of(record)} do not match their checksum")
    if record.events[:1] != bytes((record.version,)):
        raise CorruptRecord(f"{name_of(record)} is of one version, its events of another")


def check_chain(record: Record, previous: Tail | None) -> None:
    """Check that a record stands right behind ``previous`` (``None``: that it is the first).

    Raises:
        CorruptRecord: it does not.
    """
    position, previous_hash = (0, GENESIS) if previous is None else (previous.position, previous.hash)
    if record.position != position + 1:
        raise CorruptRecord(f"{name_of(record)} stands where record {position + 1} should be")
    if record.previous_hash != previous_hash:
        raise CorruptRecord(f"{name_of(record)} does not follow the record before it")


def tail_of(record: Record) -> Tail:
    return Tail(record.position, record.hash, record.nonce)


def name_of(record: Record) -> str:
    return f"record {record.position} of partition {record.partition}"
