"""What one run is like: every knob drawn from the seed. Most runs have most faults switched off."""

import json
from random import Random
from typing import Any, Final

import attrs

PROFILES: Final = ("swarm", "dense")
_SEVERAL_NODES: Final = 0.2
"""Share of the runs that have them."""
_WITH_CALLERS: Final = 0.25
_WITH_SENDERS: Final = 0.6
"""Share of the runs with a dead queue that have somebody who sends home what it took."""


@attrs.frozen(kw_only=True)
class Options:
    """Times in virtual seconds, chances per event, rates per second. 0 switches a fault off."""

    seed: int
    safety_seconds: float = 12.0
    """Phase one: faults strike."""
    liveness_seconds: float = 120.0
    """Phase two, at most: everything heals, and everything must come to its end."""
    heal_restarts: bool = True
    """The node begins phase two with a new life, else as it is by then."""
    latency_us: int = 0
    nodes: int = 1
    """Nodes on the one store: the first in line owns, the others stand by."""
    queues: int = 1
    partitions: int = 1
    producers: int = 2
    consumers: int = 3
    askers: int = 0
    """Clients that reserve by request, parked or not."""
    readers: int = 0
    """Clients that look at the queues' counters."""
    callers: int = 0
    """Clients of the HTTP calls."""
    senders: int = 0
    """Clients that work on what the dead queue took, and send it home."""
    hostiles: int = 0
    """Clients that settle what is not theirs, with stale and forged tokens."""
    produce_rate: float = 40.0
    produce_max: int = 0
    """Produce calls of each producer, at most; 0: as many as there is time for."""
    batch_max: int = 5
    keyed: bool = False
    attempts_max: int = 0
    dead_queue: bool = False
    reservation_timeout: float = 5.0
    expire: bool = False
    scheduled: float = 0.0
    """Share of produce calls for a later time."""
    crash_rate: float = 0.0
    crash_steps: tuple[int, ...] = ()
    """The node also crashes at these steps of the scheduler, counted from the start of the run."""
    pause_rate: float = 0.0
    """The node stands still, as by SIGSTOP, and half of the time somebody takes a partition meanwhile."""
    restart_rate: float = 0.0
    """The store's server is killed and comes back: what it was writing is not written, and nobody is told."""
    takeover_rate: float = 0.0
    """A rival claims a partition while its owner lives."""
    drain_rate: float = 0.0
    """A node is told to stop: it hands over what it owns."""
    isolate_rate: float = 0.0
    """A node does not reach the store for a while; its clients reach it."""
    hide_rate: float = 0.0
    """A node is out of its clients' reach for a while, and reaches the store."""
    blackout_rate: float = 0.0
    """All nodes are killed at once."""
    cut_rate: float = 0.0
    hold_rate: float = 0.0
    """A link carries nothing for a while; then it goes on or breaks."""
    split: bool = False
    """Bytes arrive in small pieces."""
    unavailable: float = 0.0
    unknown_lost: float = 0.0
    unknown_kept: float = 0.0
    unknown_late: float = 0.0
    """The outcome is unknown, and a zombie commits the record later, unless somebody else did."""
    slow_commit: float = 0.0
    snapshots_rate: float = 0.0
    rotten_snapshot: float = 0.0
    """Share of snapshots that are damaged where they are stored."""
    bucket_bytes: int = 0
    """A bucket of history is closed past this size, and dropped when it may be; 0: no run comes that far."""
    witness: bool = False
    """The node has a witness file beside the store, which outlives it."""
    clock_skew_us: int = 0
    """Each life of the node has a clock that is off by up to this."""
    fail: float = 0.0
    """Share of batches whose work fails; they are retried."""
    set_aside: float = 0.0
    release: float = 0.0
    extend: float = 0.0
    vanish: float = 0.0
    """Share of batches whose consumer goes away with them."""
    stale: float = 0.0
    """Share of batches whose settlement comes after the reservation's time."""
    partial: float = 0.0
    """Share of batches that are settled item by item, not all by the same verb."""
    duplicate: float = 0.0
    """Share of produce calls that are made again with the same dedupe keys, at once or much later."""
    payload_memory: int = 1 << 20

    @classmethod
    def draw(cls, seed: int, profile: str = "swarm") -> "Options":
        """Draw a run. ``dense`` has every fault on; ``swarm`` switches each off more often than not."""
        dice = Random(f"options/{seed}")

        def maybe(value: float) -> float:
            drawn = dice.random()
            return value if profile == "dense" or drawn < 0.45 else 0.0

        drawn = cls(
            seed=seed,
            heal_restarts=dice.random() < 0.5,
            latency_us=dice.choice((0, 200, 2_000, 20_000)),
            queues=dice.choice((1, 1, 2)),
            partitions=dice.choice((1, 1, 2, 4)),
            producers=dice.randint(1, 3),
            consumers=dice.randint(0, 3),
            askers=dice.choice((0, 1, 2)),
            hostiles=dice.choice((0, 1)),
            produce_rate=dice.choice((3.0, 10.0, 30.0)),
            batch_max=dice.choice((1, 3, 20)),
            keyed=dice.random() < 0.3,
            attempts_max=dice.choice((0, 0, 2, 3)),
            dead_queue=dice.random() < 0.4,
            reservation_timeout=dice.choice((1.0, 3.0, 10.0)),
            expire=dice.random() < 0.2,
            scheduled=maybe(0.2),
            crash_rate=maybe(dice.choice((0.5, 2.0, 6.0))),
            pause_rate=maybe(dice.choice((0.2, 1.0))),
            restart_rate=maybe(dice.choice((0.1, 0.5))),
            takeover_rate=maybe(dice.choice((0.2, 1.0))),
            hold_rate=maybe(dice.choice((0.3, 1.0))),
            split=bool(maybe(1.0)),
            cut_rate=maybe(dice.choice((0.3, 1.0, 3.0))),
            unavailable=maybe(0.02),
            unknown_lost=maybe(0.03),
            unknown_kept=maybe(0.03),
            unknown_late=maybe(0.02),
            slow_commit=maybe(0.05),
            snapshots_rate=maybe(dice.choice((0.5, 3.0))),
            witness=dice.random() < 0.3,
            rotten_snapshot=maybe(0.3),
            bucket_bytes=int(maybe(3_000)),
            clock_skew_us=dice.choice((0, 50_000, 2_000_000)),
            fail=maybe(0.1),
            set_aside=maybe(0.05),
            release=maybe(0.05),
            extend=maybe(0.1),
            vanish=maybe(0.05),
            stale=maybe(0.05),
            partial=maybe(0.2),
            duplicate=maybe(0.2),
            payload_memory=dice.choice((1_000, 1 << 20)),
        )
        return drawn._with_nodes(profile)._with_callers()._with_senders()

    def _with_nodes(self, profile: str) -> "Options":
        """A share of the runs has several nodes. Drawn apart, so that the others are what they were."""
        dice = Random(f"nodes/{self.seed}")
        nodes = dice.choice((2, 2, 3)) if dice.random() < _SEVERAL_NODES else 1
        if nodes == 1:
            return attrs.evolve(self, readers=int(dice.random() < 0.2))

        def maybe(value: float) -> float:
            return value if profile == "dense" or dice.random() < 0.5 else 0.0

        return attrs.evolve(
            self,
            nodes=nodes,
            readers=dice.choice((1, 2)),
            # A lease has to end in it, and another one.
            safety_seconds=dice.choice((20.0, 35.0)),
            produce_rate=min(self.produce_rate, 10.0),
            crash_rate=maybe(dice.choice((0.05, 0.2, 1.0))),
            pause_rate=maybe(dice.choice((0.1, 0.3))),
            restart_rate=self.restart_rate / 5,
            takeover_rate=self.takeover_rate / 4,
            drain_rate=maybe(dice.choice((0.05, 0.2))),
            isolate_rate=maybe(dice.choice((0.1, 0.3))),
            hide_rate=maybe(0.1),
            blackout_rate=maybe(0.05),
        )

    def _with_callers(self) -> "Options":
        """A share of the runs has clients of the HTTP calls. Drawn apart, likewise."""
        dice = Random(f"callers/{self.seed}")
        return attrs.evolve(self, callers=dice.choice((1, 2)) if dice.random() < _WITH_CALLERS else 0)

    def _with_senders(self) -> "Options":
        """Drawn apart, likewise."""
        dice = Random(f"senders/{self.seed}")
        return attrs.evolve(self, senders=int(self.dead_queue and dice.random() < _WITH_SENDERS))

    def text(self) -> str:
        """What differs from the defaults, as JSON: ``--options`` takes it."""
        defaults = Options(seed=self.seed)
        changed = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(Options)
            if field.name == "seed" or getattr(self, field.name) != getattr(defaults, field.name)
        }
        return json.dumps(changed, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Options":
        """The options that ``text`` gave."""
        given: dict[str, Any] = json.loads(text)
        given["crash_steps"] = tuple(given.get("crash_steps", ()))
        return cls(**given)
