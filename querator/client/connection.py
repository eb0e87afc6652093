"""The shell: keeps one connection to the server going for the protocol half, for as long as it is wanted.

One task makes connections, one after the other. While one stands, one task sends, one receives, and one
looks whether the server is still there. Nothing here waits for an answer.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from ssl import SSLContext
from typing import Final

import attrs
import trio

from querator.client.address import Address, parse_address
from querator.client.durations import format_duration
from querator.client.errors import ClientClosed, Disconnected, Rejected
from querator.client.link import Link, LinkLost, open_link
from querator.client.protocol import Protocol
from querator.client.waiting import Bell
from querator.core import limits
from querator.core.ids import SECOND, Duration
from querator.core.replies import Code
from querator.env import Env, Rng, seconds
from querator.errors import ProtocolError
from querator.protocol.closing import CloseCode
from querator.protocol.codec import Codec

STRAY_TIMEOUT: Final = SECOND
"""How long after a welcome a reservation we do not know may be pushed again before it is released."""

_HOPELESS: Final = {
    401: Code.UNAUTHENTICATED,
    403: Code.DENIED,
    404: Code.INVALID,
    CloseCode.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    CloseCode.BAD_FRAME: Code.INVALID,
    CloseCode.WRONG_DATA: Code.INVALID,
    CloseCode.NOT_UTF8: Code.INVALID,
    CloseCode.TOO_BIG: Code.INVALID,
}
"""HTTP statuses and close codes after which connecting again would end the same."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long to go on without a connection: at first, and later. ``None``: for ever."""

    connect_timeout: Duration | None
    reconnect_timeout: Duration | None


