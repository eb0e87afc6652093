"""The protocol half against a model server, under any interleaving of frames, losses and restarts."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from querator.client.answers import Answer
from querator.client.errors import (
    ClientClosed,
    ClientError,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
)
from querator.client.holding import Delivery, Refused, Reservation, release
from querator.client.producing import Receipt
from querator.client.protocol import Protocol, State
from querator.client.requests import ASK_AGAIN
from querator.core import limits
from querator.core.ids import Duration
from querator.core.replies import Code
from querator.protocol.messages import (
    Complete,
    Dead,
    Lost,
    Release,
    Reserve,
    Reserved,
    Retry,
    ServerMessage,
    Subscribe,
    Subscribed,
    Welcome,
)
from tests.client.model_server import ModelConnection, ModelServer

SETTLES = (Complete, Retry, Release, Dead)
PICKS = st.integers(0, 1_000)
VERBS = st.sampled_from(["complete", "each", "release", "extend"])
REFUSED = (OutcomeUnknown, Rejected)
REFUSALS = [Code.OVERLOADED, Code.UNAVAILABLE, Code.OUTCOME_UNKNOWN, Code.HALTED, Code.DENIED]


class Holder:
    """A sink that remembers everything."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.lost_tokens: list[str] = []
        self.error: ClientError | None = None
        self.is_open = True

    def pushed(self, delivery: Delivery) -> bool:
        if self.is_open:
            self.deliveries.append(delivery)
        return self.is_open

    def lost(self, reservation: Reservation) -> None:
        assert reservation.token not in self.lost_tokens
        self.lost_tokens.append(reservation.token)

    def refused(self, reservation: Reservation, refused: Refused) -> None:
        """Not of interest here."""

    def failed(self, error: ClientError) -> None:
        self.error = error


