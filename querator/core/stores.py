"""The log stores of a server, as a setting names them: ``postgresql://…`` or ``NAME[:AFFINITY]=…``.

Several have white space between them. The first has the catalog; new partitions are shared by affinity.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from querator.core.limits import STORE_AFFINITY_MAX, STORES_MAX

WORDS: Final = ("sqlite", "memory")
SCHEMES: Final = ("postgres://", "postgresql://")
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,63})(?::(\d+))?=(.+)", re.DOTALL)


@attrs.frozen
class StoreSetting:
    """One store. ``log`` may hold a password."""

    name: str
    log: str = attrs.field(repr=False)
    affinity: int = 1
    """Its share of new partitions, relative to the others'; 0: it is to be drained, and gets none."""

    @property
    def is_postgres(self) -> bool:
        return self.log.startswith(SCHEMES)


def parse_stores(text: str) -> tuple[StoreSetting, ...]:
    """Read a setting: stores with white space between them.

    Raises:
        ValueError: it makes no sense; the text says why, without what may be secret.
    """
    found = tuple(_parse(part) for part in text.split()) or (StoreSetting("sqlite", "sqlite"),)
    if len(found) > STORES_MAX:
        raise ValueError(f"{len(found)} stores; at most {STORES_MAX}")
    names = [store.name for store in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two stores are called '{name}'; name them, NAME=URL")
    if not any(store.affinity for store in found):
        raise ValueError("every store has affinity 0, so that a new queue would have no place")
    return found


def choose(stores: Sequence[StoreSetting], name: str | None) -> StoreSetting:
    """The one of that name; ``None``: the first.

    Raises:
        ValueError: there is none.
    """
    for store in stores:
        if name is None or store.name == name:
            return store
    raise ValueError(f"there is no store '{name}'; there are {', '.join(store.name for store in stores)}")


def _parse(part: str) -> StoreSetting:
    named = _NAMED.fullmatch(part)
    if named is None:
        return StoreSetting(_check(part), part)
    name, affinity, log = named.groups()
    _check(log)
    share = 1 if affinity is None else int(affinity)
    if share > STORE_AFFINITY_MAX:
        raise ValueError(f"affinity {share} of store '{name}' is more than {STORE_AFFINITY_MAX}")
    return StoreSetting(name, log, share)


def _check(log: str) -> str:
    """What an unnamed one is called."""
    if log in WORDS:
        return log
    if log.startswith(SCHEMES):
        return "postgres"
    raise ValueError("write sqlite, memory or postgresql://USER@HOST/DATABASE")


def place(partitions: int, affinities: Mapping[str, int], present: Mapping[str, int]) -> tuple[str, ...]:
    """A store for each partition: so that what stores have, of all queues, is as their affinities are.

    ``affinities`` in the order of configuration, at least one of them above 0; 0 takes nothing new.
    ``present``: how many partitions each has already.
    """
    counts = {name: present.get(name, 0) for name, affinity in affinities.items() if affinity > 0}
    chosen: list[str] = []
    for _ in range(partitions):
        # Of equals the first: a dictionary keeps the order, and min the first of what is least.
        store = min(counts, key=lambda name: (counts[name] + 1) / affinities[name])
        counts[store] += 1
        chosen.append(store)
    return tuple(chosen)
