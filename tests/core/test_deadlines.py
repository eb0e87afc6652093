"""Deadlines: many moments of which most are withdrawn before they come."""

import random

from querator.core.deadlines import Deadlines

HOUR = 3_600_000_000


def test_due_ids_come_in_order_of_moment_and_then_of_id() -> None:
    deadlines = Deadlines()
    for key, at in ((3, 50), (1, 50), (2, 10), (4, 99_000)):
        deadlines.add(key, at)
    assert deadlines.due(49, 10) == [2]
    assert deadlines.due(50, 10) == [2, 1, 3]
    assert deadlines.due(50, 2) == [2, 1]
    assert deadlines.due(9, 10) == []


def test_what_is_due_stays_until_it_is_discarded() -> None:
    """What is due ends by an event, and the event withdraws it."""
    deadlines = Deadlines()
    deadlines.add(1, 5)
    assert deadlines.due(9, 10) == deadlines.due(9, 10) == [1]
    deadlines.discard(1)
    assert deadlines.due(9, 10) == []
    deadlines.discard(1)
    assert len(deadlines) == 0


def test_a_new_moment_replaces_the_old_one() -> None:
    deadlines = Deadlines()
    deadlines.add(1, 5)
    deadlines.add(1, HOUR)
    assert deadlines.due(HOUR - 1, 10) == []
    assert deadlines.get(1) == HOUR
    deadlines.add(1, 7)
    assert deadlines.next_at() == 7
    assert len(deadlines) == 1


def test_next_at_is_exact_for_few_and_at_most_16_ms_late_for_many() -> None:
    deadlines = Deadlines()
    assert deadlines.next_at() is None
    deadlines.add(1, 123_456)
    assert deadlines.next_at() == 123_456
    for key in range(2, 200):
        deadlines.add(key, 123_456 + key)
    at = deadlines.next_at()
    assert at is not None
    assert 123_456 <= at <= 123_456 + (1 << 14)


def test_withdrawn_moments_leave_next_to_nothing_behind() -> None:
    """60,000 reservations a second, each settled long before its deadline an hour from now."""
    deadlines = Deadlines()
    for number in range(1, 200_001):
        deadlines.add(number, HOUR + number * 16)
        deadlines.discard(number)
    assert len(deadlines) == 0
    assert len(deadlines._order) <= 200_000 * 16 // (1 << 14) + 2
    assert sum(map(len, deadlines._buckets.values())) == 0
    assert deadlines.next_at() is None
    assert not deadlines._order


def test_it_is_a_sorted_list_whatever_happens() -> None:
    """Against a plain dictionary, at random, with time passing."""
    dice = random.Random(2)
    deadlines, plain, now = Deadlines(), {}, 0
    for _ in range(5_000):
        key = dice.randint(1, 300)
        if dice.random() < 0.6:
            at = now + dice.choice([0, 1, 5_000, 16_384, 100_000, dice.randint(1, 10_000_000)])
            deadlines.add(key, at)
            plain[key] = at
        else:
            deadlines.discard(key)
            plain.pop(key, None)
        if dice.random() < 0.1:
            now += dice.choice([1, 16_384, 50_000])
            expected = sorted((at, key) for key, at in plain.items() if at <= now)
            assert deadlines.due(now, 1_000) == [key for _, key in expected]
            for _, key in expected:
                deadlines.discard(key)
                del plain[key]
        first = min(plain.values(), default=None)
        soonest = deadlines.next_at()
        assert (soonest is None) == (first is None)
        assert soonest is None or first is None or first <= soonest <= first + (1 << 14)
