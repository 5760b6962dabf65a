"""Latencies as a histogram with three significant digits (HDR), filled after a run.

Recording one value takes about 1 µs of Python, so the hot loops of loads only append to a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hdrh.histogram import HdrHistogram

__all__ = ["LONGEST_SECONDS", "histogram", "latency_report"]

LONGEST_SECONDS = 600
"""Longer ones count as this long."""
_DIGITS = 3
_PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}


def histogram(seconds: Sequence[float]) -> HdrHistogram:
    """A histogram of microseconds."""
    made = HdrHistogram(1, LONGEST_SECONDS * 1_000_000, _DIGITS)
    values = np.clip(np.rint(np.array(seconds, np.float64) * 1e6), 1, LONGEST_SECONDS * 1_000_000)
    for value, count in zip(*np.unique(values.astype(np.int64), return_counts=True), strict=True):
        made.record_value(int(value), int(count))
    return made


def latency_report(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and the greatest in milliseconds; zeros where there is nothing."""
    found = histogram(seconds)
    report = {name: found.get_value_at_percentile(at) / 1000 for name, at in _PERCENTILES.items()}
    return report | {"max_ms": found.get_max_value() / 1000}
