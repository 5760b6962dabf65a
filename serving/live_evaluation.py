"""Progressive validation on the live stream: predict a sample of events before they are learned.

The share of them whose item was among the first 20 is the hit rate on the console.
"""

from __future__ import annotations

import time

import numpy as np
import structlog
from redis.exceptions import RedisError

from processors import metrics
from processors.fold import Folded
from processors.repeats import latest_items
from serving.rank import SessionItems
from serving.recommend import Recommender

__all__ = ["LiveEvaluation"]

log = structlog.get_logger("headwater.evaluation")

_SHOWN = 20
_BURST_SECONDS = 1.0


class LiveEvaluation:
    """Predicts at most `per_second` events, spread over the batches."""

    def __init__(self, recommender: Recommender, per_second: float, session_items: int) -> None:
        self._recommender = recommender
        self._per_second = per_second
        self._session_items = session_items
        self._allowed = per_second * _BURST_SECONDS
        self._last = time.monotonic()
        self._random = np.random.default_rng()

    async def predict(self, folded: Folded) -> None:
        """Predict a sample of a batch's events that have a prefix; count the hits."""
        now = time.monotonic()
        self._allowed = min(
            self._per_second * _BURST_SECONDS,
            self._allowed + (now - self._last) * self._per_second,
        )
        self._last = now
        prefixes = folded.prefixes
        count = min(int(self._allowed), len(prefixes.row))
        self._allowed -= count
        try:
            for row in self._random.choice(len(prefixes.row), count, replace=False).tolist():
                latest, times = latest_items(prefixes.items[row : row + 1], self._session_items)
                step = np.flatnonzero(latest[0])
                session = SessionItems(
                    prefixes.items[row, step],
                    step.astype(np.int64) + 1,
                    times[0, step],
                    int(prefixes.length[row]),
                )
                scored = await self._recommender.rank(session, _SHOWN)
                metrics.EVALUATED.inc()
                if folded.events.item[prefixes.row[row]] in scored.item:
                    metrics.HITS.labels("served").inc()
        except RedisError as error:
            # Only the measurement suffers; the commit right after meets the same error and waits.
            log.warning("prediction left out", error=str(error))
