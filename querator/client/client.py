"""The client as applications see it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, Generic, Literal, TypeVar

import attrs
import trio

from querator.client.address import ADDRESS_DEFAULT, Address, parse_addresses
from querator.client.answers import Answer
from querator.client.batches import Batch
from querator.client.connection import Connector, Patience
from querator.client.consuming import Collector, Consumer
from querator.client.durations import (
    DurationLike,
    InstantLike,
    parse_duration,
    parse_instant,
)
from querator.client.errors import ClientError, Rejected
from querator.client.producing import Receipt
from querator.client.protocol import Protocol
from querator.client.waiting import Bell, wait_answer
from querator.core import limits
from querator.core.replies import Code
from querator.env import Env, seconds
from querator.env.real import client_tls, real_env
from querator.protocol.codec import JSON, MSGPACK, Codec
from querator.protocol.messages import (
    Reserve,
    Result,
    StatsReport,
    Step,
    Subscribe,
    Unwatched,
    Watch,
    Watching,
    WatchItem,
)

_CODECS: Final[dict[str, Codec]] = {"msgpack": MSGPACK, "json": JSON}
_NO_COLUMNS: Final[dict[str, Any]] = {}
REPORTS_MAX: Final = 16
"""Reports of a watch that its reader may fall behind; then the oldest are dropped."""

_Report = TypeVar("_Report")


@attrs.frozen
class HistoryAnswer:
    """The rows of an answer: numbers and texts; moments and durations are microseconds."""

    columns: list[str]
    rows: list[list[Any]]
    as_of: int
    """When the history that was asked had been exported."""
    is_cut: bool
    """There were more rows than a server gives."""


@attrs.frozen
class Redriven:
    """What ``redrive`` did."""

    redriven: int
    """Items that are back at the tail, or on their way home."""
    reserved: int = 0
    """Of those that could go home, the ones that were left to who holds them."""
    stranded: int = 0
    """Of those that came from elsewhere, the ones whose queue was deleted: they stay."""
    more: bool = False
    """Others wait until those that are on their way have arrived: ask again."""


class Pending(Answer[Receipt]):
    """Items handed over by ``produce_nowait``; ``result()`` once ``done``."""

    __slots__ = ("_byte_count", "_client", "_count")

    def __init__(self, client: "Client", count: int, byte_count: int) -> None:
        super().__init__()
        self._client = client
        self._count = count
        self._byte_count = byte_count

    def resolve(self, value: Receipt) -> None:
        if not self.done:
            super().resolve(value)
            self._client._answered(self._count, self._byte_count, None)

    def fail(self, error: Exception) -> None:
        if not self.done:
            super().fail(error)
            self._client._answered(self._count, self._byte_count, error)


class Client:
    """One session with a Querator server. Get one from ``connect``; use it from any number of tasks.

    A call that is cancelled, or times out, may have taken effect all the same.
    """

    def __init__(self, protocol: Protocol, connector: Connector, codec: Codec) -> None:
        self._protocol = protocol
        self._connector = connector
        self._codec = codec
        self._outstanding_items = 0
        self._outstanding_bytes = 0
        self._first_error: Exception | None = None
        self._room = Bell()

    # -- produce ---------------------------------------------------------------------------------

    async def produce(
        self,
        queue: str,
        payload: bytes | str,
        *,
        key: str | None = None,
        dedupe_key: str | None = None,
        kind: str | None = None,
        reference: str | None = None,
        headers: dict[str, str] | None = None,
        encoding: str | None = None,
        delay: DurationLike | None = None,
        at: InstantLike | None = None,
        reservation_timeout: DurationLike | None = None,
        attempts_max: int | None = None,
    ) -> Receipt:
        """Append one item; returns when it is committed. Concurrent calls travel together.

        Once per call, whatever happens to the connection or the server meanwhile. With a ``dedupe_key``
        that is known, the receipt names the existing item.

        Raises:
            Rejected: it was refused, and ``code`` and ``field`` say why.
        """
        columns = self._columns(
            key=key,
            dedupe_key=dedupe_key,
            kind=kind,
            reference=reference,
            headers=headers,
            encoding=encoding,
            enqueue_at=self._enqueue_at(delay, at),
            reservation_timeout=None if reservation_timeout is None else parse_duration(reservation_timeout),
            attempts_max=attempts_max,
        )
        payloads = [payload.encode() if isinstance(payload, str) else payload]
        _check_payloads(payloads)
        answer = Answer[Receipt]()
        self._protocol.produce(queue, payloads, columns, answer)
        return await wait_answer(answer)

    async def produce_batch(self, queue: str, payloads: Sequence[bytes], **columns: Any) -> Receipt:
        """Append items together and in order; see ``produce_nowait`` for the columns."""
        _check_payloads(payloads)
        answer = Answer[Receipt]()
        self._protocol.produce(queue, payloads, self._columns(**columns), answer)
        return await wait_answer(answer)

    def produce_nowait(self, queue: str, payloads: Sequence[bytes], **columns: Any) -> Pending:
        """Hand items over, to be committed together and in order; ``flush`` waits for them.

        ``columns``: attributes by the names of ``produce`` (``enqueue_at`` and ``reservation_timeout`` in
        microseconds), each one value for all items or a list with one an item. The lists must not be
        changed afterwards.

        Raises:
            trio.WouldBlock: OUTSTANDING_ITEMS_MAX (or ..._BYTES_MAX) are unanswered: ``wait_room`` first.
            Rejected: an item or the batch is out of bounds.
        """
        byte_count = _check_payloads(payloads)
        count = len(payloads)
        if self._outstanding_items and not self._has_room(count, byte_count):
            raise trio.WouldBlock
        pending = Pending(self, count, byte_count)
        self._outstanding_items += count
        self._outstanding_bytes += byte_count
        self._protocol.produce(queue, payloads, self._columns(**columns) if columns else _NO_COLUMNS, pending)
        return pending

    async def wait_room(self, items: int = limits.BATCH_ITEMS_MAX, byte_count: int = 0) -> None:
        """Wait until ``produce_nowait`` takes so many items. One task at a time."""
        while self._outstanding_items and not self._has_room(items, byte_count):
            await self._room.wait_rung()

    async def flush(self, outstanding: int = 0) -> None:
        """Wait until at most ``outstanding`` items of ``produce_nowait`` are unanswered. One task at a time.

        Raises:
            ClientError: the first failure of a ``produce_nowait`` since the last ``flush``.
        """
        while self._outstanding_items > outstanding:
            await self._room.wait_rung()
        error, self._first_error = self._first_error, None
        if error is not None:
            raise error

    @property
    def outstanding(self) -> int:
        """Items of ``produce_nowait`` that are not answered yet."""
        return self._outstanding_items

    def _answered(self, count: int, byte_count: int, error: Exception | None) -> None:
        self._outstanding_items -= count
        self._outstanding_bytes -= byte_count
        if error is not None and self._first_error is None:
            self._first_error = error
        self._room.ring()

    def _has_room(self, items: int, byte_count: int) -> bool:
        return (
            self._outstanding_items + items <= limits.OUTSTANDING_ITEMS_MAX
            and self._outstanding_bytes + byte_count <= limits.OUTSTANDING_BYTES_MAX
        )

    def _enqueue_at(self, delay: DurationLike | None, at: InstantLike | None) -> int | None:
        if at is not None:
            if delay is not None:
                raise ValueError("give delay or at, not both")
            return parse_instant(at)
        if delay is None:
            return None
        return self._connector.server_time() + parse_duration(delay)

    @staticmethod
    def _columns(**columns: Any) -> dict[str, Any]:
        unknown = [name for name in columns if name not in _COLUMNS]
        if unknown:
            raise TypeError(f"produce has no column {unknown[0]!r}; there are {', '.join(_COLUMNS)}")
        return {name: value for name, value in columns.items() if value is not None}

    # -- consume ---------------------------------------------------------------------------------

    def consume(
        self,
        queue: str,
        *,
        window: int = 1_000,
        batch: int = 100,
        held: bool = True,
        linger: DurationLike = 0,
        reservation_timeout: DurationLike | None = None,
        window_bytes: int = 0,
        reraise: bool = True,
    ) -> Consumer:
        """Have reservations pushed: ``async with q.consume(...) as items``.

        ``window``: items reserved for us and not yet settled, at most. ``batch``: items of one reservation,
        at most. ``held``: our being alive keeps reservations, up to the queue's max_runtime; otherwise they
        end at their deadline. ``reraise`` False: an exception in ``async with item`` retries the item and
        goes no further.
        """
        wish = Subscribe(
            id=0,
            queue=queue,
            window=window,
            window_bytes=window_bytes,
            batch=batch,
            linger=parse_duration(linger),
            reservation_timeout=0 if reservation_timeout is None else parse_duration(reservation_timeout),
            held=held,
        )
        return Consumer(self._protocol, wish, reraise=reraise)

    async def reserve(
        self,
        queue: str,
        *,
        items: int = 1,
        wait: DurationLike = 0,
        held: bool = False,
        reservation_timeout: DurationLike | None = None,
    ) -> Batch | None:
        """Reserve up to ``items`` now, or as soon as any is ready within ``wait``; ``None``: none was.

        Raises:
            OutcomeUnknown: the connection broke meanwhile; what was reserved is released.
        """
        message = Reserve(
            id=0,
            queue=queue,
            items=items,
            wait=parse_duration(wait),
            reservation_timeout=0 if reservation_timeout is None else parse_duration(reservation_timeout),
            held=held,
        )
        collector = Collector(self._protocol)
        answer = Answer[None]()
        self._protocol.reserve(message, collector, answer)
        try:
            await wait_answer(answer)
        except BaseException:
            collector.abandon()
            raise
        return collector.batch()

    async def wait_settled(self) -> None:
        """Wait until every settlement that was made without waiting is answered."""
        answers = []
        for settlement in self._protocol.unanswered_settlements():
            answer = Answer[None]()
            settlement.add_watcher(answer)
            answers.append(answer)
        for answer in answers:
            # What it says is told elsewhere; the waiting itself is over.
            with suppress(ClientError):
                await wait_answer(answer)

    # -- look and operate ------------------------------------------------------------------------

    async def stats(self, queue: str) -> StatsReport:
        """A queue's counters, by partition."""
        answer = Answer[StatsReport]()
        self._protocol.stats(queue, answer)
        return await wait_answer(answer)

    @asynccontextmanager
    async def watch(
        self, queue: str, *, interval: DurationLike = 1
    ) -> AsyncIterator[AsyncIterator[StatsReport]]:
        """``async with q.watch("mail") as reports: async for report in reports``: every interval."""
        message = Watch(id=0, queue=queue, interval=parse_duration(interval))
        async with self._watch(message, _Reports[StatsReport]()) as reports:
            yield reports

    @asynccontextmanager
    async def watch_item(self, partition: int, item: int) -> AsyncIterator[AsyncIterator[Step]]:
        """``async with q.watch_item(1, 17) as steps: async for step in steps``: whatever becomes of the item.

        From now on; what was before is in ``call("item.trace", …)``. After a reconnect it goes on, and what
        happened meanwhile is missing.
        """
        async with self._watch(WatchItem(id=0, partition=partition, item=item), _Reports[Step]()) as steps:
            yield steps

    @asynccontextmanager
    async def _watch(
        self, message: Watch | WatchItem, reports: "_Reports[_Report]"
    ) -> AsyncIterator["_Reports[_Report]"]:
        answer = Answer[Watching]()
        number = self._protocol.watch(message, reports.put, reports.fail, answer)
        try:
            await wait_answer(answer)
            yield reports
        finally:
            self._protocol.unwatch(number, Answer[Unwatched]())

    async def call(
        self, method: str, params: object = None, *, result: type[Any] = dict, is_repeatable: bool = False
    ) -> Any:
        """An operator's call (docs/PROTOCOL.md), its result as a ``result``.

        ``is_repeatable``: it only reads, so that it may be asked again after a reconnect.

        Raises:
            OutcomeUnknown: the connection broke before the answer.
        """
        raw = self._codec.encode_value({} if params is None else params)
        answer = Answer[Result]()
        self._protocol.call(method, raw, answer, is_repeatable=is_repeatable)
        return self._codec.decode_value((await wait_answer(answer)).value, result)

    async def redrive(
        self,
        queue: str,
        *,
        items: Sequence[int] | None = None,
        partition: int | None = None,
        reason: str | None = None,
        home: bool = False,
        from_queue: str | None = None,
        limit: int | None = None,
    ) -> Redriven:
        """Bring items that are dead in the queue back to its tail; or, with ``home``, send what it took as a
        dead queue back to the queues that it came from.

        All of them, up to ``limit``; those of one ``reason`` (to the tail) or ``from_queue`` (home); or the
        ``items`` of one ``partition``, all or none.

        Raises:
            Rejected: a named item is not dead here, or can't be sent home; the text says why.
            OutcomeUnknown: the connection broke before the answer.
        """
        params = {
            "name": queue,
            "items": items,
            "partition": partition,
            "reason": reason,
            "to": "home" if home else None,
            "from_queue": from_queue,
            "limit": limit,
        }
        given = {name: value for name, value in params.items() if value is not None}
        redriven: Redriven = await self.call("dead.redrive", given, result=Redriven)
        return redriven

    async def ask(
        self,
        question: str,
        queue: str | None = None,
        *,
        width: DurationLike | None = None,
        since: InstantLike | None = None,
        until: InstantLike | None = None,
        item: tuple[int, int] | None = None,
        waiting_target: DurationLike | None = None,
        processing_target: DurationLike | None = None,
    ) -> HistoryAnswer:
        """A question about a queue's exported history, by its name (docs/analytics.md).

        ``item`` (partition, number) is for ``item_history``.

        Raises:
            Rejected: there is no such question, nothing was exported yet, or it takes too long.
        """
        spans = {"width": width, "waiting_target": waiting_target, "processing_target": processing_target}
        moments = {"since": since, "until": until}
        partition, number = item or (None, None)
        params = {
            "question": question,
            "queue": queue,
            "partition": partition,
            "item": number,
            **{name: None if span is None else parse_duration(span) for name, span in spans.items()},
            **{name: None if at is None else parse_instant(at) for name, at in moments.items()},
        }
        given = {name: value for name, value in params.items() if value is not None}
        answer: HistoryAnswer = await self.call(
            "analytics.ask", given, result=HistoryAnswer, is_repeatable=True
        )
        return answer

    @property
    def session(self) -> str:
        """The session's id; "" before the first welcome."""
        welcome = self._protocol.welcome
        return welcome.session if welcome else ""

    @property
    def is_connected(self) -> bool:
        """There is a connection, and it has been welcomed."""
        return self._protocol.is_open


