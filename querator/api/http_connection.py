"""One HTTP/1.1 connection: requests in order, each answered before the next is read.

Pipelined requests wait in the buffer. The first that asks for a WebSocket ends the HTTP; its bytes and
what came behind them are handed on.
"""

import contextlib
from collections.abc import Callable, Container
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.api.chunked import ChunkedReader
from querator.api.counters import Counters
from querator.api.exchange import HttpHandler, HttpRequest, HttpResponse
from querator.api.hangups import Hangups, Waiting
from querator.api.head import Head, HttpFault, find_head, read_head
from querator.api.patience import Patience, Phase, Wait
from querator.api.upgrade import refusal
from querator.core import limits
from querator.core.ids import SECOND, Duration, Instant
from querator.core.invariants import check
from querator.env import seconds

READ_BYTES: Final = 65_536
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_OWN_PHRASES: Final = {
    452: "Client Error",
    453: "Request Failed",
    454: "Retry Request",
    455: "Client Content Error",
}


def _status_line(status: int) -> str:
    if status in _OWN_PHRASES:
        return f"HTTP/1.1 {status} {_OWN_PHRASES[status]}\r\n"
    try:
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    except ValueError:
        return f"HTTP/1.1 {status} Unknown\r\n"


_STATUS_LINES: Final = {status: _status_line(status) for status in range(200, 600)}


def _nothing() -> None:
    """Nobody wants to know."""


class HungUp(Exception):
    """The client is gone, or rested too long."""


@attrs.frozen
class UpgradeRequest:
    """A request to speak something else, and the bytes that came behind it."""

    head: Head
    leftover: bytes


class Dates:
    """The Date header, made once a second."""

    def __init__(self, now: Callable[[], Instant]) -> None:
        self._now = now
        self._second = -1
        self._line = ""

    def line(self) -> str:
        """The header's line, with its end."""
        second = self._now() // SECOND
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


