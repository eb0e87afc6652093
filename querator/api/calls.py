"""Operators' calls over ``/v1/stream``: ``{"type": "call", "method": "queues.create", "params": {...}}``.

They are rare, so each runs as a task of its own, outside the session's receive loop. ``operations`` builds
the table of methods; another entry in it is another method.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec
import trio

from querator import telemetry
from querator.actors.ports import (
    AnalyticsPort,
    BrokerPort,
    CatalogPort,
    Delivery,
    HistoryPort,
    PartitionsPort,
    PrunePort,
)
from querator.api import access
from querator.api.access import Access
from querator.api.history_calls import AskParams, PruneCalls, PruneParams, QuestionCalls
from querator.core import limits
from querator.core.catalog import SYSTEM_NAMESPACE, CatalogCommand, Changed, Principal, Queue
from querator.core.catalog.commands import CreateQueue, DeleteQueue, UpdateQueue
from querator.core.commands import (
    Clear,
    Command,
    FindItem,
    Listing,
    ListItems,
    ReadHomes,
    Redrive,
    SendBack,
)
from querator.core.ids import Duration, ItemNumber, PartitionId, QueueName, SessionId
from querator.core.policy import Backoff, Ordering
from querator.core.replies import Code, Done, Homes, ItemPage, ItemView, Rejected
from querator.errors import AppendOutcomeUnknown, LogError, ProtocolError
from querator.protocol.codec import Codec

PAGE_ITEMS_MAX: Final = 1_000
PAGE_BYTES_MAX: Final = limits.MESSAGE_BYTES_MAX // 4
"""Payload bytes of a page, so that it fits into a message in every encoding."""
TRACE_STEPS_MAX: Final = 1_000
REDRIVE_ITEMS_MAX: Final = 1_000_000


@attrs.frozen
class Caller:
    """Who calls."""

    principal: Principal
    access: Access

    @property
    def author(self) -> str:
        """The name that events bear."""
        return self.principal.user_id

    def refusal(self, permission: str, queue: QueueName) -> Rejected | None:
        """Rejected unless the caller has the permission."""
        if self.access.is_allowed(self.principal, permission, queue):
            return None
        return Rejected(Code.DENIED, "access denied", "params.name")


@attrs.frozen
class Operation:
    """A method: what ``params`` decode to, and what is done with them."""

    params: type
    run: Callable[[Caller, Any], Awaitable[object]]
    """Returns the value of the result, ready for encoding, or Rejected."""


async def run_call(
    operations: Mapping[str, Operation], caller: Caller, codec: Codec, method: str, params: msgspec.Raw
) -> msgspec.Raw | Rejected:
    """The encoded value of a call, or Rejected. Raises nothing but Cancelled."""
    operation = operations.get(method)
    if operation is None:
        return Rejected(Code.INVALID, f"there is no method '{method}'", "method")
    try:
        decoded: object = codec.decode_value(params, operation.params)
    except ProtocolError as error:
        return Rejected(Code.INVALID, error.detail, f"params{error.path[1:]}")
    try:
        outcome = await operation.run(caller, decoded)
        return outcome if isinstance(outcome, Rejected) else codec.encode_value(outcome)
    except AppendOutcomeUnknown as error:
        return Rejected(Code.OUTCOME_UNKNOWN, str(error))
    except LogError as error:
        return Rejected(Code.UNAVAILABLE, str(error))
    except Exception as error:  # noqa: BLE001 - the boundary that keeps one call's bug from the session
        telemetry.emit("api.call.failed", method=method, error=repr(error))
        return Rejected(Code.INTERNAL, "the call failed; the server's log says how")


# -- parameters -----------------------------------------------------------------------------------


class _Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a caller leaves out is UNSET and keeps its default, or what is there."""


class BackoffParams(_Params):
    """Durations in microseconds."""

    base: int
    factor: float = 2.0
    limit: int = Backoff().limit
    jitter: float = 0.2


