"""``analytics.ask`` and ``log.prune``: exported history is asked, and what the log may forget is dropped."""

from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from querator.actors.ports import AnalyticsPort, PrunePort
from querator.api import access
from querator.core import limits
from querator.core.catalog import SYSTEM_NAMESPACE
from querator.core.ids import Duration, PartitionId, QueueName
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


class PruneParams(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """``older_than`` in microseconds."""

    older_than: int = 0
    buckets_kept: int = 1


class PruneCalls:
    """The method, over what prunes; ``None``: nothing does."""

    def __init__(self, pruner: PrunePort | None) -> None:
        self._pruner = pruner

    async def prune(self, caller: "Caller", params: PruneParams) -> object:
        if not caller.access.may(caller.principal, SYSTEM_NAMESPACE, access.CLEAR):
            return Rejected(Code.DENIED, "access denied")
        if not 0 <= params.older_than <= limits.INSTANT_MAX:
            return Rejected(Code.INVALID, "not negative, and no longer than time is", "params.older_than")
        if params.buckets_kept < 1:
            return Rejected(
                Code.INVALID, "the bucket that is written stays: at least 1", "params.buckets_kept"
            )
        if self._pruner is None:
            return Rejected(Code.UNAVAILABLE, NOT_KEPT)
        gone = await self._pruner.prune(
            older_than=Duration(params.older_than), buckets_kept=params.buckets_kept
        )
        return gone if isinstance(gone, Rejected) else {"dropped": gone}
