"""``GET /metrics``: the doors' counters, and whatever other parts of the node add, as Prometheus text.

Nothing is counted twice: families are made from plain numbers at the moment they are asked for, a piece at a
time: a page of thousands of queues holds up nobody.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from querator.api.counters import Counters
from querator.api.exchange import HttpResponse
from querator.api.registry import SessionRegistry

Source: TypeAlias = Callable[[], Iterable[Metric]]
"""Makes families of metrics from what it knows; called at each scrape, must not wait. A long family may come
in pieces, one after the other; others run between any two."""


class MetricsPage:
    """All sources of one node, as one page."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._one = trio.Lock()

    def add(self, source: Source) -> None:
        """Show this source's families too; their names must be its own."""
        self._sources.append(source)

    async def response(self) -> HttpResponse:
        """One page at a time is made."""
        async with self._one:
            pieces: list[bytes] = []
            last = ""
            for source in self._sources:
                for family in source():
                    text = generate_latest(_Piece(family))
                    pieces.append(_without_heading(text) if family.name == last else text)
                    last = family.name
                    await trio.lowlevel.checkpoint()
        return HttpResponse(200, [("Content-Type", CONTENT_TYPE_LATEST)], b"".join(pieces))


class _Piece(CollectorRegistry):
    """What ``generate_latest`` asks for its families."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _without_heading(text: bytes) -> bytes:
    while text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text


def door_metrics(registry: SessionRegistry) -> Source:
    """The source of what the doors count."""

    def families() -> Iterable[Metric]:
        for name, value in attrs.asdict(registry.counters).items():
            help_text = f"{name.replace('_', ' ')} of this server"
            if name.endswith("_now"):
                gauge = GaugeMetricFamily(f"querator_api_{name.removesuffix('_now')}", help_text)
                gauge.add_metric([], value)
                yield gauge
            else:
                counter = CounterMetricFamily(f"querator_api_{_counter_name(name)}", help_text)
                counter.add_metric([], value)
                yield counter
        waiting = GaugeMetricFamily("querator_api_outbox_bytes", "bytes that wait for slow readers")
        waiting.add_metric([], sum(session.outbox.bytes_waiting for session in registry.sessions))
        yield waiting

    return families


_SHADOWED = frozenset(
    field.name.removesuffix("_now") for field in attrs.fields(Counters) if field.name.endswith("_now")
)


def _counter_name(name: str) -> str:
    # A gauge and a counter may not share a name: what both counts has the counter say "opened".
    return f"{name}_opened" if name in _SHADOWED else name
