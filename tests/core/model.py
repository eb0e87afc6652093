"""The partition that the real one is compared with: one plain object an item, lists, and no cleverness.

It shares nothing with querator/core but the words: commands, replies and the policy. Everything is
a scan; that is what makes it easy to believe.
"""

from collections import OrderedDict
from typing import Any

import attrs

from querator.core import commands as cmd
from querator.core import replies as rep
from querator.core.commands import Verb
from querator.core.limits import SEGMENT_ITEMS
from querator.core.policy import Ordering, Policy
from querator.core.replies import Code, Rejected

PRODUCER_DAY = 86_400_000_000


@attrs.define(eq=False)
class Item:
    number: int
    payload: bytes
    produced_at: int
    expires_at: int
    columns: dict[str, Any]
    attempts: int = 0
    """Finished ones."""
    state: str = "new"
    """ready | scheduled | reserved | dead."""
    due_at: int = 0
    entry: int = 0
    """Grows with each entry into the schedule: equal due times keep this order."""
    not_before: int = 0
    """Of an item that failed and waits in its lane."""
    reason: str = ""
    died_at: int = 0
    leaving_to: int | None = None
    goes_home: bool = False
    home: int | None = None
    """The partition that it came from as a dead item."""

    @property
    def key(self) -> str | None:
        return self.columns.get("key")


@attrs.define(eq=False)
class Held:
    """A reservation: its items, and how each was settled (None: not yet)."""

    number: int
    nonce: int
    session: str
    generation: int
    items: list[Item]
    ends: list[Verb | None]
    deadline: int
    run_until: int
    window: "Window | None"

    @property
    def open(self) -> list[int]:
        return [index for index, verb in enumerate(self.ends) if verb is None]


@attrs.define(eq=False)
class Window:
    """A subscription."""

    size: int
    batch: int
    timeout: int
    held: bool
    one_at_a_time: bool
    """Its byte window is so small that any payload fills it."""
    name: str = ""


@attrs.define(eq=False)
class Waiter:
    """A parked request."""

    items_max: int
    deadline: int
    name: str = ""