class QueueSettings(_Params):
    """Of ``queues.create`` and ``queues.update``. Durations in microseconds."""

    name: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET
    partitions: int | msgspec.UnsetType = msgspec.UNSET
    reservation_timeout: int | msgspec.UnsetType = msgspec.UNSET
    max_runtime: int | msgspec.UnsetType = msgspec.UNSET
    expire_timeout: int | msgspec.UnsetType = msgspec.UNSET
    attempts_max: int | msgspec.UnsetType = msgspec.UNSET
    backoff: BackoffParams | msgspec.UnsetType = msgspec.UNSET
    ordering: Ordering | msgspec.UnsetType = msgspec.UNSET
    dead_queue: str | msgspec.UnsetType = msgspec.UNSET
    dead_retention: int | msgspec.UnsetType = msgspec.UNSET
    session_grace: int | msgspec.UnsetType = msgspec.UNSET
    dedupe_window: int | msgspec.UnsetType = msgspec.UNSET
    dedupe_keys_max: int | msgspec.UnsetType = msgspec.UNSET
    export_payloads: bool | msgspec.UnsetType = msgspec.UNSET
    reference: str | msgspec.UnsetType = msgspec.UNSET


class QueueParams(_Params):
    name: str


class ListParams(_Params):
    """From ``pivot`` (a name) on."""

    pivot: str = ""
    limit: int = PAGE_ITEMS_MAX


class ClearParams(_Params):
    """Which states to clear; at least one."""

    name: str
    ready: bool = False
    scheduled: bool = False
    reserved: bool = False
    dead: bool = False


class DeadListParams(_Params):
    """From ``item`` of ``partition`` on; in order of partition, then number."""

    name: str
    partition: int | None = None
    item: int = 0
    limit: int = 100
    payloads: bool = True


class RedriveTo(enum.StrEnum):
    """Where to items are brought back."""

    TAIL = "tail"
    """Dead items, to the tail of the queue that they are dead in."""
    HOME = "home"
    """What this queue took as a dead queue, to the tail of the queues that it came from."""


class RedriveParams(_Params):
    """All items, or single ``items`` of one ``partition``; those of one ``reason`` to the tail, those
    ``from_queue`` home."""

    name: str
    partition: int | None = None
    items: list[int] | None = None
    reason: str | None = None
    limit: int = REDRIVE_ITEMS_MAX
    to: RedriveTo = RedriveTo.TAIL
    from_queue: str | None = None


class PartitionParams(_Params):
    partition: int


class ItemParams(_Params):
    partition: int
    item: int


class TraceParams(_Params):
    partition: int
    item: int
    limit: int = TRACE_STEPS_MAX


# -- the methods ----------------------------------------------------------------------------------


def operations(
    broker: BrokerPort,
    catalog: CatalogPort,
    history: HistoryPort,
    partitions: PartitionsPort,
    analytics: AnalyticsPort | None = None,
    pruner: PrunePort | None = None,
) -> dict[str, Operation]:
    """All methods, by name."""
    single = _Partitions(catalog, partitions)
    queues = _Queues(broker, catalog, partitions)
    items = _Items(broker, catalog, history)
    return {
        "queues.create": Operation(QueueSettings, queues.create),
        "queues.list": Operation(ListParams, queues.list),
        "queues.info": Operation(QueueParams, queues.info),
        "queues.update": Operation(QueueSettings, queues.update),
        "queues.delete": Operation(QueueParams, queues.delete),
        "queues.pause": Operation(QueueParams, queues.pause),
        "queues.resume": Operation(QueueParams, queues.resume),
        "queues.clear": Operation(ClearParams, queues.clear),
        "partitions.accept_loss": Operation(PartitionParams, single.accept_loss),
        "dead.list": Operation(DeadListParams, items.list_dead),
        "dead.redrive": Operation(RedriveParams, items.redrive),
        "dead.homes": Operation(QueueParams, items.homes),
        "item.find": Operation(ItemParams, items.find),
        "item.trace": Operation(TraceParams, items.trace),
        "analytics.ask": Operation(AskParams, QuestionCalls(analytics).ask),
        "log.prune": Operation(PruneParams, PruneCalls(pruner).prune),
    }


