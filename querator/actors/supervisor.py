"""The supervisor: opens the partitions of every queue, and brings back the one that fell.

One partition's death leaves the others alone: it is claimed and folded anew, after a back-off. What
halted on a failed invariant is not restarted by itself.
"""

from functools import partial
from typing import Final

import trio

from querator import telemetry
from querator.actors.broker import Broker
from querator.actors.claim import ClaimLost, StateReader, claim
from querator.actors.partition import Condition, PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.ports import AcceptedLoss, Delivery, Whereabouts
from querator.actors.queue import QueueRuntime
from querator.core import events as ev
from querator.core.catalog import Catalog, Document, Queue, policy_of
from querator.core.catalog.documents import QueueChanged, QueueCreated, QueueDeleted
from querator.core.commands import ApplyPolicy, Command, Pause, Resume
from querator.core.ids import MILLISECOND, SECOND, Duration, PartitionId, Position, QueueName, SessionId
from querator.core.policy import Policy, encode_policy
from querator.core.replies import Code, Rejected, Reply
from querator.env import Env, seconds
from querator.errors import CorruptRecord, DataLossSuspected, LogError
from querator.log.store import LogStore

_BACKOFF_MIN: Final = Duration(100 * MILLISECOND)
_BACKOFF_MAX: Final = Duration(5 * SECOND)
_PATIENCE: Final = Duration(5 * SECOND)
"""With a partition that is being opened, or that is told of a change, before it is left to itself."""


class Ask:
    """A requester for the node's own commands: one answer, awaited."""

    def __init__(self) -> None:
        self.session = SessionId("")
        self.generation = 0
        self.is_open = True
        self.reply: Reply | None = None
        self._answered = trio.Event()

    def deliver(self, deliveries: list[Delivery]) -> None:
        for _, reply in deliveries:
            self.reply = reply  # type: ignore[assignment]  # a command's answer is a Reply
        self._answered.set()

    async def wait(self) -> Reply | None:
        await self._answered.wait()
        return self.reply


async def ask(broker: Broker, partition: PartitionId, command: Command) -> Reply | None:
    """Submit a command of the node's own and wait for its committed answer."""
    asking = Ask()
    broker.begin_turn()
    broker.command(asking, 0, partition, command)
    broker.end_turn()
    return await asking.wait()


def _impose(broker: Broker, partition: PartitionId, *commands: Command) -> list[Ask]:
    """Have a partition decide what the catalog says; the answers come when that is committed."""
    askings = []
    broker.begin_turn()
    for command in commands:
        askings.append(Ask())
        broker.impose(askings[-1], 0, partition, command)
    broker.end_turn()
    return askings


async def _wait_all(askings: list[Ask]) -> None:
    """Until all are answered; but a store that takes its time holds up no change of the catalog: what was
    decided waits there for its commit, and whoever opens the partition after that compares again."""
    with trio.move_on_after(seconds(_PATIENCE)):
        for asking in askings:
            await asking.wait()


