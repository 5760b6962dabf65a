"""What a worker counts for Prometheus. Shared between processes by prometheus-client's files.

What is of one tenant's data says whose, by the label `tenant`: there are as many values of it as
there are tenants, and `default`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from config.settings import DEFAULT_TENANT
from processors.learning import Prediction
from processors.standing import SHOWN
from processors.watchdog import PartitionState

__all__ = [
    "APPLIED",
    "ATTRIBUTED",
    "CONFLICTS",
    "CUT",
    "DUPLICATES",
    "EVALUATED",
    "FORGOTTEN",
    "HITS",
    "LAG",
    "LEADS",
    "LEARNED_FROM",
    "LESSONS_LOST",
    "LOG_GAP",
    "NEW_ITEMS",
    "RANKINGS",
    "RECIPROCAL",
    "REJECTED",
    "SHOWN_APPLIED",
    "STARTS",
    "TOPICS_REMADE",
    "VISIBLE",
    "begin_at_zero",
    "count_lesson",
    "show_lag",
]

STARTS = Counter(
    "headwater_starts_total",
    "Processes that began, those included that took the place of one that had ended.",
    ["process"],
)
for _process in ("worker", "server"):  # at 0 before the first
    STARTS.labels(_process)
_TENANT = ["tenant"]
APPLIED = Counter("headwater_events_applied_total", "Events counted and committed.", _TENANT)
DUPLICATES = Counter(
    "headwater_events_duplicate_total", "Events whose event_id was counted before.", _TENANT
)
REJECTED = Counter(
    "headwater_events_rejected_total",
    "Events that went to the dead letters.",
    [*_TENANT, "reason"],
)
FORGOTTEN = Counter(
    "headwater_tombstones_applied_total",
    "Records that had a user forgotten, committed.",
    _TENANT,
)
VISIBLE = Histogram(
    "headwater_event_visible_seconds",
    "Broker time of an event to its commit, sampled within each batch.",
    _TENANT,
    buckets=(0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
LAG = Gauge(
    "headwater_consumer_lag_records",
    "Records between what the store contains and the log's end.",
    [*_TENANT, "topic", "partition"],
    multiprocess_mode="livemostrecent",
)
_lag_shown: set[tuple[str, str, str]] = set()


def show_lag(partitions: Iterable[PartitionState], tenant_of: Callable[[str], str]) -> None:
    """Tell the lag of the partitions that this worker has, and nothing more of those it had: their
    new owner does. `tenant_of` says whose a topic is.
    """
    has = {(tenant_of(one.topic), one.topic, str(one.partition)): one.lag for one in partitions}
    for owned, lag in has.items():
        LAG.labels(*owned).set(lag)
    # In a folder that processes share, whoever told last is believed, and nothing can be removed.
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        for gone in _lag_shown - has.keys():
            LAG.remove(*gone)
    _lag_shown.clear()
    _lag_shown.update(has)


CONFLICTS = Counter(
    "headwater_commits_refused_total", "Commits refused because another worker was first.", _TENANT
)
LOG_GAP = Counter(
    "headwater_log_gap_records_total",
    "Records that the log had lost before they were read.",
    _TENANT,
)
TOPICS_REMADE = Counter(
    "headwater_topics_remade_total",
    "Shards' topics that were found deleted and made again, and begun anew.",
    [*_TENANT, "topic"],
)
SHOWN_APPLIED = Counter(
    "headwater_recommendations_applied_total",
    "Records of what was shown whose exposures were counted and committed.",
    _TENANT,
)
ATTRIBUTED = Counter(
    "headwater_attribution_records_total",
    "Answers of experiments, and events that may have come of them, matched and committed.",
    ["kind"],
)
for _kind in ("answer", "event"):  # at 0 before the first
    ATTRIBUTED.labels(_kind)
CUT = Counter(
    "headwater_attribution_cut_total",
    "Answers and events that were left out of matching because one user had too many of them.",
)
NEW_ITEMS = Gauge(
    "headwater_new_items",
    "Items of the catalogue that may be shown to be tried.",
    _TENANT,
    # Every worker tells the same.
    multiprocess_mode="mostrecent",
)

RANKINGS = ("rule", "learned", "served")
"""What is measured: the fixed formula, the model that the stream fits, and which of the two was
served when an event was predicted."""

EVALUATED = Counter(
    "headwater_predictions_total",
    "Sampled events that were predicted before they were learned.",
    _TENANT,
)
HITS = Counter(
    "headwater_prediction_hits_total",
    "Those of them whose item was among the first 20 of a ranking.",
    [*_TENANT, "ranking"],
)
RECIPROCAL = Counter(
    "headwater_prediction_reciprocal_ranks_total",
    "Sum over them of 1 / rank of the item in a ranking, 0 past rank 20.",
    [*_TENANT, "ranking"],
)
LEARNED_FROM = Counter(
    "headwater_learned_events_total", "Events that the learned ranking was fitted to.", _TENANT
)
LESSONS_LOST = Counter(
    "headwater_lessons_refused_total",
    "Updates of the learned ranking that were dropped because another worker's came first.",
    _TENANT,
)
LEADS = Gauge(
    "headwater_learned_ranking_served",
    "1 while the learned ranking is what is served, 0 while the rule is.",
    _TENANT,
    # Of the workers, whoever told last; a worker that ends changes nothing of what is served.
    multiprocess_mode="mostrecent",
)


def begin_at_zero(tenant: str) -> None:
    """Name what is counted of a tenant before the first of it is: without the 0 before, nobody
    would see the first ones as an increase.
    """
    for counter in _OF_TENANTS:
        counter.labels(tenant)
    for ranking in RANKINGS:
        HITS.labels(tenant, ranking)
        RECIPROCAL.labels(tenant, ranking)


def count_lesson(
    tenant: str, predictions: Sequence[Prediction], learned: int | None, leads: bool
) -> None:
    """Count what a committed batch predicted and learned; `learned` None where that was refused."""
    EVALUATED.labels(tenant).inc(len(predictions))
    for ranking in RANKINGS:
        ranks = [getattr(prediction, ranking) for prediction in predictions]
        shown = [rank for rank in ranks if 0 < rank <= SHOWN]
        HITS.labels(tenant, ranking).inc(len(shown))
        RECIPROCAL.labels(tenant, ranking).inc(sum(1 / rank for rank in shown))
    if learned is None:
        LESSONS_LOST.labels(tenant).inc()
    else:
        LEARNED_FROM.labels(tenant).inc(learned)
        LEADS.labels(tenant).set(leads)


_OF_TENANTS = (
    APPLIED,
    DUPLICATES,
    FORGOTTEN,
    VISIBLE,
    CONFLICTS,
    LOG_GAP,
    SHOWN_APPLIED,
    EVALUATED,
    LEARNED_FROM,
    LESSONS_LOST,
)
begin_at_zero(DEFAULT_TENANT)
