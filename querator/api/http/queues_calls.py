"""queues.*: making, changing and listing queues."""

from itertools import islice

import attrs

from querator.api.http import checks
from querator.api.http.door import Door, no_such_queue
from querator.api.http.durations import (
    InvalidDuration,
    format_duration,
    format_micros,
    parse_duration,
    to_micros,
)
from querator.api.http.messages import (
    QueueInfo,
    QueuesDeleteRequest,
    QueuesInfoRequest,
    QueuesListRequest,
    QueuesListResponse,
)
from querator.api.http.refusals import REQUEST_FAILED, refuse
from querator.api.http.stamps import Stamp
from querator.core import limits
from querator.core.catalog import SYSTEM_NAMESPACE, CatalogCommand, Principal, Queue
from querator.core.catalog.commands import CreateQueue, DeleteQueue, UpdateQueue
from querator.core.ids import Duration, QueueName
from querator.core.white_space import has_white_space

QUEUES_LIST_MAX = 65_536


@attrs.frozen
class _Timeouts:
    """As they were given, in nanoseconds; 0: not given."""

    lease: int
    expire: int


async def create(door: Door, caller: Principal, request: QueueInfo) -> None:
    def decide() -> CatalogCommand:
        checks.queue_name(request.queue_name)
        timeouts = _read_timeouts(request)
        if request.namespace:
            checks.namespace_name(request.namespace)
        namespace = request.namespace or SYSTEM_NAMESPACE
        door.authorize(caller, "queue.create", namespace)
        if namespace not in door.catalog.namespaces:
            refuse(f"namespace does not exist; '{namespace}' was not found", REQUEST_FAILED)
        door.running()
        if request.queue_name in door.catalog.queues:
            refuse(f"invalid queue; '{request.queue_name}' already exists")
        _check_dead_queue(door, request)
        _check_rest(request.reference, request.max_attempts, request.requested_partitions)
        if not timeouts.lease:
            refuse("lease timeout is invalid; cannot be empty")
        if not timeouts.expire:
            refuse("expire timeout is invalid; cannot be empty")
        _check_timeouts(timeouts)
        return CreateQueue(
            name=QueueName(request.queue_name),
            namespace=namespace,
            partitions=request.requested_partitions,
            stores=door.settings.stores,
            reservation_timeout=Duration(to_micros(timeouts.lease)),
            expire_timeout=Duration(to_micros(timeouts.expire)),
            attempts_max=request.max_attempts,
            dead_queue=request.dead_queue,
            reference=request.reference,
        )

    await door.change(caller, decide)


async def update(door: Door, caller: Principal, request: QueueInfo) -> None:
    """Timeouts and partitions of nothing keep what is there; the rest is replaced by what was sent."""

    def decide() -> CatalogCommand:
        checks.queue_name(request.queue_name)
        timeouts = _read_timeouts(request)
        if request.namespace:
            checks.namespace_name(request.namespace)
        door.running()
        queue = door.catalog.queues.get(request.queue_name)
        if queue is None:
            raise no_such_queue(request.queue_name)
        door.authorize(caller, "queue.update", queue.namespace)
        _check_dead_queue(door, request)
        merged = _Timeouts(
            timeouts.lease or queue.reservation_timeout * 1_000,
            timeouts.expire or queue.expire_timeout * 1_000,
        )
        partitions = request.requested_partitions or queue.partitions_requested
        _check_rest(request.reference, request.max_attempts, partitions)
        _check_timeouts(merged)
        return UpdateQueue(
            name=queue.name,
            partitions_requested=partitions,
            reservation_timeout=Duration(to_micros(timeouts.lease)) if timeouts.lease else None,
            expire_timeout=Duration(to_micros(timeouts.expire)) if timeouts.expire else None,
            attempts_max=request.max_attempts,
            dead_queue=request.dead_queue,
            reference=request.reference,
        )

    await door.change(caller, decide)


def _read_timeouts(request: QueueInfo) -> _Timeouts:
    """Steps 2 to 5."""
    longest = checks.TIMEOUT_TEXT_BYTES_MAX
    checks.not_longer(request.lease_timeout, longest, "lease timeout")
    checks.not_longer(request.expire_timeout, longest, "expire timeout")
    expire = _read_timeout(request.expire_timeout, "expire", "60m, 2h or 24h")
    lease = _read_timeout(request.lease_timeout, "lease", "8m, 15m or 1h")
    return _Timeouts(lease, expire)


