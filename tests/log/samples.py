"""One instance of every kind of event, with something in every field; and strategies for any of them."""

from typing import Any, Final

from hypothesis import strategies as st

from querator.core import events as ev
from querator.core.ids import Instant, ItemNumber, PartitionId, ReservationNumber, SessionId

AT: Final = Instant(1_750_000_000_123_456)

SAMPLES: Final[tuple[ev.Event, ...]] = (
    ev.TurnStarted(AT),
    ev.Claimed("node-1", 2**63 - 1, 3, 41, "7380000000000000001/1"),
    ev.ItemsProduced(
        ItemNumber(1_000_001),
        3,
        Instant(AT + 60_000_000),
        Instant(AT + 3_600_000_000),
        ev.Attributes(
            encoding="json",
            kind=["invoice", "invoice", "reminder"],
            reference=["r-1", None, "r-3"],
            headers={"trace": "00-4bf9", "språk": "sv"},
            key=["a", "b", "a"],
            dedupe_key=[None, "once", None],
            reservation_timeout=30_000_000,
            attempts_max=[5, None, 1],
            source_id="28Wb",
            attempts=[0, 1, 2],
            produced_at=Instant(AT - 1),
            expires_at=[AT, None, None],
        ),
        "producer-7",
        12,
        [b"one", b"", b"three \xff"],
        1,
        ((0, 17), (2, 9)),
    ),
    ev.ItemsReserved(
        2, ItemNumber(1_000_001), SessionId("s-1"), 4, Instant(AT + 60_000_000), Instant(AT + 1)
    ),
    ev.ItemsCompleted(ReservationNumber(70_001), ((0, 1), (5, 20))),
    ev.ItemsRetried(ReservationNumber(70_002), None, Instant(AT + 5)),
    ev.ItemsReleased(ReservationNumber(70_003), ((1, 1),), "going_away"),
    ev.ReservationEnded(ReservationNumber(70_004), None, "deadline"),
    ev.ItemsDied(ReservationNumber(70_005), ((0, 2),), "no such customer", "retried"),
    ev.ReservationExtended(ReservationNumber(70_006), Instant(AT + 9), Instant(AT + 10)),
    ev.SessionResumed(SessionId("s-1"), 5),
    ev.ItemsDue(17),
    ev.ItemsExpired(((1, 5), (9, 1))),
    ev.ItemsCleared(True, False, True, False, "ops@example"),
    ev.ItemsDeleted(((4, 1),), "ops@example"),
    ev.ItemsRedriven(((4, 1), (6, 2)), "ops@example"),
    ev.ItemsMoved(((8, 2),), PartitionId(99), 1_234),
    ev.ItemsReceived(PartitionId(98), 1_235, 2),
    ev.ItemsPruned(((2, 3),)),
    ev.PolicyApplied(7, b'{"attempts_max":3}', "ops@example"),
    ev.PartitionPaused("ops@example"),
    ev.PartitionResumed("ops@example"),
    ev.PayloadsCarried(((1, 2),), [b"carried", b"also"]),
    ev.BucketOpened(12),
    ev.ClockStepped(-3_600_000_000),
    ev.CatalogChanged(b'{"queue":"mail"}'),
    ev.LossAccepted("ops@example", 4_711),
    ev.ItemsSentBack(((3, 2), (8, 1)), PartitionId(98), "ops@example"),
    ev.ItemsCameBack(PartitionId(99), 77, 3),
    ev.MovesGivenUp(((3, 1),), PartitionId(98)),
)

# --- Any event -----------------------------------------------------------------------------------

integers = st.integers(-(2**63), 2**63 - 1)
naturals = st.integers(0, 2**63 - 1) | st.integers(0, 300)
instants = (naturals | st.integers(AT, AT + 10_000_000)).map(Instant)
texts = st.text(max_size=12) | st.sampled_from(["", "a", "session-1", "deadline"])
pairs = st.lists(st.tuples(naturals, naturals), max_size=3).map(tuple)
ranges = st.none() | pairs
blobs = st.binary(max_size=20)
headers = st.dictionaries(texts, texts, max_size=3)

_VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "headers": headers,
    "reservation_timeout": naturals,
    "attempts_max": naturals,
    "attempts": naturals,
    "produced_at": instants,
    "expires_at": instants,
}


