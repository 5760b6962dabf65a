"""Filling up: what is trending, where the ranking has too little to show. Pure numpy."""

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
    items, scores = [item], [score]
    taken = item if left_out is None else np.concatenate([item, left_out])
    missing = n - len(item)
    floor = float(score.min()) if len(score) else None
    for window in windows:
        if missing <= 0:
            break
        new = np.flatnonzero(~np.isin(window.item, taken))
        fits = np.array([window.category[place] in liked for place in new.tolist()], np.bool_)
        new = new[np.argsort(~fits, kind="stable")][:missing]
        if not len(new):
            continue
        weight = window.weight[new]
        if floor is not None:
            weight = weight * (_BELOW * floor / weight.max())
        falling = np.minimum.accumulate(weight)
        items.append(window.item[new])
        scores.append(falling)
        floor = float(falling[-1])
        taken = np.concatenate([taken, items[-1]])
        missing -= len(new)
    return np.concatenate(items), np.concatenate(scores)
