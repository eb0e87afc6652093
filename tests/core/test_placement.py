"""Keys: fixed slots, mapped to the partitions in order."""

from querator.core.limits import KEY_SLOTS, PARTITIONS_PER_QUEUE_MAX
from querator.core.placement import index_of, slot_of

KEYS = [f"key-{number}" for number in range(20 * KEY_SLOTS)]


def test_every_slot_has_keys_and_no_key_is_outside() -> None:
    assert sorted(dict.fromkeys(map(slot_of, KEYS))) == list(range(KEY_SLOTS))


def test_a_queue_with_as_many_partitions_as_slots_uses_them_all() -> None:
    """And one more would have one without any keys."""
    assert PARTITIONS_PER_QUEUE_MAX == KEY_SLOTS
    assert len(dict.fromkeys(index_of(key, KEY_SLOTS) for key in KEYS)) == KEY_SLOTS
    assert len(dict.fromkeys(index_of(key, KEY_SLOTS + 1) for key in KEYS)) == KEY_SLOTS


def test_a_key_keeps_its_slot_for_ever() -> None:
    assert [slot_of(key) for key in ("ada", "bob", "", "ключ")] == [872, 320, 0, 538]
