"""One HTTP request as the engine sees it: asks once, is answered once."""

from typing import TypeAlias

import trio

from querator.actors.ports import BrokerPort, Delivery, QueueStats, ReservationLost, TraceStep
from querator.core.ids import SessionId
from querator.core.replies import Reply

Answer: TypeAlias = "Reply | QueueStats"


class PendingRequest:
    """Implements Requester. Made by a call, given to the broker within a turn, then awaited.

    A request that is cancelled (the client hung up, the server stops) closes: what is still parked for
    it is dropped, and what reaches it later is released undelivered.
    """

    __slots__ = ("_answers", "_expected", "_waiting", "generation", "is_open", "session")

    def __init__(self, expected: int = 1) -> None:
        self.session = SessionId("")
        self.generation = 0
        self.is_open = True
        self._expected = expected
        self._answers: dict[int, Answer] = {}
        self._waiting: trio.lowlevel.Task | None = None

    def deliver(self, deliveries: list[Delivery]) -> None:
        """See Requester."""
        for request, answer in deliveries:
            if not isinstance(answer, ReservationLost | TraceStep):
                self._answers[request] = answer
        task = self._waiting
        if task is not None and len(self._answers) >= self._expected:
            self._waiting = None
            trio.lowlevel.reschedule(task)

    async def answers(self, broker: BrokerPort) -> list[Answer]:
        """The answers, by the number of their request."""
        if len(self._answers) < self._expected:
            self._waiting = trio.lowlevel.current_task()
            try:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            except trio.Cancelled:
                broker.session_closed(self)
                raise
        return [self._answers[request] for request in sorted(self._answers)]

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiting = None
        self.is_open = False
        return trio.lowlevel.Abort.SUCCEEDED
