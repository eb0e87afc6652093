"""Dead-letter moves: from a partition's channel to the target partition, in two logged steps.

The source's log says *dead*, the target's *received* (with the number of the last move it took, which it
keeps for ever), then the source's *moved*. Whatever is repeated after a crash is recognised by its number.
"""

from typing import Any

from querator.actors.broker import Broker
from querator.actors.partition import PartitionActor
from querator.actors.payloads import PayloadService
from querator.actors.supervisor import ask
from querator.actors.wanted import Wanted
from querator.core.commands import ConfirmMoves, ReadStats, Receive
from querator.core.events import Attributes
from querator.core.evolve import ATTRIBUTE_NAMES
from querator.core.ids import MILLISECOND, Duration, PartitionId, Place
from querator.core.limits import MOVE_ITEMS_MAX
from querator.core.place_ids import encode_place
from querator.core.replies import Done, Rejected
from querator.core.segments import SEGMENT_BITS
from querator.core.state import PartitionState
from querator.env import Env
from querator.errors import LogError

_RETRY = Duration(200 * MILLISECOND)


class Mover:
    """Carries dead items to their dead queues; one move at a time."""

    def __init__(self, broker: Broker, payloads: PayloadService, env: Env) -> None:
        self._broker = broker
        self._payloads = payloads
        self._env = env
        self._wanted = Wanted()
        self.moved = 0

    def leaving(self, actor: PartitionActor) -> None:
        """The partition has dead items for another one."""
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
            first_move = channel.first_move
            items = list(channel.items)[:MOVE_ITEMS_MAX]
            # That they died, and in this order, is in the log when an answer decided after it arrives: the
            # target must not take over a death that a crash undoes, nor a move's number another item.
            committed = await ask(self._broker, actor.partition, ReadStats())
            if isinstance(committed, Rejected) or self._broker.actors.get(actor.partition) is not actor:
                return True
            found = self._resident(actor, items)
            missing = [item for item in items if item not in found]
            if missing:
                found.update(await self._payloads.read_items(actor, missing))
            payloads = [found[item] for item in items]
            attributes = self._attributes(actor, items)
            taken = await ask(
                self._broker, target, Receive(actor.partition, first_move, payloads, attributes)
            )
            if not isinstance(taken, Done):
                return True
            last_move = first_move + len(items) - 1
            confirmed = await ask(self._broker, actor.partition, ConfirmMoves(target, last_move))
            if not isinstance(confirmed, Done):
                return True
            self.moved += len(items)
        return True

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


def _value(state: PartitionState, name: str, item: int) -> object:
    segment = state.segments[item >> SEGMENT_BITS]
    return segment.value(name, item - segment.first)
