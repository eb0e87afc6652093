"""The catalog: which queues there are, and who may do what with them; event-sourced, pure.

It is the fold of ``Document`` values. Whoever owns partition 0 keeps one ``Catalog`` and, for each
command, does this::

    entropy = rng.token_bytes(DECISION_ENTROPY_BYTES)
    outcome = decide(catalog, command, now=now, entropy=entropy, author=user_id)
    if isinstance(outcome, Rejected):
        answer with it
    else:
        for document in outcome.documents:      # perhaps none: then nothing is written
            evolve(catalog, document)
            add events.CatalogChanged(encode(document)) to the record
        answer with outcome.reply (Changed) once the record is committed

All documents of one decision belong into one record. Restoring is ``decode_catalog`` of a snapshot
(``encode_catalog``), then ``evolve(catalog, decode(event.document))`` for what follows. Every start asks for
``Bootstrap(auth=…)``, which decides nothing when all is there.

What partitions decide by: ``policy_of(queue, catalog)``, whose ``version`` grows whenever anything of it
changes (also when the dead queue comes or goes); an owner compares it with the policy in the
partition's own state (``policy_of_partition``) and appends ``PolicyApplied`` where they differ.
``Queue.paused`` is to be reconciled likewise by ``Pause`` and ``Resume``.

Doors ask ``authenticate`` and ``is_allowed`` (access.py), which only read memory. They must be shown
a *committed* catalog.
"""

from querator.core.catalog.access import (
    ANONYMOUS,
    KeyFault,
    Principal,
    authenticate,
    is_allowed,
    is_current,
)
from querator.core.catalog.commands import CatalogCommand, Changed
from querator.core.catalog.decide import DECISION_ENTROPY_BYTES, Decision, decide
from querator.core.catalog.documents import ACCESS_CHANGES, Document, decode, encode
from querator.core.catalog.policies import policy_of, policy_of_partition
from querator.core.catalog.snapshot import decode_catalog, encode_catalog
from querator.core.catalog.state import Catalog, evolve
from querator.core.catalog.values import SYSTEM_NAMESPACE, Queue, QueuePartition

__all__ = [
    "ACCESS_CHANGES",
    "ANONYMOUS",
    "DECISION_ENTROPY_BYTES",
    "SYSTEM_NAMESPACE",
    "Catalog",
    "CatalogCommand",
    "Changed",
    "Decision",
    "Document",
    "KeyFault",
    "Principal",
    "Queue",
    "QueuePartition",
    "authenticate",
    "decide",
    "decode",
    "decode_catalog",
    "encode",
    "encode_catalog",
    "evolve",
    "is_allowed",
    "is_current",
    "policy_of",
    "policy_of_partition",
]
