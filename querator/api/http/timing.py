"""How long calls take: the summary that the contract's ``/metrics`` has, by path."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

RECENT_MAX: Final = 1_024
"""Durations of one path that its quantiles are taken from: the latest."""
QUANTILES: Final = (0.5, 0.99)


class _Durations:
    """Of one path, in microseconds."""

    __slots__ = ("count", "recent", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.recent: list[int] = []

    def add(self, duration: int) -> None:
        if self.count < RECENT_MAX:
            self.recent.append(duration)
        else:
            self.recent[self.count % RECENT_MAX] = duration
        self.count += 1
        self.total += duration

    def quantiles(self) -> list[tuple[float, int]]:
        ordered = sorted(self.recent)
        return [(quantile, ordered[int(quantile * (len(ordered) - 1))]) for quantile in QUANTILES]


class Timings:
    """Written by the handler after each call; ``families`` is a source of the metrics page."""

    def __init__(self) -> None:
        self._of_path: dict[str, _Durations] = {}
        self._scrapes = 0

    def add(self, path: str, duration: int) -> None:
        """A call of one of the API's paths took this many microseconds."""
        durations = self._of_path.get(path)
        if durations is None:
            durations = self._of_path[path] = _Durations()
        durations.add(duration)

    def families(self) -> Iterable[Metric]:
        """In seconds, with what a Go server says of its own metrics page."""
        name = "http_handler_duration"
        summary = Metric(name, "Duration of calls in seconds", "summary")
        for path, durations in self._of_path.items():
            for quantile, value in durations.quantiles():
                summary.add_sample(name, {"path": path, "quantile": str(quantile)}, value / 1_000_000)
            summary.add_sample(f"{name}_sum", {"path": path}, durations.total / 1_000_000)
            summary.add_sample(f"{name}_count", {"path": path}, durations.count)
        yield summary
        in_flight = GaugeMetricFamily("promhttp_metric_handler_requests_in_flight", "Scrapes being served")
        in_flight.add_metric([], 1)
        yield in_flight
        scrapes = CounterMetricFamily("promhttp_metric_handler_requests", "Scrapes served", labels=["code"])
        scrapes.add_metric(["200"], self._scrapes)
        self._scrapes += 1
        yield scrapes
