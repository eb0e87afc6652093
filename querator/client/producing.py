"""Produce: coalescing of calls, sequence numbers, pinning to a partition, asking again.

Theory of operation. Each queue has a *stream*: a producer name and a sequence of its own, so that one
queue's trouble does not hold up another's. Calls gather in open batches, in order; a batch becomes a
message, with the stream's next sequence number, only when a frame is being made, so what gathers while
the socket is busy or the window is full goes out together.

A partition recognises a repeated sequence; another partition would not. So a message without key is
pinned to a partition *before* it is first sent (the partitions are asked for once per queue, by
``stats``), and once it may have been taken it is only ever sent again to the same one. Messages with keys
are routed by the server, always alike. How many may be unanswered is said by partition (lanes.py), so that
one which is away holds up no other.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from querator.client.answers import Answer
from querator.client.errors import ClientError, OutcomeUnknown, Rejected
from querator.client.lanes import Lane, Lanes
from querator.client.requests import Doubtful, unexpected
from querator.core import limits
from querator.core.replies import Code
from querator.protocol.messages import Produce, Produced, ServerMessage

Columns: TypeAlias = Mapping[str, Any]
"""Attribute name (a field of ``Produce``) to one value for all items, or a list with one an item."""

ITEM_OVERHEAD_BYTES: Final = 5
"""What a payload costs in a frame beside itself."""

_SPLITTABLE: Final = frozenset(
    (
        Code.INVALID,
        Code.BATCH_TOO_LARGE,
        Code.PAYLOAD_TOO_LARGE,
        Code.MIXED_PARTITIONS,
        Code.DEDUPE_FULL,
        Code.LIMIT_EXCEEDED,
    )
)
"""Rejections that one of several coalesced calls may have brought on all of them."""

AWAY: Final = frozenset((Code.UNAVAILABLE, Code.HALTED))
"""Rejections by which a partition takes nothing, while others may."""

_CERTAIN: Final = frozenset(
    (
        Code.INVALID,
        Code.BATCH_EMPTY,
        Code.BATCH_TOO_LARGE,
        Code.PAYLOAD_TOO_LARGE,
        Code.DEDUPE_FULL,
    )
)
"""Rejections that say of every sending of a message that nothing was changed: it would have been refused
before as well, or the partition has looked up its sequence first. All others are of their moment."""


@attrs.define
class Receipt:
    """Where the items of one produce call are: committed, in this order.

    Treat it as immutable: it is not frozen only because its construction is on the hot path.
    """

    partition: int
    first: int
    """Number of the first item."""
    count: int
    numbers: tuple[int, ...] | None = None
    """All numbers, when they are not ``first``, +1, +2, ..."""
    duplicates: tuple[int, ...] = ()
    """Indexes of items whose dedupe key named an item that was there: the number is that item's."""

    @property
    def items(self) -> list[str]:
        """The items' ids, ``<partition>.<number>``."""
        numbers = self.numbers or range(self.first, self.first + self.count)
        return [f"{self.partition}.{number}" for number in numbers]

    @property
    def item(self) -> str:
        """The id of the first item."""
        return f"{self.partition}.{self.numbers[0] if self.numbers else self.first}"

    @property
    def is_duplicate(self) -> bool:
        """Some item was there already."""
        return bool(self.duplicates)


