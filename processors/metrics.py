"""What a worker counts for Prometheus. Shared between processes by prometheus-client's files."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from processors.learning import Prediction
from processors.standing import SHOWN

__all__ = [
    "APPLIED",
    "CONFLICTS",
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
    "TOPICS_REMADE",
    "VISIBLE",
    "count_lesson",
]

APPLIED = Counter("headwater_events_applied_total", "Events counted and committed.")
DUPLICATES = Counter(
    "headwater_events_duplicate_total", "Events whose event_id was counted before."
)
REJECTED = Counter(
    "headwater_events_rejected_total", "Events that went to the dead letters.", ["reason"]
)
FORGOTTEN = Counter(
    "headwater_tombstones_applied_total",
    "Records that had a user forgotten, committed.",
)
VISIBLE = Histogram(
    "headwater_event_visible_seconds",
    "Broker time of an event to its commit, sampled within each batch.",
    buckets=(0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
LAG = Gauge(
    "headwater_consumer_lag_records",
    "Records between what the store contains and the log's end.",
    ["topic", "partition"],
    multiprocess_mode="livemostrecent",
)
CONFLICTS = Counter(
    "headwater_commits_refused_total", "Commits refused because another worker was first."
)
LOG_GAP = Counter(
    "headwater_log_gap_records_total",
    "Records that the log had lost before they were read.",
)
TOPICS_REMADE = Counter(
    "headwater_topics_remade_total",
    "Shards' topics that were found deleted and made again, and begun anew.",
    ["topic"],
)
SHOWN_APPLIED = Counter(
    "headwater_recommendations_applied_total",
    "Records of what was shown whose exposures were counted and committed.",
)
NEW_ITEMS = Gauge(
    "headwater_new_items",
    "Items of the catalogue that may be shown to be tried.",
    # Every worker tells the same.
    multiprocess_mode="mostrecent",
)

RANKINGS = ("rule", "learned", "served")
"""What is measured: the fixed formula, the model that the stream fits, and which of the two was
served when an event was predicted."""

EVALUATED = Counter(
    "headwater_predictions_total", "Sampled events that were predicted before they were learned."
)
HITS = Counter(
    "headwater_prediction_hits_total",
    "Those of them whose item was among the first 20 of a ranking.",
    ["ranking"],
)
RECIPROCAL = Counter(
    "headwater_prediction_reciprocal_ranks_total",
    "Sum over them of 1 / rank of the item in a ranking, 0 past rank 20.",
    ["ranking"],
)
for _ranking in RANKINGS:  # at 0 before the first prediction
    HITS.labels(_ranking)
    RECIPROCAL.labels(_ranking)
LEARNED_FROM = Counter(
    "headwater_learned_events_total", "Events that the learned ranking was fitted to."
)
LESSONS_LOST = Counter(
    "headwater_lessons_refused_total",
    "Updates of the learned ranking that were dropped because another worker's came first.",
)
LEADS = Gauge(
    "headwater_learned_ranking_served",
    "1 while the learned ranking is what is served, 0 while the rule is.",
    # Of the workers, whoever told last; a worker that ends changes nothing of what is served.
    multiprocess_mode="mostrecent",
)


def count_lesson(predictions: Iterable[Prediction], learned: int | None, leads: bool) -> None:
    """Count what a committed batch predicted and learned; `learned` None where that was refused."""
    for prediction in predictions:
        EVALUATED.inc()
        for ranking in RANKINGS:
            rank = getattr(prediction, ranking)
            if 0 < rank <= SHOWN:
                HITS.labels(ranking).inc()
                RECIPROCAL.labels(ranking).inc(1 / rank)
    if learned is None:
        LESSONS_LOST.inc()
    else:
        LEARNED_FROM.inc(learned)
        LEADS.set(leads)
