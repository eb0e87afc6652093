"""One number for all that a partition's state is, to compare states that came about in different ways."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from querator.core.lanes import Lane
from querator.core.line import Run
from querator.core.packing import raw
from querator.core.policy import encode_policy
from querator.core.segments import GONE, SCHEDULED, Segment
from querator.core.settled import SettledMemory
from querator.core.snapshot import COUNTERS
from querator.core.state import PartitionState

HASH_BYTES: Final = 32

_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")


def state_hash(state: PartitionState) -> bytes:
    """32 bytes that are equal when two states are: however they came about, and wherever their payloads are.

    The position is not part of it: an owner's state stands between two records.
    """
    digest = blake2b(digest_size=HASH_BYTES)
    for part in _canonical_head(state):
        digest.update(_CANONICAL.encode(part))
    for number in sorted(state.segments):
        digest.update(_CANONICAL.encode(_canonical_segment(state.segments[number])))
    return digest.digest()


def _canonical_head(state: PartitionState) -> Iterable[object]:
    yield [state.partition, state.nonce, state.incarnation, state.bucket, state.now, state.paused]
    yield [state.server_identity, state.claimed_at]
    yield encode_policy(state.policy)
    yield [state.next_item, state.next_place, state.next_reservation, state.part_first]
    yield [getattr(state, name) for name in COUNTERS]
    yield state.line.canonical()
    yield [
        [
            r.number,
            r.nonce,
            r.session,
            r.generation,
            _merge(r.runs),
            r.reserved_at,
            r.deadline,
            r.run_until,
            bytes(r.marks or bytes(r.count)),
        ]
        for _, r in sorted(state.reservations.items())
    ]
    yield _canonical_schedule(state)
    yield sorted(_canonical_lane(key, lane) for key, lane in state.lanes.items())
    yield sorted(state.attempts.items())
    yield sorted(state.moved.items())
    yield [(item, (reason, at)) for item, (reason, at, _) in state.dead.items()]
    yield sorted(
        (target, channel.first_move, list(channel.items)) for target, channel in state.outbound.items()
    )
    yield sorted(state.homeward)
    yield sorted(state.inbound.items())
    yield [
        [name, producer.last_at, producer.forgotten, sorted(producer.results.items())]
        for name, producer in state.producers.items()
    ]
    yield list(state.dedupe_order)
    yield sorted(state.known_keys().items())
    yield sorted(state.sources.items())
    yield _canonical_settled(state.settled)


def _canonical_lane(key: str, lane: Lane) -> list[object]:
    # Ranks mean something while one of the items that have them is held.
    ranks = sorted((lane.ranks or {}).items()) if lane.held else []
    return [key, lane.head, lane.held, ranks, lane.front, list(lane.waiting)]


def _canonical_settled(settled: SettledMemory) -> object:
    blocks = sorted((number, bytes(verbs), raw(counts)) for number, (verbs, counts) in settled.blocks.items())
    mixed = [entry for marks in settled.mixed.values() for entry in marks.items()]
    return [blocks, sorted(mixed)]


def _merge(runs: Sequence[Run]) -> list[Run]:
    merged: list[Run] = []
    for place, item, count in runs:
        if merged:
            last_place, last_item, length = merged[-1]
            if last_place + length == place and last_item + length == item:
                merged[-1] = (last_place, last_item, length + count)
                continue
        merged.append((place, item, count))
    return merged


def _canonical_schedule(state: PartitionState) -> list[tuple[int, list[Run]]]:
    """What is scheduled, by due time; entries whose items have left don't count."""
    by_due: dict[int, list[Run]] = {}
    for due, place, item, count in sorted(state.schedule):
        for offset in range(count):
            number = item + offset
            if state.state_of(number) == SCHEDULED and state.place_of(number) == place + offset:
                by_due.setdefault(due, []).append((place + offset, number, 1))
    return [(due, _merge(runs)) for due, runs in by_due.items()]


def _canonical_segment(segment: Segment) -> list[object]:
    expires = segment.expires
    return [
        segment.number,
        bytes(segment.states),
        raw(segment.produced),
        None if expires is None or not any(expires) else raw(expires),
        {
            name: column
            for name, column in (segment.columns or {}).items()
            if column.count(None) < len(column)
        },
        list(zip(segment.shift_offsets, segment.shifts, strict=True)),
        list(zip(segment.origin_offsets, segment.origin_positions, strict=True)),
        sorted((segment.carried or {}).items()),
        _canonical_homes(segment),
    ]


def _canonical_homes(segment: Segment) -> list[tuple[int, int, int]]:
    """(home, first offset, count) of live items: an older snapshot knows of no others."""
    found: list[tuple[int, int, int]] = []
    for home, start, end in segment.stretches():
        for offset in range(start, end):
            if segment.states[offset] == GONE:
                continue
            if found and found[-1][0] == home and sum(found[-1][1:]) == offset:
                found[-1] = (home, found[-1][1], found[-1][2] + 1)
            else:
                found.append((home, offset, 1))
    return found
