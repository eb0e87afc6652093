"""Which partition is whose: the queues of the catalog, as far as analytics wants to know them."""

import attrs
import msgspec

from querator.analytics.manifest import ExportedQueue
from querator.core import events as ev
from querator.core.catalog import Queue, decode
from querator.core.catalog.documents import QueueChanged, QueueCreated, QueueDeleted
from querator.core.catalog.snapshot import decode_catalog
from querator.errors import CorruptRecord
from querator.log.codec import decode_columns
from querator.log.records import Record, Snapshot

_PUBLIC = (
    "reservation_timeout",
    "expire_timeout",
    "attempts_max",
    "dead_queue",
    "max_runtime",
    "ordering",
    "dead_retention",
    "paused",
    "export_payloads",
)


def fold_queues(queues: list[ExportedQueue], record: Record) -> list[ExportedQueue]:
    """The queues after this record of the catalog. Deleted ones stay, with the time of it.

    Raises:
        CorruptRecord: a document cannot be read.
    """
    found = list(queues)
    for document in decode_columns(record.events).of(ev.CatalogChanged).get("document", ()):
        try:
            decoded = decode(document)
        except msgspec.ValidationError as error:
            raise CorruptRecord(
                f"record {record.position} of the catalog has a document that cannot be read: {error}"
            ) from error
        match decoded.change:
            case QueueCreated(queue):
                found.append(_exported(queue))
            case QueueChanged(queue):
                index = _living(found, queue.name)
                if index is not None:
                    found[index] = _exported(queue)
            case QueueDeleted(name):
                index = _living(found, name)
                if index is not None:
                    found[index] = attrs.evolve(found[index], deleted_at=decoded.at)
            case _:
                pass
    return found


@attrs.define
class _CatalogHead:
    """The part of a catalog's snapshot that has the queues."""

    catalog: bytes


def merge_queues(queues: list[ExportedQueue], snapshot: Snapshot) -> list[ExportedQueue]:
    """The queues of the catalog's snapshot, and those that are known from before and gone.

    Raises:
        CorruptRecord: the snapshot cannot be read.
    """
    try:
        head = msgspec.msgpack.decode(snapshot.head, type=_CatalogHead)
        living = [_exported(queue) for queue in decode_catalog(head.catalog).queues.values()]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CorruptRecord(f"the catalog's snapshot at {snapshot.position} cannot be read") from error
    known = frozenset((queue.name, queue.created_at) for queue in living)
    return [*(queue for queue in queues if (queue.name, queue.created_at) not in known), *living]


def _living(queues: list[ExportedQueue], name: str) -> int | None:
    for index, queue in enumerate(queues):
        if queue.name == name and not queue.deleted_at:
            return index
    return None


def _exported(queue: Queue) -> ExportedQueue:
    return ExportedQueue(
        queue.name,
        queue.namespace,
        [partition.id for partition in queue.partitions],
        queue.created_at,
        0,
        {name: msgspec.to_builtins(getattr(queue, name)) for name in _PUBLIC},
    )
