"""A capture: a stretch of a log in one file that can be carried elsewhere, checked and replayed.

    line    ``querator capture 1``
    frames  kind, 1 byte · length of the body u32 · body (msgpack) · checksum, 8 bytes
            H  head: how payloads are kept, the queues and their partitions
            C  checkpoint: a partition's state behind a record, where a replay begins or is compared
            R  record: all of the log's record; its payload block, nothing, or the payloads' sizes (nothing
               as well where its payloads were not kept when the log dropped it)
            E  end: how many records there are

Each checksum is a blake2b over the checksum before it and the frame, so that a frame that was changed,
moved, left out or cut off is found. The catalog is not in a capture unless it is asked for: it has
names and secrets that are nobody else's business; which queue has which partitions is in the head.
"""

import enum
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, BinaryIO, Final, TypeAlias

import attrs
import msgspec

from querator.core.ids import PartitionId, Position
from querator.core.limits import CAPTURE_FRAME_BYTES_MAX
from querator.core.loading import load
from querator.core.snapshot import SnapshotUnreadable
from querator.core.state import PartitionState
from querator.errors import LogError
from querator.log.codec import PayloadBlock, checksum
from querator.log.records import Record

MAGIC: Final = b"querator capture 1\n"
CHECKSUM_BYTES: Final = 8
_FRAME: Final = Struct("<cI")
NO_PAYLOAD: Final = checksum(b"")
"""The checksum of the payloads of a record that has none."""


class CaptureUnreadable(LogError):
    """The file is no capture, or not all of one; the text says where it ends to be good."""

    exit_code = 65


class Payloads(enum.StrEnum):
    """What becomes of the payloads in a capture. The hash chain can be checked in every case."""

    KEPT = "kept"
    DROPPED = "dropped"
    SIZES = "sizes"
    """Only how long each is."""


@attrs.frozen
class CaptureHead:
    payloads: Payloads
    queues: dict[str, list[int]]
    """Name to partitions, deleted queues included."""


@attrs.frozen
class Checkpoint:
    """A partition's state behind the record at ``position``, whose hash is ``hash``."""

    partition: PartitionId
    position: Position
    hash: bytes
    nonce: int
    """Of that record, 0 where it is not known."""
    is_base: bool
    """A replay begins here; else it is compared here."""
    head: bytes = attrs.field(repr=False)
    chunks: tuple[bytes, ...] = attrs.field(repr=False)

    def state(self) -> PartitionState:
        """Raises SnapshotUnreadable."""
        state = load(self.partition, self.head, self.chunks)
        if state.position != self.position:
            raise SnapshotUnreadable(f"a state of position {state.position}, not {self.position}")
        return state


@attrs.define
class CapturedRecord:
    """Not frozen only because one is made for each record of a replay."""

    record: Record
    """With its payload block where it was kept, else with ``None``."""
    sizes: Sequence[int] | None = None
    """Of the payloads, where only those are here; ``None`` where they are not known either."""


@attrs.frozen
class CaptureEnd:
    records: int


Captured: TypeAlias = CaptureHead | Checkpoint | CapturedRecord | CaptureEnd

_Record: TypeAlias = tuple[
    int, int, bytes, int, int, int, int, int, bytes, bytes | None, bytes, bytes, bytes, list[int] | None
]
_Checkpoint: TypeAlias = tuple[int, int, bytes, int, bool, bytes, tuple[bytes, ...]]
_Head: TypeAlias = tuple[Payloads, dict[str, list[int]]]

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_RECORDS: Final = msgspec.msgpack.Decoder(_Record)
_CHECKPOINTS: Final = msgspec.msgpack.Decoder(_Checkpoint)
_HEADS: Final = msgspec.msgpack.Decoder(_Head)
_ENDS: Final = msgspec.msgpack.Decoder(int)


