"""Each item's history, read from the events alone, by a model that shares no code with the core's fold.

It knows of an item only which reservation holds it, whether it is done, and how often it was tried. It
follows the line as a plain list of item numbers.
"""

import attrs

from querator.core import events as ev
from querator.core.ids import PartitionId
from querator.env.virtual import virtual_env
from querator.log.codec import decode_events, payloads_of
from querator.log.memory import MemoryDisk, MemoryLog


@attrs.define
class Item:
    number: int
    payload: bytes
    state: str = "ready"
    reservation: int = 0
    completed: int = 0


@attrs.define
class History:
    """What one partition's log says, item by item."""

    partition: int
    items: dict[int, Item] = attrs.Factory(dict)
    holders: dict[int, list[int]] = attrs.Factory(dict)
    """Reservation number to the items it was given, in order."""
    faults: list[str] = attrs.Factory(list)
    claims: list[tuple[int, int]] = attrs.Factory(list)


async def read_histories(disk: MemoryDisk) -> list[History]:
    """The histories of all partitions but the catalog."""
    store = MemoryLog(virtual_env(0), disk)
    histories: list[History] = []
    for partition in await store.partitions():
        if partition:
            histories.append(await _read(store, partition))
    return histories


async def _read(store: MemoryLog, partition: PartitionId) -> History:
    history = History(partition)
    position = 1
    while True:
        page = await store.read(partition, position, records_max=500, bytes_max=1 << 30, payloads=True)  # type: ignore[arg-type]
        if not page:
            return history
        owner = 0
        for record in page:
            events = decode_events(record.events)
            claims = [event for event in events if isinstance(event, ev.Claimed)]
            if claims:
                owner = claims[0].nonce
                if claims[0].read_tail != record.position - 1:
                    history.faults.append(f"claim at {record.position} had read {claims[0].read_tail}")
            elif owner and record.nonce != owner:
                history.faults.append(f"record {record.position} is not its owner's")
            owner = record.nonce
            numbers = [
                number
                for event in events
                if isinstance(event, ev.ItemsProduced)
                for number in range(event.first_item, event.first_item + event.count)
            ]
            payloads = payloads_of(record, numbers) if numbers else {}
            for number in numbers:
                if number in history.items:
                    history.faults.append(f"item {number} was produced twice")
                history.items[number] = Item(number, bytes(payloads[number]))
            position = record.position + 1