class HttpConnection:
    """Owns the reading of one stream; the caller closes it."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: HttpHandler,
        dates: Dates,
        counters: Counters,
        patience: Patience,
        hangups: Hangups,
        *,
        remote: str = "",
        introduce: Callable[[], None] = _nothing,
        waiting_paths: Container[str] = (),
        is_draining: Callable[[], bool] = bool,
        upgrade_path: str = "",
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._dates = dates
        self._counters = counters
        self._patience = patience
        self._hangups = hangups
        self._wait = Wait()
        self._remote = remote
        self._introduce = introduce
        self._waiting_paths = waiting_paths
        self._is_draining = is_draining
        self._upgrade_path = upgrade_path
        self._buffer = b""

    async def run(self) -> UpgradeRequest | None:
        """Serve until the client is done (``None``) or asks for a WebSocket at the upgrade path."""
        self._patience.begin(self._wait)
        try:
            while True:
                with self._wait.scope:
                    return await self._run()
                if self._wait.phase is not Phase.IDLE or not self._buffer:
                    break
                # A request began to come in the very moment in which the connection had rested too long.
                self._wait.scope = trio.CancelScope()
        finally:
            self._patience.end(self._wait)
        if self._wait.phase in (Phase.HEAD, Phase.BODY):
            self._counters.http_faults += 1
            await self.refuse(refusal(408, f"the request's {self._wait.phase.value} did not come in time"))
        return None

    async def _run(self) -> UpgradeRequest | None:
        try:
            while True:
                head = await self._read_head()
                if self._is_upgrade(head):
                    return UpgradeRequest(head, self._buffer)
                if not await self._serve(head):
                    return None
        except HttpFault as fault:
            self._counters.http_faults += 1
            await self._refuse(refusal(fault.status, fault.detail))
        except HungUp:
            pass
        return None

    async def refuse(self, response: HttpResponse) -> None:
        """Answer instead of upgrading, and let go."""
        with contextlib.suppress(HungUp), trio.move_on_after(seconds(limits.BODY_TIMEOUT)):
            await self._refuse(response)

    async def answer_once(self, patience: Duration) -> None:
        """Answer one request by what its head says, come of it what may within ``patience``, and let go."""
        with contextlib.suppress(HungUp), trio.move_on_after(seconds(limits.BODY_TIMEOUT)):
            head: Head | None = None
            try:
                with trio.move_on_after(seconds(patience)):
                    head = await self._read_head()
            except HttpFault as fault:
                self._counters.http_faults += 1
                await self._refuse(refusal(fault.status, fault.detail))
                return
            if head is not None:
                path = head.target.partition("?")[0]
                await self._refuse(await self._handle(HttpRequest(head.method, path, head.headers, b"")))
            else:
                # Nothing was read over that a close could cut short.
                response = await self._handle(HttpRequest("", "", {}, b""))
                await self._send(self._render(response, has_body=True, keeps_alive=False))

    def _is_upgrade(self, head: Head) -> bool:
        # A cheap look first: it is made for every request.
        return (
            head.method == "GET"
            and head.target.partition("?")[0] == self._upgrade_path
            and "websocket" in head.headers.get("upgrade", "").lower()
        )

    async def _serve(self, head: Head) -> bool:
        """Answer one request; whether another may follow."""
        path, _, query = head.target.partition("?")
        request = HttpRequest(head.method, path, head.headers, b"", query, self._remote)
        if head.content_length or head.is_chunked:
            await self._read_body(head, request)
        self._counters.http_requests += 1
        self._patience.set(self._wait, Phase.HANDLER)
        response = await self._handle(request)
        if request.has_good_key:
            self._introduce()
        keeps_alive = head.keeps_alive and not request.is_too_large and not self._is_draining()
        await self._send(self._render(response, has_body=head.method != "HEAD", keeps_alive=keeps_alive))
        if request.is_too_large:
            await self._let_go()
        return keeps_alive

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        try:
            if request.path in self._waiting_paths:
                return await self._handle_watching(request)
            return await self._handler.handle(request)
        except HungUp:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary that keeps one request's bug from the others
            telemetry.emit("api.http.failed", path=request.path, error=repr(error))
            return refusal(500, "Internal Error")

    async def _handle_watching(self, request: HttpRequest) -> HttpResponse:
        """Answer a request that may wait for long: a client that hangs up meanwhile ends it."""
        response: HttpResponse | None = None
        waiting = Waiting(self._hung_up)
        self._hangups.begin(waiting)
        try:
            with waiting.scope:
                response = await self._handler.handle(request)
        finally:
            await self._hangups.end(waiting)
        if response is None:
            raise HungUp
        return response

    async def _hung_up(self) -> None:
        """Return when the client does. Pipelined requests wait; of a client that sends more than a
        bufferful of them, we stop reading."""
        while len(self._buffer) < READ_BYTES:
            try:
                data = await self._receive()
            except HungUp:
                return
            if not data:
                return
            self._buffer += data
        await trio.sleep_forever()

    # -- reading ---------------------------------------------------------------------------------

    async def _read_head(self) -> Head:
        if not self._buffer:
            await self._wait_for_request()
        while self._buffer[:2] == b"\r\n":  # RFC 9112, 2.2: a stray line end before a request is read over
            self._buffer = self._buffer[2:]
        end = find_head(self._buffer, 0)
        if not end:
            self._patience.set(self._wait, Phase.HEAD, limits.HEADER_TIMEOUT)
            while not end:
                searched = len(self._buffer)
                data = await self._receive()
                if not data:
                    raise HungUp
                self._buffer += data
                end = find_head(self._buffer, searched)
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        return read_head(head)

    async def _wait_for_request(self) -> None:
        if self._is_draining():
            raise HungUp
        self._patience.set(self._wait, Phase.IDLE, limits.IDLE_TIMEOUT)
        self._buffer = await self._receive()
        if not self._buffer:
            raise HungUp
        if self._wait.scope.cancel_called:
            # Here and not in the next wait, which would be taken for one that the client let run out.
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _read_body(self, head: Head, request: HttpRequest) -> None:
        most = self._handler.body_limit(request.path)
        if head.content_length > most:
            request.is_too_large = True
            return
        if head.expects_continue and not self._buffer:
            await self._send(_CONTINUE)
        self._patience.set(self._wait, Phase.BODY, limits.BODY_TIMEOUT)
        if head.is_chunked:
            await self._read_chunks(ChunkedReader(most), request)
        else:
            await self._read_length(head.content_length, request)

    async def _read_length(self, length: int, request: HttpRequest) -> None:
        if len(self._buffer) < length:
            parts = [self._buffer]
            size = len(self._buffer)
            due = self._wait.due
            while size < length:
                data = await self._receive()
                if not data:
                    raise HungUp
                parts.append(data)
                size += len(data)
                self._reward(due, size)
            self._buffer = b"".join(parts)
        request.body, self._buffer = self._buffer[:length], self._buffer[length:]

    async def _read_chunks(self, reader: ChunkedReader, request: HttpRequest) -> None:
        data, self._buffer = self._buffer, b""
        size, due = len(data), self._wait.due
        while True:
            reader.feed(data)
            if reader.is_done or reader.is_too_large:
                break
            data = await self._receive()
            if not data:
                raise HungUp
            size += len(data)
            self._reward(due, size)
        request.is_too_large = reader.is_too_large
        if not reader.is_too_large:
            request.body, self._buffer = reader.body, reader.leftover

    def _reward(self, due: int, size: int) -> None:
        """A body that has ``size`` bytes so far may take as long as the slowest that is borne."""
        self._patience.extend(self._wait, due, Duration(size // limits.BODY_BYTES_PER_SECOND_MIN * SECOND))

    async def _receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(READ_BYTES))
        except _GONE:
            raise HungUp from None
        self._counters.bytes_received += len(data)
        return data

    # -- writing ---------------------------------------------------------------------------------

    def _render(self, response: HttpResponse, *, has_body: bool, keeps_alive: bool) -> bytes:
        head = _STATUS_LINES[response.status] + self._dates.line()
        for name, value in response.headers:
            line = f"{name}: {value}"
            check("\r" not in line and "\n" not in line, "a response header is one line")
            head += line + "\r\n"
        if not keeps_alive:
            head += "Connection: close\r\n"
        head += f"Content-Length: {len(response.body)}\r\n\r\n"
        return head.encode("latin-1") + response.body if has_body else head.encode("latin-1")

    async def _send(self, data: bytes) -> None:
        self._patience.set(self._wait, Phase.WRITE, limits.BODY_TIMEOUT)
        try:
            if len(data) <= limits.RESPONSE_SLICE_BYTES:
                await self._stream.send_all(data)
            else:
                view = memoryview(data)
                for start in range(0, len(data), limits.RESPONSE_SLICE_BYTES):
                    self._patience.set(self._wait, Phase.WRITE, limits.BODY_TIMEOUT)
                    await self._stream.send_all(view[start : start + limits.RESPONSE_SLICE_BYTES])
        except _GONE:
            raise HungUp from None
        self._counters.bytes_sent += len(data)

    async def _refuse(self, response: HttpResponse) -> None:
        await self._send(self._render(response, has_body=True, keeps_alive=False))
        await self._let_go()

    async def _let_go(self) -> None:
        """Say that nothing follows, and read over what still comes: closing at once could reset the
        connection under the client before it has read our answer."""
        with trio.move_on_after(seconds(limits.CLOSE_TIMEOUT)):
            try:
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                while await self._stream.receive_some(READ_BYTES):
                    pass
            except _GONE:
                pass
