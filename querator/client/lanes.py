"""A producer's lanes, one for each partition of a queue: so that one which is away holds up no other.

A message's lane is the partition it is pinned to, or the one that its key belongs to as far as we know. A
lane has a window of its own, a span of the messages that went into it: what is unanswered never falls out of
what the partition remembers of this producer, and a partition that answers nothing keeps no more than its
share of the producer's whole window.

A partition that refuses new messages (``unavailable``, ``halted``) is *away*: what may go anywhere goes
elsewhere for the next PRODUCE_WINDOW messages; the one after that tries again.
"""

from collections import deque
from typing import TYPE_CHECKING

from querator.core import limits
from querator.core.placement import index_of

if TYPE_CHECKING:
    from querator.client.producing import Batch


class Lane:
    """What waits for one partition, and what it has not answered."""

    __slots__ = ("away_until", "index", "partition", "sent", "unanswered", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.index = 0
        """Within the queue."""
        self.waiting: deque[Batch] = deque()
        """Batches whose key belongs here, in order; the last of a key may still take calls."""
        self.unanswered: dict[int, Batch] = {}
        """By their number within the lane, ascending."""
        self.sent = 0
        self.away_until = 0
        """Until the stream's messages have got to this number."""

    def has_room(self, window: int) -> bool:
        """Another message would leave the unanswered ones within a span of ``window``."""
        if not self.unanswered:
            return True
        return self.sent + 1 - next(iter(self.unanswered)) < window


class Lanes:
    """Those of one queue. ``draw`` spreads producers over its partitions."""

    def __init__(self, draw: int) -> None:
        self._order: list[Lane] = []
        """By the index of the partition within the queue."""
        self._left: list[Lane] = []
        """Of partitions that the queue has no more, while something in them is unanswered."""
        self._queued: dict[int, Lane] = {}
        """By partition: those in which batches wait, the next one first."""
        self._turn = draw
        self.window = limits.PRODUCE_WINDOW
        """Of each lane: its share of that."""
        self.unanswered = 0
        """Messages of all lanes."""

    def all(self) -> list[Lane]:
        """For whoever looks at them."""
        return [*self._order, *self._left]

    def learn(self, partitions: list[int]) -> None:
        """The queue has these partitions now."""
        known = {lane.partition: lane for lane in self.all()}
        self._order = [known.pop(number) if number in known else Lane(number) for number in partitions]
        for index, lane in enumerate(self._order):
            lane.index = index
        self.window = max(1, limits.PRODUCE_WINDOW // max(1, len(self._order)))
        self._left = [lane for lane in known.values() if lane.unanswered or lane.waiting]

    def of_key(self, key: str) -> Lane:
        """Where the items of a key belong, as far as we know: it is the server that routes them."""
        return self._order[index_of(key, len(self._order))]

    @property
    def is_queued(self) -> bool:
        """A batch waits in its lane."""
        return bool(self._queued)

    def enqueue(self, batch: "Batch", lane: Lane, *, at_front: bool = False) -> None:
        """Let it wait in its lane."""
        if at_front:
            lane.waiting.appendleft(batch)
        else:
            lane.waiting.append(batch)
        self._queued.setdefault(lane.partition, lane)

    def next_queued(self) -> Lane | None:
        """A lane with a batch that can go."""
        if not self._queued:
            return None
        window = self.window
        for lane in self._queued.values():
            if lane.has_room(window):
                return lane
        return None

    def dequeue(self, lane: Lane) -> "Batch":
        """The first batch that waits there; other lanes have their turns before this one has another."""
        batch = lane.waiting.popleft()
        del self._queued[lane.partition]
        if lane.waiting:
            self._queued[lane.partition] = lane
        return batch

    def next_anywhere(self, now: int) -> Lane | None:
        """Where a message that may go anywhere goes at message number ``now``: to each in turn that is not
        away and has room; when all are away, to any."""
        window = self.window
        count = len(self._order)
        # Nearly always the next one.
        first = self._order[(self._turn + 1) % count]
        if first.away_until <= now and first.has_room(window):
            return first
        away: Lane | None = None
        is_somebody_there = False
        for step in range(1, count + 1):
            lane = self._order[(self._turn + step) % count]
            is_here = lane.away_until <= now
            is_somebody_there = is_somebody_there or is_here
            if lane.has_room(window):
                if is_here:
                    return lane
                away = away or lane
        return None if is_somebody_there else away

    def sent(self, batch: "Batch", lane: Lane) -> None:
        """It went out in this lane."""
        lane.sent += 1
        batch.lane, batch.number = lane, lane.sent
        lane.unanswered[lane.sent] = batch
        self.unanswered += 1

    def answered(self, batch: "Batch") -> None:
        """Nothing more is expected of it; to say so twice does no harm."""
        if batch.lane.unanswered.get(batch.number) is batch:
            del batch.lane.unanswered[batch.number]
            self.unanswered -= 1

    def leave_out(self, batch: "Batch", now: int) -> None:
        """Its partition takes nothing new, at message number ``now``."""
        batch.lane.away_until = now + limits.PRODUCE_WINDOW

    def pass_turn(self, lane: Lane) -> None:
        """``lane`` has had its turn."""
        self._turn = lane.index

    def is_another_here(self, now: int) -> bool:
        """Some partition is not away."""
        return any(lane.away_until <= now for lane in self._order)

    def drain(self) -> "list[Batch]":
        """Take away all that waits."""
        batches = [batch for lane in self._queued.values() for batch in lane.waiting]
        for lane in self._queued.values():
            lane.waiting.clear()
        self._queued.clear()
        return batches
