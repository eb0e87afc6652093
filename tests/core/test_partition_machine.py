"""The partition against a simple model of it, command by command, chosen by hypothesis.

After every step: the partition is where the model says, folding its whole log gives the same state,
so does every snapshot taken on the way followed by the rest of the log, every derived index equals
what it is derived from, and nobody waits while items are ready.
"""

from collections.abc import Callable
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import event as note
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from querator.core import capture as capture_module
from querator.core import commands as cmd
from querator.core import dedupe as dedupe_module
from querator.core import events as ev
from querator.core import replies as rep
from querator.core import state as state_module
from querator.core.capture import Capture
from querator.core.commands import Listing, Verb
from querator.core.evolve import fold
from querator.core.ids import Duration, Instant, ItemNumber, PartitionId, Place, ReservationNumber, SessionId
from querator.core.loading import load
from querator.core.policy import Backoff, Ordering, Policy
from querator.core.replies import Rejected
from querator.core.segments import STATE_NAMES
from querator.core.snapshot import ChunkRef
from querator.core.state import PartitionState
from querator.core.state_checks import check_demand, check_state_fully
from querator.core.state_hash import state_hash
from tests.conftest import PROFILE
from tests.core.driver import PARTITION, Driver, bare, expired_in, numbers_of
from tests.core.model import Held, Item, Model, Waiter, Window

SECOND = 1_000_000
RESULTS_MAX = 4
PRODUCERS_MAX = 2

names = st.sampled_from(["ada", "bob", "eve"])
keys = st.sampled_from([None, "k1", "k2", "k3"])
counts = st.integers(1, 5)
delays = st.sampled_from([0, 1, SECOND, 3 * SECOND, 20 * SECOND])


