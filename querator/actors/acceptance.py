"""Accepting a suspected loss while no server has the log; a running one has ``Supervisor.accept_loss``.

Only so can the catalog's loss be accepted: a server that can't claim it does not start.
"""

from querator.actors.catalog import CatalogReader
from querator.actors.claim import Reader, StateReader, claim, suspicion
from querator.core.ids import CATALOG_PARTITION, PartitionId
from querator.env import Env
from querator.log.store import LogStore


class NothingSuspected(Exception):
    """There is no loss to accept."""


async def accept_loss(store: LogStore, env: Env, partition: PartitionId, *, author: str) -> Reader:
    """Claim the partition as it is, in the name of ``author``; how far its log goes now.

    Raises:
        NothingSuspected: the log has all that it should; nothing was written.
        LogError: as ``claim``.
    """
    if not await suspicion(store, _reader(partition)):
        raise NothingSuspected(f"no loss is suspected in partition {partition}")
    return await claim(store, env, partition, node=author, reader=_reader(partition), accepted_by=author)


def _reader(partition: PartitionId) -> Reader:
    return CatalogReader(partition) if partition == CATALOG_PARTITION else StateReader(partition)
