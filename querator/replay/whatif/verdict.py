"""Is the model the log? Only then is there a prediction."""

from typing import Final

import attrs

from querator.core.ids import MILLISECOND, Duration
from querator.replay.whatif.measures import Measures
from querator.replay.whatif.simulation import Settings, Simulation
from querator.replay.whatif.traffic import Traffic

COUNTS: Final = (
    "produced",
    "completed",
    "deliveries",
    "retried",
    "released",
    "ended",
    "dead",
    "expired",
    "moved",
    "redriven",
    "sent_back",
    "removed",
    "duplicates",
)
"""Must be what was recorded, to the item."""
TOLERANCE_SHARE: Final = 0.05
TOLERANCE: Final = Duration(20 * MILLISECOND)
"""A percentile may be off by this, or by TOLERANCE_SHARE of itself, whichever is more."""


@attrs.frozen
class Difference:
    """Where the same traffic under the same policy came out otherwise."""

    what: str
    recorded: int | None
    simulated: int | None

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} recorded, {self.simulated} simulated"


def compare(recorded: Measures, simulated: Measures) -> list[Difference]:
    """All that is not as it was, beyond the tolerance."""
    found = [
        Difference(name, before, after)
        for name in COUNTS
        for before, after in [(getattr(recorded, name), getattr(simulated, name))]
        if before != after
    ]
    for which in ("waits", "works"):
        mine, theirs = recorded.percentiles(which), simulated.percentiles(which)
        for share, before in mine.items():
            after = theirs[share]
            if before is None or after is None:
                is_close = before == after
            else:
                is_close = abs(before - after) <= max(TOLERANCE, before * TOLERANCE_SHARE)
            if not is_close:
                found.append(Difference(f"p{share} of {which}, microseconds", before, after))
    return found


def replay_unchanged(traffic: Traffic, simulation: Simulation | None = None) -> list[Difference]:
    """Let the traffic happen again with nothing changed; where it comes out otherwise."""
    run = simulation if simulation is not None else Simulation(traffic, Settings())
    return compare(traffic.recorded, run.run())