class _Reports(Generic[_Report]):
    """The reports of one watch, the newest REPORTS_MAX."""

    def __init__(self) -> None:
        self._reports: list[_Report] = []
        self._error: ClientError | None = None
        self._bell = Bell()

    def put(self, report: _Report) -> None:
        self._reports.append(report)
        del self._reports[:-REPORTS_MAX]
        self._bell.ring()

    def fail(self, error: ClientError) -> None:
        self._error = error
        self._bell.ring()

    def __aiter__(self) -> "_Reports[_Report]":
        return self

    async def __anext__(self) -> _Report:
        while not self._reports:
            if self._error is not None:
                raise self._error
            await self._bell.wait_rung()
        return self._reports.pop(0)


_COLUMNS: Final = (
    "enqueue_at",
    "encoding",
    "kind",
    "reference",
    "headers",
    "key",
    "dedupe_key",
    "reservation_timeout",
    "attempts_max",
)


def _check_payloads(payloads: Sequence[bytes]) -> int:
    """Their bytes. What the server would refuse is refused here, before others share its message."""
    if len(payloads) == 1:
        size = len(payloads[0])
        if size <= limits.PAYLOAD_BYTES_MAX:
            return size
    if not payloads:
        raise Rejected(Code.BATCH_EMPTY, "a produce needs at least one item", "payloads")
    if len(payloads) > limits.BATCH_ITEMS_MAX:
        raise Rejected(
            Code.BATCH_TOO_LARGE,
            f"{len(payloads)} items in one produce; at most {limits.BATCH_ITEMS_MAX}",
            "payloads",
        )
    sizes = list(map(len, payloads))
    if max(sizes) > limits.PAYLOAD_BYTES_MAX:
        raise Rejected(
            Code.PAYLOAD_TOO_LARGE,
            f"a payload of {max(sizes)} bytes; at most {limits.PAYLOAD_BYTES_MAX}",
            f"payloads[{sizes.index(max(sizes))}]",
        )
    total = sum(sizes)
    if total > limits.PRODUCE_BYTES_MAX:
        raise Rejected(
            Code.BATCH_TOO_LARGE,
            f"{total} bytes in one produce; at most {limits.PRODUCE_BYTES_MAX}",
            "payloads",
        )
    return total


