"""Never vacuous: what must have happened at least once in a campaign, or it has shown nothing."""

from collections.abc import Mapping
from typing import Final

SOMETIMES: Final = (
    "node.crashed",
    "node.paused",
    "node.stopped",
    "node.drained",
    "node.isolated",
    "node.hidden",
    "node.all_crashed",
    "owner.took_over",
    "owner.handed_over",
    "owner.stale_resumed",
    "server.killed",
    "partition.stolen",
    "link.cut",
    "link.held",
    "commit.slow",
    "commit.unavailable",
    "commit.unknown_lost",
    "commit.unknown_late",
    "commit.unknown_kept",
    "snapshot.asked",
    "snapshot.rotten",
    "state.seen",
    "consumer.vanished",
    "hostile.forged",
    "hostile.stolen",
    "produce.duplicate",
    "reserve.nothing",
    "settle.complete",
    "settle.retry",
    "settle.release",
    "settle.dead",
    "settle.extend",
    "settle.lost",
    "item.due",
    "item.expired",
    "item.ended",
    "item.died",
    "item.moved",
    "item.retried",
    "item.released",
    "log.SessionResumed",
    "log.PayloadsCarried",
    "log.ReservationExtended",
    "querator.node.lapsed",
    "querator.node.stepped_down",
    "querator.bucket.opened",
    "querator.bucket.dropped",
    "querator.partition.lost",
    "querator.partition.unavailable",
    "querator.snapshot.damaged",
    "querator.snapshot.taken",
    "querator.log.append.failed",
)


def missing(marks: Mapping[str, int]) -> list[str]:
    """What never happened."""
    return [name for name in SOMETIMES if not marks.get(name)]
