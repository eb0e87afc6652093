"""An in-memory broker that keeps the promises of ``BrokerPort``, small enough to read.

One partition a queue, no log: what is decided is delivered by ``commit()``, or at the end of each turn
while ``commits_at_once``. Nothing expires by itself; ``lose`` ends a reservation.
"""

from collections import deque
from collections.abc import Sequence

import attrs

from querator.actors.ports import (
    AcceptedLoss,
    Delivery,
    HeldReservation,
    QueueStats,
    Requester,
    ReservationLost,
    ReserveRequest,
    SubscriptionRequest,
    TraceStep,
    Whereabouts,
)
from querator.core.catalog import Catalog, CatalogCommand, Changed, decide, evolve
from querator.core.catalog.commands import Bootstrap
from querator.core.commands import (
    Clear,
    Command,
    FindItem,
    ListItems,
    Produce,
    Redrive,
    Settle,
    Verb,
)
from querator.core.ids import (
    Duration,
    Instant,
    ItemNumber,
    PartitionId,
    Place,
    Position,
    QueueName,
    ReservationNumber,
    SessionId,
)
from querator.core.replies import (
    Code,
    Done,
    Extended,
    ItemPage,
    ItemView,
    PartitionStats,
    Produced,
    Rejected,
    Reserved,
    Settled,
)
from querator.env import Clock

NONCE = 77
RESERVATION_TIMEOUT = 60_000_000


@attrs.define
class Item:
    number: int
    payload: bytes
    attributes: dict[str, object]
    attempts: int = 0
    reason: str = ""