@asynccontextmanager
async def connect(
    address: str = ADDRESS_DEFAULT,
    *,
    client: str = "",
    token: str = "",
    subprotocol: Literal["msgpack", "json"] = "msgpack",
    connect_timeout: DurationLike | None = 10,
    reconnect_timeout: DurationLike | None = None,
    tls: SSLContext | None = None,
    ca: str | Path | None = None,
    env: Env | None = None,
    notify: Callable[[str], None] | None = None,
) -> AsyncIterator[Client]:
    """A client of the server at ``address`` (``HOST:PORT``, ``ws://...``, ``wss://...``).

    Of servers that stand by for each other name all, with commas between them: the client finds the one that
    decides, and the one that takes over from it.

    Leaving the block waits for what ``produce_nowait`` handed over, then says goodbye: what is still
    reserved is released. When the connection breaks, the client connects again, with growing pauses, and
    resumes its session, for as long as ``reconnect_timeout`` (``None``: for ever; limit single calls with
    trio's cancel scopes). ``client`` is a name for operators; ``notify`` is told, in words, when the
    connection is lost and when it is back.

    ``ca`` names a PEM file of the authorities to trust instead of the system's, and lets ``HOST:PORT`` mean
    ``wss://HOST:PORT``; ``tls`` is for whoever needs more than that.

    Raises:
        Disconnected: no connection within ``connect_timeout`` (``None``: try for ever).
        Rejected: the server does not let us in.
        ValueError: ``address`` is none, or ``ca`` no file of authorities.
    """
    env = env or real_env()
    where = parse_addresses(address, secure=ca is not None)
    # From the stream itself, not a child: two clients of one Env must never share a name.
    producer = env.rng.token_bytes(12).hex()
    rng = env.rng.child(f"client.{producer}")
    protocol = Protocol(
        client=client or "querator.client",
        producer=producer,
        auth=token,
        draw=rng.randbelow(limits.PARTITIONS_PER_QUEUE_MAX),
    )
    codec = _CODECS[subprotocol]
    connector = Connector(
        env=env,
        rng=rng,
        protocol=protocol,
        addresses=where,
        codec=codec,
        tls=tls or _tls(where[0], ca),
        patience=Patience(
            connect_timeout=None if connect_timeout is None else parse_duration(connect_timeout),
            reconnect_timeout=None if reconnect_timeout is None else parse_duration(reconnect_timeout),
        ),
        notify=notify or _ignore,
    )
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        # Whoever cancels us cancels the body; the connection goes on until the goodbye is said.
        connection = trio.CancelScope(shield=True)
        nursery.start_soon(_run, connector, connection)
        # The body's own exception is kept out of the nursery, which would wrap it in a group.
        try:
            await connector.wait_open()
            q = Client(protocol, connector, codec)
            yield q
            await q.flush()
        except trio.Cancelled:
            raise
        except BaseException as caught:  # noqa: BLE001 - raised again below
            error = caught
        finally:
            await _leave(connector, connection)
    if error is not None:
        raise error


async def _run(connector: Connector, connection: trio.CancelScope) -> None:
    with connection:
        await connector.run()


def _tls(where: Address, ca: str | Path | None) -> SSLContext | None:
    if not where.secure:
        if ca is not None:
            raise ValueError(f"{where}: is not encrypted, so there is no use for the authorities in {ca}")
        return None
    try:
        return client_tls(None if ca is None else Path(ca))
    except OSError as error:
        raise ValueError(f"ca: {ca} can't be used: {error}") from error


async def _leave(connector: Connector, connection: trio.CancelScope) -> None:
    with trio.move_on_after(seconds(limits.GOODBYE_TIMEOUT), shield=True):
        connector.leave()
        await connector.wait_left()
    connection.cancel()


def _ignore(_: str) -> None:
    """Nobody wants to know."""
