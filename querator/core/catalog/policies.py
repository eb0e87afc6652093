"""From a queue's settings to what its partitions decide by."""

from querator.core.catalog.state import Catalog
from querator.core.catalog.values import Queue
from querator.core.ids import PartitionId
from querator.core.policy import Policy


def policy_of(queue: Queue, catalog: Catalog) -> Policy:
    """The policy of the queue's partitions. A dead queue takes the dead in its partition 0."""
    dead = catalog.queues.get(queue.dead_queue) if queue.dead_queue else None
    return Policy(
        version=catalog.policy_versions[queue.name],
        reservation_timeout=queue.reservation_timeout,
        max_runtime=queue.max_runtime,
        expire_timeout=queue.expire_timeout,
        attempts_max=queue.attempts_max,
        backoff=queue.backoff,
        ordering=queue.ordering,
        dead_target=None if dead is None else dead.partitions[0].id,
        dead_retention=queue.dead_retention,
        session_grace=queue.session_grace,
        dedupe_window=queue.dedupe_window,
        dedupe_keys_max=queue.dedupe_keys_max,
    )


def policy_of_partition(partition: PartitionId, catalog: Catalog) -> Policy | None:
    """What an owner reconciles a partition with; ``None``: the catalog, or no partition yet.

    A partition that was given out and belongs to no queue any more gets ``deleted``; as nothing
    about it changes after that, one such policy in its log is enough, whatever its version.
    """
    queue = catalog.find_queue_of(partition)
    if queue is not None:
        return policy_of(queue, catalog)
    if 0 < partition < catalog.next_partition:
        return Policy(version=catalog.version, deleted=True)
    return None