class Batch(Doubtful):
    """Calls that share one produce message; once it has a message, a Request."""

    __slots__ = (
        "byte_count",
        "calls",
        "columns",
        "lane",
        "message",
        "number",
        "payloads",
        "route",
        "shape",
        "stream",
    )

    is_repeatable = True
    is_patient = True
    is_stale = False

    def __init__(self, stream: "Stream", route: str | None, shape: tuple[str, ...]) -> None:
        super().__init__()
        self.stream = stream
        self.route = route
        self.shape = shape
        self.payloads: list[bytes] = []
        self.columns: dict[str, list[tuple[int, Any]]] = {name: [] for name in shape}
        self.calls: list[tuple[int, Answer[Receipt]]] = []
        self.byte_count = 0
        self.message: Produce
        self.lane: Lane
        """Once it is sent ..."""
        self.number: int
        """... and its number there."""

    def has_room(self, count: int, byte_count: int, shape: tuple[str, ...]) -> bool:
        return (
            self.shape == shape
            and len(self.payloads) + count <= limits.BATCH_ITEMS_MAX
            and self.byte_count + byte_count <= limits.PRODUCE_MESSAGE_BYTES_MAX
        )

    def add(
        self,
        payloads: Sequence[bytes],
        byte_count: int,
        columns: Columns,
        answer: Answer[Receipt],
    ) -> None:
        self.payloads.extend(payloads)
        self.byte_count += byte_count
        count = len(payloads)
        self.calls.append((count, answer))
        for name in self.shape:
            self.columns[name].append((count, columns[name]))

    @property
    def weight(self) -> int:
        return self.byte_count + ITEM_OVERHEAD_BYTES * len(self.payloads) + 256

    def merged_columns(self) -> dict[str, Any]:
        """Each column as one value where it is the same for all items, else as a list."""
        return {name: _merge(chunks) for name, chunks in self.columns.items()}

    def answered(self, message: ServerMessage) -> None:
        self.stream.forget(self)
        self.lane.away_until = 0
        if not isinstance(message, Produced):
            self.abandoned(unexpected(message))
            return
        if message.numbers is None and message.duplicates is None:
            partition, first = message.partition, message.first
            for count, answer in self.calls:
                answer.resolve(Receipt(partition, first, count))
                first += count
            return
        start = 0
        for count, answer in self.calls:
            answer.resolve(_receipt(message, start, count))
            start += count

    def rejected(self, error: Rejected) -> None:
        self.stream.forget(self)
        if error.code == Code.MIXED_PARTITIONS:
            self.stream.is_outdated = True
        elif error.field == "partition":
            # Another queue has got the name: whatever comes waits until its partitions are known.
            self.stream.partitions = None
        if len(self.calls) > 1 and error.code in _SPLITTABLE:
            self.stream.put_back(self._split())
            return
        self.fail(error)

    def abandoned(self, error: ClientError) -> None:
        self.stream.forget(self)
        self.fail(error)

    def fail(self, error: ClientError) -> None:
        if isinstance(error, Rejected):
            if error.code == Code.SEQUENCE_TOO_OLD:
                # The partition no longer knows whether it took this message.
                error = OutcomeUnknown(error.detail)
            elif error.code not in _CERTAIN:
                error = self.honest(error)
        else:
            error = self.honest(error)
        for _, answer in self.calls:
            answer.fail(error)

    def _split(self) -> "Iterator[Batch]":
        """One batch a call, so that each is judged by itself. The rejection changed nothing."""
        start = 0
        for index, (count, answer) in enumerate(self.calls):
            payloads = self.payloads[start : start + count]
            batch = Batch(self.stream, self.route, self.shape)
            columns = {name: chunks[index][1] for name, chunks in self.columns.items()}
            batch.add(payloads, sum(map(len, payloads)), columns, answer)
            yield batch
            start += count


