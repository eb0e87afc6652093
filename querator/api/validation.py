"""What a message asks, as a command; or which field of it is at fault. Pure.

The codec has checked types; here are the values. Nothing runs per item but what the interpreter
does in C (``len``, ``map``, ``max``).
"""

from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

from msgspec import UNSET

from querator.actors.ports import ReserveRequest, SubscriptionRequest
from querator.core import limits
from querator.core.commands import BY_BACKOFF, Produce, Settle, Verb
from querator.core.events import Attributes, Ranges
from querator.core.ids import Duration, Instant, PartitionId
from querator.core.replies import Code, Rejected
from querator.protocol import messages as wire
from querator.protocol.tokens import PARTITION_MAX, decode_token

T = TypeVar("T")

Settlement: TypeAlias = tuple[PartitionId, Settle]

_TEXT_COLUMNS: Final = (
    ("encoding", limits.ENCODING_BYTES_MAX),
    ("kind", limits.KIND_BYTES_MAX),
    ("reference", limits.REFERENCE_BYTES_MAX),
    ("key", limits.KEY_BYTES_MAX),
    ("dedupe_key", limits.DEDUPE_KEY_BYTES_MAX),
)
_RANGE_END_MAX: Final = 2**31
_COMPLETE: Final = Verb.COMPLETE
"""A lookup in an enumeration's class is not free, and this one is made for each item."""


def invalid(field: str, detail: str) -> Rejected:
    """Refuse a value of ``field``."""
    return Rejected(Code.INVALID, detail, field)


def check_queue(name: str) -> Rejected | None:
    """A queue's name: not empty, not too long. Whether it exists is the catalog's business."""
    if not name:
        return invalid("queue", "a queue's name is not empty")
    if len(name) > limits.QUEUE_NAME_BYTES_MAX or len(name.encode()) > limits.QUEUE_NAME_BYTES_MAX:
        return invalid("queue", f"a queue's name is at most {limits.QUEUE_NAME_BYTES_MAX} bytes")
    return None


def read_produce(message: wire.Produce) -> Produce | Rejected:
    """The command of a ``produce``."""
    payloads = _read_payloads(message)
    if isinstance(payloads, Rejected):
        return payloads
    if message.producer and len(message.producer.encode()) > limits.PRODUCER_NAME_BYTES_MAX:
        return invalid("producer", f"a producer's name is at most {limits.PRODUCER_NAME_BYTES_MAX} bytes")
    if message.sequence and not message.producer:
        return invalid("sequence", "a sequence needs a producer")
    if message.producer and not message.sequence:
        # All its messages would be taken for the first one, sent again.
        return invalid("sequence", "a producer numbers its messages, from 1 on")
    if message.partition is not None and not 0 <= message.partition <= PARTITION_MAX:
        return invalid("partition", f"a partition is a number from 0 to {PARTITION_MAX}")
    due_at = _read_due_at(message.enqueue_at, len(payloads))
    if isinstance(due_at, Rejected):
        return due_at
    attributes = _read_attributes(message, len(payloads))
    if isinstance(attributes, Rejected):
        return attributes
    return Produce(payloads, due_at, attributes, message.producer, message.sequence)


def _read_payloads(message: wire.Produce) -> Sequence[bytes] | Rejected:
    payloads, texts = message.payloads, message.texts
    if payloads is UNSET and texts is UNSET:
        return Rejected(Code.BATCH_EMPTY, "give payloads or texts", "payloads")
    if payloads is not UNSET and texts is not UNSET:
        return invalid("texts", "give payloads or texts, not both")
    field = "payloads" if texts is UNSET else "texts"
    count = len(payloads) if payloads is not UNSET else len(texts) if texts is not UNSET else 0
    if not count:
        return Rejected(Code.BATCH_EMPTY, "a batch has at least one item", field)
    if count > limits.BATCH_ITEMS_MAX:
        return Rejected(Code.BATCH_TOO_LARGE, f"a batch has at most {limits.BATCH_ITEMS_MAX} items", field)
    if texts is not UNSET:
        payloads = [text.encode() for text in texts]
    if payloads is UNSET or max(map(len, payloads)) > limits.PAYLOAD_BYTES_MAX:
        return Rejected(
            Code.PAYLOAD_TOO_LARGE, f"an item's payload is at most {limits.PAYLOAD_BYTES_MAX} bytes", field
        )
    return payloads


def _read_due_at(enqueue_at: int | list[int | None] | None, count: int) -> Instant | list[Instant] | Rejected:
    if enqueue_at is None:
        return Instant(0)
    if isinstance(enqueue_at, int):
        if 0 <= enqueue_at <= limits.INSTANT_MAX:
            return Instant(enqueue_at)
        return invalid("enqueue_at", "an instant is in microseconds since 1970, up to the year 9999")
    if len(enqueue_at) != count:
        return _uneven("enqueue_at", len(enqueue_at), count)
    instants = [Instant(at or 0) for at in enqueue_at]
    if min(instants) < 0 or max(instants) > limits.INSTANT_MAX:
        return invalid("enqueue_at", "an instant is in microseconds since 1970, up to the year 9999")
    return instants


