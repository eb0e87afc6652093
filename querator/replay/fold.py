"""Replay: records decided and folded again by the production core, and believed only as far as they agree.

Of each record: that it stands behind the one before, its hash and checksums, that what is decided again
(redecide.py) encodes to the very bytes that were recorded, that each event fits the state it meets, that
items are reserved in order of place and conserved. At each checkpoint: that the fold is what the snapshot
holds. The first thing that is otherwise is the divergence; the partition is not folded beyond it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from querator.actors.refold import MISFITS, evolve_in_turn, misfit, recorded_events
from querator.core import events as ev
from querator.core.ids import CATALOG_PARTITION, Instant, PartitionId, Position
from querator.core.invariants import InvariantViolation, check
from querator.core.snapshot import SnapshotUnreadable, encode_head
from querator.core.state import PartitionState
from querator.core.state_checks import check_state, check_state_fully
from querator.core.state_hash import state_hash
from querator.errors import CorruptRecord
from querator.log.codec import (
    GENESIS,
    PayloadBlock,
    check_chain,
    check_record,
    decode_events,
    encode_events,
    name_of,
    tail_of,
)
from querator.log.inputs import decode_inputs
from querator.log.kinds import VERSION
from querator.log.records import Record, Tail
from querator.log.show import describe
from querator.log.small import decode_small
from querator.replay.capture import Captured, CapturedRecord, CaptureHead, Checkpoint
from querator.replay.redecide import Decided, Differs, Redecider

COUNTS: Final = (
    "produced",
    "ready",
    "reserved",
    "scheduled",
    "dead",
    "completed",
    "removed",
    "retried",
    "ended",
)


def counts_of(state: PartitionState) -> dict[str, int]:
    """Items by state, and what happened to them so far."""
    return {name: len(state.dead) if name == "dead" else getattr(state, name) for name in COUNTS}


@attrs.frozen
class Divergence:
    """The first place where the replay is not what was recorded."""

    partition: PartitionId
    position: Position
    fault: str
    """What is wrong, naming the record."""
    event: str = ""
    """The event in words, where it is one."""
    index: int = -1
    """Where something else was decided: which event of the record, from 0."""
    field: str = ""
    """Which field of it; "" for all of it."""
    expected: str = ""
    """What was recorded there."""
    got: str = ""
    """What the replay decides."""


class PartitionReplay:
    """One partition's fold. ``on_event`` is told of each event once it is folded in.

    ``redecides``: events are decided again, as far as they are decisions, before they are folded.
    """

    def __init__(
        self,
        partition: PartitionId,
        on_event: Callable[[Record, ev.Event], None] | None = None,
        *,
        redecides: bool = False,
    ) -> None:
        self.state = PartitionState(partition)
        self.tail: Tail | None = None
        self.divergence: Divergence | None = None
        self.first = Position(0)
        """The first record that was folded; 0: none was."""
        self.records = 0
        self.events = 0
        self.checkpoints = 0
        """Compared, and equal."""
        self._on_event = on_event
        self._event: ev.Event | None = None
        self._redecider = Redecider() if redecides and partition != CATALOG_PARTITION else None

    @property
    def decided(self) -> Decided:
        """How much was decided again."""
        return Decided() if self._redecider is None else self._redecider.decided

    @property
    def partition(self) -> PartitionId:
        return self.state.partition

    def begin(self, base: Checkpoint) -> None:
        """Begin behind this checkpoint instead of at the first record."""
        try:
            check(self.tail is None, "a replay begins once")
            self.state = base.state()
            check_state(self.state)
            if self._redecider is not None:
                self._redecider.begin(self.state)
        except (SnapshotUnreadable, InvariantViolation) as error:
            self._diverge(base.position, f"the state that the replay should begin with is no good: {error}")
        self.tail = Tail(base.position, base.hash, base.nonce)

    def take(self, record: Record, sizes: Sequence[int] | None = None) -> None:
        """One more record; nothing happens behind a divergence.

        ``sizes``: of its payloads, where they were not read with it; with neither, no decision that
        depends on how large they are is made again.
        """
        if self.divergence is not None:
            return
        self._event = None
        try:
            self._check(record)
            small = decode_small(record.events)
            events = decode_events(record.events) if small is None else small
            replayed = self._decide(record, events, sizes)
            # What is decided equals what was recorded. Events of a small record have but those bytes.
            if small is None and record.version == VERSION and encode_events(replayed) != record.events:
                raise CorruptRecord(f"{name_of(record)}: its events encode to other bytes than were recorded")
            self._event = None
            check_state(self.state)
        except Differs as differs:
            self._event = differs.recorded
            self._diverge(record.position, f"{name_of(record)}: {differs}", differs)
        except CorruptRecord as error:
            self._diverge(record.position, str(error))
        except InvariantViolation as error:
            self._diverge(record.position, f"{name_of(record)}: {error}")
        else:
            self.tail = tail_of(record)
            self.first = self.first or record.position
            self.records += 1
            self.events += len(events)

    def take_until(self, record: Record, at: Instant) -> bool:
        """Fold what of the record happened up to ``at``; whether that was all of it.

        Raises:
            CorruptRecord, InvariantViolation: it is not what it should be.
        """
        self._check(record)
        if not self._fold(record, decode_events(record.events), at):
            return False
        self.tail = tail_of(record)
        return True

    def compare(self, checkpoint: Checkpoint) -> None:
        """The fold must be what was snapshotted here."""
        if self.divergence is not None:
            return
        self._event = None
        where = f"the snapshot behind record {checkpoint.position} of partition {checkpoint.partition}"
        try:
            if self.tail is None or (self.tail.position, self.tail.hash) != (
                checkpoint.position,
                checkpoint.hash,
            ):
                raise CorruptRecord(f"{where} is chained to another record")
            there = checkpoint.state()
            if state_hash(there) != state_hash(self.state):
                raise CorruptRecord(f"{where} is not what the log folds to: {_difference(there, self.state)}")
        except (CorruptRecord, SnapshotUnreadable) as error:
            self._diverge(checkpoint.position, str(error))
        else:
            self.checkpoints += 1

    def finish(self) -> None:
        """Behind the last record: everything derived equals what it is derived from."""
        if self.divergence is None:
            self._event = None
            try:
                check_state_fully(self.state)
            except InvariantViolation as error:
                self._diverge(Position(self.state.position), f"behind the last record: {error}")

    def _check(self, record: Record) -> None:
        if self.tail is None and record.position > 1 and self.partition == CATALOG_PARTITION:
            # Its fold is not of items: only its chain is checked, from wherever it begins.
            self.tail = Tail(Position(record.position - 1), record.previous_hash, 0)
        check_chain(record, self.tail)
        check_record(record)
        if self.tail is None and record.previous_hash != GENESIS:
            raise CorruptRecord(f"{name_of(record)} has no state to begin with")

    def _decide(
        self, record: Record, events: Sequence[ev.Event], sizes: Sequence[int] | None
    ) -> Sequence[ev.Event]:
        """Fold the record's events; what they are when they are decided again."""
        redecider = self._redecider
        if redecider is None:
            self._fold(record, events, None)
            return events
        state = self.state
        state.position = record.position
        if sizes is None and record.payload is not None:
            sizes = PayloadBlock(record.payload).sizes()
        on_event = self._on_event
        told = None if on_event is None else partial(on_event, record)
        try:
            return redecider.fold(state, events, decode_inputs(record.inputs), sizes, told)
        except (*MISFITS, InvariantViolation) as error:
            done = len(redecider.replayed)
            self._event = events[done] if done < len(events) else None
            if isinstance(error, InvariantViolation):
                raise
            raise misfit(error) from error

    def _fold(self, record: Record, events: Sequence[ev.Event], until: Instant | None) -> bool:
        state = self.state
        before = state.position
        state.position = record.position
        first_new = state.next_item
        on_event = self._on_event
        with recorded_events():
            for event in events:
                if type(event) is ev.TurnStarted and until is not None and event.at > until:
                    if event is events[0]:
                        state.position = before
                    return False
                self._event = event
                evolve_in_turn(state, event, first_new)
                if on_event is not None:
                    on_event(record, event)
        return True

    def _diverge(self, position: Position, fault: str, differs: Differs | None = None) -> None:
        event = "" if self._event is None else describe(self._event)
        self.divergence = Divergence(self.partition, position, fault, event)
        if differs is not None:
            self.divergence = attrs.evolve(
                self.divergence,
                index=differs.index,
                field=differs.field,
                expected=str(differs.expected),
                got=str(differs.got),
            )


