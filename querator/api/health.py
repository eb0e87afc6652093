"""``GET /health``: the health document of the HTTP contract."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from querator.api.exchange import HttpResponse
from querator.core.ids import SECOND, Instant

Probe: TypeAlias = Callable[[], Awaitable[str]]
"""Looks whether the log can be read; "" if so, else what is wrong, for the document."""


def health_response(fault: str, now: Instant, version: str, notes: Sequence[str] = ()) -> HttpResponse:
    """200 when all is well, 503 when not. ``notes``: what an operator should know in either case."""
    check: dict[str, object] = {
        "componentType": "datastore",
        "status": "fail" if fault else "pass",
        "time": datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    document: dict[str, object] = {"status": check["status"], "version": version}
    if fault:
        # The contract's word for whatever it is; the notes say more.
        check["output"] = "storage check failed"
        document["notes"] = [fault, *notes]
    elif notes:
        document["notes"] = list(notes)
    document["checks"] = {"queues:storage": [check]}
    return HttpResponse(
        503 if fault else 200, [("Content-Type", "application/health+json")], msgspec.json.encode(document)
    )