class _Queues:
    def __init__(self, broker: BrokerPort, catalog: CatalogPort, partitions: PartitionsPort) -> None:
        self._broker = broker
        self._catalog = catalog
        self._partitions = partitions

    async def create(self, caller: Caller, params: QueueSettings) -> object:
        settings = _given(params)
        namespace = settings.get("namespace", SYSTEM_NAMESPACE)
        if not caller.access.may(caller.principal, namespace, access.CREATE):
            return Rejected(Code.DENIED, "access denied", "params.namespace")
        return await self._change(caller, CreateQueue(**settings), params.name)

    async def update(self, caller: Caller, params: QueueSettings) -> object:
        refusal = caller.refusal(access.UPDATE, QueueName(params.name))
        if refusal is not None:
            return refusal
        settings = _given(params)
        for field in ("namespace", "ordering"):
            if field in settings:
                return Rejected(Code.INVALID, f"a queue keeps its {field}", f"params.{field}")
        if "partitions" in settings:
            settings["partitions_requested"] = settings.pop("partitions")
        return await self._change(caller, UpdateQueue(**settings), params.name)

    async def delete(self, caller: Caller, params: QueueParams) -> object:
        refusal = caller.refusal(access.DELETE, QueueName(params.name))
        if refusal is not None:
            return refusal
        outcome = await self._catalog.change(DeleteQueue(QueueName(params.name)), caller.author)
        return _of_params(outcome) if isinstance(outcome, Rejected) else {}

    async def pause(self, caller: Caller, params: QueueParams) -> object:
        return await self._set_paused(caller, params, is_paused=True)

    async def resume(self, caller: Caller, params: QueueParams) -> object:
        return await self._set_paused(caller, params, is_paused=False)

    async def info(self, caller: Caller, params: QueueParams) -> object:
        name = QueueName(params.name)
        refusal = caller.refusal(access.LIST, name)
        if refusal is not None:
            return refusal
        queue = self._catalog.catalog.queues.get(name)
        if queue is None:
            return unknown_queue(name)
        places = [
            {"partition": part.id, **attrs.asdict(self._partitions.whereabouts(part.id))}
            for part in queue.partitions
        ]
        return {**queue_document(queue), "places": places}

    async def list(self, caller: Caller, params: ListParams) -> object:
        fault = _check_limit(params.limit, PAGE_ITEMS_MAX)
        if fault is not None:
            return fault
        page: list[dict[str, object]] = []
        for queue in self._catalog.catalog.queues.from_pivot(params.pivot):
            if not caller.access.is_allowed(caller.principal, access.LIST, queue.name):
                continue
            if len(page) == params.limit:
                return {"queues": page, "next": queue.name}
            page.append(queue_document(queue))
        return {"queues": page, "next": None}

    async def clear(self, caller: Caller, params: ClearParams) -> object:
        refusal = caller.refusal(access.CLEAR, QueueName(params.name))
        if refusal is not None:
            return refusal
        if not (params.ready or params.scheduled or params.reserved or params.dead):
            return Rejected(Code.INVALID, "say what to clear: ready, scheduled, reserved or dead", "params")
        command = Clear(params.ready, params.scheduled, params.reserved, params.dead, caller.author)
        count = await count_over_partitions(self._broker, QueueName(params.name), command)
        return count if isinstance(count, Rejected) else {"cleared": count}

    async def _set_paused(self, caller: Caller, params: QueueParams, *, is_paused: bool) -> object:
        refusal = caller.refusal(access.UPDATE, QueueName(params.name))
        if refusal is not None:
            return refusal
        return await self._change(
            caller, UpdateQueue(name=QueueName(params.name), paused=is_paused), params.name
        )

    async def _change(self, caller: Caller, command: CatalogCommand, name: str) -> object:
        outcome: Changed | Rejected = await self._catalog.change(command, caller.author)
        return _of_params(outcome) if isinstance(outcome, Rejected) else self._document(QueueName(name))

    def _document(self, name: QueueName) -> object:
        queue = self._catalog.catalog.queues.get(name)
        return unknown_queue(name) if queue is None else queue_document(queue)


