"""Clients of a run: the production client library over simulated links; honest, slow, silent and hostile."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Final, Self

import trio

from querator.client import (
    AlreadySettled,
    Client,
    ClientError,
    OutcomeUnknown,
    Rejected,
    ReservationLost,
    connect,
)
from querator.client.batches import Batch
from querator.env import Env
from querator.env.virtual import MemoryNetwork
from querator.protocol.tokens import decode_token
from simulations.observations import Hunger, Observations, Production, Push, Reading, Settlement
from simulations.options import Options
from simulations.trace import Trace

PORT = 2319
DEAD_QUEUE: Final = "dead"
_HEALED_WINDOW = 1_000


def addresses(hosts: Sequence[str]) -> str:
    """Of the nodes on these hosts, as a client is given them."""
    return ",".join(f"ws://{host}:{PORT}" for host in hosts)


class Workload:
    """All clients of a run; ``heal`` makes them honest."""

    def __init__(
        self, options: Options, trace: Trace, seen: Observations, network: MemoryNetwork, hosts: Sequence[str]
    ) -> None:
        self._options = options
        self._trace = trace
        self._seen = seen
        self._network = network
        self._hosts = hosts
        self.is_healed = False
        self.produced_all = trio.Event()
        self._producing = options.producers

    def _addresses(self, number: int) -> str:
        """All nodes, each client beginning with another one."""
        first = number % len(self._hosts)
        return addresses([*self._hosts[first:], *self._hosts[:first]])

    def _dice(self, what: str, number: int) -> Random:
        return Random(f"{self._options.seed}/{what}/{number}")

    # --- producing --------------------------------------------------------------------------------

    async def producer(self, env: Env, number: int) -> None:
        """Produce at random moments for as long as faults strike."""
        options, dice = self._options, self._dice("producer", number)
        end = trio.current_time() + options.safety_seconds
        counter = calls_made = 0
        most = options.produce_max or (1 << 62)
        while trio.current_time() < end and calls_made < most:
            try:
                async with (
                    connect(self._addresses(number), client=f"p{number}", env=env) as client,
                    trio.open_nursery() as calls,
                ):
                    while trio.current_time() < end and calls_made < most:
                        await trio.sleep(dice.expovariate(options.produce_rate / options.producers))
                        calls_made += 1
                        size = dice.randint(1, options.batch_max)
                        payloads = [b"%d-%d" % (number, counter + index) for index in range(size)]
                        counter += size
                        queue = f"q{dice.randrange(options.queues)}"
                        columns = self._columns(dice, client, payloads)
                        again = dice.choice((0.0, 0.0, 0.3, 4.0)) if "dedupe_key" in columns else None
                        calls.start_soon(self._produce, client, queue, payloads, columns, again)
            except* ClientError:
                self._trace.mark("producer.disconnected")
                await trio.sleep(0.1)
        self._producing -= 1
        if not self._producing:
            self.produced_all.set()

    def _columns(self, dice: Random, client: Client, payloads: list[bytes]) -> dict[str, object]:
        options = self._options
        columns: dict[str, object] = {}
        if dice.random() < options.scheduled:
            delay = dice.choice((300_000, 1_000_000, 3_000_000))
            columns["enqueue_at"] = client._connector.server_time() + delay
        if dice.random() < options.duplicate:
            # One key: a request of several would be split over partitions.
            del payloads[1:]
            columns["dedupe_key"] = f"d-{payloads[0].decode()}"
        if options.keyed:
            columns["key"] = f"k{dice.randrange(5)}"
        return columns

    async def _produce(
        self,
        client: Client,
        queue: str,
        payloads: list[bytes],
        columns: dict[str, object],
        again: float | None,
    ) -> None:
        seen = self._seen
        for payload in payloads:
            seen.attempted[payload] = queue
        if again is None:
            await self._produce_once(client, queue, payloads, columns)
            return
        seen.deduped[payloads[0]] = str(columns["dedupe_key"])
        async with trio.open_nursery() as twice:
            twice.start_soon(self._produce_once, client, queue, payloads, columns)
            await trio.sleep(again)
            twice.start_soon(self._produce_once, client, queue, payloads, columns)

    async def _produce_once(
        self, client: Client, queue: str, payloads: list[bytes], columns: dict[str, object]
    ) -> None:
        seen = self._seen
        called = trio.current_time()
        try:
            receipt = await client.produce_batch(queue, payloads, **columns)
        except OutcomeUnknown:
            self._trace.mark("produce.unknown")
            seen.unsure.update(dict.fromkeys(payloads))
            return
        except Rejected as error:
            self._trace.mark(f"produce.{error.code}")
            for payload in payloads:
                seen.refused[payload] = error.code
            return
        except ClientError as error:
            self._trace.mark(f"produce.{type(error).__name__}")
            seen.unsure.update(dict.fromkeys(payloads))
            return
        numbers = receipt.numbers or range(receipt.first, receipt.first + receipt.count)
        if receipt.duplicates:
            self._trace.mark("produce.duplicate")
        seen.productions.append(
            Production(
                receipt.partition,
                tuple(numbers),
                tuple(payloads),
                len(receipt.duplicates or ()),
                called,
                trio.current_time(),
            )
        )
        self._trace.note("client", "acknowledged", f"{receipt.partition}.{receipt.first} x{receipt.count}")

    # --- consuming --------------------------------------------------------------------------------

    async def consumer(self, env: Env, number: int) -> None:
        """Consume for ever; a consumer that went away comes back as another one."""
        dice = self._dice("consumer", number)
        life = 0
        while True:
            life += 1
            try:
                with trio.CancelScope() as scope:
                    await self._consume(env, dice, f"consumer-{number}", life, scope)
            except* ClientError as group:
                self._trace.mark(f"consumer.{_why(group.exceptions[0])}")
            await trio.sleep(dice.uniform(0.05, 0.5))

    async def _consume(self, env: Env, dice: Random, name: str, life: int, scope: trio.CancelScope) -> None:
        options = self._options
        number = int(name.rpartition("-")[2])
        queue = f"q{number % options.queues}"
        window = _HEALED_WINDOW if self.is_healed else dice.choice((1, 2, 10, 100))
        batch_max = dice.choice((1, 4, 50))
        held = dice.random() < 0.7
        asked = trio.current_time()
        async with (
            connect(
                self._addresses(number), client=f"{name}.{life}", env=env, reconnect_timeout=None
            ) as client,
            client.consume(queue, window=window, batch=batch_max, held=held) as items,
        ):
            holding: list[Batch] = []
            with self._hungry(name, queue) as hunger:
                async for batch in items.batches():
                    hunger.ends()
                    self._received(f"{name}.{life}", batch, asked)
                    holding = [other for other in holding if not other.lost and other.left]
                    holding.append(batch)
                    self._check_window(name, holding, window, batch)
                    if not self.is_healed and dice.random() < options.vanish:
                        self._trace.mark("consumer.vanished")
                        if dice.random() < 0.5:
                            # Like a process that was killed: no goodbye.
                            for host in self._hosts:
                                self._network.cut(host, name)
                            scope.cancel()
                        break
                    await self._work(dice, batch)
                    if self.is_healed and window != _HEALED_WINDOW:
                        break
                    if not any(other.left and not other.lost for other in holding):
                        hunger.begins()

    def _hungry(self, client: str, queue: str) -> "Hungry":
        return Hungry(self._seen, client, queue)

    def _check_window(self, name: str, holding: list[Batch], window: int, batch: Batch) -> None:
        held = sum(other.left for other in holding)
        if held > window:
            self._seen.windows.append(f"{name} holds {held} items, its window is {window} ({batch.token})")

    async def asker(self, env: Env, number: int) -> None:
        """Reserve by request, with and without waiting."""
        options, dice = self._options, self._dice("asker", number)
        name = f"asker-{number}"

        async def ask(client: Client) -> None:
            asked = trio.current_time()
            queue = f"q{dice.randrange(options.queues)}"
            with self._hungry(name, queue):
                batch = await client.reserve(
                    queue,
                    items=dice.choice((1, 3, 100)),
                    wait=dice.choice((0, 0.5, 3)),
                    held=dice.random() < 0.3,
                )
            if batch is None:
                self._trace.mark("reserve.nothing")
                await trio.sleep(dice.uniform(0.05, 0.5))
            else:
                self._received(name, batch, asked)
                await self._work(dice, batch)

        await self._again_and_again(env, name, number, dice, ask)

    async def reader(self, env: Env, number: int) -> None:
        """Look at the queues' counters, wherever somebody answers."""
        options, dice = self._options, self._dice("reader", number)
        name = f"reader-{number}"

        async def look(client: Client) -> None:
            await self._read(client, name, f"q{dice.randrange(options.queues)}")
            await trio.sleep(dice.choice((0.01, 0.1, 0.4)))

        await self._again_and_again(env, name, number, dice, look)

    async def sender(self, env: Env, number: int) -> None:
        """Look after the dead queue: work on what it took, or send it back to where it came from."""
        options, dice = self._options, self._dice("sender", number)
        name = f"sender-{number}"

        async def look_after(client: Client) -> None:
            await trio.sleep(dice.uniform(0.1, 0.8))
            if self.is_healed:
                # What came home must come to its end there.
                await trio.sleep_forever()
            if dice.random() < 0.3:
                asked = trio.current_time()
                batch = await client.reserve(DEAD_QUEUE, items=dice.choice((1, 5)), held=dice.random() < 0.5)
                if batch is not None:
                    self._received(name, batch, asked)
                    await self._work(dice, batch)
                return
            wanted: dict[str, object] = {
                "name": DEAD_QUEUE,
                "to": "home",
                "limit": dice.choice((1, 10, 1_000)),
            }
            if dice.random() < 0.3:
                wanted["from_queue"] = f"q{dice.randrange(options.queues)}"
            sent = await client.call("dead.redrive", wanted)
            self._trace.mark("sent_home.some" if sent["redriven"] else "sent_home.none")

        await self._again_and_again(env, name, number, dice, look_after)

    async def _again_and_again(
        self, env: Env, name: str, number: int, dice: Random, deed: Callable[[Client], Awaitable[None]]
    ) -> None:
        """For ever, whatever comes between."""
        while True:
            try:
                async with connect(
                    self._addresses(number), client=name, env=env, reconnect_timeout=None
                ) as client:
                    while True:
                        await deed(client)
            except* ClientError as group:
                self._trace.mark(f"{name.rpartition('-')[0]}.{_why(group.exceptions[0])}")
            await trio.sleep(dice.uniform(0.05, 0.5))

    async def _read(self, client: Client, name: str, queue: str) -> None:
        called = trio.current_time()
        report = await client.stats(queue)
        self._seen.readings += [
            Reading(name, part["partition"], part["position"], called, trio.current_time())
            for part in report.partitions
        ]

    async def rescuer(self, env: Env, number: int) -> None:
        """Once all is healed: an honest, fast consumer with credit, so that an end is possible at all."""
        name, dice = f"rescuer-{number}", self._dice("rescuer", number)
        while True:
            asked = trio.current_time()
            try:
                async with (
                    connect(self._addresses(number), client=name, env=env, reconnect_timeout=None) as client,
                    client.consume(f"q{number}", window=_HEALED_WINDOW, batch=200) as items,
                ):
                    with self._hungry(name, f"q{number}") as hunger:
                        async for batch in items.batches():
                            hunger.ends()
                            self._received(name, batch, asked)
                            await self._work(dice, batch)
                            if not (batch.left or batch.lost):
                                hunger.begins()
            except* ClientError:
                self._trace.mark("rescuer.failed")
            await trio.sleep(0.5)

    def _received(self, client: str, batch: Batch, asked: float) -> None:
        seen = self._seen
        named = decode_token(batch.token)
        if named is None:
            seen.forged_believed.append(f"{batch.token} is no token")
            return
        partition, nonce, reservation = named
        attempts = batch.column("attempts")
        seen.tokens.append(batch.token)
        seen.pushes.append(
            Push(
                client,
                partition,
                reservation,
                nonce,
                tuple(batch.items),
                tuple(batch.payloads),
                tuple(attempts) if isinstance(attempts, list) else (attempts or 1,) * len(batch),
                batch.deadline,
                asked,
                trio.current_time(),
            )
        )
        self._trace.note(client, "received", f"{partition}.{reservation} x{len(batch)}")

    # --- settling ---------------------------------------------------------------------------------

    async def _work(self, dice: Random, batch: Batch) -> None:
        options = self._options
        await trio.sleep(dice.choice((0.0, 0.001, 0.05, 0.4)) if not self.is_healed else 0.0)
        if self.is_healed:
            # Now and then a first attempt fails even now, and somebody who waits must be told at once.
            if _attempt(batch) == 1 and dice.random() < options.fail:
                await self._settle("retry", batch, partial(batch.retry, delay=0), len(batch))
            else:
                await self._settle("complete", batch, batch.complete, len(batch))
            return
        if dice.random() < options.extend:
            await self._settle("extend", batch, batch.extend, 0)
        if dice.random() < options.stale:
            await trio.sleep(options.reservation_timeout * dice.choice((0.9, 1.0, 1.5)))
        if dice.random() < options.partial and len(batch) > 1:
            at = dice.randrange(1, len(batch))
            await self._settle_part(dice, batch, 0, at)
            await self._settle_part(dice, batch, at, len(batch) - at)
        else:
            await self._settle_part(dice, batch, 0, len(batch))

    async def _settle_part(self, dice: Random, batch: Batch, first: int, count: int) -> None:
        options, chance = self._options, dice.random()

        def complete() -> Awaitable[None]:
            return batch.complete(first, count)

        def retry() -> Awaitable[None]:
            return batch.retry(first, count, delay=dice.choice((None, 0, 1.5)))

        def dead() -> Awaitable[None]:
            return batch.dead("simulated", first, count)

        def release() -> Awaitable[None]:
            return batch.release(first, count)

        if chance < options.fail:
            await self._settle("retry", batch, retry, count)
        elif chance < options.fail + options.set_aside:
            await self._settle("dead", batch, dead, count)
        elif chance < options.fail + options.set_aside + options.release:
            await self._settle("release", batch, release, count)
        else:
            await self._settle("complete", batch, complete, count)

    async def _settle(
        self, verb: str, batch: Batch, call: Callable[[], Awaitable[object]], count: int
    ) -> None:
        called = trio.current_time()
        try:
            await call()
        except (ReservationLost, AlreadySettled):
            self._trace.mark("settle.lost")
        except OutcomeUnknown:
            self._trace.mark("settle.unknown")
        except Rejected as error:
            self._trace.mark(f"settle.{error.code}")
        else:
            named = decode_token(batch.token)
            if named is not None:
                self._seen.settlements.append(
                    Settlement(
                        verb, named[0], named[2], named[1], called, trio.current_time(), count, is_own=True
                    )
                )
                self._trace.mark(f"settle.{verb}")


class Hungry:
    """A stretch of time in which a client has room and nothing to do; it ends with the block, or before."""

    def __init__(self, seen: Observations, client: str, queue: str) -> None:
        self._seen = seen
        self._client = client
        self._queue = queue
        self._since: float | None = None

    def __enter__(self) -> Self:
        self.begins()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends()

    def begins(self) -> None:
        """It has nothing to do from now on."""
        self._since = trio.current_time()

    def ends(self) -> None:
        """Something came, or it does not want anything any more."""
        if self._since is not None:
            self._seen.hungers.append(Hunger(self._client, self._queue, self._since, trio.current_time()))
            self._since = None


def _attempt(batch: Batch) -> int:
    """The highest attempt of a batch's items."""
    attempts = batch.column("attempts")
    return max(attempts) if isinstance(attempts, list) else attempts or 1


def _why(error: BaseException) -> str:
    """A refusal's code, else the kind of error."""
    return str(error.code) if isinstance(error, Rejected) else type(error).__name__