def _read_attributes(message: wire.Produce, count: int) -> Attributes | None | Rejected:
    texts = (message.encoding, message.kind, message.reference, message.key, message.dedupe_key)
    timeout, attempts, headers = message.reservation_timeout, message.attempts_max, message.headers
    if headers is None and timeout is None and attempts is None and texts == (None,) * 5:
        return None
    for (field, bytes_max), column in zip(_TEXT_COLUMNS, texts, strict=True):
        if column is not None and (fault := _check_texts(field, column, bytes_max, count)) is not None:
            return fault
    dedupe = message.dedupe_key
    if dedupe is not None and (dedupe == "" or (isinstance(dedupe, list) and "" in dedupe)):
        # Whoever means none would lose all items but the first.
        return invalid("dedupe_key", "a dedupe key is not empty: leave it out, or null, where there is none")
    if headers is not None and (fault := _check_headers(headers, count)) is not None:
        return fault
    if timeout is not None:
        fault = _check_numbers(
            "reservation_timeout",
            timeout,
            limits.RESERVATION_TIMEOUT_MIN,
            limits.RESERVATION_TIMEOUT_MAX,
            count,
        )
        if fault is not None:
            return fault
    if attempts is not None:
        fault = _check_numbers("attempts_max", attempts, 1, limits.ATTEMPTS_MAX_MAX, count)
        if fault is not None:
            return fault
    return Attributes(
        encoding=message.encoding,
        kind=message.kind,
        reference=message.reference,
        headers=headers,
        key=message.key,
        dedupe_key=message.dedupe_key,
        reservation_timeout=timeout,
        attempts_max=attempts,
    )


def _uneven(field: str, length: int, count: int) -> Rejected:
    return invalid(field, f"the column has {length} entries for {count} items")


def _check_texts(field: str, column: str | list[str | None], bytes_max: int, count: int) -> Rejected | None:
    if isinstance(column, str):
        longest = len(column.encode())
    elif len(column) != count:
        return _uneven(field, len(column), count)
    else:
        # A character has at most four bytes: only columns near the bound are looked at more closely.
        longest = max(map(len, filter(None, column)), default=0)
        if longest * 4 > bytes_max >= longest:
            longest = max((len(text.encode()) for text in column if text), default=0)
    if longest > bytes_max:
        return invalid(field, f"at most {bytes_max} bytes")
    return None


def _check_headers(headers: dict[str, str] | list[dict[str, str] | None], count: int) -> Rejected | None:
    if isinstance(headers, list) and len(headers) != count:
        return _uneven("headers", len(headers), count)
    for entry in headers if isinstance(headers, list) else (headers,):
        if not entry:
            continue
        if len(entry) > limits.HEADERS_MAX:
            return invalid("headers", f"an item has at most {limits.HEADERS_MAX} headers")
        if (
            sum(len(name.encode()) + len(value.encode()) for name, value in entry.items())
            > limits.HEADERS_BYTES_MAX
        ):
            return invalid(
                "headers", f"an item's headers are at most {limits.HEADERS_BYTES_MAX} bytes together"
            )
    return None


def _check_numbers(
    field: str, column: int | list[int | None], least: int, most: int, count: int
) -> Rejected | None:
    if isinstance(column, int):
        low = high = column
    elif len(column) != count:
        return _uneven(field, len(column), count)
    else:
        present = [number for number in column if number is not None]
        low, high = min(present, default=least), max(present, default=least)
    if low < least or high > most:
        return invalid(field, f"a number from {least} to {most}")
    return None


def _check_timeout(field: str, timeout: int) -> Rejected | None:
    """0 stands for the default."""
    if timeout and not limits.RESERVATION_TIMEOUT_MIN <= timeout <= limits.RESERVATION_TIMEOUT_MAX:
        return invalid(
            field,
            f"0 (the default) or {limits.RESERVATION_TIMEOUT_MIN} to {limits.RESERVATION_TIMEOUT_MAX} µs",
        )
    return None


def _check_range(field: str, number: int, least: int, most: int) -> Rejected | None:
    if not least <= number <= most:
        return invalid(field, f"a number from {least} to {most}")
    return None


def _check_batch(field: str, items: int) -> Rejected | None:
    if items < 1:
        return Rejected(Code.BATCH_EMPTY, "ask for at least one item", field)
    if items > limits.BATCH_ITEMS_MAX:
        return Rejected(Code.BATCH_TOO_LARGE, f"ask for at most {limits.BATCH_ITEMS_MAX} items", field)
    return None


