"""Alarms: one sleeping task for all of them, and a bounded number handled in one turn."""

from querator.actors.alarms import Alarms
from querator.core.ids import Instant
from querator.core.limits import ALARMS_DUE_MAX
from querator.env.virtual import virtual_env


def test_so_many_alarms_are_handled_in_one_turn() -> None:
    """ALARMS_DUE_MAX; one more waits for the next."""
    turns: list[int] = []
    alarms = Alarms(virtual_env(1), lambda keys: turns.append(len(keys)))
    for key in range(ALARMS_DUE_MAX):
        alarms.set(key, 5)
    assert alarms.fire(Instant(5))
    assert turns == [ALARMS_DUE_MAX]
    for key in range(ALARMS_DUE_MAX + 1):
        alarms.set(key, 5)
    while alarms.fire(Instant(5)):
        pass
    assert turns == [ALARMS_DUE_MAX, ALARMS_DUE_MAX, 1]
