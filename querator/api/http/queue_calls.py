"""queue.*: items come in, are leased, completed, retried. Lease is this API's word for reservation."""

from collections.abc import Sequence
from typing import Final

from querator.actors.ports import QueueStats, ReserveRequest
from querator.api.http import checks
from querator.api.http.door import Door, expect
from querator.api.http.durations import format_micros
from querator.api.http.messages import (
    QueueClearRequest,
    QueueCompleteRequest,
    QueueLeaseItem,
    QueueLeaseRequest,
    QueueLeaseResponse,
    QueueLogicalStats,
    QueuePartitionStats,
    QueueProduceItem,
    QueueProduceRequest,
    QueueReloadRequest,
    QueueRetryItem,
    QueueRetryRequest,
    QueueStatsRequest,
    QueueStatsResponse,
)
from querator.api.http.refusals import refuse
from querator.api.http.stamps import Stamp
from querator.core.catalog import Principal, Queue
from querator.core.commands import Clear, PlaceSettlement, Produce, SettlePlaces, Verb
from querator.core.events import Attributes
from querator.core.ids import MILLISECOND, NEVER, Duration, Instant, PartitionId, Place
from querator.core.ksuid import TEXT_LENGTH, encode_ksuid, parse_base62
from querator.core.limits import LEASE_BYTES_MAX
from querator.core.place_ids import decode_place, place_base
from querator.core.replies import (
    Code,
    Done,
    PartitionStats,
    PlaceRefused,
    Produced,
    Reserved,
    SegmentAttributes,
)
from querator.core.white_space import is_blank

SOON: Final = 100 * MILLISECOND
"""What is scheduled for less than this from now is ready at once (CONTRACT.md 4.8, 4.10)."""


# --- produce ------------------------------------------------------------------------------------


async def produce(door: Door, caller: Principal, request: QueueProduceRequest) -> None:
    await produced(door, caller, request)


async def produced(door: Door, caller: Principal, request: QueueProduceRequest) -> tuple[Queue, Produced]:
    """The queue and what the engine answered."""
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.produce", queue.namespace)
    timeout = checks.request_timeout(request.request_timeout)
    checks.timeout_is_given(timeout)
    if timeout >= checks.REQUEST_TIMEOUT_MAX:
        checks.timeout_too_long(timeout)
    checks.timeout_not_too_short(timeout)
    items = request.items
    if not items:
        refuse("items cannot be empty; at least one item is required")
    bound = door.settings.produce_items_max
    if len(items) > bound:
        refuse(f"items is invalid; max_produce_batch_size is {bound} but received {len(items)}")
    traffic = door.enter(queue)
    traffic.produce += 1
    try:
        answer = await door.ask(
            lambda pending, now: door.broker.produce(pending, 0, queue.name, _to_command(items, now), None)
        )
    finally:
        traffic.produce -= 1
        door.left(queue, traffic)
    return queue, expect(answer, Produced, queue)


def _to_command(items: list[QueueProduceItem], now: Instant) -> Produce:
    payloads = [item.bytes or item.utf8.encode() for item in items]
    encoding = _column([item.encoding for item in items])
    kind = _column([item.kind for item in items])
    reference = _column([item.reference for item in items])
    attributes = None
    if encoding is not None or kind is not None or reference is not None:
        attributes = Attributes(encoding=encoding, kind=kind, reference=reference)
    return Produce(payloads, _due_times([item.enqueue_at for item in items], now), attributes)


def _column(values: list[str]) -> str | list[str | None] | None:
    """Absent, constant or full."""
    first = values[0]
    if values.count(first) == len(values):
        return first or None
    return [value or None for value in values]


def _due_times(stamps: Sequence[Stamp | None], now: Instant) -> Instant | list[Instant]:
    dues = [due_at(stamp, now) for stamp in stamps]
    return dues[0] if dues.count(dues[0]) == len(dues) else dues


def due_at(stamp: Stamp | None, now: Instant) -> Instant:
    """When it becomes ready; 0: at once."""
    return Instant(0) if stamp is None or stamp < now + SOON else Instant(int(stamp))


# --- lease --------------------------------------------------------------------------------------


