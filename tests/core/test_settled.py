"""The memory of settled reservations, at its bounds."""

import pytest

from querator.core import settled as module
from querator.core.limits import SETTLED_RESERVATIONS_MAX
from querator.core.settled import MIXED, SettledMemory


def test_it_remembers_verb_and_count() -> None:
    memory = SettledMemory()
    memory.remember(5, 1, 1_000)
    memory.remember(6, 3, 1)
    assert memory.look(5) == (1, 1_000)
    assert memory.look(6) == (3, 1)
    assert memory.look(7) == (0, 0)
    assert memory.look(5_000_000) == (0, 0)


def test_different_verbs_keep_a_byte_an_item() -> None:
    memory = SettledMemory()
    memory.remember_mixed(5, bytearray((1, 2, 1)))
    assert memory.look(5) == (MIXED, 3)
    assert memory.marks_of(5) == bytes((1, 2, 1))
    assert memory.marks_of(6) == b""


def test_parts_by_the_same_verb_are_not_mixed() -> None:
    memory = SettledMemory()
    memory.remember_mixed(5, bytearray((2, 2, 2)))
    assert memory.look(5) == (2, 3)
    assert not memory.mixed


def test_it_forgets_the_oldest_past_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks; what was mixed goes with its block."""
    monkeypatch.setattr(module, "_BLOCKS_MAX", 2)
    memory = SettledMemory()
    memory.remember_mixed(1, bytearray((1, 2)))
    memory.remember(4_096, 1, 1)
    assert memory.look(1) == (MIXED, 2)
    memory.remember(2 * 4_096, 1, 1)
    assert memory.look(1) == (0, 0)
    assert not memory.mixed
    assert memory.look(4_096) == (1, 1)
    assert len(memory.blocks) == 2


def test_the_bound_is_the_named_limit() -> None:
    assert module._BLOCKS_MAX * 4_096 == SETTLED_RESERVATIONS_MAX
    memory = SettledMemory()
    for block in range(module._BLOCKS_MAX + 1):
        memory.remember(block * 4_096, 1, 1)
    assert memory.look(0) == (0, 0)
    assert memory.look(4_096) == (1, 1)
    assert len(memory.blocks) * 4_096 == SETTLED_RESERVATIONS_MAX