class _Partitions:
    def __init__(self, catalog: CatalogPort, partitions: PartitionsPort) -> None:
        self._catalog = catalog
        self._partitions = partitions

    async def accept_loss(self, caller: Caller, params: PartitionParams) -> object:
        partition = PartitionId(params.partition)
        queue = self._catalog.catalog.find_queue_of(partition)
        if queue is None:
            return Rejected(Code.INVALID, f"there is no partition {partition}", "params.partition")
        refusal = caller.refusal(access.UPDATE, queue.name)
        if refusal is not None:
            return _of_params(refusal)
        loss = await self._partitions.accept_loss(partition, caller.author)
        if isinstance(loss, Rejected):
            return _of_params(loss)
        return {"kept": loss.kept, "known": loss.known}


class _Items:
    def __init__(self, broker: BrokerPort, catalog: CatalogPort, history: HistoryPort) -> None:
        self._broker = broker
        self._catalog = catalog
        self._history = history

    async def list_dead(self, caller: Caller, params: DeadListParams) -> object:
        name = QueueName(params.name)
        refusal = caller.refusal(access.LIST, name) or _check_limit(params.limit, PAGE_ITEMS_MAX)
        if refusal is not None:
            return refusal
        partitions = _partitions_from(self._broker, name, params.partition)
        if isinstance(partitions, Rejected):
            return partitions
        page: list[dict[str, object]] = []
        size = 0
        pivot = params.item
        for partition in partitions:
            # One more than asked, to know where the next page begins.
            wanted = ListItems(Listing.DEAD, pivot, params.limit - len(page) + 1)
            reply = await ask(self._broker, partition, wanted)
            if isinstance(reply, Rejected):
                return reply
            for view in reply.items if isinstance(reply, ItemPage) else ():
                if len(page) == params.limit or size > PAGE_BYTES_MAX:
                    return {"items": page, "next": {"partition": partition, "item": view.item}}
                size += len(view.payload or b"") if params.payloads else 0
                page.append(self._document(caller, partition, view, with_payload=params.payloads))
            pivot = 0
        return {"items": page, "next": None}

    async def redrive(self, caller: Caller, params: RedriveParams) -> object:
        name = QueueName(params.name)
        refusal = caller.refusal(access.UPDATE, name) or _check_limit(params.limit, REDRIVE_ITEMS_MAX)
        if refusal is not None:
            return refusal
        if params.items is not None and params.partition is None:
            return Rejected(Code.INVALID, "items are named within a partition", "params.partition")
        if params.items is not None and len(params.items) > limits.TURN_DUE_ITEMS_MAX:
            return Rejected(
                Code.BATCH_TOO_LARGE, f"at most {limits.TURN_DUE_ITEMS_MAX} items at a time", "params.items"
            )
        partitions = _partitions_from(self._broker, name, params.partition)
        if isinstance(partitions, Rejected):
            return partitions
        if params.partition is not None:
            partitions = partitions[:1]
        items = None if params.items is None else [ItemNumber(number) for number in params.items]
        if params.to is RedriveTo.HOME:
            return await self._send_home(caller, params, partitions, items)
        if params.from_queue is not None:
            return Rejected(Code.INVALID, "says what is to go home: with it, to is home", "params.from_queue")
        total = 0
        for partition in partitions:
            while total < params.limit:
                step = min(limits.TURN_DUE_ITEMS_MAX, params.limit - total)
                reply = await ask(self._broker, partition, Redrive(items, params.reason, step, caller.author))
                if isinstance(reply, Rejected):
                    return reply
                count = reply.count if isinstance(reply, Done) else 0
                total += count
                if items is not None or count < step:
                    break
        return {"redriven": total}

    async def _send_home(
        self,
        caller: Caller,
        params: RedriveParams,
        partitions: Sequence[PartitionId],
        items: list[ItemNumber] | None,
    ) -> object:
        """What can't go is left where it is: what somebody holds, and what came from a deleted queue."""
        if params.reason is not None:
            return Rejected(Code.INVALID, "what goes home is not told apart by reason", "params.reason")
        wanted: dict[PartitionId, None] | None = None
        if params.from_queue is not None:
            queue = self._catalog.catalog.queues.get(params.from_queue)
            if queue is None:
                return attrs.evolve(unknown_queue(params.from_queue), field="params.from_queue")
            wanted = dict.fromkeys(part.id for part in queue.partitions)
        total = reserved = stranded = 0
        for partition in partitions:
            found = await ask(self._broker, partition, ReadHomes())
            if isinstance(found, Rejected):
                return found
            here = found if isinstance(found, Homes) else Homes({}, {})
            homes = [home for home in here.idle | here.reserved if wanted is None or home in wanted]
            known = [home for home in homes if self._catalog.catalog.find_queue_of(home) is not None]
            reserved += sum(here.reserved.get(home, 0) for home in known)
            stranded += sum(here.idle.get(home, 0) for home in homes) - sum(
                here.idle.get(home, 0) for home in known
            )
            while total < params.limit:
                step = min(limits.SEND_BACK_ITEMS_MAX, params.limit - total)
                reply = await ask(self._broker, partition, SendBack(items, known, step, caller.author))
                if isinstance(reply, Rejected):
                    if reply.code is not Code.OVERLOADED or items is not None:
                        return reply
                    return _sent(total, reserved, stranded, more=True)
                count = reply.count if isinstance(reply, Done) else 0
                total += count
                if items is not None or not count:
                    break
        return _sent(total, reserved, stranded, more=False)

    async def homes(self, caller: Caller, params: QueueParams) -> object:
        name = QueueName(params.name)
        refusal = caller.refusal(access.LIST, name)
        if refusal is not None:
            return refusal
        partitions = _partitions_from(self._broker, name, None)
        if isinstance(partitions, Rejected):
            return partitions
        counts: dict[PartitionId, list[int]] = {}
        for partition in partitions:
            found = await ask(self._broker, partition, ReadHomes())
            if isinstance(found, Rejected):
                return found
            if isinstance(found, Homes):
                for column, by_home in enumerate((found.idle, found.reserved)):
                    for home, count in by_home.items():
                        counts.setdefault(home, [0, 0])[column] += count
        return {
            "homes": [
                {**self._home(caller, home), "idle": idle, "reserved": reserved}
                for home, (idle, reserved) in sorted(counts.items())
            ]
        }

    def _document(
        self, caller: Caller, partition: PartitionId, view: ItemView, *, with_payload: bool
    ) -> dict[str, object]:
        document = item_document(partition, view, with_payload=with_payload)
        return document | self._home(caller, view.home) if view.home else document

    def _home(self, caller: Caller, home: PartitionId) -> dict[str, object]:
        """The partition that an item came from, and its queue: "" of one that was deleted, or whose name is
        not for the caller to see."""
        queue = self._catalog.catalog.find_queue_of(home)
        is_seen = queue is not None and caller.access.is_allowed(caller.principal, access.LIST, queue.name)
        return {"home": home, "home_queue": queue.name if queue is not None and is_seen else ""}

    async def find(self, caller: Caller, params: ItemParams) -> object:
        refusal = self._refusal(caller, params.partition)
        if refusal is not None:
            return refusal
        partition = PartitionId(params.partition)
        reply = await ask(self._broker, partition, FindItem(ItemNumber(params.item)))
        if isinstance(reply, ItemPage) and reply.items:
            return self._document(caller, partition, reply.items[0], with_payload=True)
        if isinstance(reply, Rejected):
            return reply
        return Rejected(
            Code.UNKNOWN_ITEM, f"partition {partition} never had an item {params.item}", "params.item"
        )

    async def trace(self, caller: Caller, params: TraceParams) -> object:
        refusal = self._refusal(caller, params.partition) or _check_limit(params.limit, TRACE_STEPS_MAX)
        if refusal is not None:
            return refusal
        steps = await self._history.trace(
            PartitionId(params.partition), ItemNumber(params.item), steps_max=params.limit
        )
        if isinstance(steps, Rejected):
            return steps
        return {
            "partition": params.partition,
            "item": params.item,
            "steps": [attrs.asdict(step) for step in steps],
        }

    def _refusal(self, caller: Caller, partition: int) -> Rejected | None:
        if self._catalog.catalog.find_queue_of(PartitionId(partition)) is None:
            return Rejected(Code.UNKNOWN_ITEM, f"there is no partition {partition}", "params.partition")
        if caller.access.is_allowed_in(caller.principal, access.LIST, PartitionId(partition)):
            return None
        return Rejected(Code.DENIED, "access denied", "params.partition")


