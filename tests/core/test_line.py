"""The line: ready items in order of place."""

import random

import pytest

from querator.core.invariants import InvariantViolation
from querator.core.limits import SEGMENT_ITEMS
from querator.core.line import Line


def test_fresh_items_coalesce() -> None:
    """What waits side by side in one segment is one run, however many batches brought it."""
    line = Line()
    for number in range(1, 101):
        line.append(number, number, 1)
    assert list(line.runs()) == [(1, 1, 100)]


def test_a_run_ends_with_its_segment() -> None:
    line = Line()
    edge = SEGMENT_ITEMS
    line.append(edge - 2, edge - 2, 2)
    line.append(edge, edge, 3)
    assert list(line.runs()) == [(edge - 2, edge - 2, 2), (edge, edge, 3)]


def test_items_that_came_back_stand_at_the_tail_as_runs_of_their_own() -> None:
    line = Line()
    line.append(1, 1, 5)
    line.append(6, 2, 1)
    assert list(line.runs()) == [(1, 1, 5), (6, 2, 1)]


def test_take_gives_one_contiguous_run_from_the_head() -> None:
    line = Line()
    line.append(1, 1, 5)
    line.append(10, 30, 2)
    assert line.take(3) == (1, 1, 3)
    assert line.take(9) == (4, 4, 2)
    assert line.take(9) == (10, 30, 2)
    assert line.count == 0
    assert line.peek() is None


def test_remove_splits_a_run() -> None:
    line = Line()
    line.append(1, 1, 9)
    line.remove(4, 2)
    assert list(line.runs()) == [(1, 1, 3), (6, 6, 4)]
    assert line.find(4) is None
    assert line.find(6) == 6
    assert line.count == 7


def test_removing_what_does_not_stand_in_line_is_a_bug_and_says_so() -> None:
    line = Line()
    line.append(1, 1, 3)
    with pytest.raises(InvariantViolation):
        line.remove(9, 1)
    with pytest.raises(InvariantViolation):
        line.remove(2, 5)


def test_runs_can_begin_at_a_place() -> None:
    line = Line()
    line.append(1, 1, 3)
    line.append(10, 50, 3)
    assert list(line.runs(11)) == [(10, 50, 3)]
    assert list(line.runs(2)) == [(1, 1, 3), (10, 50, 3)]
    assert list(line.runs(5)) == [(1, 1, 3), (10, 50, 3)]


def test_the_taken_part_of_a_long_line_is_trimmed() -> None:
    """What was taken off the head does not stay in memory."""
    line = Line()
    for number in range(1, 10_001):
        line.append(number * 2, number * 2, 1)
    for number in range(1, 9_001):
        assert line.take(1) == (number * 2, number * 2, 1)
    assert len(line._runs) < 3_000
    assert [run[0] for run in line.runs()] == [number * 2 for number in range(9_001, 10_001)]
    assert line.find(18_002) == 18_002
    line.remove(18_002, 1)
    assert line.take(1) == (18_004, 18_004, 1)


def test_the_canonical_line_does_not_tell_how_it_came_about() -> None:
    whole, pieces = Line(), Line()
    whole.append(1, 1, 10)
    pieces.append(1, 1, 10)
    pieces.remove(5, 1)
    pieces.take(4)
    pieces.append(20, 5, 1)
    for _ in range(1):
        whole.take(4)
        whole.remove(5, 1)
        whole.append(20, 5, 1)
    assert whole.canonical() == pieces.canonical() == [(6, 6, 5), (20, 5, 1)]


def test_it_is_an_ordered_list_of_items_whatever_happens() -> None:
    """Against a plain list, at random."""
    dice = random.Random(1)
    line, plain, place, item = Line(), [], 1, 1
    for _ in range(3_000):
        choice = dice.random()
        if choice < 0.5:
            count = min(dice.randint(1, 40), SEGMENT_ITEMS - item % SEGMENT_ITEMS)
            place += dice.choice([0, 0, 3])
            line.append(place, item, count)
            plain += [(place + offset, item + offset) for offset in range(count)]
            place, item = place + count, item + count
        elif choice < 0.75 and plain:
            first, number, count = line.take(dice.randint(1, 30))
            assert plain[:count] == [(first + offset, number + offset) for offset in range(count)]
            del plain[:count]
        elif plain:
            victim = dice.choice(plain)
            assert line.find(victim[0]) == victim[1]
            line.remove(victim[0], 1)
            plain.remove(victim)
        assert line.count == len(plain)
    assert [(p + o, i + o) for p, i, count in line.runs() for o in range(count)] == plain
    assert sum(count for _, _, count in line.clear()) == len(plain)
    assert line.count == 0
