"""What the console shows, from the metrics of all processes: computed once a second.

Rates and quantiles are differences between samples of the last seconds, of which a bounded number
is kept. How well the rankings predict over longer windows is in `evaluated.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog
from prometheus_client.core import Metric

from processors.metrics import RANKINGS
from serving import metrics
from serving.evaluated import NEWEST, WINDOWS, Counted, Evaluation, Minutes, between

__all__ = ["Sample", "Status", "quantile", "sample_of"]

log = structlog.get_logger("headwater.status")

_HISTORY = 300
"""Samples are kept for as many seconds at least."""
_SPARK = 60
_RATE_SECONDS = 5
_FRESH_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Sample:
    """The metrics at one moment."""

    at: float
    """time.monotonic()."""
    applied: float = 0
    lag: float | None = None
    """Records behind the log's end; None where no worker tells."""
    visible: tuple[tuple[float, float], ...] = ()
    """(upper bound in seconds, events up to it), rising."""
    counted: Counted = field(default_factory=Counted)
    served: str = "rule"
    """Which ranking is served; the rule unless a worker tells otherwise."""


def sample_of(collected: Iterable[Metric], at: float) -> Sample:
    """What matters here of all metrics."""
    applied = predictions = 0.0
    hits, reciprocal = (dict.fromkeys(RANKINGS, 0.0) for _ in range(2))
    lag: float | None = None
    served = "rule"
    visible: dict[float, float] = {}
    for metric in collected:
        for sample in metric.samples:
            match sample.name:
                case "headwater_events_applied_total":
                    applied += sample.value
                case "headwater_consumer_lag_records":
                    lag = (lag or 0) + sample.value
                case "headwater_event_visible_seconds_bucket":
                    bound = float(sample.labels["le"])
                    visible[bound] = visible.get(bound, 0) + sample.value
                case "headwater_predictions_total":
                    predictions += sample.value
                case "headwater_prediction_hits_total":
                    hits[sample.labels["ranking"]] += sample.value
                case "headwater_prediction_reciprocal_ranks_total":
                    reciprocal[sample.labels["ranking"]] += sample.value
                case "headwater_learned_ranking_served":
                    served = "learned" if sample.value else "rule"
    return Sample(
        at,
        applied,
        lag,
        tuple(sorted(visible.items())),
        Counted(predictions, tuple(hits.values()), tuple(reciprocal.values())),
        served,
    )


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


class Status:
    """Samples once a second; everybody who watches gets the same answer."""

    def __init__(self, lag_seconds: Callable[[], float | None]) -> None:
        """`lag_seconds` tells how far the store is behind the log (`backlog.py`)."""
        self._lag_seconds = lag_seconds
        self._samples: deque[Sample] = deque(maxlen=_HISTORY + 1)
        self._minutes = Minutes()
        self._evaluation: dict[str, Evaluation] = dict.fromkeys(
            WINDOWS, between(Counted(), Counted())
        )
        self._latest: dict[str, Any] = {}
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Sample once a second, forever."""
        while True:
            try:
                # In a thread: the files of many processes take longer than a request may wait.
                self.add(await asyncio.to_thread(_read))
            except Exception:  # a file that a dying process left half written
                log.warning("metrics cannot be read", exc_info=True)
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(1)

    async def next(self) -> dict[str, Any]:
        """The next second's numbers."""
        async with self._changed:
            await self._changed.wait()
        return self._latest

    @property
    def latest(self) -> dict[str, Any]:
        """The last second's numbers; empty before the first."""
        return self._latest

    def evaluation(self) -> Mapping[str, Evaluation]:
        """By window of `evaluated.WINDOWS`: how the rankings predicted in it.

        A window that reaches back before the first sample covers what there is.
        """
        return self._evaluation

    def add(self, sample: Sample) -> None:
        """Take one sample in and compute what is shown."""
        self._samples.append(sample)
        self._minutes.add(sample.at, sample.counted)
        self._evaluation = {
            window: between(self._counted_before(seconds), sample.counted)
            for window, seconds in WINDOWS.items()
        }
        newest = self._evaluation[NEWEST].rankings["served"]
        fresh = self._delta_visible(_FRESH_SECONDS)
        p50, p99 = quantile(fresh, 0.5), quantile(fresh, 0.99)
        rate = self._since(_RATE_SECONDS)
        seconds = sample.at - rate.at
        self._latest = {
            "events_per_second": max(0.0, sample.applied - rate.applied) / seconds
            if seconds > 0
            else 0.0,
            "events": sample.applied,
            "visible_p50_ms": None if p50 is None else p50 * 1000,
            "visible_p99_ms": None if p99 is None else p99 * 1000,
            "lag_records": sample.lag,
            "lag_seconds": self._lag_seconds(),
            "hit_rate": newest.hit_rate,
            "mrr": newest.mrr,
            "served": sample.served,
            "evaluation": {
                window: {
                    "predictions": found.predictions,
                    **{ranking: asdict(shares) for ranking, shares in found.rankings.items()},
                }
                for window, found in self._evaluation.items()
            },
            "history": self._spark(),
        }

    def _since(self, seconds: float) -> Sample:
        """The newest sample at least that old, else the oldest."""
        limit = self._samples[-1].at - seconds
        for sample in reversed(self._samples):
            if sample.at <= limit:
                return sample
        return self._samples[0]

    def _counted_before(self, seconds: float) -> Counted:
        if seconds <= _HISTORY:
            return self._since(seconds).counted
        return self._minutes.before(self._samples[-1].at - seconds)

    def _delta_visible(self, seconds: float) -> list[tuple[float, float]]:
        before = dict(self._since(seconds).visible)
        return [(bound, count - before.get(bound, 0)) for bound, count in self._samples[-1].visible]

    def _spark(self) -> list[float]:
        last = list(self._samples)[-_SPARK - 1 :]
        return [
            round(max(0.0, b.applied - a.applied) / max(b.at - a.at, 0.1), 1)
            for a, b in itertools.pairwise(last)
        ]


def _read() -> Sample:
    return sample_of(metrics.collect(), time.monotonic())
