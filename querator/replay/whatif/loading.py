"""The traffic of one queue, out of a capture."""

from collections.abc import Callable, Iterable, Sequence

import attrs

from querator.core import events as ev
from querator.core.ids import Instant
from querator.errors import QueratorError
from querator.log.codec import PayloadBlock, decode_columns, decode_events
from querator.log.inputs import decode_inputs
from querator.log.records import Record
from querator.replay.capture import Captured, CapturedRecord, CaptureHead, Checkpoint
from querator.replay.whatif.traffic import Traffic, TrafficReader


class CannotSimulate(QueratorError):
    """There is nothing in the capture that could be done again; the text says why."""

    exit_code = 65


@attrs.define
class Recording:
    """One queue's records as a capture has them, without what the payloads are."""

    queue: str = ""
    partitions: Sequence[int] = ()
    bases: list[Checkpoint] = attrs.Factory(list)
    """What stood in its partitions before."""
    records: list[tuple[Record, Sequence[int] | None]] = attrs.Factory(list)
    """And how long its payloads are, where that is in the capture."""
    began: Instant = Instant(0)
    ended: Instant = Instant(0)
    items: int = 0


def load(
    things: Iterable[Captured], queue: str | None, progress: Callable[[int], None] | None = None
) -> Recording:
    """What a capture has of ``queue`` (``None``: its only one). ``progress`` is told of the items so far.

    Raises:
        CannotSimulate: there is no such queue, or there are several, or nothing happened there.
        CaptureUnreadable: from the capture.
    """
    recording = Recording()
    for thing in things:
        match thing:
            case CaptureHead(_, queues):
                recording.queue, recording.partitions = _choose(queues, queue)
            case Checkpoint() if thing.is_base and thing.partition in recording.partitions:
                recording.bases.append(thing)
            case CapturedRecord(record, sizes) if record.partition in recording.partitions:
                if sizes is None and record.payload is not None:
                    sizes = PayloadBlock(record.payload).sizes()
                record.payload = None
                recording.records.append((record, sizes))
                if record.item_max:
                    recording.items += record.item_max - record.item_min + 1
                    if progress is not None:
                        progress(recording.items)
    if not recording.records:
        raise CannotSimulate(f"nothing of queue '{recording.queue}' is in this capture")
    firsts: dict[int, Instant] = {}
    for record, _ in recording.records:
        if record.partition not in firsts:
            turns = decode_columns(record.events).of(ev.TurnStarted).get("at", ())
            firsts[record.partition] = Instant(turns[0] if turns else record.written_at)
    recording.began = min(firsts.values())
    recording.ended = Instant(max(record.written_at for record, _ in recording.records))
    return recording


def _choose(queues: dict[str, list[int]], queue: str | None) -> tuple[str, Sequence[int]]:
    if queue is None:
        if len(queues) != 1:
            raise CannotSimulate(
                f"the capture has the queues {', '.join(sorted(queues)) or '(none)'}: name one with --queue"
            )
        (queue,) = queues
    if queue not in queues:
        raise CannotSimulate(
            f"there is no queue '{queue}' in the capture; there are {', '.join(sorted(queues)) or 'none'}"
        )
    return queue, queues[queue]


def read_traffic(recording: Recording, progress: Callable[[int], None] | None = None) -> Traffic:
    """Fold the recording, and note what came from outside. ``progress`` is told of the items so far.

    Raises:
        SnapshotUnreadable: what stood there before cannot be read.
        CorruptRecord, InvariantViolation: the log is not sound; ``querator replay`` says where.
    """
    reader = TrafficReader(recording.partitions, recording.began, recording.ended)
    for base in recording.bases:
        reader.begin(base)
    for record, sizes in recording.records:
        reader.take(
            record.partition,
            decode_events(record.events),
            sizes,
            decode_inputs(record.inputs),
            record.position,
        )
        if progress is not None:
            progress(reader.traffic.items)
    return reader.finish()
