"""What a consumer works on: a batch (columns, no object an item) and an item of one."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import trio

from querator.client import columns
from querator.client.answers import Answer
from querator.client.durations import (
    DurationLike,
    InstantLike,
    parse_duration,
    parse_instant,
)
from querator.client.errors import ClientError, ReservationLost
from querator.client.holding import Delivery, Draft, Reservation, release
from querator.client.protocol import Protocol
from querator.client.waiting import wait_answer
from querator.core.ids import Duration, Instant
from querator.protocol.messages import Dead, Reserved, Retry


class AlreadySettled(ClientError):
    """This consumer has settled the item before: a mistake in the program."""


class Entered:
    """The items whose blocks are being run, by token; so that a lost reservation can cancel them."""

    def __init__(self) -> None:
        self._items: dict[str, list[Item]] = {}

    def add(self, item: "Item") -> None:
        self._items.setdefault(item.token, []).append(item)

    def remove(self, item: "Item") -> None:
        items = self._items[item.token]
        items.remove(item)
        if not items:
            del self._items[item.token]

    def cancel(self, token: str) -> None:
        """Their reservation was lost."""
        for item in self._items.get(token, ()):
            item.scope.cancel()


class Batch:
    """Consecutive items of one reservation, by column. Settle all of it, or ranges of indexes."""

    __slots__ = (
        "_entered",
        "_left",
        "_marks",
        "_message",
        "_protocol",
        "count",
        "first",
        "payloads",
        "reservation",
    )

    def __init__(self, protocol: Protocol, delivery: Delivery, entered: Entered | None = None) -> None:
        self._protocol = protocol
        self._entered = entered
        self._message = delivery.message
        self.reservation: Reservation = delivery.reservation
        self.payloads: list[bytes] = delivery.payloads
        self.first = delivery.first
        """Index of our first item within the reservation."""
        self.count = delivery.count
        self._left = delivery.count
        self._marks: bytearray | None = None
        """One byte an item, once single items have been settled."""

    # -- what it is ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    @property
    def queue(self) -> str:
        return self._message.queue

    @property
    def partition(self) -> int:
        return self._message.partition

    @property
    def token(self) -> str:
        return self._message.token

    @property
    def items(self) -> Sequence[int]:
        """The items' numbers within the partition."""
        items = self._message.items
        return items if isinstance(items, list) else range(items, items + self.count)

    @property
    def ids(self) -> list[str]:
        """The items' ids, ``<partition>.<number>``."""
        return [f"{self.partition}.{number}" for number in self.items]

    @property
    def deadline(self) -> Instant:
        """When the reservation ends unless extended or held (server time)."""
        return Instant(self.reservation.deadline)

    @property
    def lost(self) -> str:
        """Why the reservation was lost; "" while it is ours."""
        return self.reservation.lost

    @property
    def left(self) -> int:
        """Items of it that we have not settled."""
        return self._left

    def column(self, name: str) -> Any:
        """A column as it came: ``attempts``, ``key``, ``kind``, ``reference``, ``headers``, ``encoding``."""
        return getattr(self._message, name)

    def item(self, index: int, *, reraise: bool = True) -> "Item":
        """The item at ``index``, as an object; see ``Client.consume`` for ``reraise``."""
        return Item(self, index, reraise=reraise, entered=self._entered)

    # -- settling --------------------------------------------------------------------------------

    async def complete(self, first: int = 0, count: int | None = None) -> None:
        """Complete what is left of it, or ``count`` items from index ``first``; returns after the commit.

        Raises:
            ReservationLost: some of them were not ours any more.
        """
        await self._settle(first, count, None)

    def complete_nowait(self, first: int = 0, count: int | None = None) -> None:
        """The same without waiting. Refusals are counted by the consumer (``refused``)."""
        for start, length in self._claim(first, count):
            self._protocol.complete(self.reservation, self.first + start, length)

    async def retry(
        self,
        first: int = 0,
        count: int | None = None,
        *,
        delay: DurationLike | None = None,
    ) -> None:
        """The attempt failed: try again by the queue's backoff, or after ``delay``."""
        await self._settle(first, count, retry_draft(delay, None))

    async def release(self, first: int = 0, count: int | None = None) -> None:
        """Give it back without blame: the attempt does not count."""
        await self._settle(first, count, release)

    def release_nowait(self, first: int = 0, count: int | None = None) -> None:
        """The same without waiting."""
        self.settle_nowait(first, count, release)

    async def dead(self, reason: str, first: int = 0, count: int | None = None) -> None:
        """Set it aside: it will not be tried again."""
        await self._settle(first, count, dead_draft(reason))

    async def extend(self, duration: DurationLike | None = None) -> Instant:
        """Move the deadline of the whole reservation to ``duration`` from now (default: the queue's)."""
        answer = Answer[int]()
        wanted = Duration(0) if duration is None else parse_duration(duration)
        self._protocol.extend(self.reservation, wanted, answer)
        return Instant(await wait_answer(answer))

    def settle_nowait(self, first: int, count: int | None, draft: Draft) -> None:
        """Settle by the message that ``draft`` makes, without waiting."""
        for start, length in self._claim(first, count):
            self._protocol.settle(self.reservation, self.first + start, length, draft)

    async def _settle(self, first: int, count: int | None, draft: Draft | None) -> None:
        answers = []
        for start, length in self._claim(first, count):
            answer = Answer[None]()
            answers.append(answer)
            if draft is None:
                self._protocol.complete(self.reservation, self.first + start, length, answer)
            else:
                self._protocol.settle(self.reservation, self.first + start, length, draft, answer)
        for answer in answers:
            await wait_answer(answer)

    def _claim(self, first: int, count: int | None) -> list[tuple[int, int]]:
        """The ranges to settle, marked as settled. ``count`` ``None``: those from ``first`` that are left."""
        if self._marks is None and self._left and first == 0 and count in (None, self.count):
            self._left = 0
            return [(0, self.count)]
        end = self.count if count is None else first + count
        if not 0 <= first <= end <= self.count:
            raise IndexError(f"items {first} to {end} of a batch of {self.count}")
        marks = self._marks
        if marks is None:
            # So far all of them are left, or all were settled at once.
            marks = self._marks = bytearray(self.count) if self._left else bytearray(b"\x01" * self.count)
        if count is None:
            ranges = _unmarked(marks, first, end)
        elif any(marks[first:end]):
            raise AlreadySettled(f"items {first} to {end} of this batch were settled before")
        else:
            ranges = [(first, count)] if count else []
        for start, length in ranges:
            marks[start : start + length] = b"\x01" * length
            self._left -= length
        return ranges