class Connector:
    """Runs the connections of one client. ``notify`` is told, in words, of losses and returns."""

    def __init__(
        self,
        *,
        env: Env,
        rng: Rng,
        protocol: Protocol,
        addresses: Sequence[Address],
        codec: Codec,
        tls: SSLContext | None,
        patience: Patience,
        notify: Callable[[str], None],
    ) -> None:
        self._env = env
        self._protocol = protocol
        self._addresses = addresses
        self._address = addresses[0]
        """Of the present or next connection, unless a server sends us elsewhere."""
        self._codec = codec
        self._tls = tls
        self._patience = patience
        self._notify = notify
        self._rng = rng
        self._bell = Bell()
        self._is_connected = False
        """This connection had its welcome."""
        self._was_lost = False
        """``notify`` was told of a loss and not yet of a return."""
        self._is_leaving = False
        self._was_heard = False
        self._is_unparking = False
        self._welcomed_at = 0
        """On the monotonic clock."""
        self._changed = trio.Event()
        """Set and replaced when the protocol's state changes."""
        self._lost = LinkLost("not connected yet")
        self._attempt = trio.CancelScope()
        """Around the present connection; its deadline ends with the welcome."""
        self._nursery: trio.Nursery
        """Of the present connection."""
        protocol.on_work = self._bell.ring
        protocol.on_welcome = self._welcomed

    def server_time(self) -> int:
        """The server's clock now, as far as the last welcome tells; else our own."""
        welcome = self._protocol.welcome
        if welcome is None:
            return self._env.clock.now()
        return welcome.server_time + self._env.clock.monotonic() - self._welcomed_at

    async def wait_open(self) -> None:
        """Wait for a welcome.

        Raises:
            ClientError: there will be none.
        """
        while not self._protocol.is_open:
            if self._protocol.failure is not None:
                raise self._protocol.failure
            await self._changed.wait()

    async def wait_left(self) -> None:
        """Wait until ``run`` has ended."""
        while not self._protocol.is_closed:
            await self._changed.wait()

    def leave(self) -> None:
        """Say goodbye once what can be sent is sent, and make no new connection."""
        self._is_leaving = True
        self._bell.ring()
        if not self._protocol.is_open:
            self._protocol.close(ClientClosed("the client was closed before the answer came"))
            self._attempt.cancel()

    async def run(self) -> None:
        """Connect, and connect again, until the client leaves or there is no hope."""
        clock = self._env.clock
        down_since = clock.monotonic()
        failures = 0
        while not self._is_over():
            self._is_connected = False
            lost = await self._connect_once()
            if self._is_over():
                break
            self._protocol.disconnected()
            if self._is_connected:
                failures = 0
                down_since = clock.monotonic()
                self._was_lost = True
                self._notify(f"lost the connection to {self._address.authority} ({lost}); reconnecting")
            elif not failures and self._protocol.welcome is None:
                self._was_lost = True
                self._notify(f"no connection to {self._address.authority} ({lost}); trying again")
            failures += 1
            if not self._is_connected or len(self._addresses) > 1:
                # Whoever was the owner may be gone for good; whoever stands by knows where it is.
                turn = (self._addresses.index(self._address) + 1) % len(self._addresses)
                self._address = self._addresses[turn]
            self._check_patience(lost, clock.monotonic() - down_since)
            if not self._protocol.is_closed:
                await clock.sleep(self._delay(failures))
        self._protocol.close(ClientClosed("the client was closed before the answer came"))
        self._signal_change()

    def _is_over(self) -> bool:
        return self._is_leaving or self._protocol.is_closed

    # -- one connection --------------------------------------------------------------------------

    async def _connect_once(self) -> LinkLost:
        """From connecting to the end of the connection; returns why it ended."""
        self._lost = LinkLost("no welcome in time")
        with trio.move_on_after(seconds(limits.CLIENT_CONNECT_TIMEOUT)) as self._attempt:
            try:
                async with open_link(self._env, self._next_address(), self._codec, self._tls) as link:
                    await self._converse(link)
            except LinkLost as error:
                self._end(error)
        return self._lost

    def _next_address(self) -> Address:
        """Where a server that went away sent us, once; else the next of those we were told at first."""
        away = self._protocol.going_away
        self._protocol.going_away = None
        if away is None or not away.to:
            return self._address
        try:
            to = parse_address(away.to)
        except ValueError:
            return self._address
        # Only another machine's name: a server cannot talk us out of TLS.
        return attrs.evolve(self._address, host=to.host, port=to.port)

    async def _converse(self, link: Link) -> None:
        self._protocol.opened()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for work in (self._send, self._receive, self._keep_alive):
                nursery.start_soon(self._run_until_lost, work, link, nursery)

    async def _run_until_lost(
        self, work: Callable[[Link], Awaitable[None]], link: Link, nursery: trio.Nursery
    ) -> None:
        try:
            await work(link)
        except LinkLost as error:
            self._end(error)
        except ProtocolError as error:
            self._protocol.close(Rejected(Code.INVALID, f"the server's frame cannot be read: {error}"))
            self._lost = LinkLost("it does not speak our protocol")
        nursery.cancel_scope.cancel()

    def _end(self, lost: LinkLost) -> None:
        self._lost = lost
        if self._protocol.is_closed:
            return
        if lost.code == CloseCode.FENCED:
            self._protocol.forget_session()
        elif lost.code in _HOPELESS:
            code = _HOPELESS[lost.code]
            self._protocol.close(Rejected(code, f"{self._address}: {lost.reason}"))

    async def _send(self, link: Link) -> None:
        """Frame after frame of what there is to say; then wait to be rung."""
        protocol = self._protocol
        while True:
            if protocol.is_closed:
                return
            if not protocol.has_work:
                if self._is_leaving:
                    await link.say_goodbye()
                    return
                await self._bell.wait_rung()
            # Whoever runs in this turn of the loop adds to the frame.
            await trio.lowlevel.checkpoint()
            frame = protocol.take_frame()
            if frame:
                await link.send(self._codec.encode(frame))

    async def _receive(self, link: Link) -> None:
        protocol = self._protocol
        while True:
            frame = await link.receive()
            self._was_heard = True
            for message in self._codec.decode_server(frame):
                protocol.receive(message)
            if protocol.is_closed:
                return
            if protocol.may_leave and not self._is_leaving:
                raise LinkLost("the server goes away")
            if protocol.parked and not self._is_unparking:
                self._is_unparking = True
                self._nursery.start_soon(self._unpark_later)
            if protocol.has_work:
                self._bell.ring()

    async def _keep_alive(self, link: Link) -> None:
        """A server that has been silent for a ping interval is asked for a sign of life."""
        while True:
            welcome = self._protocol.welcome
            await self._env.clock.sleep(
                Duration(welcome.ping_interval if welcome else 0) or limits.PING_INTERVAL
            )
            if self._was_heard:
                self._was_heard = False
                continue
            with trio.move_on_after(seconds(limits.PING_TIMEOUT)) as patience:
                await link.ping()
            if patience.cancelled_caught:
                raise LinkLost("no answer to a ping", CloseCode.PING_TIMEOUT)

    # -- what waits for time ---------------------------------------------------------------------

    async def _unpark_later(self) -> None:
        exponent = min(self._protocol.refusals, 16)
        await self._env.clock.sleep(
            self._jittered(min(limits.REFUSED_DELAY_MIN << exponent, limits.REFUSED_DELAY_MAX))
        )
        self._is_unparking = False
        self._protocol.unpark()

    async def _release_strays_later(self) -> None:
        await self._env.clock.sleep(STRAY_TIMEOUT)
        self._protocol.release_strays()

    def _welcomed(self) -> None:
        self._attempt.deadline = math.inf
        self._welcomed_at = self._env.clock.monotonic()
        self._is_unparking = False
        if self._was_lost:
            self._notify(f"connected to {self._address.authority} again")
        self._was_lost = False
        self._is_connected = True
        if self._protocol.strays:
            self._nursery.start_soon(self._release_strays_later)
        self._signal_change()

    # -- reconnecting ----------------------------------------------------------------------------

    def _check_patience(self, lost: LinkLost, down: int) -> None:
        """Close the protocol when there has been no connection for too long."""
        was_open = self._protocol.welcome is not None
        patience = self._patience.reconnect_timeout if was_open else self._patience.connect_timeout
        if patience is None or down < patience:
            return
        where = self._address.authority
        if was_open:
            text = f"no connection to {where} for {format_duration(patience)}: {lost}"
        else:
            text = f"no server answers at {where}: {lost}"
        self._protocol.close(Disconnected(text))

    def _delay(self, failures: int) -> Duration:
        # Each of the addresses is tried once before the pause grows.
        exponent = min((failures - 1) // len(self._addresses), 16)
        return self._jittered(min(limits.RECONNECT_DELAY_MIN << exponent, limits.RECONNECT_DELAY_MAX))

    def _jittered(self, delay: int) -> Duration:
        """Between half of it and all of it, so that clients do not come back in step."""
        return Duration(delay // 2 + self._rng.randbelow(delay // 2 + 1))

    def _signal_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
