"""Payloads in and out of memory.

Past a byte budget, waiting segments keep only their columns: their payloads are in the log anyway. They
are read back, a few segments ahead, when the line comes to them. Only full segments of which nothing is
reserved leave, the last in line first.
"""

from typing import Final

from querator import telemetry
from querator.actors.broker import Broker
from querator.actors.partition import PartitionActor
from querator.actors.wanted import Wanted
from querator.core.ids import MILLISECOND, Duration, Position, QueueName
from querator.core.limits import (
    PAYLOAD_MEMORY_BYTES,
    READ_BYTES_MAX,
    RESTORE_PAGE_RECORDS,
    SEGMENTS_READ_AHEAD,
)
from querator.core.segments import GONE, RESERVED, SEGMENT_BITS, Segment
from querator.core.state import PartitionState
from querator.env import Env
from querator.errors import LogError
from querator.log.codec import payloads_of
from querator.log.store import LogStore

_SPILL_SEGMENTS_MAX: Final = 64
"""Segments that leave memory in one go; more in the next turn."""
_RETRY: Final = Duration(100 * MILLISECOND)
_COMMIT_WAIT: Final = Duration(5 * MILLISECOND)


class PayloadService:
    """Reads payloads for starved lines (``run``), and lets the last in line leave (``spill``)."""

    def __init__(
        self, broker: Broker, stores: dict[str, LogStore], env: Env, *, budget: int = PAYLOAD_MEMORY_BYTES
    ) -> None:
        self._broker = broker
        self._stores = stores
        self._env = env
        self._budget = budget
        self._wanted = Wanted()
        self.reads = 0
        self.spilled = 0

    def starved(self, actor: PartitionActor) -> None:
        """The actor's line waits for the payloads of segment ``state.starved``."""
        self._wanted.add(actor)

    async def run(self) -> None:
        """Read what lines wait for; for ever."""
        while True:
            actor = await self._wanted.take()
            if not actor.is_open or actor.state.starved is None:
                continue
            try:
                for number in self._ahead(actor.state):
                    await self._fill(actor, number, self._stores[actor.store_name])
            except LogError as error:
                telemetry.emit("payloads.unavailable", partition=actor.partition, error=str(error))
                await self._env.clock.sleep(_RETRY)
                self._wanted.add(actor)
                continue
            broker = self._broker
            broker.begin_turn()
            actor.state.starved = None
            broker.touch(actor)
            queue = broker.queues.get(QueueName(actor.queue))
            if queue is not None:
                broker.to_match(queue)
            broker.end_turn()

    def _ahead(self, state: PartitionState) -> list[int]:
        """The segments without payloads that the line comes to next."""
        numbers: dict[int, None] = {}
        for _, item, _ in state.line.runs():
            segment = state.segments[item >> SEGMENT_BITS]
            if segment.payloads is None:
                numbers[segment.number] = None
            if len(numbers) >= SEGMENTS_READ_AHEAD:
                break
        if state.starved is not None and state.starved in state.segments:
            numbers.setdefault(state.starved)
        return list(numbers)

    async def fill_tail(self, actor: PartitionActor, store: LogStore) -> None:
        """Read the payloads of the segment that still grows: what is produced into it stays in memory."""
        state = actor.state
        number = (state.next_item - 1) >> SEGMENT_BITS
        segment = state.segments.get(number)
        if segment is not None and segment.payloads is None and not segment.is_full:
            await self._fill(actor, number, store)

    async def read_items(self, actor: PartitionActor, items: list[int]) -> dict[int, bytes]:
        """The payloads of single items, from the log."""
        by_record: dict[int, list[int]] = {}
        for item in items:
            segment = actor.state.segments.get(item >> SEGMENT_BITS)
            if segment is not None:
                by_record.setdefault(segment.origin_of(item - segment.first), []).append(item)
        found: dict[int, bytes] = {}
        store = self._stores[actor.store_name]
        for position, wanted in sorted(by_record.items()):
            page = await store.read(
                actor.partition, Position(position), records_max=1, bytes_max=READ_BYTES_MAX, payloads=True
            )
            for record in page:
                if record.position == position:
                    found.update(payloads_of(record, wanted))
        return found

    async def _fill(self, actor: PartitionActor, number: int, store: LogStore) -> None:
        state = actor.state
        segment = state.segments.get(number)
        if segment is None or segment.payloads is not None:
            return
        wanted = _origins(segment)
        while wanted and next(reversed(wanted)) > actor.tail:
            # They were carried, by a record that is not committed yet.
            await self._env.clock.sleep(_COMMIT_WAIT)
            if not actor.is_open or state.segments.get(number) is not segment:
                return
            wanted = _origins(segment)
        payloads: list[bytes | None] = [None] * len(segment.states)
        positions = list(wanted)
        index = 0
        while index < len(positions):
            # Neighbouring records are read together.
            start = positions[index]
            page = await store.read(
                state.partition,
                Position(start),
                records_max=RESTORE_PAGE_RECORDS,
                bytes_max=READ_BYTES_MAX,
                payloads=True,
            )
            self.reads += 1
            last = start
            for record in page:
                items = wanted.get(record.position)
                if items is not None:
                    for item, payload in payloads_of(record, items).items():
                        payloads[item - segment.first] = payload
                last = record.position
            while index < len(positions) and positions[index] <= last:
                index += 1
        # While the log was read items may have gone; none came: only full segments and, before
        # the partition opens, its tail are filled.
        size = 0
        for offset, kind in enumerate(segment.states):
            if kind == GONE:
                payloads[offset] = None
            else:
                size += len(payloads[offset] or b"")
        segment.payloads = payloads
        segment.payload_bytes = size
        state.payload_bytes += size
        actor.note_payloads(number, is_here=True)

    def spill(self) -> int:
        """Let payloads leave memory while they take more than the budget; the segments that left."""
        actors = [actor for actor in self._broker.actors.values() if actor.is_open]
        used = sum(actor.state.payload_bytes for actor in actors)
        if used <= self._budget:
            return 0
        left = 0
        for actor in sorted(actors, key=_payload_bytes, reverse=True):
            for segment in _last_in_line(actor):
                used -= segment.payload_bytes
                actor.state.payload_bytes -= segment.payload_bytes
                segment.payload_bytes = 0
                segment.payloads = None
                actor.note_payloads(segment.number, is_here=False)
                left += 1
                if used <= self._budget or left >= _SPILL_SEGMENTS_MAX:
                    self.spilled += left
                    return left
        self.spilled += left
        return left


def _payload_bytes(actor: PartitionActor) -> int:
    return actor.state.payload_bytes


def _origins(segment: Segment) -> dict[int, list[int]]:
    """Record position to the live items whose payloads it has, ascending."""
    by_record: dict[int, list[int]] = {}
    for offset, kind in enumerate(segment.states):
        if kind != GONE:
            by_record.setdefault(segment.origin_of(offset), []).append(segment.first + offset)
    return dict(sorted(by_record.items()))


def _last_in_line(actor: PartitionActor) -> list[Segment]:
    """Segments whose payloads may leave, those that are wanted last first."""
    state = actor.state
    head = state.line.peek()
    first = head[1] >> SEGMENT_BITS if head is not None else 0
    found: list[Segment] = []
    for number in sorted(state.segments, reverse=True):
        segment = state.segments[number]
        if segment.payloads is None or not segment.is_full or first <= number <= first + SEGMENTS_READ_AHEAD:
            continue
        if segment.origin_positions[-1] > actor.tail or RESERVED in segment.states:
            continue
        found.append(segment)
        if len(found) >= _SPILL_SEGMENTS_MAX:
            break
    return found