def _unmarked(marks: bytearray, first: int, end: int) -> list[tuple[int, int]]:
    ranges = []
    start = marks.find(0, first, end)
    while start >= 0:
        stop = marks.find(1, start, end)
        if stop < 0:
            stop = end
        ranges.append((start, stop - start))
        start = marks.find(0, stop, end)
    return ranges


def retry_draft(delay: DurationLike | None, at: InstantLike | None) -> Draft:
    """A retry by the queue's backoff, after ``delay`` or at ``at``."""
    microseconds = None if delay is None else parse_duration(delay)
    instant = None if at is None else parse_instant(at)

    def draft(number: int, token: str, ranges: list[tuple[int, int]] | None) -> Retry:
        return Retry(id=number, token=token, ranges=ranges, at=instant, delay=microseconds)

    return draft


def dead_draft(reason: str) -> Draft:
    """Setting aside, with the reason."""

    def draft(number: int, token: str, ranges: list[tuple[int, int]] | None) -> Dead:
        return Dead(id=number, token=token, reason=reason, ranges=ranges)

    return draft


class Item:
    """One reserved item. As a context manager: a clean exit completes it, an exception retries it.

    ``scope`` is cancelled when the reservation is lost; leaving the block then raises
    ``ReservationLost``. A deadline that the program gives to ``scope`` counts as a failed attempt. When
    the block is cancelled from outside, or left by what is not an
    ``Exception``, the item is released: that was not its fault.
    """

    __slots__ = ("_batch", "_index", "_is_settled", "_entered", "_reraise", "scope")

    def __init__(
        self,
        batch: Batch,
        index: int,
        *,
        reraise: bool = True,
        entered: Entered | None = None,
    ) -> None:
        self._batch = batch
        self._index = index
        self._reraise = reraise
        self._entered = entered
        self._is_settled = False
        self.scope = trio.CancelScope()

    # -- what it is ------------------------------------------------------------------------------

    @property
    def payload(self) -> bytes:
        return self._batch.payloads[self._index]

    @property
    def text(self) -> str:
        """The payload as UTF-8; raises UnicodeDecodeError."""
        return self.payload.decode()

    @property
    def id(self) -> str:
        """``<partition>.<number>``: for life, whatever becomes of the item."""
        return f"{self._batch.partition}.{self._batch.items[self._index]}"

    @property
    def number(self) -> int:
        return self._batch.items[self._index]

    @property
    def partition(self) -> int:
        return self._batch.partition

    @property
    def queue(self) -> str:
        return self._batch.queue

    @property
    def token(self) -> str:
        """Names the reservation."""
        return self._batch.token

    @property
    def attempt(self) -> int:
        """1 for the first."""
        attempts = self._message.attempts
        return attempts[self._index] if isinstance(attempts, list) else attempts

    @property
    def key(self) -> str | None:
        return columns.at(self._message.key, self._index)

    @property
    def kind(self) -> str | None:
        return columns.at(self._message.kind, self._index)

    @property
    def encoding(self) -> str | None:
        return columns.at(self._message.encoding, self._index)

    @property
    def reference(self) -> str | None:
        return columns.at(self._message.reference, self._index)

    @property
    def headers(self) -> dict[str, str]:
        return columns.at(self._message.headers, self._index) or {}

    @property
    def deadline(self) -> Instant:
        """When the reservation ends unless extended or held (server time)."""
        return self._batch.deadline

    @property
    def lost(self) -> str:
        """Why the reservation was lost; "" while it is ours."""
        return self._batch.lost

    @property
    def is_settled(self) -> bool:
        """One of the verbs was called."""
        return self._is_settled

    @property
    def _message(self) -> Reserved:
        return self._batch._message

    # -- settling --------------------------------------------------------------------------------

    async def complete(self) -> None:
        """Done; returns after the commit. Raises ReservationLost."""
        self._is_settled = True
        await self._batch.complete(self._index, 1)

    def complete_nowait(self) -> None:
        """The same without waiting. A refusal is counted by the consumer (``refused``)."""
        self._is_settled = True
        self._batch.complete_nowait(self._index, 1)

    async def retry(self, *, delay: DurationLike | None = None, at: InstantLike | None = None) -> None:
        """The attempt failed: try again by the queue's backoff, after ``delay``, or ``at`` a time."""
        draft = retry_draft(delay, at)
        self._is_settled = True
        await self._batch._settle(self._index, 1, draft)

    async def release(self) -> None:
        """Give it back without blame: the attempt does not count."""
        self._is_settled = True
        await self._batch.release(self._index, 1)

    async def dead(self, reason: str) -> None:
        """Set it aside: it will not be tried again."""
        self._is_settled = True
        await self._batch.dead(reason, self._index, 1)

    async def extend(self, duration: DurationLike | None = None) -> Instant:
        """Move the deadline to ``duration`` from now (default: the queue's); of its whole reservation."""
        return await self._batch.extend(duration)

    # -- as a context manager --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self.lost:
            await trio.lowlevel.checkpoint()
            raise ReservationLost(self.lost)
        if self._entered is not None:
            self._entered.add(self)
        self.scope.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # A scope that is left without an error answers True as well.
        swallowed = bool(self.scope.__exit__(kind, error, traceback)) and error is not None
        if self._entered is not None:
            self._entered.remove(self)
        if self.lost and (swallowed or error is None) and not self._is_settled:
            raise ReservationLost(self.lost)
        if self._is_settled or self.lost:
            return bool(swallowed)
        if swallowed:
            await self.retry()
            return True
        if error is None:
            await self.complete()
            return False
        if not isinstance(error, Exception):
            self._is_settled = True
            self._batch.release_nowait(self._index, 1)
            return False
        await self.retry()
        return not self._reraise
