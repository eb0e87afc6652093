"""What a stretch of traffic was like. The same code measures what was recorded and what is simulated."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import attrs

from querator.core import events as ev
from querator.core.commands import Verb
from querator.core.evolve import evolve
from querator.core.ids import Duration, Instant
from querator.core.line import Run
from querator.core.state import PartitionState, Reservation

POINTS: Final = 240
"""Of a line over time."""
PERCENTILES: Final = (50, 90, 99)
SESSION_LOST: Final = 7
"""A way to end beside the verbs: with the session. The others are the numbers of ``Verb``."""
TAKEN: Final = 8
"""An attempt at an item that was cleared or deleted meanwhile: how it would have ended is not known."""
RETRY_UNLIMITED: Final = 9
"""A retry beyond the limit of attempts, which the door that names items by place does not look at."""
OPEN: Final = 0
"""An attempt that had not ended when the recording did."""


def _zeros() -> list[int]:
    return [0] * POINTS


def _arrays() -> "list[array[int]]":
    return [array("q") for _ in range(POINTS)]


@attrs.define
class Timeline:
    """What was when: at ``POINTS`` moments, from ``began`` to ``ended``, the last one included."""

    began: Instant
    ended: Instant
    waiting: list[int] = attrs.field(factory=_zeros)
    """Items that were ready or scheduled."""
    reserved: list[int] = attrs.field(factory=_zeros)
    dead: list[int] = attrs.field(factory=_zeros)
    """Died so far; and likewise."""
    retried: list[int] = attrs.field(factory=_zeros)
    duplicates: list[int] = attrs.field(factory=_zeros)
    waits: "list[array[int]]" = attrs.field(factory=_arrays)
    """Of the deliveries since the moment before, from ready to reserved."""
    works: "list[array[int]]" = attrs.field(factory=_arrays)
    """Of what was completed since then, from reserved to completed."""

    def moment(self, point: int) -> int:
        return self.began + (self.ended - self.began) * point // (POINTS - 1)


@attrs.define
class Measures:
    """Of all partitions of a queue together. Times in microseconds."""

    timeline: Timeline
    produced: int = 0
    completed: int = 0
    deliveries: int = 0
    retried: int = 0
    released: int = 0
    ended: int = 0
    """Deliveries that ended by time, or with their session."""
    dead: int = 0
    """Dead letters, however they came about; those that expired included."""
    expired: int = 0
    moved: int = 0
    """Of the dead, those that went to a dead queue."""
    redriven: int = 0
    sent_back: int = 0
    """Out of this dead queue, to where they came from."""
    removed: int = 0
    """Cleared or deleted by an operator."""
    duplicates: int = 0
    """Deliveries of items whose last reservation had ended by itself: two may have worked on them."""
    late: int = 0
    """Items whose settlement came when they were not held any more."""

    def percentiles(self, which: str) -> dict[int, Duration | None]:
        """Of ``waits`` or ``works``, of all of the time."""
        values = sorted(chain.from_iterable(getattr(self.timeline, which)))
        return {share: percentile(values, share) for share in PERCENTILES}


def percentile(ordered: Sequence[int], share: int) -> Duration | None:
    """``None`` of nothing."""
    if not ordered:
        return None
    return Duration(ordered[min(len(ordered) - 1, len(ordered) * share // 100)])


class Numbered:
    """A value for each item of a partition; numbers are dense but where the log changed its server."""

    __slots__ = ("_arrays", "_firsts", "_last", "_start")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._arrays: list[array[int]] = []
        self._start = 0
        self._last: array[int] = array("q")

    def extend(self, first: int, values: Sequence[int]) -> None:
        """Values of fresh items from ``first`` on."""
        if not self._firsts or first != self._start + len(self._last):
            self._start = first
            self._last = array("q")
            self._firsts.append(first)
            self._arrays.append(self._last)
        self._last.extend(values)

    def at(self, item: int) -> "tuple[array[int], int]":
        """(where the item's value is, its index there). Raises IndexError for an item of before."""
        if item >= self._start:
            return self._last, item - self._start
        found = bisect_right(self._firsts, item) - 1
        if found < 0:
            raise IndexError(f"item {item} is from before the beginning")
        return self._arrays[found], item - self._firsts[found]

    def value(self, item: int) -> int:
        """Of one item."""
        values, index = self.at(item)
        return values[index]

    def values(self, item: int, count: int) -> "array[int]":
        """Of it and those that follow it."""
        values, index = self.at(item)
        return values[index : index + count]


class Observer:
    """Folds the events of one partition, and measures. ``settling`` and ``reserved`` are for subclasses."""

    def __init__(self, state: PartitionState, measures: Measures) -> None:
        self.state = state
        self.measures = measures
        self.numbers = Numbered()
        """Of the items, among all of the queue."""
        self._ready_at = Numbered()
        self._ended: dict[int, None] = {}
        """Items whose last reservation ended by itself."""
        self._point = 0
        self._died = 0
        self._retries = 0
        self._twice = 0
        self._waits = measures.timeline.waits[0]
        self._works = measures.timeline.works[0]

    def begin_with(self, spans: Iterable[tuple[int, int, list[int]]]) -> None:
        """All this is there already: (an item, which of the queue's it is, since when it and those behind it
        wait)."""
        for item, which, waits in spans:
            self._ready_at.extend(item, waits)
            self.numbers.extend(item, range(which, which + len(waits)))

    def waits_since(self, item: int, since: int) -> None:
        """It has been waiting for longer than it has been here."""
        self._back([(0, item, 1)], since)

    def apply(self, event: ev.Event) -> None:
        """Fold one event."""
        observe = _OBSERVE.get(type(event))
        if observe is not None:
            observe(self, event)
        evolve(self.state, event)
        if type(event) is ev.ItemsReserved:
            self._delivered()

    def settling(self, reservation: Reservation, runs: Sequence[Run], count: int, outcome: int) -> None:
        """These items of a reservation are about to be settled this way."""

    def reserved(self, reservation: Reservation) -> None:
        """A reservation was made."""

    def sample(self, now: int) -> None:
        """Time comes to ``now``: the lines get the points of before."""
        timeline = self.measures.timeline
        while self._point < POINTS and timeline.moment(self._point) < now:
            self._put(timeline)

    def finish(self) -> None:
        """What is now holds to the end."""
        while self._point < POINTS:
            self._put(self.measures.timeline)

    def _put(self, timeline: Timeline) -> None:
        state = self.state
        point = self._point
        timeline.waiting[point] += state.ready + state.scheduled
        timeline.reserved[point] += state.reserved
        timeline.dead[point] += self._died
        timeline.retried[point] += self._retries
        timeline.duplicates[point] += self._twice
        self._point = point + 1
        if point + 1 < POINTS:
            self._waits = timeline.waits[point + 1]
            self._works = timeline.works[point + 1]

    # --- events -----------------------------------------------------------------------------------------

    def _turn(self, event: ev.TurnStarted) -> None:
        self.sample(event.at)

    def _produced(self, event: ev.ItemsProduced) -> None:
        self.measures.produced += event.count
        self._ready_at.extend(event.first_item, [event.due_at or self.state.now] * event.count)

    def _delivered(self) -> None:
        state = self.state
        reservation = state.reservations[state.next_reservation - 1]
        measures = self.measures
        now = state.now
        measures.deliveries += reservation.count
        for _, item, count in reservation.runs:
            ready, index = self._ready_at.at(item)
            if count == 1:
                self._waits.append(now - ready[index])
            else:
                self._waits.extend([now - at for at in ready[index : index + count]])
            if self._ended:
                for number in range(item, item + count):
                    if number in self._ended:
                        del self._ended[number]
                        measures.duplicates += 1
                        self._twice += 1
        self.reserved(reservation)

    def _taken(self, number: int, ranges: ev.Ranges | None, outcome: int) -> tuple[list[Run], int]:
        reservation = self.state.reservations[number]
        runs = reservation.pick(ranges)
        total = 0
        for _, _, count in runs:
            total += count
        self.settling(reservation, runs, total, outcome)
        return runs, total

    def _back(self, runs: Sequence[Run], at: int) -> None:
        for _, item, count in runs:
            ready, index = self._ready_at.at(item)
            for offset in range(index, index + count):
                ready[offset] = at

    def _completed(self, event: ev.ItemsCompleted) -> None:
        reservation = self.state.reservations[event.reservation]
        _, total = self._taken(event.reservation, event.ranges, Verb.COMPLETE)
        self.measures.completed += total
        took = self.state.now - reservation.reserved_at
        if total == 1:
            self._works.append(took)
        else:
            self._works.extend([took] * total)

    def _retried(self, event: ev.ItemsRetried) -> None:
        self._due_at = event.due_at
        runs, total = self._taken(event.reservation, event.ranges, Verb.RETRY)
        self.measures.retried += total
        self._retries += total
        self._back(runs, event.due_at or self.state.now)

    _due_at: int = 0
    """Of the retry that is being settled."""
    _reason: str = ""
    """Of the death that is being settled, where the holder gave one."""

    def _released(self, event: ev.ItemsReleased) -> None:
        runs, total = self._taken(event.reservation, event.ranges, Verb.RELEASE)
        self.measures.released += total
        self._back(runs, self.state.now)

    def _by_itself(self, event: ev.ReservationEnded) -> None:
        outcome = self._own_end(event.reservation)
        if event.why in ("session_lost", "given_up"):
            outcome = SESSION_LOST
        runs, total = self._taken(event.reservation, event.ranges, outcome)
        self.measures.ended += total
        self._back(runs, self.state.now)
        for _, item, count in runs:
            self._ended.update(dict.fromkeys(range(item, item + count)))

    def _own_end(self, number: int) -> int:
        """A reservation that ends before its time ends with its session, or with a client that never
        confirmed it: not by what the policy says."""
        return SESSION_LOST if self.state.now <= self.state.reservations[number].ends_at else Verb.ENDED

    def _dying(self, event: ev.ItemsDied) -> None:
        is_end = event.verb == "ended"
        outcome: int = Verb.DEAD if event.verb == "dead" else Verb.RETRY
        if is_end:
            outcome = self._own_end(event.reservation)
        self._due_at = -1
        self._reason = event.reason
        _, total = self._taken(event.reservation, event.ranges, outcome)
        self._dead(total)
        if is_end:
            self.measures.ended += total

    def _dead(self, total: int) -> None:
        self.measures.dead += total
        self._died += total
        if self.state.policy.dead_target is not None:
            self.measures.moved += total

    def _expired(self, event: ev.ItemsExpired) -> None:
        total = sum(count for _, count in event.runs)
        self.measures.expired += total
        self._dead(total)

    def _redriven(self, event: ev.ItemsRedriven) -> None:
        for item, count in event.runs:
            self.measures.redriven += count
            self._back([(0, item, count)], self.state.now)

    def _sent_back(self, event: ev.ItemsSentBack) -> None:
        self.measures.sent_back += sum(count for _, count in event.runs)

    def _cleared(self, event: ev.ItemsCleared) -> None:
        state = self.state
        total = state.ready if event.ready else 0
        total += state.scheduled if event.scheduled else 0
        total += state.reserved if event.reserved else 0
        total += len(state.dead) - len(state.leaving) if event.dead else 0
        self.measures.removed += total

    def _deleted(self, event: ev.ItemsDeleted) -> None:
        self.measures.removed += sum(count for _, count in event.runs)


_OBSERVE: Final[dict[type, Callable[[Observer, Any], None]]] = {
    ev.TurnStarted: Observer._turn,  # noqa: SLF001
    ev.ItemsProduced: Observer._produced,  # noqa: SLF001
    ev.ItemsCompleted: Observer._completed,  # noqa: SLF001
    ev.ItemsRetried: Observer._retried,  # noqa: SLF001
    ev.ItemsReleased: Observer._released,  # noqa: SLF001
    ev.ReservationEnded: Observer._by_itself,  # noqa: SLF001
    ev.ItemsDied: Observer._dying,  # noqa: SLF001
    ev.ItemsExpired: Observer._expired,  # noqa: SLF001
    ev.ItemsRedriven: Observer._redriven,  # noqa: SLF001
    ev.ItemsSentBack: Observer._sent_back,  # noqa: SLF001
    ev.ItemsCleared: Observer._cleared,  # noqa: SLF001
    ev.ItemsDeleted: Observer._deleted,  # noqa: SLF001
}
