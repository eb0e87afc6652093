"""The core scenarios: three or four items, one client of each kind, one thing that happens.

They are small on purpose: every step of the scheduler in them is a point to crash at, and so is every pair.
"""

from typing import Any, Final

from simulations.options import Options
from simulations.scenarios.scenario import Scenario


def _core(name: str, text: str, **more: Any) -> Scenario:
    def options(seed: int) -> Options:
        settings: dict[str, Any] = {
            "safety_seconds": 1.5,
            "heal_restarts": False,
            "producers": 1,
            "consumers": 1,
            "produce_rate": 10.0,
            "produce_max": 3,
            "batch_max": 2,
            "latency_us": 200,
            "reservation_timeout": 2.0,
        }
        return Options(seed=seed, **(settings | more))

    return Scenario(name=name, text=text, options=options)


CORE: Final = (
    _core("plain", "produced, pushed, completed"),
    _core("by_request", "produced, reserved by a request that may wait, completed", consumers=0, askers=1),
    _core("retried", "work fails, and is done again", fail=0.6),
    _core("set_aside", "work is set aside, and moves to the dead queue", set_aside=0.7, dead_queue=True),
    _core("worn", "the last attempt fails", fail=0.9, attempts_max=2, dead_queue=True),
    _core("scheduled", "items for later", scheduled=1.0),
    _core("keyed", "ordered by key, and the head fails", keyed=True, fail=0.4, batch_max=4),
    _core("duplicates", "the same dedupe key again", duplicate=1.0),
    _core("extended", "extended, and settled too late", extend=1.0, stale=0.4, reservation_timeout=1.0),
    _core("vanishing", "consumers go away with what they hold", vanish=0.5, reservation_timeout=1.0),
    _core("expiring", "nobody comes for the items in time", consumers=0, expire=True, safety_seconds=5.0),
    _core(
        "snapshots", "states are captured and payloads leave memory", snapshots_rate=6.0, payload_memory=10
    ),
    _core("stolen", "a rival takes the partition", takeover_rate=2.0),
    _core("unknown", "outcomes stay unknown", unknown_lost=0.2, unknown_kept=0.2, unknown_late=0.2),
    _core("buckets", "history is closed and dropped", bucket_bytes=400, safety_seconds=4.0, produce_max=6),
)
