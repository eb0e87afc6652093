"""storage/*: items as they lie in a partition."""

from typing import Final

from querator.api.http import checks
from querator.api.http.door import Door, expect
from querator.api.http.messages import (
    StorageItem,
    StorageItemsDeleteRequest,
    StorageItemsImportRequest,
    StorageItemsImportResponse,
    StorageItemsListRequest,
    StorageItemsListResponse,
)
from querator.api.http.queue_calls import well_formed_id
from querator.api.http.refusals import refuse
from querator.api.http.stamps import ZERO_TIME, Stamp
from querator.core.catalog import Principal
from querator.core.commands import Delete, Import, ImportedItem, Listing, ListItems
from querator.core.events import Attributes
from querator.core.ids import NEVER, Instant, PartitionId, Place
from querator.core.place_ids import decode_pivot, decode_place, encode_place
from querator.core.replies import Done, Imported, ItemPage, ItemView

IMPORTED_DEADLINE: Final = "imported-lease-deadline"
"""Header of an item that was imported with a lease deadline but not leased: the deadline and the attempts
it had, so that lists show what was imported until the item is leased for the first time."""
IMPORTED_EXPIRY: Final = "imported-expire-deadline"
"""Header of an item that was imported with the zero moment of Go's clients for an expiry: it never expires,
and lists show that moment."""


async def list_items(
    door: Door, caller: Principal, request: StorageItemsListRequest
) -> StorageItemsListResponse:
    return await _list(door, caller, request, Listing.ITEMS)


async def list_scheduled(
    door: Door, caller: Principal, request: StorageItemsListRequest
) -> StorageItemsListResponse:
    return await _list(door, caller, request, Listing.SCHEDULED)


async def _list(
    door: Door, caller: Principal, request: StorageItemsListRequest, listing: Listing
) -> StorageItemsListResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    partition = door.partition(queue, request.partition)
    pivot = 0
    if request.pivot:
        found = decode_pivot(request.pivot, partition)
        if found is None:
            well_formed_id(request.pivot)
        pivot = found or 0
    command = ListItems(listing, pivot, checks.list_limit(request.limit))
    page = expect(await door.ask_partition(partition, command), ItemPage, queue, request.partition)
    return StorageItemsListResponse([_show(view, partition) for view in page.items])


def _show(view: ItemView, partition: PartitionId) -> StorageItem:
    attributes = view.attributes
    return StorageItem(
        id=encode_place(partition, view.place),
        source_id=_text(attributes, "source_id"),
        is_leased=view.state == "reserved",
        lease_deadline=Stamp(view.deadline) if view.state == "reserved" else _idle_deadline(view),
        expire_deadline=Stamp(view.expires_at) if view.expires_at else _no_expiry(view),
        created_at=Stamp(view.produced_at),
        enqueue_at=Stamp(view.due_at) if view.due_at else None,
        attempts=view.attempts,
        max_attempts=_number(attributes, "attempts_max"),
        reference=_text(attributes, "reference"),
        encoding=_text(attributes, "encoding"),
        kind=_text(attributes, "kind"),
        payload=view.payload or b"",
    )


def _text(attributes: dict[str, object], name: str) -> str:
    value = attributes.get(name)
    return value if isinstance(value, str) else ""


def _number(attributes: dict[str, object], name: str) -> int:
    value = attributes.get(name)
    return value if isinstance(value, int) else 0


def _no_expiry(view: ItemView) -> Stamp:
    return ZERO_TIME if _header(view, IMPORTED_EXPIRY) else Stamp(0)


def _header(view: ItemView, name: str) -> str:
    headers = view.attributes.get("headers")
    return str(headers.get(name, "")) if isinstance(headers, dict) else ""


def _idle_deadline(view: ItemView) -> Stamp:
    imported = _header(view, IMPORTED_DEADLINE)
    if imported:
        deadline, _, attempts = imported.partition(" ")
        if attempts == str(view.attempts):
            return Stamp(int(deadline))
    return ZERO_TIME


async def import_items(
    door: Door, caller: Principal, request: StorageItemsImportRequest
) -> StorageItemsImportResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.produce", queue.namespace)
    partition = door.partition(queue, request.partition)
    if not request.items:
        refuse("items is invalid; cannot be empty")
    now = door.clock.now()
    command = Import([_to_imported(item) for item in request.items])
    imported = expect(await door.ask_partition(partition, command), Imported, queue, request.partition)
    return StorageItemsImportResponse(
        [
            _echo(item, encode_place(partition, place) if place else "", now)
            for item, place in zip(request.items, imported.places, strict=True)
        ]
    )


def _to_imported(item: StorageItem) -> ImportedItem:
    """Client ids, enqueue_at and created_at are ignored. A deadline of nothing is 1970's."""
    deadline = item.lease_deadline or Stamp(0)
    headers = {}
    if not item.is_leased:
        headers[IMPORTED_DEADLINE] = f"{int(deadline)} {item.attempts}"
    if item.expire_deadline == ZERO_TIME:
        headers[IMPORTED_EXPIRY] = "none"
    return ImportedItem(
        item.payload,
        Attributes(
            encoding=item.encoding or None,
            kind=item.kind or None,
            reference=item.reference or None,
            headers=headers or None,
            attempts_max=item.max_attempts or None,
            source_id=item.source_id or None,
            attempts=item.attempts,
            expires_at=_kept(item.expire_deadline),
        ),
        # A reservation needs a moment; one of the far past ends at once.
        Instant(max(1, int(deadline))) if item.is_leased else NEVER,
    )


def _kept(stamp: Stamp | None) -> int | None:
    """An expiry of nothing is none; one before 1970 has passed long ago, too."""
    return None if not stamp or stamp == ZERO_TIME else max(1, int(stamp))


def _echo(item: StorageItem, new_id: str, now: Instant) -> StorageItem:
    return StorageItem(
        id=new_id,
        source_id=item.source_id,
        is_leased=item.is_leased,
        lease_deadline=item.lease_deadline or Stamp(0),
        expire_deadline=item.expire_deadline or Stamp(0),
        created_at=Stamp(now),
        attempts=item.attempts,
        max_attempts=item.max_attempts,
        reference=item.reference,
        encoding=item.encoding,
        kind=item.kind,
        payload=item.payload,
    )


async def delete_items(door: Door, caller: Principal, request: StorageItemsDeleteRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.clear", queue.namespace)
    partition = door.partition(queue, request.partition)
    if not request.ids:
        refuse("ids is invalid; cannot be empty")
    places: list[Place] = []
    for text in request.ids:
        place = decode_place(text, partition)
        if place is None:
            well_formed_id(text)
        elif place:
            places.append(place)
    if places:
        command = Delete(places, caller.user_id)
        expect(await door.ask_partition(partition, command), Done, queue, request.partition)
