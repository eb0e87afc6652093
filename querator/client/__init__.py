"""A trio client for Querator's sessions (``/v1/stream``).

::

    async with querator.connect("localhost:2319") as q:
        await q.produce("mail", b"to: a@example.org", delay="5m")

        async with q.consume("mail", window=20) as items:
            async for item in items:
                async with item:  # a clean exit completes it, an exception retries it
                    await send(item.payload)

In layers, each without knowledge of the next:

* ``answers``, ``requests``, ``producing``, ``holding``, ``asking``, ``protocol``: the sans-I/O half. No
  clock, no socket, no task; another event loop's shell can use it as it is.
* ``link``, ``connection``: the trio shell that keeps one connection going.
* ``batches``, ``consuming``, ``client``: what applications use.

It promises: a produce call takes effect once, or raises; a settlement answered without error is
committed; a reservation that was lost sends no settlement any more; after a broken connection the
session is resumed with its reservations, as long as the server's grace.
"""

from querator.client.address import Address, parse_address
from querator.client.batches import AlreadySettled, Batch, Item
from querator.client.client import Client, HistoryAnswer, Pending, Redriven, connect
from querator.client.consuming import Consumer
from querator.client.errors import (
    ClientClosed,
    ClientError,
    Disconnected,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
)
from querator.client.producing import Receipt

__all__ = [
    "Address",
    "AlreadySettled",
    "Batch",
    "Client",
    "ClientClosed",
    "ClientError",
    "Consumer",
    "Disconnected",
    "HistoryAnswer",
    "Item",
    "OutcomeUnknown",
    "Pending",
    "Receipt",
    "Redriven",
    "Rejected",
    "ReservationLost",
    "connect",
    "parse_address",
]
