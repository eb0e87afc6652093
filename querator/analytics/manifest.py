"""The manifest: which files make up an archive, up to which position of each partition.

It is written last, by one atomic rename: a file that no manifest names was never exported, however it
came about. Readers take the files from the manifest, never from the directory.

    manifest.json
    lock                                   held by the one process that exports or compacts
    events/day=2026-11-24/part-00000007.parquet
    payloads/day=2026-11-24/part-00000007.parquet    only if payloads were asked for
    folds/partition-3-00000007.fold        where the export of a partition goes on
    records/day=2026-11-24/part-00000009.parquet     what the log may drop, without payloads
"""

import hashlib
from pathlib import Path
from typing import Final

import attrs
import msgspec

from querator.errors import QueratorError

VERSION: Final = 1
"""Of the manifest and of the exported rows."""
MANIFEST: Final = "manifest.json"
LOCK: Final = "lock"
EVENTS: Final = "events"
PAYLOADS: Final = "payloads"
RECORDS: Final = "records"
FOLDS: Final = "folds"
TEMPORARY: Final = "tmp"
"""DuckDB's, while something does not fit into memory."""


class ArchiveError(QueratorError):
    """An archive that cannot be read or continued; the text names the file and the remedy."""

    exit_code = 65


@attrs.frozen
class Part:
    """One Parquet file, of one day."""

    file: str
    """Relative to the archive."""
    day: str
    """YYYY-MM-DD, UTC."""
    rows: int
    items: int
    """Item events."""
    bytes: int
    digest: str
    is_compacted: bool = False


@attrs.frozen
class Mark:
    """How far a partition is exported, and what continues it."""

    partition: int
    position: int
    hash: str
    """Of the record at ``position``, hexadecimal."""
    rows: int
    """Rows of the partition in all parts together."""
    fold: str
    """File of the ledger's checkpoint, relative to the archive."""
    digest: str
    last_at: int
    """Time of its newest event, microseconds."""


@attrs.frozen
class Kept:
    """Up to where the records of a partition themselves are kept, from its first on."""

    partition: int
    position: int
    hash: str
    """Of the record at ``position``, hexadecimal."""


@attrs.frozen
class ExportedQueue:
    """A queue of the catalog, as it was exported last."""

    name: str
    namespace: str
    partitions: list[int]
    """In order of their index in the queue."""
    created_at: int
    deleted_at: int = 0
    settings: dict[str, object] = attrs.field(factory=dict)
    store: str = ""


@attrs.frozen
class Manifest:
    version: int = VERSION
    generation: int = 0
    """Grows with each manifest; names the files made for it."""
    written_at: int = 0
    parts: list[Part] = attrs.field(factory=list)
    payload_parts: list[Part] = attrs.field(factory=list)
    marks: list[Mark] = attrs.field(factory=list)
    queues: list[ExportedQueue] = attrs.field(factory=list)
    catalog_position: int = 0
    record_parts: list[Part] = attrs.field(factory=list)
    """Of the day on which they were kept."""
    kept: list[Kept] = attrs.field(factory=list)
    superseded: list[str] = attrs.field(factory=list)
    """Files that the previous manifest named: removed one step later, so that readers can finish."""

    def mark_of(self, partition: int) -> Mark | None:
        return next((mark for mark in self.marks if mark.partition == partition), None)

    def kept_of(self, partition: int) -> Kept | None:
        return next((kept for kept in self.kept if kept.partition == partition), None)

    def files(self) -> list[str]:
        """All files that belong to this archive, but for the manifest and the lock."""
        parts = [*self.parts, *self.payload_parts, *self.record_parts]
        return [*(part.file for part in parts), *(mark.fold for mark in self.marks), *self.superseded]


def digest(data: bytes) -> str:
    """Of a file's content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def decode_manifest(data: bytes, where: Path) -> Manifest:
    """The manifest in ``data``, which was read from ``where``.

    Raises:
        ArchiveError: it is damaged or of a version that is not known here.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArchiveError(f"{where} is not a manifest: {error}") from error
    if manifest.version != VERSION:
        raise ArchiveError(
            f"{where} is of version {manifest.version}, and this Querator knows {VERSION}: "
            "upgrade it, or export anew"
        )
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the archive in ``directory``.

    Raises:
        ArchiveError: there is none, or it cannot be read.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArchiveError(
            f"there is no archive in {directory}: run `querator analytics refresh` first"
        ) from None
    return decode_manifest(data, path)


def check_parts(directory: Path, parts: list[Part], *, digests: bool = True) -> None:
    """Check that the files are there and (``digests``: byte by byte) what was written.

    Raises:
        ArchiveError: one is missing or damaged; it is named.
    """
    for part in parts:
        path = directory / part.file
        try:
            size = path.stat().st_size
            if size == part.bytes and digests and digest(path.read_bytes()) != part.digest:
                raise ArchiveError(f"{path} is damaged: its content is not what was exported; {_REMEDY}")
        except FileNotFoundError:
            raise ArchiveError(f"{path} is missing; {_REMEDY}") from None
        if size != part.bytes:
            raise ArchiveError(f"{path} is damaged: {size} bytes instead of {part.bytes}; {_REMEDY}")


_REMEDY: Final = (
    "restore it from a backup, or export anew into another directory while the log still has that history"
)
