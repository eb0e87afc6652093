"""A hostile client: it speaks the protocol by hand, and settles what is not, or not any more, its own."""

from collections.abc import Sequence
from random import Random

import trio

from querator.client.address import parse_addresses
from querator.client.link import Link, LinkLost, open_link
from querator.core.ids import PartitionId, ReservationNumber
from querator.env import Env
from querator.protocol import messages as msg
from querator.protocol.codec import MSGPACK
from querator.protocol.tokens import decode_token, encode_token
from simulations.observations import Observations, Settlement
from simulations.options import Options
from simulations.trace import Trace
from simulations.workload import addresses

_VERBS = ("complete", "retry", "release", "dead", "extend")


class Hostile:
    """Draws tokens that others were given, old ones and live ones, or alters them."""

    def __init__(
        self, options: Options, trace: Trace, seen: Observations, hosts: Sequence[str], number: int
    ) -> None:
        self._trace = trace
        self._seen = seen
        self._addresses = parse_addresses(addresses(hosts))
        self._dice = Random(f"{options.seed}/hostile/{number}")
        self._asked: dict[int, tuple[str, str, bool, float]] = {}
        """By message id: verb, token, whether it was forged, when."""
        self.is_healed = False

    async def run(self, env: Env) -> None:
        """Attack until the world is healed."""
        tries = 0
        while not self.is_healed:
            address = self._addresses[tries % len(self._addresses)]
            tries += 1
            try:
                async with open_link(env, address, MSGPACK, None) as link:
                    await self._attack(link)
            except* LinkLost:
                self._trace.mark("hostile.cut")
            await trio.sleep(self._dice.uniform(0.1, 1.0))

    async def _attack(self, link: Link) -> None:
        dice = self._dice
        self._asked.clear()
        await link.send(MSGPACK.encode([msg.Hello(client="hostile")]))
        number = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, link)
            while not self.is_healed:
                await trio.sleep(dice.expovariate(8))
                if self._seen.tokens:
                    number += 1
                    await self._send(link, number)
            nursery.cancel_scope.cancel()

    async def _send(self, link: Link, number: int) -> None:
        dice, tokens = self._dice, self._seen.tokens
        verb = dice.choice(_VERBS)
        # Mostly recent ones: those may still be live.
        token = tokens[-dice.choice((1, 1, 2, 5, len(tokens))) % len(tokens)]
        is_forged = dice.random() < 0.7
        if is_forged:
            token = self._forge(token)
        named = decode_token(token)
        if named is not None:
            self._seen.stolen[named[0], named[2]] = None
        self._asked[number] = (verb, token, is_forged, trio.current_time())
        self._trace.mark("hostile.forged" if is_forged else "hostile.stolen")
        message: msg.Complete | msg.Retry | msg.Release | msg.Dead | msg.Extend
        if verb == "complete":
            message = msg.Complete(id=number, token=token)
        elif verb == "retry":
            message = msg.Retry(id=number, token=token, delay=0)
        elif verb == "release":
            message = msg.Release(id=number, token=token)
        elif verb == "dead":
            message = msg.Dead(id=number, token=token, reason="hostile")
        else:
            message = msg.Extend(id=number, token=token)
        await link.send(MSGPACK.encode([message]))

    def _forge(self, token: str) -> str:
        """The right reservation under another claim's nonce: what an owner that was fenced had given out."""
        named = decode_token(token)
        if named is None:
            return token
        partition, nonce, reservation = named
        return encode_token(PartitionId(partition), nonce ^ 1, ReservationNumber(reservation))

    async def _listen(self, link: Link) -> None:
        while True:
            for message in MSGPACK.decode_server(await link.receive()):
                if isinstance(message, msg.Settled | msg.Extended):
                    self._believed(message)

    def _believed(self, message: msg.Settled | msg.Extended) -> None:
        verb, token, is_forged, called = self._asked[message.id]
        named = decode_token(token)
        if named is None:
            return
        partition, nonce, reservation = named
        done = message.done if isinstance(message, msg.Settled) else 0
        if is_forged and not (isinstance(message, msg.Settled) and message.repeated):
            self._seen.forged_believed.append(f"{verb} of {partition}.{reservation} under nonce {nonce}")
        self._trace.mark("hostile.believed")
        self._seen.settlements.append(
            Settlement(verb, partition, reservation, nonce, called, trio.current_time(), done, is_own=False)
        )
