"""A saga: three steps that all happen, or are undone in reverse order.

    python examples/saga.py [HOST:PORT]

Each step is an item. The handler of a step does its work and then produces the next one, with a dedupe
key made of saga and step: should it crash between the two and be tried again, the next step is still
there once. A step that fails for good sends the saga backwards.
"""

import sys

import attrs
import msgspec
import trio

import querator
from querator.client import Client, Item, Rejected

QUEUE = "trips"
STEPS = ("book flight", "book hotel", "book car")


class SoldOut(Exception):
    """No use in trying again: undo what was done."""


@attrs.frozen
class Step:
    """One step of one saga, forwards or backwards."""

    saga: str
    index: int
    is_undo: bool = False

    @property
    def dedupe_key(self) -> str:
        return f"{self.saga}:{self.index}:{'undo' if self.is_undo else 'do'}"


async def start(q: Client, step: Step) -> None:
    """Produce a step. Twice is once. All steps of a saga have its key, so none runs beside another."""
    await q.produce(QUEUE, msgspec.json.encode(step), key=step.saga, dedupe_key=step.dedupe_key)


def perform(step: Step) -> None:
    if step.saga.startswith("trip to the moon") and STEPS[step.index] == "book hotel" and not step.is_undo:
        raise SoldOut


async def advance(q: Client, step: Step) -> bool:
    """Do a step and start the one after it; True when the saga is over."""
    print(f"{step.saga}: {'undo ' if step.is_undo else ''}{STEPS[step.index]}")
    try:
        perform(step)
    except SoldOut:
        print(f"{step.saga}: {STEPS[step.index]} is impossible, going back")
        step = Step(step.saga, step.index, is_undo=True)
    following = Step(step.saga, step.index - 1 if step.is_undo else step.index + 1, step.is_undo)
    if 0 <= following.index < len(STEPS):
        await start(q, following)
        return False
    print(f"{step.saga}: {'undone' if step.is_undo else 'done'}")
    return True


async def run_item(q: Client, item: Item) -> int:
    """Sagas that this ended: 0 or 1."""
    ended = 0
    async with item:
        ended += await advance(q, msgspec.json.decode(item.payload, type=Step))
    return ended


async def main(address: str) -> None:
    async with querator.connect(address, client="saga") as q:
        try:
            await q.call("queues.create", {"name": QUEUE, "ordering": "key"})
        except Rejected as error:
            if error.code != "queue_exists":
                raise
        # The session's id makes the names new, so that the example can be run again.
        trips = [f"trip to {place} ({q.session[:6]})" for place in ("Rome", "the moon")]
        for trip in trips:
            await start(q, Step(trip, 0))
        left = len(trips)
        async with q.consume(QUEUE, batch=1) as items:
            async for item in items:
                left -= await run_item(q, item)
                if not left:
                    break


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "localhost:2319")
