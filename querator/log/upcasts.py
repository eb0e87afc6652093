"""Old records in new words: what is done to the columns of a record that an earlier version wrote.

A step leads from one version to the next and changes the tables in place: a kind of event that got a
column fills it with what its absence meant. A record is decoded with the columns of its own version
(log/kinds.py), then passes through every step from there on. Nothing is ever rewritten on disk.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from querator.errors import CorruptRecord
from querator.log.kinds import VERSION

Tables: TypeAlias = dict[int, dict[str, Sequence[Any]]]
"""Kind number to column name to values."""

Step: TypeAlias = Callable[[Tables], None]

STEPS: Final[Mapping[int, Step]] = {}
"""From the version that is the key to the one after it. Empty as long as there is one version."""


def upcast(
    version: int, tables: Tables, *, steps: Mapping[int, Step] = STEPS, current: int = VERSION
) -> None:
    """Bring tables of ``version`` to the current version.

    Raises:
        CorruptRecord: there is no way from there.
    """
    while version != current:
        step = steps.get(version)
        if step is None:
            raise CorruptRecord(f"this version cannot read records of version {version}")
        step(tables)
        version += 1