# -- what they share -------------------------------------------------------------------------------


class _Asker:
    """A Requester for one answer."""

    session = SessionId("")
    generation = 0

    def __init__(self) -> None:
        self.is_open = True
        self.answer: object = None
        self._is_there = trio.Event()

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, reply in deliveries:
            self.answer = reply
        self._is_there.set()

    async def wait(self) -> object:
        try:
            await self._is_there.wait()
        finally:
            self.is_open = False
        return self.answer


async def ask(broker: BrokerPort, partition: PartitionId, command: Command) -> object:
    """One command to one partition, as a turn of its own; its committed reply."""
    asker = _Asker()
    broker.begin_turn()
    try:
        broker.command(asker, 0, partition, command)
    finally:
        broker.end_turn()
    return await asker.wait()


async def count_over_partitions(broker: BrokerPort, queue: QueueName, command: Command) -> int | Rejected:
    """The command to every partition of the queue, one after the other; the sum of what they did.

    The first refusal ends it: what was done before stays done.
    """
    partitions = broker.partitions(queue)
    if partitions is None:
        return unknown_queue(queue)
    total = 0
    for partition in partitions:
        reply = await ask(broker, partition, command)
        if isinstance(reply, Rejected):
            return reply
        total += reply.count if isinstance(reply, Done) else 0
    return total


