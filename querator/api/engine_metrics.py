"""What the engine counts, for ``/metrics``: read from memory when asked for, never counted twice."""

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from querator.actors.node import Node
from querator.actors.pulse import Pulse
from querator.api.metrics import Source
from querator.core.ids import SECOND


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
    depth = GaugeMetricFamily("querator_queue_depth", "Items of a queue by state", labels=["queue", "state"])
    produced = CounterMetricFamily("querator_queue_produced", "Items produced", labels=["queue"])
    completed = CounterMetricFamily("querator_queue_completed", "Items completed", labels=["queue"])
    retried = CounterMetricFamily("querator_queue_retried", "Failed attempts", labels=["queue"])
    ended = CounterMetricFamily(
        "querator_queue_reservations_ended", "Reservations that ended by themselves", labels=["queue"]
    )
    waiting = GaugeMetricFamily("querator_queue_waiters", "Who waits for items", labels=["queue", "how"])
    for name, queue in node.broker.queues.items():
        states = [actor.state for actor in queue.open_actors()]
        depth.add_metric([name, "ready"], sum(state.ready for state in states))
        depth.add_metric([name, "reserved"], sum(state.reserved for state in states))
        depth.add_metric([name, "scheduled"], sum(state.scheduled for state in states))
        depth.add_metric([name, "dead"], sum(len(state.dead) for state in states))
        produced.add_metric([name], sum(state.produced for state in states))
        completed.add_metric([name], sum(state.completed for state in states))
        retried.add_metric([name], sum(state.retried for state in states))
        ended.add_metric([name], sum(state.ended for state in states))
        waiting.add_metric([name, "subscribed"], len(queue.demand.subscriptions))
        waiting.add_metric([name, "parked"], len(queue.demand.parked))
    yield from (depth, produced, completed, retried, ended, waiting)


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
