"""S10, S11: the log folds again to the states that its owners had, and to what every snapshot says of it.

The production verification walks the chain and believes nothing; a snapshot that is not the fold at its
position is a fault there. On top of it the whole log is folded in one go, from its first record, without
any snapshot, and compared with the states that were seen in its owners' memories; and decided again.
"""

from collections.abc import Sequence

from querator.actors.verification import verify_partition
from querator.core.evolve import fold
from querator.core.ids import PartitionId, Position
from querator.core.invariants import InvariantViolation
from querator.core.state import PartitionState
from querator.core.state_hash import state_hash
from querator.log.codec import decode_events
from querator.log.store import LogStore
from querator.replay.fold import PartitionReplay
from simulations.checkers.evidence import Sighting


async def check_replay(store: LogStore, archive: LogStore, sightings: Sequence[Sighting]) -> list[str]:
    """``archive`` is the log from its beginning; ``store`` has what is kept of it, and snapshots."""
    faults: list[str] = []
    for partition in await store.partitions():
        if not partition:
            continue
        found = await verify_partition(store, partition)
        if not found.is_good:
            promise = "S10" if "snapshot" in found.fault else "S7"
            faults.append(f"{promise}: partition {partition}, record {found.fault_position}: {found.fault}")
        seen: dict[int, list[Sighting]] = {}
        for sighting in sightings:
            if sighting.partition == partition:
                seen.setdefault(sighting.position, []).append(sighting)
        faults += await _fold(archive, partition, seen)
        faults += await _decide(archive, partition)
    return faults


async def _decide(store: LogStore, partition: PartitionId) -> list[str]:
    """Every record must be what the production core decides from what it says of its inputs."""
    replay = PartitionReplay(partition, redecides=True)
    position = 1
    while page := await store.read(
        partition, Position(position), records_max=500, bytes_max=1 << 30, payloads=True
    ):
        for record in page:
            replay.take(record)
        position = page[-1].position + 1
    replay.finish()
    divergence = replay.divergence
    if divergence is None:
        return []
    return [f"S11: partition {partition} is not decided again as it was: {divergence.fault}"]


async def _fold(store: LogStore, partition: PartitionId, seen: dict[int, list[Sighting]]) -> list[str]:
    state = PartitionState(partition)
    faults: list[str] = []
    try:
        while page := await store.read(
            partition, Position(state.position + 1), records_max=500, bytes_max=1 << 30, payloads=False
        ):
            for record in page:
                fold(state, record.position, decode_events(record.events))
                faults += [
                    f"S11: the owner's state of {partition} at {record.position} is not what its log folds to"
                    for sighting in seen.get(record.position, [])
                    if sighting.tail_hash == record.hash and sighting.state_hash != state_hash(state)
                ]
    except (InvariantViolation, KeyError, IndexError) as error:
        faults.append(f"S11: partition {partition} does not fold: {error!r}")
    return faults
