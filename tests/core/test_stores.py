"""Several log stores: how they are named, and where partitions of new queues go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.core.limits import STORE_AFFINITY_MAX, STORES_MAX
from querator.core.stores import StoreSetting, choose, parse_stores, place

PG = "postgresql://app@db/q?application_name=a"


def test_one_store_needs_no_name() -> None:
    assert parse_stores("") == parse_stores("sqlite") == (StoreSetting("sqlite", "sqlite"),)
    assert parse_stores("memory") == (StoreSetting("memory", "memory"),)
    assert parse_stores(PG) == (StoreSetting("postgres", PG),)
    assert parse_stores("postgres://")[0].is_postgres


def test_several_have_names_and_affinities() -> None:
    text = f"main={PG}\n  old:0={PG}&x=y big-one:10=sqlite"
    assert parse_stores(text) == (
        StoreSetting("main", PG, 1),
        StoreSetting("old", f"{PG}&x=y", 0),
        StoreSetting("big-one", "sqlite", 10),
    )
    assert choose(parse_stores(text), None).name == "main"
    assert choose(parse_stores(text), "old").affinity == 0
    with pytest.raises(ValueError, match="no store 'new'; there are main, old, big-one"):
        choose(parse_stores(text), "new")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mysql://u:hidden@h/d", "write sqlite"),
        ("a=mysql://u:hidden@h/d", "write sqlite"),
        ("a=sqlite a=memory", "two stores are called 'a'"),
        (f"{PG} {PG}", "two stores are called 'postgres'"),
        ("a:0=sqlite", "affinity 0"),
        (f"a:{STORE_AFFINITY_MAX + 1}=sqlite", "is more than"),
        (" ".join(f"s{number}=sqlite" for number in range(STORES_MAX + 1)), "at most"),
        ("a:x=sqlite", "write sqlite"),
        ("1a=sqlite", "write sqlite"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_secret(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_stores(text)
    assert "hidden" not in str(caught.value)


def test_the_bounds_are_allowed() -> None:
    assert parse_stores(f"a:{STORE_AFFINITY_MAX}=sqlite")[0].affinity == STORE_AFFINITY_MAX
    assert len(parse_stores(" ".join(f"s{number}=sqlite" for number in range(STORES_MAX)))) == STORES_MAX


def test_a_password_is_not_shown() -> None:
    assert "hidden" not in repr(parse_stores("a=postgresql://u:hidden@h/d"))


def test_partitions_are_shared_by_affinity_and_what_is_there_counts() -> None:
    assert place(4, {"a": 1, "b": 1}, {}) == ("a", "b", "a", "b")
    assert place(4, {"a": 3, "b": 1}, {}) == ("a", "a", "a", "b")
    assert place(2, {"a": 1, "b": 1}, {"a": 5}) == ("b", "b")
    assert place(3, {"a": 0, "b": 1}, {"a": 5}) == ("b", "b", "b")


@given(
    st.integers(0, 200),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20), min_size=1).filter(
        lambda affinities: any(affinities.values())
    ),
)
def test_every_store_has_its_share_to_within_one_and_a_drained_one_has_none(
    partitions: int, affinities: dict[str, int]
) -> None:
    chosen = place(partitions, affinities, {})
    assert len(chosen) == partitions
    total = sum(affinities.values())
    for name, affinity in affinities.items():
        if affinity == 0:
            assert name not in chosen
        # Of Jefferson's method: nobody gets less than its share, rounded down.
        assert chosen.count(name) >= partitions * affinity // total
