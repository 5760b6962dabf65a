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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from processors import metrics as worker_metrics
from serving.evaluated import Evaluation
from store.attribution import VariantCounts

__all__ = [
    "DEGRADED",
    "EXPLORED",
    "EXPLORED_COST",
    "PUBLISHED",
    "SHED",
    "UNCOUNTED",
    "UNPUBLISHED",
    "UNTOLD",
    "WORKERS",
    "begin_at_zero",
    "collect",
    "exposition",
    "flush",
    "observe",
]

Evaluations = Mapping[str, Mapping[str, Evaluation]]
"""How the rankings predicted, by tenant and window."""
WORKERS = worker_metrics
"""Imported so that the workers' metrics are named, at 0, before the first worker runs."""

DEGRADED = Counter(
    "headwater_degraded_total",
    "Answers made without the store, by why, and from what: lists that are held, or trending.",
    ["tenant", "cause", "source"],
)
EXPLORED = Counter(
    "headwater_explored_total",
    "Places in answers that were given to new items, to try them.",
    ["tenant"],
)
EXPLORED_COST = Counter(
    "headwater_explored_cost_total",
    "What that cost: sum of the chances to be next that the ranking gave the items displaced.",
    ["tenant"],
)
SHED = Counter(
    "headwater_requests_shed_total",
    "Requests that were refused because there were too many; they are in no other metric.",
)
UNCOUNTED = Counter(
    "headwater_rates_uncounted_total",
    "Requests with a rate that were let in uncounted, because Redis did not answer in time.",
)
UNTOLD = Counter(
    "headwater_explored_unpublished_total",
    "Answers with a new item that Kafka did not take, whose exposures are therefore not counted.",
    ["tenant"],
)
PUBLISHED = Counter(
    "headwater_recommendations_published_total",
    "Records of what was shown that Kafka has.",
    ["tenant"],
)
UNPUBLISHED = Counter(
    "headwater_recommendations_unpublished_total",
    "Records of what was shown that Kafka did not take: in no experiment's numbers.",
    ["tenant"],
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
    "headwater_request_seconds",
    "Time to answer a request.",
    ["tenant", "route", "code"],
    buckets=_BOUNDS,
)


class _Tally:
    """Requests of one tenant, route and code since the last flush."""

    def __init__(self, tenant: str, route: str, code: int) -> None:
        self._told = _SECONDS.labels(tenant, route, str(code))
        self._nothing = [0] * (len(_BOUNDS) + 1)
        self.counts = self._nothing.copy()
        self.seconds = 0.0

    def flush(self) -> None:
        if any(self.counts):
            counts, self.counts = self.counts, self._nothing.copy()
            seconds, self.seconds = self.seconds, 0.0
            self._told.add(counts, seconds)


_tallies: dict[tuple[str, str, int], _Tally] = {}


def observe(tenant: str, route: str, code: int, seconds: float) -> None:
    """Count one request."""
    tally = _tallies.get((tenant, route, code))
    if tally is None:
        tally = _tallies[tenant, route, code] = _Tally(tenant, route, code)
    tally.counts[bisect_left(_BOUNDS, seconds)] += 1
    tally.seconds += seconds


def flush() -> None:
    """Tell Prometheus's metric what was observed since the last time."""
    for tally in list(_tallies.values()):
        tally.flush()


def begin_at_zero(tenant: str) -> None:
    """Name what is counted of a tenant, by workers too, before the first of it is."""
    worker_metrics.begin_at_zero(tenant)
    for counter in (EXPLORED, EXPLORED_COST, UNTOLD, PUBLISHED, UNPUBLISHED):
        counter.labels(tenant)


def _registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def collect() -> Iterable[Metric]:
    """All metrics as they stand now, in every process."""
    return _registry().collect()


_OUTCOMES = (
    ("headwater_experiment_answers_total", "answers", "Answers that were shown of a variant."),
    ("headwater_experiment_clicks_total", "clicks", "Clicks that came of a variant's answers."),
    (
        "headwater_experiment_purchases_total",
        "purchases",
        "Purchases that came of a variant's answers.",
    ),
    ("headwater_experiment_users", "users", "Users who were shown a variant."),
    ("headwater_experiment_users_clicked", "clickers", "Those of them who clicked."),
    ("headwater_experiment_users_bought", "buyers", "Those of them who bought."),
)
"""Names, what of the store's counts they are, and texts."""


class _Derived:
    """Adds the derived gauges to whatever the processes counted."""

    def __init__(
        self,
        evaluations: Evaluations,
        outcomes: Mapping[str, Mapping[str, VariantCounts]],
        tenant: str | None,
    ) -> None:
        self._evaluations, self._tenant = evaluations, tenant
        self._outcomes = outcomes

    def collect(self) -> Iterator[Metric]:
        for family in self._all():
            if self._tenant is not None:
                own = [one for one in family.samples if one.labels.get("tenant") == self._tenant]
                if not own:
                    continue
                family.samples = own
            yield family

    def _all(self) -> Iterator[Metric]:
        yield from collect()
        labels = ["tenant", "ranking", "window"]
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
        for tenant, evaluation in self._evaluations.items():
            for window, found in evaluation.items():
                for ranking, shares in found.rankings.items():
                    hit_rate.add_metric([tenant, ranking, window], _number(shares.hit_rate))
                    mrr.add_metric([tenant, ranking, window], _number(shares.mrr))
        yield hit_rate
        yield mrr
        yield from self._of_experiments()

    def _of_experiments(self) -> Iterator[Metric]:
        """What the store has counted: all servers tell the same."""
        for name, what, text in _OUTCOMES:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, text, labels=["experiment", "variant"])
            for experiment, variants in self._outcomes.items():
                for variant, counts in variants.items():
                    family.add_metric([experiment, variant], getattr(counts, what))
            yield family


def _number(share: float | None) -> float:
    return math.nan if share is None else share


def exposition(
    evaluations: Callable[[], Evaluations],
    outcomes: Mapping[str, Mapping[str, VariantCounts]],
    tenant: str | None = None,
) -> bytes:
    """The text that Prometheus scrapes, or what of it is one tenant's; `evaluations` is asked for
    what each window holds, `outcomes` are those of experiments and variants.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Derived(evaluations(), outcomes, tenant))
    return generate_latest(registry)
