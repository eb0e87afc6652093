"""Questions of a live server in a process of low priority: what they cost, the queue does not feel.

``python -m querator.analytics.questions`` is such a process. It is started by the first question and asked
one at a time; when it ends, the next question starts another.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import msgspec
import trio

from querator.actors.ports import Answer
from querator.analytics.frames import Bodies, Frames, PeerGone
from querator.analytics.live import LiveAnalytics
from querator.core import limits
from querator.core.ids import Duration
from querator.core.replies import Code, Rejected
from querator.env import Env, seconds

MODULE: Final = "querator.analytics.questions"
_BODIES: Final[Bodies] = {
    "open": msgspec.msgpack.Decoder(str),
    "ask": msgspec.msgpack.Decoder(tuple[str, dict[str, Any]]),
    "answer": msgspec.msgpack.Decoder(Answer),
    "rejected": msgspec.msgpack.Decoder(Rejected),
}


@attrs.define(eq=False)
class _Asked:
    question: str
    params: dict[str, object]
    answer: Answer | Rejected | None = None
    is_over: trio.Event = attrs.field(factory=trio.Event)

    def end(self, answer: Answer | Rejected) -> None:
        self.answer = answer
        self.is_over.set()


class RemoteQuestions:
    """Implements AnalyticsPort by another process; ``run`` is the task that keeps it."""

    def __init__(self, env: Env, directory: Path) -> None:
        self._env = env
        self._directory = directory
        self._waiting: deque[_Asked] = deque()
        self._asking = 0
        self._lot = trio.lowlevel.ParkingLot()

    def close(self) -> None:
        """See AnalyticsPort: the process ends with ``run``."""

    async def ask(self, question: str, params: Mapping[str, object]) -> Answer | Rejected:
        """See AnalyticsPort."""
        if self._asking >= limits.LIVE_QUESTIONS_MAX + limits.LIVE_QUESTIONS_WAITING_MAX:
            return Rejected(Code.OVERLOADED, "too many questions are waiting")
        timeout = Duration(limits.LIVE_QUESTION_TIMEOUT + limits.LIVE_START_TIMEOUT)
        asked = _Asked(question, dict(params))
        self._waiting.append(asked)
        self._asking += 1
        self._lot.unpark()
        try:
            with trio.move_on_after(seconds(timeout)):
                await asked.is_over.wait()
        finally:
            self._asking -= 1
            if asked in self._waiting:
                self._waiting.remove(asked)
        if asked.answer is not None:
            return asked.answer
        return Rejected(Code.LIMIT_EXCEEDED, f"no answer within {seconds(timeout):g} s: ask for less")

    async def run(self) -> NoReturn:
        """Have questions answered, for ever."""
        while True:
            await self._some()
            async with self._env.processes.run(MODULE, is_modest=True) as stream:
                frames = Frames(stream, _BODIES)
                try:
                    await frames.send("open", str(self._directory.resolve()))
                    while True:
                        await self._some()
                        await self._pass_on(frames, self._waiting.popleft())
                except PeerGone:
                    # Whoever asked has been told; the next question starts another one.
                    continue

    async def _some(self) -> None:
        """Wait until there is a question."""
        while not self._waiting:
            await self._lot.park()

    async def _pass_on(self, frames: Frames, asked: _Asked) -> None:
        try:
            _, answer = await frames.ask("ask", (asked.question, asked.params))
        except PeerGone:
            asked.end(Rejected(Code.UNAVAILABLE, "the process that answers ended: ask again"))
            raise
        asked.end(answer)


async def serve(env: Env, stream: trio.abc.Stream) -> None:
    """Answer the process at the other end, until it is gone."""
    frames = Frames(stream, _BODIES)
    try:
        _, directory = await frames.receive()
        live = LiveAnalytics(env, Path(directory))
        while True:
            _, (question, params) = await frames.receive()
            answer = await live.ask(question, params)
            await frames.send("rejected" if isinstance(answer, Rejected) else "answer", answer)
    except PeerGone:
        return


async def main() -> None:
    """What a child process does."""
    from querator.env.real import real_env, standard_stream  # noqa: PLC0415 - only a child needs it

    await serve(real_env(), standard_stream())


if __name__ == "__main__":
    trio.run(main)