def maybe_column(values: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[Any]:
    """Absent, one value for all, or one an item."""
    return st.one_of(
        st.none(), values, st.lists(st.one_of(st.none(), values), min_size=count, max_size=count)
    )


@st.composite
def attributes(draw: st.DrawFn, count: int) -> ev.Attributes:
    def column(values: st.SearchStrategy[Any]) -> Any:
        return draw(maybe_column(values, count))

    return ev.Attributes(
        kind=column(st.sampled_from(["mail", "page"])),
        headers=column(st.sampled_from([{"a": "1"}, {"b": "2", "c": "3"}])),
        key=column(st.sampled_from(["k1", "k2", "k3"])),
        reservation_timeout=column(st.sampled_from([2 * SECOND, 9 * SECOND])),
        attempts_max=column(st.integers(1, 3)),
        dedupe_key=column(st.sampled_from(["d1", "d2", "d3", "d4", "d5"])) if draw(st.booleans()) else None,
    )


@st.composite
def policies(draw: st.DrawFn, ordering: Ordering) -> Policy:
    return Policy(
        version=1,
        ordering=ordering,
        reservation_timeout=Duration(draw(st.sampled_from([5, 60])) * SECOND),
        max_runtime=Duration(draw(st.sampled_from([8, 3600])) * SECOND),
        expire_timeout=Duration(draw(st.sampled_from([0, 0, 15])) * SECOND),
        attempts_max=draw(st.sampled_from([0, 0, 2, 3])),
        backoff=draw(
            st.sampled_from(
                [Backoff(), Backoff(Duration(SECOND)), Backoff(Duration(2 * SECOND), 1.0, jitter=0.0)]
            )
        ),
        dead_target=PartitionId(9) if draw(st.booleans()) else None,
        dead_retention=Duration(draw(st.sampled_from([30, 86_400])) * SECOND),
        dedupe_window=Duration(draw(st.sampled_from([10, 86_400])) * SECOND),
        dedupe_keys_max=draw(st.sampled_from([4, 1_000_000])),
    )


class PartitionMachine(RuleBasedStateMachine):
    ordering = Ordering.FIFO

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(state_module, "PRODUCER_RESULTS_MAX", RESULTS_MAX)
        self.patch.setattr(state_module, "PRODUCERS_MAX", PRODUCERS_MAX)
        self.patch.setattr(dedupe_module, "BLOCK_KEYS", 2)
        self.patch.setattr(capture_module, "PART_ENTRIES", 2)
        self.patch.setattr(capture_module, "PRODUCERS_PER_CHUNK", 1)
        self.patch.setattr(capture_module, "RESERVATIONS_PER_CHUNK", 1)
        self.driver = Driver()
        self.model = Model(PARTITION, results_max=RESULTS_MAX, producers_max=PRODUCERS_MAX)
        self.model.nonce = self.driver.state.nonce
        self.model.policy = self.driver.state.policy
        self.folded = [self.refolded()]
        """States that follow the log: from its start, and from snapshots of it."""
        self.folded_to = (0, 0)
        self.driver.listeners.append(self.follow)
        self.capture: Capture | None = None
        self.tail: list[tuple[int, ev.Event]] = []
        """What was written since the capture was begun."""
        self.expired: list[ev.Event] = []
        """What happened since the model was last told what expired."""
        self.stored: dict[ChunkRef, bytes] = {}
        self.snapshot: tuple[tuple[ChunkRef, ...], int] = ((), 0)
        self.tokens: list[tuple[int, int]] = []
        """(reservation, nonce) of every reservation there was, held or not."""
        self.old_places: list[int] = []
        self.last_place = 0
        self.moves = {8: 0, 9: 0}
        self.sequences: dict[str, int] = {}
        self.subscriptions: dict[str, Any] = {}
        self.completed: dict[int, None] = {}

    def teardown(self) -> None:
        assert state_hash(self.driver.refold()) == state_hash(self.driver.state)
        self.patch.undo()

    # --- the pieces of a step ------------------------------------------------------------------------

    def refolded(self) -> PartitionState:
        return self.driver.refold(payloads=False)

    def follow(self, position: int, event: ev.Event) -> None:
        for state in self.folded:
            fold(state, position, [bare(event)])
        if self.capture is not None:
            self.tail.append((position, bare(event)))
        self.expired.append(event)
        if isinstance(event, ev.ItemsCompleted | ev.ItemsDied):
            note(type(event).__name__)

    @property
    def state(self) -> PartitionState:
        return self.driver.state

    @property
    def now(self) -> int:
        return self.driver.now

    def do(self, command: cmd.Command, expected: Callable[[int], rep.Reply]) -> rep.Reply:
        """Both decide; the answers are the same; what became ready meets who waits."""
        reply = self.driver.decide(command)
        wanted = expected(self.now)
        assert _plain(reply) == _plain(wanted), f"{command}\n{reply}\nbut the model:\n{wanted}"
        self.match()
        return reply

    def match(self) -> None:
        self.driver.handed.clear()
        self.driver.match()
        self.same_given()

    def take_expired(self) -> list[int]:
        """What expired since this was asked last."""
        expired, self.expired = expired_in(self.expired), []
        return expired

    def same_given(self) -> None:
        """Both gave what was ready to the same waiters."""
        given = self.model.match(self.now, self.take_expired())
        assert [client.name for client, _ in self.driver.handed] == [name for name, _ in given]
        for (_, shown), (_, held) in zip(self.driver.handed, given, strict=True):
            self.same_reservation(shown, held)

    def same_reservation(self, shown: rep.Reserved, held: Held) -> None:
        assert numbers_of(shown) == [item.number for item in held.items]
        assert shown.payloads == [item.payload for item in held.items]
        assert not any(item.expires_at and item.expires_at < self.now for item in held.items), "expired"
        attempts = [shown.attempts] * shown.count if isinstance(shown.attempts, int) else shown.attempts
        assert attempts == [item.attempts + 1 for item in held.items]
        assert (shown.reservation, shown.nonce, shown.count) == (held.number, held.nonce, len(held.items))
        assert (shown.deadline, shown.run_until) == (held.deadline, held.run_until)
        self.tokens.append((held.number, held.nonce))
        places = [place + offset for place, _, count in shown.runs for offset in range(count)]
        assert not set(places) & set(self.old_places), "a holder of before would be taken for this one"
        self.old_places += places
        if shown.attributes is None:
            assert not any(item.columns for item in held.items)
            return
        rows = [
            {name: column[offset] for name, column in columns.items() if column[offset] is not None}
            for (_, _, count), columns in zip(shown.runs, shown.attributes, strict=True)
            for offset in range(count)
        ]
        assert rows == [item.columns for item in held.items]

    # --- the beginning -------------------------------------------------------------------------------

    @initialize(data=st.data(), crowd=st.sampled_from(["none", "left", "gone"]))
    def begin(self, data: st.DataObject, crowd: str) -> None:
        policy = data.draw(policies(self.ordering))
        self.apply_policy(attrs.evolve(policy, version=self.state.policy.version + 1))
        if crowd == "left":
            for _ in range(3):
                self.pass_by(680)
        elif crowd == "gone":
            # The next items fill a segment that is gone when they are.
            self.pass_by(1_000)
            self.pass_by(1_044, is_first_left=False)

    def pass_by(self, count: int, *, is_first_left: bool = True) -> None:
        """Many items came and were completed (but the first): segments are there, and an edge is near."""
        model = self.model
        self.driver.produce(*[b"old"] * count)
        if not is_first_left:
            self.driver.settle(Verb.COMPLETE, self.driver.take(count))
            model.next_item += count
            model.produced += count
            model.completed += count
            model.next_reservation += 1
            return
        first = model.add(b"old", {}, 0, self.now + self.model.policy.expire_timeout, self.now)
        if not self.model.policy.expire_timeout:
            first.expires_at = 0
        assert self.reserve_now(1, "ada", timeout=0, held=False) is not None
        self.driver.settle(Verb.COMPLETE, self.driver.take(count - 1))
        model.next_item += count - 1
        model.produced += count - 1
        model.completed += count - 1
        model.next_reservation += 1

    def apply_policy(self, policy: Policy) -> None:
        def expected(_: int) -> rep.Reply:
            self.model.policy = policy
            return rep.Done(1)

        self.do(cmd.ApplyPolicy(policy), expected)

    # --- producing -----------------------------------------------------------------------------------

    @rule(data=st.data(), count=counts, rich=st.booleans(), due=st.sampled_from(["now", "one", "each"]))
    def produce(self, data: st.DataObject, count: int, due: str, *, rich: bool) -> None:
        def when() -> Instant:
            delay = data.draw(delays)
            return Instant(self.now + delay if delay else 0)

        command = cmd.Produce(
            [b"p%d" % (self.model.next_item + index) for index in range(count)],
            Instant(0) if due == "now" else when() if due == "one" else [when() for _ in range(count)],
            data.draw(attributes(count)) if rich else None,
        )
        self.do(command, lambda now: self.model.produce(command, now))

    @rule(name=names, back=st.integers(-1, 6), count=counts, key=st.sampled_from([None, "d1", "d2"]))
    def produce_in_sequence(self, name: str, back: int, count: int, key: str | None) -> None:
        """A new sequence number, or one that was used before."""
        last = self.sequences.get(name, 0)
        sequence = max(1, last - back)
        self.sequences[name] = max(last, sequence)
        command = cmd.Produce(
            [b"s"] * count, Instant(0), ev.Attributes(dedupe_key=key) if key else None, name, sequence
        )
        self.do(command, lambda now: self.model.produce(command, now))

    @rule(data=st.data(), count=counts)
    def import_items(self, data: st.DataObject, count: int) -> None:
        entries = []
        for _ in range(count):
            reserved = data.draw(st.booleans())
            entries.append(
                cmd.ImportedItem(
                    b"imported",
                    ev.Attributes(
                        source_id=data.draw(st.sampled_from([None, "x1", "x2", "x3"])),
                        key=None if reserved and self.ordering is Ordering.KEY else data.draw(keys),
                        attempts=data.draw(st.sampled_from([None, 0, 1, 2])),
                        produced_at=data.draw(st.sampled_from([None, self.now - SECOND])),
                        expires_at=data.draw(st.sampled_from([None, self.now + 5 * SECOND])),
                        dedupe_key=data.draw(st.sampled_from([None, "d1", "d2"])),
                    ),
                    Instant(self.now + data.draw(st.integers(1, 10)) * SECOND if reserved else 0),
                )
            )
        command = cmd.Import(entries)
        before = dict.fromkeys(self.model.reservations)
        reply = self.driver.decide(command)
        assert isinstance(reply, rep.Imported)
        assert reply.items == self.model.import_(command, self.now)
        for item, place in zip(reply.items, reply.places, strict=True):
            assert bool(item) == bool(place)
            assert not item or self.state.place_of(item) == place
        self.tokens += [
            (number, held.nonce) for number, held in self.model.reservations.items() if number not in before
        ]
        self.match()

    @rule(
        data=st.data(),
        count=counts,
        back=st.integers(-1, 3),
        source=st.sampled_from([8, 9]),
        home=st.booleans(),
    )
    def receive(self, data: st.DataObject, count: int, back: int, source: int, *, home: bool) -> None:
        """Another partition's dead items come in, or those that its dead queue sends back; perhaps once more,
        perhaps too early."""
        first = max(1, self.moves[source] + 1 - back)
        command = cmd.Receive(
            PartitionId(source), first, [b"moved"] * count, data.draw(attributes(count)), home
        )
        reply = self.do(command, lambda now: self.model.receive(command, now))
        if not isinstance(reply, Rejected):
            self.moves[source] = max(self.moves[source], first + count - 1)

    # --- reserving -----------------------------------------------------------------------------------

    def reserve_now(self, count: int, name: str, *, timeout: int, held: bool) -> rep.Reserved | None:
        shown = self.driver.reserve(count, name, timeout=timeout, held=held)
        self.model.expire(self.now, self.take_expired())
        wanted = self.model.reserve(count, self.now, session=name, generation=1, timeout=timeout, held=held)
        assert (shown is None) == (wanted is None)
        if shown is not None and wanted is not None:
            self.same_reservation(shown, wanted)
        return shown

    @rule(name=names, count=counts, timeout=st.sampled_from([0, 3 * SECOND]), held=st.booleans())
    def reserve(self, name: str, count: int, timeout: int, *, held: bool) -> None:
        self.reserve_now(count, name, timeout=timeout, held=held)

    @rule(name=names, count=counts, wait=st.integers(1, 10))
    @precondition(lambda self: len(self.model.parked) < 4)
    def park(self, name: str, count: int, wait: int) -> None:
        self.driver.handed.clear()
        parked = self.driver.park(name, count, wait * SECOND)
        self.model.parked.append(Waiter(count, parked.deadline, name))
        self.same_given()

    @rule(
        name=names,
        window=st.integers(1, 7),
        batch=counts,
        timeout=st.sampled_from([0, 4 * SECOND]),
        held=st.booleans(),
        tiny=st.booleans(),
    )
    def subscribe(self, name: str, window: int, batch: int, timeout: int, *, held: bool, tiny: bool) -> None:
        if name in self.subscriptions:
            subscription, theirs = self.subscriptions.pop(name)
            self.driver.demand.unsubscribe(subscription)
            self.model.windows.remove(theirs)
            if theirs in self.model.waiting:
                self.model.waiting.remove(theirs)
            return
        ours = Window(window, batch, timeout, held, tiny, name)
        self.model.windows.append(ours)
        self.model.wake(ours)
        self.driver.handed.clear()
        subscription = self.driver.subscribe(
            name, window=window, window_bytes=1 if tiny else 1 << 30, batch=batch, timeout=timeout, held=held
        )
        self.subscriptions[name] = (subscription, ours)
        self.same_given()

    # --- settling ------------------------------------------------------------------------------------

    def do_settle(self, command: cmd.Settle) -> None:
        before = self.model.completed
        held = self.model.reservations.get(command.reservation)
        open_items = [held.items[index].number for index in held.open] if held is not None else []
        self.do(command, lambda now: self.model.settle(command, now))
        if self.model.completed > before:
            for number in open_items:
                if number not in self.model.items:
                    assert number not in self.completed, "an item was completed twice"
                    self.completed[number] = None

    @rule(
        data=st.data(),
        verb=st.sampled_from(
            [Verb.COMPLETE, Verb.COMPLETE, Verb.RETRY, Verb.RETRY, Verb.RELEASE, Verb.DEAD, Verb.EXTEND]
        ),
        whole=st.booleans(),
        forged=st.sampled_from([False] * 9 + [True]),
    )
    @precondition(lambda self: self.tokens)
    def settle(self, data: st.DataObject, verb: Verb, *, whole: bool, forged: bool) -> None:
        """By any token there ever was: held, stale, settled by the same or another verb, or forged."""
        live = sorted(self.model.reservations)
        if live and data.draw(st.integers(0, 3)):
            number = data.draw(st.sampled_from(live))
            nonce = self.model.reservations[number].nonce
        else:
            number, nonce = data.draw(st.sampled_from(self.tokens[-30:]))
        ranges = None
        if not whole:
            cuts = sorted(data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=4, unique=True)))
            ranges = tuple((low, high - low) for low, high in zip(cuts[0::2], cuts[1::2], strict=False))
            if data.draw(st.booleans()):
                ranges = ranges[::-1]
        delay = data.draw(delays)
        command = cmd.Settle(
            verb,
            ReservationNumber(number + 1_000 if forged else number),
            nonce,
            ranges,
            data.draw(st.sampled_from([cmd.BY_BACKOFF, Instant(0), Instant(self.now + delay)])),
            "because" if verb is Verb.DEAD else "",
            Duration(data.draw(st.sampled_from([0, 7 * SECOND])) if verb is Verb.EXTEND else 0),
        )
        self.do_settle(command)

    @rule(data=st.data(), count=counts)
    @precondition(lambda self: self.old_places)
    def settle_places(self, data: st.DataObject, count: int) -> None:
        known = self.places()
        settlements: list[tuple[int, cmd.PlaceSettlement]] = []
        reserved = [place for place, number in known.items() if self.model.items[number].state == "reserved"]
        for _ in range(count):
            if reserved and data.draw(st.integers(0, 5)):
                place = data.draw(st.sampled_from(reserved))
            else:
                place = data.draw(st.sampled_from([*known, *self.old_places[-20:]]))
            verb = data.draw(st.sampled_from([Verb.COMPLETE, Verb.RETRY, Verb.DEAD, Verb.RELEASE]))
            delay = data.draw(delays) if verb is Verb.RETRY else 0
            settlements.append(
                (
                    known.get(place, 0),
                    cmd.PlaceSettlement(Place(place), verb, Instant(self.now + delay if delay else 0), ""),
                )
            )
        command = cmd.SettlePlaces([settlement for _, settlement in settlements])
        self.do(command, lambda now: self.model.settle_places(settlements, now))

    def places(self) -> dict[int, int]:
        """Place to number, of the items that are here."""
        return {self.state.place_of(number): number for number in sorted(self.model.items)}

    @rule(name=names)
    def lose_session(self, name: str) -> None:
        """The session does not come back: the reservations it held end."""
        for held in [
            held for held in self.model.reservations.values() if held.session == name and held.run_until
        ]:
            self.model.end(held, self.now)
        self.driver.handed.clear()
        self.driver.lose_session(name)
        self.same_given()

    @rule(name=names, generation=st.integers(2, 5))
    def resume_session(self, name: str, generation: int) -> None:
        self.driver.apply(ev.SessionResumed(SessionId(name), generation))
        for held in self.model.reservations.values():
            if held.session == name:
                held.generation = generation

    # --- time ----------------------------------------------------------------------------------------

    @rule(by=st.sampled_from([1, SECOND, 3 * SECOND, 11 * SECOND, 40 * SECOND, 90_000 * SECOND]))
    def pass_time(self, by: int) -> None:
        self.go_on(by)

    @rule(late=st.sampled_from([-1, 0]))
    def go_on_to_next_due(self, late: int) -> None:
        """To the moment at which something is due, or to just before it: then nothing happens."""
        due = self.driver.next_due_at()
        if due is None or due + late < self.now:
            return
        before = state_hash(self.state)
        self.go_on(due + late - self.now)
        if late and not self.driver.demand.wants:
            assert state_hash(self.state) == before, "something happened before it was due"

    def go_on(self, by: int) -> None:
        self.driver.now += by
        self.driver.handed.clear()
        self.driver.run_due()
        self.model.run_due(self.now, self.take_expired())
        self.same_given()
        self.model.end_waits(self.now)
        due = self.driver.next_due_at()
        assert due is None or due > self.now, "something is past and did not happen"

    # --- operators -----------------------------------------------------------------------------------

    @rule(ready=st.booleans(), scheduled=st.booleans(), reserved=st.booleans(), dead=st.booleans())
    def clear(self, *, ready: bool, scheduled: bool, reserved: bool, dead: bool) -> None:
        command = cmd.Clear(ready, scheduled, reserved, dead, "ops")
        self.do(command, lambda now: self.model.clear(command, now))

    @rule(data=st.data(), count=counts)
    @precondition(lambda self: self.model.items)
    def delete(self, data: st.DataObject, count: int) -> None:
        known = self.places()
        chosen = data.draw(
            st.lists(st.sampled_from([*known, *self.old_places[-5:]]), min_size=count, max_size=count)
        )
        numbers = {
            known[place]: None
            for place in chosen
            if place in known and self.model.items[known[place]].state != "dead"
        }
        command = cmd.Delete([Place(place) for place in chosen], "ops")
        self.do(command, lambda now: self.model.delete(list(numbers), now))

    @rule(data=st.data(), by=st.sampled_from(["all", "reason", "number"]), most=st.sampled_from([1, 100]))
    @precondition(lambda self: self.model.dead)
    def redrive(self, data: st.DataObject, by: str, most: int) -> None:
        command = cmd.Redrive(items_max=most, author="ops")
        if by == "reason":
            command.reason = data.draw(st.sampled_from(["because", "expired", "attempts_exhausted"]))
        elif by == "number":
            numbers = [item.number for item in self.model.dead] + [self.model.next_item - 1]
            drawn = data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=4))
            command.items = list(map(ItemNumber, drawn))
        self.do(command, lambda now: self.model.redrive(command, now))

    @rule(
        data=st.data(),
        by=st.sampled_from(["all", "home", "number", "number"]),
        home=st.sampled_from([8, 9]),
        most=st.sampled_from([1, 100]),
    )
    @precondition(lambda self: any(self.moves.values()))
    def send_back(self, data: st.DataObject, by: str, home: int, most: int) -> None:
        command = cmd.SendBack(items_max=most, author="ops")
        if by != "all":
            command.homes = data.draw(st.sampled_from([None, [PartitionId(home)]]))
        if by == "number":
            numbers = sorted(
                item.number for item in self.model.items.values() if item.home or item.state == "reserved"
            ) or [self.model.next_item]
            drawn = data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=4))
            command.items = list(map(ItemNumber, drawn))
        self.do(command, lambda now: self.model.send_back(command, now))

    @rule(to=st.sampled_from([8, 9]), last=st.integers(0, 8))
    @precondition(lambda self: self.model.channels)
    def confirm_moves(self, to: int, last: int) -> None:
        """The target has them, perhaps told twice."""
        command = cmd.ConfirmMoves(PartitionId(to), last)
        self.do(command, lambda now: self.model.confirm_moves(command, now))

    @rule(to=st.sampled_from([8, 9]))
    @precondition(lambda self: self.model.channels)
    def give_up_moves(self, to: int) -> None:
        """The target's queue was deleted."""
        command = cmd.GiveUpMoves(PartitionId(to))
        self.do(command, lambda now: self.model.give_up_moves(command, now))

    @rule()
    def read_homes(self) -> None:
        homes = self.driver.decide(cmd.ReadHomes())
        idle: dict[int, int] = {}
        reserved: dict[int, int] = {}
        for item in self.model.items.values():
            if item.home is not None and item.leaving_to is None:
                counts = reserved if item.state == "reserved" else idle
                counts[item.home] = counts.get(item.home, 0) + 1
        assert homes == rep.Homes(idle, reserved)  # type: ignore[arg-type]

    @rule(paused=st.booleans())
    def pause(self, *, paused: bool) -> None:
        def expected(_: int) -> rep.Reply:
            self.model.paused = paused
            return rep.Done()

        self.do(cmd.Pause("ops") if paused else cmd.Resume("ops"), expected)

    @rule(data=st.data())
    def change_policy(self, data: st.DataObject) -> None:
        policy = data.draw(policies(self.ordering))
        # What a shrunken window forgot it forgot for good, but only when it looked: keep the window.
        window = self.model.policy.dedupe_window
        self.apply_policy(attrs.evolve(policy, version=self.model.policy.version + 1, dedupe_window=window))

    @rule(data=st.data(), listing=st.sampled_from(list(Listing)), limit=st.integers(0, 5))
    def list_items(self, data: st.DataObject, listing: Listing, limit: int) -> None:
        wanted = {
            Listing.ITEMS: ("ready", "reserved"),
            Listing.SCHEDULED: ("scheduled",),
            Listing.DEAD: ("dead",),
        }
        rows = {
            number if listing is Listing.DEAD else self.state.place_of(number): item
            for number, item in self.model.items.items()
            if item.state in wanted[listing]
        }
        pivot = data.draw(st.sampled_from([0, *rows]))
        page = self.driver.decide(cmd.ListItems(listing, pivot, limit))
        assert isinstance(page, rep.ItemPage)
        chosen = [rows[at] for at in sorted(rows) if at >= pivot][:limit]
        assert [view.item for view in page.items] == [item.number for item in chosen]
        for view, item in zip(page.items, chosen, strict=True):
            assert (view.state, view.payload, view.reason) == (item.state, item.payload, item.reason)
            assert view.due_at == (item.due_at if item.state == "scheduled" else 0)
            assert view.attempts == item.attempts + (item.state == "reserved")

    # --- the log -------------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        """The record is sealed; a snapshot may begin here."""
        self.driver.seal()

    @rule()
    @precondition(lambda self: self.capture is None)
    def begin_snapshot(self) -> None:
        self.capture = Capture(self.state, *self.snapshot)
        self.tail = []
        self.driver.seal()

    @rule(budget=st.integers(1, 3))
    @precondition(lambda self: self.capture is not None)
    def go_on_with_snapshot(self, budget: int) -> None:
        capture = self.capture
        assert capture is not None
        done = capture.step(budget)
        self.stored |= capture.fresh
        capture.fresh.clear()
        if not done:
            return
        self.snapshot = (capture.chunks, capture.position)
        restored = load(PARTITION, capture.head, [self.stored[chunk] for chunk in capture.chunks])
        for position, happened in self.tail:
            fold(restored, position, [happened])
        self.folded[1:] = [restored]
        self.capture = None
        self.tail = []

    @rule()
    def restart(self) -> None:
        """The process ends: memory is folded again from the log, demand is gone, the token's claim too."""
        self.driver.state = self.driver.refold()
        if self.capture is not None:
            self.capture = None
        self.driver.demand = type(self.driver.demand)()
        self.driver.seal()
        self.subscriptions.clear()
        self.model.windows.clear()
        self.model.waiting.clear()
        self.model.parked.clear()
        for held in self.model.reservations.values():
            held.window = None
        self.model.nonce += 1
        self.driver.apply(ev.Claimed("node", self.model.nonce, 1, 0, "server"))

    # --- what always holds -----------------------------------------------------------------------------

    @invariant()
    def is_where_the_model_says(self) -> None:
        state, model = self.state, self.model
        assert self.driver.waiting_items() == [item.number for item in model.line]
        where = {
            segment.first + offset: STATE_NAMES[kind]
            for segment in state.segments.values()
            for offset, kind in enumerate(segment.states)
            if kind
        }
        assert where == {number: item.state for number, item in model.items.items()}
        assert list(state.dead) == [item.number for item in model.dead]
        assert {number: r.left for number, r in state.reservations.items()} == {
            number: len(held.open) for number, held in model.reservations.items()
        }
        for number, reservation in state.reservations.items():
            held = model.reservations[number]
            assert (reservation.session, reservation.generation) == (held.session, held.generation)
            assert (reservation.deadline, reservation.run_until) == (held.deadline, held.run_until)
        assert (state.produced, state.completed, state.removed, state.retried, state.ended) == (
            model.produced,
            model.completed,
            model.removed,
            model.retried,
            model.ended,
        )
        for number, item in model.items.items():
            self.same_item(number, item)
        assert [s.asker.name for s in self.driver.demand.waiting.values()] == [w.name for w in model.waiting]
        assert len(self.driver.demand.parked) == len(model.parked)

    def same_item(self, number: int, item: Item) -> None:
        segment = self.state.segments[number >> 10]
        offset = number - segment.first
        assert segment.payloads is not None
        assert segment.payloads[offset] == item.payload
        assert segment.produced[offset] == item.produced_at
        assert (segment.expires[offset] if segment.expires is not None else 0) == item.expires_at
        assert self.state.attempts.get(number, 0) == item.attempts
        assert segment.value("key", offset) == item.key
        assert segment.home_of(offset) == (item.home or 0)
        assert (number in self.state.homeward) == item.goes_home

    @invariant()
    def is_sound(self) -> None:
        check_state_fully(self.state)
        check_demand(self.state, self.driver.demand)

    @invariant()
    def is_the_fold_of_its_log(self) -> None:
        """From the start of the log, and from the last snapshot."""
        wanted = state_hash(self.state)
        for state in self.folded:
            assert state_hash(state) == wanted
            check_state_fully(state)

    @invariant()
    def never_gives_a_place_twice(self) -> None:
        assert self.state.next_place >= self.last_place
        self.last_place = self.state.next_place


def _plain(reply: rep.Reply) -> rep.Reply:
    """Without the words for humans."""
    return Rejected(reply.code, "", reply.field) if isinstance(reply, Rejected) else reply


class FifoMachine(PartitionMachine):
    ordering = Ordering.FIFO


class LaneMachine(PartitionMachine):
    ordering = Ordering.KEY


_deep = PROFILE != "ci"
TestFifo = FifoMachine.TestCase
TestFifo.settings = settings(max_examples=1_000 if _deep else 60, stateful_step_count=60 if _deep else 40)
TestLanes = LaneMachine.TestCase
TestLanes.settings = settings(max_examples=1_000 if _deep else 60, stateful_step_count=60 if _deep else 40)
