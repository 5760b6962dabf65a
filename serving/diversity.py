"""Which of the best candidates to show, so that they are not all alike. Pure numpy.

Maximal marginal relevance (Carbonell & Goldstein, 1998). Shown next is the candidate with the most

    (1 − diversity) · score / best score  −  diversity · its greatest similarity to one shown

Two items are as similar as the cosine of their neighbour lists, each with the item itself in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from streams.columns import F64, I64

__all__ = ["Near", "diversify"]


class Near(Protocol):
    """What is near an item: the ranking's neighbour list is one."""

    @property
    def index(self) -> I64:
        """(k,) small ints of the neighbours, each once."""

    @property
    def strength(self) -> F64:
        """(k,) how near each is, not negative."""


def diversify(score: F64, own: I64, lists: Sequence[Near | None], n: int, diversity: float) -> I64:
    """The positions of the min(n, m) candidates to show, in the order in which to show them.

    `score` (m,) falls and is not negative; `own` (m,) are the candidates' small ints, and `lists`
    their m neighbours, or None where nothing is known of one. `diversity` is from 0, which keeps
    the order, to 1, where the scores choose the first alone. Ties go to the earlier position.
    """
    count = min(n, len(score))
    if diversity == 0 or count < 2:
        return np.arange(count)
    relevance = (1 - diversity) * (score / (score[0] or 1.0))
    vectors = _Vectors(own, lists)
    shown = np.zeros(count, np.int64)
    nearest = vectors.similarity(0)
    taken = np.zeros(len(score))
    taken[0] = np.inf
    for place in range(1, count):
        best = int(np.argmax(relevance - diversity * nearest - taken))
        shown[place] = best
        taken[best] = np.inf
        if place + 1 < count:
            np.maximum(nearest, vectors.similarity(best), out=nearest)
    return shown


class _Vectors:
    """Neighbour lists as sparse unit vectors over the items that occur in them.

    A vector is divided by its largest strength, so that what an item has of itself is 1 before the
    vectors are brought to unit length; a list that already names its own item does not add to that.
    Kept are only coordinates that at least two candidates have: others add to no similarity.
    """

    def __init__(self, own: I64, lists: Sequence[Near | None]) -> None:
        m = len(own)
        size = np.array([0 if known is None else len(known.index) for known in lists])
        full = [known for known in lists if known is not None and len(known.index)]
        index = np.concatenate([known.index for known in full]) if full else own[:0]
        strength = np.concatenate([known.strength for known in full]) if full else np.zeros(0)
        row = np.repeat(np.arange(m), size)
        if full:
            starts = (np.cumsum(size) - size)[size > 0]
            largest = np.maximum.reduceat(strength, starts)
            strength = strength / np.repeat(np.where(largest > 0, largest, 1.0), size[size > 0])
        strength[index == own[row]] = 0
        norm = np.sqrt(1 + np.bincount(row, strength * strength, m))
        _, column, times = np.unique(
            np.concatenate([index, own]), return_inverse=True, return_counts=True
        )
        self._own_column = column[len(index) :]
        self._own_strength = 1 / norm
        kept = (times[column[: len(index)]] > 1) & (strength > 0)
        row = row[kept]
        self._column = column[: len(index)][kept]
        self._strength = strength[kept] / norm[row]
        # Where each candidate's coordinates start; reduceat takes no empty ones.
        sizes = np.bincount(row, minlength=m)
        self._ends = np.cumsum(sizes)
        self._filled = np.flatnonzero(sizes)
        self._starts = (self._ends - sizes)[self._filled]
        self._sizes = sizes
        self._dense = np.zeros(len(times))

    def similarity(self, one: int) -> F64:
        """(m,) cosines of candidate `one` with every candidate."""
        end = self._ends[one]
        part = slice(end - self._sizes[one], end)
        dense = self._dense
        dense[self._column[part]] = self._strength[part]
        dense[self._own_column[one]] = self._own_strength[one]
        found = self._own_strength * dense[self._own_column]
        if len(self._filled):
            products = self._strength * dense[self._column]
            found[self._filled] += np.add.reduceat(products, self._starts)
        dense[self._column[part]] = 0
        dense[self._own_column[one]] = 0
        return found
