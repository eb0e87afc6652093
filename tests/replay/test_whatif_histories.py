"""What if, of histories drawn by a seed: whatever happened, played unchanged it is what was recorded."""

from random import Random
from typing import Final

import attrs
import pytest
from trio.testing import MockClock

from querator.core.ids import SECOND, Instant
from querator.core.policy import Ordering
from querator.replay.whatif.loading import CannotSimulate
from querator.replay.whatif.measures import Measures
from querator.replay.whatif.simulation import Settings, Simulation
from querator.replay.whatif.standing import load_standing, standing
from querator.replay.whatif.verdict import compare
from tests.replay.histories import MORGUE, history, shape_of
from tests.replay.test_whatif import play, traffic_of

SEEDS = (0, 1, 5, 7, 33, 81, 141, 148)
"""Those from 5 on once came out otherwise; see ``test_they_are_of_everything``."""
MANY = range(1_000, 1_200)


LATEST: Final = 25 * SECOND


async def plays_the_same(seed: int, after: int = 0) -> list[Measures]:
    """From the beginning, or from so long after it; those traffics that something happened in."""
    store = await history(seed)
    since = Instant((await traffic_of(store, "q")).began + after) if after else None
    found: list[Measures] = []
    for queue in ("q", str(MORGUE)) if shape_of(seed).has_dead_queue else ("q",):
        try:
            traffic = await traffic_of(store, queue, since=since)
        except CannotSimulate:
            assert since is not None
            continue
        assert compare(traffic.recorded, play(traffic)) == [], (seed, queue, after)
        found.append(traffic.recorded)
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_is_what_was_recorded(autojump_clock: MockClock, seed: int) -> None:
    recorded, *_ = await plays_the_same(seed)
    assert min(recorded.completed, recorded.retried, recorded.released, recorded.ended, recorded.dead) > 0


@pytest.mark.parametrize("seed", SEEDS)
async def test_it_may_begin_amid_everything(autojump_clock: MockClock, seed: int) -> None:
    """Items wait, are worked on, scheduled and dead; nothing is known of how they came to that."""
    for after in Random(seed).sample(range(SECOND, LATEST), 3):
        await plays_the_same(seed, after)


async def test_what_stood_there_is_routed_anew(autojump_clock: MockClock) -> None:
    """As in a queue of other partitions, or of another order: none of it is lost."""
    for seed, after, settings in (
        (7, 9 * SECOND, {"partitions": 4}),
        (33, 12 * SECOND, {"partitions": 5}),
        (
            next(seed for seed in range(100) if shape_of(seed).is_keyed),
            9 * SECOND,
            {"ordering": Ordering.FIFO},
        ),
        (
            next(seed for seed in range(100) if not shape_of(seed).is_keyed),
            9 * SECOND,
            {"ordering": Ordering.KEY},
        ),
    ):
        store = await history(seed)
        whole = await traffic_of(store, "q")
        traffic = await traffic_of(store, "q", since=Instant(whole.began + after))
        recorded = traffic.recorded
        stood = sum(len(list(standing(load_standing(base), first))) for base, first in traffic.bases.values())
        assert stood > 3
        partitions = settings.pop("partitions", 0)
        simulation = Simulation(traffic, Settings(policy=settings, partitions=partitions, consumers=20))
        played = simulation.run()
        assert played.produced == recorded.produced
        assert sum(part.state.produced for part in simulation.partitions) == recorded.produced + stood
        assert played.completed > recorded.completed / 2


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
    await plays_the_same(seed, Random(seed).randrange(SECOND, LATEST))


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
