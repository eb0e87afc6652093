"""All that is left of a run, for the checkers: plain history, however it came about.

Nothing here says that the run was a simulation. Whoever has a list of what clients asked and were told, with
times on one clock (``Observations``), and the log that is left (``read_history`` of each partition), has
evidence: the tests with real processes judge theirs by the same checkers.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import attrs

from simulations.checkers.history import History, Item
from simulations.observations import Observations, Settlement


@attrs.define(kw_only=True)
class Terms:
    """What was agreed on: how the queues were set up. By partition; what is missing is the default."""

    queue_of: dict[int, str] = attrs.Factory(dict)
    attempts_max: dict[int, int] = attrs.Factory(dict)
    grace: int = 5_000_000
    """Microseconds that a lost session's held reservations have."""
    skew: int = 0
    """Microseconds by which the clocks of two owners may differ."""
    latency: float = 0.0
    """Seconds that a message is under way, at most."""


@attrs.frozen
class Sighting:
    """A partition's state in its owner's memory, at a moment with nothing undecided."""

    partition: int
    position: int
    tail_hash: bytes
    """Of the record at that position."""
    counts: tuple[int, int, int, int, int, int]
    """Items ready, scheduled, reserved, dead, completed, and ever produced."""
    state_hash: bytes


@attrs.define(kw_only=True)
class Facts:
    """What is known of the run besides; all of it may be missing. Times in seconds, on the clients' clock."""

    halted: list[str] = attrs.Factory(list)
    """Partitions that stopped over a failed invariant."""
    troubles: list[tuple[float, float, str]] = attrs.Factory(list)
    """(from, to, what) of everything that may delay: crashes, slow commits, broken links, thefts."""
    healed_at: float = float("inf")
    """From here on nothing was done to the system any more; what was begun before may still come."""
    claims: list[tuple[int, float, float, str]] = attrs.Factory(list)
    """(partition, asked, done, by whom) of claims that were waited for."""
    opened: list[tuple[float, float]] = attrs.Factory(list)
    """(a node's start, all its partitions open)."""
    unowned: list[tuple[float, float]] = attrs.Factory(list)
    """(from, to) of stretches in which none of several nodes owned, although one of them could have."""
    handed_over: list[tuple[float, float]] = attrs.Factory(list)
    """(an owner had stopped in order, another node owned that could have at once)."""
    writers: Mapping[tuple[int, int], str] = attrs.Factory(dict)
    """(partition, position) to the node that sent the record which was committed."""
    failures: list[float] = attrs.Factory(list)
    """Moments at which an append of a node's failed."""
    connects: list[float] = attrs.Factory(list)
    """Moments at which a client called."""
    sightings: list[Sighting] = attrs.Factory(list)
    unfinished: str = ""
    """What had not come to its end when the run's patience did."""
    not_open: str = ""
    """Partitions that were not open then."""
    lost_for_good: dict[int, int] = attrs.Factory(dict)
    """Partition to position from which on acknowledged records were taken from the store (a failover)."""


@attrs.define
class Evidence:
    """``histories`` by partition; ``committed_at`` by (partition, position), in seconds, may be empty."""

    terms: Terms
    seen: Observations
    histories: dict[int, History]
    committed_at: Mapping[tuple[int, int], float] = attrs.Factory(dict)
    facts: Facts = attrs.Factory(Facts)
    originals: dict[bytes, list[tuple[int, int]]] = attrs.field(init=False)
    """Payload to the (partition, item) of those that clients produced: not those that moved in."""

    def __attrs_post_init__(self) -> None:
        self.originals = {}
        for history in self.histories.values():
            for item in history.items.values():
                if not item.is_received:
                    self.originals.setdefault(item.payload, []).append((history.partition, item.number))

    def item(self, partition: int, number: int) -> Item | None:
        """The item as the log has it at the end."""
        history = self.histories.get(partition)
        return history.items.get(number) if history is not None else None

    def settled_at(self, settled: Settlement) -> list[tuple[int, int, int]]:
        """(position, index, items) of the events that say so."""
        history = self.histories.get(settled.partition)
        if history is None:
            return []
        return history.settled_at.get((settled.reservation, settled.verb), [])

    def committed(self, partition: int, position: int) -> float | None:
        """When the record was committed; ``None``: nobody looked."""
        return self.committed_at.get((partition, position))


@attrs.define
class Calm:
    """Whether nothing troubled the system in a stretch of time."""

    facts: Facts
    _starts: list[float] = attrs.Factory(list)
    _ends: list[float] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self._starts = sorted(since for since, _, _ in self.facts.troubles)
        self._ends = sorted(until for _, until, _ in self.facts.troubles)

    def holds(self, start: float, end: float) -> bool:
        """Every trouble that began before the end was over before the start."""
        return bisect_left(self._starts, end) <= bisect_right(self._ends, start)