class Stream:
    """All that this client produces to one queue."""

    def __init__(self, queue: str, producer: str, draw: int) -> None:
        self.queue = queue
        self.producer = producer
        self.partitions: list[int] | None = None
        """``None``: not known yet; calls wait in ``_held``."""
        self.is_asked = False
        self.is_outdated = False
        """The queue may have other partitions by now: ask again, and go on meanwhile."""
        self.lanes = Lanes(draw)
        self._held: list[tuple[Sequence[bytes], int, Columns, Answer[Receipt]]] = []
        self._open: dict[str | None, Batch] = {}
        """The batch of each route that still takes calls; it waits with the others meanwhile."""
        self._anywhere: deque[Batch] = deque()
        """Batches that any partition may take, in order."""
        self._sequence = 0
        self._had_key = False
        """The last message taken had a lane of its own: those without are next, if there are any."""

    @property
    def needs_partitions(self) -> bool:
        return not self.is_asked and (self.is_outdated or (self.partitions is None and bool(self._held)))

    @property
    def has_work(self) -> bool:
        """A message could go out now."""
        lanes = self.lanes
        if self._anywhere and lanes.next_anywhere(self._sequence) is not None:
            return True
        return lanes.is_queued and lanes.next_queued() is not None

    @property
    def is_quiet(self) -> bool:
        """Nothing waits here, to be sent or to be answered."""
        return not (self.lanes.unanswered or self._anywhere or self.lanes.is_queued or self._held)

    def add(
        self,
        payloads: Sequence[bytes],
        byte_count: int,
        columns: Columns,
        answer: Answer[Receipt],
    ) -> None:
        if self.partitions is None:
            self._held.append((payloads, byte_count, columns, answer))
            return
        route = self._route(columns)
        if isinstance(route, list):
            self._add_routed(route, payloads, columns, answer)
            return
        shape = tuple(columns)
        batch = self._open.get(route)
        if batch is None or not batch.has_room(len(payloads), byte_count, shape):
            batch = self._open[route] = Batch(self, route, shape)
            if route is None:
                self._anywhere.append(batch)
            else:
                self.lanes.enqueue(batch, self.lanes.of_key(route))
        batch.add(payloads, byte_count, columns, answer)

    def learn_partitions(self, partitions: list[int]) -> None:
        self.partitions = partitions
        self.lanes.learn(partitions)
        self.is_asked = self.is_outdated = False
        held, self._held = self._held, []
        for payloads, byte_count, columns, answer in held:
            self.add(payloads, byte_count, columns, answer)

    def fail_held(self, error: ClientError) -> None:
        """The partitions could not be learned; the next call asks again."""
        self.is_asked = self.is_outdated = False
        held, self._held = self._held, []
        for _, _, _, answer in held:
            answer.fail(error)

    def take(self, give_id: Callable[[], int]) -> Batch | None:
        """The next batch, with its message made; ``None``: nothing to send, or no lane has room."""
        lane = None if self._had_key and self._anywhere else self.lanes.next_queued()
        if lane is None and self._anywhere:
            lane = self.lanes.next_anywhere(self._sequence)
            if lane is not None:
                self._had_key = False
                self.lanes.pass_turn(lane)
                return self._send(self._anywhere.popleft(), lane, give_id())
            lane = self.lanes.next_queued()
        if lane is None:
            return None
        self._had_key = True
        return self._send(self.lanes.dequeue(lane), lane, give_id())

    def _send(self, batch: Batch, lane: Lane, number: int) -> Batch:
        if self._open.get(batch.route) is batch:
            del self._open[batch.route]
        self._sequence += 1
        if self._sequence % limits.PRODUCE_MESSAGES_PER_LOOK == 0:
            self.is_outdated = True
        batch.message = Produce(
            id=number,
            queue=self.queue,
            payloads=batch.payloads,
            producer=self.producer,
            sequence=self._sequence,
            partition=lane.partition if self._may_pin(batch) else None,
            **batch.merged_columns(),
        )
        self.lanes.sent(batch, lane)
        return batch

    def _may_pin(self, batch: Batch) -> bool:
        """What has a key goes where its key belongs, which is the server's to say."""
        return batch.route is None and not ("key" in batch.shape or "dedupe_key" in batch.shape)

    def forget(self, batch: Batch) -> None:
        """It was answered: its sequence is not asked for again."""
        self.lanes.answered(batch)

    def put_back(self, batches: "Iterable[Batch]") -> None:
        """To the front, in this order, to be sent with new sequence numbers."""
        for batch in reversed(list(batches)):
            if batch.route is None:
                self._anywhere.appendleft(batch)
            else:
                self.lanes.enqueue(batch, self.lanes.of_key(batch.route), at_front=True)

    def avoid(self, batch: Batch) -> bool:
        """The partition it went to takes nothing new for now. True: it goes to another one, because it was
        not taken and may go anywhere."""
        self.lanes.leave_out(batch, self._sequence)
        if batch.is_doubtful or batch.message.partition is None:
            return False
        if not self.lanes.is_another_here(self._sequence):
            return False
        self.forget(batch)
        self.put_back([batch])
        return True

    def drain(self) -> list[Batch]:
        """Take away all batches that have not been sent."""
        batches = [*self._anywhere, *self.lanes.drain()]
        self._anywhere.clear()
        self._open.clear()
        return batches

    def _route(self, columns: Columns) -> str | None | list[str | None]:
        """What decides the partition: a key, or nothing; a list when it differs from item to item."""
        if not columns or len(self.partitions or ()) <= 1:
            return None
        key = columns.get("key")
        route: str | None | list[str | None] = key if key is not None else columns.get("dedupe_key")
        if isinstance(route, list) and all(one == route[0] for one in route):
            return route[0]
        return route

    def _add_routed(
        self,
        route: list[str | None],
        payloads: Sequence[bytes],
        columns: Columns,
        answer: Answer[Receipt],
    ) -> None:
        answer.fail(
            Rejected(
                Code.MIXED_PARTITIONS,
                f"the {len(payloads)} items of one call have {len(dict.fromkeys(route))} different keys, "
                f"which may belong to different partitions of {self.queue!r}: make one call for each key",
                "key" if columns.get("key") is not None else "dedupe_key",
            )
        )


def _merge(chunks: list[tuple[int, Any]]) -> Any:
    first = chunks[0][1]
    if not isinstance(first, list) and all(value == first for _, value in chunks):
        return first
    if len(chunks) == 1:
        return first
    merged: list[Any] = []
    for count, value in chunks:
        merged.extend(value if isinstance(value, list) else [value] * count)
    return merged


def _receipt(message: Produced, start: int, count: int) -> Receipt:
    numbers = None if message.numbers is None else tuple(message.numbers[start : start + count])
    duplicates = tuple(index - start for index in message.duplicates or () if start <= index < start + count)
    first = message.first + start if numbers is None else numbers[0]
    return Receipt(message.partition, first, count, numbers, duplicates)