class ClientMachine(RuleBasedStateMachine):
    """Everything that can happen between a client and a server, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.server = ModelServer({"one": 1, "many": 3})
        self.client = Protocol(client="c", producer="p", draw=1)
        self.connection: ModelConnection | None = None
        self.to_server: list[list[Any]] = []
        self.to_client: list[list[ServerMessage]] = []
        self.produced: list[tuple[str, list[bytes], Answer[Receipt]]] = []
        self.settled: list[tuple[str, Answer[None]]] = []
        self.holders: list[tuple[int, Holder]] = []
        self.answers: list[Answer[Any]] = []
        self.completed_payloads: list[tuple[str, bytes, Answer[None]]] = []
        self.serial = 0
        self.sent: set[int] = set()
        self.delivered: set[str] = set()
        self.told_lost: set[str] = set()
        """Tokens that a ``lost`` named."""
        self.not_listed: set[str] = set()
        """Tokens that we had and a ``welcome`` did not list."""

    # -- the network -----------------------------------------------------------------------------

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        self.connection = self.server.connect()
        self.client.opened()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def send(self) -> None:
        frame = self.client.take_frame()
        if frame:
            assert len(frame) <= limits.FRAME_COMMANDS_MAX
            for message in frame:
                if isinstance(message, SETTLES):
                    # Asking again what was asked before is how the client learns its outcome.
                    known_lost = message.token in self.told_lost or message.token in self.not_listed
                    # What was refused for good is given back, also if the answer before was only lost.
                    refused = self.server.refused_settles.get(message.token)
                    is_given_back = refused in (Code.HALTED, Code.DENIED)
                    assert message.id in self.sent or is_given_back or not known_lost, (
                        "a settlement of what is lost"
                    )
                    self.sent.add(message.id)
            self.to_server.append(frame)

    @precondition(lambda self: self.to_server)
    @rule()
    def arrive(self) -> None:
        assert self.connection is not None
        self.connection.receive(self.to_server.pop(0))
        self.answer()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def answer(self) -> None:
        assert self.connection is not None
        self.connection.push()
        messages = self.connection.take()
        if messages:
            self.to_client.append(messages)

    @precondition(lambda self: self.to_client)
    @rule()
    def hear(self) -> None:
        for message in self.to_client.pop(0):
            if isinstance(message, Welcome):
                listed = {held.token for held in message.held}
                self.not_listed = (self.not_listed | self.delivered) - listed
            elif isinstance(message, Lost):
                self.told_lost.add(message.token)
            elif isinstance(message, Reserved):
                self.delivered.add(message.token)
            self.client.receive(message)

    @precondition(lambda self: self.connection is not None)
    @rule(frames=st.integers(0, 3), restart=st.booleans())
    def disconnect(self, frames: int, restart: bool) -> None:
        """Some of what is under way to the server still arrives; its answers do not."""
        assert self.connection is not None
        for frame in self.to_server[:frames]:
            self.connection.receive(frame)
        self.to_server.clear()
        self.to_client.clear()
        self.connection = None
        self.client.disconnected()
        if restart:
            self.server.restart()

    @initialize()
    def begin(self) -> None:
        self.connect()
        self.travel(2)

    @rule(rounds=st.integers(1, 3))
    def travel(self, rounds: int) -> None:
        """Frames go all the way, there and back."""
        if self.connection is None:
            self.connect()
        for _ in range(rounds):
            self.send()
            while self.to_server:
                self.arrive()
            self.answer()
            while self.to_client:
                self.hear()

    @rule(rounds=st.integers(1, 2))
    def travel_there(self, rounds: int) -> None:
        """Frames arrive at the server, and no answer comes yet."""
        if self.connection is None:
            self.travel(1)
        for _ in range(rounds):
            self.send()
            while self.to_server:
                self.arrive()

    # -- the application -------------------------------------------------------------------------

    @rule(
        queue=st.sampled_from(["one", "many", "none"]),
        count=st.integers(1, 3),
        key=st.sampled_from([None, "k", "l"]),
    )
    def produce(self, queue: str, count: int, key: str | None) -> None:
        payloads = []
        for _ in range(count):
            self.serial += 1
            payloads.append(b"%d" % self.serial)
        answer: Answer[Receipt] = Answer()
        self.client.produce(queue, payloads, {} if key is None else {"key": key}, answer)
        self.produced.append((queue, payloads, answer))

    @precondition(lambda self: len(self.holders) < 4)
    @rule(queue=st.sampled_from(["one", "many"]), window=st.integers(1, 5), batch=st.integers(1, 3))
    def subscribe(self, queue: str, window: int, batch: int) -> None:
        holder = Holder()
        answer: Answer[Subscribed] = Answer()
        wish = Subscribe(id=0, queue=queue, window=window, batch=batch)
        self.holders.append((self.client.subscribe(wish, holder, answer), holder))

    @rule(queue=st.sampled_from(["one", "many"]), items=st.integers(1, 3), wait=st.booleans())
    def reserve(self, queue: str, items: int, wait: bool) -> None:
        holder = Holder()
        answer: Answer[None] = Answer()
        self.client.reserve(Reserve(id=0, queue=queue, items=items, wait=int(wait)), holder, answer)
        self.holders.append((0, holder))
        self.answers.append(answer)

    @precondition(lambda self: self.holders)
    @rule(pick=PICKS)
    def unsubscribe(self, pick: int) -> None:
        number, holder = self.holders[pick % len(self.holders)]
        self.holders.remove((number, holder))
        holder.is_open = False
        if number:
            answer: Answer[None] = Answer()
            self.client.unsubscribe(number, answer)
            self.answers.append(answer)
        self.client.release_rest(holder)

    @precondition(lambda self: any(holder.deliveries for _, holder in self.holders))
    @rule(pick=PICKS, verb=VERBS)
    def settle(self, pick: int, verb: str) -> None:
        busy = [holder for _, holder in self.holders if holder.deliveries]
        holder = busy[pick % len(busy)]
        delivery = holder.deliveries.pop(pick // 7 % len(holder.deliveries))
        reservation = delivery.reservation
        if verb == "extend":
            extended: Answer[int] = Answer()
            self.client.extend(reservation, Duration(0), extended)
            holder.deliveries.append(delivery)
            self.answers.append(extended)
            return
        spans = [(delivery.first, delivery.count)]
        if verb == "each":
            spans = [(delivery.first + index, 1) for index in range(delivery.count)]
        for first, count in spans:
            answer: Answer[None] = Answer()
            if verb in ("complete", "each"):
                self.client.complete(reservation, first, count, answer)
                for payload in delivery.payloads[first - delivery.first :][:count]:
                    self.completed_payloads.append((reservation.queue, payload, answer))
            else:
                self.client.settle(reservation, first, count, release, answer)
            self.settled.append((reservation.token, answer))

    # -- the world -------------------------------------------------------------------------------

    @precondition(lambda self: any(one.left for one in self.server.reservations.values()))
    @rule(pick=PICKS, tell=st.booleans())
    def lose(self, pick: int, tell: bool) -> None:
        tokens = [one.token for one in self.server.reservations.values() if one.left]
        token = tokens[pick % len(tokens)]
        if tell and self.connection is not None and self.connection.session is not None:
            self.connection.lose(token)
        else:
            self.server.end_reservation(token)

    @precondition(lambda self: len(self.server.refusals) < 3)
    @rule(code=st.sampled_from(REFUSALS))
    def refuse(self, code: Code) -> None:
        self.server.refusals.append(code)

    @rule(partition=st.sampled_from([2, 3, 4]), code=st.sampled_from([None, Code.UNAVAILABLE, Code.HALTED]))
    def go_away(self, partition: int, code: Code | None) -> None:
        """A partition of the queue of three takes nothing new, or is back."""
        self.server.away.pop(partition, None)
        if code is not None:
            self.server.away[partition] = code

    @rule()
    def unpark(self) -> None:
        self.client.unpark()

    @rule()
    def release_strays(self) -> None:
        self.client.release_strays()

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def nothing_is_doubled(self) -> None:
        for queue in ("one", "many"):
            payloads = self.server.payloads(queue)
            assert len(payloads) == len(set(payloads))

    @invariant()
    def the_window_is_kept(self) -> None:
        for stream in self.client._streams.values():
            lanes = stream.lanes.all()
            for lane in lanes:
                unanswered = list(lane.unanswered)
                assert unanswered == sorted(unanswered)
                assert not unanswered or unanswered[-1] - unanswered[0] < stream.lanes.window
            assert stream.lanes.unanswered == sum(len(lane.unanswered) for lane in lanes)

    @invariant()
    def answers_match_the_server(self) -> None:
        for queue, payloads, answer in self.produced:
            if answer.done and answer.error is None:
                receipt = answer.result()
                stored = self.server.partitions[receipt.partition].payloads
                assert stored[receipt.first - 1 : receipt.first - 1 + receipt.count] == payloads
                assert receipt.partition in self.server.queues[queue]

    @invariant()
    def refused_means_not_there(self) -> None:
        for queue, payloads, answer in self.produced:
            if isinstance(answer.error, Rejected) and queue != "none":
                assert not set(payloads) & set(self.server.payloads(queue))

    def teardown(self) -> None:
        """After the storm: everything is answered, everything produced is there once."""
        self.server.refusals.clear()
        self.server.away.clear()
        for _ in range(100):
            if self.connection is None:
                self.connect()
            self.client.unpark()
            self.client.release_strays()
            self.send()
            while self.to_server:
                self.arrive()
            self.answer()
            while self.to_client:
                self.hear()
            if self.client.is_idle and not (self.client.has_work or self.client.strays):
                break
        assert self.client.state is State.OPEN
        for queue, payloads, answer in self.produced:
            assert answer.done
            if queue == "none":
                assert answer.error is not None
            elif answer.error is None:
                assert set(payloads) <= set(self.server.payloads(queue))
            else:
                assert isinstance(answer.error, REFUSED)
        self.refused_means_not_there()
        for token, settled in self.settled:
            assert settled.done, token
            assert settled.error is None or isinstance(settled.error, (ReservationLost, *REFUSED))
        for queue, payload, completed in self.completed_payloads:
            if completed.error is None:
                assert self.server.completed(queue).count(payload) == 1
        # What we hold is what the server says we hold: nothing is left without anybody who knows of it.
        assert self.connection is not None
        assert self.connection.session is not None
        held = {one.token for one in self.server.held(self.connection.session.name)}
        # But what may not be settled stays as it is.
        held -= {token for token, code in self.server.refused_settles.items() if code not in ASK_AGAIN}
        assert held <= set(self.client._holdings._reservations)
        self.client.close(ClientClosed("over"))
        assert all(answer.done for _, _, answer in self.produced)
        assert all(answer.done for answer in self.answers)


TestClientMachine = ClientMachine.TestCase
TestClientMachine.settings = settings(
    max_examples=40,
    stateful_step_count=60,
    deadline=None,
    # Shrinking takes longer than a test may: to look into a failure, add Phase.shrink.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


WALK_STEPS = 250


@pytest.mark.parametrize("seed", range(40))
def test_long_random_walks_keep_the_same_promises(seed: int) -> None:
    """Hypothesis prefers short runs, which it can shrink; these go far."""
    dice = random.Random(seed)
    machine = ClientMachine()
    machine.begin()
    fault_rate = dice.choice([0.0, 0.03, 0.15])
    for _ in range(WALK_STEPS):
        _take_step(machine, dice, fault_rate)
        machine.nothing_is_doubled()
        machine.the_window_is_kept()
        machine.refused_means_not_there()
    machine.answers_match_the_server()
    machine.teardown()


def _take_step(machine: ClientMachine, dice: random.Random, fault_rate: float) -> None:
    pick = dice.randrange(1_000)
    queue = dice.choice(["one", "many"])
    if dice.random() < fault_rate:
        fault = dice.randrange(4)
        if fault == 0 and machine.connection is not None:
            machine.disconnect(frames=dice.randrange(4), restart=dice.random() < 0.3)
        elif fault == 1 and any(one.left for one in machine.server.reservations.values()):
            machine.lose(pick=pick, tell=dice.random() < 0.5)
        elif fault == 2:
            machine.refuse(code=dice.choice(REFUSALS))
        elif fault == 3:
            machine.go_away(
                partition=dice.choice([2, 3, 4]), code=dice.choice([None, Code.UNAVAILABLE, Code.HALTED])
            )
        return
    if machine.connection is None:
        machine.connect()
    step = dice.randrange(12)
    if step < 3:
        machine.produce(queue=queue, count=dice.randint(1, 3), key=dice.choice([None, None, "k", "l"]))
    elif step < 6 and any(holder.deliveries for _, holder in machine.holders):
        machine.settle(pick=pick, verb=dice.choice(["complete", "complete", "each", "release", "extend"]))
    elif step == 6 and len(machine.holders) < 4:
        machine.subscribe(queue=queue, window=dice.randint(1, 5), batch=dice.randint(1, 3))
    elif step == 7 and len(machine.holders) < 4:
        machine.reserve(queue=queue, items=dice.randint(1, 3), wait=dice.random() < 0.3)
    elif step == 8 and len(machine.holders) > 2:
        machine.unsubscribe(pick=pick)
    elif step == 9:
        machine.unpark()
        machine.release_strays()
    elif step == 10:
        machine.travel_there(rounds=1)
    else:
        machine.travel(rounds=1)
