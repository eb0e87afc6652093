"""What if, of histories drawn by a seed: whatever happened, played unchanged it is what was recorded."""

import attrs
import pytest
from trio.testing import MockClock

from querator.replay.whatif.measures import Measures
from querator.replay.whatif.verdict import compare
from tests.replay.histories import MORGUE, history, shape_of
from tests.replay.test_whatif import play, traffic_of

SEEDS = (0, 1, 5, 7, 33, 81, 141, 148)
"""Those from 5 on once came out otherwise; see ``test_they_are_of_everything``."""
MANY = range(1_000, 1_200)


async def plays_the_same(seed: int) -> list[Measures]:
    store = await history(seed)
    found: list[Measures] = []
    for queue in ("q", str(MORGUE)) if shape_of(seed).has_dead_queue else ("q",):
        traffic = await traffic_of(store, queue)
        assert compare(traffic.recorded, play(traffic)) == [], (seed, queue)
        found.append(traffic.recorded)
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_is_what_was_recorded(autojump_clock: MockClock, seed: int) -> None:
    recorded, *_ = await plays_the_same(seed)
    assert min(recorded.completed, recorded.retried, recorded.released, recorded.ended, recorded.dead) > 0


def test_they_are_of_everything() -> None:
    shapes = [shape_of(seed) for seed in SEEDS]
    for name in ("has_dead_queue", "expires", "is_keyed"):
        assert {getattr(shape, name) for shape in shapes} == {True, False}
    assert {shape.partitions for shape in shapes} >= {1, 2, 3}


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", MANY)
async def test_many_more(autojump_clock: MockClock, seed: int) -> None:
    await plays_the_same(seed)


async def test_fewer_attempts_send_more_to_the_dead_queue(autojump_clock: MockClock) -> None:
    seed = next(seed for seed in range(100) if shape_of(seed).has_dead_queue and shape_of(seed).batch == 1)
    traffic = await traffic_of(await history(seed), "q")
    recorded = traffic.recorded
    fewer = play(traffic, policy={"attempts_max": 1})
    assert fewer.moved == fewer.dead > recorded.dead == recorded.moved
    assert fewer.retried == 0 < recorded.retried
    assert fewer.produced == recorded.produced
    more = play(traffic, policy={"attempts_max": 0})
    assert more.dead < recorded.dead


async def test_changed_it_draws_on_and_keeps_count(autojump_clock: MockClock) -> None:
    """Orders name items that are elsewhere then, or were never there."""
    traffic = await traffic_of(await history(7), "q")
    for settings in (
        {"partitions": 4},
        {"consumers": 2, "speed": 0.5},
        {"policy": {"attempts_max": 1}, "seed": 3},
    ):
        played = play(traffic, **settings)
        assert played.produced == traffic.recorded.produced
        assert attrs.asdict(played) == attrs.asdict(play(traffic, **settings))
        assert played.completed > 0
