"""What is popular when: weights of items in buckets of time, for trending windows; and how much
of an item is recent.

A window of an hour is summed from buckets of 5 minutes, one of 24 hours from hours, one of 7 days
from days; what a batch adds is told in the shortest ones, and the store adds it to the others.
Buckets follow the events' own times, so a replay rebuilds them. Recent events are counted with a
decay of their own, `RECENT` times as fast as that of the counts. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from config.compiled import compiled
from processors.grouping import sum_by_key
from streams.columns import F64, I64, U64

__all__ = [
    "GRANULARITIES",
    "RECENT",
    "WINDOWS",
    "Granularity",
    "TrendRows",
    "buckets_of",
    "count_recent",
    "count_trend",
]

RECENT = 20.0
"""Recent events halve in this part of the counts' half-life."""


@dataclass(frozen=True, slots=True)
class Granularity:
    """One size of buckets, and the window that is summed from it."""

    seconds: int
    """Length of a bucket."""
    buckets: int
    """Buckets in the window."""

    @property
    def keep_seconds(self) -> int:
        """How long a bucket is kept after its last event came in."""
        return self.seconds * (self.buckets + 2)


GRANULARITIES = (Granularity(300, 12), Granularity(3600, 24), Granularity(86_400, 7))
WINDOWS = {"1h": 0, "24h": 1, "7d": 2}
"""Names of the windows, and their place in GRANULARITIES."""


@dataclass(frozen=True, slots=True)
class TrendRows:
    """Weights to add, at most one row for each item and bucket of the shortest length."""

    bucket: I64
    """Number of the bucket since 1970."""
    item: U64
    weight: F64


def buckets_of(window: str, latest: int) -> range:
    """The buckets of a window that ends with the one of `latest` (seconds since 1970)."""
    granularity = GRANULARITIES[WINDOWS[window]]
    last = latest // granularity.seconds
    return range(last - granularity.buckets + 1, last + 1)


def count_recent(code: I64, time: I64, n: int, rate: float) -> tuple[F64, I64]:
    """Decayed numbers of events (n,) of items 0 … n-1, each of which must occur in `code`, and the
    times (n,) at which they hold: those of their latest events, rounded up to seconds.

    `time` is in ms, `rate` that of `processors.cooccurrence.decay_rate`.
    """
    return _decayed(code, time, n, RECENT * rate)


@compiled("Tuple((f8[::1], i8[::1]))(i8[::1], i8[::1], i8, f8)")
def _decayed(code: I64, time: I64, n: int, rate: float) -> tuple[F64, I64]:
    latest = np.zeros(n, np.int64)
    for i in range(len(code)):
        latest[code[i]] = max(latest[code[i]], -(-time[i] // 1000))
    count = np.zeros(n)
    for i in range(len(code)):
        count[code[i]] += np.exp(-rate * (latest[code[i]] - time[i] / 1000.0))
    return count, latest


def count_trend(ids: U64, code: I64, time: I64, weight: F64) -> TrendRows:
    """Sum the weights of events (n,) of items `ids[code]` by bucket and item. `time` is in ms."""
    some = weight > 0
    bucket = time[some] // (1000 * GRANULARITIES[0].seconds)
    cells, sums = sum_by_key(bucket * len(ids) + code[some], weight[some])
    bucket, item = np.divmod(cells, max(len(ids), 1))
    return TrendRows(bucket, ids[item], sums)
