"""How often the next event of a session repeats an item of it, counted from the stream.

Each event is first looked at as the outcome of a prediction: for every item of its prefix there was
an opportunity to be repeated. Opportunities and hits are counted in cells of

    distance of the item's latest occurrence from the session's end (1 … WINDOW),
    times it was seen in the prefix (1, 2, 3 or more),
    ⌈log2 of the session's length⌉ (0 … 5),

and the repeat prior is P = (hits + 0.02) / (opportunities + 1) in the item's cell. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from processors.session import WINDOW, Prefixes
from streams.columns import F64, I64, U64, Bool

__all__ = ["CELLS", "Repeats", "cell_of", "count_repeats", "latest_items", "repeat_prior"]

_TIMES = 3
_LENGTHS = 6
CELLS = WINDOW * _TIMES * _LENGTHS


@dataclass(frozen=True, slots=True)
class Repeats:
    """Opportunities of a batch, one row each."""

    cell: I64
    hit: Bool
    row: I64
    """Which event of the batch was the outcome."""


def cell_of(distance: I64, times: I64, length: I64 | np.int64) -> I64:
    """Number of the cell: all arguments count from 1; one `length` serves all."""
    bits = np.minimum(np.ceil(np.log2(length)), _LENGTHS - 1).astype(np.int64)
    times = np.minimum(times, _TIMES)
    return ((distance - 1) * _TIMES + times - 1) * _LENGTHS + bits


def latest_items(items: U64, most: int) -> tuple[Bool, I64]:
    """Which of (p, w) prefix items, latest first, are an item's latest occurrence, and how often
    the item stands in its row. Only the `most` latest distinct items of a row are marked.
    """
    width = items.shape[1]
    latest = np.zeros(items.shape, np.bool_)
    times = np.zeros(items.shape, np.int64)
    filled = (items != 0).sum(axis=1)
    nearer = np.tri(width, k=-1, dtype=np.bool_)
    # Comparing all steps with all is cheap for short prefixes, which most are.
    low = 0
    for high in (2, 4, 8, 16, WINDOW):
        rows = np.flatnonzero((filled > low) & (filled <= high))
        low = high
        if not len(rows):
            continue
        part = items[rows, : min(high, width)]
        same = part[:, :, None] == part[:, None, :]
        present = part != 0
        again = (same & nearer[: part.shape[1], : part.shape[1]]).any(axis=2)
        latest[rows, : part.shape[1]] = present & ~again
        times[rows, : part.shape[1]] = (same & present[:, None, :]).sum(axis=2)
    latest &= np.cumsum(latest, axis=1) <= most
    return latest, times


def count_repeats(prefixes: Prefixes, outcome: U64, most: int) -> Repeats:
    """Opportunities and hits of prefixes whose next item was `outcome` (p,).

    `most` is how many distinct items of a session are looked at (setting `rank.session_items`).
    """
    latest, times = latest_items(prefixes.items, most)
    which, step = np.nonzero(latest)
    cell = cell_of(step + 1, times[which, step], prefixes.length[which])
    hit = prefixes.items[which, step] == outcome[which]
    return Repeats(cell, hit, prefixes.row[which])


def repeat_prior(opportunities: F64, hits: F64) -> F64:
    """P of the next event repeating an item, for every cell (CELLS,)."""
    prior: F64 = (hits + 0.02) / (opportunities + 1.0)
    return prior