@attrs.define
class Reservation:
    number: int
    items: list[Item | None]
    session: SessionId
    deadline: int
    subscription: int | None = None
    requester: Requester | None = None

    def remaining(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for index, item in enumerate(self.items):
            if item is None:
                continue
            if ranges and sum(ranges[-1]) == index:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
            else:
                ranges.append((index, 1))
        return ranges


@attrs.define(eq=False)
class Subscription:
    requester: Requester
    wanted: SubscriptionRequest
    in_flight: int = 0


@attrs.define(eq=False)
class FakeQueue:
    name: QueueName
    partition: PartitionId
    ready: deque[Item] = attrs.field(factory=deque)
    dead: list[Item] = attrs.field(factory=list)
    reservations: dict[int, Reservation] = attrs.field(factory=dict)
    settled: dict[int, Verb] = attrs.field(factory=dict)
    subscriptions: dict[tuple[SessionId, int], Subscription] = attrs.field(factory=dict)
    parked: list[tuple[Requester, int, ReserveRequest]] = attrs.field(factory=list)
    item_last: int = 0
    reservation_last: int = 0
    produced: int = 0
    completed: int = 0


class FakeBroker:
    def __init__(self, clock: Clock, *queues: str) -> None:
        self.clock = clock
        self.queues = {
            QueueName(name): FakeQueue(QueueName(name), PartitionId(index))
            for index, name in enumerate(queues or ("mail",), start=1)
        }
        self.commits_at_once = True
        self.turns = 0
        self.in_turn = False
        self.resumed: list[Requester] = []
        self.lost: list[tuple[SessionId, int]] = []
        self.closed: list[Requester] = []
        self.unconfirmed_ends: list[tuple[PartitionId, ReservationNumber]] = []
        self.settles: list[tuple[PartitionId, Settle]] = []
        self.produces: list[Produce] = []
        self.subscribes: list[SubscriptionRequest] = []
        self.reserves: list[ReserveRequest] = []
        self._waiting: list[tuple[Requester, Delivery]] = []
        self.fault: Exception | None = None
        """Raised by the next produce: a bug of the broker's."""

    # -- the port --------------------------------------------------------------------------------

    def begin_turn(self) -> Instant:
        self.turns += 1
        self.in_turn = True
        return self.clock.now()

    def end_turn(self) -> None:
        for queue in self.queues.values():
            self._match(queue)
        self.in_turn = False
        if self.commits_at_once:
            self.commit()

    def produce(
        self,
        requester: Requester,
        request: int,
        queue: QueueName,
        command: Produce,
        partition: PartitionId | None,
    ) -> None:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        found = self._find(requester, request, queue)
        if found is None:
            return
        self.produces.append(command)
        first = found.item_last + 1
        for index, payload in enumerate(command.payloads):
            found.item_last += 1
            found.ready.append(Item(found.item_last, bytes(payload), _attributes(command, index)))
        found.produced += len(command.payloads)
        self._park(requester, request, Produced(found.partition, ItemNumber(first), len(command.payloads)))

    def settle(self, requester: Requester, request: int, partition: PartitionId, command: Settle) -> None:
        self.settles.append((partition, command))
        found = self._queue_of(partition)
        reservation = found.reservations.get(command.reservation) if found is not None else None
        if found is None or reservation is None or command.nonce != NONCE:
            if found is not None and found.settled.get(command.reservation) is command.verb:
                self._park(requester, request, Settled(0, repeated=True))
                return
            self._park(requester, request, Rejected(Code.RESERVATION_LOST, "not yours", "token"))
            return
        if command.verb is Verb.EXTEND:
            reservation.deadline += command.timeout or RESERVATION_TIMEOUT
            self._park(requester, request, Extended(Instant(reservation.deadline), Instant(0)))
            return
        done = 0
        for first, count in command.ranges or [(0, len(reservation.items))]:
            for index in range(first, first + count):
                item = reservation.items[index] if index < len(reservation.items) else None
                if item is None:
                    continue
                reservation.items[index] = None
                done += 1
                self._leave(found, item, command)
        subscription = found.subscriptions.get((reservation.session, reservation.subscription or -1))
        if subscription is not None:
            subscription.in_flight -= done
        if not reservation.remaining():
            del found.reservations[reservation.number]
            found.settled[reservation.number] = command.verb
        self._park(requester, request, Settled(done))

    def reserve(self, requester: Requester, request: int, queue: QueueName, reserve: ReserveRequest) -> None:
        found = self._find(requester, request, queue)
        if found is None:
            return
        self.reserves.append(reserve)
        if found.ready:
            self._hand_out(found, requester, request, reserve.items_max, None)
        elif reserve.deadline:
            found.parked.append((requester, request, reserve))
        else:
            requester.deliver([(request, Rejected(Code.NOTHING_READY, "nothing is ready"))])

    def withdraw(self, requester: Requester, request: int, refusal: Rejected) -> None:
        for queue in self.queues.values():
            kept = [parked for parked in queue.parked if parked[:2] != (requester, request)]
            if len(kept) < len(queue.parked):
                queue.parked = kept
                requester.deliver([(request, refusal)])

    def subscribe(
        self, requester: Requester, subscription: int, queue: QueueName, wanted: SubscriptionRequest
    ) -> None:
        found = self._find(requester, subscription, queue)
        if found is None:
            return
        self.subscribes.append(wanted)
        found.subscriptions[requester.session, subscription] = Subscription(requester, wanted)
        requester.deliver([(subscription, Done())])

    def unsubscribe(self, requester: Requester, request: int, subscription: int) -> None:
        for queue in self.queues.values():
            if queue.subscriptions.pop((requester.session, subscription), None) is not None:
                requester.deliver([(request, Done())])
                return
        requester.deliver([(request, Rejected(Code.UNKNOWN_SUBSCRIPTION, "none", "subscription"))])

    def command(self, requester: Requester, request: int, partition: PartitionId, command: Command) -> None:
        queue = self._queue_of(partition)
        if queue is None:
            self._park(requester, request, Rejected(Code.UNAVAILABLE, "no such partition here"))
        elif isinstance(command, Clear):
            count = len(queue.ready) if command.ready else 0
            queue.ready.clear()
            self._park(requester, request, Done(count))
        elif isinstance(command, ListItems):
            views = [_view(item, "dead") for item in queue.dead if item.number >= command.pivot]
            self._park(requester, request, ItemPage(views[: command.limit]))
        elif isinstance(command, Redrive):
            chosen = [
                item
                for item in queue.dead
                if (command.items is None or item.number in command.items)
                and (command.reason is None or item.reason == command.reason)
            ][: command.items_max]
            queue.dead = [item for item in queue.dead if item not in chosen]
            queue.ready.extend(chosen)
            self._park(requester, request, Done(len(chosen)))
        elif isinstance(command, FindItem):
            views = [_view(item, "ready") for item in queue.ready if item.number == command.item]
            self._park(requester, request, ItemPage(views))
        else:
            self._park(requester, request, Rejected(Code.INVALID, "not for this fake"))

    def stats(self, requester: Requester, request: int, queue: QueueName) -> None:
        found = self._find(requester, request, queue)
        if found is None:
            return
        stats = PartitionStats(
            found.partition, 1, len(found.ready), 0, 0, len(found.dead), found.produced, found.completed,
            0, len(found.reservations), 0, 0, 0, Duration(0), Duration(0), False, 1,
        )  # fmt: skip
        self._park(
            requester, request, QueueStats(queue, [stats], len(found.subscriptions), len(found.parked))
        )

    def watch_item(
        self, requester: Requester, request: int, partition: PartitionId, item: ItemNumber
    ) -> None:
        self._park(requester, request, Done(0))

    def unwatch_item(self, requester: Requester, request: int, partition: PartitionId) -> None:
        pass

    def partitions(self, queue: QueueName) -> list[PartitionId] | None:
        found = self.queues.get(queue)
        return None if found is None else [found.partition]

    def session_opened(self, requester: Requester) -> None:
        pass

    def session_resumed(self, requester: Requester) -> list[HeldReservation]:
        self.resumed.append(requester)
        held = []
        for queue in self.queues.values():
            for reservation in queue.reservations.values():
                if reservation.session == requester.session:
                    reservation.requester = requester
                    held.append(
                        HeldReservation(
                            queue.name,
                            queue.partition,
                            ReservationNumber(reservation.number),
                            NONCE,
                            reservation.remaining(),
                            Instant(reservation.deadline),
                        )
                    )
        return held

    def session_lost(self, session: SessionId, generation: int) -> None:
        self.lost.append((session, generation))
        for queue in self.queues.values():
            for key in [key for key in queue.subscriptions if key[0] == session]:
                del queue.subscriptions[key]

    def holds(
        self, session: SessionId, partition: PartitionId, reservation: ReservationNumber, nonce: int
    ) -> bool:
        return False

    def unconfirmed(self, partition: PartitionId, reservation: ReservationNumber, nonce: int) -> None:
        assert nonce == NONCE
        self.unconfirmed_ends.append((partition, reservation))

    def session_closed(self, requester: Requester) -> None:
        self.closed.append(requester)
        for queue in self.queues.values():
            for key in [key for key in queue.subscriptions if key[0] == requester.session]:
                del queue.subscriptions[key]
            for number, reservation in list(queue.reservations.items()):
                if reservation.session == requester.session:
                    queue.ready.extend(item for item in reservation.items if item is not None)
                    del queue.reservations[number]

    # -- what tests do with it -------------------------------------------------------------------

    def commit(self) -> None:
        """Deliver what was decided, one call a requester, as the log's writer does."""
        waiting, self._waiting = self._waiting, []
        grouped: dict[int, tuple[Requester, list[Delivery]]] = {}
        for requester, delivery in waiting:
            grouped.setdefault(id(requester), (requester, []))[1].append(delivery)
        for requester, deliveries in grouped.values():
            requester.deliver(deliveries)

    def add(self, queue: str, *payloads: bytes, attempts: int = 0) -> None:
        """Ready items from elsewhere, matched in a turn."""
        found = self.queues[QueueName(queue)]
        self.begin_turn()
        for payload in payloads:
            found.item_last += 1
            found.ready.append(Item(found.item_last, payload, {}, attempts))
        self.end_turn()

    def lose(self, queue: str, reservation: int, why: str) -> None:
        """The reservation ends by itself."""
        found = self.queues[QueueName(queue)]
        lost = found.reservations.pop(reservation)
        found.ready.extend(item for item in lost.items if item is not None)
        if lost.requester is not None:
            lost.requester.deliver(
                [(0, ReservationLost(found.partition, ReservationNumber(reservation), NONCE, why))]
            )

    # -- inside ----------------------------------------------------------------------------------

    def _find(self, requester: Requester, request: int, queue: QueueName) -> FakeQueue | None:
        found = self.queues.get(queue)
        if found is None:
            refusal = Rejected(Code.UNKNOWN_QUEUE, f"there is no queue named '{queue}'", "queue")
            requester.deliver([(request, refusal)])
        return found

    def _queue_of(self, partition: PartitionId) -> FakeQueue | None:
        return next((queue for queue in self.queues.values() if queue.partition == partition), None)

    def _park(self, requester: Requester, request: int, reply: object) -> None:
        self._waiting.append((requester, (request, reply)))  # type: ignore[arg-type]  # any reply

    def _match(self, queue: FakeQueue) -> None:
        while queue.ready and queue.parked:
            requester, request, wanted = queue.parked.pop(0)
            if requester.is_open:
                self._hand_out(queue, requester, request, wanted.items_max, None)
        for (_, number), subscription in queue.subscriptions.items():
            wanted_now = subscription.wanted
            while queue.ready and subscription.in_flight < wanted_now.window:
                most = min(wanted_now.batch, wanted_now.window - subscription.in_flight)
                subscription.in_flight += self._hand_out(queue, subscription.requester, number, most, number)

    def _hand_out(
        self, queue: FakeQueue, requester: Requester, request: int, most: int, subscription: int | None
    ) -> int:
        items = [queue.ready.popleft() for _ in range(min(most, len(queue.ready)))]
        for item in items:
            item.attempts += 1
        queue.reservation_last += 1
        deadline = self.clock.now() + RESERVATION_TIMEOUT
        queue.reservations[queue.reservation_last] = Reservation(
            queue.reservation_last, list(items), requester.session, deadline, subscription, requester
        )
        runs: list[tuple[Place, ItemNumber, int]] = []
        for item in items:
            if runs and runs[-1][1] + runs[-1][2] == item.number:
                runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
            else:
                runs.append((Place(item.number), ItemNumber(item.number), 1))
        reply = Reserved(
            queue.partition,
            ReservationNumber(queue.reservation_last),
            NONCE,
            len(items),
            runs,
            [item.payload for item in items],
            [item.attempts for item in items],
            Instant(deadline),
            Instant(0),
            _columns(items, runs),
        )
        self._park(requester, request, reply)
        return len(items)

    def _leave(self, queue: FakeQueue, item: Item, command: Settle) -> None:
        if command.verb is Verb.COMPLETE:
            queue.completed += 1
        elif command.verb is Verb.DEAD:
            item.reason = command.reason
            queue.dead.append(item)
        else:
            item.attempts -= command.verb is Verb.RELEASE
            queue.ready.append(item)


def _attributes(command: Produce, index: int) -> dict[str, object]:
    if command.attributes is None:
        return {}
    columns = {
        name: getattr(command.attributes, name)
        for name in ("encoding", "kind", "reference", "headers", "key")
    }
    return {
        name: column[index] if isinstance(column, list) else column
        for name, column in columns.items()
        if column is not None
    }


def _columns(
    items: Sequence[Item], runs: list[tuple[Place, ItemNumber, int]]
) -> list[dict[str, list[object]]] | None:
    if not any(item.attributes for item in items):
        return None
    columns = []
    start = 0
    for _, _, count in runs:
        of_run = items[start : start + count]
        names = dict.fromkeys(name for item in of_run for name in item.attributes)
        columns.append({name: [item.attributes.get(name) for item in of_run] for name in names})
        start += count
    return columns


def _view(item: Item, state: str) -> ItemView:
    return ItemView(
        ItemNumber(item.number), Place(item.number), state, item.attempts, Instant(1), Instant(0), Instant(0),
        Instant(0), item.payload, dict(item.attributes), item.reason,
    )  # fmt: skip


class FakeCatalog:
    """The real catalog of core/, committed at once."""

    def __init__(self, clock: Clock) -> None:
        self.catalog = Catalog()
        self.authors: list[str] = []
        self._clock = clock
        self.failure: Exception | None = None
        self._decide(Bootstrap(auth=False), "")

    async def change(self, command: CatalogCommand, author: str = "") -> Changed | Rejected:
        if self.failure is not None:
            raise self.failure
        self.authors.append(author)
        return self._decide(command, author)

    def _decide(self, command: CatalogCommand, author: str) -> Changed | Rejected:
        outcome = decide(self.catalog, command, now=self._clock.now(), entropy=bytes(64), author=author)
        if isinstance(outcome, Rejected):
            return outcome
        for document in outcome.documents:
            evolve(self.catalog, document)
        return outcome.reply


class FakeHistory:
    async def trace(
        self, partition: PartitionId, item: ItemNumber, *, steps_max: int
    ) -> Sequence[TraceStep] | Rejected:
        if item == 1:
            return [TraceStep(Position(1), Instant(5), "produced", "produced")][:steps_max]
        return Rejected(Code.UNKNOWN_ITEM, f"partition {partition} never had an item {item}", "params.item")


class FakePartitions:
    """No loss is suspected but in partition 1."""

    def __init__(self) -> None:
        self.accepted: list[tuple[PartitionId, str]] = []

    def whereabouts(self, partition: PartitionId) -> Whereabouts:
        return Whereabouts("memory", "open" if partition == 1 else "unavailable", "")

    async def accept_loss(self, partition: PartitionId, author: str) -> AcceptedLoss | Rejected:
        if partition != 1 or self.accepted:
            return Rejected(Code.INVALID, f"no loss is suspected in partition {partition}", "partition")
        self.accepted.append((partition, author))
        return AcceptedLoss(Position(3), Position(5))
