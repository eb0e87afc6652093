"""/v1/x/*: what the engine can do and the contract has no call for."""

from querator.api.history_calls import NOT_KEPT
from querator.api.http import checks
from querator.api.http.door import Door, expect
from querator.api.http.durations import InvalidDuration, parse_duration, to_micros
from querator.api.http.messages import (
    QueueProduceRequest,
    XAnalyticsRequest,
    XAnalyticsResponse,
    XAnalyticsRow,
    XDeadItem,
    XDeadListRequest,
    XDeadListResponse,
    XExtendRequest,
    XProduceResponse,
    XRedriveRequest,
    XRedriveResponse,
    XReleaseRequest,
    XTraceRequest,
    XTraceResponse,
    XTraceStep,
)
from querator.api.http.queue_calls import produced, settle
from querator.api.http.refusals import REQUEST_FAILED, RETRY_REQUEST, refuse
from querator.api.http.stamps import Stamp
from querator.core import limits
from querator.core.catalog import Principal, Queue
from querator.core.commands import Listing, ListItems, PlaceSettlement, Redrive, Verb
from querator.core.ids import Instant, ItemNumber, PartitionId, Place
from querator.core.place_ids import decode_place
from querator.core.replies import Code, Done, ItemPage, Rejected

REDRIVE_ITEMS_MAX = 4_096
"""Dead items that one call brings back in one partition; the next call goes on."""
TRACE_STEPS_MAX = 10_000


async def produce(door: Door, caller: Principal, request: QueueProduceRequest) -> XProduceResponse:
    queue, made = await produced(door, caller, request)
    numbers = made.numbers or range(made.first_item, made.first_item + made.count)
    ids = [f"{made.partition}.{number}" for number in numbers]
    return XProduceResponse(queue.name, door.index_of(queue, made.partition), ids)