class Supervisor:
    """Starts and restarts partition actors. ``run`` keeps the nursery that they are brought up in."""

    def __init__(
        self,
        broker: Broker,
        stores: dict[str, LogStore],
        env: Env,
        payloads: PayloadService,
        *,
        node: str,
        record_inputs: bool = False,
    ) -> None:
        self._broker = broker
        self._stores = stores
        self._first = next(iter(stores))
        self._env = env
        self._payloads = payloads
        self._node = node
        self._record_inputs = record_inputs
        self._nursery: trio.Nursery | None = None
        self._opening: dict[PartitionId, trio.CancelScope] = {}
        self._away: dict[PartitionId, str] = {}
        """Why one could not be opened at the last try."""
        self._suspected: dict[PartitionId, None] = {}
        """Those that halted because their log may have lost its end."""
        self._accepted: dict[PartitionId, AcceptedLoss] = {}
        """Those that are being opened all the same."""
        self._is_serving = False
        self.restarts = 0
        self.catalog = Catalog()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the bring-up tasks; for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                # A writer that ends after this may still lose a partition: nobody opens it here again.
                self._nursery = None

    async def follow(self, catalog: Catalog) -> None:
        """Serve the queues of this catalog and no others; returns when each partition is open or known to be
        failing. Queues that are open already are only told what changed."""
        self.catalog = catalog
        self._is_serving = True
        for runtime in list(self._broker.queues.values()):
            known = catalog.queues.get(runtime.name)
            if known is None or tuple(part.id for part in known.partitions) != runtime.partitions:
                await self._close_queue(runtime.name)
        async with trio.open_nursery() as nursery:
            for queue in list(catalog.queues.values()):
                if queue.name in self._broker.queues:
                    await self._reconcile(queue)
                    continue
                runtime = self._broker.add_queue(queue.name, tuple(part.id for part in queue.partitions))
                for index in range(len(queue.partitions)):
                    nursery.start_soon(partial(self._bring_up, queue, runtime, index, is_new=False))

    def step_down(self, refusal: Rejected) -> None:
        """Another node decides now: throw away all that is open here, and tell those who wait."""
        self._is_serving = False
        for scope in self._opening.values():
            scope.cancel()
        for actor in list(self._broker.actors.values()):
            actor.close(Code.OUTCOME_UNKNOWN, "another node took over")
        for name in list(self._broker.queues):
            self._broker.remove_queue(name, refusal.code, refusal.detail)
        for actor in list(self._broker.retiring.values()):
            self._broker.end_retiring(actor)
        self._away.clear()
        self._suspected.clear()
        self.catalog = Catalog()

    async def carry_out(self, document: Document) -> None:
        """Make a committed change of the catalog true for the partitions."""
        if not self._is_serving:
            return
        change = document.change
        if isinstance(change, QueueCreated):
            queue = change.queue
            runtime = self._broker.add_queue(queue.name, tuple(part.id for part in queue.partitions))
            async with trio.open_nursery() as nursery:
                for index in range(len(queue.partitions)):
                    nursery.start_soon(partial(self._bring_up, queue, runtime, index, is_new=True))
        elif isinstance(change, QueueChanged):
            await self._reconcile(change.queue)
            for source in self.catalog.queues_of_dead_queue(change.queue.name):
                await self._reconcile(source)
        elif isinstance(change, QueueDeleted):
            await self._close_queue(QueueName(change.name))
            for queue in list(self.catalog.queues.values()):
                await self._reconcile(queue)

    async def _reconcile(self, queue: Queue) -> None:
        awaited: list[Ask] = []
        for part in queue.partitions:
            actor = self._broker.actors.get(part.id)
            if actor is not None and actor.is_alive:
                is_open = actor.is_open
                askings = self._impose_catalog(queue, actor)
                # Who holds an append has the change in its memory, and in its log when the hold ends.
                awaited += askings if is_open else ()
        await _wait_all(awaited)

    def _impose_catalog(self, queue: Queue, actor: PartitionActor) -> list[Ask]:
        """Tell the partition what it does not have from the catalog yet."""
        policy = policy_of(queue, self.catalog)
        commands: list[Command] = []
        if actor.state.policy.version != policy.version:
            commands.append(ApplyPolicy(policy))
        if actor.state.paused != queue.paused:
            commands.append(Pause() if queue.paused else Resume())
        return _impose(self._broker, actor.partition, *commands)

    async def _close_queue(self, name: QueueName) -> None:
        runtime = self._broker.queues.get(name)
        if runtime is None:
            return
        runtime.is_closing = True
        self._broker.refuse_waiting(runtime, Code.SHUTTING_DOWN, "queue is shutting down")
        awaited: list[Ask] = []
        for actor in runtime.open_actors():
            retired = Policy(version=actor.state.policy.version + 1, deleted=True)
            is_open = actor.is_open
            askings = _impose(self._broker, actor.partition, ApplyPolicy(retired))
            awaited += askings if is_open else ()
        await _wait_all(awaited)
        for partition in runtime.partitions:
            scope = self._opening.pop(partition, None)
            if scope is not None:
                scope.cancel()
        self._broker.remove_queue(name, Code.SHUTTING_DOWN, "queue is shutting down")

    # --- one partition --------------------------------------------------------------------------

    async def _bring_up(self, queue: Queue, runtime: QueueRuntime, index: int, *, is_new: bool) -> None:
        """Open one partition; on failure go on trying in the background."""
        is_done = False
        # A store that hangs must not keep those waiting who wait for the others.
        with trio.move_on_after(seconds(_PATIENCE)):
            is_done = await self._try_open(queue.name, runtime, index, is_new=is_new)
        if not is_done and self._nursery is not None:
            self._nursery.start_soon(self._retry_open, runtime, index)

    async def _retry_open(self, runtime: QueueRuntime, index: int) -> None:
        partition = runtime.partitions[index]
        backoff = _BACKOFF_MIN
        with trio.CancelScope() as scope:
            self._opening[partition] = scope
            while not runtime.is_closing and runtime.actors[index] is None and index not in runtime.faults:
                await self._env.clock.sleep(Duration(backoff + self._env.rng.randbelow(backoff)))
                if self._broker.may_decide() is not None:
                    # Perhaps somebody else owns it by now: do not take it away from them.
                    continue
                if await self._try_open(runtime.name, runtime, index, is_new=False):
                    break
                backoff = Duration(min(backoff * 2, _BACKOFF_MAX))
            self._opening.pop(partition, None)

    def whereabouts(self, partition: PartitionId) -> Whereabouts:
        """See PartitionsPort."""
        queue = self.catalog.find_queue_of(partition)
        runtime = None if queue is None else self._broker.queues.get(queue.name)
        if queue is None or runtime is None:
            return Whereabouts("", "unavailable", "it is of no queue here")
        index = runtime.partitions.index(partition)
        store = queue.partitions[index].store or self._first
        actor = runtime.actors[index]
        if actor is not None:
            return Whereabouts(store, actor.condition.value, actor.fault)
        if index in runtime.faults:
            return Whereabouts(store, "halted", runtime.faults[index])
        return Whereabouts(store, "unavailable", self._away.get(partition, "it is being opened"))

    async def accept_loss(self, partition: PartitionId, author: str) -> AcceptedLoss | Rejected:
        """Go on with a partition whose log may lack what had been acknowledged: an operator takes it so.

        The log says so, and numbers that the lost end may have given are not given again.
        """
        queue = self.catalog.find_queue_of(partition)
        runtime = None if queue is None else self._broker.queues.get(queue.name)
        if runtime is None:
            return Rejected(Code.INVALID, f"partition {partition} is of no queue here", "partition")
        if partition not in self._suspected:
            return Rejected(Code.INVALID, f"no loss is suspected in partition {partition}", "partition")
        index = runtime.partitions.index(partition)
        fault = runtime.faults.pop(index)
        if not await self._try_open(runtime.name, runtime, index, is_new=False, accepted_by=author):
            runtime.faults[index] = fault
            return Rejected(Code.UNAVAILABLE, f"partition {partition} can't be claimed now; try again")
        if index in runtime.faults:
            return Rejected(Code.HALTED, f"partition {partition} is halted: {runtime.faults[index]}")
        loss = self._accepted.pop(partition, None)
        if loss is None:
            return Rejected(Code.UNKNOWN_QUEUE, f"the queue of partition {partition} was deleted meanwhile")
        telemetry.emit(
            "partition.loss_accepted", partition=partition, author=author, kept=loss.kept, known=loss.known
        )
        return loss

    async def _try_open(
        self,
        name: QueueName,
        runtime: QueueRuntime,
        index: int,
        *,
        is_new: bool,
        accepted_by: str | None = None,
    ) -> bool:
        partition = runtime.partitions[index]
        queue = self.catalog.queues.get(name)
        if queue is None:
            return True
        policy = policy_of(queue, self.catalog)
        store_name = queue.partitions[index].store or self._first
        try:
            store = self._stores[store_name]
        except KeyError:
            telemetry.emit("partition.store_unknown", partition=partition, store=store_name)
            self._away[partition] = f"store '{store_name}' is not configured"
            return False
        more = [ev.PolicyApplied(policy.version, encode_policy(policy), "")] if is_new else []
        try:
            log = StateReader(partition)
            if is_new and await store.tail(partition) is not None:
                # A catalog that lost its end gives numbers again: what is there is another queue's.
                raise CorruptRecord(f"there is a log of partition {partition} already, of an earlier queue")
            await claim(
                store,
                self._env,
                partition,
                node=self._node,
                reader=log,
                more=more,
                accepted_by=accepted_by,
            )
            if accepted_by is not None:
                kept = Position(log.claimed_at - 1)
                self._accepted[partition] = AcceptedLoss(kept, log.loss_known)
            state = log.state
            actor = PartitionActor(
                state,
                tail=log.position,
                tail_hash=log.hash,
                queue=name,
                index=index,
                demand=runtime.demand,
                store_name=store_name,
                session_of=self._broker.session_of,
                record_inputs=self._record_inputs,
            )
            await self._payloads.fill_tail(actor, store)
        except ClaimLost as error:
            self._away[partition] = str(error)
            return False
        except (CorruptRecord, DataLossSuspected) as error:
            telemetry.emit("partition.halted", partition=partition, error=str(error))
            runtime.faults[index] = str(error)
            if isinstance(error, DataLossSuspected):
                self._suspected[partition] = None
            return True
        except LogError as error:
            telemetry.emit("partition.unavailable", partition=partition, error=str(error))
            self._away[partition] = str(error)
            return False
        self._suspected.pop(partition, None)
        self._away.pop(partition, None)
        if runtime.is_closing:
            return True
        self._broker.add_actor(runtime, actor)
        if accepted_by is not None:
            self._broker.release_forgotten(actor)
        telemetry.emit("partition.opened", partition=partition, queue=name, ready=state.ready)
        # As it is by now: nobody told this partition of what changed while it was being opened.
        await _wait_all(self._impose_catalog(self.catalog.queues.get(name) or queue, actor))
        return True

    def lost(self, actor: PartitionActor, reason: str) -> None:
        """The log writer can't go on with this actor: throw it away, and claim the partition anew."""
        if self._broker.retiring.get(actor.partition) is actor:
            self._broker.end_retiring(actor)
            return
        telemetry.emit("partition.lost", partition=actor.partition, reason=reason)
        runtime = self._broker.queues.get(QueueName(actor.queue))
        actor.close(Code.OUTCOME_UNKNOWN, reason)
        self._broker.begin_turn()
        self._broker.remove_actor(actor)
        self._broker.end_turn()
        self.restarts += 1
        if runtime is None or runtime.is_closing or actor.condition is Condition.HALTED:
            return
        if self._nursery is not None:
            self._nursery.start_soon(self._retry_open, runtime, actor.index)