def _sent(total: int, reserved: int, stranded: int, *, more: bool) -> dict[str, object]:
    return {"redriven": total, "reserved": reserved, "stranded": stranded, "more": more}


def unknown_queue(name: str) -> Rejected:
    return Rejected(Code.UNKNOWN_QUEUE, f"there is no queue named '{name}'", "params.name")


def queue_document(queue: Queue) -> dict[str, object]:
    """A queue as clients see it. Durations in microseconds, partitions as their global ids."""
    document: dict[str, object] = attrs.asdict(queue)
    document["partitions"] = [partition.id for partition in queue.partitions]
    return document


def item_document(partition: PartitionId, view: ItemView, *, with_payload: bool) -> dict[str, object]:
    """An item as clients see it; what it does not have is left out, and where it came from."""
    document: dict[str, object] = {"partition": partition, **attrs.asdict(view, recurse=False)}
    document["home"] = None
    if not with_payload:
        document["payload"] = None
    return {name: value for name, value in document.items() if value is not None}


def _partitions_from(
    broker: BrokerPort, queue: QueueName, first: int | None
) -> Sequence[PartitionId] | Rejected:
    partitions = broker.partitions(queue)
    if partitions is None:
        return unknown_queue(queue)
    if first is None:
        return partitions
    if first not in partitions:
        return Rejected(Code.INVALID, f"partition {first} is not one of queue '{queue}'", "params.partition")
    return partitions[partitions.index(PartitionId(first)) :]


def _of_params(refusal: Rejected) -> Rejected:
    """The catalog names the fields of its commands, which are those of ``params``."""
    return attrs.evolve(refusal, field=f"params.{refusal.field}") if refusal.field else refusal


def _check_limit(limit: int, most: int) -> Rejected | None:
    if 1 <= limit <= most:
        return None
    return Rejected(Code.INVALID, f"a limit is a number from 1 to {most}", "params.limit")


def _given(params: QueueSettings) -> dict[str, Any]:
    """The settings that were sent, as the catalog's commands take them."""
    given = {
        name: value
        for name in params.__struct_fields__
        if (value := getattr(params, name)) is not msgspec.UNSET
    }
    backoff = given.get("backoff")
    if isinstance(backoff, BackoffParams):
        given["backoff"] = Backoff(
            Duration(backoff.base), backoff.factor, Duration(backoff.limit), backoff.jitter
        )
    return given