class Model:
    def __init__(self, partition: int, *, results_max: int, producers_max: int) -> None:
        self.partition = partition
        self.results_max = results_max
        self.producers_max = producers_max
        self.policy = Policy(version=0)
        self.nonce = 0
        self.paused = False
        self.items: dict[int, Item] = {}
        self.line: list[Item] = []
        self.schedule: list[Item] = []
        self.dead: list[Item] = []
        self.sources: dict[str, Item] = {}
        """By source id: the newest item that came with it."""
        self.lanes: dict[str, list[Item]] = {}
        """All items of a key that arrived and are not settled, in the order they must go."""
        self.reservations: dict[int, Held] = {}
        self.past: dict[int, list[Verb | None]] = {}
        self.producers: OrderedDict[str, tuple[dict[int, rep.Produced], int, int]] = OrderedDict()
        self.dedupe: dict[str, tuple[int, int]] = {}
        self.channels: dict[int, tuple[int, list[Item]]] = {}
        self.received: dict[int, int] = {}
        self.waiting: list[Window] = []
        self.parked: list[Waiter] = []
        self.windows: list[Window] = []
        self.next_item = 1
        self.next_reservation = 1
        self.entries = 0
        self.produced = self.completed = self.removed = self.retried = self.ended = 0

    # --- moving an item ---------------------------------------------------------------------------

    def in_lane(self, item: Item) -> bool:
        return self.policy.ordering is Ordering.KEY and item.key is not None

    def become_ready(self, item: Item, now: int) -> None:
        item.state = "ready"
        if not self.in_lane(item):
            self.line.append(item)
            return
        lane = self.lanes.setdefault(str(item.key), [])
        if item not in lane:
            lane.append(item)
        self.step_up(str(item.key), now)

    def step_up(self, key: str, now: int) -> None:
        """When no item of the key is reserved, its first one stands in line, or waits for its time."""
        lane = self.lanes.get(key, [])
        if not lane:
            self.lanes.pop(key, None)
            return
        head = lane[0]
        if head in self.line or head.state == "scheduled" or any(item.state == "reserved" for item in lane):
            return
        if head.not_before > now:
            self.put_off(head, head.not_before)
        else:
            self.line.append(head)

    def put_off(self, item: Item, due: int) -> None:
        item.state = "scheduled"
        item.due_at = due
        self.entries += 1
        item.entry = self.entries
        self.schedule.append(item)

    def go_back(self, item: Item, due: int, now: int) -> None:
        item.state = "ready"
        if self.in_lane(item):
            item.not_before = due
            self.step_up(str(item.key), now)
        elif due:
            self.put_off(item, due)
        else:
            self.line.append(item)

    def withdraw(self, item: Item, now: int) -> None:
        """Out of line, schedule and lane: it is settled for good, or dead."""
        if item in self.line:
            self.line.remove(item)
        if item in self.schedule:
            self.schedule.remove(item)
        lane = self.lanes.get(str(item.key), []) if self.in_lane(item) else []
        if item in lane:
            lane.remove(item)
            self.step_up(str(item.key), now)

    def die(self, item: Item, reason: str, now: int) -> None:
        item.state = "dead"
        item.reason, item.died_at = reason, now
        self.withdraw(item, now)
        self.dead.append(item)
        target = self.policy.dead_target
        if target is not None:
            self.leave(item, target)

    def leave(self, item: Item, target: int) -> None:
        item.leaving_to = target
        self.channels.setdefault(target, (1, []))[1].append(item)

    def drop(self, item: Item, now: int, *, removed: bool = True) -> None:
        item.state = "gone"
        self.withdraw(item, now)
        if item in self.dead:
            self.dead.remove(item)
        del self.items[item.number]
        source = item.columns.get("source_id", "")
        if self.sources.get(source) is item:
            del self.sources[source]
        if removed:
            self.removed += 1

    def take_out(self, held: Held, index: int, verb: Verb) -> Item:
        """One item of a reservation is settled."""
        assert held.ends[index] is None
        held.ends[index] = verb
        if not held.open:
            del self.reservations[held.number]
            self.past[held.number] = held.ends
        if held.window is not None:
            self.wake(held.window)
        return held.items[index]

    # --- producing --------------------------------------------------------------------------------

    def add(self, payload: bytes, columns: dict[str, Any], due: int, expires: int, now: int) -> Item:
        item = Item(self.next_item, payload, now, expires, columns)
        self.next_item += 1
        self.produced += 1
        self.items[item.number] = item
        if due > now:
            self.put_off(item, due)
        else:
            self.become_ready(item, now)
        return item

    def produce(self, command: cmd.Produce, now: int) -> rep.Reply:
        count = len(command.payloads)
        if not count:
            return Rejected(Code.BATCH_EMPTY, "", "payloads")
        if command.producer in self.producers:
            results, forgotten, _ = self.producers[command.producer]
            if command.sequence in results:
                return attrs.evolve(results[command.sequence], repeated=True)
            if command.sequence <= forgotten:
                return Rejected(Code.SEQUENCE_TOO_OLD, "", "sequence")
        rows = [_row(command.attributes, index) for index in range(count)]
        known = {
            key: item for key, (item, at) in self.dedupe.items() if at >= now - self.policy.dedupe_window
        }
        numbers: list[int] = []
        duplicates: list[int] = []
        fresh: dict[str, int] = {}
        number = self.next_item
        for index, row in enumerate(rows):
            key = row.get("dedupe_key")
            existing = known.get(key, fresh.get(key)) if key else None
            if existing is not None:
                duplicates.append(index)
                numbers.append(existing)
                continue
            if key:
                fresh[key] = number
            numbers.append(number)
            number += 1
        if fresh and len(known) + len(fresh) > self.policy.dedupe_keys_max:
            return Rejected(Code.DEDUPE_FULL, "", "dedupe_key")
        reply = rep.Produced(
            self.partition, self.next_item, count, numbers if duplicates else None, tuple(duplicates)
        )
        if fresh:
            self.dedupe = {key: (item, self.dedupe[key][1]) for key, item in known.items()}
            self.dedupe.update({key: (item, now) for key, item in fresh.items()})
        timeout = self.policy.expire_timeout
        for index, row in enumerate(rows):
            if index not in duplicates:
                due = command.due_at[index] if isinstance(command.due_at, list) else command.due_at
                self.add(command.payloads[index], row, due, now + timeout if timeout else 0, now)
        if command.producer:
            self.remember(command.producer, command.sequence, reply, now)
        return reply

    def remember(self, name: str, sequence: int, reply: rep.Produced, now: int) -> None:
        results, forgotten, _ = self.producers.pop(name, ({}, 0, 0))
        results[sequence] = reply
        if len(results) > self.results_max:
            oldest = min(results)
            del results[oldest]
            forgotten = max(forgotten, oldest)
        self.producers[name] = (results, forgotten, now)
        while (
            len(self.producers) > self.producers_max
            or next(iter(self.producers.values()))[2] < now - PRODUCER_DAY
        ):
            self.producers.popitem(last=False)

    # --- reserving --------------------------------------------------------------------------------

    def reserve(
        self,
        items_max: int,
        now: int,
        *,
        session: str,
        generation: int,
        timeout: int,
        held: bool,
        window: Window | None = None,
    ) -> Held | None:
        if self.paused or self.policy.deleted or not self.line:
            return None
        chosen = self.choose(items_max, now)
        for item in chosen:
            item.state = "reserved"
            item.not_before = 0
            if item in self.line:
                self.line.remove(item)
        own = chosen[0].columns.get("reservation_timeout")
        deadline = now + (timeout or own or self.policy.reservation_timeout)
        run_until = max(now + self.policy.max_runtime, deadline) if held else 0
        made = Held(
            self.next_reservation,
            self.nonce,
            session,
            generation,
            chosen,
            [None] * len(chosen),
            deadline,
            run_until,
            window,
        )
        self.next_reservation += 1
        self.reservations[made.number] = made
        return made

    def choose(self, items_max: int, now: int) -> list[Item]:
        """The first items in line, of a key its successors, up to one with another timeout."""
        chosen: list[Item] = []
        for head in self.line:
            group = [head]
            if self.in_lane(head):
                for item in self.lanes[str(head.key)][1:]:
                    if item.not_before > now:
                        break
                    group.append(item)
            for item in group:
                timeout = item.columns.get("reservation_timeout")
                if len(chosen) == items_max or (
                    chosen and timeout != chosen[0].columns.get("reservation_timeout")
                ):
                    return chosen
                chosen.append(item)
        return chosen

    @property
    def available(self) -> int:
        return sum(item.state == "ready" for item in self.items.values())

    def match(self, now: int, expired_order: list[int]) -> list[tuple[str, Held]]:
        """Parked requests share what is ready one each in turn; then subscriptions, each in its turn. What is
        past its time goes before that (in the order in which the real one let it go), to nobody."""
        given: list[tuple[str, Held]] = []
        if (self.parked or self.waiting) and self.line and not self.paused:
            self.expire(now, expired_order)
        else:
            assert not expired_order, "items expired though nothing was to be given"
        while self.parked and self.line and not self.paused:
            shares = dict.fromkeys(range(len(self.parked)), 0)
            left = self.available
            while left and any(shares[i] < waiter.items_max for i, waiter in enumerate(self.parked)):
                for i, waiter in enumerate(self.parked):
                    if left and shares[i] < waiter.items_max:
                        shares[i] += 1
                        left -= 1
            for i, waiter in enumerate(list(self.parked)):
                if not shares[i]:
                    continue
                made = self.reserve(shares[i], now, session=waiter.name, generation=1, timeout=0, held=False)
                if made is None:
                    return given
                self.parked.remove(waiter)
                given.append((waiter.name, made))
        while self.waiting and self.line and not self.paused:
            window = self.waiting[0]
            made = self.reserve(
                self.room(window),
                now,
                session=window.name,
                generation=1,
                timeout=window.timeout,
                held=window.held,
                window=window,
            )
            if made is None:
                break
            given.append((window.name, made))
            self.waiting.remove(window)
            if self.room(window) > 0:
                self.waiting.append(window)
        return given

    def in_flight(self, window: Window) -> int:
        return sum(len(held.open) for held in self.reservations.values() if held.window is window)

    def room(self, window: Window) -> int:
        in_flight = self.in_flight(window)
        if window.one_at_a_time and in_flight:
            return 0
        return min(window.batch, window.size - in_flight)

    def wake(self, window: Window) -> None:
        if window not in self.waiting and window in self.windows and self.room(window) > 0:
            self.waiting.append(window)

    # --- settling ---------------------------------------------------------------------------------

    def settle(self, command: cmd.Settle, now: int) -> rep.Reply:
        held = self.reservations.get(command.reservation)
        alive = held is not None and held.nonce == command.nonce
        ends = held.ends if held is not None and alive else self.past.get(command.reservation, [])
        lost = Rejected(Code.RESERVATION_LOST, "", "token")
        if command.verb is Verb.EXTEND:
            if held is None or not alive:
                return lost
            held.deadline = max(held.deadline, now + (command.timeout or self.policy.reservation_timeout))
            held.run_until = max(held.run_until, held.deadline) if held.run_until else 0
            return rep.Extended(held.deadline, held.run_until)
        everything = command.ranges is None
        asked = (
            list(range(len(ends)))
            if command.ranges is None
            else [index for start, length in sorted(command.ranges) for index in range(start, start + length)]
        )
        chosen = [index for index in asked if index < len(ends) and ends[index] is None] if alive else []
        done = sum(index < len(ends) and ends[index] is command.verb for index in asked)
        refused = tuple(
            (index, Code.RESERVATION_LOST if index < len(ends) else Code.UNKNOWN_ITEM)
            for index in asked
            if not everything and (index >= len(ends) or ends[index] not in (None, command.verb))
        )
        if not chosen or held is None:
            if not alive and not done:
                return lost
            return rep.Settled(done, refused, repeated=bool(done))
        self.settle_items(held, chosen, command, now)
        return rep.Settled(done + len(chosen), refused)

    def settle_items(self, held: Held, indexes: list[int], command: cmd.Settle, now: int) -> None:
        verb = command.verb
        if verb is Verb.RETRY:
            worn = [index for index in indexes if self.is_worn(held.items[index])]
            self.kill(held, worn, verb, "attempts_exhausted", now)
            rest = [index for index in indexes if index not in worn]
            for index, due in self.retry_times(held, rest, command.due_at, now):
                item = self.take_out(held, index, verb)
                self.retried += 1
                item.attempts += 1
                self.go_back(item, due, now)
        elif verb is Verb.DEAD:
            self.kill(held, indexes, verb, command.reason or "dead", now)
        else:
            for index in indexes:
                item = self.take_out(held, index, verb)
                if verb is Verb.RELEASE:
                    self.go_back(item, 0, now)
                else:
                    self.drop(item, now, removed=False)
                    self.completed += 1

    def is_worn(self, item: Item) -> bool:
        most = item.columns.get("attempts_max") or self.policy.attempts_max
        return bool(most) and item.attempts + 1 >= most

    def retry_times(self, held: Held, indexes: list[int], due_at: int, now: int) -> list[tuple[int, int]]:
        backoff = self.policy.backoff
        if due_at != cmd.BY_BACKOFF:
            return [(index, due_at if due_at > now else 0) for index in indexes]
        if not backoff.base:
            return [(index, 0) for index in indexes]
        indexes = sorted(indexes, key=lambda index: held.items[index].attempts)
        return [
            (index, now + backoff.delay(held.items[index].attempts + 1, held.number)) for index in indexes
        ]

    def kill(self, held: Held, indexes: list[int], verb: Verb, reason: str, now: int) -> None:
        for index in indexes:
            item = self.take_out(held, index, verb)
            item.attempts += 1
            self.die(item, reason, now)

    def settle_places(self, settlements: list[tuple[int, cmd.PlaceSettlement]], now: int) -> rep.Reply:
        """``settlements``: item number (0: nothing is at that place) and what is asked."""
        wanted: list[tuple[Held, int, cmd.PlaceSettlement, int]] = []
        seen: list[int] = []
        for number, asked in settlements:
            item = self.items.get(number)
            if item is None or item.state != "reserved" or number in seen:
                ready = item is not None and item.state == "ready" and number not in seen
                return rep.PlaceRefused(asked.place, Code.NOT_RESERVED if ready else Code.UNKNOWN_ITEM)
            seen.append(number)
            held, index = self.holder(item)
            due = asked.due_at if asked.due_at > now else 0
            wanted.append((held, index, asked, due))
        for held, index, asked, due in wanted:
            if asked.verb is Verb.RETRY:
                # This door does not look at the limit of attempts.
                item = self.take_out(held, index, asked.verb)
                self.retried += 1
                item.attempts += 1
                self.go_back(item, due, now)
            else:
                command = cmd.Settle(asked.verb, held.number, held.nonce, reason=asked.reason)
                self.settle_items(held, [index], command, now)
        return rep.Done(len(settlements))

    def holder(self, item: Item) -> tuple[Held, int]:
        for held in self.reservations.values():
            for index in held.open:
                if held.items[index] is item:
                    return held, index
        raise AssertionError(f"item {item.number} is reserved by nobody")

    def end(self, held: Held, now: int) -> None:
        """It ended by itself."""
        worn = [index for index in held.open if self.is_worn(held.items[index])]
        self.kill(held, worn, Verb.ENDED, "attempts_exhausted", now)
        if held.open:
            self.ended += 1
        for index in held.open:
            item = self.take_out(held, index, Verb.ENDED)
            item.attempts += 1
            self.go_back(item, 0, now)

    # --- time -------------------------------------------------------------------------------------

    def run_due(self, now: int, expired_order: list[int]) -> None:
        """``expired_order``: in which order the real one let the items die that expire now."""
        past = sorted((held.run_until or held.deadline, held.number) for held in self.reservations.values())
        for at, number in past:
            if at < now:
                self.end(self.reservations[number], now)
        for item in sorted(self.schedule, key=lambda item: (item.due_at, item.entry)):
            if item.due_at < now:
                self.schedule.remove(item)
                item.not_before = 0
                self.become_ready(item, now)
        self.expire(now, expired_order)
        for item in list(self.dead):
            if item.leaving_to is None and item.died_at < now - self.policy.dead_retention:
                self.drop(item, now)

    def expire(self, now: int, expired_order: list[int]) -> None:
        expired = [
            item.number
            for item in self.items.values()
            if item.state == "ready" and item.expires_at and item.expires_at < now
        ]
        assert sorted(expired) == sorted(expired_order), "other items expired than should have"
        for number in expired_order:
            self.die(self.items[number], "expired", now)

    def end_waits(self, now: int) -> None:
        self.parked = [waiter for waiter in self.parked if waiter.deadline >= now]

    # --- operators --------------------------------------------------------------------------------

    def clear(self, command: cmd.Clear, now: int) -> rep.Reply:
        kept = self.produced - self.completed - self.removed
        if command.ready:
            # A lane's items all go at once: none of them steps up in between.
            ready = [item for item in self.items.values() if item.state == "ready"]
            self.line.clear()
            for lane in self.lanes.values():
                lane[:] = [item for item in lane if item not in ready]
            self.lanes = {key: lane for key, lane in self.lanes.items() if lane}
            for item in ready:
                self.drop(item, now)
        if command.scheduled:
            for item in sorted(self.schedule, key=lambda item: (item.due_at, item.entry)):
                self.drop(item, now)
        if command.reserved:
            for held in list(self.reservations.values()):
                for index in held.open:
                    self.drop(self.take_out(held, index, Verb.ENDED), now)
        if command.dead:
            for item in [item for item in self.dead if item.leaving_to is None]:
                self.drop(item, now)
        return rep.Done(kept - (self.produced - self.completed - self.removed))

    def delete(self, numbers: list[int], now: int) -> rep.Reply:
        """``numbers``: those of the items that are at the places asked for, dead ones not among them."""
        for number in sorted(numbers):
            item = self.items[number]
            if item.state == "reserved":
                held, index = self.holder(item)
                self.take_out(held, index, Verb.ENDED)
            self.drop(item, now)
        return rep.Done(len(numbers))

    def redrive(self, command: cmd.Redrive, now: int) -> rep.Reply:
        here = [item for item in self.dead if item.leaving_to is None]
        if command.items is None:
            chosen = [item for item in here if command.reason in (None, item.reason)][: command.items_max]
        else:
            chosen = []
            for number in command.items:
                item = self.items.get(number)
                if item is None or item not in here:
                    return Rejected(Code.UNKNOWN_ITEM, "", "items")
                if item not in chosen:
                    chosen.append(item)
        for item in chosen:
            self.dead.remove(item)
            item.attempts, item.expires_at, item.reason = 0, 0, ""
            self.become_ready(item, now)
        return rep.Done(len(chosen))

    def send_back(self, command: cmd.SendBack, now: int) -> rep.Reply:
        can_go = [
            item
            for item in self.items.values()
            if item.state in ("ready", "scheduled", "dead")
            and item.home is not None
            and item.leaving_to is None
            and (command.homes is None or item.home in command.homes)
        ]
        if command.items is None:
            chosen = can_go[: command.items_max]
        else:
            numbers = list(dict.fromkeys(command.items))
            chosen = [item for number in numbers for item in can_go if item.number == number]
            if len(chosen) < len(numbers):
                return Rejected(Code.UNKNOWN_ITEM, "", "items")
        homes = list(dict.fromkeys(item.home for item in chosen))
        for item in sorted(chosen, key=lambda item: homes.index(item.home)):
            if item.state != "dead":
                item.state, item.reason, item.died_at = "dead", "sent_back", now
                self.withdraw(item, now)
                self.dead.append(item)
            item.goes_home = True
            self.leave(item, item.home or 0)
        return rep.Done(len(chosen))

    def give_up_moves(self, command: cmd.GiveUpMoves, now: int) -> rep.Reply:
        del now
        first, items = self.channels.get(command.target, (1, []))
        for item in items:
            item.leaving_to, item.goes_home = None, False
        if items:
            self.channels[command.target] = (first, [])
        return rep.Done(len(items))

    def import_(self, command: cmd.Import, now: int) -> list[int]:
        """The numbers given; 0 for what was skipped."""
        numbers: list[int] = []
        fresh: list[tuple[Item, int]] = []
        for entry in command.items:
            row = _row(entry.attributes, 0)
            source = row.get("source_id")
            if source in self.sources and self.sources[source].state != "dead":
                numbers.append(0)
                continue
            finished = row.pop("attempts", 0) or 0
            produced_at, expires_at = row.pop("produced_at", None), row.pop("expires_at", None)
            item = self.add(entry.payload, row, 0, expires_at or 0, now)
            item.attempts = max(0, finished - 1) if entry.reserved_until else finished
            item.produced_at = produced_at or now
            if source:
                self.sources[source] = item
            self.remember_key(item, now)
            numbers.append(item.number)
            fresh.append((item, entry.reserved_until))
        start = 0
        for index in range(1, len(fresh) + 1):
            # A reservation of imported items ends where a segment of the partition's memory does.
            if (
                index == len(fresh)
                or fresh[index][1] != fresh[start][1]
                or fresh[index][0].number // SEGMENT_ITEMS != fresh[start][0].number // SEGMENT_ITEMS
            ):
                if fresh[start][1]:
                    self.hold([item for item, _ in fresh[start:index]], fresh[start][1])
                start = index
        return numbers

    def hold(self, items: list[Item], until: int) -> None:
        for item in items:
            self.line.remove(item)
            item.state = "reserved"
        self.reservations[self.next_reservation] = Held(
            self.next_reservation, self.nonce, "", 0, items, [None] * len(items), until, 0, None
        )
        self.next_reservation += 1

    def remember_key(self, item: Item, now: int) -> None:
        """An item with a past may bring a dedupe key; one that is known keeps naming its first item."""
        key = item.columns.get("dedupe_key")
        if key and self.dedupe.get(key, (0, 0))[1] < now - self.policy.dedupe_window:
            self.dedupe[key] = (item.number, now)

    def receive(self, command: cmd.Receive, now: int) -> rep.Reply:
        last = self.received.get(command.source, 0)
        if command.first_move > last + 1:
            return Rejected(Code.INVALID, "", "first_move")
        count = 0
        timeout = self.policy.expire_timeout
        for index, payload in enumerate(command.payloads):
            if command.first_move + index > last:
                row = _row(command.attributes, index)
                item = self.add(payload, row, 0, now + timeout if timeout else 0, now)
                item.home = None if command.come_back else command.source
                self.remember_key(item, now)
                count += 1
        self.received[command.source] = max(last, command.first_move + len(command.payloads) - 1)
        return rep.Done(count)

    def confirm_moves(self, command: cmd.ConfirmMoves, now: int) -> rep.Reply:
        first, items = self.channels.get(command.target, (1, []))
        count = max(0, min(command.last_move - first + 1, len(items)))
        for item in items[:count]:
            self.drop(item, now)
        if count:
            self.channels[command.target] = (first + count, items[count:])
        return rep.Done(count)


def _row(attributes: Any, index: int) -> dict[str, Any]:
    """The attributes that one item has."""
    if attributes is None:
        return {}
    row: dict[str, Any] = {}
    for field in attrs.fields(type(attributes)):
        column = getattr(attributes, field.name)
        value = column[index] if isinstance(column, list) else column
        if value is not None:
            row[field.name] = value
    return row