def read_subscribe(message: wire.Subscribe) -> SubscriptionRequest | Rejected:
    """What a ``subscribe`` wants."""
    fault = (
        _check_range("window", message.window, 1, limits.WINDOW_ITEMS_MAX)
        or _check_range("window_bytes", message.window_bytes, 0, limits.WINDOW_BYTES_MAX)
        or _check_batch("batch", message.batch)
        or _check_range("linger", message.linger, 0, limits.RESERVE_WAIT_MAX)
        or _check_timeout("reservation_timeout", message.reservation_timeout)
    )
    if fault is not None:
        return fault
    return SubscriptionRequest(
        window=message.window,
        window_bytes=message.window_bytes or limits.WINDOW_BYTES_DEFAULT,
        batch=message.batch,
        linger=Duration(message.linger),
        reservation_timeout=Duration(message.reservation_timeout),
        held=message.held,
    )


def read_reserve(message: wire.Reserve, now: Instant) -> ReserveRequest | Rejected:
    """What a ``reserve`` wants."""
    fault = (
        _check_batch("items", message.items)
        or _check_range("wait", message.wait, 0, limits.RESERVE_WAIT_MAX)
        or _check_timeout("reservation_timeout", message.reservation_timeout)
    )
    if fault is not None:
        return fault
    return ReserveRequest(
        items_max=message.items,
        deadline=Instant(now + message.wait if message.wait else 0),
        reservation_timeout=Duration(message.reservation_timeout),
        held=message.held,
    )


def read_complete(message: wire.Complete) -> Settlement | Rejected:
    if message.ranges is None:
        named = decode_token(message.token)
        if named is not None:
            # The most frequent of all messages.
            partition, nonce, reservation = named
            return partition, Settle(_COMPLETE, reservation, nonce)
    return _settlement(message.token, message.ranges, _COMPLETE)


def read_retry(message: wire.Retry, now: Instant) -> Settlement | Rejected:
    due_at = BY_BACKOFF
    if message.delay is not None:
        if message.at is not None:
            return invalid("delay", "give at or delay, not both")
        if not 0 <= message.delay <= limits.INSTANT_MAX - now:
            return invalid(
                "delay", "a delay is in microseconds, not negative, and ends before the year 9999 does"
            )
        due_at = Instant(now + message.delay if message.delay else 0)
    elif message.at is not None:
        if not 0 <= message.at <= limits.INSTANT_MAX:
            return invalid("at", "an instant is in microseconds since 1970, up to the year 9999")
        due_at = Instant(message.at)
    return _settlement(message.token, message.ranges, Verb.RETRY, due_at=due_at)


def read_release(message: wire.Release) -> Settlement | Rejected:
    return _settlement(message.token, message.ranges, Verb.RELEASE, reason="client")


def read_dead(message: wire.Dead) -> Settlement | Rejected:
    if len(message.reason.encode()) > limits.REASON_BYTES_MAX:
        return invalid("reason", f"a reason is at most {limits.REASON_BYTES_MAX} bytes")
    return _settlement(message.token, message.ranges, Verb.DEAD, reason=message.reason)


def read_extend(message: wire.Extend) -> Settlement | Rejected:
    fault = _check_timeout("timeout", message.timeout)
    if fault is not None:
        return fault
    read = _settlement(message.token, None, Verb.EXTEND)
    if isinstance(read, tuple):
        read[1].timeout = Duration(message.timeout)
    return read


def _settlement(
    token: str,
    ranges: list[tuple[int, int]] | None,
    verb: Verb,
    *,
    due_at: Instant = BY_BACKOFF,
    reason: str = "",
) -> Settlement | Rejected:
    named = decode_token(token)
    if named is None:
        return invalid("token", "this is not a reservation's token")
    checked: Ranges | None = None
    if ranges is not None:
        fault = _check_ranges(ranges)
        if fault is not None:
            return fault
        checked = tuple(ranges)
    partition, nonce, reservation = named
    return partition, Settle(verb, reservation, nonce, checked, due_at, reason)


def _check_ranges(ranges: list[tuple[int, int]]) -> Rejected | None:
    if not ranges:
        return Rejected(Code.BATCH_EMPTY, "name at least one range, or leave ranges out for all", "ranges")
    if len(ranges) > limits.BATCH_ITEMS_MAX:
        return Rejected(Code.BATCH_TOO_LARGE, f"at most {limits.BATCH_ITEMS_MAX} ranges", "ranges")
    end = 0
    for first, count in ranges:
        if first < end or count < 1 or first + count > _RANGE_END_MAX:
            return invalid("ranges", "ranges are [first index, count >= 1], ascending, without overlap")
        end = first + count
    return None


def read_watch(message: wire.Watch) -> Duration | Rejected:
    """The interval of a ``watch``."""
    fault = _check_range("interval", message.interval, limits.WATCH_INTERVAL_MIN, limits.WATCH_INTERVAL_MAX)
    return Duration(message.interval) if fault is None else fault