def column(value: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[Any]:
    """Absent, constant, full or with holes."""
    return (
        st.none()
        | value
        | st.lists(value, min_size=count, max_size=count)
        | st.lists(st.none() | value, min_size=count, max_size=count)
    )


@st.composite
def attributes(draw: st.DrawFn, count: int) -> ev.Attributes:
    names = ev.Attributes.__attrs_attrs__
    return ev.Attributes(
        **{field.name: draw(column(_VALUES.get(field.name, texts), count)) for field in names}
    )


@st.composite
def produced(draw: st.DrawFn) -> ev.ItemsProduced:
    count = draw(st.integers(1, 5))
    return ev.ItemsProduced(
        ItemNumber(draw(naturals)),
        count,
        draw(instants),
        draw(instants),
        draw(st.none() | attributes(count)),
        draw(texts),
        draw(naturals),
        draw(st.lists(blobs, min_size=count, max_size=count)),
        draw(st.integers(0, 1)),
        draw(pairs),
    )


@st.composite
def carried(draw: st.DrawFn) -> ev.PayloadsCarried:
    counts = draw(st.lists(st.integers(1, 3), max_size=3))
    total = sum(counts)
    return ev.PayloadsCarried(
        tuple((draw(naturals), count) for count in counts),
        draw(st.lists(blobs, min_size=total, max_size=total)),
    )


STRATEGIES: Final[dict[type[Any], st.SearchStrategy[ev.Event]]] = {
    ev.TurnStarted: st.builds(ev.TurnStarted, instants),
    ev.Claimed: st.builds(ev.Claimed, texts, naturals, naturals, naturals, texts),
    ev.ItemsProduced: produced(),
    ev.ItemsReserved: st.builds(ev.ItemsReserved, naturals, naturals, texts, naturals, instants, instants),
    ev.ItemsCompleted: st.builds(ev.ItemsCompleted, naturals, ranges),
    ev.ItemsRetried: st.builds(ev.ItemsRetried, naturals, ranges, instants),
    ev.ItemsReleased: st.builds(ev.ItemsReleased, naturals, ranges, texts),
    ev.ReservationEnded: st.builds(ev.ReservationEnded, naturals, ranges, texts),
    ev.ItemsDied: st.builds(ev.ItemsDied, naturals, ranges, texts, texts),
    ev.ReservationExtended: st.builds(ev.ReservationExtended, naturals, instants, instants),
    ev.SessionResumed: st.builds(ev.SessionResumed, texts, naturals),
    ev.ItemsDue: st.builds(ev.ItemsDue, naturals),
    ev.ItemsExpired: st.builds(ev.ItemsExpired, pairs),
    ev.ItemsCleared: st.builds(ev.ItemsCleared, *[st.booleans()] * 4, texts),
    ev.ItemsDeleted: st.builds(ev.ItemsDeleted, pairs, texts),
    ev.ItemsRedriven: st.builds(ev.ItemsRedriven, pairs, texts),
    ev.ItemsSentBack: st.builds(ev.ItemsSentBack, pairs, naturals.map(PartitionId), texts),
    ev.ItemsCameBack: st.builds(ev.ItemsCameBack, naturals.map(PartitionId), naturals, naturals),
    ev.MovesGivenUp: st.builds(ev.MovesGivenUp, pairs, naturals.map(PartitionId)),
    ev.ItemsMoved: st.builds(ev.ItemsMoved, pairs, naturals, naturals),
    ev.ItemsReceived: st.builds(ev.ItemsReceived, naturals, naturals, naturals),
    ev.ItemsPruned: st.builds(ev.ItemsPruned, pairs),
    ev.PolicyApplied: st.builds(ev.PolicyApplied, naturals, blobs, texts),
    ev.PartitionPaused: st.builds(ev.PartitionPaused, texts),
    ev.PartitionResumed: st.builds(ev.PartitionResumed, texts),
    ev.PayloadsCarried: carried(),
    ev.BucketOpened: st.builds(ev.BucketOpened, naturals),
    ev.ClockStepped: st.builds(ev.ClockStepped, integers),
    ev.CatalogChanged: st.builds(ev.CatalogChanged, blobs),
    ev.LossAccepted: st.builds(ev.LossAccepted, texts, naturals),
}

events: Final = st.one_of(list(STRATEGIES.values()))
