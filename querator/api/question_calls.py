"""``analytics.ask``: canned questions about the exported history, asked in a session."""

from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from querator.actors.ports import AnalyticsPort
from querator.api import access
from querator.core.ids import PartitionId, QueueName
from querator.core.replies import Code, Rejected

if TYPE_CHECKING:
    from querator.api.calls import Caller

NOT_KEPT: Final = "this server keeps no history to ask"


class AskParams(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Moments and durations in microseconds. Which of them a question takes: docs/analytics.md."""

    question: str
    queue: str | None = None
    partition: int | None = None
    item: int | None = None
    width: int | None = None
    since: int | None = None
    until: int | None = None
    waiting_target: int | None = None
    processing_target: int | None = None


class QuestionCalls:
    """The method, over what answers questions; ``None``: nothing does."""

    def __init__(self, analytics: AnalyticsPort | None) -> None:
        self._analytics = analytics

    async def ask(self, caller: "Caller", params: AskParams) -> object:
        if params.partition is None:
            refusal = caller.refusal(access.STATS, QueueName(params.queue or ""))
        elif caller.access.is_allowed_in(caller.principal, access.STATS, PartitionId(params.partition)):
            refusal = None
        else:
            refusal = Rejected(Code.DENIED, "access denied", "params.partition")
        if refusal is not None:
            return refusal
        if self._analytics is None:
            return Rejected(Code.UNAVAILABLE, NOT_KEPT)
        given = {
            name: value
            for name in params.__struct_fields__
            if name != "question" and (value := getattr(params, name)) is not None
        }
        answer = await self._analytics.ask(params.question, given)
        if isinstance(answer, Rejected):
            return attrs.evolve(answer, field=answer.field and f"params.{answer.field}")
        return answer
