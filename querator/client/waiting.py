"""Where the protocol half meets trio: a task waits for an answer, a task waits for work."""

from typing import TypeVar

import trio

from querator.client.answers import Answer

T = TypeVar("T")


async def wait_answer(answer: Answer[T]) -> T:
    """The answer, or its error raised. Cancelling leaves the request under way, its outcome unheard."""
    if answer.done:
        await trio.lowlevel.checkpoint()
        return answer.result()
    task = trio.lowlevel.current_task()

    def wake() -> None:
        trio.lowlevel.reschedule(task)

    def give_up(_: object) -> trio.lowlevel.Abort:
        answer.when_done = None
        return trio.lowlevel.Abort.SUCCEEDED

    answer.when_done = wake
    await trio.lowlevel.wait_task_rescheduled(give_up)
    return answer.result()


class Bell:
    """Wakes the one task that waits. Rung while nobody waits, it does nothing: look first, then wait."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def ring(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    async def wait_rung(self) -> None:
        if self._task is not None:
            raise trio.BusyResourceError("another task is waiting here already")
        self._task = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
