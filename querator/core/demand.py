"""Demand: who wants items of a queue on this node, and in which order they get them.

Volatile: never in the log or a snapshot; it dies with the process. One object a queue; all local
partitions of the queue draw from it. Parked requests are served before subscriptions: they share what is
ready one each in turn, up to their batch. Subscriptions follow in turn, each filled up to its batch
while its window has room, then sent to the end.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from querator.core.deadlines import Deadlines
from querator.core.ids import Duration, Instant
from querator.core.limits import RESERVATION_BYTES_MAX, WAITERS_MAX

Asker = TypeVar("Asker")
"""Who asked; core only carries it."""


class Parked(Generic[Asker]):
    """A reserve request that waits for items, until ``deadline``."""

    __slots__ = (
        "asker",
        "bytes_max",
        "client",
        "deadline",
        "held",
        "items_max",
        "number",
        "request",
        "since",
        "timeout",
    )

    def __init__(
        self,
        asker: Asker,
        request: int,
        items_max: int,
        deadline: Instant,
        timeout: Duration,
        client: str,
        *,
        held: bool,
        bytes_max: int = RESERVATION_BYTES_MAX,
        since: Instant = Instant(0),
    ) -> None:
        self.asker = asker
        self.request = request
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.deadline = deadline
        self.timeout = timeout
        self.client = client
        self.held = held
        self.since = since
        self.number = 0


class Subscription(Generic[Asker]):
    """A window into which reservations are pushed. Items count from the decision to reserve to the
    decision to settle."""

    __slots__ = (
        "asker",
        "batch",
        "bytes_in_flight",
        "demand",
        "held",
        "in_flight",
        "linger",
        "linger_at",
        "number",
        "request",
        "successor",
        "timeout",
        "window",
        "window_bytes",
    )

    def __init__(
        self,
        asker: Asker,
        request: int,
        *,
        window: int,
        window_bytes: int,
        batch: int,
        linger: Duration,
        timeout: Duration,
        held: bool,
    ) -> None:
        self.asker = asker
        self.request = request
        self.window = window
        self.window_bytes = window_bytes
        self.batch = batch
        self.linger = linger
        self.timeout = timeout
        self.held = held
        self.in_flight = 0
        self.bytes_in_flight = 0
        self.linger_at = 0
        self.number = 0
        self.demand: Demand[Asker] | None = None
        self.successor: Subscription[Asker] | None = None

    @property
    def room(self) -> int:
        """Items that may be pushed now."""
        if self.bytes_in_flight >= self.window_bytes:
            return 0
        left = self.window - self.in_flight
        return min(left, self.batch)

    def fill(self, count: int, size: int) -> None:
        """``count`` items of together ``size`` payload bytes were reserved for it."""
        self.in_flight += count
        self.bytes_in_flight += size

    def free(self, count: int) -> None:
        """``count`` of its items were settled, or ended."""
        if self.successor is not None:
            self.successor.free(count)
            return
        if self.in_flight:
            self.bytes_in_flight -= self.bytes_in_flight * count // self.in_flight
        self.in_flight -= count
        if self.demand is not None:
            self.demand.wake(self)

    def inherit(self, broken: "Subscription[Asker]") -> None:
        """Count what a subscription of a lost connection has in flight as this one's."""
        self.in_flight = broken.in_flight
        self.bytes_in_flight = broken.bytes_in_flight
        broken.successor = self


