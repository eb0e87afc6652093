"""One full and one minimal value of every message, from which the golden frames were written."""

from typing import Final

from querator.protocol import messages as wire
from querator.protocol.codec import Codec

TOKEN: Final = "AQAAAAcAAAAASZYC0gAAAAAAAAAq"


def client_samples(codec: Codec) -> list[wire.ClientMessage]:
    """In the order of the specification."""
    return [
        wire.Hello(client="worker-1", resume="s.3.ab", auth="key", confirmed=17),
        wire.Produce(
            id=1,
            queue="mail",
            payloads=[b"one", b"\x00\xff"],
            enqueue_at=[1_790_000_000_000_000, None],
            encoding="utf-8",
            kind=["a", None],
            reference="r",
            headers={"x": "y"},
            key="customer-7",
            dedupe_key=["d1", "d2"],
            reservation_timeout=30_000_000,
            attempts_max=[3, None],
            producer="p-1",
            sequence=9,
            partition=7,
        ),
        wire.Subscribe(
            id=2,
            queue="mail",
            window=500,
            window_bytes=1_048_576,
            batch=50,
            linger=1_000,
            reservation_timeout=60_000_000,
            held=False,
            texts=True,
        ),
        wire.Unsubscribe(id=3, subscription=2),
        wire.Reserve(
            id=4, queue="mail", items=10, wait=5_000_000, reservation_timeout=1_000_000, held=True, texts=True
        ),
        wire.Complete(id=5, token=TOKEN, ranges=[(0, 3), (7, 1)]),
        wire.Retry(id=6, token=TOKEN, ranges=[(0, 1)], at=1_790_000_000_000_000),
        wire.Release(id=7, token=TOKEN, ranges=[(1, 1)]),
        wire.Dead(id=8, token=TOKEN, reason="malformed", ranges=[(2, 1)]),
        wire.Extend(id=9, token=TOKEN, timeout=60_000_000),
        wire.Confirm(push=12),
        wire.Stats(id=10, queue="mail"),
        wire.Watch(id=11, queue="mail", interval=500_000),
        wire.WatchItem(id=14, partition=1, item=17),
        wire.Unwatch(id=12, watch=11),
        wire.Call(id=13, method="queues.info", params=codec.encode_value({"name": "mail"})),
    ]


def server_samples(codec: Codec) -> list[wire.ServerMessage]:
    """In the order of the specification."""
    return [
        wire.Welcome(
            session="3f9a",
            generation=4,
            resume="3f9a.4.cd",
            server_time=1_790_000_000_000_000,
            ping_interval=5_000_000,
            grace=5_000_000,
            limits={"batch_items": 1_000},
            held=[
                wire.Held(
                    token=TOKEN,
                    queue="mail",
                    partition=7,
                    remaining=[(0, 10)],
                    deadline=1_790_000_060_000_000,
                    subscription=2,
                )
            ],
        ),
        wire.Produced(id=1, partition=7, first=41, count=2, numbers=[41, 12], duplicates=[1], repeated=True),
        wire.Subscribed(id=2),
        wire.Unsubscribed(id=3),
        wire.Reserved(
            token=TOKEN,
            queue="mail",
            partition=7,
            items=[41, 43],
            deadline=1_790_000_060_000_000,
            payloads=[b"one", b"\x00\xff"],
            first=2,
            push=13,
            subscription=2,
            id=4,
            last=False,
            attempts=[1, 2],
            run_until=1_790_003_600_000_000,
            encoding="utf-8",
            kind=["a", None],
            reference="r",
            headers={"x": "y"},
            key="customer-7",
            again=True,
        ),
        wire.Empty(id=4),
        wire.Settled(id=5, done=9, refused=[(3, "reservation_lost")], repeated=True),
        wire.Extended(id=9, deadline=1_790_000_060_000_000, run_until=1_790_003_600_000_000),
        wire.Lost(token=TOKEN, why="deadline"),
        wire.GoingAway(deadline=1_790_000_010_000_000, to="127.0.0.1:2320"),
        wire.Rejected(id=1, code="unknown_queue", detail="there is no queue 'mial'", field="queue"),
        wire.Error(code="invalid", detail="Expected `int`, got `str`", path="$[0].items", id=4),
        wire.StatsReport(
            id=10, queue="mail", partitions=[{"partition": 7, "ready": 3}], subscriptions=2, parked=1
        ),
        wire.Watching(id=11),
        wire.Step(
            id=14,
            position=9,
            at=1_790_000_060_000_000,
            what="completed",
            text="completed",
            details={"reservation": 77, "ranges": None, "state": "gone", "attempts": 0},
        ),
        wire.Unwatched(id=12),
        wire.Result(id=13, value=codec.encode_value({"name": "mail"})),
    ]
