"""Moves: from a partition's channel to the target partition, in two logged steps. So dead items get to their
dead queue, and from there back to where they came from.

The source's log says *dead*, or *sent back*; the target's *received*, or *came back* (with the number of the
last move it took, which it keeps for ever); then the source's *moved*. Whatever is repeated after a crash is
recognised by its number. Moves to a partition whose queue was deleted are given up: what its log says it took
has moved, the rest stays here, dead.
"""

from collections.abc import Callable, Mapping
from itertools import islice, takewhile
from typing import Any

from querator.actors.broker import Broker
from querator.actors.claim import StateReader
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.supervisor import ask
from querator.actors.wanted import Wanted
from querator.core.commands import ConfirmMoves, GiveUpMoves, ReadStats, Receive
from querator.core.events import Attributes
from querator.core.evolve import ATTRIBUTE_NAMES
from querator.core.ids import MILLISECOND, Duration, PartitionId, Place
from querator.core.limits import MOVE_ITEMS_MAX
from querator.core.place_ids import encode_place
from querator.core.replies import Done, Rejected
from querator.core.segments import SEGMENT_BITS
from querator.core.state import Outbound, PartitionState
from querator.env import Env
from querator.errors import LogError
from querator.log.store import LogStore

_RETRY = Duration(200 * MILLISECOND)


class Mover:
    """Carries dead items to their dead queues, and back; one move at a time.

    ``is_gone``: whether a partition's queue was deleted, and nothing more of it gets into its log.
    """

    def __init__(
        self,
        broker: Broker,
        payloads: PayloadService,
        stores: Mapping[str, LogStore],
        env: Env,
        is_gone: Callable[[PartitionId], bool],
    ) -> None:
        self._broker = broker
        self._payloads = payloads
        self._stores = stores
        self._env = env
        self._is_gone = is_gone
        self._wanted = Wanted()
        self.moved = 0

    def leaving(self, actor: PartitionActor) -> None:
        """The partition has items for another one."""
        self._wanted.add(actor)

    async def run(self) -> None:
        """Move; for ever."""
        while True:
            actor = await self._wanted.take()
            again = False
            for target in list(actor.state.outbound):
                try:
                    again = await self._move(actor, PartitionId(target)) or again
                except LogError:
                    again = True
            if again and actor.is_open:
                await self._env.clock.sleep(_RETRY)
                self._wanted.add(actor)

    async def _move(self, actor: PartitionActor, target: PartitionId) -> bool:
        """Move all that waits; whether some could not go yet."""
        while actor.is_open:
            channel = actor.state.outbound.get(target)
            if channel is None or not channel.items:
                return False
            if self._is_gone(target):
                return await self._give_up(actor, target)
            first_move = channel.first_move
            items, come_back = _next_move(channel, actor.state.homeward)
            # That they are leaving, and in this order, is in the log when an answer decided after it arrives:
            # the target must not take over what a crash undoes, nor a move's number another item.
            committed = await ask(self._broker, actor.partition, ReadStats())
            if isinstance(committed, Rejected) or self._broker.actors.get(actor.partition) is not actor:
                return True
            found = self._resident(actor, items)
            missing = [item for item in items if item not in found]
            if missing:
                found.update(await self._payloads.read_items(actor, missing))
                if any(item not in found for item in items):
                    # They are just being carried, by a record that is not committed yet.
                    return True
            payloads = [found[item] for item in items]
            attributes = self._attributes(actor, items)
            taken = await ask(
                self._broker, target, Receive(actor.partition, first_move, payloads, attributes, come_back)
            )
            if not isinstance(taken, Done):
                return True
            last_move = first_move + len(items) - 1
            confirmed = await ask(self._broker, actor.partition, ConfirmMoves(target, last_move))
            if not isinstance(confirmed, Done):
                return True
            self.moved += len(items)
        return True

    async def _give_up(self, actor: PartitionActor, target: PartitionId) -> bool:
        """Nobody takes any more of what waits; whether that could not be settled yet."""
        last_move = await self._last_taken(actor.partition, target)
        for command in (ConfirmMoves(target, last_move), GiveUpMoves(target)):
            if not isinstance(await ask(self._broker, actor.partition, command), Done):
                return True
        return bool(actor.is_open and actor.state.outbound[target].items)

    async def _last_taken(self, source: PartitionId, target: PartitionId) -> int:
        """The last move that the target took, as its log has it."""
        for store in self._stores.values():
            tail = await store.tail(target)
            if tail is not None:
                reader = StateReader(target)
                await reader.read_to(store, tail)
                return reader.state.inbound.get(source, 0)
        return 0

    def _resident(self, actor: PartitionActor, items: list[int]) -> dict[int, bytes]:
        """Payloads that are in memory."""
        found: dict[int, bytes] = {}
        for item in items:
            segment = actor.state.segments[item >> SEGMENT_BITS]
            payload = segment.payloads[item - segment.first] if segment.payloads is not None else None
            if payload is not None:
                found[item] = payload
        return found

    def _attributes(self, actor: PartitionActor, items: list[int]) -> Attributes:
        columns: dict[str, Any] = {}
        state = actor.state
        for name in ATTRIBUTE_NAMES:
            if name in ("dedupe_key", "source_id"):
                continue
            values = [_value(state, name, item) for item in items]
            columns[name] = values if any(value is not None for value in values) else None
        # Where it came from: its last id in the source queue, as clients knew it.
        columns["source_id"] = [encode_place(actor.partition, Place(state.place_of(item))) for item in items]
        return Attributes(**columns)


def _next_move(channel: Outbound, homeward: Mapping[int, None]) -> tuple[list[int], bool]:
    """(items, whether they go home): all of one way, though the channel may be our dead queue's as well."""
    come_back = channel.items[0] in homeward
    alike = takewhile(lambda item: (item in homeward) == come_back, channel.items)
    return list(islice(alike, MOVE_ITEMS_MAX)), come_back


def _value(state: PartitionState, name: str, item: int) -> object:
    segment = state.segments[item >> SEGMENT_BITS]
    return segment.value(name, item - segment.first)
