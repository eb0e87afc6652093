"""The log is whole: it chains, every event fits, items are conserved, snapshots agree."""

from querator.actors.verification import verify_partition
from querator.env.virtual import virtual_env
from querator.log.memory import MemoryDisk, MemoryLog


async def check_log(disk: MemoryDisk) -> list[str]:
    """Faults of any partition's log."""
    store = MemoryLog(virtual_env(0), disk)
    faults: list[str] = []
    for partition in await store.partitions():
        if partition:
            found = await verify_partition(store, partition)
            if not found.is_good:
                faults.append(f"partition {partition}, record {found.fault_position}: {found.fault}")
    return faults
