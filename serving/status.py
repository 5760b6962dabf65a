"""What the console shows, from the metrics of all processes: computed once a second.

Rates and quantiles are differences between samples of the last seconds, of which a bounded number
is kept (`samples.py`). How well the rankings predict over longer windows is in `evaluated.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import structlog

from serving import metrics
from serving.evaluated import NEWEST, WINDOWS, Counted, Evaluation, Minutes, between
from serving.samples import Sample, newer, quantile, samples_of

__all__ = ["Readings", "Status"]

log = structlog.get_logger("headwater.status")

_HISTORY = 300
"""Samples are kept for as many seconds at least."""
_SPARK = 60
_RATE_SECONDS = 5
_FRESH_SECONDS = 30


class Status:
    """What is shown of one tenant; everybody who watches gets the same answer."""

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

    async def tell(self) -> None:
        """Let go of who waits for the next second's numbers."""
        async with self._changed:
            self._changed.notify_all()

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
        past = self._since(_FRESH_SECONDS)
        fresh = newer(past.visible, sample.visible)
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
            **self._served(sample),
        }

    def _served(self, sample: Sample) -> dict[str, Any]:
        """What those who ask got of late, and what could not be counted since workers began."""
        past, long_past = self._since(_FRESH_SECONDS), self._since(_HISTORY)
        took = newer(past.answers, sample.answers)
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        seconds = sample.at - past.at
        count = took[-1][1] if took else 0.0
        degraded = {
            cause: more
            for cause, value in sample.degraded.items()
            if (more := value - long_past.degraded.get(cause, 0)) > 0
        }
        return {
            "answers_per_second": max(0.0, count) / seconds if seconds > 0 else 0.0,
            "answer_p50_ms": None if p50 is None else p50 * 1000,
            "answer_p99_ms": None if p99 is None else p99 * 1000,
            "failed": max(0.0, sample.failed - long_past.failed),
            "shed": max(0.0, sample.shed - long_past.shed),
            "degraded": degraded,
            "rejected": {reason: value for reason, value in sample.rejected.items() if value > 0},
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

    def _spark(self) -> list[float]:
        last = list(self._samples)[-_SPARK - 1 :]
        return [
            round(max(0.0, b.applied - a.applied) / max(b.at - a.at, 0.1), 1)
            for a, b in itertools.pairwise(last)
        ]


class Readings:
    """Samples the metrics of all processes once a second, for every tenant's status."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        """By tenant."""

    def evaluations(self) -> Mapping[str, Mapping[str, Evaluation]]:
        """By tenant: how the rankings predicted."""
        return {tenant: one.evaluation() for tenant, one in list(self.statuses.items())}

    async def run(self) -> None:
        """Sample once a second, forever."""
        while True:
            try:
                # In a thread: the files of many processes take longer than a request may wait.
                found, at = await asyncio.to_thread(_read)
                for tenant, status in self.statuses.items():
                    status.add(found.get(tenant, Sample(at)))
            except Exception:  # a file that a dying process left half written
                log.warning("metrics cannot be read", exc_info=True)
            for status in list(self.statuses.values()):
                await status.tell()
            await asyncio.sleep(1)


def _read() -> tuple[dict[str, Sample], float]:
    at = time.monotonic()
    return samples_of(metrics.collect(), at), at
