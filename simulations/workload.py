"""Clients of a run: the production client library over simulated links; honest, slow, silent and hostile."""

from random import Random

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
from querator.env import Env
from querator.env.trio_clock import EPOCH
from simulations.observations import Observations
from simulations.options import Options
from simulations.trace import Trace


class Workload:
    """All clients of a run; ``heal`` makes them honest."""

    def __init__(self, options: Options, trace: Trace, seen: Observations, address: str) -> None:
        self._options = options
        self._trace = trace
        self._seen = seen
        self._address = address
        self.is_healed = False
        self.produced_all = trio.Event()
        self._producing = options.producers

    async def producer(self, env: Env, number: int) -> None:
        """Produce at random moments for as long as faults strike."""
        options, dice = self._options, Random(f"{self._options.seed}/producer/{number}")
        end = trio.current_time() + options.safety_seconds
        try:
            async with connect(self._address, client=f"p{number}", env=env, reconnect_timeout=None) as client:
                counter = 0
                async with trio.open_nursery() as nursery:
                    while trio.current_time() < end:
                        await trio.sleep(dice.expovariate(options.produce_rate / options.producers))
                        size = dice.randint(1, options.batch_max)
                        payloads = [b"%d-%d" % (number, counter + index) for index in range(size)]
                        counter += size
                        queue = f"q{dice.randrange(options.queues)}"
                        nursery.start_soon(
                            self._produce,
                            client,
                            queue,
                            payloads,
                            dice.random(),
                            dice.random(),
                            f"k{dice.randrange(6)}",
                        )
        finally:
            self._producing -= 1
            if not self._producing:
                self.produced_all.set()

    async def _produce(
        self, client: Client, queue: str, payloads: list[bytes], kind: float, again: float, key: str
    ) -> None:
        seen = self._seen
        options = self._options
        columns: dict[str, object] = {}
        if options.keyed:
            columns["key"] = key
        if kind < options.scheduled:
            columns["enqueue_at"] = EPOCH + int((trio.current_time() + 0.5 + 3 * kind) * 1_000_000)
        is_duplicate = again < options.duplicate
        if is_duplicate:
            columns["dedupe_key"] = [f"d-{payload.decode()}" for payload in payloads]
            columns.pop("key", None)
        for payload in payloads:
            seen.attempted[payload] = queue
        try:
            receipt = await client.produce_batch(queue, payloads, **columns)
        except OutcomeUnknown:
            self._trace.mark("produce.unknown")
            return
        except Rejected as error:
            self._trace.mark(f"produce.{error.code}")
            for payload in payloads:
                seen.refused[payload] = error.code
            return
        except ClientError as error:
            self._trace.mark(f"produce.{type(error).__name__}")
            return
        for index, payload in enumerate(payloads):
            item = receipt.numbers[index] if receipt.numbers else receipt.first + index
            seen.acknowledged[payload] = (receipt.partition, item)
        self._trace.note("client", "acknowledged", f"{receipt.partition}.{receipt.first} x{receipt.count}")
        if is_duplicate:
            try:
                repeated = await client.produce_batch(queue, payloads, **columns)
            except ClientError:
                return
            if len(repeated.duplicates) == len(payloads):
                seen.duplicates_recognised += 1
            elif self._options.partitions == 1:
                seen.stale_accepted.append(f"the dedupe keys of {payloads} were not recognised")

    async def consumer(self, env: Env, number: int) -> None:
        """Consume for ever; a consumer that fell silent comes back as another one."""
        options, dice = self._options, Random(f"{self._options.seed}/consumer/{number}")
        life = 0
        while True:
            life += 1
            queue = f"q{number % options.queues}"
            try:
                async with connect(
                    self._address, client=f"c{number}.{life}", env=env, reconnect_timeout=None
                ) as client:
                    window = dice.choice((1, 10, 100))
                    held = dice.random() < 0.7
                    async with client.consume(
                        queue, window=window, batch=dice.choice((1, 4, 50)), held=held
                    ) as items:
                        async for batch in items.batches():
                            for payload in batch.payloads:
                                self._seen.delivered[payload] = self._seen.delivered.get(payload, 0) + 1
                            if not self.is_healed and dice.random() < options.vanish:
                                self._trace.mark("consumer.vanished")
                                with trio.CancelScope() as gone:
                                    gone.cancel()
                                    await trio.lowlevel.checkpoint()
                                break
                            await self._work(dice, batch)
            except ClientError as error:
                self._trace.mark(f"consumer.{type(error).__name__}")
            await trio.sleep(dice.uniform(0.05, 0.5))

    async def _work(self, dice: Random, batch: object) -> None:
        options, seen = self._options, self._seen
        # Once healed nobody is slow: with reservations of a second, slow consumers would never get done.
        await trio.sleep(dice.choice((0.0, 0.001) if self.is_healed else (0.0, 0.001, 0.05, 0.4)))
        chance = dice.random()
        payloads = list(batch.payloads)  # type: ignore[attr-defined]
        try:
            if not self.is_healed and chance < options.fail:
                await batch.retry(delay=dice.choice((None, 0, 1.5)))  # type: ignore[attr-defined]
            elif not self.is_healed and chance < options.fail + options.set_aside:
                await batch.dead("simulated")  # type: ignore[attr-defined]
            elif not self.is_healed and chance < options.fail + options.set_aside + options.release:
                await batch.release()  # type: ignore[attr-defined]
            else:
                await batch.complete()  # type: ignore[attr-defined]
                for payload in payloads:
                    seen.completed[payload] = seen.completed.get(payload, 0) + 1
            seen.settled += 1
        except (ReservationLost, AlreadySettled):
            self._trace.mark("settle.lost")
        except OutcomeUnknown:
            self._trace.mark("settle.unknown")
        except Rejected as error:
            self._trace.mark(f"settle.{error.code}")
