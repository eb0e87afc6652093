"""What the engine counts, for ``/metrics``: read from memory when asked for, never counted twice."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from querator.actors.node import Node
from querator.actors.pulse import Pulse
from querator.actors.queue import QueueRuntime
from querator.api.metrics import Source
from querator.core.ids import SECOND
from querator.core.limits import METRICS_PIECE_QUEUES


def engine_metrics(node: Node) -> Source:
    """Depths by queue and state, commits, restarts, payloads in memory."""

    def families() -> Iterable[Metric]:
        yield from _queues(node)
        yield from _log(node)
        yield from _ownership(node)

    return families


def pulse_metrics(pulse: Pulse) -> Source:
    """The longest pause of the event loop."""

    def families() -> Iterable[Metric]:
        longest = GaugeMetricFamily(
            "querator_loop_pause_seconds_max",
            "Longest pause of the event loop, this minute and the one before",
        )
        longest.add_metric([], pulse.longest / SECOND)
        yield longest

    return families


def _ownership(node: Node) -> Iterable[Metric]:
    owner = GaugeMetricFamily("querator_owner", "Whether this node decides (1) or stands by (0)")
    owner.add_metric([], int(node.ownership.is_deciding))
    yield owner
    yield CounterMetricFamily("querator_take_overs", "Times this node took over", node.ownership.take_overs)


def unsafe_metrics(codes: Sequence[str]) -> Source:
    """What an operator accepted by an --unsafe flag; no sample when there is nothing."""

    def families() -> Iterable[Metric]:
        unsafe = GaugeMetricFamily(
            "querator_unsafe", "Faults of the log's server that were accepted by a flag", labels=["fault"]
        )
        for code in codes:
            unsafe.add_metric([code], 1)
        yield unsafe

    return families


def _queues(node: Node) -> Iterable[Metric]:
    """Each family in pieces of some queues."""
    queues = list(node.broker.queues.values())
    for make in (_depth, _produced, _completed, _retried, _ended, _waiting):
        for start in range(0, max(1, len(queues)), METRICS_PIECE_QUEUES):
            yield make(queues[start : start + METRICS_PIECE_QUEUES])


def _depth(queues: Sequence[QueueRuntime]) -> Metric:
    depth = GaugeMetricFamily("querator_queue_depth", "Items of a queue by state", labels=["queue", "state"])
    for queue in queues:
        states = [actor.state for actor in queue.open_actors()]
        depth.add_metric([queue.name, "ready"], sum(state.ready for state in states))
        depth.add_metric([queue.name, "reserved"], sum(state.reserved for state in states))
        depth.add_metric([queue.name, "scheduled"], sum(state.scheduled for state in states))
        depth.add_metric([queue.name, "dead"], sum(len(state.dead) for state in states))
    return depth


def _counter(name: str, text: str, field: str) -> Callable[[Sequence[QueueRuntime]], Metric]:
    """Of a counter that each partition has."""

    def make(queues: Sequence[QueueRuntime]) -> Metric:
        family = CounterMetricFamily(name, text, labels=["queue"])
        for queue in queues:
            family.add_metric([queue.name], sum(getattr(actor.state, field) for actor in queue.open_actors()))
        return family

    return make


_produced = _counter("querator_queue_produced", "Items produced", "produced")
_completed = _counter("querator_queue_completed", "Items completed", "completed")
_retried = _counter("querator_queue_retried", "Failed attempts", "retried")
_ended = _counter("querator_queue_reservations_ended", "Reservations that ended by themselves", "ended")


def _waiting(queues: Sequence[QueueRuntime]) -> Metric:
    waiting = GaugeMetricFamily("querator_queue_waiters", "Who waits for items", labels=["queue", "how"])
    for queue in queues:
        waiting.add_metric([queue.name, "subscribed"], len(queue.demand.subscriptions))
        waiting.add_metric([queue.name, "parked"], len(queue.demand.parked))
    return waiting


def _log(node: Node) -> Iterable[Metric]:
    appends = CounterMetricFamily("querator_log_appends", "Commits of the log", labels=["store"])
    records = CounterMetricFamily("querator_log_records", "Records committed", labels=["store"])
    for name, writer in node.broker.writers.items():
        appends.add_metric([name], writer.appends)
        records.add_metric([name], writer.records)
    yield from (appends, records)
    conditions = GaugeMetricFamily(
        "querator_partitions", "Partitions here by condition", labels=["condition"]
    )
    counts: dict[str, int] = {}
    for actor in node.broker.actors.values():
        counts[actor.condition.value] = counts.get(actor.condition.value, 0) + 1
    for condition, count in sorted(counts.items()):
        conditions.add_metric([condition], count)
    yield conditions
    payloads = GaugeMetricFamily("querator_payload_bytes", "Payloads of waiting items in memory")
    payloads.add_metric([], sum(actor.state.payload_bytes for actor in node.broker.actors.values()))
    yield payloads
    yield CounterMetricFamily(
        "querator_partition_restarts", "Partitions opened again", node.supervisor.restarts
    )
    yield CounterMetricFamily("querator_snapshots", "Snapshots stored", node.snapshots.taken)
    yield CounterMetricFamily("querator_dead_moved", "Dead items moved to dead queues", node.mover.moved)