def _read_timeout(text: str, name: str, examples: str) -> int:
    if not text:
        return 0
    try:
        return parse_duration(text)
    except InvalidDuration as error:
        refuse(f"{name} timeout is invalid; {error} - expected format: {examples}")


def _check_dead_queue(door: Door, request: QueueInfo) -> None:
    """Step 10."""
    name = request.dead_queue
    if not name:
        return
    checks.not_longer(name, limits.DEAD_QUEUE_NAME_BYTES_MAX, "dead queue")
    if has_white_space(name):
        refuse(f"dead queue is invalid; '{name}' cannot contain whitespace")
    if "~" in name:
        refuse(f"dead queue is invalid; '{name}' cannot contain '~' character")
    if name == request.queue_name:
        refuse("dead_queue cannot reference itself")
    dead = door.catalog.queues.get(name)
    if dead is None:
        refuse(f"dead_queue does not exist; '{name}' was not found, create it first")
    if dead.dead_queue:
        refuse(f"dead_queue is invalid; '{name}' already has its own dead_queue configured")


def _check_rest(reference: str, max_attempts: int, partitions: int) -> None:
    """Steps 11 to 13."""
    checks.not_longer(reference, limits.REFERENCE_BYTES_MAX, "reference field")
    if max_attempts > limits.ATTEMPTS_MAX_MAX:
        refuse(f"max attempts is invalid; cannot be greater than {limits.ATTEMPTS_MAX_MAX}")
    if max_attempts < 0:
        refuse("max attempts is invalid; cannot be negative number")
    if partitions < 1:
        refuse("partitions is invalid; cannot be less than 1")
    if partitions > limits.PARTITIONS_PER_QUEUE_MAX:
        refuse(f"partitions is invalid; cannot be greater than {limits.PARTITIONS_PER_QUEUE_MAX}")


def _check_timeouts(timeouts: _Timeouts) -> None:
    """Step 16. A queue made on another door may have no expire timeout: then nothing is too long."""
    if timeouts.lease < 0:
        refuse("lease timeout is invalid; cannot be negative")
    if timeouts.expire < 0:
        refuse("expire timeout is invalid; cannot be negative")
    if timeouts.expire and timeouts.lease > timeouts.expire:
        refuse(
            f"lease timeout is too long; {format_duration(timeouts.lease)} cannot be greater than the "
            f"expire timeout {format_duration(timeouts.expire)}"
        )


async def list_queues(door: Door, caller: Principal, request: QueuesListRequest) -> QueuesListResponse:
    door.authorize(caller, "queue.list", request.namespace or SYSTEM_NAMESPACE)
    door.running()
    if request.limit < 0:
        refuse("limit is invalid; limit cannot be negative")
    if request.limit > QUEUES_LIST_MAX:
        refuse(f"limit is invalid; cannot be greater than {QUEUES_LIST_MAX}")
    if "~" in request.pivot:
        refuse(f"pivot is invalid; '{request.pivot}' cannot contain '~' character")
    chosen = (
        _show(queue)
        for queue in door.catalog.queues.from_pivot(request.pivot)
        if not request.namespace or queue.namespace == request.namespace
    )
    return QueuesListResponse(list(islice(chosen, checks.list_limit(request.limit))))


async def delete(door: Door, caller: Principal, request: QueuesDeleteRequest) -> None:
    def decide() -> CatalogCommand:
        checks.queue_name(request.queue_name)
        door.running()
        queue = door.catalog.queues.get(request.queue_name)
        if queue is None:
            raise no_such_queue(request.queue_name)
        door.authorize(caller, "queue.delete", queue.namespace)
        return DeleteQueue(queue.name)

    await door.change(caller, decide)


async def info(door: Door, caller: Principal, request: QueuesInfoRequest) -> QueueInfo:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    return _show(queue)


def _show(queue: Queue) -> QueueInfo:
    return QueueInfo(
        queue_name=queue.name,
        created_at=Stamp(queue.created_at),
        updated_at=Stamp(queue.updated_at),
        dead_queue=queue.dead_queue,
        reference=queue.reference,
        lease_timeout=format_micros(queue.reservation_timeout),
        expire_timeout=format_micros(queue.expire_timeout),
        max_attempts=queue.attempts_max,
        requested_partitions=queue.partitions_requested,
        namespace=queue.namespace,
    )
