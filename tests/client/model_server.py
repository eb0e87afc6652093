"""A small server to test clients against: the rules of docs/PROTOCOL.md, one process, no clock, no log.

``ModelServer`` is what survives a restart; a ``ModelConnection`` is one connection. Answers wait in the
connection's ``outbox`` until somebody takes them, so that a test decides what reaches the client.
"""

from collections import deque
from typing import Any

import attrs
import msgspec

from querator.core import limits
from querator.core.placement import index_of
from querator.core.replies import Code
from querator.protocol import messages as wire

PING_INTERVAL = 5_000_000


@attrs.define
class ModelReservation:
    token: str
    queue: str
    partition: int
    items: list[int]
    left: dict[int, None]
    """Indexes not settled."""
    session: str
    subscription: int | None
    settlements: list[tuple[str, tuple[int, ...]]] = attrs.Factory(list)
    lost: bool = False


@attrs.define
class ModelPartition:
    number: int
    payloads: list[bytes] = attrs.Factory(list)
    """By item number - 1."""
    columns: list[dict[str, Any]] = attrs.Factory(list)
    attempts: dict[int, int] = attrs.Factory(dict)
    line: deque[int] = attrs.Factory(deque)
    completed: list[int] = attrs.Factory(list)
    dead: dict[int, str] = attrs.Factory(dict)
    producers: dict[str, dict[int, wire.Produced]] = attrs.Factory(dict)
    dedupe: dict[str, int] = attrs.Factory(dict)


@attrs.define
class ModelSession:
    name: str
    generation: int = 1
    pushes: dict[str, tuple[int, wire.Reserved]] = attrs.Factory(dict)
    """Not confirmed: token to push number and message."""
    push_last: int = 0


class ModelServer:
    """Queues, partitions, sessions."""

    def __init__(self, queues: dict[str, int] | None = None) -> None:
        self.queues: dict[str, list[int]] = {}
        self.partitions: dict[int, ModelPartition] = {}
        self.reservations: dict[str, ModelReservation] = {}
        self.sessions: dict[str, ModelSession] = {}
        self.refused_settles: dict[str, Code] = {}
        """Token to the last refusal of a settlement of it."""
        self.refusals: deque[Code] = deque()
        """The next produces and settlements are answered with these, changing nothing."""
        self.halted: list[int] = []
        """Partitions that settle nothing."""
        self.away: dict[int, Code] = {}
        """Partitions that take no produces, and what they say."""
        self.silent: dict[int, list[tuple[ModelConnection, wire.Produced]]] = {}
        """Partitions that take produces and say nothing for now: the answers they owe."""
        self.secret = ""
        self.connections = 0
        self.calls: list[tuple[str, Any]] = []
        self.results: dict[str, object] = {}
        """What calls answer, by method."""
        self.part_items_max = limits.BATCH_ITEMS_MAX
        """A reservation goes out in messages of at most so many items."""
        self.late_settles: list[str] = []
        """Tokens of settlements that came after this server had said that they were lost."""
        self._told_lost: dict[str, None] = {}
        for name, count in (queues or {"q": 1}).items():
            self.add_queue(name, count)

    def add_queue(self, name: str, partitions: int = 1) -> None:
        first = len(self.partitions) + 1
        self.queues[name] = list(range(first, first + partitions))
        for number in self.queues[name]:
            self.partitions[number] = ModelPartition(number)

    def grow(self, name: str) -> None:
        """One more partition."""
        number = len(self.partitions) + 1
        self.partitions[number] = ModelPartition(number)
        self.queues[name].append(number)

    def connect(self) -> "ModelConnection":
        self.connections += 1
        return ModelConnection(self)

    def restart(self) -> None:
        """As by SIGKILL: what is not in the log is gone."""
        self.sessions = {}

    def speak(self, partition: int) -> None:
        """It gives the answers that it owes."""
        for connection, answer in self.silent.pop(partition, ()):
            connection.outbox.append(answer)

    def end_reservation(self, token: str) -> None:
        """The deadline, say: what is left goes back."""
        reservation = self.reservations[token]
        partition = self.partitions[reservation.partition]
        for index in reservation.left:
            partition.line.append(reservation.items[index])
        reservation.left = {}
        reservation.lost = True

    def held(self, session: str) -> list[ModelReservation]:
        return [one for one in self.reservations.values() if one.session == session and one.left]

    def payloads(self, queue: str) -> list[bytes]:
        """All ever produced."""
        return [payload for number in self.queues[queue] for payload in self.partitions[number].payloads]

    def completed(self, queue: str) -> list[bytes]:
        return [
            partition.payloads[item - 1]
            for partition in map(self.partitions.__getitem__, self.queues[queue])
            for item in partition.completed
        ]


