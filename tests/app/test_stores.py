"""Stores as a setting names them, put together with what is kept beside them."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from querator.actors.node import NodeOptions, open_node, open_stores
from querator.app import affinities_of, check_catalog, late_of, make_stores
from querator.env.virtual import virtual_env
from querator.errors import ConfigError
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.store import LogStore
from querator.log.witness import WitnessedLog

DATA = Path("/data")
PG = "postgresql://app@db/q"


def test_every_store_but_the_first_may_come_late() -> None:
    stores = make_stores(f"a={PG} b=sqlite c=memory", DATA, virtual_env(1))
    assert list(stores) == ["a", "b", "c"]
    assert [store.name for store in stores.values()] == ["a", "b", "c"]
    assert [late_of(store) is not None for store in stores.values()] == [False, True, True]
    assert [isinstance(store, WitnessedLog) for store in stores.values()] == [True, True, False]


def test_a_store_without_a_name_is_where_everything_goes() -> None:
    assert affinities_of("sqlite") == {}
    assert affinities_of(f"{PG}?a=b") == {}
    assert affinities_of(f"only={PG}") == {"only": 1}
    assert affinities_of(f"a:0={PG} b:2={PG}") == {"a": 0, "b": 2}


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mysql://u:\*\*\*@h' is no log store"):
        make_stores("mysql://u:hidden@h", DATA, virtual_env(1))


async def test_the_store_with_the_catalog_is_named_first(autojump_clock: MockClock) -> None:
    """Else all queues would seem to be gone."""
    env = virtual_env(1)
    disks = {"a": MemoryDisk(), "b": MemoryDisk()}

    def stores(*names: str) -> dict[str, LogStore]:
        return {name: MemoryLog(env, disks[name], name=name) for name in names}

    async with open_stores(stores("a", "b")):
        await check_catalog(stores("a", "b"))
    async with open_node(stores("a", "b"), env, NodeOptions()):
        pass
    await check_catalog(stores("a", "b"))
    with pytest.raises(ConfigError, match="catalog is in store 'a': name that one first"):
        await check_catalog(stores("b", "a"))
