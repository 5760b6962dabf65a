"""Filling up: what is trending, where the ranking has too little to show."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from store.found import Trending
from streams.columns import F64, U64

__all__ = ["fill_up"]

_BELOW = 0.999
"""The heaviest trending item's share of the least score before it."""


def fill_up(
    item: U64,
    score: F64,
    n: int,
    left_out: U64 | None,
    windows: Sequence[Trending],
    liked: Collection[str],
) -> tuple[U64, F64]:
    """At least the k items given, and trending ones behind them up to n, as far as there are any.

    The windows are taken one after the other. Within one, items of the `liked` categories go first,
    and of these, as of the others, the heaviest. Nothing is shown twice or that is `left_out`.

    Weights of trending items are no scores. Behind others they are scaled to fall from just below
    the least score before them; where nothing stands before them, they are told as they are.
    """
    items, scores = item.tolist(), score.tolist()
    taken = set(items)
    if left_out is not None:
        taken.update(left_out.tolist())
    floor = min(scores, default=None)
    for window in windows:
        missing = n - len(items)
        if missing <= 0:
            break
        ids = window.item.tolist()
        new = _best(window, ids, taken, liked, missing)
        if not new:
            continue
        weights = [float(window.weight[place]) for place in new]
        scale = 1.0 if floor is None else _BELOW * floor / max(weights)
        floor = np.inf
        for place, weight in zip(new, weights, strict=True):
            floor = min(floor, weight * scale)
            items.append(ids[place])
            scores.append(floor)
        taken.update(items[-len(new) :])
    return np.array(items, np.uint64), np.array(scores, np.float64)


def _best(
    window: Trending, ids: list[int], taken: set[int], liked: Collection[str], missing: int
) -> list[int]:
    """Places of the first items to show, at most `missing`."""
    fitting: list[int] = []
    others: list[int] = []
    for place, one in enumerate(ids):
        if one in taken:
            continue
        if liked and window.category[place] in liked:
            fitting.append(place)
        elif len(others) < missing:
            others.append(place)
        if len(fitting) >= missing or (not liked and len(others) >= missing):
            break
    return (fitting + others)[:missing]