class ModelConnection:
    """One connection: messages in, ``outbox`` out."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.outbox: list[wire.ServerMessage] = []
        self.session: ModelSession | None = None
        self.received: list[wire.ClientMessage] = []
        self.subscriptions: dict[int, wire.Subscribe] = {}
        self.parked: list[wire.Reserve] = []
        self.watches: dict[int, wire.Watch] = {}
        self.refuses_to_reserve: Code | None = None
        """As a node that stops, or stands by, does."""
        self.farewell: int | None = None
        """The close code this connection wants to end with."""

    def take(self) -> list[wire.ServerMessage]:
        out, self.outbox = self.outbox, []
        return out

    def receive(self, messages: list[wire.ClientMessage]) -> None:
        for message in messages:
            self.received.append(message)
            if self.session is None:
                self._hello(message)
            else:
                getattr(self, f"_{type(message).__name__.lower()}")(message)
        self.push()

    def push(self) -> None:
        """Reserve what is ready for who wants it."""
        if self.session is None:
            return
        for number, wish in self.subscriptions.items():
            while self._push_one(number, wish):
                pass
        for parked in list(self.parked):
            reservation = self._reserve_items(parked.queue, parked.items, None)
            if reservation is not None:
                self.parked.remove(parked)
                self._send_reserved(reservation, number=parked.id)

    def lose(self, token: str) -> None:
        """End a reservation and tell."""
        self.server.end_reservation(token)
        if self.session is not None:
            self.session.pushes.pop(token, None)
        self.server._told_lost[token] = None
        self.outbox.append(wire.Lost(token=token, why="deadline"))

    # -- one message -----------------------------------------------------------------------------

    def _hello(self, message: wire.ClientMessage) -> None:
        assert isinstance(message, wire.Hello), message
        server = self.server
        if server.secret and message.auth != server.secret:
            self.outbox.append(wire.Error(Code.UNAUTHENTICATED, "who are you?", "$[0].auth"))
            self.farewell = 4401
            return
        name, _, _ = message.resume.partition("/")
        session = server.sessions.get(name)
        if session is None:
            session = server.sessions[name or f"s{len(server.sessions)}.{server.connections}"] = ModelSession(
                name or f"s{len(server.sessions)}.{server.connections}"
            )
        else:
            session.generation += 1
        self.session = session
        session.pushes = {t: p for t, p in session.pushes.items() if p[0] > message.confirmed}
        session.push_last = max(session.push_last, message.confirmed)
        held = server.held(session.name)
        self.outbox.append(
            wire.Welcome(
                session=session.name,
                generation=session.generation,
                resume=f"{session.name}/{session.generation}",
                server_time=1_000_000_000_000,
                ping_interval=PING_INTERVAL,
                grace=5_000_000,
                limits={},
                held=[
                    wire.Held(
                        one.token, one.queue, one.partition, [(i, 1) for i in one.left], 1, one.subscription
                    )
                    for one in held
                ],
            )
        )
        tokens = {one.token for one in held}
        again, session.pushes = session.pushes, {}
        for token, (_, pushed) in again.items():
            if token in tokens:
                session.push_last += 1
                session.pushes[token] = (session.push_last, pushed)
                self.outbox.append(msgspec.structs.replace(pushed, push=session.push_last, again=True))

    def _produce(self, message: wire.Produce) -> None:
        server = self.server
        if server.refusals:
            self.outbox.append(wire.Rejected(message.id, server.refusals.popleft(), "not now"))
            return
        numbers = server.queues.get(message.queue)
        if numbers is None:
            self.outbox.append(wire.Rejected(message.id, Code.UNKNOWN_QUEUE, "no such queue", "queue"))
            return
        payloads = message.payloads
        assert isinstance(payloads, list)
        if b"bad" in payloads:
            self.outbox.append(wire.Rejected(message.id, Code.INVALID, "a bad item", "payloads"))
            return
        if message.partition is not None and message.partition not in numbers:
            self.outbox.append(wire.Rejected(message.id, Code.INVALID, "not of this queue", "partition"))
            return
        where = self._route(message, numbers)
        if where is None:
            self.outbox.append(wire.Rejected(message.id, Code.MIXED_PARTITIONS, "mixed", "key"))
            return
        partition = server.partitions[where]
        if where in server.away:
            self.outbox.append(wire.Rejected(message.id, server.away[where], "it is away"))
            return
        known = partition.producers.setdefault(message.producer, {})
        if message.sequence in known:
            answer = msgspec.structs.replace(known[message.sequence], id=message.id, repeated=True)
            self._produced(where, answer)
            return
        assert not known or message.sequence > max(known) - limits.PRODUCER_RESULTS_MAX, "out of the window"
        first = len(partition.payloads) + 1
        ids, duplicates = self._append(partition, payloads, message)
        answer = wire.Produced(message.id, partition.number, first, len(payloads))
        if duplicates:
            answer.numbers, answer.duplicates = ids, duplicates
        known[message.sequence] = answer
        self._produced(where, answer)

    def _produced(self, partition: int, answer: wire.Produced) -> None:
        owed = self.server.silent.get(partition)
        if owed is None:
            self.outbox.append(answer)
        else:
            owed.append((self, answer))

    def _append(
        self, partition: ModelPartition, payloads: list[bytes], message: wire.Produce
    ) -> tuple[list[int], list[int]]:
        ids = []
        duplicates = []
        for index, payload in enumerate(payloads):
            dedupe = message.dedupe_key
            key = dedupe[index] if isinstance(dedupe, list) else dedupe
            if key is not None and key in partition.dedupe:
                ids.append(partition.dedupe[key])
                duplicates.append(index)
                continue
            partition.payloads.append(payload)
            number = len(partition.payloads)
            columns = {}
            for name in ("key", "kind", "reference", "headers", "encoding", "enqueue_at"):
                value = getattr(message, name)
                columns[name] = value[index] if isinstance(value, list) else value
            partition.columns.append(columns)
            ids.append(number)
            if key is not None:
                partition.dedupe[key] = number
            partition.line.append(number)
        return ids, duplicates

    def _route(self, message: wire.Produce, numbers: list[int]) -> int | None:
        if message.partition is not None:
            return message.partition
        key = message.key if message.key is not None else message.dedupe_key
        keys = key if isinstance(key, list) else [key]
        # Without a key it goes anywhere: a client that must not double an item has pinned it.
        anywhere = len(self.received)
        places = [
            numbers[anywhere % len(numbers) if one is None else index_of(one, len(numbers))] for one in keys
        ]
        return places[0] if len(dict.fromkeys(places)) == 1 else None

    def _subscribe(self, message: wire.Subscribe) -> None:
        if message.queue not in self.server.queues:
            self.outbox.append(wire.Rejected(message.id, Code.UNKNOWN_QUEUE, "no such queue", "queue"))
            return
        assert message.id not in self.subscriptions
        self.subscriptions[message.id] = message
        self.outbox.append(wire.Subscribed(message.id))

    def _unsubscribe(self, message: wire.Unsubscribe) -> None:
        if self.subscriptions.pop(message.subscription, None) is None:
            self.outbox.append(wire.Rejected(message.id, Code.UNKNOWN_SUBSCRIPTION, "no", "subscription"))
            return
        self.outbox.append(wire.Unsubscribed(message.id))

    def _reserve(self, message: wire.Reserve) -> None:
        if self.refuses_to_reserve is not None:
            self.outbox.append(wire.Rejected(message.id, self.refuses_to_reserve, "elsewhere or later"))
            return
        if message.queue not in self.server.queues:
            self.outbox.append(wire.Rejected(message.id, Code.UNKNOWN_QUEUE, "no such queue", "queue"))
            return
        reservation = self._reserve_items(message.queue, message.items, None)
        if reservation is not None:
            self._send_reserved(reservation, number=message.id)
        elif message.wait:
            self.parked.append(message)
        else:
            self.outbox.append(wire.Empty(message.id))

    def _complete(self, message: wire.Complete) -> None:
        self._settle(message, "complete")

    def _retry(self, message: wire.Retry) -> None:
        self._settle(message, "retry")

    def _release(self, message: wire.Release) -> None:
        self._settle(message, "release")

    def _dead(self, message: wire.Dead) -> None:
        self._settle(message, "dead")

    def _extend(self, message: wire.Extend) -> None:
        if self.server.refusals:
            self.outbox.append(wire.Rejected(message.id, self.server.refusals.popleft(), "not now"))
            return
        reservation = self.server.reservations[message.token]
        if not reservation.left:
            self.outbox.append(wire.Rejected(message.id, Code.RESERVATION_LOST, "it ended", "token"))
        else:
            self.outbox.append(wire.Extended(message.id, 77_000_000))

    def _settle(self, message: Any, verb: str) -> None:
        server = self.server
        if message.token in server._told_lost:
            server.late_settles.append(message.token)
        if server.refusals:
            server.refused_settles[message.token] = server.refusals[0]
            self.outbox.append(wire.Rejected(message.id, server.refusals.popleft(), "not now"))
            return
        reservation = server.reservations[message.token]
        if reservation.partition in server.halted:
            self.outbox.append(wire.Rejected(message.id, Code.HALTED, "its log has lost its end"))
            return
        if self.session is not None:
            self.session.pushes.pop(message.token, None)
        partition = server.partitions[reservation.partition]
        if message.ranges is None:
            indexes = tuple(reservation.left) or tuple(range(len(reservation.items)))
        else:
            indexes = tuple(i for first, count in message.ranges for i in range(first, first + count))
        if (verb, indexes) in reservation.settlements:
            self.outbox.append(wire.Settled(message.id, len(indexes), repeated=True))
            return
        refused = [(index, str(Code.RESERVATION_LOST)) for index in indexes if index not in reservation.left]
        done = [index for index in indexes if index in reservation.left]
        for index in done:
            del reservation.left[index]
            item = reservation.items[index]
            if verb == "complete":
                partition.completed.append(item)
            elif verb == "dead":
                partition.dead[item] = message.reason
            else:
                partition.line.append(item)
        if done:
            reservation.settlements.append((verb, indexes))
        self.outbox.append(wire.Settled(message.id, len(done), refused or None))

    def _confirm(self, message: wire.Confirm) -> None:
        assert self.session is not None
        assert message.push <= self.session.push_last
        self.session.pushes = {t: p for t, p in self.session.pushes.items() if p[0] > message.push}

    def _stats(self, message: wire.Stats) -> None:
        self._report(message.id, message.queue)

    def _watch(self, message: wire.Watch) -> None:
        self.watches[message.id] = message
        self.outbox.append(wire.Watching(message.id))
        self._report(message.id, message.queue)

    def _unwatch(self, message: wire.Unwatch) -> None:
        del self.watches[message.watch]
        self.outbox.append(wire.Unwatched(message.id))

    def _report(self, number: int, queue: str) -> None:
        numbers = self.server.queues.get(queue)
        if numbers is None:
            self.outbox.append(wire.Rejected(number, Code.UNKNOWN_QUEUE, "no such queue", "queue"))
            return
        partitions = [
            {
                "partition": partition.number,
                "ready": len(partition.line),
                "produced": len(partition.payloads),
                "completed": len(partition.completed),
                "dead": len(partition.dead),
            }
            for partition in map(self.server.partitions.__getitem__, numbers)
        ]
        self.outbox.append(
            wire.StatsReport(number, queue, partitions, len(self.subscriptions), len(self.parked))
        )

    def _call(self, message: wire.Call) -> None:
        raise NotImplementedError("calls need a codec: see fake_server.py")

    # -- reservations ----------------------------------------------------------------------------

    def _push_one(self, number: int, wish: wire.Subscribe) -> bool:
        assert self.session is not None
        unsettled = sum(
            len(one.left) for one in self.server.held(self.session.name) if one.subscription == number
        )
        room = min(wish.batch, wish.window - unsettled)
        if room <= 0:
            return False
        reservation = self._reserve_items(wish.queue, room, number)
        if reservation is None:
            return False
        self._send_reserved(reservation)
        return True

    def _reserve_items(self, queue: str, count_max: int, subscription: int | None) -> ModelReservation | None:
        assert self.session is not None
        server = self.server
        for partition in map(server.partitions.__getitem__, server.queues[queue]):
            items = [partition.line.popleft() for _ in range(min(count_max, len(partition.line)))]
            if items:
                break
        else:
            return None
        for item in items:
            partition.attempts[item] = partition.attempts.get(item, 0) + 1
        token = f"t{len(server.reservations) + 1}"
        reservation = server.reservations[token] = ModelReservation(
            token,
            queue,
            partition.number,
            items,
            dict.fromkeys(range(len(items))),
            self.session.name,
            subscription,
        )
        return reservation

    def _send_reserved(self, reservation: ModelReservation, number: int | None = None) -> None:
        assert self.session is not None
        partition = self.server.partitions[reservation.partition]
        size = self.server.part_items_max
        parts = range(0, len(reservation.items), size)
        for first in parts:
            items = reservation.items[first : first + size]
            self.session.push_last += 1
            columns = {
                name: [partition.columns[item - 1][name] for item in items]
                for name in ("key", "kind", "reference", "headers", "encoding")
                if any(partition.columns[item - 1][name] is not None for item in items)
            }
            message = wire.Reserved(
                token=reservation.token,
                queue=reservation.queue,
                partition=partition.number,
                items=items,
                deadline=60_000_000,
                payloads=[partition.payloads[item - 1] for item in items],
                first=first,
                push=self.session.push_last,
                subscription=reservation.subscription,
                id=number,
                last=first == parts[-1],
                attempts=[partition.attempts[item] for item in items],
                **columns,
            )
            if len(parts) == 1:
                self.session.pushes[reservation.token] = (self.session.push_last, message)
            self.outbox.append(message)