async def lease(door: Door, caller: Principal, request: QueueLeaseRequest) -> QueueLeaseResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.lease", queue.namespace)
    timeout = checks.request_timeout(request.request_timeout)
    if is_blank(request.client_id):
        refuse("invalid client id; cannot be empty")
    wanted = request.batch_size
    if wanted <= 0:
        refuse("invalid batch size; must be greater than zero")
    bound = door.settings.lease_items_max
    if wanted > bound:
        refuse(f"invalid batch size; max_lease_batch_size is {bound}, but {wanted} was requested")
    checks.timeout_is_given(timeout)
    if timeout > checks.REQUEST_TIMEOUT_MAX:
        checks.timeout_too_long(timeout)
    checks.timeout_not_too_short(timeout)
    traffic = door.enter(queue)
    traffic.lease += 1
    try:
        answer = await door.ask_waiting(
            caller,
            "queue.lease",
            queue.namespace,
            lambda pending, now: door.broker.reserve(
                pending,
                0,
                queue.name,
                ReserveRequest(
                    items_max=wanted,
                    deadline=_until(now + timeout // 1_000, caller),
                    reservation_timeout=Duration(0),
                    held=False,
                    bytes_max=LEASE_BYTES_MAX,
                    client=request.client_id,
                ),
            ),
        )
    finally:
        traffic.lease -= 1
        door.left(queue, traffic)
    reserved = expect(answer, Reserved, queue)
    return QueueLeaseResponse(request.queue_name, door.index_of(queue, reserved.partition), _leased(reserved))


def _until(deadline: int, caller: Principal) -> Instant:
    """A key that expires meanwhile waits no longer than it lives."""
    return Instant(deadline if caller.expires_at == NEVER else min(deadline, caller.expires_at))


def _leased(reserved: Reserved) -> list[QueueLeaseItem]:
    base = place_base(reserved.partition)
    deadline = Stamp(reserved.deadline)
    attempts = reserved.attempts
    payloads = iter(reserved.payloads)
    columns = reserved.attributes
    items: list[QueueLeaseItem] = []
    for number, (place, _, count) in enumerate(reserved.runs):
        run = columns[number] if columns is not None else {}
        encodings, kinds, references = (_texts(run, name) for name in ("encoding", "kind", "reference"))
        for offset in range(count):
            items.append(
                QueueLeaseItem(
                    encoding=encodings[offset] if encodings is not None else "",
                    kind=kinds[offset] if kinds is not None else "",
                    reference=references[offset] if references is not None else "",
                    id=encode_ksuid(base + place + offset),
                    attempts=attempts if isinstance(attempts, int) else attempts[len(items)],
                    lease_deadline=deadline,
                    bytes=next(payloads),
                )
            )
    return items


def _texts(run: SegmentAttributes, name: str) -> list[str] | None:
    column = run.get(name)
    return None if column is None else [value if isinstance(value, str) else "" for value in column]


# --- complete and retry ---------------------------------------------------------------------------


async def complete(door: Door, caller: Principal, request: QueueCompleteRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.complete", queue.namespace)
    partition = door.partition(queue, request.partition)
    timeout = checks.request_timeout(request.request_timeout)
    ids = request.ids
    if not ids:
        refuse("ids is invalid; list of ids cannot be empty")
    bound = door.settings.complete_items_max
    if len(ids) > bound:
        refuse(f"ids is invalid; max_complete_batch_size is {bound} but received {len(ids)}")
    if timeout > checks.REQUEST_TIMEOUT_MAX:
        checks.timeout_too_long(timeout)
    checks.timeout_is_given(timeout)
    settlements = [PlaceSettlement(_place(text, partition), Verb.COMPLETE) for text in ids]
    await settle(door, queue, request.partition, ids, settlements, "completed")


async def retry(door: Door, caller: Principal, request: QueueRetryRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.retry", queue.namespace)
    partition = door.partition(queue, request.partition)
    items = request.items
    if not items:
        refuse("items is invalid; list of items cannot be empty")
    bound = door.settings.complete_items_max
    if len(items) > bound:
        refuse(f"items is invalid; max_complete_batch_size is {bound} but received {len(items)}")
    now = door.clock.now()
    settlements = [_retried(item, partition, now) for item in items]
    await settle(door, queue, request.partition, [item.id for item in items], settlements, "retried")


def _retried(item: QueueRetryItem, partition: PartitionId, now: Instant) -> PlaceSettlement:
    place = _place(item.id, partition)
    if item.dead:
        return PlaceSettlement(place, Verb.DEAD, reason="dead")
    return PlaceSettlement(place, Verb.RETRY, due_at(item.retry_at, now))


async def settle(
    door: Door, queue: Queue, index: int, ids: list[str], settlements: list[PlaceSettlement], verb: str
) -> None:
    """All of them or none. ``ids`` and ``settlements`` go together; ``verb`` is for the text of a refusal."""
    traffic = door.enter(queue)
    traffic.settle += 1
    try:
        answer = await door.ask_partition(queue.partitions[index].id, SettlePlaces(settlements))
    finally:
        traffic.settle -= 1
        door.left(queue, traffic)
    if isinstance(answer, PlaceRefused):
        refused = next(
            text
            for text, settlement in zip(ids, settlements, strict=True)
            if settlement.place == answer.place
        )
        if answer.code is Code.NOT_RESERVED:
            refuse(f"item(s) cannot be {verb}; '{refused}' is not marked as leased")
        well_formed_id(refused)
        refuse(f"invalid storage id; '{refused}' does not exist")
    expect(answer, Done, queue, index)


def _place(text: str, partition: PartitionId) -> Place:
    """0, where nothing ever is, for an id that is none of this partition: the engine refuses it in turn."""
    return decode_place(text, partition) or Place(0)


def well_formed_id(text: str) -> None:
    """Raises:
    Refused: the text is no KSUID.
    """
    if len(text) != TEXT_LENGTH:
        refuse(f"invalid storage id; '{text}': Valid encoded KSUIDs are 27 characters")
    number = parse_base62(text)
    if number is None or number >> 160:
        bounds = "000000000000000000000000000 and aWgEPTl1tmebfsQzFP4bxwgy80V"
        refuse(f"invalid storage id; '{text}': Valid encoded KSUIDs are bounded by {bounds}")


# --- stats, clear, reload -------------------------------------------------------------------------


async def stats(door: Door, caller: Principal, request: QueueStatsRequest) -> QueueStatsResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    traffic = door.traffic(queue)
    answer = await door.ask(lambda pending, _: door.broker.stats(pending, 0, queue.name))
    door.left(queue, traffic)
    counted = expect(answer, QueueStats, queue)
    known = {stats.partition: stats for stats in counted.partitions if isinstance(stats, PartitionStats)}
    logical = QueueLogicalStats(
        produce_waiting=traffic.produce,
        lease_waiting=counted.parked,
        complete_waiting=traffic.settle,
        in_flight=traffic.total,
        partitions=[
            _partition_stats(index, known.get(partition.id))
            for index, partition in enumerate(queue.partitions)
        ],
    )
    return QueueStatsResponse(request.queue_name, [logical])


def _partition_stats(index: int, stats: PartitionStats | None) -> QueuePartitionStats:
    if stats is None:
        return QueuePartitionStats(partition=index, failures=1, average_age="0s", average_leased_age="0s")
    return QueuePartitionStats(
        partition=index,
        total=stats.ready + stats.reserved,
        total_leased=stats.reserved,
        average_age=format_micros(stats.average_age),
        average_leased_age=format_micros(stats.average_time_left),
        scheduled=stats.scheduled,
    )


async def clear(door: Door, caller: Principal, request: QueueClearRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.clear", queue.namespace)
    if not request.queue and not request.scheduled:
        refuse("invalid clear request; one of 'queue', 'scheduled' must be true")
    everything = request.queue and request.destructive
    command = Clear(
        ready=request.queue,
        scheduled=request.scheduled or everything,
        reserved=everything,
        author=caller.user_id,
    )
    for index, answer in enumerate(await door.ask_each(queue, command)):
        expect(answer, Done, queue, index)


async def reload(door: Door, caller: Principal, request: QueueReloadRequest) -> None:
    """Counters are a fold of the log here, so there is nothing to read again."""
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.update", queue.namespace)
