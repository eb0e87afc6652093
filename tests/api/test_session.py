"""A session, without a socket: who is welcome, what is answered, what is pushed, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.core import limits
from querator.core.catalog import Principal
from querator.core.commands import BY_BACKOFF, Verb
from querator.core.ids import Instant, PartitionId, QueueName, ReservationNumber
from querator.core.replies import Code, Rejected
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.codec import CODECS, JSON, MSGPACK, Codec
from querator.protocol.tokens import decode_token, encode_token
from tests.api.fakes import NONCE
from tests.api.pure import START, House

both = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.subprotocol)


def token(reservation: int, partition: int = 1, nonce: int = NONCE) -> str:
    return encode_token(PartitionId(partition), nonce, ReservationNumber(reservation))


# -- hello ----------------------------------------------------------------------------------------


@both
def test_hello_is_answered_with_welcome(codec: Codec) -> None:
    welcome = House().session(codec).welcome
    assert welcome.generation == 1
    assert welcome.server_time == START
    assert welcome.limits["batch_items"] == limits.BATCH_ITEMS_MAX
    assert welcome.held == []


def test_anything_before_hello_is_refused() -> None:
    peer = House().connect()
    (error,) = peer.say(wire.Stats(id=1, queue="mail"))
    assert isinstance(error, wire.Error)
    assert peer.close_code == CloseCode.BAD_FRAME


def test_hello_is_said_once() -> None:
    peer = House().session()
    (error,) = peer.say(wire.Hello(client="again"))
    assert isinstance(error, wire.Error)
    assert peer.close_code == CloseCode.BAD_FRAME


@pytest.mark.parametrize("name", ["", "x" * (limits.CLIENT_NAME_BYTES_MAX + 1), "é" * 200])
def test_a_client_has_a_name_within_bounds(name: str) -> None:
    peer = House().connect()
    (error,) = peer.say(wire.Hello(client=name))
    assert isinstance(error, wire.Error)
    assert error.path == "$[0].client"
    assert peer.close_code == CloseCode.BAD_FRAME


def test_messages_may_follow_hello_in_its_frame() -> None:
    welcome, stats = House().connect().say(wire.Hello(client="c"), wire.Stats(id=1, queue="mail"))
    assert isinstance(welcome, wire.Welcome)
    assert isinstance(stats, wire.StatsReport)


class Locked:
    """Only "good" gets in; it may produce to "mail" and nothing else."""

    def __init__(self) -> None:
        self.revoked = False
        self.version = 0
        self.wants_keys = True

    def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
        del now
        return Principal("alice") if key == "good" else Rejected(Code.UNAUTHENTICATED, "unknown key", "auth")

    def is_current(self, principal: Principal, now: Instant) -> bool:
        del principal, now
        return not self.revoked

    def is_allowed(self, principal: Principal, permission: str, queue: QueueName) -> bool:
        del principal
        return (permission, queue) == ("queue.produce", "mail")

    def is_allowed_in(self, principal: Principal, permission: str, partition: PartitionId) -> bool:
        del principal, permission, partition
        return False

    def may(self, principal: Principal, namespace: str, permission: str) -> bool:
        del principal, namespace, permission
        return False


def test_a_bad_key_is_not_welcome() -> None:
    peer = House(access=Locked()).connect()
    (error,) = peer.say(wire.Hello(client="c", auth="bad"))
    assert isinstance(error, wire.Error)
    assert error.code == "unauthenticated"
    assert peer.close_code == CloseCode.UNAUTHENTICATED


def test_a_key_may_come_with_the_handshake() -> None:
    peer = House(access=Locked()).connect(authorization="good")
    (welcome,) = peer.say(wire.Hello(client="c"))
    assert isinstance(welcome, wire.Welcome)


def test_what_is_not_permitted_is_denied() -> None:
    house = House("mail", "secret", access=Locked())
    peer = house.session(auth="good")
    answers = peer.say(
        wire.Produce(id=1, queue="mail", texts=["x"]),
        wire.Produce(id=2, queue="secret", texts=["x"]),
        wire.Reserve(id=3, queue="mail"),
        wire.Subscribe(id=4, queue="mail"),
        wire.Stats(id=5, queue="mail"),
        wire.Watch(id=6, queue="mail"),
        wire.Complete(id=7, token=token(1)),
        wire.Extend(id=8, token=token(1)),
    )
    codes = {m.id: m.code for m in answers if isinstance(m, wire.Rejected)}
    assert codes == dict.fromkeys(range(2, 9), "denied")
    assert house.broker.settles == []


def test_a_revoked_key_ends_the_session_at_its_next_ping() -> None:
    access = Locked()
    house = House(access=access)
    peer = house.session(auth="good")
    access.revoked = True
    for _ in range(20):
        house.registry.beat(house.clock.now())
    assert peer.close_code == CloseCode.UNAUTHENTICATED


def test_a_revoked_key_does_nothing_more() -> None:
    access = Locked()
    house = House("mail", access=access)
    peer = house.session(auth="good")
    access.revoked, access.version = True, 1
    assert peer.say(wire.Produce(id=1, queue="mail", payloads=[b"a"])) == []
    assert house.broker.produces == []
    assert peer.close_code == CloseCode.UNAUTHENTICATED


# -- produce --------------------------------------------------------------------------------------


@both
def test_produce_is_answered_when_it_is_committed(codec: Codec) -> None:
    house = House()
    house.broker.commits_at_once = False
    peer = house.session(codec)
    assert peer.say(wire.Produce(id=7, queue="mail", payloads=[b"a", b"b"])) == []
    house.broker.commit()
    assert peer.hear() == [wire.Produced(id=7, partition=1, first=1, count=2)]


def test_a_frame_is_one_turn_and_its_answers_one_message() -> None:
    house = House()
    peer = house.session()
    before = house.broker.turns
    peer.session.receive([JSON.encode([wire.Produce(id=n, queue="mail", texts=["x"]) for n in range(50)])])
    assert house.broker.turns == before + 1
    (frame,) = peer.hear_frames()
    assert [message.id for message in frame if isinstance(message, wire.Produced)] == list(range(50))


def test_all_attributes_reach_the_broker() -> None:
    house = House()
    house.session().say(
        wire.Produce(
            id=1,
            queue="mail",
            texts=["a", "b"],
            enqueue_at=[None, START + 5],
            encoding="utf-8",
            kind=["k", None],
            reference="r",
            headers={"x": "y"},
            key="key",
            dedupe_key=["d", "e"],
            reservation_timeout=[None, 30_000_000],
            attempts_max=3,
            producer="p",
            sequence=4,
        )
    )
    (command,) = house.broker.produces
    assert command.payloads == [b"a", b"b"]
    assert command.due_at == [0, START + 5]
    assert (command.producer, command.sequence) == ("p", 4)
    attributes = command.attributes
    assert attributes is not None
    assert (attributes.encoding, attributes.kind, attributes.headers) == ("utf-8", ["k", None], {"x": "y"})
    assert (attributes.key, attributes.dedupe_key, attributes.reference) == ("key", ["d", "e"], "r")
    assert (attributes.reservation_timeout, attributes.attempts_max) == ([None, 30_000_000], 3)


def _produce(**fields: object) -> wire.Produce:
    return wire.Produce(**{"id": 1, "queue": "mail", "texts": ["x"], **fields})  # type: ignore[arg-type]


AT_LIMIT = [
    _produce(queue="q" * limits.QUEUE_NAME_BYTES_MAX),
    _produce(texts=["x"] * limits.BATCH_ITEMS_MAX),
    _produce(texts=["x" * limits.PAYLOAD_BYTES_MAX]),
    _produce(key="k" * limits.KEY_BYTES_MAX),
    _produce(key=["é" * (limits.KEY_BYTES_MAX // 2)]),
    _produce(dedupe_key="k" * limits.DEDUPE_KEY_BYTES_MAX),
    _produce(kind="k" * limits.KIND_BYTES_MAX),
    _produce(encoding="k" * limits.ENCODING_BYTES_MAX),
    _produce(reference="k" * limits.REFERENCE_BYTES_MAX),
    _produce(headers={str(n): "" for n in range(limits.HEADERS_MAX)}),
    _produce(headers={"n": "v" * (limits.HEADERS_BYTES_MAX - 1)}),
    _produce(producer="p" * limits.PRODUCER_NAME_BYTES_MAX, sequence=wire.NUMBER_MAX),
    _produce(attempts_max=limits.ATTEMPTS_MAX_MAX),
    _produce(attempts_max=[1]),
    _produce(reservation_timeout=limits.RESERVATION_TIMEOUT_MAX),
    _produce(reservation_timeout=[limits.RESERVATION_TIMEOUT_MIN]),
    _produce(enqueue_at=limits.INSTANT_MAX),
    _produce(enqueue_at=[None]),
]

OVER_LIMIT = [
    (_produce(queue=""), "invalid", "queue"),
    (_produce(queue="q" * (limits.QUEUE_NAME_BYTES_MAX + 1)), "invalid", "queue"),
    (_produce(queue="é" * (limits.QUEUE_NAME_BYTES_MAX // 2 + 1)), "invalid", "queue"),
    (_produce(queue="nowhere"), "unknown_queue", "queue"),
    (_produce(texts=[]), "batch_empty", "texts"),
    (wire.Produce(id=1, queue="mail"), "batch_empty", "payloads"),
    (wire.Produce(id=1, queue="mail", payloads=[]), "batch_empty", "payloads"),
    (_produce(payloads=[b"y"]), "invalid", "texts"),
    (_produce(texts=["x"] * (limits.BATCH_ITEMS_MAX + 1)), "batch_too_large", "texts"),
    (_produce(texts=["x" * (limits.PAYLOAD_BYTES_MAX + 1)]), "payload_too_large", "texts"),
    (_produce(texts=["é" * (limits.PAYLOAD_BYTES_MAX // 2 + 1)]), "payload_too_large", "texts"),
    (_produce(key="k" * (limits.KEY_BYTES_MAX + 1)), "invalid", "key"),
    (_produce(key=["é" * (limits.KEY_BYTES_MAX // 2 + 1)]), "invalid", "key"),
    (_produce(key=["a", "b"]), "invalid", "key"),
    (_produce(dedupe_key="k" * (limits.DEDUPE_KEY_BYTES_MAX + 1)), "invalid", "dedupe_key"),
    (_produce(kind="k" * (limits.KIND_BYTES_MAX + 1)), "invalid", "kind"),
    (_produce(encoding="k" * (limits.ENCODING_BYTES_MAX + 1)), "invalid", "encoding"),
    (_produce(reference=["k" * (limits.REFERENCE_BYTES_MAX + 1)]), "invalid", "reference"),
    (_produce(headers={str(n): "" for n in range(limits.HEADERS_MAX + 1)}), "invalid", "headers"),
    (_produce(headers=[{"n": "v" * limits.HEADERS_BYTES_MAX}]), "invalid", "headers"),
    (_produce(headers=[]), "invalid", "headers"),
    (_produce(producer="p" * (limits.PRODUCER_NAME_BYTES_MAX + 1)), "invalid", "producer"),
    (_produce(producer="p"), "invalid", "sequence"),
    (_produce(dedupe_key=""), "invalid", "dedupe_key"),
    (_produce(dedupe_key=[""]), "invalid", "dedupe_key"),
    (_produce(sequence=1), "invalid", "sequence"),
    (_produce(attempts_max=limits.ATTEMPTS_MAX_MAX + 1), "invalid", "attempts_max"),
    (_produce(attempts_max=[0]), "invalid", "attempts_max"),
    (_produce(attempts_max=[]), "invalid", "attempts_max"),
    (_produce(reservation_timeout=limits.RESERVATION_TIMEOUT_MAX + 1), "invalid", "reservation_timeout"),
    (_produce(reservation_timeout=limits.RESERVATION_TIMEOUT_MIN - 1), "invalid", "reservation_timeout"),
    (_produce(reservation_timeout=-1), "invalid", "reservation_timeout"),
    (_produce(enqueue_at=-1), "invalid", "enqueue_at"),
    (_produce(enqueue_at=limits.INSTANT_MAX + 1), "invalid", "enqueue_at"),
    (_produce(enqueue_at=[-1]), "invalid", "enqueue_at"),
    (_produce(enqueue_at=[1, 2]), "invalid", "enqueue_at"),
    (_produce(partition=-1), "invalid", "partition"),
    (_produce(partition=2**32), "invalid", "partition"),
]


@pytest.mark.parametrize("message", AT_LIMIT)
def test_a_produce_at_a_limit_is_taken(message: wire.Produce) -> None:
    peer = House("mail", "q" * limits.QUEUE_NAME_BYTES_MAX).session(MSGPACK)
    (answer,) = peer.say(message)
    assert isinstance(answer, wire.Produced)


@pytest.mark.parametrize(("message", "code", "field"), OVER_LIMIT)
def test_a_produce_over_a_limit_names_the_field_and_changes_nothing(
    message: wire.Produce, code: str, field: str
) -> None:
    house = House()
    (answer,) = house.session(MSGPACK).say(message)
    assert isinstance(answer, wire.Rejected)
    assert (answer.id, answer.code, answer.field) == (1, code, field)
    assert answer.detail
    assert house.broker.produces == []


# -- subscribe and reserve ------------------------------------------------------------------------


@both
def test_a_subscription_is_pushed_what_is_ready(codec: Codec) -> None:
    house = House()
    house.broker.add("mail", b"a", b"b", b"\xff")
    subscribed, pushed = house.session(codec).say(wire.Subscribe(id=2, queue="mail", batch=2, window=2))
    assert subscribed == wire.Subscribed(id=2)
    assert pushed == wire.Reserved(
        token=token(1),
        queue="mail",
        partition=1,
        items=1,
        deadline=START + 60_000_000,
        payloads=[b"a", b"b"],
        push=1,
        subscription=2,
        attempts=[1, 1],
    )


def test_payloads_that_are_utf8_come_as_texts_when_asked_for() -> None:
    house = House()
    peer = house.session()
    peer.say(wire.Subscribe(id=2, queue="mail", texts=True, batch=1))
    house.broker.add("mail", "é".encode(), b"\xff")
    first, second = peer.hear()
    assert isinstance(first, wire.Reserved)
    assert isinstance(second, wire.Reserved)
    assert first.texts == ["é"]
    assert second.payloads == [b"\xff"]


def test_attributes_come_as_columns() -> None:
    house = House()
    peer = house.session()
    peer.say(
        _produce(texts=["a"], kind="k"),
        wire.Produce(id=2, queue="mail", texts=["b", "c"], headers={"x": "y"}),
    )
    (pushed,) = [
        m for m in peer.say(wire.Reserve(id=3, queue="mail", items=3)) if isinstance(m, wire.Reserved)
    ]
    assert pushed.kind == ["k", None, None]
    assert pushed.headers == [None, {"x": "y"}, {"x": "y"}]
    assert pushed.key is None


def test_a_reservation_of_scattered_items_lists_their_numbers() -> None:
    house = House()
    house.broker.add("mail", b"1", b"2", b"3", b"4")
    del house.broker.queues[QueueName("mail")].ready[1]
    (reserved,) = house.session().say(wire.Reserve(id=1, queue="mail", items=10))
    assert isinstance(reserved, wire.Reserved)
    assert reserved.items == [1, 3, 4]


def test_reserve_is_answered_once_and_numbered() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    (reserved,) = peer.say(wire.Reserve(id=9, queue="mail"))
    assert isinstance(reserved, wire.Reserved)
    assert (reserved.id, reserved.subscription, reserved.push) == (9, None, 1)


def test_reserve_of_nothing_is_empty_at_once() -> None:
    assert House().session().say(wire.Reserve(id=9, queue="mail")) == [wire.Empty(id=9)]


def test_reserve_waits_until_something_is_ready() -> None:
    house = House()
    peer = house.session()
    assert peer.say(wire.Reserve(id=9, queue="mail", wait=1_000_000)) == []
    assert house.broker.reserves[0].deadline == START + 1_000_000
    house.broker.add("mail", b"a")
    (reserved,) = peer.hear()
    assert isinstance(reserved, wire.Reserved)
    assert reserved.id == 9


def test_a_window_in_bytes_has_a_default() -> None:
    house = House()
    house.session().say(wire.Subscribe(id=1, queue="mail"))
    assert house.broker.subscribes[0].window_bytes == limits.WINDOW_BYTES_DEFAULT


def test_a_subscription_ends_when_asked() -> None:
    house = House()
    peer = house.session()
    assert peer.say(wire.Subscribe(id=1, queue="mail"), wire.Unsubscribe(id=2, subscription=1)) == [
        wire.Subscribed(id=1),
        wire.Unsubscribed(id=2),
    ]
    house.broker.add("mail", b"a")
    assert peer.hear() == []
    (again,) = peer.say(wire.Unsubscribe(id=3, subscription=1))
    assert isinstance(again, wire.Rejected)
    assert (again.code, again.field) == ("unknown_subscription", "subscription")


def test_a_push_decided_before_unsubscribe_still_arrives() -> None:
    house = House()
    house.broker.commits_at_once = False
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail"))
    house.broker.add("mail", b"a")
    peer.say(wire.Unsubscribe(id=2, subscription=1))
    house.broker.commit()
    (pushed,) = peer.hear()
    assert isinstance(pushed, wire.Reserved)
    assert pushed.subscription == 1


def test_an_id_that_is_in_use_is_refused() -> None:
    peer = House().session()
    peer.say(wire.Subscribe(id=1, queue="mail"), wire.Reserve(id=2, queue="mail", wait=1_000_000))
    for message in (
        wire.Subscribe(id=1, queue="mail"),
        wire.Reserve(id=1, queue="mail"),
        wire.Subscribe(id=2, queue="mail"),
        wire.Watch(id=2, queue="mail"),
    ):
        (answer,) = peer.say(message)
        assert isinstance(answer, wire.Rejected)
        assert (answer.code, answer.field) == ("invalid", "id")


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        (wire.Subscribe(id=1, queue="nowhere"), "unknown_queue", "queue"),
        (wire.Subscribe(id=1, queue="mail", window=0), "invalid", "window"),
        (wire.Subscribe(id=1, queue="mail", window=limits.WINDOW_ITEMS_MAX + 1), "invalid", "window"),
        (wire.Subscribe(id=1, queue="mail", window_bytes=-1), "invalid", "window_bytes"),
        (
            wire.Subscribe(id=1, queue="mail", window_bytes=limits.WINDOW_BYTES_MAX + 1),
            "invalid",
            "window_bytes",
        ),
        (wire.Subscribe(id=1, queue="mail", batch=0), "batch_empty", "batch"),
        (wire.Subscribe(id=1, queue="mail", batch=limits.BATCH_ITEMS_MAX + 1), "batch_too_large", "batch"),
        (wire.Subscribe(id=1, queue="mail", linger=-1), "invalid", "linger"),
        (wire.Subscribe(id=1, queue="mail", reservation_timeout=1), "invalid", "reservation_timeout"),
        (wire.Reserve(id=1, queue="mail", items=0), "batch_empty", "items"),
        (wire.Reserve(id=1, queue="mail", items=limits.BATCH_ITEMS_MAX + 1), "batch_too_large", "items"),
        (wire.Reserve(id=1, queue="mail", wait=-1), "invalid", "wait"),
        (wire.Reserve(id=1, queue="mail", wait=limits.RESERVE_WAIT_MAX + 1), "invalid", "wait"),
        (wire.Reserve(id=1, queue="mail", reservation_timeout=-5), "invalid", "reservation_timeout"),
        (wire.Reserve(id=1, queue=""), "invalid", "queue"),
        (wire.Stats(id=1, queue="nowhere"), "unknown_queue", "queue"),
        (wire.Watch(id=1, queue="nowhere"), "unknown_queue", "queue"),
        (wire.Watch(id=1, queue="mail", interval=limits.WATCH_INTERVAL_MIN - 1), "invalid", "interval"),
        (wire.Watch(id=1, queue="mail", interval=limits.WATCH_INTERVAL_MAX + 1), "invalid", "interval"),
        (wire.Unwatch(id=1, watch=5), "invalid", "watch"),
        (wire.Complete(id=1, token="nonsense"), "invalid", "token"),
        (wire.Complete(id=1, token=""), "invalid", "token"),
        (wire.Extend(id=1, token="x" * 1_000), "invalid", "token"),
        (wire.Extend(id=1, token=token(1), timeout=1), "invalid", "timeout"),
        (wire.Extend(id=1, token=token(1), timeout=limits.RESERVATION_TIMEOUT_MAX + 1), "invalid", "timeout"),
        (wire.Complete(id=1, token=token(1), ranges=[]), "batch_empty", "ranges"),
        (wire.Complete(id=1, token=token(1), ranges=[(0, 0)]), "invalid", "ranges"),
        (wire.Complete(id=1, token=token(1), ranges=[(-1, 1)]), "invalid", "ranges"),
        (wire.Complete(id=1, token=token(1), ranges=[(0, 2), (1, 1)]), "invalid", "ranges"),
        (wire.Complete(id=1, token=token(1), ranges=[(0, 2**40)]), "invalid", "ranges"),
        (
            wire.Complete(
                id=1, token=token(1), ranges=[(2 * n, 1) for n in range(limits.BATCH_ITEMS_MAX + 1)]
            ),
            "batch_too_large",
            "ranges",
        ),
        (wire.Retry(id=1, token=token(1), at=1, delay=1), "invalid", "delay"),
        (wire.Retry(id=1, token=token(1), delay=-1), "invalid", "delay"),
        (wire.Retry(id=1, token=token(1), at=-1), "invalid", "at"),
        (wire.Retry(id=1, token=token(1), at=limits.INSTANT_MAX + 1), "invalid", "at"),
        (wire.Dead(id=1, token=token(1), reason="r" * (limits.REASON_BYTES_MAX + 1)), "invalid", "reason"),
    ],
)
def test_a_bad_value_is_refused_by_its_field(message: wire.ClientMessage, code: str, field: str) -> None:
    house = House()
    (answer,) = house.session().say(message)
    assert isinstance(answer, wire.Rejected)
    assert (answer.id, answer.code, answer.field) == (1, code, field)
    assert answer.detail
    assert house.broker.settles == []


@pytest.mark.parametrize(
    "message",
    [
        wire.Subscribe(
            id=1,
            queue="mail",
            window=limits.WINDOW_ITEMS_MAX,
            window_bytes=limits.WINDOW_BYTES_MAX,
            batch=limits.BATCH_ITEMS_MAX,
            linger=limits.RESERVE_WAIT_MAX,
            reservation_timeout=limits.RESERVATION_TIMEOUT_MIN,
        ),
        wire.Watch(id=1, queue="mail", interval=limits.WATCH_INTERVAL_MIN),
        wire.Watch(id=1, queue="mail", interval=limits.WATCH_INTERVAL_MAX),
        wire.Reserve(
            id=1,
            queue="mail",
            items=limits.BATCH_ITEMS_MAX,
            reservation_timeout=limits.RESERVATION_TIMEOUT_MAX,
        ),
    ],
)
def test_a_value_at_its_limit_is_taken(message: wire.ClientMessage) -> None:
    answers = House().session().say(message)
    assert answers
    assert not any(isinstance(answer, wire.Rejected) for answer in answers)


def test_a_session_has_so_many_subscriptions_reserves_and_watches() -> None:
    peer = House().session()
    for base, make, most in (
        (10_000, lambda n: wire.Subscribe(id=n, queue="mail"), limits.SUBSCRIPTIONS_PER_SESSION_MAX),
        (20_000, lambda n: wire.Reserve(id=n, queue="mail", wait=1_000_000), limits.RESERVES_PER_SESSION_MAX),
        (30_000, lambda n: wire.Watch(id=n, queue="mail"), limits.WATCHES_PER_SESSION_MAX),
        (40_000, lambda n: wire.WatchItem(id=n, partition=1, item=1), 0),
    ):
        answers = peer.say(*(make(base + n) for n in range(most)))
        assert not any(isinstance(answer, wire.Rejected) for answer in answers)
        (refused,) = peer.say(make(base + most))
        assert isinstance(refused, wire.Rejected)
        assert refused.code == "limit_exceeded"


# -- settle ---------------------------------------------------------------------------------------


def test_every_verb_reaches_the_broker_as_it_was_meant() -> None:
    house = House()
    peer = house.session()
    t = token(5)
    peer.say(
        wire.Complete(id=1, token=t, ranges=[(0, 2), (4, 1)]),
        wire.Retry(id=2, token=t),
        wire.Retry(id=3, token=t, delay=0),
        wire.Retry(id=4, token=t, delay=7),
        wire.Retry(id=5, token=t, at=START + 9),
        wire.Release(id=6, token=t),
        wire.Dead(id=7, token=t, reason="broken"),
        wire.Extend(id=8, token=t, timeout=1_000_000),
    )
    commands = [settle for _, settle in house.broker.settles]
    assert [command.verb for command in commands] == [
        Verb.COMPLETE, Verb.RETRY, Verb.RETRY, Verb.RETRY, Verb.RETRY, Verb.RELEASE, Verb.DEAD, Verb.EXTEND,
    ]  # fmt: skip
    assert commands[0].ranges == ((0, 2), (4, 1))
    assert [command.due_at for command in commands[1:5]] == [BY_BACKOFF, 0, START + 7, START + 9]
    assert (commands[5].reason, commands[6].reason, commands[7].timeout) == ("client", "broken", 1_000_000)
    assert {
        (partition, command.nonce, command.reservation) for partition, command in house.broker.settles
    } == {(1, NONCE, 5)}


def test_a_stale_token_is_refused() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    (reserved,) = peer.say(wire.Reserve(id=1, queue="mail"))
    assert isinstance(reserved, wire.Reserved)
    for bad in (token(2), token(1, nonce=NONCE + 1), token(1, partition=9)):
        (answer,) = peer.say(wire.Complete(id=2, token=bad))
        assert isinstance(answer, wire.Rejected)
        assert answer.code == "reservation_lost"
    assert peer.say(wire.Complete(id=3, token=reserved.token)) == [wire.Settled(id=3, done=1)]
    assert peer.say(wire.Complete(id=4, token=reserved.token)) == [wire.Settled(id=4, done=0, repeated=True)]


def test_a_lost_reservation_is_told() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    (reserved,) = peer.say(wire.Reserve(id=1, queue="mail"))
    assert isinstance(reserved, wire.Reserved)
    house.broker.lose("mail", 1, "deadline")
    assert peer.hear() == [wire.Lost(token=reserved.token, why="deadline")]


# -- resume ---------------------------------------------------------------------------------------


def held_by(peer_welcome: wire.Welcome) -> dict[str, list[tuple[int, int]]]:
    return {held.token: held.remaining for held in peer_welcome.held}


def test_a_resumed_session_keeps_its_reservations_and_gets_unconfirmed_pushes_again() -> None:
    house = House()
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail", batch=2))
    house.broker.add("mail", b"a", b"b", b"c", b"d", b"e", b"f")
    first, second, third = (m for m in peer.hear() if isinstance(m, wire.Reserved))
    peer.say(wire.Confirm(push=first.push))
    peer.hang_up()
    assert house.broker.lost == [(peer.welcome.session, 1)]

    resumed = house.session(resume=peer.welcome.resume)
    assert (resumed.welcome.session, resumed.welcome.generation) == (peer.welcome.session, 2)
    assert held_by(resumed.welcome) == {m.token: [(0, 2)] for m in (first, second, third)}
    assert [held.subscription for held in resumed.welcome.held] == [None, 1, 1]
    again = [m for m in resumed.pushed_again if isinstance(m, wire.Reserved)]
    assert [(m.token, m.again, m.payloads, m.push, m.subscription) for m in again] == [
        (second.token, True, [b"c", b"d"], 4, 1),
        (third.token, True, [b"e", b"f"], 5, 1),
    ]
    assert resumed.say(wire.Complete(id=5, token=second.token)) == [wire.Settled(id=5, done=2)]


def test_hello_may_confirm() -> None:
    house = House()
    house.broker.add("mail", b"a", b"b")
    peer = house.session()
    peer.say(wire.Reserve(id=1, queue="mail"), wire.Reserve(id=2, queue="mail"))
    peer.hang_up()
    resumed = house.session(resume=peer.welcome.resume, confirmed=1)
    assert len(resumed.welcome.held) == 2
    (again,) = resumed.pushed_again
    assert isinstance(again, wire.Reserved)
    assert (again.id, again.again, again.payloads) == (2, True, [b"b"])


def test_what_was_partly_settled_is_not_pushed_again() -> None:
    house = House()
    house.broker.add("mail", b"a", b"b", b"c")
    peer = house.session()
    (reserved,) = peer.say(wire.Reserve(id=1, queue="mail", items=3))
    assert isinstance(reserved, wire.Reserved)
    peer.say(wire.Complete(id=2, token=reserved.token, ranges=[(1, 1)]))
    peer.hang_up()
    resumed = house.session(resume=peer.welcome.resume)
    assert held_by(resumed.welcome) == {reserved.token: [(0, 1), (2, 1)]}
    assert list(resumed.pushed_again) == []


def test_a_reservation_settled_elsewhere_in_part_is_pushed_again_in_parts() -> None:
    house = House()
    house.broker.add("mail", b"a", b"b", b"c", b"d")
    peer = house.session()
    peer.say(wire.Reserve(id=1, queue="mail", items=4))
    house.broker.queues[QueueName("mail")].reservations[1].items[1] = None
    peer.hang_up()
    first, last = house.session(resume=peer.welcome.resume).pushed_again
    assert isinstance(first, wire.Reserved)
    assert isinstance(last, wire.Reserved)
    assert (first.first, first.items, first.payloads, first.last) == (0, 1, [b"a"], False)
    assert (last.first, last.items, last.payloads, last.last) == (2, 3, [b"c", b"d"], True)
    assert first.push == last.push


def test_what_never_left_goes_back_without_blame() -> None:
    house = House()
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail"))
    house.broker.add("mail", b"a")
    peer.hang_up()
    ((partition, settle),) = house.broker.settles
    assert (partition, settle.verb, settle.reason, settle.nonce) == (1, Verb.RELEASE, "undelivered", NONCE)
    (item,) = house.broker.queues[QueueName("mail")].ready
    assert item.attempts == 0
    assert house.session(resume=peer.welcome.resume).welcome.held == []


def test_a_newer_connection_fences_the_older() -> None:
    house = House()
    old = house.session()
    old.say(wire.Subscribe(id=1, queue="mail"))
    house.broker.add("mail", b"a")
    old.hear()
    new = house.session(resume=old.welcome.resume)
    assert old.close_code == CloseCode.FENCED
    assert not old.session.is_open
    assert new.welcome.generation == 2
    assert len(new.pushed_again) == 1
    old.hang_up()
    assert house.broker.lost == []
    assert house.broker.resumed == [new.session]


def test_an_older_token_resumes_as_well() -> None:
    house = House()
    peer = house.session()
    second = house.session(resume=peer.welcome.resume)
    third = house.session(resume=peer.welcome.resume)
    assert [second.welcome.generation, third.welcome.generation] == [2, 3]
    assert third.welcome.session == peer.welcome.session


def test_a_token_resumes_at_a_node_that_never_saw_the_session() -> None:
    first, second = House(), House()
    peer = first.session()
    resumed = second.session(resume=peer.welcome.resume, confirmed=7)
    assert (resumed.welcome.session, resumed.welcome.generation) == (peer.welcome.session, 2)
    second.broker.add("mail", b"a")
    (reserved,) = resumed.say(wire.Reserve(id=1, queue="mail"))
    assert isinstance(reserved, wire.Reserved)
    assert reserved.push == 8


@pytest.mark.parametrize("resume", ["", "nonsense", "a.1." + "0" * 64])
def test_a_bad_resume_token_begins_a_new_session(resume: str) -> None:
    house = House()
    peer = house.session()
    other = house.session(resume=resume)
    assert other.welcome.session != peer.welcome.session
    assert other.welcome.generation == 1
    assert peer.close_code is None


def test_another_principal_cannot_resume() -> None:
    class Named(Locked):
        def authenticate(self, key: str, now: Instant) -> Principal | Rejected:
            return Principal(key)

    house = House(access=Named())
    peer = house.session(auth="alice")
    assert house.session(auth="bob", resume=peer.welcome.resume).welcome.session != peer.welcome.session
    assert house.session(auth="alice", resume=peer.welcome.resume).welcome.session == peer.welcome.session


def test_goodbye_releases_what_is_held() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    peer.say(wire.Reserve(id=1, queue="mail"))
    peer.hang_up(goodbye=True)
    assert house.broker.closed == [peer.session]
    assert house.broker.lost == []
    assert house.session(resume=peer.welcome.resume).welcome.held == []


def test_what_is_kept_for_a_lost_session_goes_after_the_grace() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    peer.say(wire.Reserve(id=1, queue="mail"))
    peer.hang_up()
    house.clock.at = Instant(START + house.registry.settings.grace + 1)
    house.registry.beat(house.clock.now())
    resumed = house.session(resume=peer.welcome.resume)
    assert list(resumed.pushed_again) == []
    assert len(resumed.welcome.held) == 1


def test_pushes_are_confirmed_or_the_session_ends() -> None:
    house = House()
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail", batch=1, window=limits.WINDOW_ITEMS_MAX))
    state = peer.session.state
    assert state is not None
    house.broker.add("mail", b"a")
    sample = next(iter(state.pushes.values()))
    for number in range(limits.PUSHES_UNCONFIRMED_MAX - 1):
        state.pushes[PartitionId(2), ReservationNumber(number + 1)] = sample
    assert peer.close_code is None
    house.broker.add("mail", b"b")
    assert peer.close_code == CloseCode.POLICY


# -- answers that are large or slow ---------------------------------------------------------------


def test_a_large_reservation_comes_in_parts() -> None:
    house = House()
    payloads = [bytes([n]) * 250_000 for n in range(40)]
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail", batch=40))
    house.broker.add("mail", *payloads)
    frames = peer.hear_frames()
    assert len(frames) > 1
    parts = [m for frame in frames for m in frame if isinstance(m, wire.Reserved)]
    assert all(len(JSON.encode(frame)) <= limits.MESSAGE_BYTES_MAX for frame in frames)
    assert [payload for part in parts for payload in part.payloads or ()] == payloads
    assert len({(part.token, part.push) for part in parts}) == 1
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    index = 0
    for part in parts:
        assert (part.first, part.items) == (index, index + 1)
        index += len(part.payloads or ())


def test_one_item_larger_than_a_message_is_sent_nevertheless() -> None:
    house = House()
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail"))
    house.broker.add("mail", b"x" * limits.MESSAGE_BYTES_MAX)
    (pushed,) = peer.hear()
    assert isinstance(pushed, wire.Reserved)
    assert peer.close_code is None


def test_a_client_that_reads_too_slowly_is_cut_off_and_bounded() -> None:
    house = House()
    peer = house.session(MSGPACK)
    peer.say(wire.Subscribe(id=1, queue="mail", batch=4, window=1_000))
    for _ in range(100):
        house.broker.add("mail", *([b"x" * 250_000] * 4))
        assert peer.session.outbox.bytes_waiting <= limits.OUTBOX_BYTES_MAX
    assert peer.close_code == CloseCode.TOO_SLOW
    assert peer.session.outbox.is_cut_off
    assert peer.session.outbox.bytes_waiting == 0


def test_an_outbox_takes_what_its_limit_says() -> None:
    house = House()
    peer = house.session(MSGPACK)
    peer.say(wire.Subscribe(id=1, queue="mail", batch=1, window=1_000))
    size = 250_000
    house.broker.add("mail", b"x" * size)
    each = peer.session.outbox.bytes_waiting
    while peer.session.outbox.bytes_waiting + each <= limits.OUTBOX_BYTES_MAX:
        house.broker.add("mail", b"x" * size)
        assert peer.close_code is None
    house.broker.add("mail", b"x" * size)
    assert peer.close_code == CloseCode.TOO_SLOW


# -- bad frames -----------------------------------------------------------------------------------


def test_a_faulty_message_is_answered_by_its_id_and_the_others_are_done() -> None:
    house = House()
    peer = house.session()
    answers = peer.say_raw(
        '[{"type":"produce","id":1,"queue":"mail","texts":["a"]},'
        '{"type":"produce","id":2,"queue":"mail","texts":"a"},'
        '{"type":"produce","id":3,"queue":"mail","texts":["b"]}]'
    )
    error, first, second = answers
    assert isinstance(error, wire.Error)
    assert (error.id, error.code, error.path) == (2, "invalid", "$[1].texts")
    assert [m.id for m in (first, second) if isinstance(m, wire.Produced)] == [1, 3]
    assert peer.close_code is None


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '[{"type":"stats"}', "[[[[[[", "null", '"x"'])
def test_a_frame_that_cannot_be_read_ends_the_connection(text: str) -> None:
    peer = House().session()
    (error,) = peer.say_raw(text)
    assert isinstance(error, wire.Error)
    assert peer.close_code == CloseCode.BAD_FRAME


def test_what_came_before_an_unreadable_frame_is_done() -> None:
    house = House()
    peer = house.session()
    peer.say_raw(JSON.encode([_produce()]), "nonsense", JSON.encode([_produce(id=2)]))
    assert len(house.broker.produces) == 1
    assert peer.close_code == CloseCode.BAD_FRAME


def test_the_wrong_kind_of_message_ends_the_connection() -> None:
    text, binary = House().session(JSON), House().session(MSGPACK)
    text.say_raw(b"[]")
    binary.say_raw("[]")
    assert text.close_code == binary.close_code == CloseCode.WRONG_DATA


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from([m.__struct_config__.tag for m in wire.ClientMessage.__args__])},
            optional={
                name: st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3)
                | st.lists(st.integers(-1, 3) | st.text(max_size=2), max_size=3)
                for name in ("id", "queue", "token", "items", "ranges", "texts", "push", "subscription", "at")
            },
        ),
        max_size=6,
    )
)  # fmt: skip
def test_no_message_breaks_a_session(messages: list[dict[str, object]]) -> None:
    import msgspec

    peer = House().session()
    peer.say_raw(msgspec.json.encode(messages).decode())
    assert peer.close_code in (None, CloseCode.BAD_FRAME)


# -- watches, calls, drain, pings -----------------------------------------------------------------


def test_a_watch_reports_at_each_interval_until_it_ends() -> None:
    house = House()
    peer = house.session()
    watching, report = peer.say(wire.Watch(id=4, queue="mail", interval=1_000_000))
    assert watching == wire.Watching(id=4)
    assert isinstance(report, wire.StatsReport)
    reports = 0
    for _ in range(12):
        house.clock.at = Instant(house.clock.at + 250_000)
        house.registry.beat(house.clock.now())
        reports += len(peer.hear())
    assert reports == 3
    assert peer.say(wire.Unwatch(id=5, watch=4)) == [wire.Unwatched(id=5)]
    house.clock.at = Instant(house.clock.at + 2_000_000)
    house.registry.beat(house.clock.now())
    assert peer.hear() == []
    assert house.registry.watching == {}


def test_a_watch_does_not_ask_again_before_it_is_answered() -> None:
    house = House()
    house.broker.commits_at_once = False
    peer = house.session()
    peer.say(wire.Watch(id=4, queue="mail"))
    for _ in range(20):
        house.clock.at = Instant(house.clock.at + 1_000_000)
        house.registry.beat(house.clock.now())
    house.broker.commit()
    assert len(peer.hear()) == 1


def test_calls_are_bounded() -> None:
    house = House()
    peer = house.session()
    calls = [wire.Call(id=n, method="m") for n in range(limits.CALLS_PER_SESSION_MAX + 1)]
    (refused,) = peer.say(*calls)
    assert isinstance(refused, wire.Rejected)
    assert (refused.id, refused.code) == (limits.CALLS_PER_SESSION_MAX, "overloaded")
    assert len(house.calls) == limits.CALLS_PER_SESSION_MAX
    peer.session.answer_call(0, Rejected(Code.INVALID, "no"))
    assert peer.say(wire.Call(id=99, method="m")) == [wire.Rejected(id=0, code="invalid", detail="no")]
    assert house.calls[-1].id == 99


def test_params_of_a_call_are_bounded() -> None:
    peer = House().session()
    at_limit = peer.codec.encode_value("x" * (limits.CALL_PARAMS_BYTES_MAX - 2))
    over = peer.codec.encode_value("x" * (limits.CALL_PARAMS_BYTES_MAX - 1))
    assert peer.say(wire.Call(id=1, method="m", params=at_limit)) == []
    (refused,) = peer.say(wire.Call(id=2, method="m", params=over))
    assert isinstance(refused, wire.Rejected)
    assert refused.field == "params"


def test_an_answer_too_large_for_a_message_is_refused() -> None:
    peer = House().session()
    peer.say(wire.Call(id=1, method="m"))
    peer.session.answer_call(1, peer.codec.encode_value("x" * limits.MESSAGE_BYTES_MAX))
    (refused,) = peer.hear()
    assert isinstance(refused, wire.Rejected)
    assert (refused.id, refused.code) == (1, "limit_exceeded")


def test_a_draining_server_pushes_nothing_takes_settlements_and_refuses_new_work() -> None:
    house = House()
    house.broker.add("mail", b"a")
    peer = house.session()
    peer.say(wire.Subscribe(id=1, queue="mail", window=5))
    house.registry.drain(Instant(START + 10), "there:1")
    assert peer.hear() == [wire.GoingAway(deadline=START + 10, to="there:1")]
    house.broker.add("mail", b"b")
    assert peer.hear() == []
    answers = peer.say(_produce(id=2), wire.Reserve(id=3, queue="mail"), wire.Complete(id=4, token=token(1)))
    assert {m.id: m.code for m in answers if isinstance(m, wire.Rejected)} == {
        2: "shutting_down",
        3: "shutting_down",
    }
    assert wire.Settled(id=4, done=1) in answers


def test_a_draining_server_welcomes_nobody() -> None:
    house = House()
    house.registry.drain(START)
    peer = house.connect()
    peer.say(wire.Hello(client="c"))
    assert peer.close_code == CloseCode.GOING_AWAY


def beats(house: House, seconds: float) -> None:
    for _ in range(round(seconds * 4)):
        house.clock.at = Instant(house.clock.at + 250_000)
        house.registry.beat(house.clock.now())


def test_a_silent_client_is_pinged_and_then_closed() -> None:
    house = House()
    peer = house.session()
    beats(house, 5)
    assert peer.session.outbox.take_control() == [b"\x89\x00"]
    beats(house, 5)
    assert peer.close_code is None
    beats(house, 5)
    assert peer.close_code == CloseCode.PING_TIMEOUT


def test_a_client_that_gives_signs_of_life_stays() -> None:
    house = House()
    peer = house.session()
    for _ in range(10):
        beats(house, 5)
        peer.session.is_heard = True
    assert peer.close_code is None
    assert len(peer.session.outbox.take_control()) == 10


def test_pings_turn_no_turn() -> None:
    """Keep-alive asks nothing of the broker, so it writes nothing."""
    house = House()
    peers = [house.session() for _ in range(10)]
    before = house.broker.turns
    for _ in range(5):
        beats(house, 5)
        for peer in peers:
            peer.session.is_heard = True
    assert house.broker.turns == before


def test_a_push_that_nobody_takes_over_is_kept_no_longer_than_its_deadline() -> None:
    """Pings that a library answers do not say that the worker behind it lives; to confirm does."""
    house = House()
    peers = [house.session() for _ in range(2)]
    for peer in peers:
        peer.say(wire.Subscribe(id=1, queue="mail", batch=1, window=1))
    said = peers[0].say(wire.Produce(id=2, queue="mail", payloads=[b"a", b"b"]))
    pushed = [message for message in said + peers[1].hear() if isinstance(message, wire.Reserved)]
    peers[0].say(wire.Confirm(push=pushed[0].push))
    token = decode_token(pushed[1].token)
    assert token is not None
    for seconds, ended in ((55, set()), (10, {token[2]})):
        for _ in range(seconds):
            beats(house, 1)
            for peer in peers:
                peer.session.is_heard = True
        assert {reservation for _, reservation in house.broker.unconfirmed_ends} == ended


def test_counters_come_back_to_zero() -> None:
    house = House()
    peers = [house.session() for _ in range(3)]
    for peer in peers:
        peer.say(wire.Subscribe(id=1, queue="mail"))
    assert (house.registry.counters.sessions_now, house.registry.counters.subscriptions_now) == (3, 3)
    house.session(resume=peers[0].welcome.resume).hang_up()
    for peer in peers:
        peer.hang_up()
    assert (house.registry.counters.sessions_now, house.registry.counters.subscriptions_now) == (0, 0)
    assert house.registry.sessions == []
