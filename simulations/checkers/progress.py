"""L1, L3, L4, L7: after all faults are over, what is ready is delivered, and everything ends."""

import trio

from querator.app import Application
from simulations.options import Options
from simulations.workload import Idle

PATIENCE = 4.0
"""Virtual seconds that ready items may lie beside an idle consumer with a connection."""


class Progress:
    """Looked at again and again in the healed phase."""

    def __init__(self, idle: dict[str, Idle]) -> None:
        self._idle = idle
        self._ready_since: dict[str, float] = {}
        self.fault = ""
        self.left = ""
        """What has not come to its end yet, for a person."""

    def look(self, application: Application, options: Options) -> int:
        """How much is left to be done; ``fault`` tells when somebody was left waiting."""
        broker = application.node.broker
        left = 0
        texts: list[str] = []
        for name, queue in broker.queues.items():
            closed = len(queue.partitions) - len(queue.open_actors())
            if closed:
                texts.append(f"{closed} partitions of {name} are not open")
            left += closed
            if not name.startswith("q"):
                continue
            states = [actor.state for actor in queue.open_actors()]
            counts = (
                sum(state.ready for state in states),
                sum(state.reserved for state in states),
                sum(state.scheduled for state in states),
                sum(len(state.leaving) for state in states),
            )
            if any(counts):
                texts.append("{}: {} ready, {} reserved, {} scheduled, {} moving".format(name, *counts))
            left += sum(counts)
            self._look_at_demand(str(name), sum(state.line.count for state in states))
        expected = options.queues + options.dead_queue
        if len(broker.queues) != expected:
            texts.append(f"{len(broker.queues)} of {expected} queues are there")
            left += 1
        self.left = "not everything came to its end: " + "; ".join(texts)
        return left

    def _look_at_demand(self, name: str, ready: int) -> None:
        now = trio.current_time()
        if not ready:
            self._ready_since[name] = now
            return
        since = self._ready_since.setdefault(name, now)
        for who, idle in self._idle.items():
            if idle.queue != name or idle.since is None or not idle.client.is_connected:
                continue
            if now - since > PATIENCE and now - idle.since > PATIENCE:
                self.fault = f"L1: {who} has nothing to do, and {ready} items of {name} lie ready"
