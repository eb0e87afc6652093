"""The trio shell around a session: one task reads, one writes.

``WireSession`` is the seam: messages in, as many as one read brought; bytes out. The reader never
waits for anything but bytes, so pings are answered and a closing client is noticed at once; the writer
joins what has gathered into one WebSocket message.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from querator import telemetry
from querator.api import frames
from querator.api.calls import Caller, run_call
from querator.api.frames import Close, FrameError, FrameReader, Ping, Pong
from querator.api.outbox import Outbox
from querator.api.registry import SessionRegistry
from querator.api.session import Session
from querator.api.upgrade import Upgrade
from querator.core import limits
from querator.core.ids import SECOND
from querator.env import seconds
from querator.protocol.closing import CloseCode
from querator.protocol.codec import Frame
from querator.protocol.messages import Call

READ_BYTES: Final = 65_536
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Disconnected(Exception):
    """The peer closed, or is gone. ``code`` 1006: without a word."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class WireSession:
    """A WebSocket after its handshake: messages in, bytes out."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        outbox: Outbox,
        now: Callable[[], int],
        *,
        leftover: bytes = b"",
    ) -> None:
        self._stream = stream
        self._outbox = outbox
        self._now = now
        self._reader = FrameReader()
        self._leftover = leftover
        self._control_second = 0
        self._control_count = 0
        self._close: Close | None = None
        self.bytes_received = 0

    async def receive(self) -> list[Frame]:
        """The next messages: all that one read completed. Control frames are dealt with.

        An empty list means that only control frames or pieces came.

        Raises:
            Disconnected: nothing more will come.
            FrameError: the peer broke the framing; nothing it sends can be understood any more.
        """
        if self._close is not None:
            raise Disconnected(self._close.code)
        if self._reader.fault is not None:
            raise self._reader.fault
        data, self._leftover = self._leftover, b""
        if not data:
            data = await self._read()
        self.bytes_received += len(data)
        arrivals = self._reader.feed(data)
        messages: list[Frame] = []
        for arrival in arrivals:
            if isinstance(arrival, (str, bytes)):
                messages.append(arrival)
            else:
                self._control(arrival)
        if self._close is not None and not messages:
            raise Disconnected(self._close.code)
        return messages

    async def discard(self) -> None:
        """Read, and forget, until the peer hangs up: closing earlier would reset what we last wrote."""
        while await self._read_or_nothing():
            pass

    async def send(self, data: bytes) -> None:
        """Write frames. Cancelling it leaves the stream torn: close it.

        Raises:
            Disconnected: the peer is gone.
        """
        try:
            await self._stream.send_all(data)
        except _GONE:
            raise Disconnected(1006) from None

    async def _read(self) -> bytes:
        data = await self._read_or_nothing()
        if not data:
            raise Disconnected(1006)
        return data

    async def _read_or_nothing(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except _GONE:
            return b""

    def _control(self, frame: Ping | Pong | Close) -> None:
        second = self._now() // SECOND
        if second != self._control_second:
            self._control_second, self._control_count = second, 0
        self._control_count += 1
        if self._control_count > limits.CONTROL_FRAMES_PER_SECOND_MAX:
            raise FrameError(
                CloseCode.POLICY, f"at most {limits.CONTROL_FRAMES_PER_SECOND_MAX} control frames a second"
            )
        if isinstance(frame, Ping):
            self._outbox.put_control(frames.encode_pong(frame.payload))
        elif isinstance(frame, Close):
            self._close = frame


async def serve_websocket(
    stream: trio.abc.Stream,
    upgrade: Upgrade,
    registry: SessionRegistry,
    *,
    number: int,
    leftover: bytes,
    introduce: Callable[[], None],
) -> None:
    """Speak with one client until it or we close; the caller closes the stream.

    ``leftover`` are the bytes that came behind the handshake; ``introduce`` is called when a good key came.
    """
    async with trio.open_nursery() as nursery:
        connection = _Connection(
            stream, upgrade, registry, nursery, number=number, leftover=leftover, introduce=introduce
        )
        await connection.run()


class _Connection:
    def __init__(
        self,
        stream: trio.abc.Stream,
        upgrade: Upgrade,
        registry: SessionRegistry,
        nursery: trio.Nursery,
        *,
        number: int,
        leftover: bytes,
        introduce: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._introduce = introduce
        self._nursery = nursery
        self._codec = upgrade.codec
        self._handshake = upgrade.response
        self._peer_has_closed = trio.Event()
        self._session = Session(
            registry,
            upgrade.codec,
            number=number,
            authorization=upgrade.authorization,
            start_call=self._start_call,
        )
        self._outbox = self._session.outbox
        self._outbox.on_close = partial(nursery.start_soon, self._give_up)
        self._wire = WireSession(stream, self._outbox, registry.env.clock.now, leftover=leftover)

    async def run(self) -> None:
        is_goodbye = False
        try:
            await self._wire.send(self._handshake)
            self._nursery.start_soon(self._send)
            is_goodbye = await self._receive()
        except Disconnected:
            pass
        finally:
            # Before the writer ends: what it has not taken never left.
            self._session.disconnected(is_goodbye=is_goodbye)
        self._peer_has_closed.set()
        # Whatever is left to say is said by the writer, which then ends the connection.
        if self._outbox.farewell is None:
            self._nursery.cancel_scope.cancel()

    async def _receive(self) -> bool:
        """Until the peer is gone; whether it said goodbye."""
        session = self._session
        code = 1006
        try:
            with trio.move_on_after(seconds(self._registry.settings.hello_timeout)):
                while not session.is_welcome:
                    await self._receive_once()
            if not session.is_welcome:
                session.close(CloseCode.HELLO_TIMEOUT, "no hello in time")
            elif session.principal.key_id:
                self._introduce()
            while True:
                await self._receive_once()
        except FrameError as error:
            session.close(error.code, error.reason)
            await self._wire.discard()
            return False
        except Disconnected as gone:
            code = gone.code
        if code != 1006:
            self._outbox.close(code, "")
        farewell = self._outbox.farewell
        return code == CloseCode.NORMAL and (farewell is None or farewell.code == CloseCode.NORMAL)

    async def _receive_once(self) -> None:
        session = self._session
        before = self._wire.bytes_received
        messages = await self._wire.receive()
        self._registry.counters.bytes_received += self._wire.bytes_received - before
        session.is_heard = True
        if not messages or self._outbox.farewell is not None:
            return
        try:
            session.receive(messages)
        except Exception as error:  # noqa: BLE001 - the boundary that keeps one session's bug from the others
            telemetry.emit("api.session.failed", session=session.session, error=repr(error))
            session.close(CloseCode.INTERNAL, "a fault of the server")

    async def _send(self) -> None:
        outbox, codec, counters = self._outbox, self._codec, self._registry.counters
        try:
            while True:
                await outbox.wait()
                parts = [*outbox.take_control()]
                batches = [] if self._peer_has_closed.is_set() else outbox.take()
                if batches:
                    parts.append(frames.encode_message(codec.join_data(batches), is_text=codec.is_text))
                    counters.frames_sent += 1
                if parts:
                    data = parts[0] if len(parts) == 1 else b"".join(parts)
                    counters.bytes_sent += len(data)
                    await self._wire.send(data)
                elif outbox.farewell is not None:
                    await self._wire.send(frames.encode_close(outbox.farewell.code, outbox.farewell.reason))
                    await self._peer_has_closed.wait()
                    break
                elif self._peer_has_closed.is_set():
                    # The peer is gone without a word: what waits for it will never leave, and waiting for
                    # room or for a farewell would be a loop that no cancellation ends.
                    break
        except Disconnected:
            pass
        self._nursery.cancel_scope.cancel()

    async def _give_up(self) -> None:
        """A peer that does not take its leave is left."""
        await self._registry.env.clock.sleep(limits.CLOSE_TIMEOUT)
        self._nursery.cancel_scope.cancel()

    def _start_call(self, call: Call) -> None:
        self._registry.counters.calls_now += 1
        self._nursery.start_soon(self._answer_call, call)

    async def _answer_call(self, call: Call) -> None:
        try:
            caller = Caller(self._session.principal, self._registry.access)
            outcome = await run_call(self._registry.operations, caller, self._codec, call.method, call.params)
        finally:
            self._registry.counters.calls_now -= 1
        self._session.answer_call(call.id, outcome)
