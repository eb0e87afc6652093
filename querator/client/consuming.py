"""A subscription as an async iterator, of items or of batches."""

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import msgspec
import trio

from querator.client import columns
from querator.client.answers import Answer
from querator.client.batches import Batch, Entered, Item
from querator.client.errors import ClientError
from querator.client.holding import Delivery, Refused, Reservation
from querator.client.protocol import Protocol
from querator.client.waiting import Bell, wait_answer
from querator.core import limits
from querator.env import seconds
from querator.protocol.messages import Subscribe, Subscribed

CHECKPOINT_BATCHES: Final = 32
"""Batches handed out in a row before other tasks get their turn: a checkpoint costs more than a batch."""


class Consumer:
    """Reservations pushed to us, while inside ``async with``. Leaving gives back what is not settled.

    Iterate it for items, or ``batches()`` for columns; not both at once, and from one task.
    """

    def __init__(self, protocol: Protocol, wish: Subscribe, *, reraise: bool) -> None:
        self._protocol = protocol
        self._wish = wish
        self._reraise = reraise
        self._buffer: deque[Batch] = deque()
        self._bell = Bell()
        self._number = 0
        self._error: ClientError | None = None
        self._is_open = False
        self._current: Batch | None = None
        self._index = 0
        self._handed = 0
        self._entered = Entered()
        self.refused_items = 0
        """Items whose settlement was refused while nobody waited for it."""
        self.lost_reservations = 0

    # -- the sink (called by the protocol) -------------------------------------------------------

    def pushed(self, delivery: Delivery) -> bool:
        if not self._is_open:
            return False
        self._buffer.append(Batch(self._protocol, delivery, self._entered))
        self._bell.ring()
        return True

    def lost(self, reservation: Reservation) -> None:
        self.lost_reservations += 1
        self._entered.cancel(reservation.token)

    def refused(self, reservation: Reservation, refused: Refused) -> None:
        del reservation
        self.refused_items += len(refused)

    def failed(self, error: ClientError) -> None:
        self._error = error
        self._bell.ring()

    # -- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Raises Rejected: no such queue, a window out of bounds, ..."""
        self._is_open = True
        answer = Answer[Subscribed]()
        self._number = self._protocol.subscribe(self._wish, self, answer)
        try:
            await wait_answer(answer)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe, release what is left, and wait for the answers to what was settled without waiting."""
        stopped = self._leave()
        if error is None or isinstance(error, Exception):
            await self._wait_settled(stopped)
            return
        # Cancelled: what has been drafted may still go out, for a moment.
        with trio.move_on_after(seconds(limits.GOODBYE_TIMEOUT), shield=True):
            await self._wait_settled(stopped)

    def _leave(self) -> Answer[None]:
        self._is_open = False
        stopped = Answer[None]()
        self._protocol.unsubscribe(self._number, stopped)
        self._protocol.release_rest(self)
        self._buffer.clear()
        self._current = None
        return stopped

    async def _wait_settled(self, stopped: Answer[None]) -> None:
        if self._error is None:
            await wait_answer(stopped)
            await self.flush()

    async def flush(self) -> None:
        """Wait until everything that was settled without waiting is answered (see ``refused_items``)."""
        answers = []
        for settlement in self._protocol.unanswered_settlements():
            if settlement.reservation.sink is self:
                answer = Answer[None]()
                settlement.add_watcher(answer)
                answers.append(answer)
        for answer in answers:
            try:
                await wait_answer(answer)
            except ClientError:
                # Counted by ``refused``; the waiting itself is over.
                continue

    # -- iterating -------------------------------------------------------------------------------

    def __aiter__(self) -> "Consumer":
        return self

    async def __anext__(self) -> Item:
        batch = self._current
        while batch is None or self._index >= batch.count or batch.lost:
            batch = self._current = await self._take()
            self._index = 0
        item = batch.item(self._index, reraise=self._reraise)
        self._index += 1
        return item

    def batches(self) -> AsyncIterator[Batch]:
        """The same reservations as columns, with no object an item."""
        return _Batches(self)

    def take_nowait(self) -> Batch | None:
        """The next batch if one has arrived."""
        while self._buffer:
            batch = self._buffer.popleft()
            if not batch.lost:
                return batch
        return None

    async def _take(self) -> Batch:
        self._handed += 1
        if self._handed % CHECKPOINT_BATCHES == 0:
            await trio.lowlevel.checkpoint()
        while True:
            batch = self.take_nowait()
            if batch is not None:
                return batch
            if self._error is not None:
                raise self._error
            if not self._is_open:
                raise trio.ClosedResourceError("the consumer was left")
            await self._bell.wait_rung()


class _Batches:
    """The iterator of ``Consumer.batches``: a class, so that breaking out of the loop leaves nothing open."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> "_Batches":
        return self

    async def __anext__(self) -> Batch:
        return await self._consumer._take()


class Collector:
    """The sink of a single ``reserve``: gathers its messages into one batch."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._deliveries: list[Delivery] = []
        self._entered = Entered()
        self.is_abandoned = False

    def pushed(self, delivery: Delivery) -> bool:
        if self.is_abandoned:
            return False
        self._deliveries.append(delivery)
        return True

    def lost(self, reservation: Reservation) -> None:
        """The batch shows it (``lost``), and settling it raises."""
        self._entered.cancel(reservation.token)

    def refused(self, reservation: Reservation, refused: Refused) -> None:
        """The batch's holder chose not to wait."""

    def failed(self, error: ClientError) -> None:
        """The request's answer tells."""

    def abandon(self) -> None:
        """Nobody waits any more: give back what has come and what will."""
        self.is_abandoned = True
        self._protocol.release_rest(self)

    def batch(self) -> Batch | None:
        """All of it as one batch; ``None`` when nothing came."""
        if not self._deliveries:
            return None
        return Batch(self._protocol, joined(self._deliveries), self._entered)


def joined(deliveries: list[Delivery]) -> Delivery:
    """One delivery of consecutive ones of the same reservation."""
    first = deliveries[0]
    if len(deliveries) == 1:
        return first
    whole = first.message
    counts = [delivery.count for delivery in deliveries]
    messages = [delivery.message for delivery in deliveries]
    payloads = [payload for delivery in deliveries for payload in delivery.payloads]
    items: list[int] = []
    for message, count in zip(messages, counts, strict=True):
        items.extend(
            message.items if isinstance(message.items, list) else range(message.items, message.items + count)
        )
    whole = msgspec.structs.replace(
        whole,
        items=items,
        **{
            name: columns.joined([(n, getattr(m, name)) for n, m in zip(counts, messages, strict=True)])
            for name in ("attempts", "encoding", "kind", "reference", "headers", "key")
        },
    )
    return Delivery(first.reservation, whole, payloads, first.first, sum(counts))
