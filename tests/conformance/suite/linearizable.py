"""Whether a history of calls could have happened one at a time: the search of Wing, Gong and Lowe.

And the model of a queue that it is asked about: a list of items in line and a set of leased ones.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

import attrs

State = TypeVar("State", bound=Hashable)
Input = TypeVar("Input")

STEPS_MAX = 2_000_000


@attrs.frozen
class Operation(Generic[Input]):
    """One call: when it was sent, when its answer was there, and what it did."""

    began: float
    ended: float
    did: Input


class TooHard(Exception):
    """The search gave up: neither yes nor no."""


def is_linearizable(
    operations: Sequence[Operation[Input]], start: State, step: Callable[[State, Input], Iterable[State]]
) -> bool:
    """Whether some order of the operations that respects their times is allowed by ``step``.

    ``step`` gives the states after an input, none where it could not have happened.

    Raises:
        TooHard: more than STEPS_MAX states were looked at.
    """
    order = sorted(range(len(operations)), key=lambda index: operations[index].began)
    everything = (1 << len(operations)) - 1
    seen: set[tuple[int, State]] = set()
    stack = [(0, start)]
    steps = 0
    while stack:
        done, state = stack.pop()
        if done == everything:
            return True
        steps += 1
        if steps > STEPS_MAX:
            raise TooHard
        for index in _possible(operations, order, done):
            for after in step(state, operations[index].did):
                key = (done | 1 << index, after)
                if key not in seen:
                    seen.add(key)
                    stack.append(key)
    return False


def _possible(operations: Sequence[Operation[Input]], order: Sequence[int], done: int) -> list[int]:
    """Those that may be next: nobody else's answer was there before they were sent."""
    horizon = float("inf")
    candidates = []
    for index in order:
        if done >> index & 1:
            continue
        operation = operations[index]
        if operation.began > horizon:
            break
        candidates.append(index)
        horizon = min(horizon, operation.ended)
    return candidates


# --- the queue ----------------------------------------------------------------------------------------


@attrs.frozen
class Queue:
    """Items by what they carry, which is unique."""

    line: tuple[str, ...] = ()
    leased: frozenset[str] = frozenset()


@attrs.frozen
class Call:
    """``kind``: produce, lease, complete, retry, or expire, which no client calls."""

    kind: str
    item: str


def queue_step(queue: Queue, call: Call) -> Iterable[Queue]:
    item = call.item
    if call.kind == "produce":
        return (Queue((*queue.line, item), queue.leased),)
    if call.kind == "lease":
        is_head = bool(queue.line) and queue.line[0] == item
        return (Queue(queue.line[1:], queue.leased | {item}),) if is_head else ()
    if item not in queue.leased:
        return ()
    line = queue.line if call.kind == "complete" else (*queue.line, item)
    return (Queue(line, queue.leased - {item}),)
