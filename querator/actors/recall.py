"""Settlements that memory has forgotten, read back from the log: a late repeat is answered as the first was.

Only who settles a reservation more than a million settlements later comes here. One look at a time, and a
bound on how far it reads; what is not found is refused as any reservation that is over.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from querator import telemetry
from querator.actors.partition import PartitionActor
from querator.actors.ports import Requester
from querator.core import events as ev
from querator.core.commands import Settle, Verb
from querator.core.decide import repeat
from querator.core.evolve import DEAD_VERBS
from querator.core.ids import PartitionId, Position
from querator.core.limits import READ_BYTES_MAX, RECALL_RECORDS_MAX, RECALLS_MAX, RESTORE_PAGE_RECORDS
from querator.core.milestones import Milestone
from querator.core.replies import Code, Rejected, Reply
from querator.core.state import OPEN
from querator.errors import HistoryDropped, LogError
from querator.log.codec import decode_events
from querator.log.store import LogStore

_NOTHING: Final = b""
_VERBS: Final = {
    ev.ItemsCompleted: Verb.COMPLETE,
    ev.ItemsRetried: Verb.RETRY,
    ev.ItemsReleased: Verb.RELEASE,
    ev.ReservationEnded: Verb.ENDED,
}
_SETTLING: Final = ev.ItemsCompleted | ev.ItemsRetried | ev.ItemsReleased | ev.ReservationEnded | ev.ItemsDied


@attrs.define
class _Look:
    actor: PartitionActor
    requester: Requester
    request: int
    command: Settle


class Recall:
    """Looks for settlements in the log, behind the answers of all partitions here."""

    def __init__(self, stores: dict[str, LogStore]) -> None:
        self._stores = stores
        self._wanted: deque[_Look] = deque()
        self._signal = trio.Event()

    def wants(self, actor: PartitionActor, requester: Requester, request: int, command: Settle) -> bool:
        """Whether the answer will come from the log, later; else memory's is the last word. For reservations
        below the floor of what memory has."""
        if command.verb is Verb.EXTEND or command.reservation in actor.state.reservations:
            return False
        if len(self._wanted) >= RECALLS_MAX:
            requester.deliver([(request, Rejected(Code.OVERLOADED, "too many settle what is long over"))])
            return True
        self._wanted.append(_Look(actor, requester, request, command))
        self._signal.set()
        return True

    async def run(self) -> None:
        """Answer, one after the other; for ever."""
        while True:
            if not self._wanted:
                self._signal = trio.Event()
                await self._signal.wait()
            look = self._wanted.popleft()
            look.requester.deliver([(look.request, await self._answer(look))])

    async def _answer(self, look: _Look) -> Reply:
        actor, command = look.actor, look.command
        around = actor.state.milestones.around(command.reservation)
        if around is None:
            return repeat(command, _NOTHING)
        telemetry.emit("settlement.recalled", partition=actor.partition, reservation=command.reservation)
        store = self._stores[actor.store_name]
        try:
            marks = await find_settlement(
                store, actor.partition, command.reservation, command.nonce, around, actor.tail
            )
        except HistoryDropped:
            marks = _NOTHING
        except LogError as error:
            return Rejected(Code.UNAVAILABLE, str(error))
        return repeat(command, marks)


async def find_settlement(
    store: LogStore,
    partition: PartitionId,
    reservation: int,
    nonce: int,
    around: tuple[Milestone, Milestone | None],
    last: Position,
) -> Sequence[int]:
    """How each item of a reservation was settled, a verb an item; empty: it is not found.

    Raises:
        LogError: the log can't be read, or is not there any more.
    """
    first, after = around
    final = min(last + 1, first.position + RECALL_RECORDS_MAX)
    position = Position(first.position)
    number = 0
    marks: bytearray | None = None
    while position < final:
        records_max = min(RESTORE_PAGE_RECORDS, final - position)
        page = await store.read(
            partition, position, records_max=records_max, bytes_max=READ_BYTES_MAX, payloads=False
        )
        if not page:
            break
        for record in page:
            if marks is None and after is not None and record.position > after.position:
                return _NOTHING
            for event in decode_events(record.events):
                if not number:
                    if type(event) is ev.TurnStarted and event.at == first.at:
                        number = first.number
                elif type(event) is ev.ItemsReserved:
                    if number == reservation:
                        if record.nonce != nonce:
                            return _NOTHING
                        marks = bytearray(event.count)
                    number += 1
                elif marks is not None and _settle(marks, event, reservation):
                    return marks
            position = Position(record.position + 1)
        await trio.lowlevel.checkpoint()
    return marks or _NOTHING


def _settle(marks: bytearray, event: ev.Event, reservation: int) -> bool:
    """Note what the event does to the reservation; whether nothing is left of it."""
    ranges: ev.Ranges | None = None
    if type(event) is ev.ItemsCleared:
        if not event.reserved:
            return False
        verb = Verb.ENDED
    elif isinstance(event, _SETTLING) and event.reservation == reservation:
        ranges = event.ranges
        verb = DEAD_VERBS[event.verb] if isinstance(event, ev.ItemsDied) else _VERBS[type(event)]
    else:
        return False
    for start, count in ranges if ranges is not None else ((0, len(marks)),):
        for index in range(start, start + count):
            if marks[index] == OPEN:
                marks[index] = verb
    return OPEN not in marks
