"""The metrics of all processes at one moment, as far as the console shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Metric
from prometheus_client.samples import Sample as MetricSample

from config.settings import DEFAULT_TENANT
from processors.metrics import RANKINGS
from serving.evaluated import Counted

__all__ = ["Buckets", "Sample", "newer", "quantile", "samples_of"]

Buckets = tuple[tuple[float, float], ...]
"""(upper bound in seconds, count up to it), rising."""
_NO_COUNTS: Mapping[str, float] = {}
_NAMES = frozenset(
    (
        "headwater_events_applied",
        "headwater_consumer_lag_records",
        "headwater_event_visible_seconds",
        "headwater_request_seconds",
        "headwater_requests_shed",
        "headwater_degraded",
        "headwater_events_rejected",
        "headwater_predictions",
        "headwater_prediction_hits",
        "headwater_prediction_reciprocal_ranks",
        "headwater_learned_ranking_served",
    )
)
_ANSWERS = ("/v1/recommendations", "/v1/trending", "/v1/items/{item_id}/similar")
"""How routes begin that recommend."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The metrics at one moment."""

    at: float
    """time.monotonic()."""
    applied: float = 0
    lag: float | None = None
    """Records behind the log's end; None where no worker tells."""
    visible: Buckets = ()
    """Events by the time from their broker to their commit."""
    counted: Counted = field(default_factory=Counted)
    served: str = "rule"
    """Which ranking is served; the rule unless a worker tells otherwise."""
    answers: Buckets = ()
    """Requests for recommendations by the time they took."""
    failed: float = 0
    """Of these, those that ended with 5xx."""
    shed: float = 0
    """Requests that were refused because there were too many."""
    degraded: Mapping[str, float] = field(default_factory=lambda: _NO_COUNTS)
    """Answers without the store, by cause."""
    rejected: Mapping[str, float] = field(default_factory=lambda: _NO_COUNTS)
    """Records that went to the dead letters, by reason."""


def samples_of(collected: Iterable[Metric], at: float) -> dict[str, Sample]:
    """What matters here of all metrics, by tenant; what is no tenant's is `default`'s."""
    found: dict[str, list[MetricSample]] = {}
    for metric in collected:
        if metric.name in _NAMES:
            for sample in metric.samples:
                found.setdefault(sample.labels.get("tenant", DEFAULT_TENANT), []).append(sample)
    return {tenant: _sample_of(samples, at) for tenant, samples in found.items()}


def _sample_of(samples: Iterable[MetricSample], at: float) -> Sample:
    applied = predictions = failed = shed = 0.0
    hits, reciprocal = (dict.fromkeys(RANKINGS, 0.0) for _ in range(2))
    lag: float | None = None
    served = "rule"
    visible: dict[float, float] = defaultdict(float)
    answers: dict[float, float] = defaultdict(float)
    degraded: dict[str, float] = defaultdict(float)
    rejected: dict[str, float] = defaultdict(float)
    for sample in samples:
        labels, value = sample.labels, sample.value
        match sample.name:
            case "headwater_events_applied_total":
                applied += value
            case "headwater_consumer_lag_records":
                lag = (lag or 0) + value
            case "headwater_event_visible_seconds_bucket":
                visible[float(labels["le"])] += value
            case "headwater_request_seconds_bucket" if labels["route"].startswith(_ANSWERS):
                answers[float(labels["le"])] += value
            case "headwater_request_seconds_count" if labels["route"].startswith(_ANSWERS):
                failed += value if labels["code"] >= "500" else 0
            case "headwater_requests_shed_total":
                shed += value
            case "headwater_degraded_total":
                degraded[labels["cause"]] += value
            case "headwater_events_rejected_total":
                rejected[labels["reason"]] += value
            case "headwater_predictions_total":
                predictions += value
            case "headwater_prediction_hits_total":
                hits[labels["ranking"]] += value
            case "headwater_prediction_reciprocal_ranks_total":
                reciprocal[labels["ranking"]] += value
            case "headwater_learned_ranking_served":
                served = "learned" if value else "rule"
    return Sample(
        at,
        applied,
        lag,
        tuple(sorted(visible.items())),
        Counted(predictions, tuple(hits.values()), tuple(reciprocal.values())),
        served,
        tuple(sorted(answers.items())),
        failed,
        shed,
        degraded,
        rejected,
    )


def newer(before: Buckets, after: Buckets) -> Buckets:
    """What was counted between two moments."""
    counted = dict(before)
    return tuple((bound, count - counted.get(bound, 0)) for bound, count in after)


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Interpolated quantile of (upper bound, count up to it); None where nothing was counted.

    What lies beyond the last finite bound is told as that bound.
    """
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return None
    wanted = share * total
    lower, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > before:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - before) / (count - before)
        lower, before = (bound if bound != float("inf") else lower), count
    return lower
