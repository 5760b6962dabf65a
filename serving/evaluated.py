"""Hit rate and mean reciprocal rank of every ranking over the latest minutes, hour and day.

A share over a window is a difference between two moments' counters. One moment a minute is kept,
for a day; the window of 5 minutes has the moments of its own seconds, which the caller holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from processors.metrics import RANKINGS

__all__ = ["NEWEST", "WINDOWS", "Counted", "Evaluation", "Minutes", "Shares", "between"]

WINDOWS = {"5m": 300, "1h": 3600, "24h": 86_400}
"""Names of the windows, and their seconds."""
NEWEST = "5m"
"""The window that the headline numbers are of."""

_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Counted:
    """What was predicted up to one moment, in all processes."""

    predictions: float = 0
    hits: tuple[float, ...] = (0,) * len(RANKINGS)
    """By ranking, in the order of RANKINGS; items among the first 20."""
    reciprocal: tuple[float, ...] = (0,) * len(RANKINGS)
    """By ranking; sum of 1/rank."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How one ranking did in one window; None while nothing was predicted in it."""

    hit_rate: float | None
    """0 to 1."""
    mrr: float | None
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How all rankings did in one window."""

    predictions: float
    rankings: Mapping[str, Shares]


def between(first: Counted, last: Counted) -> Evaluation:
    """What was predicted after `first`, up to `last`."""
    count = max(0.0, last.predictions - first.predictions)

    def share(before: float, after: float) -> float | None:
        return (after - before) / count if count else None

    return Evaluation(
        count,
        {
            ranking: Shares(
                share(first.hits[at], last.hits[at]),
                share(first.reciprocal[at], last.reciprocal[at]),
            )
            for at, ranking in enumerate(RANKINGS)
        },
    )


class Minutes:
    """One moment a minute, for the longest window; older ones are forgotten."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, Counted]] = deque(
            maxlen=max(WINDOWS.values()) // _MINUTE + 1
        )

    def add(self, at: float, counted: Counted) -> None:
        """Keep this moment if the one before it is a minute old. `at` in seconds, rising."""
        if not self._kept or at - self._kept[-1][0] >= _MINUTE:
            self._kept.append((at, counted))

    def before(self, at: float) -> Counted:
        """The newest moment that is not after `at`, else the oldest. Raises IndexError if none."""
        for kept, counted in reversed(self._kept):
            if kept <= at:
                return counted
        return self._kept[0][1]