class Demand(Generic[Asker]):
    """All that want items of one queue here."""

    def __init__(self) -> None:
        self.parked: OrderedDict[int, Parked[Asker]] = OrderedDict()
        self.waiting: OrderedDict[int, Subscription[Asker]] = OrderedDict()
        """Subscriptions with room, next one first."""
        self.subscriptions: dict[int, Subscription[Asker]] = {}
        self.clients: dict[str, int] = {}
        self._timers = Deadlines()
        self._next_number = 1
        self.woken = False
        """A window got room since the last match."""

    def __len__(self) -> int:
        return len(self.parked) + len(self.subscriptions)

    @property
    def is_full(self) -> bool:
        return len(self) >= WAITERS_MAX

    @property
    def wants(self) -> bool:
        """Somebody would take an item now."""
        return bool(self.parked or self.waiting)

    def park(self, parked: Parked[Asker]) -> None:
        parked.number = self._number()
        self.parked[parked.number] = parked
        self._timers.add(parked.number, parked.deadline)
        if parked.client:
            self.clients[parked.client] = parked.number

    def unpark(self, parked: Parked[Asker]) -> None:
        """Served, timed out or gone."""
        if self.parked.pop(parked.number, None) is None:
            return
        self._timers.discard(parked.number)
        if parked.client and self.clients.get(parked.client) == parked.number:
            del self.clients[parked.client]

    def subscribe(self, subscription: Subscription[Asker]) -> None:
        subscription.number = self._number()
        subscription.demand = self
        self.subscriptions[subscription.number] = subscription
        self.wake(subscription)

    def unsubscribe(self, subscription: Subscription[Asker]) -> None:
        self.subscriptions.pop(subscription.number, None)
        self.waiting.pop(subscription.number, None)
        self._timers.discard(subscription.number)
        subscription.demand = None

    def wake(self, subscription: Subscription[Asker]) -> None:
        """It may have room (again): it joins the end of those that wait."""
        number = subscription.number
        if number not in self.waiting and number in self.subscriptions and subscription.room > 0:
            self.waiting[number] = subscription
            self.woken = True

    def served(self, subscription: Subscription[Asker]) -> None:
        """It was just given items: to the end of those that wait, or out while its window is full."""
        if subscription.linger_at:
            subscription.linger_at = 0
            self._timers.discard(subscription.number)
        if subscription.room > 0:
            self.waiting.move_to_end(subscription.number)
        else:
            del self.waiting[subscription.number]

    def spread(self, ready: Sequence[int]) -> list[list[Parked[Asker]]]:
        """The parked requests by partition: each goes, in order of arrival, to the fullest one (the last of
        equals), which then counts as emptier by its batch; ``ready`` has the items of each, all above 0."""
        left = list(ready)
        lots: list[list[Parked[Asker]]] = [[] for _ in ready]
        for parked in self.parked.values():
            index = max(range(len(left)), key=lambda number: (left[number], number))
            left[index] -= parked.items_max
            lots[index].append(parked)
        return lots

    def shares(
        self, available: int, among: Sequence[Parked[Asker]] | None = None
    ) -> list[tuple[Parked[Asker], int]]:
        """What each parked request (of these, else of all) gets of ``available`` items: one each in turn,
        up to their batch."""
        everybody = self.parked.values() if among is None else among
        if available <= len(everybody):
            return [(parked, 1) for parked, _ in zip(everybody, range(available), strict=False)]
        parked_all = list(everybody)
        caps = sorted(parked.items_max for parked in parked_all)
        left, waiting, level = available, len(caps), 0
        for cap in caps:
            if (cap - level) * waiting > left:
                break
            left -= (cap - level) * waiting
            level = cap
            waiting -= 1
        extra = 0
        if waiting:
            level += left // waiting
            extra = left % waiting
        given: list[tuple[Parked[Asker], int]] = []
        for parked in parked_all:
            share = min(parked.items_max, level)
            if extra and parked.items_max > level:
                share += 1
                extra -= 1
            given.append((parked, share))
        return given

    def candidates(self, available: int, now: Instant) -> Iterator[tuple[Subscription[Asker], int]]:
        """Subscriptions to serve next, with how many items each; lingering ones are passed over."""
        while available and self.waiting:
            progressed = False
            for subscription, room in self._eligible(available, now):
                share = min(available, room)
                before = subscription.in_flight
                yield subscription, share
                given = subscription.in_flight - before
                if not given:
                    return
                progressed = True
                available -= given
                if not available:
                    return
            if not progressed:
                return

    def _eligible(self, available: int, now: Instant) -> list[tuple[Subscription[Asker], int]]:
        """Those that are served in the next round, and their room."""
        eligible: list[tuple[Subscription[Asker], int]] = []
        wanted = available
        for subscription in self.waiting.values():
            if wanted <= 0:
                break
            room = subscription.room
            if subscription.linger and wanted < room:
                if not subscription.linger_at:
                    subscription.linger_at = now + subscription.linger
                    self._timers.add(subscription.number, subscription.linger_at)
                if now <= subscription.linger_at:
                    continue
            if room > 0:
                eligible.append((subscription, room))
                wanted -= room
        return eligible

    def next_at(self) -> int | None:
        """The next moment at which a parked request or a linger ends."""
        return self._timers.next_at()

    def overdue(self, now: Instant) -> list[Parked[Asker]]:
        """Parked requests whose wait ended; lingering subscriptions become eligible by themselves."""
        overdue: list[Parked[Asker]] = []
        for number in self._timers.due(now - 1, WAITERS_MAX):
            parked = self.parked.get(number)
            if parked is not None:
                overdue.append(parked)
            else:
                self._timers.discard(number)
                self.woken = True
        return overdue

    def _number(self) -> int:
        number = self._next_number
        self._next_number = number + 1
        return number