class CaptureWriter:
    """Writes a capture to a file that the caller opened, and closes. ``finish`` or it is not whole."""

    def __init__(self, file: BinaryIO, head: CaptureHead) -> None:
        self._file = file
        self._payloads = head.payloads
        self._checksum = _start()
        self.records = 0
        self.without_payloads = 0
        """Of them, those whose payloads, or sizes, should be here and were not to be had."""
        file.write(MAGIC)
        self._write(b"H", (head.payloads, head.queues))

    def checkpoint(self, found: Checkpoint) -> None:
        self._write(
            b"C",
            (
                found.partition,
                found.position,
                found.hash,
                found.nonce,
                found.is_base,
                found.head,
                found.chunks,
            ),
        )

    def record(self, record: Record) -> None:
        """A record that was read with its payloads, or from where only the rest of it was kept.

        Raises:
            CorruptRecord: sizes are wanted, and its payload block is none.
        """
        sizes = None
        payload = b"" if record.payload_checksum == NO_PAYLOAD else record.payload
        if payload is None:
            self.without_payloads += self._payloads is not Payloads.DROPPED
        elif self._payloads is Payloads.SIZES:
            sizes = PayloadBlock(payload).sizes()
        self._write(
            b"R",
            (
                record.partition,
                record.position,
                record.previous_hash,
                record.nonce,
                record.written_at,
                record.item_min,
                record.item_max,
                record.version,
                record.events,
                payload if self._payloads is Payloads.KEPT else None,
                record.payload_checksum,
                record.inputs,
                record.hash,
                sizes,
            ),
        )
        self.records += 1

    def finish(self) -> None:
        self._write(b"E", self.records)

    def _write(self, kind: bytes, body: object) -> None:
        data = _ENCODE(body)
        if len(data) > CAPTURE_FRAME_BYTES_MAX:
            raise CaptureUnreadable(f"a frame of {len(data)} bytes; at most {CAPTURE_FRAME_BYTES_MAX}")
        start = _FRAME.pack(kind, len(data))
        self._checksum = _next(self._checksum, start, data)
        self._file.write(start)
        self._file.write(data)
        self._file.write(self._checksum)


def read_capture(file: BinaryIO) -> Iterator[Captured]:
    """All that is in a capture, in order: a head first, an end last.

    Raises:
        CaptureUnreadable: this is no capture, or it is damaged from here on.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise CaptureUnreadable("this is no capture of a log: it does not begin like one")
    checksum = _start()
    records = 0
    where = len(MAGIC)
    expected = b"H"
    start = file.read(_FRAME.size)
    while True:
        if len(start) < _FRAME.size:
            raise CaptureUnreadable(f"the capture is cut off at byte {where}, behind {records} records")
        kind, length = _FRAME.unpack(start)
        if length > CAPTURE_FRAME_BYTES_MAX:
            raise CaptureUnreadable(
                f"the capture is damaged at byte {where}: a frame of {length} bytes; "
                f"at most {CAPTURE_FRAME_BYTES_MAX}"
            )
        # One reading a frame: its rest, and how the next one begins.
        end = length + CHECKSUM_BYTES
        block = file.read(end + _FRAME.size)
        if len(block) < end:
            raise CaptureUnreadable(f"the capture is cut off at byte {where}, behind {records} records")
        data = block[:length]
        checksum = _next(checksum, start, data)
        if block[length:end] != checksum:
            raise CaptureUnreadable(f"the capture is damaged at byte {where}, behind {records} records")
        if kind not in expected:
            raise CaptureUnreadable(f"a frame of kind {kind!r} at byte {where}, which is not known there")
        expected = b"CRE"
        start = block[end:]
        try:
            thing = _decode(kind, data)
        except ValueError as error:
            raise CaptureUnreadable(f"a frame at byte {where} cannot be read: {error}") from error
        where += _FRAME.size + end
        if kind == b"R":
            records += 1
        elif isinstance(thing, CaptureEnd):
            if thing.records != records:
                raise CaptureUnreadable(f"{records} records in a capture of {thing.records}")
            if start:
                raise CaptureUnreadable(f"the capture goes on behind its end, byte {where}")
        yield thing
        if kind == b"E":
            return


def _decode(kind: bytes, data: bytes) -> Captured:
    """Raises ValueError."""
    if kind == b"R":
        fields: Any = _RECORDS.decode(data)
        return CapturedRecord(Record(*fields[:-1]), fields[-1])
    if kind == b"C":
        number, behind, its_hash, its_nonce, is_base, head, chunks = _CHECKPOINTS.decode(data)
        return Checkpoint(
            PartitionId(number), Position(behind), its_hash, its_nonce, is_base, head, tuple(chunks)
        )
    if kind == b"H":
        return CaptureHead(*_HEADS.decode(data))
    return CaptureEnd(_ENDS.decode(data))


def _start() -> bytes:
    return blake2b(MAGIC, digest_size=CHECKSUM_BYTES).digest()


def _next(before: bytes, start: bytes, data: bytes) -> bytes:
    return blake2b(b"".join((before, start, data)), digest_size=CHECKSUM_BYTES).digest()