async def extend(door: Door, caller: Principal, request: XExtendRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.complete", queue.namespace)
    partition = door.partition(queue, request.partition)
    timeout = _timeout(request.timeout, queue)
    _check_ids(door, request.ids)
    until = Instant(door.clock.now() + timeout)
    settlements = [PlaceSettlement(_place(text, partition), Verb.EXTEND, until) for text in request.ids]
    await settle(door, queue, request.partition, request.ids, settlements, "extended")


def _timeout(text: str, queue: Queue) -> int:
    """Microseconds."""
    if not text:
        return queue.reservation_timeout
    timeout = _span("timeout", text)
    if not limits.RESERVATION_TIMEOUT_MIN <= timeout <= limits.RESERVATION_TIMEOUT_MAX:
        refuse("timeout is invalid; it is 100ms to 168h0m0s")
    return timeout


async def release(door: Door, caller: Principal, request: XReleaseRequest) -> None:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.retry", queue.namespace)
    partition = door.partition(queue, request.partition)
    _check_ids(door, request.ids)
    settlements = [PlaceSettlement(_place(text, partition), Verb.RELEASE) for text in request.ids]
    await settle(door, queue, request.partition, request.ids, settlements, "released")


def _check_ids(door: Door, ids: list[str]) -> None:
    if not ids:
        refuse("ids is invalid; list of ids cannot be empty")
    bound = door.settings.complete_items_max
    if len(ids) > bound:
        refuse(f"ids is invalid; max_complete_batch_size is {bound} but received {len(ids)}")


def _place(text: str, partition: PartitionId) -> Place:
    return decode_place(text, partition) or Place(0)


async def trace(door: Door, caller: Principal, request: XTraceRequest) -> XTraceResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    if door.history is None:
        refuse("history is not kept by this server", REQUEST_FAILED)
    partition, item = _item(queue, request.id)
    steps_max = min(checks.list_limit(request.limit), TRACE_STEPS_MAX)
    steps = await door.history.trace(partition, item, steps_max=steps_max)
    if isinstance(steps, Rejected):
        refuse(f"item is invalid; {steps.detail}")
    return XTraceResponse([XTraceStep(step.position, Stamp(step.at), step.what, step.text) for step in steps])


_ANSWERED_WITH = {
    Code.OVERLOADED: RETRY_REQUEST,
    Code.UNAVAILABLE: REQUEST_FAILED,
    Code.LIMIT_EXCEEDED: REQUEST_FAILED,
}


async def ask(door: Door, caller: Principal, request: XAnalyticsRequest) -> XAnalyticsResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    if door.analytics is None:
        refuse(NOT_KEPT, REQUEST_FAILED)
    params: dict[str, object] = {}
    if request.id:
        params["partition"], params["item"] = _item(queue, request.id)
    else:
        params["queue"] = queue.name
    for name in ("width", "waiting_target", "processing_target"):
        text = getattr(request, name)
        if text:
            params[name] = _span(name, text)
    for name in ("since", "until"):
        stamp = getattr(request, name)
        if stamp is not None:
            params[name] = int(stamp)
    answer = await door.analytics.ask(request.question, params)
    if isinstance(answer, Rejected):
        if answer.code in _ANSWERED_WITH:
            refuse(answer.detail, _ANSWERED_WITH[answer.code])
        refuse(f"{answer.field or 'question'} is invalid; {answer.detail}")
    rows = [XAnalyticsRow(["" if value is None else str(value) for value in row]) for row in answer.rows]
    return XAnalyticsResponse(answer.columns, rows, Stamp(answer.as_of), answer.is_cut)


def _span(field: str, text: str) -> int:
    """Microseconds."""
    try:
        return to_micros(parse_duration(text))
    except InvalidDuration as error:
        refuse(f"{field} is invalid; {error} - expected format: 900ms, 5m or 15m")


def _item(queue: Queue, text: str) -> tuple[PartitionId, ItemNumber]:
    """The partition, which must be the queue's, and the number of ``<partition>.<number>``."""
    partition, dot, number = text.partition(".")
    if not dot or not _is_number(partition) or not _is_number(number):
        refuse(f"invalid item id; '{text}' is not of the form <partition>.<number>")
    known = [candidate.id for candidate in queue.partitions]
    if int(partition) not in known:
        refuse(f"invalid item id; '{text}' is not in queue '{queue.name}'")
    return PartitionId(int(partition)), ItemNumber(int(number))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


async def redrive(door: Door, caller: Principal, request: XRedriveRequest) -> XRedriveResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.retry", queue.namespace)
    if request.limit < 0:
        refuse("limit is invalid; limit cannot be negative")
    left = min(request.limit or REDRIVE_ITEMS_MAX, REDRIVE_ITEMS_MAX)
    named: dict[PartitionId, list[ItemNumber]] = {}
    if len(request.ids) > REDRIVE_ITEMS_MAX:
        refuse(f"ids is invalid; at most {REDRIVE_ITEMS_MAX} but received {len(request.ids)}")
    for text in request.ids:
        partition, item = _item(queue, text)
        named.setdefault(partition, []).append(item)
    count = 0
    for index, entry in enumerate(queue.partitions):
        if left <= 0 or (named and entry.id not in named):
            continue
        command = Redrive(named.get(entry.id), request.reason or None, left, caller.user_id)
        done = expect(await door.ask_partition(entry.id, command), Done, queue, index)
        count += done.count
        left -= done.count
    return XRedriveResponse(count)


async def list_dead(door: Door, caller: Principal, request: XDeadListRequest) -> XDeadListResponse:
    queue = door.find_queue(request.queue_name)
    door.authorize(caller, "queue.stats", queue.namespace)
    partition = door.partition(queue, request.partition)
    pivot = 0
    if request.pivot:
        of, pivot = _item(queue, request.pivot)
        if of != partition:
            refuse(f"pivot is invalid; '{request.pivot}' is not in partition '{request.partition}'")
    command = ListItems(Listing.DEAD, pivot, checks.list_limit(request.limit))
    page = expect(await door.ask_partition(partition, command), ItemPage, queue, request.partition)
    return XDeadListResponse(
        [
            XDeadItem(
                id=f"{partition}.{view.item}",
                reason=view.reason,
                attempts=view.attempts,
                reference=_text(view.attributes, "reference"),
                encoding=_text(view.attributes, "encoding"),
                kind=_text(view.attributes, "kind"),
                payload=view.payload or b"",
                created_at=Stamp(view.produced_at),
            )
            for view in page.items
        ]
    )


def _text(attributes: dict[str, object], name: str) -> str:
    value = attributes.get(name)
    return value if isinstance(value, str) else ""
