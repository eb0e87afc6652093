"""Events in words."""

import pytest

from querator.core import events as ev
from querator.core.ids import Instant, PartitionId, Position
from querator.log.codec import GENESIS, seal
from querator.log.show import describe, lines, moment, runs, show
from tests.log.samples import AT, SAMPLES

WORDS = {
    ev.TurnStarted: "turn at 2025-06-15T15:06:40.123456Z",
    ev.Claimed: "claimed by node-1 behind record 41 (incarnation 3, nonce 7fffffffffffffff, "
    "server 7380000000000000001/1)",
    ev.ItemsProduced: "produced 3 items 1000001-1000003, due 2025-06-15T15:07:40.123456Z, "
    "expiring 2025-06-15T16:06:40.123456Z, by producer-7 #12, with encoding, kind, reference, headers, key, "
    "dedupe_key, reservation_timeout, attempts_max, source_id, attempts, produced_at, expires_at, "
    "2 more known already",
    ev.ItemsReserved: "reserved 2 items from 1000001 for session s-1/4, "
    "deadline 2025-06-15T15:07:40.123456Z, held until 2025-06-15T15:06:40.123457Z",
    ev.ItemsCompleted: "completed 0, 5-24 of reservation 70001",
    ev.ItemsRetried: "retried the rest of reservation 70002, due 2025-06-15T15:06:40.123461Z",
    ev.ItemsReleased: "released 1 of reservation 70003 (going_away)",
    ev.ReservationEnded: "ended the rest of reservation 70004 (deadline)",
    ev.ItemsDied: "dead 0-1 of reservation 70005 (retried): no such customer",
    ev.ReservationExtended: "extended reservation 70006 to 2025-06-15T15:06:40.123465Z, "
    "held until 2025-06-15T15:06:40.123466Z",
    ev.SessionResumed: "session s-1 resumed as generation 5",
    ev.ItemsDue: "17 items became due",
    ev.ItemsExpired: "expired items 1-5, 9",
    ev.ItemsCleared: "cleared all ready, reserved by ops@example",
    ev.ItemsDeleted: "deleted items 4 by ops@example",
    ev.ItemsRedriven: "redrove items 4, 6-7 by ops@example",
    ev.ItemsMoved: "moved items 8-9 to partition 99, up to move 1234",
    ev.ItemsReceived: "received 2 items from partition 98, up to move 1235",
    ev.ItemsSentBack: "sent items 3-4, 8 back to partition 98 by ops@example",
    ev.ItemsCameBack: "3 items came back from partition 99, up to move 77",
    ev.MovesGivenUp: "partition 98 is gone: items 3 stay here",
    ev.ItemsPruned: "pruned dead items 2-4",
    ev.PolicyApplied: 'policy version 7 applied by ops@example: {"attempts_max":3}',
    ev.PartitionPaused: "paused by ops@example",
    ev.PartitionResumed: "resumed by ops@example",
    ev.PayloadsCarried: "carried payloads of items 1-2",
    ev.BucketOpened: "the next record is in bucket 12",
    ev.ClockStepped: "the wall clock was off by -3600.000000 s",
    ev.LossAccepted: "a suspected loss was accepted by ops@example; record 4711 had been there",
    ev.CatalogChanged: 'catalog: {"queue":"mail"}',
}


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_has_its_words(event: ev.Event) -> None:
    assert describe(event) == WORDS[type(event)]


def test_what_is_absent_is_not_said() -> None:
    assert describe(ev.Claimed("n", 1, 1, 0, "")) == "claimed by n behind record 0 (incarnation 1, nonce 1)"
    assert describe(ev.PartitionPaused("")) == "paused"
    assert describe(ev.ItemsCleared(False, False, False, False, "")) == "cleared all nothing"
    assert runs(()) == "none"


def test_a_line_has_the_time_of_its_turn() -> None:
    later = Instant(AT + 5)
    events: list[ev.Event] = [
        ev.ItemsDue(1),
        ev.TurnStarted(AT),
        ev.ItemsDue(2),
        ev.TurnStarted(later),
        ev.ItemsDue(3),
    ]
    record = seal(PartitionId(3), Position(9), GENESIS, 1, AT, events)
    assert [(line.position, line.at, line.name) for line in lines(record)] == [
        (9, 0, "ItemsDue"),
        (9, AT, "ItemsDue"),
        (9, later, "ItemsDue"),
    ]


def test_records_are_headings_and_events_stand_below() -> None:
    record = seal(PartitionId(3), Position(9), GENESIS, 1, AT, [SAMPLES[2], ev.ItemsDue(1)])
    heading, produced, due = show([record])
    assert heading.startswith(
        "record 9 of partition 3, written 2025-06-15T15:06:40.123456Z, items 1000001-1000003 ("
    )
    assert produced.startswith("  -  produced 3 items")
    assert due == "  -  1 item became due"
    record.payload = None
    assert "payloads not read" in next(show([record]))


def test_moments_are_shown_to_the_microsecond() -> None:
    assert moment(0) == "-"
    assert moment(1) == "1970-01-01T00:00:00.000001Z"
    assert moment(2**62) == f"{2**62} µs"
