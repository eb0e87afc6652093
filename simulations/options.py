"""What one run is like: every knob drawn from the seed. Most runs have most faults switched off."""

from random import Random

import attrs


@attrs.frozen(kw_only=True)
class Options:
    """Times in virtual seconds, chances per event, rates per second. 0 switches a fault off."""

    seed: int
    safety_seconds: float = 20.0
    """Phase one: faults strike."""
    liveness_seconds: float = 240.0
    """Phase two, at most: everything heals, and everything must come to its end."""
    latency_us: int = 0
    nodes: int = 1
    queues: int = 1
    partitions: int = 1
    producers: int = 2
    consumers: int = 3
    produce_rate: float = 40.0
    batch_max: int = 5
    keyed: bool = False
    attempts_max: int = 0
    reservation_timeout: float = 5.0
    expire: bool = False
    scheduled: float = 0.0
    """Share of items with a time of their own."""
    crash_rate: float = 0.0
    takeover_rate: float = 0.0
    """A second node claims everything while the first lives."""
    cut_rate: float = 0.0
    unavailable: float = 0.0
    unknown_lost: float = 0.0
    unknown_kept: float = 0.0
    slow_commit: float = 0.0
    snapshots_rate: float = 0.0
    fail: float = 0.0
    """Share of items whose work fails; they are retried."""
    set_aside: float = 0.0
    release: float = 0.0
    vanish: float = 0.0
    """Share of batches whose consumer falls silent with them."""
    stale: float = 0.0
    """Share of batches that are settled again, after they are not ours any more."""
    duplicate: float = 0.0
    """Share of produce calls that are made again with the same dedupe key."""
    payload_memory: int = 1 << 20

    @classmethod
    def draw(cls, seed: int, profile: str = "swarm") -> "Options":
        """Draw a run. ``dense`` has every fault on; ``swarm`` switches each off more often than not."""
        dice = Random(f"options/{seed}")

        def maybe(value: float) -> float:
            return value if profile == "dense" or dice.random() < 0.45 else 0.0

        return cls(
            seed=seed,
            latency_us=dice.choice((0, 200, 2_000, 20_000)),
            queues=dice.choice((1, 1, 2)),
            partitions=dice.choice((1, 1, 2, 4)),
            producers=dice.randint(1, 4),
            consumers=dice.randint(1, 5),
            produce_rate=dice.choice((5.0, 20.0, 60.0)),
            batch_max=dice.choice((1, 3, 20)),
            keyed=dice.random() < 0.25,
            attempts_max=dice.choice((0, 0, 2, 3)),
            reservation_timeout=dice.choice((1.0, 5.0, 30.0)),
            expire=dice.random() < 0.15,
            scheduled=maybe(0.2),
            crash_rate=maybe(dice.choice((0.3, 1.0, 3.0))),
            takeover_rate=maybe(dice.choice((0.2, 0.5))),
            cut_rate=maybe(dice.choice((0.3, 1.0))),
            unavailable=maybe(0.02),
            unknown_lost=maybe(0.03),
            unknown_kept=maybe(0.03),
            slow_commit=maybe(0.05),
            snapshots_rate=maybe(1.0),
            fail=maybe(0.1),
            set_aside=maybe(0.05),
            release=maybe(0.05),
            vanish=maybe(0.05),
            stale=maybe(0.1),
            duplicate=maybe(0.1),
            payload_memory=dice.choice((1_000, 1 << 20)),
        )