class Replay:
    """Partitions' folds, fed with what comes out of a capture or of ``history.walk``."""

    def __init__(
        self, on_event: Callable[[Record, ev.Event], None] | None = None, *, redecides: bool = True
    ) -> None:
        self._redecides = redecides
        self.partitions: dict[PartitionId, PartitionReplay] = {}
        self.head: CaptureHead | None = None
        self.items = 0
        """Produced so far, for progress."""
        self._on_event = on_event

    @property
    def divergence(self) -> Divergence | None:
        """The first one of the first partition that has one."""
        for found in self.partitions.values():
            if found.divergence is not None:
                return found.divergence
        return None

    def take(self, thing: Captured) -> None:
        # Not by match: there are as many of these as records.
        if type(thing) is CapturedRecord:
            record = thing.record
            self._of(record.partition).take(record, thing.sizes)
            if record.item_max:
                self.items += record.item_max - record.item_min + 1
        elif isinstance(thing, Checkpoint):
            found = self._of(thing.partition)
            if thing.is_base:
                found.begin(thing)
            else:
                found.compare(thing)
        elif isinstance(thing, CaptureHead):
            self.head = thing

    def finish(self) -> None:
        for found in self.partitions.values():
            found.finish()

    def _of(self, partition: PartitionId) -> PartitionReplay:
        found = self.partitions.get(partition)
        if found is None:
            found = self.partitions[partition] = PartitionReplay(
                partition, self._on_event, redecides=self._redecides
            )
        return found


def _difference(recorded: PartitionState, folded: PartitionState) -> str:
    """Where two states differ, as far as their counters say."""
    mine, theirs = counts_of(folded), counts_of(recorded)
    parts = [
        f"{name} {theirs[name]} in the snapshot, {mine[name]} in the fold"
        for name in COUNTS
        if mine[name] != theirs[name]
    ]
    if parts:
        return "; ".join(parts)
    is_head = encode_head(recorded) != encode_head(folded) or recorded.known_keys() != folded.known_keys()
    return "the counters agree, the rest does not" + ("" if is_head else " (items of a segment)")
