"""What the core answered, as messages. Pure.

A reservation is turned into one message by whole columns; only one that would be too large for a
WebSocket message is taken apart.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import attrs
import msgspec
from msgspec import UNSET

from querator.actors.ports import HeldReservation, QueueStats
from querator.core import replies
from querator.core.ids import QueueName
from querator.protocol import messages as wire
from querator.protocol.tokens import encode_token

T = TypeVar("T")

_COLUMNS: Final = ("encoding", "kind", "reference", "headers", "key")


@attrs.frozen
class Origin:
    """What a reservation answers: a subscription's push, or a request."""

    queue: QueueName
    texts: bool
    subscription: int | None
    request: int | None


@attrs.define
class Pushed:
    """A reservation on its way to a client that has not confirmed it. Not to be changed; not frozen, since
    one is made for each push."""

    push: int
    reply: replies.Reserved
    origin: Origin


def reserved_message(reply: replies.Reserved, origin: Origin, push: int) -> wire.Reserved:
    """The reservation as one message."""
    runs = reply.runs
    items: int | list[int]
    if len(runs) == 1:
        items = runs[0][1]
    else:
        items = [number for _, first, count in runs for number in range(first, first + count)]
    message = wire.Reserved(
        encode_token(reply.partition, reply.nonce, reply.reservation),
        origin.queue,
        reply.partition,
        items,
        reply.deadline,
        push=push,
        subscription=origin.subscription,
        id=origin.request,
        attempts=reply.attempts,
        run_until=reply.run_until,
    )
    if not (origin.texts and _set_texts(message, reply.payloads)):
        message.payloads = reply.payloads
    if reply.attributes is not None:
        _set_columns(message, reply)
    return message


def _set_texts(message: wire.Reserved, payloads: Sequence[bytes]) -> bool:
    """As texts, if every payload is UTF-8."""
    try:
        message.texts = [payload.decode() for payload in payloads]
    except UnicodeDecodeError:
        return False
    return True


def _set_columns(message: wire.Reserved, reply: replies.Reserved) -> None:
    attributes = reply.attributes or []
    if len(attributes) == 1:
        for name, whole in attributes[0].items():
            if name in _COLUMNS:
                setattr(message, name, whole)
        return
    for name in _COLUMNS:
        column: list[Any] = []
        is_present = False
        for (_, _, count), run in zip(reply.runs, attributes, strict=True):
            values = run.get(name)
            if values is None:
                column += [None] * count
            else:
                is_present = True
                column += values
        if is_present:
            setattr(message, name, column)


def split_reserved(message: wire.Reserved) -> tuple[wire.Reserved, wire.Reserved] | None:
    """The same reservation in two messages; ``None``: it has but one item."""
    count = count_of(message)
    if count < 2:
        return None
    half = count // 2
    head, tail = part_of(message, 0, half), part_of(message, half, count - half)
    head.last = False
    return head, tail


def part_of(message: wire.Reserved, start: int, count: int) -> wire.Reserved:
    """The message of ``count`` of its items, from its ``start``-th on."""
    end = start + count
    columns: dict[str, Any] = {
        name: _slice(getattr(message, name), start, end) for name in (*_COLUMNS, "attempts")
    }
    items = message.items
    return msgspec.structs.replace(
        message,
        items=items[start:end] if isinstance(items, list) else items + start,
        payloads=UNSET if message.payloads is UNSET else message.payloads[start:end],
        texts=UNSET if message.texts is UNSET else message.texts[start:end],
        first=message.first + start,
        **columns,
    )


def parts_of(message: wire.Reserved, ranges: Sequence[tuple[int, int]]) -> Iterator[wire.Reserved]:
    """Of a whole reservation's message, what lies in the (first index, count) ranges."""
    size = count_of(message)
    if list(ranges) == [(0, size)]:
        yield message
        return
    for position, (first, count) in enumerate(ranges, start=1):
        part = part_of(message, first, count)
        part.last = position == len(ranges)
        yield part


def count_of(message: wire.Reserved) -> int:
    """Items of the message."""
    if message.payloads is not UNSET:
        return len(message.payloads)
    return len(message.texts) if message.texts is not UNSET else 0


def _slice(column: T, start: int, end: int) -> T:
    return column[start:end] if isinstance(column, list) else column  # type: ignore[return-value]  # a slice is a list


def produced_message(request: int, reply: replies.Produced) -> wire.Produced:
    return wire.Produced(
        request,
        reply.partition,
        reply.first_item,
        reply.count,
        reply.numbers,
        list(reply.duplicates) if reply.duplicates else None,
        reply.repeated,
    )


def settled_message(request: int, reply: replies.Settled) -> wire.Settled:
    if not reply.refused:
        return wire.Settled(request, reply.done, None, reply.repeated)
    refused = [(index, str(code)) for index, code in reply.refused]
    return wire.Settled(request, reply.done, refused, reply.repeated)


def held_message(held: HeldReservation, pushed: Pushed | None) -> wire.Held:
    return wire.Held(
        token=encode_token(held.partition, held.nonce, held.reservation),
        queue=held.queue,
        partition=held.partition,
        remaining=list(held.remaining),
        deadline=held.deadline,
        subscription=None if pushed is None else pushed.origin.subscription,
    )


def stats_message(request: int, stats: QueueStats) -> wire.StatsReport:
    return wire.StatsReport(
        id=request,
        queue=stats.queue,
        partitions=[
            {name: int(value) for name, value in attrs.asdict(partition).items()}  # type: ignore[arg-type]
            for partition in stats.partitions
        ],
        subscriptions=stats.subscriptions,
        parked=stats.parked,
    )
