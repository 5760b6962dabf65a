"""What the server measures for Prometheus, and the text of /metrics.

With PROMETHEUS_MULTIPROC_DIR set, the numbers of all processes that share it, workers included, are
added up. Hit rates and reciprocal ranks by window are derived here from the workers' counters.

Requests are counted in this process first (`observe`) and told to Prometheus's metric by `flush`:
writing each of them to the file that the processes share takes longer than counting it.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from processors import metrics as worker_metrics
from serving.evaluated import Evaluation

__all__ = [
    "DEGRADED",
    "EXPLORED",
    "EXPLORED_COST",
    "UNTOLD",
    "WORKERS",
    "collect",
    "exposition",
    "flush",
    "observe",
]

WORKERS = worker_metrics
"""Imported so that the workers' metrics are named, at 0, before the first worker runs."""

DEGRADED = Counter(
    "headwater_degraded_total",
    "Answers made without the store, by why, and from what: lists that are held, or trending.",
    ["cause", "source"],
)
EXPLORED = Counter(
    "headwater_explored_total", "Places in answers that were given to new items, to try them."
)
EXPLORED_COST = Counter(
    "headwater_explored_cost_total",
    "What that cost: sum of the chances to be next that the ranking gave the items displaced.",
)
UNTOLD = Counter(
    "headwater_explored_unpublished_total",
    "Answers with a new item that Kafka did not take, whose exposures are therefore not counted.",
)
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class _Requests(Histogram):
    """Takes many observations at once."""

    def add(self, counts: list[int], seconds: float) -> None:
        """So many more in each bucket, the one past the last bound included, and their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(seconds)


_SECONDS = _Requests(
    "headwater_request_seconds", "Time to answer a request.", ["route", "code"], buckets=_BOUNDS
)


class _Tally:
    """Requests of one route and code since the last flush."""

    def __init__(self, route: str, code: int) -> None:
        self._told = _SECONDS.labels(route, str(code))
        self._nothing = [0] * (len(_BOUNDS) + 1)
        self.counts = self._nothing.copy()
        self.seconds = 0.0

    def flush(self) -> None:
        if any(self.counts):
            counts, self.counts = self.counts, self._nothing.copy()
            seconds, self.seconds = self.seconds, 0.0
            self._told.add(counts, seconds)


_tallies: dict[tuple[str, int], _Tally] = {}


def observe(route: str, code: int, seconds: float) -> None:
    """Count one request."""
    tally = _tallies.get((route, code))
    if tally is None:
        tally = _tallies[route, code] = _Tally(route, code)
    tally.counts[bisect_left(_BOUNDS, seconds)] += 1
    tally.seconds += seconds


def flush() -> None:
    """Tell Prometheus's metric what was observed since the last time."""
    for tally in list(_tallies.values()):
        tally.flush()


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def collect() -> Iterable[Metric]:
    """All metrics as they stand now, in every process."""
    return _registry().collect()


class _Derived:
    """Adds the derived gauges to whatever the processes counted."""

    def __init__(self, evaluation: Mapping[str, Evaluation]) -> None:
        self._evaluation = evaluation

    def collect(self) -> Iterator[Metric]:
        yield from collect()
        labels = ["ranking", "window"]
        hit_rate = GaugeMetricFamily(
            "headwater_hit_rate",
            "Share of the window's predictions whose item was among the first 20.",
            labels=labels,
        )
        mrr = GaugeMetricFamily(
            "headwater_mrr",
            "Mean over the window's predictions of 1 / rank of the item, 0 past rank 20.",
            labels=labels,
        )
        for window, found in self._evaluation.items():
            for ranking, shares in found.rankings.items():
                hit_rate.add_metric([ranking, window], _number(shares.hit_rate))
                mrr.add_metric([ranking, window], _number(shares.mrr))
        yield hit_rate
        yield mrr


def _number(share: float | None) -> float:
    return math.nan if share is None else share


def exposition(evaluation: Callable[[], Mapping[str, Evaluation]]) -> bytes:
    """The text that Prometheus scrapes; `evaluation` is asked for what each window holds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Derived(evaluation()))
    return generate_latest(registry)
